"""Runs of the command that take a second: small networks, few steps."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from icnn_rl.agents.runs.checkpoint import read_checkpoint
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.outputs import AgentFolder
from icnn_rl.cli import main
from icnn_rl.runs.configuration import find_preset, parse_config

TINY = [
    "--agent.learning_starts=40",
    "--agent.learning_rate_end_factor=1",  # else the first steps would depend on their total
    "--agent.batch_size=16",
    "--agent.buffer_size=1000",
    "--agent.policy_kwargs.context=[16]",
    "--agent.policy_kwargs.convex=[8]",
    "--training.evaluation_episodes=2",
    '--env.kwargs={"max_episode_steps": 70}',
    "--training.video=false",
]


def preset(name: str, *arguments: str) -> Config:
    """The configuration of a preset, with further arguments."""
    return parse_config(Config, [f"--config={find_preset(name, 'train')}", *arguments])


def train(run: Path, steps: int, *arguments: str, env: str = "Pendulum-v1") -> int:
    """The exit code of a tiny training run."""
    ours = not any(argument.startswith("--algorithm=") for argument in arguments)
    tiny = [option for option in TINY if ours or not option.startswith("--agent.")]
    options = [f"--training.steps={steps}", "--run-dir", str(run)]
    return main(["train", "--env", env, *tiny, *options, *arguments])


def evaluations(run: Path) -> list[dict[str, str]]:
    """The evaluations of a run, without clock times."""
    with (run / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "training_seconds"} for row in rows]


def begin(run: Path, *arguments: str) -> subprocess.Popen[str]:
    """A tiny training run without end, in a process of its own."""
    command = ["train", "--env", "Pendulum-v1", *TINY, "--training.steps=1000000"]
    return subprocess.Popen(
        [sys.executable, "-m", "icnn_rl", *command, "--run-dir", str(run), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def state(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run without clock times, and what was written down on the way."""
    path = AgentFolder(run).last_checkpoint()
    assert path is not None
    state = read_checkpoint(path)
    del state["run"], state["logged"]
    for env in state["environments"] or []:
        for path in [path for path in env if path.endswith((".t_start", ".episode_times"))]:
            del env[path]
    for episode in state["statistics"]["ep_info_buffer"]:
        del episode["t"]
    return state


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two trees of plain data differ in as much as one bit."""
    if type(a) is not type(b):
        return [path]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [path]
        return [d for key in a for d in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [path]
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{path}[{i}]")]
    if isinstance(a, np.random.Generator):
        return differences(a.bit_generator.state, b.bit_generator.state, path)
    if isinstance(a, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    if isinstance(a, np.ndarray):
        return [] if a.dtype == b.dtype and np.array_equal(a, b) else [path]
    return [] if a == b else [path]

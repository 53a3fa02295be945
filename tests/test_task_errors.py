"""Errors of the user's task are shown as such; what does not fit is refused in one sentence."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from tiny_runs import TINY, train

from icnn_rl.agents.runs.config import EnvironmentConfig
from icnn_rl.agents.runs.environments import make_environment
from icnn_rl.agents.runs.portable import FORMAT
from icnn_rl.cli import main
from icnn_rl.runs.process import TaskError, memory, task_code
from icnn_rl.runs.storage import read_json, write_json


class Faulty(gym.Env[np.ndarray, np.ndarray]):
    """A task that raises an error of its own somewhere.

    Args:
        where: the method.
        shape: of its observations, images if there are three axes.
    """

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, where: str = "", shape: tuple[int, ...] = (2,)) -> None:
        self.where = where
        pixels = len(shape) == 3
        low, high, kind = (0, 255, np.uint8) if pixels else (-1, 1, np.float32)
        self.observation_space = spaces.Box(low, high, shape, kind)
        self.fail_in("__init__")

    def fail_in(self, method: str) -> None:
        if method == self.where:
            raise ValueError(f"no reply from robot 7 in {method}")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.fail_in("reset")
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> Any:
        self.fail_in("step")
        return self.observation_space.sample(), 0.0, True, False, {}


gym.register("Faulty-v0", Faulty)


def kwargs(**values: Any) -> str:
    return f"--env.kwargs={json.dumps(values)}"


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("__init__", "the task 'Faulty-v0' cannot be made"),
        ("reset", "reset() of the task failed"),
        ("step", "step() of the task failed"),
    ],
)
def test_an_error_of_the_task_is_shown_with_its_place(
    where: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", 60, kwargs(where=where), env="Faulty-v0") == 1
    first, *trace = capsys.readouterr().err.splitlines()
    assert first == f"icnn-rl: {sentence}:"
    assert trace[0] == "Traceback (most recent call last):"
    assert f'test_task_errors.py", line {Faulty.fail_in.__code__.co_firstlineno + 2}' in trace[-3]
    assert trace[-1] == f"ValueError: no reply from robot 7 in {where}"
    assert not any("training.py" in line for line in trace)


@pytest.mark.parametrize(
    ("content", "error"),
    [("import gymnasium\nraise ValueError('bad module')", "ValueError: bad module"), ("?", "?")],
)
def test_an_error_in_the_module_of_a_task_is_shown_with_its_place(
    content: str,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken_module.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    assert train(tmp_path / "run", 60, env="broken_module:Task-v0") == 1
    message = capsys.readouterr().err
    assert message.startswith("icnn-rl: the task 'broken_module:Task-v0' cannot be made:\n")
    assert error in message
    assert "broken_module.py" in message


def test_an_error_of_the_task_crosses_processes() -> None:
    with pytest.raises(TaskError) as caught, task_code("it failed"):
        Faulty("reset").reset()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.trace) == ("it failed", caught.value.trace)
    assert "robot 7" in copy.trace


@pytest.mark.slow
def test_a_graphics_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = ["train", "--env=HalfCheetah-v5", *TINY, f"--run-dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "icnn_rl", *command],
        env=os.environ | {"MUJOCO_GL": "nonsense"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "MUJOCO_GL=nonsense is no graphics library that works here" in done.stderr
    assert done.stderr.count("\n") == 1


NO_DEVICE = "device: expected one that PyTorch can use here"
TERABYTES = kwargs(shape=[4, 4000, 4000])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--env=Faulty-v0", kwargs(shape=[20, 20, 3])],
            "expected images of at least 36 × 36 pixels, as the features extractor NatureCNN "
            "needs them, got the shape (20, 20, 3)",
        ),
        (
            ["--env=Faulty-v0", TERABYTES, "--agent.buffer_size=1000000"],
            "the replay buffer of 100,000 steps would not fit the memory (12800",
        ),
        (
            ["--env=Faulty-v0", TERABYTES, "--agent.buffer_size=1000000", "--training.steps=1"],
            "lower agent.buffer_size, or agent.policy_kwargs.context, agent.policy_kwargs.convex",
        ),
        (
            ["--env=Faulty-v0", TERABYTES, "--algorithm=sac"],
            "lower baseline.buffer_size, or baseline.policy_kwargs.net_arch",
        ),
        (
            ["--env=Pendulum-v1", "--agent.policy_kwargs.context=[900000, 900000]"],
            "the networks would not fit the memory (32400.0 of",
        ),
        (
            [
                "--env=Pendulum-v1",
                "--algorithm=td3",
                "--baseline.policy_kwargs.net_arch=[900000, 900000]",
            ],
            "lower baseline.buffer_size, or baseline.policy_kwargs.net_arch",
        ),
        (["--env=Pendulum-v1", "--device=mps"], NO_DEVICE),
        (["--env=Pendulum-v1", "--device=xpu"], NO_DEVICE),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("icnn-rl: ")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


def test_the_memory_of_this_machine_is_known() -> None:
    assert 2**28 < memory() < 2**50


def test_a_render_mode_of_the_user_does_not_keep_a_video_from_being_made() -> None:
    config = EnvironmentConfig(kwargs={"render_mode": "human"})
    env = make_environment(config, render_mode="rgb_array")
    env.reset()
    assert np.asarray(env.render()).shape[-1] == 3
    env.close()


def test_a_device_that_is_not_here_is_named_with_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, 60) == 0
    text = (run / "config.yaml").read_text().partition("\n")[2]  # without the checksum
    for device in ("mps", "nonsense"):
        (run / "config.yaml").write_text(text.replace("device: auto", f"device: {device}"))
        assert main(["resume", str(run), "--steps=90"]) == 2
        error = capsys.readouterr().err
        assert (
            f"config.yaml: device: expected one that PyTorch can use here, got '{device}'" in error
        )

    # An agent acts anywhere; its description may still be damaged.
    description = read_json(run / "model.json", FORMAT)
    for device, code, message in (
        ("mps", 0, "mps is not here: the agent acts on the CPU"),
        ("nonsense", 2, f"model.json: {NO_DEVICE}"),
    ):
        description["config"]["device"] = device
        write_json(description, run / "model.json", FORMAT)
        assert main(["evaluate", str(run), "--episodes=1"]) == code
        assert message in "".join(capsys.readouterr())

"""A trained agent as two files that run no code when they are read.

``model.safetensors`` holds the weights and the statistics of the normaliser as plain arrays,
``model.json`` the configuration of the agent and its task.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.runs.checkpoint import running_statistics
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.environments import make_training_environments
from icnn_rl.runs.configuration import from_plain, to_plain
from icnn_rl.runs.storage import replacing

FORMAT = "icnn-rl model 1"
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
POLICY, NORMALIZER = "policy.", "normalizer."


def save_portable(model: OffPolicyAlgorithm, config: Config, folder: Path) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a folder."""
    tensors = {POLICY + name: t.contiguous() for name, t in model.policy.state_dict().items()}
    for name, array in _normalizer(model.get_vec_normalize_env()).items():
        tensors[NORMALIZER + name] = torch.as_tensor(np.array(array))
    description = {
        "format": FORMAT,
        "steps": model.num_timesteps,
        "observation_space": str(model.observation_space),
        "action_space": str(model.action_space),
        "config": to_plain(config),
    }
    with replacing(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": FORMAT})
    with replacing(folder / DESCRIPTION) as temporary:
        temporary.write_text(json.dumps(description, indent=2) + "\n", "utf-8")


def read_description(folder: Path) -> Config:
    """The configuration of a saved agent.

    Raises:
        ValueError: there is no agent in the folder, or its description is damaged.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ValueError(f"{folder} holds no trained agent: there is no {DESCRIPTION} in it")
    try:
        description: Any = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path} is not the description of an {FORMAT}")
    if not isinstance(plain := description.get("config"), dict):
        raise ValueError(f"{path} is damaged: its config is no mapping of keys to values")
    return from_plain(Config, plain, str(path))


def load_portable(
    folder: Path, environment: str | None = None
) -> tuple[OffPolicyAlgorithm, Config]:
    """The agent in a folder, with its configuration, ready to act.

    Args:
        folder: with the agent's two files.
        environment: id of its task; has to be given where it names a module, which is imported.

    Raises:
        ValueError: there is none, or its files are damaged or do not fit each other.
    """
    config = read_description(folder)
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no trained agent: there is no {WEIGHTS} in it") from None
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no weights: {error}") from None
    if environment not in (None, config.env.id):
        raise ValueError(f"the agent in {folder} is for {config.env.id!r}, not {environment!r}")
    if environment is None and ":" in config.env.id:
        raise ValueError(
            f"the agent's task {config.env.id!r} is in a module, whose import would run code: "
            f"allow it with --env {config.env.id}"
        )
    config = replace(config, env=replace(config.env, n_envs=1))
    model = build_agent(config, make_training_environments(config), buffer_size=1)
    try:
        model.policy.load_state_dict(_part(tensors, POLICY))
        statistics = _part(tensors, NORMALIZER)
        for name, array in _normalizer(model.get_vec_normalize_env()).items():
            array[...] = statistics[name].numpy()
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit {DESCRIPTION}: {reason}") from None
    return model, config


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _normalizer(envs: VecNormalize | None) -> dict[str, np.ndarray]:
    """The statistics by which observations are normalised, by name."""
    if envs is None:
        return {}
    return {
        f"{name}.{moment}": getattr(rms, moment)
        for name, rms in running_statistics(envs).items()
        if name.startswith("obs_rms")
        for moment in ("mean", "var")
    }

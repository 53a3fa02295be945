"""A trained agent as two files that can be read without running code from them.

``model.safetensors`` holds the weights and the statistics of the normaliser as plain arrays,
``model.json`` the configuration of the agent and its task.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.runs.checkpoint import fill, running_statistics
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.environments import make_training_environments
from icnn_rl.agents.runs.named import with_arguments
from icnn_rl.runs.configuration import from_plain, to_plain
from icnn_rl.runs.process import require_device
from icnn_rl.runs.storage import brief, read_json, read_tensors, write_json, write_tensors

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
FORMAT = "icnn-rl model 1"
_TRUSTED = ("icnn_rl", "gymnasium", "stable_baselines3", "sb3_contrib")

logger = logging.getLogger(__name__)


def save_portable(
    model: OffPolicyAlgorithm, config: Config, folder: Path, finished: bool = False
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a folder.

    Args:
        model: the agent.
        config: of its run.
        folder: where the files go.
        finished: whether these are the last files of the run.
    """
    statistics = _observation_statistics(model.get_vec_normalize_env())
    tensors = {
        "policy": model.policy.state_dict(),
        "normalizer": {name: torch.as_tensor(np.array(a)) for name, a in statistics.items()},
    }
    description = {
        "steps": model.num_timesteps,
        "finished": finished,
        "observation_space": str(model.observation_space),
        "action_space": str(model.action_space),
        "config": to_plain(config),
    }
    write_tensors(tensors, folder / WEIGHTS, FORMAT)
    write_json(description, folder / DESCRIPTION, FORMAT)


def finished_steps(folder: Path) -> int:
    """The steps after which a run wrote its last file; 0 if it has not."""
    try:
        description = read_json(folder / DESCRIPTION, FORMAT)
    except (ValueError, FileNotFoundError):
        return 0
    return int(description["steps"]) if description["finished"] else 0


def read_description(folder: Path) -> Config:
    """The configuration of a saved agent.

    Raises:
        ValueError: there is no agent in the folder, or its description is damaged.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ValueError(f"{folder} holds no trained agent: there is no {DESCRIPTION} in it")
    if not isinstance(plain := read_json(path, FORMAT).get("config"), dict):
        raise ValueError(f"{path} is damaged: its config is no mapping of keys to values")
    return from_plain(Config, plain, str(path))


def load_portable(
    folder: Path, environment: str | None = None
) -> tuple[OffPolicyAlgorithm, Config]:
    """The agent in a folder and its configuration, ready to act.

    Args:
        folder: with the agent's two files.
        environment: id of its task. It must be given where it names a module, which is imported.

    Raises:
        ValueError: there is none, or its files are damaged or do not fit each other.
    """
    config = read_description(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} holds no trained agent: there is no {WEIGHTS} in it")
    tensors = read_tensors(path, ("policy", "normalizer"), FORMAT)
    if environment not in (None, config.env.id):
        raise ValueError(f"the agent in {folder} is for {config.env.id!r}, not {environment!r}")
    if environment is None and (modules := _foreign_modules(config)):
        raise ValueError(
            f"the agent's task {config.env.id!r} is in the module {modules[0]!r}, whose import "
            f"would run code: allow it with --env {config.env.id}"
        )
    device = _usable_device(config.device, str(folder / DESCRIPTION))
    env = replace(config.env, n_envs=1, vec_env="dummy")
    config = replace(config, env=env, device=device)
    envs = make_training_environments(config)
    no_buffer: dict[str, Any] = {
        "buffer_size": 1,
        "replay_buffer_class": None,
        "replay_buffer_kwargs": None,
        "optimize_memory_usage": False,
    }
    model = build_agent(config, envs, **no_buffer)
    assert model.env is not None
    model.env.close()  # the caller's environments may be the only ones that the task allows
    try:
        model.policy.load_state_dict(tensors["policy"])
        statistics = _observation_statistics(model.get_vec_normalize_env())
        fill({n: t.numpy() for n, t in tensors["normalizer"].items()}, statistics)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} does not fit {DESCRIPTION}: {brief(error)}") from None
    return model, config


def _foreign_modules(config: Config) -> list[str]:
    """The modules of the task that belong to none of the packages that are imported anyway."""
    task = config.env.id.rpartition(":")[0]
    wrappers = (with_arguments(entry, "env.wrappers")[0] for entry in config.env.wrappers)
    modules = [task, *(name.replace(":", ".").rpartition(".")[0] for name in wrappers)]
    return [module for module in modules if module and module.partition(".")[0] not in _TRUSTED]


def _usable_device(name: str, file: str) -> str:
    """The device of that name; the CPU, if PyTorch knows it but this machine has none."""
    if name == "auto":
        return name
    try:
        require_device(name)
    except ValueError as error:
        try:
            torch.device(name)
        except RuntimeError:
            raise ValueError(f"{file}: {error}") from None
        logger.warning("%s is not here: the agent acts on the CPU", name)
        return "cpu"
    return name


def _observation_statistics(normalizer: VecNormalize | None) -> dict[str, np.ndarray]:
    """The arrays that observations are normalised with, by name."""
    return {
        f"{name}.{moment}": getattr(statistics, moment)
        for name, statistics in running_statistics(normalizer).items()
        if name.startswith("obs_rms")
        for moment in ("mean", "var")
    }

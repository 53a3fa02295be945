"""Everything that a training run needs to go on as if it had not stopped."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from icnn_rl.agents.runs.snapshot import capture, restore
from icnn_rl.runs.random_state import random_state, set_random_state
from icnn_rl.runs.storage import read_tree, write_tree

KIND = "icnn-rl checkpoint"
COUNTERS = (
    "num_timesteps",
    "_episode_num",
    "_n_updates",
    "_current_progress_remaining",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
)
STATISTICS = ("ep_info_buffer", "ep_success_buffer")

logger = logging.getLogger(__name__)


def save_checkpoint(
    model: OffPolicyAlgorithm, folder: Path, with_environments: bool, seconds: float
) -> Path:
    """Write the state of a run, between two rollouts, then remove the checkpoint before it.

    A kill at any moment leaves one checkpoint that is whole.

    Args:
        model: the agent, connected to its environments.
        folder: of the checkpoints.
        with_environments: whether the state of the environments can be captured.
        seconds: that training has taken so far.

    Returns:
        The file.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{model.num_timesteps:09d}.safetensors"
    write_tree(_state(model, with_environments) | {"seconds": seconds}, path, KIND)
    for other in folder.glob("*.safetensors"):
        if other != path:
            other.unlink()
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that ``save_checkpoint`` wrote.

    Raises:
        ValueError: the file is damaged, or no checkpoint.
        OSError: the file cannot be read.
    """
    state: dict[str, Any] = read_tree(path, KIND)
    return state


def restore_checkpoint(model: OffPolicyAlgorithm, state: dict[str, Any]) -> None:
    """Put the state of a run into a model that is about to learn.

    Args:
        model: made from the same configuration, its environments reset.
        state: what ``read_checkpoint`` returned.

    Raises:
        ValueError: the checkpoint is of another network, buffer or task.
    """
    try:
        model.set_parameters(state["parameters"], device=model.device)
        for name, saved in state.get("variables", {}).items():
            getattr(model, name).data.copy_(saved)
        _restore_buffer(model.replay_buffer, state["buffer"])
        _restore_normalizer(model.get_vec_normalize_env(), state["normalizer"])
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the checkpoint does not fit the configuration: {reason}") from None
    for name, value in state["counters"].items():
        setattr(model, name, value)
    if _restore_environments(model, state["environments"]):
        restore(model.action_noise, state["action_noise"])
    else:
        logger.warning("the state of the task is not in the checkpoint: its episode begins anew")
        _begin_episode(model)
    for name in STATISTICS:
        getattr(model, name).extend(state["statistics"][name])
    # Last, as building and resetting the model and its environments drew random numbers.
    model.action_space.np_random.bit_generator.state = state["action_space"].bit_generator.state
    set_random_state(state["random"])


def _state(model: OffPolicyAlgorithm, with_environments: bool) -> dict[str, Any]:
    assert model.env is not None
    envs = model.env.env_method("capture") if with_environments else None
    return {
        "parameters": {name: dict(value) for name, value in model.get_parameters().items()},
        "variables": {name: getattr(model, name) for name in model._get_torch_save_params()[1]},
        "buffer": _buffer(model.replay_buffer),
        "normalizer": _normalizer(model.get_vec_normalize_env()),
        "environments": envs,
        "action_noise": capture(model.action_noise),
        "counters": {name: getattr(model, name) for name in COUNTERS},
        "statistics": {name: list(getattr(model, name)) for name in STATISTICS},
        "action_space": model.action_space.np_random,
        "random": random_state(),
    }


def _restore_environments(model: OffPolicyAlgorithm, states: list[dict[str, Any]] | None) -> bool:
    """Whether the environments are now in these states."""
    if states is None:
        return False
    assert model.env is not None
    try:
        for i, state in enumerate(states):
            model.env.env_method("restore", state, indices=i)
    except ValueError:
        return False
    return True


def _begin_episode(model: OffPolicyAlgorithm) -> None:
    assert model.env is not None
    model._last_obs = model.env.reset()  # type: ignore[assignment]
    model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
    if (normalizer := model.get_vec_normalize_env()) is not None:
        model._last_original_obs = normalizer.get_original_obs()


def _buffer(buffer: ReplayBuffer | None) -> dict[str, Any]:
    assert buffer is not None
    arrays = {
        name: value[: buffer.size()]
        for name, value in _flat(vars(buffer)).items()
        if isinstance(value, np.ndarray)
    }
    return {"position": buffer.pos, "full": buffer.full, "arrays": arrays}


def _restore_buffer(buffer: ReplayBuffer | None, state: dict[str, Any]) -> None:
    assert buffer is not None
    arrays = _flat(vars(buffer))
    for name, saved in state["arrays"].items():
        if len(saved) > len(arrays[name]):
            raise ValueError(f"its replay buffer holds {len(saved)} steps, not {len(arrays[name])}")
        arrays[name][: len(saved)] = saved
    buffer.pos, buffer.full = state["position"], state["full"]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """The items of dicts (of Dict observations) beside those that are no dicts."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = value if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{key}" if key else name: item for key, item in nested.items()}
    return flat


def _normalizer(envs: VecNormalize | None) -> dict[str, Any] | None:
    if envs is None:
        return None
    statistics = {name: vars(rms) for name, rms in running_statistics(envs).items()}
    return {"statistics": statistics, "returns": envs.returns}


def _restore_normalizer(envs: VecNormalize | None, state: dict[str, Any] | None) -> None:
    if envs is None or state is None:
        if envs is not None or state is not None:
            raise ValueError("only one of them normalises observations or rewards")
        return
    for name, rms in running_statistics(envs).items():
        vars(rms).update(state["statistics"][name])
    envs.returns = state["returns"]


def running_statistics(envs: VecNormalize) -> dict[str, RunningMeanStd]:
    """The running means and variances of a normaliser, by name."""
    values = {"obs_rms": getattr(envs, "obs_rms", None), "ret_rms": envs.ret_rms}
    return {name: rms for name, rms in _flat(values).items() if rms is not None}

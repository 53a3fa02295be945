"""Checkpoints: everything that a training run needs to continue as if it had not stopped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from icnn_rl.agents.constrained import end_episodes
from icnn_rl.agents.runs.snapshot import capture_state, restore_state
from icnn_rl.runs.process import random_state, set_random_state
from icnn_rl.runs.storage import brief, read_tree, write_tree

_FORMAT = "icnn-rl checkpoint"
_COUNTERS = (
    "num_timesteps",
    "_episode_num",
    "_n_updates",
    "_current_progress_remaining",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
)
_LOGGED = ("name_to_value", "name_to_count", "name_to_excluded")  # and not written down yet
# Whatever a checkpoint holds, restoring it raises one of these at worst.
_MISFITS = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(RuntimeError, OverflowError, AssertionError),
)
_EPISODE_STATISTICS = ("ep_info_buffer", "ep_success_buffer")

logger = logging.getLogger(__name__)


def save_checkpoint(
    model: OffPolicyAlgorithm,
    folder: Path,
    with_environments: bool,
    run: Mapping[str, Any],
) -> None:
    """Write the state of a run, between two rollouts, then remove the previous checkpoint.

    A kill at any moment leaves one complete checkpoint.

    Args:
        model: the agent, connected to its environments.
        folder: of the checkpoints.
        with_environments: whether the state of the environments can be captured.
        run: further state of the run, as plain data.
    """
    assert model.env is not None
    state = {
        "parameters": {name: dict(value) for name, value in model.get_parameters().items()},
        "variables": {name: getattr(model, name) for name in model._get_torch_save_params()[1]},
        "buffer": _buffer_state(model),
        "normalizer": _normalizer_state(model.get_vec_normalize_env()),
        "environments": model.env.env_method("state_dict") if with_environments else None,
        "action_noise": capture_state(model.action_noise),
        "counters": {name: getattr(model, name) for name in _COUNTERS},
        "statistics": {name: list(getattr(model, name)) for name in _EPISODE_STATISTICS},
        "action_space": model.action_space.np_random,
        "random": random_state(),
        "logged": {name: dict(getattr(model.logger, name)) for name in _LOGGED},
        "run": run,
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{model.num_timesteps:09d}.safetensors"
    write_tree(state, path, _FORMAT)
    for other in folder.glob("*.safetensors"):
        if other != path:
            other.unlink()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that ``save_checkpoint`` wrote.

    Raises:
        ValueError: the file is damaged, or no checkpoint.
        OSError: the file cannot be read.
    """
    state: dict[str, Any] = read_tree(path, _FORMAT)
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
        _restore(model, state)
    except _MISFITS as error:
        raise ValueError(f"the checkpoint does not fit the configuration: {brief(error)}") from None


def _restore(model: OffPolicyAlgorithm, state: dict[str, Any]) -> None:
    model.set_parameters(state["parameters"], device=model.device)
    for name in model._get_torch_save_params()[1]:
        getattr(model, name).data.copy_(state["variables"][name])
    _restore_buffer(model, state["buffer"])
    _restore_normalizer(model.get_vec_normalize_env(), state["normalizer"])
    for name in _COUNTERS:
        setattr(model, name, _like(getattr(model, name), state["counters"][name], name))
    if _restore_environments(model, state["environments"]):
        restore_state(model.action_noise, state["action_noise"])
    else:
        logger.warning("the state of the task is not in the checkpoint: its episode begins anew")
        begin_episode(model)
    for name in _LOGGED:
        getattr(model.logger, name).update(state["logged"][name])
    for name in _EPISODE_STATISTICS:
        getattr(model, name).extend(state["statistics"][name])
    # Last, because building and resetting the model and its environments drew random numbers.
    model.action_space.np_random.bit_generator.state = state["action_space"].bit_generator.state
    set_random_state(state["random"])


def _like(old: Any, new: Any, name: str) -> Any:
    """The new value, if its type, shape and keys are those of the old one."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return {key: _like(old[key], new[key], f"{name}.{key}") for key in old}
    found, expected = (
        f"{v.dtype} of shape {v.shape}" if hasattr(v, "dtype") else type(v).__name__
        for v in (new, old)
    )
    if old is not None and found != expected:
        raise ValueError(f"{name} is {found}, not {expected}")
    return new


def fill(saved: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]) -> None:
    """Put saved values into arrays of the same names and shapes.

    Raises:
        ValueError: they have others.
    """
    if saved.keys() != arrays.keys():
        raise ValueError(f"it has the arrays {sorted(saved)}, not {sorted(arrays)}")
    for name, array in arrays.items():
        array[...] = _like(array, saved[name], name)


def _restore_environments(model: OffPolicyAlgorithm, states: list[dict[str, Any]] | None) -> bool:
    """Whether the environments could be put into these states."""
    if states is None:
        return False
    assert model.env is not None
    if len(states) != model.n_envs:
        raise ValueError(f"it has the states of {len(states)} environments, not {model.n_envs}")
    try:
        for i, state in enumerate(states):
            model.env.env_method("load_state_dict", state, indices=i)
    except ValueError:
        return False
    return True


def begin_episode(model: OffPolicyAlgorithm) -> None:
    """Reset the environments of a model, between two rollouts."""
    assert model.env is not None
    assert model.replay_buffer is not None
    end_episodes(model.replay_buffer)
    model._last_obs = model.env.reset()  # type: ignore[assignment]
    model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
    if (normalizer := model.get_vec_normalize_env()) is not None:
        model._last_original_obs = normalizer.get_original_obs()


def _buffer_state(model: OffPolicyAlgorithm) -> dict[str, Any]:
    buffer = model.replay_buffer
    assert buffer is not None
    return {"position": buffer.pos, "full": buffer.full, "arrays": _filled(buffer)}


def _restore_buffer(model: OffPolicyAlgorithm, state: dict[str, Any]) -> None:
    buffer = model.replay_buffer
    assert buffer is not None
    buffer.pos = _like(buffer.pos, state["position"], "position")
    buffer.full = _like(buffer.full, state["full"], "full")
    size = buffer.size()
    if not 0 <= buffer.pos < buffer.buffer_size:
        raise ValueError(f"its replay buffer holds {size} steps, not {buffer.buffer_size}")
    fill(state["arrays"], _filled(buffer))


def _filled(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    """The part of a replay buffer's arrays that is in use.

    The infos that a buffer for hindsight may keep are no numbers, and left out.
    """
    size = buffer.size()
    arrays = {k: v for k, v in _flat(vars(buffer)).items() if isinstance(v, np.ndarray)}
    return {name: array[:size] for name, array in arrays.items() if array.dtype != object}


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """The values by name; of a dict, as for Dict observations, the values by NAME.KEY."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = value if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{key}" if key else name: item for key, item in nested.items()}
    return flat


def _normalizer_state(normalizer: VecNormalize | None) -> dict[str, Any] | None:
    if normalizer is None:
        return None
    statistics = {name: vars(rms) for name, rms in running_statistics(normalizer).items()}
    return {"statistics": statistics, "returns": normalizer.returns}


def _restore_normalizer(normalizer: VecNormalize | None, state: dict[str, Any] | None) -> None:
    if normalizer is None or state is None:
        if normalizer is not None or state is not None:
            raise ValueError("only one of them normalises observations or rewards")
        return
    for name, rms in running_statistics(normalizer).items():
        vars(rms).update(_like(vars(rms), state["statistics"][name], name))
    normalizer.returns = _like(normalizer.returns, state["returns"], "returns")


def running_statistics(normalizer: VecNormalize | None) -> dict[str, RunningMeanStd]:
    """The running means and variances of a normaliser, by name."""
    if normalizer is None:
        return {}
    values = {"obs_rms": getattr(normalizer, "obs_rms", None), "ret_rms": normalizer.ret_rms}
    return {name: rms for name, rms in _flat(values).items() if rms is not None}

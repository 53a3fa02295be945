"""Snapshots of an environment in mid-episode, as plain data, to be restored into a fresh one."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from re import Pattern
from tempfile import TemporaryDirectory
from types import (
    BuiltinFunctionType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from icnn_rl.runs.process import preserved_random_state, random_state, set_random_state
from icnn_rl.runs.storage import encode, read_tree, write_tree

_FORMAT = "icnn-rl snapshot"
_CONSTANT_TYPES = (
    *(type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, MappingProxyType),
    *(np.dtype, np.ufunc, PurePath, Pattern, range, slice, logging.Logger),
)
_SPACE_STATE = ("_np_random", "spaces")  # the other attributes of a space are constant
_STATE_METHODS = {  # of objects whose attributes do not show their state
    random.Random: ("getstate", "setstate"),
    np.random.RandomState: ("get_state", "set_state"),
    torch.Generator: ("get_state", "set_state"),
}


def capture_state(root: Any) -> dict[str, Any]:
    """The state of an object and of all that it refers to, by path.

    An object with ``state_dict()`` and ``load_state_dict(state)`` is asked for its state, a MuJoCo
    simulation gives all its arrays, a random generator its state. Of any other object, what is
    plain data is copied: numbers, strings, arrays, members of an ``Enum``, and collections of
    these.
    """
    return {slot.path: deepcopy(slot.get()) for slot in _slots(root) if slot.get is not None}


def restore_state(root: Any, state: Mapping[str, Any]) -> None:
    """Put a captured state into an object that was built in the same way.

    Raises:
        ValueError: the object has no place for a part of the state, or a place without one.
    """
    slots = {slot.path: slot for slot in _slots(root) if slot.get is not None}
    if missing := state.keys() - slots.keys():
        raise ValueError(f"there is no place for the state {min(missing)!r}")
    if missing := slots.keys() - state.keys():
        raise ValueError(f"there is no state for {min(missing)!r}")
    slots_of_array: defaultdict[int, list[_Slot]] = defaultdict(list)
    for path in state:
        if isinstance(state[path], np.ndarray):
            slots_of_array[id(slots[path].get())].append(slots[path])
    for shared in slots_of_array.values():
        if len({state[slot.path].tobytes() for slot in shared}) > 1:
            for slot in shared:  # one array now, but several when captured
                slot.set(None)
    for path, value in state.items():
        slots[path].set(value)


class ResumableEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose state can be read and set, also in another process."""

    def state_dict(self) -> dict[str, Any]:
        """The state in mid-episode, as plain data."""
        return capture_state(self.env)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state.

        Raises:
            ValueError: there is no place for a part of the state.
        """
        restore_state(self.env, state)


def restores_exactly(make: Callable[[], gym.Env[Any, Any]], steps: int = 10) -> bool:
    """Whether an environment continues from its captured state exactly as it would have.

    All that an environment refers to has to be captured or known to be constant. Then it is tried:
    of two environments, one takes over from the other in mid-episode, through a file. What both
    return has to be equal to the last bit, up to the beginning of the next episode.

    Args:
        make: builds the environment.
        steps: played before the state is captured, and after it is restored.
    """
    with preserved_random_state():
        first, second = make(), make()
        try:
            first.action_space.seed(0)
            actions = [first.action_space.sample() for _ in range(2 * steps)]
            first.reset(seed=0)
            _play(first, actions[:steps])
            if any(slot.get is None for slot in _slots(first)):
                return False
            global_state = random_state()
            with TemporaryDirectory() as folder:
                path = Path(folder) / "state"
                write_tree(capture_state(first), path, _FORMAT)
                state = read_tree(path, _FORMAT)
            expected = [*_play(first, actions[steps:]), first.reset()[0]]
            second.reset(seed=1)
            restore_state(second, state)
            set_random_state(global_state)
            found = [*_play(second, actions[steps:]), second.reset()[0]]
        except (ValueError, TypeError):  # from a state_dict that is no plain data, too
            return False
        finally:
            first.close()
            second.close()
    return all(_equal(a, b) for a, b in zip(expected, found, strict=True))


def _play(env: gym.Env[Any, Any], actions: list[Any]) -> list[Any]:
    """Everything that the environment returns."""
    seen: list[Any] = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen += [deepcopy(observation), reward, terminated, truncated]
        if terminated or truncated:
            seen.append(deepcopy(env.reset()[0]))
    return seen


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b)


class _Slot(NamedTuple):
    """A place that holds a part of an object's state; without ``get``, it cannot be captured."""

    path: str
    get: Any = None
    set: Any = None


def _slots(root: Any) -> Iterator[_Slot]:
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", root)]
    while todo:
        path, item = todo.pop()
        if id(item) in seen or _is_constant(item):
            continue
        seen.add(id(item))
        if type(item).__name__ == "MjData" and type(item).__module__.startswith("mujoco"):
            yield _Slot(path, partial(_simulation, item), partial(_restore_simulation, item))
        elif type(item) in _STATE_METHODS:
            yield _Slot(path, *(getattr(item, name) for name in _STATE_METHODS[type(item)]))
        elif hasattr(type(item), "state_dict") and hasattr(type(item), "load_state_dict"):
            yield _Slot(path, item.state_dict, item.load_state_dict)
        elif isinstance(item, dict) and type(item) is not dict and _is_plain(dict(item)):
            yield _Slot(f"{path}:{type(item).__name__}", partial(dict, item), partial(_fill, item))
        else:
            for place, key, value, holder in _parts(item, path):
                if isinstance(value, Enum) or _is_plain(value):
                    yield _Slot(place, partial(_get, holder, key), partial(_set, holder, key))
                else:
                    todo.append((place, value))
            if not isinstance(item, list | tuple | dict) and not hasattr(item, "__dict__"):
                yield _Slot(path)


def _parts(item: Any, path: str) -> Iterator[tuple[str, Any, Any, Any]]:
    """What an object or a collection refers to: path, key, value, and what holds it by the key."""
    if isinstance(item, list | tuple):
        yield from ((f"{path}[{i}]", i, value, item) for i, value in enumerate(item))
    elif isinstance(item, dict):
        yield from ((f"{path}[{key!r}]", key, value, item) for key, value in item.items())
    elif hasattr(item, "__dict__"):
        for name, value in vars(item).items():
            if not isinstance(item, gym.Space) or name in _SPACE_STATE:
                yield f"{path}.{name}", name, value, vars(item)


def _is_constant(item: Any) -> bool:
    simulator = type(item).__module__.startswith("mujoco") and type(item).__name__ != "MjData"
    return simulator or type(item) is object or isinstance(item, _CONSTANT_TYPES)


def _is_plain(value: Any) -> bool:
    try:
        encode(value, {})
    except TypeError:
        return False
    return True


def _get(holder: Any, key: Any) -> Any:
    value = holder[key]
    return value.name if isinstance(value, Enum) else value


def _set(holder: Any, key: Any, new: Any) -> None:
    old = holder[key]
    # In place where possible: other objects may refer to the same array or generator.
    match old, new:
        case np.ndarray(), np.ndarray() if old.shape == new.shape and old.dtype == new.dtype:
            if old.flags.writeable:
                old[...] = new
        case np.random.Generator(), np.random.Generator():
            old.bit_generator.state = new.bit_generator.state
        case Enum(), str() if new in type(old).__members__:
            holder[key] = type(old)[new]
        case _ if not isinstance(holder, tuple):
            holder[key] = new
        case _ if old != new:
            raise ValueError(f"the state {new!r} is in a tuple, which cannot be changed")


def _fill(mapping: dict[Any, Any], new: dict[Any, Any]) -> None:
    mapping.clear()
    mapping.update(new)


def _simulation(data: Any) -> dict[str, Any]:
    import mujoco

    state = np.empty(mujoco.mj_stateSize(data.model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(data.model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    # Rewards depend on positions and forces as the last step left them. These lag behind the
    # state by one substep, so they cannot be computed from it.
    arrays = {name: array.copy() for name, array in _simulation_arrays(data).items()}
    return {"state": state, "arrays": arrays}


def _restore_simulation(data: Any, simulation: dict[str, Any]) -> None:
    import mujoco

    state = simulation["state"]
    if len(state) != mujoco.mj_stateSize(data.model, mujoco.mjtState.mjSTATE_INTEGRATION):
        raise ValueError("the state is of another MuJoCo model")
    mujoco.mj_setState(data.model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, array in _simulation_arrays(data).items():
        saved = simulation["arrays"].get(name)
        if saved is not None and saved.shape == array.shape:
            array[...] = saved


def _simulation_arrays(data: Any) -> dict[str, np.ndarray]:
    names = (name for name in dir(data) if not name.startswith(("_", "efc_", "iefc_")))
    values = ((name, getattr(data, name)) for name in names)
    return {name: v for name, v in values if isinstance(v, np.ndarray) and v.size > 0}

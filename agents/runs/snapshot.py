"""Snapshots of an environment in mid-episode, as plain data, to be restored into a fresh one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from icnn_rl.runs.process import preserved_random_state, random_state, set_random_state
from icnn_rl.runs.storage import encode

_STATELESS_TYPES = (type, ModuleType, FunctionType, MethodType)
_SPACE_STATE = ("_np_random", "spaces")  # the other attributes of a space are constant


def capture_state(root: Any) -> dict[str, Any]:
    """The state of an object and of all that it refers to, by path.

    An object with ``state_dict()`` and ``load_state_dict(state)`` is asked for its state, a MuJoCo
    simulation gives all its arrays. Of any other object, the attributes that are plain data are
    copied: numbers, strings, arrays, random generators, and lists, tuples and dicts of these.
    """
    return {slot.path: deepcopy(slot.get()) for slot in _slots(root)}


def restore_state(root: Any, state: dict[str, Any]) -> None:
    """Put a captured state into an object that was built in the same way.

    Raises:
        ValueError: the object has no place for a part of the state.
    """
    slots = {slot.path: slot for slot in _slots(root)}
    if missing := state.keys() - slots.keys():
        raise ValueError(f"there is no place for the state {min(missing)!r}")
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

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Raises:
            ValueError: there is no place for a part of the state.
        """
        restore_state(self.env, state)


def restores_exactly(make: Callable[[], gym.Env[Any, Any]], steps: int = 10) -> bool:
    """Whether an environment continues from its captured state exactly as it would have.

    This is tried: of two environments, one takes over from the other in mid-episode. What both
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
            state, global_state = capture_state(first), random_state()
            expected = [*_play(first, actions[steps:]), first.reset()[0]]
            second.reset(seed=1)
            restore_state(second, state)
            set_random_state(global_state)
            found = [*_play(second, actions[steps:]), second.reset()[0]]
        except ValueError:
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
    """A place that holds a part of an object's state."""

    path: str
    get: Callable[[], Any]
    set: Callable[[Any], None]


def _slots(root: Any) -> Iterator[_Slot]:
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", root)]
    while todo:
        path, item = todo.pop()
        if id(item) in seen or isinstance(item, _STATELESS_TYPES):
            continue
        seen.add(id(item))
        if type(item).__name__ == "MjData" and type(item).__module__.startswith("mujoco"):
            yield _Slot(path, partial(_simulation, item), partial(_restore_simulation, item))
        elif hasattr(type(item), "state_dict") and hasattr(type(item), "load_state_dict"):
            yield _Slot(path, item.state_dict, item.load_state_dict)
        elif isinstance(item, list | tuple):
            todo += [(f"{path}[{i}]", value) for i, value in enumerate(item)]
        elif isinstance(item, dict):
            todo += [(f"{path}[{key!r}]", value) for key, value in item.items()]
        elif hasattr(item, "__dict__"):
            for name, value in vars(item).items():
                if isinstance(item, gym.Space) and name not in _SPACE_STATE:
                    continue
                if _is_plain(value):
                    attribute = partial(getattr, item, name), partial(_set_attribute, item, name)
                    yield _Slot(f"{path}.{name}", *attribute)
                else:
                    todo.append((f"{path}.{name}", value))


def _is_plain(value: Any) -> bool:
    try:
        encode(value, {})
    except TypeError:
        return False
    return True


def _set_attribute(item: Any, name: str, new: Any) -> None:
    old = vars(item)[name]
    # In place where possible: other objects may refer to the same array or generator.
    match old, new:
        case np.ndarray(), np.ndarray() if old.shape == new.shape and old.dtype == new.dtype:
            if old.flags.writeable:
                old[...] = new
        case np.random.Generator(), np.random.Generator():
            old.bit_generator.state = new.bit_generator.state
        case _:
            vars(item)[name] = new


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

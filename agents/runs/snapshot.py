"""The state of an environment in mid-episode, as plain data, and its return into a fresh one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium as gym
import numpy as np

from icnn_rl.runs.random_state import preserved_random_state, random_state, set_random_state
from icnn_rl.runs.storage import encode

OPAQUE = (type, ModuleType, FunctionType, MethodType)
SPACE_STATE = ("_np_random", "spaces")  # the rest of a space is constant, or cached text
STEPS = 10  # that an environment is replayed for, to see whether its state was all there


def capture(root: Any) -> dict[str, Any]:
    """The state of an object and of all that it is made of, by path.

    An object with ``state_dict()`` and ``load_state_dict(state)`` is asked for its state, a MuJoCo
    simulation gives all its arrays, and of everything else the attributes that are plain data are
    copied: numbers, strings, arrays, random generators, and lists, tuples and dicts of these.
    """
    return {path: deepcopy(get()) for path, get, _ in _parts(root)}


def restore(root: Any, state: dict[str, Any]) -> None:
    """Put a captured state into an object of the same making.

    Raises:
        ValueError: the object has no place for a part of the state.
    """
    parts = list(_parts(root))
    put = {path: put for path, _, put in parts}
    if missing := state.keys() - put.keys():
        raise ValueError(f"there is no place for the state {sorted(missing)[0]!r}")
    names: defaultdict[int, list[str]] = defaultdict(list)  # of each array
    for path, get, _ in parts:
        if isinstance(state.get(path), np.ndarray):
            names[id(get())].append(path)
    for paths in names.values():
        if len({state[path].tobytes() for path in paths}) > 1:
            for path in paths:  # several arrays when captured, which no longer share one
                put[path](None)
    for path, value in state.items():
        put[path](value)


def is_exact(make: Callable[[], gym.Env[Any, Any]]) -> bool:
    """Whether an environment that ``make`` builds goes on from its captured state as it would have.

    Found out by trying: two are built, one takes over from the other in mid-episode, and what both
    return has to be equal to the last bit, the beginning of another episode included.
    """
    with preserved_random_state():
        first, second = make(), make()
        try:
            first.action_space.seed(0)
            actions = [first.action_space.sample() for _ in range(2 * STEPS)]
            first.reset(seed=0)
            _play(first, actions[:STEPS])
            state = capture(first)
            global_state = random_state()
            expected = [*_play(first, actions[STEPS:]), first.reset()[0]]
            second.reset(seed=1)
            restore(second, state)
            set_random_state(global_state)
            found = [*_play(second, actions[STEPS:]), second.reset()[0]]
        except ValueError:
            return False
        finally:
            first.close()
            second.close()
    return all(_equal(a, b) for a, b in zip(expected, found, strict=True))


def _play(env: gym.Env[Any, Any], actions: list[Any]) -> list[Any]:
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


Part = tuple[str, Callable[[], Any], Callable[[Any], None]]  # path, how to get it, how to set it


def _parts(root: Any) -> Iterator[Part]:
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", root)]
    while todo:
        path, item = todo.pop()
        if id(item) in seen or isinstance(item, OPAQUE):
            continue
        seen.add(id(item))
        if _is_simulation(item):
            yield path, partial(_simulation, item), partial(_simulate, item)
        elif hasattr(type(item), "state_dict") and hasattr(type(item), "load_state_dict"):
            yield path, item.state_dict, item.load_state_dict
        elif isinstance(item, list | tuple):
            todo += [(f"{path}[{i}]", value) for i, value in enumerate(item)]
        elif isinstance(item, dict):
            todo += [(f"{path}[{key!r}]", value) for key, value in item.items()]
        elif hasattr(item, "__dict__"):
            for name, value in vars(item).items():
                if isinstance(item, gym.Space) and name not in SPACE_STATE:
                    continue
                if _is_plain(value):
                    yield f"{path}.{name}", partial(getattr, item, name), partial(_put, item, name)
                else:
                    todo.append((f"{path}.{name}", value))


def _is_plain(value: Any) -> bool:
    try:
        encode(value, {})
    except TypeError:
        return False
    return True


def _put(item: Any, name: str, new: Any) -> None:
    old = vars(item)[name]
    # In place where possible, for the sake of others that refer to the same array or generator.
    match old, new:
        case np.ndarray(), np.ndarray() if old.shape == new.shape and old.dtype == new.dtype:
            if old.flags.writeable:
                old[...] = new
        case np.random.Generator(), np.random.Generator():
            old.bit_generator.state = new.bit_generator.state
        case _:
            vars(item)[name] = new


def _is_simulation(item: Any) -> bool:
    return type(item).__name__ == "MjData" and type(item).__module__.startswith("mujoco")


def _simulation(data: Any) -> dict[str, Any]:
    import mujoco

    state = np.empty(mujoco.mj_stateSize(data.model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(data.model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    # Rewards are made of positions and forces as the last step left them, which lag behind the
    # state by one substep: computed anew from the state they would differ.
    return {"state": state, "arrays": {name: a.copy() for name, a in _arrays(data).items()}}


def _simulate(data: Any, simulation: dict[str, Any]) -> None:
    import mujoco

    state = simulation["state"]
    if len(state) != mujoco.mj_stateSize(data.model, mujoco.mjtState.mjSTATE_INTEGRATION):
        raise ValueError("the state is of another MuJoCo model")
    mujoco.mj_setState(data.model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, array in _arrays(data).items():
        saved = simulation["arrays"].get(name)
        if saved is not None and saved.shape == array.shape:
            array[...] = saved


def _arrays(data: Any) -> dict[str, np.ndarray]:
    names = (name for name in dir(data) if not name.startswith(("_", "efc_", "iefc_")))
    values = ((name, getattr(data, name)) for name in names)
    return {name: v for name, v in values if isinstance(v, np.ndarray) and v.size > 0}

"""What an agent refuses to learn from or to load, each in one sentence."""

from __future__ import annotations

import io
import json
import pathlib
import zipfile
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.save_util import open_path

from icnn_rl.sets import ConvexSet

Values = np.ndarray | dict[str, np.ndarray]


def require_bounded_box(space: spaces.Space[Any]) -> None:
    """Accept an action space that is a Box with finite, distinct bounds.

    Raises:
        ValueError: the space is anything else.
    """
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"env: expected a Box action space, with continuous actions; got {space}")
    if not space.shape:
        raise ValueError(f"env: expected an action space of one axis or more, got {space}")
    bounded = np.isfinite(space.low) & np.isfinite(space.high) & (space.low < space.high)
    if not bounded.all():
        raise ValueError(
            f"env: expected an action space with finite bounds, low < high; got {space} with "
            f"low {space.low[~bounded][0]} and high {space.high[~bounded][0]}"
        )


def require_at_least(least: float, **numbers: float) -> None:
    """Accept arguments, by name, that are finite numbers of at least ``least``.

    Raises:
        ValueError: one is less, infinite or NaN.
    """
    for name, number in numbers.items():
        if not least <= number < np.inf:
            raise ValueError(f"{name}: expected a finite number >= {least}, got {number}")


def require_rates(tau: float, gamma: float, td_clip: float | None) -> None:
    """Accept a step of the target networks, a discount factor, and how far a target may lie.

    Raises:
        ValueError: one is out of its range, or NaN.
    """
    if not 0 < tau <= 1:
        raise ValueError(f"tau: expected a number in (0, 1], got {tau}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma: expected a number in [0, 1], got {gamma}")
    if td_clip is not None and not td_clip > 0:
        raise ValueError(f"td_clip: expected a number > 0, or None; got {td_clip}")


def require_steps(n_steps: int, observations: spaces.Space[Any]) -> None:
    """Accept the steps of returns that stable-baselines3 has a buffer for.

    Raises:
        ValueError: there are none, or there are several, and observations are a Dict.
    """
    require_at_least(1, n_steps=n_steps)
    if n_steps > 1 and isinstance(observations, spaces.Dict):
        raise ValueError(f"n_steps: expected 1 where observations are a Dict, got {n_steps}")


def require_none_of(own: set[str], policy_kwargs: dict[str, Any]) -> None:
    """Accept arguments of a policy that are not set by the algorithm.

    Raises:
        ValueError: some are.
    """
    if found := sorted(own & set(policy_kwargs)):
        raise ValueError(f"policy_kwargs: expected no arguments of ConcaveQ, got {found}")


def require_finite(what: str, values: Values, step: int) -> None:
    """Accept numbers from the environment, one array or several by name, if all are finite.

    Raises:
        ValueError: one is NaN or infinite.
    """
    arrays = values if isinstance(values, dict) else {"": values}
    for key, array in arrays.items():
        finite = np.isfinite(array)
        if not finite.all():
            where = f"{what} {key!r}" if key else what
            raise ValueError(
                f"env: expected finite numbers, got {np.asarray(array)[~finite][0]} in the "
                f"{where} at step {step}"
            )


def require_drawing(temperature: float, noise: ActionNoise | None, modes: int) -> None:
    """Accept a temperature at which to draw the actions that explore.

    Raises:
        ValueError: it is not positive, there is noise as well, or Q has several modes.
    """
    if not (temperature > 0 and np.isfinite(temperature)):
        raise ValueError(
            f"exploration_temperature: expected a finite number > 0, or None; got {temperature}"
        )
    if noise is not None:
        raise ValueError(
            f"action_noise: expected None beside exploration_temperature {temperature}; got {noise}"
        )
    if modes > 1:
        raise ValueError(
            f"exploration_temperature: expected None where critics have modes; got {temperature} "
            f"for {modes} modes"
        )


def require_set(action_set: object) -> None:
    """Accept a set of ``icnn_rl`` that actions are to lie in, or none.

    Raises:
        ValueError: it is something else.
    """
    if not (action_set is None or isinstance(action_set, ConvexSet)):
        raise ValueError(
            f"action_set: expected a ConvexSet, such as icnn_rl.Box, or None; got {action_set!r}"
        )


def require_keys(observation: object, space: spaces.Space[Any]) -> None:
    """Accept an observation that is a dict where the space is one, with the same keys.

    Raises:
        ValueError: it is not, or is what Gymnasium's ``reset`` returns.
    """
    if isinstance(observation, tuple):
        raise ValueError("observation: expected one alone; got a tuple, as reset returns it")
    expected = sorted(space.keys()) if isinstance(space, spaces.Dict) else None
    found = sorted(observation) if isinstance(observation, dict) else None
    if found != expected:
        kinds = ["an array" if keys is None else f"a dict of {keys}" for keys in (expected, found)]
        raise ValueError(f"observation: expected {kinds[0]}, got {kinds[1]}")


def require_format(path: str | pathlib.Path | io.BufferedIOBase, expected: int) -> None:
    """Accept a model's archive if its format is the expected one, before anything is unpickled.

    Raises:
        ValueError: the file is no complete archive, or one of another program or format.
    """
    file = open_path(path, "r", suffix="zip")
    start = file.tell()
    try:
        with zipfile.ZipFile(file) as archive:
            found = json.loads(archive.read("data")).get("format")
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(
            f"path: expected a model saved by ConcaveQ.save; {path} is damaged or no such file"
        ) from error
    finally:
        if file is path:
            file.seek(start)
        else:
            file.close()
    if found != expected:
        raise ValueError(
            f"path: expected a ConcaveQ model of format {expected}, got {path} with "
            f"{'no format number' if found is None else f'format {found}'}"
        )

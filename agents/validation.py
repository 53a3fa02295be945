"""What an agent refuses to learn from or to load: a ValueError says so in one sentence."""

from __future__ import annotations

import io
import json
import pathlib
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import TrainFreq

from icnn_rl.runs.configuration import require_at_least
from icnn_rl.sets import ConvexSet

if TYPE_CHECKING:
    from icnn_rl.agents.concave_q import ConcaveQ

Values = np.ndarray | dict[str, np.ndarray]

# What to use instead of arguments that policies of stable-baselines3 have.
EXPLORATION = "exploration by ConcaveQ's exploration_noise, action_noise or exploration_temperature"
INSTEAD = {
    "activation_fn": "activation, the name of a convex one",
    "use_sde": EXPLORATION,
    "log_std_init": EXPLORATION,
    "use_expln": EXPLORATION,
    "clip_mean": EXPLORATION,
}


def require(holds: bool, argument: str, expected: str, got: object) -> None:
    """Raise a ValueError that names the argument, what was expected and what came."""
    if not holds:
        raise ValueError(f"{argument}: expected {expected}, got {got}")


def require_arguments(model: ConcaveQ) -> None:
    """Refuse arguments of an agent that are out of their range or exclude each other."""
    require_at_least(1, "", model, "buffer_size", "batch_size", "n_steps")
    weights = ("action_l2", "entropy", "exploration_noise", "target_noise", "target_noise_clip")
    require_at_least(0, "", model, "learning_starts", *weights)
    require_at_least(-1, "", model, "gradient_steps")
    require(0 <= model.tau <= 1, "tau", "a number in [0, 1]", model.tau)
    require(0 <= model.gamma <= 1, "gamma", "a number in [0, 1]", model.gamma)
    assert isinstance(model.train_freq, TrainFreq)
    require_at_least(1, "train_freq.", model.train_freq, "frequency")
    clip, temperature, noise = model.td_clip, model.exploration_temperature, model.action_noise
    require(clip is None or clip > 0, "td_clip", "a number > 0, or None", clip)
    if temperature is not None:
        name, modes = "exploration_temperature", model.policy_kwargs.get("modes", 1)
        positive = 0 < temperature < np.inf
        require(positive, name, "a finite number > 0, or None", temperature)
        require(noise is None, "action_noise", f"None beside {name} {temperature}", noise)
        got = f"{temperature} for {modes} modes"
        require(modes == 1, name, "None where critics have modes", got)
    own = {"action_l2", "entropy", "solver", "target_network"} & model.policy_kwargs.keys()
    require(not own, "policy_kwargs", "no arguments of ConcaveQ", sorted(own))
    twice = {"context", "net_arch"} <= model.policy_kwargs.keys()
    require(not twice, "policy_kwargs", "context or net_arch", "both")
    for name, instead in INSTEAD.items():
        require(name not in model.policy_kwargs, "policy_kwargs", instead, name)


def require_bounded_box(space: spaces.Space[Any]) -> None:
    """Refuse a Box, as an action space, that is not of floats with finite, distinct bounds."""
    if not isinstance(space, spaces.Box):
        return  # which stable-baselines3 refuses
    continuous = np.issubdtype(space.dtype, np.floating)
    require(continuous, "env", "a Box action space, with continuous actions", space)
    require(bool(space.shape), "env", "an action space of one axis or more", space)
    bad = ~(np.isfinite(space.low) & np.isfinite(space.high) & (space.low < space.high))
    if bad.any():
        got = f"{space} with low {space.low[bad][0]} and high {space.high[bad][0]}"
        require(False, "env", "an action space with finite bounds, low < high", got)


def require_finite(what: str, values: Values, step: int) -> None:
    """Refuse numbers from the environment, one array or several by name, that are not finite."""
    for key, array in (values if isinstance(values, dict) else {"": values}).items():
        finite = np.isfinite(array)
        if not finite.all():
            where = f"{what} {key!r}" if key else what
            got = f"{np.asarray(array)[~finite][0]} in the {where} at step {step}"
            require(False, "env", "finite numbers", got)


def require_set(action_set: object) -> None:
    """Refuse what is neither a set of ``icnn_rl`` nor None."""
    known = action_set is None or isinstance(action_set, ConvexSet)
    require(known, "action_set", "a ConvexSet, such as icnn_rl.Box, or None", repr(action_set))


def require_keys(observation: object, space: spaces.Space[Any]) -> None:
    """Refuse an observation whose keys are others than the space's, or what ``reset`` returns."""
    single = not isinstance(observation, tuple)
    require(single, "observation", "one alone", "a tuple, as reset returns it")
    expected = sorted(space.keys()) if isinstance(space, spaces.Dict) else None
    found = sorted(observation) if isinstance(observation, dict) else None
    kinds = ["an array" if keys is None else f"a dict of {keys}" for keys in (expected, found)]
    require(found == expected, "observation", *kinds)


def require_format(path: str | pathlib.Path | io.BufferedIOBase, expected: int) -> None:
    """Refuse, before anything is unpickled, what is no model's archive of the expected format."""
    file = open_path(path, "r", suffix="zip")
    try:
        with zipfile.ZipFile(file) as archive:
            found = json.loads(archive.read("data")).get("format")
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(
            f"path: expected a model saved by ConcaveQ.save; {path} is damaged or no such file"
        ) from error
    finally:
        if file is not path:
            file.close()
    got = f"{path} with " + ("no format number" if found is None else f"format {found}")
    require(found == expected, "path", f"a ConcaveQ model of format {expected}", got)

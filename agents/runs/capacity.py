"""Whether an agent fits its task and this machine, asked before anything large is built."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, is_image_space
from stable_baselines3.common.vec_env import VecEnv

from icnn_rl.agents.runs.config import Config
from icnn_rl.runs.process import memory

SMALLEST_IMAGE = 36  # pixels; NatureCNN's three convolutions leave nothing of a smaller one
BUFFER_SIZE = 1_000_000  # default of all algorithms


def require_images_that_fit(observations: spaces.Space[Any]) -> None:
    """Refuse images that are too small for the features extractor."""
    parts = observations.values() if isinstance(observations, spaces.Dict) else [observations]
    for part in parts:
        if is_image_space(part) and sorted(part.shape or ())[1] < SMALLEST_IMAGE:
            raise ValueError(
                f"env: expected images of at least {SMALLEST_IMAGE} × {SMALLEST_IMAGE} pixels, as "
                f"the features extractor NatureCNN needs them, got the shape {part.shape}"
            )


def require_memory(config: Config, envs: VecEnv, overrides: dict[str, Any]) -> None:
    """Refuse a replay buffer or networks that this machine could not hold."""
    ours = config.algorithm == "concave_q"
    own = vars(config.agent) if ours else {"buffer_size": BUFFER_SIZE} | config.baseline
    steps = min((own | overrides)["buffer_size"], config.training.steps)  # the rest stays empty
    transition = 2 * _bytes(envs.observation_space) + 4 * (get_action_dim(envs.action_space) + 3)
    if (needed := steps * transition) > memory():
        raise too_large(config, f"the replay buffer of {steps:,} steps", _share(needed))
    if ours:
        network = config.agent.policy_kwargs
        paths = (network.context, network.convex)
        weights = sum(a * b for widths in paths for a, b in pairwise(widths))
        # Critics, their targets, gradients and the two moments of Adam, in single precision.
        needed = 5 * 4 * weights * network.n_critics * network.modes
        if needed > memory():
            raise too_large(
                config, "the networks", f"{needed / 1e9:.1f} of {memory() / 1e9:.1f} GB"
            )


def too_large(config: Config, what: str, got: object) -> ValueError:
    """The error that says which keys make an agent smaller."""
    ours = config.algorithm == "concave_q"
    keys = "context, agent.policy_kwargs.convex" if ours else "net_arch"
    section = "agent" if ours else "baseline"
    return ValueError(
        f"{what} would not fit the memory ({got}); lower {section}.buffer_size, or "
        f"{section}.policy_kwargs.{keys}"
    )


def _share(needed: int) -> str:
    return f"{needed / 1e9:.1f} of {memory() / 1e9:.1f} GB"


def _bytes(space: spaces.Space[Any]) -> int:
    """Of an observation in the replay buffer."""
    if isinstance(space, spaces.Dict):
        return sum(_bytes(part) for part in space.values())
    return int(np.prod(space.shape or (1,))) * np.dtype(space.dtype).itemsize

"""Returns of a policy, to be compared with the optimum's on the same episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt


def returns(
    env: gym.Env[Any, Any],
    policy: Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]],
    seeds: Iterable[int],
    gamma: float = 1.0,
) -> npt.NDArray[np.float64]:
    """Σₜ γᵗ rₜ of one episode a seed.

    Args:
        env: a task whose episodes end, by themselves or by a time limit.
        policy: the action, in the task's units, for one observation.
        seeds: the episodes: the same seed brings the same start and the same noise.
        gamma: discount factor γ.

    Returns:
        of shape ``(seeds,)``.
    """
    return np.array([_episode(env, policy, seed, gamma) for seed in seeds])


def _episode(
    env: gym.Env[Any, Any], policy: Callable[[Any], npt.NDArray[Any]], seed: int, gamma: float
) -> float:
    observation, _ = env.reset(seed=seed)
    total, discount, ended = 0.0, 1.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        total += discount * float(reward)
        discount *= gamma
        ended = terminated or truncated
    return total

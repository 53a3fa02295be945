"""What all tasks share: an optimal policy that is known, and its comparison with others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Array = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]


class Task(gym.Env[Float32, Float32], ABC):
    """A Gymnasium environment with a flat Box of observations and of actions, and its optimum.

    A subclass starts an episode in ``_start`` and makes a step in ``_advance``. It does not render.

    Args:
        low, high: bounds of the observations, of shape ``(observation_dim,)``.
        action_space: the actions.
        render_mode: None; anything else is ignored.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(
        self,
        low: npt.ArrayLike,
        high: npt.ArrayLike,
        action_space: spaces.Space[Float32],
        render_mode: str | None = None,
    ) -> None:
        bounds = np.asarray([low, high], np.float32)
        self.observation_space: spaces.Space[Float32] = spaces.Box(*bounds, dtype=np.float32)
        self.action_space = action_space
        self.render_mode = render_mode

    @abstractmethod
    def optimal_action(self, x: Array) -> Array:
        """An optimal action for each observation x, shapes ``(*batch, dim)`` of their spaces."""

    @abstractmethod
    def optimal_q(self, x: Array, u: Array) -> Array:
        """Q*(x, u), the expected return after feasible actions u, of shape ``batch``."""

    def optimal_value(self, x: Array) -> Array:
        """V*(x), the expected return of the optimal policy, of shape ``batch``."""
        return self.optimal_q(x, self.optimal_action(x))

    @abstractmethod
    def _start(self) -> None:
        """Draw the first state of an episode."""

    @abstractmethod
    def _advance(self, u: Array) -> tuple[float, bool, dict[str, Any]]:
        """Make a step; the reward, whether the episode ends, and ``info``."""

    @abstractmethod
    def _observation(self) -> Array:
        """What is observed of the state."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        super().reset(seed=seed)
        self._start()
        return self._observation().astype(np.float32), {}

    def step(self, action: Float32) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        reward, terminated, info = self._advance(np.asarray(action, np.float64))
        return self._observation().astype(np.float32), float(reward), terminated, False, info


def returns(
    env: gym.Env[Any, Any],
    policy: Callable[[Float32], npt.NDArray[Any]],
    seeds: Iterable[int],
    gamma: float = 1.0,
) -> Array:
    """Σₜ γᵗ rₜ of one episode for each seed.

    Args:
        env: a task whose episodes end, by themselves or by a time limit.
        policy: the action, in the task's units, for one observation.
        seeds: the episodes: the same seed gives the same start and the same noise.
        gamma: discount factor γ.

    Returns:
        of shape ``(seeds,)``.
    """
    found = []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        total, discount, ended = 0.0, 1.0, False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(policy(observation))
            total += discount * float(reward)
            discount *= gamma
            ended = terminated or truncated
        found.append(total)
    return np.array(found)

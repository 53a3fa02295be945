"""Small environments that the agents' tests share."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LOW, HIGH = np.array([-1.0, 0.0]), np.array([3.0, 0.5])  # off-centre, of different widths


class Bandit(gym.Env[np.ndarray, np.ndarray]):
    """One step an episode; the reward is minus the squared distance of scaled actions to a*(s)."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(LOW.astype(np.float32), HIGH.astype(np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.state, {}

    def step(self, action: np.ndarray) -> Any:
        error = 2 * (action - best_action(self.state)) / (HIGH - LOW)
        return self.state, -float(error @ error), True, False, {}


def best_action(state: np.ndarray) -> np.ndarray:
    """a*(s), in the bandit's action units."""
    scaled = 0.8 * np.stack([state[..., 1], -state[..., 0]], -1)
    return LOW + (scaled + 1) / 2 * (HIGH - LOW)


class Faulty(gym.Env[np.ndarray, np.ndarray]):
    """Returns ``value`` in its ``part`` at one step (0 is the reset), and ends after 4 steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, part: str, at: int, value: float = np.nan) -> None:
        self.part, self.at, self.value, self.steps = part, at, value, 0

    def _observation(self, bad: bool) -> np.ndarray:
        bad = bad and self.part == "observation"
        return np.array([0.0, self.value if bad else 1.0, 2.0], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self._observation(bad=self.at == 0), {}

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        bad = self.steps == self.at
        reward = self.value if bad and self.part == "reward" else 0.0
        return self._observation(bad), reward, self.steps % 4 == 0, False, {}


class ConstantReward(Bandit):
    """Episodes of one step and reward 1, ended by a terminal state or by a time limit."""

    def __init__(self, terminates: bool) -> None:
        self.terminates = terminates

    def step(self, action: np.ndarray) -> Any:
        return self.state, 1.0, self.terminates, not self.terminates, {}

"""One step, one action, two peaks: what no concave function of the action can represent."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Array = npt.NDArray[np.float64]

PEAK = 0.5  # the peaks stand at ±PEAK
LOWER = 0.4  # height of the left peak; the right one's is 1
WIDE, NARROW = 10.0, 40.0  # curvature of the left peak, and of the right one
NOISE = 0.1  # standard deviation of the reward


class BimodalBandit(gym.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """A bandit whose expected reward is the maximum of two concave quadratics.

        E r(a) = max{ 1 - 40 (a - ½)², 0.4 - 10 (a + ½)² },      a ∈ [-1, 1]

    The best action is ½, worth 1; the worse peak is the wider one, which attracts. A concave
    quadratic fitted to uniform actions is highest at -0.28, between the peaks, where the reward is
    negative; a maximum of two concave functions represents the reward exactly.

    Args:
        render_mode: the task does not render; None.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)  # always 0
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def optimal_action(self, x: Array) -> Array:
        """½, for observations of shape ``(*batch, 1)``; of the same shape."""
        return np.full_like(x, PEAK, dtype=np.float64)

    def optimal_value(self, x: Array) -> Array:
        """V*(x) = 1, of shape ``batch``."""
        return np.ones(x.shape[:-1])

    def optimal_q(self, x: Array, u: Array) -> Array:
        """E r(u), of shape ``batch``, for actions of shape ``(*batch, 1)``."""
        right = 1 - NARROW * (u[..., 0] - PEAK) ** 2
        left = LOWER - WIDE * (u[..., 0] + PEAK) ** 2
        return np.maximum(left, right)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        u = np.clip(np.asarray(action, np.float64), -1, 1)
        expected = float(self.optimal_q(np.zeros(1), u))
        reward = expected + NOISE * self.np_random.standard_normal()
        return np.zeros(1, np.float32), reward, True, False, {}

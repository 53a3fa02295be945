"""Past an obstacle on the left or on the right: control whose optimal action has two modes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Array = npt.NDArray[np.float64]

STEPS = 6
DISTANCE = 0.5  # m; the best distance from the obstacle's middle at which to pass it
NARROW = 40.0  # cost of passing 1 m nearer or farther than that on the left, as its square
WIDE = 10.0  # likewise on the right
TOLL = 0.6  # cost of passing on the right
LANE = 0.2  # cost of a step 1 m off the lane, growing with the square
EFFORT = 0.1  # cost of a step at full action, likewise
START = 0.2  # m; the start lies within ±START
BOUND = 2.0  # m; no action reaches it within an episode


class Detour(gym.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """Drive straight ahead, around an obstacle that stands in the middle of the lane.

        x' = x + u,      reward = -(0.1 u² + 0.2 x'²) - [first step] c(x'),      u ∈ [-1, 1],
        c(x) = min{ 40 (x + ½)², 10 (x - ½)² + 0.6 },

    with x the distance from the middle of the lane in m, to the right. c is the cost of passing the
    obstacle: on the left, where the gap is narrow, or on the right, where it is wide but a toll is
    due; in either, not too near and not too far. Given the side everything is convex, so the first
    step's

        Q*(x, u) = max{ Q_left(x, u), Q_right(x, u) }

    is a maximum of two functions concave in u; afterwards, on the way back to the lane, one is
    left. The concave quadratic nearest to Q* has its maximum between the two, in the obstacle.
    An observation is (x, share of the episode that is over); an episode ends after 6 steps.

    Args:
        points: of the grid over x on which dynamic programming computes V*, linear between them.
        render_mode: the task does not render; None.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, points: int = 2001, render_mode: str | None = None) -> None:
        self.points = points
        self.render_mode = render_mode
        low, high = np.array([-BOUND, 0.0]), np.array([BOUND, 1.0])
        self.observation_space = spaces.Box(np.float32(low), np.float32(high), dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._x, self._time = 0.0, 0

    def optimal_action(self, x: Array) -> Array:
        """argmax_u Q*(x, u) over a grid of actions, for observations of shape ``(*batch, 2)``; of
        shape ``(*batch, 1)``.
        """
        return np.asarray(self._actions[self._all_q(x).argmax(-1)][..., None])

    def optimal_value(self, x: Array) -> Array:
        """V*(x), undiscounted, of shape ``batch``."""
        return np.asarray(self._all_q(x).max(-1))

    def optimal_q(self, x: Array, u: Array) -> Array:
        """Q*(x, u), undiscounted, of shape ``batch``, for actions of shape ``(*batch, 1)``."""
        x, time, u = np.broadcast_arrays(x[..., 0], np.rint(x[..., 1] * STEPS), u[..., 0])
        q = np.empty(x.shape)
        for t in range(STEPS):
            now = time == t
            q[now] = self._q(t, x[now], u[now], self._values[t + 1])
        return q

    def _all_q(self, x: Array) -> Array:
        return self.optimal_q(np.asarray(x)[..., None, :], self._actions[:, None])

    @property
    def _actions(self) -> Array:
        return np.linspace(-1, 1, 401)

    @cached_property
    def _values(self) -> Array:
        """V* on the grid, of shape ``(STEPS + 1, points)``."""
        values = np.zeros((STEPS + 1, self.points))
        x, u = self._grid[:, None], self._actions
        for t in reversed(range(STEPS)):
            values[t] = self._q(t, x, u, values[t + 1]).max(-1)
        return values

    @property
    def _grid(self) -> Array:
        return np.linspace(-BOUND, BOUND, self.points)

    def _q(self, time: int, x: Array, u: Array, following: Array) -> Array:
        moved = _move(x, u)
        return _reward(time, moved, u) + np.interp(moved, self._grid, following)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._x, self._time = float(self.np_random.uniform(-START, START)), 0
        return self._observation(), {}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        u = np.clip(np.asarray(action, np.float64)[0], -1, 1)
        self._x = float(_move(self._x, u))
        reward = float(_reward(self._time, self._x, u))
        self._time += 1
        return self._observation(), reward, self._time == STEPS, False, {}

    def _observation(self) -> npt.NDArray[np.float32]:
        return np.array([self._x, self._time / STEPS], np.float32)


def _move(x: Array | float, u: Array) -> Array:
    return np.clip(x + u, -BOUND, BOUND)


def _reward(time: int, moved: Array | float, u: Array) -> Array:
    reward = -EFFORT * np.square(u) - LANE * np.square(moved)
    if time == 0:
        left = NARROW * np.square(moved + DISTANCE)
        right = WIDE * np.square(moved - DISTANCE) + TOLL
        reward = reward - np.minimum(left, right)
    return np.asarray(reward)

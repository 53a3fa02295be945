"""A bandit and a course of posts whose optimal actions have two modes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces

from icnn_rl.envs.task import Array, Task

PEAK = 0.5  # the bandit's peaks stand at ±PEAK
POSTS = 5  # of the slalom, in a row; one a step
SPREAD = 0.5  # m; posts and starts lie within ±SPREAD of the middle of the lane
DISTANCE = 0.5  # m; the best distance at which to pass a post
MISS = 8.0  # cost of passing 1 m nearer or farther than that, growing with the square
LANE = 1.0  # cost of passing 1 m off the middle of the lane, likewise
EFFORT = 0.1  # cost of an action of 1 m, likewise
BOUND = 1.5  # m; the banks
ACTIONS = np.linspace(-1, 1, 201)  # among which dynamic programming chooses


class BimodalBandit(Task):
    """A bandit whose expected reward is the maximum of two concave quadratics.

        E r(a) = max{ 1 - 40 (a - ½)², 0.4 - 10 (a + ½)² },      a ∈ [-1, 1]

    The noise of the reward has a standard deviation of 0.1, and the observation is always 0. The
    best action is ½, worth 1; the worse peak is the wider one, which attracts. A concave quadratic
    fitted to uniform actions is highest at -0.28, between the peaks, where the reward is negative;
    a maximum of two concave functions represents the reward exactly.

    Args:
        render_mode: None.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__([-1.0], [1.0], spaces.Box(-1.0, 1.0, (1,), np.float32), render_mode)

    def optimal_action(self, x: Array) -> Array:
        return np.full_like(x, PEAK, dtype=np.float64)

    def optimal_q(self, x: Array, u: Array) -> Array:
        right, left = 1 - 40 * (u[..., 0] - PEAK) ** 2, 0.4 - 10 * (u[..., 0] + PEAK) ** 2
        return np.maximum(left, right)

    def _start(self) -> None:
        pass

    def _advance(self, u: Array) -> tuple[float, bool, dict[str, Any]]:
        expected = float(self.optimal_q(np.zeros(1), np.clip(u, -1, 1)))
        return expected + 0.1 * self.np_random.standard_normal(), True, {}

    def _observation(self) -> Array:
        return np.zeros(1)


class Slalom(Task):
    """Run past five posts, each on its left or on its right.

        x' = x + u,      reward = -(0.1 u² + x'²) - 8 (|x' - g| - ½)²,      u ∈ [-1, 1], |x'| ≤ 1.5

    with x the distance from the middle of the lane in m, to the right, and g the position of the
    next post, uniform on [-½, ½] and independent of all others. The best distance at which to pass
    it is half a metre, on either side; straight ahead it is hit. Which side is better depends on
    the post, the way to it, and what lies behind it. Given the side, the reward is concave in u, so

        Q*(s, u) = max{ Q_left(s, u), Q_right(s, u) }

    has two peaks with the post between them. The concave quadratic nearest to it hits the post. An
    observation is (x, g, share of the posts that are passed); the fifth post ends the episode, and
    the optimum is undiscounted. ``info["distance"]`` is x' - g.

    Args:
        points: number of grid points over x for E_g V*(x, g), by dynamic programming; linear
            between them.
        render_mode: None.

    Raises:
        ValueError: there are fewer than two points.
    """

    def __init__(self, points: int = 151, render_mode: str | None = None) -> None:
        if points < 2:
            raise ValueError(f"points: expected at least 2, got {points}")
        low, high = [-BOUND, -SPREAD, 0.0], [BOUND, SPREAD, 1.0]
        super().__init__(low, high, spaces.Box(-1.0, 1.0, (1,), np.float32), render_mode)
        self.points = points
        self._x, self._post, self._passed = 0.0, 0.0, 0

    def optimal_action(self, x: Array) -> Array:
        """argmax_u Q*(x, u) over a grid of actions."""
        q = self.optimal_q(np.asarray(x)[..., None, :], ACTIONS[:, None])
        return np.asarray(ACTIONS[q.argmax(-1)][..., None])

    def optimal_q(self, x: Array, u: Array) -> Array:
        x = np.asarray(x)
        passed = np.rint(x[..., 2] * POSTS)
        position, post, passed, u = np.broadcast_arrays(x[..., 0], x[..., 1], passed, u[..., 0])
        q = np.zeros(position.shape)
        for count in range(POSTS):
            now = passed == count
            moved = _move(position[now], u[now])
            following = np.interp(moved, *_values(self.points, count + 1))
            q[now] = _reward(moved, post[now], u[now]) + following
        return q

    def _start(self) -> None:
        self._x, self._post = self.np_random.uniform(-SPREAD, SPREAD, 2)
        self._passed = 0

    def _advance(self, u: Array) -> tuple[float, bool, dict[str, Any]]:
        effort = np.clip(u[0], -1, 1)
        self._x = float(_move(self._x, effort))
        reward, distance = float(_reward(self._x, self._post, effort)), self._x - self._post
        self._post = float(self.np_random.uniform(-SPREAD, SPREAD))
        self._passed += 1
        return reward, self._passed == POSTS, {"distance": distance}

    def _observation(self) -> Array:
        return np.array([self._x, self._post, self._passed / POSTS])


def _move(x: Array | float, u: Array) -> Array:
    return np.asarray(np.clip(x + u, -BOUND, BOUND))


def _reward(moved: Array | float, post: Array | float, u: Array) -> Array:
    miss = np.abs(moved - np.asarray(post)) - DISTANCE
    return np.asarray(-EFFORT * np.square(u) - LANE * np.square(moved) - MISS * np.square(miss))


@cache
def _values(points: int, passed: int) -> tuple[Array, Array]:
    """A grid over x, and E_g V*(x, g) on it after ``passed`` posts."""
    grid = np.linspace(-BOUND, BOUND, points)
    if passed == POSTS:
        return grid, np.zeros(points)
    moved = _move(grid[:, None], ACTIONS)
    following = np.interp(moved, *_values(points, passed + 1))
    posts = SPREAD * (np.arange(0.5, 50) / 25 - 1)  # the midpoint rule
    best = [(_reward(moved, post, ACTIONS) + following).max(-1) for post in posts]
    return grid, np.mean(best, 0)

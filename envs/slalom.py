"""Posts, each to be passed on its left or on its right: control whose optimal action is bimodal."""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Array = npt.NDArray[np.float64]

POSTS = 5  # in a row; one a step
SPREAD = 0.5  # m; posts and starts lie within ±SPREAD of the middle of the lane
DISTANCE = 0.5  # m; the best distance at which to pass a post
MISS = 8.0  # cost of passing 1 m nearer or farther than that, growing with the square
LANE = 1.0  # cost of passing 1 m off the middle of the lane, likewise
EFFORT = 0.1  # cost of an action of 1 m, likewise
BOUND = 1.5  # m; the banks
ACTIONS = np.linspace(-1, 1, 201)  # among which dynamic programming chooses


class Slalom(gym.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """Run past five posts, each on its left or on its right.

        x' = x + u,      reward = -(0.1 u² + x'²) - 8 (|x' - g| - ½)²,      u ∈ [-1, 1], |x'| ≤ 1.5

    with x the distance from the middle of the lane in m, to the right, and g that of the post to be
    passed next, uniform on [-½, ½] and independent of all others. It is best passed at half a metre
    on either side, and straight ahead it is hit. Where one is sent depends on the post, the way to
    it, and what lies behind it. Given the side, the reward is concave in u, so

        Q*(s, u) = max{ Q_left(s, u), Q_right(s, u) }

    has two peaks and the post between them. The concave quadratic nearest to it hits the post. An
    observation is (x, g, share of the posts that are passed); the fifth post ends the episode.

    Args:
        points: of the grid over x on which dynamic programming computes E_g V*(x, g), linear
            between them.
        render_mode: the task does not render; None.

    Raises:
        ValueError: there are fewer than two points.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, points: int = 151, render_mode: str | None = None) -> None:
        if points < 2:
            raise ValueError(f"points: expected at least 2, got {points}")
        self.points = points
        self.render_mode = render_mode
        low, high = np.array([-BOUND, -SPREAD, 0.0]), np.array([BOUND, SPREAD, 1.0])
        self.observation_space = spaces.Box(np.float32(low), np.float32(high), dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._x, self._post, self._passed = 0.0, 0.0, 0

    def optimal_action(self, x: Array) -> Array:
        """argmax_u Q*(x, u) over a grid of actions, for observations of shape ``(*batch, 3)``; of
        shape ``(*batch, 1)``.
        """
        return np.asarray(ACTIONS[self._all_q(x).argmax(-1)][..., None])

    def optimal_value(self, x: Array) -> Array:
        """V*(x), undiscounted, of shape ``batch``."""
        return np.asarray(self._all_q(x).max(-1))

    def optimal_q(self, x: Array, u: Array) -> Array:
        """Q*(x, u), undiscounted, of shape ``batch``, for actions of shape ``(*batch, 1)``."""
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

    def _all_q(self, x: Array) -> Array:
        return self.optimal_q(np.asarray(x)[..., None, :], ACTIONS[:, None])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._x, self._post = self.np_random.uniform(-SPREAD, SPREAD, 2)
        self._passed = 0
        return self._observation(), {}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        u = np.clip(np.asarray(action, np.float64)[0], -1, 1)
        self._x = float(_move(self._x, u))
        reward, distance = float(_reward(self._x, self._post, u)), self._x - self._post
        self._post = float(self.np_random.uniform(-SPREAD, SPREAD))
        self._passed += 1
        return self._observation(), reward, self._passed == POSTS, False, {"distance": distance}

    def _observation(self) -> npt.NDArray[np.float32]:
        return np.array([self._x, self._post, self._passed / POSTS], np.float32)


def _move(x: Array | float, u: Array) -> Array:
    return np.asarray(np.clip(x + u, -BOUND, BOUND))


def _reward(moved: Array | float, post: Array | float, u: Array) -> Array:
    miss = np.abs(moved - np.asarray(post)) - DISTANCE
    return np.asarray(-EFFORT * np.square(u) - LANE * np.square(moved) - MISS * np.square(miss))


@cache
def _values(points: int, passed: int) -> tuple[Array, Array]:
    """A grid over x, and E_g V*(x, g) on it where so many posts are passed."""
    grid = np.linspace(-BOUND, BOUND, points)
    if passed == POSTS:
        return grid, np.zeros(points)
    moved = _move(grid[:, None], ACTIONS)
    following = np.interp(moved, *_values(points, passed + 1))
    posts = SPREAD * (np.arange(0.5, 50) / 25 - 1)  # the midpoint rule
    best = [(_reward(moved, post, ACTIONS) + following).max(-1) for post in posts]
    return grid, np.mean(best, 0)

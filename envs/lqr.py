"""A linear system with a quadratic cost, whose Q function is known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from icnn_rl.envs.task import Array, Task

STEP = 0.1  # seconds
FORCE = 4.0  # largest force; the optimal policy needs less from almost every state it meets
START = 1.0  # positions and velocities at the start lie within ±START
BOUND = 2.0  # beyond it the cart is held; the optimal policy does not come near it


class LQR(Task):
    """Bring a cart on a frictionless track to rest at 0.

        x' = A x + B u + w,      reward = -(xᵀ Q x + uᵀ R u),      w ~ N(0, noise² I)

    with x = (position in m, velocity in m/s) and u the force in N on a mass of 1 kg. As long as u
    stays inside its bounds, the discounted optimum is the solution P of the Riccati equation:

        V*(x) = -xᵀ P x - c,      Q*(x, u) = reward + γ E V*(x'),      u* = -K x,

    so Q* is concave in u, exactly what a concave critic can represent.

    Args:
        gamma: discount factor γ of the optimum.
        noise: standard deviation of w in each coordinate.
        render_mode: None.

    Raises:
        ValueError: noise < 0, or γ outside [0, 1], or 1 where there is noise.

    Source: Bertsekas, "Dynamic Programming and Optimal Control", volume 2, section 4.2.
    """

    def __init__(
        self, gamma: float = 0.99, noise: float = 0.01, render_mode: str | None = None
    ) -> None:
        from scipy.linalg import solve_discrete_are  # slow to load

        if not 0 <= noise < np.inf:
            raise ValueError(f"noise: expected a finite number >= 0, got {noise}")
        if not (0 <= gamma < 1 or (gamma == 1 and noise == 0)):
            raise ValueError(f"gamma: expected 0 <= gamma < 1, or 1 without noise; got {gamma}")
        forces = spaces.Box(-FORCE, FORCE, (1,), np.float32)
        super().__init__([-BOUND, -BOUND], [BOUND, BOUND], forces, render_mode)
        self.gamma, self.noise = gamma, noise
        self.A = np.array([[1.0, STEP], [0.0, 1.0]])
        self.B = np.array([[STEP**2 / 2], [STEP]])
        self.Q = np.diag([1.0, 0.1])
        self.R = np.array([[0.1]])
        discounted = np.sqrt(gamma) * self.A, np.sqrt(gamma) * self.B
        self.P: Array = solve_discrete_are(*discounted, self.Q, self.R)
        gram = self.R + gamma * self.B.T @ self.P @ self.B
        self.K: Array = np.linalg.solve(gram, gamma * self.B.T @ self.P @ self.A)
        self._noise_cost = float(noise**2 * np.trace(self.P))  # E wᵀ P w
        self._state = np.zeros(2)

    def optimal_action(self, x: Array) -> Array:
        return np.asarray(-x @ self.K.T)

    def optimal_q(self, x: Array, u: Array) -> Array:
        noise = self._noise_cost / (1 - self.gamma) if self.noise > 0 else 0.0
        following = -_quadratic(self.P, x @ self.A.T + u @ self.B.T) - noise
        return self._reward(x, u) + self.gamma * following

    def _reward(self, x: Array, u: Array) -> Array:
        return -_quadratic(self.Q, x) - _quadratic(self.R, u)

    def _start(self) -> None:
        self._state = self.np_random.uniform(-START, START, 2)

    def _advance(self, u: Array) -> tuple[float, bool, dict[str, Any]]:
        u = np.clip(u, -FORCE, FORCE)
        reward = float(self._reward(self._state, u))
        drift = self.noise * self.np_random.standard_normal(2)
        self._state = np.clip(self.A @ self._state + self.B @ u + drift, -BOUND, BOUND)
        return reward, False, {}

    def _observation(self) -> Array:
        return self._state


def _quadratic(M: Array, x: Array) -> Array:
    """xᵀ M x, for x of shape ``(*batch, n)``."""
    return np.asarray(np.einsum("...i,ij,...j->...", x, M, x))

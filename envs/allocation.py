"""Shares of a sum in changing seasons: control on the simplex, with a closed-form optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from icnn_rl import Simplex
from icnn_rl.envs.task import Array, Task

Seasons = npt.NDArray[np.intp]

BASE = 1.0  # return of a project out of season, for a small share
BONUS = 1.5  # what the season adds
STAY = 0.9  # probability that the season goes on
SATURATION = 2.0  # how fast a project's return falls with its share


class Allocation(Task):
    """Divide a sum of money among n projects; one of them is in season, for ten steps on average.

        reward = zᵀ a - ρ/2 |a|² - κ/2 |a - b|²,      a ∈ Δ = { a ≥ 0, Σ a = 1 },      b' = a,

    with a the shares now, b those of the step before, κ the cost of moving, ρ = 2, and
    z = 1 + 1.5 e_m in season m. The season goes on with probability 0.9, else the next project's
    begins. An observation is (b, z). An action off the simplex is projected onto it, and
    ``info["violation"]`` is the Euclidean distance to it; ``action_set`` announces the simplex.

    On Δ the optimum for the discount γ is linear-quadratic, as the season moves only q and c:

        V*(b, m) = -v/2 |d|² + q_mᵀ d + c_m,      d = b - 1/n,      a* = (1 - τ) b + τ aim_m,

    so Q* is concave in a. The shares move by τ towards an aim which weighs this season and the
    next: an average of the seasons' myopic optima. These lie inside Δ, hence the aims and a* do.

    Args:
        n: number of projects, at least 2.
        switching: cost of moving κ; 0 makes every step a problem of its own.
        gamma: discount factor γ of the optimum.
        render_mode: None.

    Attributes:
        aims: of shape ``(n, n)``, a row a season.
        rate: τ in (0, 1].

    Raises:
        ValueError: n < 2, κ < 0, or γ outside [0, 1).

    Source: Gârleanu & Pedersen, "Dynamic trading with predictable returns and transaction costs",
    Journal of Finance, 2013, proposition 2; here with seasons in place of factors.
    """

    def __init__(
        self,
        n: int = 4,
        switching: float = 2.0,
        gamma: float = 0.99,
        render_mode: str | None = None,
    ) -> None:
        if n < 2:
            raise ValueError(f"n: expected at least 2 projects, got {n}")
        if not 0 <= switching < np.inf:
            raise ValueError(f"switching: expected a finite cost >= 0, got {switching}")
        if not 0 <= gamma < 1:
            raise ValueError(f"gamma: expected 0 <= gamma < 1, got {gamma}")
        high = np.repeat([1.0, BASE + BONUS], n)
        super().__init__(0 * high, high, spaces.Box(0.0, 1.0, (n,), np.float32), render_mode)
        self.n, self.switching, self.gamma = n, switching, gamma
        self.seasons: Array = BASE + BONUS * np.eye(n)  # z, a row a season
        self._shares, self._season = np.full(n, 1 / n), 0
        following = STAY * np.eye(n) + (1 - STAY) * np.roll(np.eye(n), 1, axis=1)
        # All curvatures are multiples of I, so the Riccati equation is a quadratic one in v:
        # v = κ (ρ + γ v) / (ρ + κ + γ v).
        linear = SATURATION + switching * (1 - gamma)
        root = np.sqrt(linear**2 + 4 * gamma * switching * SATURATION)
        self._v = 2 * switching * SATURATION / (linear + root)
        curvature = SATURATION + switching + gamma * self._v
        keep = switching / curvature
        signal = self.seasons - self.seasons.mean(1, keepdims=True)
        slopes = np.linalg.solve(np.eye(n) - gamma * keep * following, signal)
        self._q = keep * slopes
        gain = self.seasons.mean(1) - SATURATION / (2 * n)
        gain += np.square(slopes).sum(1) / (2 * curvature)
        self._c = np.linalg.solve(np.eye(n) - gamma * following, gain)
        self._following = following
        self.rate = 1 - keep
        self.aims: Array = 1 / n + slopes / (curvature - switching)

    @staticmethod
    def action_set(observations: Tensor) -> Simplex:
        """The feasible actions: the same simplex in every state."""
        return Simplex()

    def optimal_action(self, x: Array) -> Array:
        shares, season = self._read(x)
        return np.asarray(shares + self.rate * (self.aims[season] - shares))

    def optimal_q(self, x: Array, u: Array) -> Array:
        shares, season = self._read(x)
        values = [self._value(u, np.full_like(season, m)) for m in range(self.n)]
        expected = (self._following[season] * np.stack(values, -1)).sum(-1)
        return np.asarray(self._reward(shares, season, u) + self.gamma * expected)

    def _read(self, x: Array) -> tuple[Array, Seasons]:
        return x[..., : self.n], np.asarray(x[..., self.n :].argmax(-1))

    def _value(self, shares: Array, season: Seasons) -> Array:
        d = shares - 1 / self.n
        linear = (self._q[season] * d).sum(-1)
        return np.asarray(-self._v / 2 * np.square(d).sum(-1) + linear + self._c[season])

    def _reward(self, shares: Array, season: Seasons | int, a: Array) -> Array:
        moving = self.switching / 2 * np.square(a - shares).sum(-1)
        earned = (self.seasons[season] * a).sum(-1) - SATURATION / 2 * np.square(a).sum(-1)
        return np.asarray(earned - moving)

    def _start(self) -> None:
        self._shares = self.np_random.dirichlet(np.ones(self.n))
        self._season = int(self.np_random.integers(self.n))

    def _advance(self, u: Array) -> tuple[float, bool, dict[str, Any]]:
        shares = Simplex().project(torch.from_numpy(u)).numpy()
        reward = float(self._reward(self._shares, self._season, shares))
        self._shares = shares
        if self.np_random.random() >= STAY:
            self._season = (self._season + 1) % self.n
        return reward, False, {"violation": float(np.linalg.norm(u - shares))}

    def _observation(self) -> Array:
        return np.concatenate([self._shares, self.seasons[self._season]])

"""Storage against a price: linear dynamics, convex cost, known with and without foresight."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from torch import Tensor

from icnn_rl import Box
from icnn_rl.envs.task import Array, Task

HOURS = 48
CAPACITY = 4.0  # MWh
POWER = 1.0  # MW; the largest change of the charge in an hour
GENTLE = 0.5  # MW; beyond it the battery wears faster
EFFICIENCY = 0.95  # each way
WEAR = 0.02  # cost of a MWh moved
EXTRA_WEAR = 0.1  # added beyond GENTLE
SWING = 0.4  # of the log price around its mean over a day: lowest at 6 h, highest at 18 h
PERSISTENCE = 0.8  # of the log price's deviation from one hour to the next
VOLATILITY = 0.15  # standard deviation of its hourly noise
DEVIATION = 1.5  # largest deviation, six times its standard deviation


class Battery(Task):
    """Buy energy when it is cheap, sell it when it is dear, for 48 hours.

        c' = c + u,      0 ≤ c' ≤ 4 MWh,      u ∈ [-1, 1] MW for an hour,
        reward = -p (u⁺ / η - η u⁻) - 0.02 |u| - 0.1 (|u| - ½)⁺,      η = 0.95,
        log p = m(hour) + x,      x' = 0.8 x + N(0, 0.15²),      m(h) = -0.4 cos(2π (h - 6) / 24)

    with c the charge, u its change in an hour, p the price of a MWh (in units of about its mean)
    and the last two terms the wear. As p > 0, the reward is concave in u, the feasible (c, u) are a
    convex set, and Q* is jointly concave in (c, u). An action beyond the charge's limits is clipped
    to them, and ``info["violation"]`` is what was cut off; ``action_set`` announces the limits,
    within which the problem is convex.

    An observation is (c / 4, log p, sin, cos of the hour, share of the episode that is left). What
    is in the battery at the end is lost. The charge at the start is uniform.

    Args:
        gamma: discount factor γ of the optimum.
        render_mode: None.

    Attributes:
        prices: of this episode, of shape ``(48,)``; drawn by ``reset``, for ``foresight``.

    Raises:
        ValueError: γ outside [0, 1].
    """

    def __init__(self, gamma: float = 1.0, render_mode: str | None = None) -> None:
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma: expected 0 <= gamma <= 1, got {gamma}")
        low, high = [0, -SWING - DEVIATION, -1, -1, 0], [1, SWING + DEVIATION, 1, 1, 1]
        super().__init__(low, high, spaces.Box(-POWER, POWER, (1,), np.float32), render_mode)
        self.gamma = gamma
        self.prices: Array = np.ones(HOURS)
        self._log_prices: Array = np.zeros(HOURS + 1)
        self._charge, self._hour = 0.0, 0

    @staticmethod
    def action_set(observations: Tensor) -> Box:
        """The changes that neither overfill the battery nor take more than it holds."""
        charge = CAPACITY * observations[:, :1]
        return Box((-charge).clamp(-POWER, 0), (CAPACITY - charge).clamp(0, POWER))

    def optimal_action(self, x: Array) -> Array:
        """The best change of the charge without foresight.

        Q* is concave and piecewise linear in u; one of its kinks is best: those of the reward, and
        those of V*, on the lattice of charges.
        """
        charge = CAPACITY * x[..., :1].astype(float)
        gentle = np.broadcast_to([0, -GENTLE, GENTLE], (*charge.shape[:-1], 3))
        u = np.concatenate([gentle, _lattice() - charge], -1)
        u = np.clip(u, np.maximum(-POWER, -charge), np.minimum(POWER, CAPACITY - charge))
        return np.take_along_axis(u, self._q(x, u).argmax(-1)[..., None], -1)

    def optimal_q(self, x: Array, u: Array) -> Array:
        return np.asarray(self._q(x, u)[..., 0])

    def _q(self, x: Array, u: Array) -> Array:
        """Q* of k actions for each observation, of shape ``(*batch, k)``, as u."""
        charge, log_price = CAPACITY * x[..., :1].astype(float), x[..., 1].astype(float)
        hour = HOURS - np.rint(x[..., 4] * HOURS).astype(int)
        following = _continued(continuation(self.gamma)[hour], log_price - _daily(hour), charge + u)
        q = _reward(np.exp(log_price)[..., None], u) + following
        return np.where(hour[..., None] < HOURS, q, 0.0)

    def foresight(self) -> tuple[Array, float]:
        """The best actions for the prices of this episode, from the charge now.

            max Σₜ reward(pₜ, uₜ)   subject to   0 ≤ c + u₀ + … + uₜ ≤ 4 for all t,

        a linear program in purchases and sales, gentle and hard ones; no policy returns more.

        Returns:
            Actions of the hours that are left, of shape ``(hours, 1)``, and their return.
        """
        from scipy.optimize import linprog  # slow to load

        prices = self.prices[self._hour :, None]
        hours = len(prices)
        if hours == 0:
            return np.zeros((0, 1)), 0.0
        wear = np.array([WEAR, WEAR + EXTRA_WEAR])
        costs = np.hstack([prices / EFFICIENCY + wear, -prices * EFFICIENCY + wear])
        most = [(0, GENTLE), (0, POWER - GENTLE)] * 2
        change = np.kron(np.tril(np.ones((hours, hours))), [1, 1, -1, -1])  # of the charge, so far
        limits = np.repeat([CAPACITY - self._charge, self._charge], hours)
        optimum = linprog(costs.ravel(), np.vstack([change, -change]), limits, bounds=most * hours)
        u = optimum.x.reshape(hours, 4) @ [1, 1, -1, -1]
        return u[:, None], -float(optimum.fun)

    def _start(self) -> None:
        self._charge, self._hour = float(self.np_random.uniform(0, CAPACITY)), 0
        x = np.zeros(HOURS + 1)
        x[0] = self.np_random.normal(0, VOLATILITY / np.sqrt(1 - PERSISTENCE**2))
        for hour, noise in enumerate(self.np_random.normal(0, VOLATILITY, HOURS)):
            x[hour + 1] = PERSISTENCE * np.clip(x[hour], -DEVIATION, DEVIATION) + noise
        x = np.clip(x, -DEVIATION, DEVIATION)
        self._log_prices = _daily(np.arange(HOURS + 1)) + x
        self.prices = np.exp(self._log_prices[:HOURS])

    def _advance(self, u: Array) -> tuple[float, bool, dict[str, Any]]:
        wanted = float(u[0])
        change = min(max(wanted, -POWER, -self._charge), POWER, CAPACITY - self._charge)
        reward = float(_reward(self.prices[self._hour], change))
        self._charge = min(max(self._charge + change, 0.0), CAPACITY)  # rounding
        self._hour += 1
        return reward, self._hour == HOURS, {"violation": abs(wanted - change)}

    def _observation(self) -> Array:
        angle = 2 * np.pi * self._hour / 24
        state = [self._charge / CAPACITY, self._log_prices[self._hour]]
        return np.array([*state, np.sin(angle), np.cos(angle), 1 - self._hour / HOURS])


@lru_cache
def continuation(gamma: float = 1.0, points: int = 151, step: float = GENTLE) -> Array:
    """γ E[ V*(c', x') | x ] after each hour's action, by dynamic programming.

        V*(c, x) = max_u  reward(p, u) + γ E[ V*(c + u, x') | x ]

    V* is linear in c between multiples of 0.5 MWh, as the power, its gentle part and the capacity
    are such multiples: in the charge this is exact. In x, V* is taken as linear between grid
    points, and the expectation of such a function is closed-form.

    Args:
        gamma: discount factor γ.
        points: number of grid points for the price's deviation x.
        step: of the lattice of charges, in MWh; 0.5 or a whole part of it.

    Returns:
        of shape ``(hours + 1, points, charges)``; zero at and after the last hour.

    Source: Bertsekas, "Dynamic Programming and Optimal Control", volume 1, section 1.3.
    """
    x, charges = _deviations(points), _lattice(step)
    transition = _transition(x)
    change = charges - charges[:, None]  # from the row's charge to the column's
    feasible = np.abs(change) <= POWER + 1e-9
    following = np.zeros((HOURS + 1, points, len(charges)))
    for hour in range(HOURS - 1, 0, -1):
        price = np.exp(_daily(hour) + x)[:, None, None]
        q = _reward(price, change) + following[hour][:, None, :]
        values = np.where(feasible, q, -np.inf).max(-1)
        following[hour - 1] = gamma * transition @ values
    return following


def _continued(following: Array, x: Array, charges: Array) -> Array:
    """``continuation`` of an hour between grid points, at x ``batch``, charges ``(*batch, k)``."""
    j, right = _between(x, _deviations(following.shape[-2]))
    j = j[..., None, None]
    low, high = (np.take_along_axis(following, i, -2)[..., 0, :] for i in (j, j + 1))
    row = low + right[..., None] * (high - low)
    j, right = _between(charges, _lattice())
    low, high = (np.take_along_axis(row, i, -1) for i in (j, j + 1))
    return np.asarray(low + right * (high - low))


def _between(x: Array, grid: Array) -> tuple[npt.NDArray[np.intp], Array]:
    """The grid point left of x, and the share of the way to the next."""
    position = (x - grid[0]) / (grid[1] - grid[0])
    left = np.clip(position, 0, len(grid) - 2).astype(np.intp)
    return left, position - left


def _transition(x: Array) -> Array:
    """Weights W with E[ f(x') | xᵢ ] = Σⱼ Wᵢⱼ f(xⱼ) for f linear between the grid points x.

    Such an f is a sum of ramps; E (x' - k)⁺ is Bachelier's formula.
    """
    from scipy.special import ndtr  # slow to load

    d = (x - PERSISTENCE * x[:, None]) / VOLATILITY
    density = np.exp(-np.square(d) / 2) / np.sqrt(2 * np.pi)
    excess = VOLATILITY * (density - d * ndtr(-d))  # E (x' - xⱼ)⁺
    ramps = -np.diff(excess) / np.diff(x)
    return np.asarray(-np.diff(ramps, prepend=1.0, append=0.0))


def _deviations(points: int) -> Array:
    return np.linspace(-DEVIATION, DEVIATION, points)


def _lattice(step: float = GENTLE) -> Array:
    return np.linspace(0, CAPACITY, round(CAPACITY / step) + 1)


def _daily(hour: Array | npt.NDArray[np.int_] | int) -> Array:
    return np.asarray(-SWING * np.cos(2 * np.pi * (np.asarray(hour) - 6) / 24))


def _reward(price: Array | float, u: Array | float) -> Array:
    traded = np.maximum(u, 0) / EFFICIENCY + np.minimum(u, 0) * EFFICIENCY
    wear = WEAR * np.abs(u) + EXTRA_WEAR * np.maximum(0, np.abs(u) - GENTLE)
    return np.asarray(-price * traded - wear)

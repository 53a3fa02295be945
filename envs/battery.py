"""Storage against a price: linear dynamics, convex cost, known with and without foresight."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from torch import Tensor

from icnn_rl import Box

Array = npt.NDArray[np.float64]

HOURS = 48
CAPACITY = 4.0  # MWh
POWER = 1.0  # MW, by which the charge changes at most
GENTLE = 0.5  # MW; beyond it the battery wears faster
EFFICIENCY = 0.95  # each way
WEAR = 0.02  # cost of a MWh moved
HARD_WEAR = 0.1  # added beyond GENTLE
SWING = 0.4  # of the log price around its mean over a day: lowest at 6 h, highest at 18 h
PERSISTENCE = 0.8  # of the log price's deviation from one hour to the next
VOLATILITY = 0.15  # standard deviation of its hourly noise
DEVIATION = 1.5  # six times its standard deviation, where it is held


@dataclass(frozen=True)
class ChargeSet:
    """The feasible actions: those that neither overfill the battery nor take more than it holds."""

    def __call__(self, observations: Tensor) -> Box:
        """For observations of shape ``(batch, 5)``; the bounds have shape ``(batch, 1)``."""
        charge = CAPACITY * observations[:, :1]
        lower = (-charge / POWER).clamp(-1, 0)
        upper = ((CAPACITY - charge) / POWER).clamp(0, 1)
        return Box(lower, upper)


class Battery(gym.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """Buy energy when it is cheap, sell it when it is dear, for 48 hours.

        c' = c + u,      0 ≤ c' ≤ 4 MWh,      u = 1 MW · a,      a ∈ [-1, 1],
        reward = -p (u⁺ / η - η u⁻) - 0.02 |u| - 0.1 (|u| - ½)⁺,      η = 0.95,
        log p = m(hour) + x,      x' = 0.8 x + N(0, 0.15²),      m(h) = -0.4 cos(2π (h - 6) / 24)

    with c the charge, u its change in an hour, p the price of a MWh (in units of about its mean)
    and the last two terms the wear. As p > 0, the reward is concave in u, the feasible (c, u) are a
    convex set, and Q* is jointly concave in (c, u). An action beyond the charge's limits is done as
    far as they allow, and ``info["violation"]`` is what was cut off; ``action_set`` announces the
    limits, within which the problem is convex. (A penalty would be convex, too, but its slope must
    exceed every price, and it would punish rounding.)

    An observation is (c / 4, log p, sin, cos of the hour, share of the episode that is left). What
    is in the battery at the end is lost. The charge at the start is uniform.

    Args:
        gamma: discount factor γ of the optimum.
        render_mode: the task does not render; None.

    Attributes:
        prices: of this episode, of shape ``(48,)``; drawn by ``reset``, for ``foresight``.

    Raises:
        ValueError: γ outside [0, 1].
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's declaration

    action_set = ChargeSet()

    def __init__(self, gamma: float = 1.0, render_mode: str | None = None) -> None:
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma: expected 0 <= gamma <= 1, got {gamma}")
        self.gamma = gamma
        self.render_mode = render_mode
        high = np.array([1, SWING + DEVIATION, 1, 1, 1], np.float32)
        low = np.array([0, -SWING - DEVIATION, -1, -1, 0], np.float32)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.prices: Array = np.ones(HOURS)
        self._log_prices: Array = np.zeros(HOURS + 1)
        self._charge, self._hour = 0.0, 0

    def optimal_action(self, x: Array) -> Array:
        """The best action without foresight, for observations ``(*batch, 5)``; ``(*batch, 1)``."""
        return np.asarray(self._best(x)[0][..., None] / POWER)

    def optimal_value(self, x: Array) -> Array:
        """V*(x), the expected return of ``optimal_action``, of shape ``batch``."""
        return self._best(x)[1]

    def _best(self, x: Array) -> tuple[Array, Array]:
        """The best change of charge and its value.

        All functions of u here are concave and linear between the kinks of the reward and those of
        V*, on the lattice of charges: one of these is best.
        """
        charge, log_price = CAPACITY * x[..., :1].astype(float), x[..., 1].astype(float)
        hour = HOURS - np.rint(x[..., 4] * HOURS).astype(int)
        kinks = np.broadcast_to([0, -GENTLE, GENTLE], (*hour.shape, 3))
        u = np.concatenate([kinks, _lattice() - charge], -1)
        u = np.clip(u, np.maximum(-POWER, -charge), np.minimum(POWER, CAPACITY - charge))
        following = _continued(continuation(self.gamma)[hour], log_price - _daily(hour), charge + u)
        q = _reward(np.exp(log_price)[..., None], u) + following
        best = q.argmax(-1)[..., None]
        value = np.take_along_axis(q, best, -1)[..., 0]
        return np.take_along_axis(u, best, -1)[..., 0], np.where(hour < HOURS, value, 0.0)

    def foresight(self) -> tuple[Array, float]:
        """The best actions for this episode's prices, had they been known, from the charge now.

            max Σₜ reward(pₜ, uₜ)   subject to   0 ≤ c + u₀ + … + uₜ ≤ 4 for all t,

        a linear program in purchases and sales, gentle and hard ones; no policy returns more.

        Returns:
            actions of the hours that are left, of shape ``(hours, 1)``, and their return.
        """
        from scipy.optimize import linprog  # slow to load

        prices = self.prices[self._hour :, None]
        hours = len(prices)
        if hours == 0:
            return np.zeros((0, 1)), 0.0
        wear = np.array([WEAR, WEAR + HARD_WEAR])
        costs = np.hstack([prices / EFFICIENCY + wear, -prices * EFFICIENCY + wear])
        most = [(0, GENTLE), (0, POWER - GENTLE)] * 2
        change = np.kron(np.tril(np.ones((hours, hours))), [1, 1, -1, -1])  # of the charge, so far
        limits = np.repeat([CAPACITY - self._charge, self._charge], hours)
        optimum = linprog(costs.ravel(), np.vstack([change, -change]), limits, bounds=most * hours)
        u = optimum.x.reshape(hours, 4) @ [1, 1, -1, -1]
        return u[:, None] / POWER, -float(optimum.fun)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._charge, self._hour = float(self.np_random.uniform(0, CAPACITY)), 0
        x = np.zeros(HOURS + 1)
        x[0] = self.np_random.normal(0, VOLATILITY / np.sqrt(1 - PERSISTENCE**2))
        for hour, noise in enumerate(self.np_random.normal(0, VOLATILITY, HOURS)):
            x[hour + 1] = PERSISTENCE * np.clip(x[hour], -DEVIATION, DEVIATION) + noise
        x = np.clip(x, -DEVIATION, DEVIATION)
        self._log_prices = _daily(np.arange(HOURS + 1)) + x
        self.prices = np.exp(self._log_prices[:HOURS])
        return self._observation(), {}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        wanted = POWER * float(np.asarray(action, np.float64)[0])
        least, most = max(-POWER, -self._charge), min(POWER, CAPACITY - self._charge)
        u = min(max(wanted, least), most)
        reward = float(_reward(self.prices[self._hour], u))
        self._charge = min(max(self._charge + u, 0.0), CAPACITY)  # rounding
        self._hour += 1
        info = {"violation": abs(wanted - u) / POWER}
        return self._observation(), reward, self._hour == HOURS, False, info

    def _observation(self) -> npt.NDArray[np.float32]:
        angle = 2 * np.pi * self._hour / 24
        state = [self._charge / CAPACITY, self._log_prices[self._hour]]
        time = [np.sin(angle), np.cos(angle), 1 - self._hour / HOURS]
        return np.array(state + time, np.float32)


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
    wear = WEAR * np.abs(u) + HARD_WEAR * np.maximum(0, np.abs(u) - GENTLE)
    return np.asarray(-price * traded - wear)

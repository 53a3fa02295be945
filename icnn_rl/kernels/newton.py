"""Newton's method, sample by sample in compiled code: what a point proves, steps within a box."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from icnn_rl.kernels import DECREASE, RIDGE
from icnn_rl.kernels.compiling import compiled, inner
from icnn_rl.kernels.linear_algebra import factor, row_dot, substitute
from icnn_rl.kernels.tangents import Evaluations, Tangents, tangent_at

if TYPE_CHECKING:
    from icnn_rl.kernels.polyhedron import Polyhedron

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


class State(NamedTuple):
    """Where Newton's method stands with each of a batch of functions.

    Attributes:
        base: the last accepted point, ``(size, n)``.
        best: the least value, ``(size,)``.
        bound: a lower bound of the minimum, ``(size,)``.
        step, decrease: the step from ``base``, and what its model fell by, ≥ 0.
        share: how much of the step is being tried, ``(size,)``.
        evaluations: how many, ``(size,)``.
    """

    base: Array
    best: Array
    bound: Array
    step: Array
    decrease: Array
    share: Array
    evaluations: npt.NDArray[np.int64]

    @classmethod
    def at(cls, start: Array) -> State:
        """The state before the first evaluation."""
        size = len(start)
        return cls(
            base=start.copy(),
            best=np.full(size, np.inf),
            bound=np.full(size, -np.inf),
            step=np.zeros_like(start),
            decrease=np.zeros(size),
            share=np.ones(size),
            evaluations=np.zeros(size, np.int64),
        )


def judge(
    evaluations: Evaluations, over: Polyhedron, gamma: Array, rounding: float, state: State
) -> tuple[Tangents, npt.NDArray[np.bool_]]:
    """Accept points or halve the steps to them, and improve bounds by tangents over the box.

    Args:
        evaluations: values and gradients at the points that are tried.
        over: the set, of which only bounds count here.
        gamma: strong convexity of all functions, ``(size,)``.
        rounding: relative error of values and gradients.
        state: changed.

    Returns:
        The tangents, and which points are accepted, ``(a,)``.
    """
    tangents = Tangents.empty(*evaluations.y.shape)
    accepted = np.empty(len(evaluations.y), np.bool_)
    _judge(evaluations, over, gamma, rounding, state, tangents, accepted)
    return tangents, accepted


@compiled
def _judge(evaluations, over, gamma, rounding, state, tangents, accepted):  # type: ignore[no-untyped-def]
    for row in range(len(accepted)):
        i, value = evaluations.active[row], evaluations.value[row]
        tangent_at(evaluations, row, over, gamma, rounding, tangents)
        state.evaluations[i] += 1
        state.bound[i] = max(state.bound[i], tangents.bound[row])
        enough = state.best[i] - DECREASE * state.share[i] * state.decrease[i]
        accepted[row] = value <= enough + tangents.noise[row]
        if accepted[row]:
            state.best[i] = min(state.best[i], value)
            for k in range(tangents.c.shape[1]):
                state.base[i, k] = evaluations.y[row, k]
        else:
            state.share[i] /= 2


def step_in_box(
    evaluations: Evaluations,
    rows: Index,
    hessian: Array,
    over: Polyhedron,
    rounding: float,
    state: State,
) -> None:
    """Make steps to the minimisers of quadratic models over a box.

    Args:
        evaluations: values and gradients.
        rows: at which of them steps begin.
        hessian: Hessians there, ``(len(rows), n, n)``.
        over: the box of each function.
        rounding: relative error of the derivatives.
        state: takes the steps.
    """
    n = hessian.shape[2]
    model = _Model._make((*np.empty((8, n)), *np.empty((2, n, n)), np.empty(n, np.int64)))
    # Rounding may leave a singular Hessian indefinite, so the ridge is at least as large.
    _step_in_box(evaluations, rows, hessian, over, max(RIDGE / n, rounding), state, model)


class _Model(NamedTuple):
    """gᵀd + dᵀHd/2 over low ≤ d ≤ high, and room for minimising it."""

    g: Array
    low: Array
    high: Array
    d: Array
    r: Array
    p: Array
    trial: Array
    moves: Array
    H: Array
    L: Array
    free: npt.NDArray[np.int64]


@compiled
def _step_in_box(evaluations, rows, hessian, over, ridge, state, model):  # type: ignore[no-untyped-def]
    n = hessian.shape[2]
    for index in range(len(rows)):
        row = rows[index]
        i = evaluations.active[row]
        # In units of the bounds, where one ridge suits all sides of an uneven box.
        trace = 0.0
        for k in range(n):
            width = over.width[i, k]
            u = (evaluations.y[row, k] - over.origin[i, k]) / max(width, 1e-300)
            model.low[k], model.high[k] = -np.inf, np.inf
            if over.finite[i, k]:
                model.low[k], model.high[k] = -u, 1 - u if width > 0 else 0.0
            for other in range(k + 1):
                model.H[k, other] = hessian[index, k, other] * width * over.width[i, other]
                model.H[other, k] = model.H[k, other]
            model.g[k] = evaluations.gradient[row, k] * width
            trace += model.H[k, k]
        state.decrease[i] = _minimize(trace * ridge + 1e-12, model)
        state.share[i] = 1.0
        for k in range(n):
            state.step[i, k] = model.d[k] * over.width[i, k]


@inner
def _minimize(ridge, model):  # type: ignore[no-untyped-def]
    """Minimise a model from d = 0 by projected Newton steps; returns its decrease, ≥ 0.

    A sweep minimises over each coordinate in turn. Then coordinates held at a bound by the
    gradient are set aside, a Newton step is taken in the rest and bent along the box until the
    model falls; a few rounds identify the right bounds. The bent step need not be one of descent
    while the bounds are wrong, the sweep always is.

    Source: Bertsekas, "Projected Newton methods for optimization problems with simple
    constraints", SIAM Journal on Control and Optimization 20, 1982.
    """
    H, low, high, d, r, p = model.H, model.low, model.high, model.d, model.r, model.p
    trial, moves, free, L = model.trial, model.moves, model.free, model.L
    n = len(d)
    for i in range(n):
        d[i], r[i] = 0.0, model.g[i]
    decrease = 0.0
    for _ in range(2 * n + 4):
        before = decrease
        for i in range(n):
            move = min(max(d[i] - r[i] / (H[i, i] + ridge), low[i]), high[i]) - d[i]
            decrease -= move * (r[i] + H[i, i] * move / 2)
            d[i] += move
            for k in range(n):
                r[k] += H[k, i] * move
        count = 0
        for i in range(n):
            trial[i], moves[i] = d[i], 0.0
            if not ((d[i] <= low[i] and r[i] >= 0) or (d[i] >= high[i] and r[i] <= 0)):
                free[count] = i
                count += 1
        if count == 0:
            break
        for a in range(count):
            for b in range(a + 1):
                L[a, b] = H[free[a], free[b]]
            L[a, a] += ridge
            p[a] = -r[free[a]]
        factor(L, count)
        substitute(L, count, p)
        length, gain = 1.0, 0.0
        for _ in range(20):
            for a in range(count):
                i = free[a]
                trial[i] = min(max(d[i] + length * p[a], low[i]), high[i])
                moves[i] = trial[i] - d[i]
            gain = 0.0
            for i in range(n):
                gain -= moves[i] * (r[i] + row_dot(H, i, moves, n) / 2)
            if gain > 0:
                break
            length /= 2
        if gain > 0:
            decrease += gain
            for i in range(n):
                r[i] += row_dot(H, i, moves, n)
                d[i] = trial[i]
        if decrease - before <= 1e-12 * decrease:
            break
    return decrease

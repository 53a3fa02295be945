"""The step of Newton's method within a box, sample by sample in compiled code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from icnn_rl.kernels import RIDGE
from icnn_rl.kernels.compiling import compiled, inner
from icnn_rl.kernels.linear_algebra import factor, row_dot, substitute

if TYPE_CHECKING:
    from icnn_rl.kernels.polyhedron import Polyhedron
    from icnn_rl.kernels.tangents import Evaluations

Array = npt.NDArray[np.float64]


def newton_steps(
    evaluations: Evaluations, hessian: Array, over: Polyhedron, rounding: float
) -> tuple[Array, Array]:
    """Steps to the minimisers of quadratic models over a box, and how far these fall.

    Args:
        evaluations: where the steps begin, with values and gradients.
        hessian: Hessians there, ``(a, n, n)``.
        over: the box of each function.
        rounding: relative error of the derivatives.

    Returns:
        Steps ``(a, n)``, and the decrease of each model, ``(a,)``, ≥ 0.
    """
    a, n = evaluations.y.shape
    work = _Model(*np.empty((8, n)), *np.empty((2, n, n)), np.empty(n, np.int64))
    step, decrease = np.empty((a, n)), np.empty(a)
    # Rounding may leave a singular Hessian indefinite, so the ridge is at least as large.
    ridge = max(RIDGE / n, rounding)
    _newton_steps(evaluations, hessian, over, ridge, step, decrease, work)
    return step, decrease


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
def _newton_steps(evaluations, hessian, over, ridge, step, decrease, work):  # type: ignore[no-untyped-def]
    n = step.shape[1]
    for row in range(len(step)):
        i = evaluations.active[row]
        # In units of the bounds, where one ridge suits all sides of an uneven box.
        trace = 0.0
        for k in range(n):
            width = over.width[i, k]
            u = (evaluations.y[row, k] - over.origin[i, k]) / max(width, 1e-300)
            work.low[k], work.high[k] = -np.inf, np.inf
            if over.finite[i, k]:
                work.low[k], work.high[k] = -u, 1 - u if width > 0 else 0.0
            for other in range(k + 1):
                work.H[k, other] = hessian[row, k, other] * width * over.width[i, other]
                work.H[other, k] = work.H[k, other]
            work.g[k] = evaluations.gradient[row, k] * width
            trace += work.H[k, k]
        decrease[row] = _minimize(trace * ridge + 1e-12, work)
        for k in range(n):
            step[row, k] = work.d[k] * over.width[i, k]


@inner
def _minimize(ridge, work):  # type: ignore[no-untyped-def]
    """Minimise a model from d = 0 by projected Newton steps; returns its decrease, ≥ 0.

    A sweep minimises over each coordinate in turn. Then coordinates held at a bound by the
    gradient are set aside, a Newton step is taken in the rest and bent along the box until the
    model falls; a few rounds identify the right bounds. The bent step need not be one of descent
    while the bounds are wrong, the sweep always is.

    Source: Bertsekas, "Projected Newton methods for optimization problems with simple
    constraints", SIAM Journal on Control and Optimization 20, 1982.
    """
    H, low, high, d, r, p = work.H, work.low, work.high, work.d, work.r, work.p
    trial, moves, free, L = work.trial, work.moves, work.free, work.L
    n = len(d)
    for i in range(n):
        d[i], r[i] = 0.0, work.g[i]
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

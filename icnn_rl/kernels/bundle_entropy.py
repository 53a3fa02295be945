"""The master problem of the bundle entropy method, sample by sample in compiled code."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from icnn_rl.functions import ENTROPY_EDGE, ENTROPY_SLOPE
from icnn_rl.kernels.compiling import compiled, inner
from icnn_rl.kernels.linear_algebra import factor, row_dot, rows_dot, substitute

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

ITERATIONS = 50
MASTER_ACCURACY = 0.1  # share of the gap
CENTERING = 0.1  # share of the complementarity that a step of the master aims at
STEP_TO_BOUNDARY = 0.99  # share of the way


class Masters(NamedTuple):
    """What is known of each sample: its tangents, their weights, and the box.

    Attributes:
        h, a: tangents a_j + h_jᵀy, ``(size, ≥ m, n)`` and ``(size, ≥ m)``.
        weights: λ, a start inside the simplex, ``(size, ≥ m)``; overwritten.
        lower, upper: ``(size, n)``.
    """

    h: Array
    a: Array
    weights: Array
    lower: Array
    upper: Array


def solve_masters(
    masters: Masters, m: int, active: Index, alpha: float, best: Array, gap: Array, tol: float
) -> tuple[Array, Array]:
    """Minimise the maximum of m tangents plus α h(y), h the negative entropy, over a box.

    Args:
        masters: the tangents.
        m: the number of tangents of each sample.
        active: the samples to solve.
        alpha: α > 0.
        best, gap: the least values and what is left to prove, ``(size,)``.
        tol: stop once the bound is so close to the least value.

    Returns:
        Minimisers ``(a, n)`` and bounds ``(a,)``, NaN where the arithmetic broke down.
    """
    y, bounds = np.empty((len(active), masters.h.shape[2])), np.empty(len(active))
    _solve_masters(masters, m, active, alpha, best, gap, tol, y, bounds)
    return y, bounds


@compiled
def _solve_masters(masters, m, active, alpha, best, gap, tol, y, bounds):  # type: ignore[no-untyped-def]
    n = y.shape[1]
    h, a = np.empty((m, n)), np.empty(m)
    for row in range(len(active)):
        i = active[row]
        for j in range(m):
            a[j] = (masters.a[i, j] - best[i]) / gap[i]
            for k in range(n):
                h[j, k] = masters.h[i, j, k] / gap[i]
        bound = _solve_master(
            h, a, m, alpha / gap[i], masters.lower[i], masters.upper[i], -tol / gap[i],
            masters.weights[i], y[row],
        )  # fmt: skip
        bounds[row] = best[i] + gap[i] * bound


@inner
def _negative_entropy(y):  # type: ignore[no-untyped-def]
    """The entropy term of one coordinate, for α = 1, as ``NegativeEntropy`` defines it."""
    inside = min(abs(y), ENTROPY_EDGE)
    outside = abs(y) - inside
    p = (1 + inside) / 2
    return p * math.log(p) + (1 - p) * math.log(1 - p) + (ENTROPY_SLOPE + outside / 2) * outside


@inner
def _respond(c, alpha, lower, upper, y, flexibility):  # type: ignore[no-untyped-def]
    """min Σ cᵢ yᵢ + α h(yᵢ) over lower ≤ y ≤ upper; the minimiser and -dyᵢ/dcᵢ are left behind."""
    total = 0.0
    for i in range(len(c)):
        x = -c[i] / alpha
        if abs(x) <= ENTROPY_SLOPE:
            y[i] = math.tanh(x)
            flexibility[i] = (1 - y[i] * y[i]) / alpha
        else:
            y[i] = math.copysign(ENTROPY_EDGE + abs(x) - ENTROPY_SLOPE, x)
            flexibility[i] = 1 / alpha
        if not lower[i] < y[i] < upper[i]:
            y[i] = min(max(y[i], lower[i]), upper[i])
            flexibility[i] = 0.0
        total += c[i] * y[i] + alpha * _negative_entropy(y[i])
    return total


@inner
def _solve_master(h, a, m, alpha, lower, upper, target, weights, y):  # type: ignore[no-untyped-def]
    """max over λ in the simplex of Σ_j λ_j a_j + min_y { (Σ_j λ_j h_j)ᵀy + α h(y) }.

    A primal-dual interior-point method in λ alone: y is a closed form of it. With the slacks
    s_j = t - a_j - h_jᵀy of the primal, min t + α h(y), a step solves

        (H D Hᵀ + diag(s/λ)) Δλ = a + H y + σμ/λ - ν 1,      1ᵀ Δλ = 0,

    and is halved until the barrier function rises. The diagonal keeps the system regular where cuts
    coincide, and every λ proves a bound.

    Args:
        h, a, m: the cuts, ``(≥ m, n)`` and ``(≥ m,)``, scaled so that the answer is about -1.
        alpha: α in the same scale.
        lower, upper: the box.
        target: stop once the bound reaches this value.
        weights: λ, a start inside the simplex; overwritten.
        y: the minimiser of the model for that λ; overwritten.

    Returns:
        The bound, NaN if the arithmetic broke down.
    """
    n = len(lower)
    c, D, trial_y, trial_D = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    r, s, one, trial = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    M = np.empty((m, m))
    scaled = np.empty((m, n))

    for i in range(n):
        c[i] = 0.0
    for j in range(m):
        for i in range(n):
            c[i] += weights[j] * h[j, i]
    value = _respond(c, alpha, lower, upper, y, D)
    for j in range(m):
        value += weights[j] * a[j]
    bound = value
    for iteration in range(ITERATIONS):
        top, mean = -np.inf, 0.0
        for j in range(m):
            r[j] = a[j] + row_dot(h, j, y, n)
            top = max(top, r[j])
            mean += weights[j] * r[j]
        if value >= target or top - mean <= MASTER_ACCURACY:
            break
        if iteration == 0:
            for j in range(m):
                s[j] = top + MASTER_ACCURACY - r[j]
        mu = 0.0
        for j in range(m):
            mu += s[j] * weights[j] / m
        mu *= CENTERING

        for j in range(m):
            for i in range(n):
                scaled[j, i] = h[j, i] * D[i]
            for k in range(j + 1):
                M[j, k] = rows_dot(scaled, j, h, k, n)
            M[j, j] += s[j] / weights[j]
            one[j] = 1.0
            r[j] += mu / weights[j]
        factor(M, m)
        substitute(M, m, one)
        substitute(M, m, r)
        top, mass = 0.0, 0.0
        for j in range(m):
            top += r[j]
            mass += one[j]
        nu = top / mass
        step, step_s = 1.0, 1.0
        merit = value
        for j in range(m):
            r[j] -= nu * one[j]
            one[j] = (mu - s[j] * r[j]) / weights[j] - s[j]
            if r[j] < 0:
                step = min(step, -STEP_TO_BOUNDARY * weights[j] / r[j])
            if one[j] < 0:
                step_s = min(step_s, -STEP_TO_BOUNDARY * s[j] / one[j])
            merit += mu * math.log(weights[j])

        for _ in range(30):
            for i in range(n):
                c[i] = 0.0
            mass = 0.0
            for j in range(m):
                trial[j] = weights[j] + step * r[j]
                mass += trial[j]
            reached = 0.0
            barrier = 0.0
            for j in range(m):
                trial[j] /= mass
                reached += trial[j] * a[j]
                barrier += mu * math.log(trial[j])
                for i in range(n):
                    c[i] += trial[j] * h[j, i]
            reached += _respond(c, alpha, lower, upper, trial_y, trial_D)
            if reached + barrier >= merit - 1e-12 * abs(merit):
                break
            step /= 2
        if not abs(reached) < np.inf:  # NaN as well
            return np.nan
        value = reached
        bound = max(bound, value)
        for i in range(n):
            y[i], D[i] = trial_y[i], trial_D[i]
        for j in range(m):
            weights[j] = trial[j]
            s[j] = max(s[j] + step_s * one[j], 1e-10 * mu)
    return bound

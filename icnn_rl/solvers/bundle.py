"""The bundle method: a piecewise-linear model of f, refined where its minimum may be."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from icnn_rl.solvers.master import separable_minimum, solve_master
from icnn_rl.solvers.problem import Oracle, Problem, to_array
from icnn_rl.solvers.solution import Solution

KAPPA = 0.3  # share of the gap at which the master's iterate becomes the next point
STOP = 0.1  # share of the gap at which the master's bound is good enough
INWARD = 0.1  # share of the way to the centre that the first master starts from the first point
ROUNDING = 8.0  # units in the last place allowed for in a value computed in the function's dtype


@njit(cache=True)
def advance(  # type: ignore[no-untyped-def]
    active, y, value, gradient, count, cut_h, cut_a, lower, width, finite, gamma, total, epsilon,
    tol, inner, best_y, best, bound, done,
):  # fmt: skip
    """Add one cut to each active sample, improve its bound, and replace y by the next point.

    A cut is f_j + g_jᵀ(y - y_j) + γ/2 ‖y - y_j‖². All share the term γ/2 ‖y - lower‖², so what
    is stored is affine: a_j + h_jᵀ(y - lower), with h in units of the box's width.
    """
    n = y.shape[1]
    corner, p = np.empty(n), np.empty(n)
    for row in range(len(active)):
        i = active[row]
        j = count[i]
        count[i] = j + 1
        a, noise = value[row], abs(value[row])
        for k in range(n):
            d = y[row, k] - lower[i, k]
            g = gradient[row, k]
            a += (gamma[i] / 2 * d - g) * d
            cut_h[i, j, k] = (g - gamma[i] * d) * width[i, k]
            p[k] = gamma[i] * width[i, k] ** 2
            noise += abs(g) * (abs(y[row, k]) + width[i, k])
        noise *= ROUNDING * epsilon
        cut_a[i, j] = a - noise
        if value[row] < best[i]:
            best[i] = value[row]
            best_y[i] = y[row]
        bound[i] = max(
            bound[i], cut_a[i, j] + separable_minimum(cut_h[i, j], p, finite[i], total, corner)
        )
        gap = best[i] - bound[i]
        if gap <= max(tol, 2 * noise):
            done[i] = True
            continue

        m = j + 1
        h = cut_h[i, :m] / gap
        offsets = (cut_a[i, :m] - best[i]) / gap
        u = inner[i].copy()
        proved = solve_master(
            h, offsets, m, p / gap, finite[i], total, u, KAPPA, STOP, -tol / gap, inner[i]
        )
        bound[i] = max(bound[i], best[i] + gap * proved)
        # A master beyond float64 (γ some 1e-13 of f on an unbounded set) ends in a wide gap.
        done[i] = best[i] - bound[i] <= tol or not np.isfinite(inner[i]).all()
        if not math.isnan(total):  # each step of the master loses a little of it to rounding
            inner[i] *= total / inner[i].sum()
        for k in range(n):
            y[row, k] = lower[i, k] + width[i, k] * inner[i, k]


def solve(problem: Problem) -> Solution:
    """Minimise any convex function by a bundle of its tangents.

    Each step evaluates f once and adds the tangent there to the model m(y) = max_j ℓ_j(y) ≤ f(y).
    A primal-dual interior-point method then minimises m. The first of its iterates that is
    optimal to within a share κ of the gap is the next point: being well centred, it avoids the
    corners that Kelley's method runs into and needs no proximal term. Its last multipliers λ give
    the bound min_y Σ_j λ_j ℓ_j(y) ≤ min f, so one master problem a step serves both ends.

    Source: Gondzio, González-Brevis & Munari, "New developments in the primal-dual column
    generation technique", EJOR 224, 2013; the bound is that of Lemaréchal, Nemirovskii & Nesterov,
    "New variants of bundle methods", Mathematical Programming 69, 1995.
    """
    size, n = problem.size, problem.dim
    oracle = Oracle(problem)
    lower, upper = (problem.flat(b, n) for b in problem.over.bounds(problem.start))
    finite = np.isfinite(lower)
    lower = np.where(finite, lower, 0.0)
    width = np.where(finite, upper - lower, 1.0)
    gamma = problem.flat(problem.f.strong_convexity)
    total = math.nan if problem.over.total is None else problem.over.total

    y = to_array(problem.start).reshape(size, n)
    middle = 0.5 if problem.over.total is None else problem.over.total / n
    share = np.where(finite, INWARD, 0.0)
    inner = share * middle + (1 - share) * (y - lower) / np.where(width > 0, width, 1.0)
    best_y, best, bound = y.copy(), np.full(size, np.inf), np.full(size, -np.inf)
    count, done = np.zeros(size, np.int64), np.zeros(size, np.bool_)
    cut_h, cut_a = np.empty((size, 16, n)), np.empty((size, 16))
    active = np.arange(size)
    for evaluation in range(problem.max_evaluations):
        if evaluation == cut_a.shape[1]:
            cut_h = np.concatenate([cut_h, np.empty_like(cut_h)], axis=1)
            cut_a = np.concatenate([cut_a, np.empty_like(cut_a)], axis=1)
        y, value, gradient = oracle.value_and_gradient(y, active)
        advance(
            active, y, value, gradient, count, cut_h, cut_a, lower, width, finite, gamma, total,
            problem.epsilon, problem.tol, inner, best_y, best, bound, done,
        )  # fmt: skip
        going = ~done[active]
        if not going.all():
            active, y = active[going], y[going]
        if len(active) == 0:
            break
    return problem.solution(best_y, best, bound, count)

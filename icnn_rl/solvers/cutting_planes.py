"""What the bundle methods share: a model of f that is the maximum of its tangents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from icnn_rl.kernels.interior_point import FEASIBLE, minimize_model, separable_minimum, violation
from icnn_rl.kernels.newton_equations import compiled
from icnn_rl.kernels.polyhedron import Polyhedron
from icnn_rl.solvers.problem import ROUNDING, Oracle, Problem, to_array
from icnn_rl.solvers.solution import Solution

INWARD = 0.1  # share of the way to the centre that the first master starts from the first point


@compiled
def advance(  # type: ignore[no-untyped-def]
    active, y, value, gradient, count, cut_h, cut_a, rows, E, e, origin, width, finite, gamma,
    epsilon, tol, accuracy, inner, best_y, best, bound, done,
):  # fmt: skip
    """Add one cut to each active sample, improve its bound, and replace y by the next point.

    A cut is f_j + g_jᵀ(y - y_j) + γ/2 ‖y - y_j‖². All share the term γ/2 ‖y - origin‖², so what
    is stored is affine: a_j + h_jᵀ(y - origin), with h in units of the bounds' width. The first
    ``rows`` of the stored are the set's inequalities.
    """
    n = y.shape[1]
    p, u, no_matrix = np.empty(n), np.empty(n), np.empty((0, 0))
    slack = 10 * FEASIBLE + ROUNDING * epsilon
    for row in range(len(active)):
        i = active[row]
        j = rows + count[i]
        count[i] += 1
        a, noise = value[row], abs(value[row])
        for k in range(n):
            d = y[row, k] - origin[i, k]
            g = gradient[row, k]
            a += (gamma[i] / 2 * d - g) * d
            cut_h[i, j, k] = (g - gamma[i] * d) * width[i, k]
            p[k] = gamma[i] * width[i, k] ** 2
            reach = width[i, k] if finite[i, k] else abs(cut_h[i, j, k]) / gamma[i]
            noise += abs(g) * (abs(y[row, k]) + reach)
        noise *= ROUNDING * epsilon
        cut_a[i, j] = a - noise
        if value[row] < best[i]:
            for k in range(n):
                u[k] = (y[row, k] - origin[i, k]) / max(width[i, k], 1e-300)
            off = violation(cut_h[i, :rows], cut_a[i, :rows], E[i], e[i], u)
            if off <= slack or count[i] == 1:  # the first point is feasible as given
                best[i] = value[row]
                best_y[i] = y[row]
        bound[i] = max(bound[i], cut_a[i, j] + separable_minimum(cut_h[i, j], p, finite[i]))
        gap = best[i] - bound[i]
        if gap <= max(tol, 2 * noise):
            done[i] = True
            continue

        m = j + 1
        h, a_scaled = cut_h[i, :m].copy(), cut_a[i, :m].copy()
        h[rows:] /= gap
        a_scaled[rows:] = (a_scaled[rows:] - best[i]) / gap
        proved = minimize_model(
            h, a_scaled, rows, E[i], e[i], no_matrix, p / gap, finite[i], inner[i],
            accuracy, -tol / gap,
        )  # fmt: skip
        bound[i] = max(bound[i], best[i] + gap * proved)
        # A master beyond float64 (γ some 1e-13 of f on an unbounded set) ends in a wide gap.
        done[i] = best[i] - bound[i] <= tol or not np.isfinite(inner[i]).all()
        for k in range(n):
            y[row, k] = origin[i, k] + width[i, k] * inner[i, k]


def cutting_planes(
    problem: Problem,
    accuracy: float,
    propose: Callable[..., None] | None = None,
    patience: int = 0,
) -> Solution:
    """Refine a model by tangents, minimised each time to ``accuracy``, relative to the gap.

    Each step evaluates f once and adds the tangent there to the model m(y) = max_j ℓ_j(y) ≤ f(y).
    A primal-dual interior-point method then minimises m. Its last multipliers λ give the bound
    min_y Σ_j λ_j ℓ_j(y) ≤ min f, its last iterate the next point, which ``propose`` replaces after
    ``patience`` evaluations.
    """
    size, n = problem.size, problem.dim
    oracle = Oracle(problem)
    polyhedron = Polyhedron.of(problem.over, problem.start)
    rows = polyhedron.b_ub.shape[1]
    gamma = problem.flat(problem.f.strong_convexity)
    y, center = (to_array(t).reshape(size, n) for t in (problem.start, problem.center))
    share = np.where(polyhedron.finite, INWARD, 0.0)
    inner = polyhedron.inner(y + share * (center - y))
    best_y, best, bound = y.copy(), np.full(size, np.inf), np.full(size, -np.inf)
    count, done = np.zeros(size, np.int64), np.zeros(size, np.bool_)
    cut_h, cut_a = np.empty((size, rows + 16, n)), np.empty((size, rows + 16))
    cut_h[:, :rows], cut_a[:, :rows] = polyhedron.A_ub, -polyhedron.b_ub
    active = np.arange(size)
    p = polyhedron
    sides = rows, p.A_eq, p.b_eq, p.origin, p.width, p.finite
    for evaluation in range(problem.max_evaluations):
        if rows + evaluation == cut_a.shape[1]:
            cut_h = np.concatenate([cut_h, np.empty_like(cut_h)], axis=1)
            cut_a = np.concatenate([cut_a, np.empty_like(cut_a)], axis=1)
        y, value, gradient = oracle.value_and_gradient(y, active)
        advance(
            active, y, value, gradient, count, cut_h, cut_a, *sides, gamma, problem.epsilon,
            problem.tol, accuracy, inner, best_y, best, bound, done,
        )  # fmt: skip
        going = ~done[active]
        if not going.all():
            active, y = active[going], y[going]
        if len(active) == 0:
            break
        if propose is not None and evaluation >= patience:
            propose(active, y, count, cut_h, cut_a, *sides, gamma, best_y, best, bound, inner)
    return problem.solution(best_y, best, bound, count)

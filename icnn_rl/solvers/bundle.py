"""Bundle methods: a model of f that is the maximum of its tangents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from icnn_rl.kernels import ROUNDING
from icnn_rl.kernels.interior_point import FEASIBLE, NO_MATRIX, Models, minimize_models
from icnn_rl.kernels.tangents import tangents_at
from icnn_rl.solvers.oracle import Oracle
from icnn_rl.solvers.problem import Array, Index, Problem, to_array
from icnn_rl.solvers.solution import Solution

FIRST_START_SHIFT = 0.1  # share of the way to the interior point
INITIAL_CUTS = 16  # that there is room for


@dataclass(frozen=True)
class Bundle:
    """Minimise any convex function by a bundle of its tangents.

    The model, the maximum of all tangents so far, is minimised by an interior-point method to
    within a share of the gap only. Being well centred, that iterate avoids the corners that
    Kelley's method runs into, and one master problem a step gives both the bound and the next
    point. Samples that are not done after some evaluations have many kinks near the optimum: for
    them the next point is that of the level method, nearer to the best one. If f is strongly
    convex, the curvature of the tangents already keeps it near.

    Args:
        level: where that level lies between the bound and the best value, in (0, 1).

    Source: Gondzio, González-Brevis & Munari, "New developments in the primal-dual column
    generation technique", EJOR 224, 2013; the bound and the level are those of Lemaréchal,
    Nemirovskii & Nesterov, "New variants of bundle methods", Mathematical Programming 69, 1995.
    """

    level: float = 0.5

    def __post_init__(self) -> None:
        _require_level(self.level)

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem."""
        curved = bool((torch.as_tensor(problem.f.strong_convexity) > 0).any())
        return _cutting_planes(problem, 0.3, None if curved else self.level, patience=6)


@dataclass(frozen=True)
class Level:
    """Minimise any convex function by the level bundle method.

        y⁺ = argmin { ‖y - ŷ‖² : m(y) ≤ bound + level (best - bound), y ∈ 𝒴 }

    m is the maximum of all tangents so far, its minimum the bound, and ŷ the point of the best
    value. Distances are in units of the bounds of 𝒴. A second small problem a step, beside the one
    for the bound, and the number of evaluations needed does not depend on the dimension.

    Args:
        level: a number in (0, 1).

    Source: Lemaréchal, Nemirovskii & Nesterov, "New variants of bundle methods", Mathematical
    Programming 69, 1995; with ŷ as in Kiwiel, "Proximal level bundle methods for convex
    nondifferentiable optimization, saddle-point problems and variational inequalities", 1995.
    """

    level: float = 0.5

    def __post_init__(self) -> None:
        _require_level(self.level)

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem."""
        return _cutting_planes(problem, 0.1, self.level)


@dataclass(frozen=True)
class Kelley:
    """Minimise any convex function by Kelley's cutting planes.

        y⁺ ∈ argmin { max_j f_j + g_jᵀ(y - y_j) : y ∈ 𝒴 },      lower_bound = the minimum

    The model is a lower bound that is far from f where no tangent was taken, so its minimisers jump
    from corner to corner of the set at first. Where the model has many minimisers, the point is
    a central one of them.

    Source: Kelley, "The cutting-plane method for solving convex programs", Journal of the Society
    for Industrial and Applied Mathematics 8, 1960.
    """

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem."""
        return _cutting_planes(problem, 1e-6, None)


def _require_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level}")


def _cutting_planes(
    problem: Problem, accuracy: float, level: float | None, patience: int = 0
) -> Solution:
    """Refine a model by tangents, minimised each time to ``accuracy``, relative to the gap.

    Each step evaluates f once and adds the tangent there to the model m(y) = max_j ℓ_j(y) ≤ f(y).
    A primal-dual interior-point method then minimises m. Its last multipliers λ give the bound
    min_y Σ_j λ_j ℓ_j(y) ≤ min f, its last iterate the next point; after ``patience`` evaluations
    that is the nearest point of a level set instead, unless ``level`` is None.
    """
    size, n, rounding = problem.size, problem.dim, ROUNDING * problem.epsilon
    oracle, gamma = Oracle(problem), problem.flat(problem.f.strong_convexity)
    over = problem.polyhedron
    rows, constrained = over.b_ub.shape[1], over.b_ub.size + over.b_eq.size > 0
    y, center = (to_array(t).reshape(size, n) for t in (problem.start, problem.center))
    inner = over.inner(y + np.where(over.finite, FIRST_START_SHIFT, 0.0) * (center - y))
    best_y, best, bound = y.copy(), np.full(size, np.inf), np.full(size, -np.inf)
    count = np.zeros(size, np.int64)
    # All cuts share the term γ/2 ‖y - origin‖², so what is stored of them is affine.
    p = gamma[:, None] * over.width**2
    h, a = np.empty((size, rows + INITIAL_CUTS, n)), np.empty((size, rows + INITIAL_CUTS))
    h[:, :rows], a[:, :rows] = over.A_ub, -over.b_ub
    active = np.arange(size)
    for evaluation in range(problem.max_evaluations):
        cuts = rows + evaluation
        if cuts == a.shape[1]:
            h, a = (np.concatenate([t, np.empty_like(t)], axis=1) for t in (h, a))
        found = oracle.evaluate(y, active)
        tangents = tangents_at(found, over, gamma, rounding)
        h[active, cuts], a[active, cuts] = tangents.c, tangents.offset
        count[active] += 1
        bound[active] = np.maximum(bound[active], tangents.bound)
        better = found.value < best[active]
        if constrained and evaluation > 0:  # the first point is feasible as given
            u = (found.y - over.origin[active]) / np.maximum(over.width[active], 1e-300)
            better &= over.violation(u, active) <= 10 * FEASIBLE + rounding
        improved = active[better]
        best[improved], best_y[improved] = found.value[better], found.y[better]
        gap = best - bound
        active = active[gap[active] > np.maximum(problem.tol, 2 * tangents.noise)]
        if len(active) == 0:
            break
        models = Models(h, a, over.A_eq, over.b_eq, NO_MATRIX, p, over.finite)
        proved = minimize_models(
            models,
            inner,
            rows=rows,
            count=cuts + 1,
            active=active,
            shift=best,
            scale=gap,
            accuracy=accuracy,
            target=best - problem.tol,
        )
        bound[active] = np.maximum(bound[active], proved)
        # A master beyond float64 (γ some 1e-13 of f on an unbounded set) ends in a wide gap.
        solvable = np.isfinite(inner[active]).all(1)
        active = active[solvable & ((best - bound)[active] > problem.tol)]
        if len(active) == 0:
            break
        u = inner[active]
        if level is not None and evaluation >= patience:
            nearest = _nearest_in_level(
                models, active, rows, cuts + 1, over.units(best_y)[active], best, bound, level, u
            )
            u = np.where(np.isfinite(nearest).all(1, keepdims=True), nearest, u)
        y = over.origin[active] + over.width[active] * u
    return problem.solution(best_y, best, bound, count)


def _nearest_in_level(
    models: Models,
    active: Index,
    rows: int,
    count: int,
    center: Array,
    best: Array,
    bound: Array,
    level: float,
    start: Array,
) -> Array:
    """The points nearest to ``center`` where models are low enough, in units of the bounds."""
    value, gap = best[active, None], (best - bound)[active, None]
    # The curvature that all cuts share, by its tangent at the centre.
    slope = models.p[active] * center
    h = np.concatenate([models.h[active, :count], -center[:, None]], axis=1)
    a = np.concatenate([models.a[active, :count], np.zeros_like(gap)], axis=1)
    cuts = slice(rows, count)
    offset = a[:, cuts] - (slope * center).sum(1, keepdims=True) / 2
    h[:, cuts] = (h[:, cuts] + slope[:, None]) / gap[:, None]
    a[:, cuts] = (offset - value) / gap + 1 - level
    points = start.copy()
    distance = Models(
        *(h, a, models.E[active], models.e[active]),
        *(NO_MATRIX, np.ones_like(points), models.finite[active]),
    )
    minimize_models(distance, points, rows=count, accuracy=1e-3)
    return points

"""The level bundle method: the next point is near the best one, where the model is low enough."""

from __future__ import annotations

import numpy as np

from icnn_rl.kernels.interior_point import minimize_model
from icnn_rl.kernels.newton_equations import compiled
from icnn_rl.solvers.cutting_planes import cutting_planes
from icnn_rl.solvers.problem import Problem
from icnn_rl.solvers.solution import Solution

LEVEL = 0.5  # where the level lies between the bound and the best value
BOUND = 0.1  # accuracy of the bound, relative to the gap
NEAREST = 1e-3  # accuracy of the squared distance, in units of the bounds


def solve(problem: Problem) -> Solution:
    """Minimise any convex function by the level bundle method.

        y⁺ = argmin { ‖y - ŷ‖² : m(y) ≤ bound + λ (best - bound), y ∈ 𝒴 }

    m is the maximum of all tangents so far, its minimum the bound, and ŷ the point of the best
    value. Distances are in units of the bounds of 𝒴. A second small problem a step, beside the one
    for the bound, and the number of evaluations needed does not depend on the dimension.

    Source: Lemaréchal, Nemirovskii & Nesterov, "New variants of bundle methods", Mathematical
    Programming 69, 1995; with ŷ as in Kiwiel, "Proximal level bundle methods for convex
    nondifferentiable optimization, saddle-point problems and variational inequalities", 1995.
    """
    return cutting_planes(problem, BOUND, propose)


@compiled
def propose(  # type: ignore[no-untyped-def]
    active, y, count, cut_h, cut_a, rows, E, e, origin, width, finite, gamma, best_y, best, bound,
    inner,
):  # fmt: skip
    """Replace y by the projection of the best point on the level set."""
    n = y.shape[1]
    p, center, query, no_matrix = np.ones(n), np.empty(n), np.empty(n), np.empty((0, 0))
    for row in range(len(active)):
        i = active[row]
        m = rows + count[i]
        gap = best[i] - bound[i]
        h, a = np.empty((m + 1, n)), np.empty(m + 1)
        h[:m], a[:m], a[m] = cut_h[i, :m], cut_a[i, :m], 0.0
        for k in range(n):
            center[k] = (best_y[i, k] - origin[i, k]) / max(width[i, k], 1e-300)
            # The curvature that all cuts share, by its tangent at the centre.
            slope = gamma[i] * width[i, k] ** 2 * center[k]
            for j in range(rows, m):
                h[j, k] += slope
                a[j] -= slope * center[k] / 2
            h[m, k] = -center[k]
        for j in range(rows, m):
            a[j] = (a[j] - best[i]) / gap + 1 - LEVEL
            h[j] /= gap
        query[:] = inner[i]
        minimize_model(
            h, a, m, E[i], e[i], no_matrix, p, finite[i], query, NEAREST, np.inf,
        )  # fmt: skip
        if np.isfinite(query).all():
            for k in range(n):
                y[row, k] = origin[i, k] + width[i, k] * query[k]

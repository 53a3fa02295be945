"""Projected gradient steps, for smooth and nonsmooth functions alike."""

from __future__ import annotations

import numpy as np

from icnn_rl.solvers.certificate import Certificate
from icnn_rl.solvers.problem import Array, Oracle, Problem, to_array
from icnn_rl.solvers.solution import Solution

SLACK = 0.25  # share of the gap by which f may exceed the quadratic model of a step
FLAT = 1e-9  # least curvature tried, relative to the first


def solve(problem: Problem) -> Solution:
    """Minimise any convex function by projected gradient steps.

        y⁺ = P(y - g/L),    f(y⁺) ≤ f(y) + gᵀ(y⁺ - y) + L/2 ‖y⁺ - y‖² + δ/4

    A step that breaks the inequality is refused and L doubled; one that keeps it halves L. The
    slack, a quarter of the gap δ, is what makes this work where f has kinks. Tangents averaged with
    weights 1/L prove f(y) - min f ≤ D²/(2 Σ 1/L) + δ/4 on a set of diameter D; whenever the gap has
    halved, the average begins anew. So a gap of ε takes O(D² L/ε) evaluations where ∇f is Lipschitz
    and O(D² M²/ε²) where only f is, the order that is best for a method without memory.

    Source: Nesterov, "Universal gradient methods for convex optimization problems", Mathematical
    Programming 152, 2015, section 2, with ε there replaced by the certified gap.
    """
    oracle, certificate = Oracle(problem), Certificate(problem)
    gamma = certificate.gamma[:, None]
    active = np.arange(problem.size)
    start = to_array(problem.start).reshape(problem.size, problem.dim)
    y, value, gradient = oracle.value_and_gradient(start, active)
    offset = certificate.observe(active, y, value, gradient)
    goal = certificate.gap / 2
    L, floor = first_curvature(goal, gradient)
    for _ in range(problem.max_evaluations - 1):
        active = np.flatnonzero(~certificate.done)
        if len(active) == 0:
            break
        slack = SLACK * certificate.gap[active] + certificate.noise[active]
        trial = problem.project(y - gradient / L[:, None])[active]
        trial, reached, steeper = oracle.value_and_gradient(trial, active)
        new = certificate.observe(active, trial, reached, steeper)
        step = trial - y[active]
        model = (gradient[active] * step).sum(1) + L[active] / 2 * (step**2).sum(1)
        kept = reached <= value[active] + model + slack
        L[active] = np.where(kept, np.maximum(L[active] / 2, floor[active]), 2 * L[active])

        rows = active[kept]
        slope = gradient[rows] - gamma[rows] * y[rows]
        certificate.average(rows, 1 / L[rows], offset[rows], slope)
        y[rows], value[rows], gradient[rows], offset[rows] = (
            trial[kept],
            reached[kept],
            steeper[kept],
            new[kept],
        )
        halved = np.flatnonzero(certificate.gap <= goal)
        goal[halved] = certificate.gap[halved] / 2
        certificate.restart(halved)
    return certificate.solution()


def first_curvature(goal: Array, gradient: Array) -> tuple[Array, Array]:
    """The first L, a step of which would close the gap were f linear, and the least to try."""
    L: Array = (gradient**2).sum(1) / np.where(goal > 0, 2 * goal, 1.0)
    floor = np.maximum(FLAT * L, 1e-300)
    return np.maximum(L, floor), floor

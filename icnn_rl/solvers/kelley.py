"""Kelley's cutting-plane method: the next point is the minimiser of the model."""

from __future__ import annotations

from icnn_rl.solvers.cutting_planes import cutting_planes
from icnn_rl.solvers.problem import Problem
from icnn_rl.solvers.solution import Solution

ACCURACY = 1e-6  # to which the model is minimised, relative to the gap


def solve(problem: Problem) -> Solution:
    """Minimise any convex function by Kelley's cutting planes.

        y⁺ ∈ argmin { max_j f_j + g_jᵀ(y - y_j) : y ∈ 𝒴 },      lower_bound = the minimum

    The model is a lower bound that is far from f where no tangent was taken, so its minimisers jump
    from corner to corner of the set at first. Where the model has many minimisers, the point is
    a central one of them.

    Source: Kelley, "The cutting-plane method for solving convex programs", Journal of the Society
    for Industrial and Applied Mathematics 8, 1960.
    """
    return cutting_planes(problem, ACCURACY)

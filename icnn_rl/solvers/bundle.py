"""The bundle method: the next point is a central minimiser of the model of tangents."""

from __future__ import annotations

import torch

from icnn_rl.solvers.cutting_planes import cutting_planes
from icnn_rl.solvers.level import propose
from icnn_rl.solvers.problem import Problem
from icnn_rl.solvers.solution import Solution

ACCURACY = 0.3  # to which the model is minimised, relative to the gap
PATIENCE = 6  # evaluations after which a second small problem a step pays


def solve(problem: Problem) -> Solution:
    """Minimise any convex function by a bundle of its tangents.

    The model, the maximum of all tangents so far, is minimised by an interior-point method to
    within a share of the gap only. Being well centred, that iterate avoids the corners that
    Kelley's method runs into, and one master problem a step gives both the bound and the next
    point. Samples that are not done after some evaluations have many kinks near the optimum: for
    them the next point is that of the level method, nearer to the best one. If f is strongly
    convex, the curvature of the tangents already keeps it near.

    Source: Gondzio, González-Brevis & Munari, "New developments in the primal-dual column
    generation technique", EJOR 224, 2013; the bound and the level are those of Lemaréchal,
    Nemirovskii & Nesterov, "New variants of bundle methods", Mathematical Programming 69, 1995.
    """
    curved = bool((torch.as_tensor(problem.f.strong_convexity) > 0).any())
    return cutting_planes(problem, ACCURACY, None if curved else propose, PATIENCE)

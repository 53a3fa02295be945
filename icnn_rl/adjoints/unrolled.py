"""The last of a number of gradient steps as a differentiable function of what f is made of."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import Solution, minimize
from icnn_rl.solvers.eager import eager
from icnn_rl.solvers.minimize import fitting, spread


@eager
def unrolled(
    f: ConvexFunction,
    over: ConvexSet,
    step: float,
    iterations: int,
    momentum: float = 0.0,
    *,
    tol: float = 1e-4,
    start: Tensor | None = None,
) -> Solution:
    """Take a fixed number of projected gradient steps, and let gradients flow through all of them.

        yₖ₊₁ = P(yₖ - step · ∇f(yₖ) + momentum · (yₖ - yₖ₋₁))

    The derivative is that of the last iterate, converged or not; memory grows with the iterations.
    It exists for piecewise-linear f too, though there it says how the steps move, not the minimum.

    Args:
        f: functions with batch shape ``batch`` and dimension n.
        over: a set with a closed form of P: Box, Ball, Simplex, Simplices or Euclidean.
        step: length of a step, > 0; below 2 / (largest curvature) it converges for smooth f.
        iterations: number of steps ≥ 1, each one evaluation.
        momentum: share of the last step that is repeated, in [0, 1).
        tol: the gap at which a sample counts as converged.
        start: first points, shape ``(*batch, n)``; the set's interior point by default.

    Returns:
        A ``Solution`` whose ``y`` and ``value`` are differentiable.

    Raises:
        ValueError: an argument has a wrong value or shape, or f is not finite.
        TypeError: the projection onto the set has no closed form.

    Source: Domke, "Generic methods for optimization-based modeling", AISTATS 2012; with momentum,
    Belanger, Yang & McCallum, "End-to-end learning for structured prediction energy networks", ICML
    2017.
    """
    if not (step > 0 and math.isfinite(step)):
        raise ValueError(f"step: expected a finite number > 0, got {step}")
    if iterations < 1:
        raise ValueError(f"iterations: expected a number >= 1, got {iterations}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: expected a number in [0, 1), got {momentum}")
    f = spread(f, over)
    if f.dim is None or f.like is None:
        raise ValueError("f: expected a function that fixes the dimension, got an entropy alone")
    like = f.like.new_zeros(*f.batch_shape, f.dim)
    if not over.closed_form:
        raise TypeError(
            f"over: expected a set whose projection has a closed form, got {over}; argmin takes "
            "polytopes"
        )
    y = over.interior_point(like)[0] if start is None else over.project(fitting(start, like))
    velocity = torch.zeros_like(y)
    for _ in range(iterations):
        moved = over.project(y - step * f.value_and_gradient(y)[1] + momentum * velocity)
        y, velocity = moved, moved - y
    value = f.value(y)
    if not bool(value.isfinite().all()):
        raise ValueError(
            f"f: expected finite values along the steps, got {value.detach().tolist()} after the "
            "last; try a smaller step"
        )
    # One evaluation at the last iterate, by the solver that takes any f and set, proves its gap.
    proof = minimize(f, over, tol, "projected_gradient", start=y.detach(), max_evaluations=1)
    return replace(proof, y=y, value=value)

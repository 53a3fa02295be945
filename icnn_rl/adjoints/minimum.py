"""The minimum of f as a differentiable function of what f is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor

from icnn_rl.adjoints.optimality import Refuse
from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import MinimizeOptions, Solution, minimize


def minimum(
    f: ConvexFunction, over: ConvexSet, tol: float = 1e-4, **options: Unpack[MinimizeOptions]
) -> Solution:
    """Minimise f, and let gradients flow through the minimum's value.

        v(θ) = min { f(y; θ) : y ∈ 𝒴 },      ∂v/∂θ = ∂f/∂θ (y*; θ)

    y* is held fixed, so this takes any f and costs one evaluation more than ``minimize``. Where f
    has a kink at y*, the result is the slope of one of the pieces that meet there, and the gradient
    of the minimum a convex combination of them. The set is taken as given: for the dependence on
    its data use ``argmin``.

    Args, errors: as for ``minimize``.

    Returns:
        A ``Solution`` whose ``value``, and with it ``gap``, is differentiable, once.

    Source: the envelope theorem; Danskin, "The theory of max-min", SIAM Journal on Applied
    Mathematics 14, 1966.
    """
    solution = minimize(f, over, tol, **options)
    value = _Once.apply(f.value(somewhere(solution)))  # type: ignore[no-untyped-call]
    return replace(solution, value=torch.where(solution.infeasible, torch.inf, value))


class _Once(torch.autograd.Function):
    """A value to be differentiated once: how y* moves is not in its graph."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            (value,) = ctx.saved_tensors
            gradient = Refuse.apply(gradient, value, "minimum")  # type: ignore[no-untyped-call]
        return gradient


def somewhere(solution: Solution) -> Tensor:
    """y, with zeros for the NaN of empty sets, which would spoil the gradients of the others."""
    return solution.y.masked_fill(solution.infeasible.unsqueeze(-1), 0.0)

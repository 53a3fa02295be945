"""Minima and minimisers as differentiable functions of what f and the set are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from icnn_rl.adjoints.optimality import (
    Constraints,
    NewtonSystem,
    differentiable_once,
    quadratic_step,
)
from icnn_rl.adjoints.pieces import SEARCH_RADIUS, Epigraph, split, with_pieces
from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import MinimizeOptions, Solution, minimize
from icnn_rl.solvers.eager import eager
from icnn_rl.solvers.minimize import spread, tolerance

KINK_TOL = 1e-12  # gap at which the pieces that meet in a kink can be told
MAX_STEP_RATIO = 0.5  # of two Newton steps, for the first to be taken


@eager
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
    f = spread(f, over)
    solution = minimize(f, over, tol, **options)
    value = f.value(_finite(solution))
    value = differentiable_once(value.clone(), value, "minimum")  # how y* moves is not in its graph
    return replace(solution, value=torch.where(solution.infeasible, torch.inf, value))


@eager
def argmin(
    f: ConvexFunction, over: ConvexSet, tol: float = 1e-6, **options: Unpack[MinimizeOptions]
) -> Solution:
    """Minimise f, and let gradients flow through the minimiser.

        y*(θ) = argmin { f(y; θ) : y ∈ 𝒴 },      K ∂(y*, μ)/∂θ = -∂/∂θ (∇f + Cᵀμ, C y - right)

    with K the matrix of the optimality conditions: ∇²f and the active constraints. θ is all that f
    was made of, and the data of the set where they require gradients. The solver's answer is first
    improved by one Newton step on the constraints found active. Where a constraint is active with
    multiplier zero, y* has a kink in θ and the derivative is one-sided.

    A piecewise-linear f must come with a strongly convex smooth term, f = h + p. Then it is the
    problem min h(y) + t under a_k + g_kᵀy ≤ t, of which the pieces that meet at y* are active.

    Where f has no curvature, to rounding, along a direction that no active constraint holds, y* is
    not unique or about to jump. The derivative is taken as zero along such directions.

    Beyond ``minimize`` this costs two Hessians and two evaluations, and on the way back one pass
    through ∇f; where f has kinks, 2 (n + 10) evaluations and passes more. There are no second
    derivatives.

    Args: as for ``minimize``. The gradient is about as accurate as y, so ``tol`` is smaller; f with
        kinks is solved to a gap of 1e-12 whatever ``tol``.

    Returns:
        A ``Solution`` whose ``y`` and ``value`` are differentiable.

    Raises:
        ValueError: as ``minimize`` does.
        TypeError: f is neither smooth nor piecewise linear with a strongly convex term, so that y*
            may jump where θ changes; or it has kinks and is not in float64; or the set has balls.

    Source: Amos & Kolter, "OptNet: differentiable optimization as a layer in neural networks", ICML
    2017, section 3; for the pieces, Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017,
    on argmin differentiation.
    """
    f, tol = spread(f, over), tolerance(tol)
    parts = split(f) if f.piecewise_linear or not f.smooth else None
    sharp = tol if parts is None else min(tol, KINK_TOL)
    solution = minimize(f, over, sharp, **options)
    y = _finite(solution)
    constraints = Constraints.of(over, y)
    if parts is None:
        y, value, moving = _differentiate(f, y, constraints)
    else:
        h, p = parts
        gap = solution.gap.clamp(KINK_TOL, KINK_TOL + tol)
        radius = SEARCH_RADIUS * (2 * gap / h.strong_convexity).sqrt()
        constraints = with_pieces(p, y, radius, constraints)
        lifted = torch.cat([y, p.value(y).detach().unsqueeze(-1)], -1)
        lifted, value, moving = _differentiate(Epigraph(h), lifted, constraints)
        y, moving = lifted[..., :-1], moving[..., :-1]
    return replace(
        solution,
        y=torch.where(solution.infeasible.unsqueeze(-1), torch.nan, y + moving),
        value=torch.where(solution.infeasible, torch.inf, value),
        lower_bound=torch.minimum(solution.lower_bound, value.detach()),
        converged=solution.gap <= tol,
    )


Smooth = ConvexFunction | Epigraph


def _differentiate(f: Smooth, y: Tensor, constraints: Constraints) -> tuple[Tensor, Tensor, Tensor]:
    """A better y, f(y) with its derivative, and zeros with the derivative of the minimiser."""
    fixed = constraints.detach()
    with torch.no_grad():
        y, active = _polish(f, y, fixed)
        point = y.double()
        system = NewtonSystem(_curvature(f, y), fixed, active, torch.finfo(y.dtype).eps)
    value, gradient = f.value_and_gradient(y)
    multipliers = None
    if any(t.requires_grad for t in constraints):
        multipliers = system.step(gradient.detach().double(), point, fixed)[1]
    step, _ = system.step(gradient.double(), point, constraints, multipliers)
    moving = (step - step.detach()).to(y.dtype)
    return y, value + (gradient.detach() * moving).sum(-1), moving


def _polish(f: Smooth, y: Tensor, c: Constraints) -> tuple[Tensor, Tensor]:
    """One Newton step within the set, where the next would be much shorter; and what is active.

    Values of f cannot judge the step: near the minimum they differ by rounding alone.

    Source: Deuflhard, "Newton methods for nonlinear problems", Springer 2004, section 3.3 (the
    natural monotonicity test).
    """
    gradient, H = f.value_and_gradient(y)[1].double(), _curvature(f, y)
    step, system = quadratic_step(gradient, H, y.double(), c)
    exact = c.place(y.double() + step, system.active)
    exact = torch.minimum(torch.maximum(exact, c.lower), c.upper)
    trial = exact.to(y.dtype)
    gradient = f.value_and_gradient(trial)[1].double()
    following, _ = quadratic_step(gradient, H, trial.double(), c)
    before, after = (torch.linalg.vector_norm(t, dim=-1) for t in (step, following))
    better = (after <= MAX_STEP_RATIO * before) & c.feasible(exact)
    return torch.where(better.unsqueeze(-1), trial, y), system.active


def _curvature(f: Smooth, y: Tensor) -> Tensor:
    """∇²f in float64; zero where it bends ∇f by no more than rounding, so that y* is a tie."""
    H, gradient = f.hessian(y).double(), f.value_and_gradient(y)[1].double()
    bend = torch.diagonal(H, dim1=-2, dim2=-1).amax(-1) * (1 + y.double().abs().amax(-1))
    felt = bend > torch.finfo(y.dtype).eps * gradient.abs().amax(-1)
    return torch.where(felt[..., None, None], H, 0.0)


def _finite(solution: Solution) -> Tensor:
    """y, with zeros for the NaN of empty sets, which would spoil the gradients of the others."""
    return solution.y.masked_fill(solution.infeasible.unsqueeze(-1), 0.0)

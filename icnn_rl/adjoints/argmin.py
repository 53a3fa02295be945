"""The minimiser of f as a differentiable function of what f and the set are made of."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from icnn_rl.adjoints.constraints import Constraints
from icnn_rl.adjoints.minimum import somewhere
from icnn_rl.adjoints.optimality import ActiveSet, NewtonSystem, quadratic_step
from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import Solution, minimize

CONTRACTION = 0.5  # ratio of two Newton steps at which the first is taken


def argmin(
    f: ConvexFunction,
    over: ConvexSet,
    tol: float = 1e-6,
    solver: str = "auto",
    *,
    start: Tensor | None = None,
    max_evaluations: int = 200,
) -> Solution:
    """Minimise a smooth f, and let gradients flow through the minimiser.

        y*(θ) = argmin { f(y; θ) : y ∈ 𝒴 },      K ∂(y*, μ)/∂θ = -∂/∂θ (∇f + Cᵀμ, C y - right)

    with K the matrix of the optimality conditions: ∇²f and the active constraints. θ is all that f
    was made of, and the data of the set where they require gradients. The solver's answer is first
    improved by one Newton step on the constraints found active. Where a constraint is active with
    multiplier zero, y* has a kink in θ and the derivative is one-sided.

    Beyond ``minimize`` this costs two Hessians and two evaluations, and on the way back one pass
    through ∇f. There are no second derivatives: y* is differentiable once.

    Args: as for ``minimize``; the gradient is about as accurate as y, so ``tol`` is smaller.

    Returns:
        A ``Solution`` whose ``y`` and ``value`` are differentiable.

    Raises:
        ValueError: as ``minimize`` does.
        TypeError: f is not smooth, so y* may jump or rest where θ changes.

    Source: Amos & Kolter, "OptNet: differentiable optimization as a layer in neural networks", ICML
    2017, section 3; Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, appendix.
    """
    if not f.smooth:
        raise TypeError(
            f"f: expected a smooth function, got {type(f).__name__} with kinks or without a "
            "Hessian, whose minimiser may not be differentiable; take a smooth activation "
            "('softplus' or 'elu'), or use minimum() for the gradient of the minimum's value"
        )
    solution = minimize(f, over, tol, solver, start=start, max_evaluations=max_evaluations)
    return attach(f, over, solution)


def attach(f: ConvexFunction, over: ConvexSet, solution: Solution) -> Solution:
    """Give the answer of a solver the derivatives of the minimiser of a smooth f."""
    y = somewhere(solution)
    constraints = Constraints.of(over, y)
    fixed = constraints.detach()
    with torch.no_grad():
        y, active = _polish(f, y, fixed)
        point = y.double()
        system = NewtonSystem(f.hessian(y).double(), fixed, active)
    value, gradient = f.value_and_gradient(y)
    multipliers = None
    if constraints.differentiable:
        multipliers = system.step(gradient.detach().double(), point, fixed)[1]
    step, _ = system.step(gradient.double(), point, constraints, multipliers)
    moving = (step - step.detach()).to(y.dtype)  # zero, with the derivative of y*
    value = value + (gradient.detach() * moving).sum(-1)
    return replace(
        solution,
        y=torch.where(solution.infeasible.unsqueeze(-1), torch.nan, y + moving),
        value=torch.where(solution.infeasible, torch.inf, value),
        lower_bound=torch.minimum(solution.lower_bound, value.detach()),
    )


def _polish(f: ConvexFunction, y: Tensor, c: Constraints) -> tuple[Tensor, ActiveSet]:
    """One Newton step within the set, where the next would be much shorter; and what is active.

    Values of f would not do to judge the step: near the minimum they are all rounding.

    Source: Deuflhard, "Newton methods for nonlinear problems", Springer 2004, section 3.3 (the
    natural monotonicity test).
    """
    gradient, H = f.value_and_gradient(y)[1].double(), f.hessian(y).double()
    step, system = quadratic_step(gradient, H, y.double(), c)
    trial = system.active.place(y.double() + step, c)
    trial = torch.minimum(torch.maximum(trial, c.lower), c.upper).to(y.dtype)
    gradient = f.value_and_gradient(trial)[1].double()
    following = system.step(gradient, trial.double(), c)[0]
    lengths = [torch.linalg.vector_norm(t, dim=-1, keepdim=True) for t in (step, following)]
    return torch.where(lengths[1] <= CONTRACTION * lengths[0], trial, y), system.active

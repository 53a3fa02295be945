"""A ball, by the multiplier of its constraint."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction, quadratic
from icnn_rl.samples import Samples
from icnn_rl.sets.convex_set import ConvexSet
from icnn_rl.sets.intersection import split_ball
from icnn_rl.sets.parts import part
from icnn_rl.solvers.minimize import minimize
from icnn_rl.solvers.problem import Solver
from icnn_rl.solvers.solution import Solution, rounded_down

SHARE = 0.25  # of the tolerance, left to the problem for a given multiplier
BISECT = 2  # rounds, of which the last halves the bracket of the multiplier
ROUNDS = 60
AT_BOUND = 1e-6  # distance to a bound, relative to the width, at which it holds a coordinate


def solve(
    f: ConvexFunction,
    over: ConvexSet,
    like: Tensor,
    tol: float,
    solver: str | Solver,
    start: Tensor | None,
    max_evaluations: int,
) -> Solution:
    """Minimise without the ball first, and where that leaves it, with a multiplier λ for it.

        min f(y)  ≥  d(λ) = min { f(y) + λ/2 (‖y - c‖² - r²) : y ∈ 𝒴 },        λ ≥ 0

    The minimiser y(λ) is outside the ball for λ too small and inside for λ too large. The segment
    between one of each kind leaves the ball at a feasible point, where f exceeds the better d(λ)
    by little, of second order in the length of the segment. The gradient there gives the next λ:
    at the solution ∇f + λ (y - c) vanishes in the coordinates that no bound holds.

    The arguments are those of ``minimize``; ``like`` has the shape of the points.

    Source: Boyd & Vandenberghe, "Convex Optimization", 2004, section 5.2, for the bound.
    """
    ball, rest = split_ball(over)
    radius, center = ball.fitted(like)
    inside, empty = over.interior(like)
    first = minimize(f, rest, tol, solver, start=start, max_evaluations=max_evaluations)
    empty = empty | first.infeasible
    far = torch.where(empty.unsqueeze(-1), inside, first.y)
    mask = ~ball.encloses(far) & ~empty
    point = ball.crossing(inside, far)
    y, (value, gradient) = point, f.value_and_gradient(point)
    bound = first.lower_bound.double()
    evaluations = first.evaluations + mask
    low, high = torch.zeros_like(bound), torch.full_like(bound, torch.inf)
    held = rest.bounds(like)
    for rounds in range(1, ROUNDS):
        narrow = high.isfinite() & (high - low <= torch.finfo(like.dtype).eps * high)
        mask = mask & (value - bound > tol) & (evaluations < max_evaluations) & ~narrow
        if not bool(mask.any()):
            break
        guess = _stationary(point - center, gradient, point, *held)
        between = (low < guess) & (guess < high) & (rounds % BISECT > 0 or ~high.isfinite())
        size = torch.linalg.vector_norm(gradient, dim=-1) / radius.squeeze(-1)
        halved = torch.where(high.isfinite(), (low + high) / 2, torch.maximum(2 * low, size))
        multiplier = torch.where(between, guess, halved)

        now = Samples(mask)
        g = now.function(f)
        found = minimize(
            g + quadratic(now.take(multiplier).to(like.dtype), now.take(center)),
            part(rest, like, now, budgets=True),
            SHARE * tol,
            solver,
            start=now.take(point),
            max_evaluations=max_evaluations,
        )
        reached = now.put(found.y, far)
        within = ball.encloses(reached)
        high = torch.where(mask & within, multiplier, high)
        low = torch.where(mask & ~within, multiplier, low)
        inside = torch.where((mask & within).unsqueeze(-1), reached, inside)
        far = torch.where((mask & ~within).unsqueeze(-1), reached, far)
        proved = now.take(multiplier) / 2 * now.take(radius).squeeze(-1).double().square()
        bound = torch.maximum(bound, now.put(found.lower_bound.double() - proved, bound))
        evaluations = now.put(now.take(evaluations) + found.evaluations + 1, evaluations)

        point = torch.where(mask.unsqueeze(-1), ball.crossing(inside, far), point)
        new, slope = g.value_and_gradient(now.take(point))
        new, gradient = now.put(new, value), now.put(slope, gradient)
        better = mask & (new < value)
        value, y = torch.where(better, new, value), torch.where(better.unsqueeze(-1), point, y)
    return _solution(first, y, value, bound, evaluations, empty, tol)


def _stationary(
    radial: Tensor, gradient: Tensor, point: Tensor, lower: Tensor, upper: Tensor
) -> Tensor:
    """The λ for which ∇f + λ (y - c) is smallest, in float64, shape ``batch``."""
    margin = AT_BOUND * (upper - lower)
    free = (lower + margin < point) & (point < upper - margin)
    radial = torch.where(free, radial, 0.0).double()
    guess: Tensor = -(radial * gradient).sum(-1) / radial.square().sum(-1).clamp(min=1e-300)
    return guess


def _solution(
    first: Solution,
    y: Tensor,
    value: Tensor,
    bound: Tensor,
    evaluations: Tensor,
    empty: Tensor,
    tol: float,
) -> Solution:
    converged = (value.double() - bound <= tol) & ~empty
    lower = rounded_down(torch.minimum(bound, value.double()), value.dtype)
    return replace(
        first,
        y=y.masked_fill(empty.unsqueeze(-1), torch.nan),
        value=value.masked_fill(empty, torch.inf),
        lower_bound=lower.masked_fill(empty, torch.inf),
        converged=converged,
        evaluations=evaluations,
        infeasible=empty,
    )

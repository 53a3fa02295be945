"""Balls and weighted ℓ1 balls: outer loops over problems without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction, quadratic
from icnn_rl.sets import CanonicalSet
from icnn_rl.sets.canonical import lowered
from icnn_rl.solvers.solution import Solution, rounded_down

INNER_TOL_SHARE = 0.25  # of the tolerance
ROUNDS = 60
ACTIVE_BOUND_DISTANCE = 1e-6  # relative to the width

Minimize = Callable[[ConvexFunction, CanonicalSet, float, Tensor | None], Solution]
"""``minimize`` for f, a set, a tolerance and first points."""


def minimize_in_ball(
    f: ConvexFunction,
    over: CanonicalSet,
    tol: float,
    start: Tensor | None,
    minimize: Minimize,
    max_evaluations: int,
) -> Solution:
    """Minimise without one of the balls first, and where that leaves it, with a multiplier λ.

        min f(y)  ≥  d(λ) = min { f(y) + λ/2 (‖y - c‖² - r²) : y ∈ 𝒴 },        λ ≥ 0

    The minimiser y(λ) is outside the ball for λ too small and inside for λ too large. The segment
    between one of each kind leaves the ball at a feasible point, where f exceeds the better d(λ)
    by little, of second order in the length of the segment. The gradient there gives the next λ:
    at the solution ∇f + λ (y - c) vanishes in the coordinates that no bound holds.

    The arguments are those of ``minimize``, which solves the problems without the ball.

    Source: Boyd & Vandenberghe, "Convex Optimization", 2004, section 5.2, for the bound.
    """
    assert f.like is not None
    like = f.like.new_zeros(over.lower.shape)
    ball, rest = over.without_ball()
    inside, empty = over.interior_point(like)
    first = minimize(f, rest, tol, start)
    empty = empty | first.infeasible
    far = torch.where(empty.unsqueeze(-1), inside, first.y)
    mask = ~ball.contains(far) & ~empty
    point = ball.crossing(inside, far)
    y, (value, gradient) = point, f.value_and_gradient(point)
    bound = first.lower_bound.double()
    evaluations = first.evaluations + mask
    low, high = torch.zeros_like(bound), torch.full_like(bound, torch.inf)
    lower, upper = rest.full_bounds
    margin = ACTIVE_BOUND_DISTANCE * (upper - lower)
    for rounds in range(1, ROUNDS):
        narrow = high.isfinite() & (high - low <= torch.finfo(like.dtype).eps * high)
        mask = mask & (value - bound > tol) & (evaluations < max_evaluations) & ~narrow
        if not bool(mask.any()):
            break
        free = (lower + margin < point) & (point < upper - margin)
        radial = torch.where(free, point - ball.center, 0.0)
        guess = -(radial * gradient).sum(-1) / radial.square().sum(-1).clamp(min=1e-300)
        # Every other round halves the bracket of the multiplier.
        between = (low < guess) & (guess < high) & (rounds % 2 > 0 or ~high.isfinite())
        size = torch.linalg.vector_norm(gradient, dim=-1) / ball.radius
        halved = torch.where(high.isfinite(), (low + high) / 2, torch.maximum(2 * low, size))
        multiplier = torch.where(between, guess, halved)

        now = _Samples(mask)
        g = now.function(f)
        found = minimize(
            g + quadratic(now.take(multiplier).to(like.dtype), now.take(ball.center).to(like)),
            now.set(rest),
            INNER_TOL_SHARE * tol,
            now.take(point),
        )
        reached = now.put(found.y, far)
        within = ball.contains(reached)
        high = torch.where(mask & within, multiplier, high)
        low = torch.where(mask & ~within, multiplier, low)
        inside = torch.where((mask & within).unsqueeze(-1), reached, inside)
        far = torch.where((mask & ~within).unsqueeze(-1), reached, far)
        proved = now.take(multiplier / 2 * ball.radius.square())
        bound = torch.maximum(bound, now.put(found.lower_bound.double() - proved, bound))
        evaluations = now.put(now.take(evaluations) + found.evaluations + 1, evaluations)

        point = torch.where(mask.unsqueeze(-1), ball.crossing(inside, far), point)
        new, slope = g.value_and_gradient(now.take(point))
        new, gradient = now.put(new, value), now.put(slope, gradient)
        better = mask & (new < value)
        value, y = torch.where(better, new, value), torch.where(better.unsqueeze(-1), point, y)
    proved = rounded_down(torch.minimum(bound, value.double()), value.dtype)
    return replace(
        first,
        y=y.masked_fill(empty.unsqueeze(-1), torch.nan),
        value=value.masked_fill(empty, torch.inf),
        lower_bound=proved.masked_fill(empty, torch.inf),
        converged=(value.double() - bound <= tol) & ~empty,
        evaluations=evaluations,
        infeasible=empty,
    )


def minimize_in_l1_balls(
    f: ConvexFunction,
    over: CanonicalSet,
    tol: float,
    start: Tensor | None,
    minimize: Minimize,
) -> Solution:
    """Minimise without the weighted ℓ1 balls first, and where that leaves one, over a lifted set.

        min f(p - q)    subject to    W (p + q) ≤ r,    p, q ≥ 0,    p - q in the rest of the set

    A minimum without the balls that is inside them is the minimum, and its bound a bound. The
    arguments are those of ``minimize``, which solves both problems.
    """
    lifted = over.lifted()
    first = minimize(f, over.without_l1(), tol, start)
    norms = (over.l1_weights @ first.y.double().abs().unsqueeze(-1)).squeeze(-1)
    left = _Samples((norms > over.l1_radius).any(-1))
    if not bool(left.mask.any()):
        return first
    eye = torch.eye(first.y.shape[-1], dtype=first.y.dtype, device=first.y.device)
    g = left.function(f).affine(torch.cat([eye, -eye], -1))
    second = minimize(g, left.set(lifted), tol, None)
    second = replace(
        second,
        y=lowered(second.y),
        evaluations=second.evaluations + left.take(first.evaluations),
    )
    return Solution(**{k: left.put(t, getattr(first, k)) for k, t in vars(second).items()})


@dataclass(frozen=True)
class _Samples:
    """The samples of a batch that are left to work on.

    They are cut out of a batch with one axis; of any other the whole batch is taken along.

    Attributes:
        mask: which ones, of the shape of the batch.
    """

    mask: Tensor

    def take(self, t: Tensor) -> Tensor:
        """Their rows of a tensor of shape ``(*batch, ...)``."""
        return t[self.mask] if self.mask.dim() == 1 else t

    def function(self, f: ConvexFunction) -> ConvexFunction:
        """Their functions."""
        return f.take(self.mask.nonzero().squeeze(-1)) if self.mask.dim() == 1 else f

    def set(self, over: CanonicalSet) -> CanonicalSet:
        """Their sets."""
        return over.take(self.mask) if self.mask.dim() == 1 else over

    def put(self, new: Tensor, old: Tensor) -> Tensor:
        """``old`` with their rows replaced, for ``new`` of the shape that ``take`` gives."""
        if self.mask.dim() == 1:
            changed = old.clone()
            changed[self.mask] = new
            return changed
        mask = self.mask.reshape(self.mask.shape + (1,) * (old.dim() - self.mask.dim()))
        return torch.where(mask, new, old)

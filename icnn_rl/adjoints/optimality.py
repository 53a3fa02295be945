"""The optimality conditions on an active set, as one masked linear system a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from icnn_rl.sets import ConvexSet

NEAR = 1e-4  # distance to a constraint, relative to |y| + 1, at which it is first taken as active
ROUNDS = 20  # changes of the active set before it is left as it is
ROUNDING = 1e-13  # what counts as zero in the signs of multipliers and slacks, in relative terms
FEASIBLE = 1e-9  # violation of a constraint, relative to |y| + 1, that counts as none
NO_RATE = 1e-10  # relative rate at which a step approaches a constraint that counts as none


class Constraints(NamedTuple):
    """{ y : lower ≤ y ≤ upper,  C y ≤ right },  with equality in some rows.

    Everything is float64 and keeps its autograd graph, so that y* is differentiable with respect
    to the set as well. Bounds that only follow from rows are left out: where two constraints say
    the same, their multipliers are not unique, and a part of the gradient would go to the one
    that is not among the data of the set.

    Attributes:
        lower, upper: shape ``(*batch, n)``; infinite where there are none.
        C: rows of length one, shape ``(*batch, rows, n)``.
        right: shape ``(*batch, rows)``.
        equation: which rows hold with equality, shape ``(*batch, rows)``.
    """

    lower: Tensor
    upper: Tensor
    C: Tensor
    right: Tensor
    equation: Tensor

    @classmethod
    def of(cls, over: ConvexSet, like: Tensor) -> Constraints:
        """The set for points of the shape of ``like``, ``(*batch, n)``.

        Raises:
            TypeError: the set is curved.
        """
        form = over.canonical(like.double())
        if form.balls or form.has_l1:
            raise TypeError(f"over: expected a set without balls, got {over}")
        batch = like.shape[:-1]
        C = torch.cat([A.expand(*batch, -1, -1) for A in (form.A_ub, form.A_eq)], -2)
        equal = [torch.full_like(form.b_ub, False), torch.full_like(form.b_eq, True)]
        right = torch.cat([form.b_ub, form.b_eq], -1)
        return cls(form.lower, form.upper, C, right, torch.cat(equal, -1).bool())

    def detach(self) -> Constraints:
        """The same numbers without their graph."""
        return Constraints(*(t.detach() for t in self))

    def take(self, samples: Tensor) -> Constraints:
        """Those of the samples where a mask of shape ``batch`` is True, as one batch axis."""
        return Constraints(*(t[samples] for t in self))

    @property
    def differentiable(self) -> bool:
        """Whether a gradient with respect to the set is asked for."""
        return any(t.requires_grad for t in self)


@dataclass(frozen=True)
class ActiveSet:
    """Which constraints hold with equality.

    Attributes:
        lower, upper: bounds, shape ``(*batch, n)``.
        rows: rows of C, shape ``(*batch, rows)``.
    """

    lower: Tensor
    upper: Tensor
    rows: Tensor

    @classmethod
    def near(cls, y: Tensor, c: Constraints) -> Self:
        """The constraints that y is close to."""
        near = NEAR * (1 + y.abs())
        slack = c.right - (c.C @ y.unsqueeze(-1)).squeeze(-1)
        lower = y - c.lower <= near
        upper = (c.upper - y <= near) & ~lower
        return cls(lower, upper, c.equation | (slack <= near.amax(-1, keepdim=True)))

    @property
    def fixed(self) -> Tensor:
        """Coordinates at a bound."""
        return self.lower | self.upper

    @property
    def packed(self) -> Tensor:
        """All in a row, shape ``(*batch, 2 n + rows)``."""
        return torch.cat([self.lower, self.upper, self.rows], -1)

    @classmethod
    def of(cls, packed: Tensor, n: int) -> Self:
        """What ``packed`` was made of."""
        return cls(*packed.tensor_split([n, 2 * n], -1))

    def place(self, y: Tensor, c: Constraints) -> Tensor:
        """y with the fixed coordinates at their bounds."""
        return torch.where(self.lower, c.lower, torch.where(self.upper, c.upper, y))


class _Solve(torch.autograd.Function):
    """K⁻¹ r for a symmetric K that is held fixed, and so once differentiable only."""

    @staticmethod
    def forward(ctx: Any, inverse: Tensor, r: Tensor) -> Tensor:
        ctx.save_for_backward(inverse, r)
        return (inverse @ r.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        inverse, r = ctx.saved_tensors
        result = (inverse @ gradient.unsqueeze(-1)).squeeze(-1)
        if torch.is_grad_enabled():  # a second derivative may follow, and would be wrong
            result = Refuse.apply(result, r, "argmin")  # type: ignore[no-untyped-call]
        return None, result


class Refuse(torch.autograd.Function):
    """A tensor that pretends to depend on another, and raises where that is followed up."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, r: Tensor, who: str) -> Tensor:
        ctx.who = who
        return t.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        raise RuntimeError(
            f"{ctx.who}: expected first derivatives only, got a request for second ones; "
            "use unrolled"
        )


class NewtonSystem:
    """One Newton step on the optimality conditions of min f over a set, its active set given.

        ∇f + H d + Cᵀμ = 0   for free coordinates,      d = bound - y   for the others,
        C (y + d) = right    for active rows,           μ = 0           for the others.

    Rows that repeat others leave μ open, and directions without curvature d; the shortest solution
    is taken, through the pseudo-inverse of the symmetric matrix.

    Args:
        H: ∇²f, shape ``(*batch, n, n)``, float64.
        c: the constraints, without a graph.
        active: the active set.
    """

    def __init__(self, H: Tensor, c: Constraints, active: ActiveSet) -> None:
        n, rows = H.shape[-1], c.C.shape[-2]
        self.active, self.H, self.C = active, H, c.C
        free, row = (~active.fixed).to(H.dtype), active.rows.to(H.dtype)
        diagonal = torch.diagonal(H, dim1=-2, dim2=-1)
        # In units of the curvature, so that the cutoff of the pseudo-inverse suits all blocks.
        self.scale = diagonal.amax(-1, keepdim=True).clamp_min(1e-300)
        K = H.new_zeros(*H.shape[:-2], n + rows, n + rows)
        K[..., :n, :n] = H / self.scale.unsqueeze(-1) * free.unsqueeze(-1) * free.unsqueeze(-2)
        K[..., n:, :n] = c.C * row.unsqueeze(-1) * free.unsqueeze(-2)
        K[..., :n, n:] = K[..., n:, :n].mT
        torch.diagonal(K, dim1=-2, dim2=-1).add_(torch.cat([1 - free, row - 1], -1))
        self.inverse = torch.linalg.pinv(K, hermitian=True)

    def step(
        self, gradient: Tensor, y: Tensor, c: Constraints, multipliers: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """d and μ, differentiable with respect to ∇f and the constraints.

        Args:
            gradient: ∇f(y), shape ``(*batch, n)``.
            y: the point, likewise.
            c: the constraints.
            multipliers: μ at y, shape ``(*batch, rows)``; with it the step is that from μ, which
                has the right derivative with respect to C.
        """
        active, n = self.active, y.shape[-1]
        if multipliers is not None:
            gradient = gradient + (multipliers.unsqueeze(-2) @ c.C).squeeze(-2)
        to_bound = active.place(y, c) - y
        top = -gradient - (self.H @ to_bound.unsqueeze(-1)).squeeze(-1)
        top = torch.where(active.fixed, to_bound, top / self.scale)
        moved = (c.C @ y.unsqueeze(-1) + self.C @ to_bound.unsqueeze(-1)).squeeze(-1)
        bottom = torch.where(active.rows, c.right - moved, 0.0)
        solution: Tensor = _Solve.apply(self.inverse, torch.cat([top, bottom], -1))  # type: ignore[no-untyped-call]
        return solution[..., :n], solution[..., n:] * self.scale


def quadratic_step(
    gradient: Tensor, H: Tensor, y: Tensor, c: Constraints
) -> tuple[Tensor, NewtonSystem]:
    """The step to the minimiser of the quadratic model at y over the set, and its system.

    From the constraints that y is close to, those with a multiplier of the wrong sign are dropped
    and those that the step would violate are added, until nothing changes. Where more constraints
    meet than there are dimensions that can go astray, and one is changed at a time.

    Args:
        gradient: ∇f(y), shape ``(*batch, n)``, float64.
        H: ∇²f(y), shape ``(*batch, n, n)``.
        y: a point of the set.
        c: the set.

    Source: Hintermüller, Ito & Kunisch, "The primal-dual active set strategy as a semismooth Newton
    method", SIAM Journal on Optimization 13, 2002.
    """
    active = ActiveSet.near(y, c)
    pinned = c.lower == c.upper
    for _ in range(ROUNDS):
        system = NewtonSystem(H, c, active)
        step, multipliers = system.step(gradient, y, c)
        slope = gradient + (H @ step.unsqueeze(-1) + c.C.mT @ multipliers.unsqueeze(-1)).squeeze(-1)
        zero = ROUNDING * (gradient.abs().amax(-1, keepdim=True) + multipliers.abs().sum(-1, True))
        reached = y + step
        edge = ROUNDING * (1 + reached.abs())
        slack = c.right - (c.C @ reached.unsqueeze(-1)).squeeze(-1)
        new = ActiveSet(
            torch.where(active.lower, (slope > zero) | pinned, c.lower - reached > edge),
            torch.where(active.upper, slope < -zero, reached - c.upper > edge),
            c.equation
            | torch.where(active.rows, multipliers > zero, -slack > edge.amax(-1, keepdim=True)),
        )
        astray = (new.packed != active.packed).any(-1)
        if not bool(astray.any()):
            break
        active = new
    astray |= ~feasible(reached, c)
    if bool(astray.any()):
        packed = active.packed
        packed[astray] = _walk(gradient[astray], H[astray], y[astray], c.take(astray)).packed
        system = NewtonSystem(H, c, ActiveSet.of(packed, y.shape[-1]))
        step = system.step(gradient, y, c)[0]
    return step, system


def feasible(y: Tensor, c: Constraints) -> Tensor:
    """Whether y keeps to all constraints, to rounding, of shape ``batch``."""
    slack = c.right - (c.C @ y.unsqueeze(-1)).squeeze(-1)
    worst = torch.cat([c.lower - y, y - c.upper, torch.where(c.equation, slack.abs(), -slack)], -1)
    return worst.amax(-1) <= FEASIBLE * (1 + y.abs().amax(-1))


def _walk(gradient: Tensor, H: Tensor, y: Tensor, c: Constraints) -> ActiveSet:
    """The active set at the minimiser of the quadratic model, by a primal active-set method.

    From y, a point of the set, to the minimiser on the constraints held, as far as the others let
    it; the first in the way is held from there on, and one that pulls is let go at the minimiser.

    Source: Nocedal & Wright, "Numerical Optimization", 2nd edition 2006, algorithm 16.3.
    """
    n = y.shape[-1]
    curvature = torch.diagonal(H, dim1=-2, dim2=-1).amax(-1).clamp_min(1e-300)
    # Where the model is flat a constraint has to be met all the same.
    H = H + 1e-8 * curvature[..., None, None] * torch.eye(n, dtype=H.dtype, device=H.device)
    pinned = c.lower == c.upper
    forever = torch.cat([pinned, torch.zeros_like(pinned), c.equation], -1)
    held, way = forever, torch.zeros_like(y)
    for _ in range(5 * held.shape[-1]):
        system = NewtonSystem(H, c, ActiveSet.of(held, n))
        here, slope = y + way, gradient + (H @ way.unsqueeze(-1)).squeeze(-1)
        step, multipliers = system.step(slope, here, c)
        rate = torch.cat([-step, step, (c.C @ step.unsqueeze(-1)).squeeze(-1)], -1)
        slack = c.right - (c.C @ here.unsqueeze(-1)).squeeze(-1)
        room = torch.cat([here - c.lower, c.upper - here, slack], -1).clamp_min(0)
        in_the_way = ~held & (rate > NO_RATE * torch.linalg.vector_norm(step, dim=-1, keepdim=True))
        length, first = torch.where(in_the_way, room / rate, torch.inf).min(-1, keepdim=True)
        way = way + length.clamp(max=1) * step

        slope = slope + (H @ step.unsqueeze(-1) + c.C.mT @ multipliers.unsqueeze(-1)).squeeze(-1)
        push = torch.cat([slope, -slope, multipliers], -1)
        least, pulling = torch.where(held & ~forever, push, torch.inf).min(-1, keepdim=True)
        zero = NO_RATE * (gradient.abs().amax(-1, keepdim=True) + multipliers.abs().sum(-1, True))
        blocked = length < 1
        changes = blocked | (least < -zero)
        if not bool(changes.any()):
            break
        change = torch.where(blocked, first, pulling)
        held = held ^ torch.zeros_like(held).scatter(-1, change, changes)
    return ActiveSet.of(held, n)

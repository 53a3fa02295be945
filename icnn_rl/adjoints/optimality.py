"""The optimality conditions on an active set, as one masked linear system a sample."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from icnn_rl.sets import ConvexSet

ACTIVE_DISTANCE = 1e-4  # relative to |y| + 1
MAX_ACTIVE_SET_CHANGES = 20
SIGN_TOLERANCE = 1e-13  # relative, of multipliers and slacks
FEASIBILITY_TOLERANCE = 1e-9  # relative to |y| + 1
RATE_TOLERANCE = 1e-10  # relative, of the approach to a constraint


class Constraints(NamedTuple):
    """{ y : lower ≤ y ≤ upper,  C y ≤ right },  with equality in some rows.

    Everything is float64 and keeps its autograd graph, so that y* is differentiable with respect
    to the set as well. Bounds that only follow from rows are left out: their multipliers would not
    be unique, and a part of the gradient would be lost.

    Slacks, multipliers and active sets list the lower bounds, the upper bounds and the rows, in
    the last axis, of length m = 2 n + rows.

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
        C = torch.cat([A.expand(*like.shape[:-1], -1, -1) for A in (form.A_ub, form.A_eq)], -2)
        right = torch.cat([form.b_ub, form.b_eq], -1)
        equation = torch.arange(C.shape[-2], device=C.device) >= form.b_ub.shape[-1]
        return cls(form.lower, form.upper, C, right, equation.expand(right.shape))

    def detach(self) -> Constraints:
        """The same numbers without their graph."""
        return Constraints(*(t.detach() for t in self))

    def take(self, samples: Tensor) -> Constraints:
        """Those of the samples where a mask of shape ``batch`` is True, as one batch axis."""
        return Constraints(*(t[samples] for t in self))

    @property
    def always(self) -> Tensor:
        """The constraints that hold with equality everywhere; of two equal bounds the lower."""
        pinned = self.lower == self.upper
        return torch.cat([pinned, torch.zeros_like(pinned), self.equation], -1)

    def slack(self, y: Tensor) -> Tensor:
        """How far y is from each constraint; negative beyond it."""
        return torch.cat([y - self.lower, self.upper - y, self.right - times(self.C, y)], -1)

    def scale(self, y: Tensor) -> Tensor:
        """The size of numbers in each constraint, for tolerances."""
        size = 1 + y.abs()
        return torch.cat([size, size, size.amax(-1, True).expand_as(self.right)], -1)

    def near(self, y: Tensor) -> Tensor:
        """The constraints that y is close to, one for each coordinate and row."""
        lower, upper, rows = self.split(self.slack(y) <= ACTIVE_DISTANCE * self.scale(y))
        return torch.cat([lower, upper & ~lower, rows | self.equation], -1)

    def feasible(self, y: Tensor) -> Tensor:
        """Whether y keeps to all constraints, to rounding, of shape ``batch``."""
        slack = self.slack(y)
        worst = torch.where(self.always, slack.abs(), -slack).amax(-1)
        return worst <= FEASIBILITY_TOLERANCE * (1 + y.abs().amax(-1))

    def split(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The parts of a list of all constraints: lower bounds, upper bounds, rows."""
        n = self.lower.shape[-1]
        lower, upper, rows = t.tensor_split([n, 2 * n], -1)
        return lower, upper, rows

    def place(self, y: Tensor, active: Tensor) -> Tensor:
        """y with the coordinates that an active set fixes at their bounds."""
        lower, upper, _ = self.split(active)
        return torch.where(lower, self.lower, torch.where(upper, self.upper, y))


class NewtonSystem:
    """One Newton step on the optimality conditions of min f over a set, its active set given.

        ∇f + H d + Cᵀμ = 0   for free coordinates,      d = bound - y   for the others,
        C (y + d) = right    for active rows,           μ = 0           for the others.

    Rows that repeat others leave μ open, and directions without curvature d; the shortest solution
    is taken, through the pseudo-inverse of the symmetric matrix.

    Args:
        H: ∇²f, shape ``(*batch, n, n)``, float64.
        c: the constraints, without a graph.
        active: which of them hold with equality, shape ``(*batch, m)``.
        epsilon: the rounding unit of H.
    """

    def __init__(
        self, H: Tensor, c: Constraints, active: Tensor, epsilon: float = 2.0**-52
    ) -> None:
        n, rows = H.shape[-1], c.C.shape[-2]
        self.active, self.H, self.C = active, H, c.C
        lower, upper, self._rows = c.split(active)
        self._fixed = lower | upper
        free, row = (~self._fixed).to(H.dtype), self._rows.to(H.dtype)
        # In units of the curvature, so that the cutoff of the pseudo-inverse suits all blocks.
        curvature = _curvature(H)
        self._scale = torch.where(curvature > 0, curvature, 1.0)
        K = H.new_zeros(*H.shape[:-2], n + rows, n + rows)
        K[..., :n, :n] = H / self._scale.unsqueeze(-1) * free.unsqueeze(-1) * free.unsqueeze(-2)
        K[..., n:, :n] = c.C * row.unsqueeze(-1) * free.unsqueeze(-2)
        K[..., :n, n:] = K[..., n:, :n].mT
        torch.diagonal(K, dim1=-2, dim2=-1).add_(torch.cat([1 - free, row - 1], -1))
        self._inverse = torch.linalg.pinv(K, rtol=(n + rows) * epsilon, hermitian=True)

    def step(
        self, gradient: Tensor, y: Tensor, c: Constraints, multipliers: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """d and μ, differentiable once with respect to ∇f and the constraints.

        Args:
            gradient: ∇f(y), shape ``(*batch, n)``.
            y: the point, likewise.
            c: the constraints.
            multipliers: μ at y, shape ``(*batch, rows)``; with it the step is that from μ, which
                has the right derivative with respect to C.
        """
        n = y.shape[-1]
        if multipliers is not None:
            gradient = gradient + times(c.C.mT, multipliers)
        to_bound = c.place(y, self.active) - y
        top = -gradient - times(self.H, to_bound)
        top = torch.where(self._fixed, to_bound, top / self._scale)
        moved = times(c.C, y) + times(self.C, to_bound)
        bottom = torch.where(self._rows, c.right - moved, 0.0)
        right = torch.cat([top, bottom], -1)
        solution = differentiable_once(times(self._inverse, right), right, "argmin")
        return solution[..., :n], solution[..., n:] * self._scale

    def push(self, gradient: Tensor, step: Tensor, multipliers: Tensor) -> Tensor:
        """The multipliers of all constraints, after a step from where the gradient is."""
        slope = gradient + times(self.H, step) + times(self.C.mT, multipliers)
        return torch.cat([slope, -slope, multipliers], -1)


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
    active, always = c.near(y), c.always
    for _ in range(MAX_ACTIVE_SET_CHANGES):
        system = NewtonSystem(H, c, active)
        step, multipliers = system.step(gradient, y, c)
        held = system.push(gradient, step, multipliers) > SIGN_TOLERANCE * _size(
            gradient, multipliers
        )
        reached = y + step
        violated = c.slack(reached) < -SIGN_TOLERANCE * c.scale(reached)
        new = always | torch.where(active, held, violated)
        astray = (new != active).any(-1)
        if not bool(astray.any()):
            break
        active = new
    astray |= ~c.feasible(reached)
    if bool(astray.any()):
        active = active.clone()
        active[astray] = _walk(gradient[astray], H[astray], y[astray], c.take(astray))
        system = NewtonSystem(H, c, active)
        step = system.step(gradient, y, c)[0]
    return step, system


def _walk(gradient: Tensor, H: Tensor, y: Tensor, c: Constraints) -> Tensor:
    """The active set at the minimiser of the quadratic model, by a primal active-set method.

    It goes from y, a point of the set, towards the minimiser on the constraints held. It stops at
    the first other constraint in the way and holds it too; at the minimiser it lets go the one with
    the multiplier that is most wrong.

    Source: Nocedal & Wright, "Numerical Optimization", 2nd edition 2006, algorithm 16.3.
    """
    # Where the model is flat a constraint has to be met all the same.
    H = H + torch.diag_embed(1e-8 * _curvature(H).clamp_min(1e-300).expand_as(y))
    held = always = c.always
    way = torch.zeros_like(y)
    for _ in range(5 * held.shape[-1]):
        system = NewtonSystem(H, c, held)
        here, slope = y + way, gradient + times(H, way)
        step, multipliers = system.step(slope, here, c)
        rate = torch.cat([-step, step, times(c.C, step)], -1)
        in_the_way = ~held & (
            rate > RATE_TOLERANCE * torch.linalg.vector_norm(step, dim=-1, keepdim=True)
        )
        room = c.slack(here).clamp_min(0)
        length, first = torch.where(in_the_way, room / rate, torch.inf).min(-1, keepdim=True)
        way = way + length.clamp(max=1) * step

        push = system.push(slope, step, multipliers)
        least, pulling = torch.where(held & ~always, push, torch.inf).min(-1, keepdim=True)
        blocked = length < 1
        changes = blocked | (least < -RATE_TOLERANCE * _size(gradient, multipliers))
        if not bool(changes.any()):
            break
        change = torch.where(blocked, first, pulling)
        held = held ^ torch.zeros_like(held).scatter(-1, change, changes)
    return held


def times(A: Tensor, y: Tensor) -> Tensor:
    """A y, for matrices ``(*batch, rows, n)`` and vectors ``(*batch, n)``."""
    return (A @ y.unsqueeze(-1)).squeeze(-1)


def _curvature(H: Tensor) -> Tensor:
    """The largest entry of the diagonal, shape ``(*batch, 1)``."""
    return torch.diagonal(H, dim1=-2, dim2=-1).amax(-1, keepdim=True)


def _size(gradient: Tensor, multipliers: Tensor) -> Tensor:
    """What multipliers are compared with, shape ``(*batch, 1)``."""
    return gradient.abs().amax(-1, keepdim=True) + multipliers.abs().sum(-1, keepdim=True)


def differentiable_once(t: Tensor, source: Tensor, who: str) -> Tensor:
    """t, made of ``source``; a second derivative through it raises, as it would be wrong."""
    if t.requires_grad:
        t.register_hook(lambda g: _Refuse.apply(g, source, who) if torch.is_grad_enabled() else g)  # type: ignore[no-untyped-call]
    return t


class _Refuse(torch.autograd.Function):
    """A copy of t that counts as made of ``source``; its derivative raises."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, source: Tensor, who: str) -> Tensor:
        ctx.who = who
        return t.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        raise RuntimeError(
            f"{ctx.who}: expected first derivatives only, got a request for second ones; "
            "use unrolled"
        )

"""The one form in which solvers, adjoints and samplers read a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icnn_rl.sets._curved import BallConstraint, nearest_in_l1_ball
from icnn_rl.sets._implied_bounds import fill_bounds
from icnn_rl.sets.batches import broadcast
from icnn_rl.sets.convex_set import ConvexSet

if TYPE_CHECKING:
    from icnn_rl.kernels.polyhedron import Polyhedron

Array = npt.NDArray[np.float64]
Bounds = tuple[Tensor, Tensor]
Rows = tuple[Tensor, Tensor]

ROUNDINGS = 4  # that may keep apart constraints which meet in a point


@final
@dataclass(frozen=True, eq=False, repr=False)
class CanonicalSet(ConvexSet):
    """{ y : lower ≤ y ≤ upper,  A_ub y ≤ b_ub,  A_eq y = b_eq,  W |y| ≤ r,  y in some balls }.

    Numbers are first rounded to the precision of the points, and the set is that of the rounded
    numbers. They are held in float64 and keep their autograd graph. Rows of A_ub and A_eq have
    length one. A matrix has shape ``(rows, n)`` where all samples share it, else
    ``(*batch, rows, n)``.

    Attributes:
        lower, upper: bounds that are constraints of their own, shape ``(*batch, n)``; infinite
            where there are none.
        implied: lower and upper bounds known to follow from the other constraints, likewise. A
            coordinate that has a bound on one side has one on the other, own or implied; a
            constraint on one side alone is a row.
        A_ub, b_ub: inequalities; ``b_ub`` has shape ``(*batch, rows)``.
        A_eq, b_eq: equations, likewise.
        l1_weights, l1_radius: W ≥ 0 and r of weighted ℓ1 balls, likewise.
        balls: balls of the Euclidean norm.
        epsilon: the rounding unit of the precision that the numbers were rounded to.
    """

    lower: Tensor
    upper: Tensor
    implied: Bounds
    A_ub: Tensor
    b_ub: Tensor
    A_eq: Tensor
    b_eq: Tensor
    l1_weights: Tensor
    l1_radius: Tensor
    balls: tuple[BallConstraint, ...]
    epsilon: float

    __eq__, __hash__ = object.__eq__, object.__hash__

    @property
    def batch_shape(self) -> torch.Size:
        return self.lower.shape[:-1]

    @classmethod
    def of(
        cls,
        like: Tensor,
        lower: float | Tensor = -torch.inf,
        upper: float | Tensor = torch.inf,
        *,
        implied: Bounds | None = None,
        A_ub: Tensor | None = None,
        b_ub: Tensor | None = None,
        A_eq: Tensor | None = None,
        b_eq: Tensor | None = None,
        l1_weights: Tensor | None = None,
        l1_radius: Tensor | None = None,
        balls: Sequence[BallConstraint] = (),
    ) -> CanonicalSet:
        """The set of the constraints given, for points of the shape of ``like``, ``(*batch, n)``.

        Raises:
            ValueError: one of them does not fit these points.
        """
        batch, n = like.shape[:-1], like.shape[-1]

        def rows(names: tuple[str, str], matrix: Tensor | None, right: Tensor | None) -> Rows:
            if matrix is None or right is None:
                none = like.new_zeros(*batch, 0, dtype=torch.float64)
                return none.new_zeros(0, n), none
            count = matrix.shape[-2]
            full = broadcast(names[0], matrix, (*batch, count, n), like)
            right = broadcast(names[1], right, (*batch, count), like)
            # One matrix for all samples is a cheaper problem.
            return (full if matrix.dim() > 2 else matrix.to(like)).double(), right.double()

        def bound(name: str, t: float | Tensor) -> Tensor:
            return broadcast(name, t, like.shape, like).double()

        if implied is None:
            infinite = torch.full(like.shape, torch.inf, dtype=torch.float64, device=like.device)
            implied = -infinite, infinite
        return cls(
            bound("lower", lower),
            bound("upper", upper),
            (implied[0].double(), implied[1].double()),
            *unit_rows(*rows(("A_ub", "b_ub"), A_ub, b_ub)),
            *unit_rows(*rows(("A_eq", "b_eq"), A_eq, b_eq)),
            *rows(("l1_weights", "l1_radius"), l1_weights, l1_radius),
            tuple(BallConstraint(*(t.double() for t in ball)) for ball in balls),
            torch.finfo(like.dtype).eps,
        )

    def canonical(self, like: Tensor) -> CanonicalSet:
        if like.shape != self.lower.shape:
            raise ValueError(
                f"over: expected a set for points of shape {tuple(like.shape)}, got one for points "
                f"of shape {tuple(self.lower.shape)}"
            )
        return self

    @property
    def has_rows(self) -> bool:
        """Whether there are inequalities or equations."""
        return self.b_ub.shape[-1] + self.b_eq.shape[-1] > 0

    @property
    def has_l1(self) -> bool:
        """Whether there are weighted ℓ1 balls."""
        return self.l1_radius.shape[-1] > 0

    @property
    def known_bounds(self) -> Bounds:
        """The tightest bounds that take no linear program; they may contradict each other."""
        lower, upper = self.implied
        return torch.maximum(self.lower, lower), torch.minimum(self.upper, upper)

    @cached_property
    def full_bounds(self) -> Bounds:
        """As ``known_bounds``, infinite ones filled in from the rows, and lower ≤ upper."""
        lower, upper = self.known_bounds
        if self.has_rows and not bool((lower.isfinite() & upper.isfinite()).all()):
            low, high = (self._flat(t).copy() for t in (lower, upper))
            matrices = [self.A_ub, self.A_eq]
            if all(A.dim() == 2 for A in matrices):
                A_ub, A_eq = (A.detach().cpu().numpy()[None] for A in matrices)
            else:
                A_ub, A_eq = (self._flat(A, 2) for A in matrices)
            b_ub, b_eq = (self._flat(b) for b in (self.b_ub, self.b_eq))
            fill_bounds(low, high, A_ub, b_ub, A_eq, b_eq)
            lower, upper = (torch.as_tensor(t).to(lower).view_as(lower) for t in (low, high))
        return lower, torch.maximum(lower, upper)

    def bounds(self, like: Tensor) -> Bounds:
        self.canonical(like)
        lower, upper = self.full_bounds
        return lower.to(like), upper.to(like)

    @cached_property
    def polyhedron(self) -> Polyhedron:
        """Bounds and rows as compiled code reads them."""
        from icnn_rl.kernels.polyhedron import Polyhedron  # it loads numba

        lower, upper = self.full_bounds
        finite = lower.isfinite() & upper.isfinite()
        origin = torch.where(finite, lower, 0.0)
        width = torch.where(finite, upper - lower, 1.0)
        arrays = []
        for matrix, right in ((self.A_ub, self.b_ub), (self.A_eq, self.b_eq)):
            if right.shape[-1]:
                right = right - (matrix @ origin.unsqueeze(-1)).squeeze(-1)
                matrix, right = unit_rows(matrix * width.unsqueeze(-2), right)
            arrays += [self._flat(matrix, 2), self._flat(right)]
        return Polyhedron(self._flat(origin), self._flat(width), self._flat(finite) > 0, *arrays)

    def support(self, c: Tensor) -> Tensor:
        if self.balls:
            ball, rest = self.without_ball()
            return ball.support_within(c.double(), rest.support, rest.project).to(c.dtype)
        if self.has_l1:
            over, signed = self.lifted().polyhedron, torch.cat([c, -c], -1)
            # From the middle of the bounds of p and q the interior-point method may stall.
            start = over.interior()[0].clip(0.01, 0.99)
            return self._tensor(over.support(self._flat(signed), start), c, c[..., 0])
        if self.has_rows:
            return self._tensor(self.polyhedron.support(self._flat(c)), c, c[..., 0])
        # Zero times an infinite bound counts as zero, in the gradient too.
        lower, upper = (torch.where((c == 0) & b.isinf(), 0.0, b) for b in self.full_bounds)
        return torch.maximum(c * lower, c * upper).sum(-1).to(c.dtype)

    def project(self, y: Tensor) -> Tensor:
        if self.balls:
            ball, rest = self.without_ball()
            return ball.nearest_within(y, rest.project).to(y.dtype)
        lower, upper = self.full_bounds
        if self.has_l1:
            if self.has_rows or self.l1_radius.shape[-1] > 1:
                return self._nearest_lifted(y)
            weights = self.l1_weights.squeeze(-2)
            # The box around the ball would make its corners kinks.
            return nearest_in_l1_ball(y, self.lower, self.upper, weights, self.l1_radius)
        if self.has_rows:
            return self._tensor(self.polyhedron.project(self._flat(y)), y, y)
        return torch.minimum(torch.maximum(y, lower), upper).to(y.dtype)

    def interior_point(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.known_bounds
        if self.balls:
            y, empty = self._interior_of_ball(like)
        elif self.has_l1:
            parts, empty = self.lifted().interior_point(torch.cat([like, like], -1))
            y = lowered(parts)
        else:
            y, empty = self._interior_of_rows(like)
            if bool(empty.any()):
                near, none = self._loosened()._interior_of_rows(like)
                y, empty = torch.where((empty & ~none).unsqueeze(-1), near, y), empty & none
        apart = lower - upper > ROUNDINGS * self.epsilon * (lower.abs() + upper.abs())
        return y, empty | apart.any(-1)

    def meet(self, other: CanonicalSet) -> CanonicalSet:
        """The intersection with another set for the same points."""
        (low, high), (lower, upper) = self.implied, other.implied
        batch = self.lower.shape[:-1]

        def stacked(first: Rows, second: Rows) -> Rows:
            shared = max(first[0].dim(), second[0].dim()) == 2
            matrices = [t[0].expand(*(() if shared else batch), -1, -1) for t in (first, second)]
            return torch.cat(matrices, -2), torch.cat([first[1], second[1]], -1)

        return CanonicalSet(
            torch.maximum(self.lower, other.lower),
            torch.minimum(self.upper, other.upper),
            (torch.maximum(low, lower), torch.minimum(high, upper)),
            *stacked((self.A_ub, self.b_ub), (other.A_ub, other.b_ub)),
            *stacked((self.A_eq, self.b_eq), (other.A_eq, other.b_eq)),
            *stacked((self.l1_weights, self.l1_radius), (other.l1_weights, other.l1_radius)),
            self.balls + other.balls,
            max(self.epsilon, other.epsilon),
        )

    def take(self, mask: Tensor) -> CanonicalSet:
        """The sets of the samples where a mask of shape ``batch`` is True."""

        def rows(matrix: Tensor, right: Tensor) -> Rows:
            return (matrix if matrix.dim() == 2 else matrix[mask]), right[mask]

        low, high = self.implied
        return CanonicalSet(
            self.lower[mask],
            self.upper[mask],
            (low[mask], high[mask]),
            *rows(self.A_ub, self.b_ub),
            *rows(self.A_eq, self.b_eq),
            *rows(self.l1_weights, self.l1_radius),
            tuple(BallConstraint(*(t[mask] for t in ball)) for ball in self.balls),
            self.epsilon,
        )

    def without_ball(self) -> tuple[BallConstraint, CanonicalSet]:
        """One of the balls, and the set without it but in the box around it."""
        ball, *others = self.balls
        lower, upper = self.known_bounds
        return ball, replace(self, lower=lower, upper=upper, balls=tuple(others))

    def without_l1(self) -> CanonicalSet:
        """The set without its weighted ℓ1 balls, but in the boxes around them."""
        lower, upper = self.full_bounds
        weights, radius = self.l1_weights[..., :0, :], self.l1_radius[..., :0]
        return replace(self, lower=lower, upper=upper, l1_weights=weights, l1_radius=radius)

    def lifted(self) -> CanonicalSet:
        """A polyhedron of points (p, q) ≥ 0 whose images p - q are the set, without its balls.

            W (p + q) ≤ r,    A_ub (p - q) ≤ b_ub,    A_eq (p - q) = b_eq,    and bounds

        The bounds keep p = max(y, 0) and q = max(-y, 0) for every y of the set.

        Raises:
            ValueError: a coordinate is not bounded.
        """
        lower, upper = self.full_bounds
        if not bool((upper - lower).isfinite().all()):
            raise ValueError(
                "over: a weight of 0 leaves a coordinate unbounded; add a Box to the set"
            )
        like = torch.cat([lower, upper], -1)
        signed = CanonicalSet.of(
            like,
            torch.cat([lower, -upper], -1).clamp(min=0),
            torch.cat([upper, -lower], -1).clamp(min=0),
            A_ub=torch.cat([self.A_ub, -self.A_ub], -1),
            b_ub=self.b_ub,
            A_eq=torch.cat([self.A_eq, -self.A_eq], -1),
            b_eq=self.b_eq,
        )
        weights = torch.cat([self.l1_weights, self.l1_weights], -1)
        whole = signed.meet(CanonicalSet.of(like, A_ub=weights, b_ub=self.l1_radius))
        return replace(whole, epsilon=self.epsilon)

    def relaxed(self, point: Tensor, empty: Tensor) -> CanonicalSet:
        """The set, made large enough to hold a point between its bounds; itself if it does.

        It gets some room where it is empty, and none where only rounding keeps the point out.
        """
        from icnn_rl.kernels.polyhedron import TOLERANCE  # it loads numba

        flat = self.polyhedron.units(self._flat(point))
        beyond = torch.as_tensor(self.polyhedron.violation(flat) > TOLERANCE, device=empty.device)
        where = (empty | beyond.view_as(empty)).unsqueeze(-1)
        if not bool(where.any()):
            return self
        point, (lower, upper) = point.double(), self.full_bounds
        lower = torch.where(where, torch.minimum(lower, point), lower)
        upper = torch.where(where, torch.maximum(upper, point), upper)
        used, held = ((A @ point.unsqueeze(-1)).squeeze(-1) for A in (self.A_ub, self.A_eq))
        least = torch.where(empty.unsqueeze(-1), used + 1, torch.maximum(used, self.b_ub))
        return replace(
            self,
            lower=lower,
            upper=upper,
            implied=(lower, upper),
            b_ub=torch.where(where, least, self.b_ub),
            b_eq=torch.where(where, held, self.b_eq),
        )

    def _interior_of_rows(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """``interior_point`` of a set of bounds and rows."""
        u, none = self.polyhedron.interior()
        y = self._tensor(self.polyhedron.origin + self.polyhedron.width * u, like, like)
        return y, torch.as_tensor(none, device=like.device).view(like.shape[:-1])

    def _loosened(self) -> CanonicalSet:
        """The set with inequalities looser by what rounding may have taken from their numbers."""
        farthest = torch.maximum(*(t.abs() for t in self.full_bounds))
        farthest = torch.where(farthest.isfinite(), farthest, 0.0)
        size = self.b_ub.abs() + (self.A_ub.abs() @ farthest.unsqueeze(-1)).squeeze(-1)
        return replace(self, b_ub=self.b_ub + ROUNDINGS * self.epsilon * size)

    def _interior_of_ball(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Half the way from the point nearest to the ball's centre to where it leaves the set."""
        ball, rest = self.without_ball()
        center = ball.center.to(like)
        deep, empty = rest.interior_point(like)
        inner = torch.where(empty.unsqueeze(-1), center, rest.project(center))
        distance = torch.linalg.vector_norm(inner - center, dim=-1)
        empty = empty | (distance > (1 + 1e-6) * ball.radius)
        return (inner + ball.crossing(inner, deep)) / 2, empty

    def _nearest_lifted(self, y: Tensor) -> Tensor:
        n = y.shape[-1]
        signs = np.concatenate([np.eye(n), -np.eye(n)], 1)
        u = self.lifted().polyhedron.nearest_image(self._flat(y), signs)
        return self._tensor(u[:, :n] - u[:, n:], y, y)

    def _flat(self, t: Tensor, axes: int = 1) -> Array:
        """A tensor as ``(size, ...)``, with the last axes kept and the batch as one."""
        batch, trailing = self.lower.shape[:-1], t.shape[-axes:]
        expanded = t.detach().expand(*batch, *trailing).reshape(batch.numel(), *trailing)
        return np.ascontiguousarray(expanded.cpu().double().numpy())

    @staticmethod
    def _tensor(array: Array, like: Tensor, shape: Tensor) -> Tensor:
        return torch.as_tensor(array, device=like.device).to(like.dtype).view(shape.shape)


def lowered(u: Tensor) -> Tensor:
    """y = p - q of points u = (p, q) of a lifted set."""
    p, q = u.chunk(2, -1)
    return p - q


def unit_rows(matrix: Tensor, right: Tensor) -> Rows:
    """Rows scaled to length one, zeros excepted, and their right-hand sides."""
    if right.shape[-1] == 0:
        return matrix, right
    length = torch.linalg.vector_norm(matrix.detach(), dim=-1)
    length = torch.where(length > 0, length, 1.0)
    return matrix / length.unsqueeze(-1), right / length

"""A closed convex set, and the intersection of two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from icnn_rl.sets.ball import Ball

Constraint = tuple[Tensor, Tensor]
"""A matrix, ``(rows, n)`` or ``(*batch, rows, n)``, and a right-hand side, ``(*batch, rows)``."""


ACCURACY = 1e-6  # of a support function that has no closed form, relative to its terms


class ConvexSet(ABC):
    """A closed convex set 𝒴 ⊂ ℝⁿ, the same for every sample or one for each.

    Every set says what it is by ``bounds``, ``inequalities``, ``equations``, ``budgets`` and
    ``balls``, the form that the solvers work with. Arguments named ``like`` are tensors of shape
    ``(*batch, n)`` that give the batch, the dimension, the precision and the device.
    """

    @abstractmethod
    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of the shape of ``like``; infinite where there are none."""

    def own_bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Those known without a linear program a sample; they may contradict each other."""
        return self.bounds(like)

    def inequalities(self, like: Tensor) -> Constraint | None:
        """A and b of A y ≤ b."""
        return None

    def equations(self, like: Tensor) -> Constraint | None:
        """E and d of E y = d."""
        return None

    def budgets(self, like: Tensor) -> Constraint | None:
        """W ≥ 0 and b of W |y| ≤ b."""
        return None

    @property
    def balls(self) -> tuple[Ball, ...]:
        """Balls of the Euclidean norm in which the set lies, besides the other constraints."""
        return ()

    def without_balls(self) -> ConvexSet:
        """The set with the smallest box around each of ``balls`` in its place."""
        return self

    @abstractmethod
    def support(self, c: Tensor) -> Tensor:
        """max { cᵀy : y ∈ 𝒴 }, or a little more, for c of shape ``(*batch, n)``."""

    @abstractmethod
    def project(self, y: Tensor) -> Tensor:
        """The point of 𝒴 nearest to y in the Euclidean norm, for y of shape ``(*batch, n)``."""

    @abstractmethod
    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """A point well inside, of the shape of ``like``, and where 𝒴 is empty, ``batch``."""

    def center(self, like: Tensor) -> Tensor:
        """A point well inside, where a solver may start, of the shape of ``like``."""
        return self.interior(like)[0]

    def contains(self, y: Tensor, tol: float = 1e-6) -> Tensor:
        """Whether y lies within ``tol`` of 𝒴, of shape ``batch``."""
        distance: Tensor = torch.linalg.vector_norm(y - self.project(y), dim=-1)
        return distance <= tol

    def __and__(self, other: ConvexSet) -> ConvexSet:
        """The intersection of two sets."""
        return Intersection(self, other)


class _Rows(Protocol):
    def __call__(self, like: Tensor) -> Constraint | None: ...


class PolyhedralSet(ConvexSet):
    """A set about which nothing is known but its bounds, inequalities and equations."""

    def support(self, c: Tensor) -> Tensor:
        return self._compute("support", c, c.shape[:-1])

    def project(self, y: Tensor) -> Tensor:
        return self._compute("project", y, y.shape)

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        from icnn_rl.polyhedron import Polyhedron

        polyhedron = Polyhedron.of(self, like)
        u, empty = polyhedron.interior()
        y = torch.as_tensor(polyhedron.origin + polyhedron.width * u, device=like.device)
        return (
            y.to(like.dtype).view_as(like),
            torch.as_tensor(empty, device=like.device).view(like.shape[:-1]),
        )

    def relaxed(self, like: Tensor) -> ConvexSet:
        """The set, made just large enough to hold the point of ``interior`` where it is empty."""
        from icnn_rl.sets.box import Box
        from icnn_rl.sets.polytope import Polytope

        point, empty = self.interior(like)
        column, empty = point.unsqueeze(-1), empty.unsqueeze(-1)
        rows: list[Tensor | None] = []
        for constraint, slack in ((self.inequalities(like), 1.0), (self.equations(like), 0.0)):
            if constraint is None:
                rows += [None, None]
            else:
                matrix, right = constraint
                rows += [matrix, torch.where(empty, (matrix @ column).squeeze(-1) + slack, right)]
        lower, upper = self.bounds(like)
        box = Box(lower, upper) if bool((upper - lower).isfinite().all()) else None
        if rows[0] is None and rows[2] is None:
            return box or self
        return Polytope(*rows) if box is None else box & Polytope(*rows)

    def _compute(self, method: str, t: Tensor, shape: torch.Size) -> Tensor:
        from icnn_rl.polyhedron import Polyhedron

        flat = t.detach().reshape(-1, t.shape[-1]).cpu().double().numpy()
        result = getattr(Polyhedron.of(self, t), method)(flat)
        return torch.as_tensor(result, device=t.device).to(t.dtype).view(shape)


@final
class Intersection(PolyhedralSet):
    """{ y : y ∈ left, y ∈ right }; made by ``left & right``."""

    def __init__(self, left: ConvexSet, right: ConvexSet) -> None:
        self.left = left
        self.right = right

    def __repr__(self) -> str:
        return f"{self.left} & {self.right}"

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        from icnn_rl.sets.implied_bounds import implied_bounds

        lower, upper = self.own_bounds(like)
        return implied_bounds(lower, upper, self.inequalities(like), self.equations(like))

    def support(self, c: Tensor) -> Tensor:
        if not self._curved(c):
            return super().support(c)
        from icnn_rl.solvers import minimize
        from icnn_rl.terms import linear

        lower, upper = (t.double() for t in self.bounds(c))
        size = (c.abs() * torch.maximum(lower.abs(), upper.abs())).sum(-1).clamp(min=1e-300)
        scaled = linear(-c / size.unsqueeze(-1))
        return -(size * minimize(scaled, self, ACCURACY, max_evaluations=1000).lower_bound).to(
            c.dtype
        )

    def project(self, y: Tensor) -> Tensor:
        if not self._curved(y):
            return super().project(y)
        if self.balls:
            from icnn_rl.sets.nearest import nearest_in_ball

            ball, rest = split_ball(self)
            return nearest_in_ball(y, rest.project, *ball.fitted(y)).to(y.dtype)
        budgets = self.budgets(y)
        assert budgets is not None
        weights, radius = budgets
        rows = self.inequalities(y) or self.equations(y)
        if rows is None and weights.shape[-2] == 1:
            from icnn_rl.sets.nearest import nearest_in_budget

            lower, upper = self.bounds(y)
            return nearest_in_budget(
                y, lower, upper, weights.squeeze(-2).expand_as(y), radius.expand(*y.shape[:-1], 1)
            )
        from icnn_rl.sets.lifting import nearest

        return nearest(self, y)

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.own_bounds(like)
        if self.balls:
            y, empty = self._interior_of_ball(like)
        elif self.budgets(like) is not None:
            from icnn_rl.sets.lifting import lifted, lowered

            y, empty = lifted(self, like).interior(torch.cat([like, like], -1))
            y = lowered(y)
        else:
            y, empty = super().interior(like)
        return y, empty | (lower > upper).any(-1)

    def _interior_of_ball(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Half the way from the point nearest to the ball's centre to where it leaves the set."""
        ball, rest = split_ball(self)
        radius, center = ball.fitted(like)
        deep, empty = rest.interior(like)
        nearest = torch.where(empty.unsqueeze(-1), center, rest.project(center))
        distance = torch.linalg.vector_norm(nearest - center, dim=-1)
        empty = empty | (distance > (1 + 1e-6) * radius.squeeze(-1))
        return (nearest + ball.crossing(nearest, deep)) / 2, empty

    def own_bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        (low, high), (lower, upper) = self.left.own_bounds(like), self.right.own_bounds(like)
        return torch.maximum(low, lower), torch.minimum(high, upper)

    def inequalities(self, like: Tensor) -> Constraint | None:
        return _stacked(self.left.inequalities, self.right.inequalities, like)

    def equations(self, like: Tensor) -> Constraint | None:
        return _stacked(self.left.equations, self.right.equations, like)

    def budgets(self, like: Tensor) -> Constraint | None:
        return _stacked(self.left.budgets, self.right.budgets, like)

    @property
    def balls(self) -> tuple[Ball, ...]:
        return self.left.balls + self.right.balls

    def without_balls(self) -> ConvexSet:
        return self.left.without_balls() & self.right.without_balls() if self.balls else self

    def _curved(self, like: Tensor) -> bool:
        """Whether there is more than bounds, inequalities and equations."""
        return bool(self.balls) or self.budgets(like) is not None


def split_ball(over: ConvexSet) -> tuple[Ball, ConvexSet]:
    """One of the balls of a set, and the set without it but in the box around it."""
    ball, *others = over.balls
    rest = over.without_balls()
    for other in others:
        rest &= other
    return ball, rest


def _stacked(left: _Rows, right: _Rows, like: Tensor) -> Constraint | None:
    first, second = left(like), right(like)
    if first is None or second is None:
        return second if first is None else first
    batch = like.shape[:-1] if max(first[0].dim(), second[0].dim()) > 2 else ()
    matrices = [m.expand(*batch, *m.shape[-2:]) for m, _ in (first, second)]
    rights = [r.expand(*like.shape[:-1], r.shape[-1]) for _, r in (first, second)]
    return torch.cat(matrices, -2), torch.cat(rights, -1)

"""The intersection of two sets."""

from __future__ import annotations

from typing import Protocol, final

import torch
from torch import Tensor

from icnn_rl.sets.ball import Ball
from icnn_rl.sets.convex_set import Constraint, ConvexSet
from icnn_rl.sets.implied_bounds import implied_bounds
from icnn_rl.sets.lifting import lifted, lowered, nearest
from icnn_rl.sets.nearest import nearest_in_ball, nearest_in_budget
from icnn_rl.sets.polyhedral_set import PolyhedralSet

ACCURACY = 1e-6  # of a support function that has no closed form, relative to its terms


class _Rows(Protocol):
    def __call__(self, like: Tensor) -> Constraint | None: ...


@final
class Intersection(PolyhedralSet):
    """{ y : y ∈ left, y ∈ right }; made by ``left & right``."""

    def __init__(self, left: ConvexSet, right: ConvexSet) -> None:
        self.left = left
        self.right = right

    def __repr__(self) -> str:
        return f"{self.left} & {self.right}"

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.own_bounds(like)
        return implied_bounds(lower, upper, self.inequalities(like), self.equations(like))

    def support(self, c: Tensor) -> Tensor:
        if not self._curved(c):
            return super().support(c)
        from icnn_rl.functions import linear
        from icnn_rl.solvers import minimize

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
            ball, rest = split_ball(self)
            return nearest_in_ball(y, rest.project, *ball.fitted(y)).to(y.dtype)
        budgets = self.budgets(y)
        assert budgets is not None
        weights, radius = budgets
        rows = self.inequalities(y) or self.equations(y)
        if rows is None and weights.shape[-2] == 1:
            lower, upper = self.bounds(y)
            return nearest_in_budget(
                y, lower, upper, weights.squeeze(-2).expand_as(y), radius.expand(*y.shape[:-1], 1)
            )
        return nearest(self, y)

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.own_bounds(like)
        if self.balls:
            y, empty = self._interior_of_ball(like)
        elif self.budgets(like) is not None:
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
        inner = torch.where(empty.unsqueeze(-1), center, rest.project(center))
        distance = torch.linalg.vector_norm(inner - center, dim=-1)
        empty = empty | (distance > (1 + 1e-6) * radius.squeeze(-1))
        return (inner + ball.crossing(inner, deep)) / 2, empty

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

"""The sets of some samples of a batch."""

from __future__ import annotations

from torch import Tensor

from icnn_rl.samples import Samples
from icnn_rl.sets.ball import Ball
from icnn_rl.sets.box import Box
from icnn_rl.sets.convex_set import Constraint, ConvexSet
from icnn_rl.sets.l1_ball import L1Ball
from icnn_rl.sets.polytope import Polytope


def part(over: ConvexSet, like: Tensor, samples: Samples, *, budgets: bool) -> ConvexSet:
    """The sets of some samples, spelt out.

    Args:
        over: a bounded set.
        like: points of it, shape ``(*batch, n)``.
        samples: which ones.
        budgets: whether their budgets stay.
    """

    def rows(constraint: Constraint) -> Constraint:
        matrix, right = constraint
        batch = like.shape[:-1]
        matrix = matrix.expand(*batch, *matrix.shape[-2:])
        return samples.take(matrix), samples.take(right.expand(*batch, right.shape[-1]))

    lower, upper = over.bounds(like)
    taken: ConvexSet = Box(samples.take(lower), samples.take(upper))
    inequalities, equations = over.inequalities(like), over.equations(like)
    if inequalities is not None:
        taken &= Polytope(*rows(inequalities))
    if equations is not None:
        taken &= Polytope(None, None, *rows(equations))
    if budgets and (budget := over.budgets(like)) is not None:
        weights, radius = rows(budget)
        for row in range(radius.shape[-1]):
            taken &= L1Ball(radius[..., row], weights[..., row, :])
    for ball in over.balls:
        distance, center = ball.fitted(like)
        taken &= Ball(samples.take(distance).squeeze(-1), samples.take(center))
    return taken

"""Budgets Σ wᵢ |yᵢ| ≤ b: linear in the positive and the negative part of y."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction
from icnn_rl.samples import Samples
from icnn_rl.sets.convex_set import ConvexSet
from icnn_rl.sets.lifting import lifted, lowered
from icnn_rl.sets.parts import part
from icnn_rl.solvers.minimize import minimize
from icnn_rl.solvers.problem import Solver
from icnn_rl.solvers.solution import Solution


def solve(
    f: ConvexFunction,
    over: ConvexSet,
    like: Tensor,
    tol: float,
    solver: str | Solver,
    start: Tensor | None,
    max_evaluations: int,
) -> Solution:
    """Minimise without the budgets first, and where that breaks one, over a lifted set.

        min f(p - q)    subject to    W (p + q) ≤ b,    p, q ≥ 0,    p - q in the rest of the set

    A minimum without the budgets that keeps to them is the minimum, and its bound a bound. The
    arguments are those of ``minimize``; ``like`` has the shape of the points.
    """
    n = like.shape[-1]
    lifted(over, like)  # where a coordinate is unbounded it says so
    everyone = Samples(torch.ones_like(like[..., 0], dtype=torch.bool))
    rest = part(over, like, everyone, budgets=False)
    first = minimize(f, rest, tol, solver, start=start, max_evaluations=max_evaluations)
    budgets = over.budgets(like)
    assert budgets is not None
    weights, limit = budgets
    left = Samples(((weights @ first.y.abs().unsqueeze(-1)).squeeze(-1) > limit).any(-1))
    if not bool(left.mask.any()):
        return first
    eye = torch.eye(n, dtype=like.dtype, device=like.device)
    within = part(over, like, left, budgets=True)
    second = minimize(
        left.function(f).affine(torch.cat([eye, -eye], -1)),
        lifted(within, left.take(like)),
        tol,
        solver,
        max_evaluations=max_evaluations,
    )
    second = replace(
        second,
        y=lowered(second.y),
        evaluations=second.evaluations + left.take(first.evaluations),
    )
    return Solution(**{k: left.put(t, getattr(first, k)) for k, t in vars(second).items()})

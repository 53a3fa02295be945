"""Absolute values as the sum of two parts: y = p - q, |y| = p + q."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from icnn_rl.sets.box import Box
from icnn_rl.sets.convex_set import ConvexSet
from icnn_rl.sets.polytope import Polytope


def lifted(over: ConvexSet, like: Tensor) -> ConvexSet:
    """A set of points (p, q) ≥ 0 whose images p - q are those of a set with budgets.

        W (p + q) ≤ b,    A (p - q) ≤ b',    E (p - q) = d,    and bounds of p and q

    The bounds force nothing: p = max(y, 0) and q = max(-y, 0) keep to them for every y of the set.

    Args:
        over: a set without balls.
        like: points of it, shape ``(*batch, n)``.

    Raises:
        ValueError: a coordinate is not bounded.
    """
    lower, upper = over.bounds(like)
    if not bool((upper - lower).isfinite().all()):
        raise ValueError("over: a weight of 0 leaves a coordinate unbounded; add a Box to the set")
    box = Box(
        torch.cat([lower, -upper], -1).clamp(min=0), torch.cat([upper, -lower], -1).clamp(min=0)
    )
    budgets, inequalities = over.budgets(like), over.inequalities(like)
    equations = over.equations(like)
    assert budgets is not None
    polytope = Polytope(torch.cat([budgets[0], budgets[0]], -1), budgets[1])
    if inequalities is None and equations is None:
        return box & polytope
    A, b = inequalities or (None, None)
    E, d = equations or (None, None)
    signed = [None if M is None else torch.cat([M, -M], -1) for M in (A, E)]
    return box & polytope & Polytope(signed[0], b, signed[1], d)


def lowered(u: Tensor) -> Tensor:
    """y of points u = (p, q)."""
    p, q = u.chunk(2, -1)
    return p - q


def nearest(over: ConvexSet, y: Tensor) -> Tensor:
    """The point nearest to y of a set with budgets, without balls."""
    from icnn_rl.kernels.polyhedron import Polyhedron

    n = y.shape[-1]
    polyhedron = Polyhedron.of(lifted(over, y), torch.cat([y, y], -1))
    flat = y.detach().reshape(-1, n).cpu().double().numpy()
    u = polyhedron.nearest_image(flat, np.concatenate([np.eye(n), -np.eye(n)], 1))
    return lowered(torch.as_tensor(u, device=y.device)).to(y.dtype).view_as(y)

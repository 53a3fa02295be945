"""Empty sets, made just large enough to hold a point."""

from __future__ import annotations

import torch
from torch import Tensor

from icnn_rl.sets.box import Box
from icnn_rl.sets.convex_set import ConvexSet
from icnn_rl.sets.polyhedral_set import PolyhedralSet
from icnn_rl.sets.polytope import Polytope


def relaxed(over: PolyhedralSet, like: Tensor) -> ConvexSet:
    """The set, made just large enough to hold the point of ``interior`` where it is empty."""
    point, empty = over.interior(like)
    column, empty = point.unsqueeze(-1), empty.unsqueeze(-1)
    rows: list[Tensor | None] = []
    for constraint, slack in ((over.inequalities(like), 1.0), (over.equations(like), 0.0)):
        if constraint is None:
            rows += [None, None]
        else:
            matrix, right = constraint
            rows += [matrix, torch.where(empty, (matrix @ column).squeeze(-1) + slack, right)]
    lower, upper = over.bounds(like)
    box = Box(lower, upper) if bool((upper - lower).isfinite().all()) else None
    if rows[0] is None and rows[2] is None:
        return box or over
    return Polytope(*rows) if box is None else box & Polytope(*rows)

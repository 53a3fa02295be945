"""Bounds that follow from inequalities and equations."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icnn_rl.sets.convex_set import Constraint

Array = npt.NDArray[np.float64]

SLACK = 1e-6  # relative widening of a bound
EXACT = 1e-12  # relative error that the combination of rows which makes a bound may have


def implied_bounds(
    lower: Tensor, upper: Tensor, inequalities: Constraint | None, equations: Constraint | None
) -> tuple[Tensor, Tensor]:
    """Fill in bounds that are infinite with what the other constraints imply.

        yᵢ = (Aᵀμ + Eᵀν)ᵀy ≤ μᵀb + νᵀd,      μ ≥ 0,  Aᵀμ + Eᵀν = eᵢ

    Multipliers depend on the matrices alone, so one linear program a bound serves a whole batch
    and is remembered; they are valid, not always the tightest. Where there are none the set is
    unbounded, if not empty.

    Args:
        lower, upper: shape ``(*batch, n)``.
        inequalities: A and b of A y ≤ b.
        equations: E and d of E y = d.

    Returns:
        Bounds of shape ``(*batch, n)``; lower ≤ upper also where they contradict each other.
    """
    known = lower.isfinite() & upper.isfinite()
    if bool(known.all()):
        return lower, torch.maximum(lower, upper)
    batch, n = lower.shape[:-1], lower.shape[-1]
    size = batch.numel()

    def flat(t: Tensor, *trailing: int) -> Array:
        return t.expand(*batch, *trailing).reshape(size, *trailing).detach().cpu().double().numpy()

    low, high = flat(lower, n), flat(upper, n)
    bounded = np.isfinite(low).all(0) & np.isfinite(high).all(0)
    axes = np.eye(n)[bounded]
    shared = all(c is None or c[0].dim() == 2 for c in (inequalities, equations))
    matrices = []
    rights = []
    for constraint in (inequalities, equations):
        matrix, right = (
            (lower.new_zeros(0, n), lower.new_zeros(0)) if constraint is None else constraint
        )
        matrices.append(flat(matrix, matrix.shape[-2], n)[: 1 if shared else size])
        rights.append(flat(right, right.shape[-1]))
    b = np.concatenate([rights[0], high[:, bounded], -low[:, bounded]], -1)
    d = rights[1]
    for start, (A, E) in enumerate(zip(*matrices, strict=True)):
        rows = slice(None) if shared else slice(start, start + 1)
        A = np.concatenate([A, axes, -axes])
        for i in np.flatnonzero(~bounded):
            for side, sign in ((high, 1.0), (low, -1.0)):
                found = _multipliers(A.tobytes(), E.tobytes(), n, int(i), sign)
                if found is not None:
                    mu, nu = found
                    bound = b[rows] @ mu + d[rows] @ nu
                    bound += SLACK * (1 + np.abs(b[rows]) @ mu + np.abs(d[rows]) @ np.abs(nu))
                    tighter = np.minimum if sign > 0 else np.maximum
                    side[rows, i] = tighter(side[rows, i], sign * bound)
    filled_low, filled_high = (torch.as_tensor(t).to(lower).view_as(lower) for t in (low, high))
    return filled_low, torch.maximum(filled_low, filled_high)


@lru_cache(maxsize=4096)
def _multipliers(
    A_bytes: bytes, E_bytes: bytes, n: int, i: int, sign: float
) -> tuple[Array, Array] | None:
    """μ ≥ 0 and ν with Aᵀμ + Eᵀν = ±eᵢ, short ones; None if there are none."""
    from scipy.optimize import linprog

    A, E = (np.frombuffer(t).reshape(-1, n) for t in (A_bytes, E_bytes))
    rows = np.concatenate([A, E, -E])
    lengths = np.linalg.norm(rows, axis=1)
    lengths[lengths == 0] = 1.0
    target = sign * np.eye(n)[i]
    result = linprog(np.ones(len(rows)), A_eq=(rows / lengths[:, None]).T, b_eq=target)
    if result.status != 0:
        return None
    weights = result.x / lengths
    # What HiGHS takes for zero may be much where the other coordinates are large.
    if (np.abs(weights @ rows - target) > EXACT * (weights @ np.abs(rows))).any():
        return None
    mu, up, down = np.split(weights, [len(A), len(A) + len(E)])
    return mu, up - down

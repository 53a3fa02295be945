"""Bounds that follow from inequalities and equations."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BOUND_SLACK = 1e-6  # relative
COMBINATION_TOLERANCE = 1e-12  # relative error of a combination of rows


def fill_bounds(
    lower: Array, upper: Array, A_ub: Array, b_ub: Array, A_eq: Array, b_eq: Array
) -> None:
    """Replace bounds that are infinite by what the other constraints imply, in place.

        yᵢ = (A_ubᵀμ + A_eqᵀν)ᵀy ≤ μᵀb_ub + νᵀb_eq,      μ ≥ 0,  A_ubᵀμ + A_eqᵀν = eᵢ

    Multipliers depend on the matrices alone, so one linear program a bound serves a whole batch
    and is remembered; they are valid, not always the tightest. Where there are none the set is
    unbounded, if not empty.

    Args:
        lower, upper: shape ``(size, n)``.
        A_ub, A_eq: rows of length one, shapes ``(size, r, n)`` and ``(size, q, n)``, or a first
            axis of one for all samples.
        b_ub, b_eq: shapes ``(size, r)`` and ``(size, q)``.
    """
    n = lower.shape[-1]
    bounded = (np.isfinite(lower) & np.isfinite(upper)).all(0)
    axes = np.eye(n)[bounded]
    b = np.concatenate([b_ub, upper[:, bounded], -lower[:, bounded]], -1)
    shared = len(A_ub) == len(A_eq) == 1
    for k in range(1 if shared else len(lower)):
        rows = slice(None) if shared else slice(k, k + 1)
        A = np.concatenate([A_ub[k % len(A_ub)], axes, -axes])
        E = A_eq[k % len(A_eq)]
        for i in np.flatnonzero(~bounded):
            for side, sign in ((upper, 1.0), (lower, -1.0)):
                found = _multipliers(A.tobytes(), E.tobytes(), n, int(i), sign)
                if found is not None:
                    mu, nu = found
                    bound = b[rows] @ mu + b_eq[rows] @ nu
                    bound += BOUND_SLACK * (
                        1 + np.abs(b[rows]) @ mu + np.abs(b_eq[rows]) @ np.abs(nu)
                    )
                    tighter = np.minimum if sign > 0 else np.maximum
                    side[rows, i] = tighter(side[rows, i], sign * bound)


@lru_cache(maxsize=4096)
def _multipliers(
    A_bytes: bytes, E_bytes: bytes, n: int, i: int, sign: float
) -> tuple[Array, Array] | None:
    """μ ≥ 0 and ν with Aᵀμ + Eᵀν = ±eᵢ, short ones; None if there are none."""
    from scipy.optimize import linprog

    A, E = (np.frombuffer(t).reshape(-1, n) for t in (A_bytes, E_bytes))
    rows = np.concatenate([A, E, -E])
    target = sign * np.eye(n)[i]
    result = linprog(np.ones(len(rows)), A_eq=rows.T, b_eq=target)
    if result.status != 0:
        return None
    # What HiGHS takes for zero may be much where the other coordinates are large.
    if (np.abs(result.x @ rows - target) > COMBINATION_TOLERANCE * (result.x @ np.abs(rows))).any():
        return None
    mu, up, down = np.split(result.x, [len(A), len(A) + len(E)])
    return mu, up - down

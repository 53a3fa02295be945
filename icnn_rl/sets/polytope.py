"""Polyhedra given by their inequalities and equations."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from icnn_rl.sets.canonical import CanonicalSet
from icnn_rl.sets.convex_set import ConvexSet


@final
class Polytope(ConvexSet):
    """{ y : A_ub y ≤ b_ub,  A_eq y = b_eq }.

    Matrices and right-hand sides may differ from sample to sample. Give bounds that are known as a
    box, ``Box(lower, upper) & Polytope(A, b)``: bounds are cheaper than rows, and without them
    one linear program a bound is solved to find some. Solvers take the numbers rounded to the
    precision of f.

    Args:
        A_ub: shape ``(r, n)`` or ``(*batch, r, n)``.
        b_ub: shape ``(r,)`` or ``(*batch, r)``.
        A_eq: shape ``(q, n)`` or ``(*batch, q, n)``, of full row rank.
        b_eq: shape ``(q,)`` or ``(*batch, q)``.

    Raises:
        ValueError: a matrix comes without its right-hand side, shapes do not fit each other, an
            entry is not finite, or nothing is given.
    """

    def __init__(
        self,
        A_ub: Tensor | None = None,
        b_ub: Tensor | None = None,
        A_eq: Tensor | None = None,
        b_eq: Tensor | None = None,
    ) -> None:
        if A_ub is None and A_eq is None:
            raise ValueError("A_ub, A_eq: expected inequalities, equations or both, got neither")
        self._inequalities = _checked("ub", A_ub, b_ub)
        self._equations = _checked("eq", A_eq, b_eq)

    def __repr__(self) -> str:
        pairs = (("A_ub, b_ub", self._inequalities), ("A_eq, b_eq", self._equations))
        shapes = [
            f"{names}: {tuple(matrix.shape)}, {tuple(right.shape)}"
            for names, (matrix, right) in pairs
            if matrix is not None and right is not None
        ]
        return f"Polytope({'; '.join(shapes)})"

    def canonical(self, like: Tensor) -> CanonicalSet:
        (A_ub, b_ub), (A_eq, b_eq) = self._inequalities, self._equations
        return CanonicalSet.of(like, A_ub=A_ub, b_ub=b_ub, A_eq=A_eq, b_eq=b_eq)


def _checked(
    kind: str, matrix: Tensor | None, right: Tensor | None
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    A, b = f"A_{kind}", f"b_{kind}"
    if matrix is None and right is None:
        return None, None
    if matrix is None or right is None:
        raise ValueError(f"{A}, {b}: expected both or neither, got one")
    matrix, right = torch.as_tensor(matrix), torch.as_tensor(right)
    if matrix.dim() < 2 or right.dim() < 1 or matrix.shape[-2] != right.shape[-1]:
        raise ValueError(
            f"{A}, {b}: expected shapes (*batch, rows, n) and (*batch, rows), "
            f"got {tuple(matrix.shape)} and {tuple(right.shape)}"
        )
    for name, t in ((A, matrix), (b, right)):
        if not bool(t.isfinite().all()):
            raise ValueError(f"{name}: expected finite entries, got NaN or infinity")
    return matrix, right

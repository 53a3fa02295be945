"""Polyhedra given by their inequalities and equations."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from icnn_rl.sets.convex_set import Constraint
from icnn_rl.sets.fitting import fitted
from icnn_rl.sets.implied_bounds import implied_bounds
from icnn_rl.sets.polyhedral_set import PolyhedralSet


@final
class Polytope(PolyhedralSet):
    """{ y : A y ≤ b,  E y = d }.

    Matrices and right-hand sides may differ from sample to sample. A box that is known should be
    said as one, ``Box(lower, upper) & Polytope(A, b)``: bounds are cheaper than rows, and without
    them one linear program a bound is solved to find some.

    Args:
        A: shape ``(r, n)`` or ``(*batch, r, n)``.
        b: shape ``(r,)`` or ``(*batch, r)``.
        E: shape ``(q, n)`` or ``(*batch, q, n)``, of full row rank.
        d: shape ``(q,)`` or ``(*batch, q)``.

    Raises:
        ValueError: a matrix comes without its right-hand side, shapes do not fit each other, an
            entry is not finite, or nothing is given.
    """

    def __init__(
        self,
        A: Tensor | None = None,
        b: Tensor | None = None,
        E: Tensor | None = None,
        d: Tensor | None = None,
    ) -> None:
        if A is None and E is None:
            raise ValueError("A, E: expected inequalities, equations or both, got neither")
        self._inequalities = _checked("A", A, "b", b)
        self._equations = _checked("E", E, "d", d)

    def __repr__(self) -> str:
        shapes = [
            f"{names}: {tuple(matrix.shape)}, {tuple(right.shape)}"
            for names, constraint in (("A, b", self._inequalities), ("E, d", self._equations))
            if constraint is not None
            for matrix, right in (constraint,)
        ]
        return f"Polytope({'; '.join(shapes)})"

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        upper = torch.full_like(like, torch.inf)
        return implied_bounds(-upper, upper, self.inequalities(like), self.equations(like))

    def own_bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if all(c is None or c[0].dim() == 2 for c in (self._inequalities, self._equations)):
            return self.bounds(like)  # the same linear programs for all samples, and remembered
        upper = torch.full_like(like, torch.inf)
        return -upper, upper

    def inequalities(self, like: Tensor) -> Constraint | None:
        return _fitted(self._inequalities, "A", "b", like)

    def equations(self, like: Tensor) -> Constraint | None:
        return _fitted(self._equations, "E", "d", like)


def _checked(
    name: str, matrix: Tensor | None, right_name: str, right: Tensor | None
) -> Constraint | None:
    if matrix is None and right is None:
        return None
    if matrix is None or right is None:
        raise ValueError(f"{name}, {right_name}: expected both or neither, got one")
    matrix, right = torch.as_tensor(matrix), torch.as_tensor(right)
    if matrix.dim() < 2 or right.dim() < 1 or matrix.shape[-2] != right.shape[-1]:
        raise ValueError(
            f"{name}, {right_name}: expected shapes (*batch, rows, n) and (*batch, rows), "
            f"got {tuple(matrix.shape)} and {tuple(right.shape)}"
        )
    for t_name, t in ((name, matrix), (right_name, right)):
        if not bool(t.isfinite().all()):
            raise ValueError(f"{t_name}: expected finite entries, got NaN or infinity")
    return matrix, right


def _fitted(
    constraint: Constraint | None, name: str, right_name: str, like: Tensor
) -> Constraint | None:
    """The constraint in the precision of ``like``, once it fits its batch and dimension."""
    if constraint is None:
        return None
    matrix, right = constraint
    batch, rows, n = like.shape[:-1], matrix.shape[-2], like.shape[-1]
    matrix, right = matrix.to(like), right.to(like)
    fitted(name, matrix, (*batch, rows, n), like)
    fitted(right_name, right, (*batch, rows), like)
    return matrix, right  # as given: one for all samples is a cheaper problem

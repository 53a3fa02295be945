"""Polyhedra given by their inequalities and equations, and products of simplices."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from icnn_rl.sets.batches import batch_of
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

    @property
    def batch_shape(self) -> torch.Size:
        pairs = self._inequalities, self._equations
        return batch_of(
            *((t, axes) for pair in pairs for t, axes in zip(pair, (2, 1), strict=True))
        )

    def canonical(self, like: Tensor) -> CanonicalSet:
        (A_ub, b_ub), (A_eq, b_eq) = self._inequalities, self._equations
        return CanonicalSet.of(like, A_ub=A_ub, b_ub=b_ub, A_eq=A_eq, b_eq=b_eq)


class _Blocks(ConvexSet):
    """Blocks of y are ≥ 0 and sum to one each."""

    closed_form: ClassVar[bool] = True

    @abstractmethod
    def _split(self, y: Tensor) -> tuple[Tensor, ...]:
        """The blocks of y, each a view of some of its last axis."""

    def canonical(self, like: Tensor) -> CanonicalSet:
        blocks = self._split(like)
        # A block of one is fixed; its bounds are wide, so that interior points exist.
        upper = torch.cat([torch.full_like(t, 1.0 if t.shape[-1] > 1 else 2.0) for t in blocks], -1)
        return CanonicalSet.of(
            like,
            lower=0.0,
            implied=(torch.full_like(like, -torch.inf), upper),
            A_eq=torch.block_diag(*(like.new_ones(1, t.shape[-1]) for t in blocks)),
            b_eq=like.new_ones(len(blocks)),
        )

    def support(self, c: Tensor) -> Tensor:
        return torch.stack([block.amax(-1) for block in self._split(c)]).sum(0)

    def project(self, y: Tensor) -> Tensor:
        return torch.cat([_nearest_in_simplex(block) for block in self._split(y)], -1)

    def interior_point(self, like: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.cat([torch.full_like(t, 1 / t.shape[-1]) for t in self._split(like)], -1)
        return y, like.new_zeros(like.shape[:-1], dtype=torch.bool)


@final
@dataclass(frozen=True, eq=False)
class Simplex(_Blocks):
    """The probability simplex { y : y ≥ 0, Σᵢ yᵢ = 1 }."""

    def _split(self, y: Tensor) -> tuple[Tensor, ...]:
        return (y,)


@final
@dataclass(frozen=True, eq=False)
class Simplices(_Blocks):
    """A product of probability simplices: y is cut into blocks, each of which sums to one.

    Args:
        sizes: lengths of the blocks; their sum is n.

    Raises:
        ValueError: there is no block, or one is empty.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if min(self.sizes, default=0) < 1:
            raise ValueError(f"sizes: expected at least one block of length >= 1, got {self.sizes}")

    def _split(self, y: Tensor) -> tuple[Tensor, ...]:
        if y.shape[-1] != sum(self.sizes):
            raise ValueError(
                f"sizes: expected blocks that sum to {y.shape[-1]}, the dimension; got {self.sizes}"
            )
        return torch.split(y, list(self.sizes), -1)


def _nearest_in_simplex(y: Tensor) -> Tensor:
    """The nearest point of a simplex: sort, find the threshold, cut.

    Source: Held, Wolfe & Crowder, "Validation of subgradient optimization", 1974.
    """
    y = y - y.amax(-1, keepdim=True)  # changes nothing but the rounding: entries may be huge
    ordered = y.sort(-1, descending=True).values
    count = torch.arange(1, y.shape[-1] + 1, dtype=y.dtype, device=y.device)
    threshold = (ordered.cumsum(-1) - 1) / count
    positive = (ordered > threshold).sum(-1, keepdim=True)
    return (y - threshold.gather(-1, positive - 1)).clamp_(min=0)


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

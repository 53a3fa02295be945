"""A convex piecewise-linear function written as a linear program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

if TYPE_CHECKING:  # loaded where a program is made: networks alone do not need it
    import scipy.sparse as sp

Array = npt.NDArray[np.float64]

AffineMap: TypeAlias = "tuple[sp.csr_array | None, sp.csr_array | None, Array | float]"
"""Matrices for y and for the layer below, None for zero, and an offset."""


def to_array(t: Tensor) -> Array:
    """A tensor as float64 numbers on the CPU."""
    return t.detach().cpu().double().numpy()


@dataclass(frozen=True)
class LinearProgram:
    """f(y) = min { cᵀv + constant : A v ≤ b, v = (y, w) } with free auxiliaries w.

    Attributes:
        dim: n, the length of y.
        c: objective, shape ``(n + m,)``.
        A: constraints, sparse, shape ``(rows, n + m)``. Each row bounds one auxiliary from below by
            auxiliaries before it, 0 ≥ … - wⱼ, with its last entry, which is -1; c and the other
            entries for auxiliaries are ≥ 0.
        b: right-hand sides, shape ``(rows,)``.
        constant: added to the objective.
    """

    dim: int
    c: Array
    A: sp.csr_array
    b: Array
    constant: float = 0.0

    @classmethod
    def linear(cls, c: Array) -> LinearProgram:
        """f(y) = cᵀy."""
        import scipy.sparse as sp

        return cls(len(c), c, sp.csr_array((0, len(c))), np.zeros(0))

    @classmethod
    def network(
        cls, dim: int, layers: Sequence[Sequence[AffineMap]], output: AffineMap
    ) -> LinearProgram:
        """A chain of layers, each the maximum of affine maps of y and of the layer below.

        Each unit is one auxiliary z ≥ every map. As f is non-decreasing in z, one of them is tight
        at the minimum.

        Args:
            dim: n, the length of y.
            layers: maps of the hidden layers, the first ones of y alone.
            output: f as a map of y and the last layer, with one row.
        """
        import scipy.sparse as sp

        blocks: list[list[sp.csr_array | None]] = []
        right: list[Array] = []
        for k, maps in enumerate(layers):
            for of_y, of_z, offset in maps:
                (height,) = {m.shape[0] for m in (of_y, of_z) if m is not None}
                row: list[sp.csr_array | None] = [None] * (len(layers) + 1)
                row[k], row[0] = of_z, of_y
                row[k + 1] = -sp.eye_array(height)
                blocks.append(row)
                right.append(np.broadcast_to(-np.asarray(offset), height))
        A = sp.block_array(blocks, format="csr")
        A.eliminate_zeros()
        c = np.zeros(A.shape[1])
        of_y, of_z, offset = output
        if of_z is not None:
            c[-of_z.shape[1] :] = of_z.toarray()[0]
        if of_y is not None:
            c[:dim] = of_y.toarray()[0]
        return cls(dim, c, A, np.concatenate(right), float(np.sum(offset)))

    @classmethod
    def total(cls, parts: Sequence[LinearProgram]) -> LinearProgram:
        """The sum of functions of the same y."""
        import scipy.sparse as sp

        n = parts[0].dim
        y_columns = sp.vstack([p.A[:, :n] for p in parts])
        auxiliaries = sp.block_diag([p.A[:, n:] for p in parts])
        return cls(
            n,
            np.concatenate([sum(p.c[:n] for p in parts), *(p.c[n:] for p in parts)]),
            sp.csr_array(sp.hstack([y_columns, auxiliaries])),
            np.concatenate([p.b for p in parts]),
            sum(p.constant for p in parts),
        )

    @classmethod
    def maximum(cls, parts: Sequence[LinearProgram]) -> LinearProgram:
        """The pointwise maximum: one more auxiliary t, with every part ≤ t."""
        import scipy.sparse as sp

        n = parts[0].dim
        zero = cls.total([replace(p, c=np.zeros_like(p.c), constant=0.0) for p in parts])
        ends = np.cumsum([n] + [len(p.c) - n for p in parts])
        below = np.zeros((len(parts), len(zero.c) + 1))
        for row, part, start, end in zip(below, parts, ends[:-1], ends[1:], strict=True):
            row[:n], row[start:end], row[-1] = part.c[:n], part.c[n:], -1.0
        A = sp.hstack([zero.A, sp.csr_array((zero.A.shape[0], 1))])
        return cls(
            n,
            np.append(zero.c, 1.0),
            sp.csr_array(sp.vstack([A, below])),
            np.concatenate([zero.b, [-p.constant for p in parts]]),
        )

    def tangent(self, multipliers: Array) -> tuple[float, Array, Array]:
        """An affine function below f, from approximate multipliers of the constraints.

        For any μ ≥ 0 with c_w + A_wᵀμ = 0, duality gives f(y) ≥ constant - bᵀμ + (c_y + A_yᵀμ)ᵀy.
        The rows that bound the same auxiliary share a sum of multipliers, which follows from the
        equation, as that is triangular. Only the shares are taken from the caller, so the result
        holds for inexact multipliers too.

        Args:
            multipliers: shape ``(rows,)``, nearly ≥ 0.

        Returns:
            The offset; the slope, shape ``(n,)``; and sums of the absolute values of the terms in
            the slope and, last, the offset, shape ``(n + 1,)``, for bounds on rounding errors.
        """
        import scipy.sparse as sp
        from scipy.sparse.linalg import spsolve_triangular

        rows, auxiliaries = len(self.b), len(self.c) - self.dim
        of_y, of_w = self.A[:, : self.dim], self.A[:, self.dim :]
        owner = of_w.indices[of_w.indptr[1:] - 1]
        share = np.maximum(multipliers, 1e-300)  # equal shares where all are zero
        share /= np.bincount(owner, share, auxiliaries)[owner]
        spread = sp.csr_array((share, (np.arange(rows), owner)), shape=(rows, auxiliaries))
        total = spsolve_triangular(-(of_w.T @ spread).tocsr(), self.c[self.dim :], lower=False)
        mu = spread @ total
        size = np.append(
            np.abs(self.c[: self.dim]) + np.abs(of_y).T @ mu,
            abs(self.constant) + np.abs(self.b) @ mu,
        )
        return self.constant - float(self.b @ mu), self.c[: self.dim] + of_y.T @ mu, size

    def scaled(self, factor: float) -> LinearProgram:
        """factor · f, for factor ≥ 0."""
        return replace(self, c=factor * self.c, constant=factor * self.constant)

    def substituted(self, A: Array, b: Array) -> LinearProgram:
        """u ↦ f(A u + b)."""
        import scipy.sparse as sp

        n = self.dim
        y_columns = self.A[:, :n]
        return LinearProgram(
            A.shape[1],
            np.concatenate([self.c[:n] @ A, self.c[n:]]),
            sp.csr_array(sp.hstack([y_columns @ A, self.A[:, n:]])),
            self.b - y_columns @ b,
            self.constant + float(self.c[:n] @ b),
        )

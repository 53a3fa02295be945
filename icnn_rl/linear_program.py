"""A convex piecewise-linear function written as a linear program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearProgram:
    """f(y) = min { cᵀv + constant : A v ≤ b, v = (y, w) } with free auxiliaries w.

    Attributes:
        dim: n, the length of y.
        c: objective, shape ``(n + m,)``.
        A: constraints, sparse, shape ``(rows, n + m)``.
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
        return cls(len(c), c, sp.csr_array((0, len(c))), np.zeros(0))

    @classmethod
    def total(cls, parts: Sequence[LinearProgram]) -> LinearProgram:
        """The sum of functions of the same y."""
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
        n = parts[0].dim
        silent = [replace(p, c=np.zeros_like(p.c), constant=0.0) for p in parts]
        both = cls.total(silent)
        ends = np.cumsum([n] + [len(p.c) - n for p in parts])
        below = np.zeros((len(parts), len(both.c) + 1))
        for row, part, start, end in zip(below, parts, ends[:-1], ends[1:], strict=True):
            row[:n], row[start:end], row[-1] = part.c[:n], part.c[n:], -1.0
        A = sp.hstack([both.A, sp.csr_array((both.A.shape[0], 1))])
        return cls(
            n,
            np.append(both.c, 1.0),
            sp.csr_array(sp.vstack([A, below])),
            np.concatenate([both.b, [-p.constant for p in parts]]),
        )

    def plus(self, other: LinearProgram) -> LinearProgram:
        """f + g."""
        return LinearProgram.total([self, other])

    def scaled(self, factor: float) -> LinearProgram:
        """factor · f, for factor ≥ 0."""
        return replace(self, c=factor * self.c, constant=factor * self.constant)

    def substituted(self, A: Array, b: Array) -> LinearProgram:
        """u ↦ f(A u + b)."""
        n = self.dim
        y_columns = self.A[:, :n]
        return LinearProgram(
            A.shape[1],
            np.concatenate([self.c[:n] @ A, self.c[n:]]),
            sp.csr_array(sp.hstack([y_columns @ A, self.A[:, n:]])),
            self.b - y_columns @ b,
            self.constant + float(self.c[:n] @ b),
        )

    def fixed(self, mask: npt.NDArray[np.bool_], values: Array) -> LinearProgram:
        """f with the entries of y under ``mask`` held at ``values``; y keeps its length."""
        return self.substituted(np.diag((~mask).astype(float)), np.where(mask, values, 0.0))

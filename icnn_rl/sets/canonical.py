"""The one form in which solvers, adjoints and samplers read a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icnn_rl.sets._curved import BallConstraint, nearest_in_l1_ball
from icnn_rl.sets._implied_bounds import fill_bounds
from icnn_rl.sets.convex_set import ConvexSet

if TYPE_CHECKING:
    from icnn_rl.kernels.polyhedron import Polyhedron  # it loads numba

Array = npt.NDArray[np.float64]
Bounds = tuple[Tensor, Tensor]


@final
@dataclass(frozen=True, eq=False, repr=False)
class CanonicalSet(ConvexSet):
    """{ y : lower ≤ y ≤ upper,  A_ub y ≤ b_ub,  A_eq y = b_eq,  W |y| ≤ r,  y in some balls }.

    Everything is in float64, after rounding to the precision of the points, and keeps its autograd
    graph. Rows of the matrices A have length one. A matrix is of shape ``(rows, n)`` where all
    samples share it, else ``(*batch, rows, n)``.

    Attributes:
        lower, upper: bounds that are constraints of their own, shape ``(*batch, n)``; infinite
            where there are none. A coordinate has both or neither, also counting ``implied``.
        implied: lower and upper bounds that are known to follow from the other constraints,
            likewise.
        A_ub, b_ub: inequalities; ``b_ub`` has shape ``(*batch, r)``.
        A_eq, b_eq: equations, likewise.
        l1_weights, l1_radius: W ≥ 0 and r of weighted ℓ1 balls, likewise.
        balls: balls of the Euclidean norm.
    """

    lower: Tensor
    upper: Tensor
    implied: Bounds
    A_ub: Tensor
    b_ub: Tensor
    A_eq: Tensor
    b_eq: Tensor
    l1_weights: Tensor
    l1_radius: Tensor
    balls: tuple[BallConstraint, ...] = ()

    @classmethod
    def of(
        cls,
        like: Tensor,
        lower: float | Tensor = -torch.inf,
        upper: float | Tensor = torch.inf,
        *,
        implied: Bounds | None = None,
        A_ub: Tensor | None = None,
        b_ub: Tensor | None = None,
        A_eq: Tensor | None = None,
        b_eq: Tensor | None = None,
        l1_weights: Tensor | None = None,
        l1_radius: Tensor | None = None,
        balls: Sequence[BallConstraint] = (),
    ) -> CanonicalSet:
        """The constraints given, for points of the shape of ``like``, ``(*batch, n)``.

        Raises:
            ValueError: one of them does not fit these points.
        """

        def bound(name: str, t: float | Tensor) -> Tensor:
            return broadcast(name, t, like.shape, like).double()

        def rows(kind: str, matrix: Tensor | None, right: Tensor | None) -> tuple[Tensor, Tensor]:
            if matrix is None or right is None:
                none = like.new_zeros(*like.shape[:-1], 0, dtype=torch.float64)
                return none.new_zeros(0, like.shape[-1]), none
            count = matrix.shape[-2]
            full = broadcast(f"A_{kind}", matrix, (*like.shape[:-1], count, like.shape[-1]), like)
            right = broadcast(f"b_{kind}", right, (*like.shape[:-1], count), like)
            return (full if matrix.dim() > 2 else matrix.to(like)).double(), right.double()

        low, high = implied or (-torch.inf, torch.inf)
        return cls(
            bound("lower", lower),
            bound("upper", upper),
            (bound("lower", low), bound("upper", high)),
            *_unit_rows(*rows("ub", A_ub, b_ub)),
            *_unit_rows(*rows("eq", A_eq, b_eq)),
            *rows("l1", l1_weights, l1_radius),
            tuple(BallConstraint(*(t.double() for t in ball)) for ball in balls),
        )

    def __repr__(self) -> str:
        counts = {
            "inequalities": self.b_ub.shape[-1],
            "equations": self.b_eq.shape[-1],
            "l1 balls": self.l1_radius.shape[-1],
            "balls": len(self.balls),
        }
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        return f"CanonicalSet({', '.join(['bounds', *parts])})"

    def canonical(self, like: Tensor) -> CanonicalSet:
        if like.shape != self.lower.shape:
            raise ValueError(
                f"over: expected a set for points of shape {tuple(like.shape)}, got one for "
                f"{tuple(self.lower.shape)}"
            )
        return self

    @property
    def has_rows(self) -> bool:
        """Whether there are inequalities or equations."""
        return self.b_ub.shape[-1] + self.b_eq.shape[-1] > 0

    @property
    def has_l1(self) -> bool:
        """Whether there are weighted ℓ1 balls."""
        return self.l1_radius.shape[-1] > 0

    @property
    def known_bounds(self) -> Bounds:
        """Bounds of both kinds, without a linear program; they may contradict each other."""
        lower, upper = self.implied
        return torch.maximum(self.lower, lower), torch.minimum(self.upper, upper)

    @cached_property
    def bounds_implied(self) -> None: ...

    def meet(self, other: CanonicalSet) -> CanonicalSet:
        """The intersection with another set for the same points."""
        (low, high), (lower, upper) = self.implied, other.implied
        return CanonicalSet(
            torch.maximum(self.lower, other.lower),
            torch.minimum(self.upper, other.upper),
            (torch.maximum(low, lower), torch.minimum(high, upper)),
            *_stacked(self.A_ub, self.b_ub, other.A_ub, other.b_ub),
            *_stacked(self.A_eq, self.b_eq, other.A_eq, other.b_eq),
            *_stacked(self.l1_weights, self.l1_radius, other.l1_weights, other.l1_radius),
            self.balls + other.balls,
        )

"""A set as the optimality conditions want it: bounds and rows, with the graph they came with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from icnn_rl.sets import ConvexSet, Euclidean, Intersection, Polytope, Simplex, Simplices


@dataclass(frozen=True)
class Constraints:
    """{ y : lower ≤ y ≤ upper,  C y ≤ right },  with equality in some rows.

    Rows of C have length one. Everything is float64 and keeps its autograd graph, so that y* is
    differentiable with respect to the set as well.

    Attributes:
        lower, upper: shape ``(*batch, n)``; infinite where there are none.
        C: shape ``(*batch, rows, n)``.
        right: shape ``(*batch, rows)``.
        equation: which rows hold with equality, shape ``(rows,)``.
    """

    lower: Tensor
    upper: Tensor
    C: Tensor
    right: Tensor
    equation: Tensor

    @classmethod
    def of(cls, over: ConvexSet, like: Tensor) -> Self:
        """The set for points of the shape of ``like``, ``(*batch, n)``.

        Raises:
            TypeError: the set is curved.
        """
        if over.balls or over.budgets(like) is not None:
            raise TypeError(f"over: expected a set without balls, got {over}")
        like = like.double()
        batch, n = like.shape[:-1], like.shape[-1]
        rows, rights = [like.new_zeros(*batch, 0, n)], [like.new_zeros(*batch, 0)]
        equation = []
        for constraint, equal in ((over.inequalities(like), False), (over.equations(like), True)):
            if constraint is not None:
                rows.append(constraint[0].expand(*batch, -1, -1))
                rights.append(constraint[1].expand(*batch, -1))
                equation += [equal] * constraint[1].shape[-1]
        C = torch.cat(rows, -2)
        length = torch.linalg.vector_norm(C.detach(), dim=-1)
        length = torch.where(length > 0, length, 1.0)
        lower, upper = _own_bounds(over, like)
        return cls(
            lower,
            upper,
            C / length.unsqueeze(-1),
            torch.cat(rights, -1) / length,
            torch.tensor(equation, dtype=torch.bool, device=like.device),
        )

    def detach(self) -> Constraints:
        """The same numbers without their graph."""
        lower, upper, C, right = (t.detach() for t in self._data)
        return Constraints(lower, upper, C, right, self.equation)

    def take(self, samples: Tensor) -> Constraints:
        """Those of the samples where a mask of shape ``batch`` is True, as one batch axis."""
        lower, upper, C, right = (t[samples] for t in self._data)
        return Constraints(lower, upper, C, right, self.equation)

    @property
    def differentiable(self) -> bool:
        """Whether a gradient with respect to the set is asked for."""
        return any(t.requires_grad for t in self._data)

    @property
    def _data(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.lower, self.upper, self.C, self.right


def _own_bounds(over: ConvexSet, like: Tensor) -> tuple[Tensor, Tensor]:
    """The bounds that are constraints of their own and do not follow from the rows.

    Where two constraints say the same, their multipliers are not unique, and the gradient would go
    in part to the one that is not among the set's data.
    """
    infinite = torch.full_like(like, torch.inf)
    match over:
        case Simplex() | Simplices():
            return torch.zeros_like(like), infinite
        case Polytope() | Euclidean():
            return -infinite, infinite
        case Intersection():
            (low, high), (lower, upper) = (_own_bounds(s, like) for s in (over.left, over.right))
            return torch.maximum(low, lower), torch.minimum(high, upper)
        case _:
            return over.bounds(like)

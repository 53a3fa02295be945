"""Boxes, and the whole space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from icnn_rl.sets.batches import batch_of, broadcast
from icnn_rl.sets.canonical import CanonicalSet
from icnn_rl.sets.convex_set import ConvexSet


@final
@dataclass(frozen=True, eq=False)
class Box(ConvexSet):
    """{ y : lower ≤ y ≤ upper }.

    Args:
        lower: a number, or a tensor of shape ``(n,)`` or ``(*batch, n)``.
        upper: likewise.

    Raises:
        ValueError: a bound is not finite, or lower > upper somewhere.
    """

    closed_form: ClassVar[bool] = True

    lower: float | Tensor
    upper: float | Tensor

    def __post_init__(self) -> None:
        lower, upper = torch.as_tensor(self.lower), torch.as_tensor(self.upper)
        for name, bound in (("lower", lower), ("upper", upper)):
            if not bool(bound.isfinite().all()):
                raise ValueError(f"{name}: expected finite bounds, got {bound.tolist()}")
        if bool((lower > upper).any()):
            raise ValueError(
                f"lower, upper: expected lower <= upper, got {lower.tolist()} and {upper.tolist()}"
            )

    @property
    def batch_shape(self) -> torch.Size:
        return batch_of((self.lower, 1), (self.upper, 1))

    def canonical(self, like: Tensor) -> CanonicalSet:
        return CanonicalSet.of(like, *self.bounds(like))

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lower = broadcast("lower", self.lower, like.shape, like)
        return lower, broadcast("upper", self.upper, like.shape, like)

    def project(self, y: Tensor) -> Tensor:
        lower, upper = self.bounds(y)
        return torch.minimum(torch.maximum(y, lower), upper)

    def interior_point(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.bounds(like)
        return (lower + upper) / 2, like.new_zeros(like.shape[:-1], dtype=torch.bool)


@final
@dataclass(frozen=True, eq=False)
class Euclidean(ConvexSet):
    """All of ℝⁿ; only a strongly convex function is sure to have a minimum there."""

    closed_form: ClassVar[bool] = True

    def canonical(self, like: Tensor) -> CanonicalSet:
        return CanonicalSet.of(like)

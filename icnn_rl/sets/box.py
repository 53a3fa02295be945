"""Boxes: a lower and an upper bound for every coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from icnn_rl.sets.convex_set import ConvexSet
from icnn_rl.sets.fitting import fitted


@final
@dataclass(frozen=True)
class Box(ConvexSet):
    """{ y : lower ≤ y ≤ upper }.

    Args:
        lower: a number, or a tensor of shape ``(n,)`` or ``(*batch, n)``.
        upper: likewise.

    Raises:
        ValueError: a bound is not finite, or lower > upper somewhere.
    """

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

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lower = fitted("lower", self.lower, like.shape, like)
        return lower, fitted("upper", self.upper, like.shape, like)

    def support(self, c: Tensor) -> Tensor:
        lower, upper = self.bounds(c)
        return torch.maximum(c * lower, c * upper).sum(-1)

    def project(self, y: Tensor) -> Tensor:
        lower, upper = self.bounds(y)
        return torch.minimum(torch.maximum(y, lower), upper)

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.bounds(like)
        return (lower + upper) / 2, like.new_zeros(like.shape[:-1], dtype=torch.bool)

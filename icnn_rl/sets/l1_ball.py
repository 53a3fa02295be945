"""Balls of a weighted sum of absolute values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from icnn_rl.sets.convex_set import Constraint, ConvexSet
from icnn_rl.sets.fitting import fitted
from icnn_rl.sets.nearest import nearest_in_budget


@final
@dataclass(frozen=True)
class L1Ball(ConvexSet):
    """{ y : Σᵢ weightsᵢ |yᵢ| ≤ radius }.

    A weight of 0 leaves its coordinate free, and then a ``Box`` has to bound it.

    Args:
        radius: a number ≥ 0, or a tensor of shape ``batch``.
        weights: a number ≥ 0, or a tensor of shape ``(n,)`` or ``(*batch, n)``.

    Raises:
        ValueError: a number is negative or not finite.
    """

    radius: float | Tensor
    weights: float | Tensor = 1.0

    def __post_init__(self) -> None:
        for name, given in (("radius", self.radius), ("weights", self.weights)):
            t = torch.as_tensor(given)
            if not bool(((t >= 0) & t.isfinite()).all()):
                raise ValueError(f"{name}: expected finite numbers >= 0, got {t.tolist()}")

    def _fitted(self, like: Tensor) -> tuple[Tensor, Tensor]:
        radius = fitted("radius", self.radius, like.shape[:-1], like)
        return radius.unsqueeze(-1), fitted("weights", self.weights, like.shape, like)

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        radius, weights = self._fitted(like)
        upper = torch.where(weights > 0, radius / weights, torch.inf)
        return -upper, upper

    def budgets(self, like: Tensor) -> Constraint:
        radius, weights = self._fitted(like)
        return weights.unsqueeze(-2), radius

    def support(self, c: Tensor) -> Tensor:
        _, upper = self.bounds(c)
        return torch.where(c == 0, 0.0, c.abs() * upper).amax(-1)

    def project(self, y: Tensor) -> Tensor:
        radius, weights = self._fitted(y)
        infinite = torch.full_like(y, torch.inf)
        return nearest_in_budget(y, -infinite, infinite, weights, radius)

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        self._fitted(like)
        return torch.zeros_like(like), like.new_zeros(like.shape[:-1], dtype=torch.bool)

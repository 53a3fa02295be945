"""The whole space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from icnn_rl.sets.convex_set import ConvexSet


@final
@dataclass(frozen=True)
class Euclidean(ConvexSet):
    """All of ℝⁿ; only a strongly convex function is sure to have a minimum there."""

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        upper = torch.full_like(like, torch.inf)
        return -upper, upper

    def support(self, c: Tensor) -> Tensor:
        return torch.where((c == 0).all(-1), 0.0, torch.inf).to(c.dtype)

    def project(self, y: Tensor) -> Tensor:
        return y

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(like), like.new_zeros(like.shape[:-1], dtype=torch.bool)

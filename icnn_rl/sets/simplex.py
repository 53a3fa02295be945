"""The probability simplex, and products of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from icnn_rl.sets.convex_set import Constraint, ConvexSet


def _project(y: Tensor) -> Tensor:
    """Sort, find the threshold, cut.

    Source: Held, Wolfe & Crowder, "Validation of subgradient optimization", 1974.
    """
    y = y - y.amax(-1, keepdim=True)  # changes nothing but the rounding: entries may be huge
    ordered = y.sort(-1, descending=True).values
    count = torch.arange(1, y.shape[-1] + 1, dtype=y.dtype, device=y.device)
    threshold = (ordered.cumsum(-1) - 1) / count
    positive = (ordered > threshold).sum(-1, keepdim=True)
    return (y - threshold.gather(-1, positive - 1)).clamp_(min=0)


@final
@dataclass(frozen=True)
class Simplex(ConvexSet):
    """The probability simplex { y : y ≥ 0, Σᵢ yᵢ = 1 }."""

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(like), torch.ones_like(like)

    def equations(self, like: Tensor) -> Constraint:
        return like.new_ones(1, like.shape[-1]), like.new_ones(1)

    def support(self, c: Tensor) -> Tensor:
        return c.amax(-1)

    def project(self, y: Tensor) -> Tensor:
        return _project(y)

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.full_like(like, 1 / like.shape[-1])
        return y, like.new_zeros(like.shape[:-1], dtype=torch.bool)


@final
@dataclass(frozen=True)
class Simplices(ConvexSet):
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

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        # A block of one is fixed; its bounds are wide, so that interior points exist.
        upper = [torch.full_like(t, 1.0 if t.shape[-1] > 1 else 2.0) for t in self._split(like)]
        return torch.zeros_like(like), torch.cat(upper, -1)

    def equations(self, like: Tensor) -> Constraint:
        blocks = [like.new_ones(1, size) for size in self.sizes]
        self._split(like)
        return torch.block_diag(*blocks), like.new_ones(len(blocks))

    def support(self, c: Tensor) -> Tensor:
        return torch.stack([part.amax(-1) for part in self._split(c)]).sum(0)

    def project(self, y: Tensor) -> Tensor:
        return torch.cat([_project(part) for part in self._split(y)], -1)

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.cat([torch.full_like(t, 1 / t.shape[-1]) for t in self._split(like)], -1)
        return y, like.new_zeros(like.shape[:-1], dtype=torch.bool)

    def _split(self, y: Tensor) -> tuple[Tensor, ...]:
        if y.shape[-1] != sum(self.sizes):
            raise ValueError(
                f"sizes: expected blocks that sum to {y.shape[-1]}, the dimension; got {self.sizes}"
            )
        return torch.split(y, list(self.sizes), -1)

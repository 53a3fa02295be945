"""Where y may live: closed convex sets with a support function and a projection.

Bounds are numbers or tensors, and tensors may differ from sample to sample. Each set also gives
itself as ``bounds`` and one optional equation Σᵢ yᵢ = ``total``, the form the solvers work with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


class ConvexSet(ABC):
    """A closed convex set 𝒴 ⊂ ℝⁿ, the same for every sample or one for each."""

    @abstractmethod
    def support(self, c: Tensor) -> Tensor:
        """max { cᵀy : y ∈ 𝒴 }, for c of shape ``(*batch, n)``."""

    @abstractmethod
    def project(self, y: Tensor) -> Tensor:
        """The point of 𝒴 nearest to y in the Euclidean norm, for y of shape ``(*batch, n)``."""

    @abstractmethod
    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds, expanded to ``like``, of shape ``(*batch, n)``."""

    @property
    def total(self) -> float | None:
        """The value of Σᵢ yᵢ if the set fixes it."""
        return None

    @property
    def bounded(self) -> bool:
        """Whether the set is bounded."""
        return True

    @abstractmethod
    def center(self, like: Tensor) -> Tensor:
        """A point well inside, where a solver may start, of the shape of ``like``."""

    def contains(self, y: Tensor, tol: float = 1e-6) -> Tensor:
        """Whether y lies within ``tol`` of 𝒴, of shape ``batch``."""
        distance: Tensor = torch.linalg.vector_norm(y - self.project(y), dim=-1)
        return distance <= tol


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
        try:
            lower, upper = (
                torch.as_tensor(b, dtype=like.dtype, device=like.device).expand_as(like)
                for b in (self.lower, self.upper)
            )
        except RuntimeError:
            shapes = [tuple(torch.as_tensor(b).shape) for b in (self.lower, self.upper)]
            raise ValueError(
                f"Box: expected bounds that fit points of shape {tuple(like.shape)}, "
                f"got shapes {shapes[0]} and {shapes[1]}"
            ) from None
        return lower, upper

    def support(self, c: Tensor) -> Tensor:
        lower, upper = self.bounds(c)
        return torch.maximum(c * lower, c * upper).sum(-1)

    def project(self, y: Tensor) -> Tensor:
        lower, upper = self.bounds(y)
        return torch.minimum(torch.maximum(y, lower), upper)

    def center(self, like: Tensor) -> Tensor:
        lower, upper = self.bounds(like)
        return (lower + upper) / 2


@final
@dataclass(frozen=True)
class Simplex(ConvexSet):
    """The probability simplex { y : y ≥ 0, Σᵢ yᵢ = 1 }."""

    @property
    def total(self) -> float:
        return 1.0

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(like), torch.ones_like(like)

    def support(self, c: Tensor) -> Tensor:
        return c.amax(-1)

    def project(self, y: Tensor) -> Tensor:
        """Sort, find the threshold, cut.

        Source: Held, Wolfe & Crowder, "Validation of subgradient optimization", 1974.
        """
        ordered = y.sort(-1, descending=True).values
        count = torch.arange(1, y.shape[-1] + 1, dtype=y.dtype, device=y.device)
        threshold = (ordered.cumsum(-1) - 1) / count
        positive = (ordered > threshold).sum(-1, keepdim=True)
        return (y - threshold.gather(-1, positive - 1)).clamp_(min=0)

    def center(self, like: Tensor) -> Tensor:
        return torch.full_like(like, 1 / like.shape[-1])


@final
@dataclass(frozen=True)
class Euclidean(ConvexSet):
    """All of ℝⁿ; only a strongly convex function is sure to have a minimum there."""

    @property
    def bounded(self) -> bool:
        return False

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        upper = torch.full_like(like, torch.inf)
        return -upper, upper

    def support(self, c: Tensor) -> Tensor:
        return torch.where((c == 0).all(-1), 0.0, torch.inf).to(c.dtype)

    def project(self, y: Tensor) -> Tensor:
        return y

    def center(self, like: Tensor) -> Tensor:
        return torch.zeros_like(like)

"""Balls of the Euclidean norm and of weighted ℓ1 norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from icnn_rl.sets._curved import BallConstraint
from icnn_rl.sets.batches import batch_of, broadcast
from icnn_rl.sets.canonical import CanonicalSet
from icnn_rl.sets.convex_set import ConvexSet


@final
@dataclass(frozen=True, eq=False)
class Ball(ConvexSet):
    """{ y : ‖y - center‖₂ ≤ radius }.

    Args:
        radius: a number > 0, or a tensor of shape ``batch``.
        center: a number, or a tensor of shape ``(n,)`` or ``(*batch, n)``.

    Raises:
        ValueError: a radius is not positive or a number is not finite.
    """

    closed_form: ClassVar[bool] = True

    radius: float | Tensor
    center: float | Tensor = 0.0

    def __post_init__(self) -> None:
        radius, center = torch.as_tensor(self.radius), torch.as_tensor(self.center)
        if not bool(((radius > 0) & radius.isfinite()).all()):
            raise ValueError(f"radius: expected finite numbers > 0, got {radius.tolist()}")
        if not bool(center.isfinite().all()):
            raise ValueError(f"center: expected finite entries, got {center.tolist()}")

    @property
    def batch_shape(self) -> torch.Size:
        return batch_of((self.radius, 0), (self.center, 1))

    def canonical(self, like: Tensor) -> CanonicalSet:
        ball = self._constraint(like)
        # In single precision the box could be smaller than the ball.
        radius, center = ball.radius.double().unsqueeze(-1), ball.center.double()
        return CanonicalSet.of(like, implied=(center - radius, center + radius), balls=(ball,))

    def support(self, c: Tensor) -> Tensor:
        return self._constraint(c).support(c)

    def project(self, y: Tensor) -> Tensor:
        return self._constraint(y).project(y)

    def interior_point(self, like: Tensor) -> tuple[Tensor, Tensor]:
        center = self._constraint(like).center
        return center, like.new_zeros(like.shape[:-1], dtype=torch.bool)

    def _constraint(self, like: Tensor) -> BallConstraint:
        return BallConstraint(
            broadcast("radius", self.radius, like.shape[:-1], like),
            broadcast("center", self.center, like.shape, like),
        )


@final
@dataclass(frozen=True, eq=False)
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

    @property
    def batch_shape(self) -> torch.Size:
        return batch_of((self.radius, 0), (self.weights, 1))

    def canonical(self, like: Tensor) -> CanonicalSet:
        radius, weights = self._broadcast(like)
        # In single precision the box could be smaller than the ball.
        upper = _farthest(radius.double(), weights.double())
        return CanonicalSet.of(
            like, implied=(-upper, upper), l1_weights=weights.unsqueeze(-2), l1_radius=radius
        )

    def support(self, c: Tensor) -> Tensor:
        upper = _farthest(*self._broadcast(c))
        return (c.abs() * torch.where(c == 0, 0.0, upper)).amax(-1)

    def interior_point(self, like: Tensor) -> tuple[Tensor, Tensor]:
        self._broadcast(like)
        return torch.zeros_like(like), like.new_zeros(like.shape[:-1], dtype=torch.bool)

    def _broadcast(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The radius, shape ``(*batch, 1)``, and the weights, of the shape of ``like``."""
        radius = broadcast("radius", self.radius, like.shape[:-1], like)
        return radius.unsqueeze(-1), broadcast("weights", self.weights, like.shape, like)


def _farthest(radius: Tensor, weights: Tensor) -> Tensor:
    """The largest value of each coordinate."""
    return torch.where(weights > 0, radius / weights, torch.inf)

"""Balls of the Euclidean norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from icnn_rl.sets.box import Box
from icnn_rl.sets.convex_set import ConvexSet
from icnn_rl.sets.fitting import fitted


@final
@dataclass(frozen=True)
class Ball(ConvexSet):
    """{ y : ‖y - middle‖₂ ≤ radius }.

    Args:
        radius: a number > 0, or a tensor of shape ``batch``.
        middle: a number, or a tensor of shape ``(n,)`` or ``(*batch, n)``.

    Raises:
        ValueError: a radius is not positive or a number is not finite.
    """

    radius: float | Tensor
    middle: float | Tensor = 0.0

    def __post_init__(self) -> None:
        radius, center = torch.as_tensor(self.radius), torch.as_tensor(self.middle)
        if not bool(((radius > 0) & radius.isfinite()).all()):
            raise ValueError(f"radius: expected finite numbers > 0, got {radius.tolist()}")
        if not bool(center.isfinite().all()):
            raise ValueError(f"middle: expected finite entries, got {center.tolist()}")

    @property
    def balls(self) -> tuple[Ball, ...]:
        return (self,)

    def without_balls(self) -> Box:
        given = [t for t in (self.radius, self.middle) if isinstance(t, Tensor)]
        device = given[0].device if given else None
        # A number in single precision could make the box smaller than the ball.
        radius, center = (
            torch.as_tensor(t, dtype=torch.float64, device=device)
            for t in (self.radius, self.middle)
        )
        return Box(center - radius.unsqueeze(-1), center + radius.unsqueeze(-1))

    def fitted(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Radius, of shape ``(*batch, 1)``, and centre, of the shape of ``like``."""
        radius = fitted("radius", self.radius, like.shape[:-1], like)
        return radius.unsqueeze(-1), fitted("middle", self.middle, like.shape, like)

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        radius, center = self.fitted(like)
        return center - radius, center + radius

    def support(self, c: Tensor) -> Tensor:
        radius, center = self.fitted(c)
        length = torch.linalg.vector_norm(c, dim=-1)
        value: Tensor = (c * center).sum(-1) + radius.squeeze(-1) * length
        return value

    def project(self, y: Tensor) -> Tensor:
        radius, center = self.fitted(y)
        distance = torch.linalg.vector_norm(y - center, dim=-1, keepdim=True)
        return torch.where(distance > radius, center + (y - center) * (radius / distance), y)

    def encloses(self, y: Tensor) -> Tensor:
        """Whether y is inside, to rounding, of shape ``batch``."""
        radius, center = self.fitted(y)
        limit = (1 + 4 * torch.finfo(y.dtype).eps) * radius.squeeze(-1)
        distance: Tensor = torch.linalg.vector_norm(y - center, dim=-1)
        return distance <= limit

    def crossing(self, inside: Tensor, y: Tensor) -> Tensor:
        """The last point inside the ball on the way to y, of the shape of both."""
        radius, center = (t.double() for t in self.fitted(y))
        start, way = inside.double() - center, (y - inside).double()
        # ‖start + t way‖ = radius, in the form that loses no digits for either sign of b.
        a, b = (way * way).sum(-1, keepdim=True), (start * way).sum(-1, keepdim=True)
        c = (radius.square() - start.square().sum(-1, keepdim=True)).clamp(min=0)
        root = (b.square() + a * c).sqrt()
        t = torch.where(b > 0, c / (b + root), (root - b) / a.clamp(min=1e-300))
        return (inside + t.clamp(max=1) * way).to(y.dtype)

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        _, center = self.fitted(like)
        return center, like.new_zeros(like.shape[:-1], dtype=torch.bool)

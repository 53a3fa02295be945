"""Balls of the two norms: nearest points and supports by bisection on one multiplier."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class BallConstraint(NamedTuple):
    """‖y - center‖₂ ≤ radius.

    Attributes:
        radius: shape ``batch``.
        center: shape ``(*batch, n)``.
    """

    radius: Tensor
    center: Tensor

    def support(self, c: Tensor) -> Tensor:
        """max cᵀy over the ball, shape ``batch``."""
        value: Tensor = (c * self.center).sum(-1) + self.radius * _length(c)
        return value

    def project(self, y: Tensor) -> Tensor:
        """The nearest point of the ball, of the shape of y."""
        radius, distance = self.radius.unsqueeze(-1), _length(y - self.center).unsqueeze(-1)
        inside = self.center + (y - self.center) * (radius / distance)
        return torch.where(distance > radius, inside, y)

    def contains(self, y: Tensor) -> Tensor:
        """Whether y is inside, to the rounding of its precision, shape ``batch``."""
        return _length(y - self.center) <= (1 + 4 * torch.finfo(y.dtype).eps) * self.radius

    def crossing(self, inside: Tensor, y: Tensor) -> Tensor:
        """The last point inside the ball on the way from ``inside`` to y, of the shape of both."""
        start, step = inside.double() - self.center, (y - inside).double()
        # ‖start + t step‖ = radius, in the form that loses no digits for either sign of b.
        a, b = (step * step).sum(-1, keepdim=True), (start * step).sum(-1, keepdim=True)
        squares = self.radius.square().unsqueeze(-1) - start.square().sum(-1, keepdim=True)
        c = squares.clamp(min=0)
        root = (b.square() + a * c).sqrt()
        t = torch.where(b > 0, c / (b + root), (root - b) / a.clamp(min=1e-300))
        return (inside + t.clamp(max=1) * step).to(y.dtype)

    @torch.no_grad()
    def nearest_within(self, y: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        """The point of the ball and another set nearest to y, from the projection P onto the other.

            P(center + t (y - center))    for the largest t ≤ 1 for which it is in the ball

        Returns:
            Points of the set, of the shape of y; outside the ball where the two do not meet.
        """
        y = y.double()
        low, high = torch.zeros_like(self.radius), torch.ones_like(self.radius)

        def outside(t: Tensor) -> Tensor:
            point = project(self.center + t.unsqueeze(-1) * (y - self.center))
            return _length(point - self.center) > self.radius

        beyond = outside(high)
        if bool(beyond.any()):
            low, _ = _bisect(low, high, outside)
        inner = self.center + low.unsqueeze(-1) * (y - self.center)
        return project(torch.where(beyond.unsqueeze(-1), inner, y))

    @torch.no_grad()
    def support_within(
        self,
        c: Tensor,
        support: Callable[[Tensor], Tensor],
        project: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """max cᵀy over the ball and another set, or a little more, shape ``batch``.

            cᵀy = uᵀy + (c - u)ᵀy ≤ max over the ball + max over the other set,    for every u

        The bound is tight where u points outward at the maximiser, which is P(center + t c) for
        the t at which this point is on the sphere.

        Args:
            c: shape ``(*batch, n)``, float64.
            support: of the other set.
            project: onto the other set.
        """
        length = _length(c)
        scale = self.radius / torch.where(length > 0, length, 1.0)
        low, high = 1e-8 * scale, 1e8 * scale

        def outward(t: Tensor) -> Tensor:
            return project(self.center + t.unsqueeze(-1) * c) - self.center

        def outside(t: Tensor) -> Tensor:
            return _length(outward(t)) > self.radius

        if bool(outside(high).any()):
            low, _ = _bisect(low, high, outside, geometric=True)
        u = outward(low) / low.unsqueeze(-1)
        split = self.support(u) + support(c - u)
        return torch.minimum(split, torch.minimum(support(c), self.support(c)))


def nearest_in_l1_ball(
    y: Tensor, lower: Tensor, upper: Tensor, weights: Tensor, radius: Tensor
) -> Tensor:
    """The point nearest to y with lower ≤ z ≤ upper and Σ wᵢ |zᵢ| ≤ radius.

        zᵢ = sign(yᵢ) max(|yᵢ| - θ wᵢ, 0), clipped,    for the least θ ≥ 0 that meets the radius

    Args:
        y: shape ``(*batch, n)``.
        lower, upper: bounds, likewise.
        weights: w ≥ 0, likewise.
        radius: shape ``(*batch, 1)``.

    Returns:
        Shape ``(*batch, n)``; outside the ball where no point between the bounds is inside.
    """
    dtype = y.dtype
    y, lower, upper, weights, radius = (t.double() for t in (y, lower, upper, weights, radius))

    def point(theta: Tensor) -> Tensor:
        shrunk = y.sign() * (y.abs() - theta * weights).clamp(min=0)
        return torch.minimum(torch.maximum(shrunk, lower), upper)

    def outside(theta: Tensor) -> Tensor:
        return (weights * point(theta).abs()).sum(-1, keepdim=True) > radius

    theta = torch.zeros_like(radius)
    out = outside(theta)
    if bool(out.any()):
        with torch.no_grad():
            # Beyond the largest |y|/w nothing is left to shrink.
            ratio = torch.where(weights > 0, y.abs() / weights, 0.0).amax(-1, keepdim=True)
            _, high = _bisect(theta, ratio, lambda t: ~outside(t))
            theta = torch.where(out, high, theta)
        # Bisection has no derivative; the coordinates that move tell the same θ in closed form.
        z = point(theta)
        moving = (z != 0) & (z > lower) & (z < upper) & (weights > 0)
        size = weights * torch.where(moving, y, z).abs()
        rate = torch.where(moving, weights.square(), 0.0).sum(-1, keepdim=True)
        exact = (size.sum(-1, keepdim=True) - radius) / torch.where(rate > 0, rate, 1.0)
        theta = torch.where(out & (rate > 0), exact, theta)
    return point(theta).to(dtype)


def _length(t: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(t, dim=-1)
    return length


def _bisect(
    low: Tensor, high: Tensor, above: Callable[[Tensor], Tensor], geometric: bool = False
) -> tuple[Tensor, Tensor]:
    """Float64 neighbours of the threshold between low and high, from which ``above`` is true."""
    for _ in range(60):
        middle = (low * high).sqrt() if geometric else (low + high) / 2
        over = above(middle)
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return low, high

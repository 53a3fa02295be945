"""Nearest points by bisection on the multiplier of one constraint."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALVINGS = 60  # of an interval of multipliers, in float64


def nearest_in_ball(
    y: Tensor, project: Callable[[Tensor], Tensor], radius: Tensor, center: Tensor
) -> Tensor:
    """The point nearest to y of a set and a ball, from the projection onto the set alone.

        P(center + t (y - center))    for the largest t ≤ 1 for which it is in the ball

    Args:
        y: shape ``(*batch, n)``.
        project: the projection P, of points of that shape.
        radius: of the ball, shape ``(*batch, 1)``.
        center: of the ball, shape ``(*batch, n)``.

    Returns:
        Points of the set, shape ``(*batch, n)``; outside the ball where the two do not meet.
    """
    y, radius, center = y.double(), radius.double(), center.double()
    inside, outside = torch.zeros_like(radius), torch.ones_like(radius)

    def beyond(t: Tensor) -> Tensor:
        point = project(center + t * (y - center))
        distance: Tensor = torch.linalg.vector_norm(point - center, dim=-1, keepdim=True)
        return distance > radius

    far = beyond(outside)
    if bool(far.any()):
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            out = beyond(middle)
            inside, outside = torch.where(out, inside, middle), torch.where(out, middle, outside)
    return project(torch.where(far, center + inside * (y - center), y))


def nearest_in_budget(
    y: Tensor, lower: Tensor, upper: Tensor, weights: Tensor, radius: Tensor
) -> Tensor:
    """The point nearest to y with lower ≤ z ≤ upper and Σ wᵢ |zᵢ| ≤ radius.

        zᵢ = sign(yᵢ) max(|yᵢ| - θ wᵢ, 0), clipped,    for the least θ ≥ 0 within the budget

    Args:
        y: shape ``(*batch, n)``.
        lower, upper: bounds, likewise.
        weights: w ≥ 0, likewise.
        radius: shape ``(*batch, 1)``.

    Returns:
        Shape ``(*batch, n)``; over the budget where no point between the bounds is within.
    """
    dtype = y.dtype
    y, lower, upper, weights, radius = (t.double() for t in (y, lower, upper, weights, radius))

    def point(theta: Tensor) -> Tensor:
        shrunk = y.sign() * (y.abs() - theta * weights).clamp(min=0)
        return torch.minimum(torch.maximum(shrunk, lower), upper)

    def over(theta: Tensor) -> Tensor:
        return (weights * point(theta).abs()).sum(-1, keepdim=True) > radius

    low = torch.zeros_like(radius)
    if bool(over(low).any()):
        # Beyond the largest |y|/w nothing is left to shrink.
        ratio = torch.where(weights > 0, y.abs() / weights, 0.0)
        high = torch.where(over(low), ratio.amax(-1, keepdim=True), low)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            out = over(middle)
            low, high = torch.where(out, middle, low), torch.where(out, high, middle)
        low = high
    return point(low).to(dtype)

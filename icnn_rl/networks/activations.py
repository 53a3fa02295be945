"""Activations that keep a network convex: every one is convex and non-decreasing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LEAK = 0.01


@dataclass(frozen=True)
class Activation:
    """A convex, non-decreasing scalar function σ with its first two derivatives.

    Composition with such a σ preserves convexity (Boyd & Vandenberghe 2004, 3.2.4), so these are
    the only non-linearities allowed on a convex path.

    Attributes:
        name: the name it is chosen by.
        value: σ(t), elementwise.
        slope: σ'(t), elementwise; a subgradient at kinks.
        curvature: σ''(t), elementwise; zero for piecewise linear functions.
        piecewise_linear: whether σ(t) = max(t, leak · t).
        leak: slope for t < 0 where σ is piecewise linear, and as t → -∞ elsewhere.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]
    piecewise_linear: bool
    leak: float = 0.0


def _relu_slope(t: Tensor) -> Tensor:
    return (t > 0).to(t.dtype)


def _leaky_relu(t: Tensor) -> Tensor:
    return F.leaky_relu(t, LEAK)


def _leaky_relu_slope(t: Tensor) -> Tensor:
    return (t > 0).to(t.dtype).clamp_(min=LEAK)


def _softplus(t: Tensor) -> Tensor:
    # The default threshold of 20 leaves a drop of 2e-9, which float64 sees as a loss of convexity.
    return F.softplus(t, threshold=40.0)


def _softplus_curvature(t: Tensor) -> Tensor:
    s = torch.sigmoid(t)
    return s * (1 - s)


def _elu_slope(t: Tensor) -> Tensor:
    return t.clamp(max=0).exp_()


def _elu_curvature(t: Tensor) -> Tensor:
    return t.clamp(max=0).exp().masked_fill(t > 0, 0.0)


def _squareplus(t: Tensor) -> Tensor:
    # (t + √(t² + 1)) / 2, without the cancellation for t < 0.
    return F.relu(t) + 0.5 / ((t * t + 1).sqrt() + t.abs())


def _squareplus_slope(t: Tensor) -> Tensor:
    # Every operation is monotonic in |t|, so that not even rounding lets the slope fall.
    root = (t * t + 1).sqrt()
    lower = 0.5 / ((root + t.abs()) * root)
    return torch.where(t > 0, 1 - lower, lower)


def _squareplus_curvature(t: Tensor) -> Tensor:
    return (t * t + 1).pow_(-1.5).mul_(0.5)


ACTIVATIONS = {
    a.name: a
    for a in (
        Activation("relu", F.relu, _relu_slope, torch.zeros_like, piecewise_linear=True),
        Activation(
            "leaky_relu",
            _leaky_relu,
            _leaky_relu_slope,
            torch.zeros_like,
            piecewise_linear=True,
            leak=LEAK,
        ),
        Activation("softplus", _softplus, torch.sigmoid, _softplus_curvature, False),
        Activation("elu", F.elu, _elu_slope, _elu_curvature, False),
        Activation("squareplus", _squareplus, _squareplus_slope, _squareplus_curvature, False),
    )
}


def activation(name: str) -> Activation:
    """Look up an activation by name.

    Args:
        name: one of ``relu``, ``leaky_relu``, ``softplus``, ``elu``, ``squareplus``.

    Returns:
        The activation.

    Raises:
        ValueError: the name is not that of a convex, non-decreasing activation.
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation: expected a convex, non-decreasing function, one of "
            f"{', '.join(ACTIVATIONS)}; got {name!r}"
        )
    return ACTIVATIONS[name]

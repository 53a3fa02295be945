"""Activations that keep a network convex: every one is convex and non-decreasing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from icnn_rl.networks.checks import require_one_of

LEAK = 0.01


@dataclass(frozen=True)
class Activation:
    """A convex, non-decreasing scalar function σ with its first two derivatives, elementwise.

    Composition with such a σ preserves convexity (Boyd & Vandenberghe 2004, 3.2.4), so these are
    the only non-linearities allowed on a convex path.

    Attributes:
        name: its key in ``ACTIVATIONS``.
        value: σ(t).
        slope: σ'(t); a subgradient at kinks.
        curvature: σ''(t); zero where σ is piecewise linear.
        piecewise_linear: whether σ(t) = max(t, leak · t).
        leak: slope for t < 0 where σ is piecewise linear, and as t → -∞ elsewhere.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]
    piecewise_linear: bool = False
    leak: float = 0.0

    def __reduce__(self) -> tuple[Callable[[str], Activation], tuple[str]]:
        return activation, (self.name,)  # functions without a name cannot be pickled


def _squareplus(t: Tensor) -> Tensor:
    # (t + √(t² + 1)) / 2, without the cancellation for t < 0.
    return F.relu(t) + 0.5 / ((t * t + 1).sqrt() + t.abs())


def _squareplus_slope(t: Tensor) -> Tensor:
    # Every operation is monotonic in |t|, so that not even rounding lets the slope fall.
    root = (t * t + 1).sqrt()
    lower = 0.5 / ((root + t.abs()) * root)
    return torch.where(t > 0, 1 - lower, lower)


def _logistic_slope(t: Tensor) -> Tensor:
    s = torch.sigmoid(t)
    return s * (1 - s)


ACTIVATIONS = {
    sigma.name: sigma
    for sigma in (
        Activation(
            "relu", F.relu, lambda t: (t > 0).to(t.dtype), torch.zeros_like, piecewise_linear=True
        ),
        Activation(
            "leaky_relu",
            lambda t: F.leaky_relu(t, LEAK),
            lambda t: (t > 0).to(t.dtype).clamp_(min=LEAK),
            torch.zeros_like,
            piecewise_linear=True,
            leak=LEAK,
        ),
        Activation(
            "softplus",
            # The default threshold of 20 leaves a drop of 2e-9, in float64 a loss of convexity.
            lambda t: F.softplus(t, threshold=40.0),
            torch.sigmoid,
            _logistic_slope,
        ),
        Activation(
            "elu",
            F.elu,
            lambda t: t.clamp(max=0).exp_(),
            lambda t: t.clamp(max=0).exp().masked_fill(t > 0, 0.0),
        ),
        Activation(
            "squareplus",
            _squareplus,
            _squareplus_slope,
            lambda t: (t * t + 1).pow_(-1.5).mul_(0.5),
        ),
    )
}


def activation(name: str) -> Activation:
    """Look up an activation by name.

    Args:
        name: one of ``relu``, ``leaky_relu``, ``softplus``, ``elu``, ``squareplus``.

    Raises:
        ValueError: the name is unknown; other functions would not keep convexity.
    """
    require_one_of("activation", name, ACTIVATIONS, "a convex, non-decreasing function, ")
    return ACTIVATIONS[name]

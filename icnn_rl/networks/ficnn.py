"""Fully input-convex networks: convex in all their inputs together."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from icnn_rl.networks.conditioned import ConditionedNetwork
from icnn_rl.networks.convex_path import ConvexPath
from icnn_rl.networks.non_negative import NonNegativity


class FICNN(nn.Module):
    """A network that is convex in y, or jointly convex in (x, y).

        zₖ₊₁ = σ(Wₖᶻ zₖ + Wₖʸ y + Wₖˣ x + bₖ),      Wₖᶻ ≥ 0

    Args:
        x_dim: length of x; 0 for a function of y alone.
        y_dim: n, the length of y.
        convex: widths of the hidden layers.
        activation: σ: ``relu``, ``leaky_relu``, ``softplus``, ``elu`` or ``squareplus``.
        ensemble: number of networks E evaluated side by side; None for one without that axis.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.

    Raises:
        ValueError: a size is below one, or a name is unknown.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, equation 2.
    """

    def __init__(
        self,
        x_dim: int,
        y_dim: int,
        convex: tuple[int, ...] = (200, 200),
        activation: str = "softplus",
        *,
        ensemble: int | None = None,
        nonnegativity: NonNegativity = "projection",
    ) -> None:
        super().__init__()
        if x_dim < 0:
            raise ValueError(f"x_dim: expected a number >= 0, got {x_dim}")
        self.x_dim = x_dim
        self.y_dim = y_dim
        self.ensemble = ensemble
        members = 1 if ensemble is None else ensemble
        # x and y are one input to the weights, so that a joint function needs no copy of them.
        self.path = ConvexPath(y_dim + x_dim, tuple(convex), activation, members, nonnegativity)
        self.bias = nn.ParameterList(torch.empty(members, 1, w) for w in (*self.path.widths, 1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw Wᶻ as ``ConvexPath`` does, Wʸ and Wˣ uniformly within ±1/√length; centre biases.

        Each has its own length: a short y would hardly count beside a long x otherwise.
        """
        self.path.reset_parameters()
        sizes = [self.y_dim, self.x_dim] if self.x_dim else [self.y_dim]
        for w in self.path.raw_y:
            for part in w.split(sizes, -2):
                bound = 1 / math.sqrt(part.shape[-2])
                part.uniform_(-bound, bound)
        bound = 1 / math.sqrt(self.path.dim)
        for k, bias in enumerate(self.bias):
            bias.uniform_(-bound, bound).add_(self.path.bias_init(k))

    def function(self) -> ConditionedNetwork:
        """The network as one convex function of (y, x), of dimension ``y_dim + x_dim``."""
        return ConditionedNetwork(
            activation=self.path.activation,
            weight_z=self.path.weight_z(),
            weight_y=self.path.weight_y(),
            gate_z=None,
            gate_y=None,
            bias=tuple(self.bias),
            ensemble=self.ensemble is not None,
            batched=self.ensemble is not None,
        )

    def condition(self, x: Tensor | None = None, *, y: Tensor | None = None) -> ConditionedNetwork:
        """Fix x, or y, and leave a batch of convex functions of the other.

        Args:
            x: shape ``(B, x_dim)``.
            y: shape ``(B, y_dim)``.

        Returns:
            A convex function with ``batch_shape`` ``(B,)``, or ``(E, B)`` for an ensemble.

        Raises:
            ValueError: not exactly one is given, or it has another shape.
        """
        rows_y, rows_x = slice(0, self.y_dim), slice(self.y_dim, None)
        if x is not None and y is None:
            name, given, fixed, free = "x", x, rows_x, rows_y
        elif y is not None and x is None:
            name, given, fixed, free = "y", y, rows_y, rows_x
        else:
            raise ValueError("x, y: expected one of them, the one to be fixed")
        size = self.x_dim if name == "x" else self.y_dim
        if given.dim() != 2 or given.shape[1] != size:
            raise ValueError(f"{name}: expected shape (batch, {size}), got {tuple(given.shape)}")
        weights = self.path.weight_y()
        lifted = given.expand(weights[0].shape[0], *given.shape)
        return ConditionedNetwork(
            activation=self.path.activation,
            weight_z=self.path.weight_z(),
            weight_y=tuple(w[:, free] for w in weights),
            gate_z=None,
            gate_y=None,
            bias=tuple(
                torch.baddbmm(b, lifted, w[:, fixed])
                for b, w in zip(self.bias, weights, strict=True)
            ),
            ensemble=self.ensemble is not None,
            batched=True,
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """f(x, y), of shape ``(B,)`` or ``(E, B)``."""
        return self.condition(x).value(y)

    def project_(self) -> None:
        """P₊: clamp Wᶻ at 0; call it after every step of an optimiser."""
        self.path.project_()

"""Partially input-convex networks over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from icnn_rl.networks.conditioned_convolution import ConditionedConvolution
from icnn_rl.networks.convolutional_path import ConvolutionalPath
from icnn_rl.networks.encoder import Connection, Encoder
from icnn_rl.networks.layers import Layer, Shape
from icnn_rl.networks.non_negative import NonNegativity


class ConvPICNN(nn.Module):
    """A convolutional network f(x, y) that is convex in the image y for every x.

        zₖ₊₁ = σ(Lₖ(zₖ ∘ [Aₖ u]₊) + Sₖ(y ∘ Bₖ u) + Cₖ u),      Lₖ ≥ 0
        uₗ₊₁ = ReLU(Mₗ uₗ),      u₀ = x

    Lₖ and Mₗ are convolutions or dense layers, and pools may stand between layers. Sₖ lets y into
    every layer, see ``Skip``; the affine maps A, B, C bring u into the shapes of zₖ, y and what Lₖ
    gives, see ``Connection``. Both paths are aligned at their ends: the last convex layer reads the
    last level u_L, the one before reads u_{L-1}, and so on down to x. Where u is an image, gates
    and biases have a value for each pixel; where it is a vector, one for each channel.

    For a vector y, use ``PICNN`` with an ``encoder``.

    Args:
        x_shape: shape of x, ``(channels, height, width)`` or ``(n,)``.
        y_shape: shape of y, ``(channels, height, width)``.
        context: layers of the context path, e.g. ``(Conv(32, 5, padding=2),) * 2``.
        layers: hidden layers of the convex path, e.g.
            ``(Conv(16, 5, padding=2), AveragePool(2), Conv(32, 5, padding=2))``.
        activation: σ on the convex path: ``relu``, ``leaky_relu``, ``softplus``, ``elu`` or
            ``squareplus``.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.

    Raises:
        ValueError: y is not an image, layers do not fit, or a name is unknown.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, equation 3.
    """

    def __init__(
        self,
        x_shape: Shape,
        y_shape: Shape,
        context: Sequence[Layer],
        layers: Sequence[Layer],
        activation: str = "relu",
        *,
        nonnegativity: NonNegativity = "projection",
    ) -> None:
        super().__init__()
        if len(y_shape) != 3:
            raise ValueError(f"y_shape: expected (channels, height, width), got {y_shape}")
        self.y_shape = tuple(y_shape)
        self.encoder = Encoder(x_shape, context)
        self.path = ConvolutionalPath(self.y_shape, layers, activation, nonnegativity)
        self.weight_y = nn.ParameterList(
            torch.empty(skip.weight_shape) for skip in self.path.skips(self.y_shape)
        )
        affine, shapes = self.path.affine, self.encoder.level_shapes
        above = len(shapes) - len(affine)
        self._level = [max(above + k, 0) for k in range(len(affine))]
        read = [shapes[level] for level in self._level]
        self.gate_z = nn.ModuleList(
            Connection(u, z, 1.0) for u, (_, z) in zip(read[1:], affine[1:], strict=True)
        )
        self.gate_y = nn.ModuleList(Connection(u, self.y_shape, 1.0) for u in read)
        self.bias = nn.ModuleList(
            Connection(u, layer.output_shape(shape), self.path.bias_init(k))
            for k, (u, (layer, shape)) in enumerate(zip(read, affine, strict=True))
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights uniformly within ±1/√fan-in; gates start around 1, biases centred."""
        for module in self.modules():
            if isinstance(module, Encoder | ConvolutionalPath | Connection):
                module.reset_parameters()
        for weight in self.weight_y:
            bound = 1 / math.sqrt(weight[0].numel())
            weight.uniform_(-bound, bound)

    def condition(self, x: Tensor) -> ConditionedConvolution:
        """Run the context path, once, and leave a batch of convex functions of y, flat.

        Args:
            x: shape ``(B, *x_shape)``.

        Returns:
            A convex function with ``batch_shape`` ``(B,)``.

        Raises:
            ValueError: x has another shape.
        """
        levels = self.encoder.levels(x)
        u = [levels[level] for level in self._level]
        gates = [gate(below).relu() for gate, below in zip(self.gate_z, u[1:], strict=True)]
        ones = u[0].new_ones(prod(self.y_shape)).view(self.y_shape)
        return self.path.function(
            (self.y_shape,),
            [(w,) for w in self.weight_y],
            [bias(below) for bias, below in zip(self.bias, u, strict=True)],
            [None, *gates],
            [(gate(below) * ones).flatten(1) for gate, below in zip(self.gate_y, u, strict=True)],
            batched=True,
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """f(x, y), of shape ``(B,)``, for y of shape ``(B, *y_shape)`` or flat."""
        return self.condition(x).value(y.flatten(1))

    def project_(self) -> None:
        """P₊: clamp Wᶻ at 0; call it after every step of an optimiser."""
        self.path.project_()

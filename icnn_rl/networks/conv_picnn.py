"""Partially input-convex networks over images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.networks.checks import Shape, require_shape
from icnn_rl.networks.convex_path import NonNegativity, uniform_
from icnn_rl.networks.convolution import ConditionedConvolution, ConvolutionalPath
from icnn_rl.networks.encoder import Encoder
from icnn_rl.networks.layers import Layer
from icnn_rl.networks.network import ConvexNetwork


class ConvPICNN(ConvexNetwork):
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
        activation: the name of σ, see ``activation``.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.

    Raises:
        ValueError: y is not an image, x neither image nor vector, layers do not fit, or a name is
            unknown.

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
        require_shape("x_shape", x_shape)
        require_shape("y_shape", y_shape, vector=False)
        self.y_shape = tuple(y_shape)
        self.encoder = Encoder(x_shape, context)
        self.path = ConvolutionalPath(self.y_shape, layers, activation, nonnegativity)
        self.weight_y = nn.ParameterList(
            torch.empty(skip.weight_shape) for skip in self.path.skips(self.y_shape)
        )
        blocks, shapes = self.path.blocks, self.encoder.level_shapes
        self._level = [max(len(shapes) - len(blocks) + k, 0) for k in range(len(blocks))]
        read = [shapes[level] for level in self._level]
        self.gate_z = nn.ModuleList(
            Connection(u, block.shape, 1.0) for u, block in zip(read[1:], blocks[1:], strict=True)
        )
        self.gate_y = nn.ModuleList(Connection(u, self.y_shape, 1.0) for u in read)
        self.bias = nn.ModuleList(
            Connection(u, block.shapes()[0], self.path.bias_init(k))
            for k, (u, block) in enumerate(zip(read, blocks, strict=True))
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights uniformly within ±1/√fan-in; gates start around 1, biases centred."""
        for module in self.modules():
            if isinstance(module, Encoder | ConvolutionalPath | Connection):
                module.reset_parameters()
        for weight in self.weight_y:
            uniform_(weight, weight[0].numel())

    def condition(self, x: Tensor) -> ConditionedConvolution:
        """Run the context path, once, and leave a batch of convex functions of y, flat."""
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


@final
class Connection(nn.Module):
    """An affine map from a level of the context path to a gate or a bias.

    Between images it resamples by average pooling and convolves, 3 × 3. Otherwise it is dense, and
    gives an image one number for each channel. Its biases start around ``center``.
    """

    def __init__(self, source: Shape, target: Shape, center: float) -> None:
        super().__init__()
        self.target, self.center = target, center
        self.map: nn.Conv2d | nn.Linear
        if len(source) == len(target) == 3:
            self.map = nn.Conv2d(source[0], target[0], 3, padding=1)
        else:
            self.map = nn.Linear(prod(source), target[0])
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights, and biases around the center, uniformly within ±1/√fan-in."""
        self.map.reset_parameters()
        if self.map.bias is not None:
            self.map.bias.add_(self.center)

    def forward(self, u: Tensor) -> Tensor:
        """Shape ``(B, *target)``, or ``(B, channels, 1, 1)`` from a vector to an image."""
        if isinstance(self.map, nn.Linear):
            result: Tensor = self.map(u.flatten(1))
            return result[..., None, None] if len(self.target) == 3 else result
        _, height, width = self.target
        if u.shape[2:] != (height, width):
            u = F.adaptive_avg_pool2d(u, (height, width))
        image: Tensor = self.map(u)
        return image

"""Fully input-convex networks over images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from icnn_rl.networks.checks import Shape, require_shape
from icnn_rl.networks.convex_path import NonNegativity, uniform_
from icnn_rl.networks.convolution import ConditionedConvolution, ConvolutionalPath
from icnn_rl.networks.layers import Conv, Dense, Layer
from icnn_rl.networks.network import FullyConvexNetwork
from icnn_rl.networks.normalization import (
    FeatureNorm,
    batch_norms,
    reset_norms,
    running_scale_and_shift,
)


class ConvFICNN(FullyConvexNetwork):
    """A convolutional network that is jointly convex in x and y, images or vectors.

        zₖ₊₁ = σ(N(Lₖ zₖ + Tₖ x) + Sₖ y + bₖ),      Lₖ ≥ 0

    Lₖ is a convolution or a dense layer, and pools may stand between layers. Sₖ and Tₖ let y and x
    into every layer, see ``Skip``: images as further channels, vectors as constants. Layers before
    ``y_from`` do without y: they are convex features of x, and computed once for all y.

    Args:
        x_shape: shape of x, ``(channels, height, width)`` or ``(n,)``.
        y_shape: shape of y, likewise. The first layer reads x or, if y enters it and is the only
            image, y.
        layers: hidden layers, for LeNet
            ``(Conv(20, 5), MaxPool(2), Conv(50, 5), MaxPool(2), Dense(500))``.
        activation: the name of σ, see ``activation``.
        y_from: index of the first of the layers that y enters; -1 for the last.
        norm: N, up to the first layer that y enters: ``"none"`` or ``"batch"``; by running moments
            in evaluation, and wherever x is not fixed.
        dropout: share of the results of dense layers that is left out at random in training.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.

    Raises:
        ValueError: a shape is neither of these, layers do not fit, ``y_from`` is none of them, or a
            name is unknown.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016.
    """

    def __init__(
        self,
        x_shape: Shape,
        y_shape: Shape,
        layers: Sequence[Layer],
        activation: str = "relu",
        *,
        y_from: int = 0,
        norm: FeatureNorm = "none",
        dropout: float = 0.0,
        nonnegativity: NonNegativity = "projection",
    ) -> None:
        super().__init__()
        require_shape("x_shape", x_shape)
        require_shape("y_shape", y_shape)
        self.x_shape, self.y_shape = tuple(x_shape), tuple(y_shape)
        y_is_read = y_from == 0 and len(x_shape) < len(y_shape)
        read = self.y_shape if y_is_read else self.x_shape
        self.path = ConvolutionalPath(read, layers, activation, nonnegativity)
        steps = [k for k, layer in enumerate(layers) if isinstance(layer, Conv | Dense)]
        if not -len(layers) <= y_from < len(layers) or y_from % len(layers) not in steps:
            raise ValueError(
                f"y_from: expected the index of a Conv or Dense in layers, got {y_from}"
            )
        self.first = steps.index(y_from % len(layers))
        self.dropout = nn.Dropout(dropout)
        of_x, of_y = (self.path.skips(s) for s in (self.x_shape, self.y_shape))
        self.weight_y = nn.ParameterList(torch.empty(s.weight_shape) for s in of_y[self.first :])
        self.weight_x = nn.ParameterList(torch.empty(s.weight_shape) for s in of_x)
        results = [block.shapes()[0] for block in self.path.blocks]
        self.bias = nn.ParameterList(
            torch.empty(1, shape[0], *(1 for _ in shape[1:])) for shape in results
        )
        self.norm = batch_norms(norm, results[: self.first + 1], affine=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights on x and y uniformly within ±1/√fan-in; biases centred."""
        self.path.reset_parameters()
        for weight in (*self.weight_y, *self.weight_x):
            uniform_(weight, weight[0].numel())
        for k, bias in enumerate(self.bias):
            uniform_(bias, self.weight_x[k][0].numel())
            if k >= len(self.norm):
                bias.add_(self.path.bias_init(k))
        reset_norms(self.norm)

    def function(self) -> ConditionedConvolution:
        """The network as one convex function of (y, x), flat, y first."""
        weight_z, weight_x, bias = self._folded()
        weight_y = (*[None] * self.first, *self.weight_y)
        return self.path.function(
            (self.y_shape, self.x_shape),
            list(zip(weight_y, weight_x, strict=True)),
            bias,
            weight_z=weight_z,
            batched=False,
        )

    def _of_y(self, x: Tensor) -> ConditionedConvolution:
        """f(x, ·): the network runs up to the first layer that y enters."""
        blocks, first, weight_z = self.path.blocks, self.first, self.path.weight_z()
        dense = [isinstance(block.layer, Dense) for block in blocks]
        skips, z, t = self.path.skips(self.x_shape), x, []
        for k, block in enumerate(blocks):
            now = skips[k].apply(x.flatten(1), self.weight_x[k])
            if 0 < k <= first:
                now = now + block.layer.apply(z, weight_z[k - 1])
            if k < len(self.norm):
                now = self.norm[k](now)
            t.append(now + self.bias[k])
            if k < first:
                z = self.path.activation.value(t[k])
                z = self.dropout(z) if dense[k] else block.pooled(z)
        gate_z: list[Tensor | None] = [None] * (len(blocks) - first)
        if self.training and self.dropout.p > 0:
            for k in range(first + 1, len(blocks)):
                if dense[k - 1]:
                    gate_z[k - first] = self.dropout(x.new_ones(len(x), *blocks[k].shape))
        weight_y = [(w,) for w in self.weight_y]
        return self.path.function((self.y_shape,), weight_y, t[first:], gate_z, batched=True)

    def _of_x(self, y: Tensor) -> ConditionedConvolution:
        """f(·, y)."""
        weight_z, weight_x, bias = self._folded()
        skips = self.path.skips(self.y_shape)
        for k, weight in enumerate(self.weight_y, self.first):
            bias[k] = bias[k] + skips[k].apply(y.flatten(1), weight)
        return self.path.function(
            (self.x_shape,), [(w,) for w in weight_x], bias, weight_z=weight_z, batched=True
        )

    def _folded(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Weights on z and x, and biases, that include the normalisation by running moments."""
        weight_z, weight_x = list(self.path.weight_z()), list(self.weight_x)
        bias = list(self.bias)
        for k, norm in enumerate(self.norm):
            scale, shift = running_scale_and_shift(norm)
            bias[k] = bias[k] - shift.view_as(bias[k])
            for weights, place in ((weight_x, k), (weight_z, k - 1)):
                if place >= 0:  # each row of the weight, or each kernel, has a scale of its own
                    axes = (1 for _ in weights[place].shape[1:])
                    weights[place] = weights[place] * scale.view(-1, *axes)
        return weight_z, weight_x, bias

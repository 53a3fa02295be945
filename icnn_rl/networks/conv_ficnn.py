"""Fully input-convex networks over images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from icnn_rl.networks.conditioned_convolution import ConditionedConvolution
from icnn_rl.networks.convolutional_path import ConvolutionalPath
from icnn_rl.networks.layers import Dense, Layer, Shape, require_batch_of
from icnn_rl.networks.non_negative import NonNegativity
from icnn_rl.networks.normalization import FeatureNorm, batch_norms, running_scale_and_shift


class ConvFICNN(nn.Module):
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
        activation: σ: ``relu``, ``leaky_relu``, ``softplus``, ``elu`` or ``squareplus``.
        y_from: index of the first of the layers that y enters; -1 for the last.
        norm: N, up to the first layer that y enters: ``"none"``, or ``"batch"`` for batch
            normalisation; by running moments in evaluation, and wherever x is not fixed.
        dropout: share of what a dense layer gives that is left out at random while training; what
            is left is convex.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.

    Raises:
        ValueError: layers do not fit, ``y_from`` is none of them, or a name is unknown.

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
        if any(len(s) not in (1, 3) for s in (x_shape, y_shape)):
            raise ValueError(
                "x_shape, y_shape: expected (channels, height, width) or (n,); "
                f"got {x_shape} and {y_shape}"
            )
        self.x_shape = tuple(x_shape)
        self.y_shape = tuple(y_shape)
        y_is_read = y_from == 0 and len(x_shape) < len(y_shape)
        read = self.y_shape if y_is_read else self.x_shape
        self.path = ConvolutionalPath(read, layers, activation, nonnegativity)
        try:
            self.first = self.path.affine_index(y_from)
        except ValueError as error:
            raise ValueError(f"y_from: {error}") from None
        self.dropout = nn.Dropout(dropout)
        of_x, of_y = (self.path.skips(s) for s in (self.x_shape, self.y_shape))
        self.weight_y = nn.ParameterList(torch.empty(s.weight_shape) for s in of_y[self.first :])
        self.weight_x = nn.ParameterList(torch.empty(s.weight_shape) for s in of_x)
        results = [layer.output_shape(read) for layer, read in self.path.affine]
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
            bound = 1 / math.sqrt(weight[0].numel())
            weight.uniform_(-bound, bound)
        for k, bias in enumerate(self.bias):
            bound = 1 / math.sqrt(self.weight_x[k][0].numel())
            bias.uniform_(-bound, bound)
            if k >= len(self.norm):
                bias.add_(self.path.bias_init(k))
        for norm in self.norm.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.reset_parameters()

    def function(self) -> ConditionedConvolution:
        """The network as one convex function of (y, x), flat, one after the other."""
        weight_z, weight_x, bias = self._folded()
        weight_y = (*[None] * self.first, *self.weight_y)
        return self.path.function(
            (self.y_shape, self.x_shape),
            list(zip(weight_y, weight_x, strict=True)),
            bias,
            weight_z=weight_z,
            batched=False,
        )

    def condition(
        self, x: Tensor | None = None, *, y: Tensor | None = None
    ) -> ConditionedConvolution:
        """Fix x, or y, and leave a batch of convex functions of the other, flat.

        Args:
            x: shape ``(B, *x_shape)``.
            y: shape ``(B, *y_shape)``.

        Returns:
            A convex function with ``batch_shape`` ``(B,)``.

        Raises:
            ValueError: not exactly one is given, or it has another shape.
        """
        if x is not None and y is None:
            require_batch_of("x", x, self.x_shape)
            return self._of_y(x)
        if y is not None and x is None:
            require_batch_of("y", y, self.y_shape)
            return self._of_x(y)
        raise ValueError("x, y: expected one of them, the one to be fixed")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """f(x, y), of shape ``(B,)``, for y of shape ``(B, *y_shape)`` or flat."""
        return self.condition(x).value(y.flatten(1))

    def project_(self) -> None:
        """P₊: clamp Wᶻ at 0; call it after every step of an optimiser."""
        self.path.project_()

    def _of_y(self, x: Tensor) -> ConditionedConvolution:
        """f(x, ·): the network runs up to the first layer that y enters."""
        affine, first = self.path.affine, self.first
        flat, weight_z = x.flatten(1), self.path.weight_z()
        skips = self.path.skips(self.x_shape)
        t = [s.apply(flat, w) for s, w in zip(skips, self.weight_x, strict=True)]
        for k in range(first + 1):
            if k > 0:
                z = self.path.activation.value(t[k - 1])
                z = self.dropout(z) if isinstance(affine[k - 1][0], Dense) else z
                t[k] = t[k] + affine[k][0].apply(self.path.pooled(k, z), weight_z[k - 1])
            if self.norm:
                t[k] = self.norm[k](t[k])
            t[k] = t[k] + self.bias[k]
        t[first + 1 :] = [
            a + b for a, b in zip(t[first + 1 :], self.bias[first + 1 :], strict=True)
        ]
        kept: list[Tensor | None] = [None] * (len(t) - first)
        if self.training and self.dropout.p > 0:
            for k in range(first + 1, len(t)):
                if isinstance(affine[k - 1][0], Dense):
                    kept[k - first] = self.dropout(x.new_ones(len(x), *affine[k][1]))
        return self.path.function(
            (self.y_shape,), [(w,) for w in self.weight_y], t[first:], kept, batched=True
        )

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
        """Weights on z and x and biases, what normalises by running moments multiplied in."""
        weight_z, weight_x = list(self.path.weight_z()), list(self.weight_x)
        bias = list(self.bias)
        for k, norm in enumerate(self.norm):
            scale, shift = running_scale_and_shift(norm)
            bias[k] = bias[k] - shift.view_as(bias[k])
            weight_x[k] = _rows_times(scale, weight_x[k])
            if k:
                weight_z[k - 1] = _rows_times(scale, weight_z[k - 1])
        return weight_z, weight_x, bias


def _rows_times(scale: Tensor, weight: Tensor) -> Tensor:
    """Each row of a weight, or each of its kernels, times its number."""
    return weight * scale.view(-1, *(1 for _ in weight.shape[1:]))

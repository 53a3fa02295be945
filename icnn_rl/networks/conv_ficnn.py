"""Fully input-convex networks over images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from icnn_rl.networks.conditioned_convolution import ConditionedConvolution
from icnn_rl.networks.convolutional_path import ConvolutionalPath
from icnn_rl.networks.layers import Layer, Shape, require_batch_of
from icnn_rl.networks.non_negative import NonNegativity


class ConvFICNN(nn.Module):
    """A convolutional network that is jointly convex in x and y, images or vectors.

        zₖ₊₁ = σ(Lₖ zₖ + Sₖ y + Tₖ x + bₖ),      Lₖ ≥ 0

    Lₖ is a convolution or a dense layer, and pools may stand between layers. Sₖ and Tₖ let y and x
    into every layer, see ``Skip``: images as further channels, vectors as constants.

    Args:
        x_shape: shape of x, ``(channels, height, width)`` or ``(n,)``. One of x and y is an image;
            the first layer reads it, x if both are.
        y_shape: shape of y, likewise.
        layers: hidden layers, for LeNet
            ``(Conv(20, 5), MaxPool(2), Conv(50, 5), MaxPool(2), Dense(500))``.
        activation: σ: ``relu``, ``leaky_relu``, ``softplus``, ``elu`` or ``squareplus``.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.

    Raises:
        ValueError: neither x nor y is an image, layers do not fit, or a name is unknown.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016.
    """

    def __init__(
        self,
        x_shape: Shape,
        y_shape: Shape,
        layers: Sequence[Layer],
        activation: str = "relu",
        *,
        nonnegativity: NonNegativity = "projection",
    ) -> None:
        super().__init__()
        images = [s for s in (x_shape, y_shape) if len(s) == 3]
        if not images or any(len(s) not in (1, 3) for s in (x_shape, y_shape)):
            raise ValueError(
                "x_shape, y_shape: expected (channels, height, width) or (n,), at least one an "
                f"image; got {x_shape} and {y_shape}"
            )
        self.x_shape = tuple(x_shape)
        self.y_shape = tuple(y_shape)
        self.path = ConvolutionalPath(images[0], layers, activation, nonnegativity)
        self.weight_y, self.weight_x = (
            nn.ParameterList(torch.empty(skip.weight_shape) for skip in self.path.skips(s))
            for s in (self.y_shape, self.x_shape)
        )
        results = [layer.output_shape(read) for layer, read in self.path.affine]
        self.bias = nn.ParameterList(
            torch.empty(1, shape[0], *(1 for _ in shape[1:])) for shape in results
        )
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
            bias.uniform_(-bound, bound).add_(self.path.bias_init(k))

    def function(self) -> ConditionedConvolution:
        """The network as one convex function of (y, x), flat, one after the other."""
        weights = list(zip(self.weight_y, self.weight_x, strict=True))
        return self.path.function(
            (self.y_shape, self.x_shape), weights, list(self.bias), batched=False
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
            name, given, fixed = "x", x, self.weight_x
            shape, free_shape, free = self.x_shape, self.y_shape, self.weight_y
        elif y is not None and x is None:
            name, given, fixed = "y", y, self.weight_y
            shape, free_shape, free = self.y_shape, self.x_shape, self.weight_x
        else:
            raise ValueError("x, y: expected one of them, the one to be fixed")
        require_batch_of(name, given, shape)
        bias = [
            bias + skip.apply(given.flatten(1), weight)
            for bias, skip, weight in zip(self.bias, self.path.skips(shape), fixed, strict=True)
        ]
        return self.path.function((free_shape,), [(w,) for w in free], bias, batched=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """f(x, y), of shape ``(B,)``, for y of shape ``(B, *y_shape)`` or flat."""
        return self.condition(x).value(y.flatten(1))

    def project_(self) -> None:
        """P₊: clamp Wᶻ at 0; call it after every step of an optimiser."""
        self.path.project_()

"""Ordinary networks over images, for inputs in which nothing has to be convex."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.networks.layers import Conv, Dense, Layer, Shape, require_batch_of, shapes_along
from icnn_rl.networks.normalization import FeatureNorm, batch_norms


@final
class Encoder(nn.Module):
    """A feed-forward network with a ReLU after every convolution and dense layer.

    Args:
        shape: shape of an input, ``(channels, height, width)`` or ``(n,)``.
        layers: for LeNet ``(Conv(20, 5), MaxPool(2), Conv(50, 5), MaxPool(2), Dense(500))``.
        dropout: share of what a dense layer gives that is left out at random while training.
        norm: ``"batch"`` for batch normalisation before every ReLU, or ``"none"``.

    Attributes:
        level_shapes: shapes of u₀ = x, u₁, …, u_L, where uₗ is what the l-th convolution or dense
            layer and the pools after it give.

    Raises:
        ValueError: a layer does not fit the shape it is to read, or a name is unknown.
    """

    def __init__(
        self,
        shape: Shape,
        layers: Sequence[Layer],
        dropout: float = 0.0,
        norm: FeatureNorm = "none",
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.shape = tuple(shape)
        self.layers = tuple(layers)
        if layers and not isinstance(layers[0], Conv | Dense):
            raise ValueError(f"layers: expected a Conv or Dense first, got {self.layers}")
        shapes = shapes_along(self.shape, self.layers)
        starts = [i for i, layer in enumerate(layers) if isinstance(layer, Conv | Dense)]
        self.level_shapes = [shapes[i] for i in (*starts, len(layers))]
        self.maps = nn.ModuleList(
            nn.Conv2d(read[0], layer.channels, layer.kernel, layer.stride, layer.padding)
            if isinstance(layer, Conv)
            else nn.Linear(prod(read), layer.width)
            for layer, read in zip(layers, shapes, strict=False)
            if isinstance(layer, Conv | Dense)
        )
        self.norms = batch_norms(norm, (shapes[i + 1] for i in starts), affine=True)

    @property
    def width(self) -> int:
        """Length of the flattened result."""
        return prod(self.level_shapes[-1])

    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly within ±1/√fan-in; moments of nothing yet."""
        for module in (*self.maps, *self.norms):
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
                module.reset_parameters()

    def levels(self, x: Tensor) -> list[Tensor]:
        """u₀ … u_L for x of shape ``(B, *shape)``, each of shape ``(B, *level_shape)``.

        Raises:
            ValueError: x has another shape.
        """
        require_batch_of("x", x, self.shape)
        levels = [x]
        maps, norms = iter(self.maps), iter(self.norms)
        for layer in self.layers:
            if isinstance(layer, Conv | Dense):
                u = levels[-1].flatten(1) if isinstance(layer, Dense) else levels[-1]
                u = next(maps)(u)
                u = F.relu(next(norms)(u) if self.norms else u)
                levels.append(self.dropout(u) if isinstance(layer, Dense) else u)
            else:
                levels[-1] = layer.apply(levels[-1])[0]
        return levels

    def forward(self, x: Tensor) -> Tensor:
        """The last level, flattened, ``(B, width)``."""
        return self.levels(x)[-1].flatten(1)


@final
class Connection(nn.Module):
    """An affine map from a level of one shape to something of another.

    Between images it resamples by average pooling and convolves, 3 × 3; from an image to a vector
    it is dense; from a vector to an image it is dense too, one number for each channel.

    Args:
        source: shape of what it reads.
        target: shape of the result.
        center: what its biases lie around at first.
    """

    def __init__(self, source: Shape, target: Shape, center: float) -> None:
        super().__init__()
        self.target = target
        self.center = center
        self.map: nn.Conv2d | nn.Linear
        if len(source) == len(target) == 3:
            self.map = nn.Conv2d(source[0], target[0], 3, padding=1)
        else:
            self.map = nn.Linear(prod(source), target[0])
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights, and biases around their centre, uniformly within ±1/√fan-in."""
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

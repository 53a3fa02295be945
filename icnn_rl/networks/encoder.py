"""Ordinary networks over images, for inputs in which nothing has to be convex."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.networks.checks import Shape, require_batch_of, require_shape
from icnn_rl.networks.layers import Conv, Dense, Layer, blocks_of
from icnn_rl.networks.normalization import FeatureNorm, batch_norms, reset_norms


@final
class Encoder(nn.Module):
    """A feed-forward network with a ReLU after every convolution and dense layer.

    Args:
        shape: shape of an input, ``(channels, height, width)`` or ``(n,)``.
        layers: for LeNet ``(Conv(20, 5), MaxPool(2), Conv(50, 5), MaxPool(2), Dense(500))``.
        dropout: share of the results of dense layers that is left out at random in training.
        norm: ``"batch"`` for batch normalisation before every ReLU, or ``"none"``.

    Attributes:
        level_shapes: shapes of u₀ = x, u₁ … u_L, the results of the blocks of layers.

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
        require_shape("shape", shape)
        self.dropout = nn.Dropout(dropout)
        self.shape = tuple(shape)
        self.blocks = blocks_of(self.shape, layers)
        self.level_shapes = [self.shape, *(block.shapes()[-1] for block in self.blocks)]
        self.maps = nn.ModuleList(
            nn.Conv2d(b.shape[0], b.layer.channels, b.layer.kernel, b.layer.stride, b.layer.padding)
            if isinstance(b.layer, Conv)
            else nn.Linear(prod(b.shape), b.layer.width)
            for b in self.blocks
        )
        self.norms = batch_norms(norm, (b.shapes()[0] for b in self.blocks), affine=True)

    @property
    def width(self) -> int:
        """Length of the flattened result."""
        return prod(self.level_shapes[-1])

    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly within ±1/√fan-in; forget running moments."""
        for module in self.maps:
            assert isinstance(module, nn.Conv2d | nn.Linear)
            module.reset_parameters()
        reset_norms(self.norms)

    def levels(self, x: Tensor) -> list[Tensor]:
        """u₀ … u_L for x of shape ``(B, *shape)``, each of shape ``(B, *level_shape)``.

        Raises:
            ValueError: x has another shape.
        """
        require_batch_of("x", x, self.shape)
        levels = [x]
        for k, block in enumerate(self.blocks):
            dense = isinstance(block.layer, Dense)
            u = self.maps[k](levels[-1].flatten(1) if dense else levels[-1])
            u = F.relu(self.norms[k](u) if self.norms else u)
            levels.append(self.dropout(u) if dense else block.pooled(u))
        return levels

    def forward(self, x: Tensor) -> Tensor:
        """The last level, flattened, ``(B, width)``."""
        return self.levels(x)[-1].flatten(1)

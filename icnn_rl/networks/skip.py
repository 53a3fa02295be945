"""How an input that skips layers enters a later one."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from icnn_rl.networks.layers import Conv, Dense, Shape

if TYPE_CHECKING:
    import scipy.sparse as sp

    from icnn_rl.functions.linear_program import Array


@final
@dataclass(frozen=True)
class Skip:
    """The linear map from an input to the pre-activations of a layer.

    A dense layer reads the input in full. A convolution reads a vector as constants, one weight for
    each channel and entry; it reads an image as further channels, after average pooling to the
    height and width that the layer itself reads.

    Attributes:
        layer: the layer.
        source: shape of the input.
        target: shape that the layer reads from the layer below.
    """

    layer: Conv | Dense
    source: Shape
    target: Shape

    @property
    def weight_shape(self) -> Shape:
        """Shape of the weight."""
        if isinstance(self.layer, Conv) and len(self.source) == 1:
            return (self.layer.channels, self.source[0])
        return self.layer.weight_shape(self.source)

    def apply(self, y: Tensor, weight: Tensor) -> Tensor:
        """S y for flat y, ``(B, n)``; positions of a convolution may have size one."""
        if isinstance(self.layer, Dense):
            return F.linear(y, weight)
        if len(self.source) == 1:
            return F.linear(y, weight)[..., None, None]
        image = y.unflatten(1, self.source)
        if self._resized:
            down, right = self._resampling(y)
            image = down @ image @ right.mT
        return self.layer.apply(image, weight)

    def adjoint(self, delta: Tensor, weight: Tensor) -> Tensor:
        """Sᵀ δ, flat, ``(B, n)``."""
        if isinstance(self.layer, Dense):
            return delta @ weight
        if len(self.source) == 1:
            return delta.sum((-2, -1)) @ weight
        shape = (self.source[0], *self.target[1:])
        image = self.layer.adjoint(delta, weight, shape)
        if self._resized:
            down, right = self._resampling(delta)
            image = down.mT @ image @ right
        return image.flatten(1)

    def matrix(self, weight: Array) -> sp.csr_array:
        """S as a matrix."""
        import scipy.sparse as sp

        if isinstance(self.layer, Dense):
            return sp.csr_array(weight)
        if len(self.source) == 1:
            positions = prod(self.layer.output_shape(self.target)[1:])
            return sp.csr_array(np.repeat(weight, positions, axis=0))
        channels = self.source[0]
        matrix = self.layer.matrix(weight, (channels, *self.target[1:]))
        if self._resized:
            down, right = (t.numpy() for t in self._resampling(torch.ones(1).double()))
            matrix = matrix @ sp.kron(sp.eye_array(channels), sp.kron(down, right))
        return sp.csr_array(matrix)

    @property
    def _resized(self) -> bool:
        return self.source[1:] != self.target[1:]

    def _resampling(self, like: Tensor) -> list[Tensor]:
        """Matrices that average windows of rows, and of columns."""
        return [
            F.adaptive_avg_pool1d(torch.eye(old, dtype=like.dtype, device=like.device), new).mT
            for old, new in zip(self.source[1:], self.target[1:], strict=True)
        ]

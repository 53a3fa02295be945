"""Layers of networks over images: linear maps L, adjoints Lᵀ for gradients, matrices for LPs.

Shapes are those of one sample; tensors have a batch axis in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from icnn_rl.functions import Array
from icnn_rl.networks.checks import Shape, require_size

if TYPE_CHECKING:
    import scipy.sparse as sp


@dataclass(frozen=True)
class _Layer:
    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            require_size(name, size, least=0 if name == "padding" else 1)

    def _require_image(self, shape: Shape) -> None:
        if len(shape) != 3:
            raise ValueError(
                f"layers: {self} expected an image of shape (channels, height, width), got {shape}"
            )


@final
@dataclass(frozen=True)
class Conv(_Layer):
    """A convolution with square kernels.

    Args:
        channels: of the result.
        kernel: side of the kernel, in pixels.
        stride: step from one position to the next, in pixels.
        padding: rows and columns of zeros put around the image.

    Raises:
        ValueError: a size is below one.
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the result for input of ``shape``."""
        self._require_image(shape)
        sides = tuple((s + 2 * self.padding - self.kernel) // self.stride + 1 for s in shape[1:])
        if min(sides) < 1:
            raise ValueError(f"layers: {self} expected a larger image, got shape {shape}")
        return (self.channels, *sides)

    def weight_shape(self, shape: Shape) -> Shape:
        """Shape of the weight."""
        return (self.channels, shape[0], self.kernel, self.kernel)

    def apply(self, z: Tensor, weight: Tensor) -> Tensor:
        """L z."""
        return F.conv2d(z, weight, stride=self.stride, padding=self.padding)

    def adjoint(self, delta: Tensor, weight: Tensor, shape: Shape) -> Tensor:
        """Lᵀ δ, of ``shape``."""
        unread = [(s + 2 * self.padding - self.kernel) % self.stride for s in shape[1:]]
        return F.conv_transpose2d(
            delta, weight, stride=self.stride, padding=self.padding, output_padding=unread
        )

    def matrix(self, weight: Array, shape: Shape) -> sp.csr_array:
        """L as a matrix between flattened images."""
        import scipy.sparse as sp

        numbered = torch.arange(1.0, 1 + prod(shape), dtype=torch.float64).view(1, *shape)
        patches = F.unfold(numbered, self.kernel, padding=self.padding, stride=self.stride)
        columns = patches[0].long().numpy() - 1  # entry of the input, -1 where padded
        positions = columns.shape[1]
        rows = np.arange(self.channels * positions).reshape(self.channels, 1, positions)
        data = weight.reshape(self.channels, -1, 1)
        rows, columns, data = np.broadcast_arrays(rows, columns, data)
        inside = columns >= 0
        places = rows[inside], columns[inside]
        return sp.csr_array((data[inside], places), shape=(rows.max() + 1, prod(shape)))


@final
@dataclass(frozen=True)
class Dense(_Layer):
    """A fully connected layer with a result of length ``width``; it flattens what it reads."""

    width: int

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the result for input of ``shape``."""
        return (self.width,)

    def weight_shape(self, shape: Shape) -> Shape:
        """Shape of the weight."""
        return (self.width, prod(shape))

    def apply(self, z: Tensor, weight: Tensor) -> Tensor:
        """L z."""
        return F.linear(z.flatten(1), weight)

    def adjoint(self, delta: Tensor, weight: Tensor, shape: Shape) -> Tensor:
        """Lᵀ δ, of ``shape``."""
        return (delta @ weight).view(-1, *shape)

    def matrix(self, weight: Array, shape: Shape) -> sp.csr_array:
        """L as a matrix between flattened vectors."""
        import scipy.sparse as sp

        return sp.csr_array(weight)


@dataclass(frozen=True)
class _Pool(_Layer):
    size: int

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the result for input of ``shape``."""
        self._require_image(shape)
        channels, height, width = shape
        if height % self.size or width % self.size:
            raise ValueError(
                f"layers: {self} expected height and width that it divides, got shape {shape}"
            )
        return (channels, height // self.size, width // self.size)

    def pieces(self, shape: Shape) -> list[sp.csr_array]:
        """Matrices M with result = max M z: here the entries at each place in a window."""
        import scipy.sparse as sp

        units, numbered = sp.eye_array(prod(shape), format="csr"), np.arange(prod(shape))
        places = np.ndindex(self.size, self.size)
        return [
            units[numbered.reshape(shape)[:, i :: self.size, j :: self.size].ravel()]
            for i, j in places
        ]


@final
@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest entry of each window, of ``size`` by ``size`` pixels; windows tile the image."""

    def apply(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """The result, and where in the image its entries were."""
        result: tuple[Tensor, Tensor] = F.max_pool2d(z, self.size, return_indices=True)
        return result

    def adjoint(self, delta: Tensor, where: Tensor | None) -> Tensor:
        """The entries of δ back where they were taken from."""
        assert where is not None
        return F.max_unpool2d(delta, where, [self.size, self.size])


@final
@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window, of ``size`` by ``size`` pixels; windows tile the image."""

    def apply(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """The result; there is nothing to remember."""
        return F.avg_pool2d(z, self.size), None

    def adjoint(self, delta: Tensor, where: Tensor | None) -> Tensor:
        """δ spread evenly over the windows."""
        return F.interpolate(delta, scale_factor=float(self.size)) / self.size**2

    def pieces(self, shape: Shape) -> list[sp.csr_array]:
        """Matrices M with result = max M z: here just one."""
        return [sum(super().pieces(shape)) / self.size**2]


Layer = Conv | Dense | MaxPool | AveragePool


@final
@dataclass(frozen=True)
class Block:
    """A convolution or dense layer that reads ``shape``, and the pools that follow it."""

    layer: Conv | Dense
    shape: Shape
    pools: tuple[MaxPool | AveragePool, ...] = ()

    def shapes(self) -> list[Shape]:
        """Shapes of the results of the layer and of each pool."""
        shapes = [self.layer.output_shape(self.shape)]
        for pool in self.pools:
            shapes.append(pool.output_shape(shapes[-1]))
        return shapes

    def pooled(self, z: Tensor) -> Tensor:
        """The result of the pools for that of the layer."""
        for pool in self.pools:
            z = pool.apply(z)[0]
        return z


def blocks_of(shape: Shape, layers: Sequence[Layer]) -> list[Block]:
    """The layers in blocks, for an input of ``shape``."""
    blocks: list[Block] = []
    for layer in layers:
        if isinstance(layer, Conv | Dense):
            blocks.append(Block(layer, blocks[-1].shapes()[-1] if blocks else shape))
        elif blocks:
            blocks[-1] = replace(blocks[-1], pools=(*blocks[-1].pools, layer))
        else:
            raise ValueError(f"layers: expected a Conv or Dense first, got {tuple(layers)}")
    return blocks

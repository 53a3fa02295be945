"""Layers of networks over images: what a user writes down, and the linear maps behind it.

The shape of what a layer reads is ``(channels, height, width)``, or ``(n,)`` for a vector; tensors
have a batch axis in front. A layer knows its map, the map's adjoint (for gradients without an
autograd tape), and its matrix (for linear programs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    import scipy.sparse as sp

    from icnn_rl.functions.linear_program import Array

Shape = tuple[int, ...]


@final
@dataclass(frozen=True)
class Conv:
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

    def __post_init__(self) -> None:
        require_positive(self, self.channels, self.kernel, self.stride, self.padding + 1)

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the result for input of ``shape``."""
        require_image(self, shape)
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
        height, width = ((s + 2 * self.padding - self.kernel) % self.stride for s in shape[1:])
        return F.conv_transpose2d(
            delta,
            weight,
            stride=self.stride,
            padding=self.padding,
            output_padding=(height, width),
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
        return sp.csr_array(
            (data[inside], (rows[inside], columns[inside])),
            shape=(self.channels * positions, prod(shape)),
        )


@final
@dataclass(frozen=True)
class Dense:
    """A fully connected layer; it flattens what it reads.

    Args:
        width: length of the result.

    Raises:
        ValueError: the width is below one.
    """

    width: int

    def __post_init__(self) -> None:
        require_positive(self, self.width)

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
class _Pool:
    """What the two kinds of pooling share."""

    size: int

    def __post_init__(self) -> None:
        require_positive(self, self.size)

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the result for input of ``shape``."""
        require_image(self, shape)
        channels, height, width = shape
        if height % self.size or width % self.size:
            raise ValueError(
                f"layers: {self} expected height and width that it divides, got shape {shape}"
            )
        return (channels, height // self.size, width // self.size)

    def entries(self, shape: Shape) -> list[sp.csr_array]:
        """For each place in a window, the matrix that picks the entries there."""
        import scipy.sparse as sp

        channels, height, width = self.output_shape(shape)
        tiles = np.arange(prod(shape)).reshape(channels, height, self.size, width, self.size)
        columns = tiles.transpose(2, 4, 0, 1, 3).reshape(self.size**2, -1)
        count = columns.shape[1]
        return [
            sp.csr_array((np.ones(count), (np.arange(count), c)), shape=(count, prod(shape)))
            for c in columns
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

    def pieces(self, shape: Shape) -> list[sp.csr_array]:
        """Matrices M with result = max M z."""
        return self.entries(shape)


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
        entries = self.entries(shape)
        return [sum(entries[1:], entries[0]) / len(entries)]


Layer = Conv | Dense | MaxPool | AveragePool


def shapes_along(shape: Shape, layers: Sequence[Layer]) -> list[Shape]:
    """The shape that each layer reads, and that of the result, for input of ``shape``.

    Raises:
        ValueError: a layer does not fit the shape it is to read.
    """
    shapes = [shape]
    for layer in layers:
        shapes.append(layer.output_shape(shapes[-1]))
    return shapes


def require_positive(layer: Layer | _Pool, *sizes: int) -> None:
    """Refuse a layer with a size below one."""
    if min(sizes) < 1:
        raise ValueError(f"layers: expected sizes >= 1, got {layer}")


def require_image(layer: Layer | _Pool, shape: Shape) -> None:
    """Refuse a vector where a layer is to read an image."""
    if len(shape) != 3:
        raise ValueError(
            f"layers: {layer} expected an image of shape (channels, height, width), got {shape}"
        )


def require_batch_of(name: str, t: Tensor, shape: Shape) -> None:
    """Refuse a tensor that is no batch of a shape."""
    if t.shape[1:] != shape:
        expected = ", ".join(map(str, ("batch", *shape)))
        raise ValueError(f"{name}: expected shape ({expected}), got {tuple(t.shape)}")

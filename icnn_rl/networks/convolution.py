"""The convex path over images: its weights, and its functions of y for a given x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from math import prod
from typing import TYPE_CHECKING, final

import torch
import torch.nn.functional as F
from torch import Tensor

from icnn_rl.functions import (
    AffineMap,
    Array,
    ConvexFunction,
    LinearProgram,
    common_shape,
    to_array,
)
from icnn_rl.networks.activations import Activation
from icnn_rl.networks.checks import Shape, require_points
from icnn_rl.networks.conditioned import gated
from icnn_rl.networks.convex_path import NonNegativeWeights, NonNegativity
from icnn_rl.networks.layers import Block, Conv, Dense, Layer, blocks_of

if TYPE_CHECKING:
    import scipy.sparse as sp


@final
@dataclass(frozen=True)
class Skip:
    """The linear map S from an input to the pre-activations of a layer.

    A dense layer reads the input in full. A convolution reads a vector as constants, one weight for
    each channel and entry; it reads an image as further channels, after average pooling to the
    height and width of its own input.

    Attributes:
        layer: the layer.
        source: shape of the input.
        target: shape of the layer's own input, the result of the layer below.
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
            down, right = self._averages(y)
            image = down @ image @ right.mT
        return self.layer.apply(image, weight)

    def adjoint(self, delta: Tensor, weight: Tensor) -> Tensor:
        """Sᵀ δ, flat, ``(B, n)``."""
        if isinstance(self.layer, Dense):
            return delta @ weight
        if len(self.source) == 1:
            return delta.sum((-2, -1)) @ weight
        image = self.layer.adjoint(delta, weight, (self.source[0], *self.target[1:]))
        if self._resized:
            down, right = self._averages(delta)
            image = down.mT @ image @ right
        return image.flatten(1)

    def matrix(self, weight: Tensor) -> sp.csr_array:
        """S as a matrix; its columns are the results for unit vectors."""
        import scipy.sparse as sp

        units = torch.eye(prod(self.source), dtype=torch.float64)
        weight = weight.detach().cpu().double()
        shape = self.layer.output_shape(self.target)
        parts = [self.apply(y, weight).expand(-1, *shape).flatten(1) for y in units.split(256)]
        return sp.csr_array(sp.vstack([sp.csr_array(to_array(part)) for part in parts]).T)

    @property
    def _resized(self) -> bool:
        return self.source[1:] != self.target[1:]

    def _averages(self, like: Tensor) -> list[Tensor]:
        """Matrices that average windows of rows, and of columns."""
        return [
            F.adaptive_avg_pool1d(torch.eye(old, dtype=like.dtype, device=like.device), new).mT
            for old, new in zip(self.source[1:], self.target[1:], strict=True)
        ]


@final
@dataclass(frozen=True)
class Stage:
    """A layer of the path with its gates and biases, and the pools after it.

        z' = pools(σ(t)),      t = bias + Σᵢ Sᵢ(yᵢ ∘ gate_y) + L(z ∘ gate_z),      L ≥ 0, gate_z ≥ 0

    ``activation`` is None for the identity, a weight where its input does not enter, a gate where
    all pass. Gates and biases broadcast to z and t; ``gate_y`` is flat, for a single input.
    """

    block: Block
    skips: tuple[Skip, ...]
    activation: Activation | None
    weight_z: Tensor | None
    weight_y: tuple[Tensor | None, ...]
    gate_z: Tensor | None
    gate_y: Tensor | None
    bias: Tensor

    def forward(self, z: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
        """z', and the tape for ``backward``: t, and where pools took their entries."""
        t = self.bias
        for skip, y, weight in zip(self.skips, inputs, self.weight_y, strict=True):
            if weight is not None:
                t = t + skip.apply(gated(y, self.gate_y), weight)
        if self.weight_z is not None:
            t = t + self.block.layer.apply(gated(z, self.gate_z), self.weight_z)
        t = t.expand(-1, *self.block.shapes()[0])
        tape: list[Tensor | None] = [t]
        z = t if self.activation is None else self.activation.value(t)
        for pool in self.block.pools:
            z, where = pool.apply(z)
            tape.append(where)
        return z, tape

    def backward(self, delta: Tensor, tape: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """∂f/∂z and the stage's share of ∂f/∂y, given δ = ∂f/∂z'."""
        t, *places = tape
        for pool, where in zip(reversed(self.block.pools), reversed(places), strict=True):
            delta = pool.adjoint(delta, where)
        if self.activation is not None and t is not None:
            delta = delta * self.activation.slope(t)
        parts = [
            delta.new_zeros(len(delta), prod(s.source)) if w is None else s.adjoint(delta, w)
            for s, w in zip(self.skips, self.weight_y, strict=True)
        ]
        if self.weight_z is not None:
            delta = self.block.layer.adjoint(delta, self.weight_z, self.block.shape)
            delta = gated(delta, self.gate_z)
        return delta, gated(torch.cat(parts, -1), self.gate_y)

    def take(self, index: Tensor) -> Stage:
        """The stage for the samples at ``index``."""

        def rows(t: Tensor | None) -> Tensor | None:
            return t if t is None or len(t) == 1 else t.index_select(0, index)

        bias = rows(self.bias)
        assert bias is not None
        return replace(self, gate_z=rows(self.gate_z), gate_y=rows(self.gate_y), bias=bias)

    def to_maps(self, sample: int) -> list[list[AffineMap]]:
        """The layer, and each pool, of one sample: affine maps of (y, z) with z' their maximum."""
        import scipy.sparse as sp

        shape, layer, read = self.block.shapes()[0], self.block.layer, self.block.shape

        def of_sample(t: Tensor, shape: Shape) -> Array:
            return to_array(t[min(sample, len(t) - 1)].expand(shape).flatten())

        of_y = sp.hstack(
            [
                sp.csr_array((prod(shape), prod(skip.source))) if w is None else skip.matrix(w)
                for skip, w in zip(self.skips, self.weight_y, strict=True)
            ]
        )
        if self.gate_y is not None:
            of_y = of_y * of_sample(self.gate_y, self.gate_y.shape[1:])
        of_z = None
        if self.weight_z is not None:
            of_z = layer.matrix(to_array(self.weight_z), read)
            if self.gate_z is not None:
                of_z = of_z * of_sample(self.gate_z, read)
        offset = of_sample(self.bias, shape)
        slopes = (1.0,) if self.activation is None else (1.0, self.activation.leak)
        maps: list[list[AffineMap]] = [
            [(s * of_y, None if of_z is None else s * of_z, s * offset) for s in slopes]
        ]
        for pool, read in zip(self.block.pools, self.block.shapes(), strict=False):
            maps.append([(None, piece, 0.0) for piece in pool.pieces(read)])
        return maps


@final
@dataclass(eq=False)
class ConditionedConvolution(ConvexFunction):
    """The convex path of a convolutional network, its gates and biases computed.

    y is flat: its inputs yᵢ, images or vectors, one after the other. One evaluation is one forward
    and one backward pass; there is no Hessian, so ``smooth`` is False for every σ.

    Attributes:
        activation: σ.
        stages: the layers; the last gives f(y), of width one and without σ.
        sizes: lengths of the inputs yᵢ, flat.
        batched: whether ``batch_shape`` shows the batch axis.
    """

    activation: Activation
    stages: tuple[Stage, ...]
    sizes: tuple[int, ...]
    batched: bool
    dim: int = field(init=False)
    smooth = False

    def __post_init__(self) -> None:
        self.like = self.stages[-1].bias
        self.dim = sum(self.sizes)
        self.batch_shape = self.like.shape[:1] if self.batched else torch.Size()
        self.piecewise_linear = self.activation.piecewise_linear

    def _forward(self, y: Tensor) -> tuple[Tensor, list[list[Tensor | None]]]:
        """f(y), of the batch that y and the function share, and the stages' tapes."""
        require_points(y, self.dim)
        batch = common_shape(self.batch_shape, y.shape[:-1])
        inputs = y.expand(*batch, self.dim).reshape(batch.numel(), self.dim).split(self.sizes, -1)
        z, tapes = y, []
        for stage in self.stages:
            z, tape = stage.forward(z, inputs)
            tapes.append(tape)
        return z.view(batch), tapes

    def value(self, y: Tensor) -> Tensor:
        return self._forward(y)[0]

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        value, tapes = self._forward(y)
        delta = torch.ones_like(value).view(-1, 1)
        delta, total = self.stages[-1].backward(delta, tapes[-1])
        for stage, tape in zip(self.stages[-2::-1], tapes[-2::-1], strict=True):
            delta, gradient = stage.backward(delta, tape)
            total = total + gradient
        return value, total.view(*value.shape, self.dim)

    def take(self, index: Tensor) -> ConditionedConvolution:
        return replace(self, stages=tuple(stage.take(index) for stage in self.stages))

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        (sample,) = index or (0,)
        *hidden, (output,) = [maps for s in self.stages for maps in s.to_maps(sample)]
        return LinearProgram.network(self.dim, hidden, output)


@final
class ConvolutionalPath(NonNegativeWeights):
    """Layers k = 0 … K with weights Wₖᶻ ≥ 0, the last a dense one of width one.

    Attributes:
        blocks: the convolutions and dense layers with the pools after them, k = 0 … K.
    """

    def __init__(
        self,
        shape: Shape,
        layers: Sequence[Layer],
        activation_name: str,
        nonnegativity: NonNegativity,
    ) -> None:
        if not layers:
            raise ValueError("layers: expected a Conv or Dense first, got none")
        blocks = blocks_of(shape, (*layers, Dense(1)))
        shapes = [block.layer.weight_shape(block.shape) for block in blocks[1:]]
        super().__init__(shapes, [prod(s[1:]) for s in shapes], activation_name, nonnegativity)
        self.blocks = blocks

    def skips(self, source: Shape) -> list[Skip]:
        """How an input of a shape enters each layer."""
        return [Skip(block.layer, source, block.shape) for block in self.blocks]

    def function(
        self,
        sources: Sequence[Shape],
        weight_y: Sequence[tuple[Tensor | None, ...]],
        bias: Sequence[Tensor],
        gate_z: Sequence[Tensor | None] = (),
        gate_y: Sequence[Tensor | None] = (),
        weight_z: Sequence[Tensor] | None = None,
        *,
        batched: bool,
    ) -> ConditionedConvolution:
        """The path, or its end, as convex functions of inputs of the shapes ``sources``.

        Lists have an entry for each layer, see ``Stage``, or for each of the last layers: then the
        first bias includes the results of the layers before. ``weight_z`` has all layers but the
        first; None stands for ``weight_z()``.
        """
        first, last = len(self.blocks) - len(bias), len(self.blocks) - 1
        weights = self.weight_z() if weight_z is None else weight_z
        parts = zip(
            range(first, last + 1),
            zip(*(self.skips(source)[first:] for source in sources), strict=True),
            (None, *weights[first:]),
            weight_y,
            chain(gate_z, repeat(None)),
            chain(gate_y, repeat(None)),
            bias,
            strict=False,
        )
        stages = [
            Stage(self.blocks[k], skips, None if k == last else self.activation, *tensors)
            for k, skips, *tensors in parts
        ]
        sizes = tuple(prod(source) for source in sources)
        return ConditionedConvolution(self.activation, tuple(stages), sizes, batched)

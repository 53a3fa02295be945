"""The links of a convex path over images, its gates and biases computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Protocol, Self, final

import torch
from torch import Tensor

from icnn_rl.networks.activations import Activation
from icnn_rl.networks.layers import AveragePool, Conv, Dense, MaxPool, Shape
from icnn_rl.networks.skip import Skip

if TYPE_CHECKING:
    from icnn_rl.functions.linear_program import AffineMap, Array


class Stage(Protocol):
    """A map (z, y) ↦ z' that is convex, and non-decreasing in z."""

    def forward(self, z: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """z', and what ``backward`` needs to know; the first stage does not read z."""

    def backward(self, delta: Tensor, saved: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """∂f/∂z and, where the stage reads y, its share of ∂f/∂y, given δ = ∂f/∂z'."""

    def take(self, index: Tensor) -> Self:
        """The stage for the samples at ``index``."""

    def pieces(self, sample: int) -> list[AffineMap]:
        """Affine maps of (y, z) with z' = their maximum, for one sample."""


@final
@dataclass(frozen=True)
class AffineStage:
    """z' = σ(t),  t = L(z ∘ gate_z) + Σᵢ Sᵢ(yᵢ ∘ gate_y) + bias,  L ≥ 0, gate_z ≥ 0.

    Attributes:
        layer: L, a convolution or a dense layer.
        shape: shape of z.
        skips: the maps Sᵢ, one for each input.
        activation: σ; None for the identity.
        weight_z: the weight of L; None for the first stage, where there is no z.
        weight_y: the weights of Sᵢ; None where yᵢ does not enter.
        gate_z: of the shape of z, or what broadcasts to it; None for none.
        gate_y: of the shape of the only input, flat; None for none.
        bias: of the shape of t, or what broadcasts to it.
    """

    layer: Conv | Dense
    shape: Shape
    skips: tuple[Skip, ...]
    activation: Activation | None
    weight_z: Tensor | None
    weight_y: tuple[Tensor | None, ...]
    gate_z: Tensor | None
    gate_y: Tensor | None
    bias: Tensor

    def forward(self, z: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        t = self.bias
        for skip, y, weight in zip(self.skips, inputs, self.weight_y, strict=True):
            if weight is not None:
                t = t + skip.apply(y if self.gate_y is None else y * self.gate_y, weight)
        if self.weight_z is not None:
            t = t + self.layer.apply(z if self.gate_z is None else z * self.gate_z, self.weight_z)
        t = t.expand(-1, *self.layer.output_shape(self.shape))
        return (t if self.activation is None else self.activation.value(t)), t

    def backward(self, delta: Tensor, saved: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.activation is not None and saved is not None:
            delta = delta * self.activation.slope(saved)
        parts = [
            delta.new_zeros(len(delta), prod(s.source)) if w is None else s.adjoint(delta, w)
            for s, w in zip(self.skips, self.weight_y, strict=True)
        ]
        gradient = torch.cat(parts, -1)
        if self.gate_y is not None:
            gradient = gradient * self.gate_y
        if self.weight_z is not None:
            delta = self.layer.adjoint(delta, self.weight_z, self.shape)
            if self.gate_z is not None:
                delta = delta * self.gate_z
        return delta, gradient

    def take(self, index: Tensor) -> AffineStage:
        def rows(t: Tensor | None) -> Tensor | None:
            return t if t is None or len(t) == 1 else t.index_select(0, index)

        bias = rows(self.bias)
        assert bias is not None
        return replace(self, gate_z=rows(self.gate_z), gate_y=rows(self.gate_y), bias=bias)

    def pieces(self, sample: int) -> list[AffineMap]:
        import scipy.sparse as sp

        def array(t: Tensor) -> Array:
            return t.detach().cpu().double().numpy()

        def own(t: Tensor, shape: Shape) -> Array:
            return array(t[min(sample, len(t) - 1)].expand(shape).flatten())

        rows = prod(self.layer.output_shape(self.shape))
        of_y = sp.hstack(
            [
                sp.csr_array((rows, prod(s.source))) if w is None else s.matrix(array(w))
                for s, w in zip(self.skips, self.weight_y, strict=True)
            ]
        )
        if self.gate_y is not None:
            of_y = of_y * own(self.gate_y, self.gate_y.shape[1:])
        of_z = None
        if self.weight_z is not None:
            of_z = self.layer.matrix(array(self.weight_z), self.shape)
            if self.gate_z is not None:
                of_z = of_z * own(self.gate_z, self.shape)
        bias = own(self.bias, self.layer.output_shape(self.shape))
        slopes = (1.0,) if self.activation is None else (1.0, self.activation.leak)
        return [(s * of_y, None if of_z is None else s * of_z, s * bias) for s in slopes]


@final
@dataclass(frozen=True)
class PoolStage:
    """z' = the maximum, or the mean, over windows of z.

    Attributes:
        pool: which of them.
        shape: shape of z.
    """

    pool: MaxPool | AveragePool
    shape: Shape

    def forward(self, z: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        return self.pool.apply(z)

    def backward(self, delta: Tensor, saved: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.pool.adjoint(delta, saved), None

    def take(self, index: Tensor) -> PoolStage:
        return self

    def pieces(self, sample: int) -> list[AffineMap]:
        return [(None, matrix, 0.0) for matrix in self.pool.pieces(self.shape)]

"""The convex path over images: its layers, and their weights on the layer below."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

from torch import Tensor

from icnn_rl.networks.activations import activation
from icnn_rl.networks.conditioned_convolution import ConditionedConvolution
from icnn_rl.networks.initialization import NonNegativeInit
from icnn_rl.networks.layers import Conv, Dense, Layer, Shape, shapes_along
from icnn_rl.networks.non_negative import NonNegativeWeights, NonNegativity
from icnn_rl.networks.skip import Skip
from icnn_rl.networks.stages import AffineStage, PoolStage, Stage


@final
class ConvolutionalPath(NonNegativeWeights):
    """Layers k = 0 … K with weights Wₖᶻ ≥ 0, the last a dense one of width one.

    Args:
        shape: what the first layer reads, ``(channels, height, width)``.
        layers: convolutions, pools and dense layers; the first is not a pool.
        activation_name: the name of σ.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.

    Attributes:
        affine: the convolutions and dense layers with the shapes they read, k = 0 … K.

    Raises:
        ValueError: a layer does not fit the shape it is to read, or a name is unknown.
    """

    def __init__(
        self,
        shape: Shape,
        layers: Sequence[Layer],
        activation_name: str,
        nonnegativity: NonNegativity,
    ) -> None:
        if not layers or not isinstance(layers[0], Conv | Dense):
            raise ValueError(f"layers: expected a Conv or Dense first, got {tuple(layers)}")
        every = (*layers, Dense(1))
        reads = shapes_along(shape, every)
        steps = list(zip(every, reads, strict=False))
        affine = [(layer, read) for layer, read in steps if isinstance(layer, Conv | Dense)]
        self._affine_steps = [
            i for i, (layer, _) in enumerate(steps) if isinstance(layer, Conv | Dense)
        ]
        super().__init__([layer.weight_shape(read) for layer, read in affine[1:]], nonnegativity)
        self.affine = affine
        self.steps = steps
        self.activation = activation(activation_name)

    def reset_parameters(self) -> None:
        """Draw Wᶻ as Hoedt & Klambauer do."""
        self.draw_(self._init(k) for k in range(1, len(self.affine)))

    def bias_init(self, k: int) -> float:
        """The bias that centres layer k, given that its weights on z are positive."""
        return 0.0 if k == 0 else self._init(k).bias

    def affine_index(self, step: int) -> int:
        """k of the layer at an index, which may count from the last of the layers given, -1.

        Raises:
            ValueError: there is no such layer, or it is a pool.
        """
        layers = [layer for layer, _ in self.steps[:-1]]
        if not -len(layers) <= step < len(layers) or not isinstance(layers[step], Conv | Dense):
            raise ValueError(f"expected the index of a Conv or Dense in layers, got {step}")
        return self._affine_steps.index(step % len(layers))

    def pooled(self, k: int, z: Tensor) -> Tensor:
        """What layer k > 0 reads, given what layer k - 1 gives."""
        for pool, _ in self.steps[self._affine_steps[k - 1] + 1 : self._affine_steps[k]]:
            assert not isinstance(pool, Conv | Dense)
            z = pool.apply(z)[0]
        return z

    def skips(self, source: Shape) -> list[Skip]:
        """How an input of a shape enters each layer."""
        return [Skip(layer, source, read) for layer, read in self.affine]

    def function(
        self,
        sources: Sequence[Shape],
        weight_y: Sequence[tuple[Tensor | None, ...]],
        bias: Sequence[Tensor],
        gate_z: Sequence[Tensor | None] | None = None,
        gate_y: Sequence[Tensor] | None = None,
        weight_z: Sequence[Tensor] | None = None,
        *,
        batched: bool,
    ) -> ConditionedConvolution:
        """The path, or its end, as convex functions of inputs of some shapes.

        There is an entry for each layer, or for each of the last ones: then the first bias has what
        the layers before them give.

        Args:
            sources: shapes of the inputs yᵢ.
            weight_y: for each layer, one weight for each input; None where it does not enter.
            bias: for each layer.
            gate_z: for each layer, None for none.
            gate_y: for each layer.
            weight_z: for each layer but the first of all; None for ``weight_z()``.
            batched: whether biases and gates have a sample each.
        """
        first = len(self.affine) - len(bias)
        weights = (self.weight_z() if weight_z is None else weight_z)[first:]
        of_z = (None, *weights)
        skips = list(zip(*(self.skips(source)[first:] for source in sources), strict=True))
        stages: list[Stage] = []
        k = 0
        for layer, read in self.steps[self._affine_steps[first] :]:
            if isinstance(layer, Conv | Dense):
                last = k == len(bias) - 1
                stages.append(
                    AffineStage(
                        layer=layer,
                        shape=read,
                        skips=skips[k],
                        activation=None if last else self.activation,
                        weight_z=of_z[k],
                        weight_y=weight_y[k],
                        gate_z=None if gate_z is None else gate_z[k],
                        gate_y=None if gate_y is None else gate_y[k],
                        bias=bias[k],
                    )
                )
                k += 1
            else:
                stages.append(PoolStage(layer, read))
        *hidden, output = stages
        assert isinstance(output, AffineStage)
        return ConditionedConvolution(
            activation=self.activation,
            hidden=tuple(hidden),
            output=output,
            sizes=tuple(prod(source) for source in sources),
            batched=batched,
        )

    def _init(self, k: int) -> NonNegativeInit:
        layer, read = self.affine[k]
        return NonNegativeInit.for_fan_in(prod(layer.weight_shape(read)[1:]), self.activation.leak)

"""What is left of a convolutional network once x is fixed: a batch of convex functions of y."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction, common_shape, own_index
from icnn_rl.networks.activations import Activation
from icnn_rl.networks.stages import AffineStage, Stage

if TYPE_CHECKING:
    from icnn_rl.functions.linear_program import LinearProgram


@final
@dataclass(frozen=True)
class ConditionedConvolution(ConvexFunction):
    """The convex path of a convolutional network, its gates and biases computed.

        f(y) = t_K,      zₖ₊₁ = σ(tₖ) or a pool of zₖ,
        tₖ = Lₖ(zₖ ∘ gate) + Σᵢ Sₖᵢ(yᵢ ∘ gate) + biasₖ,      Lₖ ≥ 0, gates of z ≥ 0

    y is flat: its inputs yᵢ, images or vectors, one after the other. One evaluation is one forward
    and one backward pass; there is no Hessian, so ``smooth`` is False for every σ.

    Attributes:
        activation: σ.
        hidden: the stages z₁, z₂, …
        output: the last stage, of width one and without σ.
        sizes: lengths of the inputs yᵢ, flat.
        batched: whether ``batch_shape`` shows the batch axis.
    """

    activation: Activation
    hidden: tuple[Stage, ...]
    output: AffineStage
    sizes: tuple[int, ...]
    batched: bool
    smooth = False

    @property
    def dim(self) -> int:
        return sum(self.sizes)

    @property
    def batch_shape(self) -> torch.Size:
        return self.output.bias.shape[:1] if self.batched else torch.Size()

    @property
    def like(self) -> Tensor:
        return self.output.bias

    @property
    def piecewise_linear(self) -> bool:
        return self.activation.piecewise_linear

    def _forward(self, y: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """f(y), of the batch that y and the function share, and what the way back needs."""
        if y.shape[-1:] != (self.dim,):
            raise ValueError(
                f"y: expected a last axis of {self.dim}, the dimension of the function; "
                f"got shape {tuple(y.shape)}"
            )
        batch = common_shape(self.batch_shape, y.shape[:-1])
        inputs = y.expand(*batch, self.dim).reshape(batch.numel(), self.dim).split(self.sizes, -1)
        z, tape = y, []
        for stage in self.hidden:
            z, saved = stage.forward(z, inputs)
            tape.append(saved)
        return self.output.forward(z, inputs)[0].view(batch), tape

    def value(self, y: Tensor) -> Tensor:
        return self._forward(y)[0]

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        value, tape = self._forward(y)
        delta, total = self.output.backward(torch.ones_like(value).view(-1, 1), None)
        assert total is not None
        for stage, saved in zip(reversed(self.hidden), reversed(tape), strict=True):
            delta, gradient = stage.backward(delta, saved)
            if gradient is not None:
                total = total + gradient
        return value, total.view(*value.shape, self.dim)

    def take(self, index: Tensor) -> ConditionedConvolution:
        hidden = tuple(stage.take(index) for stage in self.hidden)
        return replace(self, hidden=hidden, output=self.output.take(index))

    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        if not self.piecewise_linear:
            return super().to_lp(index)
        from icnn_rl.functions.linear_program import LinearProgram

        sample = own_index(index, self.batch_shape)[0] if self.batched else 0
        (output,) = self.output.pieces(sample)
        return LinearProgram.network(self.dim, [s.pieces(sample) for s in self.hidden], output)

"""A network at fixed x: a batch of small convex functions of y."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from icnn_rl.functions import AffineMap, ConvexFunction, LinearProgram, common_shape, to_array
from icnn_rl.networks.activations import Activation
from icnn_rl.networks.checks import require_points


def gated(t: Tensor, gate: Tensor | None) -> Tensor:
    """t ∘ gate; None is a gate of ones."""
    return t if gate is None else t * gate


@final
@dataclass(eq=False)
class ConditionedNetwork(ConvexFunction):
    """The convex path of a network, its gates and biases computed.

        z₁ = σ(W₀ʸ (y ∘ g₀ʸ) + b₀)
        zₖ₊₁ = σ(Wₖᶻ (zₖ ∘ gₖᶻ) + Wₖʸ (y ∘ gₖʸ) + bₖ),      Wₖᶻ ≥ 0, gₖᶻ ≥ 0
        f(y) = the last layer, of width one and without σ

    One evaluation is one forward and one backward pass over this path alone. Every tensor carries
    an ensemble axis E and a batch axis B, either of which may be 1.

    Attributes:
        activation: σ.
        weight_z: Wₖᶻ transposed, k = 1 … K, each ``(E, nₖ, nₖ₊₁)``; the last has one column.
        weight_y: Wₖʸ transposed, k = 0 … K, each ``(E, n, nₖ₊₁)``.
        gate_z: gₖᶻ, k = 1 … K, each ``(E, B, nₖ)``; None where there are no gates.
        gate_y: all gₖʸ, shape ``(E, B, K + 1, n)``; None where there are no gates.
        bias: bₖ, k = 0 … K, each ``(E, B, nₖ₊₁)``.
        ensemble: whether ``batch_shape`` shows the ensemble axis.
        batched: whether ``batch_shape`` shows the batch axis.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, equation 3.
    """

    activation: Activation
    weight_z: tuple[Tensor, ...]
    weight_y: tuple[Tensor, ...]
    gate_z: tuple[Tensor, ...] | None
    gate_y: Tensor | None
    bias: tuple[Tensor, ...]
    ensemble: bool
    batched: bool
    dim: int = field(init=False)

    def __post_init__(self) -> None:
        self.like = self.bias[0]
        members, batch, _ = self.like.shape
        self.batch_shape = torch.Size([members] * self.ensemble + [batch] * self.batched)
        self.dim = self.weight_y[0].shape[-2]
        self.piecewise_linear = self.activation.piecewise_linear
        self.smooth = not self.piecewise_linear
        self._gates = self.gate_z or (None,) * len(self.weight_z)

    @property
    def level(self) -> Tensor:
        """The last layer's bias, the part of f that y does not enter, of shape ``batch_shape``."""
        return self.bias[-1].reshape(self.batch_shape)

    @cached_property
    def _output_z(self) -> Tensor:
        """The last layer's weights with their gates, shape ``(E, B or 1, n_K)``."""
        with torch.enable_grad():  # later uses may need gradients
            return gated(self.weight_z[-1].mT, self._gates[-1])

    def _lift(self, y: Tensor) -> Tensor:
        """Points as ``(E, B, n)``."""
        require_points(y, self.dim)
        members, batch, _ = self.bias[0].shape
        if not (self.ensemble and y.dim() == 3):
            y = y.reshape(1, -1, self.dim)
        return y.expand(members, max(batch, y.shape[1]), self.dim)

    def _drop(self, t: Tensor, y: Tensor, trailing: int) -> Tensor:
        """A result of shape ``(E, B, …)`` in the shape that y and the function share."""
        if self.ensemble:
            return t
        batch = common_shape(self.batch_shape, y.shape[:-1])
        return t[0].reshape(batch + t.shape[t.dim() - trailing :])

    def _forward(self, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """f(y), ``(E, B)``, and the pre-activations of the hidden layers."""
        layers = gated(y.unsqueeze(-2), self.gate_y).expand(-1, -1, len(self.bias), -1).unbind(-2)
        t = torch.baddbmm(self.bias[0], layers[0], self.weight_y[0])
        pre = [t]
        for k in range(1, len(self.bias) - 1):
            z = gated(self.activation.value(t), self._gates[k - 1])
            t = torch.baddbmm(self.bias[k], layers[k], self.weight_y[k])
            t = torch.baddbmm(t, z, self.weight_z[k - 1])
            pre.append(t)
        linear = torch.baddbmm(self.bias[-1], layers[-1], self.weight_y[-1]).squeeze(-1)
        return linear + (self.activation.value(t) * self._output_z).sum(-1), pre

    def _adjoints(self, slopes: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """∂f/∂zₖ and ∂f/∂tₖ₋₁, k = 1 … K, each ``(E, B, nₖ)``."""
        by_z = [self._output_z]
        by_t = [by_z[0] * slopes[-1]]
        for k in range(len(slopes) - 1, 0, -1):
            by_z.append(gated(by_t[-1] @ self.weight_z[k - 1].mT, self._gates[k - 1]))
            by_t.append(by_z[-1] * slopes[k - 1])
        return by_z[::-1], by_t[::-1]

    @cached_property
    def _skip(self) -> tuple[Tensor, ...]:
        """∂tₖ/∂y at fixed zₖ, transposed, k = 0 … K - 1, each ``(E, B or 1, n, nₖ₊₁)``."""
        with torch.enable_grad():
            hidden = [w.unsqueeze(1) for w in self.weight_y[:-1]]
            if self.gate_y is None:
                return tuple(hidden)
            gates = self.gate_y.unsqueeze(-1).unbind(-3)
            return tuple(w * g for w, g in zip(hidden, gates, strict=False))

    def value(self, y: Tensor) -> Tensor:
        return self._drop(self._forward(self._lift(y))[0], y, 0)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        value, pre = self._forward(self._lift(y))
        slopes = [self.activation.slope(t) for t in pre]
        _, by_t = self._adjoints(slopes)
        columns = [delta @ w.mT for delta, w in zip(by_t, self.weight_y, strict=False)]
        columns.append(self.weight_y[-1].mT.expand_as(columns[0]))
        gradient = gated(torch.stack(columns, -2), self.gate_y)
        return self._drop(value, y, 0), self._drop(gradient.sum(-2), y, 1)

    def hessian(self, y: Tensor) -> Tensor:
        """∇²f = Σₖ Jₖᵀ diag(∂f/∂zₖ ∘ σ''(tₖ)) Jₖ with Jₖ = ∂tₖ/∂y."""
        if not self.smooth:
            return super().hessian(y)
        _, pre = self._forward(self._lift(y))
        slopes = [self.activation.slope(t) for t in pre]
        members, batch, _ = pre[0].shape
        J = self._skip[0].expand(members, batch, -1, -1)
        total = J.new_zeros(())
        for k, (t, delta) in enumerate(zip(pre, self._adjoints(slopes)[0], strict=True)):
            if k > 0:
                scale = gated(slopes[k - 1], self._gates[k - 1])
                rows = (J * scale.unsqueeze(-2)).flatten(1, 2)
                skip = self._skip[k].expand(members, batch, -1, -1)
                J = torch.baddbmm(skip.flatten(1, 2), rows, self.weight_z[k - 1]).view_as(skip)
            weight = (delta * self.activation.curvature(t)).unsqueeze(-2)
            total = total + (J * weight) @ J.mT
        return self._drop(total, y, 2)

    def take(self, index: Tensor) -> ConditionedNetwork:
        if self.bias[0].shape[1] == 1:
            return self
        gate_z, gate_y = self.gate_z, self.gate_y
        return replace(
            self,
            gate_z=None if gate_z is None else tuple(g.index_select(1, index) for g in gate_z),
            gate_y=None if gate_y is None else gate_y.index_select(1, index),
            bias=tuple(b.index_select(1, index) for b in self.bias),
        )

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        import scipy.sparse as sp

        e = index[0] if self.ensemble else 0
        b = index[-1] if self.batched else 0

        def layer(k: int, slope: float) -> AffineMap:
            """slope · tₖ as a map of y and zₖ."""
            of_y = to_array(self.weight_y[k][e]).T
            if self.gate_y is not None:
                of_y = of_y * to_array(self.gate_y[e, b, k])
            offset = slope * to_array(self.bias[k][e, b])
            if k == 0:
                return sp.csr_array(slope * of_y), None, offset
            of_z = to_array(self.weight_z[k - 1][e]).T
            if self.gate_z is not None:
                of_z = of_z * to_array(self.gate_z[k - 1][e, b])
            return sp.csr_array(slope * of_y), sp.csr_array(slope * of_z), offset

        *hidden, output = range(len(self.bias))
        maps = [[layer(k, slope) for slope in (1.0, self.activation.leak)] for k in hidden]
        return LinearProgram.network(self.dim, maps, layer(output, 1.0))

"""Partially input-convex networks: convex in y, anything in x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from icnn_rl.networks.checks import require_one_of
from icnn_rl.networks.conditioned import ConditionedNetwork
from icnn_rl.networks.convex_path import ConvexPath, NonNegativity, uniform_
from icnn_rl.networks.network import ContextNetwork
from icnn_rl.networks.normalization import Norm, reset_norms

Reads = Literal["aligned", "last"]


class PICNN(ContextNetwork):
    """A network f(x, y) that is convex in y for every x.

        uₗ₊₁ = ReLU(W̃ₗ uₗ + b̃ₗ),      u₀ = x
        zₖ₊₁ = σ(Wₖᶻ (zₖ ∘ [Aₖᶻ u + aₖᶻ]₊) + Wₖʸ (y ∘ (Aₖʸ u + aₖʸ)) + Aₖ u + aₖ),      Wₖᶻ ≥ 0

    By default the convex layers k = 0 … K take the context levels l = 0 … L aligned at their ends:
    layer K reads u_L, layer K - 1 reads u_{L-1}, and so on down to u₀ = x. With ``reads="last"``
    every layer reads u_L, which suits a deep context over a shallow convex path.

    Args:
        x_dim: length of x or, with an encoder, of what it makes of x.
        y_dim: n, the length of y.
        context: widths of the context path u₁ … u_L.
        convex: widths of the convex path z₁ … z_K.
        activation: the name of σ, see ``activation``.
        ensemble: number E of networks side by side; None for one without that axis.
        reads: which context levels the convex layers read, ``"aligned"`` or ``"last"``.
        norm: how the context path is normalised before its ReLU, see ``normalization``.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.
        encoder: a module that x passes through first, such as an ``Encoder`` for images.

    Raises:
        ValueError: a size is no integer or too small, or a name is unknown.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, equation 3.
    """

    def __init__(
        self,
        x_dim: int,
        y_dim: int,
        context: tuple[int, ...] = (256, 256),
        convex: tuple[int, ...] = (64, 64),
        activation: str = "softplus",
        *,
        ensemble: int | None = None,
        reads: Reads = "aligned",
        norm: Norm = "none",
        nonnegativity: NonNegativity = "projection",
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__(x_dim, y_dim, context, ensemble)
        require_one_of("reads", reads, get_args(Reads))
        self.reads, self.encoder = reads, encoder
        self.path = ConvexPath(y_dim, convex, activation, self.members, nonnegativity)
        top, depth = len(context), len(convex)
        read = [top if reads == "last" else max(top - depth + k, 0) for k in range(depth + 1)]
        self._layers = [[k for k, r in enumerate(read) if r == level] for level in range(top + 1)]
        self._widths = [self._read_by(layers) for layers in self._layers]
        self._add_levels([[sum(part) for part in parts] for parts in self._widths], norm)
        self.reset_parameters()

    def _read_by(self, layers: Sequence[int]) -> list[list[int]]:
        """Lengths of the z-gates, the y-gates and the biases of some convex layers."""
        if not layers:
            return []
        widths, n = (*self.path.widths, 1), self.path.dim
        gates_z = [widths[k - 1] for k in layers if k > 0]
        return [gates_z, [n] * len(layers), [widths[k] for k in layers]]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights within ±1/√fan-in; gates start around 1, biases centred; keep an encoder."""
        self.path.reset_parameters()
        for level, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            fan_in = weight.shape[-2]
            uniform_(weight, fan_in)
            following, *outputs = self._split(level, bias)
            uniform_(following, fan_in)
            if outputs:
                gate_z, gate_y, biases = outputs
                gate_z.fill_(1.0)
                gate_y.fill_(1.0)
                parts = biases.split(self._widths[level][2], -1)
                for k, part in zip(self._layers[level], parts, strict=True):
                    uniform_(part, fan_in).add_(self.path.bias_init(k))
        reset_norms(self.norm)

    def condition(self, x: Tensor) -> ConditionedNetwork:
        gate_z: list[Tensor] = []
        gate_y: list[Tensor] = []
        bias: list[Tensor] = []
        outputs = self._outputs(x if self.encoder is None else self.encoder(x))
        for parts, widths in zip(outputs, self._widths, strict=True):
            if parts:
                gate_z += parts[0].relu().split(widths[0], -1)
                gate_y.append(parts[1].unflatten(-1, (-1, self.path.dim)))
                bias += parts[2].split(widths[2], -1)
        return ConditionedNetwork(
            activation=self.path.activation,
            weight_z=self.path.weight_z(),
            weight_y=self.path.weight_y(),
            gate_z=tuple(gate_z),
            gate_y=torch.cat(gate_y, -2),
            bias=tuple(bias),
            ensemble=self.ensemble is not None,
            batched=True,
        )

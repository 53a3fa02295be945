"""Partially input-convex networks: convex in y, anything in x."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from icnn_rl.networks.conditioned import ConditionedNetwork
from icnn_rl.networks.convex_path import ConvexPath
from icnn_rl.networks.non_negative import NonNegativity
from icnn_rl.networks.normalization import Norm, Normalization, normalization

Reads = Literal["aligned", "last"]


class PICNN(nn.Module):
    """A network f(x, y) that is convex in y for every x.

        uₗ₊₁ = ReLU(W̃ₗ uₗ + b̃ₗ),      u₀ = x
        zₖ₊₁ = σ(Wₖᶻ (zₖ ∘ [Aₖᶻ u + aₖᶻ]₊) + Wₖʸ (y ∘ (Aₖʸ u + aₖʸ)) + Aₖ u + aₖ),      Wₖᶻ ≥ 0

    By default the convex layers k = 0 … K take the context levels l = 0 … L aligned at their ends:
    layer K reads u_L, layer K - 1 reads u_{L-1}, and so on down to u₀ = x. With ``reads="last"``
    every layer reads u_L, which suits a deep context over a shallow convex path. All that a level
    feeds (the next level, gates, biases) is one matrix product.

    Args:
        x_dim: length of x or, with an encoder, of what it makes of x.
        y_dim: n, the length of y.
        context: widths of the context path u₁ … u_L.
        convex: widths of the convex path z₁ … z_K.
        activation: σ on the convex path: ``relu``, ``leaky_relu``, ``softplus``, ``elu`` or
            ``squareplus``.
        ensemble: number of networks E evaluated side by side; None for one without that axis.
        reads: which context levels the convex layers read, ``"aligned"`` or ``"last"``.
        norm: how the context path is normalised before its ReLU: ``"none"``, ``"layer"`` or
            ``"batch"``; see ``normalization``.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.
        encoder: a module that x passes through first, such as an ``Encoder`` for images.

    Raises:
        ValueError: a size is below one, or a name is unknown.

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
        super().__init__()
        if min(x_dim, *context, 1) < 1:
            raise ValueError(
                f"x_dim, context: expected sizes >= 1; got x_dim {x_dim}, context {context}"
            )
        if reads not in get_args(Reads):
            raise ValueError(f"reads: expected one of {get_args(Reads)}, got {reads!r}")
        self.x_dim = x_dim
        self.ensemble = ensemble
        self.encoder = encoder
        members = 1 if ensemble is None else ensemble
        self.path = ConvexPath(y_dim, tuple(convex), activation, members, nonnegativity)
        self.context = tuple(context)
        self.reads = reads
        self.weight = nn.ParameterList(
            torch.empty(members, fan_in, sum(self._sizes(level)))
            for level, fan_in in enumerate((x_dim, *self.context))
        )
        self.bias = nn.ParameterList(torch.empty(members, 1, w.shape[-1]) for w in self.weight)
        self.norm = nn.ModuleList(normalization(norm, members, w) for w in self.context)
        self.reset_parameters()

    def _layers(self, level: int) -> range:
        """The convex layers that read a context level."""
        depth, top = len(self.path.widths), len(self.context)
        if self.reads == "last":
            return range(depth + 1 if level == top else 0)
        first = max(depth - top + level, 0) if level > 0 else 0
        return range(first, max(depth - top + level, -1) + 1)

    def _sizes(self, level: int) -> list[int]:
        """Lengths of what a level feeds: the next level, z-gates, y-gates, biases."""
        widths, layers = (*self.path.widths, 1), self._layers(level)
        following = self.context[level] if level < len(self.context) else 0
        z_gates = sum(widths[k - 1] for k in layers if k > 0)
        return [following, z_gates, self.path.dim * len(layers), sum(widths[k] for k in layers)]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights within ±1/√fan-in; gates start around 1, biases centred; keep an encoder."""
        self.path.reset_parameters()
        for level, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            bound = 1 / math.sqrt(weight.shape[-2])
            weight.uniform_(-bound, bound)
            following, z_gates, y_gates, biases = bias.split(self._sizes(level), -1)
            following.uniform_(-bound, bound)
            z_gates.fill_(1.0)
            y_gates.fill_(1.0)
            widths = [(*self.path.widths, 1)[k] for k in self._layers(level)]
            for k, part in zip(self._layers(level), biases.split(widths, -1), strict=True):
                part.uniform_(-bound, bound).add_(self.path.bias_init(k))
        for norm in self.norm:
            if isinstance(norm, Normalization):
                norm.reset_parameters()

    def condition(self, x: Tensor) -> ConditionedNetwork:
        """Run the context path, once, and leave a batch of convex functions of y.

        Args:
            x: shape ``(B, x_dim)``, or what the encoder takes.

        Returns:
            A convex function with ``batch_shape`` ``(B,)``, or ``(E, B)`` for an ensemble.

        Raises:
            ValueError: x has another shape.
        """
        if self.encoder is not None:
            x = self.encoder(x)
        if x.dim() != 2 or x.shape[1] != self.x_dim:
            raise ValueError(f"x: expected shape (batch, {self.x_dim}), got {tuple(x.shape)}")
        widths = (*self.path.widths, 1)
        u = x.expand(self.weight[0].shape[0], *x.shape)
        gate_z: list[Tensor] = []
        gate_y: list[Tensor] = []
        biases: list[Tensor] = []
        for level, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            layers = self._layers(level)
            following, z, y, b = torch.baddbmm(bias, u, weight).split(self._sizes(level), -1)
            if layers:
                gate_z += z.relu().split([widths[k - 1] for k in layers if k > 0], -1)
                gate_y.append(y.unflatten(-1, (len(layers), self.path.dim)))
                biases += b.split([widths[k] for k in layers], -1)
            if level < len(self.context):
                u = self.norm[level](following).relu()
        return ConditionedNetwork(
            activation=self.path.activation,
            weight_z=self.path.weight_z(),
            weight_y=self.path.weight_y(),
            gate_z=tuple(gate_z),
            gate_y=torch.cat(gate_y, -2),
            bias=tuple(biases),
            ensemble=self.ensemble is not None,
            batched=True,
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """f(x, y), of shape ``(B,)`` or ``(E, B)``."""
        return self.condition(x).value(y)

    def project_(self) -> None:
        """P₊: clamp Wᶻ at 0; call it after every step of an optimiser."""
        self.path.project_()

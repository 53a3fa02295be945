"""Fully input-convex networks: convex in all their inputs together."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from icnn_rl.networks.checks import require_size
from icnn_rl.networks.conditioned import ConditionedNetwork
from icnn_rl.networks.convex_path import ConvexPath, NonNegativity, uniform_
from icnn_rl.networks.network import FullyConvexNetwork


class FICNN(FullyConvexNetwork):
    """A network that is convex in y, or jointly convex in (x, y).

        zₖ₊₁ = σ(Wₖᶻ zₖ + Wₖʸ y + Wₖˣ x + bₖ),      Wₖᶻ ≥ 0

    Args:
        x_dim: length of x; 0 for a function of y alone.
        y_dim: n, the length of y.
        convex: widths of the hidden layers.
        activation: the name of σ, see ``activation``.
        ensemble: number E of networks side by side; None for one without that axis.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.

    Raises:
        ValueError: a size is no integer or too small, or a name is unknown.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, equation 2.
    """

    def __init__(
        self,
        x_dim: int,
        y_dim: int,
        convex: tuple[int, ...] = (200, 200),
        activation: str = "softplus",
        *,
        ensemble: int | None = None,
        nonnegativity: NonNegativity = "projection",
    ) -> None:
        super().__init__()
        require_size("x_dim", x_dim, least=0)
        require_size("y_dim", y_dim)
        members = 1 if ensemble is None else ensemble
        require_size("ensemble", members)
        self.x_dim, self.y_dim, self.ensemble = x_dim, y_dim, ensemble
        self.x_shape, self.y_shape = (x_dim,), (y_dim,)
        # x and y are one input to the weights, so that a joint function needs no copy of them.
        self.path = ConvexPath(y_dim + x_dim, convex, activation, members, nonnegativity)
        self.bias = nn.ParameterList(torch.empty(members, 1, w) for w in (*self.path.widths, 1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw Wᶻ as ``ConvexPath`` does, Wʸ and Wˣ uniformly within ±1/√length; centre biases."""
        self.path.reset_parameters()
        # By their own lengths, as a short y would hardly count beside a long x otherwise.
        for w in self.path.raw_y:
            uniform_(w[:, : self.y_dim], self.y_dim)
            uniform_(w[:, self.y_dim :], max(self.x_dim, 1))
        for k, bias in enumerate(self.bias):
            uniform_(bias, self.path.dim).add_(self.path.bias_init(k))

    def function(self) -> ConditionedNetwork:
        """The network as one convex function of (y, x), of dimension ``y_dim + x_dim``."""
        return ConditionedNetwork(
            activation=self.path.activation,
            weight_z=self.path.weight_z(),
            weight_y=self.path.weight_y(),
            gate_z=None,
            gate_y=None,
            bias=tuple(self.bias),
            ensemble=self.ensemble is not None,
            batched=self.ensemble is not None,
        )

    def _of_y(self, x: Tensor) -> ConditionedNetwork:
        return self._fix(x, slice(self.y_dim, None), free=slice(self.y_dim))

    def _of_x(self, y: Tensor) -> ConditionedNetwork:
        return self._fix(y, slice(self.y_dim), free=slice(self.y_dim, None))

    def _fix(self, given: Tensor, rows: slice, free: slice) -> ConditionedNetwork:
        """The function of the input at the free rows of the weights, given the other input."""
        f = self.function()
        given = given.expand(len(f.bias[0]), *given.shape)
        bias = (
            torch.baddbmm(b, given, w[:, rows]) for b, w in zip(f.bias, f.weight_y, strict=True)
        )
        weight_y = tuple(w[:, free] for w in f.weight_y)
        return replace(f, weight_y=weight_y, bias=tuple(bias), batched=True)

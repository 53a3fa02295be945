"""Quadratics of y whose coefficients are networks of x: normalised advantage functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from icnn_rl.functions import ConvexFunction, take_rows
from icnn_rl.networks.normalization import Norm, Normalization, normalization


class QuadraticNetwork(nn.Module):
    """A network f(x, y) that is a quadratic in y, least at a point of (-1, 1)ⁿ.

        f(x, y) = v(x) + ½ (y - μ(x))ᵀ L(x) L(x)ᵀ (y - μ(x)),      μ(x) = tanh(m(x))

    v, m and the lower triangular L, whose diagonal is exponentiated, are linear in the last of the
    layers uₗ₊₁ = ReLU(Wₗ uₗ + bₗ), u₀ = x.

    Args:
        x_dim: length of x.
        y_dim: n, the length of y.
        context: widths of the layers u₁ … u_L.
        ensemble: number of networks E evaluated side by side; None for one without that axis.
        norm: how layers are normalised before their ReLU: ``"none"``, ``"layer"`` or ``"batch"``;
            see ``normalization``.

    Raises:
        ValueError: a size is below one.

    Source: Gu, Lillicrap, Sutskever & Levine, "Continuous Deep Q-Learning with Model-based
    Acceleration", ICML 2016, section 4.
    """

    def __init__(
        self,
        x_dim: int,
        y_dim: int,
        context: tuple[int, ...] = (200, 200),
        *,
        ensemble: int | None = None,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        members = 1 if ensemble is None else ensemble
        if min(x_dim, y_dim, members, *context) < 1:
            raise ValueError(
                f"x_dim, y_dim, context, ensemble: expected sizes >= 1; got x_dim {x_dim}, "
                f"y_dim {y_dim}, context {context}, ensemble {ensemble}"
            )
        self.x_dim, self.y_dim, self.ensemble = x_dim, y_dim, ensemble
        self.context = tuple(context)
        outputs = 1 + y_dim + y_dim * (y_dim + 1) // 2  # v, m and L
        widths = (x_dim, *context, outputs)
        self.weight = nn.ParameterList(torch.empty(members, a, b) for a, b in pairwise(widths))
        self.bias = nn.ParameterList(torch.empty(members, 1, b) for b in widths[1:])
        self.norm = nn.ModuleList(normalization(norm, members, w) for w in context)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly within ±1/√fan-in."""
        for weight, bias in zip(self.weight, self.bias, strict=True):
            bound = 1 / math.sqrt(weight.shape[-2])
            weight.uniform_(-bound, bound)
            bias.uniform_(-bound, bound)
        for norm in self.norm:
            if isinstance(norm, Normalization):
                norm.reset_parameters()

    def condition(self, x: Tensor) -> ConditionedQuadratic:
        """Run the layers, once, and leave a batch of quadratics of y.

        Args:
            x: shape ``(B, x_dim)``.

        Returns:
            A convex function with ``batch_shape`` ``(B,)``, or ``(E, B)`` for an ensemble.

        Raises:
            ValueError: x has another shape.
        """
        if x.dim() != 2 or x.shape[1] != self.x_dim:
            raise ValueError(f"x: expected shape (batch, {self.x_dim}), got {tuple(x.shape)}")
        u = x.expand(self.weight[0].shape[0], *x.shape)
        for layer, norm in enumerate(self.norm):
            u = norm(torch.baddbmm(self.bias[layer], u, self.weight[layer])).relu()
        out = torch.baddbmm(self.bias[-1], u, self.weight[-1])
        if self.ensemble is None:
            out = out.squeeze(0)
        n = self.y_dim
        level, center, diagonal, below = out.split([1, n, n, n * (n - 1) // 2], -1)
        factor = torch.diag_embed(diagonal.exp())
        row, column = torch.tril_indices(n, n, -1, device=x.device)
        factor[..., row, column] = below
        return ConditionedQuadratic(level.squeeze(-1), center.tanh(), factor)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """f(x, y), of shape ``(B,)`` or ``(E, B)``."""
        return self.condition(x).value(y)

    def project_(self) -> None:
        """Nothing to do after a step of an optimiser: L Lᵀ is positive whatever the weights."""


@final
@dataclass(frozen=True)
class ConditionedQuadratic(ConvexFunction):
    """f(y) = v + ½ ‖Lᵀ (y - μ)‖², a ``QuadraticNetwork`` once x is fixed.

    Attributes:
        level: v, shape ``batch``.
        center: μ, shape ``(*batch, n)``.
        factor: L, shape ``(*batch, n, n)``.
    """

    level: Tensor
    center: Tensor
    factor: Tensor
    smooth = True

    @property
    def dim(self) -> int:
        return self.center.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return self.level.shape

    @property
    def like(self) -> Tensor:
        return self.level

    def _root(self, y: Tensor) -> Tensor:
        """Lᵀ (y - μ)."""
        return ((y - self.center).unsqueeze(-2) @ self.factor).squeeze(-2)

    def value(self, y: Tensor) -> Tensor:
        return self.level + self._root(y).square().sum(-1) / 2

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        root = self._root(y)
        gradient = (self.factor @ root.unsqueeze(-1)).squeeze(-1)
        return self.level + root.square().sum(-1) / 2, gradient

    def hessian(self, y: Tensor) -> Tensor:
        curvature = self.factor @ self.factor.mT
        return curvature.expand(*torch.broadcast_shapes(y.shape, self.center.shape), self.dim)

    def take(self, index: Tensor) -> ConditionedQuadratic:
        parts = (self.level, -1), (self.center, -2), (self.factor, -3)
        return ConditionedQuadratic(*(take_rows(t, index, axis) for t, axis in parts))

    def mean(self, axis: int = 0) -> ConvexFunction:
        """The mean over the leading axis; of a single member, that member, still a quadratic."""
        if axis == 0 and self.level.dim() > 1 and len(self.level) == 1:
            return ConditionedQuadratic(self.level[0], self.center[0], self.factor[0])
        return super().mean(axis)

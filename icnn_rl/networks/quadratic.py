"""Quadratics of y whose coefficients are networks of x: normalised advantage functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction, take_rows
from icnn_rl.networks.network import ContextNetwork
from icnn_rl.networks.normalization import Norm


class QuadraticNetwork(ContextNetwork):
    """A network f(x, y) that is a quadratic in y, least at a point of (-1, 1)ⁿ.

        f(x, y) = v(x) + ½ (y - μ(x))ᵀ L(x) L(x)ᵀ (y - μ(x)),      μ(x) = tanh(m(x))

    v, m and the lower triangular L, whose diagonal is exponentiated, are linear in the last of the
    layers uₗ₊₁ = ReLU(Wₗ uₗ + bₗ), u₀ = x.

    Args:
        x_dim: length of x.
        y_dim: n, the length of y.
        context: widths of the layers u₁ … u_L.
        ensemble: number E of networks side by side; None for one without that axis.
        norm: how layers are normalised before their ReLU, see ``normalization``.

    Raises:
        ValueError: a size is no integer or too small, or the name is unknown.

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
        super().__init__(x_dim, y_dim, context, ensemble)
        coefficients = [1, y_dim, y_dim, y_dim * (y_dim - 1) // 2]  # v, m and L
        self._add_levels([*([] for _ in context), coefficients], norm)
        self.reset_parameters()

    def condition(self, x: Tensor) -> ConditionedQuadratic:
        coefficients = self._outputs(x)[-1]
        if self.ensemble is None:
            coefficients = [t.squeeze(0) for t in coefficients]
        level, center, diagonal, below = coefficients
        factor = torch.diag_embed(diagonal.exp())
        row, column = torch.tril_indices(self.y_dim, self.y_dim, -1, device=x.device)
        factor[..., row, column] = below
        return ConditionedQuadratic(level.squeeze(-1), center.tanh(), factor)


@final
@dataclass(eq=False)
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
    dim: int = field(init=False)
    smooth = True

    def __post_init__(self) -> None:
        self.dim, self.batch_shape, self.like = self.center.shape[-1], self.level.shape, self.level

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
        parts = self.level, self.center, self.factor
        return ConditionedQuadratic(*(take_rows(t, index, k) for k, t in enumerate(parts)))

    def mean(self, axis: int = 0) -> ConvexFunction:
        """The mean over the leading axis; of a single member, that member, still a quadratic."""
        if axis == 0 and self.level.dim() > 1 and len(self.level) == 1:
            return ConditionedQuadratic(self.level[0], self.center[0], self.factor[0])
        return super().mean(axis)

"""Convex terms to add to a function: linear, quadratic, negative entropies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, final

import torch
from torch import Tensor

from icnn_rl.functions.convex_function import ConvexFunction, Sum, common_shape, entry, take_rows

if TYPE_CHECKING:
    from icnn_rl.functions.linear_program import LinearProgram

BOUNDARY = 1e-6  # relative distance to the boundary where an entropy becomes a quadratic
EDGE = 1 - 2 * BOUNDARY  # |y| from which the entropy of y in [-1, 1] does
STEEP = math.atanh(EDGE)  # its slope there, for α = 1


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


@final
@dataclass(frozen=True)
class Linear(ConvexFunction):
    """f(y) = cᵀy; made by ``linear``."""

    c: Tensor
    smooth = True
    piecewise_linear = True

    @property
    def dim(self) -> int:
        return self.c.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return self.c.shape[:-1]

    @property
    def like(self) -> Tensor:
        return self.c

    def value(self, y: Tensor) -> Tensor:
        return _dot(self.c, y)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return _dot(self.c, y), self.c.expand_as(self.c * y)

    def hessian(self, y: Tensor) -> Tensor:
        return torch.zeros_like(torch.diag_embed(self.c * y))

    def take(self, index: Tensor) -> Linear:
        return Linear(take_rows(self.c, index, -2))

    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        from icnn_rl.functions.linear_program import LinearProgram

        return LinearProgram.linear(entry(self.c, index))


@final
@dataclass(frozen=True)
class Quadratic(ConvexFunction):
    """f(y) = γ/2 ‖y - center‖²; made by ``quadratic``."""

    gamma: Tensor | float
    center: Tensor
    smooth = True

    @property
    def dim(self) -> int:
        return self.center.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        gamma_shape = self.gamma.shape if isinstance(self.gamma, Tensor) else ()
        return common_shape(gamma_shape, self.center.shape[:-1])

    @property
    def like(self) -> Tensor:
        return self.center

    @property
    def strong_convexity(self) -> Tensor | float:
        return self.gamma

    def _weight(self, y: Tensor) -> Tensor | float:
        """γ as a factor of points."""
        return self.gamma.to(y).unsqueeze(-1) if isinstance(self.gamma, Tensor) else self.gamma

    def value(self, y: Tensor) -> Tensor:
        return (self._weight(y) / 2 * (y - self.center).square()).sum(-1)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        gradient = self._weight(y) * (y - self.center)
        return _dot(gradient, y - self.center) / 2, gradient

    def hessian(self, y: Tensor) -> Tensor:
        return torch.diag_embed(self._weight(y) * torch.ones_like(y - self.center))

    def take(self, index: Tensor) -> Quadratic:
        gamma = self.gamma
        if isinstance(gamma, Tensor):
            gamma = take_rows(gamma, index, -1)
        return Quadratic(gamma, take_rows(self.center, index, -2))


def without_quadratic(f: ConvexFunction) -> tuple[ConvexFunction, Quadratic | None]:
    """g and the quadratic of f = g + a quadratic; f and None where it is not written so."""
    if isinstance(f, Sum) and isinstance(f.right, Quadratic):
        return f.left, f.right
    if isinstance(f, Sum) and isinstance(f.left, Quadratic):
        return f.right, f.left
    return f, None


@dataclass(frozen=True)
class _Entropy(ConvexFunction):
    """What the negative entropies share: one for any n, α-strongly convex."""

    alpha: float
    smooth = True
    dim = None
    like = None
    batch_shape = torch.Size()

    @property
    def strong_convexity(self) -> float:
        return self.alpha

    def take(self, index: Tensor) -> Self:
        return self


@final
class NegativeEntropy(_Entropy):
    """f(y) = α Σᵢ (pᵢ log pᵢ + (1 - pᵢ) log(1 - pᵢ)), p = (1 + y)/2; see ``negative_entropy``."""

    def _terms(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inside = y.clamp(-EDGE, EDGE)
        outside = y - inside
        p = (1 + inside) / 2
        # The edge is rounded, and there an entropy has another slope already.
        slope = torch.where(outside == 0, torch.atanh(inside), STEEP * torch.sign(y))
        slope = self.alpha * slope
        entropy = self.alpha * (torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
        terms = entropy + (slope + self.alpha / 2 * outside) * outside
        return terms, slope + self.alpha * outside, inside

    def value(self, y: Tensor) -> Tensor:
        return self._terms(y)[0].sum(-1)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        terms, gradient, _ = self._terms(y)
        return terms.sum(-1), gradient

    def hessian(self, y: Tensor) -> Tensor:
        inside = self._terms(y)[2]  # at the boundary too: the way back is the entropy's
        return torch.diag_embed(self.alpha / ((1 - inside) * (1 + inside)))


def without_entropy(f: ConvexFunction) -> tuple[ConvexFunction | None, float]:
    """g and α of f = g + negative_entropy(α), wherever it stands in the sum; α = 0 without one."""
    if isinstance(f, NegativeEntropy):
        return None, f.alpha
    if not isinstance(f, Sum):
        return f, 0.0
    (left, a), (right, b) = without_entropy(f.left), without_entropy(f.right)
    if left is None or right is None:
        return right if left is None else left, a + b
    return (f if a + b == 0 else left + right), a + b


@final
class NegativeShannonEntropy(_Entropy):
    """f(y) = α Σᵢ yᵢ log yᵢ; made by ``negative_shannon_entropy``."""

    def value(self, y: Tensor) -> Tensor:
        inside = y.clamp(BOUNDARY, 1.0)
        outside = y - inside
        terms = inside * inside.log() + (1 + inside.log() + outside / 2) * outside
        return self.alpha * terms.sum(-1)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        inside = y.clamp(BOUNDARY, 1.0)
        return self.value(y), self.alpha * (1 + inside.log() + y - inside)

    def hessian(self, y: Tensor) -> Tensor:
        return torch.diag_embed(self.alpha / y.clamp(BOUNDARY, 1.0))


def linear(c: Tensor) -> Linear:
    """The linear function cᵀy.

    Args:
        c: coefficients, shape ``(n,)`` or ``(*batch_shape, n)``.
    """
    return Linear(c)


def quadratic(gamma: Tensor | float, center: Tensor) -> Quadratic:
    """The quadratic γ/2 ‖y - center‖².

    Args:
        gamma: γ ≥ 0, one number or one per function.
        center: shape ``(n,)`` or ``(*batch_shape, n)``.

    Raises:
        ValueError: γ is negative.
    """
    if bool((torch.as_tensor(gamma) < 0).any()):
        raise ValueError(f"gamma: expected a number >= 0, got {gamma}")
    return Quadratic(gamma, center)


def negative_entropy(alpha: float) -> NegativeEntropy:
    """Minus the entropy of n Bernoulli variables with means (1 + yᵢ)/2, for y in [-1, 1]ⁿ.

        α Σᵢ (pᵢ log pᵢ + (1 - pᵢ) log(1 - pᵢ)),      p = (1 + y)/2

    From 1e-6 before the boundary on it continues as the quadratic with that slope and curvature α,
    so gradients stay finite and the function is α-strongly convex; it differs from the entropy by
    less than 2e-6 α there.

    Args:
        alpha: the weight α ≥ 0.

    Raises:
        ValueError: α is negative or NaN.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, section 4.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha: expected a number >= 0, got {alpha}")
    return NegativeEntropy(alpha)


def negative_shannon_entropy(alpha: float) -> NegativeShannonEntropy:
    """Minus the Shannon entropy of a distribution y on the simplex, α Σᵢ yᵢ log yᵢ.

    Below 1e-6 and above 1 it continues as the quadratic with that slope and curvature α, so
    gradients stay finite and the function is α-strongly convex; on the simplex it differs from the
    entropy by less than 1e-6 α n.

    Args:
        alpha: the weight α ≥ 0.

    Raises:
        ValueError: α is negative or NaN.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha: expected a number >= 0, got {alpha}")
    return NegativeShannonEntropy(alpha)

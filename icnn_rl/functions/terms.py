"""Convex terms to add to a function: linear, quadratic, negative entropies."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Self, final

import torch
from torch import Tensor

from icnn_rl.functions.convex_function import ConvexFunction, Sum, common_shape, entry, take_rows
from icnn_rl.functions.linear_program import LinearProgram

ENTROPY_MARGIN = 1e-6  # an entropy is a quadratic where a probability is smaller
ENTROPY_EDGE = (
    1 - 2 * ENTROPY_MARGIN
)  # the entropy of y in [-1, 1] is a quadratic where |y| is larger
ENTROPY_SLOPE = math.atanh(ENTROPY_EDGE)  # its slope there, for α = 1


@final
class Linear(ConvexFunction):
    """The linear function f(y) = cᵀy.

    Args:
        c: coefficients, shape ``(n,)`` or ``(*batch_shape, n)``.
    """

    smooth = piecewise_linear = True

    def __init__(self, c: Tensor) -> None:
        self.c = self.like = c
        self.dim, self.batch_shape = c.shape[-1], c.shape[:-1]

    def value(self, y: Tensor) -> Tensor:
        return (self.c * y).sum(-1)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        terms = self.c * y
        return terms.sum(-1), self.c.expand_as(terms)

    def hessian(self, y: Tensor) -> Tensor:
        return torch.zeros_like(torch.diag_embed(self.c * y))

    def take(self, index: Tensor) -> Linear:
        return Linear(take_rows(self.c, index))

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        return LinearProgram.linear(entry(self.c, index))


@final
class Quadratic(ConvexFunction):
    """f(y) = γ/2 ‖y - center‖²; made by ``quadratic``."""

    smooth = True

    def __init__(self, gamma: Tensor | float, center: Tensor) -> None:
        self.gamma = self.strong_convexity = gamma
        self.center = self.like = center
        self.dim = center.shape[-1]
        per_function = gamma.shape if isinstance(gamma, Tensor) else ()
        self.batch_shape = common_shape(per_function, center.shape[:-1])

    def _weight(self, y: Tensor) -> Tensor | float:
        """γ as a factor of points."""
        return self.gamma.to(y).unsqueeze(-1) if isinstance(self.gamma, Tensor) else self.gamma

    def value(self, y: Tensor) -> Tensor:
        return (self._weight(y) / 2 * (y - self.center).square()).sum(-1)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        gradient = self._weight(y) * (y - self.center)
        return (gradient * (y - self.center)).sum(-1) / 2, gradient

    def hessian(self, y: Tensor) -> Tensor:
        return torch.diag_embed(self._weight(y) * torch.ones_like(y - self.center))

    def take(self, index: Tensor) -> Quadratic:
        gamma = self.gamma
        if isinstance(gamma, Tensor):
            gamma = take_rows(gamma, index, 0)
        return Quadratic(gamma, take_rows(self.center, index))


def without_quadratic(f: ConvexFunction) -> tuple[ConvexFunction, Quadratic | None]:
    """g and q if f is a ``Sum`` of g and a ``Quadratic`` q, otherwise f and None."""
    if isinstance(f, Sum) and isinstance(f.right, Quadratic):
        return f.left, f.right
    if isinstance(f, Sum) and isinstance(f.left, Quadratic):
        return f.right, f.left
    return f, None


class _Entropy(ConvexFunction):
    """α Σᵢ h(yᵢ), for any n, with a quadratic in place of h outside an interval."""

    smooth = True
    dim = like = None
    batch_shape = torch.Size()

    def __init__(self, alpha: float) -> None:
        if not alpha >= 0:
            raise ValueError(f"alpha: expected a number >= 0, got {alpha}")
        self.alpha = self.strong_convexity = alpha

    @abstractmethod
    def _inside(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y clamped to the interval, with h and h' there."""

    def value(self, y: Tensor) -> Tensor:
        return self.value_and_gradient(y)[0]

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        inside, h, slope = self._inside(y)
        outside = y - inside
        terms = h + (slope + outside / 2) * outside
        return self.alpha * terms.sum(-1), self.alpha * (slope + outside)

    def take(self, index: Tensor) -> Self:
        return self


@final
class NegativeEntropy(_Entropy):
    """Minus the entropy of n Bernoulli variables with means (1 + yᵢ)/2, for y in [-1, 1]ⁿ.

        f(y) = α Σᵢ (pᵢ log pᵢ + (1 - pᵢ) log(1 - pᵢ)),      p = (1 + y)/2

    Where p < 1e-6 or p > 1 - 1e-6, a term is the quadratic with the slope there and curvature α.
    So gradients stay finite and f is α-strongly convex; for y in the box it differs from the
    entropy by less than 2e-6 α for each entry.

    Args:
        alpha: the weight α ≥ 0.

    Raises:
        ValueError: α is negative or NaN.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, section 4.
    """

    def _inside(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inside = y.clamp(-ENTROPY_EDGE, ENTROPY_EDGE)
        p = (1 + inside) / 2
        # Not atanh beyond the edge: it would be that of the edge rounded to y's precision.
        beyond = ENTROPY_SLOPE * torch.sign(y)
        slope = torch.where(y == inside, torch.atanh(inside), beyond)
        return inside, torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p), slope

    def hessian(self, y: Tensor) -> Tensor:
        inside = self._inside(y)[0]
        return torch.diag_embed(self.alpha / ((1 - inside) * (1 + inside)))


def without_entropy(f: ConvexFunction) -> tuple[ConvexFunction | None, float]:
    """g and α of f = g + negative_entropy(α); g is None if f is the entropy alone."""
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
    """Minus the Shannon entropy of a distribution y on the simplex, f(y) = α Σᵢ yᵢ log yᵢ.

    Below 1e-6 and above 1 a term is the quadratic with the slope there and curvature α. So
    gradients stay finite and f is α-strongly convex; on the simplex it differs from the entropy by
    less than 1e-6 α n.

    Args:
        alpha: the weight α ≥ 0.

    Raises:
        ValueError: α is negative or NaN.
    """

    def _inside(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inside = y.clamp(ENTROPY_MARGIN, 1.0)
        return inside, inside * inside.log(), 1 + inside.log()

    def hessian(self, y: Tensor) -> Tensor:
        return torch.diag_embed(self.alpha / self._inside(y)[0])


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


linear = Linear  # operations are in lower case: f + linear(c)
negative_entropy = NegativeEntropy
negative_shannon_entropy = NegativeShannonEntropy

"""A function with kinks as a smooth one with one more variable and a constraint for each piece."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

from icnn_rl.adjoints.optimality import Constraints
from icnn_rl.functions import ConvexFunction, Sum
from icnn_rl.sets.canonical import unit_rows

SEARCH_RADIUS = 4.0  # in bounds of the distance to the minimiser
EXTRA_DIRECTIONS = 10  # beyond n: a kink is missed with probability 2^-10 or less


@dataclass(frozen=True)
class Epigraph:
    """(y, t) ↦ h(y) + t, for f = h + p and t ≥ p(y)."""

    h: ConvexFunction

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Its value and its gradient, at points of shape ``(*batch, n + 1)``."""
        value, gradient = self.h.value_and_gradient(y[..., :-1])
        return value + y[..., -1], F.pad(gradient.expand_as(y[..., :-1]), (0, 1), value=1.0)

    def hessian(self, y: Tensor) -> Tensor:
        """Its Hessian, without curvature along t."""
        H = self.h.hessian(y[..., :-1])
        return F.pad(H.expand(*y.shape[:-1], *H.shape[-2:]), (0, 1, 0, 1))


def split(f: ConvexFunction) -> tuple[ConvexFunction, ConvexFunction]:
    """f = h + p, with h smooth and strongly convex and p piecewise linear.

    Raises:
        TypeError: f is not of this form.
    """
    terms = _terms(f)
    smooth = [t for t in terms if t.smooth]
    rest = [t for t in terms if not t.smooth]
    curved = any(bool((torch.as_tensor(t.strong_convexity) > 0).all()) for t in smooth)
    if not (curved and all(t.piecewise_linear for t in rest)):
        names = " + ".join(type(t).__name__ for t in terms)
        raise TypeError(
            f"f: expected a smooth function that is not linear, or a piecewise-linear one plus "
            f"quadratic(gamma, center) or negative_entropy(alpha), whose minimiser is "
            f"differentiable; got {names}"
        )
    if f.like is None or f.like.dtype != torch.float64:
        raise TypeError("f: expected float64, which it takes to tell the pieces at a kink")
    return reduce(add, smooth), reduce(add, rest)


def _terms(f: ConvexFunction) -> list[ConvexFunction]:
    return _terms(f.left) + _terms(f.right) if isinstance(f, Sum) else [f]


def with_pieces(p: ConvexFunction, y: Tensor, radius: Tensor, c: Constraints) -> Constraints:
    """The constraints on (y, t): those on y, and a_k + g_kᵀy = t for the pieces of p near y.

    The pieces are the tangents of p at pairs of opposite points around y, which lie on different
    sides of every kink through y. The minimiser stays where all these tangents agree.

    Args:
        p: piecewise linear.
        y: shape ``(*batch, n)``.
        radius: distance of the points from y, shape ``batch``.
        c: the constraints on y.

    Source: Burke, Lewis & Overton, "A robust gradient sampling algorithm for nonsmooth, nonconvex
    optimization", SIAM Journal on Optimization 15, 2005, for the sampling.
    """
    n = y.shape[-1]
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(n + EXTRA_DIRECTIONS, n, generator=generator), dim=-1).to(
        y
    )
    rows, rights = [], []
    for direction in torch.cat([directions, -directions]):
        point = y + radius.unsqueeze(-1) * direction
        value, gradient = p.value_and_gradient(point)
        rows.append(F.pad(gradient, (0, 1), value=-1.0))
        rights.append((gradient * point).sum(-1) - value)
    G, right = unit_rows(torch.stack(rows, -2), torch.stack(rights, -1))
    return Constraints(
        lower=F.pad(c.lower, (0, 1), value=-torch.inf),
        upper=F.pad(c.upper, (0, 1), value=torch.inf),
        C=torch.cat([F.pad(c.C, (0, 1)), G], -2),
        right=torch.cat([c.right, right], -1),
        equation=F.pad(c.equation, (0, len(rows)), value=True),
    )

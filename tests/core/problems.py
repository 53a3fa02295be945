"""Random convex functions and feasible sets, drawn by hypothesis or from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from icnn_rl import (
    FICNN,
    PICNN,
    Box,
    ConvexFunction,
    ConvexSet,
    Euclidean,
    Polytope,
    Simplex,
    Simplices,
    linear,
    negative_entropy,
    quadratic,
)
from icnn_rl.functions import (
    Affine,
    Linear,
    Max,
    Mean,
    NegativeEntropy,
    Quadratic,
    Restriction,
    Sum,
)
from icnn_rl.networks import ACTIVATIONS, ConditionedNetwork

SMOOTH = ("softplus", "elu", "squareplus")
PIECEWISE_LINEAR = ("relu", "leaky_relu")
OPERATIONS = (
    "nothing",
    "linear",
    "quadratic",
    "negative_entropy",
    "sum",
    "mean",
    "max",
    "restrict",
    "affine",
    "all",
)
BOXES = ("box", "coordinate box", "sample box", "degenerate box")
BOUNDED_SETS = (
    *BOXES,
    "simplex",
    "simplices",
    "polytope",
    "box and polytope",
    "box and plane",
    "simplex and polytope",
)
SETS = (*BOUNDED_SETS, "euclidean")


@dataclass(frozen=True)
class Architecture:
    """What a network is made of."""

    kind: type[PICNN] | type[FICNN]
    x_dim: int
    y_dim: int
    context: tuple[int, ...]
    convex: tuple[int, ...]
    activation: str
    ensemble: int | None
    norm: str
    nonnegativity: str
    reads: str = "aligned"

    def build(self, seed: int, *, steps: int = 0, scale: float = 1.0) -> PICNN | FICNN:
        """A network after random optimiser steps, its parameters then scaled, in float64."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            options = {"ensemble": self.ensemble, "nonnegativity": self.nonnegativity}
            if self.kind is FICNN:
                net = FICNN(self.x_dim, self.y_dim, self.convex, self.activation, **options)
            else:
                net = PICNN(
                    self.x_dim,
                    self.y_dim,
                    self.context,
                    self.convex,
                    self.activation,
                    reads=self.reads,
                    norm=self.norm,
                    **options,
                )
            net.double()
            optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
            for _ in range(steps):
                for p in net.parameters():
                    p.grad = torch.randn_like(p)
                optimizer.step()
                net.project_()
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(scale)
        return net.eval()


ENSEMBLES = st.none() | st.integers(1, 3)


def architectures(
    activations: tuple[str, ...] = tuple(ACTIVATIONS),
    ensembles: st.SearchStrategy[int | None] = ENSEMBLES,
) -> st.SearchStrategy[Architecture]:
    widths = st.integers(1, 12)
    return st.builds(
        Architecture,
        kind=st.sampled_from([PICNN, FICNN]),
        x_dim=st.integers(1, 4),
        y_dim=st.integers(1, 6),
        context=st.lists(widths, max_size=3).map(tuple),
        convex=st.lists(widths, min_size=1, max_size=4).map(tuple),
        activation=st.sampled_from(activations),
        ensemble=ensembles,
        norm=st.sampled_from(["none", "layer", "batch"]),
        nonnegativity=st.sampled_from(["projection", "softplus"]),
        reads=st.sampled_from(["aligned", "last"]),
    )


SEEDS = st.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def apply(operation: str, f: ConvexFunction, seed: int) -> ConvexFunction:
    """An operation with random data on a function with batch shape (E, B)."""
    (_, batch), n = f.batch_shape, f.dim
    match operation:
        case "nothing":
            return f
        case "linear":
            return f + linear(normal(seed, batch, n))
        case "quadratic":
            return f + quadratic(normal(seed, batch).exp(), normal(seed + 1, n))
        case "negative_entropy":
            return f + negative_entropy(0.5)
        case "sum":
            return f + f.affine(normal(seed, n, n), normal(seed + 1, batch, n))
        case "mean":
            return f.mean(0)
        case "max":
            return f.max(0)
        case "restrict":
            return f.restrict(normal(seed, batch, n) > 0.5, normal(seed + 1, n))
        case "affine":
            return f.affine(normal(seed, batch, n, n), normal(seed + 1, n))
        case "all":
            shifted = (f + linear(normal(seed, n))).max(0) + quadratic(0.3, normal(seed + 1, n))
            mask, values = normal(seed + 2, batch, n) > 1, normal(seed + 3, batch, n)
            return shifted.restrict(mask, values).affine(normal(seed + 4, n, n), 0.1)
    raise AssertionError(operation)


def feasible_set(name: str, like: Tensor, seed: int) -> ConvexSet:
    """A set for points of the shape (…, n) and dtype of ``like``."""
    n = like.shape[-1]
    match name:
        case "box":
            return Box(-1.0, 1.0)
        case "coordinate box":
            lower = normal(seed, n).to(like)
            return Box(lower, lower + normal(seed + 1, n).to(like).abs())
        case "sample box":
            lower = normal(seed, *like.shape).to(like)
            return Box(lower, lower + normal(seed + 1, *like.shape).to(like).exp())
        case "degenerate box":
            lower = normal(seed, *like.shape).to(like)
            width = normal(seed + 1, *like.shape).to(like).clamp(min=0)
            return Box(lower, lower + width)
        case "simplex":
            return Simplex()
        case "simplices":
            return Simplices((n - n // 2, n // 2) if n > 1 else (1,))
        case "polytope":  # around a point of each sample's own, and bounded by its rows alone
            A = torch.cat([torch.eye(n), -torch.eye(n), normal(seed, 2, n)]).to(like)
            inside = normal(seed + 1, *like.shape).to(like)
            slack = normal(seed + 2, *like.shape[:-1], 2 * n + 2).to(like).exp()
            return Polytope(A, (A @ inside.unsqueeze(-1)).squeeze(-1) + slack)
        case "box and polytope":
            A = normal(seed, *like.shape[:-1], 3, n).to(like)
            inside = torch.tanh(normal(seed + 1, *like.shape).to(like))
            slack = 0.1 + normal(seed + 2, *like.shape[:-1], 3).to(like).abs()
            return Box(-1.0, 1.0) & Polytope(A, (A @ inside.unsqueeze(-1)).squeeze(-1) + slack)
        case "box and plane":
            E = normal(seed, 1, n).to(like)
            inside = torch.tanh(normal(seed + 1, *like.shape).to(like))
            return Box(-1.0, 1.0) & Polytope(A_eq=E, b_eq=(E @ inside.unsqueeze(-1)).squeeze(-1))
        case "simplex and polytope":  # its rows leave a vertex of the simplex in the set, or all
            A = normal(seed, 2, n).to(like)
            slack = normal(seed + 1, 2).to(like).clamp(min=0)
            return Simplex() & Polytope(A, A[:, 0] + slack)
        case "euclidean":
            return Euclidean()
    raise AssertionError(name)


def feasible_points(over: ConvexSet, near: Tensor, count: int, seed: int) -> Tensor:
    """Points in float64, ``(count, *near.shape)``: spread out, at corners, and around ``near``."""
    near = over.project(near.double())
    spread, width = (normal(seed + k, count // 4, *near.shape) for k in (0, 1))
    far = over.project(3 * spread)
    corners = over.project(over.project(1e3 * spread))  # twice: the first is rounded coarsely
    around = over.project(near + spread * 10 ** (width - 3))
    between = near + (far - near) * torch.sigmoid(width[..., :1])
    return torch.cat([far, corners, around, over.project(between)])


def cast(f: ConvexFunction, dtype: torch.dtype) -> ConvexFunction:
    """The same function with its numbers in another precision."""

    def to(t: Tensor | float) -> Tensor | float:
        return t.detach().to(dtype) if isinstance(t, Tensor) else t

    match f:
        case ConditionedNetwork():
            fields = ("weight_z", "weight_y", "gate_z", "bias")
            parts = {k: getattr(f, k) for k in fields}
            changed = {k: v and tuple(to(t) for t in v) for k, v in parts.items()}
            return replace(f, **changed, gate_y=None if f.gate_y is None else to(f.gate_y))
        case Sum():
            return Sum(cast(f.left, dtype), cast(f.right, dtype))
        case Mean() | Max():
            return type(f)(cast(f.f, dtype), 0)
        case Restriction():
            return Restriction(cast(f.f, dtype), f.mask, to(f.values))
        case Affine():
            return Affine(cast(f.f, dtype), to(f.A), to(f.b))
        case Linear():
            return Linear(to(f.c))
        case Quadratic():
            return Quadratic(to(f.gamma), to(f.center))
        case NegativeEntropy():
            return f
    raise AssertionError(f)


def each_value(f: ConvexFunction, points: Tensor) -> Tensor:
    """f at points of shape ``(count, *batch_shape, n)``, all in one evaluation."""
    count, batch = len(points), f.batch_shape[-1]
    repeated = f.take(torch.arange(batch).repeat(count))
    values = repeated.value(points.movedim(0, -3).flatten(-3, -2))
    return values.unflatten(-1, (count, batch)).movedim(-2, 0)


def rounding(f: ConvexFunction, points: Tensor) -> Tensor:
    """How far off an evaluation of f may be in f's precision, shape ``batch_shape``.

    Measured as the difference between float32 and float64, and scaled to f's precision, because
    intermediate results may be larger than the value by orders of magnitude. Points are rounded
    as well.
    """
    single, double = cast(f, torch.float32), cast(f, torch.float64)
    points = points[:: max(1, len(points) // 64)].float()
    unit = torch.finfo(torch.float32).eps
    worst = torch.zeros(f.batch_shape, dtype=torch.float64)
    for y in points:
        value, slope = double.value_and_gradient(y.double())
        error = (single.value(y).double() - value).abs()
        size = value.abs() + (slope * y).abs().sum(-1)
        worst = torch.maximum(worst, error + unit * size)
    return 8 * torch.finfo(f.like.dtype).eps / unit * worst

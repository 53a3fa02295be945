"""Problems at the edge of what numbers can do, and what no answer to them may get wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from problems import (
    PIECEWISE_LINEAR,
    SMOOTH,
    Architecture,
    cast,
    feasible_points,
    normal,
    rounding,
)
from torch import Tensor

from icnn_rl import (
    PICNN,
    Box,
    ConvexFunction,
    ConvexSet,
    Euclidean,
    Polytope,
    Simplex,
    Simplices,
    Solution,
    linear,
    minimize,
    negative_entropy,
    quadratic,
)

SCALES = (2.0**-20, 2.0**-10, 1.0, 1.0, 2.0**10, 2.0**20)  # powers of two round nothing
FUNCTIONS = (
    "constant",
    "linear",
    "kink",
    "valley",
    "vertex",
    "nearly equal pieces",
    "large offset",
    "flat quadratic",
    "stretched quadratic",
    "piecewise-linear network",
    "smooth network",
)
UNSCALED_SETS = ("simplex", "simplices", "orthant", "space")
SETS = (
    "box",
    "box of uneven sides",
    "box with fixed coordinates",
    "box that is a point",
    "simplex",
    "simplices",
    "repeated rows",
    "nearly equal rows",
    "thin slab",
    "thin polytope",
    "one feasible point",
    "plane",
    "partly empty",
    "orthant",
    "space",
)
VIOLATION = 1e-6  # of a constraint, relative to the size of its terms, that an answer may have
EXACT = 1e-9  # likewise, for a point whose value counts as one that f takes on the set


@dataclass(frozen=True)
class HardProblem:
    """A function and a set.

    Attributes:
        f: the functions, of batch shape ``(batch,)``.
        over: the set, its numbers in the precision of f.
        size: the order of magnitude of what f varies by.
        width: the order of magnitude of the set in each coordinate, ``(n,)``.
        empty: where the set is empty, ``(batch,)``.
        name: what it is, for a report.
    """

    f: ConvexFunction
    over: ConvexSet
    size: float
    width: Tensor
    empty: Tensor
    name: str

    @property
    def like(self) -> Tensor:
        return self.f.like.new_zeros(*self.f.batch_shape, self.f.dim)

    def applies(self, solver: str) -> bool:
        """Whether the solver takes such a function and set."""
        if solver == "bundle_entropy":  # which is given the function plus an entropy
            coupled = self.over.canonical(self.like).has_rows
            return not coupled and bool(
                (self.width >= 1).all()
            )  # on less, the entropy is a linear function
        if solver == "newton_on_device" and not isinstance(self.over, Box):
            return False
        if solver.startswith("newton"):
            return self.f.smooth
        return self.f.piecewise_linear or solver not in ("admm", "lp", "ecos", "clarabel")


def hard_problem(
    function: str, where: str, seed: int, batch: int, dtype: torch.dtype
) -> HardProblem:
    """A batch of problems in one to six dimensions, at random scales of f and of the set."""
    draw = random.Random(seed)
    n, size = draw.randint(1, 6), draw.choice(SCALES)
    width = torch.ones(n).double()
    if where not in UNSCALED_SETS:
        width *= draw.choice(SCALES)
    if where == "box of uneven sides":
        width *= torch.tensor([draw.choice(SCALES) for _ in range(n)]).double()
    moved = draw.choice((0.0, 1.0)) if where not in ("simplex", "simplices") else 0.0
    center = moved * width * grid(seed + 9, n)
    f = unit_function(function, seed, batch, n, size)
    if moved or bool((width != 1).any()):
        f = f.affine(torch.diag(1 / width), -center / width)
    if where in ("orthant", "space"):
        f = f + quadratic(size, center + grid(seed + 8, batch, n))
    f = cast(f, dtype)
    like = f.like.new_zeros(batch, n)
    over, empty = hard_set(where, seed, like, center.to(dtype), width.to(dtype))
    name = f"{function}, {where}, seed {seed}, size {size:g}, width {width.tolist()}, {dtype}"
    return HardProblem(f, over, size, width, empty, name)


def grid(seed: int, *shape: int) -> Tensor:
    """Normal numbers rounded to sixteenths, with which float32 computes exactly."""
    return (16 * normal(seed, *shape)).round() / 16


def pieces(slopes: Tensor, offsets: Tensor, kink: Tensor) -> ConvexFunction:
    """u ↦ max_e slopeₑᵀ(u - kink) + offsetₑ."""
    lift = offsets.unsqueeze(-1) * slopes / slopes.square().sum(-1, keepdim=True)
    return linear(slopes).affine(torch.eye(slopes.shape[-1]).double(), lift - kink).max(0)


def unit_function(name: str, seed: int, batch: int, n: int, size: float) -> ConvexFunction:
    """A function of order ``size`` on [-1, 1]ⁿ, in float64."""
    kink = 0.5 * torch.tanh(normal(seed, batch, n))
    slopes, level = size * normal(seed + 1, n + 1, batch, n), normal(seed + 2, n + 1, batch)
    match name:
        case "constant":
            net = Architecture(PICNN, 2, n, (4,), (4, 4), "softplus", None, "none", "projection")
            return (
                net.build(seed, scale=0.0).requires_grad_(False).condition(normal(seed, batch, 2))
            )
        case "linear":
            return linear(slopes[0])
        case "kink":  # the slopes sum to zero, so that the minimum, 0, is where all pieces meet
            slopes[-1] = -slopes[:-1].sum(0)
            return pieces(slopes, 0.0 * level, kink)
        case "valley":
            return pieces(
                torch.stack([slopes[0], -slopes[0]]), torch.zeros(2, batch).double(), kink
            )
        case "vertex":
            return pieces(slopes.abs() + 0.1 * size, 0.1 * size * level, kink)
        case "nearly equal pieces":
            return pieces(slopes[:1] + 1e-9 * slopes, 1e-9 * size * level, kink)
        case "large offset":
            return pieces(slopes, 1e5 * size + size * level, kink)
        case "flat quadratic":
            return quadratic(size * 10 ** (3 * normal(seed, batch) - 3), kink) + linear(slopes[0])
        case "stretched quadratic":
            stretch = torch.diag_embed(10 ** (2 * normal(seed, batch, n)).clamp(-3, 3))
            return quadratic(size, (stretch @ kink.unsqueeze(-1)).squeeze(-1)).affine(stretch)
        case "piecewise-linear network" | "smooth network":
            draw = random.Random(seed)
            activation = draw.choice(SMOOTH if name.startswith("smooth") else PIECEWISE_LINEAR)
            widths = [tuple(draw.randint(1, 12) for _ in range(draw.randint(1, 3))) for _ in "uz"]
            norm = draw.choice(("none", "layer", "batch"))
            parts = (*widths, activation, None, norm, "projection")
            net = Architecture(PICNN, 3, n, *parts).build(seed, steps=seed % 3, scale=1.5)
            net.requires_grad_(False)
            for weights in (net.path.raw_z[-1], net.path.raw_y[-1]):
                weights.mul_(size)
            return net.condition(normal(seed, batch, 3))
    raise AssertionError(name)


def hard_set(
    name: str, seed: int, like: Tensor, center: Tensor, width: Tensor
) -> tuple[ConvexSet, Tensor]:
    """A set around ``center`` of the order of ``width``, and where it is empty."""
    batch, n = like.shape
    nowhere, single = torch.zeros(batch, dtype=torch.bool), like.dtype == torch.float32
    inside = (grid(seed + 3, batch, n) / 2).clamp(-0.875, 0.875)
    box = Box(center - width, center + width)
    rows, slack = grid(seed + 4, 3, n) + 1 / 32, 0.01 + normal(seed + 5, batch, 3).exp()

    def polytope(A: Tensor, b: Tensor) -> Polytope:  # of u in y = center + width u
        A = (A / width).to(like)
        return Polytope(A, (b + (center / width).double() @ (A * width).double().mT).to(like))

    def at(A: Tensor) -> Tensor:
        return inside @ A.mT

    match name:
        case "box" | "box of uneven sides":
            return box, nowhere
        case "box with fixed coordinates":
            moves = width * normal(seed + 6, batch, n).clamp(min=0)
            lower = (center + width * inside).to(like)
            return Box(lower, lower + moves.to(like)), nowhere
        case "box that is a point":
            point = (center + width * inside).to(like)
            return Box(point, point), nowhere
        case "simplex":
            return Simplex(), nowhere
        case "simplices":
            return Simplices((n - n // 2, n // 2) if n > 1 else (1,)), nowhere
        case "repeated rows":
            rows = rows.repeat(3, 1)
            return box & polytope(rows, at(rows) + slack.repeat(1, 3)), nowhere
        case "nearly equal rows":
            rows = rows.repeat(3, 1) + 1e-7 * normal(seed + 7, 9, n)
            return box & polytope(rows, at(rows) + 0.1), nowhere
        case "thin slab":
            rows = torch.cat([rows[:1], -rows[:1]])
            thickness = 2.0 ** -random.Random(seed).choice((10, 14) if single else (10, 17, 20))
            return box & polytope(rows, at(rows) + thickness), nowhere
        case "thin polytope":  # bounded by its rows alone, and flat in one direction
            rows = torch.cat([torch.eye(n), -torch.eye(n)]).double()
            thickness = torch.ones(2 * n).double()
            thickness[[0, n]] = 2.0**-13
            return polytope(rows, at(rows) + thickness), nowhere
        case "one feasible point":
            rows = torch.cat([-torch.eye(n), torch.ones(1, n)]).double()
            return box & polytope(rows, at(rows)), nowhere
        case "plane":
            E = (rows[:1] / width).to(like)
            return box & Polytope(
                A_eq=E, b_eq=(center.to(like) + width * inside.to(like)) @ E.mT
            ), nowhere
        case "partly empty":
            empty = normal(seed + 7, batch) > 0
            rows = torch.cat([rows, -rows[:1]])
            right = at(rows) + torch.cat([slack, slack[:, :1]], 1)
            right[:, -1] = torch.where(empty, -right[:, 0] - 1e-3, right[:, -1])
            return box & polytope(rows, right), empty
        case "orthant":
            return polytope(-torch.eye(n).double(), torch.ones(batch, n).double()), nowhere
        case "space":
            return Euclidean(), nowhere
    raise AssertionError(name)


def violation(over: ConvexSet, y: Tensor) -> Tensor:
    """By how much y breaks a constraint, relative to the size of its terms, ``batch``."""
    lower, upper = (t.double() for t in over.bounds(y))
    reach = torch.where((upper - lower).isfinite(), upper - lower, 1.0) + y.abs() + 1e-300
    worst = torch.maximum((lower - y) / reach, (y - upper) / reach).amax(-1).clamp(min=0)
    form, y = over.canonical(y), y.double()
    for matrix, right, both in ((form.A_ub, form.b_ub, False), (form.A_eq, form.b_eq, True)):
        if right.shape[-1]:
            excess = (matrix @ y.unsqueeze(-1)).squeeze(-1) - right
            terms = (matrix.abs() @ reach.unsqueeze(-1)).squeeze(-1) + right.abs() + 1e-300
            excess = (excess.abs() if both else excess) / terms
            worst = torch.maximum(worst, excess.amax(-1))
    return worst


class Truth:
    """The least value known of each function, at points that are feasible beyond doubt."""

    def __init__(self, problem: HardProblem, points: int) -> None:
        self.problem = problem
        self.exact = cast(problem.f, torch.float64)
        like = problem.like.double()
        solver = "lp" if self.exact.piecewise_linear else "bundle"
        best = minimize(self.exact, problem.over, 1e-10 * problem.size, solver)
        near = torch.where(problem.empty.unsqueeze(-1), like, best.y)
        spread = feasible_points(problem.over, near, points, 0).nan_to_num()  # NaN: no such point
        self.points = torch.cat([near[None], spread])
        # Rounding to the set's own precision may move a point across a constraint.
        terms = self.points[:: max(1, len(self.points) // 32)]
        self.slack = rounding(problem.f, terms)
        slope = torch.stack([self.exact.value_and_gradient(y)[1].abs() for y in terms]).amax(0)
        lower, upper = (t.double() for t in problem.over.bounds(like))
        reach = torch.where((upper - lower).isfinite(), upper - lower, 1.0) + near.abs()
        self.slack += EXACT * (slope * reach).sum(-1)
        self.lowest = torch.full_like(self.slack, torch.inf)
        for y in self.points:
            self.learn(y)

    def learn(self, y: Tensor) -> None:
        """Take note of a point."""
        feasible = violation(self.problem.over, y.nan_to_num()) <= EXACT
        value = torch.where(feasible, self.exact.value(y.nan_to_num()), torch.inf)
        self.lowest = torch.minimum(self.lowest, value)

    def faults(self, solution: Solution) -> dict[str, Tensor]:
        """What is wrong with an answer, sample by sample."""
        solvable = ~self.problem.empty
        y = solution.y.double().nan_to_num()
        value, bound = solution.value.double(), solution.lower_bound.double()
        error = (value - self.exact.value(y)).abs()
        return {
            "false certificate": solvable & ~(bound <= self.lowest + self.slack),
            "infeasible point": solvable & ~(violation(self.problem.over, y) <= VIOLATION),
            "wrong value": solvable & ~(error <= self.slack + rounding(self.problem.f, y[None])),
            "negative gap": ~(solution.gap >= 0),
            "wrong verdict": (solution.infeasible != self.problem.empty) | solution.unbounded,
        }


def entropic(problem: HardProblem) -> HardProblem:
    """The problem with an entropy added to its function."""
    f = problem.f + negative_entropy(0.1 * problem.size)
    return replace(problem, f=f, name=f"{problem.name}, entropy")

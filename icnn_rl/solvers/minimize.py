"""One call for every solver."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import Box, ConvexSet, Euclidean
from icnn_rl.sets.polyhedral_set import PolyhedralSet
from icnn_rl.sets.relaxed import relaxed
from icnn_rl.solvers.newton_on_device import has_kernel
from icnn_rl.solvers.problem import Problem, capturing
from icnn_rl.solvers.solution import Solution

LINEAR_PROGRAMS = ("lp", "ecos", "clarabel")
SOLVERS = (
    "newton",
    "newton_on_device",
    "bundle",
    "kelley",
    "level",
    "bundle_entropy",
    "projected_gradient",
    "accelerated_gradient",
    "admm",
    *LINEAR_PROGRAMS,
)
FEW = 32  # samples that the host solves sooner than a GPU would in tensors
NEWTON_DIM = 64  # above it the Hessian costs more passes than the bundle needs tangents


@torch.no_grad()
def minimize(
    f: ConvexFunction,
    over: ConvexSet,
    tol: float = 1e-4,
    solver: str = "auto",
    *,
    start: Tensor | None = None,
    max_evaluations: int = 200,
) -> Solution:
    """Minimise a batch of convex functions over a set, each answer with a proven gap.

        y* ≈ argmin { f(y) : y ∈ 𝒴 },      lower_bound ≤ f(y*) ≤ value ≤ lower_bound + gap

    No gradient flows through the call; put ``solution.y`` into ``f.value`` to have the gradient
    of the minimum with respect to what f was made of (the envelope theorem; where y* is a kink of
    f, it is one of several).

    Args:
        f: functions with batch shape ``batch`` and dimension n.
        over: the feasible set 𝒴.
        tol: the gap ≥ 0, in units of f, at which a sample is done.
        solver: a name in ``SOLVERS``, for which docs/solvers.md has a table. ``auto`` takes
            ``newton`` for smooth f and small n (on a GPU and a box ``newton_on_device``, for many
            samples, where it has a kernel, and in a CUDA graph), ``lp`` where a piecewise-linear
            f may fall for ever, ``bundle_entropy`` for an entropy on a box of many dimensions,
            else ``bundle``.
        start: first points, shape ``(*batch, n)``; projected onto 𝒴. The centre of 𝒴 by default.
        max_evaluations: evaluations of f after which a sample is given up; its gap stays true.
            A ball or a budget takes several problems, and each may have as many.

    Returns:
        A ``Solution`` with tensors of shape ``batch``.

    Raises:
        ValueError: an argument has a wrong value or shape, or f is not finite.
        TypeError: the solver does not apply to this function or set, or f is in another precision
            than float32 and float64.
    """
    if f.dim is None or f.like is None:
        raise ValueError("f: expected a function that fixes the dimension, got an entropy alone")
    if f.like.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"f: expected a function in float32 or float64, got {f.like.dtype}")
    if not (tol >= 0 and math.isfinite(tol)):
        raise ValueError(f"tol: expected a finite number >= 0, got {tol}")
    if max_evaluations < 1:
        raise ValueError(f"max_evaluations: expected a number >= 1, got {max_evaluations}")
    if solver != "auto" and solver not in SOLVERS:
        raise ValueError(f"solver: expected 'auto' or one of {SOLVERS}, got {solver!r}")
    like = f.like.new_zeros(*f.batch_shape, f.dim)
    if start is not None:
        start = fitting(start, like)
    if isinstance(over, Box):  # bounded and not empty: to ask would cost, and wait for a device
        if solver == "auto":
            solver = choose(f, over)
            if solver == "newton" and like.is_cuda and _stays(f):
                solver = "newton_on_device"
        center = over.center(like)
        first = center if start is None else over.project(start)
        return _solve(solver, f, over, tol, max_evaluations, first, center)
    if over.balls or over.budgets(like) is not None:
        if over.balls and solver in (*LINEAR_PROGRAMS, "admm"):
            raise TypeError(f"solver: {solver!r} cannot keep to a ball; use 'bundle'")
        # One constraint is taken off, and what is left goes through this function again.
        by = import_module(f"icnn_rl.solvers.{'ball' if over.balls else 'budget'}")
        outcome: Solution = by.solve(f, over, like, tol, solver, start, max_evaluations)
        return outcome
    strongly_convex = bool((torch.as_tensor(f.strong_convexity) > 0).all())
    if isinstance(over, Euclidean) and not strongly_convex:
        raise ValueError(
            "over: all of space needs a strongly convex function; add quadratic(gamma, center) "
            "with gamma > 0"
        )
    lower, upper = over.bounds(like)
    endless = ~(upper - lower).isfinite().all(-1)
    if solver == "auto":
        solver = choose(f, over, bool(endless.any()) and not strongly_convex)
    center, empty = over.interior(like)
    given = over
    if isinstance(over, PolyhedralSet) and bool(empty.any()):
        over = relaxed(over, like)
        center = over.center(like)
    lost = endless & ~empty
    if strongly_convex or solver in LINEAR_PROGRAMS:
        lost = torch.zeros_like(lost)
    if bool(lost.any()):
        # Solved near the centre instead, so that the other samples can go on.
        near = lost.unsqueeze(-1)
        over &= Box(torch.where(near, center - 1, lower), torch.where(near, center + 1, upper))
    first = center if start is None else over.project(start)
    solution = _solve(solver, f, over, tol, max_evaluations, first, center)
    if over is given:
        return solution
    bound = solution.lower_bound.masked_fill(lost, -torch.inf)
    return replace(
        solution,
        y=solution.y.masked_fill(empty.unsqueeze(-1), torch.nan),
        value=solution.value.masked_fill(empty, torch.inf),
        lower_bound=bound.masked_fill(empty, torch.inf),
        converged=solution.converged & ~empty & ~lost,
        infeasible=solution.infeasible | empty,
        unbounded=(solution.unbounded | lost) & ~empty,
    )


def _stays(f: ConvexFunction) -> bool:
    """Whether functions on a GPU are solved there sooner than on the host."""
    assert f.like is not None
    return capturing(f.like) or f.batch_shape.numel() > FEW or has_kernel(f)


def _solve(
    solver: str,
    f: ConvexFunction,
    over: ConvexSet,
    tol: float,
    max_evaluations: int,
    first: Tensor,
    center: Tensor,
) -> Solution:
    problem = Problem(f, over, tol, max_evaluations, first.contiguous(), center.contiguous())
    # Imported when first used: compiling and linear programming are slow to load.
    solution: Solution = import_module(f"icnn_rl.solvers.{solver}").solve(problem)
    return solution


def fitting(start: Tensor, like: Tensor) -> Tensor:
    """First points in the shape, dtype and device of ``like``."""
    if not capturing(start) and not bool(start.isfinite().all()):
        raise ValueError("start: expected finite entries, got NaN or infinity")
    try:
        return start.to(like).expand_as(like)
    except RuntimeError:
        raise ValueError(
            f"start: expected shape {tuple(like.shape)}, got {tuple(start.shape)}"
        ) from None


def choose(f: ConvexFunction, over: ConvexSet, endless: bool = False) -> str:
    """The solver that ``auto`` takes: the table in docs/solvers.md, as code."""
    if endless and f.piecewise_linear:
        return "lp"  # the only one that can tell a minimum from a descent without end
    if f.dim is not None and f.dim > NEWTON_DIM:
        from icnn_rl.solvers.bundle_entropy import split  # it compiles

        if isinstance(over, Box) and split(f)[1] > 0:
            return "bundle_entropy"  # tangents of a steep entropy are a poor model of it
        return "bundle"
    return "newton" if f.smooth else "bundle"

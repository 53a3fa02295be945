"""One call for every solver."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction, Linear, common_shape, without_entropy
from icnn_rl.networks.checks import require_size
from icnn_rl.sets import Box, CanonicalSet, ConvexSet, Euclidean
from icnn_rl.sets.batches import broadcast
from icnn_rl.solvers.constrained import minimize_in_ball, minimize_in_l1_balls
from icnn_rl.solvers.eager import eager
from icnn_rl.solvers.newton_on_device import has_kernel
from icnn_rl.solvers.problem import Problem, Solver, capturing
from icnn_rl.solvers.solution import Solution

SOLVERS = {  # where their classes stand: compiling and linear programming are slow to load
    "newton": "newton:Newton",
    "newton_on_device": "newton_on_device:NewtonOnDevice",
    "bundle": "bundle:Bundle",
    "level": "bundle:Level",
    "kelley": "bundle:Kelley",
    "bundle_entropy": "bundle_entropy:BundleEntropy",
    "projected_gradient": "gradient:ProjectedGradient",
    "accelerated_gradient": "gradient:AcceleratedGradient",
    "lp": "lp:LinearProgram",
}
SMALL_BATCH = 32  # samples that the host solves sooner than a GPU would in tensors
MAX_HESSIAN_DIM = 64  # above it the Hessian costs more passes than the bundle needs tangents


class MinimizeOptions(TypedDict, total=False):
    """Arguments that ``minimum`` and ``argmin`` pass on to ``minimize``, where they are explained.

    Attributes:
        solver: a name, or an object.
        start: first points.
        max_evaluations: evaluations of f after which a sample stops.
    """

    solver: str | Solver
    start: Tensor | None
    max_evaluations: int


@eager
@torch.no_grad()
def minimize(
    f: ConvexFunction,
    over: ConvexSet,
    tol: float = 1e-4,
    solver: str | Solver = "auto",
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
        f: functions with dimension n; their batch shape and that of the set broadcast to ``batch``.
        over: the feasible set 𝒴.
        tol: the gap ≥ 0, in units of f, at which a sample is done.
        solver: a name in ``SOLVERS``, for which docs/solvers.md has a table, or an object such as
            ``Bundle(level=0.3)`` or one of your own (see ``Solver``). ``auto`` takes
            ``newton`` for smooth f and small n (on a GPU and a box ``newton_on_device``, for many
            samples, where it has a kernel, and in a CUDA graph), ``lp`` where a piecewise-linear
            f may fall for ever, ``bundle_entropy`` for an entropy on a box of many dimensions,
            else ``bundle``.
        start: first points, shape ``(*batch, n)``; projected onto 𝒴. A point well inside by
            default.
        max_evaluations: evaluations of f after which a sample stops; its gap stays true.
            A ball of either norm takes several problems, and each may have as many.

    Returns:
        A ``Solution`` with tensors of shape ``batch``.

    Raises:
        ValueError: an argument has a wrong value or shape, or f is not finite.
        TypeError: the solver does not apply to this function or set, ``tol`` is no number, or f is
            in another precision than float32 and float64.
        RuntimeError: a transform of ``torch.func`` is applied.
    """
    f = spread(f, over)
    if f.dim is None or f.like is None:
        raise ValueError("f: expected a function that fixes the dimension, got an entropy alone")
    require_precision(f.like)
    tol = tolerance(tol)
    require_size("max_evaluations", max_evaluations)
    linear = solver != "auto" and getattr(solver_of(solver), "linear", False)
    like = f.like.new_zeros(*f.batch_shape, f.dim)
    if start is not None:
        start = fitting(start, like)
    if isinstance(over, Box):  # bounded and not empty: to ask would cost, and wait for a device
        if solver == "auto":
            solver = choose(f, over)
        lower, upper = over.bounds(like)
        center = (lower + upper) / 2
        first = center if start is None else over.project(start)
        return _solve(solver, f, over, tol, max_evaluations, first, center)
    form = over.canonical(like)
    if form.balls or form.has_l1:
        if form.balls and linear:
            raise TypeError(f"solver: {solver!r} cannot keep to a ball; use 'bundle'")

        # One kind of constraint is taken off, and what is left goes through this function again.
        def inner(
            g: ConvexFunction, part: CanonicalSet, accuracy: float, first: Tensor | None
        ) -> Solution:
            return minimize(g, part, accuracy, solver, start=first, max_evaluations=max_evaluations)

        if form.balls:
            return minimize_in_ball(f, form, tol, start, inner, max_evaluations)
        return minimize_in_l1_balls(f, form, tol, start, inner)
    strongly_convex = bool((torch.as_tensor(f.strong_convexity) > 0).all())
    lower, upper = form.full_bounds
    endless = ~(upper - lower).isfinite().all(-1)
    if isinstance(over, Euclidean) and not strongly_convex:  # says so for an empty batch, too
        raise ValueError(
            "over: all of space needs a strongly convex function; add quadratic(gamma, center) "
            "with gamma > 0"
        )
    if solver == "auto":
        solver = choose(f, over, bool(endless.any()) and not strongly_convex)
        linear = solver == "lp"
    center, empty = over.interior_point(like)
    if not over.closed_form:
        over = form  # whose rows and bounds are made once
    given = over
    if over is form:
        over = form = form.relaxed(center, empty)
    if over is not given:
        center, _ = over.interior_point(like)
    lost = endless & ~empty
    if strongly_convex or linear:
        lost = torch.zeros_like(lost)
    if bool(lost.any()):
        # Solved near the centre instead, so that the other samples can go on.
        near, exact = lost.unsqueeze(-1), center.double()
        over = replace(
            form,
            lower=torch.where(near, exact - 1, lower),
            upper=torch.where(near, exact + 1, upper),
        )
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


def _solve(
    solver: str | Solver,
    f: ConvexFunction,
    over: ConvexSet,
    tol: float,
    max_evaluations: int,
    first: Tensor,
    center: Tensor,
) -> Solution:
    problem = Problem(f, over, tol, max_evaluations, first.contiguous(), center.contiguous())
    return solver_of(solver).solve(problem)


def solver_of(solver: str | Solver) -> Solver:
    """The solver of a name, or the object itself.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(solver, str) and solver in SOLVERS:
        return _named(solver)
    if isinstance(solver, (str, type)) or not isinstance(solver, Solver):
        raise ValueError(
            f"solver: expected 'auto', one of {tuple(SOLVERS)} or an object with a method "
            f"'solve', got {solver!r}"
        )
    return solver


@cache
def _named(name: str) -> Solver:
    module, _, kind = SOLVERS[name].partition(":")
    made: Solver = getattr(import_module(f"icnn_rl.solvers.{module}"), kind)()
    return made


def solved_on_device(dim: int, batch: int) -> bool:
    """Whether ``auto`` solves all smooth functions on a GPU over a box there, by their sizes."""
    return dim <= MAX_HESSIAN_DIM and batch > SMALL_BATCH


def tolerance(tol: float) -> float:
    """``tol`` as a plain number: a tensor or array of one number will do.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative or not finite.
    """
    try:
        number = float(tol)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"tol: expected a number, got {tol!r}") from None
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"tol: expected a finite number >= 0, got {tol}")
    return number


def require_precision(like: Tensor) -> None:
    """Refuse functions in a precision that solvers do not work in."""
    if like.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"f: expected a function in float32 or float64, got {like.dtype}")


def spread(f: ConvexFunction, over: ConvexSet) -> ConvexFunction:
    """f with a batch shape that that of the set broadcasts to."""
    try:
        batch = common_shape(f.batch_shape, over.batch_shape)
    except RuntimeError:
        return f  # what does not fit is named where the set is built
    if batch == f.batch_shape or f.like is None:
        return f
    return f + Linear(f.like.new_zeros(*batch, f.dim or 0))


def fitting(start: Tensor, like: Tensor) -> Tensor:
    """First points in the shape, dtype and device of ``like``."""
    if not capturing(start) and not bool(start.isfinite().all()):
        raise ValueError("start: expected finite entries, got NaN or infinity")
    return broadcast("start", start, like.shape, like)


def choose(f: ConvexFunction, over: ConvexSet, endless: bool = False) -> str:
    """The solver that ``auto`` takes: the table in docs/solvers.md, as code."""
    assert f.dim is not None
    assert f.like is not None
    if endless and f.piecewise_linear:
        return "lp"  # the only one that can tell a minimum from a descent without end
    if f.dim > MAX_HESSIAN_DIM:
        # Tangents of a steep entropy are a poor model of it.
        entropic = isinstance(over, Box) and without_entropy(f)[1] > 0
        return "bundle_entropy" if entropic else "bundle"
    if not f.smooth:
        return "bundle"
    on_device = isinstance(over, Box) and f.like.is_cuda
    if on_device and (
        capturing(f.like) or solved_on_device(f.dim, f.batch_shape.numel()) or has_kernel(f)
    ):
        return "newton_on_device"
    return "newton"


def minimize_modes(
    f: ConvexFunction, over: ConvexSet, tol: float = 1e-4, **options: Unpack[MinimizeOptions]
) -> tuple[Solution, Tensor]:
    """Minimise min_k f_k over a set, with a proven gap to the global minimum.

        y* ≈ argmin { min_k f_k(y) : y ∈ 𝒴 },      min_k lower_bound_k ≤ min_k f_k(y*)

    The K convex problems of each sample are solved as one batch. The best answer of all is the
    answer, and the lowest of all bounds holds for every mode.

    Args:
        f: functions with a leading mode axis, batch shape ``(K, *batch)``: a network whose
            ensemble axis counts the modes.
        over: the feasible set 𝒴.
        tol, options: as in ``minimize``.

    Returns:
        A ``Solution`` with tensors of shape ``batch``, its ``evaluations`` summed over the modes,
        and the mode k that y* belongs to, of shape ``batch``.

    Raises:
        ValueError: f has no mode axis; otherwise as ``minimize``.

    Source: Lim, Joseph, Le, Pan & White, "Actor-Expert: A framework for using Q-learning in
    continuous action spaces", 2018, shows where one convex piece is too few.
    """
    if len(f.batch_shape) < 1 or f.batch_shape[0] < 1:
        raise ValueError(
            f"f: expected a leading mode axis, as an ensemble has; got batch shape "
            f"{tuple(f.batch_shape)}"
        )
    each = minimize(f, over, tol, **options)
    value, mode = each.value.min(0)
    lower_bound = each.lower_bound.amin(0)
    chosen = mode[None, ..., None].expand(1, *each.y.shape[1:])
    return (
        Solution(
            y=each.y.gather(0, chosen).squeeze(0),
            value=value,
            lower_bound=lower_bound,
            converged=(value - lower_bound <= tol) & value.isfinite(),
            evaluations=each.evaluations.sum(0),
            infeasible=each.infeasible.all(0),
            unbounded=each.unbounded.any(0),
        ),
        mode,
    )

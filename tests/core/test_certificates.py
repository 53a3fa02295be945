"""The certificate is a proof: no feasible point lies below ``lower_bound``, whatever happened."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    PIECEWISE_LINEAR,
    SEEDS,
    SETS,
    SMOOTH,
    Architecture,
    apply,
    architectures,
    cast,
    each_value,
    feasible_points,
    feasible_set,
    normal,
    rounding,
)

from icnn_rl import ConvexFunction, ConvexSet, Solution, minimize

BATCH = 4
POINTS = 500


def assert_certified(f: ConvexFunction, over: ConvexSet, solution: Solution) -> None:
    """No feasible point is below the bound, the answer is feasible and its value its own.

    The function is taken in float64, so that a bound found in float32 holds for the exact
    function, up to the rounding of its evaluation.
    """
    exact, y = cast(f, torch.float64), solution.y.double()
    nearest = over.project(y)
    assert (nearest - y).abs().max() <= 4 * torch.finfo(f.like.dtype).eps * f.dim + 1e-8
    points = torch.cat([nearest[None], feasible_points(over, y, POINTS, 0)])
    slack = rounding(f, torch.cat([nearest[None], points[:: POINTS // 64]]))
    if not over.closed_form:  # whose points are feasible to 1e-10, not exactly
        _, slope = exact.value_and_gradient(nearest)
        slack = slack + 1e-8 * slope.abs().sum(-1)
    lowest = each_value(exact, points).amin(0)
    assert (solution.lower_bound.double() <= lowest + slack).all()
    assert ((solution.value.double() - exact.value(y)).abs() <= slack).all()
    assert (solution.gap >= 0).all()
    assert (solution.evaluations >= 1).all()


def build(
    architecture: Architecture, operation: str, seed: int, size: float, dtype: torch.dtype
) -> ConvexFunction:
    """A function of order ``size``, its weights those of a network trained a while."""
    net = architecture.build(seed, steps=seed % 3, scale=1.5).requires_grad_(False)
    if net.path.nonnegativity == "projection":
        for weights in (net.path.raw_z[-1], net.path.raw_y[-1]):
            weights.mul_(size)
    x = normal(seed, BATCH, architecture.x_dim)
    return cast(apply(operation, net.condition(x), seed), dtype)


SIZES = st.sampled_from([1.0, 1.0, 1e-6, 1e-3, 1e3, 1e6])
EVALUATIONS = st.sampled_from([1, 2, 3, 60])
DTYPES = st.sampled_from([torch.float32, torch.float64])


OPERATIONS = ("mean", "max", "linear", "sum", "restrict", "affine")
CASES = [
    (solver, where)
    for solver in ("bundle", "newton", "lp")
    for where in SETS
    if where != "euclidean" and (solver == "bundle" or where != "simplex")
]
ACTIVATIONS_OF = {
    "bundle": PIECEWISE_LINEAR + SMOOTH,
    "newton": SMOOTH,
    "lp": PIECEWISE_LINEAR,
}


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "where"), CASES, ids=[" ".join(case) for case in CASES])
@settings(max_examples=max(1, settings.default.max_examples // 2))
@given(st.data())
def test_no_point_below_the_bound(solver: str, where: str, data: st.DataObject) -> None:
    architecture = data.draw(architectures(ACTIVATIONS_OF[solver], st.just(2)))
    operations = [o for o in OPERATIONS if (solver, o) != ("newton", "max")]
    operation, size, dtype = (data.draw(s) for s in (st.sampled_from(operations), SIZES, DTYPES))
    seed = data.draw(SEEDS)
    f = build(architecture, operation, seed, size, dtype)
    like = torch.zeros(*f.batch_shape, f.dim, dtype=dtype)
    over = feasible_set(where, like, seed)
    corners = over.project(1e3 * normal(seed, *like.shape).to(dtype))
    start = data.draw(st.sampled_from([None, corners]))
    solution = minimize(f, over, 1e-4, solver, start=start, max_evaluations=data.draw(EVALUATIONS))
    assert_certified(f, over, solution)

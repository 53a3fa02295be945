"""The methods beside bundle, Newton and linear programs: true certificates, and convergence."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    BOUNDED_SETS,
    BOXES,
    PIECEWISE_LINEAR,
    SEEDS,
    apply,
    architectures,
    cast,
    each_value,
    feasible_points,
    feasible_set,
    normal,
    rounding,
)
from test_certificates import DTYPES, SIZES, assert_certified, build
from test_minimize import BATCH, PROBLEMS, N, network

from icnn_rl import (
    FICNN,
    Box,
    Euclidean,
    Polytope,
    Simplex,
    Simplices,
    linear,
    minimize,
    negative_entropy,
    quadratic,
)

TOLERANCES = {
    "kelley": 1e-6,
    "level": 1e-6,
    "bundle_entropy": 1e-6,
    "projected_gradient": 2e-2,
    "accelerated_gradient": 2e-2,
}
SOLVERS = tuple(TOLERANCES)
GRADIENTS = ("projected_gradient", "accelerated_gradient")


def applies(solver: str, problem: str) -> bool:
    return solver != "bundle_entropy" or "entropy" in problem


@pytest.mark.parametrize("solver", ["bundle_entropy", "bundle"])
def test_an_entropy_that_leaves_its_domain_in_single_precision(solver: str) -> None:
    c = 20 * normal(0, 30).float()
    solution = minimize(linear(c) + negative_entropy(1.0), Box(-1.5, 1.5), 1e-2, solver)
    exact = linear(c.double()) + negative_entropy(1.0)
    value = exact.value(solution.y.double())
    torch.testing.assert_close(solution.value.double(), value, rtol=1e-6, atol=1e-3)
    best = minimize(exact, Box(-1.5, 1.5), 1e-9).value
    assert solution.lower_bound <= best + 1e-3
    assert solution.converged


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_problems_by_solvers(problem: str, solver: str) -> None:
    f, tol = PROBLEMS[problem](), TOLERANCES[solver]
    over = Box(-1.0, 1.0)
    if not applies(solver, problem):
        with pytest.raises(TypeError, match=f"solver: '{solver}' needs .* use 'bundle'"):
            minimize(f, over, tol, solver)
        return
    solution = minimize(f, over, tol, solver, max_evaluations=1000)
    assert solution.converged.all()
    assert (solution.gap >= 0).all()
    assert over.contains(solution.y, 0.0).all()
    torch.testing.assert_close(solution.value, f.value(solution.y))
    oracle = minimize(f, over, 1e-7, "bundle", max_evaluations=400)
    assert (solution.lower_bound <= oracle.value).all()
    assert (oracle.lower_bound <= solution.value).all()


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=15)
@given(st.data())
def test_no_point_below_the_bound(solver: str, data: st.DataObject) -> None:
    architecture = data.draw(architectures(ensembles=st.just(2)))
    operation = data.draw(st.sampled_from(["mean", "max", "linear", "sum", "restrict", "affine"]))
    size, dtype, seed = (data.draw(s) for s in (SIZES, DTYPES, SEEDS))
    f = build(architecture, operation, seed, size, dtype)
    sets = BOUNDED_SETS
    if solver == "bundle_entropy":
        f, sets = f + negative_entropy(0.1 * size), BOXES
    like = torch.zeros(*f.batch_shape, f.dim, dtype=dtype)
    over = feasible_set(data.draw(st.sampled_from(sets)), like, seed)
    limit = data.draw(st.sampled_from([1, 3, 10]))
    solution = minimize(f, over, 1e-4, solver, max_evaluations=limit)
    assert (solution.evaluations <= limit).all()
    if not over.canonical(like).has_rows:
        assert_certified(f, over, solution)
    else:  # whose projections are iterative
        exact, y = cast(f, torch.float64), solution.y.double()
        assert over.contains(y, 1e-6 * (1 + y.abs().max())).all()
        points = feasible_points(over, y, 400, 0)
        least = each_value(exact, points).amin(0)  # of points that keep to the set nearly
        slack = rounding(f, points) + 1e-9 * (size + least.abs())
        assert (solution.lower_bound.double() <= least + slack).all()


@pytest.mark.parametrize("where", ["simplices", "polytope", "box and polytope", "box and plane"])
@pytest.mark.parametrize("solver", [s for s in SOLVERS if s != "bundle_entropy"])
def test_every_set(solver: str, where: str) -> None:
    f, tol = network("relu"), TOLERANCES[solver]
    over = feasible_set(where, torch.zeros(BATCH, N).double(), 3)
    solution = minimize(f, over, tol, solver, max_evaluations=1000)
    oracle = minimize(f, over, solver="lp")
    assert solution.converged.all()
    assert over.contains(solution.y, 1e-6).all()
    assert (solution.lower_bound <= oracle.value + 1e-9).all()
    assert (solution.value >= oracle.lower_bound - 1e-7).all()


UNBOUNDED = {
    "space": Euclidean(),
    "half-spaces": Polytope(-torch.eye(2, N).double(), torch.zeros(2).double()),
}


@pytest.mark.parametrize(
    ("solver", "where"),
    [*((s, "space") for s in GRADIENTS), *((s, w) for s in ("kelley", "level") for w in UNBOUNDED)],
)
def test_unbounded_sets(solver: str, where: str) -> None:
    over = UNBOUNDED[where]
    f = network("softplus") + quadratic(1.0, normal(5, BATCH, N))
    solution = minimize(f, over, 1e-5, solver, max_evaluations=400)
    oracle = minimize(f, over, 1e-8, "bundle", max_evaluations=400)
    assert solution.converged.all()
    assert (solution.lower_bound <= oracle.value).all()
    torch.testing.assert_close(solution.value, oracle.value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_early_stops_only_tighten(solver: str, dtype: torch.dtype) -> None:
    f = network("relu") + negative_entropy(0.2) if solver == "bundle_entropy" else network("relu")
    optimum = minimize(f, Box(-1.0, 1.0), 1e-9, "bundle", max_evaluations=400).value
    gaps = []
    for limit in (1, 3, 10, 40):
        solution = minimize(cast(f, dtype), Box(-1.0, 1.0), 1e-7, solver, max_evaluations=limit)
        assert (solution.lower_bound <= optimum + 1e-9).all()
        gaps.append(solution.gap)
    for before, after in pairwise(gaps):
        assert (after <= before + torch.finfo(dtype).eps).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_tangents_that_coincide(solver: str) -> None:
    """A linear function has one tangent; with an entropy it is asked for again and again."""
    c = normal(0, BATCH, N)
    f, expected = linear(c), -c.abs().sum(-1)
    if solver == "bundle_entropy":
        f, expected = f + negative_entropy(1.0), -torch.log(2 * torch.cosh(c)).sum(-1)
    solution = minimize(f, Box(-1.0, 1.0), 1e-5, solver, max_evaluations=20)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, expected, rtol=0, atol=1e-5)


def test_a_singular_master_of_the_entropy_method() -> None:
    """Twenty equal tangents and no accuracy that could be reached."""
    f = linear(normal(0, BATCH, N)) + negative_entropy(1.0)
    solution = minimize(f, Box(-1.0, 1.0), 0.0, "bundle_entropy", max_evaluations=20)
    assert solution.y.isfinite().all()
    assert (solution.gap <= 1e-12).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_dimension_and_a_batch_of_one(solver: str) -> None:
    f = network("relu", n=1).take(torch.tensor([2]))
    f = f + negative_entropy(0.1) if solver == "bundle_entropy" else f
    tol = TOLERANCES[solver]
    solution = minimize(f, Box(-1.0, 1.0), tol, solver, max_evaluations=500)
    assert solution.y.shape == (1, 1)
    assert solution.converged.all()
    grid = torch.linspace(-1, 1, 2001).double()[:, None]
    lowest = torch.stack([f.value(y) for y in grid]).amin(0)
    assert (solution.lower_bound <= lowest).all()
    assert (solution.value <= lowest + tol).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_ensemble_axis_is_a_batch(solver: str) -> None:
    f = network("relu", ensemble=2)
    f = f + negative_entropy(0.1) if solver == "bundle_entropy" else f
    solution = minimize(f, Box(-1.0, 1.0), 1e-2, solver, max_evaluations=400)
    assert solution.y.shape == (2, BATCH, N)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, f.value(solution.y))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_flat_function_is_done_at_once(solver: str) -> None:
    net = FICNN(2, N, (4,), "relu").double().requires_grad_(False)
    for p in net.parameters():
        p.zero_()
    f = net.condition(torch.zeros(2, 2).double())
    f = f + negative_entropy(0.1) if solver == "bundle_entropy" else f
    solution = minimize(f, Box(-1.0, 1.0), 1e-6, solver)
    assert solution.converged.all()
    assert (solution.evaluations == 1).all()


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (-0.3, 0.9), (-2.0, 1.5)])
def test_entropy_anywhere_in_the_sum(alpha: float, bounds: tuple[float, float]) -> None:
    """Near ±1 and beyond, where the entropy is continued by a quadratic, the bound is exact."""
    steep = 40 * alpha * normal(3, BATCH, N)
    f = (linear(steep) + negative_entropy(alpha / 2)) + (network("relu") + negative_entropy(alpha))
    over = Box(*bounds)
    solution = minimize(f, over, 1e-7, "bundle_entropy", max_evaluations=100)
    oracle = minimize(f, over, 1e-7, "bundle", max_evaluations=1000)
    assert solution.converged.all()
    assert (solution.lower_bound <= oracle.value).all()
    assert (oracle.lower_bound <= solution.value).all()


def test_entropy_needs_a_box() -> None:
    f = network("relu") + negative_entropy(0.1)
    for over in (Simplex(), Simplices((1, 2))):
        with pytest.raises(TypeError, match="'bundle_entropy' needs a box, got Simpl"):
            minimize(f, over, solver="bundle_entropy")
    with pytest.raises(TypeError, match=r"needs f = g \+ negative_entropy"):
        minimize(network("relu") + negative_entropy(0.0), Box(-1.0, 1.0), solver="bundle_entropy")


@pytest.mark.parametrize("solver", GRADIENTS)
def test_gradient_methods_close_the_gap_at_their_rate(solver: str) -> None:
    """On a quadratic with all of its minima inside, far more digits for not much more work."""
    f = quadratic(2.0, 0.3 * normal(1, BATCH, N)) + linear(0.1 * normal(2, N))
    needed = [
        minimize(f, Box(-1.0, 1.0), tol, solver, max_evaluations=200).evaluations.max()
        for tol in (1e-3, 1e-9)
    ]
    assert needed[1] <= needed[0] + 40


def test_the_level_method_needs_few_evaluations_in_any_dimension() -> None:
    for n in (3, 6, 17):
        f = network("relu", n=n)
        solution = minimize(f, Box(-1.0, 1.0), 1e-4, "level")
        assert solution.converged.all()
        assert (solution.evaluations <= 25).all()


@settings(max_examples=10)
@given(architectures(PIECEWISE_LINEAR, st.just(2)), SEEDS)
def test_level_and_kelley_are_within_their_gaps_of_highs(architecture: object, seed: int) -> None:
    net = architecture.build(seed, steps=seed % 2).requires_grad_(False)  # type: ignore[attr-defined]
    f = apply("mean", net.condition(normal(seed, 3, architecture.x_dim)), seed)  # type: ignore[attr-defined]
    optimum = minimize(f, Box(-1.0, 1.0), 1e-5, "lp").value
    size = 1e-7 * (1 + optimum.abs())
    for solver in ("kelley", "level"):
        solution = minimize(f, Box(-1.0, 1.0), 1e-5, solver, max_evaluations=300)
        assert solution.converged.all()
        assert (solution.value <= optimum + solution.gap + size).all()
        assert (solution.lower_bound <= optimum + size).all()

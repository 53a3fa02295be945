"""``minimize`` over polyhedra: agreement of solvers, and samples that have no minimum."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from test_minimize import N, network
from torch import Tensor

from icnn_rl import (
    Box,
    ConvexSet,
    Euclidean,
    L1Ball,
    Polytope,
    Simplex,
    Simplices,
    linear,
    minimize,
    quadratic,
)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize(
    "over",
    [Simplex(), Simplices((2, 1)), Box(-1.0, 1.0) & Polytope(torch.ones(1, N), torch.zeros(1))],
    ids=["simplex", "simplices", "box and polytope"],
)
def test_solvers_agree_on_polyhedra(over: ConvexSet, activation: str) -> None:
    f = network(activation)
    solvers = ("bundle", "lp") if activation == "relu" else ("bundle", "newton")
    one, other = (minimize(f, over, 1e-7, s) for s in solvers)
    assert one.converged.all()
    assert other.converged.all()
    assert over.contains(one.y, 1e-9).all()
    assert over.contains(other.y, 1e-9).all()
    torch.testing.assert_close(one.value, other.value, rtol=0, atol=2e-7)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_empty_sets_are_reported_and_spoil_nothing(activation: str) -> None:
    f, row = network(activation), torch.ones(1, N).double()
    limit = torch.tensor([0.0, -9.0, 1.0, -4.0, 2.0, -2.9]).double().unsqueeze(-1)  # Σ y ≥ -3
    empty = torch.tensor([False, True, False, True, False, False])
    for over in (
        Box(-1.0, 1.0) & Polytope(row, limit),
        Box(-1.0, 1.0) & Polytope(A_eq=row, b_eq=limit),
        Box(-1.0, 1.0) & Box(torch.zeros(N), torch.ones(N)) & Polytope(row, limit + 3),
    ):
        solution = minimize(f, over, 1e-6)
        positive = over.bounds(solution.y)[0].min() == 0
        expected = limit.squeeze(-1) + 3 < 0 if positive else empty
        assert torch.equal(solution.infeasible, expected)
        assert torch.equal(solution.converged, ~expected)
        assert torch.equal(solution.value.isinf(), expected)
        assert torch.equal(solution.lower_bound.isinf(), expected)
        assert torch.equal(solution.gap.isinf(), expected)
        assert torch.equal(solution.y.isnan().all(-1), expected)
        kept = (~expected).nonzero().squeeze(-1)
        alone = minimize(f.take(kept), _of_samples(over, solution.y, kept), 1e-6)
        torch.testing.assert_close(solution.value[kept], alone.value, rtol=0, atol=1e-6)


def _of_samples(over: ConvexSet, like: Tensor, kept: Tensor) -> ConvexSet:
    """The set of some samples, from its bounds and rows."""
    form, (lower, upper) = over.canonical(like), over.bounds(like)
    rows = form.A_ub, form.b_ub[kept], form.A_eq, form.b_eq[kept]
    return Box(lower[kept], upper[kept]) & Polytope(*rows)


@pytest.mark.parametrize("far", [1e2, 3e3, 1e6])
def test_an_unbounded_set_is_found_however_far_it_is(far: float) -> None:
    A, b = torch.tensor([[-1.0, far], [0.0, -1.0]]).double(), torch.tensor([0.0, -1.0]).double()
    solution = minimize(quadratic(1.0, torch.zeros(2).double()), Polytope(A, b), 1e-6 * far**2)
    assert solution.converged
    torch.testing.assert_close(solution.y, torch.tensor([far, 1.0]).double(), rtol=1e-5, atol=0)
    nothing = torch.cat([A, -A[:1]]), torch.cat([b, torch.tensor([-1.0]).double()])
    assert minimize(quadratic(1.0, torch.zeros(2).double()), Polytope(*nothing)).infeasible


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers]).double()


@pytest.mark.parametrize("small", [2e-7, 5e-8, 1e-10])
def test_a_small_coefficient_of_a_wide_coordinate_counts(small: float) -> None:
    wide = Box(*(sign * torch.tensor([3.0, 0.05 / small]).double() for sign in (-1, 1)))
    solution = minimize(linear(row(-1, 0)), wide & Polytope(row(1, small), row(1)[0]), 1e-3)
    assert solution.converged  # at y₂ = -0.05 / small, where y₁ ≤ 1.05
    assert solution.lower_bound <= -1.05
    torch.testing.assert_close(solution.value, row(-1.05)[0], rtol=0, atol=2e-3)


def test_a_set_that_begins_far_out_is_not_empty() -> None:
    A = torch.cat([row(1, 1e-10), row(-1, 0)])
    f = linear(row(0, 0)) + quadratic(1e-20, torch.zeros(2).double())
    over = Polytope(A, row(-1, 0)[0])
    solution = minimize(f, over, 0.1)
    assert not solution.infeasible
    assert over.contains(solution.y)
    assert solution.lower_bound <= 0.5 <= solution.value  # at (0, -1e10)


@pytest.mark.parametrize("length", [1e-10, 1.0, 1e10])
def test_the_length_of_rows_means_nothing(length: float) -> None:
    sides = torch.cat([torch.eye(N), -torch.eye(N)]).double()
    f = network("softplus")
    solution = minimize(f, Polytope(length * sides, length * torch.ones(2 * N).double()), 1e-8)
    assert solution.converged.all()
    expected = minimize(f, Box(-1.0, 1.0), 1e-8).value
    torch.testing.assert_close(solution.value, expected, rtol=0, atol=2e-8)


def test_contradicting_boxes_are_empty() -> None:
    lower = torch.tensor([[0.0, 0.0, 0.0]] * 3 + [[2.0, 0.0, 0.0]] * 3).double()
    solution = minimize(network("softplus"), Box(-1.0, 1.0) & Box(lower, lower + 1), 1e-6)
    assert solution.infeasible.tolist() == [False] * 3 + [True] * 3
    assert solution.converged.tolist() == [True] * 3 + [False] * 3


def test_a_descent_without_end_is_reported() -> None:
    orthant = Polytope(-torch.eye(N).double(), torch.zeros(N).double())
    up, down = torch.ones(N).double(), torch.tensor([1.0, -1.0, 1.0]).double()
    f = linear(torch.stack([up, down, 2 * up]))
    exact = minimize(f, orthant)  # a linear program knows
    assert exact.unbounded.tolist() == [False, True, False]
    assert exact.converged.tolist() == [True, False, True]
    torch.testing.assert_close(exact.value[[0, 2]], torch.zeros(2).double(), rtol=0, atol=1e-6)
    careful = minimize(f, orthant, solver="bundle")  # a model of tangents does not
    assert careful.unbounded.all()
    assert careful.lower_bound.eq(-torch.inf).all()
    assert orthant.contains(careful.y).all()
    strong = minimize(f + quadratic(1.0, torch.zeros(N).double()), orthant, 1e-8)
    assert strong.converged.all()
    assert not strong.unbounded.any()
    torch.testing.assert_close(
        strong.value, torch.tensor([0.0, -0.5, 0.0]).double(), atol=1e-7, rtol=0
    )


def test_curvature_in_one_sample_bounds_no_other() -> None:
    orthant = Polytope(-torch.eye(N).double(), torch.zeros(N).double())
    gamma = torch.tensor([1.0, 0.0]).double()
    f = linear(-torch.ones(2, N).double()) + quadratic(gamma, torch.zeros(N).double())
    solution = minimize(f, orthant)
    assert solution.unbounded[1]
    assert solution.lower_bound[1] == -torch.inf
    with pytest.raises(ValueError, match="over: all of space needs a strongly convex function"):
        minimize(f, Euclidean())


@pytest.mark.parametrize("solver", ["bundle", "lp"])
def test_numbers_in_double_precision_are_rounded_to_the_precision_of_f(solver: str) -> None:
    random = np.random.default_rng(0)
    A, c = random.normal(size=(5, N)), random.normal(size=(6, N)).astype(np.float32)
    b = A @ random.uniform(-100, 100, N) + random.uniform(0, 1, 5)
    over = Box(-1e3, 1e3) & Polytope(torch.as_tensor(A), torch.as_tensor(b))
    solution = minimize(linear(torch.as_tensor(c)), over, 1e-2, solver)
    assert solution.converged.all()
    rounded, right = A.astype(np.float32).astype(float), b.astype(np.float32).astype(float)
    y, bound = solution.y.double().numpy(), solution.lower_bound.double().numpy()
    assert (y @ rounded.T <= right + 1e-3).all()
    for k in range(6):
        optimum = scipy.optimize.linprog(c[k], rounded, right, bounds=(-1e3, 1e3)).fun
        assert bound[k] <= optimum + 1e-9 * abs(optimum)
        assert abs(solution.value[k].item() - optimum) <= 1e-2 + 1e-6 * abs(optimum)


def test_a_bound_is_true_for_the_rounded_numbers() -> None:
    # y₀ ≤ y₁ ≤ (1 + 1e-7) y₀ - 1e-4: from y₀ = 1000 on, with rounded numbers from 839 on.
    A = torch.tensor([[1.0, -1.0], [-1.0 - 1e-7, 1.0]], dtype=torch.float64)
    over = Box(0.0, 2e3) & Polytope(A, torch.tensor([0.0, -1e-4]).double())
    solution = minimize(linear(torch.tensor([1.0, 0.0])), over, 1e-3)
    assert solution.lower_bound <= 1e-4 / 2**-23


@pytest.mark.parametrize("kind", ["ub", "eq"])
def test_a_relaxed_set_holds_its_point(kind: str) -> None:
    like, limit = torch.zeros(2, N).double(), torch.tensor([[1.0], [10.0]]).double()
    rows = {f"A_{kind}": torch.ones(1, N).double(), f"b_{kind}": limit}
    over = Box(3.0, 4.0) & Polytope(**rows)
    point, empty = over.interior_point(like)
    assert empty.tolist() == [True, False]
    relaxed = over.canonical(like).relaxed(point, empty)
    assert relaxed.contains(point).all()
    assert not relaxed.interior_point(like)[1].any()
    torch.testing.assert_close(relaxed.project(like)[1], over.project(like)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wide", [False, True])
def test_constraints_that_meet_in_a_point_hold_it(dtype: torch.dtype, wide: bool) -> None:
    """Some are off by rounding one way and some the other: all are one point."""
    point = torch.arange(1, 200).to(dtype) / 30
    slope = torch.tensor([3.0, 7.0, 0.3]).to(dtype).repeat(67)[:199]
    limit = (slope.double() * (torch.arange(1, 200).double() / 30)).to(dtype)
    rows = torch.stack([slope, -torch.ones_like(slope)], -1).unsqueeze(-1)
    at = point.unsqueeze(-1)
    sets: dict[str, ConvexSet] = {
        "rows": Polytope(rows, torch.stack([limit, -point], -1)),
        "box and row": Box(at, at + 0.001) & Polytope(rows[:, :1], limit.unsqueeze(-1)),
        "box and l1 ball": Box(at, at + 1) & L1Ball(limit, slope.unsqueeze(-1)),
    }
    for name, over in sets.items():
        over = over & Box(-50.0, 50.0) if wide else over
        solution = minimize(linear(torch.ones(199, 1).to(dtype)), over, 1e-3)
        assert not solution.infeasible.any(), name
        torch.testing.assert_close(solution.value, point, rtol=4e-6, atol=4e-6)
        assert (solution.lower_bound <= point * (1 + 4e-6)).all()
        apart = over & Box(at + 0.01, at + 0.02)
        assert minimize(linear(torch.ones(199, 1).to(dtype)), apart).infeasible.all(), name

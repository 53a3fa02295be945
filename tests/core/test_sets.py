"""Sets: support functions and projections against their definitions."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from problems import BOUNDED_SETS, SEEDS, SETS, feasible_points, feasible_set, normal

from icnn_rl import Ball, Box, ConvexSet, Euclidean, L1Ball, Polytope, Simplex, Simplices

BATCH, N = 4, 3
LIKE = torch.zeros(BATCH, N, dtype=torch.float64)

each_set = pytest.mark.parametrize("name", SETS)
each_bounded_set = pytest.mark.parametrize("name", BOUNDED_SETS)


@each_set
@given(SEEDS)
def test_projection_is_the_nearest_point(name: str, seed: int) -> None:
    over = feasible_set(name, LIKE, seed)
    y = 3 * normal(seed, BATCH, N)
    nearest = over.project(y)
    assert over.contains(nearest).all()
    torch.testing.assert_close(over.project(nearest), nearest)
    # The variational inequality: (y - P y)ᵀ(z - P y) ≤ 0 for every z in the set.
    others = feasible_points(over, nearest, 200, seed)
    assert ((y - nearest) * (others - nearest)).sum(-1).max() <= 1e-8


@each_bounded_set
@given(SEEDS)
def test_support_is_the_largest_inner_product(name: str, seed: int) -> None:
    over = feasible_set(name, LIKE, seed)
    c = normal(seed + 1, BATCH, N)
    support = over.support(c)
    assert support.shape == (BATCH,)
    assert ((feasible_points(over, LIKE, 200, seed) * c).sum(-1) <= support + 1e-9).all()
    attained = over.project(over.project(1e6 * c))
    torch.testing.assert_close((attained * c).sum(-1), support, rtol=1e-6, atol=1e-6)


@each_set
@given(SEEDS)
def test_centre_and_bounds(name: str, seed: int) -> None:
    over = feasible_set(name, LIKE, seed)
    centre, empty = over.interior_point(LIKE)
    assert empty.tolist() == [False] * BATCH
    lower, upper = over.bounds(LIKE)
    assert centre.shape == lower.shape == upper.shape == LIKE.shape
    assert over.contains(centre).all()
    assert ((lower <= centre) & (centre <= upper)).all()
    assert bool((upper - lower).isfinite().all()) == (name != "euclidean")
    points = feasible_points(over, LIKE, 50, seed)
    assert ((lower - 1e-9 <= points) & (points <= upper + 1e-9)).all()


@each_set
def test_interior_point_for_two_batch_axes(name: str) -> None:
    like = LIKE.expand(2, BATCH, N)
    over = feasible_set(name, like, 0)
    centre, empty = over.interior_point(like)
    assert centre.shape == like.shape
    assert empty.tolist() == [[False] * BATCH] * 2
    assert over.contains(centre).all()


def test_contains_has_a_tolerance() -> None:
    y = torch.tensor([[0.5, 0.5], [0.5, 0.5 + 1e-3], [1.5, -0.5]])
    assert Simplex().contains(y).tolist() == [True, False, False]
    assert Simplex().contains(y, tol=1e-2).tolist() == [True, True, False]
    assert Box(0, 1).contains(y).tolist() == [True, True, False]
    assert Euclidean().contains(y).all()


def test_euclidean_support_is_finite_at_zero_only() -> None:
    assert Euclidean().support(torch.tensor([[0.0, 0.0], [0.0, 1e-9]])).tolist() == [0.0, math.inf]
    c = torch.zeros(2, requires_grad=True)
    (slope,) = torch.autograd.grad(Euclidean().support(c), c)
    assert slope.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_simplex_projection_of_far_points(dtype: torch.dtype) -> None:
    y = torch.tensor([[1e6, 0.0, -1e6], [0.0, 0.0, 0.0], [-5.0, -5.0, -4.0]], dtype=dtype)
    expected = torch.tensor([[1.0, 0.0, 0.0], [1 / 3] * 3, [0.0, 0.0, 1.0]], dtype=dtype)
    torch.testing.assert_close(Simplex().project(y), expected)
    assert Simplex().project(torch.tensor([[7.0]])).tolist() == [[1.0]]


@pytest.mark.parametrize("bound", [math.nan, math.inf, -math.inf])
def test_a_box_needs_finite_bounds(bound: float) -> None:
    with pytest.raises(ValueError, match=r"lower: expected finite bounds, got .*(nan|inf)"):
        Box(bound, 1.0)
    with pytest.raises(ValueError, match=r"upper: expected finite bounds, got .*(nan|inf)"):
        Box(torch.zeros(2), torch.tensor([1.0, bound]))


def test_a_box_needs_ordered_bounds() -> None:
    with pytest.raises(ValueError, match=r"expected lower <= upper, got 1.0 and 0.0"):
        Box(1.0, 0.0)
    with pytest.raises(ValueError, match=r"lower <= upper, got \[0.0, 0.0\] and \[1.0, -1.0\]"):
        Box(torch.zeros(2), torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize(
    ("over", "name", "shape"),
    [
        (Box(torch.zeros(2), 1.0), "lower", "(2,)"),
        (Box(0.0, torch.ones(3, 3)), "upper", "(3, 3)"),
        (Ball(torch.ones(3)), "radius", "(3,)"),
        (Ball(1.0, torch.zeros(2)), "center", "(2,)"),
        (L1Ball(torch.ones(3)), "radius", "(3,)"),
        (L1Ball(1.0, torch.ones(2)), "weights", "(2,)"),
        (Polytope(torch.ones(1, 2), torch.ones(1)), "A_ub", "(1, 2)"),
        (Polytope(A_eq=torch.ones(3, 1, 3), b_eq=torch.ones(3, 1)), "A_eq", "(3, 1, 3)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ConvexSet) else value,
)
def test_a_set_for_points_of_another_shape_is_refused(
    over: ConvexSet, name: str, shape: str
) -> None:
    said = f"{name}: expected a shape that fits points of shape (4, 3), got {shape}"
    for method in (over.project, over.interior_point):
        with pytest.raises(ValueError, match=re.escape(said)):
            method(LIKE)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_bounds_that_follow_from_rows_are_a_little_wide(sign: float) -> None:
    equation = sign * torch.ones(1, N).double(), sign * torch.ones(1).double()
    over = Polytope(-torch.eye(N).double(), torch.zeros(N).double(), *equation)  # the simplex
    lower, upper = over.bounds(LIKE)
    assert ((lower > -1e-4) & (lower < 0)).all()
    assert ((upper > 1) & (upper < 1 + 1e-4)).all()


def test_a_fixed_coordinate_beside_rows_leaves_an_interior_point() -> None:
    lower, upper = torch.tensor([0.3, -1.0, -1.0]).double(), torch.tensor([0.3, 1.0, 1.0]).double()
    over = Box(lower, upper) & Polytope(torch.ones(1, N), torch.zeros(1))
    point, empty = over.interior_point(LIKE)
    assert not empty.any()
    assert over.contains(point).all()
    assert (point.sum(-1) < -1e-3).all()


def test_a_row_without_coefficients_says_only_whether_the_set_is_empty() -> None:
    rows = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]).double()
    right = torch.tensor([[0.5, 0.0], [0.5, 1.0], [0.5, -1.0], [-4.0, 1.0]]).double()
    over = Box(-1.0, 1.0) & Polytope(rows, right)
    assert over.interior_point(LIKE)[1].tolist() == [False, False, True, True]
    y = 3 * normal(0, BATCH, N)
    alone = Box(-1.0, 1.0) & Polytope(rows[:1], right[:, :1])
    torch.testing.assert_close(over.project(y)[:2], alone.project(y)[:2])


def test_arrays_are_taken_as_tensors_are() -> None:
    y = torch.tensor([[2.0, -3.0]])
    given = [np.array([-1.0, -0.5]), np.float32(0.5)]
    for over, same in (
        (Box(*given), Box(torch.tensor(given[0]), 0.5)),
        (Ball(given[1], given[0]), Ball(0.5, torch.tensor(given[0]))),
        (L1Ball(given[1], -given[0]), L1Ball(0.5, torch.tensor(-given[0]))),
    ):
        torch.testing.assert_close(over.project(y), same.project(y), rtol=0, atol=0)
        torch.testing.assert_close(over.support(y), same.support(y), rtol=0, atol=0)


def test_sets_of_the_same_numbers_are_equal() -> None:
    numbers, other = normal(0, N), normal(1, N)

    def sets(t: torch.Tensor) -> list[ConvexSet]:
        box, rows = Box(-1.0, 5 + t), Polytope(t.unsqueeze(0).clone(), t[:1])
        balls = [Ball(1.0, t.clone()), L1Ball(t.abs(), 2.0)]
        return [box, rows, *balls, box & rows, Box(-1.0, 5 + t.numpy())]

    for one, same, different in zip(*map(sets, (numbers, numbers, other)), strict=True):
        assert one == same
        assert hash(one) == hash(same)
        assert one != different
        assert one != Simplex()
    assert Simplices((2, 1)) == Simplices([2, 1]) != Simplices((1, 2))  # type: ignore[arg-type]
    assert Box(0.0, 1.0) in {Box(0.0, 1.0): "the same"}
    assert Box(0.0, torch.ones(2)) != Box(0.0, torch.ones(3))
    like = torch.zeros(2, N)
    form = Box(0.0, 1.0).canonical(like)
    assert form == form
    assert form != Box(0.0, 1.0).canonical(like)


@pytest.mark.parametrize(
    ("over", "shape"),
    [
        (Box(torch.zeros(5, 3), torch.ones(3)), (5,)),
        (Box(0.0, torch.ones(3)), ()),
        (Ball(torch.ones(4), torch.zeros(2, 1, 3)), (2, 4)),
        (L1Ball(torch.ones(4)), (4,)),
        (Polytope(torch.ones(2, 3), torch.ones(6, 2)), (6,)),
        (Polytope(A_eq=torch.ones(6, 2, 3), b_eq=torch.ones(2)), (6,)),
        (Simplex(), ()),
        (Box(torch.zeros(5, 3), 1.0) & Ball(torch.ones(2, 1)), (2, 5)),
    ],
    ids=str,
)
def test_a_set_knows_its_batch(over: ConvexSet, shape: tuple[int, ...]) -> None:
    assert over.batch_shape == shape
    like = torch.zeros(*shape, 3)
    assert over.canonical(like).batch_shape == shape

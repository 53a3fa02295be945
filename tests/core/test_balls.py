"""Balls of the Euclidean norm and of weighted absolute values, and what they share with others."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from icnn_rl import (
    PICNN,
    Ball,
    Box,
    ConvexFunction,
    ConvexSet,
    L1Ball,
    Polytope,
    argmin,
    linear,
    minimize,
)

BATCH, N = 6, 3
RADIUS = torch.linspace(0.2, 1.2, BATCH, dtype=torch.float64)
CENTER = 0.2 * torch.randn(BATCH, N, generator=torch.Generator().manual_seed(0)).double()
WEIGHTS = torch.rand(BATCH, N, generator=torch.Generator().manual_seed(1)).double()
ROW = torch.tensor([[1.0, -1.0, 0.5]]).double()
LIMIT = torch.tensor([0.1]).double()
SETS: dict[str, ConvexSet] = {
    "ball": Ball(RADIUS, CENTER),
    "box and ball": Box(-0.4, 0.6) & Ball(RADIUS),
    "l1 ball": L1Ball(RADIUS, 0.5 + WEIGHTS),
    "box and l1 ball": Box(-0.4, 0.6) & L1Ball(RADIUS, WEIGHTS),
    "box, l1 ball and ball": L1Ball(RADIUS, WEIGHTS) & Ball(RADIUS) & Box(-0.4, 0.6),
    "rows and l1 ball": Box(-0.4, 0.6) & L1Ball(RADIUS) & Polytope(ROW, LIMIT),
    "two l1 balls": L1Ball(RADIUS, 0.5 + WEIGHTS) & L1Ball(0.7, 1.5 - WEIGHTS),
}
each_set = pytest.mark.parametrize("name", SETS)


def network(activation: str = "softplus", dtype: torch.dtype = torch.float64) -> ConvexFunction:
    """Functions whose minima lie outside most of the sets."""
    torch.manual_seed(0)
    net = PICNN(4, N, context=(16,), convex=(16, 16), activation=activation).to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2.5 if p.dim() > 1 else 1.0)
    return net.requires_grad_(False).condition(torch.randn(BATCH, 4).to(dtype))


def constraints(name: str, i: int) -> list[dict[str, object]]:
    """A set as scipy takes it, by its definition."""
    r, c, w = RADIUS[i].item(), CENTER[i].numpy(), WEIGHTS[i].numpy()
    ball = [lambda y: r**2 - y @ y]
    box = [lambda y: y + 0.4, lambda y: 0.6 - y]
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * N)).reshape(N, -1).T

    def l1_ball(weights: np.ndarray, radius: float = r) -> list[object]:
        return [lambda y: radius - signs * weights @ y]

    parts = {
        "ball": [lambda y: r**2 - (y - c) @ (y - c)],
        "box and ball": box + ball,
        "l1 ball": l1_ball(0.5 + w),
        "box and l1 ball": box + l1_ball(w),
        "box, l1 ball and ball": box + ball + l1_ball(w),
        "rows and l1 ball": [*box, *l1_ball(np.ones(N)), lambda y: 0.1 - ROW.numpy() @ y],
        "two l1 balls": l1_ball(0.5 + w) + l1_ball(1.5 - w, 0.7),
    }
    return [{"type": "ineq", "fun": part} for part in parts[name]]


def oracle(name: str, i: int, fun: object) -> np.ndarray:
    result = scipy.optimize.minimize(
        fun, np.zeros(N), jac=True, constraints=constraints(name, i), tol=1e-13, method="SLSQP",
        options={"maxiter": 500},
    )  # fmt: skip
    return np.asarray(result.x)


@each_set
def test_minimum_is_that_of_scipy(name: str) -> None:
    f = network()
    tol = 1e-4 if "l1" in name else 1e-6
    solution = minimize(f, SETS[name], tol=tol)
    assert solution.converged.all()
    assert (solution.gap <= tol).all()
    assert SETS[name].contains(solution.y, 1e-7).all()
    torch.testing.assert_close(f.value(solution.y), solution.value)
    for i in range(BATCH):
        one = f.take(torch.tensor([i]))

        def fun(y: np.ndarray, one: ConvexFunction = one) -> tuple[float, np.ndarray]:
            value, gradient = one.value_and_gradient(torch.as_tensor(y).unsqueeze(0))
            return value.item(), gradient[0].numpy()

        best = torch.as_tensor(oracle(name, i, fun)).unsqueeze(0)
        assert abs(solution.value[i] - one.value(best)) <= 2 * tol


@each_set
def test_projection_is_that_of_scipy(name: str) -> None:
    y = 2 * torch.randn(BATCH, N, generator=torch.Generator().manual_seed(2)).double()
    y[-1] *= 0.05  # inside, beside samples that are outside
    nearest = SETS[name].project(y)
    torch.testing.assert_close(SETS[name].project(nearest), nearest, atol=1e-9, rtol=0)
    for i in range(BATCH):
        target = y[i].numpy()
        best = oracle(name, i, lambda z, t=target: (((z - t) ** 2).sum() / 2, z - t))
        np.testing.assert_allclose(nearest[i], best, atol=2e-6)


@pytest.mark.parametrize("bounds", [(-9.0, 9.0), (-0.3, 0.2), (0.1, 0.4)])
def test_projection_onto_an_l1_ball_has_a_gradient(bounds: tuple[float, float]) -> None:
    y = 2 * torch.randn(40, N, generator=torch.Generator().manual_seed(2)).double()
    radius = torch.linspace(0.3, 4.0, 40).double()
    weights, limits = WEIGHTS[:1].expand(40, N) + 0.1, torch.tensor(bounds).double()
    inputs = [t.clone().requires_grad_() for t in (y, radius, weights, limits)]

    def project(y: Tensor, radius: Tensor, weights: Tensor, limits: Tensor) -> Tensor:
        return (Box(*limits) & L1Ball(radius, weights)).project(y)

    size = (weights * project(*inputs).abs()).sum(-1)
    if bounds[0] < -1:
        assert (radius - size).abs().lt(1e-12).any()
        assert (size < radius - 0.1).any()
    assert torch.autograd.gradcheck(project, inputs)


def test_projections_without_a_closed_form_are_constants() -> None:
    y = torch.ones(BATCH, N).double().requires_grad_()
    for over in (Box(0.0, 0.5) & Ball(0.6), Polytope(ROW, LIMIT)):
        assert not over.project(3 * y).requires_grad


@each_set
def test_support_centre_and_bounds(name: str) -> None:
    over, like = SETS[name], torch.zeros(BATCH, N, dtype=torch.float64)
    c = torch.randn(BATCH, N, generator=torch.Generator().manual_seed(3)).double()
    support = over.support(c)
    for i in range(BATCH):
        slope = -c[i].numpy()
        best = oracle(name, i, lambda z, t=slope: (t @ z, t))
        assert -1e-9 <= support[i] + slope @ best <= 5e-6
    lower, upper = over.bounds(like)
    points = over.project(3 * torch.randn(200, BATCH, N, dtype=torch.float64)[0])
    assert over.contains(over.interior_point(like)[0]).all()
    assert ((lower - 1e-9 <= points) & (points <= upper + 1e-9)).all()


@pytest.mark.parametrize("name", ["box and ball", "box and l1 ball"])
def test_kinks_and_single_precision(name: str) -> None:
    f = network("relu", torch.float32)
    rough = minimize(f, SETS[name], tol=1e-3)
    exact = minimize(network("relu"), SETS[name], tol=1e-5)
    assert rough.converged.all()
    assert SETS[name].contains(rough.y.double(), 1e-6).all()
    assert (rough.lower_bound <= exact.value + 1e-5).all()
    assert (exact.lower_bound <= rough.value + 1e-4).all()


@pytest.mark.parametrize(("radius", "center"), [(0.7, 0.0), (1, 100.3), (2**24 + 1, 0.0)])
def test_numbers_are_not_rounded_to_single_precision(radius: float, center: float) -> None:
    slope = torch.tensor([-1.0, 0.0]).double()
    solution = minimize(linear(slope), Ball(radius, center), 1e-9 * radius)
    assert solution.converged
    assert solution.lower_bound <= -center - radius + 1e-12 * radius
    assert solution.value >= -center - radius - 1e-12 * radius


def test_the_support_of_a_curved_intersection_vanishes_at_zero() -> None:
    assert (Ball(1.0) & Box(-1.0, 1.0)).support(torch.zeros(N)) == 0


def test_no_batch_and_several_axes() -> None:
    f = network()
    inner = minimize(f, Ball(0.5))
    single = minimize(f.take(torch.tensor([2])), Ball(0.5) & Box(-1.0, 1.0))
    torch.testing.assert_close(inner.value[2:3], single.value, atol=2e-4, rtol=0)
    torch.manual_seed(0)
    both = PICNN(4, N, context=(8,), convex=(8,), activation="softplus", ensemble=2)
    g = both.condition(torch.randn(BATCH, 4))
    for over in (Ball(0.3), Box(-1.0, 1.0) & L1Ball(0.3)):
        solution = minimize(g, over, tol=1e-3)
        assert solution.converged.all()
        assert solution.value.shape == (2, BATCH)
        torch.testing.assert_close(solution.value, g.value(solution.y), atol=1e-5, rtol=0)


def test_empty_samples_are_reported_and_alone() -> None:
    shift = torch.zeros(BATCH, N, dtype=torch.float64)
    shift[0] = 1.3
    for over in (Box(-1.0, 1.0) & Ball(0.5, shift), Box(shift - 1, shift + 1) & L1Ball(0.5)):
        solution = minimize(network(), over)
        assert solution.infeasible.tolist() == [True] + [False] * (BATCH - 1)
        assert solution.y[0].isnan().all()
        assert solution.value[0] == math.inf
        assert solution.converged.tolist() == [False] + [True] * (BATCH - 1)


@pytest.mark.parametrize("name", ["box and ball", "box and l1 ball"])
def test_start_and_evaluations(name: str) -> None:
    f, over = network(), SETS[name]
    full = minimize(f, over, tol=1e-6)
    again = minimize(f, over, tol=1e-6, start=full.y)
    torch.testing.assert_close(again.value, full.value, atol=2e-6, rtol=0)
    assert (again.evaluations <= full.evaluations).all()
    assert again.evaluations.min() == 1 < full.evaluations.min()  # where the ball takes nothing
    short = minimize(f, over, tol=1e-9, max_evaluations=2)
    assert (short.evaluations <= 2 * 2).all()  # two problems at most
    assert (short.lower_bound <= full.value + 1e-9).all()
    assert over.contains(short.y, 1e-7).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ball(0.0), "radius: expected finite numbers > 0, got 0.0"),
        (lambda: Ball(math.inf), "radius: expected finite numbers > 0, got inf"),
        (lambda: Ball(1.0, torch.tensor([0.0, math.nan])), "center: expected finite entries"),
        (lambda: L1Ball(-1.0), "radius: expected finite numbers >= 0, got -1.0"),
        (lambda: L1Ball(1.0, torch.tensor([-1.0])), "weights: expected finite numbers >= 0"),
        (
            lambda: minimize(network(), L1Ball(1.0, torch.tensor([0.0, 1.0, 1.0]))),
            "over: a weight of 0 leaves a coordinate unbounded",
        ),
    ],
)
def test_bad_arguments(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_does_not_apply_to_balls_says_so() -> None:
    with pytest.raises(TypeError, match="solver: 'lp' cannot keep to a ball; use 'bundle'"):
        minimize(network("relu"), Ball(1.0), solver="lp")
    for over in (Ball(1.0), L1Ball(1.0)):
        with pytest.raises(TypeError, match="over: expected a set without balls, got"):
            argmin(network(), over)


def test_linear_programs_in_an_l1_ball() -> None:
    over = Box(-0.4, 0.6) & L1Ball(RADIUS)
    exact = minimize(network("relu"), over, solver="lp")
    bundle = minimize(network("relu"), over, tol=1e-5)
    assert exact.converged.all()
    torch.testing.assert_close(bundle.value, exact.value, atol=2e-5, rtol=0)


def test_a_weight_of_zero_leaves_a_coordinate_to_the_box() -> None:
    over: ConvexSet = Box(-1.0, 1.0) & L1Ball(0.5, torch.tensor([0.0, 1.0, 1.0]).double())
    y: Tensor = over.project(torch.tensor([[5.0, 5.0, 0.1]]).double())
    torch.testing.assert_close(y, torch.tensor([[1.0, 0.5, 0.0]]).double(), atol=1e-9, rtol=0)


def test_a_radius_of_zero_leaves_only_what_has_no_weight() -> None:
    over: ConvexSet = Box(-1.0, 1.0) & L1Ball(0.0, torch.tensor([0.0, 1.0, 1.0]).double())
    y: Tensor = over.project(torch.tensor([[5.0, 5.0, 0.1]]).double())
    torch.testing.assert_close(y, torch.tensor([[1.0, 0.0, 0.0]]).double(), atol=1e-9, rtol=0)


def test_rows_may_bound_what_an_l1_ball_leaves_free() -> None:
    sides = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]).double()
    over = L1Ball(0.5, torch.tensor([0.0, 1.0, 1.0]).double()) & Polytope(sides, torch.ones(2))
    solution = minimize(linear(torch.tensor([[-1.0, -2.0, 1.0]]).double()), over, 1e-6)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, torch.tensor([-2.0]).double(), atol=2e-6, rtol=0)


def test_far_from_zero_a_ball_in_a_box_has_an_interior_point() -> None:
    center = 5 + CENTER
    over = Box(center - 0.1, center + 1) & Ball(RADIUS, center)
    point, empty = over.interior_point(center)
    assert not empty.any()
    assert over.contains(point).all()
    assert (torch.linalg.vector_norm(point - center, dim=-1) < 0.9 * RADIUS).all()


def test_in_single_precision_the_box_around_a_ball_holds_all_of_it() -> None:
    random = torch.Generator().manual_seed(0)
    weights, center = (torch.rand(1000, N, generator=random) + 0.1 for _ in range(2))
    radius = torch.rand(1000, generator=random) + 0.1
    for over, middle, reach in (
        (L1Ball(radius, weights), 0.0, radius.double().unsqueeze(-1) / weights.double()),
        (Ball(radius, center), center.double(), radius.double().unsqueeze(-1)),
    ):
        lower, upper = over.canonical(weights).known_bounds
        assert (lower <= middle - reach).all()
        assert (upper >= middle + reach).all()

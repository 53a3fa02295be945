"""Linear programs: exact, with bounds that do not rest on the solver."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peer_solvers import CLARABEL, ECOS
from problems import OPERATIONS, PIECEWISE_LINEAR, SEEDS, apply, architectures, normal
from sklearn.datasets import load_digits
from torch import Tensor

from icnn_rl import (
    FICNN,
    PICNN,
    AveragePool,
    Box,
    Conv,
    ConvexFunction,
    ConvexSet,
    ConvFICNN,
    ConvPICNN,
    Dense,
    Encoder,
    MaxPool,
    Polytope,
    Simplex,
    Simplices,
    linear,
    minimize,
)
from icnn_rl.solvers import Problem, Solution, Solver
from icnn_rl.solvers.lp import solve_each

BACKENDS = ("lp", ECOS, CLARABEL)
LENET = (Conv(6, 5), MaxPool(2), Conv(16, 5), MaxPool(2), Dense(120))
KINDS = [k for k in OPERATIONS if k not in ("quadratic", "negative_entropy", "all")]

each_backend = pytest.mark.parametrize("solver", BACKENDS, ids=str)


def digits(count: int, side: int) -> Tensor:
    """Images of handwritten digits, ``(count, 1, side, side)``, between 0 and 1."""
    images = torch.as_tensor(load_digits().images[:count] / 16).unsqueeze(1)
    return torch.nn.functional.interpolate(images, size=(side, side), mode="bilinear")


def convolutions() -> dict[str, ConvexFunction]:
    """Functions with every kind of layer, two to a batch."""
    torch.manual_seed(0)
    layers = (Conv(3, 3), MaxPool(2), Conv(4, 2, padding=1), AveragePool(2), Dense(5))
    image, x = (1, 8, 8), digits(2, 8)
    joint = ConvFICNN(image, (4,), layers).double()
    leaky = ConvFICNN(image, (4,), layers, "leaky_relu").double()
    features = ConvFICNN(image, (4,), layers, y_from=-1, norm="batch").double()
    features.condition(digits(20, 8))  # moments that are not those of the start
    features.eval()
    same = (Conv(3, 3, padding=1), Conv(4, 3, padding=1, stride=2))
    partial = ConvPICNN(image, (1, 4, 4), same, same, "leaky_relu").double()
    encoder = Encoder(image, (Conv(3, 3), MaxPool(2), Dense(6)))
    return {
        "FICNN, x fixed": joint.condition(x),
        "FICNN, y fixed": joint.condition(y=normal(0, 2, 4)),
        "FICNN, leaky": leaky.condition(x),
        "FICNN, nothing fixed": leaky.function(),
        "FICNN of features, x fixed": features.condition(x),
        "FICNN of features, y fixed": features.condition(y=normal(0, 2, 4)),
        "FICNN of features, nothing fixed": features.function(),
        "PICNN of images": partial.condition(x),
        "PICNN with an encoder": PICNN(6, 4, (), (7, 7), "relu", encoder=encoder)
        .double()
        .condition(x),
    }


@pytest.mark.parametrize("f", convolutions().values(), ids=convolutions())
def test_the_program_is_the_function(f: ConvexFunction) -> None:
    y = normal(1, *f.batch_shape, f.dim)
    solution = minimize(f, Box(y, y), solver="lp")  # only the auxiliaries are free
    torch.testing.assert_close(solution.value, f.value(y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solution.lower_bound, f.value(y), rtol=1e-9, atol=1e-9)


@settings(max_examples=10)
@given(architectures(PIECEWISE_LINEAR, st.integers(1, 3)), SEEDS, st.sampled_from(KINDS))
def test_the_program_of_what_is_made_of_networks(architecture, seed, operation) -> None:  # type: ignore[no-untyped-def]
    f = apply(
        operation, architecture.build(seed).condition(normal(seed, 3, architecture.x_dim)), seed
    )
    y = normal(seed + 1, *f.batch_shape, f.dim)
    solution = minimize(f, Box(y, y), solver="lp")
    torch.testing.assert_close(solution.lower_bound, f.value(y), rtol=1e-9, atol=1e-9)


@given(architectures(PIECEWISE_LINEAR, st.integers(1, 3)), SEEDS, st.sampled_from(KINDS))
def test_any_multipliers_give_an_affine_function_below(architecture, seed, operation) -> None:  # type: ignore[no-untyped-def]
    f = apply(
        operation, architecture.build(seed).condition(normal(seed, 3, architecture.x_dim)), seed
    )
    lp = f.to_lp((0,) * len(f.batch_shape))
    multipliers = normal(seed, len(lp.b)).exp() * (normal(seed + 1, len(lp.b)) > 0)
    offset, slope, _ = lp.tangent(multipliers.numpy())
    for y in normal(seed + 2, 20, f.dim) * 3:
        value = f.value(y.expand(*f.batch_shape, f.dim)).flatten()[0].item()
        assert offset + slope @ y.numpy() <= value + 1e-12 * (1 + abs(value))


@pytest.mark.parametrize(
    "over", [Box(0.0, 1.0), Simplex(), Box(-1.0, 1.0)], ids=["unit box", "simplex", "box"]
)
@pytest.mark.parametrize("f", convolutions().values(), ids=convolutions())
def test_convolutions_agree_with_the_bundle(f: ConvexFunction, over: ConvexSet) -> None:
    exact = minimize(f, over, 1e-8, "lp")
    bundle = minimize(f, over, 1e-3, "bundle")
    assert exact.converged.all()
    assert bundle.converged.all()
    assert (exact.value <= bundle.value + 1e-9).all()
    assert (exact.value >= bundle.lower_bound - 1e-9).all()


@pytest.mark.slow
def test_lenet_on_a_digit() -> None:
    torch.manual_seed(0)
    net = ConvFICNN((1, 28, 28), (10,), LENET)
    f = net.condition(digits(1, 28).float()) + linear(0.1 * torch.randn(10))
    exact = minimize(f, Simplex(), 1e-5, "lp")
    bundle = minimize(f, Simplex(), 1e-5, "bundle")
    assert exact.converged.all()
    assert bundle.converged.all()
    torch.testing.assert_close(exact.value, bundle.value, rtol=0, atol=2e-5)


def polyhedra() -> dict[str, ConvexSet]:
    """Sets of points of dimension four, for a batch of three."""
    rows, right = normal(1, 3, 4), normal(2, 3, 3).exp()
    return {
        "box": Box(-1.0, 1.0),
        "box for each sample": Box(normal(3, 3, 4) - 1, normal(3, 3, 4) + 1),
        "simplex": Simplex(),
        "product of simplices": Simplices((2, 2)),
        "polytope in a box": Box(-1.0, 1.0) & Polytope(rows, right),
        "polytope for each sample": Box(-1.0, 1.0) & Polytope(normal(4, 3, 2, 4), right[:, :2]),
        "slice of a box": Box(-1.0, 1.0) & Polytope(A_eq=rows[:2], b_eq=normal(5, 3, 2).tanh() / 3),
        "everything": Box(-1.0, 1.0)
        & Polytope(rows[:2], right[:, :2], rows[2:], 0.2 * right[:, 2:]),
    }


@pytest.mark.parametrize("over", polyhedra().values(), ids=polyhedra())
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_backends_agree(over: ConvexSet, scale: float) -> None:
    torch.manual_seed(0)
    net = PICNN(3, 4, (16,), (12, 12), "leaky_relu").double()
    f = net.condition(normal(0, 3, 3)).affine(torch.eye(4).double())
    with torch.no_grad():
        net.path.raw_z[-1].mul_(scale)
        net.path.raw_y[-1].mul_(scale)
    solutions = [minimize(f, over, 1e-6 * max(scale, 1.0), solver) for solver in BACKENDS]
    best = torch.stack([s.value for s in solutions]).amin(0)
    for solution in solutions:
        assert over.contains(solution.y).all()
        assert solution.converged.all()
        assert (solution.lower_bound <= best + 1e-9 * scale).all()
        assert not (solution.infeasible | solution.unbounded).any()


@each_backend
def test_each_sample_is_judged_alone(solver: str | Solver) -> None:
    torch.manual_seed(0)
    f = FICNN(0, 2, convex=(6,), activation="relu").double().function()
    c = torch.tensor([[0.0, 0.0], [100.0, 100.0], [0.0, 0.0]]).double()
    A = -torch.eye(2).double().expand(3, 2, 2)  # y >= -b
    A = torch.cat([A, torch.ones(3, 1, 2).double()], 1)  # and a bound on the sum
    b = torch.tensor([[1.0, 1.0, 3.0], [1.0, 1.0, 3.0], [1.0, 1.0, -3.0]]).double()
    solution = minimize(f + linear(c), Polytope(A, b), solver=solver)
    assert solution.infeasible.tolist() == [False, False, True]
    assert not solution.unbounded.any()
    assert solution.converged.tolist() == [True, True, False]
    torch.testing.assert_close(solution.y[1], -torch.ones(2).double())


@each_backend
def test_a_descent_without_end_is_reported(solver: str | Solver) -> None:
    torch.manual_seed(0)
    net = FICNN(0, 2, convex=(6,), activation="relu").double()
    c = torch.tensor([[5.0, 0.0], [-5.0, 0.0]]).double()
    half_plane = Polytope(torch.tensor([[1.0, 0.0]]).double(), torch.tensor([1.0]).double())
    strip = torch.tensor([[0.0, 1.0], [0.0, -1.0]]).double()
    half_strip = half_plane & Polytope(strip, torch.ones(2).double())
    solution = minimize(net.function() + linear(c), half_strip, solver=solver)
    assert solution.unbounded.tolist() == [True, False]
    assert solution.converged.tolist() == [False, True]
    assert solution.lower_bound[0] == -torch.inf
    assert solution.lower_bound[1] <= solution.value[1]
    assert not solution.infeasible.any()


@each_backend
def test_smooth_functions_are_refused(solver: str | Solver) -> None:
    f = FICNN(0, 2, convex=(4,), activation="softplus").function()
    with pytest.raises(TypeError, match="piecewise-linear"):
        minimize(f, Box(-1.0, 1.0), solver=solver)


@each_backend
def test_parameters_that_are_no_numbers_are_refused(solver: str | Solver) -> None:
    net = FICNN(0, 2, convex=(4,), activation="relu")
    with torch.no_grad():
        net.bias[0][0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        minimize(net.function(), Box(-1.0, 1.0), solver=solver)


def test_a_linear_function_has_no_auxiliaries() -> None:
    f = linear(torch.tensor([[1.0, -2.0]]).double())
    for solver in BACKENDS:
        solution = minimize(f, Box(-1.0, 1.0), 1e-6, solver)
        assert solution.converged.all()
        np.testing.assert_allclose(solution.y.numpy(), [[-1.0, 1.0]], atol=1e-6)


def test_nothing_is_printed() -> None:
    """In a process of its own: some solvers print when they are first used."""
    program = """
import torch
from icnn_rl import FICNN, Box, minimize
minimize(FICNN(0, 2, (4,), activation="relu").function(), Box(-1, 1), solver="lp")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (ran.stdout, ran.stderr) == (b"", b"")


class Failing:
    """A solver of linear programs that never gets anywhere."""

    linear = True

    def solve(self, problem: Problem) -> Solution:
        return solve_each(problem, "failing", lambda _: "failed")


def test_a_bound_is_proved_where_the_solver_fails() -> None:
    torch.manual_seed(0)
    f = PICNN(3, 4, (6,), (8, 6), "relu").double().condition(normal(0, 5, 3))
    for over in (Box(-1.0, 1.0), Box(-1.0, 1.0) & Polytope(torch.ones(1, 4), torch.zeros(1))):
        solution, optimum = minimize(f, over, solver=Failing()), minimize(f, over, 1e-9).value
        assert solution.lower_bound.isfinite().all()
        assert (solution.lower_bound <= optimum).all()
        assert (solution.value >= optimum - 1e-9).all()
        assert not solution.converged.any()

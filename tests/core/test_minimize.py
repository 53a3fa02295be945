"""``minimize``: problems × solvers against independent answers, and what it does at the edges."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import PIECEWISE_LINEAR, SEEDS, SMOOTH, Architecture, apply, architectures, normal
from torch import Tensor

from icnn_rl import (
    FICNN,
    PICNN,
    Ball,
    Box,
    ConvexFunction,
    ConvexSet,
    Euclidean,
    L1Ball,
    Polytope,
    Simplex,
    Solution,
    linear,
    minimize,
    negative_entropy,
    quadratic,
)
from icnn_rl.solvers import Bundle, Kelley, Level, Problem, ProjectedGradient, Solver

BATCH, N, TOL = 6, 3, 1e-6


def network(activation: str, ensemble: int | None = None, n: int = N) -> ConvexFunction:
    torch.manual_seed(7)
    net = PICNN(4, n, (16,), (12, 8), activation, ensemble=ensemble).double()
    return net.requires_grad_(False).condition(normal(0, BATCH, 4))


PROBLEMS: dict[str, Callable[[], ConvexFunction]] = {
    "relu": lambda: network("relu"),
    "leaky_relu": lambda: network("leaky_relu"),
    "softplus": lambda: network("softplus"),
    "elu": lambda: network("elu"),
    "mean of relu": lambda: network("relu", 2).mean(0),
    "max of relu": lambda: network("relu", 2).max(0),
    "max of softplus": lambda: network("softplus", 2).max(0),
    "relu and linear": lambda: network("relu") + linear(normal(1, N)),
    "relu and quadratic": lambda: network("relu") + quadratic(0.7, normal(1, BATCH, N)),
    "softplus and entropy": lambda: network("softplus") + negative_entropy(0.5),
    "leaky_relu and entropy": lambda: network("leaky_relu") + negative_entropy(0.5),
    "restricted": lambda: network("relu").restrict(normal(1, BATCH, N) > 0, normal(2, N)),
    "affine": lambda: network("relu").affine(normal(1, BATCH, N, 2), 0.1),
    "linear": lambda: linear(normal(1, BATCH, N)),
    "quadratic": lambda: quadratic(2.0, normal(1, BATCH, N)) + linear(normal(2, N)),
}
SOLVERS = ("bundle", "newton", "lp", "auto")


def applies(solver: str, f: ConvexFunction) -> bool:
    return {"newton": f.smooth, "lp": f.piecewise_linear}.get(solver, True)


def reference(f: ConvexFunction, i: int, *constraints: object, bounds: object = None) -> float:
    """The minimum of sample i by SLSQP on an independent evaluation, from several starts."""
    one = f.take(torch.tensor([i]))

    def value(y: np.ndarray) -> tuple[float, np.ndarray]:
        v, g = one.value_and_gradient(torch.as_tensor(y)[None])
        return float(v), g[0].numpy()

    starts = [np.full(f.dim, 1 / f.dim), np.eye(f.dim)[0]]
    return min(
        scipy.optimize.minimize(
            value, y, jac=True, method="SLSQP", bounds=bounds, constraints=constraints, tol=1e-12
        ).fun
        for y in starts
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_problems_by_solvers(problem: str, solver: str) -> None:
    f = PROBLEMS[problem]()
    over = Box(-1.0, 1.0)
    if not applies(solver, f):
        with pytest.raises(TypeError, match=f"solver: '{solver}' needs a (smooth|piecewise-lin)"):
            minimize(f, over, TOL, solver)
        return
    solution = minimize(f, over, TOL, solver, max_evaluations=400)
    assert solution.converged.all()
    assert (solution.gap <= TOL).all()
    assert (solution.gap >= 0).all()
    assert over.contains(solution.y, 0.0).all()
    torch.testing.assert_close(solution.value, f.value(solution.y))
    oracle = minimize(f, over, TOL, "lp" if f.piecewise_linear else "bundle", max_evaluations=400)
    assert (solution.value <= oracle.value + TOL).all()
    assert (oracle.value <= solution.value + TOL).all()


@pytest.mark.slow
@given(
    architectures(PIECEWISE_LINEAR, st.just(2)),
    st.sampled_from(["mean", "max", "linear", "sum", "restrict", "affine"]),
    SEEDS,
)
def test_bundle_is_within_its_gap_of_highs(
    architecture: Architecture, operation: str, seed: int
) -> None:
    net = architecture.build(seed, steps=seed % 2).requires_grad_(False)
    f = apply(operation, net.condition(normal(seed, 3, architecture.x_dim)), seed)
    solution = minimize(f, Box(-1.0, 1.0), 1e-5, "bundle", max_evaluations=300)
    optimum = minimize(f, Box(-1.0, 1.0), 1e-5, "lp").value
    size = 1e-7 * (1 + optimum.abs())
    assert (solution.value <= optimum + solution.gap + size).all()
    assert (solution.lower_bound <= optimum + size).all()
    assert solution.converged.all()


@given(architectures(SMOOTH, st.just(2)), st.sampled_from(["mean", "quadratic", "affine"]), SEEDS)
def test_bundle_and_newton_agree(architecture: Architecture, operation: str, seed: int) -> None:
    net = architecture.build(seed).requires_grad_(False)
    f = apply(operation, net.condition(normal(seed, 3, architecture.x_dim)), seed)
    newton, bundle = (minimize(f, Box(-1.0, 1.0), 1e-5, s) for s in ("newton", "bundle"))
    assert newton.converged.all()
    assert bundle.converged.all()
    assert ((newton.value - bundle.value).abs() <= 1e-5).all()


@pytest.mark.parametrize("activation", ["softplus", "elu"])
def test_simplex_against_slsqp(activation: str) -> None:
    f = network(activation) + linear(normal(5, BATCH, N))
    solution = minimize(f, Simplex(), TOL)
    assert solution.converged.all()
    torch.testing.assert_close(solution.y.sum(-1), torch.ones(BATCH).double(), rtol=0, atol=1e-14)
    total = {"type": "eq", "fun": lambda y: y.sum() - 1, "jac": np.ones_like}
    for i in range(BATCH):
        expected = reference(f, i, total, bounds=[(0, 1)] * N)
        assert float(solution.value[i]) == pytest.approx(expected, abs=2 * TOL)


@pytest.mark.parametrize("activation", ["softplus", "elu"])
@pytest.mark.parametrize("solver", ["auto", "bundle", "newton"])
def test_euclidean_against_slsqp(solver: str, activation: str) -> None:
    f = network(activation) + quadratic(1.0, 3 * normal(5, BATCH, N))
    solution = minimize(f, Euclidean(), TOL, solver)
    assert solution.converged.all()
    for i in range(BATCH):
        assert float(solution.value[i]) == pytest.approx(reference(f, i), abs=2 * TOL)


def test_simplex_of_a_linear_function_is_its_smallest_entry() -> None:
    c = normal(0, BATCH, 5)
    solution = minimize(linear(c), Simplex(), 1e-9)
    torch.testing.assert_close(solution.value, c.amin(-1))
    assert torch.equal(solution.y.argmax(-1), c.argmin(-1))


def assert_same(a: Solution, b: Solution) -> None:
    torch.testing.assert_close(a.value, b.value, rtol=0, atol=1e-9)
    torch.testing.assert_close(a.lower_bound, b.lower_bound, rtol=0, atol=1e-9)
    torch.testing.assert_close(a.y, b.y, rtol=0, atol=1e-7)
    assert torch.equal(a.evaluations, b.evaluations)


@pytest.mark.parametrize("solver", ["bundle", "newton"])
def test_permuting_or_splitting_a_batch_changes_no_answer(solver: str) -> None:
    f = network("softplus")
    order = torch.tensor([4, 2, 5, 0, 1, 3])
    whole = minimize(f, Box(-1.0, 1.0), 1e-4, solver)

    def rows(index: Tensor) -> Solution:
        return Solution(*(getattr(whole, field.name)[index] for field in fields(Solution)))

    for index in (order, order[:2], order[2:], order[:1], torch.tensor([3, 3, 3])):
        assert_same(minimize(f.take(index), Box(-1.0, 1.0), 1e-4, solver), rows(index))


@pytest.mark.parametrize(
    ("solver", "activation"), [("bundle", "relu"), ("newton", "softplus"), ("lp", "relu")]
)
def test_an_ensemble_axis_is_a_batch(solver: str, activation: str) -> None:
    f = network(activation, ensemble=3)
    solution = minimize(f, Box(-1.0, 1.0), TOL, solver)
    assert solution.y.shape == (3, BATCH, N)
    for t in (solution.value, solution.gap, solution.converged, solution.evaluations):
        assert t.shape == (3, BATCH)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, f.value(solution.y))


@pytest.mark.parametrize("solver", ["bundle", "newton"])
def test_an_early_stop_is_data(solver: str) -> None:
    f = network("softplus")
    gaps = []
    for limit in (1, 2, 3, 50):
        solution = minimize(f, Box(-1.0, 1.0), 1e-9, solver, max_evaluations=limit)
        assert (solution.evaluations <= limit).all()
        gaps.append(solution.gap)
    assert all((b <= a + 1e-12).all() for a, b in pairwise(gaps))


def test_a_warm_start_saves_evaluations() -> None:
    f = network("softplus")
    cold = minimize(f, Box(-1.0, 1.0), 1e-6)
    warm = minimize(f, Box(-1.0, 1.0), 1e-6, start=cold.y)
    assert (warm.evaluations <= cold.evaluations).all()
    assert (warm.evaluations == 1).all()


@pytest.mark.parametrize("solver", ["bundle", "newton", "lp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_flat_function_is_done_at_once(solver: str, dtype: torch.dtype) -> None:
    net = FICNN(2, N, (4,), "relu" if solver == "lp" else "softplus").to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    solution = minimize(net.condition(torch.zeros(2, 2, dtype=dtype)), Box(-1.0, 1.0), 1e-4, solver)
    assert solution.converged.all()
    assert (solution.evaluations == 1).all()


@pytest.mark.parametrize("solver", ["bundle", "newton"])
def test_a_box_that_is_one_point(solver: str) -> None:
    point = normal(0, BATCH, N)
    f = network("softplus")
    solution = minimize(f, Box(point, point), TOL, solver)
    assert torch.equal(solution.y, point)
    assert solution.converged.all()


def test_a_kink_at_the_optimum() -> None:
    net = FICNN(0, 1, convex=(2,), activation="relu").double()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.path.raw_y[0].copy_(torch.tensor([[[1.0, -1.0]]]))
        net.path.raw_z[0].fill_(1.0)  # f(y) = |y|
    for over in (Box(-1.0, 3.0), Box(-0.1, 1e3), Box(0.0, 1.0)):
        solution = minimize(net.function(), over, 1e-9)
        assert float(solution.value) == pytest.approx(0.0, abs=1e-9)
        assert solution.converged


@pytest.mark.parametrize("activation", SMOOTH)  # at a kink the minimum is not differentiable
def test_gradient_of_the_minimum_is_that_at_the_minimiser(activation: str) -> None:
    torch.manual_seed(3)
    net = PICNN(2, 2, (5,), (4, 3), activation).double()
    x = normal(1, 2, 2).requires_grad_()
    solution = minimize(net.condition(x), Box(-1.0, 1.0), 1e-12, max_evaluations=500)
    assert not solution.y.requires_grad
    inputs = [x, *net.parameters()]
    gradients = torch.autograd.grad(net.condition(x).value(solution.y).sum(), inputs)

    def minimum() -> float:
        return float(minimize(net.condition(x), Box(-1.0, 1.0), 1e-12).value.sum())

    step = 1e-5
    for tensor, gradient in zip(inputs, gradients, strict=True):
        entry, flat = int(gradient.abs().argmax()), tensor.detach().view(-1)
        held = float(flat[entry])
        ends = []
        for shift in (step, -step):
            flat[entry] = held + shift
            ends.append(minimum())
        flat[entry] = held
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(gradient.view(-1)[entry]) == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tol": -1.0}, r"tol: expected a finite number >= 0, got -1.0"),
        ({"tol": float("nan")}, r"tol: expected a finite number >= 0, got nan"),
        ({"max_evaluations": 0}, r"max_evaluations: expected an integer >= 1, got 0"),
        ({"max_evaluations": 2.5}, r"max_evaluations: expected an integer >= 1, got 2.5"),
        ({"solver": "adam"}, r"solver: expected 'auto', one of .*'bundle'.*, got 'adam'"),
        ({"start": torch.zeros(2, N)}, r"start: .* of shape \(6, 3\), got \(2, 3\)"),
        ({"over": Euclidean()}, r"over: all of space needs a strongly convex function"),
        ({"over": Box(torch.zeros(2), 1.0)}, r"lower: .* points of shape \(6, 3\), got \(2,\)"),
        ({"f": negative_entropy(1.0)}, r"f: expected a function that fixes the dimension"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_bad_arguments_are_named(change: dict[str, object], message: str) -> None:
    arguments = {"f": network("softplus"), "over": Box(-1.0, 1.0), **change}
    with pytest.raises(ValueError, match=message):
        minimize(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [torch.tensor, np.array, np.float32])
def test_a_tolerance_may_be_any_kind_of_number(kind: Callable[[float], float]) -> None:
    f = network("softplus")
    for solver in ("newton", "bundle"):
        given, plain = (minimize(f, Box(-1.0, 1.0), t, solver) for t in (kind(0.25), 0.25))
        assert_same(given, plain)


@pytest.mark.parametrize("tol", [torch.ones(2), None, "small"])
def test_a_tolerance_that_is_no_number_is_named(tol: object) -> None:
    with pytest.raises(TypeError, match="tol: expected a number, got "):
        minimize(network("softplus"), Box(-1.0, 1.0), tol)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "over",
    [
        Box(-torch.rand(BATCH, N).double(), 1.0),
        Ball(torch.linspace(0.1, 1.0, BATCH).double()),
        L1Ball(1.0, torch.linspace(0.1, 1.0, BATCH).double().unsqueeze(-1)),
        Box(-1.0, 1.0) & Polytope(torch.ones(1, N), torch.linspace(-2, 2, BATCH).unsqueeze(-1)),
        Box(-1.0, 1.0) & Polytope(A_eq=normal(0, BATCH, 1, N), b_eq=torch.zeros(1)),
    ],
    ids=["box", "ball", "l1 ball", "limits", "planes"],
)
def test_one_function_is_minimised_over_the_set_of_each_sample(over: ConvexSet) -> None:
    one = network("softplus").take(torch.tensor([2]))
    f = replace(one, batched=False)  # type: ignore[type-var]
    assert f.batch_shape == ()
    solution = minimize(f + linear(normal(1, N)), over, 1e-9)
    assert solution.y.shape == (BATCH, N)
    many = network("softplus").take(torch.full((BATCH,), 2)) + linear(normal(1, N))
    torch.testing.assert_close(solution.value, minimize(many, over, 1e-9).value, rtol=0, atol=2e-9)


def test_weights_of_tangents_do_not_overflow() -> None:
    f = quadratic(1e-3, torch.ones(N).double())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = minimize(f, Box(-1e6, 1e6), 0.0, "accelerated_gradient", max_evaluations=500)
    assert solution.gap < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="f: expected a function in float32 or float64, got torch"):
        minimize(linear(torch.ones(N, dtype=dtype)), Box(-1.0, 1.0))


def test_a_problem_beyond_the_precision_is_given_up_with_a_true_gap() -> None:
    torch.manual_seed(0)
    net = PICNN(4, N, (16,), (12, 8)).double().requires_grad_(False)
    for p in (net.path.raw_z[-1], net.path.raw_y[-1]):
        p.mul_(1e13)
    f = net.condition(normal(0, BATCH, 4)) + quadratic(0.1, normal(1, BATCH, N))
    solution = minimize(f, Euclidean(), 1e-4, max_evaluations=50)
    assert solution.y.isfinite().all()
    assert not solution.converged.any()
    other = minimize(f, Box(-10.0, 10.0), 1e-4)
    assert (solution.lower_bound <= other.value).all()


def test_the_problem_is_left_as_it_was() -> None:
    f, start = network("softplus"), normal(0, BATCH, N)
    kept, kept_start = copy.deepcopy(f), start.clone()
    minimize(f, Box(-1.0, 1.0), start=start)
    assert torch.equal(start, kept_start)
    assert torch.equal(f.value(start), kept.value(start))


def test_auto_keeps_an_entropy_of_many_dimensions_as_it_is() -> None:
    torch.manual_seed(0)
    net = PICNN(4, 100, (16,), (12,), "softplus").double().requires_grad_(False)
    logits = 5 * normal(1, BATCH, 100)
    f = net.condition(normal(0, BATCH, 4)) + linear(logits) + negative_entropy(1.0)
    solution = minimize(f, Box(-1.0, 1.0), TOL)
    assert solution.converged.all()
    assert (solution.evaluations <= 8).all()


@dataclass(frozen=True)
class Middle:
    """A solver of a user's own: it evaluates f once, and proves what a tangent proves."""

    def solve(self, problem: Problem) -> Solution:
        return ProjectedGradient().solve(replace(problem, max_evaluations=1))


@pytest.mark.parametrize("over", [Box(-1.0, 1.0), Simplex(), Ball(0.5)], ids=str)
def test_a_solver_may_be_an_object_of_ones_own(over: ConvexSet) -> None:
    solver: Solver = Middle()
    f = network("softplus") + quadratic(1.0, torch.zeros(N).double())
    solution, best = minimize(f, over, solver=solver), minimize(f, over, 1e-8)
    assert over.contains(solution.y, 1e-9).all()
    assert (solution.lower_bound <= best.value + 1e-9).all()
    assert (solution.value >= best.lower_bound - 1e-9).all()


def test_objects_are_what_names_stand_for() -> None:
    f = network("relu")
    for name, solver in {"bundle": Bundle(), "level": Level(), "kelley": Kelley()}.items():
        one, other = (minimize(f, Box(-1.0, 1.0), 1e-6, s) for s in (name, solver))
        assert torch.equal(one.y, other.y)
    low, high = (minimize(f, Box(-1.0, 1.0), 1e-6, Level(level)) for level in (0.1, 0.9))
    assert low.converged.all()
    assert high.converged.all()
    assert not torch.equal(low.evaluations, high.evaluations)
    with pytest.raises(ValueError, match=r"level: expected a number in \(0, 1\), got 1.0"):
        Level(1.0)
    for wrong in (3, Bundle):
        with pytest.raises(ValueError, match=r"or an object with a method 'solve', got "):
            minimize(f, Box(-1.0, 1.0), solver=wrong)  # type: ignore[arg-type]


COLD = """
import logging, sys, torch
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s: %(message)s")
from icnn_rl import PICNN, Box, minimize
for batch in (1, 2):
    net = PICNN(2, 3, (4,), (4,) * batch, "squareplus").requires_grad_(False)
    minimize(net.condition(torch.ones(batch, 2)), Box(-1.0, 1.0), 1e-6)
    if batch == 1:
        print("warm")
"""


@pytest.mark.slow
def test_compiling_is_announced_once(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    outputs = [
        subprocess.run(
            [sys.executable, "-c", COLD],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for _ in range(2)
    ]
    lines, end = outputs[0][:-1], outputs[0][-1]
    assert len(lines) >= 3
    assert all(re.fullmatch(r"icnn_rl: compiling: .* \(once\)", line) for line in lines)
    assert [end] == outputs[1] == ["warm"]

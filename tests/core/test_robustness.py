"""The numbers at their edges: hard problems, bad numbers, sets that hardly exist."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hard_problems import FUNCTIONS, SETS, Truth, entropic, hard_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SEEDS, normal
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
    linear,
    minimize,
    negative_entropy,
    quadratic,
)
from icnn_rl.solvers import SOLVERS

EXAMPLES = max(1, settings.default.max_examples // 4)
N = 3
UNIT = Box(-1.0, 1.0)

ON_BOXES = ("bundle_entropy", "newton_on_device")
each_solver = pytest.mark.parametrize("solver", SOLVERS)


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_no_method_is_wrong(function: str, data: st.DataObject) -> None:
    where, seed = data.draw(st.sampled_from(SETS)), data.draw(SEEDS)
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    share, limit = data.draw(st.sampled_from([(1e-4, 30), (0.0, 10), (1e-8, 30), (1e-4, 1)]))
    problem = hard_problem(function, where, seed, 1 + seed % 4, dtype)
    start = data.draw(st.sampled_from([None, 1e3 * normal(seed, *problem.like.shape)]))
    solvers = [s for s in SOLVERS if problem.applies(s)]
    groups = [(problem, [s for s in solvers if s != "bundle_entropy"])]
    if "bundle_entropy" in solvers:
        groups.append((entropic(problem), ["bundle_entropy"]))
    for variant, group in groups:
        truth, tol = Truth(variant, 40), share * variant.size
        solutions = [
            minimize(variant.f, variant.over, tol, s, start=start, max_evaluations=limit)
            for s in group
        ]
        for solution in solutions:
            truth.learn(solution.y.double())
        for solver, solution in zip(group, solutions, strict=True):
            for fault, found in truth.faults(solution).items():
                assert not found.any(), f"{fault} of {solver}: {variant.name}"


def suited(f: ConvexFunction, solver: str) -> ConvexFunction:
    """The function with the term that the solver asks for."""
    return f + negative_entropy(0.1) if solver == "bundle_entropy" else f


def network(solver: str, batch: int = 4) -> tuple[PICNN, Tensor]:
    """A network that the solver takes, and inputs to condition it on."""
    torch.manual_seed(3)
    net = PICNN(2, N, (6,), (6, 6), "softplus" if "newton" in solver else "relu").double()
    return net.requires_grad_(False), normal(0, batch, 2)


PARAMETERS = [name for name, _ in network("lp")[0].named_parameters()]


@pytest.mark.parametrize("parameter", PARAMETERS)
@each_solver
def test_nan_in_a_parameter_is_refused(solver: str, parameter: str) -> None:
    net, x = network(solver)
    net.get_parameter(parameter).view(-1)[0] = torch.nan
    with pytest.raises(ValueError, match="f: expected finite values, got nan for sample 0"):
        minimize(suited(net.condition(x), solver), UNIT, solver=solver)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@each_solver
def test_an_input_that_is_not_finite_is_refused(solver: str, number: float) -> None:
    net, x = network(solver)
    x[2, 0] = number
    with pytest.raises(ValueError, match="f: expected finite values, got nan for sample 2"):
        minimize(suited(net.condition(x), solver), UNIT, solver=solver)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@each_solver
def test_a_start_that_is_not_finite_is_refused(solver: str, number: float) -> None:
    net, x = network(solver)
    start = torch.zeros(4, N).double()
    start[1, 2] = number
    with pytest.raises(ValueError, match="start: expected finite entries, got NaN or infinity"):
        minimize(suited(net.condition(x), solver), UNIT, solver=solver, start=start)


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    net, x = network("bundle")
    net.path.raw_z[0].view(-1)[0] = -torch.inf  # behind a rectifier: the value is finite
    with pytest.raises(ValueError, match=r"f: expected finite values, got the gradient \["):
        minimize(net.condition(x), UNIT, solver="bundle")


BAD = normal(1, 4, N).where(torch.arange(4)[:, None] != 1, torch.nan)
TERMS: dict[str, Callable[[Tensor], ConvexFunction]] = {
    "linear": linear,
    "quadratic's centre": lambda t: quadratic(1.0, t),
    "quadratic's weight": lambda t: quadratic(t[:, 0].abs(), normal(0, N)),
    "affine's offset": lambda t: linear(normal(0, N)).affine(torch.eye(N).double(), t),
    "affine's matrix": lambda t: linear(normal(0, N)).affine(torch.diag_embed(t)),
    "held values": lambda t: linear(normal(0, 4, N)).restrict(torch.ones(4, N) > 0, t),
}


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_a_term_that_is_not_finite_is_refused(term: Callable[[Tensor], ConvexFunction]) -> None:
    for bad in (BAD, BAD.nan_to_num(torch.inf)):
        with pytest.raises(ValueError, match=r"f: expected finite values, got .* for sample 1"):
            minimize(term(bad), UNIT)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_set_that_is_not_finite_is_refused(number: float) -> None:
    bad, good = BAD.nan_to_num(number), torch.zeros(4, N).double()
    for name, make in {
        "lower": lambda: Box(bad, 9.0),
        "upper": lambda: Box(-9.0, bad),
        "A_ub": lambda: Polytope(bad, good[:, 0]),
        "b_ub": lambda: Polytope(good, bad[:, 0]),
        "A_eq": lambda: Polytope(A_eq=bad, b_eq=good[:, 0]),
        "b_eq": lambda: Polytope(A_eq=good, b_eq=bad[:, 0]),
    }.items():
        with pytest.raises(ValueError, match=f"{name}: expected finite"):
            make()


A = normal(8, 2, N)
EMPTY_BATCHES: dict[str, ConvexSet] = {
    "box": UNIT,
    "box per sample": Box(torch.zeros(0, N), torch.ones(0, N)),
    "simplex": Simplex(),
    "simplices": Simplices((1, 2)),
    "polytope": UNIT & Polytope(A, torch.ones(0, 2)),
    "bounded polytope": Polytope(torch.cat([torch.eye(N), -torch.eye(N)]), torch.ones(2 * N)),
    "plane": UNIT & Polytope(A_eq=A[:1], b_eq=torch.zeros(1)),
    "half-space": Polytope(A[:1], torch.ones(1)),
    "space": Euclidean(),
}


EMPTY_CASES = [
    (solver, where)
    for solver in SOLVERS
    for where in EMPTY_BATCHES
    if solver not in ON_BOXES or where.startswith("box")
]


@pytest.mark.parametrize(("solver", "where"), EMPTY_CASES)
def test_an_empty_batch_has_an_empty_solution(solver: str, where: str) -> None:
    over = EMPTY_BATCHES[where]
    net, x = network(solver, 0)
    f = suited(net.condition(x), solver)
    if isinstance(over, Euclidean):
        if f.piecewise_linear:
            with pytest.raises(ValueError, match="needs a strongly convex function"):
                minimize(f, over, solver=solver)
            return
        f = f + quadratic(1.0, torch.zeros(N).double())
    solution = minimize(f, over, solver=solver)
    assert solution.y.shape == (0, N)
    for t in (solution.value, solution.gap, solution.converged, solution.infeasible):
        assert t.shape == (0,)


@each_solver
def test_a_function_without_batch_axes(solver: str) -> None:
    c = normal(2, N)
    f = suited(linear(c), solver)
    solution = minimize(f, UNIT, 1e-5, solver)
    assert solution.y.shape == (N,)
    assert solution.value.shape == ()
    whole = minimize(suited(linear(c[None]), solver), UNIT, 1e-5, solver)
    torch.testing.assert_close(solution.value, whole.value[0])


@pytest.mark.parametrize("solver", [s for s in SOLVERS if s not in ON_BOXES])
def test_empty_sets_do_not_spoil_the_batch(solver: str) -> None:
    net, x = network(solver)
    f, rows = net.condition(x), torch.cat([A, -A[:1]])
    right = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, -0.01], [-9.0, 1.0, 1.0], [0.5, 0.5, 0.5]])
    solution = minimize(f, UNIT & Polytope(rows, right), 1e-4, solver)
    assert solution.infeasible.tolist() == [False, True, True, False]
    assert solution.y[1:3].isnan().all()
    assert (solution.value[1:3] == torch.inf).all()
    assert (solution.lower_bound[1:3] == torch.inf).all()
    solvable = torch.tensor([0, 3])
    alone = minimize(f.take(solvable), UNIT & Polytope(rows, right[solvable]), 1e-4, solver)
    torch.testing.assert_close(solution.value[solvable], alone.value, rtol=0, atol=1e-4)
    assert (solution.lower_bound[solvable] <= alone.value).all()
    assert (alone.lower_bound <= solution.value[solvable]).all()


@pytest.mark.parametrize("thickness", [1e-3, 1e-5, 6e-7, 1e-7, 0.0, -1e-6, -1e-3])
def test_a_slab_is_empty_when_its_thickness_is_negative(thickness: float) -> None:
    rows = normal(5, 20, 1, 5)
    rows = rows / rows.norm(dim=-1, keepdim=True)
    middle = (rows @ (0.9 * normal(6, 20, 5, 1).tanh())).squeeze(-1)
    slab = Polytope(torch.cat([rows, -rows], 1), torch.cat([middle, thickness - middle], 1))
    y, empty = (UNIT & slab).interior_point(torch.zeros(20, 5).double())
    assert bool(empty.all() if thickness < 0 else ~empty.any())
    off = ((rows @ y.unsqueeze(-1)).squeeze(-1) - middle).abs()
    assert (off <= thickness + 1e-6).all() or thickness < 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [1.0, 1e8, 1e30])
def test_projection_onto_a_simplex_from_far_away(far: float, dtype: torch.dtype) -> None:
    y = far * torch.tensor([[1.0, 0.5, -2.0], [-1.0, -1.0, -1.0]], dtype=dtype)
    expected = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]], dtype=dtype)
    if far == 1.0:
        expected[0] = torch.tensor([0.75, 0.25, 0.0])
    torch.testing.assert_close(Simplex().project(y), expected)

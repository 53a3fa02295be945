"""Minima and minimisers as differentiable functions, against central differences."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from problems import cast, feasible_set, normal
from torch import Tensor

from icnn_rl import (
    FICNN,
    PICNN,
    Box,
    Conv,
    ConvexFunction,
    ConvexSet,
    ConvFICNN,
    Polytope,
    Simplex,
    Simplices,
    Solution,
    argmin,
    linear,
    minimize,
    minimum,
    negative_entropy,
    quadratic,
)

BATCH, N = 5, 4
TOL = 1e-12  # below rounding on some sets: twenty evaluations go as far as there is to go
SETS = (
    "box",
    "sample box",
    "degenerate box",
    "simplex",
    "simplices",
    "polytope",
    "box and polytope",
    "box and plane",
    "simplex and polytope",
    "euclidean",
)


def network(activation: str = "softplus", ensemble: int | None = None) -> PICNN:
    torch.manual_seed(3)
    return PICNN(3, N, (6,), (8, 6), activation, ensemble=ensemble).double()


def tilted(f: ConvexFunction) -> ConvexFunction:
    """f with a slope and a curvature that put some minimisers at the boundary and some inside."""
    return f + linear(normal(1, BATCH, N)) + quadratic(0.5, normal(2, N))


def assert_derivative(
    fun: Callable[[], Tensor], inputs: list[Tensor], accuracy: float = 1e-6
) -> None:
    """Autograd's derivative of a number, along random directions, is that of differences."""
    gradients = torch.autograd.grad(fun(), inputs, allow_unused=True)
    step = 1e-6
    for seed, (t, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        direction = normal(100 + seed, *t.shape)
        held, ends = t.detach().clone(), []
        for sign in (1, -1):
            t.data.copy_(held + sign * step * direction)
            ends.append(float(fun().detach()))
        t.data.copy_(held)
        expected = 0.0 if gradient is None else float((gradient * direction).sum())
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
            expected, rel=accuracy, abs=accuracy / 10
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_minimiser(name: str) -> None:
    activation = "elu" if name in ("box", "polytope") else "softplus"
    net, x = network(activation), normal(0, BATCH, 3).requires_grad_()
    over, weight = feasible_set(name, torch.zeros(BATCH, N).double(), 5), normal(4, BATCH, N)
    solution = argmin(tilted(net.condition(x)), over, TOL, max_evaluations=20)
    assert over.contains(solution.y.detach(), 1e-9).all()
    assert (solution.gap >= 0).all()
    assert (solution.gap < 1e-9).all()
    if name in (
        "box",
        "simplex",
    ):  # the case is one with constraints that hold and some that do not
        at_bound = solution.y == over.bounds(solution.y)[0]
        assert at_bound.any()
        assert not at_bound.all()
    assert_derivative(
        lambda: (weight * argmin(tilted(net.condition(x)), over, TOL, max_evaluations=20).y).sum(),
        [x, *net.parameters()],
    )


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize(
    ("term", "name"),
    [("quadratic", k) for k in ("box", "simplex", "box and polytope")] + [("entropy", "box")],
)
def test_minimiser_at_a_kink(term: str, name: str, activation: str) -> None:
    net, x = network(activation, 2), normal(0, BATCH, 3).requires_grad_()
    over = feasible_set(name, torch.zeros(BATCH, N).double(), 5)
    weight, slope = normal(4, BATCH, N), linear(0.2 * normal(1, BATCH, N))
    curved = negative_entropy(0.3) if term == "entropy" else quadratic(0.5, normal(2, N))

    def solve() -> Tensor:
        solution = argmin(net.condition(x).mean(0) + slope + curved, over, 1e-8)
        assert solution.converged.all()
        return (weight * solution.y).sum() + solution.value.sum()

    f = net.condition(x).mean(0) + slope + curved
    y = minimize(f, over, TOL).y
    sides = [f.value_and_gradient(y + sign * 1e-5 * weight)[1] for sign in (1, -1)]
    at_kink = ((sides[0] - sides[1]).abs() > 1e-3).any(-1)
    assert at_kink.any()
    assert_derivative(solve, [x, *net.parameters()], 1e-5)


@pytest.mark.parametrize("operation", ["mean", "ensemble", "restrict", "affine", "entropy"])
def test_minimiser_of_functions_made_of_others(operation: str) -> None:
    operations: dict[str, Callable[[ConvexFunction], ConvexFunction]] = {
        "mean": lambda f: tilted(f.mean(0)),
        "ensemble": lambda f: f + linear(normal(1, BATCH, N)),
        "restrict": lambda f: f.mean(0).restrict(normal(1, BATCH, N) > 0.5, normal(2, N)),
        "affine": lambda f: f.mean(0).affine(normal(1, N, N), normal(2, BATCH, N)),
        "entropy": lambda f: f.mean(0) + negative_entropy(0.3),
    }
    net, x = network(ensemble=2), normal(0, BATCH, 3).requires_grad_()

    def objective() -> Tensor:
        f = operations[operation](net.condition(x))
        solution = argmin(f, Box(-1.0, 1.0), TOL)
        if operation == "restrict":  # f says nothing of the entries it holds fixed
            assert isinstance(solution.y, Tensor)
            return (normal(4, BATCH, N) * f.complete(solution.y)).sum()  # type: ignore[attr-defined]
        return (normal(4, *solution.y.shape) * solution.y).sum()

    assert_derivative(objective, [x, *net.parameters()])


@pytest.mark.slow
def test_minimiser_passes_gradcheck() -> None:
    net = network().requires_grad_(False)
    A, b = normal(6, 1, N).requires_grad_(), torch.tensor([0.1]).double().requires_grad_()

    def f(x: Tensor, c: Tensor, A: Tensor, b: Tensor) -> Tensor:
        over = Box(-1.0, 1.0) & Polytope(A, b)
        return argmin(net.condition(x) + linear(c), over, TOL, max_evaluations=20).y

    x, c = (normal(k, 1, size).requires_grad_() for k, size in ((0, 3), (1, N)))
    assert torch.autograd.gradcheck(f, (x, c, A, b), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["y", "value"])
def test_what_the_set_is_made_of(wanted: str) -> None:
    f = tilted(network().requires_grad_(False).condition(normal(0, BATCH, 3)))
    lower, upper = (torch.full((N,), b).double().requires_grad_() for b in (-0.4, 0.3))
    A, E = normal(6, 2, N).requires_grad_(), normal(7, 1, N).requires_grad_()
    b, d = (t.double().requires_grad_() for t in (torch.tensor([0.05, 0.1]), torch.tensor([0.1])))

    def objective() -> Tensor:
        solution = argmin(f, Box(lower, upper) & Polytope(A, b, E, d), TOL, max_evaluations=20)
        result = solution.y if wanted == "y" else solution.value
        return (normal(4, *result.shape) * result).sum()

    assert_derivative(objective, [lower, upper, A, b, E, d])


def test_minimum() -> None:
    net, x = network(), normal(0, BATCH, 3).requires_grad_()

    def solve() -> Tensor:
        solution = minimum(tilted(net.condition(x)), Box(-1.0, 1.0), 1e-11)
        assert solution.converged.all()
        return (normal(4, BATCH) * solution.value).sum()

    assert_derivative(solve, [x, *net.parameters()])


def test_a_function_may_be_used_before_and_after() -> None:
    net, x = network(), normal(0, BATCH, 3)
    f = net.condition(x)
    y = minimize(f, Box(-1.0, 1.0)).y
    used, fresh = (
        torch.autograd.grad(g.value(y).sum(), list(net.parameters())) for g in (f, net.condition(x))
    )
    for a, b in zip(used, fresh, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("base", "rows", "right"),
    [
        (Box(0.0, 1.0), [[1.0, 1, 1]], [1.0]),
        (Box(0.0, 1.0), [[1.0, 1, 1], [1, -1, 0]], [1.0, 0]),
        (Simplex(), [[1.0, -1, 0]], [0.0]),
        (Simplex(), torch.eye(3), [0.5] * 3),
    ],
    ids=["sum", "sum and order", "order", "caps"],
)
def test_vertices_where_more_constraints_meet_than_there_are_dimensions(
    base: ConvexSet, rows: list[list[float]] | Tensor, right: list[float]
) -> None:
    rows, right = (torch.as_tensor(t).double() for t in (rows, right))
    over = base & Polytope(rows, right)
    center = (3 * normal(0, 400, 3)).requires_grad_()
    solution = argmin(quadratic(1.0, center), over)
    y = solution.y.detach()
    assert over.contains(y, 1e-9).all()
    assert ((y @ rows.mT - right).abs() < 1e-9).any()
    nearest = over.project(center.detach())
    torch.testing.assert_close(y, nearest, rtol=0, atol=1e-6)
    # The gradient of the value is that of the envelope, center - y; that of y, from differences.
    (of_value,) = torch.autograd.grad(solution.value.sum(), center, retain_graph=True)
    torch.testing.assert_close(of_value, center.detach() - y, rtol=1e-6, atol=1e-6)
    weight, step = normal(1, 400, 3), 1e-4 * normal(2, 400, 3)
    (of_y,) = torch.autograd.grad((weight * solution.y).sum(), center)
    moved = over.project(center.detach() + step) - over.project(center.detach() - step)
    along, expected = (of_y * step).sum(-1), (weight * moved).sum(-1) / 2
    # At a kink, between the two, either side's derivative would be right.
    assert (along - expected).abs().median() < 1e-9
    assert ((along - expected).abs() > 1e-6).sum() <= 2


@pytest.mark.parametrize(("tol", "accuracy"), [(1e-3, 3e-3), (1e-6, 1e-5)])
def test_one_newton_step_makes_a_coarse_answer_a_good_one(tol: float, accuracy: float) -> None:
    f = tilted(network().requires_grad_(False).condition(normal(0, BATCH, 3)))
    for over in (Box(-1.0, 1.0), Simplex()):
        exact = argmin(f, over, TOL).y
        for solver in ("bundle", "newton"):
            assert float((argmin(f, over, tol, solver=solver).y - exact).abs().max()) < accuracy


def test_rows_do_not_keep_single_precision_from_its_newton_step() -> None:
    f = tilted(network().requires_grad_(False).condition(normal(0, BATCH, 3)))
    over = feasible_set("box and polytope", torch.zeros(BATCH, N).double(), 5)
    exact = argmin(f, over, TOL).y
    coarse = cast(f, torch.float32)
    assert float((minimize(coarse, over, 1e-2).y - exact).abs().max()) > 5e-3
    assert float((argmin(coarse, over, 1e-2).y - exact).abs().max()) < 1e-3


def test_float32() -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        net, x = network().to(dtype), normal(0, BATCH, 3).to(dtype).requires_grad_()
        y = argmin(net.condition(x) + linear(normal(1, N).to(dtype)), Simplex(), 1e-5).y
        assert y.dtype == dtype
        results.append(torch.autograd.grad((normal(4, N).to(dtype) * y).sum(), x)[0].double())
    torch.testing.assert_close(results[0], results[1], rtol=1e-2, atol=1e-4)


def test_an_empty_set_does_not_spoil_the_others() -> None:
    net = network()
    b = torch.ones(BATCH, 1).double()
    b[2] = -5.0
    over = Box(-1.0, 1.0) & Polytope(torch.ones(1, N).double(), b)
    for solve in (argmin, minimum):
        solution = solve(tilted(net.condition(normal(0, BATCH, 3))), over, 1e-8)
        assert solution.infeasible.tolist() == [i == 2 for i in range(BATCH)]
        assert solution.y[2].isnan().all()
        kept = ~solution.infeasible
        loss = solution.value[kept].sum() + solution.y[kept].square().sum()
        for gradient in torch.autograd.grad(loss, list(net.parameters())):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("over", [Simplex(), Box(0.0, 1.0), Simplices((2, 1))], ids=str)
def test_a_tie_has_a_finite_gradient(over: ConvexSet, dtype: torch.dtype) -> None:
    """Every unit is off: f is linear, but says that it is smooth."""
    net = FICNN(0, 3, (4,), "softplus").to(dtype)
    for tie in ((1.0, 1.0, 2.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)):
        with torch.no_grad():
            net.bias[0].fill_(-800.0)
            net.path.raw_y[-1].copy_(torch.tensor(tie).reshape(1, 3, 1))
        f = net.function() + quadratic(0.0, torch.zeros(3).to(dtype))
        solution = argmin(f, over)
        assert solution.gap < 1e-4
        for i in range(3):
            (slope,) = torch.autograd.grad(solution.y[i], net.path.raw_y[-1], retain_graph=True)
            assert slope.abs().max() < 1e-12


def test_a_direction_without_curvature_takes_nothing_from_the_others() -> None:
    A = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).double()
    center = torch.tensor([0.4, 0.0]).double().requires_grad_()
    y = argmin(quadratic(1.0, center).affine(A), Box(-1.0, 1.0), 1e-12).y
    assert float(y.detach().sum()) == pytest.approx(0.4)
    for i in range(2):
        (gradient,) = torch.autograd.grad(y[i], center, retain_graph=True)
        torch.testing.assert_close(gradient, torch.tensor([0.5, 0.0]).double())


@pytest.mark.parametrize("of", [minimum, argmin, minimize])
def test_one_function_over_the_set_of_each_sample(of: Callable[..., Solution]) -> None:
    center = normal(0, N).requires_grad_()
    upper = normal(1, BATCH, N).abs().requires_grad_()
    solution = of(quadratic(2.0, center), Box(-0.5, upper), 1e-12)
    expected = torch.minimum(center.clamp(min=-0.5), upper)
    torch.testing.assert_close(solution.y, expected, check_dtype=False, rtol=0, atol=1e-6)
    assert solution.value.shape == (BATCH,)
    if of is argmin:
        weight = normal(2, BATCH, N)
        slopes, exact = (
            torch.autograd.grad((weight * t).sum(), (center, upper)) for t in (solution.y, expected)
        )
        for slope, right in zip(slopes, exact, strict=True):
            torch.testing.assert_close(slope, right)


@pytest.mark.parametrize("of", [minimum, argmin, minimize])
def test_transforms_of_torch_func_are_refused_by_name(of: Callable[..., Solution]) -> None:
    net, x = network(), normal(0, BATCH, 3)

    def total(x: Tensor) -> Tensor:
        return of(net.condition(x), Box(-1.0, 1.0)).value.sum()

    for transform in (torch.func.vmap, torch.func.grad, torch.func.jacrev):
        x = x.unsqueeze(1) if transform is torch.func.vmap else x.flatten(0, -2)
        with pytest.raises(RuntimeError, match=f"{of.__name__}: .* transform .* vmap"):
            transform(total)(x)
    if of is not minimize:  # what the message names instead
        x = normal(0, BATCH, 3)
        jacobian = torch.autograd.functional.jacobian
        slow, fast = (jacobian(total, x, vectorize=v) for v in (False, True))
        torch.testing.assert_close(fast, slow)
        assert slow.any()


def test_a_minimiser_that_may_jump_is_refused() -> None:
    x, image = normal(0, BATCH, 3), normal(0, BATCH, 1, 6, 6)
    convolutional = ConvFICNN((1, 6, 6), (2,), (Conv(2, 3),), "softplus").double()
    for f, name in (
        (linear(normal(1, N)), "Linear"),
        (linear(normal(1, N)).affine(normal(0, N, N)), "Affine"),
        (network("relu").condition(x), "ConditionedNetwork"),
        (network("relu").condition(x) + linear(normal(1, N)), "ConditionedNetwork + Linear"),
        (network("relu").condition(x) + quadratic(0.0, normal(1, N)), ".* + Quadratic"),
        (network(ensemble=2).condition(x).max(0) + negative_entropy(1.0), "Max + NegativeEntropy"),
        (convolutional.condition(image), "ConditionedConvolution"),
    ):
        expected = rf"piecewise-linear one plus quadratic\(gamma, center\) .* got {re.escape(name)}"
        with pytest.raises(TypeError, match=expected.replace(re.escape(".*"), ".*")):
            argmin(f, Box(-1.0, 1.0))


def test_kinks_need_float64() -> None:
    f = network("relu").float().condition(torch.zeros(1, 3)) + negative_entropy(1.0)
    with pytest.raises(TypeError, match="f: expected float64, which it takes to tell the pieces"):
        argmin(f, Box(-1.0, 1.0))


@pytest.mark.parametrize("of", [argmin, minimum])
def test_second_derivatives_are_refused(of: Callable[..., Solution]) -> None:
    net, x = network(), normal(0, BATCH, 3).requires_grad_()
    solution = of(net.condition(x), Box(-1.0, 1.0))
    found = solution.value if of is minimum else solution.y
    (gradient,) = torch.autograd.grad(found.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=f"{of.__name__}: expected first derivatives only"):
        torch.autograd.grad(gradient.sum(), x)


class Hyperbola(ConvexFunction):
    """Σ (1 + y²)^½, on which Newton's method diverges from |y| > 1."""

    dim, batch_shape, smooth = 1, torch.Size(), True
    like = torch.zeros((), dtype=torch.float64)

    def value(self, y: Tensor) -> Tensor:
        return (1 + y**2).sqrt().sum(-1)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(y), y / (1 + y**2).sqrt()

    def hessian(self, y: Tensor) -> Tensor:
        return torch.diag_embed((1 + y**2) ** -1.5)

    def take(self, index: Tensor) -> ConvexFunction:
        return self


def test_a_coarse_answer_is_never_made_worse() -> None:
    start = torch.tensor([2.0]).double()
    solution = argmin(Hyperbola(), Box(-5.0, 5.0), 1e-6, start=start, max_evaluations=1)
    torch.testing.assert_close(solution.y, start)
    start = torch.tensor([0.1]).double()
    solution = argmin(Hyperbola(), Box(-5.0, 5.0), 1e-6, start=start, max_evaluations=1)
    torch.testing.assert_close(solution.y, -(start**3))

"""Operations on convex functions: convexity kept, derivatives in closed form, shapes right."""

from __future__ import annotations

import copy

import pytest
import torch
from autograd_reference import gradient, hessian
from hypothesis import given
from hypothesis import strategies as st
from problems import (
    OPERATIONS,
    PIECEWISE_LINEAR,
    SEEDS,
    SMOOTH,
    Architecture,
    apply,
    architectures,
    each_value,
    normal,
)
from torch import Tensor

from icnn_rl import FICNN, PICNN, ConvexFunction, linear, negative_entropy, quadratic
from icnn_rl.functions.linear_program import LinearProgram
from icnn_rl.networks import ACTIVATIONS

BATCH = 4
each_operation = pytest.mark.parametrize("operation", OPERATIONS)
ensembles = architectures(ensembles=st.just(2))


def build(architecture: Architecture, operation: str, seed: int) -> ConvexFunction:
    net = architecture.build(seed, steps=seed % 2).requires_grad_(False)
    return apply(operation, net.condition(normal(seed, BATCH, architecture.x_dim)), seed)


def inside(f: ConvexFunction, seed: int, *lead: int) -> Tensor:
    """Points where the entropy is what it says."""
    return torch.tanh(normal(seed, *lead, *f.batch_shape, f.dim))


@each_operation
@given(ensembles, SEEDS)
def test_jensen(operation: str, architecture: Architecture, seed: int) -> None:
    f = build(architecture, operation, seed)
    ends = 1.5 * inside(f, seed + 1, 2, 60)
    share = torch.sigmoid(normal(seed + 2, 60, *f.batch_shape))
    between = share[..., None] * ends[0] + (1 - share[..., None]) * ends[1]
    first, second = (each_value(f, side) for side in ends)
    chord = share * first + (1 - share) * second
    size = torch.maximum(first.abs(), second.abs())
    assert (each_value(f, between) <= chord + 1e-12 * (1 + size)).all()


@each_operation
@given(ensembles, SEEDS)
def test_strong_convexity(operation: str, architecture: Architecture, seed: int) -> None:
    f = build(architecture, operation, seed)
    y = inside(f, seed + 1)
    value, slope = f.value_and_gradient(y)
    gamma = torch.as_tensor(f.strong_convexity)
    if operation == "quadratic":
        assert (gamma > 0).all()
    for z in inside(f, seed + 2, 60):
        tangent = value + (slope * (z - y)).sum(-1) + gamma / 2 * (z - y).square().sum(-1)
        assert (f.value(z) >= tangent - 1e-12 * (1 + value.abs())).all()


@each_operation
@given(ensembles, SEEDS)
def test_gradient_is_that_of_autograd(
    operation: str, architecture: Architecture, seed: int
) -> None:
    f = build(architecture, operation, seed)
    y = inside(f, seed + 1)
    value, slope = f.value_and_gradient(y)
    assert value.shape == f.batch_shape
    torch.testing.assert_close(value, f.value(y))
    torch.testing.assert_close(slope, gradient(f, y), rtol=1e-9, atol=1e-9)


@each_operation
@given(architectures(activations=SMOOTH, ensembles=st.just(2)), SEEDS)
def test_hessian_is_that_of_autograd(operation: str, architecture: Architecture, seed: int) -> None:
    f = build(architecture, operation, seed)
    y = inside(f, seed + 1)
    if operation in ("max", "all"):
        assert not f.smooth
        with pytest.raises(TypeError, match="not smooth"):
            f.hessian(y)
        return
    assert f.smooth
    expected = hessian(f, y)
    torch.testing.assert_close(f.hessian(y).expand_as(expected), expected, rtol=1e-8, atol=1e-9)


@each_operation
@given(ensembles, SEEDS)
def test_take_selects_samples(operation: str, architecture: Architecture, seed: int) -> None:
    f = build(architecture, operation, seed)
    index = torch.tensor([2, 0])
    y = inside(f, seed + 1)
    part = f.take(index)
    assert part.batch_shape == (*f.batch_shape[:-1], 2)
    torch.testing.assert_close(part.value(y[..., index, :]), f.value(y)[..., index])


def lp_value(lp: LinearProgram, y: Tensor) -> float:
    """f(y) by filling in each auxiliary, in order, with the least that its rows allow."""
    v = torch.zeros(len(lp.c), dtype=torch.float64)
    v[: lp.dim] = y
    A, b = torch.as_tensor(lp.A.toarray()), torch.as_tensor(lp.b)
    for k in range(lp.dim, len(v)):
        rows = (A[:, k] < 0) & (A[:, k + 1 :] == 0).all(-1)
        v[k] = ((A[rows] @ v - b[rows]) / -A[rows, k]).amax()
    return float(torch.as_tensor(lp.c) @ v) + lp.constant


@each_operation
@given(architectures(activations=PIECEWISE_LINEAR, ensembles=st.just(2)), SEEDS)
def test_linear_program_is_the_function(
    operation: str, architecture: Architecture, seed: int
) -> None:
    f = build(architecture, operation, seed)
    if operation in ("quadratic", "negative_entropy", "all"):
        assert not f.piecewise_linear
        with pytest.raises(TypeError, match="not piecewise linear"):
            f.to_lp((0,) * len(f.batch_shape))
        return
    y = inside(f, seed + 1)
    value = f.value(y)
    for index in [(0,) * len(f.batch_shape), tuple(s - 1 for s in f.batch_shape)]:
        assert lp_value(f.to_lp(index), y[index]) == pytest.approx(float(value[index]), abs=1e-9)


@pytest.mark.parametrize("activation", PIECEWISE_LINEAR)
def test_shared_terms_in_a_linear_program(activation: str) -> None:
    torch.manual_seed(0)
    net = FICNN(2, 3, (4,), activation, ensemble=2).double().requires_grad_(False)
    single = FICNN(0, 3, (4,), activation).double().requires_grad_(False).function()
    x, y = normal(0, BATCH, 2), normal(1, BATCH, 3)
    for f in (
        net.condition(x).mean(0) + linear(normal(2, 3)),
        (net.condition(x) + linear(normal(2, BATCH, 3))).max(0),
        (net.condition(x) + linear(normal(2, 1, 3))).max(0),
        single + linear(normal(2, BATCH, 3)),
        single.affine(normal(2, BATCH, 3, 3)),
        net.condition(x[:1]).mean(0) + linear(normal(2, BATCH, 3)),
    ):
        assert f.batch_shape == (BATCH,)
        assert lp_value(f.to_lp((3,)), y[3]) == pytest.approx(float(f.value(y)[3]))


def test_terms_are_their_formulas() -> None:
    y, c, center = torch.tanh(normal(0, 5, 3)), normal(1, 5, 3), normal(2, 5, 3)
    gamma = normal(3, 5).abs()
    torch.testing.assert_close(linear(c).value(y), (c * y).sum(-1))
    torch.testing.assert_close(
        quadratic(gamma, center).value(y), gamma / 2 * (y - center).square().sum(-1)
    )
    p = (1 + y) / 2
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum(-1)
    torch.testing.assert_close(negative_entropy(0.7).value(y), -0.7 * entropy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entropy_stays_convex_and_finite_at_and_beyond_the_boundary(dtype: torch.dtype) -> None:
    f = negative_entropy(1.0)
    y = torch.tensor([[-2.0], [-1.0], [1 - 1e-6], [1.0], [1.0 + 1e-6], [2.0]], dtype=dtype)
    value, slope = f.value_and_gradient(y)
    for t in (value, slope, f.hessian(y)):
        assert t.isfinite().all()
    assert (slope.squeeze(-1).diff() >= 0).all()
    torch.testing.assert_close(slope[-1], f.value_and_gradient(y[-1].double())[1].to(dtype))
    assert f.value(torch.ones(3, dtype=dtype)).abs() < 1e-5


def test_envelope_of_sums_mixes_batch_shapes() -> None:
    shared, single = linear(normal(0, 3)), quadratic(1.0, normal(1, 5, 3))
    ensemble = quadratic(normal(2, 2, 1).abs(), normal(3, 2, 5, 3))
    f = shared + single + ensemble
    y = normal(4, 5, 3)
    assert f.batch_shape == (2, 5)
    expected = shared.value(y) + single.value(y) + ensemble.value(y)
    torch.testing.assert_close(f.value(y), expected)
    torch.testing.assert_close(f.mean(0).value(y), expected.mean(0))
    torch.testing.assert_close(f.max(0).value(y), expected.amax(0))


def test_restriction_ignores_what_is_fixed() -> None:
    f = quadratic(1.0, normal(0, 3))
    mask, values = torch.tensor([True, False, True]), torch.tensor([1.0, 9.0, -1.0]).double()
    restricted = f.restrict(mask, values)
    y = normal(1, 3)
    completed = restricted.complete(y)
    assert completed.tolist() == [1.0, float(y[1]), -1.0]
    assert restricted.value(y) == f.value(completed)
    slope, curvature = restricted.value_and_gradient(y)[1], restricted.hessian(y)
    assert slope[mask].tolist() == [0.0, 0.0]
    assert curvature[1, 1] == 1.0
    assert curvature.sum() == 1.0


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_differentiates_to_all_it_is_made_of(activation: str) -> None:
    c, center = normal(0, BATCH, 3).requires_grad_(), normal(1, BATCH, 3).requires_grad_()
    gamma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    net = FICNN(2, 3, (4,), activation).double()
    x = normal(2, BATCH, 2).requires_grad_()
    y = normal(3, BATCH, 3).requires_grad_()

    def value(*_: Tensor) -> Tensor:
        f: ConvexFunction = net.condition(x)
        return (f + linear(c) + quadratic(gamma, center)).value(y)

    assert torch.autograd.gradcheck(value, (x, y, c, center, gamma, *net.parameters()))


@each_operation
def test_a_deep_copy_has_numbers_of_its_own(operation: str) -> None:
    torch.manual_seed(0)
    net = PICNN(2, 3, (4,), (4,), ensemble=2).double()
    x = normal(1, BATCH, 2).requires_grad_()
    f = apply(operation, net.condition(x), 0)
    y = inside(f, 1)
    value, gradient = f.value_and_gradient(y)
    assert torch.autograd.grad(value.sum(), x, retain_graph=True)[0].any()
    made = copy.deepcopy(f)
    torch.testing.assert_close(made.value_and_gradient(y)[0], value)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    again = made.value_and_gradient(y)
    torch.testing.assert_close(again[0].detach(), value.detach())
    torch.testing.assert_close(again[1].detach(), gradient.detach())
    with pytest.raises(RuntimeError):
        torch.autograd.grad(made.value(y).sum(), x)

"""The compiled form of a network is the network, and solvers find the same minima with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from icnn_rl import PICNN, Box, minimize, quadratic
from icnn_rl.functions import ConvexFunction, Modes
from icnn_rl.kernels.network import Workspace, evaluate
from icnn_rl.networks import ACTIVATIONS
from icnn_rl.solvers import oracle
from icnn_rl.solvers.oracle import compiled_network

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


def functions(
    activation: str, convex: tuple[int, ...], dtype: torch.dtype, ensemble: int | None = None
) -> ConvexFunction:
    torch.manual_seed(0)
    net = PICNN(3, 4, (16, 16), convex, activation, ensemble=ensemble).to(dtype)
    return net.requires_grad_(False).condition(2 * torch.randn(5, 3, dtype=dtype))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("convex", [(7,), (9, 6), (5, 8, 6)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("ensemble", [None, 3])
def test_agrees_with_the_network(
    activation: str, convex: tuple[int, ...], dtype: torch.dtype, ensemble: int | None
) -> None:
    f = functions(activation, convex, dtype, ensemble)
    f = f if ensemble is None else f.mean(0)
    compiled = compiled_network(f)
    assert compiled is not None
    rows = np.array([0, 3, 4])
    y = 3 * torch.randn(5, 4, dtype=dtype)
    points = y[rows].double().numpy()
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    value, gradient = f.value_and_gradient(y)
    wide = np.full((5, 4), 1e3)
    got_value, got_gradient, hessian, odd = evaluate(
        compiled, rows, points, -wide, wide, f.smooth, Workspace.of(compiled)
    )
    assert odd == -1
    np.testing.assert_allclose(got_value, value[rows].numpy(), **tolerance)
    np.testing.assert_allclose(got_gradient, gradient[rows].numpy(), **tolerance)
    if f.smooth:
        expected = f.hessian(y)[rows].numpy()
        np.testing.assert_allclose(hessian, expected, **tolerance)


def test_members_of_an_ensemble_are_functions_of_their_own() -> None:
    f = functions("squareplus", (6,), torch.float64, ensemble=2)
    compiled = compiled_network(f)
    assert compiled is not None
    y = torch.randn(2, 5, 4, dtype=torch.float64)
    value, gradient = f.value_and_gradient(y)
    wide = np.full((10, 4), 1e3)
    points = y.flatten(0, 1).numpy()
    got_value, got_gradient, *_ = evaluate(
        compiled, np.arange(10), points, -wide, wide, False, Workspace.of(compiled)
    )
    np.testing.assert_allclose(got_value, value.flatten().numpy(), rtol=1e-12)
    np.testing.assert_allclose(got_gradient, gradient.flatten(0, 1).numpy(), rtol=1e-12)


def assert_compiled_agrees(f: ConvexFunction, dim: int) -> None:
    """The compiled form of f, of batch shape (2, 5), has its values and derivatives."""
    compiled = compiled_network(f)
    assert compiled is not None
    y = torch.randn(2, 5, dim, dtype=torch.float64)
    points, rows = y.flatten(0, 1).numpy(), np.arange(10)
    value, gradient = f.value_and_gradient(y)
    wide = np.full((10, dim), 1e3)
    got_value, got_gradient, got_hessian, _ = evaluate(
        compiled, rows, points, -wide, wide, True, Workspace.of(compiled)
    )
    np.testing.assert_allclose(got_value, value.flatten().numpy(), rtol=1e-12)
    np.testing.assert_allclose(got_gradient, gradient.flatten(0, 1).numpy(), rtol=1e-11)
    hessian = f.hessian(y).flatten(0, 1).numpy()
    np.testing.assert_allclose(got_hessian, hessian, rtol=1e-11, atol=1e-14)


def test_each_mode_is_the_mean_of_its_members() -> None:
    network = functions("squareplus", (6, 3), torch.float64, ensemble=6)
    modes = Modes(network, 2).mean(0)
    assert_compiled_agrees(modes, 4)
    assert_compiled_agrees(modes + quadratic(0.7, torch.zeros(4).double()), 4)


@pytest.mark.parametrize("gamma", [0.7, torch.arange(10.0).view(2, 5)])
@pytest.mark.parametrize("first", [True, False])
def test_adds_a_quadratic(gamma: float | torch.Tensor, first: bool) -> None:
    network = functions("softplus", (6,), torch.float64, ensemble=2)
    term = quadratic(gamma, torch.linspace(-1, 1, 4, dtype=torch.float64))
    f = term + network if first else network + term
    assert_compiled_agrees(f, 4)


@pytest.mark.parametrize("shape", [(4, 6), (5, 4, 6), (2, 5, 4, 2)])
@pytest.mark.parametrize("gamma", [None, 0.7])
def test_of_an_affine_map(shape: tuple[int, ...], gamma: float | None) -> None:
    network = functions("squareplus", (6, 3), torch.float64, ensemble=2)
    torch.manual_seed(0)
    A, b = torch.randn(shape, dtype=torch.float64), torch.randn(shape[:-1], dtype=torch.float64)
    f: ConvexFunction = network.affine(A, b)
    if gamma is not None:
        f = f + quadratic(gamma, torch.linspace(-1, 1, shape[-1], dtype=torch.float64))
    assert_compiled_agrees(f, shape[-1])


def test_a_quadratic_that_adds_samples_is_left_to_torch() -> None:
    f = PICNN(3, 4, (16,), (6,), "softplus").condition(torch.zeros(1, 3))
    centers = torch.zeros(5, 4)
    assert compiled_network(f) is not None
    assert compiled_network(f + quadratic(1.0, centers)) is None
    assert minimize(f + quadratic(1.0, centers), Box(-1.0, 1.0)).converged.shape == (5,)


@pytest.mark.parametrize("solver", ["newton", "bundle"])
def test_solvers_find_the_same_minimum_without_it(
    solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = functions("softplus", (8, 8), torch.float64)
    compiled = minimize(f, Box(-1.0, 1.0), 1e-9, solver)
    monkeypatch.setattr(oracle, "MAX_BATCH_MULTIPLICATIONS", 0)
    monkeypatch.setattr(oracle, "MAX_HESSIAN_MULTIPLICATIONS", 0)
    assert compiled_network(f, hessians=True) is None
    plain = minimize(f, Box(-1.0, 1.0), 1e-9, solver)
    assert compiled.converged.all()
    assert plain.converged.all()
    torch.testing.assert_close(compiled.value, plain.value, rtol=0, atol=2e-9)


def test_wide_networks_are_left_to_torch() -> None:
    assert compiled_network(functions("relu", (4, 4), torch.float32)) is not None
    assert compiled_network(functions("relu", (600, 600), torch.float32)) is None


def test_large_batches_of_narrow_networks_are_left_to_torch_unless_hessians_are_wanted() -> None:
    many = torch.zeros(8192, dtype=torch.long)
    narrow = functions("squareplus", (64,), torch.float32).take(many)
    assert compiled_network(narrow) is None
    assert compiled_network(narrow, hessians=True) is not None
    wide = functions("squareplus", (200, 200), torch.float32).take(many)
    assert compiled_network(wide, hessians=True) is None

"""Networks whose function of y is a quadratic, and ensembles seen as groups of modes."""

from __future__ import annotations

import pytest
import torch
from autograd_reference import gradient, hessian
from hypothesis import given
from hypothesis import strategies as st
from problems import PIECEWISE_LINEAR, SEEDS, each_value, normal

from icnn_rl import PICNN, Box, linear, minimize, minimize_modes
from icnn_rl.functions import Modes
from icnn_rl.networks import QuadraticNetwork

BATCH = 4
SIZES = st.integers(1, 4)


def network(n: int, ensemble: int | None, seed: int, *, norm: str = "none") -> QuadraticNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = QuadraticNetwork(3, n, (8, 7), ensemble=ensemble, norm=norm)
    return net.double().requires_grad_(False)


@given(SIZES, st.none() | SIZES, SEEDS, st.sampled_from(["none", "layer", "batch"]))
def test_derivatives_are_those_of_autograd(
    n: int, ensemble: int | None, seed: int, norm: str
) -> None:
    f = network(n, ensemble, seed, norm=norm).condition(normal(seed, BATCH, 3))
    assert f.batch_shape == ((BATCH,) if ensemble is None else (ensemble, BATCH))
    y = normal(seed + 1, *f.batch_shape, n)
    value, slope = f.value_and_gradient(y)
    torch.testing.assert_close(value, f.value(y))
    torch.testing.assert_close(slope, gradient(f, y))
    torch.testing.assert_close(f.hessian(y), hessian(f, y))
    assert f.hessian(y[..., :1, :]).shape == (*f.batch_shape, n, n)


@given(SIZES, SEEDS)
def test_the_least_value_is_at_the_centre_inside_the_box(n: int, seed: int) -> None:
    f = network(n, None, seed).condition(normal(seed, BATCH, 3))
    assert (f.center.abs() < 1).all()
    torch.testing.assert_close(f.value(f.center), f.level)
    torch.testing.assert_close(f.value_and_gradient(f.center)[1], torch.zeros_like(f.center))
    assert (torch.linalg.eigvalsh(f.hessian(f.center)) > 0).all()
    solution = minimize(f, Box(-1.0, 1.0), 1e-9)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, f.level, rtol=0, atol=2e-9)


def test_the_mean_of_one_member_is_that_member() -> None:
    ensemble = network(2, 1, 0).condition(normal(0, BATCH, 3))
    y = normal(1, BATCH, 2)
    torch.testing.assert_close(ensemble.mean(0).value(y), ensemble.value(y)[0])
    torch.testing.assert_close(ensemble.mean(0).center, ensemble.center[0])
    pair = network(2, 2, 0).condition(normal(0, BATCH, 3))
    torch.testing.assert_close(pair.mean(0).value(y), pair.value(y).mean(0))


def test_take_keeps_what_is_shared_by_the_batch() -> None:
    f = network(2, None, 0).condition(normal(0, 1, 3)) + linear(normal(1, BATCH, 2))
    y, index = normal(2, BATCH, 2), torch.tensor([BATCH - 1, 0])
    torch.testing.assert_close(f.take(index).value(y[index]), f.value(y)[index])


def test_contexts_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, 3\), got \(4, 2\)"):
        network(2, None, 0).condition(torch.zeros(4, 2))


@pytest.mark.parametrize("activation", ["softplus", *PIECEWISE_LINEAR])
def test_modes_are_the_members_in_groups(activation: str) -> None:
    torch.manual_seed(0)
    net = PICNN(3, 2, (8,), (6,), activation, ensemble=6).double().requires_grad_(False)
    f = net.condition(normal(0, BATCH, 3))
    modes = Modes(f, 3)
    assert modes.batch_shape == (2, 3, BATCH)
    shared, own = normal(1, BATCH, 2), normal(2, 3, BATCH, 2)
    torch.testing.assert_close(modes.value(shared), f.value(shared).view(2, 3, BATCH))
    value, slope = modes.value_and_gradient(own)
    expected = f.value_and_gradient(own.repeat(2, 1, 1))
    torch.testing.assert_close(value, expected[0].view(2, 3, BATCH))
    torch.testing.assert_close(slope, expected[1].view(2, 3, BATCH, 2))
    index = torch.tensor([2, 0])
    torch.testing.assert_close(modes.take(index).value(own[:, index]), value[..., index])
    best, mode = minimize_modes(modes.mean(0), Box(-1.0, 1.0), 1e-6)
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 41).double()] * 2)
    values = each_value(f, grid[:, None, None].expand(-1, 6, BATCH, -1))
    lowest = values.view(-1, 2, 3, BATCH).mean(1).amin((0, 1))
    assert best.converged.all()
    assert (best.lower_bound <= lowest).all()
    assert (modes.mean(0).value(best.y).gather(0, mode[None])[0] <= lowest + 1e-6).all()
    if modes.piecewise_linear:
        exact = minimize(modes.mean(0), Box(-1.0, 1.0), solver="lp").value.amin(0)
        torch.testing.assert_close(best.value, exact, rtol=0, atol=2e-6)
    else:
        torch.testing.assert_close(
            modes.hessian(own), f.hessian(own.repeat(2, 1, 1)).view(2, 3, BATCH, 2, 2)
        )


@pytest.mark.parametrize("count", [0, 4])
def test_modes_that_do_not_divide_the_ensemble(count: int) -> None:
    f = network(2, 6, 0).condition(normal(0, BATCH, 3))
    with pytest.raises(ValueError, match=rf"count: expected a divisor.*got {count}.*\(6, 4\)"):
        Modes(f, count)

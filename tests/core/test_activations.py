"""Activations: convex, non-decreasing, with the right derivatives; all others are refused."""

from __future__ import annotations

import pytest
import torch

from icnn_rl import FICNN, PICNN
from icnn_rl.networks import ACTIVATIONS, Activation, activation

GRID = torch.linspace(-60, 60, 24_001, dtype=torch.float64)

each_activation = pytest.mark.parametrize("sigma", ACTIVATIONS.values(), ids=lambda a: a.name)


@each_activation
def test_value_is_convex_and_non_decreasing(sigma: Activation) -> None:
    values = sigma.value(GRID)
    rises = values.diff()
    assert (rises >= -1e-12).all()
    assert (rises.diff() >= -1e-12).all()


@each_activation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slope_is_never_negative_and_never_falls(sigma: Activation, dtype: torch.dtype) -> None:
    slope = sigma.slope(GRID.to(dtype))
    assert slope.dtype == dtype
    assert (slope >= 0).all()
    assert (slope.diff() >= 0).all()


@each_activation
def test_slope_and_curvature_are_the_derivatives(sigma: Activation) -> None:
    t = GRID[GRID != 0].requires_grad_()
    slope = torch.autograd.grad(sigma.value(t).sum(), t, create_graph=True)[0]
    torch.testing.assert_close(sigma.slope(t), slope, rtol=1e-12, atol=1e-12)
    if sigma.piecewise_linear:
        assert (sigma.curvature(t) == 0).all()
        torch.testing.assert_close(sigma.value(t), torch.maximum(t, sigma.leak * t))
    else:
        curvature = torch.autograd.grad(slope.sum(), t)[0]
        torch.testing.assert_close(sigma.curvature(t), curvature, rtol=1e-9, atol=1e-12)


@each_activation
def test_slope_at_the_kink_is_a_subgradient(sigma: Activation) -> None:
    at_zero = torch.zeros(1, dtype=torch.float64)
    tangent = sigma.value(at_zero) + sigma.slope(at_zero) * GRID
    assert (tangent <= sigma.value(GRID) + 1e-12).all()


@pytest.mark.parametrize("name", ["tanh", "gelu", "silu", "mish", "abs", "sigmoid", "ReLU", ""])
@pytest.mark.parametrize(
    "use",
    [
        activation,
        lambda name: PICNN(2, 2, activation=name),
        lambda name: FICNN(0, 2, activation=name),
    ],
    ids=["activation", "PICNN", "FICNN"],
)
def test_other_activations_are_refused_by_name(use: object, name: str) -> None:
    with pytest.raises(ValueError, match="activation: expected a convex, non-decreasing") as error:
        use(name)  # type: ignore[operator]
    assert repr(name) in str(error.value)
    for allowed in ACTIVATIONS:
        assert allowed in str(error.value)

"""The initialisation of Hoedt & Klambauer, and what it is for."""

from __future__ import annotations

import pytest
import torch

from icnn_rl import FICNN, PICNN
from icnn_rl.networks.convex_path import NonNegativeInit


@pytest.mark.parametrize(
    ("fan_in", "mean", "variance", "bias"),
    [(200, 9.243e-3, 5.0e-3, -0.737), (600, 3.088e-3, 1.67e-3, -0.739)],
)
def test_moments_are_those_of_the_paper(
    fan_in: int, mean: float, variance: float, bias: float
) -> None:
    init = NonNegativeInit.for_fan_in(fan_in)
    assert init.mean == pytest.approx(mean, rel=1e-3)
    assert init.variance == pytest.approx(variance, rel=3e-3)
    assert init.bias == pytest.approx(bias, abs=1e-3)


def test_a_leak_lowers_the_variance() -> None:
    plain, leaky = NonNegativeInit.for_fan_in(100), NonNegativeInit.for_fan_in(100, leak=0.5)
    assert leaky.variance == pytest.approx(plain.variance / 1.25)
    assert leaky.mean == plain.mean


def test_filled_weights_have_the_moments() -> None:
    init = NonNegativeInit.for_fan_in(50)
    torch.manual_seed(0)
    weight = init.fill_(torch.empty(1000, 1000, dtype=torch.float64))
    assert (weight > 0).all()
    assert weight.mean().item() == pytest.approx(init.mean, rel=0.02)
    assert weight.var().item() == pytest.approx(init.variance, rel=0.1)


@pytest.mark.parametrize("fan_in", [1, 2, 3])
def test_narrow_layers_have_finite_moments(fan_in: int) -> None:
    init = NonNegativeInit.for_fan_in(fan_in)
    assert init.mean > 0
    assert init.variance > 0
    assert -10 < init.bias < 0


@pytest.mark.parametrize("nonnegativity", ["projection", "softplus"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_a_deep_network_starts_with_values_of_order_one(
    activation: str, nonnegativity: str
) -> None:
    torch.manual_seed(0)
    net = FICNN(0, 50, convex=(200,) * 8, activation=activation, nonnegativity=nonnegativity)
    y = torch.randn(1000, 50)
    values = net.function().value(y)
    assert 0.1 < values.std().item() < 10
    assert values.abs().max().item() < 30


@pytest.mark.parametrize("make", [lambda: PICNN(3, 2, (8,), (8, 8)), lambda: FICNN(3, 2, (8, 8))])
def test_the_seed_decides_the_weights(make: object) -> None:
    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return make().state_dict()  # type: ignore[operator]

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)

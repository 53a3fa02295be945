"""Draws have the distribution that they are said to have: against closed forms and integration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import Architecture
from scipy import stats
from torch import Tensor

from icnn_rl import (
    PICNN,
    Ball,
    Box,
    ConvexFunction,
    ConvexSet,
    Euclidean,
    L1Ball,
    Polytope,
    Simplex,
    linear,
    minimize,
    negative_entropy,
    quadratic,
    sample,
)

N = 2000
SWEEPS = 12  # several times as many as the slowest of the densities needs to forget its mode
LIKELY = 1e-3  # a p-value; seeds are fixed


def repeated(t: list[float] | Tensor) -> Tensor:
    """The same vector for each of N functions."""
    return torch.as_tensor(t, dtype=torch.float64).expand(N, -1).contiguous()


def draws(
    f: ConvexFunction, over: ConvexSet, temperature: float = 1.0, sweeps: int = SWEEPS
) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return sample(f, over, temperature, sweeps, generator=generator).numpy()


def network(y_dim: int, activation: str = "softplus") -> ConvexFunction:
    """One function of a random network, N times."""
    architecture = Architecture(
        PICNN, 2, y_dim, (8,), (12, 12), activation, None, "none", "softplus"
    )
    return architecture.build(3, steps=2).condition(torch.full((N, 2), 0.5, dtype=torch.float64))


def test_truncated_gaussians() -> None:
    center, deviation, T = np.array([0.3, -0.9, 2.0]), np.array([0.5, 0.1, 1.0]), 0.2
    scale = T**0.5 / deviation
    f = quadratic(1.0, repeated((scale * center).tolist())).affine(
        torch.diag(torch.as_tensor(scale))
    )
    y = draws(f, Box(-1.0, 1.0), T)
    low, high = (-1 - center) / deviation, (1 - center) / deviation
    truth = stats.truncnorm(low, high, center, deviation)
    mean, variance, _, kurtosis = truth.stats("mvsk")
    error = np.sqrt(variance / N)
    np.testing.assert_array_less(np.abs(y.mean(0) - mean), 4 * error)
    error = variance * np.sqrt((kurtosis + 2) / N)
    np.testing.assert_array_less(np.abs(y.var(0) - variance), 4 * error)
    for k in range(3):
        one = stats.truncnorm(low[k], high[k], center[k], deviation[k])
        assert stats.kstest(y[:, k], one.cdf).pvalue > LIKELY


@pytest.mark.slow
def test_a_narrow_gaussian_that_no_axis_follows() -> None:
    root = torch.tensor([[40.0, 38.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 10.0]]).double()
    f = quadratic(1.0, torch.zeros(N, 3, dtype=torch.float64)).affine(root)
    white = draws(f, Box(-9.0, 9.0), sweeps=40) @ root.numpy().T
    for column in white.T:
        assert stats.kstest(column, "norm").pvalue > LIKELY
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=4 * np.sqrt(2 / N))


@pytest.mark.parametrize("temperature", [0.5, 1e-5])
def test_linear_functions_have_exponential_draws(temperature: float) -> None:
    slopes = [3.0, 0.1, -25.0, 0.0]
    y = draws(linear(repeated(slopes)), Box(-1.0, 1.0), temperature)
    for k, slope in enumerate(slopes[:3]):
        rate, up = abs(slope) / temperature, np.sign(slope) * y[:, k]
        assert stats.kstest(up, stats.truncexpon(2 * rate, -1, 1 / rate).cdf).pvalue > LIKELY
    assert stats.kstest(y[:, 3], stats.uniform(-1, 2).cdf).pvalue > LIKELY


@pytest.mark.parametrize("activation", ["softplus", "relu"])
@pytest.mark.parametrize("y_dim", [1, 2])
def test_networks_against_integration(y_dim: int, activation: str) -> None:
    f, T = network(y_dim, activation), 0.3
    y = draws(f, Box(-1.0, 1.0), T)
    # The midpoint rule, on a grid.
    count = {1: 100_000, 2: 500}[y_dim]
    line = (torch.arange(count, dtype=torch.float64) + 0.5) * 2 / count - 1
    grid = torch.cartesian_prod(*[line] * y_dim).view(-1, y_dim)
    one = f.take(torch.zeros(len(grid), dtype=torch.long))
    density = torch.softmax(-one.value(grid) / T, 0).detach().numpy()
    assert density.max() > 2 * density.min()  # far from uniform
    for direction in [*np.eye(y_dim).tolist(), [1.0] * y_dim, [1.0, -0.5][:y_dim]]:
        position = grid.numpy() @ direction
        order = position.argsort()
        below = density[order].cumsum()

        def cdf(
            t: np.ndarray, x: np.ndarray = position[order], p: np.ndarray = below
        ) -> np.ndarray:
            return np.interp(t, x, p)

        assert stats.kstest(y @ direction, cdf).pvalue > LIKELY


def test_uniform_in_a_ball_and_in_a_triangle() -> None:
    flat = linear(repeated([0.0, 0.0]))
    y = draws(flat, Ball(2.0, torch.tensor([1.0, -3.0])))
    assert stats.kstest(((y - [1, -3]) ** 2).sum(1) / 4, "uniform").pvalue > LIKELY
    angle = np.arctan2(y[:, 1] + 3, y[:, 0] - 1)
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > LIKELY
    triangle = Polytope(torch.tensor([[-1.0, 0], [0, -1], [1, 1]]), torch.tensor([0.0, 0, 1]))
    y = draws(flat, triangle)
    for k in range(2):
        assert stats.kstest(y[:, k], stats.beta(1, 2).cdf).pvalue > LIKELY


def test_from_the_corner_of_a_wedge_the_chain_gets_away() -> None:
    wedge = Polytope(torch.tensor([[-1.0, 4.0], [-1.0, -4.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
    y = draws(linear(repeated([1.0, 0.0])), wedge, 0.2)
    # Its width grows with the first coordinate x, so x has the density x exp(-x / 0.2) up to 1.
    gamma = stats.gamma(2, scale=0.2)
    assert stats.kstest(y[:, 0], lambda x: gamma.cdf(x) / gamma.cdf(1)).pvalue > LIKELY


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-8, 0.1, 1e6])
def test_draws_are_feasible(dtype: torch.dtype, temperature: float) -> None:
    n, batch = 4, 12
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(batch, n, generator=generator).to(dtype)
    f = PICNN(n, n, (8,), (8,)).to(dtype).condition(points) + linear(5 * points)
    rows = torch.randn(batch, 3, n, generator=generator)
    sets = [
        Box(points, points + points.abs()),
        Box(points, points),
        Ball(torch.linspace(0.1, 2, batch), points),
        Box(-1.0, 1.0) & Polytope(rows, torch.full((batch, 3), 0.1)),
        Box(-1.0, 1.0) & Ball(1.2) & Polytope(rows[0], torch.rand(batch, 3, generator=generator)),
    ]
    for over in sets:
        y = sample(f, over, temperature, generator=generator)
        assert y.dtype == dtype
        assert over.contains(y).all(), over
        if isinstance(over, Box):  # to the last bit
            assert ((over.lower <= y) & (y <= over.upper)).all()


@pytest.mark.parametrize("temperature", [1e-1, 1e-3, 1e-5])
def test_as_the_temperature_falls_draws_approach_the_minimum(temperature: float) -> None:
    f, space = network(3).take(torch.arange(100)), Box(-1.0, 1.0)
    corner = torch.tensor([-1.0, 1.0, 1.0])
    y = sample(f, space, temperature, 30, start=corner)
    gap = f.value(y) - minimize(f, space, 1e-9).value
    assert (gap >= -1e-9).all()
    # A log-concave density in n dimensions has a mean of f within n T of the minimum.
    assert gap.mean() < 1.3 * 3 * temperature


def test_batches_of_every_shape() -> None:
    one = linear(torch.tensor([1.0, 2.0, 0.0]))
    assert sample(one, Box(-1.0, 1.0), 1.0).shape == (3,)
    none = PICNN(2, 3, (8,), (8,)).condition(torch.empty(0, 2))
    assert sample(none, Box(-1.0, 1.0), 1.0).shape == (0, 3)
    ensemble = PICNN(2, 3, (8,), (8,), ensemble=4).condition(torch.randn(5, 2))
    low = sample(ensemble, Box(-1.0, 1.0), 1e-6)
    assert low.shape == (4, 5, 3)
    gap = ensemble.value(low) - minimize(ensemble, Box(-1.0, 1.0), 1e-6).value
    assert gap.max() < 1e-4  # each has gone to the minimum of its own function


def test_large_values_cost_precision_but_end() -> None:
    f = linear(torch.full((20, 2), 1e-3)).affine(torch.eye(2), torch.tensor([1e9, 0.0]))
    y = sample(f, Box(-1.0, 1.0), 1e-6)
    assert (y.abs() <= 1).all()


def test_the_seed_decides() -> None:
    f = network(2)

    def draw(seed: int) -> Tensor:
        return sample(f, Box(-1.0, 1.0), 0.3, generator=torch.Generator().manual_seed(seed))

    torch.manual_seed(0)
    first = draw(5)
    untouched = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == untouched
    assert torch.equal(draw(5), first)
    assert not torch.equal(draw(6), first)
    torch.manual_seed(7)
    of_global = sample(f, Box(-1.0, 1.0), 0.3)
    torch.manual_seed(7)
    assert torch.equal(sample(f, Box(-1.0, 1.0), 0.3), of_global)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"temperature": 0.0}, ValueError, r"temperature: expected .* > 0, got 0.0"),
        ({"temperature": -1.0}, ValueError, r"temperature: expected .* > 0, got -1.0"),
        ({"temperature": float("nan")}, ValueError, r"temperature: expected .* > 0, got nan"),
        ({"sweeps": 0}, ValueError, "sweeps: expected a number >= 1, got 0"),
        ({"over": Euclidean()}, ValueError, r"over: expected a bounded set, got Euclidean\(\)"),
        ({"over": Polytope(torch.ones(1, 2), torch.ones(1))}, ValueError, "a bounded set, got Pol"),
        ({"over": Simplex()}, TypeError, r"over: expected a set of bounds.*got Simplex\(\)"),
        ({"over": L1Ball(1.0)}, TypeError, r"over: expected a set of bounds.*got L1Ball"),
        ({"over": Box(0.0, 1.0) & Box(2.0, 3.0)}, ValueError, "a set that is not empty, got Box"),
        ({"start": torch.zeros(3)}, ValueError, r"start: .* of shape \(5, 2\), got \(3,\)"),
        ({"start": torch.full((2,), torch.nan)}, ValueError, "start: expected finite entries"),
        (
            {"f": linear(torch.ones(5, 2).bfloat16())},
            TypeError,
            "f: expected .* float32 or float64",
        ),
        ({"f": negative_entropy(1.0)}, ValueError, "f: expected a function that fixes the dim"),
        ({"f": linear(torch.full((5, 2), torch.nan))}, ValueError, "f: expected finite values"),
    ],
)
def test_bad_arguments_are_named(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments = {"f": linear(torch.ones(5, 2)), "over": Box(-1.0, 1.0), "temperature": 1.0}
    with pytest.raises(error, match=message):
        sample(**arguments | change)

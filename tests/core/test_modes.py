"""The minimum over modes against exact answers and a grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import PIECEWISE_LINEAR, SEEDS, Architecture, architectures, normal

from icnn_rl import PICNN, Box, Polytope, Simplex, linear, minimize, minimize_modes, quadratic

BATCH, MODES = 5, 3


@pytest.mark.slow
@given(architectures(PIECEWISE_LINEAR, st.just(MODES)), SEEDS)
def test_the_global_minimum_is_that_of_the_linear_programs(
    architecture: Architecture, seed: int
) -> None:
    f = (
        architecture.build(seed)
        .requires_grad_(False)
        .condition(normal(seed, BATCH, architecture.x_dim))
    )
    over = Box(-1.0, 1.0)
    solution, mode = minimize_modes(f, over, 1e-6)
    optimum = minimize(f, over, solver="lp").value.amin(0)
    size = 1e-7 * (1 + optimum.abs())
    assert solution.converged.all()
    assert (solution.lower_bound <= optimum + size).all()
    assert (solution.value <= optimum + 1e-6 + size).all()
    values = f.value(solution.y.expand(MODES, -1, -1))
    torch.testing.assert_close(values.gather(0, mode[None]).squeeze(0), solution.value)


@pytest.mark.parametrize("max_evaluations", [1, 3, 100])
def test_the_certificate_holds_against_a_grid(max_evaluations: int) -> None:
    torch.manual_seed(0)
    net = PICNN(2, 1, (8,), (16, 16), "softplus", ensemble=MODES).double().requires_grad_(False)
    wells = quadratic(3.0, torch.linspace(-0.8, 0.8, MODES).double().view(MODES, 1, 1))
    f = net.condition(normal(1, BATCH, 2)) + wells
    grid = torch.linspace(-1, 1, 2001).double()
    lowest = torch.stack([f.value(y.expand(MODES, BATCH, 1)) for y in grid]).amin((0, 1))
    solution, _ = minimize_modes(f, Box(-1.0, 1.0), 1e-5, max_evaluations=max_evaluations)
    assert (solution.lower_bound <= lowest).all()
    slack = (grid[1] - grid[0]) * 10  # the grid may miss the minimum by its spacing times a slope
    assert (solution.value >= lowest - slack).all()
    assert (solution.value <= lowest + solution.gap).all()
    assert solution.converged.all() == (max_evaluations > 1)
    assert (solution.evaluations <= MODES * max_evaluations).all()


def test_two_wells_of_which_the_deeper_is_found() -> None:
    """min(|y + ½|², |y - ½|² + (y - 1)/2) has a well at -½, 0 deep, and one at ¼, -5/16 deep."""
    centers = torch.tensor([[[-0.5]], [[0.5]]])
    slopes = torch.tensor([[[0.0]], [[0.5]]])
    f = quadratic(2.0, centers) + linear(slopes).affine(torch.eye(1), -1.0)
    solution, mode = minimize_modes(f, Box(-1.0, 1.0), 1e-6, start=torch.full((2, 1, 1), -1.0))
    assert mode.tolist() == [1]
    torch.testing.assert_close(solution.value, torch.tensor([-0.3125]), atol=1e-5, rtol=0)
    torch.testing.assert_close(solution.y, torch.tensor([[0.25]]), atol=1e-3, rtol=0)


def test_infeasible_samples_and_sets() -> None:
    f = linear(normal(0, MODES, BATCH, 3))
    best, mode = minimize_modes(f, Simplex(), 1e-8)
    torch.testing.assert_close(best.value, f.c.amin((0, 2)))
    assert torch.equal(mode, f.c.amin(2).argmin(0))
    limit = torch.tensor([-9.0, 1.0, 1.0, -9.0, 1.0]).double().unsqueeze(-1)
    over = Box(-1.0, 1.0) & Polytope(torch.ones(1, 3).double(), limit)
    solution, _ = minimize_modes(f, over, 1e-6)
    assert solution.infeasible.tolist() == [True, False, False, True, False]
    assert solution.converged.tolist() == [False, True, True, False, True]


def test_a_mode_axis_is_needed() -> None:
    with pytest.raises(ValueError, match=r"f: expected a leading mode axis.*batch shape \(\)"):
        minimize_modes(linear(torch.zeros(3)), Box(-1.0, 1.0))

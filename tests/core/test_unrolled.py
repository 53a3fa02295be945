"""Minimisers by unrolled gradient steps: their derivatives, bounds and arguments."""

from __future__ import annotations

import pytest
import torch
from problems import normal
from test_differentiation import BATCH, TOL, N, assert_derivative, network, tilted
from torch import Tensor

from icnn_rl import (
    Ball,
    Box,
    ConvexSet,
    Euclidean,
    L1Ball,
    Polytope,
    Simplex,
    argmin,
    minimize,
    negative_entropy,
    unrolled,
)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("over", [Box(-1.0, 1.0), Ball(0.7), Simplex(), Euclidean()], ids=str)
def test_unrolled(over: ConvexSet, momentum: float) -> None:
    net, x = network(), normal(0, BATCH, 3).requires_grad_()
    weight = normal(4, BATCH, N)

    def solve(iterations: int) -> Tensor:
        return (
            weight * unrolled(tilted(net.condition(x)), over, 0.2, iterations, momentum).y
        ).sum()

    assert_derivative(lambda: solve(6), [x, *net.parameters()])
    if isinstance(over, Ball):
        return  # argmin does not take it
    exact = (weight * argmin(tilted(net.condition(x)), over, TOL).y).sum()
    for long, short in zip(
        torch.autograd.grad(solve(300), [x, net.bias[0]]),
        torch.autograd.grad(exact, [x, net.bias[0]]),
        strict=True,
    ):
        torch.testing.assert_close(long, short, rtol=1e-6, atol=1e-8)


def test_unrolled_proves_its_last_iterate() -> None:
    f = tilted(network("relu").requires_grad_(False).condition(normal(0, BATCH, 3)))
    optimum = minimize(f, Box(-1.0, 1.0), 1e-9).value
    for iterations in (1, 50):
        solution = unrolled(f, Box(-1.0, 1.0), 0.05, iterations)
        assert (solution.value - solution.gap <= optimum + 1e-9).all()
        assert (solution.value >= optimum - 1e-9).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 0.0}, "step: expected a finite number > 0, got 0.0"),
        ({"iterations": 0}, "iterations: expected a number >= 1, got 0"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\), got 1.0"),
        ({"f": negative_entropy(1.0)}, "f: expected a function that fixes the dimension"),
        ({"start": torch.zeros(3)}, r"start: .* of shape \(5, 4\), got \(3,\)"),
        ({"step": 1e300, "over": Euclidean()}, "f: expected finite values along the steps, got"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_bad_arguments_are_named(change: dict[str, object], message: str) -> None:
    f = tilted(network().condition(normal(0, BATCH, 3)))
    arguments = {"f": f, "over": Box(-1.0, 1.0), "step": 0.1, "iterations": 5, **change}
    with pytest.raises(ValueError, match=message):
        unrolled(**arguments)  # type: ignore[arg-type]


def test_sets_whose_projection_has_no_closed_form_are_refused() -> None:
    for over in (Polytope(torch.eye(N).double(), torch.ones(N).double()), L1Ball(1.0)):
        with pytest.raises(TypeError, match="over: expected a set whose projection has a closed"):
            unrolled(network().condition(normal(0, BATCH, 3)), over, 0.1, 5)

"""The same problem has the same answer to the last bit, wherever in memory its arrays lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import icnn_rl
from icnn_rl.sets import Box, ConvexSet, Simplex

DIM, BATCH, REPEATS = 10, 64, 40


@pytest.mark.parametrize(
    ("solver", "activation", "over"),
    [
        ("bundle", "relu", Simplex()),
        ("bundle", "relu", Box(-1.0, 1.0)),
        ("level", "relu", Simplex()),
        ("newton", "softplus", Simplex()),
        ("newton", "softplus", Box(-1.0, 1.0)),
        ("bundle_entropy", "relu", Box(-1.0, 1.0)),
    ],
)
def test_answers_do_not_depend_on_the_state_of_the_heap(
    solver: str, activation: str, over: ConvexSet
) -> None:
    torch.manual_seed(0)
    f: icnn_rl.ConvexFunction
    f = icnn_rl.PICNN(3, DIM, (16,), (16, 16), activation).condition(torch.randn(BATCH, 3))
    if solver == "bundle_entropy":
        f = f + icnn_rl.negative_entropy(0.1)
    sizes = np.random.default_rng(0)
    first = icnn_rl.minimize(f, over, 1e-4, solver)
    assert first.converged.all()
    for _ in range(REPEATS):
        held = [np.empty(size) for size in sizes.integers(1, 200, 400)]
        del held[::2]  # holes of many sizes for the next arrays to lie in
        again = icnn_rl.minimize(f, over, 1e-4, solver)
        for name in ("y", "value", "lower_bound", "evaluations"):
            assert torch.equal(getattr(first, name), getattr(again, name)), name

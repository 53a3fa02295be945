"""Exemplars on the 8 × 8 digits that scikit-learn ships."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from icnn_rl.networks import FICNN
from icnn_rl.sets import Box, Simplex
from icnn_rl.solvers import minimize
from icnn_rl.structured.classifier import ZERO_ONE
from icnn_rl.structured.exemplars import ExemplarLoss, exemplar_energy, exemplars
from icnn_rl.structured.losses import MaxMargin
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Trainer, TrainingOptions

GAMMA = 0.15
PIXELS = Box(0.0, 1.0)
CLASSES = torch.eye(10)


def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, CLASSES[torch.tensor(labels)]


def loss_of(net: FICNN, weight: float, evaluations: int = 5) -> ExemplarLoss:
    answers = partial(MaxMargin(ZERO_ONE), StructuredModel(net, Simplex(), tol=1e-2))
    rivals = torch.full((10, 64), 0.5, dtype=net.bias[0].dtype)
    return ExemplarLoss(answers, net, PIXELS, GAMMA, weight, rivals, evaluations)


@pytest.fixture(scope="module")
def net() -> FICNN:
    torch.manual_seed(0)
    x, y = digits()
    net = FICNN(64, 10, (64, 64), "relu")
    options = TrainingOptions(epochs=6, batch_size=64, learning_rate=1e-2)
    for _ in Trainer(net, loss_of(net, 0.1), x[:-500], y[:-500], options).run():
        pass
    return net


@torch.no_grad()
def energies(net: FICNN, x: Tensor) -> Tensor:
    f = net.condition(x)
    return torch.stack([f.value(vertex) for vertex in CLASSES], -1)


def test_classes_are_learned_beside_exemplars(net: FICNN) -> None:
    x, y = digits()
    mistaken = energies(net, x[-500:]).argmin(1) != y[-500:].argmax(1)
    assert mistaken.double().mean() < 0.15


def test_exemplars_are_of_their_class(net: FICNN) -> None:
    x, y = digits()
    found = exemplars(net, CLASSES, PIXELS, GAMMA)
    assert bool(found.converged.all())
    assert bool((energies(net, found.y).argmin(1) == torch.arange(10)).all())
    means = y.T @ x / y.sum(0).unsqueeze(1)
    assert bool((torch.cdist(found.y, means).argmin(1) == torch.arange(10)).all())


def test_gaps_are_true(net: FICNN) -> None:
    net = deepcopy(net).double()
    classes = CLASSES.double()
    rough = exemplars(net, classes, PIXELS, GAMMA, tol=0.1)
    fine = minimize(exemplar_energy(net, classes, GAMMA), PIXELS, 1e-7, max_evaluations=1000)
    assert bool(fine.converged.all())
    assert bool((rough.value - fine.value <= rough.gap + 1e-7).all())
    assert bool((rough.lower_bound <= fine.value + 1e-7).all())


def test_margin_is_that_of_the_definition() -> None:
    x, y = digits()
    x, y = x[:40].double(), y[:40].double()
    torch.manual_seed(0)
    net = FICNN(64, 10, (16,), "relu").double()
    target = torch.stack([x[y[:, k] == 1].mean(0) for k in range(10)])
    value = loss_of(net, 1.0, evaluations=100).margins(x, y)
    assert bool((value >= 0).all())
    f = exemplar_energy(net, CLASSES.double(), GAMMA)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):  # no x violates the margin by more
        other = torch.rand(64, generator=generator, dtype=torch.float64).expand(10, -1)
        violation = f.value(target) - f.value(other) + GAMMA / 2 * (other - target).square().sum(-1)
        assert bool((violation <= value + 1e-6).all())


def test_few_evaluations_bound_the_margin_from_below(net: FICNN) -> None:
    x, y = digits()
    few, many = (loss_of(net, 1.0, n).margins(x[:64], y[:64]) for n in (3, 100))
    assert bool((few <= many + 1e-4).all())


def test_classes_missing_in_a_minibatch_have_no_margin(net: FICNN) -> None:
    x, y = digits()
    rows = y.argmax(1) < 3
    assert loss_of(net, 1.0).margins(x[rows], y[rows]).shape == (3,)

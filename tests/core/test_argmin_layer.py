"""``ArgMin`` as a layer of a model, learned, called with a set of its own, and compiled."""

from __future__ import annotations

import pytest
import torch
from problems import normal
from test_differentiation import BATCH, N, network, tilted
from torch import Tensor, nn

from icnn_rl import FICNN, ArgMin, Box, Simplex, minimize, minimum, quadratic


@pytest.mark.slow
def test_layer_learns_between_two_linear_layers() -> None:
    """The maximum of two numbers, learned as a decision on the simplex."""
    torch.manual_seed(0)
    choice = ArgMin(
        FICNN(4, 3, (8, 8)), Simplex(), transform=lambda f: f + quadratic(1.0, torch.zeros(3))
    )
    model = nn.Sequential(nn.Linear(2, 4), choice, nn.Linear(3, 1))
    x = torch.rand(64, 2) * 2 - 1
    target = x.amax(-1, keepdim=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses = []
    for _ in range(100):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        choice.net.project_()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.1
    assert losses[-1] < 0.01
    assert choice.solution is not None
    assert (choice.solution.gap < 1e-4).all()


def test_layer_takes_a_set_and_a_start_for_one_call() -> None:
    net, x = network(), normal(0, BATCH, 3)
    layer = ArgMin(net, Box(-1.0, 1.0), tol=1e-8)
    y = layer(x)
    assert layer.solution is not None
    assert not layer.solution.y.requires_grad
    evaluations = layer.solution.evaluations
    torch.testing.assert_close(layer(x, start=y.detach()), y)
    assert (layer.solution.evaluations <= evaluations).all()
    upper = (y.detach() - 0.1).clamp(min=-0.9)
    assert (layer(x, over=Box(-1.0, upper)) <= upper).all()
    steps = ArgMin(net, Box(-1.0, 1.0), "unrolled", step=0.5, iterations=400, momentum=0.5)
    torch.testing.assert_close(steps(x), y, rtol=0, atol=1e-4)
    assert set(layer.state_dict()) == {f"net.{name}" for name in net.state_dict()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo asks for it
def test_compiled_models_give_what_others_give() -> None:
    layer = ArgMin(network(), Box(-1.0, 1.0), transform=tilted)
    model = nn.Sequential(nn.Linear(3, 3).double(), layer, nn.Linear(N, 1).double())

    def by_hand(x: Tensor) -> Tensor:
        f = layer.net.condition(model[0](x))
        return f.value(minimize(f, Box(-1.0, 1.0)).y) + minimum(f, Box(-1.0, 1.0)).value

    x, parameters = normal(0, BATCH, 3), list(model.parameters())
    for plain in (model, by_hand):
        results = []
        for function in (plain, torch.compile(plain, backend="eager")):
            result = function(x)
            used = torch.autograd.grad(result.sum(), parameters, allow_unused=True)
            results.append([result, *(g for g in used if g is not None)])
        for eager, compiled in zip(*results, strict=True):
            torch.testing.assert_close(compiled, eager)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(TypeError, match=r"net: expected a module with condition\(x\), got Linear"):
        ArgMin(nn.Linear(2, 2), Simplex())
    with pytest.raises(ValueError, match=r"method: expected one of .*'implicit'.*, got 'envelope'"):
        ArgMin(network(), Simplex(), "envelope")  # type: ignore[arg-type]

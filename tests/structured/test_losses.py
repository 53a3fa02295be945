"""Losses: their values and gradients, against definitions and special cases."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.functions import ConvexFunction, linear, negative_entropy, negative_shannon_entropy
from icnn_rl.networks import FICNN, PICNN
from icnn_rl.networks.normalization import BatchRenorm
from icnn_rl.sets import Box, ConvexSet, Simplex
from icnn_rl.structured.losses import (
    ArgMinError,
    FenchelYoung,
    Hamming,
    Loss,
    Margin,
    MaxMargin,
    SquaredError,
)
from icnn_rl.structured.model import StructuredModel

INPUTS, OUTPUTS, BATCH = 4, 3, 8
GOOD_RIVAL = 1e-2  # share of the loss that the few evaluations of a margin with vertices may miss


class LinearEnergy(nn.Module):
    """f(x, y) = -θ(x)ᵀy."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Linear(INPUTS, OUTPUTS, dtype=torch.float64)

    def condition(self, x: Tensor) -> ConvexFunction:
        return linear(-self.theta(x))

    def project_(self) -> None: ...


def network(activation: str = "softplus", *, full: bool = False) -> PICNN | FICNN:
    torch.manual_seed(0)
    if full:
        return FICNN(INPUTS, OUTPUTS, (8, 8), activation).double()
    return PICNN(INPUTS, OUTPUTS, (8,), (8,), activation).double()


def inputs(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64)


def classes(seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(OUTPUTS, (BATCH,), generator=generator)
    return torch.eye(OUTPUTS, dtype=torch.float64)[codes]


def signs(seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(2, (BATCH, OUTPUTS), generator=generator).double() - 1


def numbers(seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(BATCH, OUTPUTS, generator=generator, dtype=torch.float64) - 1


CASES: dict[str, tuple[ConvexSet, float, Margin, Tensor]] = {
    "simplex": (Simplex(), 0.0, Hamming(0.5), classes()),
    "unit box": (Box(0.0, 1.0), 0.0, Hamming(), (signs() + 1) / 2),
    "continuous": (Box(-2.0, 2.0), 1.0, SquaredError(0.5), numbers()),
}


def definition(model: StructuredModel, margin: Margin, x: Tensor, y: Tensor) -> Tensor:
    """f̃(x, yᵢ) - min { f̃(x, y) - Δ(yᵢ, y) }, the minimum found to a gap of 1e-9."""
    f = model.energy(x)
    rival = model.solve(margin.augmented(model, model.net.condition(x), y), tol=1e-9).y
    return f.value(y) - f.value(rival) + margin.distance(y, rival)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_margin_loss_is_its_definition(case: str, full: bool) -> None:
    over, curvature, margin, y = CASES[case]
    model = StructuredModel(network(full=full), over, curvature, tol=1e-9)
    value = MaxMargin(margin)(model, inputs(), y).value
    exact = definition(model, margin, inputs(), y)
    assert value.min() >= 0
    assert value.max() > 0.1
    assert (value <= exact + 1e-8).all()
    rtol = GOOD_RIVAL if margin.vertices else 0.0
    torch.testing.assert_close(value, exact, atol=1e-8, rtol=rtol)


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_the_margin_loss_is_a_finite_difference(case: str) -> None:
    over, curvature, margin, y = CASES[case]
    net = network()
    model = StructuredModel(net, over, curvature, tol=1e-10)
    MaxMargin(margin)(model, inputs(), y).value.sum().backward()
    rel = 10 * GOOD_RIVAL if margin.vertices else 1e-3  # an error of first order, the loss's is not
    for p in net.parameters():
        direction = torch.randn_like(p) * (p > 0)  # where the projection does not hold it
        slope = 0.0 if p.grad is None else (p.grad * direction).sum().item()
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                p.add_(step * direction)
                ends.append(definition(model, margin, inputs(), y).sum().item())
                p.sub_(step * direction)
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, rel=rel, abs=rel / 10)


@pytest.mark.parametrize("case", CASES)
def test_the_margin_loss_normalises_a_batch_once(case: str) -> None:
    over, curvature, margin, y = CASES[case]
    torch.manual_seed(0)
    net = PICNN(INPUTS, OUTPUTS, (8,), (8,), norm="batch").double()
    model, other = (StructuredModel(n, over, curvature, tol=1e-9) for n in (net, deepcopy(net)))
    loss = MaxMargin(margin)(model, inputs(), y)
    assert loss.active > 0
    assert [int(m.batches) for m in net.modules() if isinstance(m, BatchRenorm)] == [1]
    rtol = GOOD_RIVAL if margin.vertices else 0.0
    exact = definition(other, margin, inputs(), y)
    torch.testing.assert_close(loss.value, exact, atol=1e-8, rtol=rtol)


def test_margins_of_no_size_are_refused() -> None:
    for size in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"scale: expected a number > 0, got {size}"):
            Hamming(size)
        with pytest.raises(ValueError, match=f"gamma: expected a number > 0, got {size}"):
            SquaredError(size)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_loss_is_zero_exactly_where_the_margin_holds(scale: float) -> None:
    net, x, y = LinearEnergy(), inputs(), classes()
    with torch.no_grad():
        net.theta.weight.mul_(scale)
        net.theta.bias.mul_(scale)
        scores = net.theta(x)
        margin = (scores * y).sum(-1) - scores.masked_fill(y > 0, -torch.inf).amax(-1)
    loss = MaxMargin(Hamming(0.5))(StructuredModel(net, Simplex()), x, y)
    assert torch.equal(loss.value == 0, margin >= 1)
    assert loss.active == pytest.approx((margin < 1).double().mean().item())
    torch.testing.assert_close(loss.value.detach(), (1 - margin).relu(), atol=1e-3, rtol=GOOD_RIVAL)
    assert torch.equal(loss.answer[margin >= 1], y[margin >= 1])


def test_a_margin_that_holds_needs_no_backward_pass() -> None:
    net, x = LinearEnergy(), inputs()
    with torch.no_grad():
        net.theta.weight.zero_()
        net.theta.bias.copy_(torch.tensor([10.0, 0.0, 0.0]))
    y = torch.eye(OUTPUTS, dtype=torch.float64)[:1].expand(BATCH, -1)
    loss = MaxMargin(Hamming(0.5))(StructuredModel(net, Simplex()), x, y)
    assert not loss.value.requires_grad
    assert loss.evaluations == 1
    assert loss.active == 0


def test_hamming_on_the_simplex_is_the_share_of_mistaken_classes() -> None:
    y = torch.rand(BATCH, OUTPUTS, dtype=torch.float64)
    y = y / y.sum(-1, keepdim=True)
    torch.testing.assert_close(
        Hamming(0.5).distance(classes(), y), 1 - (classes() * y).sum(-1), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("case", CASES)
def test_the_augmented_energy_is_the_energy_less_the_distance(case: str) -> None:
    over, curvature, margin, target = CASES[case]
    model = StructuredModel(network(), over, curvature)
    x, f = inputs(), model.energy(inputs())
    augmented = margin.augmented(model, model.net.condition(x), target)
    differences = []
    for seed in (3, 4):
        y = over.project(numbers(seed))
        expected = f.value(y) - margin.distance(target, y)
        differences.append(augmented.value(y) - expected)
    torch.testing.assert_close(*differences)  # the same constant at both


def test_half_of_the_curvature_makes_the_loss_of_a_linear_energy_a_squared_error() -> None:
    net, x, y = LinearEnergy(), inputs(), numbers()
    model = StructuredModel(net, Box(-10.0, 10.0), 2.0, tol=1e-10)
    answer = model.infer(x).y
    torch.testing.assert_close(answer, net.theta(x).detach() / 2, atol=1e-6, rtol=0)
    loss = MaxMargin(SquaredError(1.0))(model, x, y)
    expected = 2 * (answer - y).square().sum(-1)
    torch.testing.assert_close(loss.value.detach(), expected, atol=1e-5, rtol=0)


def test_fenchel_young_is_the_cross_entropy_for_a_linear_energy() -> None:
    net, x, y = LinearEnergy(), inputs(), classes()
    loss = FenchelYoung(negative_shannon_entropy(1.0))
    value = loss(StructuredModel(net, Simplex(), tol=1e-9), x, y).value
    expected = F.cross_entropy(net.theta(x), y, reduction="none")
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=0)
    _same_gradient(net, value, expected)


def test_fenchel_young_is_the_binary_cross_entropy_for_a_linear_energy() -> None:
    net, x, y = LinearEnergy(), inputs(), signs()
    loss = FenchelYoung(negative_entropy(1.0))
    value = loss(StructuredModel(net, Box(-1.0, 1.0), tol=1e-9), x, y).value
    logits = 2 * net.theta(x)  # y is in [-1, 1]
    expected = F.binary_cross_entropy_with_logits(logits, (y + 1) / 2, reduction="none").sum(-1)
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=0)
    _same_gradient(net, value, expected)


def _same_gradient(net: LinearEnergy, value: Tensor, expected: Tensor) -> None:
    parameters = list(net.parameters())
    ours, theirs = (torch.autograd.grad(t.sum(), parameters) for t in (value, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("loss", [ArgMinError(), ArgMinError(steps=100, step=0.3)])
def test_argmin_errors_differentiate_the_answer(loss: ArgMinError) -> None:
    net, x, y = network(), inputs(), numbers()
    model = StructuredModel(net, Box(-2.0, 2.0), 1.0, tol=1e-10)
    value = loss(model, x, y).value
    expected = (model.infer(x).y - y).square().sum(-1) / 2
    torch.testing.assert_close(value.detach(), expected, atol=1e-6, rtol=0)
    value.sum().backward()
    bias = net.bias[-1]
    assert bias.grad is not None
    k = int(bias.grad.abs().argmax())
    ends = []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            bias[..., k] += step
            ends.append((model.infer(x).y - y).square().sum().item() / 2)
            bias[..., k] -= step
    assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(bias.grad[..., k].item(), rel=1e-3)


def test_unrolled_steps_begin_at_the_centre_of_the_set() -> None:
    model = StructuredModel(network(), Box(-2.0, 2.0), 1.0)
    loss = ArgMinError(steps=1, step=0.1)
    x, y = inputs(), numbers()
    assert torch.equal(loss(model, x, y).answer, loss(model, x, y, start=y).answer)


@pytest.mark.parametrize(
    "loss",
    [MaxMargin(Hamming(0.5)), FenchelYoung(negative_shannon_entropy(1.0)), ArgMinError()],
)
def test_an_energy_that_is_not_finite_is_a_floating_point_error(loss: Loss) -> None:
    net = network()
    with torch.no_grad():
        net.path.raw_y[0].fill_(torch.nan)
    model = StructuredModel(net, Simplex(), 1.0)
    with pytest.raises(FloatingPointError, match="expected finite values"):
        loss(model, inputs(), classes())

"""Layer and batch renormalisation of an ensemble, and two batches normalised as one."""

from __future__ import annotations

import pytest
import torch
from sb3_contrib.common.torch_layers import BatchRenorm1d

from icnn_rl import PICNN
from icnn_rl.networks import QuadraticNetwork
from icnn_rl.networks.normalization import WARM_UP_BATCHES, BatchRenorm, LayerNorm, normalization

MEMBERS, WIDTH = 3, 5


def layers(seed: int, batch: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(MEMBERS, batch, WIDTH, dtype=torch.float64, generator=generator)
    return 2 * drawn + torch.arange(WIDTH)


def test_a_layer_norm_follows_its_definition_with_the_scale_and_shift_of_each_member() -> None:
    norm, x = LayerNorm(MEMBERS, WIDTH).double(), layers(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        norm.scale.normal_(generator=generator)
        norm.shift.normal_(generator=generator)
    deviation = (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = norm.scale * (x - x.mean(-1, keepdim=True)) / deviation + norm.shift
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("batches", [0, WARM_UP_BATCHES])
@pytest.mark.parametrize("training", [False, True])
def test_each_member_is_normalised_as_by_sb3_contrib(batches: int, training: bool) -> None:
    ours, x = BatchRenorm(MEMBERS, WIDTH).double().train(training), layers(0, 4000)
    theirs = [
        BatchRenorm1d(WIDTH, warmup_steps=WARM_UP_BATCHES - 1).double() for _ in range(MEMBERS)
    ]
    ours.batches.fill_(batches)
    with torch.no_grad():
        for e, member in enumerate(theirs):
            member.train(training).steps.fill_(batches)
            ours.scale[e, 0] = member.scale.copy_(torch.linspace(0.5, 2, WIDTH) + e)
            ours.shift[e, 0] = member.bias.copy_(torch.linspace(-1, 1, WIDTH))
            ours.mean[e, 0] = member.ra_mean.copy_(torch.linspace(-20, 9, WIDTH))
            ours.variance[e, 0] = member.ra_var.copy_(torch.linspace(0.2, 60, WIDTH))
    found = ours(x)
    for e, member in enumerate(theirs):
        # The two differ in the divisor of a variance, by one part in 4000.
        torch.testing.assert_close(found[e], member(x[e]), rtol=2e-3, atol=2e-3)


def test_the_running_averages_begin_as_means_of_all_batches() -> None:
    norm = BatchRenorm(MEMBERS, WIDTH).double()
    batches = [layers(seed) for seed in range(20)]
    for x in batches:
        norm(x)
    means = torch.stack([x.mean(1, keepdim=True) for x in batches])
    torch.testing.assert_close(norm.mean, means.mean(0))


def test_after_the_warm_up_the_running_averages_count() -> None:
    norm = BatchRenorm(MEMBERS, WIDTH).double()
    for seed in range(20):
        norm(layers(seed))
    x = layers(0)
    assert not torch.allclose(norm(x), norm.eval()(x), atol=0.05)
    norm.batches.fill_(WARM_UP_BATCHES)
    expected = norm.eval()(x)
    torch.testing.assert_close(norm.train()(x), expected)


def test_the_averages_are_constants_in_the_gradient() -> None:
    norm, x = BatchRenorm(MEMBERS, WIDTH).double(), layers(0).requires_grad_()
    norm(layers(1))
    norm.batches.fill_(WARM_UP_BATCHES)
    weights = layers(2)
    (found,) = torch.autograd.grad((norm(x) * weights).sum(), x)
    variance, mean = torch.var_mean(x, 1, keepdim=True, correction=0)
    plain = (x - mean) / (variance + 1e-3).sqrt()
    ratio = ((variance + 1e-3) / (norm.variance + 1e-3)).sqrt().detach()
    (expected,) = torch.autograd.grad((ratio * plain * weights).sum(), x)
    # The averages have moved by a hundredth of the batch since.
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", [PICNN, QuadraticNetwork])
def test_a_network_is_its_own_in_evaluation(kind: type) -> None:
    torch.manual_seed(0)
    net = kind(4, 2, (6, 5), ensemble=MEMBERS, norm="batch").double()
    x, y = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    together = net(x, y)
    assert not torch.allclose(net(x[:3], y[:3]), together[:, :3])
    together = net.eval()(x, y)
    torch.testing.assert_close(net(x[:3], y[:3]), together[:, :3])


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("kind", [PICNN, QuadraticNetwork])
def test_a_network_starts_anew_with_its_normalisation(kind: type, norm: str) -> None:
    torch.manual_seed(0)
    net = kind(4, 2, (6, 5), ensemble=MEMBERS, norm=norm)
    fresh = {k: v.clone() for k, v in net.norm.state_dict().items()}
    with torch.no_grad():
        net.condition(torch.randn(7, 4))
        for p in net.parameters():
            p.add_(1.0)
    net.reset_parameters()
    assert fresh.keys() == net.norm.state_dict().keys()
    assert all(torch.equal(v, fresh[k]) for k, v in net.norm.state_dict().items())


def test_an_unknown_norm_is_named() -> None:
    with pytest.raises(ValueError, match=r"norm: expected one of .*, got 'instance'"):
        normalization("instance", MEMBERS, WIDTH)  # type: ignore[arg-type]

"""Networks: convex in y whatever their weights, with derivatives in closed form."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from autograd_reference import gradient, hessian
from hypothesis import given
from hypothesis import strategies as st
from problems import SEEDS, Architecture, architectures, each_value, normal
from torch import Tensor

from icnn_rl import FICNN, PICNN
from icnn_rl.networks import QuadraticNetwork

BATCH = 3
Network = PICNN | FICNN


def networks() -> dict[str, Network]:
    torch.manual_seed(0)
    return {
        "PICNN": PICNN(3, 2, (8,), (6, 5)),
        "PICNN-ensemble": PICNN(
            3, 2, (8, 7), (6, 5), "relu", ensemble=2, norm="layer", nonnegativity="softplus"
        ),
        "FICNN": FICNN(3, 2, (6, 5), "elu"),
        "FICNN-ensemble": FICNN(3, 2, (6,), "leaky_relu", ensemble=2, nonnegativity="softplus"),
    }


each_network = pytest.mark.parametrize("net", networks().values(), ids=networks())


def assert_convex(values: Tensor, between: Tensor, share: Tensor) -> None:
    """Jensen's inequality for values at two ends, ``(2, …)``, and in between."""
    chord = share * values[0] + (1 - share) * values[1]
    assert (between <= chord + 1e-12 * (1 + values.abs().amax())).all()


@given(architectures(), SEEDS, st.integers(0, 3), st.sampled_from([0.1, 1.0, 5.0]))
def test_jensen(architecture: Architecture, seed: int, steps: int, scale: float) -> None:
    net = architecture.build(seed, steps=steps, scale=scale)
    f = net.condition(normal(seed, BATCH, architecture.x_dim))
    ends = normal(seed + 1, 2, 60, *f.batch_shape, f.dim)
    ends *= normal(seed + 2, 2, 60, *f.batch_shape, 1).exp()
    share = torch.sigmoid(normal(seed + 3, 60, *f.batch_shape))
    between = share[..., None] * ends[0] + (1 - share[..., None]) * ends[1]
    with torch.no_grad():
        values = torch.stack([each_value(f, side) for side in ends])
        assert_convex(values, each_value(f, between), share)


@given(architectures(), SEEDS, st.integers(0, 3))
def test_jensen_jointly_in_y_and_x(architecture: Architecture, seed: int, steps: int) -> None:
    net = replace(architecture, kind=FICNN).build(seed, steps=steps)
    ends = normal(seed, 2, 100, net.y_dim + net.x_dim)
    share = torch.sigmoid(normal(seed + 1, 100))
    between = share[:, None] * ends[0] + (1 - share[:, None]) * ends[1]
    f = net.function()
    with torch.no_grad():
        values = torch.stack([f.value(side) for side in ends])
        assert_convex(values, f.value(between), share)
        y, x = ends[0].split([net.y_dim, net.x_dim], -1)
        torch.testing.assert_close(net(x, y), values[0])


@given(architectures(), SEEDS)
def test_either_input_can_be_fixed(architecture: Architecture, seed: int) -> None:
    net = replace(architecture, kind=FICNN).build(seed)
    x, y = normal(seed, BATCH, net.x_dim), normal(seed + 1, BATCH, net.y_dim)
    of_x = net.condition(y=y)
    assert of_x.dim == net.x_dim
    torch.testing.assert_close(of_x.value(x), net.condition(x).value(y))
    with pytest.raises(ValueError, match="expected one of them"):
        net.condition(x, y=y)


@given(architectures(), SEEDS, st.integers(0, 3))
def test_gradient_is_that_of_autograd(architecture: Architecture, seed: int, steps: int) -> None:
    net = architecture.build(seed, steps=steps)
    f = net.condition(normal(seed, BATCH, architecture.x_dim))
    y = normal(seed + 1, *f.batch_shape, f.dim)
    value, slope = f.value_and_gradient(y)
    assert value.shape == f.batch_shape
    torch.testing.assert_close(value, f.value(y))
    torch.testing.assert_close(slope, gradient(f, y), rtol=1e-9, atol=1e-9)


@given(architectures(activations=("softplus", "elu")), SEEDS, st.integers(0, 3))
def test_hessian_is_that_of_autograd(architecture: Architecture, seed: int, steps: int) -> None:
    net = architecture.build(seed, steps=steps)
    f = net.condition(normal(seed, BATCH, architecture.x_dim))
    y = normal(seed + 1, *f.batch_shape, f.dim)
    curvature = f.hessian(y)
    torch.testing.assert_close(curvature, hessian(f, y), rtol=1e-9, atol=1e-9)
    smallest = torch.linalg.eigvalsh(curvature).amin()
    assert smallest >= -1e-12 * (1 + curvature.abs().amax())


@given(architectures(activations=("relu", "leaky_relu"), ensembles=st.none()), SEEDS)
def test_a_kink_gives_a_subgradient(architecture: Architecture, seed: int) -> None:
    net = architecture.build(seed)
    with torch.no_grad():
        for bias in net.bias:
            bias.zero_()
        f = net.condition(torch.zeros(1, architecture.x_dim, dtype=torch.float64))
        at_kink = torch.zeros(1, f.dim, dtype=torch.float64)
        value, slope = f.value_and_gradient(at_kink)
        y = normal(seed, 200, f.dim)
        assert (f.value(y) >= value + y @ slope[0] - 1e-12).all()


@given(architectures(), SEEDS)
def test_an_ensemble_is_its_members(architecture: Architecture, seed: int) -> None:
    members = 2
    net = replace(architecture, ensemble=members).build(seed, steps=1)
    alone = replace(architecture, ensemble=None).build(seed)
    x = normal(seed, BATCH, architecture.x_dim)
    y = normal(seed + 1, BATCH, architecture.y_dim)
    together = net(x, y)
    assert together.shape == (members, BATCH)
    assert net.condition(x).batch_shape == (members, BATCH)
    for e in range(members):
        alone.load_state_dict({k: v[e : e + 1] for k, v in net.state_dict().items()})
        torch.testing.assert_close(alone(x, y), together[e])


@given(architectures(), SEEDS)
def test_points_broadcast_over_the_batch(architecture: Architecture, seed: int) -> None:
    f = architecture.build(seed).condition(normal(seed, BATCH, architecture.x_dim))
    one = normal(seed + 1, f.dim)
    every = one.expand(*f.batch_shape, f.dim)
    value, slope = f.value_and_gradient(one)
    assert value.shape == f.batch_shape
    torch.testing.assert_close(value, f.value(every))
    torch.testing.assert_close(slope, f.value_and_gradient(every)[1])


@given(architectures(), SEEDS)
def test_take_selects_samples(architecture: Architecture, seed: int) -> None:
    f = architecture.build(seed).condition(normal(seed, 5, architecture.x_dim))
    index = torch.tensor([3, 0, 3])
    y = normal(seed + 1, *f.batch_shape, f.dim)
    part = f.take(index)
    assert part.batch_shape == (*f.batch_shape[:-1], 3)
    torch.testing.assert_close(part.value(y[..., index, :]), f.value(y)[..., index])


@each_network
def test_the_context_path_runs_once(net: Network) -> None:
    net = copy.deepcopy(net)
    x, y = torch.ones(2, 3), torch.ones(2, 2)
    f = net.condition(x)
    before = f.value(y)
    with torch.no_grad():
        x.zero_()
        for p in [*net.bias, *getattr(net, "weight", ())]:
            p.normal_()
    assert torch.equal(f.value(y), before)
    assert not torch.equal(net(x, y), before)


@pytest.mark.parametrize("reads", ["aligned", "last"])
@pytest.mark.parametrize("depths", [(0, 1), (0, 3), (1, 3), (2, 2), (4, 1), (3, 2)])
def test_every_parameter_and_input_is_used(depths: tuple[int, int], reads: str) -> None:
    torch.manual_seed(0)
    context, convex = depths
    widths = (16,) * context, (16,) * convex
    net = PICNN(3, 2, *widths, ensemble=2, reads=reads, norm="layer")
    x, y = torch.randn(50, 3, requires_grad=True), torch.randn(50, 2, requires_grad=True)
    net(x, y).sum().backward()
    for name, p in [*net.named_parameters(), ("x", x), ("y", y)]:
        assert p.grad is not None, name
        assert (p.grad != 0).any(), name


def test_all_convex_layers_read_the_last_level_if_told_to() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3)
    for reads, first_layer in (("aligned", False), ("last", True)):
        net = PICNN(3, 2, (8, 7), (6,), reads=reads)
        before = net.condition(x)
        with torch.no_grad():
            net.weight[1][..., :7].add_(1.0)  # on the way to u₂, and to nothing else
        after = net.condition(x)
        changed = [(a != b).any() for a, b in zip(after.bias, before.bias, strict=True)]
        assert changed == [first_layer, True]


@each_network
def test_projection_puts_weights_back_into_the_cone(net: Network) -> None:
    net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1.0)
    for _ in range(5):
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        before = [p.clone() for p in net.parameters()]
        net.project_()
        assert all((w >= 0).all() for w in net.path.weight_z())
        if net.path.nonnegativity == "softplus":
            assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_softplus_parametrisation_is_never_negative(dtype: torch.dtype) -> None:
    net = FICNN(0, 2, convex=(4, 4), nonnegativity="softplus").to(dtype)
    for raw in (-1e30, -1e3, -50.0, -1.0, 0.0, 1.0, 1e3):
        with torch.no_grad():
            for w in net.path.raw_z:
                w.fill_(raw)
        for w in net.path.weight_z():
            assert (w >= 0).all()
            assert w.isfinite().all()


def test_a_softplus_weight_starts_where_the_projected_one_does() -> None:
    torch.manual_seed(0)
    projected = FICNN(0, 2, convex=(50, 50))
    torch.manual_seed(0)
    softplus = FICNN(0, 2, convex=(50, 50), nonnegativity="softplus")
    for a, b in zip(projected.path.weight_z(), softplus.path.weight_z(), strict=True):
        torch.testing.assert_close(a.data, b.data)


@each_network
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=["deepcopy", "pickle"],
)
def test_copies_are_equal_and_apart(net: Network, duplicate: object) -> None:
    x, y = torch.ones(2, 3), torch.ones(2, 2)
    twin = duplicate(net)  # type: ignore[operator]
    assert torch.equal(twin(x, y), net(x, y))
    before = net(x, y)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1.0)
    assert torch.equal(net(x, y), before)


@each_network
def test_state_dict_round_trip(net: Network) -> None:
    other = copy.deepcopy(net)
    other.reset_parameters()
    x, y = torch.ones(2, 3), torch.ones(2, 2)
    assert not torch.equal(other(x, y), net(x, y))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x, y), net(x, y))


def test_weights_of_the_other_parametrisation_are_refused() -> None:
    torch.manual_seed(0)
    state = FICNN(0, 2, convex=(50, 50), nonnegativity="softplus").state_dict()
    net = FICNN(0, 2, convex=(50, 50))
    before = copy.deepcopy(list(net.path.raw_z))
    with pytest.raises(ValueError, match=r"raw_z: expected weights >= 0 for .*'projection', got -"):
        net.load_state_dict(state)
    assert all(torch.equal(*pair) for pair in zip(net.path.raw_z, before, strict=True))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (FICNN, {"x_dim": -1, "y_dim": 0, "convex": (4, 0), "ensemble": 0}),
        (PICNN, {"x_dim": 0, "y_dim": 0, "context": (0,), "convex": (4, 0), "ensemble": 0}),
        (QuadraticNetwork, {"x_dim": 0, "y_dim": 0, "context": (4, 0), "ensemble": 0}),
    ],
)
def test_sizes_too_small_are_refused(kind: type, arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        expected = "a tuple of integers" if isinstance(value, tuple) else "an integer"
        message = f"{name}: expected {expected} >= {int(value != -1)}, got {value!r}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            kind(**{"x_dim": 1, "y_dim": 1, name: value})


@pytest.mark.parametrize("widths", [8, (8.0,), "88"])
def test_widths_that_are_no_integers_are_refused(widths: Any) -> None:
    with pytest.raises(ValueError, match=r"^convex: expected a tuple of integers >= 1, got "):
        FICNN(0, 2, widths)
    with pytest.raises(ValueError, match=r"^context: expected a tuple of integers >= 1, got "):
        PICNN(1, 2, widths)


@each_network
def test_an_empty_batch_gives_no_values(net: Network) -> None:
    f = net.condition(torch.empty(0, 3))
    value, slope = f.value_and_gradient(torch.empty(*f.batch_shape, 2))
    assert value.shape == f.batch_shape
    assert slope.shape == (*f.batch_shape, 2)
    assert value.numel() == 0

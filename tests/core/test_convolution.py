"""Networks over images: convex in y whatever their weights, with derivatives in closed form."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from autograd_reference import gradient
from hypothesis import given
from hypothesis import strategies as st
from problems import SEEDS, normal
from torch import Tensor, nn

from icnn_rl import (
    PICNN,
    AveragePool,
    Conv,
    ConvexFunction,
    ConvFICNN,
    ConvPICNN,
    Dense,
    Encoder,
    MaxPool,
)
from icnn_rl.networks.checks import Shape

IMAGE = (2, 12, 8)
DEEP = (
    Conv(4, 3, padding=1),
    MaxPool(2),
    Conv(5, 3, padding=1),
    AveragePool(2),
    Conv(3, 2),
    Dense(6),
    Dense(4),
)
SMALL = (Conv(4, 3), MaxPool(2), Conv(5, 2), MaxPool(2), Dense(6))
LENET = (Conv(20, 5), MaxPool(2), Conv(50, 5), MaxPool(2), Dense(500))
Network = ConvFICNN | ConvPICNN | PICNN


def networks() -> dict[str, Network]:
    """Networks over x and y of various shapes, away from their initial weights."""
    torch.manual_seed(0)
    same = (Conv(4, 3, padding=1), Conv(4, 3, padding=1))
    layers = (Conv(4, 3), MaxPool(2), Conv(5, 2, stride=2), Dense(7))
    encoder = Encoder(IMAGE, layers, norm="batch")
    nets = {
        "FICNN of an image and a vector": ConvFICNN(IMAGE, (3,), DEEP),
        "FICNN of a vector and an image": ConvFICNN((3,), IMAGE, DEEP, "leaky_relu"),
        "FICNN of two images": ConvFICNN(
            (1, 6, 4), IMAGE, (Conv(4, 3, stride=2), Dense(5)), "elu", nonnegativity="softplus"
        ),
        "FICNN of features of an image": ConvFICNN(IMAGE, (3,), DEEP, y_from=5, norm="batch"),
        "FICNN of features of a vector": ConvFICNN(
            (7,), (3,), (Dense(6), Dense(5), Dense(4)), "leaky_relu", y_from=-2
        ),
        "PICNN of two images": ConvPICNN(IMAGE, (1, 12, 8), same, DEEP, "softplus"),
        "PICNN with a dense context": ConvPICNN(
            IMAGE, IMAGE, (Conv(3, 3), Dense(5)), DEEP, nonnegativity="softplus"
        ),
        "PICNN of a vector and an image": ConvPICNN((3,), IMAGE, (Dense(5),), same, "leaky_relu"),
        "PICNN of an image and a vector": PICNN(7, 3, (), (6, 5), "relu", encoder=encoder),
    }
    for net in nets.values():
        net.double()
        perturb(net)
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean.uniform_(-0.5, 0.5)
                norm.running_var.uniform_(0.5, 2.0)
        net.eval()
    return nets


def perturb(net: Network) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    net.project_()


def x_shape(net: Network) -> Shape:
    if isinstance(net, ConvFICNN):
        return net.x_shape
    assert isinstance(net.encoder, Encoder)
    return net.encoder.shape


def functions(net: Network, seed: int = 0, batch: int = 3) -> dict[str, ConvexFunction]:
    """What a network gives when x, y or nothing is fixed."""
    cases = {"x": net.condition(normal(seed, batch, *x_shape(net)))}
    if isinstance(net, ConvFICNN):
        cases["y"] = net.condition(y=normal(seed, batch, *net.y_shape))
        cases["nothing"] = net.function()
    return cases


each_network = pytest.mark.parametrize("net", networks().values(), ids=networks())
each_function = pytest.mark.parametrize(
    "f",
    [f for net in networks().values() for f in functions(net).values()],
    ids=[f"{name}, {fixed} fixed" for name, net in networks().items() for fixed in functions(net)],
)


@each_function
def test_gradient_is_that_of_autograd(f: ConvexFunction) -> None:
    y = normal(1, *f.batch_shape, f.dim)
    with torch.no_grad():
        value, slope = f.value_and_gradient(y)
    assert value.shape == f.batch_shape
    torch.testing.assert_close(value, f.value(y))
    torch.testing.assert_close(slope, gradient(f, y), rtol=1e-9, atol=1e-12)
    assert (slope != 0).any(-1).all()


def below_chords(f: ConvexFunction, seed: int) -> Tensor:
    """How far midpoints of random chords lie below them, relative to the largest value."""
    ends = normal(seed, 2, 50, *f.batch_shape, f.dim)
    ends *= normal(seed + 1, 50, *f.batch_shape, 1).exp()
    with torch.no_grad():
        values = torch.stack([torch.stack([f.value(y) for y in side]) for side in ends])
        between = torch.stack([f.value(y) for y in ends.mean(0)])
    return (values.mean(0) - between) / (1 + values.abs().amax())


@each_function
def test_midpoints_lie_below_chords(f: ConvexFunction) -> None:
    distance = below_chords(f, 2)
    assert (distance >= -1e-12).all()
    assert (distance > 1e-4).any()  # it is no affine function


@given(SEEDS, st.sampled_from(["projection", "softplus"]))
def test_convex_after_any_step_of_an_optimizer(seed: int, nonnegativity: str) -> None:
    torch.manual_seed(seed)
    layers = (Conv(3, 3), MaxPool(2), Dense(4))
    net = ConvPICNN((1, 6, 6), (1, 6, 6), layers, layers, nonnegativity=nonnegativity).double()
    for _ in range(3):
        perturb(net)
    assert all((w >= 0).all() for w in net.path.weight_z())
    assert (below_chords(net.condition(normal(seed, 2, 1, 6, 6)), seed) >= -1e-12).all()


@each_network
def test_gradients_reach_every_parameter_and_x(net: Network) -> None:
    x = normal(4, 20, *x_shape(net)).requires_grad_()
    f = net.condition(x)
    f.value(normal(5, 20, f.dim)).square().sum().backward()
    for name, p in [*net.named_parameters(), ("x", x)]:
        assert p.grad is not None, name
        assert (p.grad != 0).any(), name
    net.zero_grad()


@each_network
def test_what_is_fixed_does_not_matter(net: Network) -> None:
    x = normal(6, 3, *x_shape(net))
    f = net.condition(x)
    y = normal(7, 3, f.dim)
    torch.testing.assert_close(net(x, y), f.value(y))
    if isinstance(net, ConvFICNN):
        of_x = net.condition(y=y.view(3, *net.y_shape))
        torch.testing.assert_close(of_x.value(x.flatten(1)), f.value(y))
        joint = torch.cat([y, x.flatten(1)], -1)
        torch.testing.assert_close(net.function().value(joint), f.value(y))


def test_without_skips_it_is_the_ordinary_network() -> None:
    torch.manual_seed(0)
    net = ConvFICNN((1, 28, 28), (10,), LENET).double()
    twin = Encoder((1, 28, 28), LENET).double()
    head = nn.Linear(500, 1).double()
    with torch.no_grad():
        for w in [*net.weight_y, *net.weight_x[1:]]:
            w.zero_()
        weights = [net.weight_x[0], *net.path.weight_z()]
        for module, w, b in zip([*twin.maps, head], weights, net.bias, strict=True):
            module.weight.copy_(w)
            module.bias.copy_(b.flatten())
        x = normal(0, 2, 1, 28, 28)
        torch.testing.assert_close(net(x, torch.zeros(2, 10).double()), head(twin(x)).squeeze(-1))


def test_an_encoder_is_the_ordinary_normalised_network() -> None:
    torch.manual_seed(0)
    net = Encoder((1, 12, 12), SMALL, norm="batch").double()
    conv, deep, dense = net.maps
    before, between, after = net.norms
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    twin = nn.Sequential(
        *(conv, copy.deepcopy(before), relu, pool),
        *(deep, copy.deepcopy(between), relu, pool, nn.Flatten()),
        *(dense, copy.deepcopy(after), relu),
    )
    for x in normal(0, 5, 8, 1, 12, 12):  # batches
        torch.testing.assert_close(net(x), twin(x))
    torch.testing.assert_close(net.eval()(x), twin.eval()(x))


def test_features_of_x_are_those_of_the_ordinary_normalised_network() -> None:
    torch.manual_seed(0)
    net = ConvFICNN((1, 12, 12), (3,), SMALL, y_from=-1, norm="batch").double()
    perturb(net)
    with torch.no_grad():
        for w in [*net.weight_y, *net.weight_x[1:]]:
            w.zero_()
    weights = [net.weight_x[0], *net.path.weight_z()]
    maps: list[nn.Module] = [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 2), nn.Linear(20, 6)]
    maps = [m.double().requires_grad_(False) for m in maps]
    for module, w in zip(maps, weights[:-1], strict=True):
        module.weight.copy_(w)
        module.bias.zero_()
    norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(5), nn.BatchNorm1d(6)]
    for norm, b in zip(norms, net.bias, strict=False):
        norm.double().bias.data.copy_(b.flatten())
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    twin = nn.Sequential(
        *(maps[0], norms[0], relu, pool),
        *(maps[1], norms[1], relu, pool, nn.Flatten()),
        *(maps[2], norms[2], relu),
    )
    for x in normal(0, 5, 8, 1, 12, 12):  # batches
        expected = twin(x) @ weights[-1][0] + net.bias[-1]
        torch.testing.assert_close(net(x, torch.zeros(8, 3).double()), expected.view(-1))
    net.eval()
    twin.eval()
    expected = twin(x) @ weights[-1][0] + net.bias[-1]
    joint = torch.cat([torch.zeros(8, 3).double(), x.flatten(1)], -1)
    torch.testing.assert_close(net.function().value(joint), expected.view(-1))


def test_dropout_leaves_out_dense_units_and_leaves_the_rest_convex() -> None:
    torch.manual_seed(0)
    layers = (Conv(4, 3), Dense(40), Dense(40))
    net = ConvFICNN((1, 12, 12), (3,), layers, y_from=-1, dropout=0.5).double()
    x, y = normal(0, 400, 1, 12, 12)[:1].expand(400, 1, 12, 12), normal(1, 3)
    f = net.condition(x)
    sampled = f.value(y)
    assert len(sampled.unique()) > 300  # each sample has its own network
    torch.testing.assert_close(f.value(y), sampled)  # and keeps it
    assert (below_chords(f, 2) >= -1e-12).all()
    assert len(net.eval().condition(x).value(y).unique()) == 1
    # In the last layer, which is linear in what it reads, the mean over samples is the whole.
    with torch.no_grad():
        net.path.raw_z[1].zero_()
    whole = net.eval()(x, y.expand(400, 3)).mean()
    mean, deviation = (g(net.train()(x, y.expand(400, 3))) for g in (torch.mean, torch.std))
    assert abs(mean - whole) < 4 * deviation / 400**0.5


def test_lenet_has_as_many_parameters_as_on_the_poster() -> None:
    net = ConvFICNN((1, 28, 28), (10,), LENET)
    assert sum(p.numel() for p in net.parameters()) == 826_315  # 826k there


@each_function
def test_take_selects_samples(f: ConvexFunction) -> None:
    if not f.batch_shape:
        return
    index = torch.tensor([2, 0, 2, 1])
    y = normal(8, 4, f.dim)
    part = f.take(index)
    assert part.batch_shape == (4,)
    for i, sample in enumerate(index):
        alone = f.take(sample.view(1))
        torch.testing.assert_close(part.value(y)[i], alone.value(y[i])[0])
        torch.testing.assert_close(
            part.value_and_gradient(y)[1][i], alone.value_and_gradient(y[i])[1][0]
        )


@each_function
def test_points_broadcast_over_the_batch(f: ConvexFunction) -> None:
    one = normal(9, f.dim)
    value, slope = f.value_and_gradient(one)
    assert value.shape == f.batch_shape
    every = f.value_and_gradient(one.expand(*f.batch_shape, f.dim))
    torch.testing.assert_close((value, slope), every)


@each_network
@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(net: Network, batch: int) -> None:
    f = net.condition(normal(0, batch, *x_shape(net)))
    value, slope = f.value_and_gradient(normal(1, batch, f.dim))
    assert f.batch_shape == value.shape == (batch,)
    assert slope.shape == (batch, f.dim)


@each_network
def test_copies_are_equal_and_apart(net: Network) -> None:
    x = normal(0, 2, *x_shape(net))
    y = normal(1, 2, net.condition(x).dim)
    before = net(x, y)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(x, y), before)
        twin.reset_parameters()
        assert not torch.equal(twin(x, y), before)
        twin.load_state_dict(net.state_dict())
        assert torch.equal(twin(x, y), before)


@each_network
def test_first_values_are_of_order_one(net: Network) -> None:
    torch.manual_seed(0)
    net = copy.deepcopy(net)
    net.reset_parameters()
    f = net.condition(normal(0, 50, *x_shape(net)))
    value, slope = f.value_and_gradient(normal(1, 50, f.dim))
    assert value.abs().amax() < 10
    assert 1e-3 < slope.norm(dim=-1).mean() < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x_shape": (3,)}, "expected an image"),
        (
            {"x_shape": (3, 8)},
            "^x_shape: expected integers .channels, height, width. or .n,., each",
        ),
        ({"x_shape": (1, 0, 8)}, r"^x_shape: expected .* >= 1; got \(1, 0, 8\)"),
        ({"y_shape": (0,)}, r"^y_shape: expected .* >= 1; got \(0,\)"),
        ({"y_from": 1}, "y_from: expected the index of a Conv or Dense in layers, got 1"),
        ({"y_from": -2}, "y_from"),
        ({"layers": (Conv(2, 3), MaxPool(2)), "y_from": -1}, "y_from"),
        ({"norm": "layer"}, "norm"),
        ({"layers": (MaxPool(2),)}, "Conv or Dense first"),
        ({"layers": ()}, "Conv or Dense first"),
        ({"layers": (Conv(3, 9),)}, "larger image"),
        ({"layers": (Conv(3, 2), MaxPool(2))}, "divides"),
        ({"layers": (Dense(3), Conv(3, 2))}, "expected an image"),
        ({"activation": "tanh"}, "activation"),
        ({"nonnegativity": "clip"}, "nonnegativity"),
    ],
)
def test_bad_networks_are_refused(arguments: dict[str, object], message: str) -> None:
    good = {"x_shape": (1, 8, 8), "y_shape": (4,), "layers": (Conv(2, 3),)}
    ConvFICNN(**good)
    with pytest.raises(ValueError, match=message):
        ConvFICNN(**(good | arguments))


def test_wrong_shapes_are_refused() -> None:
    net = ConvFICNN((1, 8, 8), (4,), (Conv(2, 3),))
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, 1, 8, 8\), got \(2, 8, 8\)"):
        net.condition(torch.zeros(2, 8, 8))
    with pytest.raises(ValueError, match="y: expected shape"):
        net.condition(y=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="expected one of them"):
        net.condition(torch.zeros(2, 1, 8, 8), y=torch.zeros(2, 4))
    with pytest.raises(ValueError, match="y: expected a last axis of 4"):
        net.condition(torch.zeros(2, 1, 8, 8)).value(torch.zeros(2, 5))
    for y_shape in ((4,), (1, 8, 0)):
        with pytest.raises(ValueError, match=r"^y_shape: expected .*\(channels, height, width\), "):
            ConvPICNN((1, 8, 8), y_shape, (), (Conv(2, 3),))
    with pytest.raises(ValueError, match=r"^x_shape: expected .* or \(n,\), each >= 1; got \(0,\)"):
        ConvPICNN((0,), (1, 8, 8), (), (Conv(2, 3),))
    with pytest.raises(ValueError, match=r"^shape: expected .* got \(0,\)"):
        Encoder((0,), (Dense(3),))
    with pytest.raises(ValueError, match="Conv or Dense first"):
        Encoder((1, 8, 8), (MaxPool(2),))
    with pytest.raises(ValueError, match="norm: expected one of"):
        Encoder((1, 8, 8), (Dense(3),), norm="layer")

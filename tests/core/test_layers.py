"""Layers, skips and pools: each map agrees with its adjoint and its matrix."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import SEEDS, normal

from icnn_rl import AveragePool, Conv, Dense, MaxPool
from icnn_rl.networks.checks import Shape
from icnn_rl.networks.convolution import Skip
from icnn_rl.networks.layers import Layer

SIDES = st.integers(1, 4)
CONVOLUTIONS = st.builds(Conv, SIDES, SIDES, stride=st.integers(1, 3), padding=st.integers(0, 2))
IMAGES = st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9))


@given(CONVOLUTIONS | st.builds(Dense, SIDES), IMAGES, SEEDS)
def test_a_layer_its_adjoint_and_its_matrix(layer: Conv | Dense, shape: Shape, seed: int) -> None:
    z, weight = normal(seed, 2, *shape), normal(seed + 1, *layer.weight_shape(shape))
    t = layer.apply(z, weight)
    assert t.shape[1:] == layer.output_shape(shape)
    delta = normal(seed + 2, *t.shape)
    back = layer.adjoint(delta, weight, shape)
    assert back.shape == z.shape
    torch.testing.assert_close((back * z).sum(), (delta * t).sum())
    matrix = torch.as_tensor(layer.matrix(weight.numpy(), shape).toarray())
    torch.testing.assert_close(z.flatten(1) @ matrix.mT, t.flatten(1))


@given(CONVOLUTIONS | st.builds(Dense, SIDES), IMAGES | st.tuples(st.integers(1, 9)), IMAGES, SEEDS)
def test_a_skip_its_adjoint_and_its_matrix(
    layer: Conv | Dense, source: Shape, target: Shape, seed: int
) -> None:
    skip = Skip(layer, source, target)
    y, weight = normal(seed, 2, prod(source)), normal(seed + 1, *skip.weight_shape)
    t = skip.apply(y, weight).expand(2, *layer.output_shape(target))
    delta = normal(seed + 2, *t.shape)
    back = skip.adjoint(delta, weight)
    assert back.shape == y.shape
    torch.testing.assert_close((back * y).sum(), (delta * t).sum())
    matrix = torch.as_tensor(skip.matrix(weight).toarray())
    torch.testing.assert_close(y @ matrix.mT, t.flatten(1))


@given(st.sampled_from([MaxPool, AveragePool]), st.integers(1, 3), IMAGES, SEEDS)
def test_a_pool_its_adjoint_and_its_matrices(
    kind: type[MaxPool | AveragePool], size: int, tiles: Shape, seed: int
) -> None:
    shape, pool = (tiles[0], size * tiles[1], size * tiles[2]), kind(size)
    z = normal(seed, 2, *shape).requires_grad_()
    result, where = pool.apply(z)
    assert result.shape == (2, *tiles) == (2, *pool.output_shape(shape))
    delta = normal(seed + 1, *result.shape)
    (back,) = torch.autograd.grad(result, z, delta)
    torch.testing.assert_close(pool.adjoint(delta, where), back)
    pieces = [torch.as_tensor(m.toarray()) for m in pool.pieces(shape)]
    largest = torch.stack([z.flatten(1) @ m.mT for m in pieces]).amax(0)
    torch.testing.assert_close(largest, result.flatten(1))


@pytest.mark.parametrize(
    ("layer", "sizes"),
    [
        (Conv, {"channels": 2, "kernel": 3, "stride": 1}),
        (MaxPool, {"size": 2}),
        (AveragePool, {"size": 2}),
        (Dense, {"width": 2}),
    ],
)
def test_sizes_below_one_are_refused(layer: type[Layer], sizes: dict[str, int]) -> None:
    layer(**sizes)
    for name in sizes:
        with pytest.raises(ValueError, match=f"^{name}: expected an integer >= 1, got 0"):
            layer(**sizes | {name: 0})
    with pytest.raises(ValueError, match=r"^padding: expected an integer >= 0, got -1"):
        Conv(2, 3, padding=-1)

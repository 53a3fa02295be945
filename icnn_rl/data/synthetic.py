"""Classes of points in the plane that no convex curve separates, for pictures of boundaries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Labels = NDArray[np.int64]
_Maker = Callable[[int, np.random.RandomState], tuple[Points, Labels]]


def _moons(n: int, random: np.random.RandomState) -> tuple[Points, Labels]:
    """Two half circles, each with its end inside the other."""
    from sklearn.datasets import make_moons

    x, y = make_moons(n, random_state=random)
    return (x - [0.5, 0.25]) / 1.5, y


def _circles(n: int, random: np.random.RandomState) -> tuple[Points, Labels]:
    """A circle inside another."""
    from sklearn.datasets import make_circles

    x, y = make_circles(n, factor=0.5, random_state=random)
    return x, y


def _rings(n: int, random: np.random.RandomState) -> tuple[Points, Labels]:
    """A disc and two rings around it, of three classes."""
    y = np.arange(n) % 3
    radius = (y + random.uniform(0.0, 0.75, n)) / 2.75
    return radius[:, None] * _directions(2 * np.pi * random.random_sample(n)), y


def _spirals(n: int, random: np.random.RandomState) -> tuple[Points, Labels]:
    """Two spirals of one and a half turns, half a turn apart."""
    y = np.arange(n) % 2
    radius = random.uniform(0.1, 1.0, n)
    return radius[:, None] * _directions(3 * np.pi * radius + np.pi * y), y


def _checkerboard(n: int, random: np.random.RandomState) -> tuple[Points, Labels]:
    """Four by four squares in two colours."""
    square = random.randint(4, size=(n, 2))
    inside = random.uniform(0.1, 0.9, size=(n, 2))
    return (square + inside) / 2 - 1, square.sum(axis=1) % 2


def _blobs(n: int, random: np.random.RandomState) -> tuple[Points, Labels]:
    """Four discs in the corners of a square, opposite corners of one class (exclusive or)."""
    corner = random.randint(2, size=(n, 2))
    radius = 0.4 * np.sqrt(random.random_sample(n))
    disc = radius[:, None] * _directions(2 * np.pi * random.random_sample(n))
    return corner - 0.5 + disc, corner.sum(axis=1) % 2


def _directions(angle: Points) -> Points:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


_MAKERS: dict[str, _Maker] = {
    "moons": _moons,
    "circles": _circles,
    "rings": _rings,
    "spirals": _spirals,
    "checkerboard": _checkerboard,
    "blobs": _blobs,
}
SYNTHETIC = tuple(_MAKERS)


def make_synthetic(
    name: str, n: int = 200, noise: float = 0.0, seed: int = 0
) -> tuple[Points, Labels]:
    """``n`` points of one of the sets of ``SYNTHETIC``, in [-1, 1]² before the noise.

    Args:
        name: ``moons``, ``circles``, ``rings`` (three classes), ``spirals``, ``checkerboard`` or
            ``blobs``.
        n: the number of points.
        noise: standard deviation of normal noise; without it the classes do not touch.
        seed: of the points and of the noise.

    Returns:
        Points ``(n, 2)`` and labels ``(n,)``, from 0.

    Raises:
        ValueError: there is no set of that name, or ``n`` or ``noise`` are out of range.
    """
    if name not in _MAKERS:
        raise ValueError(f"name: expected one of {', '.join(SYNTHETIC)}; got {name!r}")
    if n < 1:
        raise ValueError(f"n: expected a number >= 1, got {n}")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise: expected a finite number >= 0, got {noise}")
    random = np.random.RandomState(seed)
    x, y = _MAKERS[name](n, random)
    return x + noise * random.standard_normal(x.shape), y

"""Checks of arguments that networks share."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from torch import Tensor

Shape = tuple[int, ...]
"""Of one sample: ``(channels, height, width)`` for an image, ``(n,)`` for a vector."""


def require_one_of(argument: str, value: str, names: Collection[str], kind: str = "") -> None:
    """Refuse a value that is none of the names; ``kind`` says in the message what they name."""
    if value not in names:
        known = ", ".join(map(repr, names))
        raise ValueError(f"{argument}: expected {kind}one of {known}, got {value!r}")


def _is_size(value: object, least: int = 1) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= least)


def require_size(argument: str, size: object, least: int = 1) -> None:
    """Refuse what is no integer of at least ``least``."""
    if not _is_size(size, least):
        raise ValueError(f"{argument}: expected an integer >= {least}, got {size!r}")


def require_widths(argument: str, widths: object) -> None:
    """Refuse widths of layers that are no sequence of integers >= 1."""
    if not (isinstance(widths, Sequence) and all(map(_is_size, widths))):
        raise ValueError(f"{argument}: expected a tuple of integers >= 1, got {widths!r}")


def require_shape(argument: str, shape: Shape, vector: bool = True) -> None:
    """Refuse what is neither the shape of an image nor, where allowed, that of a vector."""
    if len(shape) not in ((1, 3) if vector else (3,)) or not all(map(_is_size, shape)):
        expected = "(channels, height, width)" + " or (n,)" * vector
        raise ValueError(f"{argument}: expected integers {expected}, each >= 1; got {shape}")


def require_batch_of(argument: str, t: Tensor, shape: Shape) -> None:
    """Refuse a tensor that is no batch of samples of ``shape``."""
    if t.shape[1:] != shape:
        expected = ", ".join(map(str, ("batch", *shape)))
        raise ValueError(f"{argument}: expected shape ({expected}), got {tuple(t.shape)}")


def require_points(y: Tensor, dim: int) -> None:
    """Refuse points whose last axis is not ``dim``."""
    if y.shape[-1:] != (dim,):
        raise ValueError(
            f"y: expected a last axis of {dim}, the dimension of the function; "
            f"got shape {tuple(y.shape)}"
        )

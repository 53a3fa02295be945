"""Checks of arguments that networks share."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

Shape = tuple[int, ...]
"""Of one sample: ``(channels, height, width)`` for an image, ``(n,)`` for a vector."""


def require_one_of(argument: str, value: str, names: Collection[str], kind: str = "") -> None:
    """Refuse a value that is none of the names; ``kind`` says in the message what they name."""
    if value not in names:
        known = ", ".join(map(repr, names))
        raise ValueError(f"{argument}: expected {kind}one of {known}, got {value!r}")


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

"""What a set is given, made to fit the points that it is to hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fitted(name: str, given: float | Tensor, shape: Sequence[int], like: Tensor) -> Tensor:
    """A number or tensor in the precision and on the device of points, in a shape that fits them.

    Args:
        name: of the argument that was given.
        given: what was given; an array does as well as a tensor.
        shape: what it is expanded to.
        like: points.

    Raises:
        ValueError: it does not expand to that shape.
    """
    if isinstance(given, (int, float)):
        return like.new_full(shape, given)  # never copied to the device: a CUDA graph cannot
    given = torch.as_tensor(given)
    try:
        return given.to(like).expand(shape)
    except RuntimeError:
        raise ValueError(
            f"{name}: expected a shape that fits points of shape {tuple(like.shape)}, "
            f"got {tuple(given.shape)}"
        ) from None

"""Numbers that are the same for every sample of a batch, or one for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def broadcast(name: str, given: float | Tensor, shape: Sequence[int], like: Tensor) -> Tensor:
    """A number, array or tensor, expanded, in the precision and on the device of points.

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


def batch_of(*numbers: tuple[object, int]) -> torch.Size:
    """The batch of numbers and tensors, each given with how many of its axes are no batch's."""
    shapes = (tuple(getattr(t, "shape", ()))[::-1][own:][::-1] for t, own in numbers)
    return torch.Size(torch.broadcast_shapes(*shapes))

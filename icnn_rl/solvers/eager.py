"""Functions that run as they are, whatever PyTorch would make of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def eager(function: Callable[P, T]) -> Callable[P, T]:
    """A function that looks at the numbers in tensors, which graphs and transforms do not have.

    ``torch.compile`` leaves it out of its graphs; transforms of ``torch.func`` are refused.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_dynamo_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)  # type: ignore[no-any-return]
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError(
                f"{function.__name__}: expected tensors with numbers, got those of a transform of "
                "torch.func such as vmap or grad. Functions and sets may have batch axes; for "
                "derivatives use torch.autograd.grad, or torch.autograd.functional.jacobian"
            )
        return function(*args, **kwargs)

    return run

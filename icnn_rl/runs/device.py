"""The device where networks live."""

from __future__ import annotations

import torch


def require_device(name: str) -> None:
    """Refuse a device that does not work here.

    Raises:
        ValueError: there is no device of that name, or PyTorch cannot use it.
    """
    try:
        torch.zeros(1, device=name).item()
    # A build without a device says so by an assertion or an import, a wrong name by the others.
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device: expected one that PyTorch can use here, got {name!r} ({reason})"
        ) from None

"""What a configuration checks of its values."""

from __future__ import annotations

import math


def require_at_least(least: float, section: str, config: object, *names: str) -> None:
    """Raise a ValueError if one of the numbers is too small, infinite or NaN.

    Args:
        least: smallest value allowed.
        section: where the configuration is in the whole, with its dot: ``"agent."``.
        config: holds the numbers.
        names: of the numbers.
    """
    for name in names:
        value = getattr(config, name)
        if not least <= value < math.inf:
            raise ValueError(f"{section}{name} has to be at least {least}, not {value}")


def require_positive(section: str, config: object, *names: str) -> None:
    """Raise a ValueError if one of the numbers is not positive, infinite or NaN.

    Args:
        section: where the configuration is in the whole, with its dot: ``"agent."``.
        config: holds the numbers.
        names: of the numbers.
    """
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{section}{name} has to be a finite number > 0, not {value}")

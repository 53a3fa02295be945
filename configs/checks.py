"""What a configuration checks of its values."""

from __future__ import annotations


def require_at_least(least: float, section: str, config: object, *names: str) -> None:
    """Raise a ValueError if one of the numbers is too small.

    Args:
        least: smallest value allowed.
        section: where the configuration is in the whole, with its dot: ``"agent."``.
        config: holds the numbers.
        names: of the numbers.
    """
    for name in names:
        value = getattr(config, name)
        if not value >= least:
            raise ValueError(f"{section}{name} has to be at least {least}, not {value}")

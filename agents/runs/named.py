"""Classes that a configuration names: wrappers, callbacks, replay buffers."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

Named = str | dict[str, Any]  # NAME, or {NAME: arguments}


def named_class(name: str, homes: Sequence[str], key: str) -> type[Any]:
    """The class of a name.

    Args:
        name: alone, where it is in one of the modules, else ``module.Name`` or ``module:Name``.
        homes: the modules.
        key: of the configuration, for error messages.

    Raises:
        ValueError: there is no such class.
    """
    module, _, last = name.replace(":", ".").rpartition(".")
    known: list[str] = []
    for home in [module] if module else homes:
        try:
            members = vars(import_module(home))
        except ModuleNotFoundError as error:
            raise ValueError(f"{key}: cannot import {name!r}: {error}") from None
        if isinstance(found := members.get(last), type):
            return found
        known += [member for member, value in members.items() if isinstance(value, type)]
    close = get_close_matches(last, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "name it as module.Class"
    raise ValueError(f"{key}: there is no class {name!r}; {hint}")


def with_arguments(entry: Named, key: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments in an entry of a list of classes."""
    if isinstance(entry, str):
        return entry, {}
    if len(entry) != 1:
        raise ValueError(f"{key}: expected NAME or {{NAME: {{ARGUMENT: VALUE}}}}, got {entry}")
    ((name, arguments),) = entry.items()
    if not isinstance(arguments, dict | None):
        raise ValueError(f"{key}: expected a mapping of the arguments of {name}, got {arguments!r}")
    return name, arguments or {}

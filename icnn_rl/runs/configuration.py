"""Configurations of runs: dataclasses, read from the command line, from YAML and from presets."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, is_dataclass, make_dataclass
from difflib import get_close_matches
from importlib.resources import files
from inspect import getmodule, signature
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from icnn_rl.runs.storage import brief, read_text

CONFIGS = Path(str(files("icnn_rl.configs")))  # the folder of the presets, a subfolder a command

C = TypeVar("C")

_MAX_VALUES = 100_000  # of a YAML file
_MAX_INTEGER = 1 << 63


def presets(command: str) -> dict[str, str]:
    """Name and description (the first line) of every preset of a command: train, fit, benchmark."""
    return {
        path.stem: path.read_text("utf-8").partition("\n")[0].removeprefix("#").strip()
        for path in sorted((CONFIGS / command).glob("*.yaml"))
    }


def find_preset(name: str, command: str) -> Path:
    """The YAML file of a preset of the command, or ``name`` itself if it is the path of one.

    Raises:
        ValueError: there is no such preset or file.
    """
    names = presets(command)
    if name in names:
        return CONFIGS / command / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise ValueError(f"the configuration file {name!r} does not exist")
    close = get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`icnn-rl presets` lists them."
    raise ValueError(f"there is no preset {name!r}; {hint}")


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file.

    Raises:
        ValueError: it is damaged, not a mapping of keys to values, or has too many of them.
    """
    return mapping_in(read_text(path), str(path))


def mapping_in(text: str, name: str) -> dict[str, Any]:
    """The content of a YAML text; ``name`` stands for it in error messages.

    Raises: as ``read_mapping``.
    """
    try:
        plain = yaml.safe_load(text)
        # Aliases can make a short text a tree without end.
        if any(True for _ in islice(_values(plain), _MAX_VALUES, None)):
            raise ValueError(f"it has more than {_MAX_VALUES} values")
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{name} is damaged: {brief(error)}") from None
    if not isinstance(plain, dict):
        raise ValueError(f"{name} is not a mapping of keys to values")
    return plain


def _values(tree: Any) -> Iterator[Any]:
    yield tree
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _values(value)


def arguments_of(kind: type[Any], leave_out: Collection[str]) -> type[Any]:
    """A frozen dataclass of the arguments of a class, with their types, defaults and docstring.

    Args:
        kind: the class.
        leave_out: names of arguments that the dataclass does not have.
    """
    arguments = {n: a for n, a in signature(kind).parameters.items() if n not in leave_out}
    annotations = {name: argument.annotation for name, argument in arguments.items()}
    # Only of these: types of other arguments may be imported for type checkers only.
    types = get_type_hints(SimpleNamespace(__annotations__=annotations), vars(getmodule(kind)))
    fields = [(name, types[name], argument.default) for name, argument in arguments.items()]
    namespace = {"__doc__": kind.__doc__}
    return make_dataclass(f"{kind.__name__}Arguments", fields, namespace=namespace, frozen=True)


def config_parser(config_class: type[Any], **kwargs: Any) -> ArgumentParser:
    """A parser of ``--config FILE`` and of every key of a configuration, dotted.

    Args:
        config_class: dataclass of the configuration.
        kwargs: further arguments of the parser. It raises its errors.
    """
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, **kwargs)
    parser.add_argument("--config", action="config", help="YAML file to start from")
    parser.add_class_arguments(config_class, as_group=False)
    return parser


def parse_config(config_class: type[C], arguments: list[str]) -> C:
    """The configuration that command line arguments give.

    Args:
        config_class: its dataclass.
        arguments: ``--config=FILE`` and ``--KEY=VALUE``; later ones override earlier ones.

    Raises:
        ValueError: a key is unknown, or a value is not of its type.
    """
    try:
        values = config_parser(config_class).parse_args(arguments).as_dict()
    except ArgumentError as error:
        hint = "; `--help` lists the keys" if "unrecognized" in str(error) else ""
        raise ValueError(_one_line(error) + hint) from None
    del values["config"]
    return _build(config_class, values)


def from_plain(config_class: type[C], plain: dict[str, Any], name: str = "the configuration") -> C:
    """The configuration that nested dicts hold, as ``to_plain`` returns them.

    Args:
        config_class: its dataclass.
        plain: values by key; a missing key gets its default.
        name: of the configuration in error messages.

    Raises:
        ValueError: a key is unknown, or a value is not of its type.
    """
    try:
        values = config_parser(config_class).parse_object(plain).as_dict()
    except ArgumentError as error:
        raise ValueError(f"{name}: {_one_line(error)}") from None
    del values["config"]
    return _build(config_class, values)


def to_plain(config: Any) -> dict[str, Any]:
    """The configuration as nested dicts of numbers, strings and lists, fit for YAML and JSON."""
    return asdict(config, dict_factory=_plain_dict)


def _plain_dict(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}


# jsonargparse's ``instantiate`` accepts null for a section, and hides errors in optional sections.
def _build(config_class: type[C], values: dict[str, Any]) -> C:
    types = get_type_hints(config_class)
    return config_class(**{name: _value(types[name], name, v) for name, v in values.items()})


def _value(annotation: Any, name: str, value: Any) -> Any:
    """A plain value as its annotation asks for: dicts become dataclasses."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        if not isinstance(value, dict):
            raise ValueError(f"{name} has to be a mapping of keys to values, not {value!r}")
        return _build(annotation, value)
    match get_args(annotation):
        case [_, item] if is_dataclass(item):  # dict[str, item]
            return {key: _value(item, f"{name}.{key}", part) for key, part in value.items()}
        case [item, _] if is_dataclass(item) and value is not None:  # item | None
            return _value(item, name, value)
    if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
        raise ValueError(f"{name}: expected an integer of 64 bits, got {brief(value, 20)}")
    return value


def _one_line(error: Exception) -> str:
    message = brief(error, 600)
    return message.replace("Parser key ", "key ").replace("<class '", "").replace("'>", "")


def require_at_least(least: float, section: str, config: object, *names: str) -> None:
    """Raise a ValueError if one of the numbers is too small, infinite or NaN.

    Args:
        least: smallest allowed value.
        section: prefix of the names in error messages, such as ``"training."``.
        config: object with the numbers.
        names: attributes of ``config``.
    """
    for name in names:
        value = getattr(config, name)
        if not least <= value < math.inf:
            raise ValueError(f"{section}{name}: expected a finite number >= {least}, got {value}")


def require_positive(section: str, config: object, *names: str) -> None:
    """Raise a ValueError if one of the numbers is not positive, infinite or NaN."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{section}{name}: expected a finite number > 0, got {value}")

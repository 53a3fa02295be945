"""Configurations of runs: dataclasses, read from the command line, from YAML and from presets."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, asdict, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from inspect import getmodule, signature
from itertools import islice
from pathlib import Path
from types import MappingProxyType, NoneType, SimpleNamespace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

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


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # yaml has no types
    """YAML in which ``1e5`` is a number, as everywhere else: an integer, since it is one."""


def _exponential(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    value = float(loader.construct_scalar(node))
    return int(value) if value.is_integer() else value


_Loader.add_implicit_resolver("!exponential", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), None)
_Loader.add_constructor("!exponential", _exponential)


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
        plain = yaml.load(text, _Loader)
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
    """A parser of ``--config FILE`` and of every key of a configuration, dotted; for its help.

    Args:
        config_class: dataclass of the configuration.
        kwargs: further arguments of the parser.
    """
    parser = ArgumentParser(allow_abbrev=False, **kwargs)
    parser.add_argument("--config", action="config", help="YAML file to start from")
    parser.add_class_arguments(config_class, as_group=False)
    return parser


def parse_config(
    config_class: type[C],
    arguments: Sequence[str],
    start: Mapping[str, Any] = MappingProxyType({}),
    source: str = "",
    options: Collection[str] = (),
) -> C:
    """The configuration that command line arguments give.

    Args:
        config_class: its dataclass.
        arguments: ``--config=FILE`` and ``--KEY=VALUE``, VALUE being YAML, or for a section the
            name of a YAML file; later ones override earlier ones.
        start: nested values that they override.
        source: where these are from, for error messages.
        options: what else might have been meant by an unknown key.

    Raises:
        ValueError: a key is unknown, or a value is not of its type.
    """
    values = _checked(config_class, dict(start), source)
    tokens = deque(arguments)
    while tokens:
        name, equals, text = (token := tokens.popleft()).partition("=")
        key = name.removeprefix("--")
        annotation = _annotation(config_class, key)
        if not token.startswith("--"):
            raise ValueError(f"expected --KEY VALUE, got {token!r}")
        if not equals:
            if tokens and not tokens[0].startswith("--"):
                text = tokens.popleft()
            elif annotation is bool:
                text = "true"
            else:
                raise ValueError(f"{name}: expected a value behind it")
        source = ""
        if key == "config":
            source = text
            plain = read_mapping(_existing(text))
        elif _section(annotation) is not None and text.endswith((".yaml", ".yml")):
            source = text
            plain = nested(key, read_mapping(_existing(text)))
        else:
            plain = nested(key, _from_text(text, annotation, name))
        merge(values, _checked(config_class, plain, source, options))
    return _build(config_class, values)


def from_plain(config_class: type[C], plain: dict[str, Any], name: str = "the configuration") -> C:
    """The configuration that nested dicts hold, as ``to_plain`` returns them.

    Args:
        config_class: its dataclass.
        plain: values by key; a missing key gets its default.
        name: of the configuration in error messages.

    Raises:
        ValueError: a key is unknown or missing, or a value is not of its type.
    """
    return _build(config_class, _checked(config_class, plain, name), name)


def nested(key: str, value: Any) -> dict[str, Any]:
    """A mapping with one value, at a dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Put nested values into others of the same keys, in place."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = deepcopy(value)


def to_plain(config: Any) -> dict[str, Any]:
    """The configuration as nested dicts of numbers, strings and lists, fit for YAML and JSON."""
    return asdict(config, dict_factory=_plain_dict)


def _plain_dict(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}


def _existing(name: str) -> Path:
    if not Path(name).is_file():
        raise ValueError(f"the configuration file {name!r} does not exist")
    return Path(name)


def _from_text(text: str, annotation: Any, name: str) -> Any:
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ValueError(f"{name}: {text!r} is no YAML") from None
    literal = get_origin(annotation) is Literal or str in (annotation, *get_args(annotation))
    return text if literal and value is not None and not isinstance(value, dict | list) else value


def _section(annotation: Any) -> type[Any] | None:
    """The dataclass of a section, also of one that may be null."""
    kinds = (
        [annotation, *get_args(annotation)] if NoneType in get_args(annotation) else [annotation]
    )
    return next((kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)), None)


def _annotation(config_class: type[Any], key: str) -> Any:
    """The type of a dotted key; None for a key that is unknown or inside a dict."""
    annotation: Any = config_class
    for part in key.split("."):
        if (section := _section(annotation)) is None:
            return None
        annotation = get_type_hints(section).get(part)
    return annotation


def _checked(
    config_class: type[Any], plain: Any, source: str, options: Collection[str] = ()
) -> dict[str, Any]:
    """The values with their types, in nested dicts, of the keys that are given."""
    where = f"{source}: " if source else ""

    def section(kind: type[Any], plain: Any, path: str) -> dict[str, Any]:
        if not isinstance(plain, dict):
            key = f"{path.removesuffix('.')}: " if path else ""
            got = brief(repr(plain), 100)
            raise ValueError(f"{where}{key}expected a mapping of keys to values, got {got}")
        types = get_type_hints(kind)
        names = {field.name for field in fields(kind)}
        for key in plain:
            if key not in names:
                hint = _meant(config_class, f"{path}{key}", options)
                raise ValueError(f"{where}unknown key {path}{key}; {hint}")
        return {key: value(types[key], plain[key], f"{path}{key}") for key in plain}

    def value(annotation: Any, plain: Any, key: str) -> Any:
        if (kind := _section(annotation)) is not None:
            optional = kind is not annotation
            return None if plain is None and optional else section(kind, plain, f"{key}.")
        match get_args(annotation):
            case [_, item] if is_dataclass(item) and isinstance(plain, dict):  # dict[str, item]
                return {name: value(item, part, f"{key}.{name}") for name, part in plain.items()}
        try:
            if plain is None and NoneType not in get_args(annotation):
                raise ArgumentError(None, "null")  # which jsonargparse accepts everywhere
            typed = _parser(annotation).parse_object({"value": plain}).value
        except (ArgumentError, OverflowError):
            got = brief(repr(plain), 100)
            raise ValueError(
                f"{where}{key}: expected {_described(annotation)}, got {got}"
            ) from None
        if isinstance(typed, int) and abs(typed) >= _MAX_INTEGER:
            got = brief(typed, 20)
            raise ValueError(f"{where}{key}: expected an integer of 64 bits, got {got}")
        return typed

    return section(config_class, plain, "")


@cache
def _parser(annotation: Any) -> ArgumentParser:
    """A parser of a value of one type."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=annotation)
    return parser


def _described(annotation: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        return f"a list of {_described(parts[0])}"
    if origin is dict:
        return "a mapping"
    if parts:  # of a union
        return " or ".join(_described(part) for part in parts)
    return "null" if annotation is NoneType else str(getattr(annotation, "__name__", annotation))


def _meant(config_class: type[Any], key: str, options: Collection[str]) -> str:
    """What an unknown key may have been meant to be."""
    for old, new in getattr(config_class, "RENAMED", {}).items():
        if key == old or key.startswith(f"{old}."):
            return f"it is now {new}{key.removeprefix(old)}"
    known = list(_keys(config_class))
    last = key.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == last]
    close = same or get_close_matches(key, [*known, *options], n=1)
    return f"did you mean {close[0]}?" if close else "`--help` lists the keys"


def _keys(config_class: type[Any], path: str = "") -> Iterator[str]:
    """All keys of a configuration, dotted."""
    types = get_type_hints(config_class)
    for name in (field.name for field in fields(config_class)):
        annotation = types[name]
        yield f"{path}{name}"
        if (kind := _section(annotation)) is not None:
            yield from _keys(kind, f"{path}{name}.")


def _build(config_class: type[C], values: dict[str, Any], name: str = "the configuration") -> C:
    types = get_type_hints(config_class)
    for field in fields(config_class):  # type: ignore[arg-type]
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and field.name not in values:
            raise ValueError(f"{name}: {field.name} is missing")

    def build(annotation: Any, value: Any) -> Any:
        if (kind := _section(annotation)) is not None and value is not None:
            return _build(kind, value, name)
        match get_args(annotation):
            case [_, item] if is_dataclass(item):
                return {key: build(item, part) for key, part in value.items()}
        return value

    return config_class(**{key: build(types[key], value) for key, value in values.items()})


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

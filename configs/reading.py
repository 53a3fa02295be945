"""Reading a configuration from YAML and the command line, and writing it down."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from icnn_rl.configs.configuration import (
    AgentConfig,
    Config,
    EnvironmentConfig,
    NetworkConfig,
    NoiseConfig,
    SolverConfig,
    TrainingConfig,
)


def config_parser(**kwargs: Any) -> ArgumentParser:
    """A parser of ``--config FILE`` and of every key of ``Config``, dotted; errors are raised."""
    parser = ArgumentParser(exit_on_error=False, **kwargs)
    parser.add_argument("--config", action="config", help="YAML file to start from")
    parser.add_class_arguments(Config, as_group=False)
    return parser


def parse_config(arguments: list[str]) -> Config:
    """The configuration that command line arguments spell out.

    Raises:
        ValueError: a key is unknown, or a value is not of its type.
    """
    try:
        return _to_config(config_parser().parse_args(arguments))
    except ArgumentError as error:
        hint = "; `icnn-rl train --help` lists the keys" if "unrecognized" in str(error) else ""
        raise ValueError(one_line(error) + hint) from None


def read_config(source: Path | dict[str, Any]) -> Config:
    """The configuration in a YAML file, or in a dict of its keys.

    Raises:
        ValueError: it is no configuration, a key is unknown, or a value is not of its type.
        OSError: the file cannot be read.
    """
    name = str(source) if isinstance(source, Path) else "the configuration"
    try:
        values = yaml.safe_load(source.read_bytes()) if isinstance(source, Path) else source
        if not isinstance(values, dict):
            raise ValueError(f"{name} is not a mapping of keys to values")
        return _to_config(config_parser().parse_object(values))
    except (ArgumentError, yaml.YAMLError) as error:
        raise ValueError(f"{name}: {one_line(error)}") from None


def write_config(config: Config, path: Path) -> None:
    """Write every key of ``config`` as YAML, such that ``read_config`` gives it back."""
    path.write_text(yaml.safe_dump(to_plain(config), sort_keys=False), "utf-8")


def to_plain(config: Config) -> dict[str, Any]:
    """The configuration as nested dicts of numbers, strings and lists."""
    plain: dict[str, Any] = asdict(config)
    network = plain["agent"]["network"]
    network |= {"context": list(network["context"]), "convex": list(network["convex"])}
    return plain


def one_line(error: Exception) -> str:
    """The error's message as one sentence."""
    message = " ".join(str(error).split())
    return message.replace("Parser key ", "key ").replace("<class '", "").replace("'>", "")


def _to_config(namespace: Namespace) -> Config:
    values = namespace.as_dict()
    agent = _group(values, "agent")
    return Config(
        env=EnvironmentConfig(**_group(values, "env")),
        agent=AgentConfig(
            **agent
            | {
                "network": NetworkConfig(**_group(agent, "network")),
                "solver": SolverConfig(**_group(agent, "solver")),
                "acting_solver": SolverConfig(**_group(agent, "acting_solver")),
            }
        ),
        noise=NoiseConfig(**_group(values, "noise")),
        training=TrainingConfig(**_group(values, "training")),
        **{name: values[name] for name in ("seed", "threads", "device", "track")},
    )


def _group(values: dict[str, Any], name: str) -> dict[str, Any]:
    group = values[name]
    if not isinstance(group, dict):
        raise ValueError(f"{name} has to be a mapping of keys to values, not {group!r}")
    return group

"""Configuration of a training run: its parts, how it is read, and the presets beside this file."""

from icnn_rl.configs.configuration import (
    AgentConfig,
    Config,
    EnvironmentConfig,
    NetworkConfig,
    NoiseConfig,
    SolverConfig,
    TrainingConfig,
)
from icnn_rl.configs.presets import find_preset, presets
from icnn_rl.configs.reading import config_parser, parse_config, read_config, write_config

__all__ = [
    "AgentConfig",
    "Config",
    "EnvironmentConfig",
    "NetworkConfig",
    "NoiseConfig",
    "SolverConfig",
    "TrainingConfig",
    "config_parser",
    "find_preset",
    "parse_config",
    "presets",
    "read_config",
    "write_config",
]

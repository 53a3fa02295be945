"""Configurations of runs: their parts, how they are read, and the presets in the folders here."""

from icnn_rl.configs.benchmark import (
    AlgorithmConfig,
    SuiteConfig,
    TaskConfig,
    cell_config,
    read_suite,
)
from icnn_rl.configs.fit import FitConfig, FitNetworkConfig, FitTrainingConfig
from icnn_rl.configs.presets import find_preset, presets
from icnn_rl.configs.reading import config_parser, from_plain, parse_config, read_mapping, to_plain
from icnn_rl.configs.train import (
    AgentConfig,
    Config,
    ConstraintConfig,
    EnvironmentConfig,
    NetworkConfig,
    NoiseConfig,
    SolverConfig,
    TrainingConfig,
)

__all__ = [
    "AgentConfig",
    "AlgorithmConfig",
    "Config",
    "ConstraintConfig",
    "EnvironmentConfig",
    "FitConfig",
    "FitNetworkConfig",
    "FitTrainingConfig",
    "NetworkConfig",
    "NoiseConfig",
    "SolverConfig",
    "SuiteConfig",
    "TaskConfig",
    "TrainingConfig",
    "cell_config",
    "config_parser",
    "find_preset",
    "from_plain",
    "parse_config",
    "presets",
    "read_mapping",
    "read_suite",
    "to_plain",
]

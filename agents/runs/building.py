"""From a configuration to an agent."""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
)
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from icnn_rl.agents.concave_q import ConcaveQ
from icnn_rl.agents.runs.capacity import require_images_that_fit, require_memory, too_large
from icnn_rl.agents.runs.config import Config, NoiseConfig
from icnn_rl.agents.runs.named import named_class

BUFFERS = "stable_baselines3.common.buffers"
RECENT = 10  # episodes over which the return of training is averaged
BASELINES: dict[str, type[OffPolicyAlgorithm]] = {
    "ddpg": DDPG,
    "td3": TD3,
    "sac": SAC,
    "tqc": TQC,
    "crossq": CrossQ,
}
DETERMINISTIC = ("ddpg", "td3")  # explore only by the noise that they are given
# Arguments of the other algorithms that are no keys of the section baseline.
SET_BY_THE_RUN = {"self", "policy", "env", "action_noise", "seed", "device", "_init_setup_model"}


def build_agent(config: Config, envs: VecEnv, **overrides: Any) -> OffPolicyAlgorithm:
    """The agent of a configuration, not yet trained.

    Args:
        config: the configuration.
        envs: its environments.
        overrides: arguments of the algorithm that go before those of the configuration.

    Raises:
        ValueError: an argument of the agent or its networks is wrong, or the agent does not fit
            the task or the memory.
    """
    require_images_that_fit(envs.observation_space)
    require_memory(config, envs, overrides)
    build = _concave_q if config.algorithm == "concave_q" else _baseline
    try:
        model = build(config, envs, overrides)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise too_large(config, "the replay buffer or the networks", error) from None
    model._stats_window_size = RECENT  # DDPG has no argument for it
    return model


def _concave_q(config: Config, envs: VecEnv, overrides: dict[str, Any]) -> ConcaveQ:
    noise, arguments = config.noise, dict(vars(config.agent))
    rate, factor = arguments["learning_rate"], arguments.pop("learning_rate_end_factor")
    arguments |= {
        "learning_rate": LinearSchedule(rate, factor * rate, 1.0),
        "policy_kwargs": dict(vars(config.agent.policy_kwargs)),
        "replay_buffer_class": _buffer(config.agent.replay_buffer_class),
        "replay_buffer_kwargs": dict(config.agent.replay_buffer_kwargs),
        "action_noise": _noise(noise, envs) if noise.kind == "ou" else None,
        "exploration_noise": noise.sigma,
        "exploration_temperature": noise.temperature if noise.kind == "boltzmann" else None,
        "seed": config.seed,
        "device": config.device,
    }
    try:
        return ConcaveQ(_policy(envs.observation_space), envs, **arguments | overrides)
    except AssertionError as error:  # of stable-baselines3
        raise ValueError(f"agent: {error}") from None


def _baseline(config: Config, envs: VecEnv, overrides: dict[str, Any]) -> OffPolicyAlgorithm:
    algorithm = BASELINES[config.algorithm]
    known = inspect.signature(algorithm.__init__).parameters.keys() - SET_BY_THE_RUN
    if unknown := sorted(config.baseline.keys() - known):
        raise ValueError(
            f"baseline: {config.algorithm} has no argument {unknown[0]!r}; "
            f"it has {', '.join(sorted(known))}"
        )
    # A copy, as stable-baselines3 adds to policy_kwargs.
    arguments = deepcopy(config.baseline) | {"seed": config.seed, "device": config.device}
    if "replay_buffer_class" in arguments:
        arguments["replay_buffer_class"] = _buffer(arguments["replay_buffer_class"])
    if config.algorithm in DETERMINISTIC:
        arguments["action_noise"] = _noise(config.noise, envs)
    try:
        model = algorithm(_policy(envs.observation_space), envs, **arguments | overrides)
    except (TypeError, AssertionError) as error:  # from whatever reads policy_kwargs
        raise ValueError(f"baseline: {error}") from None
    assert isinstance(model.train_freq, TrainFreq)
    if model.train_freq.frequency < 1:
        raise ValueError(f"baseline: train_freq: expected at least 1, got {model.train_freq[0]}")
    return model


def _buffer(name: str | None) -> type[ReplayBuffer] | None:
    if name is None:
        return None
    name = "HerReplayBuffer" if name == "her" else name
    return named_class(name, ["stable_baselines3", BUFFERS], "replay_buffer_class")


def _policy(observations: spaces.Space[Any]) -> str:
    if isinstance(observations, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(observations) else "MlpPolicy"


def _noise(config: NoiseConfig, envs: VecEnv) -> ActionNoise:
    mean = np.zeros(envs.action_space.shape or ())
    sigma = np.full_like(mean, config.sigma)
    if config.kind == "ou":
        return OrnsteinUhlenbeckActionNoise(mean, sigma, theta=config.theta, dt=1.0)
    return NormalActionNoise(mean, sigma)

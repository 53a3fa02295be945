"""From a configuration to an agent."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv

from icnn_rl.agents.concave_q import ConcaveQ
from icnn_rl.configs import Config, NoiseConfig

RECENT = 10  # episodes that the return shown while training is a mean of


def build_agent(config: Config, envs: VecEnv, **overrides: Any) -> ConcaveQ:
    """The agent of a configuration, not yet trained.

    Args:
        config: the configuration.
        envs: its environments.
        overrides: arguments of ``ConcaveQ`` that go before those of the configuration.

    Raises:
        ValueError: an argument of the agent or its networks is wrong.
    """
    arguments = asdict(config.agent)
    policy_kwargs = arguments.pop("network")
    policy_kwargs["optimizer_kwargs"] = {"weight_decay": arguments.pop("weight_decay")}
    arguments |= {
        "action_noise": _action_noise(config.noise, envs),
        "exploration_noise": config.noise.sigma,
        "policy_kwargs": policy_kwargs,
        "stats_window_size": RECENT,
        "seed": config.seed,
        "device": config.device,
    }
    return ConcaveQ(_policy(envs.observation_space), envs, **arguments | overrides)


def _policy(observations: spaces.Space[Any]) -> str:
    if isinstance(observations, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(observations) else "MlpPolicy"


def _action_noise(config: NoiseConfig, envs: VecEnv) -> ActionNoise | None:
    if config.kind == "gaussian":
        return None  # the agent's own
    mean = np.zeros(envs.action_space.shape or ())
    sigma = np.full_like(mean, config.sigma)
    return OrnsteinUhlenbeckActionNoise(mean, sigma, theta=config.theta, dt=1.0)

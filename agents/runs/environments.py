"""Environments as a configuration describes them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TransformReward
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from icnn_rl.agents.runs.config import Config, ConstraintConfig, EnvironmentConfig
from icnn_rl.agents.runs.snapshot import capture, restore
from icnn_rl.envs.constraints import ActionBall, PowerLimit, RampLimits

SB3_GAMMA = 0.99  # of all its algorithms, unless they are told otherwise
OBSERVATIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)

Vectorize = Callable[[list[Callable[[], gym.Env[Any, Any]]]], VecEnv]

logger = logging.getLogger(__name__)


class Restorable(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose state can be read and set, wherever it is."""

    def capture(self) -> dict[str, Any]:
        """Its state in mid-episode, as plain data; see ``snapshot.capture``."""
        return capture(self.env)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a captured state.

        Raises:
            ValueError: there is no place for a part of the state.
        """
        restore(self.env, state)


def make_environment(
    config: EnvironmentConfig, render_mode: str | None = None
) -> gym.Env[Any, Any]:
    """The task, with its rewards as they are.

    Raises:
        ValueError: Gymnasium cannot make it, or an agent of this package cannot learn it.
    """
    _log_mujoco_warnings()
    rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        env = gym.make(config.id, **rendering, **config.kwargs)
    except (gym.error.Error, ImportError, TypeError) as error:
        raise ValueError(
            f"env.id: cannot make {config.id!r}: {' '.join(str(error).split())}"
        ) from None
    try:
        _require_learnable(config.id, env)
        return env if config.constraint is None else _constrained(env, config.constraint)
    except ValueError:
        env.close()
        raise


def _constrained(env: gym.Env[Any, Any], constraint: ConstraintConfig) -> gym.Env[Any, Any]:
    limit = constraint.limit
    try:
        match constraint.kind:
            case "power":
                return PowerLimit(env, limit, velocities=constraint.velocities or None)
            case "ball":
                return ActionBall(env, limit)
            case "ramp":
                return RampLimits(env, limit)
    except ValueError as error:
        raise ValueError(f"env.constraint: {error}") from None


def make_training_environment(config: EnvironmentConfig) -> Restorable:
    """The task, monitored, then with its rewards scaled."""
    env: gym.Env[Any, Any] = Monitor(make_environment(config))
    if (scale := config.reward_scale) != 1:
        env = TransformReward(env, lambda reward: scale * float(reward))
    return Restorable(env)


def make_training_environments(config: Config, vectorize: Vectorize = DummyVecEnv) -> VecEnv:
    """``n_envs`` copies of the task, monitored, with rewards scaled and observations normalised.

    Args:
        config: of the run.
        vectorize: what puts them side by side, and where.
    """
    make = partial(make_training_environment, config.env)
    envs = vectorize([make] * config.env.n_envs)
    observations, rewards = config.env.normalize_observations, config.env.normalize_rewards
    if observations or rewards:
        own = config.algorithm == "concave_q"
        gamma = config.agent.gamma if own else config.baseline.get("gamma", SB3_GAMMA)
        envs = VecNormalize(envs, norm_obs=observations, norm_reward=rewards, gamma=gamma)
    return envs


@cache
def _log_mujoco_warnings() -> None:
    """Send MuJoCo's warnings to the log, not into a file in the user's working directory."""
    try:
        import mujoco
    except Exception:
        # Its import fails in many ways where MUJOCO_GL names a graphics library that is not
        # there. A task that needs MuJoCo will say so, and no other has to know.
        return

    @cache  # once each, not once per environment
    def log(message: str) -> None:
        # What is deprecated in Gymnasium's models is nothing that our users could change.
        level = logging.DEBUG if "deprecated" in message else logging.WARNING
        logger.log(level, "MuJoCo: %s", message)

    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(log)


def _require_learnable(name: str, env: gym.Env[Any, Any]) -> None:
    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, spaces.Box):
        raise ValueError(
            f"{name} has the action space {actions}; ConcaveQ needs a Box of continuous actions"
        )
    if not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        raise ValueError(f"{name} has the action space {actions}; ConcaveQ needs bounded actions")
    parts = (
        observations.spaces.values() if isinstance(observations, spaces.Dict) else [observations]
    )
    for part in parts:
        if not isinstance(part, OBSERVATIONS):
            raise ValueError(
                f"{name} has observations of {type(part).__name__}; ConcaveQ needs arrays, "
                "or a flat Dict of arrays"
            )

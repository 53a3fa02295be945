"""Environments as a configuration describes them."""

from __future__ import annotations

import logging
import os
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
from icnn_rl.agents.runs.snapshot import ResumableEnv
from icnn_rl.envs.constraints import ActionBall, PowerLimit, RampLimits
from icnn_rl.runs.process import TaskError, task_code

Vectorize = Callable[[list[Callable[[], gym.Env[Any, Any]]]], VecEnv]

logger = logging.getLogger(__name__)


def make_environment(
    config: EnvironmentConfig, render_mode: str | None = None
) -> gym.Env[Any, Any]:
    """The task, with its own rewards.

    Raises:
        ValueError: Gymnasium cannot make it, or this package's agents cannot learn it.
        TaskError: its own code failed.
    """
    _log_mujoco_warnings()
    rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        with task_code(f"the task {config.id!r} cannot be made"):
            env: gym.Env[Any, Any] = Task(gym.make(config.id, **config.kwargs | rendering))
    except TaskError as error:
        if (reason := _wrong_with_arguments(error.__cause__)) is None:
            raise
        raise ValueError(f"env.id: cannot make {config.id!r}: {reason}") from None
    try:
        _require_learnable(config.id, env)
        return env if config.constraint is None else _constrained(env, config.constraint)
    except ValueError:
        env.close()
        raise


class Task(gym.Wrapper[Any, Any, Any, Any]):
    """A task whose errors are told apart from those of this package: each is a ``TaskError``."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        with task_code("reset() of the task failed"):
            return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Make a step."""
        with task_code("step() of the task failed"):
            return self.env.step(action)


def _wrong_with_arguments(error: BaseException | None) -> str | None:
    """What is wrong with the arguments of ``gymnasium.make``; None if the task's code failed."""
    assert error is not None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    package = module.partition(".")[0]
    text = " ".join(str(error).split())
    library = os.environ.get("MUJOCO_GL")
    if library and package in ("mujoco", "OpenGL", "glfw", "ctypes"):
        return f"MUJOCO_GL={library} is no graphics library that works here ({text})"
    known = isinstance(error, gym.error.Error) or package == "gymnasium"
    return text if known else None


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


def make_training_environment(config: EnvironmentConfig) -> ResumableEnv:
    """The task, monitored, then with scaled rewards."""
    env: gym.Env[Any, Any] = Monitor(make_environment(config))
    if (scale := config.reward_scale) != 1:
        env = TransformReward(env, lambda reward: scale * float(reward))
    return ResumableEnv(env)


def make_training_environments(config: Config, vectorize: Vectorize = DummyVecEnv) -> VecEnv:
    """``n_envs`` copies of the task as the configuration describes them, normalised if it says so.

    Args:
        config: of the run.
        vectorize: makes a vectorised environment from functions that make one environment each.
    """
    make = partial(make_training_environment, config.env)
    envs = vectorize([make] * config.env.n_envs)
    observations, rewards = config.env.normalize_observations, config.env.normalize_rewards
    if observations or rewards:
        is_ours = config.algorithm == "concave_q"
        default = 0.99  # of all algorithms of stable-baselines3
        gamma = config.agent.gamma if is_ours else config.baseline.get("gamma", default)
        envs = VecNormalize(envs, norm_obs=observations, norm_reward=rewards, gamma=gamma)
    return envs


@cache
def _log_mujoco_warnings() -> None:
    """Log MuJoCo's warnings, which it would write to a file in the working directory."""
    try:
        import mujoco
    except Exception:
        # Its import fails in many ways where MUJOCO_GL names a missing graphics library. Making
        # a task that needs MuJoCo will report it; other tasks are not affected.
        return

    @cache  # once each, not once per environment
    def log(message: str) -> None:
        # Users cannot change what is deprecated in Gymnasium's models.
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
    learnable = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    for part in parts:
        if not isinstance(part, learnable):
            raise ValueError(
                f"{name} has observations of {type(part).__name__}; ConcaveQ needs arrays, "
                "or a flat Dict of arrays"
            )

"""Environments as a configuration describes them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TransformReward
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from icnn_rl.agents.runs.config import Config, ConstraintConfig, EnvironmentConfig
from icnn_rl.agents.runs.named import named_class, with_arguments
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
    with _made(f"env.id: cannot make {config.id!r}", f"the task {config.id!r} cannot be made"):
        env = gym.make(config.id, **config.kwargs | rendering)
    for entry in config.wrappers:
        name, arguments = with_arguments(entry, "env.wrappers")
        wrapper = named_class(name, ["gymnasium.wrappers"], "env.wrappers")
        with _made(f"env.wrappers: {name}", f"the wrapper {name!r} cannot be made"):
            env = wrapper(env, **arguments)
    env = Task(env)
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


@contextmanager
def _made(key: str, message: str) -> Iterator[None]:
    """Within, an error is of the configuration's key, or of the task's code."""
    try:
        with task_code(message):
            yield
    except TaskError as error:
        if (reason := _wrong_with_arguments(error.__cause__)) is None:
            raise
        raise ValueError(f"{key}: {reason}") from None


def _wrong_with_arguments(error: BaseException | None) -> str | None:
    """What is wrong with the arguments of a constructor; None if its own code failed."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    package = module.partition(".")[0]
    text = " ".join(str(error).split())
    library = os.environ.get("MUJOCO_GL")
    if library and package in ("mujoco", "OpenGL", "glfw", "ctypes"):
        return f"MUJOCO_GL={library} is no graphics library that works here ({text})"
    known = isinstance(error, gym.error.Error) or package in ("gymnasium", "icnn_rl")
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


def make_training_environments(config: Config, vectorize: Vectorize | None = None) -> VecEnv:
    """``n_envs`` copies of the task as the configuration describes them, normalised if it says so.

    Args:
        config: of the run.
        vectorize: makes a vectorised environment from functions that make one environment each; by
            default as the configuration says.
    """
    make = partial(make_training_environment, config.env)
    if vectorize is None:
        vectorize = Processes if config.env.vec_env == "subproc" else DummyVecEnv
    envs = vectorize([make] * config.env.n_envs)
    observations, rewards = config.env.normalize_observations, config.env.normalize_rewards
    if observations or rewards:
        is_ours = config.algorithm == "concave_q"
        default = 0.99  # of all algorithms of stable-baselines3
        gamma = config.agent.gamma if is_ours else config.baseline.get("gamma", default)
        envs = VecNormalize(envs, norm_obs=observations, norm_reward=rewards, gamma=gamma)
    return envs


class Processes(SubprocVecEnv):
    """Environments in processes of their own, where Ctrl-C does not end them before their run."""

    def __init__(self, makers: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        makers[0]().close()  # an error is raised here, not in a process
        super().__init__([partial(_undisturbed, make) for make in makers])

    def reset(self) -> VecEnvObs:
        """Begin an episode in each."""
        with _alive():
            return super().reset()

    def step_wait(self) -> VecEnvStepReturn:
        """The results of a step."""
        with _alive():
            return super().step_wait()

    def close(self) -> None:
        """End the processes."""
        with suppress(EOFError, OSError):  # of one that has ended
            super().close()


def _undisturbed(make: Callable[[], gym.Env[Any, Any]]) -> gym.Env[Any, Any]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return make()


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError):
        message = "a process of the task has ended; its error is shown above"
        raise TaskError(message, "") from None


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

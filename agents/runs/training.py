"""A training run of an agent, from its configuration to its last file."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.runs.callback import RunCallback, training_environment
from icnn_rl.agents.runs.checkpoint import read_checkpoint
from icnn_rl.agents.runs.config import AgentConfig, Config
from icnn_rl.agents.runs.environments import (
    Vectorize,
    make_environment,
    make_training_environment,
    make_training_environments,
)
from icnn_rl.agents.runs.evaluation import has_time_limit, opened, try_out
from icnn_rl.agents.runs.named import named_class, with_arguments
from icnn_rl.agents.runs.outputs import AgentFolder, EventWriter, NumberWriter, draw_learning_curve
from icnn_rl.agents.runs.portable import WEIGHTS, finished_steps, save_portable
from icnn_rl.agents.runs.records import Records
from icnn_rl.agents.runs.snapshot import restores_exactly
from icnn_rl.agents.runs.video import record_video
from icnn_rl.runs.configuration import to_plain
from icnn_rl.runs.monitoring import ProgressDisplay, Tracker
from icnn_rl.runs.process import TaskError, require_device, stop_requests

_PACKAGES = (
    *("icnn-rl", "torch", "numpy", "gymnasium", "mujoco"),
    *("stable-baselines3", "sb3-contrib"),
)

logger = logging.getLogger(__name__)


def train(config: Config, run: Path, console: Console, vectorize: Vectorize | None = None) -> None:
    """Train from the first step, and write everything into a new folder.

    Args:
        config: of the run.
        run: the folder, empty or not there yet.
        console: where progress is shown.
        vectorize: makes a vectorised environment from functions that make one environment each; by
            default as the configuration says.

    Raises:
        ValueError: the folder is not empty, the task or an argument of the agent is wrong, or the
            task gave observations or rewards that are not finite.
        Interrupted: the process was asked to stop.
    """
    folder = AgentFolder(run)
    folder.require_empty()
    _require_used(config)
    _require_device(config)
    model = _build(config, vectorize)
    config = _try_evaluation(model, config)
    folder.create(to_plain(config), _PACKAGES)
    with folder.locked():
        _learn(model, config, folder, console, checkpoint={})


def resume(
    run: Path,
    console: Console,
    steps: int | None = None,
    track: bool = False,
    vectorize: Vectorize | None = None,
    device: str | None = None,
) -> None:
    """Continue from the last checkpoint of a run, as if it had not stopped.

    A run that has no checkpoint yet begins again.

    Args:
        run: the folder of the run.
        console: where progress is shown.
        steps: new total of steps; by default that of the configuration.
        track: whether to track the run from here on, also if it was not tracked before.
        vectorize: makes a vectorised environment from functions that make one environment each; by
            default as the configuration says.
        device: where the networks live from here on; by default as before.

    Raises:
        ValueError: the folder is no run, the run is finished, or its checkpoint is damaged.
        Interrupted: the process was asked to stop.
    """
    folder = AgentFolder(run)
    config = folder.load_config(Config)
    total = config.training.steps if steps is None else steps
    config = replace(
        config,
        training=replace(config.training, steps=total),
        track=config.track or track,
        device=device or config.device,
    )
    try:
        _require_device(config)
    except ValueError as error:
        raise ValueError(f"{folder.config_file}: {error}") from None
    with folder.locked():
        checkpoint: dict[str, Any] = {}
        if (path := folder.last_checkpoint()) is not None:
            checkpoint = read_checkpoint(path)
        elif (run / WEIGHTS).exists():
            raise ValueError(f"there is no checkpoint in {folder.checkpoints} to go on from")
        else:
            logger.warning("the run was stopped before its first checkpoint, and begins again")
        done = _steps_done(checkpoint)
        if done >= total and (steps is not None or finished_steps(run) == done):
            raise ValueError(
                f"{run} has made {done} steps already; --steps sets a total beyond that"
            )
        folder.warn_of_other_versions()
        model = _build(config, vectorize)
        config = _try_evaluation(model, config)
        _learn(model, config, folder, console, checkpoint)


def _require_used(config: Config) -> None:
    """Refuse arguments of ConcaveQ for a new run of another algorithm."""
    given, default = vars(config.agent), vars(AgentConfig())
    if config.algorithm != "concave_q" and given != default:
        key = next(name for name in given if given[name] != default[name])
        raise ValueError(
            f"agent.{key} is for concave_q; arguments of {config.algorithm} are in baseline"
        )


def _require_device(config: Config) -> None:
    if config.device != "auto":
        require_device(config.device)


def _build(config: Config, vectorize: Vectorize | None) -> OffPolicyAlgorithm:
    torch.set_num_threads(config.threads)
    return build_agent(config, make_training_environments(config, vectorize))


def _learn(
    model: OffPolicyAlgorithm,
    config: Config,
    run: AgentFolder,
    console: Console,
    checkpoint: dict[str, Any],
) -> None:
    records = Records(run, config.env.id)
    tracker = Tracker(run, to_plain(config), config.track)
    outputs: list[KVWriter] = [
        NumberWriter(lambda row, _: records.progress.append(row)),
        EventWriter(run.path / "tensorboard", _steps_done(checkpoint)),
        NumberWriter(tracker.log, tracker.close),
    ]
    model.set_logger(Logger(str(run.path), outputs))
    # That takes two further environments.
    exact = config.training.evaluation_envs > 0 and restores_exactly(
        lambda: make_training_environment(config.env)
    )
    if not exact:
        logger.warning(
            "the state of %s cannot be captured: a resumed run begins a new episode", config.env.id
        )
    steps = config.training.steps
    try:
        done = _steps_done(checkpoint)
        with stop_requests() as stop, ProgressDisplay(console, steps, done) as display:
            callback = RunCallback(config, run, records, display, stop, exact, checkpoint)
            # There are at most as many episodes as steps, so only the callback writes logs.
            try:
                model.learn(steps, [callback, *_callbacks(config)], log_interval=steps + 1)
            except RuntimeError as error:  # of HerReplayBuffer
                if "before the end of the first episode" in str(error):
                    raise ValueError(f"learning_starts: {error}") from None
                raise
            callback.finish()
        _close_environments(model)  # before the video, as the task may allow one instance alone
        curve = draw_learning_curve(run, f"{config.env.id}, seed {config.seed}")
        film = config.training.video
        video = record_video(run.path, run.path / "video.mp4") if film else None
        tracker.upload({"learning_curve": curve}, video)
        save_portable(model, config, run.path, finished=True)  # until then, resume completes it
    finally:
        model.logger.close()
        _close_environments(model)


def _callbacks(config: Config) -> list[BaseCallback]:
    """The user's own."""
    key, home = "training.callbacks", "stable_baselines3.common.callbacks"
    callbacks = []
    for entry in config.training.callbacks:
        name, arguments = with_arguments(entry, key)
        try:
            callbacks.append(named_class(name, [home], key)(**arguments))
        except TypeError as error:
            raise ValueError(f"{key}: {error}") from None
    return callbacks


def _close_environments(model: OffPolicyAlgorithm) -> None:
    if (envs := model.get_env()) is not None:
        envs.close()


def _steps_done(checkpoint: dict[str, Any]) -> int:
    return int(checkpoint["counters"]["num_timesteps"]) if checkpoint else 0


def _try_evaluation(model: OffPolicyAlgorithm, config: Config) -> Config:
    """Play one step of an evaluation, so that what is wrong with it comes up before training.

    It compiles the solver, too, so that the progress bar's estimate does not include that.

    Returns:
        The configuration; without environments for evaluations, if they cannot be opened.
    """
    training = config.training
    assert model.env is not None
    with ExitStack() as stack:
        envs = [] if training.evaluation_envs else [training_environment(model)]
        if not envs:
            try:
                envs = stack.enter_context(opened(lambda: make_environment(config.env), training))
            except (ValueError, TaskError) as error:
                if not isinstance(model.env.unwrapped, DummyVecEnv) or model.n_envs > 1:
                    raise
                logger.warning(
                    "evaluations are played in the environment of training, as %d more could not "
                    "be opened beside it (training.evaluation_envs): %s",
                    *(training.evaluation_envs, error),
                )
                envs = [training_environment(model)]
                config = replace(config, training=replace(training, evaluation_envs=0))
        try_out(model, envs)
        if not has_time_limit(envs[0]):
            logger.info(
                "%s has no time limit: episodes of evaluations are cut after %d steps "
                "(training.evaluation_max_steps)",
                *(config.env.id, training.evaluation_max_steps),
            )
    return config

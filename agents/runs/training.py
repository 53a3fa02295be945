"""A training run of an agent, from its configuration to its last file."""

from __future__ import annotations

import logging
import math
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.runs.checkpoint import (
    begin_episode,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from icnn_rl.agents.runs.config import AgentConfig, Config
from icnn_rl.agents.runs.environments import (
    Vectorize,
    make_environment,
    make_training_environment,
    make_training_environments,
)
from icnn_rl.agents.runs.evaluation import LOGGED_AS, evaluate, opened, play, try_out
from icnn_rl.agents.runs.named import named_class, with_arguments
from icnn_rl.agents.runs.outputs import (
    AgentFolder,
    EventWriter,
    NumberWriter,
    draw_learning_curve,
    save_archive,
)
from icnn_rl.agents.runs.portable import WEIGHTS, finished_steps, save_portable
from icnn_rl.agents.runs.records import Records
from icnn_rl.agents.runs.snapshot import restores_exactly
from icnn_rl.agents.runs.video import record_video
from icnn_rl.runs.configuration import to_plain
from icnn_rl.runs.monitoring import ProgressDisplay, Tracker
from icnn_rl.runs.process import (
    Interrupted,
    StopRequest,
    TaskError,
    require_device,
    stop_requests,
)

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
            model.learn(steps, [callback, *_callbacks(config)], log_interval=steps + 1)
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
        envs = [] if training.evaluation_envs else [_training_environment(model)]
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
                envs = [_training_environment(model)]
                config = replace(config, training=replace(training, evaluation_envs=0))
        try_out(model, envs)
    return config


def _training_environment(model: OffPolicyAlgorithm) -> gym.Env[Any, Any]:
    """The one environment of training, below what monitors it and scales its rewards."""
    assert model.env is not None
    envs = model.env.unwrapped
    assert isinstance(envs, DummyVecEnv)
    env = envs.envs[0]
    while not isinstance(env, Monitor):
        assert isinstance(env, gym.Wrapper)
        env = env.env
    return env.env


class RunCallback(BaseCallback):
    """Evaluates, logs and saves a run between two rollouts, when its state is complete.

    Args:
        config: of the run.
        run: its folder.
        records: what it writes down.
        display: shows progress.
        stop: whether the run has to stop.
        exact: whether checkpoints can hold the state of the environments.
        checkpoint: state to continue from; empty for a new run. It is emptied once it is restored.
    """

    model: OffPolicyAlgorithm

    def __init__(
        self,
        config: Config,
        run: AgentFolder,
        records: Records,
        display: ProgressDisplay,
        stop: StopRequest,
        exact: bool,
        checkpoint: dict[str, Any],
    ) -> None:
        super().__init__()
        self._config = config
        self._run = run
        self._records = records
        self._display = display
        self._stop = stop
        self._exact = exact
        self._checkpoint = checkpoint
        self._in_training_environment = config.training.evaluation_envs == 0
        self._between_episodes = True
        self._previous_steps = 0  # when tasks were last due
        self._training_seconds = 0.0  # without evaluating, logging and saving
        self._rollout_start = time.perf_counter()

    def _on_training_start(self) -> None:
        # learn() has reset environments, noise and counters by now, so this is the place.
        if self._checkpoint:
            restore_checkpoint(self.model, self._checkpoint)
            run = self._checkpoint["run"]
            self._training_seconds, self._previous_steps = run["seconds"], run["previous_steps"]
            self._between_episodes = run["between_episodes"]
            self.model._num_timesteps_at_start = self.model.num_timesteps
            self._checkpoint.clear()  # frees the memory of a replay buffer
            # The checkpoint has proved to be complete: only now may files change.
            self._records.restore(run["records"])
            self._run.write_config(to_plain(self._config))
        self._rollout_start = time.perf_counter()

    def _on_step(self) -> bool:
        self._between_episodes = bool(self.locals["dones"].all())
        for info in self.locals["infos"]:
            if "episode" in info:
                self._records.add_episode(info["episode"])
        self._display.update(self.model.num_timesteps, *self._measures())
        return True

    def _on_rollout_start(self) -> None:
        self._do_due_tasks()
        if self._stop.made:
            self._save()
            raise Interrupted

    def finish(self) -> None:
        """Evaluate, log and save the finished run."""
        self._do_due_tasks(finished=True)
        save_archive(self.model, self._run.archive, self._run.path)

    def _do_due_tasks(self, finished: bool = False) -> None:
        self._training_seconds += time.perf_counter() - self._rollout_start
        training, steps = self._config.training, self.model.num_timesteps
        # By what is written down: a run that stopped in an evaluation goes on with it.
        last, every = self._records.evaluations.last_step(), training.evaluate_every
        evaluate = last < steps if finished else last // every < steps // every
        if self._in_training_environment and not finished:
            evaluate = evaluate and self._between_episodes
        log, save = self._is_due(training.log_every), self._is_due(training.checkpoint_every)
        if evaluate:
            self._save()  # first, as it takes long
            self._evaluate()
        if evaluate or log:
            self.model.dump_logs()
        self._previous_steps = steps
        if finished or (save and not evaluate):
            self._save()
        self._rollout_start = time.perf_counter()

    def _is_due(self, period: int) -> bool:
        return self.model.num_timesteps // period > self._previous_steps // period

    def _evaluate(self) -> None:
        training, model, steps = self._config.training, self.model, self.model.num_timesteps
        if self._in_training_environment:
            envs = [_training_environment(model)]
            evaluation = play(model, envs, training, stop=self._stop)
            assert model.env is not None
            model.env.seed(self._config.seed + steps)
            begin_episode(model)
        else:
            make = partial(make_environment, self._config.env)
            evaluation = evaluate(model, make, training, stop=self._stop)
        summary = evaluation.summary()
        rows = self._records.evaluations.rows
        if summary["return_mean"] > max((float(r["return_mean"]) for r in rows), default=-math.inf):
            self._run.best.mkdir(exist_ok=True)
            save_portable(model, self._config, self._run.best)
            save_archive(model, self._run.best_archive, self._run.best)
        self._records.add_evaluation(steps, evaluation, self._training_seconds)
        for name, value in summary.items():
            model.logger.record(f"eval/{LOGGED_AS[name]}", value)
        self._display.say(f"step {steps}: return {evaluation}")

    def _save(self) -> None:
        run = {
            "seconds": self._training_seconds,
            "previous_steps": self._previous_steps,
            "between_episodes": self._between_episodes,
            "records": self._records.state(),
        }
        save_checkpoint(self.model, self._run.checkpoints, self._exact, run)
        save_portable(self.model, self._config, self._run.path)

    def _measures(self) -> list[str]:
        """The latest return and gap, to be shown beside the progress bar."""
        measures = []
        if self.model.ep_info_buffer:
            measures.append(f"return {self.model.ep_info_buffer[-1]['r']:.1f}")
        if (gap := self.model.logger.name_to_value.get("solver/gap_mean")) is not None:
            measures.append(f"gap {gap:.1e}")
        return measures

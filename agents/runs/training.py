"""A training run of an agent, from its configuration to its last file."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.runs.checkpoint import read_checkpoint, restore_checkpoint, save_checkpoint
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.environments import (
    Vectorize,
    make_environment,
    make_training_environment,
    make_training_environments,
)
from icnn_rl.agents.runs.evaluation import evaluate
from icnn_rl.agents.runs.outputs import AgentFolder, NumberWriter, draw_learning_curve
from icnn_rl.agents.runs.portable import save_portable
from icnn_rl.agents.runs.snapshot import restores_exactly
from icnn_rl.agents.runs.video import record_video
from icnn_rl.runs.configuration import to_plain
from icnn_rl.runs.monitoring import ProgressDisplay, Tracker
from icnn_rl.runs.process import (
    Interrupted,
    StopRequest,
    preserved_random_state,
    require_device,
    stop_requests,
)
from icnn_rl.runs.storage import Table, replacing

_PACKAGES = (
    *("icnn-rl", "torch", "numpy", "gymnasium", "mujoco"),
    *("stable-baselines3", "sb3-contrib"),
)

logger = logging.getLogger(__name__)


def train(config: Config, run: Path, console: Console, vectorize: Vectorize = DummyVecEnv) -> None:
    """Train from the first step, and write everything into a new folder.

    Args:
        config: of the run.
        run: the folder, empty or not there yet.
        console: where progress is shown.
        vectorize: makes a vectorised environment from functions that make one environment each.

    Raises:
        ValueError: the folder is not empty, the task or an argument of the agent is wrong, or the
            task gave observations or rewards that are not finite.
        Interrupted: the process was asked to stop.
    """
    folder = AgentFolder(run)
    folder.require_empty()
    model = _build(config, vectorize)
    folder.create(to_plain(config), _PACKAGES)
    with folder.locked():
        _learn(model, config, folder, console, checkpoint={})


def resume(
    run: Path,
    console: Console,
    steps: int | None = None,
    track: bool = False,
    vectorize: Vectorize = DummyVecEnv,
) -> None:
    """Continue from the last checkpoint of a run, as if it had not stopped.

    Args:
        run: the folder of the run.
        console: where progress is shown.
        steps: new total of steps; by default that of the configuration.
        track: whether to track the run from here on, also if it was not tracked before.
        vectorize: makes a vectorised environment from functions that make one environment each.

    Raises:
        ValueError: the folder is no run, the run is finished, or its checkpoint is damaged.
        Interrupted: the process was asked to stop.
    """
    folder = AgentFolder(run)
    config = folder.load_config(Config)
    total = config.training.steps if steps is None else steps
    config = replace(
        config, training=replace(config.training, steps=total), track=config.track or track
    )
    with folder.locked():
        if (path := folder.last_checkpoint()) is None:
            raise ValueError(f"there is no checkpoint in {folder.checkpoints}")
        checkpoint = read_checkpoint(path)
        done = _steps_done(checkpoint)
        if done >= total and (folder.archive.exists() or steps is not None):
            raise ValueError(
                f"{run} has made {done} steps already; --steps sets a total beyond that"
            )
        folder.warn_of_other_versions()
        _learn(_build(config, vectorize), config, folder, console, checkpoint)


def _build(config: Config, vectorize: Vectorize) -> OffPolicyAlgorithm:
    if config.device != "auto":
        require_device(config.device)
    torch.set_num_threads(config.threads)
    return build_agent(config, make_training_environments(config, vectorize))


def _learn(
    model: OffPolicyAlgorithm,
    config: Config,
    run: AgentFolder,
    console: Console,
    checkpoint: dict[str, Any],
) -> None:
    progress = run.progress()
    tracker = Tracker(run, to_plain(config), config.track)
    outputs: list[KVWriter] = [
        NumberWriter(lambda row, _: progress.append(row)),
        TensorBoardOutputFormat(str(run.path / "tensorboard")),
        NumberWriter(tracker.log, tracker.close),
    ]
    model.set_logger(Logger(str(run.path), outputs))
    exact = restores_exactly(lambda: make_training_environment(config.env))
    if not exact:
        logger.warning(
            "the state of %s cannot be captured: a resumed run begins a new episode", config.env.id
        )
    steps = config.training.steps
    try:
        with stop_requests() as stop:
            _compile_solver(model)
            with ProgressDisplay(console, steps, _steps_done(checkpoint)) as display:
                callback = RunCallback(config, run, progress, display, stop, exact, checkpoint)
                # There are at most as many episodes as steps, so only the callback writes logs.
                model.learn(steps, callback, log_interval=steps + 1)
                callback.finish()
        curve = draw_learning_curve(run, f"{config.env.id}, seed {config.seed}")
        film = config.training.video
        video = record_video(run.path, run.path / "video.mp4") if film else None
        tracker.upload({"learning_curve": curve}, video)
    finally:
        model.logger.close()
        if (envs := model.get_env()) is not None:
            envs.close()


def _steps_done(checkpoint: dict[str, Any]) -> int:
    return int(checkpoint["counters"]["num_timesteps"]) if checkpoint else 0


def _compile_solver(model: OffPolicyAlgorithm) -> None:
    """Solve for one action, so that the progress bar's estimate does not include compilation."""
    observation = deepcopy(model.observation_space).sample()  # the space's own state is kept
    # A task may announce no action for an observation that it never makes.
    with preserved_random_state(), suppress(ValueError):
        model.predict(observation, deterministic=True)


class RunCallback(BaseCallback):
    """Evaluates, logs and saves a run between two rollouts, when its state is complete.

    Args:
        config: of the run.
        run: its folder.
        progress: table of what is logged.
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
        progress: Table,
        display: ProgressDisplay,
        stop: StopRequest,
        exact: bool,
        checkpoint: dict[str, Any],
    ) -> None:
        super().__init__()
        self._config = config
        self._run = run
        self._progress = progress
        self._evaluations = run.evaluations()
        self._display = display
        self._stop = stop
        self._exact = exact
        self._checkpoint = checkpoint
        self._previous_steps = 0  # when tasks were last due
        self._training_seconds = 0.0  # without evaluating, logging and saving
        self._rollout_start = time.perf_counter()

    def _on_training_start(self) -> None:
        # learn() has reset environments, noise and counters by now, so this is the place.
        if self._checkpoint:
            restore_checkpoint(self.model, self._checkpoint)
            self._training_seconds = self._checkpoint.get("seconds", 0.0)
            self._previous_steps = self.model._num_timesteps_at_start = self.model.num_timesteps
            self._checkpoint.clear()  # frees the memory of a replay buffer
            # The checkpoint has proved to be complete: only now may files change.
            self._progress.drop_after(self._previous_steps)
            self._evaluations.drop_after(self._previous_steps)
            self._run.write_config(to_plain(self._config))
        self._rollout_start = time.perf_counter()

    def _on_step(self) -> bool:
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
        with replacing(self._run.archive) as temporary:
            self.model.save(temporary)
        if (normalizer := self.model.get_vec_normalize_env()) is not None:
            with replacing(self._run.path / "vecnormalize.pkl") as temporary:
                normalizer.save(str(temporary))

    def _do_due_tasks(self, finished: bool = False) -> None:
        self._training_seconds += time.perf_counter() - self._rollout_start
        training, steps = self._config.training, self.model.num_timesteps
        # A run that was killed after its last evaluation already has it.
        evaluate = finished and self._evaluations.last_step() < steps
        if evaluate or self._is_due(training.evaluate_every):
            self._evaluate()
            self.model.dump_logs()
        elif self._is_due(training.log_every):
            self.model.dump_logs()
        if finished or self._is_due(training.checkpoint_every):
            self._save()
        self._previous_steps = steps
        self._rollout_start = time.perf_counter()

    def _is_due(self, period: int) -> bool:
        return self.model.num_timesteps // period > self._previous_steps // period

    def _evaluate(self) -> None:
        episodes = self._config.training.evaluation_episodes
        evaluation = evaluate(self.model, lambda: make_environment(self._config.env), episodes)
        steps, summary = self.model.num_timesteps, evaluation.summary()
        seconds = {"training_seconds": round(self._training_seconds, 3)}
        self._evaluations.append({"steps": steps} | summary | seconds)
        for name, value in summary.items():
            self.model.logger.record(f"eval/{name}", value)
        self._display.say(f"step {steps}: return {evaluation}")

    def _save(self) -> None:
        seconds = self._training_seconds
        save_checkpoint(self.model, self._run.checkpoints, self._exact, seconds)
        save_portable(self.model, self._config, self._run.path)

    def _measures(self) -> list[str]:
        """The latest return and gap, to be shown beside the progress bar."""
        measures = []
        if self.model.ep_info_buffer:
            measures.append(f"return {self.model.ep_info_buffer[-1]['r']:.1f}")
        if (gap := self.model.logger.name_to_value.get("solver/gap_mean")) is not None:
            measures.append(f"gap {gap:.1e}")
        return measures

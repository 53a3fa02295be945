"""A training run from its configuration to its last file."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from icnn_rl.agents.runs.agent_folder import PACKAGES, AgentFolder
from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.runs.checkpoint import (
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.environments import (
    Vectorize,
    make_environment,
    make_training_environment,
    make_training_environments,
)
from icnn_rl.agents.runs.evaluation import evaluate
from icnn_rl.agents.runs.learning_curve import draw_learning_curve
from icnn_rl.agents.runs.output_formats import TableOutputFormat, TrackerOutputFormat
from icnn_rl.agents.runs.portable import save_portable
from icnn_rl.agents.runs.snapshot import is_exact
from icnn_rl.agents.runs.video import record_video
from icnn_rl.runs.configuration import from_plain, to_plain
from icnn_rl.runs.device import require_device
from icnn_rl.runs.progress import ProgressDisplay
from icnn_rl.runs.signals import Interrupted, StopRequest, stop_requests
from icnn_rl.runs.storage import replacing
from icnn_rl.runs.tables import Table
from icnn_rl.runs.tracking import Tracker

logger = logging.getLogger(__name__)

State = dict[str, Any]


def train(config: Config, run: Path, console: Console, vectorize: Vectorize = DummyVecEnv) -> None:
    """Train from the first step, and write everything into a new folder.

    Args:
        config: what to train on what, and how.
        run: the folder, empty or not there yet.
        console: where progress is shown.
        vectorize: what puts the environments side by side, and where.

    Raises:
        ValueError: the folder is not empty, the task or an argument of the agent is wrong, or the
            task gave observations or rewards that are not finite.
        Interrupted: the process was asked to stop.
    """
    folder = AgentFolder(run)
    folder.require_empty()
    model = _build(config, vectorize)
    folder.create(to_plain(config), PACKAGES)
    with folder.locked():
        _learn(model, config, folder, console, state=None)


def resume(
    run: Path,
    console: Console,
    steps: int | None = None,
    track: bool = False,
    vectorize: Vectorize = DummyVecEnv,
) -> None:
    """Go on from the last checkpoint of a run, as if it had not stopped.

    Args:
        run: the folder of the run.
        console: where progress is shown.
        steps: new total of steps; by default that of the configuration.
        track: whether to go on with tracking, or begin it.
        vectorize: what puts the environments side by side, and where.

    Raises:
        ValueError: the folder is no run, the run is finished, or its checkpoint is damaged.
        Interrupted: the process was asked to stop.
    """
    folder = AgentFolder(run)
    config = from_plain(Config, folder.read_config(), str(folder.config_file))
    total = config.training.steps if steps is None else steps
    config = replace(
        config, training=replace(config.training, steps=total), track=config.track or track
    )
    with folder.locked():
        if not (saved := folder.saved()):
            raise ValueError(f"there is no checkpoint in {folder.checkpoints}")
        state = read_checkpoint(saved[-1])
        done = state["counters"]["num_timesteps"]
        if done >= total and (folder.archive.exists() or steps is not None):
            raise ValueError(
                f"{run} has made {done} steps already; --steps sets a total beyond that"
            )
        folder.warn_of_other_versions()
        _learn(_build(config, vectorize), config, folder, console, state)


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
    state: State | None,
) -> None:
    done = 0 if state is None else state["counters"]["num_timesteps"]
    progress = run.progress()
    tracker = Tracker(run, to_plain(config)) if config.track else None
    outputs: list[KVWriter] = [
        TableOutputFormat(progress),
        TensorBoardOutputFormat(str(run.tensorboard)),
    ]
    if tracker is not None:
        outputs.append(TrackerOutputFormat(tracker))
    model.set_logger(Logger(str(run.path), outputs))
    exact = is_exact(lambda: make_training_environment(config.env))
    if not exact:
        logger.warning(
            "the state of %s cannot be captured: a resumed run begins a new episode", config.env.id
        )
    try:
        with (
            ProgressDisplay(console, config.training.steps, done) as display,
            stop_requests() as stop,
        ):
            chores = Chores(config, run, progress, display, stop, exact, state)
            # No more episodes than steps: the logs are written by the chores alone.
            model.learn(config.training.steps, chores, log_interval=config.training.steps + 1)
            chores.finish()
        draw_learning_curve(run, f"{config.env.id}, seed {config.seed}")
        video = record_video(run.path, run.video) if config.training.video else None
        if tracker is not None:
            tracker.upload({"learning_curve": run.curve}, video)
    finally:
        model.logger.close()
        if (envs := model.get_env()) is not None:
            envs.close()


class Chores(BaseCallback):
    """What is to be done between two rollouts, where the state of a run is complete.

    Args:
        config: of the run.
        run: its folder.
        progress: table of what is logged.
        display: shows progress.
        stop: set when the run has to stop.
        exact: whether checkpoints can hold the state of the environments.
        state: of the checkpoint to go on from, or None.
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
        state: State | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.run = run
        self.progress = progress
        self.display = display
        self.stop = stop
        self.exact = exact
        self.state = state
        self.evaluations = run.evaluations()
        self.previous = 0  # steps at the last chores
        self.seconds = 0.0  # of training until the last chores, which are no part of it
        self.resumed = time.perf_counter()

    def _on_training_start(self) -> None:
        # Here, and not before: learn() has reset environments, noise and counters by now.
        if self.state:
            restore_checkpoint(self.model, self.state)
            self.seconds = self.state.get("seconds", 0.0)
            self.previous = self.model._num_timesteps_at_start = self.model.num_timesteps
            self.state.clear()  # a replay buffer's worth of memory
            # Only now that the checkpoint has proved to be whole may files change.
            self.progress.drop_after(self.previous)
            self.evaluations.drop_after(self.previous)
            self.run.write_config(to_plain(self.config))
        self.resumed = time.perf_counter()

    def _on_step(self) -> bool:
        self.display.update(self.model.num_timesteps, *_measures(self.model))
        return True

    def _on_rollout_start(self) -> None:
        self._work()
        if self.stop.made:
            self._checkpoint()
            raise Interrupted

    def finish(self) -> None:
        """Everything that a finished run leaves behind, but for pictures."""
        self._work(last=True)
        with replacing(self.run.archive) as temporary:
            self.model.save(temporary)
        if (normalizer := self.model.get_vec_normalize_env()) is not None:
            with replacing(self.run.normalizer) as temporary:
                normalizer.save(str(temporary))

    def _work(self, last: bool = False) -> None:
        self.seconds += time.perf_counter() - self.resumed
        training = self.config.training
        # A run that was killed after its last evaluation has it already.
        last_evaluation = last and not self.evaluations.has(self.model.num_timesteps)
        evaluation_due = last_evaluation or self._is_due(training.evaluate_every)
        if evaluation_due:
            self._evaluate()
        if evaluation_due or self._is_due(training.log_every):
            self.model.dump_logs()
        if last or self._is_due(training.checkpoint_every):
            self._checkpoint()
        self.previous = self.model.num_timesteps
        self.resumed = time.perf_counter()

    def _is_due(self, period: int) -> bool:
        return self.model.num_timesteps // period > self.previous // period

    def _evaluate(self) -> None:
        evaluation = evaluate(
            self.model,
            lambda: make_environment(self.config.env),
            self.config.training.evaluation_episodes,
        )
        steps = self.model.num_timesteps
        summary = evaluation.summary()
        seconds = {"training_seconds": round(self.seconds, 3)}
        self.evaluations.append({"steps": steps} | summary | seconds)
        for name, value in summary.items():
            self.model.logger.record(f"eval/{name}", value)
        self.display.say(f"step {steps}: return {evaluation}")

    def _checkpoint(self) -> None:
        save_checkpoint(self.model, self.run.checkpoints, self.exact, self.seconds)
        save_portable(self.model, self.config, self.run.path)


def _measures(model: OffPolicyAlgorithm) -> list[str]:
    """What is shown beside the progress of a run."""
    measures = []
    if model.ep_info_buffer:
        measures.append(f"return {model.ep_info_buffer[-1]['r']:.1f}")
    if (gap := model.logger.name_to_value.get("solver/gap_mean")) is not None:
        measures.append(f"gap {gap:.1e}")
    return measures

"""What a training run does between its steps: evaluate, log, save, and stop on request."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from icnn_rl.agents.runs.checkpoint import begin_episode, restore_checkpoint, save_checkpoint
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.environments import make_environment
from icnn_rl.agents.runs.evaluation import LOGGED_AS, evaluate, play
from icnn_rl.agents.runs.outputs import AgentFolder, save_archive
from icnn_rl.agents.runs.portable import save_portable
from icnn_rl.agents.runs.records import Records
from icnn_rl.runs.configuration import to_plain
from icnn_rl.runs.monitoring import ProgressDisplay
from icnn_rl.runs.process import Interrupted, StopRequest


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
            envs = [training_environment(model)]
            evaluation = play(model, envs, training, watch=self._watch)
            assert model.env is not None
            model.env.seed(self._config.seed + steps)
            begin_episode(model)
        else:
            make = partial(make_environment, self._config.env)
            evaluation = evaluate(model, make, training, watch=self._watch)
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

    def _watch(self, over: int) -> None:
        """Show how far an evaluation is, and leave it on request."""
        if self._stop.made:
            raise Interrupted
        episodes = self._config.training.evaluation_episodes
        self._display.update(self.model.num_timesteps, f"evaluation: {over} of {episodes} episodes")

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


def training_environment(model: OffPolicyAlgorithm) -> gym.Env[Any, Any]:
    """The one environment of training, below what monitors it and scales its rewards."""
    assert model.env is not None
    envs = model.env.unwrapped
    assert isinstance(envs, DummyVecEnv)
    env = envs.envs[0]
    while not isinstance(env, Monitor):
        assert isinstance(env, gym.Wrapper)
        env = env.env
    return env.env

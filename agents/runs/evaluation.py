"""Evaluation of an agent: episodes of its greedy policy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from icnn_rl.agents.runs.config import TrainingConfig
from icnn_rl.runs.process import preserved_random_state

EVALUATION_SEED = 1_000_000  # of the first episode, far from the seeds of training
LOGGED_AS = {  # what an evaluation's summary is called in the log, as in stable-baselines3
    "return_mean": "mean_reward",
    "return_std": "std_reward",
    "return_min": "min_reward",
    "return_max": "max_reward",
    "length_mean": "mean_ep_length",
    "success_rate": "success_rate",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns (in the task's own rewards) and lengths of episodes.

    Attributes:
        returns: of shape (episodes,).
        lengths: of shape (episodes,), in steps.
        successes: of shape (episodes,), 1 where the task reported one; None if it reports none.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray | None = None

    def summary(self) -> dict[str, float]:
        """Mean and spread."""
        summary = {
            "return_mean": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "return_min": float(self.returns.min()),
            "return_max": float(self.returns.max()),
            "length_mean": float(self.lengths.mean()),
        }
        if self.successes is not None:
            summary["success_rate"] = float(self.successes.mean())
        return summary

    def __str__(self) -> str:
        success = "" if self.successes is None else f", success {self.successes.mean():.0%}"
        return f"{self.returns.mean():.2f} ± {self.returns.std():.2f}{success}"


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The episodes of several evaluations as one."""
    successes = [part.successes for part in parts if part.successes is not None]
    return Evaluation(
        np.concatenate([part.returns for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate(successes) if len(successes) == len(parts) else None,
    )


def evaluate(
    model: OffPolicyAlgorithm,
    make: Callable[[], gym.Env[Any, Any]],
    training: TrainingConfig,
    seed: int = EVALUATION_SEED,
    watch: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Play episodes with the greedy policy, in environments of their own; see ``play``."""
    with opened(make, training) as envs:
        return play(model, envs, training, seed, watch)


@contextmanager
def opened(
    make: Callable[[], gym.Env[Any, Any]], training: TrainingConfig
) -> Iterator[list[gym.Env[Any, Any]]]:
    """The environments of an evaluation; they are closed on leaving."""
    count = min(max(training.evaluation_envs, 1), training.evaluation_episodes)
    with ExitStack() as stack:
        yield [stack.enter_context(closing(make())) for _ in range(count)]


def try_out(model: OffPolicyAlgorithm, envs: Sequence[gym.Env[Any, Any]]) -> None:
    """Make one step in each environment of an evaluation."""
    with preserved_random_state():
        observations = [env.reset(seed=EVALUATION_SEED)[0] for env in envs]
        for env, action in zip(envs, greedy_actions(model, observations), strict=True):
            env.step(action)


def play(
    model: OffPolicyAlgorithm,
    envs: Sequence[gym.Env[Any, Any]],
    training: TrainingConfig,
    seed: int = EVALUATION_SEED,
    watch: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Play episodes with the greedy policy; global random states are preserved.

    Args:
        model: the agent; observations are normalised as in its training.
        envs: they play side by side, each one episode after the other.
        training: how many episodes, and after how many steps one without a time limit is cut.
        seed: of the first episode; each has the next one.
        watch: is called at each step with the number of episodes that are over.
    """
    episodes, cap = training.evaluation_episodes, training.evaluation_max_steps
    returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=int)
    successes: dict[int, float] = {}
    over, cut, todo = 0, 0, iter(range(episodes))
    playing: dict[int, tuple[int, Any]] = {}  # of an environment: its episode and observation

    def begin(k: int) -> None:
        playing.pop(k, None)
        if (episode := next(todo, None)) is not None:
            playing[k] = episode, envs[k].reset(seed=seed + episode)[0]

    with preserved_random_state():
        for k in range(len(envs)):
            begin(k)
        while playing:
            actions = greedy_actions(model, [observation for _, observation in playing.values()])
            for (k, (i, _)), action in zip(list(playing.items()), actions, strict=True):
                watch(over)
                observation, reward, terminated, truncated, info = envs[k].step(action)
                playing[k] = i, observation
                returns[i] += reward
                lengths[i] += 1
                ended = terminated or truncated
                if ended or (lengths[i] >= cap and not has_time_limit(envs[k])):
                    over, cut = over + 1, cut + (not ended)
                    if "is_success" in info:
                        successes[i] = float(info["is_success"])
                    begin(k)
    if cut:
        logger.warning(
            "%d of %d episodes were cut, as they did not end in %d steps "
            "(training.evaluation_max_steps)",
            *(cut, episodes, cap),
        )
    reported = len(successes) == episodes
    found = np.array([successes[i] for i in range(episodes)]) if reported else None
    return Evaluation(returns, lengths, found)


def has_time_limit(env: gym.Env[Any, Any]) -> bool:
    """Whether episodes of a task end by themselves, as Gymnasium knows it."""
    return env.spec is not None and env.spec.max_episode_steps is not None


def greedy_actions(model: OffPolicyAlgorithm, observations: list[Any]) -> np.ndarray:
    """The agent's actions for several observations of the task, in one batch."""
    batch: Any = (
        {key: np.stack([o[key] for o in observations]) for key in observations[0]}
        if isinstance(observations[0], dict)
        else np.stack(observations)
    )
    normalizer = model.get_vec_normalize_env()
    if isinstance(normalizer, VecNormalize):
        batch = normalizer.normalize_obs(batch)
    return model.predict(batch, deterministic=True)[0]

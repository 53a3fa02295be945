"""Evaluation of an agent: episodes of its greedy policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from icnn_rl.runs.process import preserved_random_state

EVALUATION_SEED = 1_000_000  # of the first episode, far from the seeds of training


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns (in the task's own rewards) and lengths of episodes.

    Attributes:
        returns: of shape (episodes,).
        lengths: of shape (episodes,), in steps.
    """

    returns: np.ndarray
    lengths: np.ndarray

    def summary(self) -> dict[str, float]:
        """Mean and spread."""
        return {
            "return_mean": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "return_min": float(self.returns.min()),
            "return_max": float(self.returns.max()),
            "length_mean": float(self.lengths.mean()),
        }

    def __str__(self) -> str:
        return f"{self.returns.mean():.2f} ± {self.returns.std():.2f}"


def evaluate(
    model: OffPolicyAlgorithm,
    make: Callable[[], gym.Env[Any, Any]],
    episodes: int,
    seed: int = EVALUATION_SEED,
) -> Evaluation:
    """Play episodes side by side with the greedy policy; global random states are preserved.

    Args:
        model: the agent; observations are normalised as in its training.
        make: builds the task.
        episodes: how many; each has its own environment, and the next seed.
        seed: of the first episode.
    """
    returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=int)
    with preserved_random_state():
        envs = {i: make() for i in range(episodes)}
        try:
            observations = {i: env.reset(seed=seed + i)[0] for i, env in envs.items()}
            while observations:
                actions = greedy_actions(model, list(observations.values()))
                for i, action in zip(list(observations), actions, strict=True):
                    observations[i], reward, terminated, truncated, _ = envs[i].step(action)
                    returns[i] += reward
                    lengths[i] += 1
                    if terminated or truncated:
                        del observations[i]
        finally:
            for env in envs.values():
                env.close()
    return Evaluation(returns, lengths)


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

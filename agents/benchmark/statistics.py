"""Statistics of a few runs of each algorithm on each task.

Definitions of Agarwal, Schwarzer, Castro, Courville & Bellemare, "Deep Reinforcement Learning at
the Edge of the Statistical Precipice", NeurIPS 2021; rliable, their library, is archived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import trim_mean

Scores = Sequence[np.ndarray]  # for each task the scores of its runs, of shape (runs,)


def interquartile_mean(scores: Scores) -> float:
    """The mean of the middle half of all runs on all tasks.

    Each task has the same weight: where tasks have different numbers of runs, runs are repeated.
    """
    count = np.lcm.reduce([runs.size for runs in scores])
    repeated = [np.repeat(runs, count // runs.size) for runs in scores]
    return float(trim_mean(np.concatenate(repeated), 0.25))


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """The probability that a run of the first algorithm is better than one of the second.

        1/T Σ_t P(X_t > Y_t) + P(X_t = Y_t) / 2

    over the T tasks. Each term is the Mann-Whitney statistic divided by the number of pairs.
    """
    # scipy.stats.mannwhitneyu is too slow for thousands of resamples.
    differences = (x[:, None] - y for x, y in zip(first, second, strict=True))
    return float(np.mean([(1 + np.sign(d).mean()) / 2 for d in differences]))


def bootstrap_interval(
    statistic: Callable[..., float], *scores: Scores, resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % percentile interval of a statistic under the stratified bootstrap.

    ``scipy.stats.bootstrap`` refuses a task with a single run.

    Args:
        statistic: function of the scores of one or more algorithms.
        scores: of each algorithm. The runs of each task are resampled separately.
        resamples: number of resamples.
        seed: of the resamples.

    Returns:
        The interval; None if every task has a single run, whose spread is unknown.
    """
    if all(runs.size == 1 for algorithm in scores for runs in algorithm):
        return None
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(*([generator.choice(runs, runs.size) for runs in part] for part in scores))
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def mean(scores: Scores) -> float:
    """The mean over tasks of the mean over runs."""
    return float(np.mean([runs.mean() for runs in scores]))

"""What can be said of a few runs of each algorithm on each task.

Definitions of Agarwal, Schwarzer, Castro, Courville & Bellemare, "Deep Reinforcement Learning at
the Edge of the Statistical Precipice", NeurIPS 2021; rliable, their library, is archived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import trim_mean

RESAMPLES = 2000
CONFIDENCE = 0.95

Scores = Sequence[np.ndarray]  # of each task its runs' scores, of shape (runs,)
Interval = tuple[float, float]


def interquartile_mean(scores: Scores) -> float:
    """The mean of the middle half of all runs on all tasks.

    Where tasks have different numbers of runs, each task counts the same: runs are repeated.
    """
    count = np.lcm.reduce([runs.size for runs in scores])
    repeated = [np.repeat(runs, count // runs.size) for runs in scores]
    return float(trim_mean(np.concatenate(repeated), 0.25))


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """How probably a run of the first algorithm is better than one of the second.

        1/T Σ_t P(X_t > Y_t) + P(X_t = Y_t) / 2

    over the T tasks; each probability is Mann and Whitney's statistic over the number of pairs.
    """
    # Counted, as scipy's mannwhitneyu is too slow for thousands of resamples.
    differences = (x[:, None] - y for x, y in zip(first, second, strict=True))
    return float(np.mean([(1 + np.sign(d).mean()) / 2 for d in differences]))


def bootstrap_interval(
    statistic: Callable[..., float], *scores: Scores, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """The 95 % percentile interval of a statistic under the stratified bootstrap.

    Args:
        statistic: function of as many sets of scores as are given.
        scores: of an algorithm each; the runs of each task are drawn anew with replacement.
        resamples: how often.
        seed: of the draws.

    Returns:
        The interval; None where every task has a single run, of whose spread nothing is known.
    """
    if all(runs.size == 1 for algorithm in scores for runs in algorithm):
        return None
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(*([generator.choice(runs, runs.size) for runs in part] for part in scores))
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def mean(scores: Scores) -> float:
    """The mean over tasks of the mean over runs."""
    return float(np.mean([runs.mean() for runs in scores]))

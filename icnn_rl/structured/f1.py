"""F1 of sets of labels: measured, and made large by the choice of a threshold or of the labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score

from icnn_rl.kernels.compiling import compiled

Array = npt.NDArray[Any]

THRESHOLDS = 1 / (1 + np.exp(-np.linspace(-4, 4, 41)))  # 0.018 to 0.982, every 0.2 in log-odds


class F1(NamedTuple):
    """F1 = 2 |A ∩ B| / (|A| + |B|) of true labels A and predicted ones B, averaged three ways.

    Attributes:
        example: over samples, A and B being the labels of one of them.
        micro: all pairs of a sample and a label counted together.
        macro: over labels, A and B being the samples that have one of them.
    """

    example: float
    micro: float
    macro: float


def f1_scores(truth: Array, predicted: Array) -> F1:
    """The three averages of F1, which is 0 if A and B are both empty.

    Args:
        truth: ``(N, L)``, 1 where a sample has a label and 0 elsewhere.
        predicted: likewise.
    """
    averages = ("samples", "micro", "macro")
    return F1(*(float(f1_score(truth, predicted, average=a, zero_division=0)) for a in averages))


class Threshold(NamedTuple):
    """A threshold, and its example-F1 on the samples that chose it."""

    value: float
    score: float


def tune_threshold(truth: Array, probabilities: Array) -> Threshold:
    """The threshold in ``THRESHOLDS`` with the best example-F1.

    Args:
        truth: ``(N, L)``, 1 where a sample has a label and 0 elsewhere; not the training data.
        probabilities: ``(N, L)``.
    """
    labels = truth.sum(1)
    scores = []
    for threshold in THRESHOLDS:  # by hand: f1_score takes 30 times as long
        taken = probabilities > threshold
        size = taken.sum(1) + labels
        scores.append((2 * (taken * truth).sum(1) / np.maximum(size, 1)).mean())
    best = int(np.argmax(scores))
    return Threshold(float(THRESHOLDS[best]), float(scores[best]))


def best_expected_f1(probabilities: Array) -> Array:
    """The labels of each sample that maximise the expectation of its F1, ``(N, L)``.

    With independent labels these are the k most probable ones for some k ≥ 1. Let A be the number
    of labels that the sample has among these and B among the others. Then

        E[F1] = Σₐ P(A = a) · 2a · E[1 / (k + a + B)],

    where E[1 / (v + B)] for all v follows from label to label, from the least probable one up.

    Args:
        probabilities: ``(N, L)``.

    Source: Ye, Chai, Lee & Chieu, "Optimizing F-measures: a tale of two approaches", ICML 2012,
    section 4.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    size = best_sizes(np.take_along_axis(probabilities, order, 1).astype(np.float64))
    taken: Array = np.zeros(probabilities.shape, np.int64)
    np.put_along_axis(taken, order, np.arange(taken.shape[1]) < size[:, None], 1)
    return taken


@compiled
def best_sizes(p):  # type: ignore[no-untyped-def]
    """k for each row of decreasing probabilities."""
    samples, n = p.shape
    sizes = np.empty(samples, np.int64)
    of_size = np.empty((n, n))  # at k - 1, a - 1: E[1 / (k + a + B)]
    for i in range(samples):
        inverse = 1.0 / np.arange(1, 2 * n + 1)  # at v - 1: E[1 / (v + B)]
        for k in range(n, 0, -1):
            of_size[k - 1, :k] = inverse[k : 2 * k]
            q = p[i, k - 1]
            for v in range(2 * k - 2):
                inverse[v] = q * inverse[v + 1] + (1 - q) * inverse[v]
        count = np.zeros(n + 1)  # P(A = a)
        count[0] = 1.0
        best = -1.0
        for k in range(1, n + 1):
            q = p[i, k - 1]
            expected = 0.0
            for a in range(k, 0, -1):
                count[a] = q * count[a - 1] + (1 - q) * count[a]
                expected += 2 * a * count[a] * of_size[k - 1, a - 1]
            count[0] *= 1 - q
            if expected > best:
                best = expected
                sizes[i] = k
    return sizes


def choose(p: Array, threshold: float | None) -> Array:
    """The labels above a threshold or, without one, with the best expected F1, ``(N, L)``."""
    return best_expected_f1(p) if threshold is None else np.asarray(p > threshold, np.int64)

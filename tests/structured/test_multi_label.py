"""Sets of labels: their measures, the estimator, and what it does with bad input."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import torch
from numpy.random import default_rng
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from icnn_rl.functions import ConvexFunction
from icnn_rl.structured.f1 import best_expected_f1, f1_scores, tune_threshold
from icnn_rl.structured.multi_label import (
    ENTROPY,
    ICNNMultiLabelClassifier,
    LabelErrors,
    label_network,
)

Array = npt.NDArray[Any]

QUICK = ICNNMultiLabelClassifier(
    context=(32,), convex=(16,), epochs=10, batch_size=32, learning_rate=1e-2, random_state=0
)


def exclusive_labels(samples: int, seed: int) -> tuple[Array, Array]:
    """Either labels 0 and 1 or labels 2 and 3, as x tells; where it does not, never a mixture."""
    random = default_rng(seed)
    first = random.random(samples) < 0.5
    x = random.normal(size=(samples, 3)) * 0.4
    x[:, 0] += np.where(random.random(samples) < 0.6, np.where(first, 1.0, -1.0), 0.0)
    labels = np.column_stack([first, first, ~first, ~first, x[:, 1] > 0]).astype(int)
    return x, labels


@pytest.fixture(scope="module")
def fitted() -> ICNNMultiLabelClassifier:
    return clone(QUICK).fit(*exclusive_labels(400, 0))


def test_f1_by_hand() -> None:
    truth = np.array([[1, 1, 0], [0, 0, 1], [0, 1, 0]])
    predicted = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0]])
    example, micro, macro = f1_scores(truth, predicted)
    assert example == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert micro == pytest.approx(2 * 3 / (4 + 4))
    assert macro == pytest.approx((1 + 2 / 4 + 1) / 3)


def test_tuned_threshold_is_the_best_of_all() -> None:
    random = default_rng(0)
    p = random.random((200, 6))
    truth = (random.random((200, 6)) < p**3).astype(int)
    tuned = tune_threshold(truth, p)
    scores = [f1_scores(truth, (p > t).astype(int)).example for t in np.linspace(0.02, 0.98, 97)]
    assert tuned.score == pytest.approx(f1_scores(truth, (p > tuned.value).astype(int)).example)
    assert tuned.score >= max(scores) - 0.01
    assert tuned.value > 0.5


def test_best_expected_f1_against_enumeration() -> None:
    p = default_rng(1).random((8, 5)) ** 2
    sets = np.array(list(product((0, 1), repeat=5)))
    chance = np.where(sets, p[:, None], 1 - p[:, None]).prod(-1)
    overlap = sets @ sets.T
    size = sets.sum(1)
    f1 = 2 * overlap / np.maximum(size[:, None] + size, 1)
    expected = chance @ f1  # of answering each set
    code = best_expected_f1(p) @ (2 ** np.arange(5)[::-1])
    reached = expected[np.arange(8), code]
    np.testing.assert_allclose(reached, expected.max(1), rtol=1e-12)


def test_margin_is_the_cost_of_the_errors() -> None:
    errors = LabelErrors(missed=3.0, extra=2.0)
    target = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    answer = torch.tensor([[1.0, -1.0, 1.0, 1.0]])
    assert errors.distance(target, answer).item() == 3.0 + 2 * 2.0
    assert errors.distance(target, target).item() == 0.0
    with pytest.raises(ValueError, match="missed, extra"):
        LabelErrors(missed=-1.0)


def test_dropout_acts_while_training_alone() -> None:
    torch.manual_seed(0)
    net = label_network(6, 3, (16,), (8,), "softplus", dropout=0.5)
    x, y = torch.randn(4, 6), torch.randn(4, 3)

    def value() -> torch.Tensor:
        f: ConvexFunction = net.condition(x)
        return f.value(y)

    assert not torch.equal(value(), value())
    net.eval()
    assert torch.equal(value(), value())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("loss", ["log_likelihood", "max_margin"])
def test_scikit_learn_contract(loss: str) -> None:
    check_estimator(clone(QUICK).set_params(loss=loss, epochs=5))


def test_labels_that_go_together(fitted: ICNNMultiLabelClassifier) -> None:
    x, labels = exclusive_labels(400, 1)
    predicted = fitted.predict(x)
    assert predicted.shape == labels.shape
    mixed = (predicted[:, :2].sum(1) > 0) == (predicted[:, 2:4].sum(1) > 0)
    assert mixed.mean() < 0.1
    assert f1_scores(labels, predicted).example > 0.75
    assert (predicted[:, 4] == labels[:, 4]).mean() > 0.9


def test_answers_are_certified_and_energies_tell_right_from_wrong(
    fitted: ICNNMultiLabelClassifier,
) -> None:
    x, labels = exclusive_labels(100, 2)
    solution = fitted.infer(x)
    assert (solution.gap <= fitted.tol).all()
    p = fitted.predict_proba(x)
    np.testing.assert_allclose(p, (1 + solution.y.numpy()) / 2)
    entropy = ENTROPY.value(solution.y).numpy()
    assert (fitted.energy(x, labels) >= solution.lower_bound.numpy() - 1e-9).all()
    assert (solution.value.numpy() <= fitted.energy(x, p > 0.5) + 1e-9).all()
    assert np.isfinite(entropy).all()
    assert (fitted.energy(x, labels) < fitted.energy(x, 1 - labels)).mean() > 0.9
    np.testing.assert_allclose(1 / (1 + np.exp(-fitted.decision_function(x))), p, atol=1e-6)


@pytest.mark.parametrize("loss", ["soft_margin", "max_margin"])
def test_a_dear_miss_makes_more_labels(loss: str) -> None:
    x, labels = exclusive_labels(200, 0)
    cheap, dear = (
        clone(QUICK).set_params(loss=loss, missed=missed).fit(x, labels).predict(x).sum()
        for missed in (0.2, 5.0)
    )
    assert dear > cheap


@pytest.mark.parametrize("threshold", ["tuned", "expected_f1"])
def test_ways_to_choose_labels(threshold: str) -> None:
    x, labels = exclusive_labels(200, 0)
    model = clone(QUICK).set_params(threshold=threshold, validation_fraction=0.3, patience=3)
    predicted = model.fit(x, labels).predict(x)
    p = model.predict_proba(x)
    if threshold == "tuned":
        assert 0 < model.threshold_ < 1
        np.testing.assert_array_equal(predicted, p > model.threshold_)
    else:
        np.testing.assert_array_equal(predicted, best_expected_f1(p))
        assert (predicted.sum(1) >= 1).all()


def test_sparse_matrices_are_taken_as_they_are() -> None:
    x, labels = exclusive_labels(60, 0)
    x = np.where(x > 0.3, x, 0.0)
    dense, sparse = clone(QUICK).fit(x, labels), clone(QUICK)
    sparse.fit(sp.csr_array(x), sp.csr_matrix(labels))
    np.testing.assert_array_equal(dense.predict_proba(x), sparse.predict_proba(sp.csr_matrix(x)))


def test_pipeline_cross_validation_and_grid_search() -> None:
    x, labels = exclusive_labels(150, 0)
    pipeline = make_pipeline(StandardScaler(), clone(QUICK))
    assert cross_val_score(pipeline, x, labels, cv=3, scoring="f1_samples").mean() > 0.6
    grid = {"icnnmultilabelclassifier__threshold": [0.3, 0.5]}
    search = GridSearchCV(pipeline, grid, cv=2, scoring="f1_micro").fit(x, labels)
    assert search.best_params_.keys() == grid.keys()


def test_a_label_that_nobody_has_is_not_predicted() -> None:
    x, labels = exclusive_labels(200, 0)
    labels[:, 4] = 0
    assert clone(QUICK).fit(x, labels).predict(x)[:, 4].sum() == 0


X, Y = exclusive_labels(20, 0)


@pytest.mark.parametrize(
    ("parameters", "x", "y", "message"),
    [
        ({}, X, 2 * Y, "y: expected an indicator matrix"),
        ({}, X, Y + 0.5, "continuous"),
        ({}, X, Y[:, 0] + np.arange(20) % 3, "Only binary"),
        ({}, X[:, :0], Y, "0 feature"),
        ({}, X[:0], Y[:0], "0 sample"),
        ({}, np.where(X > 0, np.nan, X), Y, "NaN"),
        ({"loss": "hinge"}, X, Y, "loss: expected one of"),
        ({"threshold": "best"}, X, Y, "threshold: expected 'tuned'"),
        ({"threshold": 2.0}, X, Y, "threshold: expected 'tuned'"),
        ({"threshold": "tuned"}, X, Y, "validation_fraction: expected a number > 0"),
        ({"missed": -1.0}, X, Y, "missed, extra: expected costs >= 0"),
        ({"convexity": "none"}, X, Y, "convexity: expected 'partial' or 'full'"),
    ],
)
def test_bad_input(parameters: dict[str, Any], x: Array, y: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clone(QUICK).set_params(**parameters).fit(x, y)


def test_energies_need_a_set_for_each_sample(fitted: ICNNMultiLabelClassifier) -> None:
    with pytest.raises(ValueError, match=r"y: expected shape \(20, 5\), got \(19, 5\)"):
        fitted.energy(X, Y[:-1])

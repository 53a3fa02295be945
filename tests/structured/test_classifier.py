"""ICNNClassifier: a scikit-learn estimator, its classes minima of certified energies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from icnn_rl.structured.classifier import ICNNClassifier

TINY = {"context": (20,), "convex": (10,), "epochs": 10, "learning_rate": 1e-2, "random_state": 0}
SMALL = TINY | {"context": (30,), "convex": (20,), "batch_size": 8, "epochs": 20}
LOSSES = ("max_margin", "log_likelihood", "implicit", "unrolled")
X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)


@parametrize_with_checks([ICNNClassifier(**TINY)])
def test_it_is_a_scikit_learn_estimator(estimator: ICNNClassifier, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("convexity", ["partial", "full"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_convexity_learns(loss: str, convexity: Any) -> None:
    estimator = ICNNClassifier(loss=loss, convexity=convexity, **SMALL).fit(X[::2], Y[::2])
    assert estimator.score(X, Y) > 0.9
    assert len(estimator.history_) == 20
    assert (estimator.predict(X) == estimator.decision_function(X).argmax(1)).all()


def test_classes_are_minima_over_the_simplex() -> None:
    estimator = ICNNClassifier(**SMALL).fit(X, Y)
    solution, energies = estimator.infer(X), estimator.energies(X)
    assert solution.converged.all()
    assert solution.gap.max() <= estimator.tol
    assert (solution.y.sum(-1) - 1).abs().max() < 1e-9
    assert (solution.value.numpy() <= energies.min(1) + estimator.tol).all()
    assert (estimator.predict(X) == energies.argmin(1)).all()
    at_vertex = (solution.y.amax(-1) > 0.999).numpy()
    assert at_vertex.mean() > 0.8
    assert (solution.y.argmax(-1).numpy() == energies.argmin(1))[at_vertex].all()
    np.testing.assert_allclose(estimator.decision_function(X), -energies)


def test_the_log_likelihood_gives_probabilities() -> None:
    estimator = ICNNClassifier(loss="log_likelihood", **SMALL | {"batch_size": 16}).fit(X, Y)
    p = estimator.predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p >= 0).all()
    assert (estimator.predict(X) == p.argmax(1)).all()
    assert p[np.arange(len(Y)), Y].mean() > 0.8
    assert not hasattr(ICNNClassifier(), "predict_proba")


def test_two_classes_of_any_name_have_one_score() -> None:
    rows = Y < 2
    names = np.array(["a b", "c"])[Y[rows]]
    estimator = ICNNClassifier(**SMALL).fit(X[rows], names)
    scores = estimator.decision_function(X[rows])
    assert scores.shape == (100,)
    assert (estimator.predict(X[rows]) == np.where(scores > 0, "c", "a b")).all()
    assert estimator.score(X[rows], names) == 1


def test_pipelines_cross_validation_and_grid_search() -> None:
    pipeline = make_pipeline(StandardScaler(), ICNNClassifier(**SMALL))
    assert cross_val_score(pipeline, X, Y, cv=2).mean() > 0.9
    grid = {"icnnclassifier__convexity": ["partial", "full"], "icnnclassifier__epochs": [10]}
    search = GridSearchCV(pipeline, grid, cv=2, refit=False).fit(X[::2], Y[::2])
    assert search.best_score_ > 0.8


def test_a_seed_makes_it_reproducible_and_leaves_global_generators_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    settings = SMALL | {"epochs": 2}
    first, again = (ICNNClassifier(**settings).fit(X, Y).energies(X) for _ in range(2))
    other = ICNNClassifier(**settings | {"random_state": 1}).fit(X, Y).energies(X)
    assert (first == again).all()
    assert not (first == other).all()
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_is_that_of_the_data(dtype: type) -> None:
    estimator = ICNNClassifier(**SMALL | {"epochs": 1}).fit(X.astype(dtype), Y)
    assert estimator.energies(X).dtype == dtype


def test_held_out_samples_choose_the_epoch() -> None:
    options = SMALL | {"epochs": 50, "validation_fraction": 0.3, "patience": 3}
    estimator = ICNNClassifier(**options).fit(X, Y)
    scores = [row["score"] for row in estimator.history_]
    assert len(scores) == int(np.argmax(scores)) + 1 + 3
    assert max(scores) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss: expected one of .*max_margin.*got 'hinge'"),
        ({"convexity": "none"}, "convexity: expected 'partial' or 'full', got 'none'"),
        ({"activation": "tanh"}, "activation: expected a convex, non-decreasing function"),
        ({"convex": ()}, "convex: expected at least one hidden layer"),
        ({"epochs": 0}, "epochs: expected a number >= 1"),
        ({"validation_fraction": 1.0}, "validation_fraction: expected a share"),
        ({"validation_fraction": -0.1}, "validation_fraction: expected a share"),
    ],
)
def test_wrong_parameters_are_refused(options: dict[str, Any], message: str) -> None:
    estimator = clone(ICNNClassifier(**SMALL)).set_params(**options)
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, Y)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.where(X > 2, np.nan, X), Y, "contains NaN"),
        (np.where(X > 2, np.inf, X), Y, "contains infinity"),
        (X, np.where(Y > 1, np.nan, Y), "NaN"),
        (X, np.zeros_like(Y), "expected two classes or more, got one class, 0"),
        (X[:0], Y[:0], "0 sample"),
        (X[:, :0], Y, "0 feature"),
        (X, Y[1:], "inconsistent numbers of samples"),
        (X, Y + 0.5, "Unknown label type"),
        (X, np.eye(3)[Y], "should be a 1d array"),
    ],
)
def test_bad_data_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ICNNClassifier(**SMALL).fit(x, y)


def test_predictions_ask_for_a_fit_and_its_width() -> None:
    estimator = ICNNClassifier(**SMALL | {"epochs": 1})
    with pytest.raises(NotFittedError):
        estimator.predict(X)
    estimator.fit(X, Y)
    for predict in (estimator.predict, estimator.energies, estimator.infer):
        with pytest.raises(ValueError, match="X has 3 features, but ICNNClassifier is expecting 4"):
            predict(X[:, :3])
        with pytest.raises(ValueError, match="contains NaN"):
            predict(np.full((1, 4), np.nan))


def test_divergence_is_said() -> None:
    with pytest.raises(FloatingPointError, match=r"training diverged in epoch .* rate below"):
        ICNNClassifier(**SMALL | {"learning_rate": 1e30}).fit(X, Y)

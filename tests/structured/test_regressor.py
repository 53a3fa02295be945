"""Regression: scikit-learn's conventions, several targets at once, answers with proven gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_friedman1
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from icnn_rl.structured.regressor import ICNNRegressor

TINY = {"context": (20,), "convex": (10,), "epochs": 30, "learning_rate": 1e-2, "random_state": 0}
X, FIRST = make_friedman1(300, 5, random_state=0)
Y = np.stack([FIRST, -2 * FIRST + X[:, 0]], 1)


@parametrize_with_checks([ICNNRegressor(**TINY)])
def test_it_is_a_scikit_learn_estimator(estimator: ICNNRegressor, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("loss", ["max_margin", "implicit", "unrolled"])
def test_every_loss_learns_two_targets(loss: str) -> None:
    settings = TINY | {"epochs": 100, "activation": "softplus"}
    estimator = ICNNRegressor(loss=loss, **settings).fit(X[:200], Y[:200])
    assert estimator.score(X[200:], Y[200:]) > 0.7


def test_answers_come_in_the_units_of_the_targets_with_their_gaps() -> None:
    estimator = ICNNRegressor(**TINY).fit(X, 100 * Y)
    solution = estimator.infer(X)
    assert np.array_equal(solution.y.numpy(), estimator.predict(X))
    assert solution.converged.all()
    assert (solution.gap >= 0).all()


def test_answers_stay_within_a_deviation_of_the_targets_seen() -> None:
    estimator = ICNNRegressor(**TINY).fit(X, Y)
    y = estimator.predict(1e3 * X)
    room = Y.std(0) * (1 + 1e-6)
    assert (y >= Y.min(0) - room).all()
    assert (y <= Y.max(0) + room).all()


def test_a_target_that_never_changes_is_learnt_as_such() -> None:
    constant = np.stack([FIRST, np.full_like(FIRST, 7.0)], 1)
    y = ICNNRegressor(**TINY).fit(X, constant).predict(X)
    assert np.abs(y[:, 1] - 7).max() < 1
    assert np.abs(y[:, 1] - 7).mean() < 0.1


def test_single_precision_learns_targets_far_from_zero() -> None:
    x, far = X.astype(np.float32), 1.7e9 + FIRST / FIRST.std()
    near = ICNNRegressor(**TINY).fit(x, far - 1.7e9).score(x, far - 1.7e9)
    assert ICNNRegressor(**TINY).fit(x, far).score(x, far) == pytest.approx(near, abs=1e-3)


def test_pipelines_and_grid_search() -> None:
    pipeline = make_pipeline(StandardScaler(), ICNNRegressor(**TINY))
    grid = {"icnnregressor__loss": ["max_margin", "unrolled"]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X[:200], FIRST[:200])
    assert search.best_score_ > 0.5
    assert search.predict(X).shape == (300,)


def test_bad_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ICNNRegressor(**TINY).fit(X, np.full(len(X), np.nan))
    with pytest.raises(ValueError, match="loss"):
        ICNNRegressor(loss="hinge", **TINY).fit(X, Y)

"""Imputation: what is filled, what is left alone, what is learnt, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from icnn_rl.structured.imputer import ICNNImputer, best_ridge, normal_distribution

Array = NDArray[np.float64]


@parametrize_with_checks([ICNNImputer(epochs=1)])  # type: ignore[untyped-decorator]
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def normal_rows(number: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Rows of a normal distribution in four dimensions, its mean and covariance."""
    random = np.random.default_rng(seed)
    root = np.array([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [0.5, -0.5, 0.7, 0], [0, 0.9, 0.1, 0.4]])
    mean = np.array([1.0, -2.0, 0.0, 3.0])
    return mean + random.standard_normal((number, 4)) @ root.T, mean, root @ root.T


def with_holes(rows: Array, share: float, seed: int = 0) -> tuple[Array, NDArray[np.bool_]]:
    holes = np.random.default_rng(seed).random(rows.shape) < share
    return np.where(holes, np.nan, rows), holes


def test_normal_distribution_of_complete_rows_is_their_mean_and_covariance() -> None:
    rows = normal_rows(500)[0]
    mean, covariance = normal_distribution(torch.tensor(rows), ridge=1e-9, tol=1e-9)
    assert np.allclose(mean, rows.mean(0))
    assert np.allclose(covariance, np.cov(rows.T, bias=True), atol=1e-8)


def test_normal_distribution_is_found_from_rows_with_holes() -> None:
    rows, mean, covariance = normal_rows(20_000)
    estimate = normal_distribution(torch.tensor(with_holes(rows, 0.3)[0]), ridge=1e-9)
    assert np.allclose(estimate[0], mean, atol=0.05)
    assert np.allclose(estimate[1], covariance, atol=0.05)


def test_normal_distribution_maximises_the_likelihood_of_what_is_known() -> None:
    rows = torch.tensor(with_holes(normal_rows(60)[0], 0.3)[0])
    mean, covariance = normal_distribution(rows, ridge=1e-9, tol=1e-10, max_iterations=10_000)
    mean.requires_grad_()
    covariance.requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        known = ~row.isnan()
        if known.any():
            part = torch.distributions.MultivariateNormal(mean[known], covariance[known][:, known])
            total = total + part.log_prob(row[known])
    slopes = torch.autograd.grad(total / len(rows), (mean, covariance))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-5


def test_the_best_ridge_suits_the_data() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    alike = random.standard_normal((200, 1)) + 1e-3 * random.standard_normal((200, 6))
    noise = random.standard_normal((12, 6))
    chosen = [best_ridge(torch.tensor(rows), (1e-3, 1.0), 0.2) for rows in (alike, noise)]
    assert chosen == [1e-3, 1.0]


def test_without_a_network_it_is_the_conditional_mean() -> None:
    rows, mean, covariance = normal_rows(20_000)
    imputer = ICNNImputer(epochs=0, ridge=1e-6).fit(rows)
    filled = imputer.transform([[np.nan, -1.5, np.nan, 3.0]])[0]
    gain = covariance[np.ix_([0, 2], [1, 3])] @ np.linalg.inv(covariance[np.ix_([1, 3], [1, 3])])
    expected = mean[[0, 2]] + gain @ (np.array([-1.5, 3.0]) - mean[[1, 3]])
    assert filled[[1, 3]].tolist() == [-1.5, 3.0]
    assert np.allclose(filled[[0, 2]], expected, atol=0.05)


@pytest.fixture(scope="module")
def fitted() -> tuple[ICNNImputer, Array]:
    x = with_holes(load_wine().data, 0.3)[0]
    return ICNNImputer(epochs=3, random_state=0).fit(x), x


def test_known_entries_stay_and_missing_ones_lie_in_their_columns_range(
    fitted: tuple[ICNNImputer, Array],
) -> None:
    imputer, x = fitted
    filled = imputer.transform(x)
    known = ~np.isnan(x)
    assert np.array_equal(filled[known], x[known])
    assert (filled >= np.nanmin(x, 0) - 1e-9).all()
    assert (filled <= np.nanmax(x, 0) + 1e-9).all()
    assert np.isnan(x).any()
    assert filled is not x


def test_answers_are_certified(fitted: tuple[ICNNImputer, Array]) -> None:
    imputer, x = fitted
    solution = imputer.infer(x)
    assert bool(solution.converged.all())
    assert float(solution.gap.max()) <= imputer.tol
    missing = np.isnan(x)
    filled = (imputer.transform(x) - imputer.center_) / imputer.scale_
    assert np.allclose(solution.y.numpy()[missing], filled[missing])
    f = imputer.model_.energy(torch.tensor((x - imputer.center_) / imputer.scale_))
    other = imputer.model_.over.project(solution.y + 0.3 * torch.randn_like(solution.y))
    assert bool((f.value(other) >= solution.lower_bound).all())


def test_rows_are_filled_one_by_one(fitted: tuple[ICNNImputer, Array]) -> None:
    imputer, x = fitted
    alone = np.concatenate([imputer.transform(row[None]) for row in x[:5]])
    assert np.allclose(alone, imputer.transform(x)[:5])


def test_a_row_without_known_entries_gets_the_unconditional_minimiser(
    fitted: tuple[ICNNImputer, Array],
) -> None:
    imputer, x = fitted
    filled = imputer.transform(np.full((2, x.shape[1]), np.nan))
    assert np.allclose(filled[0], filled[1], rtol=1e-12, atol=0)
    assert (np.abs(filled[0] - imputer.center_) < imputer.scale_).all()


def test_values_beyond_the_range_count_as_its_ends(fitted: tuple[ICNNImputer, Array]) -> None:
    imputer, x = fitted
    row = np.full((2, x.shape[1]), np.nan)
    row[:, 0] = np.nanmax(x[:, 0]), 1e30
    filled = imputer.transform(row)
    assert filled[1, 0] == 1e30
    assert np.allclose(filled[0, 1:], filled[1, 1:])


def test_the_network_learns_what_a_normal_distribution_cannot() -> None:
    random = np.random.default_rng(0)
    t = random.uniform(-1.5, 1.5, 300)
    x = np.column_stack([t, t**2]) + 0.05 * random.standard_normal((300, 2))
    x[::5, 1] = np.nan
    query = np.column_stack([np.linspace(-1.2, 1.2, 9), np.full(9, np.nan)])

    def error(imputer: Any) -> float:
        filled = imputer.fit(x).transform(query)
        return float(np.sqrt(np.mean((filled[:, 1] - query[:, 0] ** 2) ** 2)))

    normal = error(ICNNImputer(epochs=0))
    learnt = error(ICNNImputer(epochs=60, learning_rate=1e-2, random_state=0))
    assert normal > 0.5
    assert learnt < 0.25


def test_better_than_the_mean_and_the_neighbours() -> None:
    x = load_iris().data
    x = (x - x.mean(0)) / x.std(0)
    missing, holes = with_holes(x, 0.3)

    def error(imputer: Any) -> float:
        return float(np.sqrt(np.square(imputer.fit_transform(missing) - x)[holes].mean()))

    ours = error(ICNNImputer(epochs=20, random_state=0))
    assert ours < min(error(KNNImputer()), error(SimpleImputer()))


def test_the_random_state_decides_and_leaves_the_others_alone() -> None:
    x = with_holes(load_iris().data, 0.2)[0]
    before = torch.get_rng_state()
    first, again = (ICNNImputer(epochs=2, random_state=3).fit_transform(x) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(first, again)
    assert not np.array_equal(first, ICNNImputer(epochs=2, random_state=4).fit_transform(x))


def test_precision_follows_the_data() -> None:
    x = with_holes(load_iris().data, 0.2)[0].astype(np.float32)
    imputer = ICNNImputer(epochs=1).fit(x)
    assert imputer.transform(x).dtype == np.float32
    assert imputer.infer(x).y.dtype == torch.float32


def test_single_precision_keeps_the_scale_of_a_column_far_from_zero() -> None:
    pressure = np.random.default_rng(0).normal(101_325, 10, 200_000).astype(np.float32)
    imputer = ICNNImputer(epochs=0, ridge=0.01).fit(pressure[:, None])
    assert imputer.center_ == pytest.approx(pressure.mean(dtype=np.float64), abs=1e-3)
    assert imputer.scale_ == pytest.approx(pressure.std(dtype=np.float64), rel=1e-3)
    filled = imputer.transform(np.full((1, 1), np.nan, np.float32))
    assert filled.dtype == np.float32
    assert abs(filled[0, 0] - 101_325) < 1


def test_pipeline_grid_search_and_names() -> None:
    x, y = load_iris(return_X_y=True)
    x = with_holes(x, 0.3)[0]
    pipeline = make_pipeline(ICNNImputer(epochs=1, random_state=0), LogisticRegression())
    search = GridSearchCV(pipeline, {"icnnimputer__ridge": [0.01, 0.1]}, cv=2).fit(x, y)
    assert search.best_score_ > 0.7
    names = search.best_estimator_[0].get_feature_names_out(["a", "b", "c", "d"])
    assert names.tolist() == ["a", "b", "c", "d"]
    assert clone(pipeline[0]).get_params() == pipeline[0].get_params()


@pytest.mark.parametrize("rows", [1, 2])
def test_hardly_any_data(rows: int) -> None:
    x = np.array([[1.0, np.nan, 5.0], [3.0, 2.0, 5.0]])[-rows:]
    imputer = ICNNImputer(epochs=1, random_state=0).fit(x)
    filled = imputer.transform(np.full((1, 3), np.nan))[0]
    assert filled[1:].tolist() == [2.0, 5.0]  # columns of one value
    assert np.nanmin(x[:, 0]) <= filled[0] <= np.nanmax(x[:, 0])


def test_more_columns_than_rows_and_equal_columns() -> None:
    x = np.random.default_rng(0).standard_normal((20, 1)).repeat(70, axis=1)
    imputer = ICNNImputer(epochs=1, random_state=0).fit(x)
    row = np.full((1, 70), np.nan)
    row[0, :2] = 0.5
    assert np.allclose(imputer.transform(row), 0.5, atol=0.1)
    assert bool(imputer.infer(row).converged.all())


X = np.arange(12.0).reshape(4, 3)
EMPTY = np.where([False, True, False], np.nan, X)
INFINITE = np.where(X == 4, np.inf, X)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (EMPTY, "a known entry in every column, got only NaN in 1"),
        (np.full((4, 3), np.nan), "a known entry in every column, got only NaN in 0, 1, 2"),
        (INFINITE, "infinity"),
        (X[:0], "0 sample"),
        (X[0], "Expected 2D array"),
        ([["a", "b"]], "could not convert string"),
    ],
)
def test_bad_data(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ICNNImputer(epochs=1).fit(x)


@pytest.mark.parametrize(
    ("x", "message"), [(X[:, :2], "2 features"), (INFINITE, "infinity"), (X[:0], "0 sample")]
)
def test_bad_data_after_fitting(x: Any, message: str) -> None:
    imputer = ICNNImputer(epochs=1).fit(X)
    for method in (imputer.transform, imputer.infer):
        with pytest.raises(ValueError, match=message):
            method(x)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ridge": 0.0}, "ridge: expected None or a number > 0"),
        ({"epochs": -1}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"tol": -1.0}, "tol"),
        ({"context": (0,)}, "context"),
        ({"convex": ()}, "convex"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ICNNImputer(**{"epochs": 1, **parameters}).fit(X)


def test_a_learning_rate_that_diverges_says_so() -> None:
    x = with_holes(load_iris().data, 0.2)[0]
    with pytest.raises(FloatingPointError, match="learning rate"):
        ICNNImputer(epochs=20, learning_rate=1e30, random_state=0).fit(x)


def test_training_can_be_followed_from_outside() -> None:
    x, _ = load_iris(return_X_y=True)
    known, holes = with_holes(x, 0.3)
    imputer = ICNNImputer(epochs=2, random_state=0)
    trainer = imputer.trainer(known)
    before = imputer.transform(known)
    for done, _ in enumerate(trainer.run(), 1):
        assert trainer.step == done
    after = imputer.transform(known)
    assert trainer.done
    assert np.abs(after - before)[holes].max() > 1e-3
    assert np.array_equal(after[~holes], known[~holes])
    mean = SimpleImputer().fit_transform(known)
    assert np.square(after - x)[holes].mean() < 0.8 * np.square(mean - x)[holes].mean()
    with pytest.raises(ValueError, match="epochs: expected a number >= 1, got 0"):
        ICNNImputer(epochs=0).trainer(known)

"""What all estimators share: a fit that fails changes nothing, a wrong device is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from icnn_rl.structured import (
    ICNNClassifier,
    ICNNImputer,
    ICNNMultiLabelClassifier,
    ICNNRegressor,
)

RANDOM = np.random.default_rng(0)
X, WIDER = RANDOM.standard_normal((40, 3)), RANDOM.standard_normal((40, 5))
SETTINGS = {"context": (8,), "convex": (8,), "epochs": 2, "random_state": 0}
CLASSES, LABELS = X[:, 0] > 0, (WIDER > 0).astype(int)
# An estimator, its targets, and those of another fit.
CASES = {
    "classifier": (ICNNClassifier(**SETTINGS), CLASSES, WIDER.argmax(1)),
    "multi-label": (
        ICNNMultiLabelClassifier(**SETTINGS, threshold="tuned", validation_fraction=0.2),
        LABELS[:, :3],
        LABELS,
    ),
    "regressor": (ICNNRegressor(**SETTINGS), X[:, 0], 5 * WIDER[:, :2] + 3),
    "imputer": (ICNNImputer(**SETTINGS), None, None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fit_that_fails_leaves_the_estimator_as_it_was(case: str) -> None:
    estimator, y, other = CASES[case]
    answer = estimator.fit(X, y).infer(X).y
    before = dict(vars(estimator))
    estimator.set_params(learning_rate=1e30, epochs=20)
    with pytest.raises(FloatingPointError, match="training diverged in epoch"):
        estimator.fit(WIDER, other)
    estimator.set_params(learning_rate=before["learning_rate"], epochs=2)
    assert vars(estimator).keys() == before.keys()
    assert all(vars(estimator)[name] is value for name, value in before.items())
    assert estimator.infer(X).y.equal(answer)


@pytest.mark.parametrize("device", ["meta", "nowhere"])
@pytest.mark.parametrize("case", CASES)
def test_a_device_that_does_not_work_is_refused(case: str, device: str) -> None:
    estimator, y, _ = CASES[case]
    copy: Any = type(estimator)(**(estimator.get_params() | {"device": device}))
    with pytest.raises(ValueError, match=f"device: expected one .*, got '{device}'"):
        copy.fit(X, y)
    with pytest.raises(NotFittedError):
        copy.infer(X)

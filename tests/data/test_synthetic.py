from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from icnn_rl.data import SYNTHETIC, make_synthetic


@pytest.mark.parametrize("name", SYNTHETIC)
def test_sets_fill_the_square_and_need_a_curved_boundary(name: str) -> None:
    x, y = make_synthetic(name, n=400, seed=1)
    assert x.shape == (400, 2)
    assert x.dtype == np.float64
    assert 0.85 < np.abs(x).max() <= 1.0
    assert np.bincount(y).min() > 80
    unseen, classes = make_synthetic(name, n=400, seed=2)
    assert KNeighborsClassifier(3).fit(x, y).score(unseen, classes) > 0.97
    assert LogisticRegression().fit(x, y).score(x, y) < 0.92


@pytest.mark.parametrize("name", SYNTHETIC)
def test_the_seed_decides(name: str) -> None:
    first, again, other = (make_synthetic(name, noise=0.05, seed=s)[0] for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "wrong", [{"name": "sphere"}, {"n": 0}, {"noise": -1.0}, {"noise": np.nan}]
)
def test_bad_input(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: expected"):
        make_synthetic(**{"name": "moons", **wrong})  # type: ignore[arg-type]

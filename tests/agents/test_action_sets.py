"""Acting inside a set chosen at prediction time, in the environment's units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from critics import mean_q
from gymnasium import spaces
from toy_environments import HIGH, LOW, Bandit

from icnn_rl import Box, Euclidean, Polytope, Simplex
from icnn_rl.agents import ConcaveQ

OPTIONS = {"policy_kwargs": {"context": (16,), "convex": (16,)}, "seed": 0}
OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> ConcaveQ:
    return ConcaveQ("MlpPolicy", Bandit(), learning_rate=3e-3, **OPTIONS, learning_starts=50).learn(
        200
    )


def test_a_box_as_large_as_the_action_space_changes_nothing(model: ConcaveQ) -> None:
    free, _ = model.predict(OBSERVATIONS)
    boxed, _ = model.predict(OBSERVATIONS, action_set=Box(torch.tensor(LOW), torch.tensor(HIGH)))
    larger, _ = model.predict(OBSERVATIONS, action_set=Box(-100.0, 100.0))
    np.testing.assert_allclose(boxed, free, atol=1e-5)
    np.testing.assert_allclose(larger, free, atol=1e-5)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [([0.5, 0.1], [1.0, 0.2]), ([-5.0, 0.3], [0.0, 5.0]), ([2.0, 0.4], [2.0, 0.4])],
)
def test_best_action_in_a_box(model: ConcaveQ, lower: list[float], upper: list[float]) -> None:
    box = Box(torch.tensor(lower), torch.tensor(upper))
    actions, _ = model.predict(OBSERVATIONS, action_set=box)
    low, high = np.maximum(lower, LOW).astype("f4"), np.minimum(upper, HIGH).astype("f4")
    assert (actions >= low).all()
    assert (actions <= high).all()
    others = np.random.default_rng(1).uniform(low, high, (1000, 20, 2))
    assert (
        mean_q(model, OBSERVATIONS, actions[None])[0]
        >= mean_q(model, OBSERVATIONS, others).max(0) - 2e-4
    ).all()


def test_a_box_for_each_observation(model: ConcaveQ) -> None:
    points = torch.as_tensor(np.random.default_rng(2).uniform(LOW, HIGH, (20, 2)))
    actions, _ = model.predict(OBSERVATIONS, action_set=Box(points, points))
    np.testing.assert_allclose(actions, points, atol=1e-6)


def test_one_observation(model: ConcaveQ) -> None:
    action, _ = model.predict(OBSERVATIONS[0], action_set=Box(0.0, 0.1))
    many, _ = model.predict(OBSERVATIONS, action_set=Box(0.0, 0.1))
    assert action.shape == (2,)
    assert action.dtype == np.float32
    np.testing.assert_allclose(action, many[0], atol=1e-3)


def test_best_action_on_the_simplex() -> None:
    class Shares(Bandit):
        action_space = spaces.Box(np.array([0, -1, 0], "f4"), np.array([1, 1, 2], "f4"))

    model = ConcaveQ("MlpPolicy", Shares(), **OPTIONS)
    shares, _ = model.predict(OBSERVATIONS, action_set=Simplex())
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    assert (shares >= 0).all()
    others = np.random.default_rng(1).dirichlet(np.ones(3), (1000, 20))
    best = mean_q(model, OBSERVATIONS, others).max(0)
    assert (mean_q(model, OBSERVATIONS, shares[None])[0] >= best - 2e-4).all()


@pytest.mark.parametrize(
    ("low", "high", "best"),
    [
        ([-1, -2, -1], [1, 2, 1], [1 / 6, 4 / 6, 1 / 6]),  # scaled: (u₁, u₂ / 2, u₃)
        ([-1, 0, -1], [1, 2, 1], [0, 1, 0]),  # scaled: (u₁, u₂ - 1, u₃)
        ([0, -1, 0], [1, 1, 2], [0.4, 0, 0.6]),  # scaled: (2 u₁ - 1, u₂, u₃ - 1)
    ],
)
def test_the_norm_on_the_simplex_is_that_of_scaled_actions(
    low: list[float], high: list[float], best: list[float]
) -> None:
    class Shares(Bandit):
        action_space = spaces.Box(np.array(low, "f4"), np.array(high, "f4"))

    model = ConcaveQ("MlpPolicy", Shares(), action_l2=1e4, **OPTIONS)  # next to it Q is nothing
    shares, _ = model.predict(OBSERVATIONS, action_set=Simplex())
    np.testing.assert_allclose(shares, np.tile(best, (20, 1)), atol=1e-3)


def test_best_action_under_a_limit_for_each_observation(model: ConcaveQ) -> None:
    row = torch.tensor([[1.0, 4.0]])
    limit = torch.linspace(-1.0, 2.0, 20).unsqueeze(-1)
    actions, _ = model.predict(OBSERVATIONS, action_set=Polytope(row, limit))
    used = actions @ row[0].numpy()
    assert (used <= limit[:, 0].numpy() + 1e-6).all()
    assert ((actions >= LOW - 1e-6) & (actions <= HIGH + 1e-6)).all()
    others = np.random.default_rng(1).uniform(LOW, HIGH, (4000, 20, 2))
    feasible = others @ row[0].numpy() <= limit[:, 0].numpy()
    best = np.where(feasible, mean_q(model, OBSERVATIONS, others), -np.inf).max(0)
    assert (mean_q(model, OBSERVATIONS, actions[None])[0] >= best - 2e-4).all()


def test_all_of_space_changes_nothing(model: ConcaveQ) -> None:
    free, _ = model.predict(OBSERVATIONS)
    same, _ = model.predict(OBSERVATIONS, action_set=Euclidean())
    np.testing.assert_allclose(same, free, atol=1e-3)


@pytest.mark.parametrize(
    ("action_set", "message"),
    [
        (Box(torch.zeros(3), torch.ones(3)), r"expected a box in 2 dimensions.*shape \(3,\)"),
        (Box(torch.zeros(1), torch.ones(1)), r"expected a box in 2 dimensions.*shape \(1,\)"),
        (Box(4.0, 5.0), "expected a set that meets the action space"),
        (Box(*[torch.eye(20, 2) + k for k in (2.0, 3.0)]), "expected a set that meets the action"),
        (Polytope(torch.ones(1, 2), torch.tensor([-9.0])), "expected a set that meets the action"),
        (
            Polytope(torch.ones(1, 2), 9 * torch.eye(20, 1) - 8),
            "expected a set that meets the action",
        ),
        (Polytope(torch.ones(1, 3), torch.ones(1)), "expected a set of 2 dimensions.*Polytope"),
    ],
)
def test_sets_that_do_not_fit(model: ConcaveQ, action_set: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"action_set: .*{message}"):
        model.predict(OBSERVATIONS, action_set=action_set)

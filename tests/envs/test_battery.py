"""The battery: foresight, dynamic programming, a rule of thumb and nothing, in this order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from icnn_rl.envs import Battery, returns
from icnn_rl.envs.battery import CAPACITY, HOURS, POWER, continuation

EPISODES = range(100)


def threshold(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Sell above the mean price and before the end, buy well below it."""
    hours_left = HOURS * x[4]
    sell, buy = x[1] > 0.2 or hours_left < 6, x[1] < -0.2
    return np.array([-1.0 if sell else float(buy)])


@pytest.fixture(scope="module")
def env() -> Battery:
    return Battery()


@pytest.fixture(scope="module")
def optimal(env: Battery) -> npt.NDArray[np.float64]:
    return returns(env, env.optimal_action, EPISODES)


@pytest.mark.slow
def test_foresight_beats_the_optimum_beats_a_rule_beats_nothing(
    env: Battery, optimal: npt.NDArray[np.float64]
) -> None:
    for seed in EPISODES:
        env.reset(seed=seed)
        assert env.foresight()[1] >= optimal[seed] - 1e-6
    rule = returns(env, threshold, EPISODES)
    assert optimal.mean() > 1.1 * rule.mean() > 3
    np.testing.assert_array_equal(returns(env, lambda _: np.zeros(1), EPISODES), 0)


def test_the_value_is_the_mean_return(env: Battery, optimal: npt.NDArray[np.float64]) -> None:
    starts = np.array([env.reset(seed=seed)[0] for seed in EPISODES])
    surprise = optimal - env.optimal_value(starts)
    assert abs(surprise.mean()) < 3 * surprise.std() / np.sqrt(len(surprise))
    assert surprise.std() / np.sqrt(len(surprise)) < 0.03 * optimal.mean()


@pytest.mark.parametrize("seed", range(5))
def test_the_linear_program_is_exact(env: Battery, seed: int) -> None:
    env.reset(seed=seed)
    env.step(np.array([0.3]))
    actions, expected = env.foresight()
    steps = [env.step(action) for action in actions]
    assert steps[-1][2]
    assert not any(terminated for _, _, terminated, _, _ in steps[:-1])
    assert sum(reward for _, reward, *_ in steps) == pytest.approx(expected, abs=1e-8)
    assert max(info["violation"] for *_, info in steps) < 1e-8


def test_after_the_last_hour_nothing_is_worth_anything(env: Battery) -> None:
    observation, _ = env.reset(seed=0)
    over = False
    while not over:
        observation, _, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        over = terminated or truncated
    assert env.optimal_value(observation) == 0
    actions, value = env.foresight()
    assert (actions.shape, value) == ((0, 1), 0.0)


def test_a_finer_grid_hardly_changes_the_value() -> None:
    coarse, fine = continuation(), continuation(points=301)
    np.testing.assert_allclose(fine[:, ::2], coarse, atol=0.01 * coarse[0].mean())
    exact_in_charge = continuation(points=51, step=0.125)[:, :, ::4]
    np.testing.assert_allclose(exact_in_charge, continuation(points=51), atol=1e-12)


def test_the_value_is_concave_in_the_charge(env: Battery) -> None:
    charges = np.linspace(0, 1, 81)
    for hour in (0, 13, 30, 47):
        angle = 2 * np.pi * hour / 24
        for log_price in (-0.5, 0.1, 0.6):
            row = [0, log_price, np.sin(angle), np.cos(angle), 1 - hour / HOURS]
            x = np.tile(row, (81, 1))
            x[:, 0] = charges
            assert (np.diff(env.optimal_value(x), 2) < 1e-9).all()
            assert (np.diff(env.optimal_value(x)) > -1e-9).all()


def test_the_last_hour_sells_when_the_price_pays_the_wear(env: Battery) -> None:
    x = np.array([[0.5, log_price, 0, 1, 1 / HOURS] for log_price in (-1.9, -2.5, 0.0, -4.5)])
    np.testing.assert_allclose(env.optimal_action(x)[:, 0], [-1, -0.5, -1, 0])


def test_the_expectation_is_the_mean_of_what_follows(env: Battery) -> None:
    x, values, total = [], [], []
    for seed in range(500):
        before, _ = env.reset(seed=seed)
        action = env.optimal_action(before)
        after, reward, *_ = env.step(action)
        x.append(before)
        values.append(float(env.optimal_value(before)))
        total.append(reward + float(env.optimal_value(after)))
    error = np.subtract(total, values)
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(500)
    assert error.std() / np.sqrt(500) < 0.005 * np.mean(values)


def test_the_charge_stays_within_the_battery(env: Battery) -> None:
    observation, _ = env.reset(seed=1)
    for hour in range(HOURS):
        before, action = CAPACITY * float(observation[0]), 1.0 if hour < 10 else -1.0
        observation, *_, info = env.step(np.array([action]))
        moved = (CAPACITY * float(observation[0]) - before) / POWER
        assert 0 <= observation[0] <= 1
        assert info["violation"] == pytest.approx(abs(action - moved), abs=1e-5)
    assert observation[0] == 0

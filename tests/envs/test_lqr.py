"""The linear-quadratic task against its Riccati solution."""

from __future__ import annotations

import numpy as np
import pytest

from icnn_rl.envs import LQR


@pytest.fixture
def states() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (200, 2))


def test_the_optimal_action_maximises_q(states: np.ndarray) -> None:
    env = LQR()
    best = env.optimal_q(states, env.optimal_action(states))
    np.testing.assert_allclose(best, env.optimal_value(states), rtol=1e-9)
    for u in np.linspace(-4, 4, 41):
        assert (env.optimal_q(states, np.full((200, 1), u)) <= best + 1e-12).all()


def test_q_is_what_an_episode_returns() -> None:
    env = LQR(noise=0.0)
    observation, _ = env.reset(seed=3)
    x, u = observation.astype(np.float64), np.array([0.7])
    expected = env.optimal_q(x, u)
    discounted, discount = 0.0, 1.0
    for _ in range(3000):
        x, reward, *_ = env.step(u)
        discounted += discount * reward
        discount *= env.gamma
        u = env.optimal_action(x)
    assert discounted == pytest.approx(expected, rel=1e-4)


def test_without_noise_there_is_an_optimum_without_discount() -> None:
    env = LQR(gamma=1.0, noise=0.0)
    x, _ = env.reset(seed=3)
    x = x.astype(np.float64)
    expected, total = env.optimal_value(x), 0.0
    env._state = x
    for _ in range(300):
        x, reward, *_ = env.step(env.optimal_action(x))
        total += reward
    assert total == pytest.approx(expected, rel=1e-4)


def test_the_noise_costs_what_the_value_says() -> None:
    env = LQR(noise=0.05, gamma=0.95)
    returns = []
    for seed in range(200):
        x, _ = env.reset(seed=seed)
        env._state = x = np.zeros(2)
        total, discount = 0.0, 1.0
        for _ in range(150):
            x, reward, *_ = env.step(env.optimal_action(x))
            total += discount * reward
            discount *= env.gamma
        returns.append(total)
    error = 3 * np.std(returns) / np.sqrt(len(returns))
    assert np.mean(returns) == pytest.approx(env.optimal_value(np.zeros(2)), abs=error)

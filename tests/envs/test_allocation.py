"""The allocation against value iteration, brute force, and the projection of each season's wish."""

from __future__ import annotations

import itertools

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize

from icnn_rl import Simplex
from icnn_rl.envs import Allocation, returns
from icnn_rl.envs.allocation import SATURATION, STAY

TASK = "icnn_rl.envs:icnn_rl/Allocation-v0"


def observations(env: Allocation, count: int) -> npt.NDArray[np.float64]:
    return np.array([env.reset(seed=seed)[0] for seed in range(count)], np.float64)


def simplex_grid(n: int, parts: int) -> npt.NDArray[np.float64]:
    cells = itertools.product(range(parts + 1), repeat=n)
    return np.array([cell for cell in cells if sum(cell) == parts]) / parts


@pytest.mark.parametrize(("n", "switching"), [(2, 0.5), (4, 2.0), (5, 20.0)])
def test_the_optimal_action_is_on_the_simplex_and_maximises_q(n: int, switching: float) -> None:
    env = Allocation(n, switching)
    x = observations(env, 20)
    best = env.optimal_action(x)
    assert (best > 0).all()
    np.testing.assert_allclose(best.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(env.optimal_q(x, best), env.optimal_value(x), rtol=1e-6)
    for state, action in zip(x[:5], best, strict=False):
        found = minimize(
            lambda a, state=state: -float(env.optimal_q(state, a)),
            np.full(n, 1 / n),
            bounds=[(0, 1)] * n,
            constraints=LinearConstraint(np.ones(n), 1, 1),
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(found.x, action, atol=1e-4)


def test_value_iteration_on_a_grid_of_the_simplex_agrees() -> None:
    env = Allocation(3, gamma=0.9)
    grid = simplex_grid(3, 24)
    earned = env.seasons @ grid.T - SATURATION / 2 * np.square(grid).sum(-1)
    moving = env.switching / 2 * np.square(grid - grid[:, None]).sum(-1)
    chain = STAY * np.eye(3) + (1 - STAY) * np.roll(np.eye(3), 1, axis=1)
    values = np.zeros((3, len(grid)))
    for _ in range(120):
        ahead = earned + env.gamma * chain @ values
        values = (ahead[:, None] - moving).max(-1)
    for season in range(3):
        x = np.hstack([grid, np.tile(env.seasons[season], (len(grid), 1))])
        np.testing.assert_allclose(values[season], env.optimal_value(x), atol=0.02)


def test_without_a_cost_of_moving_it_is_the_projection_of_the_season() -> None:
    env = Allocation(switching=0.0)
    x = observations(env, 10)
    projected = Simplex().project(torch.from_numpy(x[:, 4:] / SATURATION))
    np.testing.assert_allclose(env.optimal_action(x), projected.numpy(), atol=1e-9)


def test_the_value_is_the_mean_discounted_return() -> None:
    env = Allocation(gamma=0.9)
    episodes = gym.wrappers.TimeLimit(env, 150)
    values = env.optimal_value(observations(env, 60))
    surprise = returns(episodes, env.optimal_action, range(60), gamma=0.9) - values
    assert abs(surprise.mean()) < 3 * surprise.std() / np.sqrt(60)
    assert surprise.std() / np.sqrt(60) < 0.01 * values.mean()


def test_the_optimum_beats_equal_shares_and_the_season_alone() -> None:
    env = gym.make(TASK)
    optimal = returns(env, env.unwrapped.optimal_action, range(20)).mean()
    hasty = returns(env, Allocation(switching=0.0).optimal_action, range(20)).mean()
    equal = returns(env, lambda _: np.full(4, 0.25), range(20)).mean()
    assert optimal > 1.02 * hasty > 1.02 * equal


def test_an_action_off_the_simplex_is_projected_and_reported() -> None:
    env, same = Allocation(3), Allocation(3)
    env.reset(seed=0)
    same.reset(seed=0)
    wanted = np.array([0.9, 0.7, 0.1])
    near, reward, *_, info = env.step(wanted)
    shares = np.array([0.6, 0.4, 0.0])
    expected, expected_reward, *_, none = same.step(shares)
    np.testing.assert_allclose(near, expected, atol=1e-6)
    assert reward == pytest.approx(expected_reward)
    assert info["violation"] == pytest.approx(np.linalg.norm(wanted - shares))
    assert none["violation"] < 1e-12

"""What all tasks promise: an interface that the checkers accept, and one optimum."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3.common.env_checker as sb3
import torch
from gymnasium.utils.env_checker import check_env

from icnn_rl.envs import LQR, Allocation, Battery, Slalom, Task, returns

TASKS = ["LQR", "Battery", "BimodalBandit", "Slalom", "Allocation"]
ANNOUNCED = ["Battery", "Allocation"]


def make(name: str) -> gym.Env:
    return gym.make(f"icnn_rl.envs:icnn_rl/{name}-v0")


# LQR's forces and Allocation's shares are in their own units.
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")
@pytest.mark.parametrize("name", TASKS)
def test_gymnasium_and_stable_baselines3_accept_it(name: str) -> None:
    check_env(make(name).unwrapped)
    sb3.check_env(make(name).unwrapped)


@pytest.mark.parametrize("name", TASKS)
def test_the_optimal_policy_returns_more_than_any_constant(name: str) -> None:
    env = make(name)
    space = env.action_space
    optimal = returns(env, env.unwrapped.optimal_action, range(10)).mean()
    for share in np.linspace(0, 1, 5):
        action = space.low + share * (space.high - space.low)
        constant = returns(env, lambda _, action=action: action, range(10))
        assert constant.mean() < optimal or np.allclose(
            action, env.unwrapped.optimal_action(np.zeros(env.observation_space.shape))
        )


@pytest.mark.parametrize("name", TASKS)
def test_many_states_at_once_are_as_each_alone(name: str) -> None:
    env = make(name)
    states = [env.reset(seed=seed)[0] for seed in range(6)]
    batch = np.array(states).reshape(2, 3, -1)
    task = env.unwrapped
    for method in (
        task.optimal_action,
        task.optimal_value,
        lambda x: task.optimal_q(x, task.optimal_action(x) / 2),
    ):
        alone = np.array([method(x.astype(np.float64)) for x in states])
        together = method(batch.astype(np.float64))
        np.testing.assert_allclose(together.reshape(alone.shape), alone, rtol=1e-9)


@pytest.mark.parametrize("name", TASKS)
def test_no_feasible_action_has_a_greater_q_than_the_optimal_one(name: str) -> None:
    env = make(name)
    task: Task = env.unwrapped
    states = np.array([env.reset(seed=seed)[0] for seed in range(30)], np.float64)
    value = task.optimal_value(states)
    np.testing.assert_allclose(task.optimal_q(states, task.optimal_action(states)), value, 1e-6)
    env.action_space.seed(0)
    for _ in range(20):
        actions = np.array([env.action_space.sample() for _ in states], np.float64)
        if name in ANNOUNCED:
            allowed = task.action_set(torch.from_numpy(states))
            actions = allowed.project(torch.from_numpy(actions)).numpy()
        grid = 3e-4 if name == "Slalom" else 0.0  # what its grid of actions may lose
        assert (task.optimal_q(states, actions) <= value + grid + 1e-6).all()


@pytest.mark.parametrize("name", ANNOUNCED)
def test_actions_of_the_announced_set_are_done_as_they_are(name: str) -> None:
    env = make(name)
    announced = pickle.loads(pickle.dumps(env.get_wrapper_attr("action_set")))
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    cut = 0
    for _ in range(40):
        wanted = torch.from_numpy(env.action_space.sample())[None]
        action = announced(torch.from_numpy(observation)[None]).project(wanted)
        cut += not torch.equal(action, wanted)
        observation, *_, info = env.step(action[0].numpy())
        assert info["violation"] < 1e-6
    assert cut > 0


def test_returns_are_discounted_and_of_the_seeds_episodes() -> None:
    env = make("LQR")
    policy = env.unwrapped.optimal_action
    first, second = returns(env, policy, [3, 4], gamma=0.9)
    assert returns(env, policy, [4], gamma=0.9)[0] == second != first
    x, _ = env.reset(seed=3)
    expected = sum(0.9**t * (step := env.step(policy(x)), x := step[0])[0][1] for t in range(100))
    assert first == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LQR(gamma=1.0), "gamma: expected 0 <= gamma < 1, or 1 without noise; got 1.0"),
        (lambda: LQR(gamma=np.nan), "gamma: expected .* got nan"),
        (lambda: LQR(noise=-0.1), "noise: expected a finite number >= 0, got -0.1"),
        (lambda: Battery(gamma=1.5), "gamma: expected 0 <= gamma <= 1, got 1.5"),
        (lambda: Slalom(points=1), "points: expected at least 2, got 1"),
        (lambda: Allocation(n=1), "n: expected at least 2 projects, got 1"),
        (lambda: Allocation(switching=np.inf), "switching: expected a finite cost .* got inf"),
        (lambda: Allocation(gamma=1.0), "gamma: expected 0 <= gamma < 1, got 1.0"),
    ],
)
def test_bad_arguments(make: Callable[[], gym.Env], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

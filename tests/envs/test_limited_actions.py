"""Limits on actions: what is announced, measured and projected."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import scipy.optimize
import torch
from gymnasium import spaces
from gymnasium.wrappers import RescaleAction
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from icnn_rl import Box
from icnn_rl.envs.constraints import ActionBall, LimitedActions, PowerLimit, RampLimits

VELOCITIES = (1, 2)


class Echo(gym.Env[np.ndarray, np.ndarray]):
    """Random observations; remembers the action that it got."""

    observation_space = spaces.Box(-5.0, 5.0, (3,), np.float32)
    action_space = spaces.Box(np.array([-1, -2], np.float32), np.array([2, 2], np.float32))
    action = np.zeros(2, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.action = action
        return self._observation(), 0.0, False, False, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.uniform(-5, 5, 3).astype(np.float32)


SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def power(y: np.ndarray, observation: np.ndarray) -> np.ndarray:
    return 2 - SIGNS * observation[list(VELOCITIES)] @ y


def ball(y: np.ndarray, observation: np.ndarray) -> np.ndarray:
    return np.array([0.81 - y @ y])


def ramp(y: np.ndarray, observation: np.ndarray) -> np.ndarray:
    off, limit = y - observation[3:], np.array([0.3, 0.1])
    return np.concatenate([limit - off, limit + off])


MAKE: dict[str, Callable[..., LimitedActions]] = {
    "power": lambda **k: PowerLimit(Echo(), 2.0, velocities=VELOCITIES, **k),
    "ball": lambda **k: ActionBall(Echo(), 0.9, **k),
    "ramp": lambda **k: RampLimits(Echo(), (0.3, 0.1), **k),
    "ball and ramp": lambda **k: RampLimits(ActionBall(Echo(), 0.9), (0.3, 0.1), **k),
}
SLACKS = {"power": [power], "ball": [ball], "ramp": [ramp], "ball and ramp": [ball, ramp]}
each = pytest.mark.parametrize("name", MAKE)


@each
def test_projects_as_scipy_does_and_says_how_far(name: str) -> None:
    env = MAKE[name]()
    random = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    low, high = Echo.action_space.low, Echo.action_space.high
    for _ in range(20):
        action = random.uniform(low, high)
        slacks = [{"type": "ineq", "fun": s, "args": (observation,)} for s in SLACKS[name]]
        result = scipy.optimize.minimize(
            lambda y, a=action: ((y - a) ** 2).sum(),
            env.unwrapped.action,
            bounds=list(zip(low, high, strict=True)),
            constraints=slacks,
            method="SLSQP",
            tol=1e-12,
        )
        following, _, _, _, info = env.step(action)
        applied = env.unwrapped.action
        distance = np.linalg.norm(applied - action)
        np.testing.assert_allclose(applied, result.x, atol=1e-5)
        assert all((s(applied, observation) >= -1e-6).all() for s in SLACKS[name])
        assert ((low <= applied) & (applied <= high)).all()
        assert info["violation"] == pytest.approx(distance, abs=1e-6)
        observation = following


@each
def test_what_is_feasible_passes_unchanged(name: str) -> None:
    env = MAKE[name]()
    observation, _ = env.reset(seed=0)
    action = np.array([0.05, -0.05], np.float32)
    assert all((s(action, observation) >= 0).all() for s in SLACKS[name])
    *_, info = env.step(action)
    np.testing.assert_array_equal(env.unwrapped.action, action)
    assert info["violation"] == 0


@each
def test_without_projection_a_violation_is_only_measured(name: str) -> None:
    env = MAKE[name](project=False) if name != "ball and ramp" else MAKE["ball"](project=False)
    env.reset(seed=0)
    action = np.array([2.0, -2.0], np.float32)
    *_, info = env.step(action)
    np.testing.assert_array_equal(env.unwrapped.action, action)
    assert info["violation"] > 0.5


@each
def test_announced_through_wrappers_and_vectorised(name: str) -> None:
    envs = DummyVecEnv([lambda: Monitor(MAKE[name]())] * 2)
    first, second = envs.get_attr("action_set")
    assert first == second == pickle.loads(pickle.dumps(first))
    observations = torch.as_tensor(envs.reset())
    allowed = first(observations)
    points = torch.rand(500, 2, 2, generator=torch.Generator().manual_seed(0)) * 4 - 2
    for point in points:
        expected = [
            all((s(p.numpy(), o.numpy()) >= 0).all() for s in SLACKS[name])
            for p, o in zip(point, observations, strict=True)
        ]
        assert allowed.contains(point, tol=1e-5).tolist() == expected


def test_ramp_limits_observe_the_action_that_was_applied() -> None:
    env = RampLimits(Echo(), 0.3)
    with pytest.warns(UserWarning, match="symmetric and normalized"):  # Echo's actions are not
        check_env(env, skip_render_check=True)
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation[3:], [0, 0])
    observation, *_ = env.step(np.array([2.0, -0.1], np.float32))
    np.testing.assert_allclose(observation[3:], [0.3, -0.1])
    observation, *_ = env.step(np.array([2.0, -2.0], np.float32))
    np.testing.assert_allclose(observation[3:], [0.6, -0.4], rtol=1e-6)
    np.testing.assert_array_equal(env.reset()[0][3:], [0, 0])


def test_limits_that_contradict_each_other_are_refused() -> None:
    env = RampLimits(PowerLimit(Echo(), 0.1, velocities=VELOCITIES), 0.01)
    env.reset(seed=0)
    env._applied = np.array([1.0, 1.0], np.float32)
    env._observation = np.array([0.0, 4.0, 4.0, 1.0, 1.0], np.float32)
    with pytest.raises(ValueError, match="env: expected limits that some action meets"):
        env.step(np.array([1.0, 1.0], np.float32))


class OutOfReach(Echo):
    """Announces a set that has nothing of its action space."""

    def action_set(self, observations: torch.Tensor) -> Box:
        return Box(5.0, 6.0)


def outside(observations: torch.Tensor) -> Box:
    return Box(5.0, 6.0)


@pytest.mark.parametrize(
    "make", [lambda: ActionBall(OutOfReach(), 9.0), lambda: LimitedActions(Echo(), outside)]
)
def test_limits_outside_the_action_space_are_refused(make: Callable[[], LimitedActions]) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="env: expected limits that some action meets"):
        env.step(np.array([1.0, 1.0], np.float32))


def test_a_limit_around_other_actions_than_those_of_the_limit_inside_is_refused() -> None:
    inside = RescaleAction(ActionBall(Echo(), 0.9), *np.float32([-1, 1]))
    with pytest.raises(ValueError, match="got those of RescaleAction around it"):
        RampLimits(inside, 0.3)


def test_made_again_from_its_spec() -> None:
    task = gym.make("Pendulum-v1")
    env = RampLimits(PowerLimit(ActionBall(task, 1.5), 3.0, velocities=np.array([2])), 0.3)
    again = gym.make(env.spec)
    assert isinstance(again, RampLimits)
    assert again.action_set == env.action_set


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActionBall(Echo(), 0.0), "radius: expected finite numbers > 0, got 0.0"),
        (lambda: RampLimits(Echo(), [0.1, -1]), "limit: expected finite numbers > 0"),
        (lambda: RampLimits(Echo(), [0.1] * 3), "limit: expected one for each"),
        (lambda: PowerLimit(Echo(), 1.0, weights=[1.0]), "weights: expected one for each of 2"),
        (lambda: PowerLimit(Echo(), 1.0, [1.0, 1.0], [0, 1]), "expected one of them, got both"),
        (lambda: PowerLimit(Echo(), 1.0, weights=[1.0, np.nan]), "weights: expected finite"),
        (lambda: PowerLimit(Echo(), 1.0, velocities=[0, 99]), "velocities: .* from 0 to 2; got"),
        (lambda: PowerLimit(Echo(), 1.0, velocities=[-1, 0]), "velocities: .* from 0 to 2; got"),
        (lambda: ActionBall(gym.make("CartPole-v1"), 1.0), "env: expected actions in a Box"),
    ],
)
def test_bad_arguments(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

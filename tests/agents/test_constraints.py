"""Agents in tasks that announce where their actions may lie."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import (
    FrameStackObservation,
    NormalizeObservation,
    RescaleAction,
    RescaleObservation,
)
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from icnn_rl import Ball, Box
from icnn_rl.agents import ConcaveQ
from icnn_rl.envs.constraints import ActionBall, LimitedActions, PowerLimit, RampLimits

OPTIONS: dict[str, Any] = {
    "policy_kwargs": {"context": (16,), "convex": (16,)},
    "learning_starts": 40,
    "batch_size": 16,
    "seed": 0,
}
HESSIAN = np.array([[1.0, 0.8], [0.8, 1.0]])


class Quadratic(gym.Env[np.ndarray, np.ndarray]):
    """Reward -(a - s)ᵀ H (a - s), one step: the best action is s, and in a set something else."""

    observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 2.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.state = self.np_random.uniform(-2, 2, 2).astype(np.float32)
        return self.state, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        off = action - self.state
        self.state = self.np_random.uniform(-2, 2, 2).astype(np.float32)
        return self.state, float(-off @ HESSIAN @ off), True, False, {}


def power() -> LimitedActions:
    return PowerLimit(Quadratic(), 0.8, velocities=(0, 1))


def ball() -> LimitedActions:
    return ActionBall(Quadratic(), 0.7)


def ramp() -> LimitedActions:
    return RampLimits(gym.make("Pendulum-v1"), 0.3)


def both() -> LimitedActions:
    return RampLimits(ActionBall(gym.make("Pendulum-v1"), 1.5), 0.3)


class Violations(BaseCallback):
    """What the environments measure in every step, and how far actions move."""

    def __init__(self) -> None:
        super().__init__()
        self.worst, self.steps, self.largest = 0.0, 0, 0.0

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            self.worst = max(self.worst, info["violation"])
            self.steps += 1
        self.largest = max(self.largest, float(np.abs(self.locals["actions"]).max()))
        return True


@pytest.mark.parametrize("make", [power, ball, ramp, both])
def test_no_action_of_training_violates(make: Callable[[], LimitedActions]) -> None:
    violations = Violations()
    envs = DummyVecEnv([make, make])
    model = ConcaveQ("MlpPolicy", envs, exploration_noise=0.5, target_noise=0.2, **OPTIONS)
    model.learn(80, callback=violations)
    assert violations.steps == 80
    assert violations.worst <= 1e-6
    assert violations.largest > 0.1
    stored = torch.as_tensor(model.replay_buffer.observations[:40])
    low, high = model.policy.bounds()
    actions = low + (torch.as_tensor(model.replay_buffer.actions[:40]) + 1) / 2 * (high - low)
    assert model.action_set is not None
    for observations, taken in zip(stored, actions, strict=True):
        assert model.action_set(observations).contains(taken, tol=1e-6).all()


@pytest.mark.parametrize("vectorize", [SubprocVecEnv, lambda m: VecNormalize(DummyVecEnv(m))])
def test_vectorised_environments(vectorize: Callable[[list[Any]], VecEnv]) -> None:
    violations = Violations()
    envs = vectorize([ramp, ramp])
    try:
        ConcaveQ("MlpPolicy", envs, **OPTIONS).learn(60, callback=violations)
    finally:
        envs.close()
    assert violations.steps == 60
    assert violations.worst <= 1e-6


def test_the_target_keeps_to_the_next_set() -> None:
    plain = OPTIONS | {"policy_kwargs": OPTIONS["policy_kwargs"] | {"dueling": False}}
    model = ConcaveQ("MlpPolicy", ramp(), **plain).learn(60)
    batch = model.replay_buffer.sample(16)
    _, free = model.policy.condition(batch.observations, batch.next_observations)
    _, (solution,) = model._td_target(batch, free)
    low, high = batch.next_observations[:, 3:] - 0.3, batch.next_observations[:, 3:] + 0.3
    assert ((low - 1e-6 <= 2 * solution.y) & (2 * solution.y <= high + 1e-6)).all()
    others = (low + torch.linspace(0, 1, 50).view(-1, 1, 1) * (high - low)).clamp(-2, 2) / 2
    value = free.value(solution.y).mean(0)
    best = torch.stack([free.value(o).mean(0) for o in others]).amin(0)
    assert (value <= best + 1e-2).all()


def test_acting_within_both_sets() -> None:
    model = ConcaveQ("MlpPolicy", ball(), **OPTIONS)
    observations = np.random.default_rng(0).uniform(-2, 2, (30, 2)).astype(np.float32)
    own, _ = model.predict(observations)
    assert (np.linalg.norm(own, axis=1) <= 0.7 + 1e-6).all()
    smaller, _ = model.predict(observations, action_set=Box(0.1, 0.4))
    assert ((smaller >= 0.1 - 1e-6) & (smaller <= 0.4 + 1e-6)).all()
    shifted, _ = model.predict(observations, action_set=Ball(0.3, torch.tensor([0.6, 0.0])))
    assert (np.linalg.norm(shifted, axis=1) <= 0.7 + 1e-6).all()
    assert (np.linalg.norm(shifted - [0.6, 0.0], axis=1) <= 0.3 + 1e-6).all()


def test_q_of_the_greedy_action_is_the_value_of_a_state_over_its_set() -> None:
    model = ConcaveQ("MlpPolicy", ball(), **OPTIONS).learn(60)
    observations = np.random.default_rng(0).uniform(-2, 2, (30, 2)).astype(np.float32)
    actions, obs = model.predict(observations)[0], torch.as_tensor(observations)
    low, high = model.policy.bounds()
    scaled = (2 * (torch.as_tensor(actions) - low) / (high - low) - 1).float()
    assert model.action_set is not None
    with torch.no_grad():
        value = -model.policy.critic.condition(obs).level
        q, free = model.policy.q(obs, scaled, model.action_set(obs)), model.policy.q(obs, scaled)
    torch.testing.assert_close(q, value, atol=1e-4, rtol=1e-5)
    assert (free.mean(0) < value.mean(0) - 1e-4).any()


def test_saved_with_the_model_and_renewed_by_another_environment(tmp_path: Path) -> None:
    model = ConcaveQ("MlpPolicy", ball(), **OPTIONS)
    model.save(tmp_path / "model")
    alone = ConcaveQ.load(tmp_path / "model")
    observations = np.random.default_rng(0).uniform(-2, 2, (10, 2)).astype(np.float32)
    np.testing.assert_array_equal(alone.predict(observations)[0], model.predict(observations)[0])
    alone.set_env(Quadratic())
    assert alone.action_set is None
    assert np.linalg.norm(alone.predict(observations)[0], axis=1).max() > 0.7


def test_a_set_of_normalised_observations_needs_the_normaliser(tmp_path: Path) -> None:
    envs = VecNormalize(DummyVecEnv([power]))
    model = ConcaveQ("MlpPolicy", envs, **OPTIONS).learn(60)
    model.save(tmp_path / "model")
    observations = envs.normalize_obs(np.random.default_rng(0).uniform(-2, 2, (10, 2)))
    alone = ConcaveQ.load(tmp_path / "model")
    with pytest.raises(ValueError, match="env: expected the VecNormalize of training"):
        alone.predict(observations)
    again = ConcaveQ.load(tmp_path / "model", env=envs)
    np.testing.assert_array_equal(again.predict(observations)[0], model.predict(observations)[0])


class Announcing(Quadratic):
    """Its method is one for each environment, and yet the same function."""

    def action_set(self, observations: torch.Tensor) -> Ball:
        return Ball(0.5 + 0.1 * observations[:, 0].abs())


def test_a_method_of_several_environments_announces_too() -> None:
    model = ConcaveQ("MlpPolicy", DummyVecEnv([Announcing] * 3), **OPTIONS).learn(120)
    states = np.random.default_rng(0).uniform(-2, 2, (100, 2)).astype(np.float32)
    lengths = np.linalg.norm(model.predict(states)[0], axis=1)
    assert (lengths <= 0.5 + 0.1 * np.abs(states[:, 0]) + 1e-6).all()


class Locked(Announcing):
    """Cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_a_method_stays_with_its_environment(tmp_path: Path) -> None:
    model = ConcaveQ("MlpPolicy", Locked(), **OPTIONS).learn(60)
    states = np.random.default_rng(0).uniform(-2, 2, (10, 2)).astype(np.float32)
    expected = model.predict(states)[0]
    model.save(tmp_path / "model")
    alone = ConcaveQ.load(tmp_path / "model")
    alone.save(tmp_path / "again")
    for path in ("model", "again"):
        alone = ConcaveQ.load(tmp_path / path)
        with pytest.raises(ValueError, match="env: expected the environment, whose method"):
            alone.predict(states)
        again = ConcaveQ.load(tmp_path / path, env=Locked())
        np.testing.assert_array_equal(again.predict(states)[0], expected)


def test_a_method_within_another_limit_is_a_method_too(tmp_path: Path) -> None:
    def make() -> LimitedActions:
        return ActionBall(Locked(), 0.55)

    model = ConcaveQ("MlpPolicy", DummyVecEnv([make, make]), **OPTIONS).learn(44)
    states = np.random.default_rng(0).uniform(-2, 2, (20, 2)).astype(np.float32)
    actions = model.predict(states)[0]
    most = np.minimum(0.5 + 0.1 * np.abs(states[:, 0]), 0.55)
    assert (np.linalg.norm(actions, axis=1) <= most + 1e-6).all()
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="env: expected the environment, whose method"):
        ConcaveQ.load(tmp_path / "model").predict(states)
    again = ConcaveQ.load(tmp_path / "model", env=make())
    np.testing.assert_array_equal(again.predict(states)[0], actions)


def test_a_set_that_cannot_be_sent_from_another_process() -> None:
    class Hidden(Quadratic):
        action_set = staticmethod(lambda observations: Ball(0.5))

    envs = SubprocVecEnv([Hidden])
    with pytest.raises(ValueError, match="env: expected an action_set that other processes can"):
        ConcaveQ("MlpPolicy", envs, **OPTIONS)


@pytest.mark.parametrize("width", [1.0, 1e-3])
def test_actions_in_double_precision_keep_to_a_set_far_from_zero(width: float) -> None:
    class Far(Quadratic):
        action_space = spaces.Box(1e6, 1e6 + width, (2,), np.float64)

    states = np.random.default_rng(0).uniform(-2, 2, (20, 2)).astype(np.float32)
    model = ConcaveQ("MlpPolicy", Far(), **OPTIONS)
    low, high = 1e6 + 0.2 * width, 1e6 + 0.22 * width
    chosen = model.predict(states, action_set=Box(low, high))[0]
    assert chosen.dtype == np.float64
    assert (low <= chosen).all()
    assert (chosen <= high).all()
    model = ConcaveQ("MlpPolicy", ActionBall(Unit(), 0.3), **OPTIONS)
    lengths = np.linalg.norm(model.predict(states)[0], axis=1)
    assert lengths.max() <= 0.3 * (1 + 1e-12)


class Unit(Quadratic):
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float64)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: RescaleAction(env, *np.float32([-0.5, 0.5])),
        lambda env: FrameStackObservation(env, 2),
        lambda env: RescaleObservation(env, *np.float32([-1, 1])),
        NormalizeObservation,
    ],
)
@pytest.mark.parametrize("announcer", [ball, Announcing])
def test_a_set_of_other_actions_or_observations_is_refused(
    announcer: Callable[[], Any], wrap: Callable[[Any], gym.Env[Any, Any]]
) -> None:
    with pytest.raises(ValueError, match="env: expected the actions and observations of whatever"):
        ConcaveQ("MlpPolicy", Monitor(wrap(announcer())), **OPTIONS)
    ConcaveQ("MlpPolicy", Monitor(wrap(Quadratic())), **OPTIONS)


def test_stacked_observations_outside_a_set_are_refused() -> None:
    envs = VecNormalize(VecFrameStack(DummyVecEnv([power]), 2))
    with pytest.raises(ValueError, match=r"env: expected the .* got those of VecFrameStack"):
        ConcaveQ("MlpPolicy", envs, **OPTIONS)
    assert ConcaveQ("MlpPolicy", VecMonitor(DummyVecEnv([power])), **OPTIONS).action_set is not None


@pytest.mark.parametrize("limit", [None, 5.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_never_leave_the_action_space(limit: float | None, dtype: type) -> None:
    class Uneven(Quadratic):
        action_space = spaces.Box(-0.3, 1.1, (2,), dtype)

    space = Uneven.action_space
    env = Uneven() if limit is None else ActionBall(Uneven(), limit)
    model = ConcaveQ("MlpPolicy", env, exploration_noise=3.0, **OPTIONS)
    states = np.random.default_rng(0).uniform(-2, 2, (50, 2)).astype(np.float32)
    with torch.no_grad():
        for path in model.policy.critic.net.path.raw_y:
            path.mul_(50)  # best at the bounds
    actions = [*model.predict(states)[0], *model.predict(states, action_set=Box(-9.0, 9.0))[0]]
    model._last_obs = states
    model.num_timesteps = 100
    actions += [*model._sample_action(0, model.action_noise, 50)[0]]
    assert all(space.contains(action) for action in actions)
    at_bounds = np.isin(actions, [space.low[0], space.high[0]])
    assert at_bounds.sum() > 20


def test_environments_that_disagree_are_refused() -> None:
    envs = DummyVecEnv([ball, ball, lambda: ActionBall(Quadratic(), 0.5)])
    with pytest.raises(ValueError, match="env: expected one action_set in all environments"):
        ConcaveQ("MlpPolicy", envs, **OPTIONS)


@pytest.mark.parametrize("makers", [[ball, Quadratic], [Quadratic, ball]], ids=["first", "last"])
def test_environments_of_which_only_some_announce_are_refused(makers: list[Any]) -> None:
    with pytest.raises(ValueError, match="all environments or in none, got one in 1 of 2"):
        ConcaveQ("MlpPolicy", DummyVecEnv(makers), **OPTIONS)


def test_others_act_with_projected_actions() -> None:
    violations = Violations()
    TD3("MlpPolicy", ball(), learning_starts=10, seed=0).learn(30, callback=violations)
    assert violations.worst > 0.01


@pytest.mark.parametrize(
    ("make", "dueling", "steps", "batch"), [(power, False, 235, 32), (ball, True, 275, 64)]
)
def test_learns_the_best_feasible_action(
    make: Callable[[], LimitedActions], dueling: bool, steps: int, batch: int
) -> None:
    options = OPTIONS | {"learning_rate": 3e-3, "learning_starts": 200, "batch_size": batch}
    # Acting is what takes time, and of a single step the state behind it is worth nothing.
    options |= {"gradient_steps": 5, "solver": {"tol": 0.1}}
    network = {"context": (64,), "convex": (32,), "n_critics": 1, "dueling": dueling}
    options["policy_kwargs"] = network
    model = ConcaveQ("MlpPolicy", make(), exploration_noise=0.3, **options).learn(steps)
    states = np.random.default_rng(1).uniform(-1, 2, (60, 2)).astype(np.float32)
    assert model.action_set is not None
    over = model.action_set(torch.as_tensor(states)) & Box(-1.0, 2.0)
    chosen, _ = model.predict(states)
    clipped = over.project(torch.as_tensor(states)).numpy()  # of the best action without a limit
    # The optimum is by far the best of many feasible points.
    random = torch.rand(100, 60, 2, generator=torch.Generator().manual_seed(0)) * 3 - 1
    best = cost(over.project(random).numpy(), states).min(0)
    regret = [(cost(a, states) - best).mean() for a in (chosen, clipped)]
    assert regret[0] < regret[1]


def cost(actions: np.ndarray, states: np.ndarray) -> np.ndarray:
    off = actions - states
    return np.einsum("...i,ij,...j->...", off, HESSIAN, off)

"""Exploration by draws from exp(Q / temperature)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecNormalize
from toy_environments import HIGH, LOW, Bandit

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.runs.config import Config, NoiseConfig
from icnn_rl.envs.constraints import ActionBall

OPTIONS: dict[str, Any] = {
    "learning_starts": 50,
    "batch_size": 32,
    "buffer_size": 1000,
    "policy_kwargs": {"context": (32,), "convex": (16,)},
    "seed": 0,
}


def trained(temperature: float, seed: int = 0) -> ConcaveQ:
    options = OPTIONS | {"seed": seed, "exploration_temperature": temperature}
    return ConcaveQ("MlpPolicy", "Pendulum-v1", **options).learn(200)


@pytest.fixture(scope="module")
def hot() -> ConcaveQ:
    return trained(0.5)


def taken(model: ConcaveQ) -> np.ndarray:
    """The scaled actions of all steps so far."""
    return model.replay_buffer.actions[: model.replay_buffer.pos]


def test_training_keeps_to_the_bounds_and_to_its_seed(hot: ConcaveQ) -> None:
    actions = taken(hot)
    assert actions.shape == (200, 1, 1)
    assert (np.abs(actions) <= 1).all()
    np.testing.assert_array_equal(taken(trained(0.5)), actions)
    assert (taken(trained(0.5, seed=1))[50:] != actions[50:]).mean() > 0.9


def test_the_density_is_that_of_the_mean_critic(hot: ConcaveQ) -> None:
    hot._last_obs = np.repeat(hot._last_obs[:1], 2000, 0)
    actions, scaled = hot._sample_action(50, None, 2000)
    np.testing.assert_allclose(actions, 2 * scaled, atol=1e-6)  # a torque of up to 2
    grid = torch.linspace(-1, 1, 10_001)
    with torch.no_grad():
        f = hot.critic.condition(torch.as_tensor(hot._last_obs[:1])).mean(0)
        weight = torch.softmax(-f.value(grid.unsqueeze(-1)).double() / 0.5, 0).numpy()

    def cdf(t: np.ndarray) -> np.ndarray:
        return np.interp(t, grid.numpy(), weight.cumsum())

    assert weight.max() > 1.05 * weight.min()
    assert stats.kstest(scaled[:, 0], cdf).pvalue > 1e-3


def test_acting_stays_greedy_and_so_does_exploration_when_cold(hot: ConcaveQ) -> None:
    for model, near in ((hot, False), (trained(1e-7), True)):
        model._last_obs = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32)
        model.num_timesteps = 50  # the first step after the random ones
        greedy, _ = model.predict(model._last_obs)
        np.testing.assert_array_equal(model.predict(model._last_obs)[0], greedy)
        distance = np.abs(model._sample_action(50, None, 20)[0] - greedy)
        assert (distance.max() < 0.05) == near


def test_actions_keep_to_the_set_that_is_announced() -> None:
    env = ActionBall(Bandit(), 0.5)
    model = ConcaveQ("MlpPolicy", env, exploration_temperature=0.5, **OPTIONS).learn(100)
    actions = LOW + (taken(model)[:, 0] + 1) / 2 * (HIGH - LOW)
    distance = np.linalg.norm(actions, axis=1)
    assert distance.max() <= 0.5 + 1e-6
    assert distance.std() > 0.01


def test_normalised_environments_and_saved_models(tmp_path: Path) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1", 2))
    model = ConcaveQ("MlpPolicy", env, exploration_temperature=0.3, **OPTIONS).learn(120)
    model.save(tmp_path / "model")
    loaded = ConcaveQ.load(tmp_path / "model", env=env)
    assert loaded.exploration_temperature == 0.3
    assert loaded.action_noise is None
    loaded.learn(20, reset_num_timesteps=False)
    assert (np.abs(taken(loaded)) <= 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exploration_temperature": 0.0}, r"exploration_temperature: expected .* > 0.*got 0.0"),
        (
            {"action_noise": NormalActionNoise(np.zeros(1), np.ones(1))},
            "action_noise: expected None beside exploration_temperature",
        ),
        ({"policy_kwargs": {"modes": 2}}, "expected None where critics have modes.*2 modes"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConcaveQ("MlpPolicy", "Pendulum-v1", **{"exploration_temperature": 0.5} | arguments)


def test_bad_configurations_are_named() -> None:
    with pytest.raises(ValueError, match=r"noise\.temperature: expected a finite number > 0"):
        NoiseConfig("boltzmann", temperature=0)
    with pytest.raises(ValueError, match=r"noise\.kind: boltzmann is for concave_q alone, not td3"):
        Config(algorithm="td3", noise=NoiseConfig("boltzmann"))

"""What a configuration says is what the agent, its environments and its evaluation do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from icnn_rl.agents import ConcaveQ, SolverSettings
from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.environments import make_environment, make_training_environments
from icnn_rl.agents.runs.evaluation import evaluate
from icnn_rl.runs.configuration import from_plain

SMALL: dict[str, dict[str, Any]] = {
    "agent": {"learning_starts": 1000, "policy_kwargs": {"context": [16], "convex": [8]}},
    "baseline": {"learning_starts": 1000, "policy_kwargs": {"net_arch": [16]}},
}


def config(algorithm: str = "concave_q", **sections: Any) -> Config:
    """A configuration of small networks, with further values by section."""
    part = "agent" if algorithm == "concave_q" else "baseline"
    sections[part] = SMALL[part] | {"buffer_size": 1000} | sections.get(part, {})
    return from_plain(Config, {"algorithm": algorithm, "device": "cpu"} | sections)


def built(of: Config) -> OffPolicyAlgorithm:
    return build_agent(of, make_training_environments(of))


@pytest.mark.parametrize("algorithm", ["concave_q", "td3"])
def test_rewards_are_scaled_for_the_agent_and_reported_as_they_are(algorithm: str) -> None:
    model = built(config(algorithm, env={"reward_scale": 0.25}))
    model.learn(30)
    envs, buffer = model.get_env(), model.replay_buffer
    assert envs is not None
    assert buffer is not None
    reported = np.array(envs.get_attr("rewards")[0])  # of Monitor, in an episode of 200 steps
    np.testing.assert_allclose(buffer.rewards[:30, 0], 0.25 * reported, rtol=1e-6)
    bare = gym.make("Pendulum-v1")
    bare.reset(seed=0)
    torques = 2 * buffer.actions[:30, 0]
    np.testing.assert_allclose(reported, [bare.step(u)[1] for u in torques], rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.8, None])
@pytest.mark.parametrize("algorithm", ["concave_q", "td3"])
def test_rewards_are_normalised_by_returns_of_the_agents_own_discount(
    algorithm: str, gamma: float | None
) -> None:
    section = "agent" if algorithm == "concave_q" else "baseline"
    own = {section: {"gamma": gamma}} if gamma is not None else {}
    model = built(config(algorithm, env={"normalize_rewards": True}, **own))
    normalizer = model.get_vec_normalize_env()
    assert normalizer is not None
    assert normalizer.gamma == model.gamma
    assert model.gamma == (0.99 if gamma is None else gamma)


EPISODES, SEED = 3, 50


def returns_by_hand(
    model: OffPolicyAlgorithm, view: Callable[[np.ndarray], np.ndarray]
) -> list[float]:
    """Returns of the agent that sees observations through ``view``, one episode at a time."""
    env, returns = gym.make("Pendulum-v1", max_episode_steps=20), []
    for seed in range(SEED, SEED + EPISODES):
        observation, _ = env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            action, _ = model.predict(view(observation))
            observation, reward, terminated, truncated, _ = env.step(action)
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


# A norm keeps ConcaveQ's untrained actions off the bounds, where all observations are alike.
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("concave_q", {"agent": {"action_l2": 1.0}}), ("td3", {})],
    ids=["concave_q", "td3"],
)
def test_evaluations_see_observations_as_the_run_does_and_rewards_as_they_are(
    algorithm: str, options: dict[str, Any]
) -> None:
    env = {
        "kwargs": {"max_episode_steps": 20},
        "normalize_observations": True,
        "normalize_rewards": True,
        "reward_scale": 0.1,
    }
    training = {"evaluation_episodes": EPISODES}
    of = config(algorithm, env=env, training=training, **options)
    model = built(of)
    model.learn(50)
    normalizer = model.get_vec_normalize_env()
    assert isinstance(normalizer, VecNormalize)
    mean, var = normalizer.obs_rms.mean.copy(), normalizer.obs_rms.var.copy()
    found = evaluate(model, lambda: make_environment(of.env), of.training, SEED)
    expected = returns_by_hand(
        model, lambda x: np.clip((x - mean) / np.sqrt(var + 1e-8), -10, 10).astype(np.float32)
    )
    np.testing.assert_allclose(found.returns, expected, rtol=1e-5)
    assert not np.allclose(found.returns, returns_by_hand(model, lambda x: x), rtol=1e-3)
    assert found.lengths.tolist() == [20] * EPISODES
    np.testing.assert_array_equal(normalizer.obs_rms.mean, mean)  # an evaluation leaves no trace


@pytest.mark.parametrize(("kind", "theta"), [("gaussian", 1.0), ("ou", 0.3)])
@pytest.mark.parametrize("algorithm", ["concave_q", "ddpg", "td3"])
def test_exploration_noise_is_the_one_of_the_configuration(
    algorithm: str, kind: str, theta: float
) -> None:
    model = built(config(algorithm, noise={"kind": kind, "sigma": 0.35, "theta": theta}))
    draw = model.action_noise
    if isinstance(model, ConcaveQ) and kind == "gaussian":
        model.entropy = 1e3  # which puts the greedy action in the middle
        model._last_obs = np.zeros((1, 3), np.float32)
        draw = lambda: model._sample_action(0, None, 1)[1][0]  # noqa: E731
    assert draw is not None
    np.random.seed(0)  # the noise's generator is NumPy's global one
    x = np.array([draw() for _ in range(1500)])
    drawn = x[1:] - (1 - theta) * x[:-1]  # what is new in each: all of it without memory
    assert drawn.std() == pytest.approx(0.35, rel=0.05)
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert abs(np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]) < 0.1


def test_the_optimiser_is_the_one_of_the_configuration() -> None:
    optimizer = {"betas": [0.4, 0.99], "weight_decay": 0.02}
    network = SMALL["agent"]["policy_kwargs"] | {"optimizer_kwargs": optimizer}
    model = built(config(agent={"policy_kwargs": network, "learning_rate": 0.03}))
    (group,) = model.critic.optimizer.param_groups
    assert list(group["betas"]) == [0.4, 0.99]
    assert (group["weight_decay"], group["lr"]) == (0.02, 0.03)


def test_every_number_of_the_agent_is_the_one_of_the_configuration() -> None:
    numbers = {
        "batch_size": 17,
        "learning_starts": 18,
        "tau": 0.21,
        "gamma": 0.22,
        "gradient_steps": 3,
        "n_steps": 4,
        "target_noise": 0.23,
        "target_noise_clip": 0.24,
        "action_l2": 0.25,
        "entropy": 0.26,
        "td_clip": 0.27,
        "compile": False,
    }
    network = {
        "context": [16, 8],
        "convex": [8],
        "n_critics": 3,
        "norm": "none",
        "reads": "aligned",
    }
    precise = {"name": "newton", "tol": 1e-3, "max_evaluations": 20}
    of = config(agent=numbers | {"policy_kwargs": network, "solver": precise, "train_freq": 5})
    model = built(of)
    assert {name: getattr(model, name) for name in numbers} == numbers
    assert model.train_freq.frequency == 5
    assert model.solver == SolverSettings(**precise)
    assert model.acting_solver == SolverSettings(tol=1e-4, max_evaluations=200)
    assert model.policy.network.items() >= {**network, "context": (16, 8), "convex": (8,)}.items()


def test_arguments_of_a_baseline_are_those_of_the_configuration() -> None:
    numbers = {"batch_size": 17, "tau": 0.21, "gamma": 0.22, "policy_delay": 4}
    model = built(config("td3", baseline=numbers))
    assert {name: getattr(model, name) for name in numbers} == numbers


def test_what_stable_baselines3_refuses_is_named() -> None:
    envs = DummyVecEnv([lambda: BitFlippingEnv(n_bits=4, continuous=True)])
    with pytest.raises(ValueError, match=r"^agent: N-step returns are not supported for Dict"):
        build_agent(config(agent={"n_steps": 3}), envs)

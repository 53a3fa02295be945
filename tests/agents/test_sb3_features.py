"""What stable-baselines3's users expect to work, works."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv, IdentityEnvBox
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from toy_environments import Bandit

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.policies import ConcaveQPolicy

SMALL = {"context": (32,), "convex": (16,)}
QUICK: dict[str, Any] = {
    "learning_starts": 50,
    "batch_size": 32,
    "buffer_size": 500,
    "policy_kwargs": SMALL,
    "seed": 0,
}


def assert_acts_within(model: ConcaveQ, observations: Any) -> None:
    actions, _ = model.predict(observations)
    assert actions.shape[1:] == model.action_space.shape
    assert all(model.action_space.contains(a) for a in actions)


@pytest.mark.parametrize(
    ("n_envs", "train_freq", "gradient_steps", "updates"),
    [(1, 1, 1, 70), (2, 4, 2, 18), (2, 3, -1, 72), (1, (1, "episode"), 5, 0)],
)
def test_environments_and_update_frequencies(
    n_envs: int, train_freq: Any, gradient_steps: int, updates: int
) -> None:
    env = make_vec_env("Pendulum-v1", n_envs)
    options = {"train_freq": train_freq, "gradient_steps": gradient_steps}
    model = ConcaveQ("MlpPolicy", env, **QUICK, **options).learn(120)
    assert model._n_updates == (updates or 5)
    assert_acts_within(model, env.reset())


@pytest.mark.parametrize(
    "options",
    [
        {"n_steps": 3},
        {
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
        {"target_noise": 0.2},
        {"td_clip": 1.0, "entropy": 0.1},
        {"exploration_noise": 0.0},
        {"policy_kwargs": QUICK["policy_kwargs"] | {"optimizer_kwargs": {"foreach": True}}},
        {"learning_rate": lambda progress: 1e-3 * progress},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options(options: dict[str, Any]) -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **QUICK | options).learn(120)
    assert model._n_updates == 70
    assert_acts_within(model, model.get_env().reset())


@pytest.mark.parametrize(
    "network",
    [
        {"activation": "relu"},
        {"activation": "leaky_relu", "norm": "none"},
        {"n_critics": 1},
        {"dueling": True},
        {"dueling": True, "form": "quadratic"},
        {"n_critics": 3, "nonnegativity": "softplus"},
        {"optimizer_class": torch.optim.RMSprop},
        {"optimizer_kwargs": {"weight_decay": 1e-4}},
    ],
    ids=lambda network: "-".join(network),
)
def test_networks(network: dict[str, Any]) -> None:
    options = QUICK | {"policy_kwargs": SMALL | network}
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **options).learn(100)
    assert_acts_within(model, model.get_env().reset())


def test_ornstein_uhlenbeck_noise_is_one_process_an_environment() -> None:
    noise = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.full(1, 0.1))
    env = make_vec_env("Pendulum-v1", 2)
    model = ConcaveQ("MlpPolicy", env, action_noise=noise, **QUICK).learn(120)
    assert isinstance(model.action_noise, VectorizedActionNoise)
    first, second = model.action_noise.noises
    assert first.noise_prev != second.noise_prev


def test_exploration_noise_is_what_is_added_to_the_greedy_action() -> None:
    # So large an entropy puts the greedy action in the middle, where no noise is clipped.
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", entropy=1e3, exploration_noise=0.1, **QUICK)
    model.learn(2)
    actions = [model._sample_action(0, model.action_noise, 1)[1] for _ in range(500)]
    assert np.std(actions) == pytest.approx(0.1, rel=0.1)
    assert np.mean(actions) == pytest.approx(0, abs=0.02)


def test_normalised_environments() -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1", 2), norm_obs=True, norm_reward=True)
    model = ConcaveQ("MlpPolicy", env, **QUICK).learn(120)
    raw = model.replay_buffer.rewards[: model.replay_buffer.pos]
    sampled = model.replay_buffer.sample(32, env=env).rewards
    assert raw.min() < -1
    assert sampled.abs().max() < raw.max() - raw.min()
    mean, _ = evaluate_policy(model, env, n_eval_episodes=1, warn=False)
    assert np.isfinite(mean)


def test_hindsight_experience_replay() -> None:
    env = DummyVecEnv([lambda: BitFlippingEnv(n_bits=4, continuous=True)] * 2)
    kwargs = {"n_sampled_goal": 4, "goal_selection_strategy": "future"}
    model = ConcaveQ(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs=kwargs,
        **QUICK,
    ).learn(150)
    assert model._n_updates > 0
    assert_acts_within(model, env.reset())


class DictObservations(gym.ObservationWrapper):
    """Pendulum's observation in two named parts."""

    def __init__(self) -> None:
        super().__init__(gym.make("Pendulum-v1"))
        self.observation_space = spaces.Dict(
            {
                "angle": spaces.Box(-1.0, 1.0, (2,), np.float32),
                "speed": spaces.Box(-8.0, 8.0, (1,), np.float32),
            }
        )

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        return {"angle": observation[:2], "speed": observation[2:]}


def test_dict_observations() -> None:
    model = ConcaveQ("MultiInputPolicy", DictObservations(), **QUICK).learn(120)
    assert_acts_within(model, model.get_env().reset())


def test_images() -> None:
    env = FakeImageEnv(screen_height=36, screen_width=36, discrete=False)
    options = QUICK | {"batch_size": 4, "learning_starts": 10}
    model = ConcaveQ("CnnPolicy", env, tau=0.01, **options)
    extractors = [model.critic.features_extractor, model.critic_target.features_extractor]
    before = [next(e.parameters()).clone() for e in extractors]
    model.learn(20)
    for extractor, weight in zip(extractors, before, strict=True):
        assert not torch.equal(next(extractor.parameters()), weight)
    assert extractors[0] is not extractors[1]
    assert_acts_within(model, model.get_env().reset())


def test_matrix_actions_in_asymmetric_bounds() -> None:
    class Matrix(Bandit):
        action_space = spaces.Box(np.full((2, 2), -1.0), np.full((2, 2), 3.0), dtype=np.float64)

        def step(self, action: np.ndarray) -> Any:
            assert self.action_space.contains(action)
            return self.state, 0.0, True, False, {}

    model = ConcaveQ("MlpPolicy", Matrix(), **QUICK).learn(100)
    assert_acts_within(model, model.get_env().reset())


def test_same_seed_same_weights() -> None:
    weights = []
    for _ in range(2):
        model = ConcaveQ("MlpPolicy", "Pendulum-v1", **QUICK).learn(100)
        weights.append(model.policy.parameters_to_vector())
    np.testing.assert_array_equal(*weights)


def test_the_actor_is_the_policy() -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **QUICK)
    assert isinstance(model.actor, ConcaveQPolicy)
    assert model.actor is model.policy.actor
    obs = torch.as_tensor(model.get_env().reset())
    assert torch.equal(model.actor(obs), model.policy(obs))
    assert model.actor.features_extractor is model.critic.features_extractor


@pytest.mark.parametrize("dueling", [True, False])
def test_critics_called_as_those_of_stable_baselines3(dueling: bool) -> None:
    options = QUICK | {"policy_kwargs": SMALL | {"dueling": dueling}, "action_l2": 0.5}
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **options).learn(60)
    obs = torch.as_tensor(model.replay_buffer.observations[:8, 0])
    actions = torch.linspace(-1, 1, 8).unsqueeze(-1)
    for critic in (model.critic, model.critic_target):
        first, second = critic(obs, actions)
        critics = critic.condition(obs)
        best = model.policy.greedy(critics, model.acting_solver).y
        expected = -critics.value(actions)
        if dueling:
            expected = -critics.level + critics.value(best) + expected
        torch.testing.assert_close(torch.cat([first, second], 1).mT, expected)


@pytest.mark.parametrize("net_arch", [[5, 4], (5, 4), {"qf": [5, 4], "pi": [3]}, []], ids=str)
def test_widths_by_the_name_of_stable_baselines3(net_arch: Any, tmp_path: Path) -> None:
    options = QUICK | {"policy_kwargs": {"net_arch": net_arch}}
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **options).learn(60)
    widths = (5, 4) if net_arch else ()
    same = ConcaveQPolicy(
        model.observation_space, model.action_space, lambda _: 0.0, widths, target_network=True
    )
    shapes = [weight.shape for weight in model.policy.parameters()]
    assert shapes == [weight.shape for weight in same.parameters()]
    model.policy.save(tmp_path / "policy.pt")
    obs = model.get_env().reset()
    alone = ConcaveQPolicy.load(tmp_path / "policy.pt")
    np.testing.assert_array_equal(alone.predict(obs)[0], model.predict(obs)[0])


def test_targets_that_stay() -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", tau=0, **QUICK)
    before = [weight.clone() for weight in model.critic_target.parameters()]
    model.learn(60)
    for weight, old, new in zip(
        model.critic_target.parameters(), before, model.critic.parameters(), strict=True
    ):
        assert torch.equal(weight, old)
        assert not torch.equal(new, old)


@pytest.mark.slow
def test_a_few_hundred_steps_teach_by_default() -> None:
    env = IdentityEnvBox(eps=0.5)
    kwargs = {"net_arch": [32]}
    model = ConcaveQ("MlpPolicy", env, batch_size=64, policy_kwargs=kwargs, seed=0).learn(250)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=20, warn=False)
    assert mean >= 90  # of 100, where random actions have 44


@pytest.mark.parametrize(
    ("n_envs", "options"),
    [
        (1, {}),
        (1, {"train_freq": (1, "episode"), "gradient_steps": 5}),
        (2, {"n_steps": 3, "train_freq": 4, "gradient_steps": -1}),
        (2, {"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(1), np.full(1, 0.3))}),
    ],
    ids=["default", "episodes", "n-step", "noise with a memory"],
)
def test_how_training_is_cut_makes_no_difference(n_envs: int, options: dict[str, Any]) -> None:
    """In one part or in parts of 80 steps, amid episodes of 200 unless a rollout is an episode."""
    weights, actions = [], []
    for part in (240, 80):
        env = make_vec_env("Pendulum-v1", n_envs, seed=0)
        model = ConcaveQ("MlpPolicy", env, **QUICK | {"learning_starts": 150} | deepcopy(options))
        while model.num_timesteps < 240:
            model.learn(part, reset_num_timesteps=False)
        weights.append(model.policy.parameters_to_vector())
        actions.append(model.replay_buffer.actions.copy())
    assert model._n_updates > 0
    np.testing.assert_array_equal(*actions)
    np.testing.assert_array_equal(*weights)


RENORMALISED = QUICK | {"policy_kwargs": SMALL | {"norm": "batch"}}


def test_targets_begin_as_copies_and_follow_in_evaluation_mode() -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", tau=0.01, **RENORMALISED)
    critic, target = model.critic, model.critic_target
    assert not target.training
    torch.testing.assert_close(target.state_dict(), critic.state_dict(), rtol=0, atol=0)
    model.learn(60)
    moments = dict(critic.named_buffers())
    assert (moments["net.norm.0.batches"] == 10).all()
    torch.testing.assert_close(dict(target.named_buffers()), moments, rtol=0, atol=0)
    model.policy.set_training_mode(True)
    assert critic.training
    assert not target.training


def test_acting_leaves_the_moments_of_batches_alone() -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **RENORMALISED)
    observations = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    for act in (model.predict, lambda o: model.policy.draw(o, 1.0)):
        model.policy.set_training_mode(True)
        act(observations)
        assert not model.critic.training
        assert (model.critic.net.norm[0].batches == 0).all()


def test_another_environment_begins_an_episode_of_its_own() -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **QUICK).learn(10)
    model.set_env(gym.make("Pendulum-v1"))
    assert model._last_obs is None

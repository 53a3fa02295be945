"""The entry of rl-baselines3-zoo; benchmarks/zoo_commands.py runs the zoo itself with it."""

from __future__ import annotations

import gymnasium as gym
import pytest
from optuna.trial import FixedTrial
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.her import GoalSelectionStrategy
from tiny_runs import preset

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.zoo import PRESETS, convert, hyperparams, sample

ARGUMENTS = (
    *("gamma", "tau", "n_steps", "learning_starts", "action_l2", "target_noise", "batch_size"),
    *("exploration_noise", "solver", "gradient_steps", "train_freq"),
)

TRIAL = {
    "one_minus_gamma": 0.01,
    "learning_rate": 1e-3,
    "batch_size_pow": 6,
    "tau": 0.005,
    "exploration_noise": 0.1,
    "action_l2": 1.0,
    "net_arch": "small",
    "n_critics": 3,
    "dueling": False,
    "n_sampled_goal": 4,
    "goal_selection_strategy": "final",
}


@pytest.mark.parametrize("task", ["Pendulum-v1", "Swimmer-v5", "Ant-v5", "Walker2d-v5"])
def test_hyperparameters_are_those_of_the_preset(task: str) -> None:
    config, entry = preset(PRESETS[task]), dict(hyperparams[task])
    envs = make_vec_env(task)
    model = build_agent(config, envs, buffer_size=1)
    assert entry.pop("n_timesteps") == config.training.steps
    normalized = {"norm_obs": True, "norm_reward": False} if "normalize" in entry else None
    assert entry.pop("normalize", None) == normalized
    assert (normalized is not None) == config.env.normalize_observations
    assert entry.pop("learning_rate") == f"lin_{model.lr_schedule(1)}"
    same = ConcaveQ(env=envs, buffer_size=1, **entry)
    assert {name: getattr(model, name) for name in ARGUMENTS} == {
        name: getattr(same, name) for name in ARGUMENTS
    }
    assert model.policy.network == same.policy.network
    assert model.policy.dueling == same.policy.dueling


def test_every_task_is_one_of_gymnasium() -> None:
    assert hyperparams.keys() - {"default"} <= gym.registry.keys()


@pytest.mark.parametrize("goals", [False, True])
def test_a_trial_is_sampled_and_read_from_its_study_alike(goals: bool) -> None:
    kwargs = {"copy_info_dict": True} if goals else {}
    trial = FixedTrial(TRIAL)
    arguments = sample(trial, 1, 1, {"using_her_replay_buffer": goals, "her_kwargs": kwargs})
    env = BitFlippingEnv(n_bits=4, continuous=True)
    options = arguments | ({"replay_buffer_class": HerReplayBuffer} if goals else {})
    model = ConcaveQ("MultiInputPolicy", env, buffer_size=200, learning_starts=20, **options)
    model.learn(21)
    assert (model.gamma, model.batch_size, model.action_l2) == (0.99, 64, 1.0)
    assert (model.policy.n_critics, model.policy.dueling) == (3, False)
    assert model.policy.network["context"] == (64, 64)
    if isinstance(buffer := model.replay_buffer, HerReplayBuffer):
        assert (buffer.n_sampled_goal, buffer.copy_info_dict) == (4, True)
        assert buffer.goal_selection_strategy is GoalSelectionStrategy.FINAL
        arguments["replay_buffer_kwargs"].pop("copy_info_dict")  # no part of the study
    assert convert(trial.params) == arguments

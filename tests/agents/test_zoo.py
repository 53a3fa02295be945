"""The entry of rl-baselines3-zoo; benchmarks/zoo_commands.py runs the zoo itself with it."""

from __future__ import annotations

import gymnasium as gym
import pytest
from stable_baselines3.common.env_util import make_vec_env
from tiny_runs import preset

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.zoo import PRESETS, hyperparams

ARGUMENTS = (
    *("gamma", "tau", "n_steps", "learning_starts", "action_l2", "target_noise", "batch_size"),
    *("exploration_noise", "solver", "gradient_steps", "train_freq"),
)


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

"""Every preset is a run that can begin."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium import spaces
from tiny_runs import preset

from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.environments import make_training_environments
from icnn_rl.cli import main
from icnn_rl.runs.configuration import from_plain, presets, to_plain
from icnn_rl.runs.folder import RunFolder

TASKS = {
    "Pendulum-v1",
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Hopper-v5",
    "HalfCheetah-v5",
    "Walker2d-v5",
    "Ant-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "Pusher-v5",
    "icnn_rl.envs:icnn_rl/Battery-v0",
}


@pytest.mark.parametrize("name", presets("train"))
def test_a_preset_makes_an_agent_for_a_task_with_continuous_actions(name: str) -> None:
    config = preset(name)
    envs = make_training_environments(config)  # imports the module of "module:task"
    task = config.env.id.rpartition(":")[2]
    assert task in gym.registry
    assert presets("train")[name].startswith(task)
    assert isinstance(envs.action_space, spaces.Box)
    agent = build_agent(config, envs, buffer_size=1)
    action, _ = agent.predict(envs.reset())
    assert action.shape == (1, *envs.action_space.shape)


def test_there_is_a_modern_preset_for_every_task_and_the_paper_recipe_for_two() -> None:
    configs = {name: preset(name) for name in presets("train")}
    icml = {name for name in configs if name.endswith("-icml")}
    naf = {name for name in configs if name.endswith("-naf")}
    assert {configs[name].env.id for name in configs.keys() - icml - naf} >= TASKS
    assert icml == {"pendulum-icml", "halfcheetah-icml"}
    for name in icml:
        agent = configs[name].agent
        assert agent.policy_kwargs.context == agent.policy_kwargs.convex == (200, 200)
        assert (agent.policy_kwargs.n_critics, agent.entropy, agent.td_clip) == (1, 1.0, 1.0)
    assert naf == {"pendulum-naf", "halfcheetah-naf"}
    for name in naf:
        network = configs[name].agent.policy_kwargs
        assert (network.form, network.context, network.n_critics) == ("quadratic", (200, 200), 1)


def test_the_learning_rate_falls_to_its_share_at_the_last_step() -> None:
    config = preset(
        "pendulum", "--agent.learning_rate=0.01", "--agent.learning_rate_end_factor=0.2"
    )
    agent = build_agent(config, make_training_environments(config))
    rates = [agent.lr_schedule(remaining) for remaining in (1.0, 0.5, 0.0)]
    assert rates == pytest.approx([0.01, 0.006, 0.002])


def test_the_paper_recipe_reaches_the_optimiser_and_the_noise() -> None:
    config = preset("pendulum-icml")
    agent = build_agent(config, make_training_environments(config))
    assert agent.critic.optimizer.param_groups[0]["weight_decay"] == 1e-4
    assert agent.action_noise is not None
    assert "OrnsteinUhlenbeck" in repr(agent.action_noise)


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    arguments = [
        "--agent.policy_kwargs.context=[8, 4]",
        "--env.kwargs.g=9.0",
        "--agent.td_clip=0.5",
    ]
    config = preset("humanoid", *arguments, "--track=true")
    run = RunFolder(tmp_path)
    run.write_config(to_plain(config))
    assert from_plain(Config, run.read_config()) == config
    assert config != Config()


def test_later_arguments_go_before_the_preset() -> None:
    config = preset("pendulum", "--training.steps=7")
    assert config.training.steps == 7
    assert config.training.evaluation_episodes == 20


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = []
    for command in ("train", "fit", "benchmark"):
        expected += [f"icnn-rl {command}", *presets(command)]
    assert [line if line.startswith("icnn-rl") else line.split()[0] for line in lines] == expected

"""Every argument of the agent and of its policy reaches what it controls, none is ignored."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import FlattenExtractor

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.policies import ConcaveQPolicy


class Recording(ReplayBuffer):
    """Remembers the sizes of batches."""

    sizes: list[int]

    def sample(self, batch_size: int, env: Any = None) -> Any:
        self.sizes = [*getattr(self, "sizes", []), batch_size]
        return super().sample(batch_size, env)


class Other(Recording):
    """Another class of buffer."""


class Scaled(FlattenExtractor):
    """A features extractor with an argument."""

    def __init__(self, space: Any, factor: float = 1.0) -> None:
        super().__init__(space)
        self.factor = factor


STEPS, STARTS = 12, 3
NETWORK = {"context": (16, 16), "convex": (8, 8)}
OPTIONS: dict[str, Any] = {
    "learning_starts": STARTS,
    "batch_size": 8,
    "buffer_size": 100,
    "replay_buffer_class": Recording,
    "policy_kwargs": NETWORK,
    "seed": 0,
    "device": "cpu",
}
CENTRED = {"entropy": 1e3}  # puts the greedy action in the middle, where no noise is clipped
OBSERVATIONS = torch.linspace(-1, 1, 24).view(8, 3)
ACTIONS = torch.linspace(-0.9, 0.9, 8).unsqueeze(-1)

Observe = Callable[[ConcaveQ], Any]


def explored(model: ConcaveQ) -> np.ndarray:
    """Scaled actions that explore."""
    return np.array([model._sample_action(0, model.action_noise, 1)[1] for _ in range(300)])


def smoothed(model: ConcaveQ) -> torch.Tensor:
    return model._smooth(torch.zeros(2000, 1), OBSERVATIONS)


def discount(model: ConcaveQ) -> float:
    """What the target has of the next state's value."""
    batch = model.replay_buffer.sample(8)
    _, critics = model.policy.condition(batch.observations, batch.next_observations)
    with torch.no_grad():
        target, _ = model._td_target(batch, critics)
        return float(((target - batch.rewards[:, 0]) / -critics.level.amax(0)).mean())


def added(model: ConcaveQ, action: float) -> float:
    """What the greedy action minimises beyond the mean of the critics."""
    critics = model.critic.condition(OBSERVATIONS)
    a = torch.full((8, 1), action)
    with torch.no_grad():
        return float((model.policy.objective(critics).value(a) - critics.mean(0).value(a)).mean())


def clamped(model: ConcaveQ) -> bool:
    """Whether weights below 0 are moved to 0 after a step."""
    path = model.critic.net.path
    with torch.no_grad():
        path.raw_z[0].fill_(-1.0)
        model.critic.net.project_()
    return bool((path.raw_z[0] == 0).all())


def logged(name: str) -> Observe:
    return lambda model: model.logger.name_to_value[name]


def plain(model: ConcaveQ) -> bool:
    """Whether Q is the network turned over."""
    with torch.no_grad():
        value = model.critic.condition(OBSERVATIONS).value(ACTIONS)
        return torch.equal(model.policy.q(OBSERVATIONS, ACTIONS), -value)


def group(model: ConcaveQ) -> dict[str, Any]:
    (parameters,) = model.critic.optimizer.param_groups
    return parameters


# By argument: its value, with further ones that it needs; what it controls; and what that is then.
AGENT: dict[str, tuple[dict[str, Any], Observe, Any]] = {
    "learning_rate": ({"learning_rate": 0.03}, lambda m: group(m)["lr"], 0.03),
    "buffer_size": ({"buffer_size": 40}, lambda m: m.replay_buffer.buffer_size, 40),
    "learning_starts": ({"learning_starts": 9}, lambda m: m._n_updates, STEPS - 9),
    "batch_size": ({"batch_size": 5}, lambda m: set(m.replay_buffer.sizes), {5}),
    "tau": ({"tau": 1.0}, lambda m: m.critic_target is None, True),
    "gamma": ({"gamma": 0.5}, discount, pytest.approx(0.5, rel=1e-3)),
    "train_freq": ({"train_freq": 4}, lambda m: m._n_updates, STEPS // 4),
    "gradient_steps": ({"gradient_steps": 2}, lambda m: m._n_updates, 2 * (STEPS - STARTS)),
    "action_noise": (
        {"action_noise": NormalActionNoise(np.full(1, 0.7), np.zeros(1))} | CENTRED,
        lambda m: explored(m).mean(),
        pytest.approx(0.7, abs=0.02),
    ),
    "exploration_noise": (
        {"exploration_noise": 0.05} | CENTRED,
        lambda m: explored(m).std(),
        pytest.approx(0.05, rel=0.2),
    ),
    "exploration_temperature": (
        {"exploration_temperature": 1e-7},
        lambda m: explored(m).std() < 0.02,
        True,
    ),
    "replay_buffer_class": ({"replay_buffer_class": Other}, lambda m: type(m.replay_buffer), Other),
    "replay_buffer_kwargs": (
        {"replay_buffer_kwargs": {"handle_timeout_termination": False}},
        lambda m: m.replay_buffer.handle_timeout_termination,
        False,
    ),
    "optimize_memory_usage": (
        {
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
        lambda m: m.replay_buffer.optimize_memory_usage,
        True,
    ),
    "n_steps": (
        {"n_steps": 3, "replay_buffer_class": None},
        lambda m: getattr(m.replay_buffer, "n_steps", 1),
        3,
    ),
    "target_noise": (
        {"target_noise": 0.1},
        lambda m: float(smoothed(m).std()),
        pytest.approx(0.1, rel=0.1),
    ),
    "target_noise_clip": (
        {"target_noise_clip": 0.1, "target_noise": 1.0},
        lambda m: float(smoothed(m).abs().max()),
        pytest.approx(0.1),
    ),
    "action_l2": ({"action_l2": 0.7}, lambda m: added(m, 1.0), pytest.approx(0.35, rel=1e-4)),
    "entropy": ({"entropy": 0.3}, lambda m: added(m, 0.0), pytest.approx(-0.3 * math.log(2))),
    "td_clip": (
        {"td_clip": 1e-3},
        logged("train/critic_loss"),
        pytest.approx(2e-6, rel=0.1),
    ),
    "solver": ({"solver": {"max_evaluations": 1}}, logged("solver/evaluations"), 1),
    "acting_solver": (
        {"acting_solver": {"max_evaluations": 1}},
        lambda m: int(m.policy.solve(OBSERVATIONS).evaluations.max()),
        1,
    ),
    "stats_window_size": ({"stats_window_size": 7}, lambda m: m.ep_info_buffer.maxlen, 7),
    "policy_kwargs": (
        {"policy_kwargs": NETWORK | {"n_critics": 3}},
        lambda m: len(m.critic.net.weight[0]),
        3,
    ),
    "verbose": ({"verbose": 1}, lambda m: m.verbose, 1),
    "seed": ({"seed": 7}, lambda m: torch.initial_seed(), 7),
}
POLICY: dict[str, tuple[dict[str, Any], Observe, Any]] = {
    "context": ({"context": (5,)}, lambda m: m.critic.net.weight[0].shape[-1], 5),
    "convex": ({"convex": (5,)}, lambda m: m.critic.net.path.raw_y[0].shape[-1], 5),
    "activation": (
        {"activation": "elu"},
        lambda m: float(m.critic.net.path.activation.value(torch.tensor(-1.0))),
        pytest.approx(math.exp(-1) - 1),
    ),
    "reads": ({"reads": "aligned"}, lambda m: m.critic.net.reads, "aligned"),
    "form": ({"form": "quadratic"}, lambda m: type(m.critic.net).__name__, "QuadraticNetwork"),
    "n_critics": (
        {"n_critics": 3},
        lambda m: len(m.critic.condition(OBSERVATIONS).value(ACTIONS)),
        3,
    ),
    "modes": ({"modes": 3}, lambda m: len(m.critic.net.weight[0]), 2 * 3),
    "dueling": ({"dueling": False}, plain, True),
    "norm": ({"norm": "none"}, lambda m: type(m.critic.net.norm[0]), torch.nn.Identity),
    "nonnegativity": ({"nonnegativity": "softplus"}, clamped, False),
    "features_extractor_class": (
        {"features_extractor_class": Scaled},
        lambda m: type(m.critic.features_extractor),
        Scaled,
    ),
    "features_extractor_kwargs": (
        {"features_extractor_kwargs": {"factor": 2.0}, "features_extractor_class": Scaled},
        lambda m: m.critic.features_extractor.factor,
        2.0,
    ),
    "normalize_images": ({"normalize_images": False}, lambda m: m.critic.normalize_images, False),
    "optimizer_class": (
        {"optimizer_class": torch.optim.SGD},
        lambda m: type(m.critic.optimizer),
        torch.optim.SGD,
    ),
    "optimizer_kwargs": (
        {"optimizer_kwargs": {"weight_decay": 0.5}},
        lambda m: group(m)["weight_decay"],
        0.5,
    ),
}


def trained(options: dict[str, Any]) -> ConcaveQ:
    return ConcaveQ("MlpPolicy", "Pendulum-v1", **OPTIONS | options).learn(STEPS)


@pytest.mark.parametrize("name", AGENT)
def test_an_argument_of_the_agent_reaches_what_it_controls(name: str) -> None:
    options, observe, expected = AGENT[name]
    assert observe(trained(options)) == expected
    assert observe(trained({k: v for k, v in options.items() if k != name})) != expected


@pytest.mark.parametrize("name", POLICY)
def test_an_argument_of_the_policy_reaches_what_it_controls(name: str) -> None:
    options, observe, expected = POLICY[name]
    without = {k: v for k, v in options.items() if k != name}
    assert observe(trained({"policy_kwargs": NETWORK | options})) == expected
    assert observe(trained({"policy_kwargs": NETWORK | without})) != expected


def test_the_learning_rate_follows_its_schedule() -> None:
    model = trained({"learning_rate": lambda progress: 0.03 * progress})
    assert model._current_progress_remaining < 0.2
    assert group(model)["lr"] == pytest.approx(0.03 * model._current_progress_remaining)


def test_the_log_goes_to_the_folder_of_tensorboard(tmp_path: Path) -> None:
    trained({"tensorboard_log": str(tmp_path)})
    assert list(tmp_path.glob("ConcaveQ_1/events.out.tfevents.*"))


def test_no_argument_is_missing_here() -> None:
    elsewhere = {"tensorboard_log", "compile", "device"}  # above, and in tests/cuda
    given = {"policy", "env", "_init_setup_model"}
    assert AGENT.keys() | elsewhere | given == inspect.signature(ConcaveQ).parameters.keys()
    # in test_sb3_features.py and test_bad_input.py
    elsewhere = {"net_arch", "share_features_extractor"}
    by_agent = {"target_network", "action_l2", "entropy", "solver"}
    given = {"observation_space", "action_space", "lr_schedule"}
    assert (
        POLICY.keys() | elsewhere | by_agent | given
        == inspect.signature(ConcaveQPolicy).parameters.keys()
    )

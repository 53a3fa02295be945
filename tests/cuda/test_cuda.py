"""What runs on a GPU gives what it gives on the CPU; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from icnn_rl import PICNN, Box, ConvexFunction, minimize
from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.captured import WARM_UP
from icnn_rl.envs.constraints import LimitedActions, PowerLimit, RampLimits

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device on this machine", allow_module_level=True)

UNIT = Box(-1.0, 1.0)
OPTIONS: dict[str, Any] = {
    "learning_starts": 100,
    "buffer_size": 2000,
    "seed": 0,
    "device": "cuda",
    "compile": True,
}


def network(device: str, n: int, dtype: torch.dtype, batch: int = 64) -> ConvexFunction:
    torch.manual_seed(n)
    net = PICNN(5, n, (32,), (64,), "squareplus", ensemble=2).to(dtype).requires_grad_(False)
    x = torch.randn(batch, 5).to(dtype)
    return net.to(device).condition(x.to(device)).mean(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3, 6, 17])
def test_many_samples_are_solved_on_the_device(n: int, dtype: torch.dtype) -> None:
    there = minimize(network("cuda", n, dtype), UNIT, 1e-3)
    here = minimize(network("cpu", n, dtype), UNIT, 1e-3, "newton_on_device")
    rounding = 1e-5 if dtype == torch.float32 else 1e-12
    size = rounding * here.value.abs().clamp(min=1)
    assert there.y.is_cuda
    assert len(set(there.evaluations.tolist())) > 1  # each ends when it is done: the kernel's
    assert there.converged.double().mean() >= here.converged.double().mean() - 0.05
    assert (there.lower_bound.cpu() <= here.value + size).all()
    assert (here.lower_bound <= there.value.cpu() + size).all()


def test_a_graph_of_minimize_is_minimize() -> None:
    f = network("cuda", 6, torch.float32)
    eager = minimize(f, UNIT, 1e-2, max_evaluations=5)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        minimize(f, UNIT, 1e-2, max_evaluations=5)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream):
        captured = minimize(f, UNIT, 1e-2, max_evaluations=5)
    graph.replay()
    torch.testing.assert_close(captured.y, eager.y)
    torch.testing.assert_close(captured.gap, eager.gap)
    assert (captured.converged == eager.converged).all()


def numbers(model: ConcaveQ) -> dict[str, Tensor]:
    """All that an update changes."""
    state = model.critic.optimizer.state_dict()["state"]
    moments = {f"{i}.{name}": t for i, each in state.items() for name, t in each.items()}
    return {k: t.clone() for k, t in (model.policy.state_dict() | moments).items()}


def assert_alike(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float) -> None:
    """Whether tensors differ by no more than a share of the largest entry of each."""
    assert one.keys() == other.keys()
    for name, t in one.items():
        scale = t.abs().max().clamp(min=1e-12)
        assert (t - other[name]).abs().max() <= rtol * scale, name


def test_a_graph_is_made_only_if_asked_for() -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **OPTIONS | {"compile": False}).learn(110)
    assert model._n_updates == 10
    assert model._captured.graph is None


@pytest.mark.parametrize(
    "options", [{}, {"n_steps": 3, "action_l2": 1.0}, {"td_clip": 1.0, "entropy": 0.1}], ids=str
)
def test_updates_by_a_graph_are_the_updates(options: dict[str, Any]) -> None:
    eager, graph = (ConcaveQ("MlpPolicy", "Pendulum-v1", **OPTIONS | options) for _ in range(2))
    for model in (eager, graph):
        model.learn(100)
    assert_alike(numbers(graph), numbers(eager), 0.0)
    for update in range(WARM_UP + 5):
        batch = eager.replay_buffer.sample(256)
        for model in (eager, graph):
            model.critic.optimizer.param_groups[0]["lr"] = 1e-3 / (1 + update)
        loss, solutions = eager._update(batch)
        captured_loss, captured_solutions = graph._captured(batch)
        torch.testing.assert_close(captured_loss, loss, rtol=1e-4, atol=1e-4)
        for a, b in zip(captured_solutions, solutions, strict=True):
            torch.testing.assert_close(a.y, b.y, rtol=1e-3, atol=1e-3)
    assert graph._captured.graph is not None
    assert_alike(numbers(graph), numbers(eager), 1e-4)


@pytest.mark.parametrize("limit", [RampLimits, PowerLimit])
def test_limits_are_kept_to(limit: type[LimitedActions]) -> None:
    env = limit(gym.make("Pendulum-v1"), 0.3)
    model = ConcaveQ("MlpPolicy", env, **OPTIONS).learn(110)
    assert model._n_updates == 10
    observation, _ = env.reset(seed=0)
    *_, info = env.step(model.predict(observation)[0])
    assert info["violation"] < 1e-6


def test_noise_of_the_target_differs_from_replay_to_replay() -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", target_noise=0.2, **OPTIONS)
    model.learn(100)
    batch = model.replay_buffer.sample(256)
    model.critic.optimizer.param_groups[0]["lr"] = 0.0  # so that nothing else changes
    model.tau = 0.0
    losses = [float(model._captured(batch)[0]) for _ in range(WARM_UP + 3)]
    assert len(set(losses[WARM_UP:])) == 3


def test_loading_weights_makes_a_new_recording() -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **OPTIONS)
    model.learn(110)
    first = model._captured
    model.set_parameters(model.get_parameters())
    before = numbers(model)
    model.learn(10, reset_num_timesteps=False)
    assert model._captured is not first
    assert any((t != before[k]).any() for k, t in numbers(model).items())
    assert model.critic.optimizer.state_dict()["state"][0]["step"] == model._n_updates


def test_training_saving_and_loading(tmp_path: Path) -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **OPTIONS | {"learning_rate": lambda p: 1e-3 * p})
    model.learn(600)
    assert model._n_updates == 500
    assert model._captured is not None
    logged = model.logger.name_to_value
    assert np.isfinite(logged["train/critic_loss"])
    assert 0 <= logged["solver/gap_mean"] <= logged["solver/gap_max"]
    assert logged["solver/not_converged"] <= 0.1
    model.save(tmp_path / "model")
    model.observation_space.seed(0)
    many = np.stack([model.observation_space.sample() for _ in range(100)])
    for observations in (many, many[:1]):
        actions = torch.as_tensor(model.predict(observations)[0])
        for device in ("cuda", "cpu"):
            loaded = ConcaveQ.load(tmp_path / "model", device=device)
            again = torch.as_tensor(loaded.predict(observations)[0])
            critics = loaded.critic.condition(loaded.policy.obs_to_tensor(observations)[0])
            worth = [critics.mean(0).value(a.to(device) / 2) for a in (actions, again)]
            torch.testing.assert_close(*worth, rtol=1e-4, atol=2e-3)
    loaded = ConcaveQ.load(tmp_path / "model", env=model.get_env(), device="cuda")
    loaded.learn(150, reset_num_timesteps=False)
    assert loaded._n_updates > model._n_updates

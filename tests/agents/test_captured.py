"""An update on static memory, as a CUDA graph makes it, is the update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.captured import CapturedUpdate

OPTIONS: dict[str, Any] = {
    "learning_starts": 60,
    "batch_size": 32,
    "buffer_size": 500,
    "policy_kwargs": {"context": (32,), "convex": (16,)},
    "seed": 0,
    "device": "cpu",
}


def agent(**options: Any) -> ConcaveQ:
    """An agent with a filled buffer that has not learnt yet."""
    return ConcaveQ("MlpPolicy", "Pendulum-v1", **OPTIONS | options).learn(60)


def numbers(model: ConcaveQ) -> dict[str, Tensor]:
    """All that an update changes."""
    state = model.critic.optimizer.state_dict()["state"]
    moments = {f"{i}.{name}": t for i, each in state.items() for name, t in each.items()}
    return {k: t.clone() for k, t in (model.policy.state_dict() | moments).items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_steps": 3},
        {"target_noise": 0.2, "td_clip": 1.0, "entropy": 0.1},
        {"action_l2": 1.0},
        {"tau": 1.0, "policy_kwargs": OPTIONS["policy_kwargs"] | {"norm": "batch"}},
        {"policy_kwargs": OPTIONS["policy_kwargs"] | {"optimizer_class": torch.optim.AdamW}},
    ],
    ids=str,
)
def test_updates_on_static_memory_are_the_updates(options: dict[str, Any]) -> None:
    plain, static = agent(**options), agent(**options)
    batches = [plain.replay_buffer.sample(32) for _ in range(5)]
    captured = CapturedUpdate(static)
    for i, batch in enumerate(batches):
        for model in (plain, static):  # as a schedule would
            model.critic.optimizer.param_groups[0]["lr"] = 1e-3 / (i + 1)
        torch.manual_seed(i)
        loss, solutions = plain._update(batch)
        torch.manual_seed(i)
        captured.fill(batch)
        static_loss, static_solutions = captured.run()
        torch.testing.assert_close(static_loss, loss, rtol=1e-5, atol=1e-6)
        for a, b in zip(static_solutions, solutions, strict=True):
            torch.testing.assert_close(a.y, b.y, rtol=1e-4, atol=1e-4)
        group = static.critic.optimizer.param_groups[0]
        assert group["lr"] == 1e-3 / (i + 1)
        assert group["capturable"] is False
    torch.testing.assert_close(numbers(static), numbers(plain), rtol=1e-4, atol=1e-5)
    assert static.critic.optimizer.state_dict()["state"][0]["step"] == 5


def test_a_recording_serves_the_same_update_only() -> None:
    model = agent()
    batch = model.replay_buffer.sample(32)
    captured = CapturedUpdate(model)
    assert captured.fits(batch)
    captured.fill(batch)
    captured.run()
    assert captured.fits(model.replay_buffer.sample(32))
    assert not captured.fits(model.replay_buffer.sample(16))
    for name in ("gamma", "tau", "td_clip", "action_l2", "entropy", "target_noise", "solver"):
        before = getattr(model, name)
        setattr(model, name, replace(before, tol=0.5) if name == "solver" else 0.5)
        assert not captured.fits(batch), name
        setattr(model, name, before)
    assert captured.fits(batch)
    model.set_parameters(model.get_parameters())  # the optimiser's state is in new memory now
    assert not captured.fits(batch)


def test_on_the_cpu_nothing_is_recorded() -> None:
    model = agent(compile=True)
    assert not model._captured.possible(model.replay_buffer.sample(64))
    model.learn(5, reset_num_timesteps=False)
    assert model._captured.graph is None

"""ConcaveQ finds optima that are known, and its actions are certified."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import configure
from toy_environments import Bandit, ConstantReward, best_action

from icnn_rl import Solution
from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.policies import ConcaveQPolicy
from icnn_rl.agents.solver import TARGET, measures

SMALL = {"context": (64,), "convex": (32,)}


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "dueling"])
def trained(request: pytest.FixtureRequest) -> ConcaveQ:
    model = ConcaveQ(
        "MlpPolicy",
        Bandit(),
        learning_rate=3e-3,
        learning_starts=100,
        batch_size=128,
        exploration_noise=0.2,
        policy_kwargs=SMALL | {"dueling": request.param},
        seed=0,
    )
    return model.learn(700)


def test_reaches_the_optimum_of_a_bandit(trained: ConcaveQ) -> None:
    states = np.random.default_rng(1).uniform(-0.9, 0.9, (500, 2)).astype(np.float32)
    actions, _ = trained.predict(states)
    width = trained.action_space.high - trained.action_space.low
    error = np.abs(actions - best_action(states)) / width
    assert error.mean() < 0.03
    assert np.quantile(error, 0.95) < 0.1


def test_q_of_the_greedy_action_is_the_value_of_a_dueling_critic(trained: ConcaveQ) -> None:
    policy, obs = trained.policy, torch.rand(16, 2) * 2 - 1
    actions = policy.solve(obs).y
    with torch.no_grad():
        q, level = policy.q(obs, actions), policy.critic.condition(obs).level
        rounding = 1e-5 * q.abs().max()
        assert ((q + level).abs().max() <= rounding) == policy.dueling
        others = torch.stack([policy.q(obs, torch.rand(16, 2) * 2 - 1) for _ in range(100)])
    assert (others.mean(1).amax(0) <= q.mean(0) + 1e-3).all()


@pytest.mark.parametrize("option", [None, "entropy", "action_l2"])
def test_no_random_action_beats_the_greedy_one_by_more_than_its_gap(
    trained: ConcaveQ, option: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = trained.policy
    obs = torch.rand(16, 2) * 2 - 1
    if option is not None:
        monkeypatch.setattr(policy, option, 0.1)
    solution = policy.solve(obs)
    with torch.no_grad():
        f = policy.objective(policy.critic.condition(obs))
        others = torch.stack([f.value(torch.rand(16, 2) * 2 - 1) for _ in range(1000)])
        value = f.value(solution.y)
    rounding = 1e-5 * value.abs().max()
    assert solution.converged.all()
    assert (value <= others.amin(0) + solution.gap + rounding).all()


@pytest.mark.parametrize("option", ["entropy", "action_l2"])
def test_actions_move_inside(option: str) -> None:
    options = {option: 100.0}
    model = ConcaveQ("MlpPolicy", Bandit(), **options, policy_kwargs=SMALL, seed=0)  # type: ignore[arg-type]
    actions, _ = model.predict(np.zeros((4, 2), np.float32))
    middle = (model.action_space.low + model.action_space.high) / 2
    assert np.abs(actions - middle).max() < 0.05


def test_the_norm_of_the_action_is_weighed_against_q(trained: ConcaveQ) -> None:
    policy, obs = trained.policy, torch.rand(16, 2) * 2 - 1
    policy_with = ConcaveQPolicy(**policy._get_constructor_parameters() | {"action_l2": 3.0})
    policy_with.load_state_dict(policy.state_dict())
    actions = torch.rand(16, 2) * 2 - 1
    with torch.no_grad():
        plain, penalised = (
            p.objective(p.critic.condition(obs)).value(actions) for p in (policy, policy_with)
        )
    torch.testing.assert_close(penalised - plain, 1.5 * actions.square().sum(-1))


@pytest.mark.parametrize("dueling", [False, True])
def test_targets_bootstrap_at_time_limits_and_not_at_terminal_states(dueling: bool) -> None:
    targets = {}
    for terminates in (True, False):
        env, network = ConstantReward(terminates), SMALL | {"dueling": dueling}
        model = ConcaveQ("MlpPolicy", env, learning_starts=50, policy_kwargs=network, seed=0)
        model.learn(40)
        batch = model.replay_buffer.sample(32)
        _, critics = model.policy.condition(batch.observations, batch.next_observations)
        target, _ = model._td_target(batch, critics)
        with torch.no_grad():
            best = model.policy.greedy(critics, model.solver).y
            next_q = -(critics.level if dueling else critics.value(best)).amax(0)
        targets[terminates] = target, 1 + 0.99 * next_q
    terminal, _ = targets[True]
    truncated, bootstrapped = targets[False]
    torch.testing.assert_close(terminal, torch.ones(32))
    torch.testing.assert_close(truncated, bootstrapped)


RENORMALISED: dict[str, Any] = {
    "tau": 1.0,
    "policy_kwargs": SMALL | {"norm": "batch", "optimizer_kwargs": {"betas": (0.5, 0.999)}},
}


def test_without_target_networks_both_states_are_normalised_as_one_batch() -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", learning_starts=50, seed=0, **RENORMALISED)
    model.learn(60)
    assert model.critic_target is None
    batch, before = model.replay_buffer.sample(32), deepcopy(model.critic.state_dict())
    model.policy.set_training_mode(True)
    critics, following = model.policy.condition(batch.observations, batch.next_observations)
    model.critic.load_state_dict(before)
    with torch.no_grad():
        both = model.critic.condition(torch.cat([batch.observations, batch.next_observations]))
    torch.testing.assert_close(critics.level, both.level[:, :32])
    torch.testing.assert_close(following.level, both.level[:, 32:])
    alone = model.critic.condition(batch.next_observations)
    assert not torch.allclose(following.level, alone.level)


def test_without_target_networks_it_learns_too() -> None:
    options = {"learning_starts": 100, "batch_size": 128, "learning_rate": 3e-3}
    model = ConcaveQ("MlpPolicy", Bandit(), seed=0, **options, **RENORMALISED).learn(800)
    states = np.random.default_rng(1).uniform(-0.9, 0.9, (500, 2)).astype(np.float32)
    width = model.action_space.high - model.action_space.low
    error = np.abs(model.predict(states)[0] - best_action(states)) / width
    assert error.mean() < 0.08


def test_td_clip_keeps_the_target_near_the_estimate() -> None:
    model = ConcaveQ("MlpPolicy", ConstantReward(True), td_clip=1e-3, policy_kwargs=SMALL, seed=0)
    model.learn(40)
    batch = model.replay_buffer.sample(32)
    critics, _ = model.policy.condition(batch.observations, batch.next_observations)
    loss, _ = model._loss(batch, critics, torch.full((32,), 100.0))
    assert loss.item() == pytest.approx(2 * 1e-6, rel=1e-2)


def test_solver_statistics_are_logged(tmp_path: Path) -> None:
    model = ConcaveQ("MlpPolicy", Bandit(), learning_starts=20, policy_kwargs=SMALL, seed=0)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(40, log_interval=None)
    values = model.logger.name_to_value
    assert 1 <= values["solver/evaluations"] <= model.solver.max_evaluations
    assert 0 <= values["solver/gap_mean"] <= values["solver/gap_max"] <= model.solver.tol
    assert values["solver/not_converged"] == 0
    assert values["train/n_updates"] == 20
    assert np.isfinite(values["train/critic_loss"])


def test_measures_are_means_over_all_problems_and_the_largest_gap() -> None:
    def solution(*gaps: float, evaluations: int) -> Solution:
        gap = torch.tensor(gaps)
        count, no = torch.full(gap.shape, evaluations), torch.zeros_like(gap, dtype=torch.bool)
        return Solution(gap.unsqueeze(-1), 1 + gap, torch.ones_like(gap), gap < 1, count, no, no)

    solutions = [solution(0.5, 2.0, 0.5, evaluations=3), solution(1.0, evaluations=7)]
    assert measures([torch.tensor(2.0), torch.tensor(5.0)], solutions) == {
        "train/critic_loss": 3.5,
        "solver/evaluations": 4.0,
        "solver/gap_mean": 1.0,
        "solver/gap_max": 2.0,
        "solver/not_converged": 0.5,
    }


def test_solver_settings_may_be_a_dict() -> None:
    model = ConcaveQ("MlpPolicy", Bandit(), solver={"tol": 0.5}, policy_kwargs=SMALL)
    assert model.solver == replace(TARGET, tol=0.5)

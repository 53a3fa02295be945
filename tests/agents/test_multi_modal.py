"""Several modes and quadratic critics: what they can represent, and that their actions are best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch
from critics import mean_q
from toy_environments import Bandit

from icnn_rl import Box, Polytope
from icnn_rl.agents import ConcaveQ
from icnn_rl.envs import BimodalBandit, Slalom, returns

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)


def agent(form: str, n_critics: int, modes: int) -> ConcaveQ:
    network = {"form": form, "n_critics": n_critics, "modes": modes}
    kwargs = {"context": (16,), "convex": (16,)} | network
    options = {"learning_rate": 3e-3, "learning_starts": 50, "policy_kwargs": kwargs, "seed": 0}
    return ConcaveQ("MlpPolicy", Bandit(), **options).learn(80)


KINDS = [("picnn", 2, 3), ("quadratic", 2, 3), ("quadratic", 1, 3), ("quadratic", 1, 1)]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def model(request: pytest.FixtureRequest) -> ConcaveQ:
    return agent(*request.param)


def test_no_other_action_is_better(model: ConcaveQ) -> None:
    space = model.action_space
    actions, _ = model.predict(OBSERVATIONS)
    others = np.random.default_rng(1).uniform(space.low, space.high, (3000, 20, 2))
    q = mean_q(model, OBSERVATIONS, actions[None])[0]
    assert (q >= mean_q(model, OBSERVATIONS, others).max(0) - 2e-4).all()
    solution = model.policy.solve(torch.as_tensor(OBSERVATIONS))
    assert solution.converged.all()
    np.testing.assert_allclose(-solution.value.numpy(), q, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "action_set",
    [
        Box(torch.tensor([0.5, 0.1]), torch.tensor([1.0, 0.2])),
        Polytope(torch.tensor([[1.0, 4.0]]), torch.linspace(-0.5, 2.0, 20).unsqueeze(-1)),
    ],
    ids=["box", "polytope"],
)
def test_no_other_action_of_a_set_is_better(model: ConcaveQ, action_set: Box | Polytope) -> None:
    space = model.action_space
    actions, _ = model.predict(OBSERVATIONS, action_set=action_set)
    others = np.random.default_rng(1).uniform(space.low, space.high, (20_000, 20, 2))
    if isinstance(action_set, Box):
        inside = ((others >= [0.5, 0.1]) & (others <= [1.0, 0.2])).all(-1)
    else:
        inside = others @ np.array([1.0, 4.0]) <= np.linspace(-0.5, 2.0, 20)
    best = np.where(inside, mean_q(model, OBSERVATIONS, others), -np.inf).max(0)
    assert (mean_q(model, OBSERVATIONS, actions[None])[0] >= best - 2e-4).all()


def test_a_single_quadratic_is_solved_in_closed_form() -> None:
    policy = agent("quadratic", 1, 1).policy
    obs = torch.as_tensor(OBSERVATIONS)
    solution = policy.solve(obs)
    with torch.no_grad():
        center = policy.critic.condition(obs).center[0]
    assert torch.equal(solution.y, center)
    assert (solution.gap == 0).all()
    assert (solution.evaluations == 0).all()


def test_every_action_is_home_to_one_mode_and_every_mode_has_some() -> None:
    critic = agent("quadratic", 1, 3).critic
    home = critic.at_home(2 * torch.rand(500, 2) - 1)
    assert home.shape == (3, 500)
    assert (home.sum(0) == 1).all()
    assert (home.sum(1) > 0).all()
    other = ConcaveQ("MlpPolicy", Bandit(), policy_kwargs={"modes": 3}, seed=1).critic
    assert torch.equal(other.homes, critic.homes)  # though no model that is saved has them
    assert "homes" not in critic.state_dict()
    assert (critic.homes.abs() < 1).all()


@pytest.mark.parametrize("modes", [2, 3])
def test_the_best_mode_of_the_mean_critic_learns_and_each_at_home_a_tenth(modes: int) -> None:
    model = agent("quadratic", 2, modes)
    batch, target = model.replay_buffer.sample(16), torch.linspace(-1, 1, 16)
    critics = model.critic.condition(batch.observations)
    q, homes = -critics.value(batch.actions), model.critic.homes
    expected = torch.zeros(())
    for b in range(16):
        best = q[:, :, b].mean(0).argmax()
        home = (homes - batch.actions[b]).square().sum(-1).argmin()
        errors = (q[:, :, b] - target[b]).square().sum(0) / 16
        expected += errors[best] + 0.1 * errors[home]
        value = model.policy.q(batch.observations[b : b + 1], batch.actions[b : b + 1])
        torch.testing.assert_close(value[:, 0], q[:, best, b])
    torch.testing.assert_close(model._loss(batch, critics, target)[0], expected)


def test_saved_and_loaded_models_act_alike(model: ConcaveQ, tmp_path: Path) -> None:
    model.save(tmp_path / "model.zip")
    loaded = ConcaveQ.load(tmp_path / "model.zip")
    np.testing.assert_array_equal(loaded.predict(OBSERVATIONS)[0], model.predict(OBSERVATIONS)[0])


def learnt(env: gym.Env, form: str, modes: int, **options: Any) -> ConcaveQ:
    kwargs = {"form": form, "modes": modes, "context": (64,), "convex": (32,), "n_critics": 1}
    return ConcaveQ(
        "MlpPolicy",
        env,
        learning_rate=3e-3,
        batch_size=64,
        policy_kwargs=kwargs,
        seed=0,
        **options,
    )


def chosen_arm(form: str, modes: int) -> float:
    """What the arm is worth that an agent chooses after it has tried uniform ones."""
    env = BimodalBandit()
    model = learnt(env, form, modes, learning_starts=1000).learn(1000)
    model.train(1000, 64)
    action, _ = model.predict(np.zeros(1, np.float32))
    return float(env.optimal_q(np.zeros(1), action))


@pytest.mark.parametrize("form", ["picnn", "quadratic"])
def test_two_modes_choose_the_better_arm_and_one_does_not(form: str) -> None:
    assert chosen_arm(form, 2) > 0.9
    assert chosen_arm(form, 1) < 0.5  # the worse peak's height is 0.4


EPISODES = range(1_000_000, 1_000_030)


def run_past_posts(modes: int) -> tuple[float, float]:
    """What quadratics return on the slalom, on the mean, and the share of posts they hit."""
    env = Slalom()
    options = {"learning_starts": 300, "tau": 0.02, "gamma": 1.0, "exploration_noise": 0.5}
    model = learnt(env, "quadratic", modes, **options).learn(1200)
    distances = []

    def drive(observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        action, _ = model.predict(observation)
        distances.append(observation[0] + action[0] - observation[1])
        return action

    reached = returns(env, drive, EPISODES).mean()
    return float(reached), float((np.abs(distances) < 0.25).mean())


@pytest.fixture(scope="module")
def one_side() -> float:
    """The mean return of a driver who passes every post on its left."""
    return float(returns(Slalom(), lambda x: np.clip([x[1] - 0.5 - x[0]], -1, 1), EPISODES).mean())


def test_two_quadratics_pass_posts_on_either_side_and_one_hits_them(one_side: float) -> None:
    reached, hit = run_past_posts(2)
    assert reached > one_side + 0.5
    assert hit < 0.1
    reached, hit = run_past_posts(1)
    assert reached < one_side - 1
    assert hit > 0.5


@pytest.mark.parametrize(("key", "value"), [("form", "cubic"), ("modes", 0)])
def test_bad_arguments_are_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{key}: expected .*got {value!r}"):
        ConcaveQ("MlpPolicy", Bandit(), policy_kwargs={key: value})

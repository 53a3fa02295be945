"""An update is the one of the formulas: recomputed by hand, from an environment known by heart."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.critics import ConcaveCritic
from icnn_rl.agents.policies import ConcaveQPolicy

LENGTH = 5  # of an episode
GAMMA, L2, RATE, BATCH = 0.8, 0.5, 0.02, 16
GRID = torch.linspace(-1, 1, 10_001).unsqueeze(-1)  # every action, as good as


class Walk(gym.Env[np.ndarray, np.ndarray]):
    """After t steps the observation is t, and the next reward t + 1: known from t alone."""

    observation_space = spaces.Box(0.0, LENGTH, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, terminates: bool) -> None:
        self.terminates, self.t = terminates, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        self.t += 1
        ended = self.terminates and self.t == LENGTH
        return np.full(1, self.t, np.float32), float(self.t), ended, False, {}


def walk(terminates: bool) -> gym.Env[np.ndarray, np.ndarray]:
    """A walk that ends in a terminal state, or else by the time limit after as many steps."""
    return Walk(terminates=True) if terminates else TimeLimit(Walk(terminates=False), LENGTH)


def agent(
    env: gym.Env | VecNormalize | None = None,
    policy: str | type[ConcaveQPolicy] = "MlpPolicy",
    network: dict[str, Any] | None = None,
    **options: Any,
) -> ConcaveQ:
    """An agent after whole episodes without an update, and with quite different targets."""
    arguments: dict[str, Any] = {
        "learning_rate": RATE,
        "learning_starts": 1000,
        "buffer_size": 1000,
        "gamma": GAMMA,
        "action_l2": L2,
        "solver": {"tol": 1e-7, "max_evaluations": 200},
        "policy_kwargs": {"context": (16,), "convex": (16,)} | (network or {}),
        "device": "cpu",
    }
    env = walk(terminates=True) if env is None else env
    model, other = (ConcaveQ(policy, env, seed=s, **arguments | options) for s in (0, 1))
    model.learn(4 * LENGTH)
    assert model.critic_target is not None
    model.critic_target.load_state_dict(other.critic.state_dict())
    return model


def update(model: ConcaveQ, count: int = BATCH) -> ReplayBufferSamples:
    """One update, and the batch it is made of, as it lies in the buffer."""
    np.random.seed(0)  # the buffer draws from NumPy's global generator
    batch = model.replay_buffer.sample(count)
    np.random.seed(0)
    model.train(1, count)
    return batch


def greedy(critic: ConcaveCritic, observations: Tensor) -> Tensor:
    """The best actions by trying them all: argmin_a of the mean f plus λ/2 ‖a‖²."""
    each, index = observations.unique(dim=0, return_inverse=True)
    best = []
    with torch.no_grad():
        for observation in each:
            f = critic.condition(observation.unsqueeze(0)).value(GRID).mean(0)
            best.append(GRID[(f + L2 / 2 * GRID[:, 0].square()).argmin()])
    return torch.stack(best)[index]


def q_values(critic: ConcaveCritic, observations: Tensor, actions: Tensor, dueling: bool) -> Tensor:
    """Q_i(s, a), of shape (E, B)."""
    f = critic.condition(observations)
    if not dueling:
        return -f.value(actions)
    return -f.level - (f.value(actions) - f.value(greedy(critic, observations)))


def loss_by_hand(
    model: ConcaveQ,
    critic: ConcaveCritic,
    target: ConcaveCritic,
    batch: ReplayBufferSamples,
    following_actions: Tensor | None = None,
) -> Tensor:
    """Σ_i mean (Q_i(s, a) - y)², of which nothing but s and a is read from the batch.

    y = Σ_j γ^j r_j + γ^k (1 - done) min_i Q'_i(s', a*), after the k ≤ n steps left.
    """
    env, dueling = model.get_env(), model.policy.dueling
    assert env is not None
    (terminates,) = env.get_attr("terminates")
    shift, scale, unit = 0.0, 1.0, 1.0
    if (normalizer := model.get_vec_normalize_env()) is not None:
        shift, scale = float(normalizer.obs_rms.mean[0]), float(normalizer.obs_rms.var[0]) ** 0.5
        unit = float(normalizer.ret_rms.var) ** 0.5
    t = batch.observations[:, 0].round()
    k = (LENGTH - t).clamp(max=model.n_steps)
    returns = sum((j < k) * GAMMA**j * (t + j + 1) / unit for j in range(model.n_steps))
    following = ((t + k - shift) / scale).unsqueeze(-1)
    with torch.no_grad():
        best = greedy(target, following) if following_actions is None else following_actions
        next_q = q_values(target, following, best, dueling).amin(0)
        done = ((t + k == LENGTH) & terminates).float()
        y = returns + GAMMA**k * (1 - done) * next_q
    q = q_values(critic, (batch.observations - shift) / scale, batch.actions, dueling)
    return (q - y).square().mean(-1).sum()


def logged_loss(model: ConcaveQ) -> float:
    return float(model.logger.name_to_value["train/critic_loss"])


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
@pytest.mark.parametrize("terminates", [False, True], ids=["time limit", "terminal"])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_targets_are_the_n_step_return_and_the_least_of_the_target_critics(
    n_steps: int, terminates: bool, dueling: bool
) -> None:
    model = agent(walk(terminates), n_steps=n_steps, network={"dueling": dueling})
    critic, target = deepcopy(model.critic), deepcopy(model.critic_target)
    expected = loss_by_hand(model, critic, target, update(model)).item()
    assert logged_loss(model) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
def test_updates_see_normalised_observations_and_rewards(dueling: bool) -> None:
    env = VecNormalize(DummyVecEnv([lambda: walk(terminates=False)]), gamma=GAMMA)
    model = agent(env, n_steps=3, network={"dueling": dueling})
    critic, target = deepcopy(model.critic), deepcopy(model.critic_target)
    expected = loss_by_hand(model, critic, target, update(model)).item()
    assert logged_loss(model) == pytest.approx(expected, rel=2e-4)


OPTIMISERS: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.SGD, {"momentum": 0.5}),
    (torch.optim.Adam, {"betas": (0.3, 0.8), "weight_decay": 0.1, "eps": 1e-3}),
]


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
@pytest.mark.parametrize(("kind", "arguments"), OPTIMISERS, ids=["SGD", "Adam"])
def test_steps_follow_the_gradient_of_the_loss_and_targets_follow_the_critics(
    kind: type[torch.optim.Optimizer], arguments: dict[str, Any], dueling: bool
) -> None:
    optimizer = {"optimizer_class": kind, "optimizer_kwargs": arguments}
    model = agent(tau=0.3, n_steps=2, network=optimizer | {"dueling": dueling})
    critic, target = deepcopy(model.critic), deepcopy(model.critic_target)
    reference = kind(critic.parameters(), lr=RATE, **arguments)
    for _ in range(3):  # the first step of Adam would be the same for any betas
        batch = update(model)
        reference.zero_grad()
        loss_by_hand(model, critic, target, batch).backward()
        reference.step()
        critic.net.project_()
        with torch.no_grad():
            for slow, current in zip(target.parameters(), critic.parameters(), strict=True):
                slow.copy_(0.7 * slow + 0.3 * current)
    for found, expected in ((model.critic, critic), (model.critic_target, target)):
        torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tau", [0.004, 0.3])
def test_targets_take_a_step_of_tau_towards_the_critics(tau: float) -> None:
    model = agent(tau=tau)
    assert model.critic_target is not None
    before = deepcopy(list(model.critic_target.parameters()))
    update(model)
    moved = zip(model.critic_target.parameters(), before, model.critic.parameters(), strict=True)
    for after, target, critic in moved:
        torch.testing.assert_close(after, (1 - tau) * target + tau * critic)


class Recording(ConcaveQPolicy):
    """Remembers the actions, and the greedy ones, whose values make a target."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.followed: list[tuple[Tensor, Tensor]] = []

    def q_values(self, critics: Any, actions: Tensor, best: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # as it is for the loss
            self.followed.append((actions, best))
        return super().q_values(critics, actions, best)


def smoothed(model: ConcaveQ, count: int = BATCH) -> tuple[Tensor, Tensor]:
    """The actions of an update's target, and the greedy ones."""
    assert isinstance(model.policy, Recording)
    model.policy.followed.clear()
    update(model, count)
    (pair,) = model.policy.followed
    return pair


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
def test_smoothed_targets_are_the_values_of_noisy_greedy_actions(dueling: bool) -> None:
    network = {"dueling": dueling}
    model = agent(policy=Recording, target_noise=0.3, n_steps=3, network=network)
    critic, target = deepcopy(model.critic), deepcopy(model.critic_target)
    batch = update(model)
    ((noisy, best),) = model.policy.followed
    following = (batch.observations.round() + 3).clamp(max=LENGTH)
    torch.testing.assert_close(best, greedy(target, following), rtol=0, atol=1e-3)
    assert (noisy != best).all()
    expected = loss_by_hand(model, critic, target, batch, noisy).item()
    assert logged_loss(model) == pytest.approx(expected, rel=2e-4)


def test_noise_of_the_target_is_gaussian_and_clipped_and_new_every_time() -> None:
    # So large a norm puts greedy actions in the middle, where the box does not matter.
    options = {"action_l2": 1e4, "target_noise": 0.3, "target_noise_clip": 0.4}
    model = agent(policy=Recording, **options)
    noise, again = (noisy - best for noisy, best in (smoothed(model, 4000) for _ in range(2)))
    assert noise.abs().max().item() == pytest.approx(0.4, abs=1e-6)
    drawn = np.random.default_rng(0).normal(0, 0.3, 100_000).clip(-0.4, 0.4)
    assert noise.std().item() == pytest.approx(drawn.std(), rel=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert abs(np.corrcoef(noise[:, 0], again[:, 0])[0, 1]) < 0.1


def test_noisy_actions_of_the_target_are_actions() -> None:
    noisy, best = smoothed(agent(policy=Recording, target_noise=3.0, target_noise_clip=10.0))
    assert noisy.abs().max() == 1
    assert (noisy != best).any()

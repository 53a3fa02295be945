"""Bad input is refused in one sentence that says what was expected and what came."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from toy_environments import Bandit, Faulty

from icnn_rl import Ball
from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.solver import SolverSettings
from icnn_rl.envs.constraints import ActionBall

OPTIONS: dict[str, Any] = {"policy_kwargs": {"context": (8,), "convex": (8,)}, "seed": 0}


def test_discrete_actions() -> None:
    with pytest.raises(AssertionError, match=r"only supports .*Box.* but Discrete\(2\) was"):
        ConcaveQ("MlpPolicy", "CartPole-v1")


@pytest.mark.parametrize("high", [np.inf, -1.0])
def test_action_bounds(high: float) -> None:
    class Unbounded(Bandit):
        action_space = spaces.Box(np.full(2, -1.0, "f4"), np.array([1.0, high], "f4"))

    with pytest.raises(ValueError, match=f"finite bounds, low < high.*low -1.0 and high {high}"):
        ConcaveQ("MlpPolicy", Unbounded())


def test_actions_of_integers_or_without_axis() -> None:
    class Counting(Bandit):
        action_space = spaces.Box(-2, 2, (2,), np.int64)

    class Single(Bandit):
        action_space = spaces.Box(-1.0, 1.0, (), np.float32)

    with pytest.raises(ValueError, match=r"continuous actions, got Box\(-2, 2, \(2,\), int64\)"):
        ConcaveQ("MlpPolicy", Counting())
    with pytest.raises(ValueError, match=r"one axis or more, got Box\(-1.0, 1.0, \(\), float32\)"):
        ConcaveQ("MlpPolicy", Single())


@pytest.mark.parametrize(
    ("part", "at", "value"),
    [
        ("reward", 1, np.nan),
        ("reward", 60, -np.inf),
        ("observation", 3, -np.inf),
        ("observation", 4, np.nan),
        ("observation", 60, np.nan),
    ],
)
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_environment_that_breaks(part: str, at: int, value: float, normalise: bool) -> None:
    env: Any = DummyVecEnv([lambda: Faulty(part, at, value)])
    if normalise:
        env = VecNormalize(env)
    model = ConcaveQ("MlpPolicy", env, learning_starts=20, batch_size=8, **OPTIONS)
    what = "final observation" if part == "observation" and at % 4 == 0 else part
    with pytest.raises(
        ValueError, match=rf"finite numbers, got {value} in the {what} at step {at}$"
    ):
        model.learn(80)
    stored = model.replay_buffer
    assert stored.pos == at - 1
    assert np.isfinite(stored.rewards).all()
    assert np.isfinite(stored.next_observations).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"td_clip": 0.0}, "td_clip: expected a number > 0, or None, got 0.0"),
        ({"td_clip": np.nan}, "td_clip: expected a number > 0, or None, got nan"),
        ({"n_steps": 0}, "n_steps: expected a finite number >= 1, got 0"),
        ({"train_freq": 0}, "train_freq.frequency: expected a finite number >= 1, got 0"),
        ({"train_freq": "4"}, "frequency of `train_freq` must be an integer and not 4"),
        ({"batch_size": 0}, "batch_size: expected a finite number >= 1, got 0"),
        ({"gradient_steps": -2}, "gradient_steps: expected a finite number >= -1, got -2"),
        ({"learning_starts": -1}, "learning_starts: expected a finite number >= 0, got -1"),
        ({"exploration_noise": np.inf}, "exploration_noise: expected a finite .* got inf"),
        ({"solver": {"name": "newtn"}}, "solver name: expected 'auto' or one of"),
        ({"solver": {"tol": np.nan}}, "tol: expected a finite number >= 0, got nan"),
        (
            {"acting_solver": {"max_evaluations": 0}},
            "max_evaluations: expected a finite number >= 1, got 0",
        ),
    ],
    ids=str,
)
def test_arguments_out_of_range(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConcaveQ("MlpPolicy", Bandit(), **OPTIONS, **option)


def test_arguments_at_the_ends_of_their_ranges_are_taken() -> None:
    options: dict[str, Any] = {"gamma": 0.0, "tau": 1.0, "td_clip": 1e-9, "exploration_noise": 0.0}
    options |= {"gradient_steps": -1, "learning_starts": 0, "batch_size": 1, "buffer_size": 1}
    options |= {"solver": SolverSettings(tol=0.0, max_evaluations=1)}
    model = ConcaveQ("MlpPolicy", Bandit(), **OPTIONS, **options)
    assert {name: getattr(model, name) for name in options} == options


def test_environment_whose_reset_is_broken() -> None:
    model = ConcaveQ("MlpPolicy", Faulty("observation", 0), **OPTIONS)
    with pytest.raises(ValueError, match="got nan in the first observation at step 0"):
        model.learn(10)


def test_named_observations_are_named() -> None:
    class Named(gym.ObservationWrapper):
        observation_space = spaces.Dict({"state": Faulty.observation_space})

        def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
            return {"state": observation}

    model = ConcaveQ("MultiInputPolicy", Named(Faulty("observation", 2)), **OPTIONS)
    with pytest.raises(ValueError, match="in the observation 'state' at step 2"):
        model.learn(10)


def test_observation_of_the_wrong_shape() -> None:
    model = ConcaveQ("MlpPolicy", Bandit(), **OPTIONS)
    with pytest.raises(ValueError, match=re.escape("Unexpected observation shape (3,)")):
        model.predict(np.zeros(3, np.float32))


def test_what_reset_returns_is_no_observation() -> None:
    for env in (Bandit(), ActionBall(Bandit(), 0.5)):
        model = ConcaveQ("MlpPolicy", env, **OPTIONS)
        with pytest.raises(ValueError, match=r"tuple.*reset"):
            model.predict(env.reset())


@pytest.mark.parametrize("action_set", [spaces.Box(-1.0, 1.0, (2,)), 0.5])
@pytest.mark.parametrize("make", [Bandit, lambda: ActionBall(Bandit(), 0.5)])
def test_sets_of_another_kind(action_set: Any, make: Callable[[], Bandit]) -> None:
    model = ConcaveQ("MlpPolicy", make(), **OPTIONS)
    with pytest.raises(ValueError, match=r"action_set: expected a ConvexSet, .* got "):
        model.predict(np.zeros(2, np.float32), action_set=action_set)


def test_a_bad_observation_is_not_blamed_on_the_set() -> None:
    model = ConcaveQ("MlpPolicy", Bandit())
    with pytest.raises(ValueError, match=r"^f: expected finite values"):
        model.predict(np.full(2, np.nan, np.float32), action_set=Ball(0.5))
    four = Ball(0.5, torch.zeros(4, 2))
    with pytest.raises(ValueError, match="expected a set of 2 dimensions for 3 observations"):
        model.predict(np.zeros((3, 2), np.float32), action_set=four)


@pytest.mark.parametrize(
    ("action_set", "message"),
    [
        (Ball(0.5), "env: expected an action_set that is a function of a batch of observations"),
        (lambda _: spaces.Box(-1, 1, (2,)), "action_set: expected a ConvexSet.* got Box"),
    ],
)
def test_what_is_announced_is_no_function_to_sets(action_set: Any, message: str) -> None:
    env = Bandit()
    env.action_set = action_set
    with pytest.raises(ValueError, match=message):
        ConcaveQ("MlpPolicy", env, learning_starts=5).learn(5)


@pytest.mark.parametrize("solver", ["newton", {"tolerance": 0.1}])
@pytest.mark.parametrize("name", ["solver", "acting_solver"])
def test_solver_settings_of_another_kind(name: str, solver: Any) -> None:
    with pytest.raises(ValueError, match=r"solver: expected SolverSettings or a dict of \['name"):
        ConcaveQ("MlpPolicy", Bandit(), **{name: solver})


def test_observation_with_the_wrong_keys() -> None:
    model = ConcaveQ("MlpPolicy", Bandit(), **OPTIONS)
    with pytest.raises(ValueError, match=r"expected an array, got a dict of \['state'\]"):
        model.predict({"state": np.zeros(2, np.float32)})
    env = BitFlippingEnv(n_bits=3, continuous=True)
    model = ConcaveQ("MultiInputPolicy", env, buffer_size=10, **OPTIONS)
    with pytest.raises(ValueError, match=r"expected a dict of .*, got an array"):
        model.predict(np.zeros(3))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"activation": "tanh"}, "activation: expected a convex.*got 'tanh'"),
        ({"nonnegativity": "relu"}, "nonnegativity: expected one of 'projection', 'softplus'"),
        ({"convex": ()}, "convex: expected at least one hidden layer"),
        ({"n_critics": 0}, "n_critics: expected a finite number >= 1, got 0"),
        ({"activation_fn": torch.nn.ReLU}, "expected activation, .*, got activation_fn"),
        ({"log_std_init": -3}, "by ConcaveQ's exploration_noise.*, got log_std_init"),
        ({"net_arch": {"pi": [8]}}, "net_arch: expected widths or a dict with those of 'qf'"),
        ({"net_arch": {"qf": [8], "vf": [8]}}, "net_arch: expected widths or a dict"),
        ({"net_arch": [8], "context": (8,)}, "expected context or net_arch, got both"),
        ({"share_features_extractor": False}, "share_features_extractor: expected True"),
    ],
)
def test_networks(network: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConcaveQ("MlpPolicy", Bandit(), policy_kwargs=network)


@pytest.mark.parametrize("option", ["action_l2", "entropy"])
def test_negative_weights_of_the_greedy_action(option: str) -> None:
    for value in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"{option}: expected a finite .* got {value}"):
            ConcaveQ("MlpPolicy", Bandit(), **{option: value})
    with pytest.raises(ValueError, match=rf"policy_kwargs: expected no .*, got \['{option}'\]"):
        ConcaveQ("MlpPolicy", Bandit(), policy_kwargs={option: 1.0})


@pytest.mark.parametrize("option", [{"beta1": 0.5}, {"betas": [0.5]}])
def test_an_option_that_the_optimizer_does_not_have(option: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"optimizer_kwargs: expected arguments of Adam, got \{'beta"
    ):
        ConcaveQ("MlpPolicy", Bandit(), policy_kwargs={"optimizer_kwargs": option})


@pytest.mark.parametrize("option", ["exploration_noise", "target_noise", "target_noise_clip"])
def test_negative_noise(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: expected a finite number >= 0, got -1.0"):
        ConcaveQ("MlpPolicy", Bandit(), **{option: -1.0})


@pytest.mark.parametrize("gamma", [-0.1, 1.5, float("nan")])
def test_discounts(gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"gamma: expected a number in \[0, 1\], got {gamma}"):
        ConcaveQ("MlpPolicy", Bandit(), gamma=gamma)


def test_several_steps_of_named_observations() -> None:
    env = BitFlippingEnv(4, continuous=True)
    options = OPTIONS | {"n_steps": 3, "buffer_size": 100}
    with pytest.raises(AssertionError, match="not supported for Dict observation"):
        ConcaveQ("MultiInputPolicy", env, **options)
    with pytest.warns(UserWarning, match="`n_steps=3` is ignored"):
        ConcaveQ("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, **options)


@pytest.mark.parametrize("tau", [-0.1, 1.5, float("nan")])
def test_steps_of_the_target_networks(tau: float) -> None:
    with pytest.raises(ValueError, match=rf"tau: expected a number in \[0, 1\], got {tau}"):
        ConcaveQ("MlpPolicy", Bandit(), tau=tau)


def test_unknown_policy() -> None:
    with pytest.raises(ValueError, match="Policy MlpPolice unknown"):
        ConcaveQ("MlpPolice", Bandit())


def test_dueling_critics_with_several_modes() -> None:
    network = {"context": (8,), "convex": (8,), "dueling": True, "modes": 2}
    with pytest.raises(ValueError, match="dueling: expected one mode with it, got 2"):
        ConcaveQ("MlpPolicy", "Pendulum-v1", policy_kwargs=network)

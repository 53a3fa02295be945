"""Models travel: saved, loaded, inspected and trained on."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.concave_q import FORMAT
from icnn_rl.agents.policies import ConcaveQPolicy
from icnn_rl.agents.solver import ACTING

OPTIONS: dict[str, Any] = {
    "learning_starts": 50,
    "batch_size": 32,
    "buffer_size": 500,
    "policy_kwargs": {"context": (32,), "convex": (16,)},
    "seed": 0,
}
OBSERVATIONS = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> ConcaveQ:
    solver = {"tol": 1e-3}
    return ConcaveQ(
        "MlpPolicy",
        "Pendulum-v1",
        entropy=0.05,
        action_l2=0.1,
        acting_solver=solver,
        compile=False,
        **OPTIONS,
    ).learn(120)


def test_loaded_without_environment_it_predicts_the_same(model: ConcaveQ, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = ConcaveQ.load(tmp_path / "model")
    assert loaded.get_env() is None
    assert (loaded.policy.entropy, loaded.policy.action_l2) == (0.05, 0.1)
    assert loaded.policy.solver == replace(ACTING, tol=1e-3)
    assert loaded.compile is False
    np.testing.assert_array_equal(loaded.predict(OBSERVATIONS)[0], model.predict(OBSERVATIONS)[0])


def test_loaded_with_environments_it_trains_on(model: ConcaveQ, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = ConcaveQ.load(tmp_path / "model", env=model.get_env())
    loaded.load_replay_buffer(tmp_path / "buffer")
    before = loaded.policy.parameters_to_vector()
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 140
    assert loaded._n_updates == model._n_updates + 20
    assert not np.array_equal(loaded.policy.parameters_to_vector(), before)
    assert loaded.critic.optimizer.state_dict()["state"][0]["step"] == loaded._n_updates


def test_the_number_of_environments_may_change(tmp_path: Path) -> None:
    noise = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    envs = make_vec_env("Pendulum-v1", 3)
    model = ConcaveQ("MlpPolicy", envs, action_noise=noise, **OPTIONS).learn(120)
    model.save(tmp_path / "model")
    loaded = ConcaveQ.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", 2))
    assert loaded.learn(120).num_timesteps == 120
    assert len(loaded.action_noise.noises) == 2


def test_the_noise_may_change(tmp_path: Path) -> None:
    network = {"context": [8], "convex": [8]}
    ConcaveQ("MlpPolicy", "Pendulum-v1", policy_kwargs=network).save(tmp_path / "model")
    for options, spread in (
        ({"policy_kwargs": network}, 0.2),
        ({"exploration_noise": 0.1}, 0.1),
        ({"exploration_noise": 0.0}, 0.0),
        ({"action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.05))}, 0.05),
    ):
        # So large an entropy puts the greedy action in the middle, where no noise is clipped.
        loaded = ConcaveQ.load(tmp_path / "model", entropy=1e3, **options)
        loaded._last_obs = OBSERVATIONS[:1]
        scaled = [loaded._sample_action(0, loaded.action_noise, 1)[1] for _ in range(300)]
        assert np.std(scaled) == pytest.approx(spread, rel=0.15)
    drawing = ConcaveQ.load(tmp_path / "model", exploration_temperature=0.5)
    assert drawing.action_noise is None
    own = NormalActionNoise(np.zeros(1), np.ones(1))
    assert ConcaveQ.load(tmp_path / "model", action_noise=own).action_noise is own


def test_what_is_given_to_load_is_read_as_by_the_constructor(
    model: ConcaveQ, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    loaded = ConcaveQ.load(tmp_path / "model", acting_solver={"tol": 1e-2}, gamma=0.5)
    assert loaded.acting_solver == loaded.policy.solver == replace(ACTING, tol=1e-2)
    assert loaded.gamma == 0.5
    with pytest.raises(ValueError, match=r"gamma: expected a number in \[0, 1\], got 7"):
        ConcaveQ.load(tmp_path / "model", gamma=7.0)
    with pytest.raises(ValueError, match="solver name: expected 'auto' or one of"):
        ConcaveQ.load(tmp_path / "model", solver={"name": "newtn"})


def test_returns_of_several_steps_are_as_load_is_told(tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    ConcaveQ("MlpPolicy", "Pendulum-v1", n_steps=3, replay_buffer_kwargs=given, **OPTIONS).save(
        tmp_path / "model"
    )
    assert given == {}
    model = ConcaveQ.load(tmp_path / "model", env=gym.make("Pendulum-v1"), gamma=0.5).learn(60)
    np.testing.assert_allclose(model.replay_buffer.sample(16).discounts, 0.5**3)
    model = ConcaveQ.load(tmp_path / "model", env=gym.make("Pendulum-v1"), n_steps=1).learn(60)
    assert model.replay_buffer.sample(16).discounts is None


def test_what_is_set_later_counts_and_is_saved(tmp_path: Path) -> None:
    model = ConcaveQ("MlpPolicy", "Pendulum-v1", **OPTIONS)
    before = model.predict(OBSERVATIONS)[0]
    model.action_l2 = 10.0
    model.acting_solver = replace(ACTING, tol=1e-6)
    model.action_noise = NormalActionNoise(np.zeros(1), np.full(1, 0.7))
    after = model.predict(OBSERVATIONS)[0]
    assert (np.abs(after) < 0.5 * np.abs(before)).all()
    model.save(tmp_path / "model")
    loaded = ConcaveQ.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(OBSERVATIONS)[0], after)
    assert repr(loaded.action_noise) == repr(model.action_noise)


def test_save_to_a_stream(model: ConcaveQ) -> None:
    stream = io.BytesIO()
    model.save(stream)
    stream.seek(0)
    loaded = ConcaveQ.load(stream)
    np.testing.assert_array_equal(loaded.predict(OBSERVATIONS)[0], model.predict(OBSERVATIONS)[0])


def test_policy_alone(model: ConcaveQ, tmp_path: Path) -> None:
    model.policy.actor.save(tmp_path / "policy")
    policy = ConcaveQPolicy.load(tmp_path / "policy")
    np.testing.assert_array_equal(policy.predict(OBSERVATIONS)[0], model.predict(OBSERVATIONS)[0])


def test_parameters_go_out_and_in(model: ConcaveQ) -> None:
    parameters = model.get_parameters()
    assert list(parameters) == ["policy", "critic.optimizer"]
    assert all(p.is_floating_point() for p in parameters["policy"].values())
    other = ConcaveQ("MlpPolicy", "Pendulum-v1", entropy=0.05, **OPTIONS | {"seed": 1})
    for name, value in other.get_parameters()["policy"].items():
        if "norm" not in name:
            assert not torch.equal(value, parameters["policy"][name]), name

    randomised = parameters | {
        "policy": {name: torch.rand_like(p) for name, p in parameters["policy"].items()}
    }
    other.set_parameters(randomised)
    assert not np.allclose(other.predict(OBSERVATIONS)[0], model.predict(OBSERVATIONS)[0])
    other.set_parameters({"policy": randomised["policy"]}, exact_match=False)
    with pytest.raises(ValueError, match="Names of parameters"):
        other.set_parameters({"policy": randomised["policy"]}, exact_match=True)
    other.set_parameters(parameters)
    for name, value in other.get_parameters()["policy"].items():
        assert torch.equal(value, parameters["policy"][name])


def test_other_formats_are_refused_before_anything_is_unpickled(
    model: ConcaveQ, tmp_path: Path
) -> None:
    model.save(tmp_path / "model.zip")
    with (
        zipfile.ZipFile(tmp_path / "model.zip") as old,
        zipfile.ZipFile(tmp_path / "new.zip", "w") as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                content = json.dumps(json.loads(content) | {"format": FORMAT + 1}).encode()
            new.writestr(name, content)
    expected = f"expected a ConcaveQ model of format {FORMAT}.*format {FORMAT + 1}"
    with pytest.raises(ValueError, match=expected):
        ConcaveQ.load(tmp_path / "new.zip")


def test_foreign_and_truncated_archives_are_refused(model: ConcaveQ, tmp_path: Path) -> None:
    TD3("MlpPolicy", "Pendulum-v1", buffer_size=10).save(tmp_path / "td3.zip")
    with pytest.raises(ValueError, match=r"td3\.zip with no format number"):
        ConcaveQ.load(tmp_path / "td3.zip")
    model.save(tmp_path / "model.zip")
    content = (tmp_path / "model.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"half\.zip is damaged or no such file"):
        ConcaveQ.load(tmp_path / "half.zip")
    with pytest.raises(FileNotFoundError):
        ConcaveQ.load(tmp_path / "missing.zip")

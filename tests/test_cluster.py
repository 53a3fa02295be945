"""Environments on a Ray cluster of this machine are those of this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from tiny_runs import differences, evaluations, state, train

from icnn_rl.agents.cluster.environments import RayVecEnv
from icnn_rl.cli import main

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (20, 3, 2)).astype(np.float32)
HOPPERS = ["--env.n_envs=3", "--env.normalize_observations=true", "--noise.kind=ou"]


def makers() -> list[Callable[[], gym.Env]]:
    """Functions that make environments of a class that a worker could not import."""

    class Drift(gym.Env):
        """Episodes of 7 steps, or as many as an option says."""

        observation_space = spaces.Dict(
            {"a": spaces.Box(-9, 9, (2,), np.float32), "b": spaces.Box(-5, 5, (3,), np.float64)}
        )
        action_space = spaces.Box(-1, 1, (2,), np.float32)
        render_mode = None

        def observe(self) -> dict[str, np.ndarray]:
            noise = self.np_random.uniform(-1, 1, 5)
            return {"a": (self.place + noise[:2]).astype(np.float32), "b": noise[2:]}

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
            super().reset(seed=seed)
            self.left = (options or {}).get("steps", 7)
            self.place = np.zeros(2)
            return self.observe(), {"left": self.left}

        def step(self, action: np.ndarray) -> Any:
            self.left -= 1
            self.place = self.place + action
            return self.observe(), float(action.sum()), self.left == 0, False, {"left": self.left}

        def reach(self, factor: float) -> float:
            return factor * float(np.abs(self.place).sum())

    return [Drift, lambda: Monitor(Drift()), Drift]


def play(envs: VecEnv) -> list[Any]:
    """Everything that is returned by an episode and a half."""
    envs.seed(5)
    envs.set_options([{"steps": 3}, {}, {"steps": 4}])
    seen: list[Any] = [dict(envs.reset()), list(envs.reset_infos)]
    for actions in ACTIONS[:10]:
        observations, rewards, dones, infos = envs.step(actions)
        for info in infos:
            info.get("episode", {}).pop("t", None)
        seen += [dict(observations), rewards, dones, infos, list(envs.reset_infos)]
    return seen


def test_they_return_and_answer_the_same() -> None:
    there, here = RayVecEnv(makers(), None, 2), DummyVecEnv(makers())
    with closing(there):
        seen = play(here)
        assert any(dones.any() for dones in seen[4::5])
        assert differences(play(there), seen) == []

        for envs in (there, here):
            envs.set_attr("left", 100, indices=[0, 2])
            envs.step(ACTIONS[11])
        assert there.get_attr("left", [2, 0]) == [99, 99]
        assert there.env_is_wrapped(Monitor) == [False, True, False]
        assert not there.has_attr("nothing")
        for indices in (None, 1, [2, 0]):
            assert there.get_attr("left", indices) == here.get_attr("left", indices)
            reached = there.env_method("reach", 2.0, indices=indices)
            assert reached == here.env_method("reach", 2.0, indices=indices)


def test_a_run_goes_on_with_its_environments_on_a_cluster(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert train(here, 90, *HOPPERS, env="Hopper-v5") == 0
    shutil.copytree(here, there)
    assert main(["resume", str(here), "--steps", "180"]) == 0
    assert main(["resume", str(there), "--steps", "180", "--backend", "ray"]) == 0
    # Only here is the agent's action space the object of the first environment.
    assert [d for d in differences(state(there), state(here)) if "action_space" not in d] == []
    assert evaluations(there) == evaluations(here)

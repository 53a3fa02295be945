"""A run that stops and goes on is the run that never stopped, to the last bit."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.numpy import save_file
from tiny_runs import begin, differences, evaluations, preset, state, train
from torch import Tensor

from icnn_rl import Box
from icnn_rl.agents.runs.outputs import AgentFolder
from icnn_rl.agents.runs.snapshot import capture_state, restore_state, restores_exactly
from icnn_rl.cli import main
from icnn_rl.envs.constraints import RampLimits
from icnn_rl.runs.configuration import presets
from icnn_rl.runs.process import preserved_random_state


class DictObservations(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """Episodes of 7 steps with noise for observations."""

    observation_space = spaces.Dict(
        {"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Box(-5, 5, (3,), np.float64)}
    )
    action_space = spaces.Box(-2, 3, (2,), np.float32)

    def observe(self) -> dict[str, np.ndarray]:
        a = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"a": a, "b": self.np_random.uniform(-5, 5, 3)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        return self.observe(), -float(np.abs(action).sum()), False, self.steps == 7, {}


gym.register("DictObservations-v0", DictObservations)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(
            [
                "--env=Hopper-v5",
                "--env.n_envs=2",
                "--env.normalize_observations=true",
                "--env.normalize_rewards=true",
                "--env.reward_scale=0.1",
                "--noise.kind=ou",
                "--training.log_every=70",
            ],
            id="two-normalised-environments-with-ou-noise",
        ),
        pytest.param(
            ["--env=Pendulum-v1", "--env.n_envs=2", "--noise.kind=boltzmann"], id="boltzmann"
        ),
        pytest.param(
            ["--agent.n_steps=3", "--agent.target_noise=0.2", "--agent.buffer_size=64"],
            id="n-step-with-a-full-buffer",
        ),
        pytest.param(
            ["--env=Pendulum-v1", "--agent.tau=1", "--agent.policy_kwargs.norm=batch"],
            id="batch-renormalisation",
        ),
        pytest.param(
            ["--env=DictObservations-v0", "--env.normalize_observations=true"],
            id="dict-observations",
        ),
        *(
            pytest.param(
                [
                    f"--algorithm={algorithm}",
                    '--baseline={"learning_starts": 40, "policy_kwargs": {"net_arch": [16]}}',
                ],
                id=algorithm,
            )
            for algorithm in ("td3", "sac", "tqc", "crossq")  # DDPG is a TD3
        ),
    ],
)
def test_twice_n_steps_are_2n_steps(tmp_path: Path, arguments: list[str]) -> None:
    assert train(tmp_path / "halves", 90, *arguments) == 0
    assert main(["resume", str(tmp_path / "halves"), "--steps", "180"]) == 0
    assert train(tmp_path / "whole", 180, *arguments) == 0

    assert differences(state(tmp_path / "halves"), state(tmp_path / "whole")) == []
    halves, whole = (tmp_path / run / "model.safetensors" for run in ("halves", "whole"))
    assert halves.read_bytes() == whole.read_bytes()
    assert evaluations(tmp_path / "halves")[-1] == evaluations(tmp_path / "whole")[-1]


def test_a_run_that_overshot_and_was_killed_before_its_last_file_is_finished(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    assert train(run, 51, "--env=Pendulum-v1", "--env.n_envs=2") == 0
    model = (run / "model.safetensors").read_bytes()
    for name in ("model.json", "learning_curve.png", "model.safetensors"):
        (run / name).unlink()
    (run / "model.zip").write_bytes(b"of an earlier end")
    assert main(["resume", str(run)]) == 0
    assert (run / "learning_curve.png").exists()
    assert zipfile.is_zipfile(run / "model.zip")
    assert (run / "model.safetensors").read_bytes() == model
    assert main(["resume", str(run)]) == 2  # as it is finished


def test_what_is_written_down_on_the_way_changes_nothing(tmp_path: Path) -> None:
    periods = ["log_every", "evaluate_every", "checkpoint_every"]
    assert train(tmp_path / "often", 100, *[f"--training.{name}=7" for name in periods]) == 0
    assert train(tmp_path / "never", 100) == 0
    assert differences(state(tmp_path / "often"), state(tmp_path / "never")) == []


def test_a_killed_run_goes_on_from_a_whole_checkpoint(tmp_path: Path) -> None:
    # A checkpoint each step: most moments are within the writing of one.
    process = begin(tmp_path / "killed", "--training.checkpoint_every=1")
    wait_for_steps(tmp_path / "killed", 60)
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    steps = state(tmp_path / "killed")["counters"]["num_timesteps"] + 30
    assert main(["resume", str(tmp_path / "killed"), "--steps", str(steps)]) == 0
    assert train(tmp_path / "whole", steps) == 0
    assert differences(state(tmp_path / "killed"), state(tmp_path / "whole")) == []
    assert not list(tmp_path.rglob(".partial-*"))


def test_an_interrupted_run_saves_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    process = begin(run, "--training.checkpoint_every=50")
    wait_for_steps(run, 50)
    assert main(["resume", str(run)]) == 2
    assert "another process is training" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert f"icnn-rl resume {run}" in " ".join(out.split())
    assert "Traceback" not in err
    assert main(["evaluate", str(run), "--episodes", "1"]) == 0
    steps = state(run)["counters"]["num_timesteps"] + 5
    assert main(["resume", str(run), "--steps", str(steps)]) == 0


def test_rows_after_the_checkpoint_are_written_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, 100, "--training.evaluate_every=20") == 0
    table = run / "evaluations.csv"
    whole = table.read_text()
    # As a kill would leave it: rows that the checkpoint does not know, the last one incomplete.
    table.write_text(f"{whole}120,-1000.0,1.0,-1000.0,-1000.0,200.0,1.5\n140,-10")
    assert main(["resume", str(run), "--steps", "140"]) == 0
    assert [int(row["steps"]) for row in evaluations(run)] == list(range(20, 141, 20))
    assert table.read_text().startswith(whole)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    assert train(run, 50) == 0
    return run


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign", "gone", "other"])
def test_a_bad_checkpoint_is_refused_and_kept(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    path = AgentFolder(run).last_checkpoint()
    assert path is not None
    content = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_bytes(b"not a checkpoint" * 100)
        case "foreign":
            save_file({"weights": np.ones(3)}, path)
        case "gone":
            path.unlink()
        case "other":
            config = run / "config.yaml"
            config.write_text(config.read_text().replace("- 16", "- 24"))
    with (run / "evaluations.csv").open("a") as table:
        table.write("60,-1.0,1.0,-1.0,-1.0,200.0,1.5\n")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert main(["resume", str(run), "--steps", "100"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("icnn-rl: ")
    assert message.count("\n") == 1
    assert "checkpoint" in message
    # Nothing that was there has changed.
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("task", sorted({preset(name).env.id for name in presets("train")}))
def test_the_state_of_every_task_is_captured(task: str) -> None:
    assert restores_exactly(lambda: gym.make(task))


class Secretive(gym.Env[np.ndarray, np.ndarray]):
    """A task whose state is in a generator function, which nothing can copy."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.secret = iter(np.linspace(0, 1, 25, dtype=np.float32))
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        value = next(self.secret)
        return np.full(2, value), float(action[0]), value >= 1, False, {}


class Telling(Secretive):
    """The same task, which says what its state is."""

    def __init__(self) -> None:
        self.count = [object(), 0]  # the object keeps it from being copied as plain data

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.count[1] = 0
        return super().reset(seed=seed)

    def step(self, action: np.ndarray) -> Any:
        self.count[1] += 1
        return super().step(action)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count[1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        Telling.reset(self)
        for _ in range(state["count"]):
            next(self.secret)
        self.count[1] = state["count"]


class Particular(gym.Env[np.ndarray, np.ndarray]):
    """A task that observes 0 alone, and announces no action for anything else."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        return np.zeros(2, np.float32), -abs(float(action[0])), False, False, {}

    @staticmethod
    def action_set(observations: Tensor) -> Box:
        if observations.any():
            raise ValueError("observations: expected 0")
        return Box(-0.5, 0.5)


gym.register("Particular-v0", Particular, max_episode_steps=10)
gym.register("Secretive-v0", Secretive)
gym.register("Telling-v0", Telling)


def test_a_state_that_cannot_be_captured_is_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert train(tmp_path / "run", 70, env="Secretive-v0") == 0
    assert "the state of Secretive-v0 cannot be captured" in caplog.text
    assert main(["resume", str(tmp_path / "run"), "--steps", "110"]) == 0
    assert "its episode begins anew" in caplog.text
    counters = state(tmp_path / "run")["counters"]
    # Episodes have 25 steps: 2 were over after 70, and 1 more 40 steps after the new beginning.
    assert (counters["num_timesteps"], counters["_episode_num"]) == (110, 3)


class Aliased(gym.Env[np.ndarray, np.ndarray]):
    """Two names for one array at the beginning of an episode, and for two later."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self) -> None:
        self.start = np.zeros(2)
        self.position = self.start

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.position = self.start
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> Any:
        self.position = self.position + action
        return self.position.copy(), 0.0, False, False, {}


def test_compiling_ahead_asks_the_task_for_nothing(tmp_path: Path) -> None:
    assert train(tmp_path, 60, env="Particular-v0") == 0
    assert (tmp_path / "model.zip").is_file()


@pytest.mark.parametrize("make", [Aliased, lambda: RampLimits(gym.make("Pendulum-v1"), 0.2)])
def test_a_restored_task_begins_its_next_episode_as_ever(
    make: Callable[[], gym.Env[Any, Any]],
) -> None:
    first, second = make(), make()
    first.reset(seed=0)
    for _ in range(5):
        first.step(np.ones(first.action_space.shape, np.float32))
    second.reset(seed=1)
    restore_state(second, capture_state(first))
    action = np.zeros(first.action_space.shape, np.float32)
    expected, found = (env.step(action)[0] for env in (first, second))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(second.reset(seed=3)[0], first.reset(seed=3)[0])
    assert restores_exactly(make)


class Forgetful(Aliased):
    """Writes over where it begins, in a closure that nothing can copy."""

    def __init__(self) -> None:
        start = np.zeros(2)
        self.begin = lambda: start
        super().__init__()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.position = self.begin().copy()
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> Any:
        self.begin()[:] += action
        return super().step(action)


def test_a_task_whose_next_episode_would_differ_is_not_exact() -> None:
    assert not restores_exactly(Forgetful)


def test_an_environment_may_bring_its_own_state() -> None:
    assert not restores_exactly(lambda: gym.make("Secretive-v0"))
    assert restores_exactly(lambda: gym.make("Telling-v0"))


def test_a_state_of_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the state"):
        restore_state(gym.make("Pendulum-v1"), capture_state(gym.make("Hopper-v5")))


def test_preserved_random_state_leaves_no_trace() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    with preserved_random_state():
        inside = draw()
    assert draw() == inside


def wait_for_steps(run: Path, steps: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        names = os.listdir(run / "checkpoints") if (run / "checkpoints").exists() else []
        made = [int(m[1]) for name in names if (m := re.fullmatch(r"(\d+)\.safetensors", name))]
        if made and max(made) >= steps:
            return
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint of {steps} steps within a minute")

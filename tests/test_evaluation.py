"""Evaluations of a run: how many environments, how long, and what happens when one goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from tiny_runs import TINY, evaluations, train

from icnn_rl.agents.runs.evaluation import EVALUATION_SEED
from icnn_rl.cli import main


class Simulator(gym.Env[np.ndarray, np.ndarray]):
    """A task that counts its open instances, and where the reward is the negative action.

    Args:
        licences: how many instances may be open.
        length: of an episode; None for one without end.
        fault: what happens at step 3 of an evaluation: a signal, or an error.
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    open: ClassVar[set[int]] = set()
    most = 0

    def __init__(
        self, licences: int = 99, length: int | None = 10, fault: int | Exception | None = None
    ) -> None:
        if len(self.open) == licences:
            raise ConnectionError("no further licence")
        self.length, self.fault = length, fault
        self.open.add(id(self))
        Simulator.most = max(Simulator.most, len(self.open))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.evaluated = 0, seed is not None and seed >= EVALUATION_SEED
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        if self.evaluated and self.steps == 3 and self.fault is not None:
            if isinstance(self.fault, Exception):
                raise self.fault
            os.kill(os.getpid(), self.fault)
        observation = np.full(2, self.steps % 7 / 7, np.float32)
        return observation, -float(action[0]), self.steps == self.length, False, {}

    def close(self) -> None:
        self.open.discard(id(self))


NO_LIMIT = "--env.kwargs.max_episode_steps=null"

TASKS: dict[str, dict[str, Any]] = {
    "Licences-v0": {},
    "OneLicence-v0": {"licences": 1},
    "Endless-v0": {"length": None},
    "Stopped-v0": {"length": None, "fault": signal.SIGTERM},
    "Failing-v0": {"fault": ValueError("the simulator is gone")},
}
for name, arguments in TASKS.items():
    gym.register(name, Simulator, kwargs=arguments)


@pytest.fixture(autouse=True)
def _nothing_open() -> None:
    Simulator.open.clear()
    Simulator.most = 0


@pytest.mark.parametrize(("envs", "most"), [(1, 3), (4, 5)])  # 3: to see if a state is captured
def test_evaluations_open_no_more_environments_than_they_may(
    envs: int, most: int, tmp_path: Path
) -> None:
    options = [f"--training.evaluation_envs={envs}", "--training.evaluation_episodes=7"]
    assert train(tmp_path / "run", 60, *options, env="Licences-v0") == 0
    assert (Simulator.most, Simulator.open) == (most, set())


def test_how_many_are_open_does_not_change_an_evaluation(tmp_path: Path) -> None:
    for envs in (1, 3):
        options = [f"--training.evaluation_envs={envs}", "--training.evaluation_episodes=5"]
        assert train(tmp_path / str(envs), 60, *options) == 0
    one, three = (evaluations(tmp_path / run)[-1] for run in "13")
    assert one.keys() == three.keys()
    for name in one:
        assert float(one[name]) == pytest.approx(float(three[name]), rel=1e-4)


@pytest.mark.parametrize("envs", [0, 1, 10])
def test_a_task_that_can_be_opened_once_is_trained_and_evaluated(
    envs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = [f"--training.evaluation_envs={envs}", "--training.evaluate_every=33"]
    assert train(run, 100, *options, env="OneLicence-v0") == 0
    said = "evaluations are played in the environment of training" in capsys.readouterr().out
    assert said == (envs > 0)
    # Between two episodes of training, which has not been cut.
    assert [row["steps"] for row in evaluations(run)] == ["40", "70", "100"]
    assert [row["length_mean"] for row in evaluations(run)] == ["10.0"] * 3
    lengths = [line.split(",")[1] for line in (run / "monitor.csv").read_text().splitlines()[2:]]
    assert lengths == ["10"] * 10
    assert main(["evaluate", str(run), "--episodes", "2"]) == 0
    assert Simulator.most == 1


def test_several_environments_of_training_cannot_be_evaluated_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--training.evaluation_envs=0", "--env.n_envs=2"]
    assert train(tmp_path / "run", 60, *options) == 2
    assert "training.evaluation_envs: expected at least 1" in capsys.readouterr().err


def test_an_episode_without_end_is_cut_and_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--training.evaluation_max_steps=25", NO_LIMIT]
    assert train(tmp_path / "run", 60, *options, env="Endless-v0") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Endless-v0 has no time limit: episodes of evaluations are cut after 25 steps" in said
    assert "2 of 2 episodes were cut, as they did not end in 25 steps" in said
    assert evaluations(tmp_path / "run")[-1]["length_mean"] == "25.0"


def test_a_time_limit_is_not_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", 60, "--training.evaluation_max_steps=25") == 0
    assert "were cut" not in capsys.readouterr().out
    assert evaluations(tmp_path / "run")[-1]["length_mean"] == "70.0"


def test_a_request_to_stop_is_honoured_inside_an_evaluation(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    options = ["--training.evaluate_every=50", "--training.evaluation_max_steps=200", NO_LIMIT]
    assert train(run, 100, *options, env="Stopped-v0") == 130
    captured = capfd.readouterr()
    assert "stopping" in captured.err
    assert f"stopped, and saved; go on with: icnn-rl resume {run}" in captured.out
    assert not (run / "evaluations.csv").exists()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["000000050.safetensors"]

    # The run goes on with that evaluation.
    spec = gym.registry["Stopped-v0"]
    monkeypatch.setitem(spec.kwargs, "fault", None)
    assert main(["resume", str(run)]) == 0
    assert [row["steps"] for row in evaluations(run)] == ["50", "100"]


def test_a_checkpoint_is_written_before_an_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, 100, "--training.evaluate_every=50", env="Failing-v0") == 1
    assert "the simulator is gone" in capsys.readouterr().err
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["000000050.safetensors"]


def test_an_evaluation_is_tried_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two environments of training and one more are one too many.
    gym.register("TwoLicences-v0", Simulator, kwargs={"licences": 2})
    assert train(tmp_path / "run", 60, "--env.n_envs=2", env="TwoLicences-v0") == 1
    assert "no further licence" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_request_to_stop_is_honoured_while_compiling(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", "--env=Pendulum-v1", *TINY, f"--run-dir={run}"]
    with subprocess.Popen(
        [sys.executable, "-m", "icnn_rl", *command],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "compiling" not in process.stdout.readline():
            pass
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "icnn-rl: interrupted\n"
    assert not run.exists()

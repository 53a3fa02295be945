"""The command: what it writes, and what it says of bad input."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from safetensors.numpy import load_file
from tiny_runs import TINY, train

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.portable import FORMAT
from icnn_rl.cli import main
from icnn_rl.experiments.config import FitConfig
from icnn_rl.runs.configuration import from_plain, to_plain
from icnn_rl.runs.folder import RunFolder
from icnn_rl.runs.storage import read_json, write_json


class Task(gym.Env[np.ndarray, np.ndarray]):
    """A task of 10 steps with any action space, that may turn bad at a step."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, action_space: spaces.Space[Any], observation: float, reward: float) -> None:
        self.action_space = action_space
        self.last = observation, reward
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        over = self.steps == 10
        observation, reward = self.last if over else (0.0, 0.0)
        return np.full(2, observation, np.float32), reward, over, False, {}


BOX = spaces.Box(-1, 1, (1,), np.float32)
TASKS = {
    "Discrete-v0": (spaces.Discrete(3), 0.0, 0.0),
    "Unbounded-v0": (spaces.Box(-np.inf, np.inf, (1,), np.float32), 0.0, 0.0),
    "NanObservation-v0": (BOX, np.nan, 0.0),
    "NanReward-v0": (BOX, 0.0, np.nan),
    "Good-v0": (BOX, 0.0, 1.0),
}
for name, (action_space, observation, reward) in TASKS.items():
    arguments = {"action_space": action_space, "observation": observation, "reward": reward}
    gym.register(name, Task, kwargs=arguments, disable_env_checker=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["--env.normalize_observations=true", "--training.evaluate_every=100"]
    assert train(path, 250, *arguments) == 0
    return path


def test_a_run_leaves_everything_in_its_folder(run: Path) -> None:
    names = {
        "best",
        "best_model.zip",
        "checkpoints",
        "config.yaml",
        "evaluations.csv",
        "evaluations.npz",
        "learning_curve.png",
        "model.json",
        "model.safetensors",
        "model.zip",
        "monitor.csv",
        "progress.csv",
        "tensorboard",
        "vecnormalize.pkl",
        "versions.json",
    }
    assert {path.name for path in run.iterdir()} == names
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["000000250.safetensors"]
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert from_plain(Config, RunFolder(run).read_config()).training.steps == 250
    assert {"torch", "numpy"} <= json.loads((run / "versions.json").read_text())["packages"].keys()
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    with (run / "evaluations.csv").open() as file:
        evaluations = list(csv.DictReader(file))
    assert [row["steps"] for row in evaluations] == ["100", "200", "250"]
    with (run / "progress.csv").open() as file:
        progress = list(csv.DictReader(file))
    assert progress[-1]["time/total_timesteps"] == "250"
    assert float(progress[-1]["solver/gap_max"]) >= 0
    # What is for others to read can be read by others.
    assert (run / "model.safetensors").stat().st_mode == (run / "config.yaml").stat().st_mode


def test_the_archive_is_for_users_of_stable_baselines3(run: Path) -> None:
    agent = ConcaveQ.load(run / "model.zip")
    assert agent.num_timesteps == 250
    weights = load_file(run / "model.safetensors")
    for name, value in agent.policy.state_dict().items():
        assert np.array_equal(value.numpy(), weights[f"policy.{name}"])


def test_evaluation_gives_the_training_evaluation_again_and_reads_no_pickle(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert main(["evaluate", str(tmp_path), "--episodes", "2", "--seed", "1000000"]) == 0
    with (run / "evaluations.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert f"return {float(last['return_mean']):.2f} ±" in capsys.readouterr().out


def test_evaluation_films(run: Path, tmp_path: Path) -> None:
    video = tmp_path / "film.mp4"
    assert main(["evaluate", str(run), "--episodes", "1", "--video", str(video)]) == 0
    assert b"ftyp" in video.read_bytes()[:16]
    assert list(tmp_path.iterdir()) == [video]


def test_a_task_that_does_not_render_has_no_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", 60, "--training.video=true", env="Good-v0") == 0
    assert "the task does not render" in capsys.readouterr().out
    assert not (tmp_path / "run" / "video.mp4").exists()


def test_the_default_folder_names_preset_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "pendulum", *TINY, "--training.steps=10", "--seed=3"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("pendulum-seed3-")


def test_help_lists_every_key_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--help"])
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for key in (
        "--run-dir",
        "--agent.policy_kwargs.context",
        "--agent.solver.tol",
        "--training.steps",
        "--noise.kind",
    ):
        assert key in text
    assert "--agent.gamma GAMMA discount factor" in text
    assert "--env CONFIG" not in text  # the command's own is the id of a task
    assert "--track {" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["train"], "name a preset"),
        (["train", ""], "there is no preset ''"),
        (["fit", ""], "there is no preset ''"),
        (["train", "pendulm"], "no preset 'pendulm'; did you mean 'pendulum'?"),
        (["train", "qqq"], "no preset 'qqq'; `icnn-rl presets` lists them"),
        (["train", "missing.yaml"], "'missing.yaml' does not exist"),
        (
            ["train", "pendulum", "--agent.speed", "3"],
            "unknown key agent.speed; did you mean agent.",
        ),
        (["train", "--agent.gama", "3"], "unknown key agent.gama; did you mean agent.gamma?"),
        (["train", "--learning_rate=1"], "unknown key learning_rate; did you mean agent.learning"),
        (["train", "--run-dr=a"], "unknown key run-dr; did you mean run-dir?"),
        (["train", "--agent.netw.context=[3]"], "unknown key agent.netw; did you mean agent."),
        (["train", "--agent.network.context=[3]"], "agent.network; it is now agent.policy_kwargs"),
        (["train", "--agent.beta1=0.5"], "is now agent.policy_kwargs.optimizer_kwargs.betas"),
        (["train", "--env.constraint.kind", "box"], "expected one of power, ball, ramp, got 'box'"),
        (["train", "--env.constraint=box"], "env.constraint: expected a mapping of keys"),
        (["train", "--agent.td_clip=x"], "agent.td_clip: expected float or null, got 'x'"),
        (["train", "--agent.tau=null"], "agent.tau: expected float, got None"),
        (["train", "--steps=1.5"], "training.steps: expected int, got 1.5"),
        (["train", "--agent.gamma"], "--agent.gamma: expected a value behind it"),
        (["train", "--agent.gamma=[1"], "--agent.gamma: '[1' is no YAML"),
        (["train", "--agent=none.yaml"], "the configuration file 'none.yaml' does not exist"),
        (["train", "--algorithm=sac", "--agent.gamma=0.5"], "agent.gamma is for concave_q; "),
        (["evaluate", "run", "--episode=3"], "--episode=3; did you mean --episodes?"),
        (["resume", "run", "--step", "3"], "--step 3; did you mean --steps?"),
        (["resume", "run", "--steps", "1.5"], "expected an integer, got 1.5"),
        (["train", "pendulum", "--agent.tau", "fast"], "agent.tau: expected float, got 'fast'"),
        (
            ["train", "pendulum", "--training.steps", "0"],
            "training.steps: expected a finite",
        ),
        (["train", "pendulum", "--agent.policy_kwargs.activation", "tanh"], "'tanh'"),
        (["train", "pendulum", "--agent.solver.name", "magic"], "got 'magic'"),
        (["train", "--env.reward_scale=0"], "env.reward_scale: expected a finite number > 0"),
        (["train", "--noise.sigma=.inf"], "noise.sigma: expected a finite number >= 0, got inf"),
        (["train", "--noise.temperature=0"], "noise.temperature: expected a finite number > 0"),
        (
            ["train", "halfcheetah-ball", "--env.constraint.limit=-1"],
            "env.constraint.limit: ",
        ),
        (
            ["train", "halfcheetah-ball", "--env.constraint.velocities=[1]"],
            "env.constraint.velocities are for kind power, not ball",
        ),
        (
            ["train", "pendulum-icml", "--env.constraint={kind: power, velocities: [9]}"],
            "velocities: expected entries of the observation, from 0 to 2; got (9,)",
        ),
        (["train", "--env", "Pendlum-v1"], "Did you mean: `Pendulum`?"),
        (["train", "--env", "nowhere:Task-v0"], "No module named 'nowhere'"),
        (["train", "--env", "Discrete-v0"], "action space Discrete(3); ConcaveQ needs a Box"),
        (["train", "--env", "Unbounded-v0"], "ConcaveQ needs bounded actions"),
        (["train", "--env", "Pendulum-v1", "--env.kwargs.mass", "1"], "argument 'mass'"),
        (
            ["train", "--algorithm=sac", "--baseline.tua=1"],
            "baseline: sac has no argument 'tua'; it has batch_size, buffer_size",
        ),
        (["train", "--algorithm=ddqg"], "got 'ddqg'"),
        (["train", "--baseline.tau=1"], "baseline is for the other algorithms"),
        (
            ["train", "--algorithm=td3", "--baseline.policy_kwargs.layers=3"],
            "baseline: TD3Policy.__init__() got an unexpected keyword argument 'layers'",
        ),
        (["train", "--algorithm=sac", "--baseline.learning_rate=abc"], "baseline: The learning"),
        (["train", "--algorithm=td3", "--baseline.train_freq=0"], "baseline: train_freq: expected"),
        (["fit"], "name a preset"),
        (["fit", "qqq"], "no preset 'qqq'; `icnn-rl presets` lists them"),
        (["fit", "--speed", "3"], "unknown key speed; did you mean seed?"),
        (
            ["fit", "digits", "--training.epoch", "3"],
            "unknown key training.epoch; did you mean training.epochs?",
        ),
        (["fit", "--training.epochs", "0"], "epochs: expected a number >= 1"),
        (["fit", "digit"], "no preset 'digit'; did you mean 'digits'?"),
        (["fit", "missing.yaml"], "'missing.yaml' does not exist"),
        (
            ["fit", "digits", "--network.width", "3"],
            "unknown key network.width; did you mean network.",
        ),
        (
            ["fit", "digits", "--training.epochs", "many"],
            "training.epochs: expected int, got 'many'",
        ),
        (
            ["fit", "digits", "--network.dropout", "-1"],
            "network.dropout: expected a",
        ),
        (["fit", "digits", "--convexity", "[half]"], "half"),
        (["fit", "digits", "--convexity", "[]"], "convexity has to name at least one"),
        (["fit", "digits", "--network.activation", "tanh"], "'tanh'"),
        (["fit", "digits", "--loss", "regret"], "'regret'"),
        (["fit", "--experiment", "chess"], "experiment: expected one of synthetic, digits"),
        (["fit", "digits", "--data", "here"], "data: digits does not use it"),
        (
            ["fit", "olivetti", "--network.convex", "[8]"],
            "network.convex: olivetti does not use it",
        ),
        (["fit", "impute", "--convexity", "[full]"], "convexity: impute does not use it"),
        (
            ["fit", "mnist-conv", "--network.context", "[8]"],
            "network.context: mnist-conv does not use",
        ),
        (["evaluate", "nowhere"], "nowhere holds no trained agent"),
        (["evaluate", "nowhere", "--episodes", "0"], "--episodes has to be at least 1"),
        (
            ["train", "pendulum", "--device", "foo"],
            "device: expected one that PyTorch can use here",
        ),
        (["evaluate", "nowhere", "--seed", "-1"], "--seed has to be at least 0, not -1"),
        (["evaluate", "nowhere", "--video", "no/a.mp4"], "--video: there is no folder no"),
        (["resume", "nowhere"], "nowhere is not the folder of a run"),
        (["resume", "nowhere", "--epochs", "3"], "--epochs is not for nowhere, which is no fit"),
        (["resume"], "required: RUN"),
        (["benchmark", "smok"], "no preset 'smok'; did you mean 'smoke'?"),
        (["benchmark", "smoke", "--tasks", "Hopper-v5"], "--tasks: smoke has no 'Hopper-v5'"),
        (["benchmark", "smoke", "--algorithms", "sax"], "--algorithms: smoke has no 'sax'"),
        (["benchmark", "smoke", "--jobs", "0"], "--jobs has to be at least 1, not 0"),
        (["benchmark", "smoke", "--address", "auto"], "--address is for --backend ray"),
        (["report", "smoke"], "there are no results of smoke"),
        (["presets", "--all"], "unrecognized arguments: --all"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("icnn-rl: ")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", ["NanObservation-v0", "NanReward-v0"])
def test_a_task_that_turns_bad_ends_the_run_and_keeps_its_checkpoint(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, 60, "--training.checkpoint_every=5", env=task) == 2
    error = capsys.readouterr().err
    assert "nan" in error.lower()
    assert error.count("\n") == 1
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["000000005.safetensors"]


@pytest.mark.parametrize(
    "content",
    ["[1, 2", "just text", "agnt: {tau: 1}", "agent: {speed: 1}", "agent: 3", "env: {n_envs: 0}"],
)
def test_a_bad_configuration_file_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    assert main(["train", str(file), "--run-dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("icnn-rl: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_bad_key_of_a_file_is_named_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("agent: {gama: 1}")
    for arguments in (["mine.yaml"], ["--config", "mine.yaml"]):
        assert main(["train", *arguments]) == 2
        message = "icnn-rl: mine.yaml: unknown key agent.gama; did you mean agent.gamma?\n"
        assert capsys.readouterr().err == message
    Path("mine.yaml").write_text("tau: fast")
    assert main(["train", "--agent", "mine.yaml"]) == 2
    assert "mine.yaml: agent.tau: expected float, got 'fast'" in capsys.readouterr().err


def test_a_folder_with_files_is_never_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert train(tmp_path, 60) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("damage", [b"", b"{", b"hello" * 100, None])
def test_a_damaged_model_is_refused(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: bytes | None,
) -> None:
    for file in ("model.json", "model.safetensors"):
        (tmp_path / file).write_bytes((run / file).read_bytes())
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage)
    assert main(["evaluate", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([1], "model.json is damaged: its config is no mapping"),
        ({"agent": {"tau": "fast"}}, "model.json: agent.tau: expected float, got 'fast'"),
        ({"env": 3}, "model.json: env: expected a mapping of keys to values, got 3"),
    ],
)
def test_a_damaged_description_is_refused(
    config: Any, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = read_json(run / "model.json", FORMAT)
    write_json(description | {"config": config}, tmp_path / "model.json", FORMAT)
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    assert main(["evaluate", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("content", ["[1]", "{}", '{"run_id": "0", "packages"'])
def test_damaged_versions_are_refused(
    content: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "versions.json").write_text(content)
    assert main(["resume", str(tmp_path / "run"), "--steps=1000"]) == 2
    assert re.search(r"versions\.json is (damaged: |not an icnn-rl run)", capsys.readouterr().err)


def test_weights_of_another_network_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    description = read_json(run / "model.json", FORMAT)
    description["config"]["agent"]["policy_kwargs"]["convex"] = [12]
    write_json(description, tmp_path / "model.json", FORMAT)
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "does not fit model.json" in capsys.readouterr().err


def test_a_model_imports_no_module_that_the_user_did_not_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    description = read_json(run / "model.json", FORMAT)
    description["config"]["env"]["id"] = "strange_module:Pendulum-v1"
    write_json(description, tmp_path / "model.json", FORMAT)
    (tmp_path / "strange_module.py").write_text("print('code ran')")
    monkeypatch.syspath_prepend(tmp_path)

    assert main(["evaluate", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "would run code" in captured.err
    assert "code ran" not in captured.out
    assert main(["evaluate", str(tmp_path), "--env", "strange_module:Pendulum-v1"]) == 0
    assert "code ran" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path), "--env", "Pendulum-v1"]) == 2


def test_a_finished_run_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--steps", "100"]):
        assert main(["resume", str(run), *arguments]) == 2
        assert "has made 250 steps already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["resume", "--steps=9"], ["evaluate", "--seed=0"], ["evaluate", "--env=Task-v0"]]
)
def test_options_for_agents_are_not_for_fits(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path).write_config(to_plain(FitConfig()))
    assert main([*arguments, str(tmp_path)]) == 2
    assert f"is not for {tmp_path}, which is a fit" in capsys.readouterr().err


def test_exit_code_of_the_process() -> None:
    command = [sys.executable, "-m", "icnn_rl", "train", "pendulm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "icnn-rl: there is no preset 'pendulm'; did you mean 'pendulum'?\n"

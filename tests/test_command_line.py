"""Any task, from the command line alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.results_plotter import ts2xy
from stable_baselines3.common.save_util import load_from_zip_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import TINY, differences, evaluations, state, train

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.runs.outputs import AgentFolder
from icnn_rl.cli import main
from icnn_rl.runs.folder import RunFolder

TASKS = '''
import gymnasium as gym
import numpy as np
from gymnasium import spaces

PLACE = spaces.Box(-1, 1, (2,), np.float32)


class Reach(gym.Env):
    """Go to a goal in the plane."""

    observation_space = spaces.Dict(
        {"observation": PLACE, "achieved_goal": PLACE, "desired_goal": PLACE}
    )
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def observe(self):
        here = self.place.astype(np.float32)
        return {"observation": here, "achieved_goal": here.copy(), "desired_goal": self.goal.copy()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(2)
        self.goal = self.np_random.uniform(-0.2, 0.2, 2).astype(np.float32)
        return self.observe(), {}

    def compute_reward(self, achieved, desired, info):
        return -(np.linalg.norm(achieved - desired, axis=-1) > 0.2).astype(np.float32)

    def step(self, action):
        self.place = np.clip(self.place + 0.1 * action, -1, 1)
        observation = self.observe()
        reward = float(self.compute_reward(self.place, self.goal, {}))
        return observation, reward, False, False, {"is_success": reward == 0}


class Pixels(gym.Env):
    """A coloured screen, whose brightness is to be met."""

    observation_space = spaces.Box(0, 255, (40, 48, 3), np.uint8)
    action_space = spaces.Box(0, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.level = self.np_random.uniform()
        return np.full((40, 48, 3), 255 * self.level, np.uint8), {}

    def step(self, action):
        reward = -abs(float(action[0]) - self.level)
        return self.reset()[0], reward, False, False, {}


class Broken(Reach):
    def step(self, action):
        raise ValueError("no reply from robot 7")


gym.register("Broken-v0", Broken)
gym.register("Reach-v0", Reach)
gym.register("Pixels-v0", Pixels)
'''


TEN_STEPS = "--env.kwargs.max_episode_steps=10"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the user's module in it."""
    (tmp_path / "my_tasks.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_tasks", None)
    for name in ("Reach-v0", "Pixels-v0", "Broken-v0"):
        gym.registry.pop(name, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--agent.replay_buffer_class=her", "--agent.replay_buffer_kwargs={n_sampled_goal: 2}"],
        [
            "--algorithm=sac",
            "--baseline={learning_starts: 40, batch_size: 16, policy_kwargs: {net_arch: [16]}}",
            "--baseline.replay_buffer_class=HerReplayBuffer",
            "--baseline.replay_buffer_kwargs={n_sampled_goal: 2}",
        ],
    ],
    ids=["concave_q", "sac"],
)
def test_a_task_with_goals_is_trained_with_hindsight(
    options: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "my_tasks:Reach-v0"
    assert train(Path("run"), 120, TEN_STEPS, *options, env=task) == 0
    last = evaluations(here / "run")[-1]
    assert 0 <= float(last["success_rate"]) <= 1
    assert float(last["return_mean"]) >= -10
    buffer = state(here / "run")["buffer"]["arrays"]
    assert buffer["ep_length"].max() == 10  # of HER alone
    if "--algorithm=sac" not in options:
        saved = load_from_zip_file(here / "run" / "model.zip")[0]
        assert saved is not None
        assert saved["replay_buffer_class"] is HerReplayBuffer
        assert saved["replay_buffer_kwargs"] == {"n_sampled_goal": 2}

    # The agent is only played with where the module may be imported.
    assert main(["evaluate", "run", "--episodes=2"]) == 2
    assert f"allow it with --env {task}" in capsys.readouterr().err
    assert main(["evaluate", "run", "--episodes=2", "--env", task]) == 0
    assert "success" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("my_tasks:Reach-v0", ["--agent.replay_buffer_class=her"]),
        (
            "Pendulum-v1",
            [
                "--agent.optimize_memory_usage=true",
                "--agent.replay_buffer_kwargs={handle_timeout_termination: false}",
            ],
        ),
    ],
    ids=["hindsight", "optimize_memory_usage"],
)
def test_every_replay_buffer_goes_on_where_it_stopped(
    task: str, options: list[str], here: Path
) -> None:
    for run, steps in (("halves", 60), ("whole", 120)):
        assert train(Path(run), steps, TEN_STEPS, *options, env=task) == 0
    assert main(["resume", "halves", "--steps=120"]) == 0
    halves, whole = state(Path("halves")), state(Path("whole"))
    del halves["environments"], whole["environments"]
    assert differences(halves, whole) == []


def test_hindsight_needs_an_episode_before_the_first_update(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    her = "--agent.replay_buffer_class=her"
    assert train(here / "run", 60, her, env="my_tasks:Reach-v0") == 2
    error = capsys.readouterr().err
    assert error.startswith("icnn-rl: learning_starts: Unable to sample before the end of the")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_images_are_learned_from_through_wrappers(here: Path) -> None:
    wrappers = "[GrayscaleObservation, {FrameStackObservation: {stack_size: 4}}]"
    options = [f"--env.wrappers={wrappers}", "--agent.buffer_size=200", "--agent.batch_size=4"]
    saving = [
        "--agent.optimize_memory_usage=true",
        "--agent.replay_buffer_kwargs={handle_timeout_termination: false}",
    ]
    task = "my_tasks:Pixels-v0"
    assert train(Path("run"), 50, TEN_STEPS, *options, *saving, env=task) == 0
    agent = ConcaveQ.load(here / "run" / "model.zip")
    assert agent.observation_space.shape == (4, 40, 48)
    assert "next_observations" not in state(here / "run")["buffer"]["arrays"]
    assert float(evaluations(here / "run")[-1]["length_mean"]) == 10


@pytest.mark.slow
def test_environments_in_processes_are_those_in_one(tmp_path: Path) -> None:
    for kind in ("dummy", "subproc"):
        options = [f"--env.vec_env={kind}", "--env.n_envs=2", "--training.evaluate_every=50"]
        assert train(tmp_path / kind, 100, *options) == 0
    one, other = state(tmp_path / "dummy"), state(tmp_path / "subproc")
    del one["environments"], other["environments"]  # the agent draws from the space of the first
    assert differences(one, other) == []
    assert evaluations(tmp_path / "dummy") == evaluations(tmp_path / "subproc")


@pytest.mark.slow
def test_an_error_of_a_task_in_a_process_is_shown(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--env.vec_env=subproc", "--env.n_envs=2", "--run-dir=run"]
    assert main(["train", "--env=my_tasks:Broken-v0", *options, *TINY]) == 1
    assert "no reply from robot 7" in capfd.readouterr().err


class CountSteps(BaseCallback):
    """Stops training after some steps, and counts them."""

    counted = 0

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def _on_step(self) -> bool:
        CountSteps.counted += 1
        return self.n_calls < self.most


def test_callbacks_are_called_and_may_end_training(tmp_path: Path) -> None:
    run = tmp_path / "run"
    own, other = f"{{{__name__}:CountSteps: {{most: 45}}}}", "StopTrainingOnMaxEpisodes"
    callbacks = f"[{own}, {{{other}: {{max_episodes: 9}}}}]"
    assert train(run, 400, f"--training.callbacks={callbacks}") == 0
    assert CountSteps.counted == 45
    assert [row["steps"] for row in evaluations(run)] == ["45"]
    assert AgentFolder(run).archive.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env.wrappers=[GreyscaleObservation]"], "did you mean 'GrayscaleObservation'?"),
        (["--env.wrappers=[nowhere.Wrapper]"], "env.wrappers: cannot import 'nowhere.Wrapper'"),
        (["--env.wrappers=[{ClipAction: {}, TimeLimit: {}}]"], "expected NAME or {NAME: "),
        (["--env.wrappers=[{TimeLimit: 3}]"], "expected a mapping of the arguments of TimeLimit"),
        (["--env.wrappers=[{TimeLimit: {steps: 3}}]"], "env.wrappers: TimeLimit: "),
        (["--env.wrappers=TimeLimit"], "expected a list of str or a mapping, got 'TimeLimit'"),
        (["--training.callbacks=[{EveryNTimesteps: {n: 3}}]"], "argument 'n'"),
        (["--agent.replay_buffer_class=HerReplayBufer"], "did you mean 'HerReplayBuffer'?"),
    ],
)
def test_bad_names_of_classes_are_one_sentence(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", 60, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_numbers_may_have_an_exponent(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "env: {id: Pendulum-v1}\nagent: {buffer_size: 1e4, tau: 1e-2}"
    )
    command = ["train", str(tmp_path / "mine.yaml"), f"--run-dir={tmp_path / 'run'}"]
    assert main([*command, *TINY[:2], *TINY[4:], "--steps=6e1", "--agent.n_steps", "2e0"]) == 0
    config = RunFolder(tmp_path / "run").read_config()
    agent = config["agent"]
    assert (config["training"]["steps"], agent["buffer_size"], agent["tau"]) == (60, 10_000, 0.01)
    assert [row["steps"] for row in evaluations(tmp_path / "run")] == ["60"]
    assert main(["resume", str(tmp_path / "run"), "--steps=7e1"]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--episodes=1e0"]) == 0


def test_a_section_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "policy_kwargs: {context: [8], convex: [4]}\nbatch_size: 8"
    )
    agent = f"--agent={tmp_path / 'small.yaml'}"
    assert train(tmp_path / "run", 50, agent, "--agent.gamma=0.9") == 0
    found = RunFolder(tmp_path / "run").read_config()["agent"]
    assert found["policy_kwargs"]["context"] == [8]
    assert (found["batch_size"], found["gamma"], found["learning_starts"]) == (8, 0.9, 40)


def test_a_preset_of_a_task_can_be_learned_by_another_algorithm(tmp_path: Path) -> None:
    small = "--baseline={learning_starts: 40, policy_kwargs: {net_arch: [8]}}"
    options = [small, "--training.video=false", "--training.evaluation_episodes=1"]
    command = ["train", "pendulum", "--algorithm", "sac", f"--run-dir={tmp_path / 'run'}"]
    assert main([*command, *options, "--steps=50"]) == 0
    assert RunFolder(tmp_path / "run").read_config()["agent"]["policy_kwargs"]["dueling"] is None


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == "icnn-rl 0.1.0\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_can_complete_commands_presets_and_keys(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("evaluate", "halfcheetah-power", "--agent.policy_kwargs.context", "--run-dir"):
        assert word in script


def test_the_best_agent_is_kept_beside_the_last(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--env.normalize_observations=true", "--training.evaluate_every=40"]
    assert train(run, 200, *options) == 0
    rows = evaluations(run)
    best = max(rows, key=lambda row: float(row["return_mean"]))
    assert ConcaveQ.load(run / "best_model.zip").num_timesteps == int(best["steps"])
    names = {"model.json", "model.safetensors", "vecnormalize.pkl"}
    assert {path.name for path in (run / "best").iterdir()} == names


def test_other_tools_read_the_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--env.n_envs=2", "--env.kwargs.max_episode_steps=20", "--env.reward_scale=0.1"]
    assert train(run, 90, *options, "--training.evaluate_every=40") == 0
    # As a kill after the last checkpoint leaves it.
    with (run / "monitor.csv").open("a") as file:
        file.write("-1.0,20,3.0\n-1.0,2")
    assert main(["resume", str(run), "--steps=200"]) == 0

    episodes = load_results(str(run))
    assert episodes["l"].tolist() == [20] * 10
    assert (episodes["r"] < -20).all()  # in the task's own rewards
    assert (np.diff(episodes["t"]) >= 0).all()
    steps, _ = ts2xy(episodes, "timesteps")
    assert steps[-1] == 200

    table = evaluations(run)
    with np.load(run / "evaluations.npz") as file:
        assert file["timesteps"].tolist() == [int(row["steps"]) for row in table] == STEPS
        assert file["ep_lengths"].tolist() == [[20, 20]] * len(STEPS)
        means = file["results"].mean(1)
    np.testing.assert_allclose(means, [float(row["return_mean"]) for row in table])

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {"eval/mean_reward", "eval/mean_ep_length", "rollout/ep_rew_mean"} <= set(
        events.Tags()["scalars"]
    )


STEPS = [40, 80, 90, 120, 160, 200]


def test_a_run_knows_the_commit_of_the_folder_it_was_begun_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "one"],
    ):
        subprocess.run(["git", *command], check=True)
    assert train(tmp_path / "runs" / "run", 50) == 0
    versions = json.loads((tmp_path / "runs" / "run" / "versions.json").read_text())
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert versions["folder"] == {"path": str(tmp_path), "commit": head.stdout.strip()}


def test_a_terminal_is_told_what_takes_the_first_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal in (False, True):
        if terminal:
            monkeypatch.setenv("FORCE_COLOR", "1")
        assert main(["train", "--agent.gama=1"]) == 2
        said = "loading stable-baselines3 and the task ...\n" if terminal else ""
        assert capsys.readouterr().out == said


@pytest.mark.slow
def test_a_request_to_stop_is_honoured_while_pytorch_is_loaded() -> None:
    code = "import sys, icnn_rl_command; sys.exit(icnn_rl_command.main())"
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-c", code, "presets"],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stderr is not None
        while " torch." not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, out, lines) == (130, "", ["icnn-rl: interrupted"])

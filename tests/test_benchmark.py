"""Benchmarks: grids that skip, go on and fail cell by cell."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from icnn_rl.agents.benchmark.results import Result, read_result
from icnn_rl.agents.benchmark.suite import read_suite, suite_cells
from icnn_rl.agents.runs.building import build_agent
from icnn_rl.agents.runs.config import AgentConfig
from icnn_rl.agents.runs.environments import make_training_environments
from icnn_rl.agents.runs.outputs import AgentFolder
from icnn_rl.cli import main
from icnn_rl.runs.configuration import presets, to_plain
from icnn_rl.runs.folder import RunFolder, installed_commit

STEPS = 400
SUITE = """# Tiny
tasks:
  Pendulum-v1: {steps: 400, random: -1208, reference: -160}
algorithms:
  concave-q:
    settings:
      env: {kwargs: {max_episode_steps: 70}}
      agent: {batch_size: 16, policy_kwargs: {context: [16], convex: [8]}}
    tasks: {Pendulum-v1: {agent: {learning_starts: 50}}}
  sac:
    settings:
      algorithm: sac
      env: {kwargs: {max_episode_steps: 70}}
      baseline: {batch_size: 16, policy_kwargs: {net_arch: [16]}}
  broken: {settings: {algorithm: crossq, baseline: {flux: 1}}}
  endless:
    settings: {algorithm: sac}
    optional: true
evaluate_every: 100
evaluation_episodes: 2
checkpoint_every: 50
"""
SAC, CONCAVE_Q = "Pendulum-v1/sac/0", "Pendulum-v1/concave-q/0"


class Grid:
    """A folder with a suite, its runs and its results."""

    def __init__(self, folder: Path) -> None:
        self.suite = folder / "tiny.yaml"
        self.suite.write_text(SUITE)
        self.work, self.results = folder / "work", folder / "results"

    def arguments(self, *options: str) -> list[str]:
        folders = ["--work-dir", str(self.work), "--results", str(self.results)]
        return ["benchmark", str(self.suite), *folders, *options]

    def run(self, *options: str) -> int:
        return main(self.arguments(*options))

    def path(self, cell: str) -> Path:
        return self.results / "tiny" / f"{cell}.csv"

    def result(self, cell: str) -> Result:
        return read_result(self.path(cell))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, str, int]:
    grid = Grid(tmp_path_factory.mktemp("grid"))
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr(
            "icnn_rl.runs.monitoring.ProgressDisplay.say", lambda _, line: lines.append(line)
        )
        code = grid.run("--jobs", "2")
    return grid, "\n".join(lines), code


def test_a_failing_cell_is_reported_and_the_others_finish(done: tuple[Grid, str, int]) -> None:
    grid, output, code = done
    assert code == 1
    assert "failed: Pendulum-v1, broken, seed 0: exit code 2" in output
    assert "crossq has no argument 'flux'" in output
    assert {str(p.relative_to(grid.results)) for p in grid.results.rglob("*") if p.is_file()} == {
        f"tiny/{SAC}.csv",
        f"tiny/{CONCAVE_Q}.csv",
    }


def test_a_result_says_what_was_run_and_how_it_went(done: tuple[Grid, str, int]) -> None:
    grid, _, _ = done
    cells = {c.algorithm: c for c in suite_cells(*read_suite(str(grid.suite)))}
    for name, path in {"sac": SAC, "concave-q": CONCAVE_Q}.items():
        result = grid.result(path)
        assert result.config() == cells[name].config
        assert result.metadata["config"] == to_plain(cells[name].config)
        versions = RunFolder(grid.work / path).read_versions()
        for key in ("commit", "packages", "started"):
            assert result.metadata[key] == versions[key]
        assert result.columns["steps"].tolist() == [100, 200, 300, 400]
        seconds = result.columns["training_seconds"]
        assert (np.diff(seconds) > 0).all()
        assert result.metadata["steps_per_second"] == round(STEPS / seconds[-1], 1)
        assert (np.isnan(result.columns["gap_mean"])).all() == (name == "sac")
        assert not (grid.work / path / "checkpoints").exists()
    table = (grid.work / SAC / "evaluations.csv").read_text().splitlines()
    assert float(table[-1].split(",")[1]) == grid.result(SAC).columns["return_mean"][-1]
    solver = grid.result(CONCAVE_Q).columns
    assert (solver["gap_max"] >= solver["gap_mean"]).all()
    assert (solver["evaluations"] >= 1).all()


def test_a_saved_baseline_can_be_evaluated(
    done: tuple[Grid, str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    grid, _, _ = done
    assert main(["evaluate", str(grid.work / SAC), "--episodes=2", "--seed=1000000"]) == 0
    expected = grid.result(SAC).columns["return_mean"][-1]
    assert f"return {expected:.2f} ±" in capsys.readouterr().out


def test_cells_with_a_result_are_skipped(
    done: tuple[Grid, str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    grid, _, _ = done
    before = {p: p.read_bytes() for p in grid.results.rglob("*.csv")}
    assert grid.run("--algorithms", "sac", "concave-q") == 0
    assert "0 of 2 cells to run" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in grid.results.rglob("*.csv")} == before
    assert grid.run("--list") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert {cell.split(", ")[1]: state for state, cell in lines} == {
        "concave-q": "done",
        "sac": "done",
        "broken": "missing",
    }


def test_a_result_of_another_configuration_is_neither_taken_nor_lost(
    done: tuple[Grid, str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid(tmp_path)
    path = grid.path(SAC)
    path.parent.mkdir(parents=True)
    text = done[0].path(SAC).read_text().replace("batch_size: 16", "batch_size: 32")
    path.write_text(text)
    assert grid.run("--algorithms", "sac") == 1
    assert f"{path} is of another configuration" in capsys.readouterr().out
    assert path.read_text() == text
    assert not grid.work.exists()


def test_a_run_of_another_configuration_is_neither_resumed_nor_lost(
    done: tuple[Grid, str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid(tmp_path)
    config = done[0].result(SAC).metadata["config"]
    run = RunFolder(grid.work / SAC)
    run.create(config | {"threads": 2}, [])
    assert grid.run("--algorithms", "sac") == 1
    assert "is of another configuration; move it away" in capsys.readouterr().out
    assert run.read_config()["threads"] == 2


def test_keys_of_an_agent_that_a_baseline_is_not_may_go(done: tuple[Grid, str, int]) -> None:
    result = done[0].result(SAC)
    cell = next(c for c in suite_cells(*read_suite(str(done[0].suite))) if c.algorithm == "sac")
    assert result.is_of(cell)
    result.metadata["config"]["agent"]["long_gone"] = 1
    assert result.is_of(cell)
    result.metadata["config"]["algorithm"] = "concave_q"
    assert not result.is_of(cell)


def test_only_what_matters_to_a_run_makes_it_another(done: tuple[Grid, str, int]) -> None:
    cells = {c.algorithm: c for c in suite_cells(*read_suite(str(done[0].suite)))}
    for name, is_ours in {"sac": True, "concave-q": False}.items():
        cell = cells[name]
        config = replace(cell.config, agent=AgentConfig(tau=0.5))
        assert cell.is_of(config) == is_ours  # no other algorithm has ConcaveQ's arguments
        seldom = replace(cell.config.training, checkpoint_every=10_000)
        assert cell.is_of(replace(cell.config, training=seldom))
        otherwise = replace(cell.config.agent, compile=not cell.config.agent.compile)
        assert cell.is_of(replace(cell.config, agent=otherwise))
        assert not cell.is_of(replace(cell.config, seed=1))


def test_killed_cells_reach_the_same_results(done: tuple[Grid, str, int], tmp_path: Path) -> None:
    grid = Grid(tmp_path)
    config = grid.work / "sac.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(yaml.safe_dump(done[0].result(SAC).metadata["config"]))
    run = grid.work / SAC
    process = begin(["train", str(config), "--run-dir", str(run)])
    wait_for_checkpoint(run)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run / "model.zip").exists()
    started = RunFolder(run).read_versions()["started"]

    # Another one was killed while it wrote its first checkpoint: it begins anew.
    shutil.copytree(done[0].work / CONCAVE_Q, grid.work / CONCAVE_Q)
    other = AgentFolder(grid.work / CONCAVE_Q)
    (other.path / "model.json").unlink()
    other.checkpoints.mkdir(exist_ok=True)
    (other.checkpoints / ".partial-000000100.safetensors").write_bytes(b"")

    assert grid.run("--algorithms", "sac", "concave-q", "--jobs", "2") == 0
    assert grid.result(SAC).metadata["started"] == started  # continued, not begun anew
    for cell in (SAC, CONCAVE_Q):
        expected = done[0].result(cell).columns
        for name, values in grid.result(cell).columns.items():
            if name != "training_seconds":
                assert np.array_equal(values, expected[name], equal_nan=True), name


def test_a_finished_run_without_its_evaluations_is_no_result(
    done: tuple[Grid, str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid(tmp_path)
    shutil.copytree(done[0].work, grid.work)
    (grid.work / SAC / "evaluations.csv").unlink()
    assert grid.run("--algorithms", "sac") == 1
    assert "has lost its evaluations.csv" in " ".join(capsys.readouterr().out.split())
    assert not grid.results.exists()


def test_ctrl_c_leaves_a_checkpoint_of_every_running_cell_and_begins_no_other(
    tmp_path: Path,
) -> None:
    grid = Grid(tmp_path)
    grid.suite.write_text(SUITE.replace("steps: 400", "steps: 1_000_000"))
    process = begin(
        grid.arguments("--algorithms", "endless", "--seeds", "0", "1", "1", "--jobs", "1")
    )
    run = grid.work / "Pendulum-v1/endless/0"
    wait_for_checkpoint(run)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "2 of 2 cells to run" in out
    assert "the same command goes on" in out
    assert not run.with_name("1").exists()
    assert "icnn-rl resume" in run.with_suffix(".log").read_text()
    with RunFolder(run).locked():
        assert list((run / "checkpoints").glob("*.safetensors"))
    assert not grid.results.exists()


def test_a_cluster_gives_the_results_of_this_machine(
    done: tuple[Grid, str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid(tmp_path)
    assert grid.run("--algorithms", "sac", "--backend", "ray", "--jobs", "2") == 0
    found, expected = grid.result(SAC), done[0].result(SAC)
    assert found.config() == expected.config()
    assert np.array_equal(found.columns["return_mean"], expected.columns["return_mean"])

    evaluation = ["evaluate", str(done[0].work / SAC), "--episodes=12", "--seed=7"]
    capsys.readouterr()
    assert main(evaluation) == 0
    here = capsys.readouterr().out
    assert main([*evaluation, "--backend=ray"]) == 0
    assert capsys.readouterr().out == here


DAMAGES = {
    "empty": lambda text: "",
    "binary": lambda text: "\udcff\udc80" * 20,
    "truncated": lambda text: text[:-60],
    "a row is missing": lambda text: "\n".join(text.splitlines()[:-1]),
    "a number is missing": lambda text: text.replace(",70.0,", ",,", 1),
    "no number": lambda text: text.replace(",70.0,", ",many,", 1),
    "no head": lambda text: "\n".join(x for x in text.splitlines() if not x.startswith("#")),
    "no configuration": lambda text: "\n".join(
        "# config: null" if line == "# config:" else line
        for line in text.splitlines()
        if not line.startswith("#   ")
    ),
    "a damaged head": lambda text: text.replace("# suite:", "# suite: [", 1),
}


@pytest.mark.parametrize(
    ("command", "damage"),
    [*(("report", damage) for damage in DAMAGES), ("benchmark", "truncated")],
)
def test_a_damaged_result_is_named(
    done: tuple[Grid, str, int],
    tmp_path: Path,
    command: str,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    grid = Grid(tmp_path)
    path = grid.path(SAC)
    path.parent.mkdir(parents=True)
    content = DAMAGES[damage](done[0].path(SAC).read_text()).encode(errors="surrogateescape")
    path.write_bytes(content)
    assert main([command, str(grid.suite), "--results", str(grid.results)]) == 2
    error = capsys.readouterr().err
    assert f"{path} is damaged" in error
    assert error.count("\n") == 1
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("tasks: [", "is damaged"),
        ("just text", "is not a mapping"),
        (SUITE.replace("evaluate_every", "evaluate_evry"), "evaluate_evry"),
        (SUITE.replace("steps: 400", "steps: 0"), "tasks.steps: expected a finite number >= 1"),
        (SUITE.replace("reference: -160", "reference: -2000"), "reference has to be above random"),
        (SUITE.replace("algorithm: sac", "algorithm: sax"), "sac on Pendulum-v1"),
        (SUITE.replace("  sac:", "  sac:\n    base: sax"), "no algorithm 'sax' to start from"),
        (SUITE.replace("broken: {", "broken: {presets: {Pendulum-v1: fly}, "), "no preset 'fly'"),
    ],
)
def test_a_bad_suite_is_refused(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid(tmp_path)
    grid.suite.write_text(content)
    assert grid.run() == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not grid.work.exists()


@pytest.mark.parametrize("name", presets("benchmark"))
def test_every_algorithm_of_a_suite_can_be_built_for_every_task(name: str) -> None:
    name, suite = read_suite(name)
    cells = suite_cells(name, suite, algorithms=list(suite.algorithms))
    assert len({cell.path for cell in cells}) == len(cells)
    built = set()
    for cell in cells:
        config = cell.config
        assert (config.env.id, config.training.steps) == (cell.task, suite.tasks[cell.task].steps)
        assert config.training.evaluation_episodes == suite.evaluation_episodes
        if cell.algorithm not in built:  # one task of each suffices for its arguments
            built.add(cell.algorithm)
            before = to_plain(deepcopy(config))
            agent = build_agent(config, make_training_environments(config), buffer_size=1)
            assert to_plain(config) == before
            assert type(agent).__name__.lower() == config.algorithm.replace("_", "")


def test_the_commit_is_that_of_the_code(tmp_path: Path) -> None:
    file = tmp_path / "icnn_rl" / "runs" / "folder.py"
    file.parent.mkdir(parents=True)
    file.write_text("code")

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert installed_commit(file) == "unknown"
    git("init")
    assert installed_commit(file) == "unknown"  # in a checkout, but not of it
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert installed_commit(file) == head
    (tmp_path / "notes.md").write_text("no code")
    assert installed_commit(file) == head
    (tmp_path / "icnn_rl" / "new.py").write_text("code")
    assert installed_commit(file) == f"{head}-modified"


def begin(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "icnn_rl", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_checkpoint(run: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if list((run / "checkpoints").glob("0*.safetensors")):
            return
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint in {run} within two minutes")

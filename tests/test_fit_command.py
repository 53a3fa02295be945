"""The command ``icnn-rl fit``: its files, how it stops and goes on, what it says of mistakes."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from icnn_rl.cli import main
from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import EXPERIMENTS
from icnn_rl.runs.configuration import find_preset, from_plain, parse_config, presets
from icnn_rl.runs.folder import RunFolder

TINY = [
    "--convexity=[partial]",
    "--network.context=[8]",
    "--network.convex=[8]",
    "--training.batch_size=500",
]


def fit(run: Path, epochs: int, *arguments: str) -> int:
    """The exit code of a tiny fit."""
    options = ["--run-dir", str(run), f"--training.epochs={epochs}"]
    return main(["fit", "digits", *options, *TINY, *arguments])


def begin(run: Path) -> subprocess.Popen[str]:
    """A tiny fit without end, in a process of its own."""
    options = ["--run-dir", str(run), "--training.epochs=100000"]
    return subprocess.Popen(
        [sys.executable, "-m", "icnn_rl", "fit", "digits", *options, *TINY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(run: Path, name: str = "history.csv") -> list[dict[str, str]]:
    """A table of a fit, its clock times left out."""
    with (run / name).open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fits") / "run"
    assert fit(path, 2, "--convexity=[partial, none]") == 0
    return path


def test_a_fit_leaves_everything_in_its_folder(run: Path) -> None:
    names = {
        "checkpoint.safetensors",
        "config.yaml",
        "hardest-none.png",
        "hardest-partial.png",
        "history.csv",
        "metrics.csv",
        "model.safetensors",
        "training.png",
        "versions.json",
    }
    assert {path.name for path in run.iterdir()} == names
    config = from_plain(FitConfig, RunFolder(run).read_config())
    assert (config.experiment, config.training.epochs, config.network.convex) == ("digits", 2, (8,))
    assert [(row["part"], row["epoch"]) for row in rows(run)] == [
        ("partial", "1"),
        ("partial", "2"),
        ("none", "1"),
        ("none", "2"),
    ]


def test_evaluation_shows_the_table_of_the_fit_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert main(["evaluate", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "digits, seed 0" in shown
    for row in rows(run, "metrics.csv"):
        (cells,) = (words for words in map(str.split, shown.splitlines()) if row["part"] in words)
        assert cells[1] == f"{float(row['test error']):.4g}"
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_finished_fit_says_so_and_goes_on_when_it_may(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(run)]) == 2
    assert "is finished" in capsys.readouterr().err
    assert fit(tmp_path / "fit", 1) == 0
    assert main(["resume", str(tmp_path / "fit"), "--epochs", "3"]) == 0
    assert [row["epoch"] for row in rows(tmp_path / "fit")] == ["1", "2", "3"]
    assert main(["resume", str(tmp_path / "fit"), "--steps", "3"]) == 2
    assert "--steps is not for" in capsys.readouterr().err


def test_a_stopped_fit_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    process = begin(run)
    give_up = time.monotonic() + 300
    while not (run / "history.csv").exists() and process.poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    assert main(["resume", str(run)]) == 2
    assert "another process" in capsys.readouterr().err
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert f"icnn-rl resume {run}" in " ".join(out.split())
    assert "Traceback" not in err

    assert main(["evaluate", str(run)]) == 2
    assert "holds no fitted networks" in capsys.readouterr().err
    epochs = len(rows(run)) + 2
    assert main(["resume", str(run), "--epochs", str(epochs)]) == 0
    assert [row["epoch"] for row in rows(run)] == [str(k + 1) for k in range(epochs)]
    assert not list(tmp_path.rglob(".partial-*"))


def test_the_default_folder_names_preset_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "digits", *TINY, "--training.epochs=1", "--seed=3"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-seed3-")


def test_a_folder_with_files_is_never_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert fit(tmp_path, 1) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("damage", [b"", b"hello" * 100, None])
def test_damaged_weights_are_refused(
    damage: bytes | None, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    if damage is not None:
        (tmp_path / "model.safetensors").write_bytes(damage)
    assert main(["evaluate", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "model.safetensors" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", presets("fit"))
def test_a_preset_is_the_configuration_of_a_known_experiment(name: str) -> None:
    config = parse_config(FitConfig, [f"--config={find_preset(name, 'fit')}"])
    assert config.experiment in EXPERIMENTS
    assert presets("fit")[name]


def test_every_experiment_has_a_preset_of_its_name() -> None:
    assert presets("fit").keys() >= EXPERIMENTS.keys()


def test_help_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for key in ("--run-dir", "--network.context", "--training.patience", "--convexity", "--data"):
        assert key in text

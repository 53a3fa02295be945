"""Weights & Biases gets what is logged, and whatever happens to it, training goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import wandb
from tiny_runs import differences, state, train

from icnn_rl.cli import main
from icnn_rl.runs.folder import RunFolder
from icnn_rl.runs.monitoring import Tracker

FAILED = "Weights & Biases failed"


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def offline_files(run: Path) -> list[Path]:
    return sorted(run.glob("wandb/offline-run-*/*.wandb"))


def test_a_run_without_login_is_tracked_offline_and_otherwise_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, plain = tmp_path / "run", tmp_path / "plain"
    for folder, options in ((run, ["--track"]), (plain, [])):
        assert train(folder, 100, *options, "--training.log_every=50") == 0
    assert differences(state(run), state(plain)) == []
    wandb.teardown()  # waits until all is on disk, as the end of a process does
    (file,) = offline_files(run)
    content = file.read_bytes()
    for name in ("eval/mean_reward", "solver/gap_max", "train/critic_loss", "learning_curve"):
        assert name.encode() in content
    assert list(file.parent.glob("files/media/images/*.png"))
    assert FAILED not in caplog.text

    # The same W&B run goes on when the run does.
    assert main(["resume", str(run), "--steps", "150"]) == 0
    first, second = offline_files(run)
    assert first.name == second.name
    assert RunFolder(run).run_id in first.name


def test_a_video_is_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    assert train(run, 60, "--track", "--training.video=true") == 0
    assert (run / "video.mp4").stat().st_size > 1000
    assert list(run.glob("wandb/offline-run-*/files/media/videos/*.mp4"))


def test_tracking_that_cannot_begin_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with caplog.at_level(logging.WARNING):
        assert train(tmp_path / "run", 100, "--track") == 0
    assert caplog.text.count(FAILED) == 1
    assert (tmp_path / "run" / "model.zip").exists()


def test_tracking_that_breaks_off_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path / "run")
    config = {"seed": 0}
    run.create(config, ["torch"])
    tracker = Tracker(run, config)
    wandb.finish()  # so that logging to it fails
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            tracker.log({"loss": 1.0}, step)
        tracker.upload({"curve": tmp_path / "curve.png"})
        tracker.close()
    assert caplog.text.count(FAILED) == 1

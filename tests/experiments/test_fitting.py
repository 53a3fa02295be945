"""Fits: bit for bit the same when interrupted, safe when training diverges, clear about damage."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from icnn_rl import data
from icnn_rl.experiments import classification, fitting
from icnn_rl.experiments.classification import Classification, Digits
from icnn_rl.experiments.config import FitConfig, FitNetworkConfig, FitTrainingConfig
from icnn_rl.experiments.exemplars import LEARNED, Exemplars
from icnn_rl.experiments.fitting import KIND, FitFolder, evaluate, fit, resume
from icnn_rl.runs.folder import RunFolder, new_folder
from icnn_rl.runs.process import Interrupted
from icnn_rl.runs.storage import read_tensors, read_tree, write_tensors, write_tree

TINY = FitConfig(
    experiment="digits",
    convexity=("partial", "none"),
    network=FitNetworkConfig(context=(8,), convex=(8,)),
    training=FitTrainingConfig(epochs=12, batch_size=200, learning_rate=1e-2),
)


def console() -> Console:
    return Console(quiet=True)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def stop_once(exists: Path) -> threading.Thread:
    """Ask this process to stop as soon as there is a file."""

    def wait() -> None:
        give_up = time.monotonic() + 60
        while not exists.exists() and time.monotonic() < give_up:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fits") / "whole"
    fit(TINY, path, console())
    return path


def test_an_interrupted_fit_ends_bit_for_bit_as_a_whole_one(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    thread = stop_once(exists=run / "history.csv")
    with pytest.raises(Interrupted):
        fit(TINY, run, console())
    thread.join()
    assert not (run / "model.safetensors").exists()
    assert len(rows(run / "history.csv")) < 24
    resume(run, console())
    assert rows(run / "history.csv") == rows(whole / "history.csv")
    assert rows(run / "metrics.csv") == rows(whole / "metrics.csv")
    ours, theirs = (load_file(path / "model.safetensors") for path in (run, whole))
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in ours)


def test_the_metrics_are_a_row_for_each_network(whole: Path) -> None:
    partial, none = rows(whole / "metrics.csv")
    assert (partial["part"], none["part"]) == ("partial", "none")
    assert 0 < float(partial["test error"]) < 0.5
    assert float(partial["largest gap"]) <= 1.01e-3
    assert none["largest gap"] == ""
    assert "none" in read_tensors(whole / "model.safetensors", ["none"], KIND)


def test_the_table_fits_eighty_columns(whole: Path) -> None:
    file = io.StringIO()
    evaluate(whole, Console(width=80, file=file))
    words = file.getvalue().split()
    assert {"parameters", "evaluations", "simplex", "partial", "none"} <= set(words)
    assert not any("…" in word for word in words)


def test_divergence_keeps_the_checkpoint_from_which_a_lower_rate_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    short = replace(TINY, convexity=("partial",), training=replace(TINY.training, epochs=2))
    fit(short, run, console())
    checkpoint = (run / "checkpoint.safetensors").read_bytes()
    config = (run / "config.yaml").read_text("utf-8")
    assert "learning_rate: 0.01" in config
    high = config.replace("learning_rate: 0.01", "learning_rate: 1.0e+30")
    (run / "config.yaml").write_text(high, "utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml was changed since"):
        resume(run, console(), epochs=4)
    (run / "config.yaml").write_text(high.partition("\n")[2], "utf-8")
    with pytest.raises(FloatingPointError, match=r"training diverged in epoch 3"):
        resume(run, console(), epochs=4)
    assert (run / "checkpoint.safetensors").read_bytes() == checkpoint
    (run / "config.yaml").write_text(config, "utf-8")
    resume(run, console(), epochs=4)
    assert [row["epoch"] for row in rows(run / "history.csv")] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("size", [0, 100, 10_000])
def test_a_damaged_checkpoint_is_refused(size: int, whole: Path, tmp_path: Path) -> None:
    run = copy(whole, tmp_path)
    data = (run / "checkpoint.safetensors").read_bytes()
    (run / "checkpoint.safetensors").write_bytes(data[:size])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged"):
        resume(run, console(), epochs=20)
    assert rows(run / "history.csv") == rows(whole / "history.csv")


def test_a_checkpoint_of_other_networks_is_refused(whole: Path, tmp_path: Path) -> None:
    run = copy(whole, tmp_path)
    saved = read_tree(run / "checkpoint.safetensors", KIND)
    state = saved["parts"]["none"]
    write_tree(saved | {"parts": {"whole": state}}, run / "checkpoint.safetensors", KIND)
    with pytest.raises(ValueError, match="its checkpoint has a part 'whole', the experiment none"):
        resume(run, console(), epochs=20)
    write_tree(saved | {"parts": {"partial": state}}, run / "checkpoint.safetensors", KIND)
    with pytest.raises(ValueError, match="the checkpoint does not fit the network"):
        resume(run, console(), epochs=20)
    (run / "checkpoint.safetensors").unlink()
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        resume(run, console(), epochs=20)


def test_weights_of_another_network_are_refused(whole: Path, tmp_path: Path) -> None:
    run = copy(whole, tmp_path)
    weights = read_tensors(run / "model.safetensors", ["none"], KIND)
    write_tensors(weights, run / "model.safetensors", KIND)
    with pytest.raises(ValueError, match="is of another network"):
        evaluate(run, console())


def test_folders_and_names_that_are_wrong_are_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not empty"):
        fit(TINY, whole, console())
    with pytest.raises(ValueError, match="is finished"):
        resume(whole, console())
    for use in (resume, evaluate):
        with pytest.raises(ValueError, match="is not the folder of a run"):
            use(tmp_path, console())
    with pytest.raises(ValueError, match=r"experiment: expected one of .*digits.*; got 'chess'"):
        fit(replace(TINY, experiment="chess"), tmp_path / "run", console())
    with pytest.raises(ValueError, match=r"loss: expected one of .*max_margin.*got 'hinge'"):
        fit(replace(TINY, loss="hinge"), tmp_path / "run", console())
    for kind in ("digits", "synthetic"):  # both have ReLU
        implicit = replace(TINY, experiment=kind, loss="implicit", convexity=("partial",))
        with pytest.raises(ValueError, match=rf"loss: .* 'implicit'.* network of {kind} .* 'relu'"):
            fit(implicit, tmp_path / "run", console())
    assert not (tmp_path / "run").exists()


def test_a_folder_is_of_the_run_that_came_first(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create({"seed": 1}, ())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="is not empty"):
        folder.create({"seed": 2}, ())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_runs_of_the_same_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        folders = {stack.enter_context(new_folder("digits", 0)) for _ in range(5)}
        assert set(Path("runs").iterdir()) == folders
        assert len(folders) == 5
        (min(folders) / "config.yaml").touch()
    assert list(Path("runs").iterdir()) == [min(folders)]  # the others were left empty


class DigitExemplars(Exemplars):
    """The experiment on a set at hand."""

    def __init__(self, config: FitConfig) -> None:
        images, digits = load_digits(return_X_y=True)
        data = images.reshape(-1, 8, 8) / 16, digits
        Classification.__init__(self, config, data, data)


def test_exemplars_that_diverge_in_the_first_epoch_say_so() -> None:
    rate = replace(TINY.training, learning_rate=1e30)
    experiment = DigitExemplars(
        replace(TINY, convexity=("full",), standardize=False, training=rate)
    )
    with pytest.raises(FloatingPointError, match="training diverged in epoch 1"):
        list(experiment.parts[LEARNED].run())


def test_exemplars_refuse_dropout() -> None:
    network = replace(TINY.network, dropout=0.1)
    with pytest.raises(ValueError, match=r"network\.dropout: exemplars are learned without"):
        Exemplars(replace(TINY, convexity=("full",), standardize=False, network=network))


@pytest.mark.parametrize("work", ["measure", "draw"])
def test_a_fit_interrupted_after_training_is_not_finished(
    work: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    run = copy(whole, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Digits, work, interrupted)
        with pytest.raises(KeyboardInterrupt):
            resume(run, console(), epochs=13)
    assert not (run / "metrics.csv").exists()
    resume(run, console())
    assert [row["part"] for row in rows(run / "metrics.csv")] == ["partial", "none"]
    with pytest.raises(ValueError, match="is finished; --epochs sets a number beyond that"):
        resume(run, console())


def test_fewer_epochs_than_there_are_are_refused(whole: Path, tmp_path: Path) -> None:
    run = copy(whole, tmp_path)
    with pytest.raises(ValueError, match=r"epochs: expected at least the 12 of .*, got 5"):
        resume(run, console(), epochs=5)
    assert rows(run / "history.csv") == rows(whole / "history.csv")
    assert rows(run / "metrics.csv") == rows(whole / "metrics.csv")


def test_a_fit_that_patience_ended_says_so(tmp_path: Path) -> None:
    still = replace(TINY.training, epochs=12, learning_rate=1e-30, patience=2)
    run = tmp_path / "run"
    fit(replace(TINY, training=still), run, console())
    history = rows(run / "history.csv")
    for part in TINY.convexity:
        scores = [float(row["score"]) for row in history if row["part"] == part]
        assert 3 <= len(scores) < 12  # the moments of batch normalisation settle first
        assert max(scores[-2:]) <= scores[-3] == max(scores)
    for epochs in (None, 20):
        with pytest.raises(ValueError, match=r"is finished: training\.patience = 2 ended partial"):
            resume(run, console(), epochs)
    with pytest.raises(ValueError, match=r"epochs: expected at least the 12 of .*, got 4"):
        resume(run, console(), epochs=4)
    assert rows(run / "history.csv") == history


@pytest.mark.parametrize(("seconds", "written"), [(0.0, True), (1e6, False)])
def test_checkpoints_are_written_by_the_clock_at_any_step(
    seconds: float, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", seconds)
    diverging = replace(TINY, training=replace(TINY.training, learning_rate=1e30))
    with pytest.raises(FloatingPointError, match="in epoch 1"):
        fit(diverging, tmp_path / "run", console())
    assert (tmp_path / "run" / "checkpoint.safetensors").exists() == written


def test_data_and_devices_are_where_they_are_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = replace(
        TINY, experiment="mnist", data="data", training=replace(TINY.training, epochs=1)
    )
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "data")) as missing:
        fit(short, tmp_path / "other", console())
    assert "ICNN_RL_DATA" not in str(missing.value)
    with pytest.raises(ValueError, match=r"device: expected one .*, got 'meta'"):
        fit(replace(TINY, device="meta"), tmp_path / "other", console())
    assert not (tmp_path / "other").exists()

    def stand_in(path: str | None) -> data.Digits:
        assert path == str(tmp_path / "data")
        images, digits = load_digits(return_X_y=True)
        x, y = images.reshape(-1, 8, 8).astype(np.uint8), digits.astype(np.uint8)
        return data.Digits(x[:300], y[:300], x[300:400], y[300:400])

    monkeypatch.setattr(classification, "load_mnist", stand_in)
    fit(short, tmp_path / "run", console())
    assert FitFolder(tmp_path / "run").load_config(FitConfig).data == str(tmp_path / "data")


def copy(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to / "copy"))

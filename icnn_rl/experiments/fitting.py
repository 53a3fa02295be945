"""A fit from its configuration to its last file."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Lines

from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import Experiment, build
from icnn_rl.runs.configuration import to_plain
from icnn_rl.runs.folder import RunFolder
from icnn_rl.runs.monitoring import ProgressDisplay, Tracker
from icnn_rl.runs.pictures import finish, line_styles, save
from icnn_rl.runs.process import Interrupted, require_device, stop_requests
from icnn_rl.runs.storage import (
    Table,
    brief,
    read_tensors,
    read_tree,
    replacing,
    write_tensors,
    write_tree,
)
from icnn_rl.structured.training import Row

PACKAGES = ("icnn-rl", "torch", "numpy", "scikit-learn")
KIND = "icnn-rl fit"
CHECKPOINT_SECONDS = 10.0  # of training at least between two checkpoints; writing them takes time

State = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitFolder(RunFolder):
    """The files of a fit.

    Args:
        path: the folder.
    """

    @property
    def checkpoint(self) -> Path:
        """Everything needed to resume."""
        return self.path / "checkpoint.safetensors"

    @property
    def weights(self) -> Path:
        """The weights of the networks, by part."""
        return self.path / "model.safetensors"

    @property
    def metrics(self) -> Path:
        """The numbers measured at the end."""
        return self.path / "metrics.csv"

    def history(self) -> Table:
        """A row an epoch, as it is now."""
        return Table(self.path / "history.csv", "step")


def fit(config: FitConfig, run: Path, console: Console) -> None:
    """Train the networks of an experiment, and write everything into a new folder.

    Args:
        config: what to learn from what, and how.
        run: the folder, empty or not there yet.
        console: where progress is shown.

    Raises:
        ValueError: the folder is not empty, or an argument is wrong.
        OSError: the data cannot be found.
        FloatingPointError: training diverged; the last good checkpoint is kept.
        Interrupted: the process was asked to stop; its checkpoint is written.
    """
    folder = FitFolder(run)
    folder.require_empty()
    if config.data is not None:  # a later resume may have another working directory
        config = replace(config, data=str(Path(config.data).expanduser().resolve()))
    experiment = _build(config)
    folder.create(to_plain(config), PACKAGES)
    with folder.locked():
        _train(experiment, folder, console)


def resume(
    run: Path,
    console: Console,
    epochs: int | None = None,
    track: bool = False,
    device: str | None = None,
) -> None:
    """Continue from the checkpoint of a fit, as if it had not stopped.

    A fit that has no checkpoint yet begins again.

    Args:
        run: its folder.
        console: where progress is shown.
        epochs: new number of epochs; by default that of the configuration.
        track: whether to track from here on, even if the fit was not tracked before.
        device: where the networks live from here on; by default as before.

    Raises: as ``fit``; and ValueError: the folder is no fit, it is finished, it is damaged, or it
        has more epochs than are asked for.
    """
    folder = FitFolder(run)
    config = folder.load_config(FitConfig)
    before = training = config.training
    if epochs is not None:
        training = replace(training, epochs=epochs)
    config = replace(
        config, training=training, track=config.track or track, device=device or config.device
    )
    with folder.locked():
        checkpoint: State = {"parts": {}, "history": []}
        if folder.checkpoint.is_file():
            checkpoint = read_tree(folder.checkpoint, KIND)
        elif folder.weights.exists():
            raise ValueError(f"there is no checkpoint in {run} to go on from")
        else:
            logger.warning("the fit was stopped before its first checkpoint, and begins again")
        folder.warn_of_other_versions()
        experiment = _build(config)
        for name, state in checkpoint["parts"].items():  # the last one set the random numbers
            if name not in experiment.parts:
                raise ValueError(f"{run}: its checkpoint has a part {name!r}, the experiment none")
            experiment.parts[name].restore(state)
        parts = experiment.parts
        stopped = [name for name, part in parts.items() if part.stopped]
        # A part that ended early counts with all epochs of the old configuration.
        made = [before.epochs if part.stopped else part.epoch for part in parts.values()]
        if training.epochs < max(made, default=0):
            raise ValueError(
                f"epochs: expected at least the {max(made)} of {run}, got {training.epochs}"
            )
        if all(part.done for part in parts.values()) and folder.metrics.exists():
            if stopped:
                raise ValueError(
                    f"{run} is finished: training.patience = {training.patience} ended "
                    f"{', '.join(stopped)}"
                )
            raise ValueError(f"{run} is finished; --epochs sets a number beyond that")
        folder.metrics.unlink(missing_ok=True)  # this file marks a finished fit
        folder.history().restore(checkpoint["history"])
        folder.write_config(to_plain(config))
        _train(experiment, folder, console)


def evaluate(run: Path, console: Console) -> None:
    """Measure the networks in a folder on the test data again, and show the table.

    Raises:
        ValueError: the folder holds no fit, or its files are damaged.
        OSError: the data cannot be found.
    """
    folder = FitFolder(run)
    experiment = _build(folder.load_config(FitConfig))
    if not folder.weights.is_file():
        raise ValueError(f"{run} holds no fitted networks: there is no {folder.weights.name} in it")
    weights = read_tensors(folder.weights, experiment.parts, KIND)
    try:
        for name, part in experiment.parts.items():
            part.net.load_state_dict(weights[name])
            part.net.eval()
    except RuntimeError as error:
        raise ValueError(f"{folder.weights} is of another network: {brief(error)}") from None
    _show(experiment.measure(), experiment, console)


def _build(config: FitConfig) -> Experiment:
    require_device(config.device)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    return build(config)


def _train(experiment: Experiment, folder: FitFolder, console: Console) -> None:
    config, history = experiment.config, folder.history()
    total, done = sum(part.steps for part in experiment.parts.values()), _steps(experiment)
    saved = time.monotonic()
    with closing(Tracker(folder, to_plain(config), config.track)) as tracker:
        with ProgressDisplay(console, total, done) as display, stop_requests() as stop:
            for name, part in experiment.parts.items():
                for row in part.run():
                    step = _steps(experiment)
                    display.update(step, name)
                    if row is not None:
                        history.append({"step": step, "part": name} | row)
                        display.say(f"{name}: {_summary(row)}")
                        tracker.log({f"{name}/{k}": v for k, v in row.items()}, step)
                    if stop.made or time.monotonic() - saved > CHECKPOINT_SECONDS:
                        _checkpoint(experiment, folder, history)
                        saved = time.monotonic()
                    if stop.made:
                        raise Interrupted
        _checkpoint(experiment, folder, history)
        weights = {name: part.net.state_dict() for name, part in experiment.parts.items()}
        write_tensors(weights, folder.weights, KIND)
        metrics = experiment.measure()
        _show(metrics, experiment, console)
        curves = _draw_curves(history.rows, folder.path / "training.png")
        pictures = {**experiment.draw(folder.path), "training": curves}
        last = {f"test/{part}/{k}": v for part, row in metrics.items() for k, v in row.items()}
        tracker.log(last, _steps(experiment))
        tracker.upload(pictures)
        _write(metrics, folder.metrics)


def _steps(experiment: Experiment) -> int:
    """Steps so far; a part that ended early counts in full."""
    parts = experiment.parts.values()
    return sum(part.steps if part.done else part.step for part in parts)


def _checkpoint(experiment: Experiment, folder: FitFolder, history: Table) -> None:
    states = {name: part.state() for name, part in experiment.parts.items() if part.step}
    write_tree({"parts": states, "history": history.rows}, folder.checkpoint, KIND)


def _write(metrics: Mapping[str, Row], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["part", *_columns(metrics.values())])
        writer.writeheader()
        writer.writerows({"part": name} | row for name, row in metrics.items())


def _show(metrics: Mapping[str, Row], experiment: Experiment, console: Console) -> None:
    title = f"{experiment.config.experiment}, seed {experiment.config.seed}"
    lines = Lines(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = _columns(metrics.values())
    lines.add_column()
    for column in columns:  # a word a line, so that many fit beside each other
        lines.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True, overflow="fold")
    for name, row in metrics.items():
        lines.add_row(name, *(_number(row.get(column)) for column in columns))
    console.print(lines)


def _draw_curves(history: Sequence[Mapping[str, str]], path: Path) -> Path:
    """Loss and validation score against epochs, a line for each part."""
    columns = [c for c in ("loss", "score") if any(row.get(c) for row in history)]
    figure = Figure(figsize=(4.8 * len(columns), 3.6), layout="constrained", dpi=150)
    titles = {"loss": "training loss", "score": "validation score"}
    styles = line_styles(row["part"] for row in history)
    for axes, column in zip(np.ravel(figure.subplots(1, len(columns))), columns, strict=True):
        for part, style in styles.items():
            rows = [row for row in history if row["part"] == part and row.get(column)]
            epochs, values = ([float(row[key]) for row in rows] for key in ("epoch", column))
            axes.plot(epochs, values, label=part, **style)
        if column == "loss":
            axes.set_yscale("log")
        finish(axes, title=titles[column], xlabel="epoch")
    if len(styles) > 1:
        lines = axes.get_legend_handles_labels()
        figure.legend(*lines, frameon=False, fontsize="small", loc="outside right center")
    return save(figure, path)


def _columns(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _summary(row: Row) -> str:
    shown = [f"epoch {row['epoch']:.0f}", f"loss {_number(row['loss'])}"]
    if "score" in row:
        shown.append(f"validation {_number(row['score'])}")
    return ", ".join([*shown, f"{row['seconds']:.1f} s"])


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.4g}"

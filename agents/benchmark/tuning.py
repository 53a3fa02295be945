"""Tuning: a study of Optuna whose trials are runs of several seeds, stopped early if they lag."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from optuna import Study, Trial, create_study, logging
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.distributions import CategoricalDistribution as Choice
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from rich.console import Console

from icnn_rl.agents.benchmark.grid import LocalBackend, cell_folder
from icnn_rl.agents.benchmark.suite import Cell
from icnn_rl.agents.runs.config import Config
from icnn_rl.runs.configuration import from_plain, merge, nested, to_plain
from icnn_rl.runs.monitoring import ProgressDisplay
from icnn_rl.runs.process import Interrupted, StopRequest, stop_requests
from icnn_rl.runs.storage import write_text

WARM_UP = 5  # trials before any is stopped early
_RANGE = {"low", "high", "log", "step"}


def tune(
    config: Config,
    search: Mapping[str, Any],
    folder: Path,
    trials: int,
    seeds: Sequence[int],
    jobs: int,
    storage: str | None,
    console: Console,
) -> None:
    """Search for the keys with the largest final return, the mean over all seeds.

    A trial trains one agent a seed. It ends early where the mean of an evaluation is below the
    median of earlier trials. A study that is there already goes on, with the runs that were
    stopped; it holds ``trials`` in total. The best configuration is in ``best.yaml``.

    Args:
        config: of all runs; its seed is that of the search.
        search: for each dotted key, a list of choices, or a mapping of ``low``, ``high`` and
            optionally ``log`` and ``step``.
        folder: of the study, its runs and its result.
        trials: how many.
        seeds: of the runs of a trial.
        jobs: runs at a time.
        storage: of the study, as Optuna names it; by default a file in the folder.
        console: where progress is shown.

    Raises:
        ValueError: the search names an unknown key or a wrong value, or the study is of another
            configuration.
        Interrupted: the process was asked to stop; every run has a checkpoint.
    """
    space = {key: _distribution(key, values) for key, values in search.items()}
    for key, values in search.items():
        _with(config, {key: values[0] if isinstance(values, list) else values["low"]})
    folder.mkdir(parents=True, exist_ok=True)
    logging.set_verbosity(logging.WARNING)
    study = create_study(
        study_name=folder.name,
        storage=storage or f"sqlite:///{folder / 'study.db'}",
        pruner=MedianPruner(WARM_UP, n_min_trials=WARM_UP),
        direction="maximize",
        load_if_exists=True,
    )
    given = {"config": to_plain(config), "seeds": list(seeds)}
    if study.user_attrs.get("given", given) != given:
        raise ValueError(f"{folder} has a study of another configuration; choose another folder")
    study.set_user_attr("given", given)
    # Another seed for each start, as a search that goes on must not repeat its first draws.
    study.sampler = TPESampler(seed=config.seed + len(study.trials))
    _enqueue_stopped(study)
    with ProgressDisplay(console, trials) as display, stop_requests() as stop:
        while (done := _finished(study)) < trials:
            display.update(done, f"trial {done + 1} of {trials}")
            trial = study.ask(space)
            _make_trial(study, trial, config, folder, seeds, jobs, stop, display)
            _write_best(study, config, folder)


def _make_trial(
    study: Study,
    trial: Trial,
    config: Config,
    folder: Path,
    seeds: Sequence[int],
    jobs: int,
    stop: StopRequest,
    display: ProgressDisplay,
) -> None:
    number = trial.user_attrs.get("runs", trial.number)  # of a trial that was stopped
    work = folder / "trials" / f"{number:04d}"
    try:
        of = _with(config, trial.params)
        cells = [Cell(folder.name, of.env.id, of.algorithm, replace(of, seed=s)) for s in seeds]
        value = _run(trial, cells, work, jobs, stop)
    except (ValueError, RuntimeError) as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.FAIL)
        display.say(f"trial {number} failed: {error}")
        return
    if value is None:
        for cell in cells:  # each checkpoint is as large as a replay buffer
            shutil.rmtree(cell_folder(cell, work).checkpoints, ignore_errors=True)
    state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    study.tell(trial, value, state)
    said = "stopped early" if value is None else f"return {value:.2f}"
    chosen = ", ".join(f"{key} {_short(value)}" for key, value in trial.params.items())
    display.say(f"trial {number}: {said} with {chosen}")


def _run(trial: Trial, cells: list[Cell], work: Path, jobs: int, stop: StopRequest) -> float | None:
    """The mean final return of a trial's runs; None if they were stopped early."""
    backend = LocalBackend(jobs)
    futures = [backend.submit(cell, work) for cell in cells]
    try:
        reported = 0
        while True:
            pending = wait(futures, 0.5).not_done
            _raise_error(futures)
            if stop.made:
                raise Interrupted
            columns = [cell_folder(cell, work).evaluations().rows for cell in cells]
            rows = list(zip(*columns, strict=False))  # the evaluations that all runs have made
            for row in rows[reported:]:
                trial.report(_mean_return(row), int(row[0]["steps"]))
            reported = len(rows)
            if not pending:
                return _mean_return(rows[-1])
            if trial.should_prune():
                return None
    finally:
        backend.stop()
        wait([future for future in futures if not future.cancelled()])
        backend.close()


def _mean_return(row: Sequence[Mapping[str, str]]) -> float:
    """The mean return of the evaluations that several runs made at one time."""
    return float(np.mean([float(evaluation["return_mean"]) for evaluation in row]))


def _raise_error(futures: list[Future[str]]) -> None:
    for future in futures:
        if future.done() and not isinstance(error := future.exception(), CancelledError | None):
            raise error


def _enqueue_stopped(study: Study) -> None:
    """Put the trials that a stop left unfinished into the queue, to go on with their runs."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        number = trial.user_attrs.get("runs", trial.number)
        study.enqueue_trial(trial.params, {"runs": number})


def _finished(study: Study) -> int:
    ends = (TrialState.COMPLETE, TrialState.PRUNED)
    return sum(t.state in ends or "error" in t.user_attrs for t in study.trials)


def _write_best(study: Study, config: Config, folder: Path) -> None:
    """Write the configuration of the best trial so far, ready to be trained."""
    if study.get_trials(states=(TrialState.COMPLETE,)):
        best = study.best_trial
        number = best.user_attrs.get("runs", best.number)
        head = f"# trial {number} of {folder.name}: return {study.best_value:.2f}\n"
        plain = to_plain(_with(config, best.params))
        write_text(head + yaml.safe_dump(plain, sort_keys=False), folder / "best.yaml")


def _with(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values for some dotted keys."""
    plain = to_plain(config)
    for key, value in values.items():
        is_text = isinstance(value, str) and value[:1] in ("[", "{")  # of a list or mapping
        merge(plain, nested(key, json.loads(value) if is_text else value))
    return from_plain(Config, plain, "the search")


def _distribution(key: str, values: Any) -> BaseDistribution:
    if isinstance(values, list) and values:
        # Optuna stores plain values alone; a list travels as text.
        return Choice([json.dumps(v) if isinstance(v, list | dict) else v for v in values])
    if not isinstance(values, dict) or not {"low", "high"} <= values.keys() <= _RANGE:
        raise ValueError(
            f"{key}: expected a list of choices, or a mapping of low, high, log, step; got {values}"
        )
    whole = isinstance(values["low"], int) and isinstance(values["high"], int)
    return IntDistribution(**values) if whole else FloatDistribution(**values)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

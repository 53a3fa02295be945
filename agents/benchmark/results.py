"""Results of a benchmark: a small CSV file for each cell, and tables of them."""

from __future__ import annotations

import csv
import io
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from icnn_rl.agents.benchmark.suite import Cell, SuiteConfig, TaskConfig, suite_cell
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.outputs import STEPS_COLUMN, AgentFolder
from icnn_rl.runs.configuration import CONFIGS, from_plain, mapping_in, to_plain
from icnn_rl.runs.storage import brief, read_text

_EVALUATION_COLUMNS = (
    *("steps", "return_mean", "return_std", "return_min", "return_max", "length_mean"),
    "training_seconds",
)
_SOLVER_COLUMNS = ("evaluations", "gap_mean", "gap_max", "not_converged")
_COLUMNS = _EVALUATION_COLUMNS + _SOLVER_COLUMNS


@dataclass(frozen=True)
class Result:
    """The content of a cell's file.

    Attributes:
        path: of the file.
        metadata: which run it is of, with the run's ``config``.
        columns: one number an evaluation, by name; NaN where an algorithm has no solver.
    """

    path: Path
    metadata: dict[str, Any]
    columns: dict[str, np.ndarray]

    def config(self) -> Config:
        """The configuration of the run.

        Raises:
            ValueError: this version cannot read it.
        """
        plain = dict(self.metadata["config"])
        if plain.get("algorithm", "concave_q") != "concave_q":
            plain.pop("agent", None)  # unused, but it may have keys of an older version
        return from_plain(Config, plain, str(self.path))

    def is_of(self, cell: Cell) -> bool:
        """Whether the run has the configuration of a cell."""
        try:
            return cell.is_of(self.config())
        except ValueError:  # keys of an older version
            return False


def collect_result(cell: Cell, run: AgentFolder) -> str:
    """The result of a finished run, as text."""
    rows = run.evaluations().rows
    versions = run.read_versions()
    steps, seconds = int(rows[-1]["steps"]), float(rows[-1]["training_seconds"])
    metadata = {
        "suite": cell.suite,
        "task": cell.task,
        "algorithm": cell.algorithm,
        "seed": cell.config.seed,
        "steps": steps,
        "training_seconds": seconds,
        "steps_per_second": round(steps / seconds, 1),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        **{key: versions[key] for key in ("started", "commit", "python", "platform", "packages")},
        "config": to_plain(cell.config),
    }
    text = io.StringIO()
    for line in yaml.safe_dump(metadata, sort_keys=False, width=1000).splitlines():
        text.write(f"# {line}\n")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row, solver in zip(rows, _solver_statistics(run, rows), strict=True):
        writer.writerow({name: row[name] for name in _EVALUATION_COLUMNS} | solver)
    return text.getvalue()


def _solver_statistics(run: AgentFolder, rows: list[dict[str, str]]) -> list[dict[str, float]]:
    """For each evaluation, the solver's statistics over the updates logged since the last one."""
    logged = [row for row in run.progress().rows if row.get("solver/gap_mean")]
    statistics = []
    previous = 0
    for row in rows:
        steps = int(row["steps"])
        part = [line for line in logged if previous < int(line[STEPS_COLUMN]) <= steps]
        summary = {}
        for name in _SOLVER_COLUMNS if part else ():
            values = [float(line[f"solver/{name}"]) for line in part]
            value = max(values) if name == "gap_max" else np.mean(values)
            summary[name] = float(f"{value:.4g}")
        statistics.append(summary)
        previous = steps
    return statistics


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def result_path(cell: Cell, results: Path) -> Path:
    """The file of a cell's result."""
    return results / cell.suite / cell.path.with_suffix(".csv")


def read_result(path: Path) -> Result:
    """The result in a file.

    Raises:
        ValueError: the file is damaged.
    """
    lines = read_text(path).splitlines()
    head = [line for line in lines if line.startswith("#")]
    try:
        metadata = mapping_in("\n".join(line.removeprefix("# ") for line in head), "its head")
        missing = {"task", "algorithm", "seed", "steps", "config"} - set(metadata)
        if missing or not isinstance(metadata["config"], dict):
            said = ", ".join(sorted(missing)) or "the keys of its config"
            raise ValueError(f"its head does not say {said}")
        rows = list(csv.DictReader(lines[len(head) :]))
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in _COLUMNS}
        if not rows or columns["steps"][-1] != metadata["steps"]:
            raise ValueError(f"its rows do not end at {metadata['steps']} steps")
        if not all(np.isfinite(columns[name]).all() for name in _EVALUATION_COLUMNS):
            raise ValueError("a number is missing")
    except (csv.Error, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {brief(error)}") from None
    return Result(path, metadata, columns)


class Runs:
    """The runs of an algorithm on a task.

    Args:
        task: the task.
        results: of the runs, one a seed.
        every: steps between evaluations.

    Attributes:
        steps: of the evaluations, of shape (evaluations,).
        returns: interpolated at ``steps``, of shape (runs, evaluations).
        final: return of each run at the last evaluation.
        best: best evaluation of each run.
        steps_per_second: of training, of each run.
    """

    def __init__(self, task: TaskConfig, results: list[Result], every: int) -> None:
        self.task = task
        self.results = results
        self.steps = np.append(np.arange(every, task.steps, every), task.steps)
        columns = [result.columns for result in results]
        self.returns = np.stack(
            [np.interp(self.steps, c["steps"], c["return_mean"]) for c in columns]
        )
        self.final = self.returns[:, -1]
        self.best = self.returns.max(1)
        self.steps_per_second = np.array(
            [c["steps"][-1] / c["training_seconds"][-1] for c in columns]
        )

    def score(self, returns: np.ndarray) -> np.ndarray:
        """Scale returns so that random actions score 0 and the task's reference 1."""
        return (returns - self.task.random) / (self.task.reference - self.task.random)

    def reached(self) -> np.ndarray:
        """Steps and seconds of training at the first evaluation that reaches the reference.

        Returns:
            Of shape (n, 2), for the n runs that reach it.
        """
        reached = []
        for columns in (result.columns for result in self.results):
            for k in np.flatnonzero(columns["return_mean"] >= self.task.reference)[:1]:
                reached.append((columns["steps"][k], columns["training_seconds"][k]))
        return np.array(reached).reshape(-1, 2)

    def mean(self, column: str) -> float:
        """Mean of a column over evaluations and runs; NaN where no run has it."""
        values = np.concatenate([result.columns[column] for result in self.results])
        return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


ResultTable = dict[str, dict[str, Runs]]  # by task, then by algorithm


def read_results(name: str, suite: SuiteConfig, folder: Path) -> tuple[ResultTable, list[Path]]:
    """The results of a suite, in its order of tasks and algorithms.

    Args:
        name: of the suite.
        suite: its configuration.
        folder: of all results.

    Returns:
        The results of the suite's present configuration, and the files of other configurations,
        which cannot be compared with them.

    Raises:
        ValueError: there are none, or one is damaged or not of this suite.
    """
    found: dict[tuple[str, str], list[Result]] = {}
    outdated = []
    for path in sorted((folder / name).glob("*/*/[!.]*.csv")):
        result = read_result(path)
        task, algorithm, seed = (result.metadata[key] for key in ("task", "algorithm", "seed"))
        if task not in suite.tasks or algorithm not in suite.algorithms:
            raise ValueError(f"{path} is of {algorithm} on {task}, which {name} does not have")
        cell = suite_cell(name, suite, task, algorithm, seed)
        if not result.is_of(cell) or path != result_path(cell, folder):
            outdated.append(path)
            continue
        if result.metadata["steps"] < suite.tasks[task].steps:
            raise ValueError(f"{path} ends before the {suite.tasks[task].steps} steps of {name}")
        found.setdefault((task, algorithm), []).append(result)
    if not found:
        raise ValueError(
            f"there are no results of {name} in {folder / name}, by its present configuration"
        )
    table: ResultTable = {}
    for task, config in suite.tasks.items():
        for algorithm in suite.algorithms:
            if results := found.get((task, algorithm)):
                runs = Runs(config, results, suite.evaluate_every)
                table.setdefault(task, {})[algorithm] = runs
    return table, outdated


def published(task: str) -> list[dict[str, str]]:
    """The rows of ``published.csv``, returns from the literature, for any version of a task."""
    path = CONFIGS / "benchmark" / "published.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    name = task.rpartition("-v")[0]
    return [row for row in rows if row["task"].rpartition("-v")[0] == name]

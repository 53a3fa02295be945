"""All results of a suite, by task and algorithm."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icnn_rl.agents.benchmark.cell import Cell
from icnn_rl.agents.benchmark.result import Result, read_result, result_path
from icnn_rl.agents.benchmark.suite import SuiteConfig, TaskConfig, cell_config
from icnn_rl.runs.configuration import CONFIGS

PUBLISHED = CONFIGS / "benchmark" / "published.csv"


@dataclass(frozen=True)
class Published:
    """A return from the literature.

    Attributes:
        task: id of the environment, whose version may be another than ours.
        steps: of training.
        algorithm: its name.
        value: the return.
        seeds: of how many runs.
        source: where it stands.
    """

    task: str
    steps: int
    algorithm: str
    value: float
    seeds: int
    source: str


class Runs:
    """The runs of an algorithm on a task.

    Args:
        task: the task.
        results: of the runs, one a seed.
        every: steps between evaluations.
    """

    def __init__(self, task: TaskConfig, results: list[Result], every: int) -> None:
        self.task = task
        self.results = results
        self.steps = np.append(np.arange(every, task.steps, every), task.steps)
        self.returns = np.stack([self._curve(r.columns) for r in results])
        """Of shape (runs, evaluations), at ``steps``."""

    @property
    def final(self) -> np.ndarray:
        """Return of each run at the last evaluation."""
        final: np.ndarray = self.returns[:, -1]
        return final

    @property
    def best(self) -> np.ndarray:
        """Best evaluation of each run."""
        best: np.ndarray = self.returns.max(1)
        return best

    def score(self, returns: np.ndarray) -> np.ndarray:
        """Returns such that random actions score 0 and the task's reference 1."""
        return (returns - self.task.random) / (self.task.reference - self.task.random)

    def reached(self) -> list[tuple[float, float]]:
        """Steps and seconds of training at the first evaluation that reaches the reference.

        Of the runs that reach it.
        """
        reached = []
        for result in self.results:
            hits = np.flatnonzero(result.columns["return_mean"] >= self.task.reference)
            if hits.size:
                columns = result.columns
                reached.append((columns["steps"][hits[0]], columns["training_seconds"][hits[0]]))
        return reached

    def steps_per_second(self) -> np.ndarray:
        """Steps a second of training of each run."""
        return np.array(
            [r.columns["steps"][-1] / r.columns["training_seconds"][-1] for r in self.results]
        )

    def mean(self, column: str) -> float:
        """Mean of a column over evaluations and runs; NaN where no run has it."""
        values = np.concatenate([r.columns[column] for r in self.results])
        return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan

    def _curve(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        return np.array(np.interp(self.steps, columns["steps"], columns["return_mean"]))


Table = dict[str, dict[str, Runs]]  # by task, then by algorithm


def read_results(name: str, suite: SuiteConfig, folder: Path) -> tuple[Table, list[Path]]:
    """The results of a suite, in its order of tasks and algorithms.

    Args:
        name: of the suite.
        suite: its configuration.
        folder: of all results.

    Returns:
        The results by the suite's present configuration, and the files of others, which are not to
        be mixed with them.

    Raises:
        ValueError: there are none, or one is damaged or not of this suite.
    """
    found: dict[str, dict[str, list[Result]]] = {}
    outdated = []
    for path in sorted((folder / name).glob("*/*/[!.]*.csv")):
        result = read_result(path)
        task, algorithm = result.metadata["task"], result.metadata["algorithm"]
        if task not in suite.tasks or algorithm not in suite.algorithms:
            raise ValueError(f"{path} is of {algorithm} on {task}, which {name} does not have")
        config = cell_config(suite, algorithm, task, result.metadata["seed"])
        cell = Cell(name, task, algorithm, config)
        if not result.is_of(cell) or path != result_path(cell, folder):
            outdated.append(path)
            continue
        if result.metadata["steps"] < suite.tasks[task].steps:
            raise ValueError(f"{path} ends before the {suite.tasks[task].steps} steps of {name}")
        found.setdefault(task, {}).setdefault(algorithm, []).append(result)
    if not found:
        raise ValueError(
            f"there are no results of {name} in {folder / name}, by its present configuration"
        )
    table = {
        task: {
            algorithm: Runs(suite.tasks[task], found[task][algorithm], suite.evaluate_every)
            for algorithm in suite.algorithms
            if algorithm in found[task]
        }
        for task in suite.tasks
        if task in found
    }
    return table, outdated


def published(task: str) -> list[Published]:
    """What the literature says of a task, of whatever version."""
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        return [
            Published(
                row["task"],
                int(row["steps"]),
                row["algorithm"],
                float(row["return"]),
                int(row["seeds"]),
                row["source"],
            )
            for row in csv.DictReader(file)
            if row["task"].rpartition("-v")[0] == task.rpartition("-v")[0]
        ]

"""A cell of a benchmark: one algorithm on one task with one seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icnn_rl.agents.benchmark.suite import SuiteConfig, cell_config
from icnn_rl.agents.runs.config import Config
from icnn_rl.runs.configuration import to_plain


@dataclass(frozen=True)
class Cell:
    """A cell.

    Args:
        suite: name of the benchmark.
        task: id of the environment.
        algorithm: name in the suite.
        config: of the run, its seed in it.
    """

    suite: str
    task: str
    algorithm: str
    config: Config

    @property
    def path(self) -> Path:
        """TASK/ALGORITHM/SEED, in the folder of runs and in that of results."""
        task = self.task.replace(":", "-").replace("/", "-")
        return Path(task) / self.algorithm / str(self.config.seed)

    def is_of(self, config: Config) -> bool:
        """Whether a run of this configuration is one of this cell, up to what changes nothing."""
        return _what_matters(config) == _what_matters(self.config)

    def __str__(self) -> str:
        return f"{self.task}, {self.algorithm}, seed {self.config.seed}"


def suite_cells(
    name: str,
    suite: SuiteConfig,
    tasks: list[str] | None = None,
    algorithms: list[str] | None = None,
    seeds: list[int] | None = None,
) -> list[Cell]:
    """The cells of a suite, seed by seed, so that each stage is a comparison.

    Args:
        name: of the suite.
        suite: its configuration.
        tasks: those to run; by default all.
        algorithms: those to run; by default all that are not optional.
        seeds: those to run; by default each algorithm's own.

    Raises:
        ValueError: the suite has no such task or algorithm.
    """
    _require_known("tasks", tasks, name, list(suite.tasks))
    _require_known("algorithms", algorithms, name, list(suite.algorithms))
    chosen = algorithms or [key for key, a in suite.algorithms.items() if not a.optional]
    cells = [
        Cell(name, task, algorithm, cell_config(suite, algorithm, task, seed))
        for task in dict.fromkeys(tasks or suite.tasks)
        for algorithm in dict.fromkeys(chosen)
        for seed in dict.fromkeys(seeds or suite.algorithms[algorithm].seeds)
    ]
    return sorted(cells, key=lambda cell: cell.config.seed)


def _what_matters(config: Config) -> dict[str, Any]:
    plain = to_plain(config)
    del plain["training"]["checkpoint_every"], plain["agent"]["compile"]
    if config.algorithm != "concave_q":
        del plain["agent"]
    return plain


def _require_known(option: str, names: list[str] | None, suite: str, known: list[str]) -> None:
    for name in names or []:
        if name not in known:
            raise ValueError(f"--{option}: {suite} has no {name!r}; it has {', '.join(known)}")

"""The configuration of a benchmark: a suite of tasks and algorithms, and its cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icnn_rl.agents.runs.config import Config
from icnn_rl.runs.configuration import (
    CONFIGS,
    find_preset,
    from_plain,
    merge,
    read_mapping,
    require_at_least,
    to_plain,
)


@dataclass(frozen=True)
class TaskConfig:
    """A task of a benchmark, whose name is the id of its Gymnasium environment.

    Args:
        steps: of a run.
        random: return of uniformly random actions, which scores 0.
        reference: return that scores 1, and whose first reaching is timed.
    """

    steps: int
    random: float
    reference: float

    def __post_init__(self) -> None:
        require_at_least(1, "tasks.", self, "steps")
        if self.reference <= self.random:
            raise ValueError(f"reference has to be above random, not {self.reference}")


@dataclass(frozen=True)
class AlgorithmConfig:
    """An algorithm of a benchmark. Each of these keys overrides those above it.

    Args:
        base: file with an algorithm to start from, in the folder ``algorithms``; by default the
            one of the same name.
        presets: of ``icnn-rl train``, by task.
        settings: keys of a training run's configuration.
        tasks: further such keys, by task.
        seeds: of the runs.
        optional: whether it runs only if it is asked for by name.
    """

    base: str | None = None
    presets: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    optional: bool = False


@dataclass(frozen=True)
class SuiteConfig:
    """A benchmark.

    Args:
        tasks: by the ids of their environments.
        algorithms: by name.
        evaluate_every: steps between evaluations.
        evaluation_episodes: episodes per evaluation.
        checkpoint_every: steps between checkpoints, from which a broken run continues.
    """

    tasks: dict[str, TaskConfig]
    algorithms: dict[str, AlgorithmConfig]
    evaluate_every: int = 5000
    evaluation_episodes: int = 10
    checkpoint_every: int = 20_000


@dataclass(frozen=True)
class Cell:
    """A cell of a benchmark: a run of one algorithm on one task with one seed.

    Args:
        suite: name of the benchmark.
        task: id of the environment.
        algorithm: name in the suite.
        config: of the run, with its seed.
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
        """Whether a run of this configuration is a run of the cell."""
        return _effective_keys(config) == _effective_keys(self.config)

    def __str__(self) -> str:
        return f"{self.task}, {self.algorithm}, seed {self.config.seed}"


def read_suite(name: str) -> tuple[str, SuiteConfig]:
    """The name of a suite and its configuration.

    Args:
        name: one of this package's suites, or a YAML file.

    Raises:
        ValueError: there is no such suite, or something in it is wrong.
    """
    path = find_preset(name, "benchmark")
    return path.stem, from_plain(SuiteConfig, read_mapping(path), str(path))


def suite_cells(
    name: str,
    suite: SuiteConfig,
    tasks: list[str] | None = None,
    algorithms: list[str] | None = None,
    seeds: list[int] | None = None,
) -> list[Cell]:
    """The cells of a suite, ordered by seed, so that each seed completes a comparison.

    Args:
        name: of the suite.
        suite: its configuration.
        tasks: those to run; by default all.
        algorithms: those to run; by default all that are not optional.
        seeds: those to run; by default each algorithm's own.

    Raises:
        ValueError: the suite has no such task or algorithm.
    """
    for option, names, known in (
        ("tasks", tasks, list(suite.tasks)),
        ("algorithms", algorithms, list(suite.algorithms)),
    ):
        for unknown in [key for key in names or [] if key not in known]:
            raise ValueError(f"--{option}: {name} has no {unknown!r}; it has {', '.join(known)}")
    chosen = algorithms or [key for key, a in suite.algorithms.items() if not a.optional]
    cells = [
        suite_cell(name, suite, task, algorithm, seed)
        for task in dict.fromkeys(tasks or suite.tasks)
        for algorithm in dict.fromkeys(chosen)
        for seed in dict.fromkeys(seeds or suite.algorithms[algorithm].seeds)
    ]
    return sorted(cells, key=lambda cell: cell.config.seed)


def suite_cell(name: str, suite: SuiteConfig, task: str, algorithm: str, seed: int) -> Cell:
    """One cell of a suite.

    Raises:
        ValueError: the algorithm's settings are no configuration of a training run.
    """
    entry = suite.algorithms[algorithm]
    plain: dict[str, Any] = {}
    for part in (_base(entry.base or algorithm, required=entry.base is not None), entry):
        if preset := part.presets.get(task):
            merge(plain, read_mapping(find_preset(preset, "train")))
        merge(plain, part.settings)
        merge(plain, part.tasks.get(task, {}))
    training = {
        "steps": suite.tasks[task].steps,
        "evaluate_every": suite.evaluate_every,
        "evaluation_episodes": suite.evaluation_episodes,
        "checkpoint_every": suite.checkpoint_every,
        "video": False,
    }
    merge(plain, {"env": {"id": task}, "training": training, "seed": seed})
    return Cell(name, task, algorithm, from_plain(Config, plain, f"{algorithm} on {task}"))


def _base(name: str, required: bool) -> AlgorithmConfig:
    path = CONFIGS / "algorithms" / f"{name}.yaml"
    if not path.is_file():
        if required:
            raise ValueError(f"there is no algorithm {name!r} to start from")
        return AlgorithmConfig()
    return from_plain(AlgorithmConfig, read_mapping(path), str(path))


def _effective_keys(config: Config) -> dict[str, Any]:
    """The configuration as plain data, without the keys that do not affect the results."""
    plain = to_plain(config)
    del plain["training"]["checkpoint_every"], plain["agent"]["compile"]
    if config.algorithm != "concave_q":
        del plain["agent"]
    return plain

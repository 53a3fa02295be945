"""The result of a cell: a small CSV file that says where it comes from."""

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

from icnn_rl.agents.benchmark.cell import Cell
from icnn_rl.agents.runs.agent_folder import AgentFolder
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.output_formats import STEPS
from icnn_rl.runs.configuration import from_plain, to_plain
from icnn_rl.runs.storage import replacing

RETURNS = ("return_mean", "return_std", "return_min", "return_max", "length_mean")
SOLVER = ("evaluations", "gap_mean", "gap_max", "not_converged")
COLUMNS = ("steps", *RETURNS, "training_seconds", *SOLVER)


@dataclass(frozen=True)
class Result:
    """What a cell's file holds.

    Attributes:
        path: of the file.
        metadata: where the result comes from, its ``config`` among it.
        columns: of numbers, one an evaluation, by name; NaN where an algorithm has no solver.
    """

    path: Path
    metadata: dict[str, Any]
    columns: dict[str, np.ndarray]

    def config(self) -> Config:
        """The configuration of the run.

        Raises:
            ValueError: it is not one of this version.
        """
        plain = dict(self.metadata["config"])
        if plain.get("algorithm", "concave_q") != "concave_q":
            plain.pop("agent", None)  # says nothing of a baseline, but may have keys that are gone
        return from_plain(Config, plain, str(self.path))

    def is_of(self, cell: Cell) -> bool:
        """Whether the run was one of a cell's configuration."""
        try:
            return cell.is_of(self.config())
        except ValueError:  # by keys that are no more
            return False


def collect(cell: Cell, run: AgentFolder) -> str:
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
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: row[name] for name in COLUMNS[: -len(SOLVER)]} | solver
        for row, solver in zip(rows, _solver_statistics(run, rows), strict=True)
    )
    return text.getvalue()


def result_path(cell: Cell, results: Path) -> Path:
    """The file of a cell's result."""
    return results / cell.suite / cell.path.with_suffix(".csv")


def write_result(text: str, path: Path) -> None:
    """Write a result in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def read_result(path: Path) -> Result:
    """The result in a file.

    Raises:
        ValueError: the file is damaged.
    """
    lines = path.read_text("utf-8", errors="replace").splitlines()
    head = [line for line in lines if line.startswith("#")]
    try:
        metadata = yaml.safe_load("\n".join(line.removeprefix("# ") for line in head))
        missing = {"task", "algorithm", "seed", "steps", "config"} - set(metadata or {})
        if missing or not isinstance(metadata["config"], dict):
            said = ", ".join(sorted(missing)) or "the keys of its config"
            raise ValueError(f"its head does not say {said}")
        rows = list(csv.DictReader(lines[len(head) :]))
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in COLUMNS}
        if not rows or columns["steps"][-1] != metadata["steps"]:
            raise ValueError(f"its rows do not end at {metadata['steps']} steps")
        if not all(np.isfinite(columns[name]).all() for name in COLUMNS[: -len(SOLVER)]):
            raise ValueError("a number is missing")
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    return Result(path, metadata, columns)


def _solver_statistics(run: AgentFolder, rows: list[dict[str, str]]) -> list[dict[str, float]]:
    """What the solver did between one evaluation and the next, of the updates that were logged."""
    logged = [row for row in run.progress().rows if row.get("solver/gap_mean")]
    statistics = []
    previous = 0
    for row in rows:
        steps = int(row["steps"])
        part = [line for line in logged if previous < int(line[STEPS]) <= steps]
        values = {
            name: np.array([float(line[f"solver/{name}"]) for line in part]) for name in SOLVER
        }
        statistics.append(
            {
                name: float(f"{value.max() if name == 'gap_max' else value.mean():.4g}")
                for name, value in values.items()
                if value.size
            }
        )
        previous = steps
    return statistics


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor() or platform.machine()

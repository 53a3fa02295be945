"""A benchmark's report: tables in Markdown, figures, and all numbers of the tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from icnn_rl.agents.benchmark.figures import draw_aggregate, draw_learning_curves
from icnn_rl.agents.benchmark.results import ResultTable, Runs, published, read_results
from icnn_rl.agents.benchmark.statistics import (
    Scores,
    bootstrap_interval,
    interquartile_mean,
    mean,
    probability_of_improvement,
)
from icnn_rl.agents.benchmark.suite import SuiteConfig
from icnn_rl.runs.storage import write_text

_HEAD = """# Benchmark {name}

{cells} runs. A run's return is the mean of {episodes} deterministic episodes, whose seeds are the
same for all. In brackets are 95 % bootstrap intervals over runs; a single run has none. A score is
0 for random actions and 1 for the reference, whose first reaching is timed (median of the runs that
reach it). Seconds are wall time of training alone, without evaluations; what else the machine did
counts.{left_out}

![Learning curves](learning_curves.png)
"""
_AGGREGATE = """## Over all tasks

Scores of the last evaluations of the algorithms that have runs on every task: {tasks}.{left_out}

![Interquartile mean](aggregate.png)
"""
_IMPROVEMENT = """## Probability of improvement

That a run of the row's algorithm ends with a higher return than one of the column's, over the tasks
that both have.
"""


def write_report(name: str, suite: SuiteConfig, results: Path, out: Path) -> None:
    """Write a report into a folder.

    Args:
        name: of the suite.
        suite: its configuration.
        results: folder of all results.
        out: folder of ``report.md``, ``summary.csv`` and the figures; it is made.

    Raises:
        ValueError: there are no results, or one is damaged.
    """
    table, outdated = read_results(name, suite, results)
    out.mkdir(parents=True, exist_ok=True)
    cells = sum(len(runs.results) for algorithms in table.values() for runs in algorithms.values())
    left_out = _list_of(
        [path.relative_to(results / name).as_posix() for path in outdated],
        "Left out, as of another configuration or under another name",
    )
    draw_learning_curves(table, out / "learning_curves.png")
    parts = [
        _HEAD.format(name=name, cells=cells, episodes=suite.evaluation_episodes, left_out=left_out),
        *(f"## {task}\n\n{_task_table(task, runs)}\n" for task, runs in table.items()),
        _aggregate(table, out),
        _improvement(table),
    ]
    write_text("\n".join(part for part in parts if part), out / "report.md")
    write_text(_summary(table), out / "summary.csv")


def _task_table(task: str, algorithms: dict[str, Runs]) -> str:
    rows = []
    for name, runs in algorithms.items():
        reached = runs.reached()
        steps, seconds = np.median(reached, 0) if reached.size else (np.nan, np.nan)
        rows.append(
            {
                "algorithm": name,
                "runs": str(len(runs.results)),
                "steps": str(runs.task.steps),
                "return at the end": _with_interval(mean, [runs.final]),
                "best evaluation": _number(runs.best.mean()),
                "reached": f"{len(reached)}/{len(runs.results)}",
                "steps to it": _number(steps),
                "seconds to it": _number(seconds),
                "steps/s": _number(runs.steps_per_second.mean()),
                "gap (mean)": _number(runs.mean("gap_mean")),
                "not converged": _number(runs.mean("not_converged")),
            }
        )
    header = list(rows[0])
    for entry in published(task):
        rows.append(
            dict.fromkeys(header, "")
            | {
                "algorithm": f"published: {entry['algorithm']}, {entry['task']}",
                "runs": entry["seeds"],
                "steps": entry["steps"],
                "return at the end": f"{float(entry['return']):g}",
                "best evaluation": entry["source"],
            }
        )
    scale = next(iter(algorithms.values())).task
    text = f"Random actions return {scale.random:g}; the reference is {scale.reference:g}."
    return f"{text}\n\n{_markdown(header, [list(row.values()) for row in rows])}"


def _aggregate(table: ResultTable, out: Path) -> str:
    names = _names(table)
    complete = {
        name: [algorithms[name] for algorithms in table.values()]
        for name in names
        if all(name in algorithms for algorithms in table.values())
    }
    if not complete:
        return ""
    draw_aggregate(complete, out / "aggregate.png")
    rows = []
    for name, tasks in complete.items():
        scores = [runs.score(runs.final) for runs in tasks]
        count = str(sum(len(runs.results) for runs in tasks))
        means = (_with_interval(statistic, scores) for statistic in (interquartile_mean, mean))
        rows.append([name, count, *means])
    missing = [name for name in names if name not in complete]
    left_out = _list_of(missing, "Left out, as they lack some")
    text = _AGGREGATE.format(tasks=", ".join(table), left_out=left_out)
    return f"{text}\n{_markdown(['algorithm', 'runs', 'interquartile mean', 'mean'], rows)}\n"


def _improvement(table: ResultTable) -> str:
    names = _names(table)
    if len(names) < 2:
        return ""
    rows = []
    for first in names:
        row = [first]
        for second in names:
            both = [runs for runs in table.values() if {first, second} <= runs.keys()]
            if first == second or not both:
                row.append("")
                continue
            scores = ([runs[name].final for runs in both] for name in (first, second))
            row.append(_with_interval(probability_of_improvement, *scores))
        rows.append(row)
    return f"{_IMPROVEMENT}\n{_markdown(['', *names], rows)}\n"


def _names(table: ResultTable) -> list[str]:
    return list(dict.fromkeys(name for algorithms in table.values() for name in algorithms))


def _summary(table: ResultTable) -> str:
    """One line a run, as CSV."""
    text = io.StringIO()
    numbers = ("return", "best", "score", "steps_per_second")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "algorithm", "seed", "steps", *numbers, "commit"])
    for task, algorithms in table.items():
        for name, runs in algorithms.items():
            columns = (runs.final, runs.best, runs.score(runs.final), runs.steps_per_second)
            for result, *values in zip(runs.results, *columns, strict=True):
                head = (task, name, result.metadata["seed"], runs.task.steps)
                commit = result.metadata.get("commit", "unknown")
                writer.writerow([*head, *map(float, values), commit])
    return text.getvalue()


def _with_interval(statistic: Callable[..., float], *scores: Scores) -> str:
    """A statistic, with its interval in brackets if there is one."""
    value, interval = _number(statistic(*scores)), bootstrap_interval(statistic, *scores)
    return value if interval is None else f"{value} [{', '.join(map(_number, interval))}]"


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _list_of(names: Sequence[str], text: str) -> str:
    return f" {text}: {', '.join(names)}." if names else ""


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

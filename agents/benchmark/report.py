"""A benchmark's report: tables in Markdown, figures, and all numbers of the tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icnn_rl.agents.benchmark.figures import draw_aggregate, draw_learning_curves
from icnn_rl.agents.benchmark.results import Runs, Table, published, read_results
from icnn_rl.agents.benchmark.statistics import (
    Interval,
    bootstrap_interval,
    interquartile_mean,
    mean,
    probability_of_improvement,
)
from icnn_rl.agents.benchmark.suite import SuiteConfig
from icnn_rl.runs.storage import replacing

HEAD = """# Benchmark {name}

{cells} runs. A run's return is the mean of {episodes} deterministic episodes, whose seeds are the
same for all. In brackets are 95 % bootstrap intervals over runs; a single run has none. A score is
0 for random actions and 1 for the reference, whose first reaching is timed (median of the runs that
reach it). Seconds are wall time of training alone, without evaluations; what else the machine did
counts.{left_out}

![Learning curves](learning_curves.png)
"""
AGGREGATE = """## Over all tasks

Scores of the last evaluations of the algorithms that have runs on every task: {tasks}.{left_out}

![Interquartile mean](aggregate.png)
"""
IMPROVEMENT = """## Probability of improvement

That a run of the row's algorithm ends with a higher return than one of the column's, over the tasks
that both have.
"""
NUMBERS = ("return", "best", "score", "steps_per_second")
SUMMARY = ("task", "algorithm", "seed", "steps", *NUMBERS, "commit")


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
    others = ", ".join(path.relative_to(results / name).as_posix() for path in outdated)
    left_out = (
        f" Left out, as of another configuration or under another name: {others}." if others else ""
    )
    parts = [
        HEAD.format(name=name, cells=cells, episodes=suite.evaluation_episodes, left_out=left_out)
    ]
    draw_learning_curves(table, out / "learning_curves.png")
    for task, algorithms in table.items():
        parts.append(f"## {task}\n\n{_task_table(task, algorithms)}\n")
    parts.append(_aggregate(table, out))
    if improvement := _improvement(table):
        parts.append(f"{IMPROVEMENT}\n{improvement}\n")
    _write(out / "report.md", "\n".join(part for part in parts if part))
    _write(out / "summary.csv", _summary(table))


def _task_table(task: str, algorithms: dict[str, Runs]) -> str:
    header = (
        "algorithm",
        "runs",
        "steps",
        "return at the end",
        "best evaluation",
        "reached",
        "steps to it",
        "seconds to it",
        "steps/s",
        "gap (mean)",
        "not converged",
    )
    rows: list[Sequence[str]] = []
    for name, runs in algorithms.items():
        reached = np.array(runs.reached()).reshape(-1, 2)
        steps, seconds = np.median(reached, 0) if reached.size else (np.nan, np.nan)
        rows.append(
            (
                name,
                str(len(runs.results)),
                str(runs.task.steps),
                _with_interval(mean([runs.final]), bootstrap_interval(mean, [runs.final])),
                _number(runs.best.mean()),
                f"{len(reached)}/{len(runs.results)}",
                _number(steps),
                _number(seconds),
                _number(runs.steps_per_second().mean()),
                _number(runs.mean("gap_mean")),
                _number(runs.mean("not_converged")),
            )
        )
    empty = [""] * 6
    for entry in published(task):
        value = (str(entry.seeds), str(entry.steps), f"{entry.value:g}")
        rows.append((f"published: {entry.algorithm}, {entry.task}", *value, entry.source, *empty))
    reference = next(iter(algorithms.values())).task
    scale = f"Random actions return {reference.random:g}; the reference is {reference.reference:g}."
    return f"{scale}\n\n{_markdown(header, rows)}"


def _aggregate(table: Table, out: Path) -> str:
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
        rows.append(
            (
                name,
                str(sum(len(runs.results) for runs in tasks)),
                *(
                    _with_interval(statistic(scores), bootstrap_interval(statistic, scores))
                    for statistic in (interquartile_mean, mean)
                ),
            )
        )
    missing = [name for name in names if name not in complete]
    left_out = f" Left out, as they lack some: {', '.join(missing)}." if missing else ""
    text = AGGREGATE.format(tasks=", ".join(table), left_out=left_out)
    return f"{text}\n{_markdown(('algorithm', 'runs', 'interquartile mean', 'mean'), rows)}\n"


def _improvement(table: Table) -> str:
    names = _names(table)
    rows = []
    for first in names:
        cells = [first]
        for second in names:
            both = [a for a in table.values() if first in a and second in a]
            if first == second or not both:
                cells.append("")
                continue
            scores = [a[first].final for a in both], [a[second].final for a in both]
            value = probability_of_improvement(*scores)
            cells.append(
                _with_interval(value, bootstrap_interval(probability_of_improvement, *scores))
            )
        rows.append(cells)
    return _markdown(("", *names), rows) if len(names) > 1 else ""


def _names(table: Table) -> list[str]:
    return list(dict.fromkeys(name for algorithms in table.values() for name in algorithms))


def _summary(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUMMARY)
    for task, algorithms in table.items():
        for name, runs in algorithms.items():
            columns = zip(
                runs.results,
                runs.final,
                runs.best,
                runs.score(runs.final),
                runs.steps_per_second(),
                strict=True,
            )
            for result, *numbers in columns:
                metadata = result.metadata
                head = (task, name, metadata["seed"], runs.task.steps)
                values = (float(number) for number in numbers)
                writer.writerow((*head, *values, metadata.get("commit", "unknown")))
    return text.getvalue()


def _with_interval(value: float, interval: Interval | None) -> str:
    if interval is None:
        return _number(value)
    return f"{_number(value)} [{_number(interval[0])}, {_number(interval[1])}]"


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")

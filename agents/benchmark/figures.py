"""Figures of a benchmark: learning curves of each task, and of all tasks together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icnn_rl.agents.benchmark.results import ResultTable, Runs
from icnn_rl.agents.benchmark.statistics import (
    Scores,
    bootstrap_interval,
    interquartile_mean,
    mean,
)
from icnn_rl.runs.pictures import Style, finish, line_styles, save


def draw_learning_curves(table: ResultTable, path: Path) -> None:
    """Draw the mean return of each algorithm on each task, with its interval, against steps."""
    columns = min(len(table), 3)
    rows = math.ceil(len(table) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained", dpi=150)
    styles = line_styles(name for algorithms in table.values() for name in algorithms)
    for i, (task, algorithms) in enumerate(table.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for name, runs in algorithms.items():
            points = [[runs.returns[:, k]] for k in range(runs.steps.size)]
            _draw_curve(axes, runs.steps, points, mean, styles[name])
        axes.axhline(runs.task.reference, color="gray", linestyle=":", linewidth=1)
        axes.locator_params(axis="x", nbins=5)  # more labels of six digits would overlap
        finish(axes, title=task, xlabel="environment steps", ylabel="return")
    _add_legend(figure, styles)
    save(figure, path)


def draw_aggregate(algorithms: dict[str, list[Runs]], path: Path) -> None:
    """Draw the interquartile mean of the score over all tasks, against the share of the steps.

    Args:
        algorithms: each with its runs on the same tasks.
        path: of the picture.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    styles = line_styles(algorithms)
    for name, tasks in algorithms.items():
        count = min(runs.steps.size for runs in tasks)
        shares = np.arange(1, count + 1) / count
        points = [
            [runs.score(runs.returns[:, round(share * runs.steps.size) - 1]) for runs in tasks]
            for share in shares
        ]
        _draw_curve(axes, shares, points, interquartile_mean, styles[name])
    axes.axhline(1, color="gray", linestyle=":", linewidth=1)
    finish(axes, xlabel="share of the steps", ylabel="interquartile mean of the score")
    _add_legend(figure, styles)
    save(figure, path)


def _draw_curve(
    axes: Axes,
    x: np.ndarray,
    points: Sequence[Scores],
    statistic: Callable[[Scores], float],
    style: Style,
) -> None:
    axes.plot(x, [statistic(scores) for scores in points], **style)
    bounds = [bootstrap_interval(statistic, scores, resamples=300) for scores in points]
    band = np.array([(np.nan, np.nan) if bound is None else bound for bound in bounds])
    axes.fill_between(x, band[:, 0], band[:, 1], color=style["color"], alpha=0.2, linewidth=0)


def _add_legend(figure: Figure, styles: dict[str, Style]) -> None:
    """One legend beside all curves, in as many columns as its lines need."""
    lines = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    line_height, column_width = 0.19, 1.8  # inches
    columns = math.ceil(len(lines) * line_height / figure.get_figheight())
    figure.set_figwidth(figure.get_figwidth() + (columns - 1) * column_width)
    figure.legend(
        handles=lines, loc="outside right upper", ncols=columns, frameon=False, fontsize="small"
    )

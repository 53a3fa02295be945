"""Pictures that several experiments share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from icnn_rl.runs.storage import replacing

COLORS = ("#1f6f8b", "#c8553d", "#588157", "#8e6c8a", "#d4a24c", "#3d405b")
STYLES = ("-", "--", ":")  # of lines beyond the colours


def save(figure: Figure, path: Path) -> Path:
    """Write a figure, in one step; returns its path."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."))
    return path


def draw_curves(history: Sequence[Mapping[str, str]], path: Path) -> Path:
    """Loss and validation score against epochs, a line for each part.

    Args:
        history: the rows of ``history.csv``.
        path: of the picture.
    """
    columns = [c for c in ("loss", "score") if any(row.get(c) for row in history)]
    figure = Figure(figsize=(4.8 * len(columns), 3.6), layout="constrained", dpi=150)
    titles = {"loss": "training loss", "score": "validation score"}
    parts = list(dict.fromkeys(row["part"] for row in history))
    for axes, column in zip(np.ravel(figure.subplots(1, len(columns))), columns, strict=True):
        for k, part in enumerate(parts):
            rows = [row for row in history if row["part"] == part and row.get(column)]
            epochs, values = ([float(row[key]) for row in rows] for key in ("epoch", column))
            color, style = COLORS[k % len(COLORS)], STYLES[k // len(COLORS) % len(STYLES)]
            axes.plot(epochs, values, style, color=color, label=part)
        if column == "loss":
            axes.set_yscale("log")
        axes.set(title=titles[column], xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if len(parts) > 1:
        lines = axes.get_legend_handles_labels()
        figure.legend(*lines, frameon=False, fontsize="small", loc="outside right center")
    return save(figure, path)

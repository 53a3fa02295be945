"""A picture of how networks learned, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from icnn_rl.runs.pictures import finish, line_styles, save


def draw_training_curves(history: Sequence[Mapping[str, str]], path: Path) -> Path:
    """Loss and validation score against epochs, a line for each part.

    Args:
        history: the rows of ``history.csv``.
        path: of the picture.
    """
    columns = [c for c in ("loss", "score") if any(row.get(c) for row in history)]
    figure = Figure(figsize=(4.8 * len(columns), 3.6), layout="constrained", dpi=150)
    titles = {"loss": "training loss", "score": "validation score"}
    styles = line_styles(row["part"] for row in history)
    for axes, column in zip(np.ravel(figure.subplots(1, len(columns))), columns, strict=True):
        for part, style in styles.items():
            rows = [row for row in history if row["part"] == part and row.get(column)]
            epochs, values = ([float(row[key]) for row in rows] for key in ("epoch", column))
            axes.plot(epochs, values, label=part, **style)
        if column == "loss":
            axes.set_yscale("log")
        finish(axes, title=titles[column], xlabel="epoch")
    if len(styles) > 1:
        lines = axes.get_legend_handles_labels()
        figure.legend(*lines, frameon=False, fontsize="small", loc="outside right center")
    return save(figure, path)

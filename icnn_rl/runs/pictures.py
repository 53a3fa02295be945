"""How this package's pictures look, and how they are saved."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, product
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icnn_rl.runs.storage import replacing

COLORS = (
    *("#1f6f8b", "#c8553d", "#588157", "#8e6c8a", "#d4a24c"),
    *("#3d405b", "#7fb2c9", "#e08fa0", "#8a5a3b", "#9a9a94"),
)
DASHES = ("-", "--", ":", "-.")  # each with all colours, in this order

Style = dict[str, Any]


def line_styles(names: Iterable[str]) -> dict[str, Style]:
    """A colour and kind of line for each name, in their order; the first ten have solid lines."""
    styles = [{"color": color, "linestyle": dash} for dash, color in product(DASHES, COLORS)]
    return dict(zip(dict.fromkeys(names), cycle(styles), strict=False))


def finish(axes: Axes, **texts: Any) -> None:
    """Set title, labels and the like, draw a faint grid, and leave the frame open."""
    axes.set(**texts)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure, in one step; returns its path."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."))
    return path

"""Draws docs/inference.png: how fast each method closes the gap, on the poster's problem.

    python benchmarks/inference_figure.py

A batch of 128 networks of 600-600 ReLU units, fresh ones, over the simplex in ten dimensions, in
float32; the median over the batch of the certified gap, against the time a sample takes. Methods
that work on the linear program take one sample at a time and are run on the first few. One thread.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from networks import conditioned

from icnn_rl import ConvexFunction, Simplex, Solution, minimize

PICTURE = Path(__file__).parents[1] / "docs" / "inference.png"
INK, ANSWER, CUT = "#1f2a37", "#c2410c", "#1f6f8b"
FLOOR = 1e-7  # gaps below are drawn there: float32 does not tell them from zero

CURVES = {  # method: samples, evaluations, colour, style
    "bundle": (128, (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16), ANSWER, "-"),
    "level": (128, (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16), CUT, "-"),
    "kelley": (128, (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32), CUT, "--"),
    "projected_gradient": (128, (1, 3, 10, 30, 100, 300), INK, "-"),
    "accelerated_gradient": (128, (1, 3, 10, 30, 100, 300), INK, "--"),
    "admm": (2, (1, 2, 4, 8, 16, 32), "#8a6d3b", "-"),
}
POINTS = {"lp": ("HiGHS", 4, "s"), "ecos": ("ECOS", 2, "^"), "clarabel": ("Clarabel", 2, "D")}


def solved(
    f: ConvexFunction, solver: str, evaluations: int, repeats: int
) -> tuple[float, Solution]:
    """The least time a sample takes, in milliseconds, and the solution."""
    run = partial(minimize, f, Simplex(), 0.0, solver, max_evaluations=evaluations)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        solution = run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times) / len(solution.y), solution


def draw(axes: Axes) -> None:
    """One curve a method, and a point for each solver of linear programs."""
    f = conditioned(128, (600, 600), 10)
    for solver, (samples, evaluations, color, style) in CURVES.items():
        part = f.take(torch.arange(samples))
        minimize(part.take(torch.arange(1)), Simplex(), 0.0, solver, max_evaluations=2)  # warm up
        curve = [solved(part, solver, count, 3 if samples > 2 else 1) for count in evaluations]
        gaps = [max(float(s.gap.median()), FLOOR) for _, s in curve]
        times = [t for t, _ in curve]
        print(solver, *(f"{t:.2f} ms {g:.0e}" for t, g in zip(times, gaps, strict=True)), sep="  ")
        axes.plot(times, gaps, style, color=color, marker="o", markersize=3)
        axes.annotate(
            solver.replace("_", " "),
            (times[-1], gaps[-1]),
            (5, 0),
            color=color,
            textcoords="offset points",
            va="center",
        )
    for solver, (name, samples, marker) in POINTS.items():
        t, solution = solved(f.take(torch.arange(samples)), solver, 1, 1)
        gap = max(float(solution.gap.median()), FLOOR)
        print(f"{solver} {t:.0f} ms {gap:.0e}")
        axes.plot(t, gap, marker, color=INK, markersize=6)
        axes.annotate(name, (t, gap), (0, 8), color=INK, textcoords="offset points", ha="center")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="milliseconds a sample, one thread",
        ylabel="certified gap (median)",
        title="600-600 ReLU units, n = 10 on the simplex",
    )
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw the picture."""
    torch.set_num_threads(1)
    figure = Figure(figsize=(8, 4.4), layout="constrained", dpi=160)
    draw(figure.subplots())
    figure.savefig(PICTURE)


if __name__ == "__main__":
    main()

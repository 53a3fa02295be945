"""Draws docs/inference.png: how fast each method closes the gap, on the poster's problem.

    python benchmarks/inference_figure.py

A batch of 128 functions, a trained network of 600-600 ReLU units, over the simplex in ten
dimensions, in float64; the median over the batch of the certified gap, against the time a sample
takes. Methods that work on the linear program are run on the first few samples. One thread.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from networks import conditioned
from peer_solvers import by_name

from icnn_rl import ConvexFunction, Simplex, Solution, minimize

PICTURE = Path(__file__).parents[1] / "docs" / "inference.png"
INK, ANSWER, CUT, BROWN = "#1f2a37", "#c2410c", "#1f6f8b", "#8a6d3b"
FLOOR = 1e-8  # gaps below are drawn there

CURVES = {  # method: samples, evaluations, colour, style
    "bundle": (128, (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24), ANSWER, "-"),
    "level": (128, (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24), CUT, "-"),
    "kelley": (128, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32), CUT, "--"),
    "projected_gradient": (128, (1, 3, 10, 30, 100, 300, 1000), INK, "-"),
    "accelerated_gradient": (128, (1, 3, 10, 30, 100, 300, 1000), INK, "--"),
    "admm": (2, (1, 2, 4, 8, 16, 32), BROWN, "-"),
}
POINTS = {"lp": ("HiGHS", 8, "s"), "ecos": ("ECOS", 8, "^"), "clarabel": ("Clarabel", 8, "D")}


def solved(
    f: ConvexFunction, solver: str, evaluations: int, repeats: int
) -> tuple[float, Solution]:
    """The least time a sample takes, in milliseconds, and the solution."""
    run = partial(minimize, f, Simplex(), 0.0, by_name(solver), max_evaluations=evaluations)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        solution = run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times) / len(solution.y), solution


def draw(axes: Axes) -> None:
    """One curve a method, and a point for each solver of linear programs."""
    f = conditioned(128, (600, 600), 10, trained=True, dtype=torch.float64)
    for solver, (samples, evaluations, color, style) in CURVES.items():
        part = f.take(torch.arange(samples))
        minimize(
            part.take(torch.arange(1)), Simplex(), 0.0, by_name(solver), max_evaluations=2
        )  # warm up
        times: list[float] = []
        gaps: list[float] = []
        for count in evaluations:
            spent, solution = solved(part, solver, count, 3 if count < 100 else 1)
            times.append(spent)
            gaps.append(max(float(solution.gap.median()), FLOOR))
            if gaps[-1] == FLOOR:
                break
        print(solver, *(f"{t:.2f} ms {g:.0e}" for t, g in zip(times, gaps, strict=True)), sep="  ")
        label = solver.replace("_", " ")
        axes.plot(times, gaps, style, color=color, marker="o", markersize=3, label=label)
    for solver, (name, samples, marker) in POINTS.items():
        t, solution = solved(f.take(torch.arange(samples)), solver, 1, 1)
        gap = max(float(solution.gap.median()), FLOOR)
        print(f"{solver} {t:.0f} ms {gap:.0e}")
        axes.plot(t, gap, marker, color=INK, markersize=6, label=name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="milliseconds a sample, one thread",
        ylabel="certified gap (median)",
        title="a trained 600-600 ReLU network, n = 10 on the simplex",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw the picture."""
    torch.set_num_threads(1)
    figure = Figure(figsize=(8, 4.4), layout="constrained", dpi=160)
    draw(figure.subplots())
    figure.savefig(PICTURE)


if __name__ == "__main__":
    main()

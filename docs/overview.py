"""Draws overview.png, the picture in the README.

python docs/overview.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icnn_rl import PICNN, Box, minimize
from icnn_rl.agents.benchmark.results import read_result

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "classic" / "Pendulum-v1" / "concave-q"
INK, ANSWER, CUT = "#1f2a37", "#c2410c", "#1f6f8b"
SLICE = 0.35  # the context whose slice the second panel shows


def fitted() -> PICNN:
    """A small network fitted to a landscape that is not convex in x."""
    torch.manual_seed(1)
    net = PICNN(1, 1, context=(64, 64), convex=(32, 32))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(1500):
        x, y = 4 * torch.rand(256, 1) - 2, 2 * torch.rand(256, 1) - 1
        valley = 0.7 * torch.sin(2.5 * x)
        height = (1.2 + torch.cos(2 * x)) * (y - valley).abs() + 0.4 * torch.cos(3 * x)
        loss = (net(x, y) - height.squeeze(-1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        net.project_()
    return net


def landscape(axes: Axes, net: PICNN) -> None:
    """f(x, y) from above, with its certified minimiser for every x."""
    x, y = torch.linspace(-2, 2, 300), torch.linspace(-1, 1, 200)
    with torch.no_grad():
        f = net.condition(x.unsqueeze(-1))
        heights = torch.stack([f.value(t.expand(300, 1)) for t in y])
    solution = minimize(f, Box(-1.0, 1.0), tol=1e-4)
    axes.contourf(x, y, heights, levels=24, cmap="Blues_r")
    axes.plot(x, solution.y.squeeze(-1), color=ANSWER, linewidth=2)
    axes.axvline(SLICE, color="white", linewidth=1, linestyle=":")
    axes.set(title="convex in y, anything in x", xlabel="context x", ylabel="y", yticks=[-1, 0, 1])
    axes.annotate(
        f"argmin, every gap ≤ {solution.gap.max():.0e}",
        (0.03, 0.05),
        xycoords="axes fraction",
        color=ANSWER,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )


def certificate(axes: Axes, net: PICNN) -> None:
    """One slice: f, a few tangents, and the bound that they prove."""
    y = torch.linspace(-1, 1, 200).unsqueeze(-1)
    points = torch.tensor([[-0.8], [-0.1], [0.42], [0.9]])
    with torch.no_grad():
        f = net.condition(torch.full((1, 1), SLICE))
        curve = np.array([f.value(t.unsqueeze(0)).item() for t in y])
        tangents = [f.value_and_gradient(p.unsqueeze(0)) for p in points]
    lines = [v + g[0] * (y - p) for p, (v, g) in zip(points, tangents, strict=True)]
    model = torch.stack(lines).amax(0).squeeze(-1)
    for p, (value, _), line in zip(points, tangents, lines, strict=True):
        axes.plot(y, line, color=CUT, linewidth=1)
        axes.plot(p, value, "o", color=CUT, markersize=4)
    axes.plot(y, curve, color=INK, linewidth=2)
    axes.axhline(model.min(), color=ANSWER, linewidth=1, linestyle="--")
    low, high = curve.min(), curve.max()
    axes.annotate(
        "min f is not below this",
        (-1, model.min()),
        (0, -12),
        color=ANSWER,
        textcoords="offset points",
    )
    axes.set(
        title="tangents prove a lower bound",
        xlabel="y",
        ylim=(low - 0.3 * (high - low), high),
        yticks=[],
        xticks=[-1, 0, 1],
    )


def learning(axes: Axes) -> None:
    """The agent on Pendulum, one curve a seed."""
    for path in sorted(RESULTS.glob("*.csv")):
        columns = read_result(path).columns
        axes.plot(columns["steps"], columns["return_mean"], color=ANSWER, alpha=0.7)
    axes.set(title="Pendulum-v1, no actor", xlabel="environment steps", ylabel="return")


def main() -> None:
    """Draw the three panels."""
    figure = Figure(figsize=(11, 3.2), layout="constrained", dpi=160)
    left, middle, right = figure.subplots(1, 3)
    net = fitted()
    landscape(left, net)
    certificate(middle, net)
    learning(right)
    for axes in (middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "overview.png")


if __name__ == "__main__":
    main()

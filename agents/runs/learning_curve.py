"""A picture of how the return grew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from icnn_rl.agents.runs.agent_folder import AgentFolder
from icnn_rl.agents.runs.building import RECENT
from icnn_rl.agents.runs.output_formats import STEPS
from icnn_rl.runs.pictures import COLORS, finish, save

EVALUATION, TRAINING = COLORS[0], "#b9b4ab"


def draw_learning_curve(run: AgentFolder, title: str) -> Path:
    """Draw a run's evaluations, and its training returns behind them, into its folder.

    Returns:
        The picture.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    if rows := [row for row in run.progress().rows if row.get("rollout/ep_rew_mean")]:
        axes.plot(
            [int(row[STEPS]) for row in rows],
            [float(row["rollout/ep_rew_mean"]) for row in rows],
            color=TRAINING,
            label=f"training, mean of the last {RECENT} episodes",
        )
    if rows := run.evaluations().rows:
        steps = [int(row["steps"]) for row in rows]
        mean, deviation = (
            np.array([float(row[key]) for row in rows]) for key in ("return_mean", "return_std")
        )
        axes.fill_between(
            steps, mean - deviation, mean + deviation, color=EVALUATION, alpha=0.2, linewidth=0
        )
        axes.plot(
            steps, mean, color=EVALUATION, marker="o", markersize=3, label="evaluation ± 1 sd"
        )
    finish(axes, title=title, xlabel="environment steps", ylabel="return")
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    return save(figure, run.curve)

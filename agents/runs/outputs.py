"""What an agent's training run writes: its folder, its logs and its learning curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from stable_baselines3.common.logger import KVWriter, TensorBoardOutputFormat
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch.utils.tensorboard.writer import SummaryWriter

from icnn_rl.agents.runs.building import RECENT
from icnn_rl.runs.folder import RunFolder
from icnn_rl.runs.pictures import COLORS, finish, save
from icnn_rl.runs.storage import Table, replacing

STEPS_COLUMN = "time/total_timesteps"  # stable-baselines3's key of the number of steps


@dataclass(frozen=True)
class AgentFolder(RunFolder):
    """The files of an agent's training run.

    Args:
        path: the folder.
    """

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is complete, if there is one."""
        paths = self.checkpoints.glob("*.safetensors")
        return max((path for path in paths if path.stem.isdigit()), default=None)

    @property
    def archive(self) -> Path:
        """The agent as stable-baselines3 saves it."""
        return self.path / "model.zip"

    @property
    def best(self) -> Path:
        """The folder of the agent whose evaluation was best."""
        return self.path / "best"

    @property
    def best_archive(self) -> Path:
        """That agent as stable-baselines3 saves it."""
        return self.path / "best_model.zip"

    @property
    def monitor_file(self) -> Path:
        """The episodes of training, as stable-baselines3's ``Monitor`` writes them."""
        return self.path / "monitor.csv"

    @property
    def evaluations_file(self) -> Path:
        """The evaluations, as stable-baselines3's ``EvalCallback`` writes them."""
        return self.path / "evaluations.npz"

    def progress(self) -> Table:
        """What was logged while training, read anew at each call."""
        return Table(self.path / "progress.csv", STEPS_COLUMN)

    def evaluations(self) -> Table:
        """The evaluations, read anew at each call."""
        return Table(self.path / "evaluations.csv", "steps")


class NumberWriter(KVWriter):
    """Passes the numbers that stable-baselines3 logs to a function.

    Args:
        log: is called with the numbers by name, and the number of steps.
        close: is called at the end.
    """

    def __init__(
        self,
        log: Callable[[dict[str, Any], int], None],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._close = close

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Log the numbers among the values."""
        numbers = {k: v for k, v in key_values.items() if isinstance(v, int | float | np.number)}
        self._log(numbers, step)

    def close(self) -> None:
        """Close what the numbers go to."""
        self._close()


def save_archive(model: OffPolicyAlgorithm, path: Path, folder: Path) -> None:
    """Save an agent as stable-baselines3 does.

    Args:
        model: the agent.
        path: of the archive.
        folder: for ``vecnormalize.pkl``, the normaliser of its task, if there is one.
    """
    with replacing(path) as temporary:
        model.save(temporary)
    if (normalizer := model.get_vec_normalize_env()) is not None:
        with replacing(folder / "vecnormalize.pkl") as temporary:
            normalizer.save(str(temporary))


class EventWriter(TensorBoardOutputFormat):
    """Writes events for TensorBoard, and takes back those beyond a number of steps.

    Args:
        folder: of the events.
        steps: of the checkpoint that the run goes on from; 0 for a new run.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=steps + 1 if steps else None)
        self._is_closed = False


def draw_learning_curve(run: AgentFolder, title: str) -> Path:
    """Draw a run's evaluations, and its training returns behind them, into its folder.

    Returns:
        The picture.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    if rows := [row for row in run.progress().rows if row.get("rollout/ep_rew_mean")]:
        axes.plot(
            [int(row[STEPS_COLUMN]) for row in rows],
            [float(row["rollout/ep_rew_mean"]) for row in rows],
            color="#b9b4ab",
            label=f"training, mean of the last {RECENT} episodes",
        )
    if rows := run.evaluations().rows:
        steps = [int(row["steps"]) for row in rows]
        mean, deviation = (
            np.array([float(row[key]) for row in rows]) for key in ("return_mean", "return_std")
        )
        low, high, color = mean - deviation, mean + deviation, COLORS[0]
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(steps, mean, color=color, marker="o", markersize=3, label="evaluation ± 1 sd")
    finish(axes, title=title, xlabel="environment steps", ylabel="return")
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    return save(figure, run.path / "learning_curve.png")

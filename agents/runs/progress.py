"""What a run shows on the terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

REFRESH = 0.25  # seconds


class ProgressDisplay:
    """A live bar of a run: steps, return, steps a second, gap of the solver.

    Args:
        console: where it is shown; on anything but a terminal only messages are.
        total: steps of the whole run.
        done: steps that were made before.
    """

    def __init__(self, console: Console, total: int, done: int = 0) -> None:
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[measures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=done, measures="")
        self._start = time.monotonic()
        self._shown = -REFRESH

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, model: OffPolicyAlgorithm) -> None:
        """Bring the bar up to date."""
        elapsed = time.monotonic() - self._start
        if elapsed - self._shown < REFRESH:
            return
        self._shown = elapsed
        parts = [f"{self._bar.tasks[0].speed or 0:.0f} steps/s"]
        if model.ep_info_buffer:
            parts.insert(0, f"return {model.ep_info_buffer[-1]['r']:.1f}")
        if (gap := model.logger.name_to_value.get("solver/gap_mean")) is not None:
            parts.append(f"gap {gap:.1e}")
        self._bar.update(
            self._task, completed=model.num_timesteps, measures=" · ".join(parts), refresh=False
        )

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)

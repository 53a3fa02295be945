"""What a run shows on the terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

REFRESH = 0.25  # seconds


class ProgressDisplay:
    """A live bar of a run: how far it is, what it measures, and its speed.

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

    def update(self, completed: int, *measures: str) -> None:
        """Bring the bar up to date, a few times a second at most.

        Args:
            completed: units that are made by now.
            measures: what to show beside the bar, as ``"loss 0.1"``.
        """
        elapsed = time.monotonic() - self._start
        if elapsed - self._shown < REFRESH:
            return
        self._shown = elapsed
        speed = self._bar.tasks[0].speed or 0
        parts = [*measures, f"{speed:.{0 if speed >= 10 else 1}f} steps/s"]
        self._bar.update(self._task, completed=completed, measures=" · ".join(parts), refresh=False)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)

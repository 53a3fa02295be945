"""What a run reports while it goes on: a progress bar, and metrics to Weights & Biases."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from icnn_rl.runs.folder import RunFolder

_REFRESH_SECONDS = 0.25

logger = logging.getLogger(__name__)


class ProgressDisplay:
    """A progress bar with the run's speed and latest measurements.

    Args:
        console: where it is shown; unless it is a terminal, only messages are.
        total: steps of the whole run.
        done: steps made before.
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
        self._next_refresh = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def update(self, completed: int, *measures: str) -> None:
        """Bring the bar up to date, a few times a second at most.

        Args:
            completed: steps made by now.
            measures: what to show beside the bar, such as ``"loss 0.1"``.
        """
        if (now := time.monotonic()) < self._next_refresh:
            return
        self._next_refresh = now + _REFRESH_SECONDS
        speed = self._bar.tasks[0].speed or 0
        parts = [*measures, f"{speed:.{0 if speed >= 10 else 1}f} steps/s"]
        self._bar.update(self._task, completed=completed, measures=" · ".join(parts), refresh=False)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)


class Tracker:
    """Sends metrics to Weights & Biases; without a login, to an offline run on disk.

    The first failure is logged as a warning; it ends tracking, not the run.

    Args:
        run: its folder; W&B keeps its files there, and knows the run by its id.
        config: of the run, as plain data.
        enabled: whether anything is sent; if not, every method does nothing.
    """

    def __init__(self, run: RunFolder, config: Mapping[str, Any], enabled: bool = True) -> None:
        self._run: Any = None
        self._enabled = enabled
        self._attempt(lambda: self._start(run, config))

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log numbers by name."""
        self._attempt(lambda: self._run.log(dict(values), step=step))

    def upload(self, images: Mapping[str, Path], video: Path | None = None) -> None:
        """Log pictures by name, and a video."""

        def log() -> None:
            import wandb

            media: dict[str, Any] = {name: wandb.Image(str(path)) for name, path in images.items()}
            if video is not None:
                media["video"] = wandb.Video(str(video), format="mp4")
            self._run.log(media)

        self._attempt(log)

    def close(self) -> None:
        """Finish the run."""
        self._attempt(lambda: self._run.finish())

    def _start(self, run: RunFolder, config: Mapping[str, Any]) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE")
        if mode is None and not wandb.login(prompt=False, verify=False):
            mode = "offline"
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "icnn-rl"),
            id=run.run_id,
            name=run.path.name,
            dir=run.path,
            config=dict(config),
            mode=mode,  # type: ignore[arg-type]
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )
        if self._run.offline:
            logger.info("Weights & Biases is offline; later: wandb sync %s", self._run.sync_dir)
        else:
            logger.info("Weights & Biases: %s", self._run.url)

    def _attempt(self, action: Callable[[], None]) -> None:
        if not self._enabled:
            return
        try:
            action()
        except Exception as error:  # whatever it is: a failed upload must not end a training run
            self._enabled = False
            reason = " ".join(str(error).split())
            logger.warning("Weights & Biases failed, and is off from here on: %s", reason)

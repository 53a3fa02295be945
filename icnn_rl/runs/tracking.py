"""Weights & Biases, whose failures never stop a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from icnn_rl.runs.run_folder import RunFolder

PROJECT = "icnn-rl"

logger = logging.getLogger(__name__)


class Tracker:
    """Sends metrics to Weights & Biases; without a login, to an offline run on disk.

    The first failure is reported as a warning, and is the end of tracking, not of the run.

    Args:
        run: its folder; W&B keeps its files in it, and knows the run by its id.
        config: of the run, as plain data.
    """

    def __init__(self, run: RunFolder, config: Mapping[str, Any]) -> None:
        self._run: Any = None
        self._failed = False
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
            project=os.environ.get("WANDB_PROJECT", PROJECT),
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
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            # Whatever it was: an upload is never worth a training run.
            self._failed = True
            reason = " ".join(str(error).split())
            logger.warning("Weights & Biases failed, and is off from here on: %s", reason)

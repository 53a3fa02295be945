"""Weights & Biases as an output of stable-baselines3's logger. Its failures never stop a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter

from icnn_rl.agents.runs.run_folder import RunFolder
from icnn_rl.configs import Config
from icnn_rl.configs.reading import to_plain

PROJECT = "icnn-rl"

logger = logging.getLogger(__name__)


class WandbOutputFormat(KVWriter):
    """Sends what is logged to Weights & Biases; without a login, to an offline run on disk.

    The first failure is reported as a warning, and is the end of tracking, not of training.

    Args:
        run: folder of the run; W&B keeps its files in it, and knows the run by its id.
        config: of the run.
    """

    def __init__(self, run: RunFolder, config: Config) -> None:
        self._run: Any = None
        self._failed = False
        self._attempt(lambda: self._start(run, config))

    def _start(self, run: RunFolder, config: Config) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE")
        if mode is None and not wandb.login(prompt=False, verify=False):
            mode = "offline"
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.run_id,
            name=run.path.name,
            dir=run.path,
            config=to_plain(config),
            mode=mode,  # type: ignore[arg-type]
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )
        if self._run.offline:
            logger.info("Weights & Biases is offline; later: wandb sync %s", self._run.sync_dir)
        else:
            logger.info("Weights & Biases: %s", self._run.url)

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Log the numbers among the values."""
        values = {k: v for k, v in key_values.items() if isinstance(v, int | float | np.number)}
        self._attempt(lambda: self._run.log(values, step=step))

    def upload(self, curve: Path, video: Path | None) -> None:
        """Log the learning curve and the video."""

        def log() -> None:
            import wandb

            media: dict[str, Any] = {"learning_curve": wandb.Image(str(curve))}
            if video is not None:
                media["video"] = wandb.Video(str(video), format="mp4")
            self._run.log(media)

        self._attempt(log)

    def close(self) -> None:
        """Finish the run."""
        self._attempt(lambda: self._run.finish())

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

"""The folder of a training run: what is where."""

from __future__ import annotations

import json
import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from icnn_rl.agents.runs.storage import replacing
from icnn_rl.agents.runs.tables import STEPS, Table
from icnn_rl.configs import Config, read_config, write_config

if sys.platform != "win32":
    import fcntl

PACKAGES = ("icnn-rl", "torch", "numpy", "gymnasium", "mujoco", "stable-baselines3")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """A run's files.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def archive(self) -> Path:
        """The agent as stable-baselines3's archive."""
        return self.path / "model.zip"

    @property
    def curve(self) -> Path:
        """Picture of the learning curve."""
        return self.path / "learning_curve.png"

    @property
    def video(self) -> Path:
        """Video of the trained agent."""
        return self.path / "video.mp4"

    def progress(self) -> Table:
        """What was logged while training, as it is now."""
        return Table(self.path / "progress.csv", STEPS)

    def evaluations(self) -> Table:
        """The evaluations, as they are now."""
        return Table(self.path / "evaluations.csv", "steps")

    @property
    def run_id(self) -> str:
        """An id of this run and no other."""
        return str(self._versions()["run_id"])

    def require_empty(self) -> None:
        """Raise a ValueError if there is anything in the folder already."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(
                f"the run folder {self.path} is not empty; choose another with --run-dir"
            )

    def create(self, config: Config) -> None:
        """Make the folder, with its configuration and the versions that the run is made with."""
        self.checkpoints.mkdir(parents=True)
        self.write_config(config)
        with replacing(self.path / "versions.json") as temporary:
            temporary.write_text(json.dumps(_versions(config), indent=2) + "\n", "utf-8")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, no other process can train in this folder.

        Raises:
            ValueError: another process does.
        """
        with (self.path / "versions.json").open("rb") as file:
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ValueError(
                        f"another process is training in {self.path} at this moment"
                    ) from None
            yield

    def read_config(self) -> Config:
        """The configuration of the run.

        Raises:
            ValueError: the folder is no run, or its configuration is damaged.
        """
        path = self.path / "config.yaml"
        if not path.is_file():
            raise ValueError(
                f"{self.path} is not the folder of a run: there is no config.yaml in it"
            )
        return read_config(path)

    def write_config(self, config: Config) -> None:
        """Write the configuration down."""
        with replacing(self.path / "config.yaml") as temporary:
            write_config(config, temporary)

    def warn_of_other_versions(self) -> None:
        """Log where other packages than at its start would make the run go on differently."""
        for package, before in self._versions()["packages"].items():
            if (now := version(package)) != before:
                logger.warning("the run began with %s %s, this is %s", package, before, now)

    def _versions(self) -> dict[str, Any]:
        path = self.path / "versions.json"
        try:
            versions: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        return versions


def default_path(name: str, config: Config) -> Path:
    """runs/<name>-seed<k>-<timestamp>."""
    return Path("runs") / f"{name}-seed{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"


def _versions(config: Config) -> dict[str, Any]:
    return {
        "run_id": uuid4().hex[:12],
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "seed": config.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: version(package) for package in PACKAGES},
    }

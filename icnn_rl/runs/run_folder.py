"""The folder of a run: its configuration, and what it was made with."""

from __future__ import annotations

import json
import logging
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from icnn_rl.runs.commit import installed_commit
from icnn_rl.runs.configuration import read_mapping
from icnn_rl.runs.storage import replacing

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """A run's files, as far as all runs have them.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """The configuration."""
        return self.path / "config.yaml"

    @property
    def versions_file(self) -> Path:
        """What the run was made with."""
        return self.path / "versions.json"

    @property
    def run_id(self) -> str:
        """An id of this run and no other."""
        return str(self.read_versions()["run_id"])

    def require_empty(self) -> None:
        """Raise a ValueError if there is anything in the folder already."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise self._not_empty()

    def create(self, config: Mapping[str, Any], packages: Iterable[str]) -> None:
        """Make the folder, with its configuration and the versions that the run is made with.

        Args:
            config: of the run, as plain data, its ``seed`` among it.
            packages: those on whose versions the results depend.

        Raises:
            ValueError: another run has the folder.
        """
        versions = {
            "run_id": uuid4().hex[:12],
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": sys.argv,
            "seed": config["seed"],
            "commit": installed_commit(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {package: version(package) for package in packages},
        }
        self.path.mkdir(parents=True, exist_ok=True)
        try:  # of two runs that found the folder empty, one alone makes the file
            with self.versions_file.open("x", encoding="utf-8") as file:
                file.write(json.dumps(versions, indent=2) + "\n")
        except FileExistsError:
            raise self._not_empty() from None
        self.write_config(config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, no other process can train in this folder.

        Raises:
            ValueError: another process does.
        """
        with self.versions_file.open("rb") as file:
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ValueError(
                        f"another process is training in {self.path} at this moment"
                    ) from None
            yield

    def read_config(self) -> dict[str, Any]:
        """The configuration of the run, as plain data.

        Raises:
            ValueError: the folder is no run, or its configuration is damaged.
        """
        if not self.config_file.is_file():
            raise ValueError(
                f"{self.path} is not the folder of a run: there is no config.yaml in it"
            )
        return read_mapping(self.config_file)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration, plain data, down."""
        with replacing(self.config_file) as temporary:
            temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False), "utf-8")

    def warn_of_other_versions(self) -> None:
        """Log where other packages than at its start would make the run go on differently."""
        for package, before in self.read_versions()["packages"].items():
            if (now := version(package)) != before:
                logger.warning("the run began with %s %s, this is %s", package, before, now)

    def read_versions(self) -> dict[str, Any]:
        """What the run was made with.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            versions: Any = json.loads(self.versions_file.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.versions_file} is damaged: {error}") from None
        missing = {"run_id", "packages"}.difference(versions if isinstance(versions, dict) else ())
        if missing:
            raise ValueError(f"{self.versions_file} is damaged: it has no {min(missing)}")
        return dict(versions)

    def _not_empty(self) -> ValueError:
        return ValueError(f"the run folder {self.path} is not empty; choose another with --run-dir")


def default_path(name: str, seed: int) -> Path:
    """runs/<name>-seed<k>-<timestamp>, with the name as a folder can have it.

    Where there is that folder already, -2, -3, … follows.
    """
    name = name.replace(":", "-").replace("/", "-").lower()
    first = Path("runs") / f"{name}-seed{seed}-{datetime.now():%Y%m%d-%H%M%S}"
    others = (first.with_name(f"{first.name}-{k}") for k in count(2))
    return next(path for path in chain([first], others) if not path.exists())

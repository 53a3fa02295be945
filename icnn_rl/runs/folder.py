"""The folder of a run: its configuration, and the versions of the code that made it."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import yaml

from icnn_rl.runs.configuration import from_plain, read_mapping
from icnn_rl.runs.storage import write_text

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

C = TypeVar("C")


@dataclass(frozen=True)
class RunFolder:
    """The files that every run has.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """The configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def versions_file(self) -> Path:
        """Commit, packages and machine that the run started with, JSON."""
        return self.path / "versions.json"

    @property
    def run_id(self) -> str:
        """The unique id of the run."""
        return str(self.read_versions()["run_id"])

    def require_empty(self) -> None:
        """Raise a ValueError if the folder holds anything already."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise self._not_empty()

    def create(self, config: Mapping[str, Any], packages: Iterable[str]) -> None:
        """Make the folder, with the configuration and the versions of the run.

        Args:
            config: of the run, as plain data, with its ``seed``.
            packages: those whose versions affect the results.

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
        try:  # if two runs found the folder empty, only one of them creates the file
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

    def load_config(self, config_class: type[C]) -> C:
        """The configuration of the run, as an instance of its dataclass.

        Raises:
            ValueError: the folder is no run of this kind, or its configuration is damaged.
        """
        return from_plain(config_class, self.read_config(), str(self.config_file))

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration, given as plain data."""
        write_text(yaml.safe_dump(dict(config), sort_keys=False), self.config_file)

    def warn_of_other_versions(self) -> None:
        """Log a warning for each package whose version differs from that at the run's start."""
        for package, before in self.read_versions()["packages"].items():
            if (now := version(package)) != before:
                logger.warning("the run began with %s %s, this is %s", package, before, now)

    def read_versions(self) -> dict[str, Any]:
        """The content of ``versions_file``.

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
    """runs/NAME-seedK-TIMESTAMP, where NAME is made fit for a folder.

    If that folder exists, -2, -3, … is added.
    """
    name = name.replace(":", "-").replace("/", "-").lower()
    first = Path("runs") / f"{name}-seed{seed}-{datetime.now():%Y%m%d-%H%M%S}"
    others = (first.with_name(f"{first.name}-{k}") for k in count(2))
    return next(path for path in chain([first], others) if not path.exists())


def installed_commit(module: Path = Path(__file__)) -> str:
    """The git commit of the running code; ``-modified`` is added if it has uncommitted changes.

    Args:
        module: this file, in the folder ``icnn_rl/runs`` of a checkout or of an installation.

    Returns:
        The hash; ``unknown`` if the package is not installed from a checkout in place.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(module.parents[2]), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(module))  # not just some checkout around it
        modified = git("status", "--porcelain", "--", "agents", "configs", "envs", "icnn_rl")
        return git("rev-parse", "HEAD") + ("-modified" if modified else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

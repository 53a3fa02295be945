"""The folder of a run: its configuration, and the versions of the code that made it."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import yaml

from icnn_rl.runs.configuration import from_plain, mapping_in
from icnn_rl.runs.storage import checksum, json_with_checksum, read_json, read_text, write_text

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

C = TypeVar("C")

_FORMAT = "icnn-rl run"
_CHECKSUM = "# checksum "


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
        if os.path.lexists(self.path) and (not self.path.is_dir() or any(self.path.iterdir())):
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
            "folder": {"path": str(Path.cwd()), "commit": commit_of(Path.cwd())},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {package: version(package) for package in packages},
        }
        self.path.mkdir(parents=True, exist_ok=True)
        try:  # if two runs found the folder empty, only one of them creates the file
            with self.versions_file.open("x", encoding="utf-8") as file:
                file.write(json_with_checksum(versions, _FORMAT))
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
        line, _, text = read_text(self.config_file).partition("\n")
        if line.startswith(_CHECKSUM):
            if line.removeprefix(_CHECKSUM).split(";")[0] != checksum(text):
                raise ValueError(
                    f"{self.config_file} was changed since it was written: its checksum is wrong; "
                    f"if that was you, delete its first line"
                )
        else:
            text = f"{line}\n{text}"
        return mapping_in(text, str(self.config_file))

    def load_config(self, config_class: type[C]) -> C:
        """The configuration of the run, as an instance of its dataclass.

        Raises:
            ValueError: the folder is no run of this kind, or its configuration is damaged.
        """
        return from_plain(config_class, self.read_config(), str(self.config_file))

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration, given as plain data."""
        text = yaml.safe_dump(dict(config), sort_keys=False)
        first = f"{_CHECKSUM}{checksum(text)}; delete this line after a change by hand\n"
        write_text(first + text, self.config_file)

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
        return read_json(self.versions_file, _FORMAT)

    def _not_empty(self) -> ValueError:
        what = "is not empty" if self.path.is_dir() else "is no folder"
        return ValueError(f"the run folder {self.path} {what}; choose another with --run-dir")


@contextmanager
def new_folder(name: str, seed: int) -> Iterator[Path]:
    """The new folder runs/NAME-seedK-TIMESTAMP; it is removed if nothing was written to it.

    NAME is made fit for a folder. If there is one already, which another process may have made at
    this moment, -2, -3, … is added.
    """
    name = name.replace(":", "-").replace("/", "-").lower()
    first = Path("runs") / f"{name}-seed{seed}-{datetime.now():%Y%m%d-%H%M%S}"
    others = (first.with_name(f"{first.name}-{k}") for k in count(2))
    path = next(path for path in chain([first], others) if _make(path))
    try:
        yield path
    finally:
        with suppress(OSError):  # they are not empty
            path.rmdir()
            path.parent.rmdir()


def _make(path: Path) -> bool:
    """Whether this process made the folder."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if path.parent.is_dir():
            return False
        raise
    return True


def installed_commit(module: Path = Path(__file__)) -> str:
    """The git commit of the running code; ``-modified`` is added if it has uncommitted changes.

    Args:
        module: this file, in the folder ``icnn_rl/runs`` of a checkout or of an installation.

    Returns:
        The hash; ``unknown`` if the package is not installed from a checkout in place.
    """

    folder = module.parents[2]
    try:
        _git(folder, "ls-files", "--error-unmatch", str(module))  # not just some checkout around it
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit_of(folder, "agents", "configs", "envs", "icnn_rl") or "unknown"


def commit_of(folder: Path, *parts: str) -> str | None:
    """The git commit of a folder, with ``-modified`` if files that git knows are changed.

    Args:
        folder: in a checkout; the commit is None if it is in none.
        parts: of the checkout, which alone count; there new files are changes, too.
    """
    try:
        new = [] if parts else ["--untracked-files=no"]
        modified = _git(folder, "status", "--porcelain", *new, "--", *parts)
        return _git(folder, "rev-parse", "HEAD") + ("-modified" if modified else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

"""Public data sets as arrays: found in a folder, or downloaded once, and checked."""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from icnn_rl.runs.storage import Arrays, digest

_DAMAGED = (ValueError, EOFError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error)


def data_folder() -> Path:
    """$ICNN_RL_DATA, or else ``icnn-rl`` in the user's cache ($XDG_CACHE_HOME or ~/.cache)."""
    if chosen := os.environ.get("ICNN_RL_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "icnn-rl"


@final
@dataclass(frozen=True)
class DataSet:
    """A data set: public files, how to decode them, and the ``digest`` of the arrays they hold.

    Args:
        title: the name in messages.
        name: the name of an archive ``{name}.npz`` with the same arrays, which replaces the files.
        mirrors: addresses of the folder with the files, tried in this order.
        files: names of the files, and the SHA-256 of each.
        decode: makes the arrays from the contents of the files, unpacked, in their order.
        sha256: the ``digest`` of the arrays.
    """

    title: str
    name: str
    mirrors: tuple[str, ...]
    files: Mapping[str, str]
    decode: Callable[[Sequence[bytes]], Arrays]
    sha256: str

    def arrays(self, path: str | os.PathLike[str] | None = None) -> Arrays:
        """The arrays, from a local folder or archive or else from the cache folder.

        Args:
            path: the archive, or a folder with it or with the files, gzipped or not; None for the
                cache folder (``data_folder``), to which missing files are downloaded.

        Raises:
            FileNotFoundError: the data are not there, and the download failed.
            ValueError: the data found are not this data set.
        """
        place = data_folder() if path is None else Path(path).expanduser()
        archive = place if place.suffix == ".npz" else place / f"{self.name}.npz"
        try:
            if archive.is_file():
                with archive.open("rb") as file, np.load(file) as stored:
                    arrays: Arrays = dict(stored)
            else:
                arrays = self.decode([self._read(file, place, path is None) for file in self.files])
            if (found := digest(arrays)) != self.sha256:
                raise ValueError(f"expected arrays of SHA-256 {self.sha256}; got {found}")
        except _DAMAGED as error:
            raise ValueError(f"{place}: not {self.title} ({self._contents}); {error}") from error
        return arrays

    @property
    def _contents(self) -> str:
        return f"{self.name}.npz or {' + '.join(self.files)}"

    def _read(self, file: str, folder: Path, download: bool) -> bytes:
        """The content of a file, unpacked."""
        candidates = (folder / file, folder / file.removesuffix(".gz"))
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            path = self._download(file, folder, download)
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content

    def _download(self, file: str, folder: Path, allowed: bool) -> Path:
        import pooch

        reasons = [] if allowed else ["nothing is downloaded where a path is given"]
        for mirror in self.mirrors if allowed else ():
            try:
                return Path(pooch.retrieve(f"{mirror}/{file}", self.files[file], file, folder))
            except (OSError, ValueError) as error:  # no connection, or another SHA-256
                reasons.append(str(error))
        addresses = ", ".join(f"{self.mirrors[0]}/{name}" for name in self.files)
        variable = " or the variable ICNN_RL_DATA" if allowed else ""
        raise FileNotFoundError(
            f"{self.title}: expected {self._contents} in {folder}, and {file} could not be had "
            f"({'; '.join(reasons)}). Without a network, download {addresses} elsewhere and put "
            f"the files into that folder, or name another one by path= (`--data`){variable}"
        )

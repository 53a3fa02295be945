"""Public data sets on this machine: the cache folder, downloads, and the check of what was read."""

from __future__ import annotations

import gzip
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, final
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

TIMEOUT = 60.0  # seconds without an answer
_GZIP = b"\x1f\x8b"


def data_folder() -> Path:
    """$ICNN_RL_DATA, or else ``icnn-rl`` in the user's cache ($XDG_CACHE_HOME or ~/.cache)."""
    if chosen := os.environ.get("ICNN_RL_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "icnn-rl"


def digest(arrays: Arrays) -> str:
    """SHA-256 over the names, types, shapes and entries of arrays, whatever file they came in."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        text = array.dtype.kind == "U"
        content = "\n".join(array.tolist()).encode() if text else np.ascontiguousarray(array).data
        kind = "text" if text else array.dtype.newbyteorder("<").str
        sha.update(f"{name} {kind} {array.shape}\n".encode())
        sha.update(content)
    return sha.hexdigest()


@final
@dataclass(frozen=True)
class Original:
    """A public file: its name, where it can be had, and the SHA-256 of its content, unpacked."""

    name: str
    urls: tuple[str, ...]
    sha256: str

    def find(self, folder: Path) -> Path | None:
        """The file in ``folder``, as it is or gzipped."""
        candidates = (folder / self.name, folder / f"{self.name}.gz")
        return next((path for path in candidates if path.is_file()), None)

    def checked(self, content: bytes) -> bytes:
        """The content, unpacked.

        Raises:
            ValueError: it is not that of this file.
        """
        try:
            unpacked = gzip.decompress(content) if content.startswith(_GZIP) else content
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.name}: expected a whole gzip file; {error}") from error
        if (found := hashlib.sha256(unpacked).hexdigest()) != self.sha256:
            raise ValueError(f"{self.name}: expected SHA-256 {self.sha256}; got {found}")
        return unpacked

    def download(self, folder: Path) -> Path:
        """Put the file into ``folder``, once its hash is right.

        Raises:
            OSError: no address gave the file; the message says what each one answered.
        """
        answers = []
        for url in self.urls:
            try:
                with urlopen(url, timeout=TIMEOUT) as response:
                    return _store(self.checked(response.read()), folder / self.name)
            except (OSError, HTTPException, ValueError) as error:
                answers.append(f"{url}: {error}")
        raise OSError("; ".join(answers))


@final
@dataclass(frozen=True)
class DataSet:
    """A data set: its public files, how they become arrays, and the ``digest`` of those.

    An archive ``{name}.npz`` with the same arrays may stand in for the files.
    """

    title: str
    name: str
    originals: tuple[Original, ...]
    decode: Callable[[Sequence[bytes]], Arrays]
    sha256: str

    def arrays(self, path: str | os.PathLike[str] | None = None) -> Arrays:
        """The arrays, from a local file or folder or, without one, from the cache folder.

        Args:
            path: an archive, the public file, or a folder with either; None for the cache folder
                (see ``data_folder``), which is filled by a download where it must be.

        Raises:
            FileNotFoundError: there is no such data, and it could not be downloaded.
            ValueError: what was found is not this data set.
        """
        place = data_folder() if path is None else Path(path).expanduser()
        archive = place / f"{self.name}.npz" if place.is_dir() else place
        try:
            if archive.suffix == ".npz" and archive.is_file():
                arrays = _read_archive(archive)
            else:
                files = self._files(place, download=path is None)
                arrays = self.decode(
                    [o.checked(f.read_bytes()) for o, f in zip(self.originals, files, strict=True)]
                )
            if (found := digest(arrays)) != self.sha256:
                raise ValueError(f"expected arrays of SHA-256 {self.sha256}; got {found}")
        except ValueError as error:
            raise ValueError(f"{place}: not {self.title} ({self._contents}); {error}") from error
        return arrays

    @property
    def _contents(self) -> str:
        return f"{self.name}.npz or " + " + ".join(original.name for original in self.originals)

    def _files(self, place: Path, download: bool) -> list[Path]:
        """Where the public files are, after downloading those that are not there."""
        if place.is_file():
            if len(self.originals) > 1:
                raise ValueError("expected the folder with all of the files; got one file")
            return [place]
        found = [original.find(place) for original in self.originals]
        try:
            if not download and None in found:
                raise OSError("where a path is given nothing is downloaded")
            return [
                file or original.download(place)
                for file, original in zip(found, self.originals, strict=True)
            ]
        except OSError as error:
            variable = " or the variable ICNN_RL_DATA" if download else ""
            addresses = ", ".join(original.urls[0] for original in self.originals)
            raise FileNotFoundError(
                f"{self.title}: expected {self._contents} in {place}, and it could not be had "
                f"({error}). Without a network, download {addresses} elsewhere and put the files "
                f"into that folder, or name another one by path= (`--data`){variable}"
            ) from error


def _read_archive(archive: Path) -> Arrays:
    try:
        with np.load(archive) as stored:
            return dict(stored)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"expected a whole npz archive; {error}") from error


def _store(content: bytes, target: Path) -> Path:
    """Write a file in one step: under its name there is all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
    try:
        partial.write_bytes(content)
        return partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)

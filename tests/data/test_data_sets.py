"""Files are found, downloaded, checked and refused as promised; the server is this machine."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from icnn_rl.data.files import DataSet, data_folder, digest
from icnn_rl.data.images import MNIST, OLIVETTI, load_mnist, load_olivetti, read_idx
from icnn_rl.data.multi_label import BIBTEX, DELICIOUS, load_bibtex

NUMBERS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + NUMBERS.tobytes()


PACKED = gzip.compress(IDX)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and its address on a server of this machine."""
    folder = tmp_path_factory.mktemp("server")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))
    ) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def server(served: tuple[Path, str]) -> Path:
    (served[0] / "numbers-idx3.gz").write_bytes(PACKED)
    return served[0]


@pytest.fixture
def numbers(
    served: tuple[Path, str], server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DataSet:
    """A data set of one file, of which one mirror of two has it, with an empty cache."""
    monkeypatch.setenv("ICNN_RL_DATA", str(tmp_path / "cache"))
    return DataSet(
        title="the numbers",
        name="numbers",
        mirrors=(f"{served[1]}/gone", served[1]),
        files={"numbers-idx3.gz": hashlib.sha256(PACKED).hexdigest()},
        decode=lambda contents: {"x": read_idx(contents[0])},
        sha256=digest({"x": NUMBERS}),
    )


def test_download_once_then_from_the_cache(numbers: DataSet, server: Path, tmp_path: Path) -> None:
    assert np.array_equal(numbers.arrays()["x"], NUMBERS)
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["numbers-idx3.gz"]
    (server / "numbers-idx3.gz").unlink()
    assert np.array_equal(numbers.arrays()["x"], NUMBERS)


def test_download_with_a_wrong_hash_is_refused_and_not_kept(
    numbers: DataSet, server: Path, tmp_path: Path
) -> None:
    (server / "numbers-idx3.gz").write_bytes(gzip.compress(IDX[:-1] + b"?"))
    with pytest.raises(FileNotFoundError, match=r"404 .*; SHA256 hash of downloaded file"):
        numbers.arrays()
    assert not list((tmp_path / "cache").iterdir())


def test_no_network_says_what_to_do(numbers: DataSet, server: Path, tmp_path: Path) -> None:
    (server / "numbers-idx3.gz").unlink()
    with pytest.raises(FileNotFoundError) as error:
        numbers.arrays()
    for part in ("the numbers", "numbers.npz or numbers-idx3.gz", str(tmp_path / "cache"), "path="):
        assert part in str(error.value)


def test_local_folders_and_archives(numbers: DataSet, server: Path, tmp_path: Path) -> None:
    unpacked, archives = tmp_path / "unpacked", tmp_path / "archives"
    for folder in (unpacked, archives):
        folder.mkdir()
    (unpacked / "numbers-idx3").write_bytes(IDX)
    np.savez_compressed(archives / "numbers.npz", x=NUMBERS)
    for place in (server, unpacked, str(archives), archives / "numbers.npz"):
        assert np.array_equal(numbers.arrays(place)["x"], NUMBERS)
    assert not (tmp_path / "cache").exists()


def test_nothing_is_downloaded_where_a_path_is_given(numbers: DataSet, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "numbers.npz"):
        with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
            numbers.arrays(place)


@pytest.mark.parametrize("name", ["numbers.npz", "numbers-idx3.gz", "numbers-idx3"])
@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"PK\x03\x04", IDX[:9]])
def test_damaged_files_are_refused(
    numbers: DataSet, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not the numbers"):
        numbers.arrays(tmp_path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": NUMBERS + 1},
        {"x": NUMBERS.astype(np.int8)},
        {"x": NUMBERS[:, ::-1]},
        {"x": NUMBERS.reshape(6, 4)},
        {"z": NUMBERS},
        {"x": NUMBERS, "z": NUMBERS},
        {"x": np.array([None])},
    ],
)
def test_archives_with_other_arrays_are_refused(
    numbers: DataSet, tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    np.savez(tmp_path / "numbers.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not the numbers"):
        numbers.arrays(tmp_path)


def test_digest_does_not_depend_on_memory_order() -> None:
    names = {"x": np.array(["a", "bc"])}
    assert digest({"x": np.asfortranarray(NUMBERS)}) == digest({"x": NUMBERS})
    assert digest({"x": names["x"].astype("U9")}) == digest(names)
    assert digest({"x": NUMBERS.astype(">i4")}) != digest({"x": NUMBERS})


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ICNN_RL_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("ICNN_RL_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "icnn-rl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_folder() == Path.home() / ".cache" / "icnn-rl"


@pytest.mark.parametrize("data", [MNIST, OLIVETTI, BIBTEX, DELICIOUS], ids=lambda data: data.name)
def test_every_file_has_a_secure_address_and_a_hash(data: DataSet) -> None:
    assert all(url.startswith("https://") for url in data.mirrors)
    assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in data.files.values())
    assert len(bytes.fromhex(data.sha256)) == 32


@pytest.mark.parametrize("load", [load_mnist, load_olivetti, load_bibtex])
def test_loaders_refuse_other_data(load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    np.savez(tmp_path / "other.npz", x_train=NUMBERS)
    with pytest.raises(ValueError, match="expected arrays of SHA-256"):
        load(tmp_path / "other.npz")

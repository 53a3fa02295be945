"""Images: MNIST (LeCun, Cortes and Burges, 1998) and the Olivetti faces (AT&T, 1994)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from icnn_rl.data.files import DataSet
from icnn_rl.runs.storage import Arrays


@final
@dataclass(frozen=True)
class Digits:
    """Images and their digits.

    Attributes:
        x_train, x_test: images ``(N, 28, 28)`` uint8, 0 background to 255 ink.
        y_train, y_test: digits ``(N,)`` uint8, 0 to 9.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.uint8]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.uint8]


@final
@dataclass(frozen=True)
class Faces:
    """Portraits, ten of a person after each other.

    Attributes:
        images: ``(400, 64, 64)`` uint8, grey, axes (image, row, column), upright.
        subject: ``(400,)`` uint8, the person, 0 to 39.
    """

    images: NDArray[np.uint8]
    subject: NDArray[np.uint8]


def read_idx(content: bytes) -> NDArray[np.uint8]:
    """The array in an IDX file of bytes: two zeros, type 8, the number of axes, sizes, entries.

    Raises:
        ValueError: not such a file.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"content: expected an IDX file of bytes; got {content[:4]!r}")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _decode_mnist(contents: Sequence[bytes]) -> Arrays:
    keys = ("x_train", "y_train", "x_test", "y_test")
    return {key: read_idx(content) for key, content in zip(keys, contents, strict=True)}


def _decode_olivetti(contents: Sequence[bytes]) -> Arrays:
    from scipy.io import loadmat

    faces = loadmat(io.BytesIO(contents[0]))["faces"]  # a column an image, its columns in a row
    images = np.ascontiguousarray(faces.T.reshape(-1, 64, 64).transpose(0, 2, 1))
    return {"images": images, "subject": np.arange(40, dtype=np.uint8).repeat(len(images) // 40)}


# Not fetch_openml: its MNIST is a table of 70,000 rows in float64 that takes minutes to parse.
MNIST = DataSet(
    title="MNIST",
    name="mnist",
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist",
    ),
    files={
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
    decode=_decode_mnist,
    sha256="8fc8fc4f0343f34ece1fcfdfb65f0801fac48030ce7c70e62bbb62f64ee2e65b",
)
# Not fetch_olivetti_faces: it rescales the grey values, and caches a pickle.
OLIVETTI = DataSet(
    title="the Olivetti faces",
    name="olivetti",
    mirrors=(
        "https://raw.githubusercontent.com/sjgershm/DBM/a30d9abb523aab874a299b8b1aa21e7df2023f60",
    ),
    files={"olivettifaces.mat": "b1988d02c72fe5b8ee82b5ef3bb7982eafc74f1e1ff0ae0ade35061ad0af534d"},
    decode=_decode_olivetti,
    sha256="8fce11eb2bbf2635b50445084062652eaaaa3ea1d89eda76e068627166d2534d",
)


def load_mnist(path: str | os.PathLike[str] | None = None) -> Digits:
    """MNIST in its original order: 60000 images to train on, 10000 to test on.

    Args:
        path: a folder with the four IDX files, gzipped or not, or with an archive ``mnist.npz`` of
            the arrays of ``Digits``, or that archive; None for the cache folder, to which missing
            files are downloaded.

    Raises:
        FileNotFoundError: the data are not there, and the download failed.
        ValueError: the data found are not MNIST.
    """
    return Digits(**MNIST.arrays(path))


def load_olivetti(path: str | os.PathLike[str] | None = None) -> Faces:
    """The Olivetti faces, grey values as they are in the public MATLAB file (0 to 242).

    Args:
        path: a folder with ``olivettifaces.mat`` or with an archive ``olivetti.npz`` of the arrays
            of ``Faces``, or that archive; None for the cache folder, to which the missing file is
            downloaded.

    Raises:
        FileNotFoundError: the data are not there, and the download failed.
        ValueError: the data found are not this data set.
    """
    return Faces(**OLIVETTI.arrays(path))

"""MNIST: 70000 handwritten digits (LeCun, Cortes and Burges, 1998)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from icnn_rl.data.cache import Arrays, DataSet, Original

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)


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


def _decode(contents: Sequence[bytes]) -> Arrays:
    return {key: read_idx(content) for key, content in zip(_KEYS, contents, strict=True)}


def _original(name: str, sha256: str) -> Original:
    return Original(name, tuple(f"{mirror}/{name}.gz" for mirror in _MIRRORS), sha256)


MNIST = DataSet(
    title="MNIST",
    name="mnist",
    originals=(
        _original(
            "train-images-idx3-ubyte",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        _original(
            "train-labels-idx1-ubyte",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        _original(
            "t10k-images-idx3-ubyte",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        _original(
            "t10k-labels-idx1-ubyte",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    decode=_decode,
    sha256="8fc8fc4f0343f34ece1fcfdfb65f0801fac48030ce7c70e62bbb62f64ee2e65b",
)


def load_mnist(path: str | os.PathLike[str] | None = None) -> Digits:
    """MNIST in its original order: 60000 images to train on, 10000 to test on.

    Args:
        path: a folder with the four IDX files, gzipped or not, or an archive ``mnist.npz`` with
            the arrays ``x_train``, ``y_train``, ``x_test``, ``y_test`` of ``Digits``; None for the
            cache folder, into which they are downloaded once.

    Raises:
        FileNotFoundError: there is no such data, and it could not be downloaded.
        ValueError: what was found is not MNIST.
    """
    return Digits(**MNIST.arrays(path))

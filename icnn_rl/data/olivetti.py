"""Olivetti faces: ten portraits of each of 40 people (AT&T Laboratories Cambridge, 1994)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from icnn_rl.data.cache import Arrays, DataSet, Original

_PEOPLE, _SIDE = 40, 64


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


def _decode(contents: Sequence[bytes]) -> Arrays:
    from scipy.io import loadmat

    faces = loadmat(io.BytesIO(contents[0]))["faces"]  # a column an image, its columns in a row
    images = np.ascontiguousarray(faces.T.reshape(-1, _SIDE, _SIDE).transpose(0, 2, 1))
    subject = np.arange(_PEOPLE, dtype=np.uint8).repeat(len(images) // _PEOPLE)
    return {"images": images, "subject": subject}


OLIVETTI = DataSet(
    title="the Olivetti faces",
    name="olivetti",
    originals=(
        Original(
            "olivettifaces.mat",
            (
                "https://raw.githubusercontent.com/sjgershm/DBM/"
                "a30d9abb523aab874a299b8b1aa21e7df2023f60/olivettifaces.mat",
            ),
            "b1988d02c72fe5b8ee82b5ef3bb7982eafc74f1e1ff0ae0ade35061ad0af534d",
        ),
    ),
    decode=_decode,
    sha256="8fce11eb2bbf2635b50445084062652eaaaa3ea1d89eda76e068627166d2534d",
)


def load_olivetti(path: str | os.PathLike[str] | None = None) -> Faces:
    """The Olivetti faces, grey values as they are in the public MATLAB file (0 to 242).

    Args:
        path: the file ``olivettifaces.mat``, an archive ``olivetti.npz`` with the arrays
            ``images`` and ``subject`` of ``Faces``, or a folder with either; None for the cache
            folder, into which the file is downloaded once.

    Raises:
        FileNotFoundError: there is no such data, and it could not be downloaded.
        ValueError: what was found is not this data set.
    """
    return Faces(**OLIVETTI.arrays(path))

"""BibTeX and Delicious: sparse binary features, and tags of which several hold at once.

The splits are those of Mulan (Tsoumakas et al., JMLR 2011), whose files are sparse ARFF.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from icnn_rl.data.files import DataSet
from icnn_rl.runs.storage import Arrays

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_ATTRIBUTE = re.compile(r"@attribute\s+(?P<name>'.*?'|\".*?\"|\S+)\s+\S", re.IGNORECASE)


@final
@dataclass(frozen=True)
class MultiLabelSplit:
    """Samples with any number of labels.

    Attributes:
        x_train, x_test: sparse features ``(N, features)`` float32, each 0 or 1.
        y_train, y_test: labels ``(N, labels)`` uint8, each 0 or 1.
        feature_names, label_names: what the columns stand for.
    """

    x_train: csr_array
    y_train: NDArray[np.uint8]
    x_test: csr_array
    y_test: NDArray[np.uint8]
    feature_names: NDArray[np.str_]
    label_names: NDArray[np.str_]


def read_arff(text: str) -> tuple[list[str], csr_array]:
    """Names of the columns and the entries of a binary ARFF file with sparse rows.

    A row is ``{3 1,17 1}``: columns, counted from 0, and their values; the others are 0. SciPy's
    reader refuses sparse rows.

    Raises:
        ValueError: not such a file; the message gives the line.
    """
    from scipy.sparse import csr_array

    names: list[str] = []
    columns: list[int] = []
    ends = [0]
    in_data = False
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line.startswith("%"):
            continue
        if not in_data:
            if attribute := _ATTRIBUTE.match(line):
                names.append(attribute["name"].strip("'\""))
            in_data = line.lower() == "@data"
            continue
        entries = [entry.split() for entry in line.strip("{}").split(",") if entry.strip()]
        if line[0] + line[-1] != "{}" or any(len(e) != 2 or e[1] != "1" for e in entries):
            raise ValueError(f"line {number}: expected '{{column 1,...}}', got {line[:40]!r}")
        row = sorted(int(column) for column, _ in entries)
        if row and not 0 <= row[0] <= row[-1] < len(names):
            raise ValueError(f"line {number}: expected columns below {len(names)}, got {row}")
        columns += row
        ends.append(len(columns))
    if not in_data:
        raise ValueError("text: expected an ARFF file, found no line @data")
    shape = (len(ends) - 1, len(names))
    return names, csr_array((np.ones(len(columns), np.uint8), columns, ends), shape=shape)


def _decode(labels: int, contents: Sequence[bytes]) -> Arrays:
    (names, train), (names_test, test) = (read_arff(content.decode()) for content in contents)
    if names != names_test:
        raise ValueError("the two parts do not have the same columns")
    features = len(names) - labels
    arrays = {
        "feature_names": np.array(names[:features]),
        "label_names": np.array(names[features:]),
    }
    pieces = (train[:, :features], train[:, features:], test[:, :features], test[:, features:])
    for key, matrix in zip(("x_train", "y_train", "x_test", "y_test"), pieces, strict=True):
        arrays |= {
            f"{key}_data": matrix.data,
            f"{key}_indices": matrix.indices.astype(np.int32),
            f"{key}_indptr": matrix.indptr.astype(np.int32),
            f"{key}_shape": np.array(matrix.shape, np.int64),
        }
    return arrays


def _mulan(title: str, name: str, labels: int, train: str, test: str, sha256: str) -> DataSet:
    """A set of Mulan's repository, given the SHA-256 of its two parts and of its arrays."""
    commit = "43f6389095ad71984264db4387a8074b22bc7d4a"
    return DataSet(
        title=title,
        name=name,
        mirrors=(
            f"https://raw.githubusercontent.com/tsoumakas/mulan/{commit}/data/multi-label/{name}",
        ),
        files={f"{name}-train.arff": train, f"{name}-test.arff": test},
        decode=partial(_decode, labels),
        sha256=sha256,
    )


BIBTEX = _mulan(
    title="BibTeX",
    name="bibtex",
    labels=159,
    train="8dcc9de6e0b2cebaec8c1f4fac78431adeeb73cfd3ab879b530a66d366e59174",
    test="9b03329cde64d3f994bdf7fbbac3f3b10fe185c311cb9ae725475f59c7f3f922",
    sha256="b9ee2053695bade1c2522b720e8fe15b1df8537fe58c511879b162abc46bbe88",
)
DELICIOUS = _mulan(
    title="Delicious",
    name="delicious",
    labels=983,
    train="030186cdb542ebdd32052fcdbb1ebe30115b3a22518c1b4b198c45eb827aebe1",
    test="2dfb01723a819914b0ca83361177ed413ce3f2169851d9f228d4692915d63944",
    sha256="fce27dcb61ce5eb5c8425119f5e23c4e0708225786edce73d58951c89e00cebb",
)


def _load(data: DataSet, path: str | os.PathLike[str] | None) -> MultiLabelSplit:
    from scipy.sparse import csr_array

    arrays = data.arrays(path)

    def matrix(key: str) -> csr_array:
        parts = tuple(arrays[f"{key}_{part}"] for part in ("data", "indices", "indptr"))
        return csr_array(parts, shape=tuple(arrays[f"{key}_shape"]))

    return MultiLabelSplit(
        matrix("x_train").astype(np.float32),
        matrix("y_train").toarray(),
        matrix("x_test").astype(np.float32),
        matrix("y_test").toarray(),
        arrays["feature_names"],
        arrays["label_names"],
    )


def load_bibtex(path: str | os.PathLike[str] | None = None) -> MultiLabelSplit:
    """BibTeX: 1836 words and 159 tags of 4880 + 2515 entries (Katakis et al., ECML/PKDD 2008).

    Args:
        path: a folder with ``bibtex-train.arff`` and ``bibtex-test.arff`` or with an archive
            ``bibtex.npz``, or that archive, of the arrays ``feature_names`` and ``label_names`` and
            the four matrices in CSR form, ``x_train_data``, ``x_train_indices``,
            ``x_train_indptr``, ``x_train_shape`` and so on (uint8, int32, int32, int64); None for
            the cache folder, to which missing files are downloaded.

    Raises:
        FileNotFoundError: the data are not there, and the download failed.
        ValueError: the data found are not this data set.
    """
    return _load(BIBTEX, path)


def load_delicious(path: str | os.PathLike[str] | None = None) -> MultiLabelSplit:
    """Delicious: 500 words and 983 tags of 12920 + 3185 pages (Tsoumakas et al., ECML/PKDD 2008).

    Args:
        path: as in ``load_bibtex``, the files being named ``delicious`` instead.

    Raises:
        FileNotFoundError: the data are not there, and the download failed.
        ValueError: the data found are not this data set.
    """
    return _load(DELICIOUS, path)

"""The public files' formats, on small files made here."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy.io import savemat

from icnn_rl.data.images import OLIVETTI, read_idx
from icnn_rl.data.multi_label import BIBTEX, read_arff

ARFF = """\
% a comment
@relation tiny

@attribute word {0,1}
@ATTRIBUTE 'two words' {0,1}
@attribute TAG_m\\'usica {0,1}

@data

{0 1,2 1}
{}
{2 1, 1 1}
"""


def test_idx() -> None:
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])
    array = read_idx(content)
    assert array.dtype == np.uint8
    assert array.tolist() == [[1, 2, 3], [4, 5, 255]]
    assert array.flags.writeable


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x00\x0d\x01\x00\x00\x00\x00",
        bytes([0, 0, 8, 1, 0, 0, 0, 2, 7]),
        b"\x00\x00\x08\x02",
    ],
)
def test_idx_refuses(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"content|reshape|buffer|offset"):
        read_idx(content)


def test_arff() -> None:
    names, matrix = read_arff(ARFF)
    assert names == ["word", "two words", r"TAG_m\'usica"]
    assert matrix.toarray().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 1]]
    assert matrix.has_sorted_indices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line @data"),
        ("@data\n{0 1}", "line 2: expected columns below 0"),
        ("@attribute a {0,1}\n@data\n1,0", "line 3"),
        ("@attribute a {0,1}\n@data\n{0 2}", "line 3"),
        ("@attribute a {0,1}\n@data\n{0}", "line 3"),
        ("@attribute a {0,1}\n@data\n{-1 1}", "line 3: expected columns"),
        ("@attribute a {0,1}\n@data\n{x 1}", "invalid literal"),
    ],
)
def test_arff_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_arff(text)


def test_multi_label_files_become_features_and_labels() -> None:
    attributes = "".join(f"@attribute a{i} {{0,1}}\n" for i in range(161))
    train = f"@relation r\n{attributes}@data\n{{0 1,2 1}}\n{{1 1,160 1}}\n"
    test = f"@relation r\n{attributes}@data\n{{2 1,3 1}}\n"
    arrays = BIBTEX.decode([train.encode(), test.encode()])
    assert arrays["feature_names"].tolist() == ["a0", "a1"]
    assert arrays["label_names"].tolist() == [f"a{i}" for i in range(2, 161)]
    assert arrays["x_train_indices"].tolist() == [0, 1]
    assert arrays["y_train_indices"].tolist() == [0, 158]
    assert arrays["x_test_shape"].tolist() == [1, 2]
    assert arrays["y_test_indptr"].tolist() == [0, 2]
    with pytest.raises(ValueError, match="same columns"):
        BIBTEX.decode([train.encode(), test.replace("a7 ", "b7 ").encode()])


def test_faces_are_upright() -> None:
    images = np.random.default_rng(0).integers(256, size=(80, 64, 64), dtype=np.uint8)
    file = io.BytesIO()
    savemat(file, {"faces": images.transpose(2, 1, 0).reshape(4096, 80)})  # column after column
    arrays = OLIVETTI.decode([file.getvalue()])
    assert np.array_equal(arrays["images"], images)
    assert arrays["subject"].tolist() == [i // 2 for i in range(80)]

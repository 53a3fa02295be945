"""Files of a run: text, tables and trees of plain data, each replaced in one step.

Trees, tensors and JSON carry a checksum, and are read without pickle: arrays are stored as
safetensors, the rest as JSON.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

Arrays = Mapping[str, NDArray[Any]]

_PLAIN_TYPES = (type(None), bool, int, float, str)
_NUMERIC_KINDS = "biuf"  # the NumPy kinds that safetensors stores
_BIT_GENERATORS = {
    cls.__name__: cls
    for cls in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox)
}
_MAX_TEXT_BYTES = 1 << 24
_SIGNATURE = 64  # letters of a checksum
# Whatever a file holds, decoding it raises one of these at worst.
_DAMAGE = (
    *(SafetensorError, ValueError, LookupError, TypeError, AttributeError),
    *(RecursionError, OverflowError),
)


def brief(error: object, length: int = 200) -> str:
    """The message of an error on one line, cut to a length."""
    line = " ".join(str(error).split())
    return line if len(line) <= length else f"{line[:length]} …"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Within, an error of writing is an OSError that names the file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except (SafetensorError, RuntimeError) as error:  # as these libraries report a full disk
        raise OSError(f"{path} could not be written: {brief(error)}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on leaving, it replaces ``path`` in one step.

    Whatever happens, ``path`` holds either its old content or all of the new.

    Raises:
        OSError: the file could not be written; its text names the file.
    """
    temporary = path.with_name(f".partial-{path.name}")
    try:
        with _named(path):
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # safetensors writes a file that only its owner can read
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a UTF-8 file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def read_text(path: Path) -> str:
    """The content of a UTF-8 file.

    Raises:
        ValueError: it is no text, or too long to be a file of this package.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_TEXT_BYTES + 1)
    if len(content) > _MAX_TEXT_BYTES:
        raise ValueError(f"{path} is damaged: it is longer than {_MAX_TEXT_BYTES >> 20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {brief(error)}") from None


def checksum(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(content: Mapping[str, Any], path: Path, file_format: str) -> None:
    """Write a mapping as JSON, with a checksum, in one step.

    Args:
        content: plain data.
        path: the file.
        file_format: name of what the file is, checked when it is read.
    """
    write_text(json_with_checksum(content, file_format), path)


def json_with_checksum(content: Mapping[str, Any], file_format: str) -> str:
    """A mapping as JSON, with its format and its checksum."""
    content = {"format": file_format, **content}
    signed = content | {"checksum": checksum(json.dumps(content, sort_keys=True))}
    return json.dumps(signed, indent=2) + "\n"


def read_json(path: Path, file_format: str) -> dict[str, Any]:
    """The mapping in a file that ``write_json`` made.

    Raises:
        ValueError: the file is damaged, or of another format.
        OSError: the file cannot be read.
    """
    text = read_text(path)
    try:
        content: Any = json.loads(text)
        found = content.pop("checksum", None)
        intact = found == checksum(json.dumps(content, sort_keys=True))
        kind = content.pop("format", None)
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {brief(error)}") from None
    if kind != file_format:
        raise ValueError(f"{path} is not an {file_format}: it is {brief(repr(kind))}")
    if not intact:
        raise ValueError(f"{path} is damaged: its checksum is wrong")
    return dict(content)


class Table:
    """A CSV file with a column of steps, to which rows are appended.

    A row with a new column rewrites the file, any other adds a line. Unlike stable-baselines3's
    ``CSVOutputFormat``, which empties its file on opening, it continues the table of a resumed run.

    Args:
        path: the file; its rows are kept.
        key: the column of steps.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The rows as text, but for those that a kill left incomplete.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.path.exists():
            return []
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if None not in row]
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{self.path} is damaged: {brief(error)}") from None
        return [row for row in rows if None not in row.values() and row[self.key].isdigit()]

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        text = {name: str(value) for name, value in row.items()}
        columns = self._columns
        self.rows.append(text)
        if row.keys() <= set(columns):
            with _named(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns, restval="").writerow(text)
        else:
            self.restore(self.rows)

    def last_step(self) -> int:
        """The steps of the last row; 0 without rows."""
        return int(self.rows[-1][self.key]) if self.rows else 0

    def restore(self, rows: list[dict[str, str]]) -> None:
        """Have these rows and no others, whatever the file held."""
        self.rows = rows
        with (
            replacing(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)

    @property
    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))


def digest(arrays: Arrays) -> str:
    """SHA-256 of the names, types, shapes and entries of arrays, whatever file they came in."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        text = array.dtype.kind == "U"
        content = "\n".join(array.tolist()).encode() if text else np.ascontiguousarray(array).data
        kind = "text" if text else array.dtype.newbyteorder("<").str
        sha.update(f"{name} {kind} {array.shape}\n".encode())
        sha.update(content)
    return sha.hexdigest()


def _write_arrays(arrays: Arrays, content: Mapping[str, str], path: Path) -> None:
    text = json.dumps(content)
    # One entry, as the order of several is random.
    metadata = {"icnn_rl": checksum(text + digest(arrays)) + text}
    with replacing(path) as temporary:
        save_file(dict(arrays), temporary, metadata=metadata)


def _read_arrays(path: Path, file_format: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, "np") as file:
            found = (file.metadata() or {}).get("icnn_rl", "")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        signature, text = found[:_SIGNATURE], found[_SIGNATURE:]
        content = json.loads(text or "{}")
        kind = content.get("format")
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged, or no {file_format}: {brief(error)}") from None
    if kind != file_format:
        raise ValueError(f"{path} is not an {file_format}: it is {brief(repr(kind))}")
    if signature != checksum(text + digest(arrays)):
        raise ValueError(f"{path} is damaged: its checksum is wrong")
    return arrays, content


def write_tensors(parts: Mapping[str, Mapping[str, Tensor]], path: Path, file_format: str) -> None:
    """Write named groups of tensors, such as the weights of several networks, in one step."""
    arrays = {
        f"{part}.{name}": _contiguous(tensor.detach().cpu().numpy())
        for part, group in parts.items()
        for name, tensor in group.items()
    }
    _write_arrays(arrays, {"format": file_format}, path)


def read_tensors(
    path: Path, parts: Iterable[str], file_format: str
) -> dict[str, dict[str, Tensor]]:
    """The named groups of tensors in a file that ``write_tensors`` made.

    Raises:
        ValueError: the file is damaged, or of another format.
        OSError: the file cannot be read.
    """
    arrays, _ = _read_arrays(path, file_format)
    return {
        part: {
            name.removeprefix(f"{part}."): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith(f"{part}.")
        }
        for part in parts
    }


def write_tree(tree: Any, path: Path, file_format: str) -> None:
    """Write nested dicts, lists and tuples of numbers, strings, arrays, tensors and generators.

    Args:
        tree: the data.
        path: the file, replaced in one step.
        file_format: name of what the file is, checked when it is read.

    Raises:
        TypeError: the tree holds anything else.
    """
    arrays: dict[str, np.ndarray] = {}
    structure = json.dumps(encode(tree, arrays))
    _write_arrays(arrays, {"format": file_format, "tree": structure}, path)


def read_tree(path: Path, file_format: str) -> Any:
    """The tree in a file that ``write_tree`` made.

    Raises:
        ValueError: the file is damaged, or of another format.
        OSError: the file cannot be read.
    """
    arrays, description = _read_arrays(path, file_format)
    try:
        return _decode(json.loads(description["tree"]), arrays.__getitem__)
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {brief(error)}") from None


def encode(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree as JSON; its arrays are added to ``arrays``, and referred to by name.

    Types are exact: an ``IntEnum`` is no int, and a ``defaultdict`` no dict.

    Raises:
        TypeError: the tree holds something that is not plain data.
    """
    if type(tree) in _PLAIN_TYPES:
        return tree
    if type(tree) is list:
        return [encode(value, arrays) for value in tree]
    if type(tree) in (tuple, set):
        return {type(tree).__name__: [encode(value, arrays) for value in tree]}
    if type(tree) is deque:
        return {"deque": [encode(list(tree), arrays), tree.maxlen]}
    if type(tree) in (dict, OrderedDict):
        kind = "dict" if type(tree) is dict else "ordered"
        return {kind: [[encode(k, arrays), encode(v, arrays)] for k, v in tree.items()]}
    if isinstance(tree, Tensor):
        return {"tensor": _add(tree.detach().cpu().numpy(), arrays)}
    if type(tree) is np.ndarray and _storable(tree.dtype):
        return {"array": _add(tree, arrays)}
    if isinstance(tree, np.generic) and _storable(tree.dtype):
        return {"scalar": _add(np.asarray(tree), arrays)}
    if type(tree) is np.random.Generator:
        return {"generator": encode(tree.bit_generator.state, arrays)}
    raise TypeError(f"{type(tree).__name__} is not plain data")


def _decode(tree: Any, array: Callable[[str], np.ndarray]) -> Any:
    """The inverse of ``encode``; ``array`` returns the array of a name."""
    if isinstance(tree, list):
        return [_decode(value, array) for value in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    match kind:
        case "tuple":
            return tuple(_decode(value, array) for value in content)
        case "set":
            return {_decode(value, array) for value in content}
        case "deque":
            values, length = content
            return deque(_decode(values, array), length)
        case "dict":
            return {_decode(k, array): _decode(v, array) for k, v in content}
        case "ordered":
            return OrderedDict((_decode(k, array), _decode(v, array)) for k, v in content)
        case "tensor":
            return torch.from_numpy(array(content))
        case "array":
            return array(content)
        case "scalar":
            return array(content)[()]
        case "generator":
            state = _decode(content, array)
            bits = _BIT_GENERATORS[state["bit_generator"]]()
            bits.state = state
            return np.random.Generator(bits)
    raise KeyError(kind)


def _storable(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in _NUMERIC_KINDS and dtype.itemsize <= 8 and dtype.isnative


def _add(array: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    name = str(len(arrays))
    arrays[name] = _contiguous(array)
    return name


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(array.shape)  # which makes 0-d arrays 1-d

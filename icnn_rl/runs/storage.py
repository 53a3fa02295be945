"""Files of a run: text, tables and trees of plain data, each replaced in one step.

Trees and tensors are read without pickle: arrays are stored as safetensors, the rest as JSON.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_tensors
from torch import Tensor

_PLAIN_TYPES = (type(None), bool, int, float, str)
_NUMERIC_KINDS = "biuf"  # the NumPy kinds that safetensors stores
_BIT_GENERATORS = {
    cls.__name__: cls
    for cls in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox)
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on leaving, it replaces ``path`` in one step.

    Whatever happens, ``path`` holds either its old content or all of the new.
    """
    temporary = path.with_name(f".partial-{path.name}")
    temporary.touch()
    mode = temporary.stat().st_mode
    try:
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
        self.rows = _complete_rows(path) if path.exists() else []
        self._columns = list(self.rows[0]) if self.rows else []

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        text = {name: str(value) for name, value in row.items()}
        self.rows.append(text)
        if row.keys() <= set(self._columns):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(text)
        else:
            self._columns += [name for name in row if name not in self._columns]
            self._rewrite()

    def last_step(self) -> int:
        """The steps of the last row; 0 without rows."""
        return int(self.rows[-1][self.key]) if self.rows else 0

    def drop_after(self, steps: int) -> None:
        """Drop the rows beyond a number of steps, and those that a kill left incomplete."""
        if self.path.exists():
            keys = (row[self.key] for row in self.rows)
            kept = [key.isdigit() and int(key) <= steps for key in keys]
            self.rows = [row for row, keep in zip(self.rows, kept, strict=True) if keep]
            self._rewrite()

    def _rewrite(self) -> None:
        with (
            replacing(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


def _complete_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [row for row in rows if None not in row and None not in row.values()]


def write_tensors(parts: Mapping[str, Mapping[str, Tensor]], path: Path, file_format: str) -> None:
    """Write named groups of tensors, such as the weights of several networks, in one step."""
    tensors = {
        f"{part}.{name}": tensor.contiguous()
        for part, group in parts.items()
        for name, tensor in group.items()
    }
    with replacing(path) as temporary:
        save_tensors(tensors, temporary, metadata={"format": file_format})


def read_tensors(path: Path, parts: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """The named groups of tensors in a file that ``write_tensors`` made.

    Raises:
        ValueError: the file is damaged.
        OSError: the file cannot be read.
    """
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no weights: {error}") from None
    return {
        part: {
            name.removeprefix(f"{part}."): tensor
            for name, tensor in tensors.items()
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
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={"kind": file_format, "tree": structure})


def read_tree(path: Path, file_format: str) -> Any:
    """The tree in a file that ``write_tree`` made.

    Raises:
        ValueError: the file is damaged, or of another format.
        OSError: the file cannot be read.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if (found := metadata.get("kind")) != file_format:
                raise ValueError(f"{path} is not an {file_format}: it is {found!r}")
            return _decode(json.loads(metadata["tree"]), file.get_tensor)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged, or no {file_format}: {error}") from None


def encode(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree as JSON; its arrays are added to ``arrays``, and referred to by name.

    Raises:
        TypeError: the tree holds something that is not plain data.
    """
    if isinstance(tree, _PLAIN_TYPES) and not isinstance(tree, np.generic):
        return tree
    if type(tree) is list:
        return [encode(value, arrays) for value in tree]
    if type(tree) is tuple:
        return {"tuple": [encode(value, arrays) for value in tree]}
    if isinstance(tree, dict):
        return {"dict": [[encode(k, arrays), encode(v, arrays)] for k, v in tree.items()]}
    if isinstance(tree, Tensor):
        return {"tensor": _add(tree.detach().cpu().numpy(), arrays)}
    if isinstance(tree, np.ndarray) and tree.dtype.kind in _NUMERIC_KINDS:
        return {"array": _add(tree, arrays)}
    if isinstance(tree, np.generic) and tree.dtype.kind in _NUMERIC_KINDS:
        return {"scalar": _add(np.asarray(tree), arrays)}
    if isinstance(tree, np.random.Generator):
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
        case "dict":
            return {_decode(k, array): _decode(v, array) for k, v in content}
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


def _add(array: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    name = str(len(arrays))
    arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    return name

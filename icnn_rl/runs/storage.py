"""Trees of plain data in one file, without pickle: arrays as safetensors, the rest as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

PLAIN = (type(None), bool, int, float, str)
NUMERIC = "biuf"  # kinds of NumPy arrays that safetensors holds
BIT_GENERATORS = {
    cls.__name__: cls
    for cls in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox)
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which on leaving replaces ``path`` in one step.

    Whatever happens, ``path`` holds its old content or all of the new.
    """
    temporary = path.with_name(f".partial-{path.name}")
    temporary.touch()
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)  # safetensors leaves a file that only its owner can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tree(tree: Any, path: Path, kind: str) -> None:
    """Write nested dicts, lists and tuples of numbers, strings, arrays, tensors and generators.

    Args:
        tree: the data.
        path: the file, replaced in one step.
        kind: what the file is, asked for again when it is read.

    Raises:
        TypeError: the tree holds anything else.
    """
    arrays: dict[str, np.ndarray] = {}
    structure = json.dumps(encode(tree, arrays))
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={"kind": kind, "tree": structure})


def read_tree(path: Path, kind: str) -> Any:
    """The tree in a file that ``write_tree`` made.

    Raises:
        ValueError: the file is damaged, or not of this kind.
        OSError: the file cannot be read.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != kind:
                raise ValueError(f"{path} is not an {kind}: it is {metadata.get('kind')!r}")
            return decode(json.loads(metadata["tree"]), file.get_tensor)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged, or no {kind}: {error}") from None


def encode(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree as JSON, with its arrays put into ``arrays`` and referred to by name.

    Raises:
        TypeError: the tree holds something that is not plain data.
    """
    if isinstance(tree, PLAIN) and not isinstance(tree, np.generic):
        return tree
    if type(tree) is list:
        return [encode(value, arrays) for value in tree]
    if type(tree) is tuple:
        return {"tuple": [encode(value, arrays) for value in tree]}
    if isinstance(tree, dict):
        return {"dict": [[encode(k, arrays), encode(v, arrays)] for k, v in tree.items()]}
    if isinstance(tree, torch.Tensor):
        return {"tensor": _put(tree.detach().cpu().numpy(), arrays)}
    if isinstance(tree, np.ndarray) and tree.dtype.kind in NUMERIC:
        return {"array": _put(tree, arrays)}
    if isinstance(tree, np.generic) and tree.dtype.kind in NUMERIC:
        return {"scalar": _put(np.asarray(tree), arrays)}
    if isinstance(tree, np.random.Generator):
        return {"generator": encode(tree.bit_generator.state, arrays)}
    raise TypeError(f"{type(tree).__name__} is not plain data")


def decode(tree: Any, read: Any) -> Any:
    """The inverse of ``encode``; ``read`` gives the array of a name."""
    if isinstance(tree, list):
        return [decode(value, read) for value in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    match kind:
        case "tuple":
            return tuple(decode(value, read) for value in content)
        case "dict":
            return {decode(k, read): decode(v, read) for k, v in content}
        case "tensor":
            return torch.from_numpy(read(content))
        case "array":
            return read(content)
        case "scalar":
            return read(content)[()]
        case "generator":
            state = decode(content, read)
            bits = BIT_GENERATORS[state["bit_generator"]]()
            bits.state = state
            return np.random.Generator(bits)
    raise KeyError(kind)


def _put(array: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    name = str(len(arrays))
    arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    return name

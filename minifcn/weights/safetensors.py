"""Hugging Face's .safetensors: a JSON header of names, dtypes, shapes and offsets, then the arrays' bytes.

The library checks the header (offsets inside the file, without gaps or overlaps, each as long as its shape says); the
arrays are views of the mapped file, so that reading costs no copy. Only bfloat16, which NumPy lacks, is widened.
"""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn.weights.bfloat16 import widened
from minifcn.weights.faults import Fault, quoted, reading, said

_LONGEST_HEADER = 4 << 20  # bytes, some 40,000 arrays; as Python objects a header takes more than ten times its size
_BF16 = "BF16"
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    _BF16: "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "u1",
}


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Name → array of a .safetensors file; bfloat16 becomes float32, which holds it exactly.

    Args:
        path: the file. The arrays look into it: it may be replaced while they are used, but not written into.

    Returns:
        The arrays, most of them read-only views of the mapped file.

    Raises:
        ValueError: for a file that is malformed, or holds a dtype that NumPy lacks.
        OSError: where the file cannot be read.
    """
    with reading(path, "a complete safetensors file"):
        entries, begin, mapped = _open(path)
        return {name: _array(name, entry, begin, mapped) for name, entry in entries.items()}


def of_minifcn(path: Path) -> bool:
    """Whether `minifcn train` or `minifcn weights --into` wrote a file; no complaint where it is malformed."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        if file.read(9)[8:] != b"{":
            return False
    try:
        with safe_open(path, framework="numpy") as opened:
            return "minifcn" in (opened.metadata() or {})
    except SafetensorError:
        return False


def _open(path: Path) -> tuple[dict[str, dict[str, Any]], int, mmap.mmap]:
    """(header without metadata, where the data begin, the mapped file)."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise Fault(f"a header of {length} bytes should come first, and the file has {size}; it may be truncated")
        if length > _LONGEST_HEADER:
            raise Fault(f"the header has {length} bytes; up to {_LONGEST_HEADER} are read")
        try:
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise Fault(f"not a complete safetensors file ({said(error)}); it may be truncated or damaged") from error
        header: dict[str, dict[str, Any]] = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    return header, 8 + length, mapped


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Fault("the header says something twice; a name for each array is needed")
    return found


def _array(name: str, entry: dict[str, Any], begin: int, mapped: mmap.mmap) -> NDArray[Any]:
    kind, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in _DTYPES:
        raise Fault(f"{quoted(name)} is of dtype {kind}; {', '.join(_DTYPES)} are read")
    dtype = np.dtype(_DTYPES[kind])
    if first == last:
        return np.empty(shape, bool if kind == "BOOL" else np.float32 if kind == _BF16 else dtype)
    array: NDArray[Any] = np.frombuffer(mapped, dtype, (last - first) // dtype.itemsize, begin + first).reshape(shape)
    if kind == "BOOL":
        return array.astype(bool)  # a byte that is neither 0 nor 1 is no bool
    if kind == _BF16:
        return widened(array)
    return array if array.flags.aligned else array.copy()

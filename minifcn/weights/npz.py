"""NumPy's .npz (a zip of .npy files) and .npy (a header with dtype and shape, then the values).

Not by `numpy.load`: it allocates what a header declares before it looks how much there is, and unpacks a zip however
large it becomes. Here sizes are compared first, and the header is matched, not evaluated. Python objects, which only
pickle could read, are refused.
"""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from minifcn.weights.faults import Fault, quoted, reading

NPY_MAGIC = b"\x93NUMPY"
_LONGEST_LIST = 4 << 20  # bytes of a zip's list of entries, some 60,000 names; as Python objects 20 times as many
_LONGEST_HEADER = 4096  # characters; NumPy's own have some 100
_CHUNK = 1 << 20
_SLACK = 10 << 20  # bytes that a zip may unpack to beyond twice its size
_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_HEADER = re.compile(
    r"""\{\s*+(?:(?:'descr'\s*+:\s*+'(?P<descr>[^']*+)'
                   |'fortran_order'\s*+:\s*+(?P<fortran>True|False)
                   |'shape'\s*+:\s*+\((?P<shape>(?:\s*+[0-9]{1,40}+L?\s*+,)*+(?:\s*+[0-9]{1,40}+L?)?\s*+)\)
                   )\s*+,?\s*+){3}\}\s*+""",
    re.VERBOSE,
)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Name → array of an .npz file; the array of an .npy file is called `arr_0`, as numpy.savez would call it.

    Args:
        path: the file.

    Returns:
        Fresh arrays of booleans, integers and floats in the machine's byte order.

    Raises:
        ValueError: for a file that is malformed, that holds anything but numbers, or that would unpack to more than
            twice its size (and 10 MB).
        OSError: where the file cannot be read.
    """
    with reading(path, "a complete .npz or .npy file"), _Bounded(path) as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(NPY_MAGIC)) == NPY_MAGIC:
            file.seek(0)
            return {"arr_0": _array(file, size, "the array")}
        with zipfile.ZipFile(file) as archive:
            return _arrays(archive, size)


def entries(path: Path) -> list[str]:
    """The names in a zip file.

    Raises:
        ValueError: where it is malformed.
    """
    with reading(path, "a complete zip file"), _Bounded(path) as file, zipfile.ZipFile(file) as archive:
        return archive.namelist()


class _Bounded(io.FileIO):
    """A file that gives no more than a limited piece at once: zipfile reads a zip's whole list of entries as one."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LONGEST_LIST:
            raise Fault(f"the zip's list of entries has {size} bytes; up to {_LONGEST_LIST} are read")
        return super().read(-1 if size is None else size) or b""


def _arrays(archive: zipfile.ZipFile, size: int) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > 2 * size + _SLACK:
        raise Fault(f"{size} bytes would unpack to {unpacked}; up to twice the size (and {_SLACK} bytes) is read")
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise Fault(f"{quoted(name)} is no .npy file; a zip that numpy.savez wrote is needed")
        if name in found:
            raise Fault(f"{quoted(name)} is listed twice; a name for each array is needed")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Fault(f"{quoted(name)} is packed by method {info.compress_type}; 0 and 8 (deflate) are read")
        with archive.open(info) as stream:
            found[name] = _array(stream, info.file_size, quoted(name))
    return found


def _array(stream: IO[bytes], size: int, name: str) -> NDArray[Any]:
    """The array of an .npy file of `size` bytes; `name` is for messages."""
    head = stream.read(8)
    if head[:6] != NPY_MAGIC or head[6:] not in (b"\1\0", b"\2\0"):
        raise Fault(
            f"{name} is no .npy file of version 1 or 2 (it starts with {head!r}); numpy.save's output is needed"
        )
    width = 2 * head[6]
    length = int.from_bytes(stream.read(width), "little")
    if length > _LONGEST_HEADER:
        raise Fault(f"{name} has a header of {length} characters; up to {_LONGEST_HEADER} are read")
    dtype, shape, fortran = _header(stream.read(length).decode("latin1"), name)
    declared, there = math.prod(shape) * dtype.itemsize, size - 8 - width - length
    if declared != there:
        raise Fault(f"{name} of shape {shape} and {dtype} needs {declared} bytes and has {there}; the file is damaged")
    values = np.empty(declared // dtype.itemsize, dtype)
    _fill(values.view(np.uint8).data, stream, name)
    if dtype.kind == "b":
        values = values.view(np.uint8).astype(bool)  # a byte that is neither 0 nor 1 is no bool
    elif not dtype.isnative:
        values = values.byteswap(inplace=True).view(dtype.newbyteorder())
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _header(text: str, name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """(dtype, shape, whether the first axis is the fastest) from a header such as
    {'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }."""
    match = _HEADER.fullmatch(text)
    if match is None or None in match.groups():
        raise Fault(f"{name} has the header {quoted(text.strip())}, which is none of plain numbers; numbers are needed")
    descr, fortran, shape = match["descr"], match["fortran"], match["shape"]
    if not _NUMBERS.fullmatch(descr):
        what = (
            "Python objects, which only pickle could read" if descr.endswith("O") else f"no numbers ({quoted(descr)})"
        )
        raise Fault(f"{name} holds {what}; booleans, integers and floats of up to 8 bytes are needed")
    sizes = tuple(int(part.strip().removesuffix("L")) for part in shape.split(",") if part.strip())
    return np.dtype(descr), sizes, fortran == "True"


def _fill(target: memoryview, stream: IO[bytes], name: str) -> None:
    """Read the rest of a stream, no longer than `target`; with the last piece zipfile compares the checksum."""
    filled = 0
    while piece := stream.read(min(_CHUNK, len(target) - filled)):
        target[filled : filled + len(piece)] = piece
        filled += len(piece)
    if filled < len(target):
        raise Fault(f"{name} ends after {filled} of {len(target)} bytes; the file may be truncated")

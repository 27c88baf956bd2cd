"""PyTorch's .pth, written without PyTorch: what `torch.load(path, weights_only=True)` and `read_pth` take for an
OrderedDict of tensors.

The file is a zip archive of uncompressed entries, as torch.save has written it since PyTorch 1.6:

    archive/data.pkl    the pickle: each tensor as a call of torch._utils._rebuild_tensor_v2 with its storage's key
    archive/byteorder   "little"
    archive/data/<k>    the numbers of the k-th array
    archive/version     3, the number that PyTorch's writer has for such archives

Entries begin at multiples of 64 bytes, so that the file can be mapped into memory. As nothing in it depends on the
time or the machine, equal arrays give equal files.

Source: torch/serialization.py (`_save`) and caffe2/serialize/inline_container.cc (the padding) of PyTorch 2;
pickletools.py for the opcodes.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT: Final = 64
_HEADER: Final = 30  # bytes of an entry's header before its name
_LARGE: Final = 1 << 30  # zipfile adds 64-bit sizes to the header of an entry from nearly 2³¹ bytes on; we from here on
_ORDERED_DICT: Final = b"ccollections\nOrderedDict\n)R"  # GLOBAL, EMPTY_TUPLE, REDUCE: called without arguments
_STORAGES: Final = {
    "f8": b"DoubleStorage",
    "f4": b"FloatStorage",
    "f2": b"HalfStorage",
    "i8": b"LongStorage",
    "i4": b"IntStorage",
    "i2": b"ShortStorage",
    "i1": b"CharStorage",
    "u1": b"ByteStorage",
    "b1": b"BoolStorage",
}


def write_pth(stream: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays under their names as a state dict that PyTorch loads.

    Args:
        stream: a file that can be sought in, opened for writing.
        arrays: of floats, booleans, uint8 or signed integers, in any memory layout.

    Raises:
        ValueError: another dtype; nothing is written then.

    Source: torch/serialization.py.

    >>> import io
    >>> stream = io.BytesIO()
    >>> write_pth(stream, {"weight": np.ones((2, 3), np.float32)})
    >>> zipfile.ZipFile(stream).namelist()
    ['archive/data.pkl', 'archive/byteorder', 'archive/data/0', 'archive/version']
    """
    for name, array in arrays.items():
        if _code(array) not in _STORAGES:
            raise ValueError(
                f"write_pth: {name!r:.100} is {array.dtype}, which a .pth file lacks; floats, bool, uint8 or signed "
                "integers are needed"
            )
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        _put(archive, stream.tell(), "data.pkl", _pickle(arrays))
        _put(archive, stream.tell(), "byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            little = np.asarray(array, array.dtype.newbyteorder("<"), order="C").reshape(-1)
            _put(archive, stream.tell(), f"data/{key}", little.view(np.uint8).data if little.size else b"")
        _put(archive, stream.tell(), "version", b"3\n")


def _code(array: NDArray[Any]) -> str:
    return f"{array.dtype.kind}{array.dtype.itemsize}"


def _put(archive: zipfile.ZipFile, at: int, name: str, data: bytes | memoryview) -> None:
    """Add an entry at byte `at`, with its data at a multiple of 64 behind a field of padding ("FB", as PyTorch's)."""
    entry = zipfile.ZipInfo(f"archive/{name}")
    size = len(data)
    large = size > _LARGE
    padding = -(at + _HEADER + len(entry.filename) + 4 + 20 * large) % _ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    entry.file_size = size
    with archive.open(entry, "w", force_zip64=large) as target:
        target.write(data)


def _pickle(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The OrderedDict, in the second protocol of pickle."""
    parts = [b"\x80\x02", _ORDERED_DICT, b"("]  # PROTO 2, the dictionary, MARK
    for key, (name, array) in enumerate(arrays.items()):
        storage = b"".join(
            (
                b"(" + _text("storage"),
                b"ctorch\n" + _STORAGES[_code(array)] + b"\n",
                _text(str(key)) + _text("cpu") + _number(array.size),
                b"tQ",  # TUPLE, BINPERSID: the persistent id
            )
        )
        strides = [math.prod(max(n, 1) for n in array.shape[axis + 1 :]) for axis in range(array.ndim)]
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(", storage, _number(0)]  # offset 0
        parts += [_numbers(array.shape), _numbers(strides), b"\x89", _ORDERED_DICT, b"tR"]  # no gradient, no hooks
    return b"".join([*parts, b"u."])  # SETITEMS, STOP


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little")  # with a bit for the sign
    return b"\x8a" + bytes([len(data)]) + data


def _numbers(values: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"

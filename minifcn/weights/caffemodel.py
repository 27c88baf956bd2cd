"""Caffe's .caffemodel: a protocol-buffers message, read from its wire format without Caffe or protobuf.

A message is a row of fields, each a key (number · 8 + wire type) and a value: a varint (0), 8 bytes (1), a length and
so many bytes (2: text, a message, packed numbers) or 4 bytes (5). What is read, with the numbers of BVLC's caffe.proto:

    NetParameter      layer = 100 (LayerParameter)   layers = 2 (V1LayerParameter, before 2015)
    LayerParameter    name = 1   blobs = 7 (BlobProto)
    V1LayerParameter  name = 4   blobs = 6           layer = 1 (V0LayerParameter, before 2014: refused)
    BlobProto         shape = 7 {dim = 1}   data = 5 (floats)   double_data = 8   num, channels, height, width = 1 … 4
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn.weights.faults import Fault, quoted, reading

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_LAYERS = {100: (1, 7), 2: (4, 6)}  # field of NetParameter: fields of its layers that hold the name, the blobs
_MOST_AXES = 32  # as in Caffe
_LONGEST_NAME = 250
_MOST_ARRAYS = 100_000  # an array costs some 500 bytes beside its values, however few these are


def read_caffemodel(path: Path) -> dict[str, NDArray[Any]]:
    """Name → array of a Caffe model: `<layer>.weight` and `<layer>.bias` for a layer's first blobs, then `<layer>.2`.

    The arrays have Caffe's axes: (O, I, kh, kw) for a convolution, (I, O, kh, kw) for a deconvolution, (O, I) for an
    inner product, the last as (1, 1, O, I) in old files.

    Args:
        path: the file.

    Returns:
        Fresh arrays of float32, or of float64 where the file has doubles.

    Raises:
        ValueError: for a file that is malformed, has no weights, or is of the oldest kind.
        OSError: where the file cannot be read.
    """
    with reading(path, "a complete .caffemodel file"), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Fault("the file is empty; a .caffemodel file is needed")
        # the mapping goes when the last view of it does; the arrays are copies
        return _net(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def _net(message: memoryview) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for number, wire, value in _fields(message):
        if number not in _LAYERS or wire != _BYTES:
            continue
        for name, blob in _layer(value, *_LAYERS[number]):
            if name in found:
                raise Fault(f"two layers have a blob {quoted(name)}; a name for each layer is needed")
            if len(found) == _MOST_ARRAYS:
                raise Fault(f"there are more than {_MOST_ARRAYS} blobs; up to so many are read")
            found[name] = _blob(blob, name)
    if not found:
        raise Fault("no layer has weights; a trained .caffemodel is needed, not a definition of a net")
    return found


def _layer(message: memoryview, name_field: int, blobs_field: int) -> Iterator[tuple[str, memoryview]]:
    name = ""  # it may come after the blobs
    for number, wire, value in _fields(message):
        if number == name_field and wire == _BYTES:
            if len(value) > _LONGEST_NAME:
                raise Fault(f"a layer's name has {len(value)} bytes; up to {_LONGEST_NAME} are read")
            name = bytes(value).decode()
        elif number == 1 and wire == _BYTES and blobs_field == 6:
            raise Fault(
                "the layers are of Caffe's oldest kind (V0); Caffe's upgrade_net_proto_binary makes a newer file"
            )
    blobs = (value for number, wire, value in _fields(message) if number == blobs_field and wire == _BYTES)
    for index, value in enumerate(blobs):
        yield f"{name}.{('weight', 'bias')[index] if index < 2 else index}", value


def _blob(message: memoryview, name: str) -> NDArray[Any]:
    shape: list[int] = []
    old: dict[int, int] = {}
    floats, doubles = bytearray(), bytearray()
    for number, wire, value in _fields(message):
        if number == 7 and wire == _BYTES:
            shape = _sizes(value, name)
        elif number in (1, 2, 3, 4) and wire == _VARINT:
            old[number] = _signed(value)
        elif number == 5 and wire in (_BYTES, _FOUR):
            floats += value
        elif number == 8 and wire in (_BYTES, _EIGHT):
            doubles += value
    # where there are both, Caffe's Blob::FromProto takes the old sizes, and the doubles
    sizes = tuple(old.get(number, 0) for number in (1, 2, 3, 4)) if old else tuple(shape)
    data, dtype = (doubles, np.dtype("<f8")) if doubles else (floats, np.dtype("<f4"))
    if min(sizes, default=0) < 0:
        raise Fault(f"{quoted(name)} has the shape {sizes}; sizes from 0 on are needed")
    declared = math.prod(sizes) * dtype.itemsize
    if declared != len(data):
        there = f"{declared} bytes and has {len(data)}"
        raise Fault(f"{quoted(name)} of shape {sizes} and {dtype} needs {there}; the file is damaged")
    return np.frombuffer(data, dtype).reshape(sizes)


def _sizes(message: memoryview, name: str) -> list[int]:
    """The sizes in a BlobShape, packed or one by one."""
    found: list[int] = []
    for number, wire, value in _fields(message):
        if number == 1 and wire == _VARINT:
            found.append(_signed(value))
        elif number == 1 and wire == _BYTES:
            at = 0
            while at < len(value) and len(found) <= _MOST_AXES:
                size, at = _varint(value, at)
                found.append(_signed(size))
        if len(found) > _MOST_AXES:
            raise Fault(f"{quoted(name)} has more than {_MOST_AXES} axes; Caffe has no more")
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of each field: a whole number for a varint, the bytes for everything else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_EIGHT, _FOUR):
            length = 8 if wire == _EIGHT else 4
        else:
            raise Fault(f"a field has wire type {wire}; Caffe writes 0, 1, 2 and 5")
        if number == 0 or length > len(message) - at:
            raise Fault(f"field {number} of {length} bytes ends beyond what holds it; the file may be truncated")
        yield number, wire, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """(whole number, where it ends): 7 bits a byte, the lowest first, and the top bit set on all bytes but the last."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            raise Fault("a number ends beyond what holds it; the file may be truncated")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise Fault("a number has more than 10 bytes; this is no protocol-buffers message")


def _signed(value: int) -> int:
    """The whole number that 64 bits in two's complement mean."""
    return value - (1 << 64) if value >> 63 else value

"""PyTorch's .pth and .pt files, read without PyTorch, and without running anything that they hold.

Both formats are a pickle that describes the tensors, and storages: the numbers as they lay in memory.

    zip (from PyTorch 1.6 on)   a zip archive of uncompressed files: <root>/data.pkl is the pickle, <root>/data/<key> a
                                storage, <root>/byteorder "little" or "big"
    legacy                      five pickles (a magic number, a protocol number, facts of the machine, the object, the
                                storages' keys), then for each key an int64 count and the numbers, little-endian

In the pickle a storage is the persistent id ("storage", type, key, device, count), with a view of it as a sixth entry
in the legacy format, and a tensor is a call of torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …). The
tensors become views of the mapped file with that offset and those strides; only bfloat16, bool and big-endian storages
are copied, once each. `unpickle.py` says why reading the pickle is safe.

Source: torch/serialization.py (`_save`, `_legacy_save`) and torch/_utils.py of PyTorch 2; APPNOTE.TXT for zip archives.
"""

from __future__ import annotations

import math
import mmap
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minifcn.weights.archive import Span, directory
from minifcn.weights.bfloat16 import widened
from minifcn.weights.faults import Fault, quoted, reading
from minifcn.weights.unpickle import IGNORED, Stub, Unpickler

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_MOST_AXES: Final = 8
_MOST_NUMBERS: Final = 1 << 48  # of a tensor: NumPy's own arithmetic with sizes stays below 2⁶³
_SPARE: Final = 64 << 20
_STATE_DICTS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
_OPTIMIZERS: Final = (
    "optimizer",
    "optimizer_state_dict",
    "optimizer_state",
    "optim",
    "optim_state_dict",
    "optim_state",
)


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str
    count: int
    view: Span  # the part of it, in numbers, that tensors are made of


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def numbers(self) -> int:
        numbers: int = math.prod(self.size)
        return numbers


def read_pth(path: Path) -> dict[str, NDArray[Any]]:
    """Name → array of the state dict in a PyTorch file; bfloat16 becomes float32, which holds it exactly.

    The state dict may be the whole file, or an entry of a checkpoint such as `state_dict` or `model`; an optimizer's
    state and whatever else lies beside it is left out. Shared storages stay shared.

    Args:
        path: the file. The arrays look into it: it may be replaced while they are used, but not written into.

    Returns:
        The arrays, read-only, with the file's strides.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file that is malformed, holds other objects than tensors in plain containers (a whole module,
            say), holds several state dicts or none, or tensors that are complex, quantised or sparse.

    Source: torch/serialization.py.

    >>> import struct, tempfile
    >>> tensor = (
    ...     b"ctorch._utils\\n_rebuild_tensor_v2\\n("  # a call of this function with the arguments:
    ...     b"(U\\x07storagectorch\\nFloatStorage\\nU\\x010U\\x03cpuK\\x02NtQ"  # the storage "0" of 2 numbers,
    ...     b"K\\x00K\\x02\\x85K\\x01\\x85\\x89NtR"  # offset 0, size (2,), stride (1,), and what is not needed here
    ... )
    >>> pickles = [b"\\x8a\\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little"), b"M" + struct.pack("<H", 1001), b"}"]
    >>> pickles += [b"}U\\x04bias" + tensor + b"s", b"]U\\x010a"]  # {"bias": tensor} and the list of keys
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "tiny.pth"
    ...     head = b"".join(b"\\x80\\x02" + pickle + b"." for pickle in pickles)
    ...     _ = file.write_bytes(head + struct.pack("<q2f", 2, 0.5, -1.0))
    ...     {name: array.tolist() for name, array in read_pth(file).items()}
    {'bias': [0.5, -1.0]}
    """
    if not path.is_file():
        raise FileNotFoundError(f"read: there is no file {path}; a .pth file of PyTorch is needed")
    with reading(path, "a complete .pth file"):
        if path.stat().st_size == 0:
            raise Fault("it is empty; a complete copy is needed")
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if data[:4] == b"PK\x03\x04":
            return _read_zip(data)
        if data[257:262] == b"ustar":
            raise Fault("it has the tar format of early PyTorch versions; load it in PyTorch and save it again")
        return _read_legacy(data)


def _read_zip(data: mmap.mmap) -> dict[str, NDArray[Any]]:
    spans = directory(data)
    roots = {name.partition("/")[0] for name in spans}
    root = min(roots, default="")
    if len(roots) != 1 or f"{root}/data.pkl" not in spans:
        raise Fault("it is a zip archive without one folder that holds data.pkl; torch.save writes such a one")
    if f"{root}/constants.pkl" in spans:
        raise Fault("it is a TorchScript program, not a state dict; in PyTorch save model.state_dict()")
    # <root>/version counts TorchScript's operators; storages are the same in all of them
    start, length = spans.get(f"{root}/byteorder", (0, 0))
    order = data[start : start + min(length, 8)] or b"little"  # it was always little before the entry came
    if order not in (b"little", b"big"):
        raise Fault(f"its byte order is {order!r}; 'little' or 'big' is needed")
    start, length = spans[f"{root}/data.pkl"]
    storages: dict[str, _Storage] = {}
    unpickler = Unpickler(data, start, start + length, _find, _keeper(storages))
    state = _state_dict(unpickler.load())
    prefix = f"{root}/data/"
    parts = {name.removeprefix(prefix): span for name, span in spans.items() if name.startswith(prefix)}
    return _arrays(state, data, storages, parts, "<" if order == b"little" else ">")


def _read_legacy(data: mmap.mmap) -> dict[str, NDArray[Any]]:
    if data[:1] != b"\x80":
        raise Fault("it is neither a zip archive nor a pickle; a file that PyTorch's torch.save wrote is needed")
    storages: dict[str, _Storage] = {}
    unpickler = Unpickler(data, 0, len(data), _find, _keeper(storages))
    for number, what in ((_MAGIC, "magic"), (_PROTOCOL, "protocol")):
        if unpickler.load() != number:
            raise Fault(f"its {what} number is not PyTorch's; a file that PyTorch's torch.save wrote is needed")
    unpickler.load()  # the machine that wrote it; whatever that was, PyTorch writes these storages little-endian
    state = _state_dict(unpickler.load())
    keys = unpickler.load()
    if not (type(keys) is list and all(type(key) is str for key in keys)) or sorted(keys) != sorted(storages):
        raise Fault("its list of storages does not fit its tensors; a new copy of the file is needed")
    spans: dict[str, Span] = {}
    at = unpickler.at
    for key in keys:
        storage = storages[key]
        length = storage.count * _width(storage.dtype)
        if at + 8 + length > len(data):
            raise Fault(f"its storage {quoted(key)} is cut off ({at + 8 + length - len(data)} bytes are missing)")
        if struct.unpack("<q", data[at : at + 8])[0] != storage.count:
            raise Fault(f"its storage {quoted(key)} and the tensors differ in its length; a new copy is needed")
        spans[key] = (at + 8, length)
        at += 8 + length
    if at != len(data):
        raise Fault(f"it goes on after its last storage ({len(data) - at} bytes); one object for each file is needed")
    return _arrays(state, data, storages, spans, "<")


# -- what the names in the pickle stand for

_STORAGES: Final = {
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "bool",
}
_REFUSED: Final = {
    "torch.ComplexFloatStorage": "complex numbers; real ones are needed",
    "torch.ComplexDoubleStorage": "complex numbers; real ones are needed",
    "torch.QInt8Storage": "quantised tensors; in PyTorch dequantise them first",
    "torch.QUInt8Storage": "quantised tensors; in PyTorch dequantise them first",
    "torch.QInt32Storage": "quantised tensors; in PyTorch dequantise them first",
    "torch.QUInt4x2Storage": "quantised tensors; in PyTorch dequantise them first",
    "torch.QUInt2x4Storage": "quantised tensors; in PyTorch dequantise them first",
    "torch._utils._rebuild_qtensor": "quantised tensors; in PyTorch dequantise them first",
    "torch._utils._rebuild_sparse_tensor": "sparse tensors; in PyTorch call to_dense() first",
    "torch._utils._rebuild_tensor_v3": "tensors of a dtype that minifcn lacks; in PyTorch convert them to float first",
    "torch.storage.UntypedStorage": "storages without a dtype; in PyTorch save model.state_dict() alone",
}
# what checkpoints have beside a state dict: nothing of it is made
_BESIDE: Final = (
    *("_codecs.encode", "argparse.Namespace", "collections.defaultdict", "collections.deque", "collections.Counter"),
    *("numpy.dtype", "numpy.ndarray", "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "torch.device"),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"{builtins}.{name}" for builtins in ("builtins", "__builtin__") for name in ("set", "frozenset", "bytearray")),
    "torch.serialization._get_layout",
)
_DTYPES: Final = (
    *("float16", "float32", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool"),
    *("complex64", "complex128", "half", "float", "double", "short", "int", "long"),
)


def _find(name: str) -> Stub:
    stub = _STUBS.get(name)
    if stub is not None:
        return stub
    if name in _REFUSED:
        raise Fault(f"it holds {_REFUSED[name]}")
    shown = quoted(name)[1:-1]
    if name.startswith("torch.nn."):
        raise Fault(
            f"it holds a {shown}: a whole module was pickled, not a state dict; in PyTorch save model.state_dict()"
        )
    raise Fault(
        f"it refers to {shown}, so more than a state dict was pickled; nothing of it was executed; "
        "in PyTorch save model.state_dict()"
    )


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    """collections.OrderedDict(); Python 2 gives its entries as a list of pairs."""
    entries = arguments[0] if arguments else []
    pairs = type(entries) is list and all(type(pair) in (list, tuple) and len(pair) == 2 for pair in entries)
    if len(arguments) > 1 or not pairs:
        raise Fault("its pickle is damaged (an OrderedDict of no pairs); a new copy of the file is needed")
    return {key: value for key, value in entries if type(key) is str}


def _rebuild_tensor(arguments: tuple[Any, ...]) -> _Tensor:
    """torch._utils._rebuild_tensor(storage, offset, size, stride), and _v2, which has more that is not needed here."""
    if not 4 <= len(arguments) <= 7:
        raise Fault(f"a tensor in it is described by {len(arguments)} values; 4 to 7 are needed")
    storage, offset, size, stride = arguments[:4]
    if type(storage) is not _Storage or not (type(size) is type(stride) is tuple and len(size) == len(stride)):
        raise Fault("a tensor in it has no storage, or its size and stride have different lengths")
    if len(size) > _MOST_AXES:
        raise Fault(f"a tensor in it has {len(size)} axes; at most {_MOST_AXES} can be read")
    if not all(type(number) is int and 0 <= number < _MOST_NUMBERS for number in (offset, *size, *stride)):
        raise Fault("a tensor in it has an offset, size or stride that is negative or no number")
    if math.prod(filter(None, size)) > _MOST_NUMBERS:
        raise Fault("a tensor in it is larger than a file can be")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.view[1]:
        raise Fault(
            f"a tensor in it, {size} with strides {stride}, reaches beyond its storage "
            f"(number {last} of {storage.view[1]})"
        )
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(arguments: tuple[Any, ...]) -> _Tensor:
    """torch._utils._rebuild_parameter(tensor, …): the tensor."""
    if not arguments or type(arguments[0]) is not _Tensor:
        raise Fault("a parameter in it has no tensor; a new copy of the file is needed")
    tensor: _Tensor = arguments[0]
    return tensor


def _torch_size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """torch.Size(tuple): the tuple."""
    if len(arguments) != 1 or type(arguments[0]) is not tuple:
        raise Fault("its pickle is damaged (a size that is no tuple); a new copy of the file is needed")
    return arguments[0]


_STUBS: Final = {
    stub.name: stub
    for stub in (
        Stub("collections.OrderedDict", _ordered_dict),
        Stub("torch._utils._rebuild_tensor", _rebuild_tensor),
        Stub("torch._utils._rebuild_tensor_v2", _rebuild_tensor),
        Stub("torch._utils._rebuild_parameter", _rebuild_parameter),
        Stub("torch._utils._rebuild_parameter_with_state", _rebuild_parameter),
        Stub("torch.Size", _torch_size),
        *(Stub(name) for name in _STORAGES),
        *(Stub(f"torch.{name}") for name in _DTYPES),
        *(Stub(name, lambda arguments: IGNORED) for name in _BESIDE),
    )
}


def _keeper(storages: dict[str, _Storage]) -> Callable[[Any], _Storage]:
    """What makes a storage of a persistent id, and keeps it under its key: one dtype and length for each."""

    def keep(key: Any) -> _Storage:
        if type(key) is not tuple or len(key) not in (5, 6) or key[0] != "storage":
            raise Fault("its pickle has a persistent id that is no storage; a new copy of the file is needed")
        _, stub, name, _, count, *rest = key
        if type(stub) is not Stub or stub.name not in _STORAGES or type(name) is not str:
            raise Fault("its pickle has a storage without a dtype or key; a new copy of the file is needed")
        view = rest[0] if rest and rest[0] is not None else (name, 0, count)
        if type(view) is not tuple or len(view) != 3:
            raise Fault(f"a view of its storage {quoted(name)} is damaged; a new copy of the file is needed")
        part = (view[1], view[2])
        if not all(type(number) is int and 0 <= number < _MOST_NUMBERS for number in (count, *part)):
            raise Fault(f"its storage {quoted(name)}, or a view of it, has a length that is negative or no number")
        if sum(part) > count:
            raise Fault(f"a view of its storage {quoted(name)} reaches beyond it ({sum(part)} of {count} numbers)")
        storage = _Storage(name, _STORAGES[stub.name], count, part)
        first = storages.setdefault(name, storage)
        if (first.dtype, first.count) != (storage.dtype, count):
            raise Fault(f"its storage {quoted(name)} has two dtypes or lengths; a new copy of the file is needed")
        return storage

    return keep


# -- the state dict, and its arrays


def _state_dict(root: Any) -> dict[str, _Tensor]:
    """The tensors of the one state dict in what a file holds."""
    if type(root) is not dict:
        what = "one tensor" if type(root) is _Tensor else "no mapping from names to tensors"
        raise Fault(f"it holds {what}, not a state dict; in PyTorch save model.state_dict()")
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    level: list[tuple[tuple[str, ...], dict[str, Any]]] = [((), root)]
    seen = {id(root)}
    while level:
        following = []
        for place, mapping in level:
            if any(type(value) is _Tensor for value in mapping.values()):
                found[place] = mapping
            for key, value in mapping.items():
                if type(value) is dict and id(value) not in seen and len(place) < 2 and key not in _OPTIMIZERS:
                    seen.add(id(value))
                    following.append(((*place, key), value))
        level = following
    named = [place for place in found if place and place[-1] in _STATE_DICTS]
    chosen = named if len(named) == 1 else list(found)  # a random state, say, is a tensor beside the state dict
    if not chosen:
        raise Fault(f"it holds no tensors by name, but {_listed(map(quoted, root))}; a state dict is needed")
    if len(chosen) > 1:
        places = _listed(quoted(".".join(place)) if place else "the file's own entries" for place in chosen)
        raise Fault(f"it holds several state dicts ({places}); in PyTorch save the one that is meant")
    return {name: value for name, value in found[chosen[0]].items() if type(value) is _Tensor}


def _listed(names: Any) -> str:
    shown = list(names)
    return ", ".join(shown[:10]) + (", …" if len(shown) > 10 else "") or "nothing"


def _arrays(
    state: dict[str, _Tensor], data: mmap.mmap, storages: dict[str, _Storage], spans: dict[str, Span], order: str
) -> dict[str, NDArray[Any]]:
    """Name → array; `spans` says where the storages' bytes lie, `order` is their byte order."""
    for key, storage in storages.items():
        if key not in spans:
            raise Fault(f"its storage {quoted(key)} is missing; a complete copy is needed")
        if spans[key][1] // _width(storage.dtype) != storage.count:
            raise Fault(
                f"its storage {quoted(key)} has {spans[key][1]} bytes, and {storage.count * _width(storage.dtype)} are "
                "needed"
            )
    total = sum(tensor.numbers() * _width(tensor.storage.dtype, read=True) for tensor in state.values())
    if total > 2 * len(data) + _SPARE:  # whoever copies them should not need more either
        raise Fault(f"its tensors repeat numbers up to {total >> 20} MiB, from {len(data) >> 20} MiB of file")
    values: dict[str, NDArray[Any]] = {}
    arrays = {}
    for name, tensor in state.items():
        storage = tensor.storage
        if storage.key not in values:
            values[storage.key] = _values(data, spans[storage.key][0], storage, order)
        arrays[name] = _view(values[storage.key], tensor)
    return arrays


def _width(dtype: str, read: bool = False) -> int:
    """Bytes of a number in the file, or once it is read."""
    if dtype == "bfloat16":
        return 4 if read else 2
    return np.dtype(dtype).itemsize


def _values(data: mmap.mmap, start: int, storage: _Storage, order: str) -> NDArray[Any]:
    """All numbers of a storage: the mapped file itself, or a copy where NumPy needs other bytes."""
    stored = {"bfloat16": "u2", "bool": "u1"}.get(storage.dtype, storage.dtype)
    values: NDArray[Any] = np.ndarray((storage.count,), order + stored, buffer=data, offset=start)
    if storage.dtype == "bfloat16":
        values = widened(values)
    elif storage.dtype == "bool":
        values = values != 0  # a bool of NumPy must be 0 or 1
    elif (order == "<") != (sys.byteorder == "little"):
        values = values.astype(stored)
    values.flags.writeable = False
    return values


def _view(values: NDArray[Any], tensor: _Tensor) -> NDArray[Any]:
    width = values.itemsize
    first = tensor.storage.view[0] + tensor.offset
    if tensor.numbers() == 0:
        array: NDArray[Any] = np.empty(tensor.size, values.dtype)
        array.flags.writeable = False
        return array
    strides = [step * width for step in tensor.stride]
    return np.ndarray(tensor.size, values.dtype, buffer=values, offset=first * width, strides=strides)

"""Malformed and malicious files of every format that is read, and one process that reads them all under watch.

`cases` builds the corpus: what the tests of each reader have, and what needs full size, several formats or a folder;
`write` puts it there. `python tests/hostile.py FOLDER` reads it file by file, with a hook that sees
every program that is started, every file that is opened for writing and every line that is compiled, and prints what
came of each as JSON.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pickle
import re
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import test_weights as flat
import test_weights_pth as torch_files
from PIL import Image
from test_weights import blob, entry, field, layer, npy, npz, safetensors, varint
from test_weights_pth import legacy, mapping, name, number, patched, pickled, storage, tensor, text, zipped

import minifcn as mf
from minifcn.data import read_image, read_mask

KIB, MIB = 1 << 10, 1 << 20
STEP = 4 * KIB  # a longer file is cut off at each multiple
MARKER = "executed"  # what the files would make in the folder that they lie in, were their code run
RNG = np.random.default_rng(7)
PHOTO = (np.add.outer(np.arange(90) * 2, np.arange(120))[..., None] + RNG.integers(0, 40, (90, 120, 3))).astype(
    np.uint8
)
READERS = {"read": mf.weights.read, "read_image": read_image, "read_mask": read_mask}

REFUSED, READ, EITHER = "refused", "read", "either"


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and what is to come of it.

    Args:
        name: says the format and what is wrong.
        content: its bytes.
        expect: REFUSED, READ, or EITHER, where what is cut off or changed may be more than is needed.
        reader: one of READERS.
    """

    name: str
    content: bytes
    expect: str = REFUSED
    reader: str = "read"


def cases(folder: Path) -> Iterator[Case]:
    """The whole corpus, for files in `folder`."""
    for made in (_code(folder / MARKER), _pth(), _zips(), _safetensors(), _npz(), _caffemodel(), _hdf5(folder)):
        yield from made
    yield from _nans()
    for kind, content in sound_weights().items():
        yield from (Case(f"{kind} cut at {at}", content[:at]) for at in range(STEP, len(content), STEP))
    yield from _images(folder / MARKER)
    for kind, content in sound_images().items():
        expect = EITHER if kind == "mpo" else REFUSED  # its first picture may be whole
        cuts = range(STEP, len(content), STEP)
        yield from (Case(f"{kind} cut at {at}", content[:at], expect, "read_image") for at in cuts)
    for kind, content in sound_images(4).items():
        if kind in ("png", "jpeg", "gif", "tiff", "bmp", "webp", "ppm"):
            yield from (
                Case(f"tiny {kind} cut at {at}", content[:at], EITHER, "read_image") for at in range(len(content))
            )


# -- sound files: cut off here, changed at random by benchmarks/fuzz.py


def sound_weights(numbers: int = 7000) -> dict[str, bytes]:
    """A well-formed file of each format, with so many values in the largest array."""
    values = RNG.standard_normal(numbers).astype("<f4")
    data = values.tobytes()
    state = mapping(
        weight=tensor(storage(count=numbers), size=(numbers,), stride=(1,)),
        bias=tensor(storage("1", "DoubleStorage", 4), size=(2, 2), stride=(2, 1)),
        half=tensor(storage("2", "BFloat16Storage", 3), size=(3,), stride=(1,)),
    )
    small = {"1": (4, bytes(32)), "2": (3, bytes(6))}
    header = {"w": entry("F32", [numbers], 0, 4 * numbers), "b": entry("BF16", [2], 4 * numbers, 4 * numbers + 4)}
    arrays = ("w.npy", npy("<f4", f"({numbers},)", data)), ("b.npy", npy(">i2", "(2,)", b"\0\1\0\2"))
    found = {
        "pth": zipped(state, {"0": data, **{key: content for key, (_, content) in small.items()}}),
        "legacy pth": legacy(state.replace(b"tQ", b"NtQ"), {"0": (numbers, data), **small}),
        "safetensors": safetensors(header, data + bytes(4)),
        "npy": npy("<f4", f"({numbers},)", data),
        "npz": npz(*arrays),
        "deflated npz": npz(*arrays, method=zipfile.ZIP_DEFLATED),
        "caffemodel": field(1, b"net") + layer(b"conv1", blob((numbers,), values), blob((2,), (0.5, -2.0))),
        "old caffemodel": field(1, b"net")
        + field(
            2,
            field(4, b"fc")
            + field(6, b"".join(field(1 + i, n) for i, n in enumerate((1, 1, 1, numbers))) + field(5, data)),
        ),
    }
    with contextlib.suppress(ImportError):
        found |= {
            "h5": hdf5(keras, values),
            "whole h5": hdf5(lambda file: keras(file.create_group("model_weights"), values)),
        }
    return found


def sound_images(shrink: int = 0) -> dict[str, bytes]:
    """A well-formed image of each kind that is read; `shrink` halves its sides so often."""
    photo = Image.fromarray(PHOTO[:: 1 << shrink, :: 1 << shrink])
    grey, palette = photo.convert("L"), photo.quantize(32)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return {
        "png": image(photo, "PNG"),
        "palette png": image(palette, "PNG", transparency=3),
        "deep png": image(deep, "PNG"),
        "jpeg": image(photo, "JPEG", quality=95, exif=exif),
        "progressive jpeg": image(photo, "JPEG", quality=95, progressive=True),
        "cmyk jpeg": image(photo.convert("CMYK"), "JPEG", quality=95),
        "mpo": image(photo, "MPO", quality=95, save_all=True, append_images=[photo]),
        "gif": image(palette, "GIF"),
        "tiff": image(photo, "TIFF"),
        "lzw tiff": image(photo, "TIFF", compression="tiff_lzw"),
        "jpeg tiff": image(photo, "TIFF", compression="jpeg"),
        "deep tiff": image(deep, "TIFF"),
        "bmp": image(photo, "BMP"),
        "palette bmp": image(palette, "BMP"),
        "webp": image(photo, "WEBP", lossless=True),
        "lossy webp": image(photo, "WEBP", quality=98),
        "ppm": image(photo, "PPM"),
        "plain ppm": f"P3 {photo.width} {photo.height} 255 ".encode()
        + " ".join(map(str, np.asarray(photo).ravel().tolist())).encode(),
    }


def image(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


# -- pickles


def _code(marker: Path) -> Iterator[Case]:
    """Pickles that would run something, in both containers, as a plain pickle, and as any other kind of file."""
    shell = text(f"touch {marker}") + b"\x85R"
    python = text(f"open({str(marker)!r}, 'w')") + b"\x85R"
    bodies = {
        **{f"{module}.{function}": name(module, function) + shell for module, function in _SHELLS},
        **{f"{module}.{function}": name(module, function) + python for module, function in _PYTHON},
        "dotted name": text("torch") + text("_utils.os.system") + b"\x93" + shell,
        "a stub's globals": text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93" + shell,
        "stack_global": text("os") + text("system") + b"\x93" + shell,
        "memoized names": text("os") + b"q\0" + text("system") + b"q\1" + b"0" * 2 + b"h\0h\1\x93" + shell,
        "inst": b"(" + text(f"touch {marker}") + b"ios\nsystem\n",
        "obj": b"(" + name("os", "system") + text(f"touch {marker}") + b"o",
        "newobj": name("subprocess", "Popen") + text(f"touch {marker}") + b"\x85\x81",
        "newobj_ex": name("subprocess", "Popen") + text(f"touch {marker}") + b"\x85}\x92",
        **{f"extension of {len(code)}": code + shell for code in (b"\x82\1", b"\x83\1\0", b"\x84\1\0\0\0")},
        "__setstate__": b"}" + b"}" + text("__setstate__") + name("os", "system") + b"sb" + text("x") + b"b",
        "__setstate__ of a stub": name("collections", "OrderedDict")
        + b")R}"
        + text("__setstate__")
        + name("os", "system")
        + b"sb",
        "__dict__": name("argparse", "Namespace") + b")R(N}" + text("__class__") + name("os", "system") + b"stb",
        "__reduce__": b"}" + text("__reduce__") + name("os", "system") + b"s",
        "in a persistent id": b"(" + text("storage") + name("os", "system") + shell[:-1] + b"R" + b"tQ",
        "as a storage's type": b"("
        + text("storage")
        + name("os", "system")
        + text("0")
        + text("cpu")
        + number(6)
        + b"tQ",
        "as a tensor's rebuilder": name("torch._utils", "_rebuild_from_type_v2")
        + b"("
        + name("os", "system")
        + b")"
        + b"}tR",
        "as a factory": name("collections", "defaultdict") + name("os", "system") + b"\x85R" + text("x") + b"Ns",
        "as a key": b"}" + name("os", "system") + b"Ns",
        "in a string instruction": b"S'' + __import__('os').system('touch " + str(marker).encode() + b"')\n",
        "text persistent id": b"Pos.system\n",
        **{f"tests: {case}": body for case, (body, _) in torch_files.CODE.items()},
    }
    for case, body in bodies.items():
        for kind, content in {
            "pth": zipped(mapping(x=body)),
            "legacy pth": legacy(mapping(x=body)),
            "plain pickle": pickled(body),
            "npy of objects": npy("|O", "(1,)", pickled(body)),
            "npz of objects": npz(("x.npy", npy("|O", "()", pickled(body)))),
        }.items():
            yield Case(f"{kind}: {case}", content)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {marker}",)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield Case(f"pickle of protocol {protocol}", pickle.dumps({"weight": Evil()}, protocol))
        inner = pickle.dumps({"weight": Evil()}, protocol)
        yield Case(f"pth with a pickle of protocol {protocol}", torch_files.archive(("a/data.pkl", inner)))
    for stage in range(4):  # the pickles of a legacy file that come before and behind the state dict
        parts = [pickled(body) for body in (number(torch_files.MAGIC), number(1001), b"}", b"}", b"]")]
        parts[stage + 1] = pickled(name("os", "system") + shell)
        yield Case(f"legacy pth, code in pickle {stage + 2}", b"".join(parts))


_SHELLS = (
    *(("os", "system"), ("posix", "system"), ("nt", "system"), ("os", "popen"), ("subprocess", "Popen")),
    *(("subprocess", "check_output"), ("commands", "getoutput"), ("pty", "spawn"), ("webbrowser", "open")),
    *(("torch.hub", "load"), ("os", "remove"), ("shutil", "rmtree"), ("socket", "create_connection")),
)
_PYTHON = (
    *(("builtins", "eval"), ("builtins", "exec"), ("__builtin__", "eval"), ("__builtin__", "execfile")),
    *(("builtins", "compile"), ("builtins", "__import__"), ("builtins", "getattr"), ("builtins", "open")),
    *(("code", "interact"), ("runpy", "run_path"), ("timeit", "timeit"), ("pdb", "run"), ("cProfile", "run")),
    *(
        ("importlib", "import_module"),
        ("operator", "methodcaller"),
        ("operator", "attrgetter"),
        ("functools", "partial"),
    ),
    *(("pickle", "loads"), ("torch", "load"), ("numpy", "load"), ("numpy", "fromfile"), ("types", "FunctionType")),
    *(("torch.jit", "load"), ("torch._utils", "_import_dotted_name"), ("torch.storage", "_load_from_bytes")),
    *(("torch.fx.graph_module", "reduce_graph_module"), ("torch._dynamo", "optimize"), ("builtins", "input")),
)


def _pth() -> Iterator[Case]:
    """Pickles that grow, recurse or lie; tensors that reach beyond; and what the tests of the reader have."""
    million = 1_000_000
    most = 4 * million
    doubled = b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(200))
    lists = b"".join(b"](" + 10 * (b"h" + bytes([n])) + b"eq" + bytes([n + 1]) for n in range(200))
    dicts = b"".join(
        b"}(" + b"".join(text(str(k)) + b"h" + bytes([n]) for k in range(10)) + b"uq" + bytes([n + 1])
        for n in range(200)
    )
    bodies = {
        "2 million marks": b"(" * 2 * million,
        "endlessly nested tuples": b")" + b"\x85" * most,
        "endlessly nested tuples as a key": b"}" + b")" + b"\x85" * most + b"Ns",
        "endlessly nested tuples as a name": b")" + b"\x85" * most + text("system") + b"\x93",
        "endlessly nested lists": b"]" * most + b"a" * (most - 1),
        "nested dicts": b"".join(b"}" + text("a") for _ in range(100_000)) + b"N" + b"s" * 100_000,
        "nested state dicts": b"".join(b"}" + text("state_dict") for _ in range(30_000)) + b"N" + b"s" * 30_000,
        "doubled tuples": b")q\0" + doubled,
        "doubled tuples as a persistent id": b")q\0" + doubled + b"Q",
        "doubled tuples as arguments": b")q\0" + doubled + name("torch", "Size") + b"h\xc8R",
        "a billion laughs in lists": b"]q\0" + lists,
        "a billion laughs in dicts": b"}q\0" + dicts,
        "a list that holds itself": b"]q\0h\0a",
        "a dict that holds itself": b"}q\0" + text("model") + b"h\0s",
        "a dict that holds itself and a tensor": b"}q\0("
        + text("a")
        + tensor()
        + text("b")
        + text("c")
        + b"N\x85u"
        + text("d")
        + b"h\0s0",
        "millions of copies": text("x") + b"q\0" + b"2" * 100,
        "a number of 4 GiB": b"\x8b\xff\xff\xff\x7f",
        "a negative length": b"\x8b\xff\xff\xff\xff",
        "text of 2⁶³ bytes": b"\x8d" + struct.pack("<Q", 2**63),
        "a frame of 2⁶³ bytes": b"\x95" + struct.pack("<Q", 2**63),
        "the memo's place 2³²−1": b"r\xff\xff\xff\xff",
        "numbers as text": b"I" + b"9" * million + b"\n",
        "a long as text": b"L" + b"9" * million + b"L\n",
        "a float as text": b"F1e999999999\n",
        "buffers from outside": b"\x97\x98",
        **{f"persistent id {case}": body + b"Q" for case, body in _PERSISTENT.items()},
        **{f"tensor {case}": body for case, body in _TENSORS.items()},
        **{f"tests: {case}": body for case, (body, _) in torch_files.TENSORS.items()},
        **{f"tests: {case}": body for case, body in (torch_files.LIES | torch_files.DAMAGED).items()},
    }
    for case, body in bodies.items():
        content = mapping(x=body) if "tensor" in case else body
        yield Case(f"pth: {case}", zipped(content))
        if len(content) < million // 2:
            yield Case(f"legacy pth: {case}", legacy(content))
    for case, (content, _) in (torch_files.ARCHIVES | torch_files.LEGACY).items():
        yield Case(f"pth tests: {case}", content)
    for case, body in {"expanded to 2⁴⁰": ((2**40,), (0,)), "expanded to 4 GiB": ((2**10, 2**20), (0, 0))}.items():
        yield Case(f"pth: {case}", zipped(mapping(x=tensor(size=body[0], stride=body[1]))))
    stored = storage("../../data.pkl")
    yield Case("pth: a storage's key is a path", zipped(mapping(x=tensor(stored)), {"0": bytes(24)}))
    yield Case("pth: a storage's key is absolute", zipped(mapping(x=tensor(storage("/etc/passwd"))), {"0": bytes(24)}))


_PERSISTENT = {
    "number": number(5),
    "None": b"N",
    "list": b"](" + text("storage") + b"e",
    "dict": b"}",
    "tensor": tensor(),
    "stub": name("torch", "FloatStorage"),
    "empty": b")",
    "short": b"(" + text("storage") + b"t",
    "long": b"(" + text("storage") + b"N" * 9 + b"t",
    "with a list as key": b"("
    + text("storage")
    + name("torch", "FloatStorage")
    + b"]"
    + text("cpu")
    + number(6)
    + b"t",
    "with a dict as count": b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"}t",
    "with True as count": b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"\x88t",
    "with text as type": b"("
    + text("storage")
    + text("torch.FloatStorage")
    + text("0")
    + text("cpu")
    + number(6)
    + b"t",
    "with a number as type": b"(" + text("storage") + number(4) + text("0") + text("cpu") + number(6) + b"t",
}
_TENSORS = {
    f"{size} strides {stride} offset {offset}": tensor(offset=offset, size=size, stride=stride)
    for size, stride, offset in (
        *(((2, 3), (3, 1), n) for n in (1, 2**31, 2**48, 2**62, 2**63 - 1, 2**64 - 1, -1, -(2**63))),
        *(((2, 3), (n, 1), 0) for n in (4, 2**47, 2**61, 2**62, 2**63 - 1, -3, -(2**62))),
        *(((n, 3), (3, 1), 0) for n in (3, 2**31, 2**47, 2**62, 2**63, -2, -(2**63))),
        *(((n, 0), (1, 1), 0) for n in (2**49, 2**62, -1)),
        ((2**32, 2**32), (0, 0), 0),
        ((2**24, 2**24, 2**24), (0, 0, 0), 0),
        ((2,) * 64, (0,) * 64, 0),
        ((2, 3), (), 0),
        ((), (1,), 0),
        ((), (), 6),
    )
}


# -- zip archives


def _zips() -> Iterator[Case]:
    values = npy("<f4", "(6,)", bytes(24))
    plain, torch_file = npz(("w.npy", values)), zipped()
    for kind, content, inside in (("npz", plain, "w.npy"), ("pth", torch_file, "archive/data/0")):
        end = len(content) - 22
        for case, changed in {
            "sizes of 4 GiB": patched(content, inside, 20, struct.pack("<2L", 2**32 - 2, 2**32 - 2)),
            "64-bit sizes without a field": patched(content, inside, 20, b"\xff" * 8),
            "header beyond the file": patched(content, inside, 42, struct.pack("<L", 2**31)),
            "header before the file": patched(content, inside, 42, struct.pack("<L", 2**32 - 5)),
            "header in the directory": patched(content, inside, 42, struct.pack("<L", end - 40)),
            "a packed size of nothing": patched(content, inside, 20, bytes(4)),
            "a method that is none": patched(content, inside, 10, b"\x63\0"),
            "encrypted": patched(content, inside, 8, b"\1\0"),
            "a local name that differs": patched(content, inside, 30, b"x", local=True),
            "a name beyond the directory": patched(content, inside, 28, b"\xff\xff"),
            "an extra field beyond the directory": patched(content, inside, 30, b"\xff\xff"),
            "a comment beyond the directory": patched(content, inside, 32, b"\xff\xff"),
            "60000 entries declared": content[: end + 8] + struct.pack("<2H", 60_000, 60_000) + content[end + 12 :],
            "a directory beyond": content[: end + 12] + struct.pack("<2L", 10**6, end) + content[end + 20 :],
            "a directory of 4 GiB": content[: end + 12] + struct.pack("<2L", 2**32 - 2, 0) + content[end + 20 :],
            "another disk": content[: end + 4] + struct.pack("<2H", 7, 7) + content[end + 8 :],
            "64-bit end without one": content[: end + 16] + b"\xff" * 4 + content[end + 20 :],
            "a comment that is cut off": content[:-2] + b"\xff\xff",
            "an end in the comment": content[:-2] + struct.pack("<H", 22) + b"PK\5\6" + b"\xff" * 18,
            "something in front": b"PK\3\4" + bytes(100) + content,
        }.items():
            either = case in _PASSED_OVER or (kind == "npz" and case in _PASSED_OVER_BY_ZIPFILE)
            yield Case(f"{kind}: {case}", changed, EITHER if either else REFUSED)
    for path in (
        "../../x.npy",
        "/etc/x.npy",
        "C:\\x.npy",
        "..\\..\\x.npy",
        "a/../../../x.npy",
        "\x1b[2J.npy",
        "a\nb.npy",
    ):
        # an .npz reader makes no files: a name is a name, and is quoted wherever it is shown
        yield Case(f"npz: the name {path!r}", npz((path, values)), READ)
        yield Case(f"pth: the name {path!r}", torch_files.archive(torch_files.PKL, torch_files.DATA, (path, b"x")))
    yield Case("npz: an entry twice", npz(("w.npy", values), ("w.npy", values)))
    yield Case("pth: a bomb", zipped(storages={"0": bytes(100 * MIB)}, compression=zipfile.ZIP_DEFLATED))
    yield Case("npz: a bomb", flat.bomb(150 * MIB))
    nested = torch_files.archive(("a.npy", flat.bomb(50 * MIB)), compression=zipfile.ZIP_DEFLATED)
    yield Case("npz: a bomb in a bomb", nested)
    lies = flat.bomb(60 * MIB)
    true = struct.pack("<I", 60 * MIB + len(npy("|u1", f"({60 * MIB},)", b"")))
    yield Case("npz: a bomb that says it is small", lies.replace(true, struct.pack("<I", 1000)))
    yield Case("npz: overlapping entries", _overlapping(2000, quoted=False))
    yield Case("npz: overlapping entries, each quoting the next header", _overlapping(400, quoted=True))
    pieces = b"".join(struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 4, 4, 1, 0) + b"a" for _ in range(50_000))
    yield Case("zip of local headers alone", pieces)
    yield Case("zip of nothing", b"PK\5\6" + bytes(18))
    yield Case("zip of 65000 ends", b"PK\3\4" + (b"PK\5\6" + b"\xff" * 18) * 65_000)
    yield Case("pth: both a state dict and arrays", torch_files.archive(torch_files.PKL, ("archive/w.npy", values)))


# faults in fields that are not needed: the arrays are found by the others
_PASSED_OVER = ("another disk", "a comment that is cut off")
_PASSED_OVER_BY_ZIPFILE = (
    *("something in front", "60000 entries declared", "a name beyond the directory"),
    *("an extra field beyond the directory", "a comment beyond the directory"),
)


def _overlapping(count: int, quoted: bool) -> bytes:
    """A zip whose entries share one packed body; with `quoted` as in David Fifield's "A better zip bomb" (2019): each
    entry begins with a stored block that holds the next one's header, so that headers and directory agree."""
    size = 4 * MIB
    array = npy("|u1", f"({size},)", bytes(size))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(array) + packer.flush()
    body, plain, places = packed, array, []
    for index in reversed(range(count if quoted else 1)):
        local = struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, zlib.crc32(array), len(body), len(plain) & 0xFFFFFFFF, 8, 0
        )
        header = local + f"{index:04}.npy".encode()
        places.append((len(body) + len(header), len(body), len(plain)))
        if index:
            body = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF) + header + body
            plain = header + plain if len(plain) < 5 * MIB else plain
        else:
            body = header + body
    records = []
    for index in range(count):
        back, length, size = places[count - 1 - index] if quoted else places[0]
        fields = (0x031E, 20, 0, 8, 0, 0, zlib.crc32(array), length, size, 8, 0, 0, 0, 0, 0, len(body) - back)
        records.append(struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + f"{index:04}.npy".encode())
    directory = b"".join(records)
    return body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


# -- safetensors, npz, caffemodel, HDF5


def _safetensors() -> Iterator[Case]:
    one = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    contents = {
        **{f"tests: {case}": safetensors(header, bytes(size)) for case, (header, size) in flat.BAD_HEADERS.items()},
        **{
            f"a header of {n} bytes": struct.pack("<Q", n) + one + bytes(4)
            for n in (0, 1, 10**8, 2**31, 2**63, 2**64 - 1)
        },
        "a header of 100 MB": struct.pack("<Q", 10**8) + b"{" + b" " * (10**8 - 2) + b"}",
        "100000 nested objects": safetensors(b'{"x":' * 100_000),
        "100000 nested lists": safetensors(b'{"x":{"dtype":"F32","shape":' + b"[" * 100_000),
        "a number of a million digits": safetensors(
            b'{"x":{"dtype":"F32","shape":[' + b"9" * 10**6 + b'],"data_offsets":[0,4]}}'
        ),
        "offsets as text": safetensors(one.replace(b"[0,4]", b'["0","4"]'), bytes(4)),
        "three offsets": safetensors(one.replace(b"[0,4]", b"[0,4,8]"), bytes(4)),
        "offsets of 2⁶⁴": safetensors(one.replace(b"[0,4]", b"[18446744073709551612,18446744073709551616]"), bytes(4)),
        "a name that cannot be text": safetensors(one.replace(b'"x"', b'"\\ud800"'), bytes(4)),
        "metadata that is no text": safetensors(one[:-1] + b',"__metadata__":{"a":1}}', bytes(4)),
        "a dtype of half a byte": safetensors(one.replace(b"F32", b"F4"), bytes(4)),
        "nothing but a length": struct.pack("<Q", 8),
        "a mark of byte order": safetensors(b"\xef\xbb\xbf" + one, bytes(4)),
    }
    for case, content in contents.items():
        yield Case(f"safetensors: {case}", content)
    metadata = b'{"__metadata__":{' + b",".join(b'"%d":"x"' % n for n in range(300_000)) + b"}}"
    yield Case("safetensors: 300000 metadata", safetensors(metadata), READ)


def _npz() -> Iterator[Case]:
    four = bytes(4)
    headers = {
        **{
            f"dtype {descr}": npy(descr, "(1,)", four)
            for descr in ("|O", "O", "|V4", "<U1", "|S4", "<M8[s]", "<m8", "<c8", "<f16", "<i3", "f4,f4", "<f4" * 2000)
        },
        "a structured dtype": npy([("a", "<f4"), ("b", "|O")], "(1,)", four),
        "a dtype of 2³¹ bytes": npy("|V2147483647", "(1,)", four),
        **{
            f"shape {shape}": npy("<f4", shape, four)
            for shape in (
                "(-1,)",
                "(1, -1)",
                "(99999999999,)",
                f"({2**62}, 4)",
                f"({2**63},)",
                f"({2**64}, 0)",
                "(" + "1, " * 65 + ")",
                "(1e9,)",
                "(True,)",
                "1",
                "[1]",
                "(0x1,)",
                "(1_0,)",
            )
        },
        "a shape that calls": npy("<f4", "(__import__('os').getpid(),)", four),
        "an order that calls": npy("<f4", "(1,)", four, fortran="print()"),
        "nested brackets": npy("<f4", "(" * 60_000, four, version=2),
        "nested minus": npy("<f4", "-" * 60_000 + "1", four, version=2),
        "a power": npy("<f4", "(9**9**9**9,)", four),
        "a header of 4 GiB": b"\x93NUMPY\2\0\xff\xff\xff\xff{'descr': '<f4'",
        "a long header": npy("<f4", "(1,)" + " " * 10**6, four, version=2),
        "many digits": npy("<f4", f"({'9' * 3900},)", four),
        "keys twice": npy("<f4", "(1,), 'shape': (1,)", four),
        "version 9": npy("<f4", "(1,)", four, version=9),
        "100 GB declared": npy("<f4", f"({25 * 10**9},)", four),
    }
    for case, content in headers.items():
        yield Case(f"npy: {case}", content)
        yield Case(f"npz: {case}", npz(("w.npy", content)))


def _caffemodel() -> Iterator[Case]:
    four = struct.pack("<f", 1.0)
    nest = b""
    for _ in range(20_000):
        nest = field(100, nest)
    bodies = {
        **{f"tests: {case}": layer(b"a", body) for case, body in flat.BAD_BLOBS.items()},
        **{
            f"the shape {shape}": layer(b"a", field(7, field(1, b"".join(map(varint, shape)))) + field(5, four))
            for shape in ((2**62,), (2**31, 2**31, 4), (-1, -1), (2**64 - 1,), (1,) * 33, (0, 2**62), (2**63,))
        },
        "packed and single floats": layer(b"a", field(7, field(1, b"\3")) + field(5, four) + field(5, 1.0)),
        "floats and doubles": layer(b"a", field(7, field(1, b"\1")) + field(5, four) + field(8, bytes(4))),
        "empty blobs without end": field(100, field(1, b"a") + field(7, b"") * 300_000),
        "layers without end": field(100, b"") * 300_000,
        "nested messages": nest,
        "a length of 2⁶³": varint(802) + varint(2**63 - 1) + bytes(8),
        "a length of 4 GiB": varint(802) + varint(2**32) + bytes(8),
        "a varint of 11 bytes": b"\xff" * 10 + b"\1",
        "a million bytes of one varint": b"\xff" * 10**6,
        "field 0": b"\2\1x",
        "groups": b"\x0b" * 10**6,
        "two layers of a name": layer(b"a", blob((1,), [1.0])) * 2,
        "a name that is no text": layer(b"\xff\xfe", blob((1,), [1.0])),
        "a name of a million bytes": layer(b"a" * 10**6, blob((1,), [1.0])),
        "the oldest layers": field(2, field(1, field(1, b"a")) + field(6, blob((1,), [1.0]))),
        "no layers": field(1, b"net"),
        "old sizes beyond": field(
            2, field(4, b"a") + field(6, b"".join(field(n, 2**31) for n in (1, 2, 3, 4)) + field(5, four))
        ),
    }
    for case, content in bodies.items():
        yield Case(f"caffemodel: {case}", content)


def hdf5(make: Any, *arguments: Any, **options: Any) -> bytes:
    """The bytes of an HDF5 file that `make` fills. Raises ImportError where h5py is not installed."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        make(file, *arguments)
    return stream.getvalue()


def keras(file: Any, values: Any) -> None:
    """As Keras 2's save_weights: a group for each layer, whose attribute lists its arrays."""
    file.attrs["layer_names"] = [b"conv1", b"relu"]
    file.attrs["backend"] = b"tensorflow"
    file.create_group("relu").attrs["weight_names"] = np.array([], "S1")
    group = file.create_group("conv1")
    group.attrs["weight_names"] = [b"conv1/kernel:0", b"conv1/bias:0"]
    group.create_dataset("conv1/kernel:0", data=values.reshape(1, 1, 1, -1))
    group.create_dataset("conv1/bias:0", data=np.float32([0.5, -2.0]), chunks=(2,), compression="gzip")


def _hdf5(folder: Path) -> Iterator[Case]:
    try:
        import h5py
    except ImportError:
        return

    def put(file: Any, **options: Any) -> None:
        file.attrs["layer_names"] = [b"a"]
        group = file.create_group("a")
        group.attrs["weight_names"] = [b"w"]
        group.create_dataset("w", **options)

    def linked(file: Any, link: Any) -> None:
        file.attrs["layer_names"] = [b"a"]
        group = file.create_group("a")
        group.attrs["weight_names"] = [b"w"]
        group["w"] = link

    def virtual(file: Any, source: str) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(source, "x", (4,))
        file.attrs["layer_names"] = [b"a"]
        group = file.create_group("a")
        group.attrs["weight_names"] = [b"w"]
        group.create_virtual_dataset("w", layout)

    def loop(file: Any) -> None:
        file.attrs["layer_names"] = [b"a"]
        file.create_group("a").attrs["weight_names"] = [b"a/a/a/w"]
        file["a/a"] = file["a"]
        file["b"] = file["/"]

    def deep(file: Any) -> None:
        group = file
        for _ in range(2000):
            group = group.create_group("g")
        group["w"] = np.float32([1])

    def names(file: Any, listed: Any) -> None:
        keras(file, np.zeros(4, np.float32))
        file.attrs["layer_names"] = listed

    secret = folder / "secret.bin"
    secret.write_bytes(b"\0\0\x80?" * 16)
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.ones(4, np.float32)
    files = {
        "4 TB declared": hdf5(lambda f: put(f, shape=(2**40,), dtype="f4", chunks=(2**20,))),
        "4 TB declared, unchunked": hdf5(lambda f: put(f, shape=(2**40,), dtype="f4")),
        "a bomb": hdf5(lambda f: put(f, data=np.zeros(30 * 10**6, "f4"), chunks=(2**20,), compression="gzip")),
        "one huge chunk": hdf5(
            lambda f: put(f, shape=(2**29,), dtype="f4", chunks=(2**29,), compression="gzip", fillvalue=1)
        ),
        "scale and offset": hdf5(lambda f: put(f, data=np.zeros(30 * 10**6, "i4"), chunks=(2**20,), scaleoffset=1)),
        "objects": hdf5(lambda f: put(f, data=["a", "b"], dtype=h5py.string_dtype())),
        "a compound": hdf5(lambda f: put(f, data=np.zeros(4, [("a", "f4"), ("b", "i4")]))),
        "references": hdf5(lambda f: put(f, shape=(4,), dtype=h5py.ref_dtype)),
        "opaque": hdf5(lambda f: put(f, data=np.zeros(4, "V7"))),
        "an enumeration": hdf5(lambda f: put(f, shape=(4,), dtype=h5py.enum_dtype({"a": 1}))),
        "arrays as numbers": hdf5(lambda f: put(f, shape=(4,), dtype=np.dtype(("f4", (2**20,))))),
        "no space": hdf5(lambda f: put(f, data=h5py.Empty("f4"))),
        "an external file's bytes": hdf5(lambda f: put(f, shape=(4,), dtype="f4", external=[(str(secret), 0, 16)])),
        "a link to a file": hdf5(lambda f: linked(f, h5py.ExternalLink(str(folder / "other.h5"), "/x"))),
        "a link to itself": hdf5(lambda f: linked(f, h5py.SoftLink("/a/w"))),
        "a link to nothing": hdf5(lambda f: linked(f, h5py.SoftLink("/none"))),
        "a virtual dataset": hdf5(virtual, str(folder / "other.h5")),
        "a group where an array should be": hdf5(lambda f: linked(f, f.create_group("g"))),
        "a group that holds itself": hdf5(loop),
        "2000 groups deep": hdf5(deep),
        "nothing": hdf5(lambda f: None),
    }
    either = {  # Keras' own lists of what is there need not be right; and HDF5 has several layouts
        "listed numbers": hdf5(names, [1, 2]),
        "a listed name that is not there": hdf5(names, [b"none"]),
        "a listed name that goes up": hdf5(names, [b"../../conv1"]),
        "a list of 100 layers of the same name": hdf5(names, [b"conv1"] * 100),
        "a list that is no text": hdf5(names, [b"\xff\xfe"]),
        "a list that is a scalar": hdf5(names, 7),
        "of the latest kind": hdf5(keras, np.zeros(4, np.float32), libver="latest"),
    }
    sound = hdf5(keras, np.zeros(4, np.float32))
    # each reference to a node leads to every other one, to itself, and out of the file
    nodes = [match.start() for match in re.finditer(b"TREE|SNOD|HEAP", sound)]
    references = [(match.start(), at) for at in nodes for match in re.finditer(re.escape(struct.pack("<Q", at)), sound)]
    for place, at in references:
        for target in {*nodes, place, place - 8, place - 24, 0, 96, len(sound), len(sound) - 4, 2**63, 2**64 - 2} - {
            at
        }:
            moved = sound[:place] + struct.pack("<Q", max(target, 0)) + sound[place + 8 :]
            either[f"the reference at {place} to {at} leads to {target}"] = moved
    for expect, contents in ((REFUSED, files), (EITHER, either)):
        yield from (Case(f"h5: {case}", content, expect) for case, content in contents.items())


def _nans() -> Iterator[Case]:
    """NaN is a value: it is read."""
    values = np.array([np.nan, -np.inf, 1, 2, 3, 4], "<f4")
    header = {"w": entry("F32", [6], 0, 24)}
    for kind, content in {
        "pth": zipped(storages={"0": values.tobytes()}),
        "legacy pth": legacy(storages={"0": (6, values.tobytes())}),
        "safetensors": safetensors(header, values.tobytes()),
        "npy": npy("<f4", "(6,)", values.tobytes()),
        "npz": npz(("w.npy", npy("<f4", "(6,)", values.tobytes()))),
        "caffemodel": layer(b"w", blob((6,), values)),
    }.items():
        yield Case(f"NaN in {kind}", content, READ)


# -- images


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    *chunks: bytes, size: tuple[int, int] = (8, 8), head: bytes = b"\x08\2\0\0\0", data: bytes | None = None
) -> bytes:
    rows = zlib.compress(bytes((3 * 8 + 1) * 8)) if data is None else data
    header = _chunk(b"IHDR", struct.pack(">2I", *size) + head)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], data: bytes = b"", order: str = "<") -> bytes:
    """entries: (tag, type, count, value)."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    listed = b"".join(struct.pack(f"{order}2H2L", *fields) for fields in sorted(entries))
    return mark + struct.pack(f"{order}LH", 8, len(entries)) + listed + struct.pack(f"{order}L", 0) + data


def _scans(count: int) -> bytes:
    """A progressive JPEG that goes over its pixels once more so often."""
    whole = image(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + b"\xff\xd9"


def _images(marker: Path) -> Iterator[Case]:
    photo = Image.fromarray(PHOTO)
    jpeg = image(photo, "JPEG", quality=95)
    frame = jpeg.index(b"\xff\xc0")  # length, precision, height, width
    packer = zlib.compressobj(9)
    zeros = b"".join(packer.compress(bytes(MIB)) for _ in range(200)) + packer.flush()
    profile = b"icc\0\0" + zeros
    gif, bmp = image(photo.quantize(16), "GIF"), image(photo, "BMP")
    webp = image(photo, "WEBP", lossless=True)
    page = ((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1))
    strips = ((273, 4, 1, 8), (278, 4, 1, 8), (279, 4, 1, 64))
    ghost = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch {marker}) (w) file\n%%EOF\n".encode()
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{marker}"/></svg>'.encode()
    large = _chunk(b"IHDR", struct.pack(">2I", 65535, 65535) + b"\x08\2\0\0\0")
    refused = {
        "png of 15×851980": png(size=(15, 851_980)),
        "png of 65535×65535": png(size=(65535, 65535)),
        "png of 2³¹−1 columns": png(size=(2**31 - 1, 2**31 - 1)),
        "png of 2³¹−1 columns in a row": png(size=(2**31 - 1, 1)),
        "png of 2³² columns": png(size=(2**32 - 1, 2**32 - 1)),
        "png without pixels": png(size=(0, 0)),
        "png of 13000×13000": png(size=(13000, 13000), data=zeros),
        "grey png of 12000×12000": png(size=(12000, 12000), head=b"\x08\0\0\0\0", data=zeros),
        "16-bit png of 12000×12000": png(size=(12000, 12000), head=b"\x10\0\0\0\0", data=zeros),
        "black and white png of 65000×2700": png(
            size=(65000, 2700), head=b"\1\0\0\0\0", data=zlib.compress(bytes(10**6))
        ),
        "png with a bomb as text": png(_chunk(b"zTXt", b"a\0\0" + zeros)),
        "png with a bomb as international text": png(_chunk(b"iTXt", b"a\0\1\0\0\0" + zeros)),
        "png of an unknown colour": png(head=b"\x08\7\0\0\0"),
        "png of 3 bits": png(head=b"\3\2\0\0\0"),
        "png of an unknown filter": png(data=zlib.compress(b"\x09" * 200)),
        "png with too little data": png(data=zlib.compress(bytes(20))),
        "png with data that are none": png(data=b"x" * 200),
        "png with a wrong checksum": png()[:29] + b"\0\0\0\0" + png()[33:],
        "png with a chunk of 4 GiB": png()[:33] + b"\xff\xff\xff\xffIDAT" + bytes(99),
        "png with a chunk that is no name": png()[:33] + _chunk(b"\0\1\2\3", b""),
        "png with two headers": png()[:33] + large + png()[33:],
        "png with a profile that is none": png(_chunk(b"iCCP", b"a" * 200)),
        "png with short gamma": png(_chunk(b"gAMA", b"")),
        "jpeg of 65500×65500": jpeg[: frame + 5] + struct.pack(">2H", 65500, 65500) + jpeg[frame + 9 :],
        "jpeg of 0×0": jpeg[: frame + 5] + bytes(4) + jpeg[frame + 9 :],
        "jpeg of 5 channels": jpeg[: frame + 9] + b"\5" + jpeg[frame + 10 :],
        "jpeg of 12 bits": jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :],
        "jpeg without tables": jpeg[:20] + jpeg[frame:],
        "jpeg of 5000 scans": _scans(5000),
        "jpeg of marks alone": b"\xff\xd8" + b"\xff\xe0\0\2" * 10**5,
        "jpeg of a mark that is none": b"\xff\xd8\xff" + bytes(100),
        "jpeg of one byte": b"\xff",
        "gif with a screen of 65535×65535": gif[:6] + b"\xff" * 4 + gif[10:],
        "gif of 65535×65535": gif.replace(
            b"," + bytes(4) + struct.pack("<2H", 120, 90), b"," + bytes(4) + b"\xff" * 4, 1
        ),
        "gif without a picture": gif[: gif.index(b",")] + b";",
        "gif of comments": gif[: gif.index(b",")] + b"!\xfe\xffx" * 10**4,
        "bmp of 23,000,000 rows": bmp[:18] + struct.pack("<2i", 1, 23_000_000) + bmp[26:],
        "bmp of 65535×65535": bmp[:18] + struct.pack("<2i", 65535, 65535) + bmp[26:],
        "bmp of −2³¹ rows": bmp[:18] + struct.pack("<2i", 100, -(2**31)) + bmp[26:],
        "bmp of negative columns": bmp[:18] + struct.pack("<2i", -100, 100) + bmp[26:],
        "bmp with pixels beyond the file": bmp[:10] + b"\xff\xff\xff\x7f" + bmp[14:],
        "bmp of an unknown header": bmp[:14] + b"\xff\0\0\0" + bmp[18:],
        "bmp of 2³¹ colours": bmp[:28] + b"\x08\0" + bmp[30:46] + b"\xff\xff\xff\x7f" + bmp[50:],
        "ppm of 65535×65535": b"P6 65535 65535 255\n" + bytes(99),
        "ppm of 10⁹ digits": b"P6 " + b"9" * 10**6,
        "ppm of negative size": b"P6 -1 -1 255\n" + bytes(99),
        "ppm of 2³¹ levels": b"P6 2 2 2147483648\n" + bytes(99),
        "ppm of text": b"P3 2 2 255 a b c d e f g",
        "ppm of endless comments": b"P6 " + b"#\n" * 10**5,
        "ppm with a float": b"Pf 2 2 nan\n" + bytes(16),
        "tiff of 65535×65535": tiff((256, 4, 1, 65535), (257, 4, 1, 65535), *page[2:], *strips, data=bytes(64)),
        "tiff whose strip lies beyond": tiff(*page, (273, 4, 1, 2**31), *strips[1:], data=bytes(64)),
        "tiff with 2³⁰ strips": tiff(*page, (273, 4, 2**30, 8), *strips[1:], data=bytes(64)),
        "tiff whose list lies beyond": b"II*\0" + struct.pack("<L", 2**31),
        "tiff with 65535 entries": b"II*\0" + struct.pack("<LH", 8, 65535) + bytes(99),
        "tiff without strips": tiff(*page),
        "tiff of 2³² columns": tiff((256, 4, 1, 2**32 - 1), (257, 4, 1, 1), *page[2:], *strips, data=bytes(64)),
        "tiff of 64 channels": tiff(*page[:5], (277, 3, 1, 64), *strips, data=bytes(64)),
        "webp of 16384×16384": webp[:21] + b"\xff\xff\xff\x0f" + webp[25:],
        "webp of 4 GiB": webp[:4] + b"\xff" * 4 + webp[8:16] + b"\xff" * 4 + webp[20:],
        "webp of nothing": b"RIFF\4\0\0\0WEBP",
        "eps": ghost,
        "eps in its binary form": struct.pack("<7LH", 0xC6D3D0C5, 30, len(ghost), 0, 0, 0, 0, 0xFFFF) + ghost,
        "svg": svg,
        "pdf": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/Launch/F(x)>>>>endobj\n",
        "xpm": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c None", "a"};',
        "ico": image(photo, "ICO"),
        "tga": image(photo, "TGA"),
        "j2k": image(photo, "JPEG2000"),
        "dds": image(photo, "DDS"),
        "im": b"Image type: RGB image\r\nFile size (no of images): 1\r\nImage size (x*y): 8*8\r\n" + b"\0" * 999,
        "fits": b"SIMPLE  =                    T" + b" " * 2850,
        "a page of the web": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
        "zeros": bytes(10**6),
        "a weights file": zipped(),
    }
    either = {
        # Pillow passes over what no pixel needs, within its own limits
        "png with a bomb as colour profile": png(_chunk(b"iCCP", profile)),
        "png with a palette of nothing": png(_chunk(b"PLTE", b"")) + b"x",
        "gif whose codes have 99 bits": gif[: gif.index(b",") + 10] + b"\x63" + gif[gif.index(b",") + 11 :],
        "tiff whose strip is 4 GiB": tiff(*page, (259, 3, 1, 5), *strips[:2], (279, 4, 1, 2**32 - 1), data=bytes(64)),
        "tiff with 4 GiB of text": tiff(*page, *strips, (270, 2, 2**32 - 1, 8), data=bytes(64)),
        "png with 100000 chunks": png(*[_chunk(b"tEXt", b"a\0b")] * 100_000),
        "png with a damaged Exif": png(_chunk(b"eXIf", b"II*\0" + b"\xff" * 50)),
        "png with animation of 2³² frames": png(_chunk(b"acTL", b"\xff" * 8)),
        "jpeg with a damaged Exif": jpeg[:2] + b"\xff\xe1\0\x40Exif\0\0" + b"II*\0" + b"\xff" * 52 + jpeg[2:],
        "jpeg of 90 scans": _scans(80),
        "gif with a picture beyond the screen": gif.replace(b"," + bytes(4), b"," + b"\xf0\xff" * 2, 1),
        "tiff whose list holds itself": tiff(*page, *strips, (330, 4, 1, 8), data=bytes(64)),
        "tiff of zero sizes": tiff((256, 4, 1, 0), (257, 4, 1, 0), *page[2:], *strips, data=bytes(64)),
        "black and white png in colour's place": png(head=b"\1\0\0\0\0"),
    }
    for expect, contents in ((REFUSED, refused), (EITHER, either)):
        for case, content in contents.items():
            for reader in ("read_image", "read_mask"):
                yield Case(f"{reader} {case}", content, expect, reader)
    yield Case("read_mask of a jpeg", jpeg, reader="read_mask")
    # what is none of that, though it looks like it
    film = (b"\xff\xda" + bytes(60_000)) * 120
    yield Case("read_image jpeg with a film behind it", jpeg + film, READ, "read_image")
    plain = image(Image.new("L", (5000, 5000)), "PNG")
    yield Case("read_mask png of 25 megapixels of one class", plain, READ, "read_mask")


def places(folder: Path) -> dict[str, Path]:
    """What is no file, by what it is: it must be refused at once."""
    found = {"missing": folder / "none", "folder": folder / "a folder", "nul": folder / "a\0b"}
    found["folder"].mkdir()
    found["empty"] = folder / "empty"
    found["empty"].touch()
    with contextlib.suppress(OSError, NotImplementedError):  # Windows asks for rights
        found["loop"] = folder / "loop"
        found["loop"].symlink_to(found["loop"])
        found["dangling"] = folder / "dangling"
        found["dangling"].symlink_to(folder / "nowhere")
    if hasattr(os, "mkfifo"):
        found["pipe"] = folder / "pipe"
        os.mkfifo(found["pipe"])
    found |= {device: Path(device) for device in ("/dev/zero", "/dev/stdin", "/dev/tty") if Path(device).exists()}
    return found


# -- reading it all


_WATCHED = ("os.system", "subprocess.", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "os.startfile", "pty.spawn")
_WATCHED += ("pickle.", "socket.", "shutil.", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink")
_WATCHED += ("ctypes.", "webbrowser.", "urllib.", "code.__new__", "function.__new__")


class Watch:
    """What the interpreter does while `on`, as its audit hook tells: it cannot be taken off, so it is switched."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[1], str) and bool(set(arguments[1]) & set("wax+"))
        compiled = event == "compile" and not os.path.isfile(str(arguments[1]))  # a module that is imported has a file
        if event.startswith(_WATCHED) or writes or compiled:
            self.seen.append(f"{event} {arguments!r}"[:200])


def outcome(path: Path, reader: str) -> tuple[str, str]:
    """(READ, "") or (REFUSED, the sentence); whatever else it raises is its caller's to see."""
    try:
        READERS[reader](path)
    except (ValueError, FileNotFoundError, IsADirectoryError) as error:
        # UnicodeDecodeError, JSONDecodeError and the like would be the library's own words
        return (
            (REFUSED, str(error))
            if type(error) in (ValueError, FileNotFoundError, IsADirectoryError)
            else ("failed", repr(error))
        )
    return READ, ""


def _resident(what: str) -> int:
    """VmRSS or VmHWM of this process in bytes; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * KIB for line in lines if line.startswith(what)), 0)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # not Linux, or not allowed: then peaks only grow, and the bound is the stricter
        Path("/proc/self/clear_refs").write_text("5")


def write(folder: Path) -> None:
    """The corpus as files in `folder`, beside a list of them."""
    listed = [
        (f"{reader} {what}", str(path), reader, REFUSED, 0)
        for what, path in places(folder).items()
        for reader in READERS
    ]
    for kind, content in sound_weights(10).items():
        listed.append((f"sound {kind}", str(_put(folder, content)), "read", READ, len(content)))
    for kind, content in sound_images(3).items():
        listed.append((f"sound {kind}", str(_put(folder, content)), "read_image", READ, len(content)))
    for case in cases(folder):
        listed.append((case.name, str(_put(folder, case.content)), case.reader, case.expect, len(case.content)))
    (folder / "list.json").write_text(json.dumps(listed))


_numbers = itertools.count()


def _put(folder: Path, content: bytes) -> Path:
    path = folder / f"file{next(_numbers)}"
    path.write_bytes(content)
    return path


def main(folder: Path) -> None:
    """Read everything; a line of JSON for each file, with its name on standard error before it: a hang shows there."""
    warnings.simplefilter("ignore")  # Pillow warns of damaged metadata
    watch = Watch()
    listed = json.loads((folder / "list.json").read_text())
    for case, path, reader, _, _ in listed:  # so that nothing is imported any more, and the first pages are there
        if case.startswith("sound"):
            outcome(Path(path), reader)
    base = _resident("VmRSS")
    for case, path, reader, expect, size in listed:
        print(case, file=sys.stderr, flush=True)
        watch.seen.clear()
        _forget_peak()
        began = time.perf_counter()
        watch.on = True
        try:
            result, said = outcome(Path(path), reader)
        except BaseException as error:
            result, said = "failed", repr(error)
        watch.on = False
        row = {"case": case, "expect": expect, "result": result, "said": said.replace(path, "PATH"), "size": size}
        row |= {"grew": _resident("VmHWM") - base, "seconds": time.perf_counter() - began, "seen": watch.seen}
        print(json.dumps(row), flush=True)
    print(json.dumps({"executed": (folder / MARKER).exists()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Fuzzing of everything that reads files: well-formed files of each format are changed at random and read.

What a file of weights or an image may come to is arrays, or one of our own sentences. Everything else is a finding:
another exception, a crash of the libraries in C below, a file that takes ten seconds, memory beyond the bound. The
files are changed byte by byte and where the format keeps its lengths, places and instructions, with checksums repaired.
Case n of a format and a seed is always the same file. Needs Linux, for the bounds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import multiprocessing
import os
import pickletools
import random
import re
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
FORMATS = {  # the well-formed files of tests/hostile.py that each begins with
    "pth": ("pth",),
    "legacy pth": ("legacy pth",),
    "safetensors": ("safetensors",),
    "npy": ("npy",),
    "npz": ("npz", "deflated npz"),
    "caffemodel": ("caffemodel", "old caffemodel"),
    "h5": ("h5", "whole h5"),
    "png": ("png", "palette png", "deep png"),
    "jpeg": ("jpeg", "progressive jpeg", "cmyk jpeg", "mpo"),
    "gif": ("gif",),
    "tiff": ("tiff", "lzw tiff", "jpeg tiff", "deep tiff"),
    "bmp": ("bmp", "palette bmp"),
    "webp": ("webp", "lossy webp"),
    "ppm": ("ppm", "plain ppm"),
}
IMAGES = ("png", "jpeg", "gif", "tiff", "bmp", "webp", "ppm")
LIBRARIES = {"safetensors": "safetensors"} | dict.fromkeys(IMAGES, "Pillow")
HANG = 10  # seconds that a file may take
STUCK = 30  # seconds after which a process that says nothing is ended: its library in C does not come back
MEMORY = 100 * 10**6  # bytes beside twice the file
PIXELS = 512 << 20  # bytes of address space for an image that is read: it holds its pixels several times over
KEPT = 5  # files of each finding

Field = tuple[int, int, str]  # where a number lies, how many bytes it has, and in which order


def rows(
    minutes: float, seed: int, keep: Path | None, formats: tuple[str, ...] = tuple(FORMATS)
) -> list[dict[str, Any]]:
    """One row per format, each of which has an equal share of the minutes."""
    if "h5" in formats and importlib.util.find_spec("h5py") is None:
        print("h5 files are left out: h5py, which writes the well-formed ones, is not installed")
        formats = tuple(kind for kind in formats if kind != "h5")
    print(f"{'format':12} {'files':>8} {'read':>8} {'refused':>8} {'findings':>8}  seconds  peak MB")
    return [_row(kind, seed, 60 * minutes / len(formats), keep) for kind in formats]


def _row(kind: str, seed: int, seconds: float, keep: Path | None) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    found: Counter[str] = Counter()
    peak, first, began = 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while (left := began + seconds - time.monotonic()) > 0:
            for what in _watched(kind, seed, first, left, Path(folder)):
                counts += Counter(what["counts"])
                peak, first = max(peak, what["peak"]), what["next"]
                if what["finding"]:
                    found[what["finding"]] += 1
                    if found[what["finding"]] <= KEPT:
                        _keep(keep, kind, seed, first - 1, what["finding"])
    row = {
        "format": kind,
        "files": counts.total(),
        "read": counts["read"],
        "refused": counts["refused"],
        "findings": found.total(),
        "what": dict(found),
        "seconds": round(time.monotonic() - began, 1),
        "peak_mb": round(peak / 1e6, 1),
    }
    if kind in LIBRARIES:
        row["library"] = f"{LIBRARIES[kind]} {metadata.version(LIBRARIES[kind])}"
    print(
        f"{kind:12} {row['files']:8} {row['read']:8} {row['refused']:8} {row['findings']:8} {row['seconds']:8.1f} "
        f"{row['peak_mb']:8.1f}",
        flush=True,
    )
    return row


def _keep(keep: Path | None, kind: str, seed: int, number: int, finding: str) -> None:
    print(f"  {kind}, seed {seed}, case {number}: {finding}", flush=True)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{kind.replace(' ', '-')}-{seed}-{number}").write_bytes(case(kind, seed, number))


def _watched(kind: str, seed: int, first: int, seconds: float, folder: Path) -> Iterator[dict[str, Any]]:
    """What a process of its own says of the cases from `first` on; if it dies or gets stuck, that is a finding too."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(kind, seed, first, seconds, str(folder), there), daemon=True)
    process.start()
    there.close()
    said: dict[str, Any] = {"next": first}
    why = ""
    try:
        while not why:
            if not here.poll(STUCK + HANG):
                why = "hang in a library"
                break
            try:
                said = here.recv()
            except EOFError:
                break
            yield said
    finally:
        if why:
            process.kill()
        process.join()
    if process.exitcode and process.exitcode > 0:
        raise RuntimeError(f"fuzz: the process that reads {kind} files failed by itself; its words are above")
    if process.exitcode:
        numbers = [int(path.name) for path in folder.iterdir()]  # of the file that it was reading
        number = max(numbers, default=said["next"])
        crash = why or f"crash by {signal.Signals(-process.exitcode).name}"
        lost = Counter({"finding": 1, "uncounted": number - said["next"]})
        for path in folder.iterdir():
            path.unlink()
        yield {"counts": +lost, "peak": 0, "next": number + 1, "finding": crash}


def _work(kind: str, seed: int, first: int, seconds: float, folder: str, out: Connection) -> None:
    """Read case after case, and say what came of them: at each finding, and once a second."""
    hostile = _hostile()
    warnings.simplefilter("ignore")  # Pillow warns of damaged metadata
    logging.disable()  # and tells why it cannot decode a TIFF
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff has a word on most files
    path = Path(folder) / "sound"
    for number in range(len(FORMATS[kind])):  # so that all is imported
        path.write_bytes(seeds(kind)[number])
        _outcome(path, kind, 0)
    path.unlink()
    base = hostile._resident("VmRSS")
    _limit(hostile._resident("VmSize") + (PIXELS if kind in IMAGES else MEMORY + (1 << 20)))
    signal.signal(signal.SIGALRM, _hangs)
    counts: Counter[str] = Counter()
    peak, end, said, number = 0, time.monotonic() + seconds, time.monotonic(), first
    while time.monotonic() < end:
        content = case(kind, seed, number)
        path = Path(folder) / str(number)
        path.write_bytes(content)
        hostile._forget_peak()
        signal.alarm(HANG)
        try:
            result, finding = _outcome(path, kind, number)
        except (Exception, _Hang) as error:
            result, finding = "finding", _said(error)
        finally:
            signal.alarm(0)
        path.unlink()
        grew = hostile._resident("VmHWM") - base
        bound = PIXELS if kind in IMAGES and result == "read" else 2 * len(content) + MEMORY
        if grew > bound and not finding:
            result, finding = "finding", f"memory: {result}, beyond the bound"
        counts[result] += 1
        peak, number = max(peak, grew), number + 1
        if finding or time.monotonic() > said + 1:
            out.send({"counts": dict(counts), "peak": peak, "next": number, "finding": finding})
            counts.clear()
            said = time.monotonic()
    out.send({"counts": dict(counts), "peak": peak, "next": number, "finding": ""})


def _outcome(path: Path, kind: str, number: int) -> tuple[str, str]:
    """("read" or "refused", "") of a file that comes to arrays or to a sentence of ours, else ("finding", what)."""
    import numpy as np

    names = ("read_image", "read_mask") if kind in IMAGES else ("read",)
    reader = names[number % len(names)]
    try:
        found = _hostile().READERS[reader](path)
    except ValueError as error:
        said = str(error)
        ours = type(error) is ValueError and said.startswith(f"{reader}: {path}") and said.isprintable()
        if ours and len(said) < 1000 + len(str(path)):
            return "refused", ""
        return "finding", f"not a sentence of ours: {_said(error)}"
    for array in found.values() if isinstance(found, dict) else (found,):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            return "finding", f"no array of numbers: {type(array).__name__}"
        if array.size:
            array.max()  # every value is there: what is mapped may lie beyond the file
    return "read", ""


class _Hang(BaseException):
    """A file takes too long."""


def _hangs(*_: object) -> None:
    raise _Hang(f"takes more than {HANG} s")


def _said(error: BaseException) -> str:
    """The exception and the place that raised it, without what differs from file to file."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = re.sub(r"[0-9]+", "N", " ".join(str(error).split()))[:80]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} ({text})"


def _limit(address_space: int) -> None:
    import resource  # not on Windows

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space, hard))


def _hostile() -> Any:
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    import hostile

    return hostile


# -- changing files

_sound: dict[str, bytes] = {}


def seeds(kind: str) -> list[bytes]:
    """The well-formed files of a format: small, so that most of their bytes mean something."""
    if not _sound:
        hostile = _hostile()
        _sound.update(hostile.sound_weights(10) | hostile.sound_images(3))
    return [_sound[name] for name in FORMATS[kind]]


def case(kind: str, seed: int, number: int) -> bytes:
    """Case `number`: a well-formed file with one to eight changes."""
    rng = random.Random(f"{kind} {seed} {number}")
    content = rng.choice(seeds(kind))
    if kind in _REBUILT and rng.random() < 0.4:
        with contextlib.suppress(zipfile.BadZipFile, struct.error, zlib.error):
            content = _REBUILT[kind](rng, content)
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8) if kind in _REBUILT else (1, 1, 1, 2, 3, 8))):
        content = _changed(rng, kind, content)
    return content


def _changed(rng: random.Random, kind: str, content: bytes) -> bytes:
    places = _FIELDS[kind](content) if kind in _FIELDS and rng.random() < 0.5 else []
    if places:
        return _with_number(rng, content, *rng.choice(places))
    return rng.choice(_CHANGES)(rng, content)


def _with_number(rng: random.Random, content: bytes, at: int, width: int, order: str) -> bytes:
    """With another number in a field: a limit, or near to what was there."""
    name: Any = "little" if order == "<" else "big"
    was = int.from_bytes(content[at : at + width], name)
    bits = 8 * width
    near = (was + 1, was - 1, 2 * was, was // 2, was ^ (1 << rng.randrange(bits)), -was)
    limits = (0, 1, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1, len(content), len(content) - at)
    value = rng.choice((*near, *limits, rng.getrandbits(bits)))
    return content[:at] + (value & ((1 << bits) - 1)).to_bytes(width, name) + content[at + width :]


def _number_anywhere(rng: random.Random, content: bytes) -> bytes:
    width = rng.choice((1, 1, 2, 4, 8))
    return _with_number(rng, content, rng.randrange(max(1, len(content) - width)), width, rng.choice("<>"))


def _bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _splice(rng: random.Random, content: bytes) -> bytes:
    """With a piece of itself, or of nothing, in another place or instead of another piece."""
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    piece = rng.choice((content[a : min(b, a + 64)], bytes(rng.randrange(16)), rng.randbytes(rng.randrange(1, 9)), b""))
    at = rng.randrange(len(content) + 1)
    return content[:at] + piece + content[at + rng.choice((0, len(piece), rng.randrange(32))) :]


_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _bits,
    _bits,
    _number_anywhere,
    _number_anywhere,
    _splice,
    _cut,
)


def _zip_fields(content: bytes) -> list[Field]:
    forms = {b"PK\1\2": "6H3L5H2L", b"PK\3\4": "5H3L2H", b"PK\5\6": "4H2LH", b"PK\6\6": "Q2H2L4Q", b"PK\6\7": "LQL"}
    found = []
    for match in re.finditer(rb"PK[\1\3\5\6][\2\4\6\7]", content):
        at = match.start() + 4
        for count, kind in re.findall(r"(\d*)([HLQ])", forms.get(match[0], "")):
            for _ in range(int(count or 1)):
                width = {"H": 2, "L": 4, "Q": 8}[kind]
                found.append((at, width, "<"))
                at += width
    return [field for field in found if field[0] + field[1] <= len(content)]


def _digits(content: bytes) -> list[Field]:
    """A digit in text becomes another byte."""
    return [(match.start(), 1, "<") for match in re.finditer(rb"[0-9]", content[:2000])]


def _opcodes(content: bytes) -> list[Field]:
    """The instructions of the pickles that a legacy file begins with, and what follows each."""
    found: list[Field] = []
    stream = io.BytesIO(content)
    with contextlib.suppress(Exception):  # pickletools finds no more of them in what was changed already
        while stream.tell() < len(content):
            found += [(at, width, "<") for _, _, at in pickletools.genops(stream) if at for width in (1, 4)]
    return [field for field in found if field[0] + field[1] <= len(content)]


def _varints(content: bytes) -> list[Field]:
    """The first bytes of keys and lengths, at every level of a message."""
    found: list[Field] = []

    def walk(at: int, end: int, depth: int) -> None:
        while at < end and len(found) < 500:
            found.append((at, 1, "<"))
            key, at = _varint(content, at)
            found.append((at, 1, "<"))
            if key & 7 == 0:
                _, at = _varint(content, at)
            elif key & 7 == 2:
                length, at = _varint(content, at)
                if depth < 4:
                    walk(at, min(end, at + length), depth + 1)
                at += length
            else:
                at += 8 if key & 7 == 1 else 4

    with contextlib.suppress(IndexError):
        walk(0, len(content), 0)
    return [field for field in found if field[0] < len(content)]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while content[at] & 128:
        value |= (content[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | content[at] << shift, at + 1


def _segments(content: bytes) -> list[Field]:
    """What a JPEG's markers are, how long they say they are, and what they begin with."""
    found = []
    for match in re.finditer(rb"\xff[\xc0-\xfe]", content):
        at = match.start()
        found += [(at + 1, 1, ">"), (at + 2, 2, ">"), *((at + k, 1, ">") for k in range(4, 20))]
    return [field for field in found if field[0] + field[1] <= len(content)]


def _entries(content: bytes) -> list[Field]:
    """A TIFF's list of fields: each has a tag, a type, a count and a value or its place."""
    order = ">" if content[:2] == b"MM" else "<"
    if len(content) < 10:
        return []
    at = struct.unpack(f"{order}L", content[4:8])[0]
    if at + 2 > len(content):
        return []
    count = struct.unpack(f"{order}H", content[at : at + 2])[0]
    found = [(4, 4, order), (at, 2, order)]
    for index in range(min(count, 40)):
        start = at + 2 + 12 * index
        found += [(start, 2, order), (start + 2, 2, order), (start + 4, 4, order), (start + 8, 4, order)]
    return [field for field in found if field[0] + field[1] <= len(content)]


def _head(size: int) -> Callable[[bytes], list[Field]]:
    """Every number of 2 and 4 bytes in the first bytes."""
    return lambda content: [
        (at, width, "<") for at in range(min(size, len(content) - 4)) for width in (2, 4) if at % 2 == 0
    ]


def _aligned(content: bytes) -> list[Field]:
    """HDF5 keeps its numbers in 1, 2, 4 and 8 bytes, at no fixed place."""
    return [
        (at, width, "<") for at in range(0, len(content) - 8, 2) for width in (1, 2, 8) if content[at] not in (0, 255)
    ]


_FIELDS: dict[str, Callable[[bytes], list[Field]]] = {
    "pth": _zip_fields,
    "npz": _zip_fields,
    "legacy pth": _opcodes,
    "safetensors": _digits,
    "npy": _digits,
    "caffemodel": _varints,
    "h5": _aligned,
    "jpeg": _segments,
    "gif": _head(60),
    "tiff": _entries,
    "bmp": _head(54),
    "webp": _head(40),
    "ppm": _digits,
}


def _rezipped(rng: random.Random, content: bytes) -> bytes:
    """The zip with one entry's bytes changed, and its sizes, places and checksums right again."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as new:
        warnings.simplefilter("ignore")
        which = rng.choice(old.namelist() + ["archive/data.pkl"] * 8 * ("archive/data.pkl" in old.namelist()))
        for info in old.infolist():
            data = old.read(info)
            if info.filename == which:
                places = _opcodes(data) if which.endswith(".pkl") else _digits(data)
                for _ in range(rng.choice((1, 1, 2, 4))):
                    one = places and rng.random() < 0.6
                    data = _with_number(rng, data, *rng.choice(places)) if one else rng.choice(_CHANGES)(rng, data)
                    places = [place for place in places if place[0] + place[1] <= len(data)]
            new.writestr(info.filename, data, info.compress_type)
    return stream.getvalue()


def _headed(rng: random.Random, content: bytes) -> bytes:
    """The safetensors file with another header, whose length is right."""
    length = int.from_bytes(content[:8], "little")
    header = rng.choice(_CHANGES)(rng, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _rechunked(rng: random.Random, content: bytes) -> bytes:
    """The PNG with a chunk changed, moved, doubled or left out, and right checksums."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = struct.unpack(">L", content[at : at + 4])[0]
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    index = rng.randrange(len(chunks))
    kind, body = chunks[index]
    what = rng.randrange(6)
    if what == 0:
        chunks.insert(rng.randrange(len(chunks)), chunks[index])
    elif what == 1 and len(chunks) > 1:
        del chunks[index]
    elif what == 2:
        kinds = (
            b"zTXt",
            b"iCCP",
            b"tRNS",
            b"PLTE",
            b"IHDR",
            b"acTL",
            b"fcTL",
            b"fdAT",
            b"eXIf",
            b"gAMA",
            b"pHYs",
            b"iTXt",
        )
        chunks.insert(
            rng.randrange(1, len(chunks) + 1), (rng.choice(kinds), rng.choice((body, rng.randbytes(20), b"")))
        )
    elif kind == b"IDAT":
        chunks[index] = (kind, zlib.compress(rng.choice(_CHANGES)(rng, zlib.decompress(body))))
    else:
        chunks[index] = (kind, rng.choice(_CHANGES)(rng, body))
    pieces = (struct.pack(">L", len(b)) + k + b + struct.pack(">L", zlib.crc32(k + b)) for k, b in chunks)
    return content[:8] + b"".join(pieces)


_REBUILT: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "pth": _rezipped,
    "npz": _rezipped,
    "safetensors": _headed,
    "png": _rechunked,
}

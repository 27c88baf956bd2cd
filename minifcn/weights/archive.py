"""The entries of a zip archive whose files are stored as they are, found in the mapped file without copying any.

Python's zipfile would open entries one by one and copy them; here a caller learns where the bytes lie, after everything
that the archive says twice was compared, and nothing overlaps.

Source: APPNOTE.TXT, the description of the zip format.
"""

from __future__ import annotations

import mmap
import struct
from itertools import pairwise
from typing import Any, Final

from minifcn.weights.faults import Fault, quoted

Span = tuple[int, int]  # where bytes begin, and how many there are

_MOST_ENTRIES: Final = 50_000  # of a zip archive; each takes some 300 bytes of memory, and as little as 78 of the file
_END: Final = struct.Struct("<4s4H2LH")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_BIG_16, _BIG_32 = 0xFFFF, 0xFFFFFFFF  # "see the 64-bit field elsewhere"
_ENCRYPTED, _SIZES_FOLLOW = 1, 8  # flags of an entry


def directory(data: mmap.mmap) -> dict[str, Span]:
    """Name → where the bytes lie of each entry of a zip archive: stored, not compressed, and no two overlap.

    Checksums are not compared: it would mean reading every byte, and PyTorch can be told to leave them out.
    """
    end = len(data) - _END.size
    *_, count, length, start, _ = _fields(_END, data, end, b"PK\x05\x06")  # without a comment after it
    if count == _BIG_16 or _BIG_32 in (length, start):
        end = _fields(_LOCATOR, data, end - _LOCATOR.size, b"PK\x06\x07")[2]
        *_, count, length, start = _fields(_END_64, data, end, b"PK\x06\x06")
    if count > _MOST_ENTRIES or start + length > end:
        raise Fault(f"it is a damaged zip archive (a directory of {count} entries, {length} bytes)")
    spans: dict[str, Span] = {}
    used: list[Span] = [(start, start + length)]
    at = start
    for _ in range(count):
        _, _, _, flags, method, _, _, _, packed, size, names, extras, comments, _, _, _, header = _fields(
            _ENTRY, data, at, b"PK\x01\x02"
        )
        at += _ENTRY.size
        raw = data[at : at + names]
        extra = data[at + names : at + names + extras]
        at += names + extras + comments
        if at > start + length:
            raise Fault("it is a damaged zip archive (its directory is longer than it says)")
        name = _safe_name(raw)
        if name in spans:
            raise Fault(f"it is a zip archive that has {quoted(name)} twice")
        size, packed, header = _sizes_64(extra, size, packed, header)
        if method or flags & _ENCRYPTED or packed != size:
            raise Fault(f"{quoted(name)} in it is compressed or encrypted; torch.save stores plain bytes")
        begin = _local(data, header, raw, flags, size)
        spans[name] = (begin, size)
        used.append((header, begin + size))
    used.sort()
    if any(stop > after for (_, stop), (after, _) in pairwise(used)) or used[-1][1] > len(data):
        raise Fault("it is a damaged zip archive (entries overlap, or reach beyond the file)")
    return spans


def _fields(form: struct.Struct, data: mmap.mmap, at: int, signature: bytes) -> tuple[Any, ...]:
    if at < 0 or at + form.size > len(data) or data[at : at + 4] != signature:
        raise Fault("it is a zip archive that is cut off or damaged; a complete copy is needed")
    return form.unpack(data[at : at + form.size])


def _safe_name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise Fault(f"it is a zip archive with a name that is not UTF-8, {raw[:40]!r}") from None
    parts = name.removesuffix("/").split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\\" in name or ":" in parts[0] or "\0" in name:
        raise Fault(f"it is a zip archive with the unsafe name {quoted(name)}; torch.save writes <root>/data/<key>")
    return name


def _sizes_64(extra: bytes, *fields: int) -> tuple[int, ...]:
    """(size, packed size, header's place), where they are too large for the directory from its extra field 1."""
    wide = b""
    while len(extra) >= 4:
        kind, length = struct.unpack("<2H", extra[:4])
        if kind == 1:
            wide = extra[4 : 4 + length]
        extra = extra[4 + length :]
    found = []
    for field in fields:
        if field == _BIG_32:
            if len(wide) < 8:
                raise Fault("it is a damaged zip archive (a 64-bit size is missing)")
            field, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        found.append(field)
    return tuple(found)


def _local(data: mmap.mmap, header: int, raw: bytes, flags: int, size: int) -> int:
    """Where an entry's bytes begin, according to the header in front of them, which must agree with the directory."""
    _, _, own_flags, method, _, _, _, packed, own_size, names, extras = _fields(_LOCAL, data, header, b"PK\x03\x04")
    begin: int = header + _LOCAL.size + names + extras
    sizes = {size, _BIG_32} | ({0} if flags & _SIZES_FOLLOW else set())
    same = (own_flags, method) == (flags, 0) and {packed, own_size} <= sizes
    if not same or data[header + _LOCAL.size : header + _LOCAL.size + names] != raw:
        raise Fault("it is a damaged zip archive (an entry and the directory disagree)")
    return begin

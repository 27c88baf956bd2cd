"""HDF5, as far as arrays of numbers need it: read without libhdf5, which a few changed bytes can make allocate memory
until there is none left.

What h5py writes unless it is told otherwise is read: superblock 0, and in it objects of version 1.

    object header   messages: what the object is; a continuation message leads to more of them
    group           a B-tree (TREE) of lists (SNOD), whose entries lead to objects; their names are in a heap (HEAP)
    dataset         messages for its type, its shape, its filters and its layout: where its values are; in the header,
                    in one place, or in pieces (chunks) that a B-tree lists

Everything is looked at before it is followed: nothing lies outside the file, no object is met twice, and all that is
walked through is counted. What HDF5 can do beyond that is refused: links into other files, values in other files,
filters from plugins, types that are no numbers. Attributes are not looked at.

Source: HDF5 File Format Specification, The HDF Group; its sections are named below.
"""

from __future__ import annotations

import math
import mmap
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minifcn.weights.bfloat16 import widened
from minifcn.weights.faults import Fault, quoted

# The bound of the memory, 2 × the file + 100 MB, is made up of
#   2 × the file + 10 MB   what is unpacked or converted, and the largest piece beside it (File.spend)
#   72 MB                  what is known of groups, arrays and pieces: 71 MB in a file that was made to have as much as
#                          it may of all that is limited below
#   13 MB                  mapped pages: of 32 blocks, each with the 64 KiB around its ends that Linux maps too; they
#                          may be the whole file while it is looked through, before anything is unpacked
#   1 MB                   blocks on their way from one filter to the next
# Where arrays are views of the file, using them brings its pages back; the system takes them when it needs memory.
MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_NOWHERE: Final = (1 << 64) - 1  # the address of what was never written
_MOST_OBJECTS: Final = 20_000  # groups and datasets
_MOST_STEPS: Final = 300_000  # messages, nodes and entries
_MOST_PIECES: Final = 100_000  # of all datasets
_MOST_AXES: Final = 32  # as in HDF5
_LONGEST_NAME: Final = 500
_MOST_LETTERS: Final = 2_000_000  # of all names, with those of the groups around them
_SLACK: Final = 10 << 20  # bytes that a file may unpack to beyond twice its size
_GROUP, _CHUNKS = 0, 1  # kinds of B-trees
_SHAPE, _LINKS, _TYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS, _MORE, _SYMBOLS = 1, 2, 3, 6, 7, 8, 11, 16, 17  # messages
_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2  # layouts
_DEFLATE, _SHUFFLE = 1, 2  # filters
_BLOCK: Final = 1 << 18  # bytes that are unpacked or converted at once


def _types() -> dict[bytes, str]:
    """A datatype message after its version → NumPy's dtype (section IV.A.2.d): byte order, padding, sign, size, and
    which of the bits are used for what."""
    found = {}
    for order, letter in enumerate("<>"):
        for size in (1, 2, 4, 8):
            bits = size.to_bytes(4, "little") + bytes([0, 0, 8 * size, 0])
            found[bytes([0, order, 0, 0]) + bits] = f"{letter}u{size}"
            found[bytes([0, order | 8, 0, 0]) + bits] = f"{letter}i{size}"
        for size, exponent, mantissa in ((2, 5, 10), (4, 8, 23), (8, 11, 52)):
            bits = size.to_bytes(4, "little") + bytes([0, 0, 8 * size, 0, mantissa, exponent, 0, mantissa])
            bias = (2 ** (exponent - 1) - 1).to_bytes(4, "little")
            found[bytes([1, order | 32, 8 * size - 1, 0]) + bits + bias] = f"{letter}f{size}"
    return found


_TYPES: Final = _types()
# h5py's bool: an enumeration of two int8, FALSE = 0 and TRUE = 1
_BOOL: Final = bytes([8, 2, 0, 0, 1, 0, 0, 0, 16, 8, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0]) + b"FALSE\0\0\0TRUE\0\0\0\0\0\1"
_OPAQUE_2: Final = b"\2\0\0\0"  # the size of a type that h5py does not know, at byte 4


@dataclass(frozen=True, slots=True)
class _Pieces:
    """A dataset in pieces of one shape, each of which went through the filters: first index → (filters that were left
    out, as bits; place; length in bytes)."""

    shape: tuple[int, ...]
    filters: tuple[int, ...]
    pieces: dict[tuple[int, ...], tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """An array, and where its values lie: in one place of the file, or in pieces."""

    name: str
    dtype: np.dtype[Any]  # of the file's bytes
    kind: str  # what these are: "number", "bool" or "bfloat16"
    shape: tuple[int, ...]
    values: int | _Pieces


class File:
    """The bytes of an HDF5 file.

    Raises:
        ValueError: for one of another version, cut short, or no HDF5.
    """

    def __init__(self, data: memoryview) -> None:
        """Section II.A: the superblock."""
        self.data = data
        self.steps = self.pieces = self.letters = 0
        self.stored = 0  # bytes of the file that are values
        self.blocks = 0  # that were read
        self.seen: set[int] = set()  # addresses of objects
        self.left = 2 * len(data) + _SLACK  # bytes that may still be unpacked or copied
        self.widest = 0  # bytes of the largest piece that has to be unpacked beside its array
        head = self._bytes(0, 96)
        if head[:8] != MAGIC:
            raise Fault(f"it does not begin as HDF5 files do, with {MAGIC!r}; it may be damaged")
        if head[8] != 0:
            raise Fault(
                f"it has HDF5's superblock {head[8]}; 0 is read, which h5py writes unless libver= says otherwise"
            )
        if head[13:15] != b"\x08\x08":
            raise Fault(f"its addresses and lengths have {head[13]} and {head[14]} bytes; 8 and 8 are read")
        base, _, end, driver = (self._number(24 + 8 * k) for k in range(4))
        if base != 0 or driver != _NOWHERE:
            raise Fault("it is one of several files that belong together; one by itself is needed")
        if end > len(self.data):
            raise Fault(f"it says that it has {end} bytes and has {len(self.data)}; it is truncated")
        self.root = self._number(64)

    # -- bytes and numbers

    def _inside(self, at: int, length: int) -> None:
        if at + length > len(self.data):
            raise Fault(f"it leads to byte {at + length} of {len(self.data)}; it may be truncated or damaged")

    def _bytes(self, at: int, length: int) -> bytes:
        self._inside(at, length)
        return bytes(self.data[at : at + length])

    def _number(self, at: int, length: int = 8) -> int:
        return int.from_bytes(self._bytes(at, length), "little")

    def _step(self) -> None:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise Fault(f"what it describes takes more than {_MOST_STEPS} steps to look through; it is damaged")

    def _stored(self, at: int, length: int, name: str) -> None:
        """Every array, and every piece of one, has a place of its own, so that all together are no more than the file:
        otherwise few bytes could be unpacked again and again."""
        self._inside(at, length)
        self.stored += length
        if self.stored > len(self.data):
            what = f"with {quoted(name)} its values take {self.stored} bytes of {len(self.data)}"
            raise Fault(f"{what}, so that some lie in others; a place for each is needed")

    def spend(self, count: int, name: str, widest: int = 0) -> None:
        """Raises ValueError where the arrays so far, and the largest piece beside them, would unpack to too much."""
        self.left -= count
        self.widest = max(self.widest, widest)
        if self.left < self.widest:
            most = f"up to twice that (and {_SLACK} bytes) is read"
            raise Fault(f"{quoted(name)} would unpack to too much for a file of {len(self.data)} bytes; {most}")

    # -- what is there

    def datasets(self, group: int, leave: Collection[str] = ()) -> Iterator[Dataset]:
        """All in a group and its groups, but for those members that are to be left.

        Raises:
            ValueError: for what is malformed, or no array of numbers.
        """
        groups = [("", group)]
        self.seen.add(group)
        while groups:
            above, address = groups.pop()
            for name, member in self.members(address, above).items():
                if above == "" and name in leave:
                    continue
                path = above + name
                if member in self.seen:
                    raise Fault(f"{quoted(path)} is in the file under another name too; one name for each is needed")
                self.seen.add(member)
                self._few(len(self.seen))
                messages = self._messages(member, path)
                if _LAYOUT in messages:
                    yield self._dataset(path, messages)
                else:
                    groups.append((f"{path}/", member))

    def members(self, group: int, above: str = "") -> dict[str, int]:
        """Name → address of the objects in a group; `above` is its path, for messages (sections III.B to III.D)."""
        messages, where = self._messages(group, above), quoted(above[:-1] or "/")
        if _LINKS in messages or _LINK in messages:
            raise Fault(f"the group {where} has other links than to what it holds; a group of arrays is needed")
        if _SYMBOLS not in messages:
            raise Fault(f"{where} is neither a group nor an array; arrays in groups are read")
        symbols, _ = messages[_SYMBOLS][0]
        tree, heap = self._number(symbols), self._number(symbols + 8)
        if self._bytes(heap, 5) != b"HEAP\0":
            raise Fault(f"the names in the group {where} are not where they should be; it is damaged")
        length, names = self._number(heap + 8), self._number(heap + 24)
        found: dict[str, int] = {}
        for node, _ in self._leaves(tree, _GROUP, 8):
            if self._bytes(node, 5) != b"SNOD\1":
                raise Fault(f"a list of the group {where} is not where it should be; it is damaged")
            for k in range(self._number(node + 6, 2)):
                self._step()
                entry = node + 8 + 40 * k
                name = self._name(names, length, self._number(entry), above)
                if self._number(entry + 16, 4) == 2:
                    raise Fault(
                        f"{quoted(above + name)} is a link to another name; an array in its own place is needed"
                    )
                found[name] = self._number(entry + 8)
                self._few(len(found))
        return found

    def _few(self, count: int) -> None:
        if count > _MOST_OBJECTS:
            raise Fault(f"there are more than {_MOST_OBJECTS} groups and arrays; up to so many are read")

    def _name(self, heap: int, length: int, offset: int, above: str) -> str:
        """A name ends with a zero byte."""
        start = heap + min(offset, length)
        most = min(_LONGEST_NAME + 1, length - offset, len(self.data) - start)
        raw, zero, _ = self._bytes(start, max(most, 0)).partition(b"\0")
        name = raw.decode()
        if len(above + name) > _LONGEST_NAME or not zero:
            raise Fault(f"{quoted(above + name)} is a name of more than {_LONGEST_NAME} characters; so many are read")
        self.letters += len(above + name)
        if self.letters > _MOST_LETTERS:
            raise Fault(f"the names in it have more than {_MOST_LETTERS} characters together; up to so many are read")
        return name

    def _leaves(self, tree: int, kind: int, key: int) -> Iterator[tuple[int, int]]:
        """(what it leads to, where its key is) of each lowest entry of a B-tree; a key has `key` bytes (section
        III.A.1)."""
        nodes = [(tree, -1)]
        while nodes:
            node, level = nodes.pop()
            head = self._bytes(node, 8)
            if head[:4] != b"TREE" or head[4] != kind or level not in (-1, head[5]):
                raise Fault("a B-tree's node is not where it should be; it is damaged")
            entries = []
            for k in range(int.from_bytes(head[6:8], "little")):
                self._step()
                at = node + 24 + (key + 8) * k
                entries.append((self._number(at + key), at))
            if head[5] == 0:
                yield from entries
            else:
                nodes += [(child, head[5] - 1) for child, _ in entries]

    def _messages(self, header: int, name: str) -> dict[int, list[tuple[int, int]]]:
        """Kind → (place, length) of an object's messages (sections IV.A.1.a and IV.A.2.q)."""
        if self._bytes(header, 4) == b"OHDR":
            raise Fault(f"{quoted(name or '/')} is of HDF5's newer version 2; 1 is read, which h5py writes by default")
        if self._bytes(header, 2) != b"\1\0":
            raise Fault(f"{quoted(name or '/')} is no object; the file is damaged")
        found: dict[int, list[tuple[int, int]]] = {}
        left, blocks = self._number(header + 2, 2), [(header + 16, self._number(header + 8, 4))]
        known = set(blocks)
        for at, length in blocks:  # which grows
            end = at + length
            while at + 8 <= end and left:
                self._step()
                left -= 1
                kind, size, flags = self._number(at, 2), self._number(at + 2, 2), self._number(at + 4, 1)
                at += 8
                if flags & 2 and kind in (_SHAPE, _TYPE, _LAYOUT, _FILTERS):
                    raise Fault(f"{quoted(name)} has a type that other arrays share; one of its own is needed")
                if kind == _MORE and size >= 16:
                    block = (self._number(at), self._number(at + 8))
                    if block in known:
                        raise Fault(f"{quoted(name or '/')} continues in itself; the file is damaged")
                    known.add(block)
                    blocks.append(block)
                found.setdefault(kind, []).append((at, size))
                at += size
        return found

    # -- arrays

    def _dataset(self, name: str, messages: dict[int, list[tuple[int, int]]]) -> Dataset:
        if _EXTERNAL in messages:
            raise Fault(f"{quoted(name)} lies in other files; an array in this one is needed")
        if not {_SHAPE, _TYPE} <= messages.keys():
            raise Fault(f"{quoted(name)} lacks its type or its shape; the file is damaged")
        dtype, kind = self._type(name, *messages[_TYPE][0])
        shape = self._shape(name, *messages[_SHAPE][0])
        at, _ = messages[_LAYOUT][0]
        version, layout = self._bytes(at, 2)
        if version != 3 or layout > _CHUNKED:
            raise Fault(
                f"{quoted(name)} has layout {layout} of version {version}; layouts 0 to 2 of version 3 are read"
            )
        needed = math.prod(shape) * dtype.itemsize
        if needed == 0:
            return Dataset(name, dtype, kind, shape, 0)
        if layout == _CHUNKED:
            return Dataset(name, dtype, kind, shape, self._pieces(name, at, dtype.itemsize, shape, messages))
        if layout == _COMPACT:
            place, there = at + 4, self._number(at + 2, 2)
        else:
            place, there = self._number(at + 2), self._number(at + 10)
        if place == _NOWHERE:
            raise Fault(f"{quoted(name)} has a shape but was never written; a trained network's file is needed")
        if there != needed:
            raise Fault(
                f"{quoted(name)} of shape {shape} and {dtype} needs {needed} bytes and has {there}; it is damaged"
            )
        self._stored(place, needed, name)
        return Dataset(name, dtype, kind, shape, place)

    def _type(self, name: str, at: int, length: int) -> tuple[np.dtype[Any], str]:
        """(dtype of the bytes, what these are). HDF5 can describe numbers of any bits; these are none of NumPy's."""
        message = self._bytes(at, length)
        plain = bytes([message[0] & 15]) + message[1:] if message else b""  # its version says nothing about numbers
        for size in (12, 20):
            if plain[:size] in _TYPES:
                return np.dtype(_TYPES[plain[:size]]), "number"
        if plain.startswith(_BOOL):
            return np.dtype(np.uint8), "bool"
        if plain[:1] == b"\5" and plain[4:8] == _OPAQUE_2:
            return np.dtype("<u2"), "bfloat16"  # which is how h5py writes a dtype that it does not know
        raise Fault(f"{quoted(name)} holds no plain numbers; integers, booleans and floats of up to 64 bits are read")

    def _shape(self, name: str, at: int, length: int) -> tuple[int, ...]:
        """Section IV.A.2.b."""
        version, rank, _, simple = self._bytes(at, 4)
        start = at + {1: 8, 2: 4}.get(version, 0)
        if start == at or start + 8 * rank > at + length or (version == 2 and simple > 1):
            raise Fault(f"{quoted(name)} has no shape; an array is needed")
        if rank > _MOST_AXES:
            raise Fault(f"{quoted(name)} has {rank} axes; HDF5 has up to {_MOST_AXES}")
        return tuple(self._number(start + 8 * k) for k in range(rank))

    def _pieces(
        self, name: str, at: int, itemsize: int, shape: tuple[int, ...], messages: dict[int, list[tuple[int, int]]]
    ) -> _Pieces:
        """Sections IV.A.2.i and III.A.1: the layout message, and the B-tree with a key (length, filters that were left
        out, first index, 0) for each piece."""
        rank = len(shape)
        sizes = [self._number(at + 11 + 4 * k, 4) for k in range(rank + 1)]
        if self._number(at + 2, 1) != rank + 1 or sizes[-1] != itemsize or 0 in sizes:
            raise Fault(f"{quoted(name)} of shape {shape} is in pieces of another shape or type; the file is damaged")
        filters = self._filters(messages[_FILTERS][0][0]) if _FILTERS in messages else ()
        if filters not in ((), (_DEFLATE,), (_SHUFFLE,), (_SHUFFLE, _DEFLATE)):
            what = "1 (deflate), 2 (shuffle) and (2, 1) are read"
            raise Fault(f"{quoted(name)} is packed by the filters {filters}; {what}")
        steps = tuple(sizes[:-1])
        places = [range(0, n, step) for n, step in zip(shape, steps, strict=True)]
        count = math.prod(-(-n // step) for n, step in zip(shape, steps, strict=True))
        piece = math.prod(steps) * itemsize
        self.spend(count * piece, name, 0 if steps == shape else piece)
        self.pieces += count
        if self.pieces > _MOST_PIECES:
            raise Fault(f"with {quoted(name)} there are {self.pieces} pieces of arrays; up to {_MOST_PIECES} are read")
        tree = self._number(at + 3)
        pieces: dict[tuple[int, ...], tuple[int, int, int]] = {}
        for place, key in self._leaves(tree, _CHUNKS, 16 + 8 * rank) if tree != _NOWHERE else ():
            first = tuple(self._number(key + 8 + 8 * k) for k in range(rank))
            length, skipped = self._number(key, 4), self._number(key + 4, 4)
            if first in pieces or not all(start in among for start, among in zip(first, places, strict=True)):
                raise Fault(f"{quoted(name)} has a piece at {first}, where none belongs; the file is damaged")
            self._stored(place, length, name)
            pieces[first] = (skipped, place, length)
        if len(pieces) != count:
            raise Fault(f"{quoted(name)} is there in {len(pieces)} of {count} pieces; a complete file is needed")
        return _Pieces(steps, filters, pieces)

    def _filters(self, at: int) -> tuple[int, ...]:
        """The filters' numbers, in the order in which they were applied (section IV.A.2.l)."""
        version, count = self._bytes(at, 2)
        if version != 1:
            raise Fault(f"a list of filters is of version {version}; 1 is read")
        found, entry = [], at + 8
        for _ in range(count):
            self._step()
            number, name, _, values = (self._number(entry + 2 * k, 2) for k in range(4))
            found.append(number)
            entry += 8 + -(-name // 8) * 8 + 4 * (values + values % 2)
        return tuple(found)

    def array(self, dataset: Dataset) -> NDArray[Any]:
        """The values: a view of the file, or fresh where they are packed, not aligned, or not NumPy's own."""
        values, kind = dataset.values, dataset.kind
        if isinstance(values, _Pieces):
            array = self._assembled(dataset, values)
        else:
            array = np.frombuffer(self.data, dataset.dtype, math.prod(dataset.shape), values).reshape(dataset.shape)
        if kind == "number" and array.flags.aligned and array.dtype.isnative:
            return array
        own = {"bool": np.dtype(np.bool_), "bfloat16": np.dtype(np.float32)}
        return self._converted(array, own.get(kind, array.dtype.newbyteorder("=")), dataset)

    def _converted(self, array: NDArray[Any], dtype: np.dtype[Any], dataset: Dataset) -> NDArray[Any]:
        self.spend(array.size * dtype.itemsize, dataset.name)
        fresh = np.empty(array.shape, dtype)
        old, new, count = array.reshape(-1), fresh.reshape(-1), _BLOCK // array.itemsize
        for at in range(0, array.size, count):
            self._let_go()
            part = old[at : at + count]
            new[at : at + count] = widened(part) if dataset.kind == "bfloat16" else part  # 2 as a bool is True
        return fresh

    def _assembled(self, dataset: Dataset, parts: _Pieces) -> NDArray[Any]:
        array = np.empty(dataset.shape, dataset.dtype)
        part = array if parts.shape == dataset.shape else np.empty(parts.shape, dataset.dtype)
        for first, (skipped, place, length) in parts.pieces.items():
            filters = {number for k, number in enumerate(parts.filters) if not skipped >> k & 1}
            self._unpack(part, self._blocks(place, length), filters, dataset.name)
            if part is not array:
                here = array[tuple(slice(at, at + n) for at, n in zip(first, parts.shape, strict=True))]
                here[...] = part[tuple(slice(n) for n in here.shape)]  # the last pieces reach beyond the array
        return array

    def _unpack(self, part: NDArray[Any], blocks: Iterable[memoryview], filters: set[int], name: str) -> None:
        """A piece's values from its bytes, block by block, wherever these belong."""
        rows = part.reshape(1, -1).view(np.uint8)
        needed, there = rows.size, 0
        if _SHUFFLE in filters:  # the first byte of each value, then the second of each, …
            rows = rows.reshape(-1, part.itemsize).T
        for block in _inflated(blocks) if _DEFLATE in filters else blocks:
            left = np.frombuffer(block, np.uint8)
            if there + left.size > needed:
                raise Fault(f"{quoted(name)} has a piece of more than the {needed} bytes that it needs; it is damaged")
            while left.size:
                row, at = divmod(there, rows.shape[1])
                run = left[: rows.shape[1] - at]
                rows[row, at : at + run.size] = run
                left, there = left[run.size :], there + run.size
        if there < needed:
            raise Fault(f"{quoted(name)} has a piece of {there} bytes where {needed} are needed; it is damaged")

    def _blocks(self, at: int, length: int) -> Iterator[memoryview]:
        for start in range(at, at + length, _BLOCK):
            self._let_go()
            yield self.data[start : min(start + _BLOCK, at + length)]

    def _let_go(self) -> None:
        """Before each 32 blocks, of the mapped file's pages, which count as this process's memory once they were read;
        they are mapped again where they are needed again."""
        if self.blocks % 32 == 0 and sys.platform == "linux" and isinstance(self.data.obj, mmap.mmap):
            self.data.obj.madvise(mmap.MADV_DONTNEED)
        self.blocks += 1


def _inflated(blocks: Iterable[memoryview]) -> Iterator[bytes]:
    """What deflated bytes unpack to, in blocks too: a few of them can unpack to a thousand times as many."""
    inflating = zlib.decompressobj()
    for packed in blocks:
        left: bytes | memoryview = packed
        while not inflating.eof and (block := inflating.decompress(left, _BLOCK)):
            yield block
            left = inflating.unconsumed_tail
        if inflating.eof:
            return

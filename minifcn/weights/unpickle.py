"""A reader for the pickles inside PyTorch's files that can run nothing.

A pickle is a program for a small stack machine. Python's own unpickler is unsafe because three of its instructions
reach outside: GLOBAL imports whatever name the file holds, REDUCE calls it, BUILD sets attributes. Here

    GLOBAL, STACK_GLOBAL    look the name up in the caller's table of stubs; a name that is not there ends the reading
    REDUCE, NEWOBJ          call a stub of that table with the arguments, and nothing else
    BUILD                   drops the state: a state dict's `_metadata` is not needed
    BINPERSID               gives the caller the description of a storage

and the rest makes numbers, text, tuples, lists and dicts. There is no import, no getattr and no call of anything that
the file can choose. The loop does not recurse; its memory is counted as it goes (see `_FREE`), so that a short file
cannot become a large object; and a dict's key is always text: hashing a deeply nested tuple would recurse in C.

The instructions are those that Python 2 and 3 write in binary protocols (2 to 5); `pickletools` documents each.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

from minifcn.weights.faults import Fault

# What values may take in memory: 64 MiB, and twice the pickle's length so far. An instruction is charged for the most
# that it can leave behind on a 64-bit machine: a number 40 bytes and its place on the stack, a container or an entry in
# a table up to 128. PyTorch writes 40 instructions for a tensor, so there is room for more than ten thousand tensors.
_FREE: Final = 64 << 20
_SMALL: Final = 48
_LARGE: Final = 128
_LONGEST_NAME: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Stub:
    """What stands here for a name that Python's unpickler would import.

    Args:
        name: the name.
        make: what REDUCE and NEWOBJ call with the tuple of arguments; None for a name that is only mentioned.
    """

    name: str
    make: Callable[[tuple[Any, ...]], Any] | None = None


class Ignored:
    """A value that no state dict is made of, such as a set, bytes or a namespace of options: it holds nothing."""


IGNORED: Final = Ignored()


class Bytes(Protocol):
    """Bytes, or a mapped file: a slice is a copy."""

    def __getitem__(self, part: slice, /) -> bytes: ...

    def find(self, sub: bytes, start: int, end: int, /) -> int: ...


class Unpickler:
    """Reads pickles that follow each other in `data[start:end]`; their memory is counted together.

    Args:
        data: bytes, or a mapped file.
        start: where the first pickle begins.
        end: where the last pickle must have ended.
        find: from "module.name" to its stub; raises Fault for a name that has none.
        persistent: from a persistent id to the object that it stands for.

    >>> pickle = bytes.fromhex("80 02 5d 28 4b 01 4b 02 65 2e")  # PROTO 2, an empty list, MARK, 1, 2, APPENDS, STOP
    >>> Unpickler(pickle, 0, len(pickle), find=Stub, persistent=lambda key: key).load()
    [1, 2]
    """

    def __init__(
        self, data: Bytes, start: int, end: int, find: Callable[[str], Stub], persistent: Callable[[Any], Any]
    ) -> None:
        self._data, self._end, self._find, self._persistent = data, end, find, persistent
        self._start = start
        self._spent = 0
        self.at = start  # the byte that is read next

    def load(self) -> Any:
        """The object of the next pickle; `at` is then the byte after it.

        Raises:
            Fault: for a pickle that is cut off or damaged, needs a name that `find` refuses, or grows too large.
        """
        self._stack: list[Any] = []
        self._marks: list[int] = []  # how high the stack was at each MARK
        self._memo: dict[int, Any] = {}  # by number; a dict, so that a huge number costs no more than a small one
        while (code := self._take(1)[0]) != _STOP:
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise Fault(f"its pickle has the instruction 0x{code:02x}, which no state dict needs")
            cost, step = instruction
            self._spend(cost)
            step(self)
        if len(self._stack) != 1 or self._marks:
            _damaged()
        return self._stack.pop()

    def _spend(self, cost: int) -> None:
        self._spent += cost
        if self._spent > _FREE + 2 * (self.at - self._start):
            raise Fault(
                f"its pickle would take more than {self._spent >> 20} MiB besides the weights; "
                "in PyTorch save model.state_dict() alone"
            )

    # -- bytes of the file

    def _require(self, count: int) -> int:
        """Where the next `count` bytes end."""
        stop = self.at + count
        if stop > self._end:
            raise Fault(f"its pickle is cut off or damaged ({stop - self._end} bytes are missing)")
        return stop

    def _take(self, count: int) -> bytes:
        start, self.at = self.at, self._require(count)
        return self._data[start : self.at]

    def _number(self, form: str) -> int:
        number: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _line(self) -> str:
        stop = self._data.find(b"\n", self.at, min(self._end, self.at + _LONGEST_NAME))
        if stop < 0:
            _damaged()
        return _decoded(self._take(stop + 1 - self.at)[:-1])

    # -- the stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            _damaged()
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            _damaged()
        height = self._marks.pop()
        values = self._stack[height:]
        del self._stack[height:]
        return values

    # -- instructions

    def _proto(self) -> None:
        version = self._take(1)[0]
        if not 2 <= version <= 5:
            raise Fault(f"its pickle has protocol {version}; those from 2 to 5 can be read")

    def _text(self, form: str) -> None:
        length = self._number(form)
        self._require(length)
        self._spend(5 * length)  # a copy, and up to four bytes for each character
        self._push(_decoded(self._take(length)))

    def _bytes(self, form: str) -> None:
        self.at = self._require(self._number(form))
        self._push(IGNORED)

    def _long(self) -> None:
        self._push(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def _tuple(self, length: int) -> None:
        values = [self._pop() for _ in range(length)]
        self._push(tuple(reversed(values)))

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is list:
            target += values
        elif target is not IGNORED:
            _damaged()

    def _set_items(self, values: list[Any]) -> None:
        target = self._top()
        if len(values) % 2 or not (type(target) is dict or target is IGNORED):
            _damaged()
        if type(target) is dict:
            # an entry without a name, such as an optimizer's by number, is no tensor of a state dict
            target.update((k, v) for k, v in zip(values[::2], values[1::2], strict=True) if type(k) is str)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _add_items(self) -> None:
        self._pop_to_mark()
        if self._top() is not IGNORED:
            _damaged()

    def _frozen_set(self) -> None:
        self._pop_to_mark()
        self._push(IGNORED)

    def _get(self, form: str) -> None:
        number = self._number(form)
        if number not in self._memo:
            _damaged()
        self._push(self._memo[number])

    def _put(self, form: str) -> None:
        self._memo[self._number(form)] = self._top()

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def _global(self) -> None:
        module, name = self._line(), self._line()
        self._push(self._find(f"{module}.{name}"))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not (type(name) is type(module) is str and len(name) + len(module) <= _LONGEST_NAME):
            _damaged()
        self._push(self._find(f"{module}.{name}"))

    def _reduce(self) -> None:
        arguments, stub = self._pop(), self._pop()
        if type(stub) is not Stub or stub.make is None or type(arguments) is not tuple:
            raise Fault("its pickle calls what is no function of a state dict; nothing was executed")
        # an OrderedDict is made of a list of pairs, and may be made of the same list again and again
        self._spend(sum(_LARGE * len(argument) for argument in arguments if type(argument) is list))
        self._push(stub.make(arguments))

    def _build(self) -> None:
        self._pop()
        target = self._top()
        if not (type(target) is dict or target is IGNORED):
            raise Fault("its pickle sets attributes of what is no state dict; nothing was executed")

    def _persistent_id(self) -> None:
        self._push(self._persistent(self._pop()))


def _damaged() -> NoReturn:
    raise Fault("its pickle is damaged; a new copy of the file is needed")


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise Fault("its pickle is damaged (a text in it is not UTF-8); a new copy of the file is needed") from None


_STOP: Final = ord(".")
_INSTRUCTIONS: Final[dict[int, tuple[int, Callable[[Unpickler], object]]]] = {
    0x80: (_SMALL, Unpickler._proto),
    0x95: (_SMALL, lambda m: m._take(8)),  # FRAME: how much to read ahead
    ord("("): (_SMALL, lambda m: m._marks.append(len(m._stack))),
    # values
    ord("N"): (_SMALL, lambda m: m._push(None)),
    0x88: (_SMALL, lambda m: m._push(True)),
    0x89: (_SMALL, lambda m: m._push(False)),
    ord("K"): (_SMALL, lambda m: m._push(m._number("<B"))),
    ord("M"): (_SMALL, lambda m: m._push(m._number("<H"))),
    ord("J"): (_SMALL, lambda m: m._push(m._number("<i"))),
    ord("G"): (_SMALL, lambda m: m._push(m._number(">d"))),
    0x8A: (_LARGE, Unpickler._long),
    ord("X"): (_LARGE, lambda m: m._text("<I")),
    0x8C: (_LARGE, lambda m: m._text("<B")),
    0x8D: (_LARGE, lambda m: m._text("<Q")),
    ord("T"): (_LARGE, lambda m: m._text("<I")),  # Python 2's byte strings
    ord("U"): (_LARGE, lambda m: m._text("<B")),
    ord("B"): (_SMALL, lambda m: m._bytes("<I")),
    ord("C"): (_SMALL, lambda m: m._bytes("<B")),
    0x8E: (_SMALL, lambda m: m._bytes("<Q")),
    0x96: (_SMALL, lambda m: m._bytes("<Q")),
    # containers
    ord(")"): (_SMALL, lambda m: m._push(())),
    0x85: (_LARGE, lambda m: m._tuple(1)),
    0x86: (_LARGE, lambda m: m._tuple(2)),
    0x87: (_LARGE, lambda m: m._tuple(3)),
    ord("t"): (_LARGE, lambda m: m._push(tuple(m._pop_to_mark()))),
    ord("]"): (_LARGE, lambda m: m._push([])),
    ord("a"): (_SMALL, lambda m: m._append([m._pop()])),
    ord("e"): (_SMALL, lambda m: m._append(m._pop_to_mark())),
    ord("}"): (_LARGE, lambda m: m._push({})),
    ord("s"): (_SMALL, Unpickler._set_item),
    ord("u"): (_SMALL, lambda m: m._set_items(m._pop_to_mark())),
    0x8F: (_SMALL, lambda m: m._push(IGNORED)),  # EMPTY_SET
    0x90: (_SMALL, Unpickler._add_items),
    0x91: (_SMALL, Unpickler._frozen_set),
    # the memo
    ord("q"): (_LARGE, lambda m: m._put("<B")),
    ord("r"): (_LARGE, lambda m: m._put("<I")),
    0x94: (_LARGE, Unpickler._memoize),
    ord("h"): (_SMALL, lambda m: m._get("<B")),
    ord("j"): (_SMALL, lambda m: m._get("<I")),
    # names and objects
    ord("c"): (_LARGE, Unpickler._global),
    0x93: (_LARGE, Unpickler._stack_global),
    ord("R"): (_LARGE, Unpickler._reduce),
    0x81: (_LARGE, Unpickler._reduce),  # NEWOBJ
    ord("b"): (_SMALL, Unpickler._build),
    ord("Q"): (_LARGE, Unpickler._persistent_id),
}

"""The memory of the stand-in for a GPU: where arrays lie, how much there is, and what was written where no array is.

Memory is NumPy's, aligned to 512 bytes as CuPy's is, and filled with bytes of 0xff, which are NaNs and −1, so that a
value that nobody wrote shows. The same bytes stand before and after every array: a kernel that writes there has gone
beyond one, and one that reads there finds NaNs. AddressSanitizer, where it is there, forbids them altogether.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import weakref
from typing import Any

import numpy as np

ALIGNMENT = 512  # bytes
GUARD = 512  # bytes before and after an array
POISON = 0xFF
TOTAL = 80 << 30  # bytes that the device says it has


class OutOfMemoryError(MemoryError):
    """What CuPy raises under this name, with its words."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        said = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(f"{said}, limit set to: {limit:,} bytes)." if limit else f"{said}).")


OutOfMemoryError.__module__ = "cupy.cuda.memory"


class Allocation:
    """A piece of memory; given back when nothing refers to it any more."""

    __slots__ = ("__weakref__", "address", "memory", "root", "size", "whole")

    def __init__(self, size: int) -> None:
        pool.take(size)
        self.size = size
        self.whole = np.empty(size + ALIGNMENT + 2 * GUARD, np.uint8)
        start = self.whole.ctypes.data + GUARD
        start += -start % ALIGNMENT
        self.address = start
        first = start - self.whole.ctypes.data
        self.memory = self.whole[first : first + size]
        self.whole[first - GUARD : first + size + GUARD] = POISON
        _allow_guards(self, False)
        self.root: Any = None  # a weak reference to the array that it was made for
        _allocations[id(self.whole)] = weakref.ref(self)

    def __del__(self) -> None:
        if sys.is_finalizing() or not hasattr(self, "address"):  # there was no memory for it
            return
        del _allocations[id(self.whole)]
        _allow_guards(self, True)
        pool.give_back(self.size)
        fault = self.fault()
        if fault:
            faults.append(f"an array that is gone now: {fault}")

    def fault(self) -> str:
        """What was written beyond the array since the last look; nothing, where nothing was."""
        if _address_sanitizer is not None:
            return ""  # it has said so, at once
        first = self.address - self.whole.ctypes.data
        for guard, where in ((first - GUARD, "before"), (first + self.size, "after")):
            if self.whole[guard : guard + GUARD].tobytes() != _UNTOUCHED:
                touched = np.flatnonzero(self.whole[guard : guard + GUARD] != POISON)
                self.whole[guard : guard + GUARD] = POISON
                distance = GUARD - int(touched[-1]) if where == "before" else int(touched[0])
                return f"memory {distance} bytes {where} its {self.size} bytes was written to"
        return ""


class Pool:
    """The numbers of CuPy's memory pool: what arrays have, what the pool has, and how much it may have."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """No limit; the arrays that live keep their memory."""
        self._used = sum(_rounded(a.size) for a in live())
        self._held, self._limit = self._used, 0

    def take(self, size: int) -> None:
        size = _rounded(size)
        if self._used + size > (self._limit or TOTAL):
            raise OutOfMemoryError(size, self._used, self._limit)
        self._used += size
        self._held = max(self._held, self._used)

    def give_back(self, size: int) -> None:
        self._used -= _rounded(size)

    def used_bytes(self) -> int:
        """Of all arrays."""
        return self._used

    def free_bytes(self) -> int:
        """That the pool has and lends to nobody."""
        return self._held - self._used

    def total_bytes(self) -> int:
        """That the pool has, lent or not."""
        return self._held

    def free_all_blocks(self, stream: object = None) -> None:
        """Give back what is lent to nobody."""
        self._held = self._used

    def get_limit(self) -> int:
        """0: none."""
        return self._limit

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """In bytes, or as a part of the device's; 0: none."""
        self._limit = int(TOTAL * fraction) if size is None and fraction is not None else int(size or 0)


def _rounded(size: int) -> int:
    return math.ceil(size / ALIGNMENT) * ALIGNMENT


def live() -> list[Allocation]:
    """All allocations."""
    found = [reference() for reference in list(_allocations.values())]
    return [a for a in found if a is not None]


def allocation_at(address: int) -> Allocation | None:
    """The allocation in which an address lies, its end included."""
    return next((a for a in live() if a.address <= address <= a.address + a.size), None)


def allocation_of(array: np.ndarray) -> Allocation | None:
    """The allocation whose memory an array of NumPy's shows, if it shows one's."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    reference = _allocations.get(id(owner))
    return None if reference is None else reference()


def check() -> None:
    """Raises RuntimeError if memory beyond any array was written since the last look."""
    said = faults + [fault for fault in (a.fault() for a in live()) if fault]
    faults.clear()
    if said:
        raise RuntimeError("a kernel wrote where no array is: " + "; ".join(said))


def _allow_guards(allocation: Allocation, allowed: bool) -> None:
    """Tell AddressSanitizer what the guards are."""
    if _address_sanitizer is None:
        return
    change = "__asan_unpoison_memory_region" if allowed else "__asan_poison_memory_region"
    for start in (allocation.address - GUARD, allocation.address + allocation.size):
        _address_sanitizer[change](ctypes.c_void_p(start), ctypes.c_size_t(GUARD))


_UNTOUCHED = bytes([POISON]) * GUARD
_allocations: dict[int, weakref.ref[Allocation]] = {}  # by id of the NumPy array that has the memory
_address_sanitizer = ctypes.CDLL(None) if os.environ.get("CUDA_ON_CPU_SANITIZE") == "address" else None
faults: list[str] = []  # found when arrays went, where nothing can be raised
pool = Pool()

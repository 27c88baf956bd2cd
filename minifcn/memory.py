"""Memory that is used again: large results from a pool, and each thread's scratch buffers.

The system hands out fresh memory page by page and clears it first, which takes about as long as filling it with values.
A training step makes the same arrays again and again, so what the last one gave back is lent to the next. An array goes
back when nobody refers to it any more, views of it included; that is Python's own reference counting.

What is lent plus what waits may exceed the most that was lent at once by half, no more; beyond that, what has waited
longest goes back to the system, and all that waits does before memory runs out.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np


class Raw(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes that belong to the pool. A class of its own: a view refers to the array that it was made from, unless that
    is a view itself, of an array of the same class. So views of a lent array keep that array alive, and with it the
    loan; were the bytes a plain array, they would keep the bytes only."""


LARGE = 1 << 20  # bytes from which on an array comes from the pool: the C library reuses smaller ones itself
HEADROOM = 1.5  # times the most that was lent at once may be held
SLACK = 1.5  # times what is asked for may a waiting buffer have
WORKSPACE = 128 << 20  # bytes of scratch that a thread keeps from one kernel to the next
LINE = 64  # bytes of a cache line: vectors that start on one are never split

_lock = threading.Lock()
_waiting: dict[int, deque[tuple[int, Raw]]] = {}  # by size; when each came back, the longest waiting one first
_clock = itertools.count()
_returned: deque[Raw] = deque()  # a finaliser may run anywhere, even while the lock is held, so it only appends here
_lent: dict[int, tuple[weakref.ref[Any], Raw]] = {}  # by id of the lent array
_bytes_lent = _bytes_waiting = _most_lent = 0
_local = threading.local()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any] | type[np.generic]) -> np.ndarray[Any, Any]:
    """As np.empty, from the pool if it is large; MemoryError where even an empty pool does not help."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    raw = _borrow(size + LINE)
    start = -raw.__array_interface__["data"][0] % LINE
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, buffer=raw, offset=start)
    key = id(array)

    def give_back(_: object) -> None:
        _returned.append(_lent.pop(key)[1])

    _lent[key] = (weakref.ref(array, give_back), raw)
    return array


def owns(array: np.ndarray[Any, Any]) -> bool:
    """Whether the array is no view of another one."""
    if array.base is None:
        return True
    lent = _lent.get(id(array))
    return lent is not None and lent[0]() is array


def empty_cache() -> None:
    """Give the memory that waits in the pool back to the system."""
    global _bytes_waiting, _most_lent
    with _lock:
        _collect()
        _waiting.clear()
        _bytes_waiting, _most_lent = 0, _bytes_lent


def _borrow(size: int) -> Raw:
    """At least `size` bytes."""
    global _bytes_lent, _bytes_waiting, _most_lent
    with _lock:
        _collect()
        best = min((held for held in _waiting if size <= held <= SLACK * size), default=None)
        raw = None if best is None else _take(best, longest=False)  # the last one may still be in a cache
        _bytes_lent += size if raw is None else raw.nbytes
        _most_lent = max(_most_lent, _bytes_lent)
        while _waiting and _bytes_lent + _bytes_waiting > HEADROOM * _most_lent:
            _take(min(_waiting, key=lambda held: _waiting[held][0][0]), longest=True)
    if raw is not None:
        return raw
    try:
        return _allocate(size)
    except MemoryError:
        with _lock:
            _bytes_lent -= size
            _most_lent = _bytes_lent  # nothing waits any more
        raise


def _take(size: int, longest: bool) -> Raw:
    """A waiting buffer of exactly this size: the one that came back first, or last. The lock is held."""
    global _bytes_waiting
    alike = _waiting[size]
    _, raw = alike.popleft() if longest else alike.pop()
    if not alike:
        del _waiting[size]
    _bytes_waiting -= size
    return raw


def _allocate(size: int) -> Raw:
    try:
        return Raw((size,), np.uint8)
    except MemoryError:
        empty_cache()
        return Raw((size,), np.uint8)


def _new_lock() -> None:
    """In a forked child: the lock may have been held by a thread that it does not have."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def _collect() -> None:
    """Count what has come back. The lock is held."""
    global _bytes_lent, _bytes_waiting
    while _returned:
        raw = _returned.popleft()
        _waiting.setdefault(raw.nbytes, deque()).append((next(_clock), raw))
        _bytes_lent -= raw.nbytes
        _bytes_waiting += raw.nbytes


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An uninitialised array of this thread, reused by its next call with the same name: contents last until then.

    What a thread keeps is WORKSPACE at most: before there would be more, it forgets what it has not used for longest. A
    kernel that still computes in that keeps it for as long as it needs it.
    """
    buffers: dict[str, np.ndarray[Any, Any]] = _local.__dict__.setdefault("buffers", {})
    size = math.prod(shape) * dtype.itemsize
    buffer = buffers.pop(name, None)
    if buffer is None or buffer.nbytes < size:
        kept = workspace()
        while buffers and size <= WORKSPACE < kept + size:
            kept -= buffers.pop(next(iter(buffers))).nbytes
        whole = np.empty(size + LINE, np.uint8)
        start = -whole.__array_interface__["data"][0] % LINE
        buffer = whole[start : start + size]
    if buffer.nbytes <= WORKSPACE:
        buffers[name] = buffer  # at the end of the dictionary: the last one used
    return buffer[:size].view(dtype).reshape(shape)


def workspace() -> int:
    """Bytes of scratch that this thread keeps."""
    return sum(buffer.nbytes for buffer in _local.__dict__.get("buffers", {}).values())

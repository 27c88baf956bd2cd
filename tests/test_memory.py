"""The pool of large arrays: lent again only when nothing refers to it, and never more than was needed at a time."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import minifcn as mf
from minifcn import memory
from minifcn.array import own
from minifcn.memory import LARGE, empty, empty_cache, owns, scratch


@pytest.fixture(autouse=True)
def _empty_pool() -> Iterator[None]:
    gc.collect()
    empty_cache()
    yield
    empty_cache()


def place(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_is_given_back_is_lent_again() -> None:
    a = empty((LARGE,), np.float32)
    at = place(a)
    assert at % memory.LINE == 0
    del a
    b = empty((2, LARGE // 2), np.float32)
    assert place(b) == at
    assert b.flags.writeable
    assert b.flags.c_contiguous


VIEWS: dict[str, Callable[[np.ndarray], object]] = {
    "slice": lambda a: a[1:],
    "slice of a slice": lambda a: a[1:][2:],
    "transpose": lambda a: a.T,
    "reshape": lambda a: a.reshape(-1, 4).T[1],
    "another dtype": lambda a: a.view(np.int32)[3:],
    "strided": lambda a: np.lib.stride_tricks.as_strided(a, (3, 3), (8, 4)),
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "memoryview": lambda a: memoryview(a)[2:],
    "from its buffer": lambda a: np.frombuffer(a, np.float32),
    "DLPack": lambda a: np.from_dlpack(a),
    "tensor": lambda a: mf.Tensor(a).reshape(-1, 8),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_keeps_the_loan(view: str) -> None:
    a = empty((1024, 1024), np.float32)
    at = place(a)
    kept = VIEWS[view](a)
    del a
    gc.collect()
    b = empty((1024, 1024), np.float32)
    assert place(b) != at
    del kept
    gc.collect()
    assert place(empty((1024, 1024), np.float32)) == at


def test_the_pool_holds_little_more_than_was_lent_at_once() -> None:
    for size in (16, 9, 5, 3, 1):  # each too small for what waits
        array = empty((size * LARGE,), np.uint8)
        del array
        assert memory._bytes_lent + memory._bytes_waiting <= 1.5 * 17 * LARGE
    empty_cache()
    assert memory._bytes_waiting == 0


def test_only_the_lent_array_itself_owns_its_memory() -> None:
    a = empty((1024, 1024), np.float32)
    assert owns(a)
    assert own(a, shared=False) is a
    whole = a.reshape(1024, 1024)
    assert not owns(whole)
    assert not np.shares_memory(own(whole, shared=False), a)


def test_small_arrays_are_numpys_own() -> None:
    assert empty((4, 4), np.float64).base is None


def test_threads_never_share_a_loan() -> None:
    def work(number: int) -> None:
        for _ in range(200):
            a = empty((300_000,), np.float32)
            a[:] = number
            if not (a == number).all():
                wrong.append(number)

    wrong: list[int] = []
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_training_step_reuses_the_last_ones_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first steps no new memory is asked for."""
    import minifcn.functional as F

    w = mf.Tensor(np.ones((16, 16, 3, 3), np.float32), requires_grad=True)
    x = mf.Tensor(np.ones((1, 16, 200, 200), np.float32))
    asked: list[int] = []

    def step() -> None:
        F.relu(F.conv2d(F.relu(F.conv2d(x, w, padding=1)), w, padding=1)).sum().backward()
        w.grad = None

    step()
    step()
    allocate = memory._allocate
    monkeypatch.setattr(memory, "_allocate", lambda size: (asked.append(size), allocate(size))[1])
    step()
    assert not asked


def test_a_thread_keeps_no_more_scratch_than_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_a_new_thread() -> None:
        byte = np.dtype(np.uint8)
        for name in "abc":
            scratch(name, (400,), byte)
            kept.append(memory.workspace())  # a is forgotten for c
        b = scratch("b", (10,), byte)
        c = scratch("c", (300,), byte)  # used after b, so b is the next
        d = scratch("d", (350,), byte)
        kept.append(memory.workspace())
        for name, array in (("b", b), ("c", c), ("d", d)):
            array[:] = ord(name)  # forgotten or not, who has one keeps it
            same.append(np.shares_memory(array, scratch(name, (10,), byte)))
        scratch("e", (5000,), byte)[:] = 1  # more than may be kept at all
        kept.append(memory.workspace())

    monkeypatch.setattr(memory, "WORKSPACE", 1000)
    kept: list[int] = []
    same: list[bool] = []
    thread = threading.Thread(target=in_a_new_thread)
    thread.start()
    thread.join()
    assert kept == [400, 800, 800, 750, 760]
    assert same == [False, True, True]


def test_before_memory_runs_out_the_pool_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = memory.Raw
    kept = empty((LARGE,), np.uint8)
    waits = empty((4 * LARGE,), np.uint8)
    del waits
    before = memory._bytes_lent
    monkeypatch.setattr(memory, "Raw", lambda *args: _full(raw, *args))
    assert empty((2 * LARGE,), np.uint8).nbytes == 2 * LARGE
    assert memory._bytes_waiting == 0
    monkeypatch.setattr(memory, "Raw", _never)
    with pytest.raises(MemoryError):
        empty((3 * LARGE,), np.uint8)
    assert memory._most_lent == memory._bytes_lent  # what could not be lent does not count as lent once
    empty_cache()
    assert memory._bytes_lent < before
    assert kept.nbytes == LARGE


def _full(raw: type[memory.Raw], *args: object) -> memory.Raw:
    if memory._bytes_waiting:
        raise MemoryError
    return raw(*args)  # type: ignore[arg-type]


def _never(*args: object) -> memory.Raw:
    raise MemoryError

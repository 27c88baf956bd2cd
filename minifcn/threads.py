"""The CPU worker pool that kernels share.

NumPy and BLAS release the interpreter's lock, so plain threads use every core. While workers run, BLAS itself is held
to one thread: then copies and element-wise work run in parallel too, and not only the matrix products.

A kernel cuts its work into tasks whose boundaries never depend on the number of threads, and each task writes its own
part of the result. So what runs through `parallel` is bit-identical for every thread count.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Task = TypeVar("Task")

# The processors that this process might run on when it started. Work that becomes slower when it is cut finely is cut
# into so many parts, within limits; not into as many as there are threads, as the result must not depend on those.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

_lock = threading.Lock()
_count = CORES
_pool: ThreadPoolExecutor | None = None
_blas: Any = None  # threadpoolctl's controller: finding the libraries is slow, so it is kept
_blas_users = 0
_blas_limit: Any = None
_local = threading.local()


def set_num_threads(count: int) -> None:
    """Use `count` ≥ 1 threads in kernels from now on. Results do not depend on it.

    Raises ValueError below 1.
    """
    global _count, _pool
    if count < 1:
        raise ValueError(f"set_num_threads: count is {count}; at least 1 is needed")
    with _lock:
        _count, _pool = count, None


def get_num_threads() -> int:
    """The number of threads that kernels use; at first, the cores that this process may run on."""
    return _count


def parallel(work: Callable[[Task], object], tasks: Iterable[Task], alone: bool = False) -> None:
    """Call work(task) for every task, on all threads; returns when all are done, or raises what one of them raised.

    The caller works too, so a few tasks do not wait for a worker to wake up. `alone` leaves all of them to it: where a
    task takes less than about a millisecond, passing the interpreter's lock to and fro costs more than a second thread
    brings.
    """
    tasks = list(tasks)
    if getattr(_local, "inside", False):  # a kernel called from a worker runs its tasks itself
        for task in tasks:
            work(task)
        return
    queue = iter(tasks)  # shared: the interpreter hands out each task once

    def drain() -> None:
        _local.inside = True
        try:
            for task in queue:
                work(task)
        except BaseException:
            for _ in queue:  # nobody starts another
                pass
            raise
        finally:
            _local.inside = False

    with _one_blas_thread():
        helpers = _submit(drain, 0 if alone else min(_count, len(tasks)) - 1)
        try:
            drain()
        finally:
            failures = [h.exception() for h in helpers if not h.cancel()]  # waits for those that have begun
        for failure in failures:
            if failure is not None:
                raise failure


def _submit(work: Callable[[], None], count: int) -> list[Future[None]]:
    """Give work to `count` workers; to none while the interpreter shuts down, when threads can no longer be started."""
    submitted: list[Future[None]] = []
    with suppress(RuntimeError):
        for _ in range(count):
            submitted.append(_workers().submit(work))  # one by one: the caller must wait for those that began
    return submitted


def runs(count: int, step: int) -> list[slice]:
    """0 ≤ k < count in runs of `step` ≥ 1, the last one shorter."""
    step = max(step, 1)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            from concurrent.futures import ThreadPoolExecutor  # here, as it would slow down `import minifcn`

            _pool = ThreadPoolExecutor(max(_count - 1, 1), thread_name_prefix="minifcn")
        return _pool


def _forget_pool() -> None:
    """A forked child has the pool object but none of its threads."""
    global _pool, _lock, _blas_users, _blas_limit
    _pool, _lock, _blas_users, _blas_limit = None, threading.Lock(), 0, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """BLAS on one thread while anybody is inside; the first one in sets the limit, the last one out lifts it."""
    global _blas, _blas_users, _blas_limit
    with _lock:
        if _blas is None:
            # before version 3.7, a deadlock where another thread, such as a loader's, imported a C extension meanwhile
            from threadpoolctl import ThreadpoolController

            _blas = ThreadpoolController().select(user_api="blas")
        if _blas_users == 0:
            _blas_limit = _blas.limit(limits=1)
        _blas_users += 1
    try:
        yield
    finally:
        with _lock:
            _blas_users -= 1
            if _blas_users == 0 and _blas_limit is not None:
                _blas_limit.restore_original_limits()
                _blas_limit = None

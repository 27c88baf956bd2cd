"""The worker pool: every task once, errors come back, forked and nested use."""

import multiprocessing
import threading
import time

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn.memory import scratch
from minifcn.threads import parallel


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    before = mf.get_num_threads()
    mf.set_num_threads(request.param)
    yield request.param
    mf.set_num_threads(before)


def test_every_task_runs_once(threads: int) -> None:
    done: list[int] = []
    parallel(done.append, range(1000))
    assert sorted(done) == list(range(1000))


def test_alone_stays_on_this_thread(threads: int) -> None:
    seen: set[int] = set()
    parallel(lambda _: seen.add(threading.get_ident()), range(50), alone=True)
    assert seen == {threading.get_ident()}


def test_an_error_comes_back_and_stops_the_rest(threads: int) -> None:
    started: list[int] = []

    def work(task: int) -> None:
        started.append(task)
        if task == 3:
            raise ZeroDivisionError("task 3")
        time.sleep(0.001)

    with pytest.raises(ZeroDivisionError, match="task 3"):
        parallel(work, range(500))
    assert len(started) < 500
    done: list[int] = []
    parallel(done.append, range(10))  # and the pool still works
    assert len(done) == 10


def test_nested_calls_run_in_place(threads: int) -> None:
    done: list[tuple[int, int]] = []
    parallel(lambda a: parallel(lambda b: done.append((a, b)), range(5)), range(6))
    assert sorted(done) == [(a, b) for a in range(6) for b in range(5)]


def test_several_python_threads_at_once() -> None:
    x = mf.Tensor(np.random.default_rng(0).standard_normal((2, 16, 60, 60), dtype=np.float32))
    w = mf.Tensor(np.random.default_rng(1).standard_normal((32, 16, 3, 3), dtype=np.float32))
    expected = F.conv2d(x, w).data
    results: list[np.ndarray] = []
    workers = [threading.Thread(target=lambda: results.append(F.conv2d(x, w).data)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 6
    for result in results:
        np.testing.assert_array_equal(result, expected)


def _convolve(_: int) -> float:
    x = mf.Tensor(np.ones((1, 16, 80, 80), np.float32))
    return float(F.conv2d(x, mf.Tensor(np.ones((64, 16, 3, 3), np.float32))).data.sum())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_threads_of_its_own() -> None:
    expected = _convolve(0)
    with multiprocessing.get_context("fork").Pool(1) as children:
        assert children.map_async(_convolve, [0]).get(timeout=60) == [expected]


def test_blas_threads_are_as_before() -> None:
    from threadpoolctl import threadpool_info

    before = [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]
    _convolve(0)
    assert [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"] == before


def test_scratch_is_reused_by_name_and_thread() -> None:
    a = scratch("test", (4, 4), np.dtype(np.float32))
    assert np.shares_memory(a, scratch("test", (2, 2), np.dtype(np.float64)))
    other: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: other.append(scratch("test", (4, 4), np.dtype(np.float32))))
    thread.start()
    thread.join()
    assert not np.shares_memory(a, other[0])


def test_counts_are_checked() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        mf.set_num_threads(0)

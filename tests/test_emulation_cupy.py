"""The stand-in for CuPy: as strict as CuPy, and honest about what a GPU would do."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from emulation import cublas_standin, cupy_standin, device_memory
from emulation.compiler import LaunchError
from emulation.cupy_standin import REAL, standing_in

import minifcn as mf

pytestmark = [
    pytest.mark.skipif(
        cupy_standin.reason_unavailable() is not None and os.environ.get("MINIFCN_REQUIRE_EMULATION") != "1",
        reason=str(cupy_standin.reason_unavailable()),
    ),
    pytest.mark.skipif(
        "CUDA_ON_CPU_SANITIZE" in os.environ, reason="a sanitizer would end the process at what is wrong"
    ),
]
HERE = Path(__file__).parent
f32, i32 = np.float32, np.int32


@pytest.fixture
def cupy() -> Iterator[ModuleType]:
    with standing_in() as module:
        yield module


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape)


# --------------------------------------------------------------------------------------------------------- strictness

# What CuPy refuses before it asks for a GPU. x (3, 4) and k (2,) are its arrays, of float32 and int64; xp is CuPy.
REFUSED: dict[str, Callable[[Any, Any, Any], object]] = {
    "conversion": lambda xp, x, k: np.asarray(x),
    "more than one truth": lambda xp, x, k: bool(x),
    "more than one item": lambda xp, x, k: x.item(),
    "a row that is not there": lambda xp, x, k: x[5],
    "too many axes": lambda xp, x, k: x[0, 0, 0],
    "indices that are floats": lambda xp, x, k: x[x],
    "NumPy's array as a value": lambda xp, x, k: x.__setitem__(0, np.ones(4, f32)),
    "NumPy's array as all values": lambda xp, x, k: x.__setitem__(slice(None), np.ones((3, 4), f32)),
    "NumPy's array to fill with": lambda xp, x, k: x.fill(np.ones(3)),
    "NumPy's array in a product": lambda xp, x, k: x @ np.ones((4, 3), f32),
    "an argument of sum": lambda xp, x, k: x.sum(axis=0, initial=0),
    "an argument of max": lambda xp, x, k: x.max(axis=1, keepdims=True, initial=-np.inf),
    "an argument of the function": lambda xp, x, k: xp.max(x, initial=0),
    "an argument of a ufunc": lambda xp, x, k: xp.add(x, x, axis=1),
    "a shape that does not fit": lambda xp, x, k: x.reshape(5),
    "a negative size": lambda xp, x, k: xp.zeros((-1,)),
    "other dtype to set": lambda xp, x, k: x.set(np.ones((3, 4))),
    "other shape to set": lambda xp, x, k: x.set(np.ones((4, 3), f32)),
    "lists to set": lambda xp, x, k: x.set([1.0]),
    "strides to set": lambda xp, x, k: x[:, ::2].set(np.ones((3, 2), f32)),
    "a kind of casting": lambda xp, x, k: x.astype(i32, casting="safe"),
    "an attribute of NumPy's": lambda xp, x, k: x.ctypes,
    "NumPy's flag": lambda xp, x, k: x.flags.writeable,
    "an attribute of one's own": lambda xp, x, k: setattr(x, "mine", 1),
    "a name that is not there": lambda xp, x, k: xp.float128x,
    "as a key": lambda xp, x, k: {x: 1},
    "length of a scalar": lambda xp, x, k: len(x[0, 0]),
    "options as a list": lambda xp, x, k: xp.RawModule(code="", options=["-DREAL=float"]),
    "no source": lambda xp, x, k: xp.RawModule(),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_what_cupy_refuses(case: str) -> None:
    """With the same kind of error, where real CuPy is installed: that needs no GPU to refuse."""
    if REAL is None and ("argument" in case or "attribute of NumPy's" in case):
        pytest.skip("what CuPy takes and has is known where it is installed")
    hosts = [np.ones((3, 4), f32), np.zeros(2, np.int64)]
    refused = pytest.raises((TypeError, ValueError, IndexError, AttributeError, RuntimeError))
    with standing_in() as cupy, refused as ours:
        REFUSED[case](cupy, *(cupy.asarray(host) for host in hosts))
    if REAL is None:
        return
    there = []
    for host in hosts:  # memory that CuPy takes for a GPU's
        memory = REAL.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
        there.append(REAL.ndarray(host.shape, host.dtype, REAL.cuda.MemoryPointer(memory, 0)))
    with pytest.raises(type(ours.value)) as theirs:
        REFUSED[case](REAL, *there)
    assert "Insufficient" not in str(theirs.value), "CuPy asked for a GPU: it does not refuse this by itself"


def mixtures(xp: Any, x: Any) -> list[Callable[[], object]]:
    there = np.ones((3, 4), f32)
    return [
        lambda: x + there,
        lambda: there + x,
        lambda: x + there[0, :1].reshape(()),
        lambda: x.__imul__(there),
        lambda: xp.maximum(x, there),
        lambda: xp.exp(there),
        lambda: xp.concatenate([x, there]),
        lambda: xp.einsum("ij,ij->i", x, there),
        lambda: xp.where(x > 0, x, there),
        lambda: np.add(x, there),
    ]


def test_numpy_arrays_do_not_mix_with_ours(cupy: ModuleType) -> None:
    x = cupy.ones((3, 4), f32)
    for mixture in mixtures(cupy, x):
        with pytest.raises(TypeError, match="^Unsupported type <class 'numpy.ndarray'>"):
            mixture()
    for other in (None, "a", [1.0], object()):
        with pytest.raises(TypeError):
            x + other


@pytest.mark.skipif(REAL is None, reason="which names CuPy has is known where it is installed")
def test_has_no_name_that_cupy_lacks(cupy: ModuleType) -> None:
    for name in ("busday_count", "nditer", "ma"):
        assert hasattr(np, name)
        with pytest.raises(AttributeError):
            getattr(cupy, name)
    assert not hasattr(cupy.ones(3), "setflags")
    # and those written here, CuPy has
    assert {name for name in vars(cupy_standin.CUPY) if not hasattr(REAL, name)} == set()
    own = {"_host", "_memory", "__getattr__", "__weakref__"}
    assert {name for name in vars(cupy_standin.ndarray) if not hasattr(REAL.ndarray, name)} == own


# ------------------------------------------------------------------------------------------------------- how it behaves


def test_arithmetic_is_numpys(cupy: ModuleType) -> None:
    a, b = normal(3, 4).astype(f32), normal(4).astype(f32)
    x, y = cupy.asarray(a), cupy.asarray(b)
    for ours, theirs in [
        (x + y, a + b), (2 - x, 2 - a), (x**2, a**2), (-x, -a), (abs(x), abs(a)), (x @ y, a @ b), (x > y, a > b),
        (np.float64(2) * x, np.float64(2) * a), (f32(2) * x, f32(2) * a), (x / 0, np.copysign(f32(np.inf), a)),
        (cupy.exp(x), np.exp(a)), (np.exp(x), np.exp(a)), (np.sum(x), a.sum()), (x.argmax(), a.argmax()),
        (x.sum(0, keepdims=True), a.sum(0)[None]), (x.mean(axis=1, dtype=np.float64), a.mean(1, dtype=np.float64)),
        (cupy.where(x > 0, 1, x), np.where(a > 0, 1, a)), (x.astype(i32), a.astype(i32)), (x.T, a.T),
        (x[1], a[1]), (x[:, ::-1], a[:, ::-1]), (x[x > 0], a[a > 0]), (x[[0, 2], None, 1:], a[[0, 2], None, 1:]),
        (cupy.concatenate([x, x], 1), np.hstack([a, a])), (cupy.broadcast_to(y, (2, 4)), np.broadcast_to(b, (2, 4))),
        (cupy.einsum("ij,j->i", x, y), np.einsum("ij,j->i", a, b)), (cupy.argmax(x, axis=1), a.argmax(1)),
    ]:  # fmt: skip
        assert type(ours).__module__ == "cupy"
        assert (ours.shape, ours.dtype) == (theirs.shape, np.asarray(theirs).dtype)
        np.testing.assert_array_equal(ours.get(), theirs)
    x += y
    x[0, 1:3] = 7
    a += b
    a[0, 1:3] = 7
    np.testing.assert_array_equal(x.get(), a)
    cupy.add.at(x, (cupy.asarray([0, 0, 2]),), y)
    np.add.at(a, [0, 0, 2], b)
    np.testing.assert_array_equal(x.get(), a)


def test_single_values_are_arrays(cupy: ModuleType) -> None:
    x = cupy.asarray(normal(3, 4))
    for value in (x.sum(), x.max(), x[0, 0], x.mean(), cupy.sum(x), (x > 0).any()):
        assert type(value) is cupy.ndarray
        assert value.shape == ()
    assert isinstance(float(x.sum()), float)
    x[0, 0].fill(5)  # a view, as all that basic indexing gives
    assert x.get()[0, 0] == 5


def test_views_show_their_base_and_keep_it(cupy: ModuleType) -> None:
    x = cupy.asarray(normal(3, 4))
    values = x.get()
    for view in (x[1:], x.reshape(-1), x.T, x[0, 0], x.view(), cupy.broadcast_to(x, (2, 3, 4)), x[1:][0], x[None]):
        assert view.base is x
        assert cupy.may_share_memory(view, x)
    row = x[1:][0]
    gc.collect()
    used = device_memory.pool.used_bytes()
    del x, view
    gc.collect()
    assert device_memory.pool.used_bytes() == used
    np.testing.assert_array_equal(row.get(), values[1])
    del row
    gc.collect()
    assert device_memory.pool.used_bytes() == used - 512
    for copy in ((y := cupy.ones((3, 4))).copy(), y[[0]], y + 0, y[:, 1:].reshape(-1), y.astype(float), y[y > 0]):
        assert copy.base is None


def test_results_are_contiguous_whatever_their_operands(cupy: ModuleType) -> None:
    x = cupy.asarray(normal(3, 4)).T
    assert not x.flags.c_contiguous
    for result in (x + 1, x.copy(), cupy.exp(x), x[cupy.asarray([0, 1])], cupy.ascontiguousarray(x)):
        assert result.flags.c_contiguous
    for result in (cupy.zeros_like(x), cupy.empty_like(x), x.astype(f32)):  # CuPy keeps the order of these
        assert result.flags.f_contiguous
    assert cupy.ascontiguousarray(y := cupy.ones(3)) is y
    assert cupy.asarray(x) is x
    assert cupy.array(x) is not x


def test_integer_indices_wrap_around(cupy: ModuleType) -> None:
    x = cupy.asarray(normal(3, 4))
    np.testing.assert_array_equal(x[cupy.asarray([4, -5])].get(), x.get()[[1, 1]])
    np.testing.assert_array_equal(x[..., None, np.array([5])].get(), x.get()[..., None, [1]])
    x[:, [7]] = 0
    assert (x.get()[:, 3] == 0).all()


def test_new_memory_is_poison_and_aligned(cupy: ModuleType) -> None:
    for dtype, poison in ((f32, np.nan), (np.float64, np.nan), (i32, -1), (bool, True)):
        for x in (cupy.empty((3, 5), dtype), cupy.empty_like(cupy.ones(7, dtype)), cupy.ndarray(4, dtype)):
            np.testing.assert_array_equal(x.get(), np.full(x.shape, poison, dtype))
            assert x.data.ptr % 512 == 0


def test_memory_is_counted_and_limited(cupy: ModuleType) -> None:
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    x = cupy.zeros(1000, f32)
    assert pool.used_bytes() == before + 4096
    del x
    assert pool.used_bytes() == before
    assert pool.total_bytes() >= before + 4096
    pool.free_all_blocks()
    assert pool.total_bytes() == before
    pool.set_limit(before + 10_000)
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError) as error:
        cupy.zeros(10_000, f32)
    if REAL is not None:
        assert str(error.value) == str(REAL.cuda.memory.OutOfMemoryError(40448, before, before + 10_000))
    assert isinstance(error.value, MemoryError)
    assert type(error.value).__module__.startswith("cupy")
    pool.set_limit(0)
    cupy.zeros(10_000, f32)


def test_devices_streams_and_the_rest(cupy: ModuleType) -> None:
    x = cupy.ones(3)
    assert (x.device.id, cupy.cuda.runtime.getDeviceCount(), cupy.is_available()) == (0, 1, True)
    with cupy.cuda.Device(0) as device, cupy.cuda.Stream(non_blocking=True) as stream:
        assert device == x.device
        assert cupy.cuda.get_current_stream() is stream
        begin, end = stream.record(), cupy.cuda.Event()
        end.record()
        device.synchronize()
        assert cupy.cuda.get_elapsed_time(begin, end) >= 0
        assert device.attributes["MultiProcessorCount"] > 1
    assert cupy.cuda.get_current_stream() is cupy.cuda.Stream.null
    free, total = cupy.cuda.runtime.memGetInfo()
    assert 0 < free < total == cupy.cuda.Device().mem_info[1]
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="invalid device ordinal"), cupy.cuda.Device(1):
        pass


def test_dlpack_shares_memory(cupy: ModuleType) -> None:
    x = cupy.asarray(normal(3, 4).astype(f32))
    assert x.__dlpack_device__() == (2, 0)
    shared = mf.from_dlpack(x[1:].T)
    assert shared.device == "cuda:0"
    assert shared.shape == (4, 2)
    again = cupy.from_dlpack(shared)
    again[0, 0] = 7
    assert x.get()[1, 0] == 7
    with pytest.raises(RuntimeError, match="not on a GPU"):
        cupy.from_dlpack(np.ones(3))


def test_minifcn_takes_it_for_cupy(cupy: ModuleType) -> None:
    assert mf.gpu_status() == (True, "CUDA on CPU")
    x = mf.Tensor(normal(3, 4), requires_grad=True).cuda().detach()
    x.requires_grad = True
    ((x * x).sum() / 2).backward()
    assert x.grad is not None
    assert (x.device, type(x.grad.data).__module__) == ("cuda:0", "cupy")
    np.testing.assert_array_equal(x.grad.numpy(), x.numpy())
    with pytest.raises(TypeError, match="NumPy and CuPy arrays in one call"):
        x + mf.Tensor(normal(3, 4))


def test_leaves_nothing_behind() -> None:
    def modules() -> dict[str, ModuleType]:
        return {name: m for name, m in sys.modules.items() if name.partition(".")[0] in ("cupy", "cupy_backends")}

    before, status = modules(), mf.gpu_status()
    with standing_in():
        from cupy_backends.cuda.libs import cublas

        assert cublas.gemmStridedBatchedEx is cublas_standin.gemmStridedBatchedEx
        assert mf.gpu_status()[0]
    with pytest.raises(ZeroDivisionError), standing_in():
        1 / 0  # noqa: B018
    assert modules() == before
    assert mf.gpu_status() == status


def test_stands_in_where_cupy_is_not_installed() -> None:
    code = """
import sys
sys.modules["cupy"] = None  # import cupy: ModuleNotFoundError
from emulation.cupy_standin import REAL, standing_in
assert REAL is None
with standing_in():
    import cupy
    assert cupy.exp(cupy.zeros(3)).sum() == 3
assert sys.modules["cupy"] is None
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=HERE, env={**os.environ, "PYTHONPATH": str(HERE.parent)}
    )


# ------------------------------------------------------------------------------------------------------------- kernels

STORE = """
struct Places { float* there; int first, n; };
extern "C" __global__ void store(float* x, int n) {
    if (threadIdx.x < n) x[threadIdx.x] = threadIdx.x;
}
extern "C" __global__ void store_there(Places places) {
    if (threadIdx.x < places.n) places.there[places.first + (int)threadIdx.x] = threadIdx.x;
}
extern "C" __global__ void store_shared(float* x, int n) {
    extern __shared__ float a[];
    a[n - 1 - threadIdx.x] = threadIdx.x;
    __syncthreads();
    x[threadIdx.x] = a[threadIdx.x];
}
"""
PLACES = np.dtype([("there", np.uintp), ("first", i32), ("n", i32)])


def test_kernels_write_into_arrays(cupy: ModuleType) -> None:
    store = cupy.RawModule(code=STORE, options=("-DREAL=float",)).get_function("store")
    x = cupy.empty((4, 8), f32)
    store((1,), (32,), (x, i32(32)))
    np.testing.assert_array_equal(x.get().ravel(), np.arange(32))
    store((1,), (32,), (x[2:], i32(3)))
    assert x.get()[2, :4].tolist() == [0, 1, 2, 19]
    assert cupy.RawKernel(STORE, "store").name == "store"


def test_kernels_that_cannot_be_launched(cupy: ModuleType) -> None:
    module = cupy.RawModule(code=STORE)
    store, x = module.get_function("store"), cupy.empty((4, 8), f32)
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="named symbol not found: sore"):
        module.get_function("sore")
    with pytest.raises(cupy.cuda.compiler.CompileException, match="error"):
        cupy.RawModule(code='extern "C" __global__ void f() { 1 }').compile()
    with pytest.raises(TypeError, match=r"store: argument 0 has strides \(4, 32\)"):
        store((1,), (32,), (x.T, i32(32)))
    with pytest.raises(TypeError, match="store: grid and block are 1 and"):
        store(1, (32,), (x, i32(32)))
    with pytest.raises(TypeError, match="store: argument 0 is a NumPy array"):
        store((1,), (32,), (np.zeros(32, f32), i32(32)))
    with pytest.raises(LaunchError, match="argument 1 is a int; the kernel takes int, 4 bytes"):
        store((1,), (32,), (x, 32))
    with pytest.raises(LaunchError, match="argument 0 is an array of float64; the kernel takes float"):
        store((1,), (32,), (x.astype(float), i32(32)))


def test_much_dynamic_shared_memory_must_be_asked_for(cupy: ModuleType) -> None:
    kernel = cupy.RawModule(code=STORE).get_function("store_shared")
    x, size = cupy.empty(64, f32), 100 << 10
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="its max_dynamic_shared_size_bytes is 49152"):
        kernel((1,), (64,), (x, i32(64)), shared_mem=size)
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
        kernel.max_dynamic_shared_size_bytes = 228 << 10
    kernel.max_dynamic_shared_size_bytes = size
    kernel((1,), (64,), (x, i32(64)), shared_mem=size)
    np.testing.assert_array_equal(x.get(), np.arange(64)[::-1])


def test_writing_beyond_an_array_is_noticed(cupy: ModuleType) -> None:
    module, x = cupy.RawModule(code=STORE), cupy.empty(30, f32)
    module.get_function("store")((1,), (32,), (x, i32(30)))
    with pytest.raises(LaunchError, match="store: argument 0: memory 0 bytes after its 120 bytes was written to"):
        module.get_function("store")((1,), (32,), (x, i32(32)))
    for first, said in ((28, "memory 0 bytes after"), (-2, "memory 1 bytes before")):
        with pytest.raises(LaunchError, match=f"store_there: argument 0: {said}"):
            module.get_function("store_there")((1,), (32,), (np.array((x.data.ptr, first, 4), PLACES),))


def test_what_no_launch_noticed_is_noticed_at_the_end() -> None:
    with standing_in() as cupy:
        x = cupy.empty(30, f32)
        x._memory.whole.view(f32)[(x.data.ptr - x._memory.whole.ctypes.data) // 4 + 32] = 0
        del x
        with pytest.raises(RuntimeError, match="where no array is: an array that is gone now: memory 8 bytes after"):
            device_memory.check()


# -------------------------------------------------------------------------------------------------------------- cuBLAS


class Product:
    """The arguments of a matrix product, C (batch, n, m) as it lies in memory, with more rows and matrices around."""

    def __init__(self, cupy: ModuleType, turned: tuple[int, int], dtype: Any, batch: int = 3) -> None:
        self.m, self.n, self.k = 5, 4, 7
        self.turned, self.dtype, self.batch = turned, np.dtype(dtype), batch
        (m, n, k), (ta, tb) = (self.m, self.n, self.k), turned
        self.a = normal(batch, *((m, k) if ta else (k, m))).astype(dtype)  # columns are rows here
        self.b = normal(batch, *((k, n) if tb else (n, k))).astype(dtype)
        self.c = normal(batch, n, m).astype(dtype)
        self.there = [cupy.asarray(np.pad(x, ((0, 0), (0, 1), (0, 2)))) for x in (self.a, self.b, self.c)]
        self.numbers = np.array([1, 0], dtype)  # alpha, beta

    def arguments(self, **changes: Any) -> tuple[Any, ...]:
        """In cuBLAS's order."""
        a, b, c = self.there
        kind, compute = (0, 68) if self.dtype == f32 else (1, 70)
        given = {
            "handle": cublas_standin.HANDLE, "ta": self.turned[0], "tb": self.turned[1],
            "m": self.m, "n": self.n, "k": self.k, "alpha": self.numbers.ctypes.data,
            "A": a.data.ptr, "Atype": kind, "lda": a.shape[2], "sa": a[0].size,
            "B": b.data.ptr, "Btype": kind, "ldb": b.shape[2], "sb": b[0].size,
            "beta": self.numbers.ctypes.data + self.dtype.itemsize,
            "C": c.data.ptr, "Ctype": kind, "ldc": c.shape[2], "sc": c[0].size,
            "batch": self.batch, "compute": compute, "algorithm": -1,
        }  # fmt: skip
        assert given.keys() >= changes.keys()
        return tuple({**given, **changes}.values())

    def run(self, **changes: Any) -> np.ndarray:
        """C, and that nothing else in its memory changed."""
        before = self.there[2].get()
        cublas_standin.gemmStridedBatchedEx(*self.arguments(**changes))
        after = self.there[2].get()
        np.testing.assert_array_equal(after[:, self.n :], before[:, self.n :])
        np.testing.assert_array_equal(after[:, :, self.m :], before[:, :, self.m :])
        return after[:, : self.n, : self.m]

    def expected(self, rounded: Callable[[np.ndarray], np.ndarray] = lambda x: x) -> np.ndarray:
        """op(A) op(B), in float64."""
        a, b = (rounded(x).astype(np.float64) for x in (self.a, self.b))
        a = a if self.turned[0] else a.swapaxes(1, 2)  # (m, k)
        b = b if self.turned[1] else b.swapaxes(1, 2)  # (k, n)
        return (a @ b).swapaxes(1, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turned", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_products(turned: tuple[int, int], dtype: type, cupy: ModuleType) -> None:
    p = Product(cupy, turned, dtype)
    tolerance = {"rtol": 0, "atol": 2e-6 if dtype is np.float32 else 1e-14}
    p.numbers[:] = 2, 3
    np.testing.assert_allclose(p.run(), 2 * p.expected() + 3 * p.c, **tolerance)
    p.numbers[:] = 1, 0
    p.there[2].fill(np.nan)  # which beta = 0 does not read
    np.testing.assert_allclose(p.run(), p.expected(), **tolerance)
    p.numbers[:] = 1, 1
    np.testing.assert_allclose(p.run(k=0), p.expected(), **tolerance)  # a sum of nothing is added
    shared = p.run(sa=0)
    np.testing.assert_allclose(shared[0], 2 * p.expected()[0], **tolerance)
    p.there[2].fill(np.nan)
    assert np.isnan(p.run(m=0)).all()


def test_products_in_tf32(cupy: ModuleType) -> None:
    p = Product(cupy, (0, 1), f32)
    result = p.run(compute=77)
    np.testing.assert_allclose(result, p.expected(cublas_standin.to_tf32), rtol=0, atol=2e-6)
    assert np.abs(result - p.expected()).max() > 1e-4


BAD_PRODUCTS = {
    "another handle": ({"handle": 1}, "NOT_INITIALIZED"),
    "an unknown operation": ({"ta": 3}, "INVALID_VALUE: operations 3 and 0"),
    "a negative size": ({"m": -1}, "INVALID_VALUE: sizes -1"),
    "rows that overlap": ({"lda": 4}, "INVALID_VALUE: lda is 4 for 5 rows"),
    "mixed types": ({"Btype": 1}, "NOT_SUPPORTED: types 0, 1, 0 computed in 68"),
    "another type to compute in": ({"compute": 70}, "NOT_SUPPORTED"),
    "more than A has": ({"batch": 4}, "C takes .* bytes from .* on; no array has all of them"),
    "more rows than B has": ({"ldb": 100}, "B takes .* no array has"),
    "no address": ({"A": 0}, "A takes .* no array has"),
    "between two numbers": ({"A": 2}, "no multiple of 4 bytes"),
    "results that overlap": ({"sc": 3}, "matrices of C overlap"),
    "one result for all": ({"sc": 0}, "matrices of C overlap"),
    "a result over a factor": ({"C": None}, "C overlaps A"),
}


@pytest.mark.parametrize("case", BAD_PRODUCTS)
def test_products_that_cannot_be(case: str, cupy: ModuleType) -> None:
    changes, said = BAD_PRODUCTS[case]
    p = Product(cupy, (0, 0), f32)
    if changes == {"A": 2}:
        changes = {"A": p.there[0].data.ptr + 2, "batch": 1}
    if changes == {"C": None}:
        changes = {"C": p.there[0].data.ptr}
    with pytest.raises(cublas_standin.CUBLASError, match=said):
        cublas_standin.gemmStridedBatchedEx(*p.arguments(**changes))


def test_products_beside_each_other(cupy: ModuleType) -> None:
    """The matrices of a batch lie between each other's columns."""
    p = Product(cupy, (0, 0), f32, batch=2)
    c = cupy.empty((4, 2, 5), f32)  # (n, batch, m)
    cublas_standin.gemmStridedBatchedEx(*p.arguments(C=c.data.ptr, ldc=10, sc=5))
    np.testing.assert_allclose(c.get().swapaxes(0, 1), p.expected(), rtol=0, atol=2e-6)

"""The emulation of a GPU: it computes what CUDA would, and finds what it is there to find.

Every kernel with a fault has one without it beside it, so that a test cannot pass because all kernels fail.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulation import compiler, cublas_standin, sanitizers
from emulation.compiler import CompileError, LaunchError, compile_module, pointer

pytestmark = [
    pytest.mark.skipif(
        compiler.reason_unavailable() is not None and os.environ.get("MINIFCN_REQUIRE_EMULATION") != "1",
        reason=str(compiler.reason_unavailable()),
    ),
    pytest.mark.skipif(
        "CUDA_ON_CPU_SANITIZE" in os.environ, reason="a sanitizer would end the process at what is wrong"
    ),
]
HERE = Path(__file__).parent
ORDERS = ["forward", "reversed", "shuffled", "shuffled:7"]
f32, i32 = np.float32, np.int32


def kernel(code: str, *options: str) -> compiler.Kernel:
    """The only kernel of a module, whose first line is line 1 of test.cu."""
    (found,) = compile_module('#line 1 "test.cu"\n' + code, options).values()
    return found


def launch(
    code: str, grid: tuple[int, ...], block: tuple[int, ...], *args: Any, shared: int = 0, options: tuple[str, ...] = ()
) -> None:
    """Run the only kernel of a module; NumPy arrays with axes are passed by their address."""
    given = [pointer(a) if isinstance(a, np.ndarray) and a.ndim else a for a in args]
    kernel(code, *options)(grid, block, given, shared)


def ordered(monkeypatch: pytest.MonkeyPatch, work: Callable[[], np.ndarray]) -> list[np.ndarray]:
    """The result under each order of threads and blocks."""
    results = []
    for order in ORDERS:
        monkeypatch.setenv("CUDA_ON_CPU_ORDER", order)
        results.append(work())
    return results


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape)


# ----------------------------------------------------------------------------------------- what a correct kernel gives

ADD = """
extern "C" __global__ void __launch_bounds__(256) add(const float* x, const float* y, float* z, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) z[i] = x[i] + y[i];
}
"""

PRODUCT = """
#define TILE 16
// c (M, N) = a (M, K) b (K, N)
extern "C" __global__ void __launch_bounds__(TILE * TILE)
product(const REAL* a, const REAL* b, REAL* c, int M, int N, int K) {
    __shared__ REAL of_a[TILE][TILE], of_b[TILE][TILE + 1];
    int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    REAL sum = 0;
    for (int k = 0; k < K; k += TILE) {
        int right = k + threadIdx.x, down = k + threadIdx.y;
        of_a[threadIdx.y][threadIdx.x] = row < M && right < K ? a[row * K + right] : REAL(0);
        of_b[threadIdx.y][threadIdx.x] = column < N && down < K ? b[down * N + column] : REAL(0);
#ifndef NO_FIRST_BARRIER
        __syncthreads();
#endif
        for (int e = 0; e < TILE; e++) sum += of_a[threadIdx.y][e] * of_b[e][threadIdx.x];
#ifndef NO_SECOND_BARRIER
        __syncthreads();
#endif
    }
    if (row < M && column < N) c[row * N + column] = sum;
}
"""


def product(*options: str, dtype: Any = np.float32) -> np.ndarray:
    """The error of PRODUCT's result."""
    a, b, c = normal(50, 40).astype(dtype), normal(40, 33).astype(dtype), np.empty((50, 33), dtype)
    real = "float" if dtype == np.float32 else "double"
    sizes = i32(50), i32(33), i32(40)
    launch(PRODUCT, (3, 4), (16, 16), a, b, c, *sizes, options=(f"-DREAL={real}", *options))
    return np.abs(c - a.astype(np.float64) @ b)


def test_a_grid_walks_over_all_elements() -> None:
    x, y, z = normal(10_000).astype(f32), normal(10_000).astype(f32), np.empty(10_000, f32)
    launch(ADD, (7,), (256,), x, y, z, i32(10_000))
    np.testing.assert_array_equal(z, x + y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shared_memory_and_barriers_in_any_order(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two dtypes are modules with the same names in them, which must not meet."""
    for error in ordered(monkeypatch, lambda: product(dtype=dtype)):
        assert error.max() < (1e-5 if dtype is np.float32 else 1e-13)


def test_other_processors_switch_by_ucontext(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = compiler._flags("")
    monkeypatch.setattr(compiler, "_flags", lambda sanitizer: [*flags, "-DCUDA_ON_CPU_UCONTEXT"])
    compiler._load.cache_clear()
    try:
        assert product().max() < 1e-5
        with pytest.raises(LaunchError, match="has returned"):
            launch(EARLY_RETURN, (1,), (64,), np.empty(64, f32), i32(64))
        assert product().max() < 1e-5
    finally:
        compiler._load.cache_clear()


def test_indexes_of_every_axis() -> None:
    code = """
    extern "C" __global__ void axes(int* y) {
        int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        y[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
    }
    """
    y = np.empty((24, 30), i32)
    launch(code, (4, 3, 2), (5, 3, 2), y)
    np.testing.assert_array_equal(y, 1000 * np.arange(24)[:, None] + np.arange(30))


SHUFFLES = """
extern "C" __global__ void shuffles(const double* x, double* y, int by, int width) {
    int lane = threadIdx.x;
    double v = x[lane];
    y[lane] = __shfl_sync(0xffffffff, v, by, width);
    y[lane + 32] = __shfl_up_sync(0xffffffff, v, by, width);
    y[lane + 64] = __shfl_down_sync(0xffffffff, v, by, width);
    y[lane + 96] = __shfl_xor_sync(0xffffffff, v, by, width);
}
"""


@pytest.mark.parametrize("width", [4, 8, 32])
@pytest.mark.parametrize("by", [0, 1, 3, 7, 17])
def test_shuffles(by: int, width: int) -> None:
    """By the rules of the CUDA C++ programming guide, section "Warp shuffle functions"."""
    x, y = normal(32), np.empty((4, 32))
    launch(SHUFFLES, (1,), (32,), x, y, i32(by), i32(width))
    lane = np.arange(32)
    start, within = lane // width * width, lane % width
    sources = [
        start + by % width,
        np.where(within < by, lane, lane - by),
        np.where(within + by >= width, lane, lane + by),
        np.where((lane ^ by) < start + width, lane ^ by, lane),
    ]
    np.testing.assert_array_equal(y, [x[s] for s in sources])


SUM = """
__device__ float warp_sum(float v) {
    for (int by = 16; by; by /= 2) v += __shfl_down_sync(0xffffffff, v, by);
    return v;
}
extern "C" __global__ void sums(const float* x, float* y, int n) {
    extern __shared__ float of_warp[];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = warp_sum(threadIdx.x < blockDim.x / 32 ? of_warp[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) y[blockIdx.x] = sum;
    }
}
"""


def test_sums_by_shuffles_and_dynamic_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(9, 1000).astype(f32)

    def work() -> np.ndarray:
        y = np.empty(9, f32)
        launch(SUM, (9,), (128,), x, y, i32(1000), shared=4 * 4)
        return y

    first, *others = ordered(monkeypatch, work)
    np.testing.assert_allclose(first, x.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-4)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_votes_of_warps_and_blocks() -> None:
    code = """
    extern "C" __global__ void votes(const int* x, unsigned* y) {
        int i = threadIdx.x;
        unsigned half = i % 32 < 16 ? 0x0000ffff : 0xffff0000;
        y[i] = __ballot_sync(0xffffffff, x[i]);
        y[i + 64] = __any_sync(half, x[i]) + 2 * __all_sync(half, x[i]);
        y[i + 128] = __syncthreads_count(x[i]);
        y[i + 192] = __syncthreads_or(x[i]) + 2 * __syncthreads_and(x[i]);
    }
    """
    for x in (np.arange(64) % 3 == 0, np.arange(64) >= 16, np.ones(64, bool), np.zeros(64, bool)):
        y = np.empty((4, 64), np.uint32)
        launch(code, (1,), (64,), x.astype(i32), y)
        warps, halves = x.reshape(2, 32), x.reshape(4, 16)
        np.testing.assert_array_equal(y[0], np.repeat((warps * 2 ** np.arange(32)).sum(1), 32))
        np.testing.assert_array_equal(y[1], np.repeat(halves.any(1) + 2 * halves.all(1), 16))
        np.testing.assert_array_equal(y[2], np.full(64, x.sum()))
        np.testing.assert_array_equal(y[3], np.full(64, x.any() + 2 * x.all()))


def test_atomics_count_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
    extern "C" __global__ void count(const int* x, int* counts, int* most) {
        int value = x[blockIdx.x * blockDim.x + threadIdx.x];
        atomicAdd(counts + value, 1);
        atomicMax(most, value);
    }
    """
    x = np.random.default_rng(0).integers(0, 10, 640).astype(i32)

    def work() -> np.ndarray:
        counts, most = np.zeros(10, i32), np.full(1, -5, i32)
        launch(code, (10,), (64,), x, counts, most)
        return np.append(counts, most)

    for result in ordered(monkeypatch, work):
        np.testing.assert_array_equal(result, np.append(np.bincount(x), 9))


def test_vectors_and_arithmetic() -> None:
    code = """
    struct Shape { int rows; double scale; const float* add; };
    extern "C" __global__ void vectors(const float4* x, float4* y, Shape shape, const void* nothing) {
        int i = threadIdx.x;
        float4 v = __ldg(x + i);
        static_assert(sizeof(float3) == 12 && alignof(double4) == 16 && alignof(int2) == 8, "as in CUDA");
        y[i] = make_float4(fmaf(v.x, 2.0f, 1.0f), rsqrtf(v.y), max(v.z, 0.5f) + min(3, shape.rows), shape.add[i]);
        y[i].w += nothing == nullptr ? float(shape.scale) : 0.0f;
        if (__umulhi(0x80000000u, 6u) != 3 || __float_as_int(1.0f) != 0x3f800000) __trap();
        if (max(__int_as_float(0x7fffffff), 2.0f) != 2.0f || __popc(7) != 3 || __clz(1) != 31) __trap();
    }
    """
    x, add = np.abs(normal(8, 4)).astype(f32), normal(8).astype(f32)
    shape = np.zeros(1, np.dtype([("rows", i32), ("scale", np.float64), ("add", np.uintp)], align=True))
    shape["rows"], shape["scale"], shape["add"] = 2, 0.25, add.ctypes.data
    y = np.empty_like(x)
    kernel(code)((1,), (8,), (pointer(x), pointer(y), shape, np.uintp(0)))
    expected = np.stack([x[:, 0] * 2 + 1, 1 / np.sqrt(x[:, 1]), np.maximum(x[:, 2], 0.5) + 2, add + 0.25], 1)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------- poison

POISONS = {
    "static": """
    extern "C" __global__ void read(float* y, int write) {
        __shared__ float a[32], b;
        if (write) a[threadIdx.x] = b = 1;
        y[blockIdx.x * 32 + threadIdx.x] = a[threadIdx.x] + b;
    }""",
    "of a template": """
    template <int N> __device__ float* memory() {
        __shared__ float a[N];
        return a;
    }
    extern "C" __global__ void read(float* y, int write) {
        if (write) memory<32>()[threadIdx.x] = memory<64>()[threadIdx.x] = 1;
        y[blockIdx.x * 32 + threadIdx.x] = memory<32>()[threadIdx.x] + memory<64>()[threadIdx.x];
    }""",
    "dynamic": """
    extern "C" __global__ void read(float* y, int write) {
        extern __shared__ __align__(16) unsigned char bytes[];
        float* a = (float*)bytes;
        if (write) a[threadIdx.x] = 1;
        y[blockIdx.x * 32 + threadIdx.x] = 2 * a[threadIdx.x];
    }""",
}


@pytest.mark.parametrize("kind", POISONS)
def test_shared_memory_that_nobody_wrote_is_nan(kind: str) -> None:
    """Also in a block after one that wrote there, and in a launch after one that did."""
    written, unwritten = np.empty(64, f32), np.empty(64, f32)
    for _ in range(2):
        launch(POISONS[kind], (2,), (32,), written, i32(1), shared=128)
        launch(POISONS[kind], (2,), (32,), unwritten, i32(0), shared=128)
        np.testing.assert_array_equal(written, 2)
        assert np.isnan(unwritten).all()


def test_a_value_from_outside_the_mask_is_poison() -> None:
    code = """
    extern "C" __global__ void ask(float* y, unsigned mask) {
        if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(mask, 1.0f, threadIdx.x + 1);
    }
    """
    y = np.empty(16, f32)
    launch(code, (1,), (32,), y, np.uint32(0xFFFF))
    assert y[:15].tolist() == [1] * 15
    assert np.isnan(y[15])


# ------------------------------------------------------------------------------------------------------------ refusals

REFUSED = {
    "too few arguments": (((1,), (32,), (), 0), "the kernel takes 4 arguments and 0 were given"),
    "a Python int for an int": (((1,), (32,), "xxx" + "p", 0), "argument 3 is a int; the kernel takes int, 4 bytes"),
    "a float for an int": (((1,), (32,), "xxxf", 0), "argument 3 is a numpy.float32; the kernel takes int, 4 bytes"),
    "an array of double": (
        ((1,), (32,), "xdxn", 0),
        "argument 1 is an array of float64; the kernel takes const float*",
    ),
    "a number for an array": (((1,), (32,), "xnxn", 0), "argument 1 is a numpy.int32; the kernel takes const float*"),
    "no threads": (((1,), (0,), "xxxn", 0), r"a block of \(0, 1, 1\) threads"),
    "too many threads": (((1,), (32, 33), "xxxn", 0), r"a block of \(32, 33, 1\) threads; 1 to 1024"),
    "more threads than promised": (((1,), (512,), "xxxn", 0), r"kernel with __launch_bounds__\(256\)"),
    "no blocks": (((0,), (32,), "xxxn", 0), r"a grid of \(0, 1, 1\) blocks"),
    "too many rows of blocks": (((1, 65536), (32,), "xxxn", 0), "65535 are possible"),
    "too much shared memory": (((1,), (32,), "xxxn", 228 << 10), "bytes of dynamic shared memory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_launch_that_cannot_be(case: str) -> None:
    (grid, block, letters, shared), said = REFUSED[case]
    values = {"x": pointer(np.zeros(4, f32)), "d": pointer(np.zeros(4)), "n": i32(4), "f": f32(4), "p": 4}
    args = [values[letter] for letter in letters]
    with pytest.raises(LaunchError, match=f"^add: .*{said}"):
        kernel(ADD)(grid, block, args, shared)


def test_other_arguments_are_no_arguments() -> None:
    for strange in ("4", None, np.zeros(4, f32), [1]):
        with pytest.raises(TypeError, match="^add: argument 0 is .*; arrays and NumPy's scalars are needed"):
            kernel(ADD)((1,), (32,), (strange,))


def test_structs_are_taken_by_size() -> None:
    code = 'struct S { int a, b; }; extern "C" __global__ void take(int* y, S s) { *y = s.a + s.b; }'
    y = np.zeros(1, i32)
    launch(code, (1,), (1,), y, np.array([(3, 4)], "i4, i4")[0:1].reshape(()))
    assert y[0] == 7
    with pytest.raises(LaunchError, match="argument 1 is .*12 bytes; the kernel takes S, 8 bytes"):
        launch(code, (1,), (1,), y, np.array((3, 4, 5), "i4, i4, i4"))


def test_bytes_are_memory_for_anything() -> None:
    y = np.zeros(32, f32)
    given = [pointer(a) for a in (np.ones(128, np.uint8), y, y)]
    kernel(ADD)((1,), (32,), (*given, i32(32)))
    assert y[0] != 0


def test_errors_of_the_compiler_name_the_line() -> None:
    with pytest.raises(CompileError, match=r"conv\.cu:8:.*error.*unknown"):
        compile_module('#line 7 "conv.cu"\nextern "C" __global__ void f(float* y) {\n    y[0] = unknown;\n}\n')
    with pytest.raises(CompileError, match="the module has no kernel"):
        compile_module("__global__ void f(float* y) {}")  # its name is mangled: get_function would not find it
    with pytest.raises(CompileError, match="atomicAdd"):
        compile_module('extern "C" __global__ void f(long long* y) { atomicAdd(y, 1); }')  # CUDA has none


def test_environment_variables_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_ON_CPU_ORDER", "CUDA_ON_CPU_COPIES", "CUDA_ON_CPU_SANITIZE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "backwards")
            with pytest.raises(ValueError, match=f"{name} is 'backwards'"):
                product()


def test_a_module_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_ON_CPU_CACHE", str(tmp_path / "new"))
    compiler._load.cache_clear()
    try:
        compile_module(ADD)
        monkeypatch.setattr(compiler, "_run", None)
        compiler._load.cache_clear()
        assert set(compile_module(ADD)) == {"add"}
    finally:
        compiler._load.cache_clear()


# --------------------------------------------------------------------------------------- faults in how threads meet


@pytest.mark.parametrize("missing", ["-DNO_FIRST_BARRIER", "-DNO_SECOND_BARRIER"])
def test_a_missing_barrier_shows_in_an_order(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaNs from what is not written yet, or values of the next tile."""
    errors = ordered(monkeypatch, lambda: product(missing))
    assert any(not error.max() < 1e-5 for error in errors)


EARLY_RETURN = """
extern "C" __global__ void f(float* x, int n) {
    if (threadIdx.x >= n - 7) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}
"""
DIVERGENT = """
extern "C" __global__ void f(float* x, int n) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
"""
ABSENT_LANES = """
extern "C" __global__ void f(float* x, int n) {
    if (threadIdx.x < 16) x[0] = __shfl_sync(0xffffffff, 1.0f, 0);
    else __syncthreads();
}
"""
OTHER_OPERATION = """
extern "C" __global__ void f(float* x, int n) {
    if (threadIdx.x % 2) x[0] = __shfl_sync(0xffffffff, 1.0f, 0);
    else __syncwarp();
}
"""
NOT_ITSELF = """
extern "C" __global__ void f(float* x, int n) {
    x[0] = __ballot_sync(0xffff, 1);
}
"""
STUCK = {
    "early return": (EARLY_RETURN, r"a barrier that some threads do not reach: thread \(0, 0, 0\) waits at test\.cu:4 "
                     r"\(__syncthreads\); thread \(57, 0, 0\) has returned"),
    "divergent": (DIVERGENT, r"threads wait at different barriers: thread \(0, 0, 0\) waits at test\.cu:4 "
                  r"\(__syncthreads\); thread \(32, 0, 0\) waits at test\.cu:6"),
    "absent lanes": (ABSENT_LANES, r"nobody can go on: thread \(0, 0, 0\) waits at test\.cu:3 \(__shfl_sync, "
                     r"mask 0xffffffff\); thread \(16, 0, 0\) waits at test\.cu:4"),
    "another operation": (OTHER_OPERATION, "nobody can go on: .*__syncwarp.*; .*__shfl_sync"),
    "not itself": (NOT_ITSELF, r"thread \(16, 0, 0\): test\.cu:3: __ballot_sync: the mask does not name the lane"),
}  # fmt: skip


@pytest.mark.parametrize("case", STUCK)
def test_threads_that_wait_for_ever(case: str) -> None:
    code, said = STUCK[case]
    x = np.zeros(64, f32)
    with pytest.raises(LaunchError, match=rf"^f: block \(0, 0, 0\).*{said}"):
        launch(code, (2,), (64,), x, i32(64))
    assert product().max() < 1e-5  # what went wrong there is no concern of the next one


def test_lanes_that_have_returned_are_not_waited_for() -> None:
    code = """
    extern "C" __global__ void f(int* y) {
        if (threadIdx.x % 2) return;
        y[threadIdx.x] = __any_sync(0xffffffff, threadIdx.x == 40) + __popc(__ballot_sync(0xffffffff, 1));
    }
    """
    y = np.zeros(48, i32)  # a warp and a half
    launch(code, (1,), (48,), y)
    np.testing.assert_array_equal(y[::2], [16] * 16 + [9] * 8)


FAULTS = {
    "null": ("y[threadIdx.x + (y ? 0 : 0)] = 1;", "an invalid or misaligned address, 0"),
    "wild": ("*(y + ((long long)threadIdx.x << 50) + (1ll << 45)) = 1;", "an invalid or misaligned address"),
    "division by zero": ("if (zero == 0) zero = 5 / zero;", "an integer is divided by zero"),
    "deep recursion": ("int big[100000]; big[zero] = 1; if (big[zero + 99999]) *(volatile int*)big = 2;", "address"),
    "__trap": ("if (zero == 0) __trap();", "__trap: the kernel ended itself"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_ends_a_process_ends_a_launch(case: str) -> None:
    """With the line, and Python goes on."""
    statement, said = FAULTS[case]
    code = f'extern "C" __global__ void f(float* y, volatile int zero) {{\n    {statement}\n}}\n'
    with pytest.raises(LaunchError, match=rf"^f: block \(0, 0, 0\), thread \(0, 0, 0\): .*{said}") as error:
        kernel(code)((1,), (32,), (np.uintp(0), i32(0)))
    assert "test.cu:" in str(error.value) or case == "deep recursion"  # that is in no line, but before the first
    assert product().max() < 1e-5


def test_blocks_that_depend_on_each_other_show_in_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'extern "C" __global__ void last(int* y) { *y = blockIdx.x; }'

    def work() -> np.ndarray:
        y = np.empty(1, i32)
        launch(code, (37,), (1,), y)
        return y

    assert len({int(y[0]) for y in ordered(monkeypatch, work)}) > 2


def test_every_order_has_every_thread_and_block_once(monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'extern "C" __global__ void f(int* y) { atomicAdd(y + blockIdx.x * blockDim.x + threadIdx.x, 1); }'
    for blocks in (1, 2, 3, 10, 36, 64, 97):

        def work(blocks: int = blocks) -> np.ndarray:
            y = np.zeros((blocks, 50), i32)
            launch(code, (blocks,), (50,), y)
            return y

        for y in ordered(monkeypatch, work):
            np.testing.assert_array_equal(y, 1)


def test_shared_memory_is_limited() -> None:
    code = 'extern "C" __global__ void f(int* y) { __shared__ int a[12 * 1024 + EXTRA]; a[0] = 1; *y = a[0]; }'
    y = np.zeros(1, i32)
    launch(code, (1,), (1,), y, options=("-DEXTRA=0",))
    assert y[0] == 1
    with pytest.raises(LaunchError, match="49156 bytes of __shared__ variables"):
        launch(code, (1,), (1,), y, options=("-DEXTRA=1",))
    with pytest.raises(LaunchError, match="and 184320 of dynamic shared memory"):
        launch(code, (1,), (1,), y, shared=180 << 10, options=("-DEXTRA=0",))


# ----------------------------------------------------------------------------------- asynchronous copies, tensor cores

COPIES = """
extern "C" __global__ void reversed(const float* x, float* y, int valid) {
    __shared__ __align__(16) float a[2][64];
    int i = threadIdx.x;
    for (int half = 0; half < 2; half++) {
        copy_async<BYTES>(&a[half][BYTES / 4 * i], x + 64 * half + BYTES / 4 * i + SHIFT, i < valid);
#ifndef NO_COMMIT
        copy_async_commit();
#endif
    }
#ifndef NO_WAIT
    copy_async_wait<PENDING>();
#endif
    __syncthreads();
    for (int e = i; e < 64; e += blockDim.x) {
        y[e] = a[0][63 - e];
        y[64 + e] = a[1][63 - e];
    }
}
"""
WHOLE = ("-DBYTES=16", "-DSHIFT=0", "-DPENDING=0")


def copied(*options: str, valid: int = 64, threads: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """(x, y reversed) of COPIES, (2, 64)."""
    memory = np.zeros(128 + 8, f32)
    start = -memory.ctypes.data % 16 // 4
    x, y = memory[start : start + 128], np.empty((2, 64), f32)
    x[:] = normal(128)
    launch(COPIES, (1,), (threads,), x, y, i32(valid), options=options)
    return x.reshape(2, 64), y[:, ::-1]


@pytest.mark.parametrize("when", ["deferred", "eager"])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_copies_arrive(size: int, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_ON_CPU_COPIES", when)
    x, y = copied(f"-DBYTES={size}", *WHOLE[1:], threads=256 // size)
    np.testing.assert_array_equal(x, y)
    _, y = copied(f"-DBYTES={size}", *WHOLE[1:], valid=5, threads=256 // size)
    each = size // 4
    np.testing.assert_array_equal(y[:, : 5 * each], x[:, : 5 * each])
    np.testing.assert_array_equal(y[:, 5 * each :], 0)


def test_what_is_not_waited_for_does_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    for fault in ("-DNO_WAIT", "-DNO_COMMIT"):
        assert np.isnan(copied(*WHOLE, fault)[1]).all()
    x, y = copied(*WHOLE[:2], "-DPENDING=1")
    np.testing.assert_array_equal(x[0], y[0])
    assert np.isnan(y[1]).all()
    monkeypatch.setenv("CUDA_ON_CPU_COPIES", "eager")
    np.testing.assert_array_equal(*copied(*WHOLE, "-DNO_WAIT"))  # the fault is there, and luck hides it


def test_copies_that_the_hardware_refuses() -> None:
    with pytest.raises(LaunchError, match=r"test\.cu:6: copy_async: an address is not a multiple of the bytes copied"):
        copied("-DBYTES=16", "-DSHIFT=1", "-DPENDING=0")
    code = 'extern "C" __global__ void f(float* x) { copy_async<4>(x, x + 1, true); }'
    with pytest.raises(LaunchError, match="copy_async: the destination is not in shared memory"):
        launch(code, (1,), (1,), np.zeros(2, f32))


FRAGMENTS = """
// d (16, 8) = a (16, 8) b (8, 8)
extern "C" __global__ void multiply(const float* a, const float* b, float* d) {
    int g = threadIdx.x / 4, q = threadIdx.x % 4;
    unsigned left[4], right[2];
    for (int e = 0; e < 4; e++) {
        int row = g + (SWAPPED ? e / 2 : e % 2) * 8, k = q + (SWAPPED ? e % 2 : e / 2) * 4;
        left[e] = float_to_tf32(a[row * 8 + k]);
    }
    for (int e = 0; e < 2; e++) right[e] = float_to_tf32(b[(q + 4 * e) * 8 + g]);
    float sums[4] = {};
    mma_m16n8k8_tf32(sums, left, right);
    mma_m16n8k8_tf32(sums, left, right);
    for (int e = 0; e < 4; e++) d[(g + e / 2 * 8) * 8 + 2 * q + e % 2] = sums[e] / 2;
}
"""


def test_tensor_cores_multiply_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(16, 8).astype(f32), normal(8, 8).astype(f32)

    def error(swapped: int) -> np.ndarray:
        d = np.empty((16, 8), f32)
        launch(FRAGMENTS, (1,), (32,), a, b, d, options=(f"-DSWAPPED={swapped}",))
        exact = cublas_standin.to_tf32(a).astype(np.float64) @ cublas_standin.to_tf32(b)
        assert np.abs(exact - a @ b).max() > 1e-4  # so that the rounding is seen
        return np.abs(d - exact).max()

    for right, wrong in zip(
        ordered(monkeypatch, lambda: error(0)), ordered(monkeypatch, lambda: error(1)), strict=True
    ):
        assert right < 1e-6
        assert wrong > 0.1


def test_rounding_to_tf32() -> None:
    """To the nearest, halves away from zero; PyTorch's documentation gives the format: 8 bits of exponent, 10 of
    fraction."""
    code = (
        'extern "C" __global__ void f(const float* x, unsigned* y) { y[threadIdx.x] = float_to_tf32(x[threadIdx.x]); }'
    )
    step = 2.0**-10
    x = [1 + step, 1 + step / 2, -1 - step / 2, 1 + step / 2.001, 1 + 1.5 * step, 0, np.inf, 3e-39, 2 - 2.0**-23]
    expected = [1 + step, 1 + step, -1 - step, 1, 1 + 2 * step, 0, np.inf, None, 2]
    y = np.empty(len(x), np.uint32)
    given = np.array(x, f32)
    launch(code, (1,), (len(x),), given, y)
    np.testing.assert_array_equal(y, cublas_standin.to_tf32(given).view(np.uint32))
    for found, wanted in zip(y.view(f32), expected, strict=True):
        assert wanted is None or found == wanted


# --------------------------------------------------------------------------------------------------------- sanitizers

UNBARRED = """
extern "C" __global__ void f(float* y, int barrier) {
    __shared__ float a[64];
    float* mine = y + 64 * blockIdx.x;
    a[threadIdx.x] = mine[threadIdx.x];
    if (barrier & 1) __syncthreads();
    float sum = a[threadIdx.x] + a[threadIdx.x ^ 32];
    if (barrier & 2) __syncthreads();
    a[threadIdx.x] = sum;
    if (barrier & 4) __syncthreads();
    mine[threadIdx.x] = a[63 - threadIdx.x];
}
"""
UNBARRED_WARP = """
extern "C" __global__ void f(float* y, int barrier) {
    __shared__ float a[64];
    float* mine = y + 64 * blockIdx.x;
    a[threadIdx.x] = mine[threadIdx.x];
    if (barrier) __syncwarp();
    mine[threadIdx.x] = a[threadIdx.x ^ 1];
}
"""
UNBARRED_COPY = """
extern "C" __global__ void f(float* y, int barrier) {
    __shared__ float a[64];
    float* mine = y + 64 * blockIdx.x;
    copy_async<4>(a + threadIdx.x, mine + threadIdx.x, true);
    copy_async_commit();
    copy_async_wait<0>();
    if (barrier) __syncthreads();
    mine[threadIdx.x + (threadIdx.x < 32 ? 32 : -32)] = a[threadIdx.x ^ 32];
}
"""
BETWEEN_BLOCKS = """
__device__ __noinline__ void count(float& one) { one = 1; }
extern "C" __global__ void f(float* y, int atomic) {
    float one;
    count(one);  // each thread's own, though all have it at the same place
    if (threadIdx.x) return;
    if (atomic) atomicAdd(y, one);
    else y[0] = y[0] + one;
}
"""
BEYOND = """
extern "C" __global__ void f(float* y, int n) {
    y[int(blockIdx.x * 64 + threadIdx.x) + n] = 1;
}
"""
BEYOND_SHARED = """
extern "C" __global__ void f(float* y, int n) {
    __shared__ float a[64], b[64];
    b[threadIdx.x] = 0;
    a[threadIdx.x + n] = 1;
    y[threadIdx.x + 64 * blockIdx.x] = b[threadIdx.x];
}
"""
MISALIGNED = """
extern "C" __global__ void f(float* y, int n) {
    __shared__ float a[64];
    __shared__ __align__(16) float b[64];
    *(float4*)(n ? a : b) = make_float4(0, 0, 0, 0);
}
"""
OVERFLOW = """
extern "C" __global__ void f(float* y, int n) {
    int most = 0x7fffffff - threadIdx.x;
    y[threadIdx.x] = most + n;
}
"""
# what is planted: (sanitizer, code, its argument with the fault, and without, what is reported)
PLANTED = {
    "a lost barrier": ("thread", UNBARRED, 6, 7, r"data race.*test\.cu:7"),
    "a lost barrier that values do not show": ("thread", UNBARRED, 5, 7, r"data race.*test\.cu:9"),
    "a lost barrier of a warp": ("thread", UNBARRED_WARP, 0, 1, r"data race.*test\.cu:7"),
    "a lost barrier after copies": ("thread", UNBARRED_COPY, 0, 1, r"data race.*test\.cu:9"),
    "a race between blocks": ("thread", BETWEEN_BLOCKS, 0, 1, r"data race.*test\.cu:8"),
    "an access beyond an array": ("address", BEYOND, 1, 0, r"use-after-poison.*test\.cu:3"),
    "an access before an array": ("address", BEYOND, -1, 0, r"use-after-poison.*test\.cu:3"),
    "an access beyond shared memory": ("address", BEYOND_SHARED, 1, 0, r"use-after-poison.*test\.cu:5"),
    "a misaligned float4": ("undefined", MISALIGNED, 1, 0, r"test\.cu:5:.*misaligned address"),
    "an int that overflows": ("undefined", OVERFLOW, 1, 0, r"test\.cu:4:.*signed integer overflow"),
}
WATCHED = """
import sys
from emulation.cupy_standin import standing_in
import numpy as np
code, value = sys.stdin.read(), np.int32(sys.argv[1])
with standing_in() as cupy:
    y = cupy.zeros(128, np.float32)
    cupy.RawModule(code=code).get_function("f")((2,), (64,), (y, value))
print("done")
"""


@pytest.mark.parametrize("case", PLANTED)
def test_sanitizers_find_what_is_planted(case: str) -> None:
    sanitizer, code, faulty, right, said = PLANTED[case]
    if sanitizers.library(sanitizer) is None:
        pytest.skip(f"g++ has no {sanitizers.LIBRARIES[sanitizer]}")

    def watched(value: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", WATCHED, str(value)],
            input='#line 1 "test.cu"\n' + code, capture_output=True, text=True,
            cwd=HERE, env={**sanitizers.environment(sanitizer), "PYTHONPATH": str(HERE.parent)},
        )  # fmt: skip

    silent = watched(right)
    if "unexpected memory mapping" in silent.stderr:
        pytest.skip("ThreadSanitizer cannot run with this kernel's memory layout; sysctl vm.mmap_rnd_bits=28 helps")
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "done\n", "")
    found = watched(faulty)
    assert found.returncode
    assert "done" not in found.stdout
    assert re.search(said, found.stderr, re.DOTALL), found.stderr

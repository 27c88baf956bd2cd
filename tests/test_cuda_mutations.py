"""Planted mistakes in the real kernels: the tests on the emulated GPU must find every one of them.

A mistake is caught if the emulator refuses the launch or the run, or if some example differs from its definition, in
one of three orders of threads and blocks.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from emulation import cupy_standin
from test_kernels import EXAMPLES, run

import minifcn as mf
from minifcn.kernels.cuda import conv_implicit, load, norm, pool, windows
from minifcn.kernels.registry import REFERENCE, Kernel

ORDERS = ("forward", "reversed", "shuffled")

# (file, what stands there, what is put in its place, operation, algorithm)
MISTAKES = {
    "a barrier of the block's sum is lost": (
        "reduce.cuh",
        "    __syncthreads();\n    if (threadIdx.x == 0) {",
        "    if (threadIdx.x == 0) {",
        "channel_sum",
        "cuda",
    ),
    "a barrier in only some threads": (
        "reduce.cuh",
        "    __syncthreads();\n    if (threadIdx.x == 0) {",
        "    if (warp == 0) __syncthreads();\n    if (threadIdx.x == 0) {",
        "batch_norm",
        "cuda",
    ),
    "a shuffle over half a warp": ("reduce.cuh", "step = WARP / 2", "step = WARP / 4", "channel_sum", "cuda"),
    "the slab's barrier is lost": (
        "implicit.cuh",
        "__syncthreads();  // slab s is here",
        "// slab s is here",
        "conv2d",
        "implicit",
    ),
    "a copy is not waited for": (
        "implicit.cuh",
        "copy_async_wait<T::STAGES - 2>();",
        "copy_async_wait<T::STAGES - 1>();",
        "conv2d_weight",
        "implicit",
    ),
    "the barrier before the phases are read is lost": (
        "implicit.cuh",
        "    __syncthreads();\n    // runs of 2^shift",
        "    // runs of 2^shift",
        "conv_transpose2d",
        "implicit",
    ),
    "a fragment's rows and columns swapped": (
        "tensor_cores.cu",
        "g + e % 2 * 8;\n                    left",
        "g + e / 2 * 8;\n                    left",
        "conv2d",
        "tensor_cores",
    ),
    "a result's rows swapped": (
        "tensor_cores.cu",
        "i / 2 * 16 + i % 2 * 8 + g",
        "i % 2 * 16 + i / 2 * 8 + g",
        "conv2d",
        "tensor_cores",
    ),
    "rows for columns": (
        "pool.cu",
        "real value = row[v];",
        "real value = image[v * g.W + h];",
        "max_pool2d",
        "cuda",
    ),
    "the last of equal values": ("pool.cu", "value > best ||", "value >= best ||", "max_pool2d", "cuda"),
    "a window too many": ("common.cuh", "/ stride, count - 1)", "/ stride, count)", "avg_pool2d_adjoint", "cuda"),
    "padding on the wrong side": ("windows.cu", "* g.stride_h - g.pad_h", "* g.stride_h + g.pad_h", "unfold", "cuda"),
    "a stride forgotten": ("common.cuh", "from_first - p * stride)", "from_first - p)", "fold", "cuda"),
    "a wrong constant": ("winograd.cu", "{0, 1, -1, 8, -8, 1}", "{0, 1, -1, 8, -7, 1}", "conv2d", "winograd_f4"),
    "a filter that is not turned": (
        "winograd.cu",
        "turned ? TAPS * TAPS - 1 - tap : tap",
        "tap",
        "conv_transpose2d",
        "winograd_f4",
    ),
    "the biased variance of a slice": (
        "norm.cu",
        "squares / count - shifted * shifted",
        "squares / count",
        "batch_norm",
        "cuda",
    ),
    "a walk that skips a plane": (
        "norm.cu",
        "place += over_rows;",
        "place += over_rows + M;",
        "batch_norm_grad",
        "cuda",
    ),
    "a NaN that ReLU drops": (
        "pointwise.cu",
        "return v[0] <= 0 ? real(0) : v[0];",
        "return v[0] > 0 ? v[0] : real(0);",
        "relu",
        "cuda",
    ),
    "a random constant": ("philox.cuh", "0xBB67AE85u", "0xBB67AE86u", "dropout", "philox"),
    "exp without its shift": ("loss.cu", "exponential(value - s.top);", "exponential(value);", "cross_entropy", "cuda"),
    "the wrong neighbour": ("interpolate.cu", "axis.b[q] * row[v + 1]", "axis.b[q] * row[v]", "interpolate", "cuda"),
    "a run that is added twice": (
        "scatter.cu",
        "if (e > 0 && places[e - 1] == place) continue;",
        "",
        "add_at",
        "sorted",
    ),
    "a wrong epilogue": (
        "depthwise.cu",
        "finished(f, sum, c, plane",
        "finished(f, sum + 1, c, plane",
        "conv2d",
        "depthwise",
    ),
    "momentum of the wrong sign": ("update.cu", "momentum * at[1] +", "-momentum * at[1] +", "sgd_step", "cuda"),
}


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch):
    if cupy_standin.reason_unavailable():
        pytest.skip(cupy_standin.reason_unavailable())
    _forget()
    with cupy_standin.standing_in():
        yield
    _forget()


def _forget() -> None:
    for kept in (load._module, load._function):
        kept.cache_clear()


def fault(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the tests say against a kernel; nothing where it is right."""
    reference = next(k for k in mf.algorithms(kernel.op) if k.algorithm == REFERENCE)
    tolerance = 2e-3 if kernel.algorithm == "tensor_cores" else 2e-5
    for order in ORDERS:
        monkeypatch.setenv("CUDA_ON_CPU_ORDER", order)
        for arrays, params in EXAMPLES[kernel.op]():
            if kernel.refuses(params):
                continue
            expected = run(reference, arrays, params, np.float32)
            try:
                found = run(kernel, arrays, params, np.float32, "cuda")
            except (RuntimeError, TypeError) as error:
                return str(error)
            for a, b in zip(found, expected, strict=True):
                scale = np.abs(b[np.isfinite(b)]).max(initial=1.0)
                if not np.allclose(a / scale, b / scale, rtol=0, atol=tolerance, equal_nan=True):
                    return f"other values, {order}"
    return ""


def kernel_of(op: str, algorithm: str) -> Kernel:
    return next(k for k in mf.algorithms(op, "cupy") if k.algorithm == algorithm)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_kernel_is_found(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, right, wrong, op, algorithm = MISTAKES[mistake]
    folder = tmp_path / "cuda"
    shutil.copytree(load.HERE, folder)
    text = (folder / file).read_text()
    assert text.count(right) >= 1, f"{file} no longer has {right!r}"
    (folder / file).write_text(text.replace(right, wrong))
    monkeypatch.setattr(load, "HERE", folder)
    assert fault(kernel_of(op, algorithm), monkeypatch)


@pytest.mark.parametrize(("op", "algorithm"), sorted({mistake[3:] for mistake in MISTAKES.values()}))
def test_and_none_where_there_is_none(op: str, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fault(kernel_of(op, algorithm), monkeypatch) == ""


@pytest.mark.parametrize(
    ("module", "name", "wrong", "op", "algorithm"),
    [
        (pool, "size", lambda *shape: np.int32(np.prod(shape)), "max_pool2d", "cuda"),
        (windows, "size", lambda *shape: float(np.prod(shape)), "unfold", "cuda"),
        (norm, "_sizes", lambda x: (*map(np.int64, x.shape[:2]), np.int64(x[0, 0].size)), "batch_norm", "cuda"),
        (
            conv_implicit,
            "PHASES",
            np.dtype([(name, np.int64) for name in conv_implicit.PHASES.names or ()]),
            "conv_transpose2d",
            "implicit",
        ),
    ],
    ids=["int32 for int64", "Python's float", "int64 for int32", "a struct of another size"],
)
def test_a_wrong_type_of_argument_is_refused(
    module: object, name: str, wrong: object, op: str, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU these would pass unnoticed."""
    monkeypatch.setattr(module, name, wrong)
    assert "argument" in fault(kernel_of(op, algorithm), monkeypatch)

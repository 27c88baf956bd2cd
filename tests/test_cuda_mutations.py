"""Planted mistakes in the real kernels: the tests on the emulated GPU must find every one of them.

A mistake is caught if the emulator refuses the launch or the run, or if some example differs from its definition, in
one of three orders of threads and blocks; or if it ends the process, or never ends. Each runs in a process of its own,
as a kernel that writes anywhere spoils the memory of the process that it runs in.
"""

import multiprocessing
import re
import shutil
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from emulation import cupy_standin
from emulation.compiler import LaunchError
from test_kernels import EXAMPLES, run

import minifcn as mf
from minifcn.kernels.cuda import conv_implicit, load, norm, pool, windows
from minifcn.kernels.registry import REFERENCE, Kernel

ORDERS = ("forward", "reversed", "shuffled")
SECONDS = 120  # in which a process has to start, and then a mistake to show
# how spoilt memory ends a process; what else ends one, such as too little memory, is no doing of a kernel
DEADLY = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}

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
            except LaunchError as error:  # anything else is no doing of the kernel
                return str(error)
            for a, b in zip(found, expected, strict=True):
                scale = np.abs(b[np.isfinite(b)]).max(initial=1.0)
                if not np.allclose(a / scale, b / scale, rtol=0, atol=tolerance, equal_nan=True):
                    return f"other values, {order}"
    return ""


def kernel_of(op: str, algorithm: str) -> Kernel:
    return next(k for k in mf.algorithms(op, "cupy") if k.algorithm == algorithm)


def fault_elsewhere(folder: Path, op: str, algorithm: str) -> str:
    """What the tests say against a kernel compiled from the sources in a folder, or how it ended the process that ran
    it; nothing where it is right. What no kernel does, such as an exception of the tests' own, fails the test."""
    context = multiprocessing.get_context("spawn")  # a forked one could wait for ever for what a thread here has locked
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_say_fault, args=(folder, op, algorithm, there), daemon=True)
    process.start()
    there.close()  # only the process has it now: if that ends, this end is told
    words = []
    try:
        while len(words) < 2 and here.poll(SECONDS):
            words.append(here.recv())
    except EOFError:
        process.join(SECONDS)
    code = process.exitcode
    process.kill()  # it has said what it had to say, and need not be able to end by itself
    process.join()
    here.close()
    match words:
        case ["begun", ("found", said)]:
            return said
        case ["begun"] if code is None:
            return f"no end within {SECONDS} s"
        case ["begun"] if -code in DEADLY:
            return f"killed by {signal.Signals(-code).name}"
    said = "\n".join(words[-1]) if words[1:] else f"exit code {code} after {words}"
    pytest.fail(f"{op} by {algorithm}: what failed is the process that runs it, not the kernel: {said}")


def _say_fault(folder: Path, op: str, algorithm: str, out: Connection) -> None:
    """In the other process: that it has begun, as by then all that it needs is imported, and what is found."""
    with pytest.MonkeyPatch.context() as patch, cupy_standin.standing_in():
        patch.setattr(load, "HERE", folder)
        kernel = kernel_of(op, algorithm)
        out.send("begun")
        try:
            outcome = ("found", fault(kernel, patch))
        except Exception:
            outcome = ("raised", traceback.format_exc())
        out.send(outcome)  # now, before the end of the block stumbles over memory that the kernel spoilt


def planted(folder: Path, file: str, right: str, wrong: str) -> Path:
    """The kernels' sources, copied into a folder, with something else in the place of what is right."""
    shutil.copytree(load.HERE, folder)
    text = (folder / file).read_text()
    assert text.count(right) >= 1, f"{file} no longer has {right!r}"
    (folder / file).write_text(text.replace(right, wrong))
    return folder


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_kernel_is_found(mistake: str, tmp_path: Path) -> None:
    file, right, wrong, op, algorithm = MISTAKES[mistake]
    assert fault_elsewhere(planted(tmp_path / "cuda", file, right, wrong), op, algorithm)


RELU = ("pointwise.cu", "return v[0] <= 0 ?")
FATES = {
    "nothing is wrong": ("return v[0] <= 0.0f ?", "^$"),
    "memory far away": ("*(volatile int*)(1ll << 47) = 1; return v[0] <= 0 ?", "an invalid or misaligned address"),
    "the process ends": ("__builtin_trap(); return v[0] <= 0 ?", "^killed by SIG(ILL|TRAP)$"),
}


@pytest.mark.parametrize("fate", FATES)
def test_what_becomes_of_the_other_process(fate: str, tmp_path: Path) -> None:
    wrong, said = FATES[fate]
    assert re.search(said, fault_elsewhere(planted(tmp_path / "cuda", *RELU, wrong), "relu", "cuda"))


def test_what_no_kernel_did_is_not_found(tmp_path: Path) -> None:
    folder = planted(tmp_path / "cuda", *RELU, "return no_such_name ?")
    with pytest.raises(pytest.fail.Exception, match="CompileError: (?s:.*)no_such_name"):
        fault_elsewhere(folder, "relu", "cuda")
    with pytest.raises(pytest.fail.Exception, match=r"exit code 1 after \[\]"):
        fault_elsewhere(folder, "relu", "no such algorithm")


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

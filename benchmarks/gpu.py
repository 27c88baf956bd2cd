"""Timing on a GPU, what it can do at best, and which one it is.

A call returns when its work is queued, not when it is done. So calls are timed in batches between two moments at which
the device has nothing left to do, and batches of the contenders take turns.
"""

from __future__ import annotations

import functools
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from typing import Any

import numpy as np

import minifcn as mf
from minifcn.array import to_device

from . import measure
from .kernels import normal

BATCH = 0.01  # seconds that a batch of calls lasts at least
MOST_CALLS = 200  # of a batch
SIDE = 8192  # of the matrices
COPY = 1 << 30  # bytes copied
PRECISIONS = {"highest": "float32", "high": "TF32"}  # of set_float32_matmul_precision, and what factors are rounded to
GEMM = {"highest": "sgemm_gflops", "high": "tf32_gemm_gflops"}  # the peak that belongs to each
TORCH = "cuda"  # PyTorch's device
CLOCKS = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "power.limit")
TF32 = (
    "float32: set_float32_matmul_precision('highest'), torch.backends.cudnn.allow_tf32 = "
    "torch.backends.cuda.matmul.allow_tf32 = False; TF32: 'high', and both True"
)


def emulated() -> bool:
    """Whether something stands in for CuPy: the runtime of the real one is a compiled extension."""
    import cupy

    return not isinstance(getattr(cupy.cuda.runtime.__spec__, "loader", None), ExtensionFileLoader)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Within the block both libraries multiply float32 in this precision."""
    before = mf.get_float32_matmul_precision()
    _set_precision(name)
    try:
        yield
    finally:
        _set_precision(before)


def _set_precision(name: str) -> None:
    mf.set_float32_matmul_precision(name)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "high"


def tune_torch() -> None:
    """Let cuDNN try its algorithms at every new size and take the fastest, as those do who want speed."""
    import torch

    torch.backends.cudnn.benchmark = True


def synchronize() -> None:
    """Wait for all that was asked of the device through CuPy."""
    import cupy

    cupy.cuda.Device().synchronize()


def torch_synchronize() -> None:
    """Wait for all that was asked of the device through PyTorch."""
    import torch

    torch.cuda.synchronize()


SYNCHRONIZE = {"minifcn": synchronize, "torch": torch_synchronize}


@dataclass
class Contender:
    """What is timed, and how."""

    call: Callable[[], object]
    synchronize: Callable[[], object]
    precision: str
    calls: int = 1  # of a batch

    def batch(self) -> None:
        """So many calls, until all is done."""
        with precision(self.precision):
            for _ in range(self.calls):
                self.call()
            self.synchronize()

    def choose_calls(self) -> None:
        """As many as last long enough. The first batch compiles, and lets cuDNN choose, and counts for nothing."""
        self.batch()
        while True:
            start = time.perf_counter()
            self.batch()
            seconds = time.perf_counter() - start
            if seconds >= BATCH or self.calls == MOST_CALLS:
                return
            self.calls = min(math.ceil(1.2 * self.calls * BATCH / seconds), MOST_CALLS)


def interleaved(contenders: dict[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds of one call of each contender, the mean of a batch, in every round. They take turns."""
    for contender in contenders.values():
        contender.choose_calls()
    times = measure.interleaved({name: c.batch for name, c in contenders.items()}, rounds)
    return {name: [s / contenders[name].calls for s in seconds] for name, seconds in times.items()}


def compared(calls: dict[str, Callable[[], object]], precision: str, rounds: int) -> dict[str, Any]:
    """The libraries' calls in one precision: {library: spread, …, "ratio": our time to PyTorch's}."""
    contenders = {library: Contender(call, SYNCHRONIZE[library], precision) for library, call in calls.items()}
    times = interleaved(contenders, rounds)
    found: dict[str, Any] = {library: measure.spread(seconds) for library, seconds in times.items()}
    if "torch" in times:
        found["ratio"] = measure.ratio(times["minifcn"], times["torch"])
    return found


def peaks(rounds: int = 7) -> dict[str, float]:
    """cuBLAS's rates in float32 and TF32, in GFLOP/s, and the bandwidth of a copy within the device in GB/s (read and
    written), the best of some rounds each."""
    import cupy

    from minifcn.kernels.cuda.blas import Matrix, multiply

    a = to_device(normal((SIDE, SIDE)), "cuda")
    c = cupy.empty_like(a)
    source, target = cupy.ones(COPY, np.uint8), cupy.empty(COPY, np.uint8)

    def gemm() -> None:
        multiply(Matrix(a, 0, SIDE), Matrix(a, 0, SIDE), Matrix(c, 0, SIDE), (SIDE, SIDE, SIDE))

    contenders = {GEMM[name]: Contender(gemm, synchronize, name) for name in PRECISIONS}
    contenders["copy"] = Contender(lambda: cupy.copyto(target, source), synchronize, "highest")
    best = {name: min(seconds) for name, seconds in interleaved(contenders, rounds).items()}
    rates = {name: 2 * SIDE**3 / best[name] / 1e9 for name in GEMM.values()}
    return {**rates, "copy_gb_per_s": 2 * COPY / best["copy"] / 1e9}


def environment() -> dict[str, Any]:
    """The GPU and what drives it, and the CPU beside it."""
    import cupy

    runtime = cupy.cuda.runtime
    found = measure.environment()
    found["versions"] |= {"cupy": cupy.__version__, "cuda_runtime": _version(runtime.runtimeGetVersion())}
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        found["versions"] |= {"torch_cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        found["cudnn_benchmark"] = torch.backends.cudnn.benchmark
    return {
        **found,
        "device": "cuda",
        "emulated": emulated(),
        "gpu": runtime.getDeviceProperties(0)["name"].decode(),
        "driver_cuda": _version(runtime.driverGetVersion()),
        "nvidia_smi": {} if emulated() else _nvidia_smi(runtime.deviceGetPCIBusId(0)),
        "precisions": TF32,
        "batch": f"calls for {BATCH} s at least, {MOST_CALLS} at most, between synchronisations",
    }


def _version(number: int) -> str:
    """CUDA counts 13.2 as 13020."""
    return f"{number // 1000}.{number % 1000 // 10}"


@functools.cache  # as it may take a second, and the environment is written with every row
def _nvidia_smi(bus: str) -> dict[str, str]:
    """Driver, clocks and power limit of the GPU on a PCI bus, with their units; nothing where nvidia-smi gives none."""
    command = ["nvidia-smi", f"--id={bus}", f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(CLOCKS, (part.strip() for part in text.split(",")), strict=False))

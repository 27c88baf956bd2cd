"""What this machine can do at best, measured in the same process as what is compared with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minifcn as mf
from minifcn.threads import parallel

from .measure import RESULTS

SIDE = 2048  # of the matrices: large enough for BLAS to reach its best
COPY = 1 << 28  # bytes copied: far beyond any cache


def peaks(rounds: int = 7) -> dict[str, float]:
    """SGEMM's rate in GFLOP/s and the bandwidth of a copy in GB/s (read and written), the best of some rounds each."""
    a, b = (np.random.default_rng(k).standard_normal((SIDE, SIDE), dtype=np.float32) for k in range(2))
    c = np.empty_like(a)
    source, target = np.ones(COPY, np.uint8), np.empty(COPY, np.uint8)
    part = COPY // mf.get_num_threads()
    slices = [slice(k * part, (k + 1) * part) for k in range(mf.get_num_threads())]
    return {
        "sgemm_gflops": 2 * SIDE**3 / _best(lambda: np.matmul(a, b, out=c), rounds) / 1e9,
        "copy_gb_per_s": 2
        * COPY
        / _best(lambda: parallel(lambda s: np.copyto(target[s], source[s]), slices), rounds)
        / 1e9,
    }


def _best(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def least_time(flops: float, moved: float, peak: dict[str, float], gemm: str = "sgemm_gflops") -> float:
    """Seconds below which direct arithmetic cannot be: its operations at a matrix product's rate, or its bytes at a
    copy's."""
    return max(flops / peak[gemm], moved / peak["copy_gb_per_s"]) / 1e9


def draw(result: dict[str, Any]) -> Path:
    """roofline.png: every kernel's rate over its arithmetic intensity, ours and PyTorch's, under the roof."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    peak = result["peaks"]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    intensity = np.geomspace(0.1, 2000, 200)
    roof = np.minimum(peak["sgemm_gflops"], intensity * peak["copy_gb_per_s"])
    axes.loglog(intensity, roof, color="black", label="roof: SGEMM and copy, measured")
    for name, colour, marker in (("minifcn", "tab:blue", "o"), ("torch", "tab:orange", "x")):
        rows = [r for r in result["rows"] if name in r["forward"] and r["gflop"] > 0]
        axes.loglog(
            [r["gflop"] / r["gbyte"] for r in rows],
            [r["gflop"] / r["forward"][name]["median_s"] for r in rows],
            marker,
            color=colour,
            markersize=5,
            linestyle="none",
            label=f"{name}: forward of one layer",
        )
    axes.set(
        xlabel="operations of the direct form per byte of input, filter and output",
        ylabel="GFLOP/s, counted as the direct form",
        title="Every layer of both networks; above the roof are kernels that multiply less than the direct form",
    )
    axes.title.set_fontsize(10)
    axes.legend()
    axes.grid(True, which="major", alpha=0.3)
    path = RESULTS / "roofline.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path

"""How everything here is timed, and what is written down beside the numbers."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

import minifcn as mf

RESULTS = Path(__file__).parent / "results"
CHECKOUT = (Path(__file__).parents[1] / "setup.py").is_file()  # else installed: no README, no tests, no results/


def interleaved(
    contenders: dict[str, Callable[[], object]], rounds: int, warmup: int = 1, settle: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of every contender in every round. They take turns, so a slow moment of the machine hits all of them.

    Before each counted call the contender runs for `settle` seconds uncounted: that brings its own data into the caches
    and lets the other's threads come to rest. OpenMP's workers spin for some milliseconds after PyTorch's call, which
    would be counted against whoever is next.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warmup + rounds):
        for name, work in contenders.items():
            begin = time.perf_counter()
            while time.perf_counter() - begin < settle:
                work()
            start = time.perf_counter()
            work()
            seconds = time.perf_counter() - start
            if number >= warmup:
                times[name].append(seconds)
    return times


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """The ratio of the medians, and the least and most of the ratios round by round."""
    rounds = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"of_medians": statistics.median(ours) / statistics.median(theirs), "min": min(rounds), "max": max(rounds)}


def percent(count: int, wrong: int) -> str:
    """The share that is not wrong, cut off and not rounded: 100 % are all."""
    return f"{math.floor(1e4 * (1 - wrong / max(count, 1))) / 100:.2f} %"


def environment() -> dict[str, Any]:
    """The machine and the versions that a result belongs to."""
    versions = {"python": platform.python_version(), "numpy": np.__version__, "minifcn": mf.__version__}
    others = [sys.modules[name] for name in ("torch", "torchvision") if name in sys.modules]
    versions |= {other.__name__: other.__version__ for other in others}
    blas = [f"{i['internal_api']} {i['version']}" for i in threadpool_info() if i["user_api"] == "blas"]
    return {
        "device": "cpu",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": mf.get_num_threads(),
        "blas": blas,
        "versions": versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    width = next((f for f in ("avx512f", "avx2", "avx") if f" {f} " in f"{flags} "), "")
    return f"{names[0] if names else platform.processor()} {width}".strip()


def write(path: Path, command: str, environment: dict[str, Any], rows: list[dict[str, Any]], **more: Any) -> Path:
    """As JSON: the command that made it, the environment, whatever else belongs to it, and the rows, a line each.

    Raises ValueError for what an emulated GPU gave: that is nobody's time.
    """
    if environment.get("emulated"):
        raise ValueError(f"{path.name}: measured on an emulated GPU; results of a real one are needed")
    head = json.dumps({"command": command, "environment": environment, **more}, indent=2)
    lines = ",\n    ".join(json.dumps(row) for row in rows)
    path.write_text(f'{head[:-2]},\n  "rows": [\n    {lines}\n  ]\n}}\n')
    return path

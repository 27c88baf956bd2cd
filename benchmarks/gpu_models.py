"""Inference and training steps of whole networks on a GPU, against PyTorch (cuDNN) there and against our own CPU.

As in models.py, with images and labels on the device beforehand. Peak memory is what each library's own allocator says
of a process that does nothing else.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from minifcn.models.summary import summarize

from . import gpu
from .measure import interleaved, spread
from .models import SIZE, Ours, Theirs, in_a_process, logits_error

WORK = (("inference", 1), ("training step", 1), ("training step", 4))  # what, on how many images
ON_CPU = 1  # images
CPU_ROUNDS = 3
CALLS = 3  # before peak memory is read
# Limits of the logits' relative errors. Where both libraries round the factors of all products to TF32, they are about
# 1e-3 apart; a library that cuts the digits off would be 4e-2 away (both worked out for these networks on a CPU).
WITHIN = {"highest": 1e-4, "high": 5e-2}


def rows(
    names: tuple[str, ...], rounds: int, against: tuple[str, ...], peak: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """One row for each network and work, printed as it is measured. What goes wrong in one is noted there as its
    "fault", and the others go on."""
    if "torch" in against:
        gpu.tune_torch()
    for name in names:
        on_cpu = Ours(name)
        macs = summarize(on_cpu.model, SIZE, memory=False).macs
        works = on_cpu.works(ON_CPU) if "cpu" in against else {}
        cpu = {what: spread(interleaved({what: work}, CPU_ROUNDS)[what]) for what, work in works.items()}
        del on_cpu, works
        networks: dict[str, Any] = {"minifcn": Ours(name, "cuda")}
        if "torch" in against:
            networks["torch"] = Theirs(name, gpu.TORCH)
        for what, images in WORK:
            row: dict[str, Any] = {"model": name, "what": what, "images": images, "size": SIZE}
            if what == "inference":
                row["gflop"] = 2 * macs * images / 1e9
            if images == ON_CPU and what in cpu:
                row["cpu"] = cpu[what]
            try:
                for precision in gpu.PRECISIONS:
                    row[precision] = _measured(row, networks, precision, rounds, peak)
            except Exception as error:
                row["fault"] = f"{type(error).__name__}: {error}"
            print(in_a_line(row), flush=True)
            yield row


def _measured(
    row: dict[str, Any], networks: dict[str, Any], precision: str, rounds: int, peak: dict[str, float]
) -> dict[str, Any]:
    """Error of the logits (before the training steps, which change the weights), times and memory."""
    name, what, images = row["model"], row["what"], row["images"]
    found: dict[str, Any] = {}
    if what == "inference" and "torch" in networks:
        with gpu.precision(precision):
            found["logits_relative_error"] = logits_error(*networks.values(), WITHIN[precision])
    calls = {library: network.works(images)[what] for library, network in networks.items()}
    found |= gpu.compared(calls, precision, rounds)
    for library in networks:
        found[library] |= _peaks(name, library, precision)[f"{what} {images}"]
    seconds = found["minifcn"]["median_s"]
    if "gflop" in row:
        found["of_direct_at_gemm_peak"] = seconds / (row["gflop"] / peak[gpu.GEMM[precision]])
    if "cpu" in row:
        found["speed_up"] = row["cpu"]["median_s"] / seconds
    return found


@functools.cache
def _peaks(name: str, library: str, precision: str) -> dict[str, dict[str, float]]:
    """{what and images: peak memory in GB} of a process."""
    code = f"from {__name__} import peaks; peaks({name!r}, {library!r}, {precision!r})"
    found: dict[str, dict[str, float]] = in_a_process(code)
    return found


def peaks(name: str, library: str, precision: str) -> None:
    """Print what of the GPU's memory each work needs, one after the other, the least first. The first call of each,
    with what cuDNN tries in it, is not counted."""
    network = Ours(name, "cuda") if library == "minifcn" else Theirs(name, gpu.TORCH)
    if library == "torch":
        gpu.tune_torch()
    found = {}
    with gpu.precision(precision):
        for what, images in WORK:
            work = network.works(images)[what]
            work()
            forget, read = MEMORY[library]
            forget()
            for _ in range(CALLS):
                work()
            found[f"{what} {images}"] = read()
    print(json.dumps(found))


def _forget_ours() -> None:
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()


def _read_ours() -> dict[str, float]:
    import cupy

    return {"peak_reserved_gb": cupy.get_default_memory_pool().total_bytes() / 1e9}


def _forget_theirs() -> None:
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def _read_theirs() -> dict[str, float]:
    import torch

    return {
        "peak_allocated_gb": torch.cuda.max_memory_allocated() / 1e9,
        "peak_reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
    }


MEMORY = {"minifcn": (_forget_ours, _read_ours), "torch": (_forget_theirs, _read_theirs)}


def in_a_line(row: dict[str, Any]) -> str:
    """What was measured, for those who wait."""
    cells = [f"{row['model']:16} {row['what']:13} {row['images']}"]
    for precision, said in gpu.PRECISIONS.items():
        times = row.get(precision)
        if times:
            ratio = f", {times['ratio']['of_medians']:.2f} of PyTorch's" if "ratio" in times else ""
            faster = f", our CPU's / {times['speed_up']:.0f}" if "speed_up" in times else ""
            cells.append(f"{said} {times['minifcn']['median_s'] * 1e3:.2f} ms{ratio}{faster}")
    return "  ".join([*cells, *([row["fault"]] if "fault" in row else [])])

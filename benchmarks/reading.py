"""How long minifcn takes to read a large .pth file, and how much memory, against plainly reading its bytes.

The arrays are views of the mapped file, so reading alone touches next to nothing of it; what counts is reading and
then adding up every value. Plain reading goes through the file in order, a few MiB at a time, and adds them up too.
Cold rounds begin with the file out of the system's cache, where the system lets it go (Linux).
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minifcn as mf

from .measure import interleaved, ratio, spread
from .models import in_a_process

TENSORS = 40  # that the file is divided into
PIECE = 4 << 20
KIB = 1 << 10
TRIES = 5  # of letting the file go: another processor may still hold pages of it


def rows(megabytes: int, rounds: int) -> list[dict[str, Any]]:
    """One row: the times, warm and cold, and the peak memory over the file's size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.pth"
        writer = _write(path, megabytes)
        size = path.stat().st_size
        contenders: dict[str, Callable[[], object]] = {
            "read": lambda: mf.weights.read(path),
            "read_and_sum": lambda: _sums(path),
            "plain": lambda: _plain(path, add=False),
            "plain_and_sum": lambda: _plain(path, add=True),
        }
        if importlib.util.find_spec("torch"):
            contenders["torch_and_sum"] = lambda: _torch_sums(path)
        if "torch_and_sum" in contenders and not np.isclose(_torch_sums(path), _sums(path), rtol=1e-4):
            raise RuntimeError("reading: PyTorch reads values of another sum; not timed")
        warm = interleaved(contenders, rounds)
        row: dict[str, Any] = {"megabytes": size / 1e6, "writer": writer}
        row |= {name: spread(seconds) for name, seconds in warm.items()}
        row["ratio"] = ratio(warm["read_and_sum"], warm["plain_and_sum"])
        cold = _cold(contenders, path, rounds)
        if cold:
            row |= {f"cold_{name}": spread(seconds) for name, seconds in cold.items()}
            row["cold_ratio"] = ratio(cold["read_and_sum"], cold["plain_and_sum"])
        for what in ("minifcn", "torch") if importlib.util.find_spec("torch") else ("minifcn",):
            found = in_a_process(f"from {__name__} import peak; peak({str(path)!r}, {what!r})")
            row[f"{what}_peak_over_file"] = found["grew"] / size
            row[f"{what}_anonymous_over_file"] = found["anonymous"] / size
    return [row]


def _write(path: Path, megabytes: int) -> str:
    """A state dict of random float32 tensors; returns who wrote it."""
    rng = np.random.default_rng(0)
    count = megabytes * 10**6 // 4 // TENSORS
    arrays = {f"layer{n}.weight": rng.random(count, np.float32) for n in range(TENSORS)}
    if importlib.util.find_spec("torch"):
        import torch

        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
        return "torch.save"
    from minifcn.weights.pth_writer import write_pth

    with path.open("wb") as stream:
        write_pth(stream, arrays)
    return "minifcn"


def _sums(path: Path) -> float:
    return sum(float(array.sum()) for array in mf.weights.read(path).values())


def _torch_sums(path: Path) -> float:
    return sum(float(tensor.sum()) for tensor in _torch(path).values())


def _torch(path: str | Path) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)  # NumPy adds up in one
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def _plain(path: Path, add: bool) -> float:
    """Read the file in order; with `add`, add it up as whole numbers: the bytes between the values are no floats."""
    total = 0.0
    buffer = bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if add:
                values = np.frombuffer(buffer, np.int32, count // 4)
                total += float(values.sum(dtype=np.int32))
    return total


def _cold(contenders: dict[str, Callable[[], object]], path: Path, rounds: int) -> dict[str, list[float]]:
    """As warm, each call with the file out of the system's cache; {} where it does not go."""
    if not hasattr(os, "posix_fadvise") or not _fetched():
        return {}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            for _ in range(TRIES):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                before, began = _fetched(), time.perf_counter()
                work()
                seconds = time.perf_counter() - began
                if name == "read" or _fetched() - before > 0.9 * path.stat().st_size:
                    break
            else:
                return {}  # it came from memory all the same
            times[name].append(seconds)
    return times


def _fetched() -> int:
    """Bytes that this process had fetched from the disk so far; 0 where the system does not tell."""
    return _entry("/proc/self/io", "read_bytes:")


def _entry(path: str, name: str) -> int:
    lines = Path(path).read_text().splitlines() if os.access(path, os.R_OK) else []
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def peak(path: str, what: str) -> None:
    """Read and add up everything, and print by how many bytes this process grew at most, and by how many beside what
    it maps of the file (Linux)."""
    sums = _sums if what == "minifcn" else _torch_sums
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "small.pth", 1)
        sums(Path(folder) / "small.pth")  # so that everything is imported
    before = {name: _entry("/proc/self/status", name) for name in ("VmRSS:", "RssAnon:")}
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    arrays = mf.weights.read(path) if what == "minifcn" else _torch(path)
    for array in arrays.values():
        array.sum()
    after = {name: _entry("/proc/self/status", name) for name in ("VmHWM:", "RssAnon:")}
    grew, anonymous = after["VmHWM:"] - before["VmRSS:"], after["RssAnon:"] - before["RssAnon:"]
    print(json.dumps({"grew": KIB * grew, "anonymous": KIB * anonymous}))

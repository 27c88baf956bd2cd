"""Training steps shared by several processes of this machine: how much faster, and how equal to one process's.

The processors are shared out in every way: one process with all threads, two with half of them each, and so on. Each
way trains in processes of its own, `rounds` times, and they take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minifcn as mf
from minifcn.data import Batch, part_of
from minifcn.nn import synchronize_batch_norm
from minifcn.threads import CORES
from minifcn.training.distributed import find_world
from minifcn.training.shares import shares, sum_gradients

from .measure import interleaved, ratio, spread

CASES = (("fcn8s_resnet18", 0.25), ("fcn8s_vgg16", 0.25))  # network and width
BATCH, SIDE, CLASSES, STEPS = 8, 128, 6, 3


def rows(rounds: int) -> list[dict[str, Any]]:
    """One per network and number of processes. Batch norm is that of all processes, so that results can be compared."""
    counts = [n for n in range(1, min(CORES, BATCH) + 1) if CORES % n == 0]
    found = []
    for model, width in CASES:
        runs = _runs({"one thread": (1, 1)} | {f"{n}": (n, CORES // n) for n in counts}, model, width, rounds)
        seconds = {key: [run["step"] for run in each] for key, each in runs.items()}
        for n in counts:
            row: dict[str, Any] = {"model": model, "width": width, "processes": n, "threads": CORES // n}
            row["step"] = spread(seconds[f"{n}"])
            row["speed_up"] = ratio(seconds["1"], seconds[f"{n}"])
            row["speed_up_over_one_thread"] = ratio(seconds["one thread"], seconds[f"{n}"])
            row["sum_gradients"] = spread([run["sum"] for run in runs[f"{n}"]])
            row |= {f"difference_{dtype}": difference(n, model, width, dtype) for dtype in ("float32", "float64")}
            print(
                f"{model} (width {width}), {n} × {CORES // n} threads: {row['step']['median_s']:.3f} s per step, speed-"
                f"up {row['speed_up']['of_medians']:.2f}, distance in float64 {row['difference_float64']:.1e}",
                flush=True,
            )
            found.append(row)
    return found


def _runs(ways: dict[str, tuple[int, int]], model: str, width: float, rounds: int) -> dict[str, list[dict[str, float]]]:
    """What each way reports in each round, after one to warm up."""
    runs: dict[str, list[dict[str, float]]] = {key: [] for key in ways}

    def run(key: str) -> None:
        runs[key].append(_train(*ways[key], model, width, "float32"))

    interleaved({key: partial(run, key) for key in ways}, rounds)
    return {key: each[1:] for key, each in runs.items()}


def difference(count: int, model: str, width: float, dtype: str) -> float:
    """How far the weights are from those of one process after STEPS steps, as a part of how far they went."""
    with tempfile.TemporaryDirectory() as folder:
        one, many = Path(folder) / "one.npy", Path(folder) / "many.npy"
        _train(1, CORES, model, width, dtype, one)
        _train(count, max(CORES // count, 1), model, width, dtype, many)
        a, b = np.load(one), np.load(many)
    return float(abs(a - b).max() / abs(a).max())


def _train(
    processes: int, threads: int, model: str, width: float, dtype: str, weights: Path | None = None
) -> dict[str, float]:
    """What rank 0 of these processes reports."""
    # mpi4py's runner: an error of one ends all
    words = [sys.executable, "-m", "mpi4py", "-m", "benchmarks.ranks"]
    words += [str(threads), model, str(width), dtype, str(weights or "")]
    if processes > 1:
        words = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(processes), *words]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _rank(threads: int, model: str, width: float, dtype: str, weights: str) -> dict[str, float] | None:
    """One process's work: the median seconds of a step, and of the sum of the gradients in it, on rank 0."""
    world = find_world()
    mf.set_num_threads(threads)
    module = mf.models.create(model, num_classes=CLASSES, width=width, seed=0).to(dtype)
    if world.size > 1:
        synchronize_batch_norm(module, world.gather)
    optimizer = mf.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, 3, SIDE, SIDE)).astype(dtype)
    labels = rng.integers(0, CLASSES, (BATCH, SIDE, SIDE))
    part = part_of(BATCH, (world.rank, world.size))
    batch = Batch(images[part], labels[part], ("",) * len(images[part]))
    mf.manual_seed(0)
    first = _flat(module)
    steps, sums = [], []
    begin = time.perf_counter()
    for share in shares(world, iter([batch] * STEPS), CLASSES):
        _, loss, _ = share.forward(module)
        loss.backward()
        world.gather(np.zeros(1))  # the others may need longer, which is not the sum's fault
        before = time.perf_counter()
        sum_gradients(world, module, share)
        sums.append(time.perf_counter() - before)
        optimizer.step()
        optimizer.zero_grad()
        steps.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    if world.rank != 0:
        return None
    if weights:
        np.save(weights, _flat(module) - first)
    return {"step": float(np.median(steps[1:])), "sum": float(np.median(sums[1:]))}


def _flat(module: mf.nn.Module) -> np.ndarray[Any, Any]:
    return np.concatenate([p.numpy().astype(np.float64).reshape(-1) for p in module.parameters()])


if __name__ == "__main__":
    report = _rank(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), *sys.argv[4:6])
    if report is not None:
        print(json.dumps(report))

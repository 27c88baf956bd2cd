"""Updates on a GPU, in place: optimizer steps, each in one pass, and running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn.array import Array
from minifcn.kernels.cuda.launch import THREADS, contiguous, launch, over_packs, size
from minifcn.kernels.registry import kernel
from minifcn.kernels.update import adam_sizes


def _in_place(name: str, changed: list[Array], g: Array, numbers: tuple[float, ...]) -> None:
    """A kernel (changed arrays…, g, size, numbers…); arrays that do not lie contiguously are changed through copies."""
    if not g.size:
        return
    arrays = [contiguous(a) for a in changed]
    of_dtype: tuple[Any, ...] = tuple(g.dtype.type(v) for v in numbers)
    launch("update", name, g, over_packs(g), (*arrays, contiguous(g), size(g.size), *of_dtype))
    for array, held in zip(arrays, changed, strict=True):
        if array is not held:
            held[...] = array


@kernel("sgd_step", backend="cupy", algorithm="cuda")
def sgd_step_cuda(
    p: Array, g: Array, v: Array | None = None, *, lr: float, momentum: float, weight_decay: float
) -> tuple[Array, ...]:
    """v ← momentum·v + (g + weight_decay·p), p ← p − lr·v, in place; (p, v), or without momentum (p,)."""
    if v is None:
        _in_place("sgd", [p], g, (lr, weight_decay))
        return (p,)
    _in_place("sgd_momentum", [p, v], g, (lr, weight_decay, momentum))
    return p, v


@kernel("adam_step", backend="cupy", algorithm="cuda")
def adam_step_cuda(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    step: int,
) -> tuple[Array, ...]:
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − lr·m̂/(√v̂ + eps), in place; (p, m, v)."""
    length, unbias = adam_sizes(lr, betas, step)
    _in_place("adam", [p, m, v], g, (length, weight_decay, *betas, *(1 - beta for beta in betas), unbias, eps))
    return p, m, v


@kernel("move_average", backend="cupy", algorithm="cuda")
def move_average_cuda(running: Array, now: Array, *, momentum: float, scale: float) -> Array:
    """running ← (1 − momentum)·running + momentum·(scale·now), in place, both (C,), `now` in float64."""
    held, count = contiguous(running), running.size
    numbers = (np.int32(count), np.float64(momentum), np.float64(scale))
    launch("update", "move_average", held, (-(-count // THREADS),), (held, contiguous(now, np.float64), *numbers))
    if held is not running:
        running[...] = held
    return running

"""Updates in place: optimizer steps, in chunks that stay in a cache, so that each number is read once and no memory is
needed; and running statistics."""

from __future__ import annotations

import math

import numpy as np

from minifcn.array import Array
from minifcn.kernels.registry import kernel
from minifcn.threads import parallel, runs

CHUNK = 1 << 16  # elements


def _chunks(*arrays: Array) -> list[tuple[Array, ...]]:
    """The same runs of elements of several arrays of one shape; all at once where flattening one would copy it."""
    if not all(a.flags.c_contiguous for a in arrays):
        return [arrays]
    flat = [a.reshape(-1) for a in arrays]
    return [tuple(a[run] for a in flat) for run in runs(flat[0].size, CHUNK)]


@kernel("sgd_step", backend="numpy", algorithm="chunks")
def sgd_step_chunks(
    p: Array, g: Array, v: Array | None = None, *, lr: float, momentum: float, weight_decay: float
) -> tuple[Array, ...]:
    """v ← momentum·v + (g + weight_decay·p), p ← p − lr·v, in place; (p, v), or without momentum (p,)."""
    g = np.ascontiguousarray(g)
    changed = (p,) if v is None else (p, v)

    def work(part: tuple[Array, ...]) -> None:
        p, g = part[0], part[-1]
        change = g + weight_decay * p if weight_decay else g
        if v is not None:
            past = part[1]
            past *= momentum
            past += change
            change = past
        p -= lr * change

    parallel(work, _chunks(*changed, g))
    return changed


def adam_sizes(lr: float, betas: tuple[float, float], step: int) -> tuple[float, float]:
    """(lr/(1−β₁ᵗ), √(1−β₂ᵗ)): with them lr·m̂/(√v̂ + eps) is size·m/(√v/unbias + eps)."""
    return lr / (1 - betas[0] ** step), math.sqrt(1 - betas[1] ** step)


@kernel("adam_step", backend="numpy", algorithm="chunks")
def adam_step_chunks(
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
    size, unbias = adam_sizes(lr, betas, step)
    beta1, beta2 = betas

    def work(part: tuple[Array, ...]) -> None:
        p, m, v, g = part
        if weight_decay:
            g = g + weight_decay * p
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        p -= size * m / (np.sqrt(v) / unbias + eps)

    parallel(work, _chunks(p, m, v, np.ascontiguousarray(g)))
    return p, m, v


@kernel("move_average", backend="numpy", algorithm="ufuncs")
def move_average_ufuncs(running: Array, now: Array, *, momentum: float, scale: float) -> Array:
    """running ← (1 − momentum)·running + momentum·(scale·now), in place, both (C,), `now` in float64."""
    running[...] = (1 - momentum) * running + momentum * (now * scale)
    return running

"""ReLU, sums and dropout: one value in, one value out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from minifcn.array import Array
from minifcn.kernels.philox import philox_words
from minifcn.kernels.registry import kernel
from minifcn.kernels.select import select
from minifcn.memory import empty, scratch
from minifcn.threads import parallel, runs

CHUNK = 1 << 18  # elements: fewer are done so fast that passing the interpreter's lock to and fro costs more
ALONE = 1 << 20  # elements that one thread has done before a second one has woken up and reported back


def _flat(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1)


def _each(work: Callable[[slice], object], size: int) -> None:
    """work(chunk) for all elements; a few go without the pool, which costs more than a small tensor."""
    if size <= ALONE:
        for part in runs(size, CHUNK):
            work(part)
    else:
        parallel(work, runs(size, CHUNK))


@cache
def _zeros(dtype: np.dtype[Any]) -> Array:
    """CHUNK of them: with a number in its place np.maximum does not use vectors."""
    return np.zeros(CHUNK, dtype)


@kernel("add", backend="numpy", algorithm="chunks")
def add_chunks(x: Array, y: Array) -> Array:
    """z = x + y, of one shape and dtype."""
    flat_x, flat_y, z = _flat(x), _flat(y), empty(x.shape, x.dtype)
    flat = z.reshape(-1)
    _each(lambda part: np.add(flat_x[part], flat_y[part], out=flat[part]), x.size)
    return z


@kernel("relu", backend="numpy", algorithm="chunks")
def relu_chunks(x: Array) -> Array:
    """y = max(x, 0); NaN stays NaN."""
    flat, y = _flat(x), empty((x.size,), x.dtype)
    zeros = _zeros(x.dtype)
    _each(lambda part: np.maximum(flat[part], zeros[: part.stop - part.start], out=y[part]), x.size)
    return y.reshape(x.shape)


@kernel("relu_grad", backend="numpy", algorithm="chunks")
def relu_grad_chunks(gy: Array, y: Array) -> Array:
    """gx = gy, but 0 where y ≤ 0; a NaN that came through the ReLU lets its gradient through."""
    flat_gy, flat_y, gx = _flat(gy), _flat(y), empty((gy.size,), gy.dtype)

    def work(part: slice) -> None:
        stopped = np.less_equal(flat_y[part], 0, out=scratch("stopped", (part.stop - part.start,), np.dtype(bool)))
        select(np.logical_not(stopped, out=stopped), flat_gy[part], gx[part])

    _each(work, gy.size)
    return gx.reshape(gy.shape)


@kernel("dropout", backend="numpy", algorithm="philox")
def dropout_philox(x: Array, *, p: float, seed: int, offset: int, period: int) -> Array:
    """y = x/(1−p) where the random word of element // period is at least p·2³², else 0: linear, its own adjoint."""
    threshold = min(round(p * 2**32), 2**32)
    words = philox_words(seed, offset, -(-x.size // period))
    scaled = _flat(x) * x.dtype.type(1 / (1 - p) if p < 1 else 1)
    keep = np.repeat(words >= threshold, period)[: x.size]
    return select(keep, scaled, scaled).reshape(x.shape)

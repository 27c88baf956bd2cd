"""ReLU and dropout: one value in, one value out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minifcn.array import Array
from minifcn.kernels.philox import philox_words
from minifcn.kernels.registry import kernel
from minifcn.kernels.select import select
from minifcn.memory import empty, scratch
from minifcn.threads import parallel, runs

CHUNK = 1 << 18  # elements: fewer are done so fast that passing the interpreter's lock to and fro costs more


def _flat(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1)


def _each(work: Callable[[slice], object], size: int) -> None:
    """work(chunk) for all elements; a single chunk goes without the pool, which costs more than a small tensor."""
    if size <= CHUNK:
        work(slice(0, size))
    else:
        parallel(work, runs(size, CHUNK))


@kernel("relu", backend="numpy", algorithm="chunks")
def relu_chunks(x: Array) -> Array:
    """y = max(x, 0); NaN stays NaN."""
    flat, y = _flat(x), empty((x.size,), x.dtype)
    zeros = np.zeros(min(x.size, CHUNK), x.dtype)  # with a number in its place NumPy does not use vectors
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

"""ReLU, sums and dropout on a GPU: one value in, one value out."""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.kernels.cuda.launch import Finish, contiguous, launch, new, over, over_packs, over_planes_of_packs, size
from minifcn.kernels.registry import kernel


def _each(name: str, *inputs: Array) -> Array:
    """A result of the inputs' shape from a kernel (inputs…, result, size)."""
    arrays = [contiguous(a) for a in inputs]
    result = new(arrays[0], arrays[0].shape)
    if result.size:
        launch("pointwise", name, result, over_packs(result), (*arrays, result, size(result.size)))
    return result


@kernel("add", backend="cupy", algorithm="cuda")
def add_cuda(x: Array, y: Array) -> Array:
    """z = x + y, of one shape and dtype."""
    return _each("add", x, y)


@kernel("relu", backend="cupy", algorithm="cuda")
def relu_cuda(x: Array) -> Array:
    """y = max(x, 0); NaN stays NaN."""
    return _each("relu", x)


@kernel("relu_grad", backend="cupy", algorithm="cuda")
def relu_grad_cuda(gy: Array, y: Array) -> Array:
    """gx = gy, but 0 where y ≤ 0; a NaN that came through the ReLU lets its gradient through."""
    return _each("relu_grad", gy, y)


def add_parts(parts: Array) -> Array:
    """Σ over the first axis, in order; of parts (1, …) that one itself."""
    if len(parts) == 1:
        return parts.reshape(parts.shape[1:])
    total = new(parts, parts.shape[1:])
    launch("pointwise", "add_parts", parts, over(total.size), (parts, total, size(total.size), np.int32(len(parts))))
    return total


def finish(
    y: Array, b: Array | None = None, scale: Array | None = None, add: Array | None = None, relu: bool = False
) -> None:
    """What follows a convolution, in place, to scores y (N,O,P,Q): y ← max(y·scale + b + add, 0), b and scale (O,)."""
    if b is None and scale is None and add is None and not relu:
        return
    n, o, p, q = y.shape
    after, sizes = Finish.of(y, b, scale, add, relu), (size(n, o), np.int32(o), np.int32(p * q))
    launch("pointwise", "epilogue", y, over_planes_of_packs(y), (y, after.struct, *sizes))


@kernel("dropout", backend="cupy", algorithm="philox")
def dropout_philox(x: Array, *, p: float, seed: int, offset: int, period: int) -> Array:
    """y = x/(1−p) where the word of element // period is at least p·2³², else 0: the same words as on the CPU."""
    x = contiguous(x)
    y = new(x, x.shape)
    if x.size == 0:
        return y
    stream = (np.uint64(seed & 0xFFFFFFFFFFFFFFFF), np.uint64(offset))
    threshold = np.uint64(min(round(p * 2**32), 2**32))
    factor = x.dtype.type(1 / (1 - p) if p < 1 else 1)
    if period == 1:
        launch("pointwise", "dropout", x, over(-(-x.size // 4)), (x, y, size(x.size), *stream, threshold, factor))
    else:
        runs = (size(x.size), *stream, np.int64(period), threshold, factor)
        launch("pointwise", "dropout_runs", x, over(x.size), (x, y, *runs))
    return y

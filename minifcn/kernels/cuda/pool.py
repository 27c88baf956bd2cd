"""Pooling on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn.array import Array, module_of
from minifcn.geometry import AdaptiveGeometry, PoolGeometry
from minifcn.kernels.cuda.launch import contiguous, launch, new, over_planes, size, windows
from minifcn.kernels.registry import kernel


def _planes(name: str, result: Array, args: tuple[Any, ...], *sizes: Any) -> Array:
    """The result of a kernel (args…, number of planes, sizes…) with a thread for each place of the result."""
    planes, places = result.shape[0] * result.shape[1], result.shape[2] * result.shape[3]
    if result.size:
        launch("pool", name, result, over_planes(planes, places), (*args, size(planes), *sizes))
    return result


@kernel("max_pool2d", backend="cupy", algorithm="cuda")
def max_pool2d_cuda(x: Array, *, geom: PoolGeometry) -> tuple[Array, Array]:
    """(y, tap), both (N,C,P,Q): the largest value of each window, and the number i·J + j of the tap that holds it."""
    y, tap = new(x, geom.y_shape), new(x, geom.y_shape, np.int32)
    return _planes("max_pool2d", y, (contiguous(x), y, tap), windows(geom)), tap


@kernel("pool_take", backend="cupy", algorithm="cuda")
def pool_take_cuda(x: Array, *, tap: Array, geom: PoolGeometry) -> Array:
    """y (N,C,P,Q): x (N,C,H,W) at the taps that were chosen."""
    y = new(x, geom.y_shape)
    return _planes("pool_take", y, (contiguous(x), contiguous(tap, np.int32), y), windows(geom))


@kernel("pool_put", backend="cupy", algorithm="cuda")
def pool_put_cuda(y: Array, *, tap: Array, geom: PoolGeometry) -> Array:
    """x (N,C,H,W): y (N,C,P,Q) added at the taps that were chosen."""
    x = new(y, geom.x_shape)
    return _planes("pool_put", x, (contiguous(y), contiguous(tap, np.int32), x), windows(geom))


@kernel("avg_pool2d", backend="cupy", algorithm="cuda")
def avg_pool2d_cuda(x: Array, *, scale: Array, geom: PoolGeometry) -> Array:
    """y[n,c,p,q] = scale[p,q] · Σ over the window."""
    y = new(x, geom.y_shape)
    return _planes("avg_pool2d", y, (contiguous(x), contiguous(scale), y), windows(geom))


@kernel("avg_pool2d_adjoint", backend="cupy", algorithm="cuda")
def avg_pool2d_adjoint_cuda(y: Array, *, scale: Array, geom: PoolGeometry) -> Array:
    """x[n,c,h,v] = Σ over the windows that hold (h, v) of scale[p,q]·y[n,c,p,q]."""
    x = new(y, geom.x_shape)
    return _planes("avg_pool2d_adjoint", x, (contiguous(y), contiguous(scale), x), windows(geom))


def _sizes(geom: AdaptiveGeometry) -> tuple[np.int32, ...]:
    return tuple(np.int32(n) for n in (*geom.x_shape[2:], *geom.y_hw))


@kernel("adaptive_avg_pool2d", backend="cupy", algorithm="cuda")
def adaptive_avg_pool2d_cuda(x: Array, *, geom: AdaptiveGeometry) -> Array:
    """y[n,c,p,q] = the mean of rows ⌊p·H/P⌋ … ⌈(p+1)·H/P⌉ and likewise columns."""
    y = new(x, geom.y_shape)
    return _planes("adaptive_avg_pool2d", y, (contiguous(x), y), *_sizes(geom))


@kernel("adaptive_avg_pool2d_adjoint", backend="cupy", algorithm="cuda")
def adaptive_avg_pool2d_adjoint_cuda(y: Array, *, geom: AdaptiveGeometry) -> Array:
    """The adjoint: x[n,c,h,v] = Σ of the scores that (h, v) is in, each over its window's size."""
    if 0 in geom.y_hw:
        zeros: Array = module_of(y).zeros(geom.x_shape, y.dtype)
        return zeros
    x = new(y, geom.x_shape)
    return _planes("adaptive_avg_pool2d_adjoint", x, (contiguous(y), x), *_sizes(geom))

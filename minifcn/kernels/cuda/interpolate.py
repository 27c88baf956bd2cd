"""Interpolation on a GPU: which input each output reads, with which factors, is worked out here, in fractions."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from minifcn.array import Array, module_of
from minifcn.geometry import ResizeGeometry
from minifcn.kernels.cuda.launch import contiguous, launch, new, over_planes, pointer, size
from minifcn.kernels.registry import kernel

# struct Axis of interpolate.cu: four pointers and two sizes
AXIS = np.dtype([(name, np.uintp) for name in ("low", "a", "b", "first")] + [(n, np.int32) for n in ("in", "out")])


@functools.lru_cache(maxsize=64)
def _tables(geom: ResizeGeometry, axis: int) -> tuple[Array, Array, Array]:
    """(low, (a, b), first) of an axis, as struct Axis describes them, on the CPU."""
    count = geom.y_hw[axis]
    low, factors = np.zeros(count, np.int32), np.zeros((2, count))
    for p in range(count):
        (low[p], factors[0, p]), *rest = geom.taps(axis, p)
        factors[1, p] = rest[0][1] if rest else 0
    # `low` never falls, so the outputs that read an input or the one before it are neighbours
    first = np.searchsorted(low, np.arange(geom.x_hw[axis]) - 1).astype(np.int32)
    return low, factors, first


@functools.lru_cache(maxsize=64)
def _on_device(cupy: Any, device: int, geom: ResizeGeometry, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """struct Axis of the rows and of the columns, and the arrays that they point to, which must stay alive."""
    structs, kept = [], []
    for axis in range(2):
        low, factors, first = (cupy.asarray(table) for table in _tables(geom, axis))
        a, b = factors.astype(dtype)
        kept += [low, a, b, first]
        sizes = (geom.x_hw[axis], geom.y_hw[axis])
        structs.append(np.array([(*map(pointer, (low, a, b, first)), *sizes)], AXIS))
    return *structs, kept


def _axes(like: Array, geom: ResizeGeometry) -> tuple[Any, Any]:
    rows, columns, _ = _on_device(module_of(like), like.device.id, geom, like.dtype)  # type: ignore[attr-defined]
    return rows, columns


@kernel("interpolate", backend="cupy", algorithm="cuda")
def interpolate_cuda(x: Array, *, geom: ResizeGeometry) -> Array:
    """y (N,C,P,Q) from x (N,C,H,W)."""
    n, c = x.shape[:2]
    y = new(x, (n, c, *geom.y_hw))
    if y.size:
        grid = over_planes(n * c, geom.y_hw[0] * geom.y_hw[1])
        launch("interpolate", "interpolate", x, grid, (contiguous(x), y, size(n, c), *_axes(x, geom)))
    return y


@kernel("interpolate_adjoint", backend="cupy", algorithm="cuda")
def interpolate_adjoint_cuda(y: Array, *, geom: ResizeGeometry) -> Array:
    """x (N,C,H,W) from y (N,C,P,Q)."""
    n, c = y.shape[:2]
    x = new(y, (n, c, *geom.x_hw))
    if x.size:
        grid = over_planes(n * c, geom.x_hw[0] * geom.x_hw[1])
        launch("interpolate", "interpolate_adjoint", y, grid, (contiguous(y), x, size(n, c), *_axes(y, geom)))
    return x

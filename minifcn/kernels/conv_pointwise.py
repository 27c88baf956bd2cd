"""1×1 convolution: the image is its own columns, so each kernel is one matrix product, without copies at stride 1.

    conv2d            y (O, H·W) = w (O, C) @ x (C, H·W)
    conv_transpose2d  x (C, H·W) = wᵀ (C, O) @ y (O, H·W)
    conv2d_weight     w (O, C)   = y (O, H·W) @ xᵀ (H·W, C), summed over images

Transposes are views, which BLAS reads as they are. The longer side of each product is cut into a few parts, for the
worker threads. With a stride, the pixels that take part are copied out first.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from minifcn.array import Array
from minifcn.geometry import ConvGeometry
from minifcn.kernels.epilogue import Epilogue
from minifcn.kernels.registry import kernel
from minifcn.kernels.windows import tap
from minifcn.memory import empty, scratch
from minifcn.threads import CORES, parallel, runs

PARTS = min(max(CORES, 2), 8)  # of a product: each repeats the packing of the side that is not cut
SHORT = 1 << 21  # multiplications that one thread does before a second one has woken up


def _supports(geom: ConvGeometry, **_: Any) -> bool:
    return geom.w_hw == (1, 1) and geom.padding == (0, 0)


def _supports_transposed(geom: ConvGeometry) -> bool:
    return _supports(geom) and geom.x_hw == geom.y_hw


def _auto(dtype: np.dtype[Any], geom: ConvGeometry, **_: Any) -> bool:
    """With a stride there must be filters enough to pay for the copy."""
    return geom.x_hw == geom.y_hw or geom.o // geom.groups >= 1024


LIMITS = "a 1×1 filter and no padding"
BEST = "stride 1, or 1024 filters or more"


def _parts(rows: int, columns: int) -> list[tuple[slice, slice]]:
    """The longer side of a product in PARTS parts: (rows, columns)."""
    if rows >= columns:
        return [(part, slice(0, columns)) for part in runs(rows, -(-rows // PARTS))]
    return [(slice(0, rows), part) for part in runs(columns, -(-columns // PARTS))]


def _met(x: Array, geom: ConvGeometry) -> Array:
    """The view (N, C, P, Q) of the pixels of x (N, C, H, W) that take part."""
    return x[(..., *tap(0, 0, geom.y_hw, geom.stride, geom.dilation))]


def _grouped(a: Array, groups: int) -> Array:
    """(N, C, H, W) as (N, groups, C/groups, H·W)."""
    return np.ascontiguousarray(a).reshape(a.shape[0], groups, a.shape[1] // groups, -1)


def _matrix(w: Array, geom: ConvGeometry) -> Array:
    """(groups, O/groups, C/groups)"""
    return np.ascontiguousarray(w).reshape(geom.groups, geom.o // geom.groups, geom.c // geom.groups)


def _multiply(matrix: Array, images: Array, end: Epilogue, out: Array, geom: ConvGeometry) -> Array:
    """out (N, R, H, W) = matrix (groups, R/groups, K/groups) @ images (N, K, H, W), and the epilogue of R channels."""
    if out.size == 0 or matrix.size == 0:
        return end.of_nothing(out)
    columns, results = _grouped(images, geom.groups), _grouped(out, geom.groups)
    per_group = matrix.shape[1]
    addends = None if end.add is None else _grouped(end.add, geom.groups)

    def work(task: tuple[int, int, tuple[slice, slice]]) -> None:
        n, g, (rows, pixels) = task
        part = results[n, g, rows, pixels]
        np.matmul(matrix[g, rows], columns[n, g, :, pixels], out=part)
        channels = slice(g * per_group + rows.start, g * per_group + rows.stop)
        end.apply(part, channels, None if addends is None else addends[n, g, rows, pixels])

    tasks = list(product(range(geom.n), range(geom.groups), _parts(*results.shape[2:])))
    parallel(work, tasks, alone=geom.macs < SHORT)
    return out


@kernel("conv2d", backend="numpy", algorithm="pointwise", supports=_supports, limits=LIMITS, auto=_auto, best=BEST)
def conv2d_pointwise(
    x: Array,
    w: Array,
    b: Array | None = None,
    scale: Array | None = None,
    add: Array | None = None,
    *,
    geom: ConvGeometry,
    relu: bool = False,
) -> Array:
    """y (N,O,H,W) = w @ x (N,C,H,W), and the epilogue."""
    w, end = Epilogue(b, scale, add, relu).into(w, math.prod(geom.y_shape))
    return _multiply(_matrix(w, geom), _met(x, geom), end, empty(geom.y_shape, x.dtype), geom)


@kernel(
    "conv_transpose2d",
    backend="numpy",
    algorithm="pointwise",
    supports=_supports_transposed,
    limits=f"{LIMITS}, and as many pixels as scores",
    auto=_auto,
    best=BEST,
)
def conv_transpose2d_pointwise(y: Array, w: Array, b: Array | None = None, *, geom: ConvGeometry) -> Array:
    """x (N,C,H,W) = wᵀ @ y (N,O,H,W) + b (C,)."""
    return _multiply(_matrix(w, geom).transpose(0, 2, 1), y, Epilogue(b), empty(geom.x_shape, y.dtype), geom)


@kernel(
    "conv2d_weight",
    backend="numpy",
    algorithm="pointwise",
    supports=_supports,
    limits=LIMITS,
    auto=lambda dtype, geom: True,
)
def conv2d_weight_pointwise(x: Array, y: Array, *, geom: ConvGeometry) -> Array:
    """w (O,C/groups,1,1) = y @ xᵀ, summed over images."""
    w = empty(geom.w_shape, x.dtype)
    if y.size == 0 or w.size == 0:
        w[...] = 0
        return w
    images, scores = _grouped(_met(x, geom), geom.groups), _grouped(y, geom.groups)
    matrix = w.reshape(geom.groups, -1, geom.c // geom.groups)

    def work(task: tuple[int, tuple[slice, slice]]) -> None:
        g, (rows, columns) = task
        part = matrix[g, rows, columns]
        np.matmul(scores[0, g, rows], images[0, g, columns].T, out=part)
        for n in range(1, geom.n):
            part += np.matmul(
                scores[n, g, rows], images[n, g, columns].T, out=scratch("product", part.shape, part.dtype)
            )

    parallel(work, list(product(range(geom.groups), _parts(*matrix.shape[1:]))), geom.macs < SHORT)
    return w

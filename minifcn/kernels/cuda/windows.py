"""The windows of an image as columns on a GPU, and back: im2col and its adjoint, whole or some score rows at a time."""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.geometry import ConvGeometry, PoolGeometry
from minifcn.kernels.cuda.launch import contiguous, launch, new, over_planes, size, windows
from minifcn.kernels.registry import kernel

Rows = tuple[int, int]  # (first score row, how many)


def unfold_into(cols: Array, x: Array, geom: ConvGeometry | PoolGeometry, rows: Rows) -> None:
    """cols (N,C·I·J,rows·Q) from contiguous x (N,C,H,W)."""
    planes = x.shape[0] * x.shape[1]
    grid = over_planes(planes, rows[1] * geom.y_hw[1])
    launch("windows", "unfold", x, grid, (x, cols, size(planes), windows(geom), *(np.int32(k) for k in rows)))


def fold_into(
    x: Array, cols: Array, b: Array | None, geom: ConvGeometry | PoolGeometry, rows: Rows, more: bool
) -> None:
    """x (N,C,H,W) from cols (N,C·I·J,rows·Q), plus b (C,); `more` adds to what x holds."""
    planes = x.shape[0] * x.shape[1]
    grid = over_planes(planes, geom.x_hw[0] * geom.x_hw[1])
    numbers = (size(planes), windows(geom), *(np.int32(k) for k in rows), np.int32(more))
    launch("windows", "fold", x, grid, (cols, x, b, *numbers))


@kernel("unfold", backend="cupy", algorithm="cuda")
def unfold_cuda(x: Array, *, geom: PoolGeometry) -> Array:
    """cols (N,C·I·J,P·Q) from x (N,C,H,W)."""
    cols = new(x, geom.columns_shape)
    if cols.size:
        unfold_into(cols, contiguous(x), geom, (0, geom.y_hw[0]))
    return cols


@kernel("fold", backend="cupy", algorithm="cuda")
def fold_cuda(cols: Array, *, geom: PoolGeometry) -> Array:
    """x (N,C,H,W) from cols (N,C·I·J,P·Q): every window added back to where it came from."""
    x = new(cols, geom.x_shape)
    if x.size:
        fold_into(x, contiguous(cols), None, geom, (0, geom.y_hw[0]), more=False)
    return x

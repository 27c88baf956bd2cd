"""unfold and fold of whole images: the columns of im2col as an operation of its own, and its adjoint."""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.geometry import PoolGeometry
from minifcn.kernels.registry import kernel
from minifcn.kernels.windows import fold, windows
from minifcn.memory import empty
from minifcn.threads import parallel


def _padded(geom: PoolGeometry, dtype: np.dtype[np.floating]) -> tuple[Array, Array]:
    """(zeros (C, H + 2·padding, W + 2·padding), the view of the image within)."""
    (top, left), (height, width) = geom.padding, geom.x_hw
    padded = np.zeros((geom.c, height + 2 * top, width + 2 * left), dtype)
    return padded, padded[:, top : top + height, left : left + width]


@kernel("unfold", backend="numpy", algorithm="windows")
def unfold_windows(x: Array, *, geom: PoolGeometry) -> Array:
    """cols (N,C·I·J,P·Q) from x (N,C,H,W)."""
    cols = empty((geom.n, geom.c, *geom.w_hw, *geom.y_hw), x.dtype)

    def work(n: int) -> None:
        padded, inside = _padded(geom, x.dtype)
        inside[...] = x[n]
        cols[n] = windows(padded, geom.w_hw, geom.y_hw, geom.stride, geom.dilation)

    parallel(work, range(geom.n))
    return cols.reshape(geom.columns_shape)


@kernel("fold", backend="numpy", algorithm="taps")
def fold_taps(cols: Array, *, geom: PoolGeometry) -> Array:
    """x (N,C,H,W) from cols (N,C·I·J,P·Q): every window added back to where it came from."""
    x = empty(geom.x_shape, cols.dtype)
    parts = cols.reshape(geom.n, geom.c, *geom.w_hw, *geom.y_hw)

    def work(n: int) -> None:
        padded, inside = _padded(geom, cols.dtype)
        fold(parts[n], padded, geom.stride, geom.dilation)
        x[n] = inside

    parallel(work, range(geom.n))
    return x

"""windows() and fold(): the im2col view and its adjoint.

windows(x)[c,i,j,p,q] = x[c, p·s + i·d, q·s + j·d] only names elements, so it is a view with more strides than memory.
sliding() is the same along one axis.
fold() adds each window back to where it came from: ⟨windows(x), t⟩ = ⟨x, fold(t)⟩.
"""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.geometry import ConvGeometry, Pair


def windows(x: Array, w_hw: Pair, y_hw: Pair, stride: Pair, dilation: Pair) -> Array:
    """A read-only view (…, I, J, P, Q) of x (…, H, W), where H ≥ (P−1)·s + d·(I−1) + 1 and likewise W."""
    *outer, sh, sw = x.strides
    strides = (*outer, dilation[0] * sh, dilation[1] * sw, stride[0] * sh, stride[1] * sw)
    return np.lib.stride_tricks.as_strided(x, (*x.shape[:-2], *w_hw, *y_hw), strides, writeable=False)


def sliding(x: Array, axis: int, size: int, count: int, step: int) -> Array:
    """A read-only view (…, count, size, …) of x (…, H, …): windows of `size` along one axis, `step` apart."""
    shape = (*x.shape[:axis], count, size, *x.shape[axis + 1 :])
    strides = (*x.strides[:axis], step * x.strides[axis], *x.strides[axis:])
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


def fold(t: Array, x: Array, stride: Pair, dilation: Pair) -> None:
    """Add t (…, I, J, P, Q) into x (…, H, W): the adjoint of windows(). One pass per filter tap (i, j)."""
    *_, height, width, p, q = t.shape
    for i in range(height):
        for j in range(width):
            x[(..., *tap(i, j, (p, q), stride, dilation))] += t[..., i, j, :, :]


def tap(i: int, j: int, y_hw: Pair, stride: Pair, dilation: Pair) -> tuple[slice, slice]:
    """The rows and columns of a padded image that filter tap (i, j) meets, one for each score."""
    top, left = i * dilation[0], j * dilation[1]
    return (
        slice(top, top + (y_hw[0] - 1) * stride[0] + 1, stride[0]),
        slice(left, left + (y_hw[1] - 1) * stride[1] + 1, stride[1]),
    )


def band(x: Array, rows: Pair, columns: Pair, out: Array, copy: bool = False) -> Array:
    """Rows and columns of one image x (C, H, W), zeros where they lie beyond it: x's own view where none does, else, or
    if a copy is asked for, written into `out`."""
    (top, bottom), (left, right) = rows, columns
    height, width = x.shape[1:]
    if not copy and top >= 0 and bottom <= height and left >= 0 and right <= width:
        return x[:, top:bottom, left:right]
    out = out[: x.shape[0], : bottom - top, : right - left]
    row0, row1, column0, column1 = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
    out[:, : row0 - top] = 0
    out[:, max(row1 - top, 0) :] = 0
    if row0 < row1:
        out[:, row0 - top : row1 - top, : column0 - left] = 0
        out[:, row0 - top : row1 - top, max(column1 - left, 0) :] = 0
        if column0 < column1:
            out[:, row0 - top : row1 - top, column0 - left : column1 - left] = x[:, row0:row1, column0:column1]
    return out


def reach(geom: ConvGeometry, axis: int, scores: Pair) -> Pair:
    """The image rows (or columns) from which scores p0 ≤ p < p1 are computed; padding counts below 0 and beyond H."""
    start = scores[0] * geom.stride[axis] - geom.padding[axis]
    span = (scores[1] - scores[0] - 1) * geom.stride[axis] + geom.dilation[axis] * (geom.w_hw[axis] - 1) + 1
    return start, start + span


def rectangles(hw: Pair, limit: int) -> list[tuple[Pair, Pair]]:
    """Cut a grid into (rows, columns) of at most `limit` cells each: whole rows, as they are contiguous, or equal parts
    of one."""
    p, q = hw
    height = max(limit // q, 1)
    width = -(-q // -(-q // max(limit, 1)))
    return [
        ((p0, min(p0 + height, p)), (q0, min(q0 + width, q))) for p0 in range(0, p, height) for q0 in range(0, q, width)
    ]

"""Interpolation as two small matrices: y = A·x·Bᵀ, where a row of A holds the factors of one output row.

So its adjoint, the gradient, is x = Aᵀ·y·B: the same matrices turned round.
"""

from __future__ import annotations

import functools

import numpy as np

from minifcn.array import Array
from minifcn.geometry import ResizeGeometry
from minifcn.kernels.registry import kernel


@functools.lru_cache(maxsize=64)
def _matrix(geom: ResizeGeometry, axis: int, dtype: str) -> Array:
    """(outputs, inputs) along one axis."""
    matrix = np.zeros((geom.y_hw[axis], geom.x_hw[axis]), dtype)
    for p in range(geom.y_hw[axis]):
        for h, factor in geom.taps(axis, p):
            matrix[p, h] += float(factor)
    return matrix


@kernel("interpolate", backend="numpy", algorithm="matrix")
def interpolate_matrix(x: Array, *, geom: ResizeGeometry) -> Array:
    """y (N,C,P,Q) = A (P,H) @ x (N,C,H,W) @ Bᵀ (W,Q)."""
    rows, columns = (_matrix(geom, axis, x.dtype.str) for axis in range(2))
    return np.asarray(rows @ (x @ columns.T))


@kernel("interpolate_adjoint", backend="numpy", algorithm="matrix")
def interpolate_adjoint_matrix(y: Array, *, geom: ResizeGeometry) -> Array:
    """x (N,C,H,W) = Aᵀ (H,P) @ y (N,C,P,Q) @ B (Q,W)."""
    rows, columns = (_matrix(geom, axis, y.dtype.str) for axis in range(2))
    return np.asarray(rows.T @ (y @ columns))

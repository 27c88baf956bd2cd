"""Sums over rows, as dot products: BLAS adds up faster than NumPy does, and close to float64's accuracy if it is given
short pieces, whose sums are then added in float64.
"""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.kernels.registry import kernel
from minifcn.threads import parallel, runs

PIECE = 4096  # BLAS keeps some dozens of partial sums, so that each adds about a hundred of these numbers
CHUNK_BYTES = 1 << 19


@np.errstate(over="ignore", invalid="ignore")  # ∞ and NaN are results
def dots(a: Array, b: Array) -> Array:
    """Σ_m a[…,m]·b[…,m] in float64, the products and short sums in the arrays' own dtype unless they overflow there. b
    may be one row for all."""
    whole = a.shape[-1] // PIECE * PIECE
    total: Array = np.vecdot(a[..., whole:], b[..., whole:]).astype(np.float64)
    if whole:
        pieces = [v[..., :whole].reshape(*v.shape[:-1], -1, PIECE) for v in (a, b)]
        total += np.vecdot(*pieces).sum(axis=-1, dtype=np.float64)
    if a.dtype != np.float64 and not np.isfinite(total).all():
        return dots(a.astype(np.float64), b.astype(np.float64))
    return total


def row_sums(a: Array) -> Array:
    """Σ_m a[…,m] in float64."""
    return dots(a, np.ones(a.shape[-1], a.dtype))


@kernel("channel_sum", backend="numpy", algorithm="dots")
def channel_sum_dots(x: Array) -> Array:
    """s (C,) = Σ x (N,C,H,W) over images and pixels."""
    s = np.zeros(x.shape[1], x.dtype)
    if x.size == 0:
        return s
    flat = np.ascontiguousarray(x).reshape(*x.shape[:2], -1)

    def work(part: slice) -> None:
        s[part] = row_sums(flat[:, part]).sum(axis=0)

    parallel(work, runs(len(s), CHUNK_BYTES * len(s) // x.nbytes), alone=x.nbytes < CHUNK_BYTES)
    return s

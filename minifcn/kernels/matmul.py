"""Products of matrices: BLAS's."""

from __future__ import annotations

from minifcn.array import Array
from minifcn.kernels.registry import kernel


@kernel("matmul", backend="numpy", algorithm="blas")
def matmul_blas(x: Array, y: Array) -> Array:
    """z (…,M,N) = x (…,M,K) @ y (…,K,N), batch axes equal."""
    z: Array = x @ y
    return z

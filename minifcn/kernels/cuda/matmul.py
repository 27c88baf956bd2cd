"""Products of matrices by cuBLAS, in the precision that is set, transposed ones without a copy."""

from __future__ import annotations

from minifcn.array import Array, module_of
from minifcn.kernels.cuda.blas import Matrix, multiply
from minifcn.kernels.cuda.launch import contiguous, new
from minifcn.kernels.registry import kernel


@kernel("matmul", backend="cupy", algorithm="cublas")
def matmul_cublas(x: Array, y: Array) -> Array:
    """z (…,M,N) = x (…,M,K) @ y (…,K,N), batch axes equal."""
    z = new(x, (*x.shape[:-1], y.shape[-1]))
    if not x.size or not y.size:
        zeros: Array = module_of(x).zeros(z.shape, z.dtype)
        return zeros
    (a, batch), (b, _) = _matrices(x), _matrices(y)
    multiply(a, b, Matrix(z, 0, z.shape[-1], z.shape[-2] * z.shape[-1]), (*z.shape[-2:], x.shape[-1]), batch)
    return z


def _matrices(x: Array) -> tuple[Matrix, int]:
    """x (…,R,K) as cuBLAS reads it, and how many matrices there are. Rows or columns must lie side by side."""
    rows, columns = x.shape[-2:]
    x = x.reshape(-1, rows, columns)  # a copy where batch axes cannot be one
    step, down, right = (s // x.itemsize for s in x.strides)
    if right == 1 and down >= columns:
        return Matrix(x, 0, down, step), len(x)
    if down == 1 and right >= rows:
        return Matrix(x, 0, right, step, turned=True), len(x)
    return Matrix(contiguous(x), 0, columns, rows * columns), len(x)

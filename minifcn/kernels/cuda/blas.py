"""Matrix products by cuBLAS, called as it is: CuPy's matmul would copy transposed batches, and knows no TF32 there."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from minifcn.array import Array, cublas
from minifcn.kernels.cuda.launch import pointer
from minifcn.kernels.precision import tensor_cores

# cudaDataType and cublasComputeType
SINGLE, DOUBLE = 0, 1
COMPUTE_SINGLE, COMPUTE_DOUBLE, COMPUTE_TF32 = 68, 70, 77
DEFAULT_ALGORITHM = -1


class Matrix(NamedTuple):
    """A batch of row-major matrices within an array: element (r, k) of matrix n is array.flat[start + n·step +
    r·pitch + k], or with `turned` the transpose of such a matrix."""

    array: Array
    start: int
    pitch: int  # elements from row to row
    step: int = 0  # elements from matrix to matrix; 0 uses one for all
    turned: bool = False

    @property
    def pointer(self) -> int:
        return pointer(self.array) + self.start * self.array.itemsize


@functools.cache
def _number(value: float, dtype: np.dtype[Any]) -> Array:
    return np.array(value, dtype)


def multiply(
    a: Matrix,
    b: Matrix,
    c: Matrix,
    shape: tuple[int, int, int],
    batch: int = 1,
    more: bool = False,
    strict: bool = False,
) -> None:
    """c (R,S) = a (R,K) @ b (K,S) for each matrix of a batch, shape = (R, S, K); `more` adds to what c holds.

    float32 goes by tensor cores in TF32 where set_float32_matmul_precision("high") allows it, unless `strict`.
    """
    if batch == 0:
        return
    rows, columns, inner = shape
    library, handle = cublas()
    dtype = c.array.dtype
    kind, compute = (SINGLE, COMPUTE_SINGLE) if dtype == np.float32 else (DOUBLE, COMPUTE_DOUBLE)
    if tensor_cores(dtype) and not strict:
        compute = COMPUTE_TF32
    one, add = _number(1, dtype), _number(1 if more else 0, dtype)
    # cuBLAS counts by columns: to it these arrays are the transposed matrices, and cᵀ = bᵀ @ aᵀ
    library.gemmStridedBatchedEx(
        handle, int(b.turned), int(a.turned), columns, rows, inner, one.ctypes.data,
        b.pointer, kind, b.pitch, b.step, a.pointer, kind, a.pitch, a.step,
        add.ctypes.data, c.pointer, kind, c.pitch, c.step, batch, compute, DEFAULT_ALGORITHM,
    )  # fmt: skip

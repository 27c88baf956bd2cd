"""cuBLAS's matrix product on the stand-in's memory, as strict about its arguments as the library is, and stricter."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from emulation.device_memory import allocation_at

HANDLE = 0xB1A5
OP_N, OP_T, OP_C = 0, 1, 2
DTYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64)}  # cudaDataType
SINGLE, DOUBLE, TF32 = 68, 70, 77  # cublasComputeType
COMPUTES = {SINGLE: 0, DOUBLE: 1, TF32: 0}  # with the cudaDataType that each takes
DEFAULT_ALGORITHMS = (-1, 99)


class CUBLASError(RuntimeError):
    """A call that cuBLAS would refuse, or that would read or write where no array is."""


CUBLASError.__module__ = "cupy_backends.cuda.libs.cublas"


class _Operand(NamedTuple):
    """Column-major matrices of a batch: element (r, c) of matrix n is at address + (n·stride + c·ld + r)·itemsize."""

    name: str
    address: int
    rows: int
    columns: int
    ld: int
    stride: int
    batch: int
    dtype: np.dtype[Any]

    def array(self) -> np.ndarray:
        """(batch, rows, columns) on the memory itself. Raises CUBLASError where it leaves an array's."""
        size = self.dtype.itemsize
        low = min(0, (self.batch - 1) * self.stride)
        high = max(0, (self.batch - 1) * self.stride) + (self.columns - 1) * self.ld + self.rows
        first, last = self.address + low * size, self.address + high * size
        allocation = allocation_at(first)
        if allocation is None or last > allocation.address + allocation.size or first >= last:
            raise CUBLASError(f"{self.name} takes {last - first} bytes from {first:#x} on; no array has all of them")
        if self.address % size:
            raise CUBLASError(f"{self.name} begins at {self.address:#x}, which is no multiple of {size} bytes")
        begin = first - allocation.address
        flat = allocation.memory[begin : begin + (last - first)].view(self.dtype)
        strides = (self.stride * size, size, self.ld * size)
        return np.lib.stride_tricks.as_strided(flat[-low:], (self.batch, self.rows, self.columns), strides)


def gemmStridedBatchedEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
    A: int, Atype: int, lda: int, strideA: int, B: int, Btype: int, ldb: int, strideB: int, beta: int,
    C: int, Ctype: int, ldc: int, strideC: int, batchCount: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """C (m, n) = alpha·op(A) (m, k) @ op(B) (k, n) + beta·C for each of a batch, column-major.

    Pointers are addresses; those of alpha and beta in the host's memory, of the type computed in. Raises CUBLASError.
    """
    _require(handle == HANDLE, "CUBLAS_STATUS_NOT_INITIALIZED: the handle is not this device's")
    _require({transa, transb} <= {OP_N, OP_T, OP_C}, f"CUBLAS_STATUS_INVALID_VALUE: operations {transa} and {transb}")
    _require(min(m, n, k, batchCount) >= 0, f"CUBLAS_STATUS_INVALID_VALUE: sizes {m}, {n}, {k}, batch {batchCount}")
    _require(algo in DEFAULT_ALGORITHMS, f"CUBLAS_STATUS_INVALID_VALUE: algorithm {algo}")
    types = {Atype, Btype, Ctype}
    _require(
        computeType in COMPUTES and types == {COMPUTES[computeType]},
        f"CUBLAS_STATUS_NOT_SUPPORTED: types {Atype}, {Btype}, {Ctype} computed in {computeType}",
    )
    dtype = DTYPES[Atype]
    a_shape, b_shape = (m, k) if transa == OP_N else (k, m), (k, n) if transb == OP_N else (n, k)
    a = _Operand("A", A, *a_shape, lda, strideA, batchCount, dtype)
    b = _Operand("B", B, *b_shape, ldb, strideB, batchCount, dtype)
    c = _Operand("C", C, m, n, ldc, strideC, batchCount, dtype)
    for x in (a, b, c):
        fault = f"ld{x.name.lower()} is {x.ld} for {x.rows} rows"
        _require(x.ld >= max(1, x.rows), f"CUBLAS_STATUS_INVALID_VALUE: {fault}")
    if not m or not n or not batchCount:
        return
    _require(_apart(c), "matrices of C overlap, and each would be written by another one's product")
    scale, keep = _host_number(alpha, dtype), _host_number(beta, dtype)
    result = c.array()
    product = np.zeros(result.shape, dtype)
    if k and scale:
        x, y = a.array(), b.array()
        for name, factor in (("A", x), ("B", y)):
            _require(not np.may_share_memory(factor, result), f"C overlaps {name}")
        if computeType == TF32:
            x, y = to_tf32(x), to_tf32(y)
        with np.errstate(all="ignore"):
            product = scale * (_turned(x, transa) @ _turned(y, transb))
    with np.errstate(all="ignore"):
        result[...] = product + keep * result if keep else product  # C may hold anything where beta is 0


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CUBLASError(otherwise)


def _turned(x: np.ndarray, operation: int) -> np.ndarray:
    return x if operation == OP_N else x.swapaxes(1, 2)


def _apart(c: _Operand) -> bool:
    """Whether no element belongs to two matrices of the batch."""
    stride = abs(c.stride)
    if c.batch == 1 or stride >= (c.columns - 1) * c.ld + c.rows:
        return True
    within = np.arange(c.columns)[:, None] * c.ld + np.arange(c.rows)
    every = np.arange(c.batch)[:, None, None] * stride + within
    return len(np.unique(every)) == every.size


def _host_number(address: int, dtype: np.dtype[Any]) -> np.floating[Any]:
    kind = ctypes.c_float if dtype == np.float32 else ctypes.c_double
    return dtype.type(kind.from_address(address).value)


def to_tf32(x: np.ndarray) -> np.ndarray:
    """float32 rounded to 10 bits of fraction, halves away from zero, as the hardware's conversion does."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    finite = (bits & np.uint32(0x7F800000)) != np.uint32(0x7F800000)
    return ((bits + finite * np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def module() -> ModuleType:
    """What stands for cupy_backends.cuda.libs.cublas."""
    cublas = ModuleType("cupy_backends.cuda.libs.cublas")
    cublas.__dict__.update(
        gemmStridedBatchedEx=gemmStridedBatchedEx,
        CUBLASError=CUBLASError,
        CUBLAS_OP_N=OP_N,
        CUBLAS_OP_T=OP_T,
        CUBLAS_OP_C=OP_C,
        CUBLAS_COMPUTE_32F=SINGLE,
        CUBLAS_COMPUTE_64F=DOUBLE,
        CUBLAS_COMPUTE_32F_FAST_TF32=TF32,
        CUBLAS_GEMM_DEFAULT=DEFAULT_ALGORITHMS[0],
    )
    return cublas

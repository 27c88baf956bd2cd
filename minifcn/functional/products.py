"""Matrix products: matmul and linear."""

from __future__ import annotations

import numpy as np

from minifcn.array import Array, backend_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import floats, tensor
from minifcn.functional.arithmetic import expand
from minifcn.functional.shape import reshape, transpose

# batched matrix product z = x @ y over equal batch axes
matmul_p = Primitive("matmul(x, y) -> z", lambda x, y: x @ y)
matmul_p.defvjp(lambda gz, y: matmul_p(gz, transpose(y, -1, -2)), lambda gz, x: matmul_p(transpose(x, -1, -2), gz))


def matmul(x: Tensor | Array, y: Tensor | Array) -> Tensor:
    """x (…, M, K) @ y (…, K, N) → (…, M, N), batch axes broadcast; a vector stands for one row or one column.

    Raises ValueError where the inner sizes differ or an operand is a scalar.
    """
    a, b = tensor("matmul", "x", x), tensor("matmul", "y", y)
    backend_of(a.data, b.data, op="matmul")
    floats("matmul", x=a, y=b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape}; at least one axis each is needed")
    row, column = a.ndim == 1, b.ndim == 1
    a = reshape(a, 1, *a.shape) if row else a
    b = reshape(b, *b.shape, 1) if column else b
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: inner sizes {a.shape[-1]} and {b.shape[-2]} differ — shapes {x.shape}, {y.shape}")
    batch = _broadcast(a.shape[:-2], b.shape[:-2])
    z = matmul_p(expand(a, batch + a.shape[-2:]), expand(b, batch + b.shape[-2:]))
    keep = [n for k, n in enumerate(z.shape) if not (row and k == z.ndim - 2) and not (column and k == z.ndim - 1)]
    return reshape(z, keep)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        raise ValueError(f"matmul: batch axes {a} and {b} do not broadcast; equal sizes or 1 are needed") from None


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y (…, O) = input (…, C) @ weight (O, C)ᵀ + bias (O,).

    Raises ValueError where C differs, TypeError for mixed dtypes.
    """
    x, w = tensor("linear", "input", input), tensor("linear", "weight", weight)
    floats("linear", input=x, weight=w, bias=bias)
    if w.ndim != 2 or x.ndim == 0 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"linear: input {x.shape} and weight {w.shape}; (…, C) and (O, C) are needed")
    y = matmul(x, transpose(w, 0, 1))
    return y if bias is None else y + bias

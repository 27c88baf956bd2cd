"""Matrix products: matmul and linear."""

from __future__ import annotations

from minifcn.array import Array, backend_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import floats, optional, tensor
from minifcn.functional.arithmetic import broadcast_shape, expand
from minifcn.functional.shape import reshape, transpose

# batched matrix product z = x @ y over equal batch axes
matmul_p = Primitive("matmul(x, y) -> z")
matmul_p.defvjp(lambda gz, y: matmul_p(gz, transpose(y, -1, -2)), lambda gz, x: matmul_p(transpose(x, -1, -2), gz))


def matmul(x: Tensor | Array, y: Tensor | Array) -> Tensor:
    """x (…, M, K) @ y (…, K, N) → (…, M, N), batch axes broadcast; a vector stands for one row or one column.

    Raises ValueError where the inner sizes differ or an operand is a scalar, TypeError for other than floats.
    """
    return _matmul("matmul", tensor("matmul", "x", x), tensor("matmul", "y", y))


def _matmul(op: str, a: Tensor, b: Tensor) -> Tensor:
    backend_of(a.data, b.data, op=op)
    floats(op, x=a, y=b)
    given = f"shapes {a.shape} and {b.shape}"
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"{op}: {given}; at least one axis each is needed")
    row, column = a.ndim == 1, b.ndim == 1
    a = reshape(a, 1, *a.shape) if row else a
    b = reshape(b, *b.shape, 1) if column else b
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"{op}: inner sizes {a.shape[-1]} and {b.shape[-2]} differ — {given}; they must be equal")
    batch = broadcast_shape(op, a.shape[:-2], b.shape[:-2])
    z = matmul_p(expand(a, batch + a.shape[-2:]), expand(b, batch + b.shape[-2:]))
    keep = [n for k, n in enumerate(z.shape) if not (row and k == z.ndim - 2) and not (column and k == z.ndim - 1)]
    return reshape(z, keep)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y (…, O) = input (…, C) @ weight (O, C)ᵀ + bias (O,); a weight (C,), with a bias (), gives y (…).

    Raises ValueError for shapes that do not fit, TypeError for mixed dtypes.
    """
    x, w, b = tensor("linear", "input", input), tensor("linear", "weight", weight), optional("linear", "bias", bias)
    floats("linear", input=x, weight=w, bias=b)
    if w.ndim not in (1, 2) or x.ndim == 0 or x.shape[-1] != w.shape[-1]:
        raise ValueError(f"linear: input {x.shape} and weight {w.shape}; (…, C) and (O, C) or (C,) are needed")
    y = _matmul("linear", x, transpose(w, 0, 1) if w.ndim == 2 else w)
    if b is None:
        return y
    if (w.ndim == 1 and b.ndim > 0) or broadcast_shape("linear", y.shape, b.shape) != y.shape:
        raise ValueError(
            f"linear: bias {b.shape} for weight {w.shape} and result {y.shape}; (O,), or () for (C,), is needed"
        )
    return y + b

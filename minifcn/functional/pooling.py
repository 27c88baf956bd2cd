"""Pooling. Max pooling takes one value of each window, average pooling adds them up; both are linear once it is known
which value was taken, so their gradients are adjoint pairs: take/put, and window sum/spread."""

from __future__ import annotations

import numpy as np

from minifcn.array import Array, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import batched, floats, tensor, unbatched
from minifcn.functional.shape import reshape
from minifcn.geometry import Pair, PoolGeometry, pair

max_pool2d_p = Primitive("max_pool2d(x) -> y, tap")
pool_take_p = Primitive("pool_take(x) -> y")
pool_put_p = Primitive("pool_put(y) -> x")
max_pool2d_p.defvjp(lambda gy, tap, geom: pool_put_p(gy, tap=tap, geom=geom))
pool_put_p.defvjp(lambda gx, tap, geom: pool_take_p(gx, tap=tap, geom=geom))
pool_take_p.defvjp(lambda gy, tap, geom: pool_put_p(gy, tap=tap, geom=geom))

avg_pool2d_p = Primitive("avg_pool2d(x) -> y")
avg_pool2d_adjoint_p = Primitive("avg_pool2d_adjoint(y) -> x")
avg_pool2d_p.defvjp(lambda gy, scale, geom: avg_pool2d_adjoint_p(gy, scale=scale, geom=geom))
avg_pool2d_adjoint_p.defvjp(lambda gx, scale, geom: avg_pool2d_p(gx, scale=scale, geom=geom))


def _geometry(
    op: str, x: Tensor, kernel_size: int | Pair, stride: int | Pair | None, padding: int | Pair, dilation: int | Pair,
    ceil_mode: bool,
) -> PoolGeometry:  # fmt: skip
    kernel = pair(kernel_size, op, "kernel_size", 1)
    strides = kernel if stride is None else pair(stride, op, "stride", 1)
    paddings, dilations = pair(padding, op, "padding", 0), pair(dilation, op, "dilation", 1)
    return PoolGeometry.of_pool(x.shape, kernel, strides, paddings, dilations, ceil_mode, op)


def max_pool2d(
    input: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """input (N,C,H,W) or (C,H,W) → (N,C,P,Q): the largest value of each window; of equal ones the first counts.

    Args:
        kernel_size, stride, padding, dilation: one int or (height, width); stride is kernel_size by default, padding
            (of −∞) at most half of kernel_size.
        ceil_mode: keep a last, partial window, unless it starts beyond the image and its left padding.
        return_indices: also return h·W + v of each value taken, int64.

    Raises:
        ValueError: no window fits, or a parameter is out of range. TypeError: not a float tensor.

    >>> max_pool2d(Tensor([[[1.0, 5.0, 2.0]]]), (1, 2), ceil_mode=True)
    Tensor([[[5., 2.]]], dtype=float32)
    """
    x, single = batched("max_pool2d", tensor("max_pool2d", "input", input))
    floats("max_pool2d", input=x)
    geom = _geometry("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode)
    y, (tap,) = max_pool2d_p.with_extras(x, geom=geom)
    if not return_indices:
        return unbatched(y, single)
    return unbatched(y, single), unbatched(Tensor(_flat_indices(tap, geom)), single)


def _flat_indices(tap: Array, geom: PoolGeometry) -> Array:
    """The pixel h·W + v of each tap number."""
    xp = module_of(tap)
    i, j = xp.divmod(tap.astype(np.int64), geom.w_hw[1])
    h = xp.arange(geom.y_hw[0])[:, None] * geom.stride[0] + i * geom.dilation[0] - geom.padding[0]
    v = xp.arange(geom.y_hw[1]) * geom.stride[1] + j * geom.dilation[1] - geom.padding[1]
    flat: Array = h * geom.x_hw[1] + v
    return flat


def avg_pool2d(
    input: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """input (N,C,H,W) or (C,H,W) → (N,C,P,Q): the mean of each window.

    Args:
        kernel_size, stride, padding, ceil_mode: as in max_pool2d; the padding is of zeros.
        count_include_pad: whether padding counts in the divisor (what ceil_mode adds beyond it never does).
        divisor_override: divide by this instead.

    Raises:
        ValueError: no window fits, or a parameter is out of range. TypeError: not a float tensor.
    """
    x, single = batched("avg_pool2d", tensor("avg_pool2d", "input", input))
    floats("avg_pool2d", input=x)
    if divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override is 0; another number is needed")
    geom = _geometry("avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode)
    rows, columns = (_counts(geom, axis, count_include_pad) for axis in range(2))
    divisor = np.outer(rows, columns) if divisor_override is None else np.full(geom.y_hw, divisor_override)
    scale = module_of(x.data).asarray((1 / divisor).astype(x.dtype))
    return unbatched(avg_pool2d_p(x, scale=scale, geom=geom), single)


def _counts(geom: PoolGeometry, axis: int, include_pad: bool) -> Array:
    """How many rows (or columns) of each window count in the divisor."""
    size, padding = geom.x_hw[axis], geom.padding[axis]
    start = np.arange(geom.y_hw[axis]) * geom.stride[axis] - padding
    end = np.minimum(start + geom.w_hw[axis], size + padding)
    return end - start if include_pad else np.minimum(end, size) - np.maximum(start, 0)


def adaptive_avg_pool2d(input: Tensor, output_size: int | tuple[int | None, int | None] | None) -> Tensor:
    """input (N,C,H,W) or (C,H,W) → (N,C,P,Q): P × Q means; row p covers ⌊p·H/P⌋ … ⌈(p+1)·H/P⌉.

    Args:
        output_size: one int or (P, Q); None keeps the input's.

    Raises:
        ValueError: a negative size, or not one or two of them. TypeError: not a float tensor.

    >>> adaptive_avg_pool2d(Tensor([[[1.0, 3.0, 5.0]]]), (1, 2))
    Tensor([[[2., 4.]]], dtype=float32)
    """
    x, single = batched("adaptive_avg_pool2d", tensor("adaptive_avg_pool2d", "input", input))
    floats("adaptive_avg_pool2d", input=x)
    wanted = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(wanted) != 2:
        raise ValueError(f"adaptive_avg_pool2d: output_size is {output_size}; one int or a pair is needed")
    sizes = [n if want is None else want for n, want in zip(x.shape[2:], wanted, strict=True)]
    rows, columns = (
        _means(n, pair(m, "adaptive_avg_pool2d", "output_size", 0)[0], x)
        for n, m in zip(x.shape[2:], sizes, strict=True)
    )
    n, c, *x_hw = x.shape
    down = (rows @ reshape(x, n * c, *x_hw)) @ columns.transpose(0, 1)  # (P,H) @ (N·C,H,W) @ (W,Q)
    return unbatched(reshape(down, n, c, *down.shape[1:]), single)


def _means(size: int, count: int, like: Tensor) -> Tensor:
    """The matrix (count, size) whose row p averages ⌊p·size/count⌋ … ⌈(p+1)·size/count⌉."""
    matrix = np.zeros((count, size), like.dtype)
    for p in range(count):
        start, end = p * size // count, -(-(p + 1) * size // count)
        matrix[p, start:end] = 1 / (end - start)
    return Tensor(module_of(like.data).asarray(matrix))

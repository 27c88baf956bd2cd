"""Pooling. Max pooling takes one value of each window, average pooling adds them up; both are linear once it is known
which value was taken, so their gradients are adjoint pairs: take/put, and window sum/spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minifcn.array import Array, backend_of, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import batched, flag, floats, integer, not_empty, tensor, unbatched
from minifcn.functional.arithmetic import where
from minifcn.functional.shape import reshape, scatter_p
from minifcn.geometry import AdaptiveGeometry, Pair, PoolGeometry, pair

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

adaptive_avg_pool2d_p = Primitive("adaptive_avg_pool2d(x) -> y")
adaptive_avg_pool2d_adjoint_p = Primitive("adaptive_avg_pool2d_adjoint(y) -> x")
adaptive_avg_pool2d_p.defvjp(lambda gy, geom: adaptive_avg_pool2d_adjoint_p(gy, geom=geom))
adaptive_avg_pool2d_adjoint_p.defvjp(lambda gx, geom: adaptive_avg_pool2d_p(gx, geom=geom))


def _geometry(
    op: str, x: Tensor, kernel_size: int | Pair, stride: int | Pair | None, padding: int | Pair, dilation: int | Pair,
    ceil_mode: bool,
) -> PoolGeometry:  # fmt: skip
    not_empty(op, x)
    kernel = pair(kernel_size, op, "kernel_size", 1)
    strides = _stride(op, stride, kernel)
    paddings, dilations = pair(padding, op, "padding", 0), pair(dilation, op, "dilation", 1)
    flag(op, "ceil_mode", ceil_mode)
    return PoolGeometry.of_pool(x.shape, kernel, strides, paddings, dilations, ceil_mode, op)


def _stride(op: str, stride: int | Pair | None, kernel: Pair) -> Pair:
    """kernel_size by default (None, or in PyTorch's C++ tradition an empty list)."""
    missing = stride is None or (isinstance(stride, list | tuple) and len(stride) == 0)
    return kernel if missing else pair(stride, op, "stride", 1)  # type: ignore[arg-type]


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
    flag("max_pool2d", "return_indices", return_indices)
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
    if divisor_override is not None and integer("avg_pool2d", "divisor_override", divisor_override) == 0:
        raise ValueError("avg_pool2d: divisor_override is 0; another number is needed")
    flag("avg_pool2d", "count_include_pad", count_include_pad)
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
        ValueError: a negative size, not one or two of them, or an image without pixels (PyTorch gives NaN for one that
            is to become 1×1). TypeError: not a float tensor.

    >>> adaptive_avg_pool2d(Tensor([[[1.0, 3.0, 5.0]]]), (1, 2))
    Tensor([[[2., 4.]]], dtype=float32)
    """
    op = "adaptive_avg_pool2d"
    x, single = batched(op, tensor(op, "input", input))
    floats(op, input=x)
    if 0 in x.shape[2:]:
        raise ValueError(f"{op}: input has shape {x.shape}; at least one pixel is needed")
    wanted = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(wanted) != 2:
        raise ValueError(f"{op}: output_size is {output_size}; one int or a pair is needed")
    sizes = [n if m is None else integer(op, "output_size", m, 0) for n, m in zip(x.shape[2:], wanted, strict=True)]
    geom = AdaptiveGeometry(x.shape, (sizes[0], sizes[1]))
    return unbatched(adaptive_avg_pool2d_p(x, geom=geom), single)


def max_unpool2d(
    input: Tensor,
    indices: Tensor | Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """input (N,C,P,Q) or (C,P,Q) → (N,C,H,W): each value at the pixel that max_pool2d took it from, zeros elsewhere.

    Args:
        input: float32 or float64.
        indices: of input's shape, int64: h·W + v of each value, as max_pool2d(…, return_indices=True) gives them.
        kernel_size, stride, padding: those of the pooling.
        output_size: (H, W), or all of (N, C, H, W); by default (P − 1)·stride − 2·padding + kernel_size, and any size
            less than a stride away from that is possible.

    Where several values have one index (windows that overlapped), the last one in order stays, and only that one gets a
    gradient. (PyTorch leaves open which one stays, and gives a gradient to all.)

    Raises:
        ValueError: shapes or sizes that do not fit, an output without pixels, or indices outside the output.
        TypeError: dtypes.

    >>> y, indices = max_pool2d(Tensor([[[1.0, 5.0, 2.0, 3.0]]]), (1, 2), return_indices=True)
    >>> max_unpool2d(y, indices, (1, 2))
    Tensor([[[0., 5., 0., 3.]]], dtype=float32)
    """
    op = "max_unpool2d"
    y, at = tensor(op, "input", input), tensor(op, "indices", indices).data
    floats(op, input=y)
    backend_of(y.data, at, op=op)
    if at.dtype != np.int64:
        raise TypeError(f"{op}: indices have dtype {at.dtype}; int64 is needed")
    if at.shape != y.shape:
        raise ValueError(f"{op}: input {y.shape} and indices {at.shape}; equal shapes are needed")
    y, single = batched(op, y)
    not_empty(op, y)
    height, width = _unpooled_size(op, y.shape[2:], kernel_size, stride, padding, output_size)
    if at.size and (at.min() < 0 or at.max() >= height * width):
        raise ValueError(
            f"{op}: indices from {at.min()} to {at.max()} for {height}×{width} pixels; 0 to {height * width - 1} is "
            f"possible"
        )
    n, c = y.shape[:2]
    at = at.reshape(n, c, y.shape[2] * y.shape[3]).copy()  # the gradient will need them as they are now
    values = where(_last_of_equals(at), reshape(y, at.shape), 0.0)
    image = scatter_p(values, at=at, dim=2, shape_in=(n, c, height * width))
    return unbatched(reshape(image, n, c, height, width), single)


def _last_of_equals(at: Array) -> Array:
    """Whether each index (N, C, M) is the last of its value in its row. By sorting: writing to equal places would on a
    GPU leave any of them."""
    xp = module_of(at)
    order = xp.argsort(at, axis=2, kind="stable")  # equal ones stay in order
    ordered = xp.take_along_axis(at, order, 2)
    last = xp.ones(at.shape, bool)
    last[:, :, :-1] = ordered[:, :, 1:] != ordered[:, :, :-1]
    stays = xp.zeros(at.shape, bool)
    xp.put_along_axis(stays, order, last, 2)
    return stays  # type: ignore[no-any-return]


def _unpooled_size(
    op: str, y_hw: Sequence[int], kernel_size: int | Pair, stride: int | Pair | None, padding: int | Pair,
    output_size: Sequence[int] | None,
) -> Pair:  # fmt: skip
    """(H, W) of the image, from the wanted size or by default. Raises ValueError where none is possible."""
    kernel = pair(kernel_size, op, "kernel_size", 1)
    strides, paddings = _stride(op, stride, kernel), pair(padding, op, "padding", 0)
    usual = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(y_hw, strides, paddings, kernel, strict=True)]
    if output_size is None:
        if min(usual) < 1:
            raise ValueError(f"{op}: the output would be {tuple(usual)}; a larger kernel or less padding is needed")
        return usual[0], usual[1]
    if not isinstance(output_size, list | tuple) or len(output_size) not in (2, 4):
        raise ValueError(f"{op}: output_size is {output_size!r:.60}; (H, W) or (N, C, H, W) is needed")
    wanted = pair(output_size[-2:], op, "output_size", 1)
    if any(not least - s < want < least + s for want, least, s in zip(wanted, usual, strides, strict=True)):
        ranges = " by ".join(f"{least - s + 1} to {least + s - 1}" for least, s in zip(usual, strides, strict=True))
        raise ValueError(f"{op}: output_size {wanted}; {ranges} is possible")
    return wanted

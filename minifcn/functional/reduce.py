"""Sums, means, variances, largest and smallest values, over chosen axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from minifcn.array import FLOATS, Array, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import flag, number, numeric, real
from minifcn.functional.arithmetic import add_up, cast, expand
from minifcn.functional.shape import axes_of, axis_of, gather, reshape, squeeze

sum_p = Primitive("sum(x) -> y", lambda x, *, axes, shape_in: add_up(x, axes, keepdims=True))
sum_p.defvjp(lambda gy, axes, shape_in: expand(gy, shape_in))

# y = Σ (x − mean)² / divisor; d/dx = 2·(x − mean)/divisor, as the derivative through the mean adds up to 0. A divisor
# that is not positive gives y = ∞ (or NaN), as PyTorch has it.
var_p = Primitive("var(x) -> y", lambda x, *, axes, divisor: _var(x, axes, divisor))
var_p.defvjp(
    lambda gy, x, axes, divisor: (
        expand(gy, x.shape) * centred(x, lambda x: mean(x, axes, keepdim=True)) * (2 / divisor if divisor else math.inf)
    )
)

# the largest or smallest of all values; equal ones share the gradient, `share` holds their parts
extreme_p = Primitive("extreme(x) -> y", lambda x, *, op, share: module_of(x).asarray(getattr(x, op)()))
extreme_p.defvjp(lambda gy, share: expand(gy, share.shape) * Tensor(share))

Dim = int | Sequence[int] | None


class ValuesIndices(NamedTuple):
    """What max and min along an axis return."""

    values: Tensor
    indices: Tensor


def sum(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The sum over the axes `dim` (all by default), of integers and booleans as int64; float32 is added in float64."""
    real("sum", x)
    x = x if x.dtype in FLOATS else cast(x, np.dtype(np.int64))
    axes = _axes("sum", x, dim)
    return _kept(sum_p(x, axes=axes, shape_in=x.shape), axes, flag("sum", "keepdim", keepdim))


def mean(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The mean over the axes `dim` (all by default); NaN of nothing. Raises TypeError for integers."""
    _only_floats("mean", x)
    axes = _axes("mean", x, dim)
    count = math.prod(x.shape[k] for k in axes)
    total = sum_p(x, axes=axes, shape_in=x.shape)
    return _kept(total * (1 / count if count else math.nan), axes, flag("mean", "keepdim", keepdim))


def var(
    x: Tensor,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance over the axes `dim` (all by default): Σ (x − mean)² / (count − correction).

    Args:
        x: float32 or float64; the squares are added in float64.
        dim: one axis or several.
        unbiased: True for correction 1 (the default), False for 0.
        keepdim: whether reduced axes stay, with size 1.
        correction: what is taken off the count; a count of 0 or less gives ∞ or NaN, and a gradient that PyTorch does
            not agree on with itself (with and without dim).

    Raises:
        ValueError: both unbiased and correction, or an axis that x does not have. TypeError: integers.
    """
    _only_floats("var", x)
    if unbiased is not None and correction is not None:
        raise ValueError(f"var: unbiased={unbiased} and correction={correction}; one of them is enough")
    if unbiased is not None:
        correction = 1 if flag("var", "unbiased", unbiased) else 0
    axes = _axes("var", x, dim)
    less = 1 if correction is None else number("var", "correction", correction)
    count = math.prod(x.shape[k] for k in axes)
    spread = var_p(x, axes=axes, divisor=count - less if count else math.nan)
    return _kept(spread, axes, flag("var", "keepdim", keepdim))


def _var(x: Array, axes: tuple[int, ...], divisor: float) -> Array:
    wide = x.astype(np.float64)  # Σ (x − m)² with a rounded m would lose what is small beside the mean
    with np.errstate(divide="ignore", invalid="ignore"):  # of nothing, and a divisor of 0: NaN and ∞ are the answers
        wide -= wide.sum(axis=axes, keepdims=True) / np.float64(math.prod(x.shape[k] for k in axes))
        wide *= wide
        spread: Array = wide.sum(axis=axes, keepdims=True) / np.float64(0 if divisor < 0 else divisor)
    return spread.astype(x.dtype)


def centred(x: Tensor, average: Callable[[Tensor], Tensor]) -> Tensor:
    """x − average(x), which keeps x's axes. It is rounded to x's dtype, so what is left of it is taken off once more:
    with float32 and a mean of 10⁴ standard deviations that is a shift of 10⁻³ of one."""
    once = x - average(x)
    return once - average(once)


def max(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | ValuesIndices:
    """The largest of all values (equal ones share its gradient), or with `dim` the largest along it and where they are
    (the first of equal ones).

    Raises ValueError where there is nothing to choose from.
    """
    return _extreme("max", x, dim, keepdim)


def min(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | ValuesIndices:
    """The smallest of all values (equal ones share its gradient), or with `dim` the smallest along it and where they
    are (the first of equal ones).

    Raises ValueError where there is nothing to choose from.
    """
    return _extreme("min", x, dim, keepdim)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest value (the first of equal ones), in the flattened tensor or along `dim`, as int64.

    Raises ValueError where there is nothing to choose from, TypeError for booleans.
    """
    numeric("argmax", x)
    flag("argmax", "keepdim", keepdim)
    if dim is None:
        _choice_of("argmax", x, x.size)
        at = module_of(x.data).asarray(x.data.argmax())
        return Tensor(at.reshape((1,) * x.ndim) if keepdim else at)
    return _where_extreme("argmax", x, axis_of("argmax", dim, x.ndim), keepdim)[1]


def _extreme(op: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor | ValuesIndices:
    real(op, x)
    flag(op, "keepdim", keepdim)
    if dim is not None:
        return ValuesIndices(*_where_extreme(op, x, axis_of(op, dim, x.ndim), keepdim))
    _choice_of(op, x, x.size)
    share = None
    if x.requires_grad:
        best = getattr(x.data, op)()
        ties = module_of(x.data).isnan(x.data) if best != best else x.data == best
        share = (ties / ties.sum()).astype(x.dtype)
    y = extreme_p(x, op=op, share=share)
    return reshape(y, (1,) * x.ndim) if keepdim else y


def _where_extreme(op: str, x: Tensor, axis: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """(values, indices) along an axis."""
    if x.ndim == 0:  # as a vector of one
        values, at = _where_extreme(op, reshape(x, 1), 0, False)
        return values, at
    _choice_of(op, x, x.shape[axis])
    xp = module_of(x.data)
    at = xp.expand_dims(getattr(xp, op if op.startswith("arg") else f"arg{op}")(x.data, axis=axis), axis)
    values = gather(x, axis, at)
    return (values, Tensor(at)) if keepdim else (squeeze(values, axis), Tensor(at.squeeze(axis)))


def _choice_of(op: str, x: Tensor, count: int) -> None:
    if count == 0:
        raise ValueError(f"{op}: shape {x.shape} has no elements to choose from; at least one is needed")


def _only_floats(op: str, x: Tensor) -> None:
    if x.dtype not in FLOATS:
        raise TypeError(f"{op}: input has dtype {x.dtype}; float32 or float64 is needed, such as input.to(np.float32)")


def _axes(op: str, x: Tensor, dim: Dim) -> tuple[int, ...]:
    """The axes to reduce; all for None and, as in PyTorch, for an empty list."""
    return axes_of(op, None if isinstance(dim, list | tuple) and not dim else dim, x.ndim)


def _kept(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """x, whose reduced axes have size 1, with or without them."""
    return x if keepdim else reshape(x, tuple(n for k, n in enumerate(x.shape) if k not in axes))

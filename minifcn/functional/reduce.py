"""Sums, means, variances, largest and smallest values, over chosen axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from minifcn.array import Array, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional.arithmetic import expand
from minifcn.functional.shape import axes_of, axis_of, gather, reshape, squeeze

sum_p = Primitive("sum(x) -> y", lambda x, *, axes, shape_in: module_of(x).asarray(x.sum(axis=axes, keepdims=True)))
sum_p.defvjp(lambda gy, axes, shape_in: expand(gy, shape_in))

# the largest or smallest of all values; equal ones share the gradient, `share` holds their parts
extreme_p = Primitive("extreme(x) -> y", lambda x, *, op, share: module_of(x).asarray(getattr(x, op)()))
extreme_p.defvjp(lambda gy, share: expand(gy, share.shape) * Tensor(share))

Dim = int | Sequence[int] | None


class ValuesIndices(NamedTuple):
    """What max and min along an axis return."""

    values: Tensor
    indices: Tensor


def sum(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The sum over the axes `dim` (all by default)."""
    axes = axes_of("sum", dim, x.ndim)
    total = sum_p(x, axes=axes, shape_in=x.shape)
    return total if keepdim else _drop(total, axes)


def mean(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The mean over the axes `dim` (all by default); NaN of nothing."""
    count = math.prod(x.shape[k] for k in axes_of("mean", dim, x.ndim))
    return sum(x, dim, keepdim) * (1 / count if count else math.nan)


def var(x: Tensor, dim: Dim = None, keepdim: bool = False, correction: int = 1) -> Tensor:
    """The variance over the axes `dim`: Σ (x − mean)² / (count − correction)."""
    axes = axes_of("var", dim, x.ndim)
    count = math.prod(x.shape[k] for k in axes) - correction
    centred = x - mean(x, axes, keepdim=True)
    return sum(centred * centred, axes, keepdim) * (1 / count if count > 0 else math.nan)


def max(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | ValuesIndices:
    """The largest of all values (equal ones share its gradient), or with `dim` the largest along it and where they are
    (the first of equal ones)."""
    return _extreme("max", x, dim, keepdim)


def min(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | ValuesIndices:
    """The smallest of all values (equal ones share its gradient), or with `dim` the smallest along it and where they
    are (the first of equal ones)."""
    return _extreme("min", x, dim, keepdim)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest value (the first of equal ones), in the flattened tensor or along `dim`."""
    if dim is None:
        return Tensor(module_of(x.data).asarray(x.data.argmax()))
    axis = axis_of("argmax", dim, x.ndim)
    at: Array = module_of(x.data).expand_dims(x.data.argmax(axis=axis), axis)
    return Tensor(at) if keepdim else Tensor(at.squeeze(axis))


def _extreme(op: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor | ValuesIndices:
    if x.size == 0:
        raise ValueError(f"{op}: shape {x.shape} has no elements; at least one is needed")
    xp = module_of(x.data)
    if dim is None:
        best = getattr(x.data, op)()
        ties = xp.isnan(x.data) if best != best else x.data == best
        return extreme_p(x, op=op, share=(ties / ties.sum()).astype(x.dtype))
    axis = axis_of(op, dim, x.ndim)
    at = xp.expand_dims(getattr(xp, f"arg{op}")(x.data, axis=axis), axis)
    values = gather(x, axis, at)
    if keepdim:
        return ValuesIndices(values, Tensor(at))
    return ValuesIndices(squeeze(values, axis), Tensor(at.squeeze(axis)))


def _drop(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return reshape(x, tuple(n for k, n in enumerate(x.shape) if k not in axes))

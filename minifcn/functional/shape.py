"""Moving values without changing them: reshape, permute, indexing, pad, cat, stack, gather.

Each is linear, and its adjoint moves the values back: what was taken is put where it came from, and adds up where it
came from more than once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minifcn.array import Array, backend_of, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import choice, tensor

reshape_p = Primitive("reshape(x) -> y", lambda x, *, shape, shape_in: x.reshape(shape), view=True)
reshape_p.defvjp(lambda gy, shape, shape_in: reshape_p(gy, shape=shape_in, shape_in=shape))

permute_p = Primitive("permute(x) -> y", lambda x, *, axes: x.transpose(axes), view=True)
permute_p.defvjp(lambda gy, axes: permute_p(gy, axes=tuple(int(k) for k in np.argsort(axes))))

index_p = Primitive("index(x) -> y", lambda x, *, at, shape_in: module_of(x).asarray(x[at]), view=True)
put_p = Primitive("put(y) -> x", lambda y, *, at, shape_in: _put(y, at, shape_in))
index_p.defvjp(lambda gy, at, shape_in: put_p(gy, at=at, shape_in=shape_in))
put_p.defvjp(lambda gx, at, shape_in: index_p(gx, at=at, shape_in=shape_in))

gather_p = Primitive("gather(x) -> y", lambda x, *, at, dim, shape_in: module_of(x).take_along_axis(x, at, dim))
scatter_p = Primitive("scatter(y) -> x", lambda y, *, at, dim, shape_in: _scatter(y, at, dim, shape_in))
gather_p.defvjp(lambda gy, at, dim, shape_in: scatter_p(gy, at=at, dim=dim, shape_in=shape_in))
scatter_p.defvjp(lambda gx, at, dim, shape_in: gather_p(gx, at=at, dim=dim, shape_in=shape_in))

# z is x and then y along an axis, at which x has `split` entries
cat_p = Primitive("cat(x, y) -> z", lambda x, y, *, axis, split: module_of(x).concatenate((x, y), axis))
cat_p.defvjp(
    lambda gz, axis, split: index(gz, (slice(None),) * axis + (slice(None, split),)),
    lambda gz, axis, split: index(gz, (slice(None),) * axis + (slice(split, None),)),
)

# y holds x at the slices `at`, and `value` elsewhere
pad_p = Primitive("pad(x) -> y", lambda x, *, at, shape, value: _pad(x, at, shape, value))
pad_p.defvjp(lambda gy, at, shape: index_p(gy, at=at, shape_in=shape))


def _put(y: Array, at: Any, shape: tuple[int, ...]) -> Array:
    x: Array = module_of(y).zeros(shape, y.dtype)
    if _has_arrays(at):
        np.add.at(x, at, y)  # an element may have been taken more than once
    else:
        x[at] = y
    return x


def _has_arrays(at: Any) -> bool:
    parts = at if isinstance(at, tuple) else (at,)
    return any(hasattr(part, "shape") or isinstance(part, list) for part in parts)


def _scatter(y: Array, at: Array, dim: int, shape: tuple[int, ...]) -> Array:
    x: Array = module_of(y).zeros(shape, y.dtype)
    places = list(np.ix_(*(range(n) for n in at.shape)))
    places[dim] = at
    np.add.at(x, tuple(places), y)
    return x


def _pad(x: Array, at: tuple[slice, ...], shape: tuple[int, ...], value: float) -> Array:
    y: Array = module_of(x).full(shape, value, x.dtype)
    y[at] = x
    return y


def reshape(x: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """x with the same elements in another shape; one size may be −1.

    Raises ValueError where the sizes do not multiply to x.size.
    """
    flat = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    sizes = tuple(int(n) for n in flat)  # type: ignore[arg-type]
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known and x.size % known == 0:
        sizes = tuple(x.size // known if n == -1 else n for n in sizes)
    if min(sizes, default=0) < 0 or math.prod(sizes) != x.size:
        raise ValueError(f"reshape: shape {x.shape} has {x.size} elements and cannot become {sizes}")
    return x if sizes == x.shape else reshape_p(x, shape=sizes, shape_in=x.shape)


def axis_of(op: str, dim: int, ndim: int) -> int:
    """A possibly negative axis as 0 ≤ axis < ndim. Raises ValueError beyond that."""
    if not -ndim <= dim < ndim:
        raise ValueError(f"{op}: dim is {dim} for a tensor of {ndim} axes; −{ndim} to {ndim - 1} is possible")
    return dim % ndim


def axes_of(op: str, dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """One axis, several, or all (None), each as axis_of; a repeated axis raises ValueError."""
    if dim is None:
        return tuple(range(ndim))
    axes = tuple(axis_of(op, d, ndim) for d in (dim if isinstance(dim, Sequence) else (dim,)))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{op}: dim {dim} names an axis twice")
    return axes


def permute(x: Tensor, *dims: int | Sequence[int]) -> Tensor:
    """x with its axes in the order given."""
    order = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    axes = axes_of("permute", order, x.ndim)  # type: ignore[arg-type]
    if len(axes) != x.ndim:
        raise ValueError(f"permute: {len(axes)} axes {order} for a tensor of {x.ndim}; every axis is needed once")
    return permute_p(x, axes=axes)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """x with two axes exchanged."""
    a, b = axis_of("transpose", dim0, x.ndim), axis_of("transpose", dim1, x.ndim)
    axes = list(range(x.ndim))
    axes[a], axes[b] = b, a
    return permute_p(x, axes=tuple(axes))


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """x with axes start_dim … end_dim made one."""
    if x.ndim == 0:
        return reshape(x, 1)
    a, b = axis_of("flatten", start_dim, x.ndim), axis_of("flatten", end_dim, x.ndim)
    if a > b:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return reshape(x, *x.shape[:a], math.prod(x.shape[a : b + 1]), *x.shape[b + 1 :])


def squeeze(x: Tensor, dim: int | None = None) -> Tensor:
    """x without its axes of size 1, or without that one if it has size 1."""
    drop = axes_of("squeeze", dim, x.ndim)
    return reshape(x, *(n for k, n in enumerate(x.shape) if k not in drop or n != 1))


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """x with a new axis of size 1 at dim."""
    at = axis_of("unsqueeze", dim, x.ndim + 1)
    return reshape(x, *x.shape[:at], 1, *x.shape[at:])


def index(x: Tensor, at: Any) -> Tensor:
    """x[at]: integers, slices, …, None, integer and boolean arrays, as NumPy indexes."""
    at = tuple(_frozen(part) for part in at) if isinstance(at, tuple) else _frozen(at)
    try:
        return index_p(x, at=at, shape_in=x.shape)
    except IndexError as error:
        raise ValueError(f"index: {error} — shape {x.shape}") from None


def _frozen(part: Any) -> Any:
    """A part of an index; arrays are copied, as the gradient will need them as they are now."""
    part = part.data if isinstance(part, Tensor) else part
    return part.copy() if hasattr(part, "shape") else part


def gather(x: Tensor, dim: int, index: Tensor | Array) -> Tensor:
    """y[…, k, …] = x[…, index[…, k, …], …] along dim; index has x's shape on every other axis."""
    at = _frozen(index)
    return gather_p(x, at=at, dim=axis_of("gather", dim, x.ndim), shape_in=x.shape)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Pad, or crop by negative counts, from the last axis backwards: (left, right, top, bottom, …) as in PyTorch.

    Raises ValueError for an odd number of counts, more than two per axis, a crop larger than the axis, or a mode other
    than "constant".
    """
    choice("pad", "mode", mode, ("constant",))
    input = tensor("pad", "input", input)
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"pad: {len(pad)} counts {tuple(pad)} for shape {input.shape}; two per padded axis are needed")
    counts = [(0, 0)] * (input.ndim - len(pad) // 2)
    counts += [(pad[k], pad[k + 1]) for k in range(len(pad) - 2, -1, -2)]
    if any(n + low + high < 0 for n, (low, high) in zip(input.shape, counts, strict=True)):
        raise ValueError(f"pad: {tuple(pad)} crops more than shape {input.shape} has")
    kept = tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(input.shape, counts, strict=True))
    x = index(input, kept) if any(low < 0 or high < 0 for low, high in counts) else input
    at = tuple(slice(max(low, 0), max(low, 0) + n) for n, (low, _) in zip(x.shape, counts, strict=True))
    shape = tuple(n + max(low, 0) + max(high, 0) for n, (low, high) in zip(x.shape, counts, strict=True))
    return x if shape == x.shape else pad_p(x, at=at, shape=shape, value=value)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along dim; all other sizes are equal.

    Raises ValueError for no tensors or unequal sizes.
    """
    tensors = [tensor("cat", f"tensor {k}", t) for k, t in enumerate(tensors)]
    if not tensors:
        raise ValueError("cat: no tensors; at least one is needed")
    if len({t.dtype for t in tensors}) > 1:
        raise TypeError(f"cat: dtypes {', '.join(str(t.dtype) for t in tensors)}; they must be equal")
    axis = axis_of("cat", dim, tensors[0].ndim)
    for t in tensors[1:]:
        if [*t.shape[:axis], *t.shape[axis + 1 :]] != [*tensors[0].shape[:axis], *tensors[0].shape[axis + 1 :]]:
            shapes = ", ".join(str(t.shape) for t in tensors)
            raise ValueError(f"cat: shapes {shapes} differ on an axis other than {dim}; they must be equal there")
    backend_of(*(t.data for t in tensors), op="cat")
    while len(tensors) > 1:  # neighbours in pairs, so that a value is copied log₂ n times and not n
        pairs = zip(tensors[::2], tensors[1::2], strict=False)
        joined = [cat_p(x, y, axis=axis, split=x.shape[axis]) for x, y in pairs]
        tensors = joined + tensors[len(tensors) & ~1 :]
    return tensors[0]


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new axis dim.

    Raises ValueError for no tensors or unequal shapes.
    """
    tensors = [tensor("stack", f"tensor {k}", t) for k, t in enumerate(tensors)]
    if not tensors:
        raise ValueError("stack: no tensors; at least one is needed")
    if len({t.shape for t in tensors}) > 1:
        raise ValueError(f"stack: shapes {', '.join(str(t.shape) for t in tensors)}; they must be equal")
    return cat([unsqueeze(t, dim) for t in tensors], axis_of("stack", dim, tensors[0].ndim + 1))

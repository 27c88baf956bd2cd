"""Moving values without changing them: reshape, permute, indexing, pad, cat, stack, gather.

Each is linear, and its adjoint moves the values back: what was taken is put where it came from, and adds up where it
came from more than once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minifcn import kernels
from minifcn.array import Array, backend_of, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import choice, integer, is_int, list_of, number, real, sizes_of, tensor
from minifcn.functional.arithmetic import cast, limits, promoted

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
    if _has_arrays(at):
        return _added(y, _places(y, shape)[at], shape)
    x: Array = module_of(y).zeros(shape, y.dtype)
    x[at] = y
    return x


def _places(like: Array, shape: tuple[int, ...]) -> Array:
    """The number of each element of an array of that shape: reading it by an index tells where the index reads."""
    places: Array = module_of(like).arange(math.prod(shape)).reshape(shape)
    return places


def _added(y: Array, places: Array, shape: tuple[int, ...]) -> Array:
    """An array of that shape with y added at the places: an element may have been read more than once."""
    x: Array = kernels.run("add_at", y.reshape(-1), at=places.reshape(-1), size=math.prod(shape))
    return x.reshape(shape)


def _has_arrays(at: Any) -> bool:
    parts = at if isinstance(at, tuple) else (at,)
    return any(hasattr(part, "shape") or isinstance(part, list) for part in parts)


def _scatter(y: Array, at: Array, dim: int, shape: tuple[int, ...]) -> Array:
    return _added(y, module_of(y).take_along_axis(_places(y, shape), at, dim), shape)


def _pad(x: Array, at: tuple[slice, ...], shape: tuple[int, ...], value: float) -> Array:
    y: Array = module_of(x).full(shape, value, x.dtype)
    y[at] = x
    return y


def reshape(x: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """x with the same elements in another shape; one size may be −1.

    Raises ValueError where the sizes do not multiply to x.size, TypeError for sizes that are no ints.
    """
    wanted = sizes = sizes_of("reshape", "shape", shape)
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known and x.size % known == 0:
        sizes = tuple(x.size // known if n == -1 else n for n in sizes)
    if min(sizes, default=0) < 0 or math.prod(sizes) != x.size:
        raise ValueError(f"reshape: shape {x.shape} has {x.size} elements and cannot become {wanted}")
    return x if sizes == x.shape else reshape_p(x, shape=sizes, shape_in=x.shape)


def axis_of(op: str, dim: Any, ndim: int) -> int:
    """A possibly negative axis as 0 ≤ axis < ndim. A scalar has, as in PyTorch, an axis 0 for those who ask.

    Raises ValueError beyond that, TypeError for anything but an int.
    """
    axis, count = integer(op, "dim", dim), max(ndim, 1)
    if not -count <= axis < count:
        raise ValueError(f"{op}: dim is {axis} for a tensor of {ndim} axes; {-count} to {count - 1} is possible")
    return axis % count


def axes_of(op: str, dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """One axis, several, or all (None), each as axis_of; a repeated axis raises ValueError. A scalar has none."""
    if dim is None:
        return tuple(range(ndim))
    axes = tuple(axis_of(op, d, ndim) for d in (dim if isinstance(dim, list | tuple) else (dim,)))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{op}: dim {dim} names an axis twice")
    return axes if ndim else ()


def permute(x: Tensor, *dims: int | Sequence[int]) -> Tensor:
    """x with its axes in the order given.

    Raises ValueError unless every axis is named once, TypeError for anything but ints.
    """
    order = sizes_of("permute", "dims", dims)
    if len(order) != x.ndim:
        raise ValueError(f"permute: {len(order)} axes {order} for a tensor of {x.ndim}; every axis is needed once")
    return permute_p(x, axes=axes_of("permute", order, x.ndim))


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """x with two axes exchanged. Raises ValueError for an axis that x does not have."""
    a, b = axis_of("transpose", dim0, x.ndim), axis_of("transpose", dim1, x.ndim)
    axes = list(range(x.ndim))
    if axes:
        axes[a], axes[b] = b, a
    return permute_p(x, axes=tuple(axes))


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """x with axes start_dim … end_dim made one; a scalar becomes a vector of one.

    Raises ValueError for axes that x does not have or in the wrong order.
    """
    a, b = axis_of("flatten", start_dim, x.ndim), axis_of("flatten", end_dim, x.ndim)
    if a > b:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return reshape(x, *x.shape[:a], math.prod(x.shape[a : b + 1]), *x.shape[b + 1 :])


def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """x without its axes of size 1, or without those of the axes `dim` that have size 1."""
    drop = axes_of("squeeze", dim, x.ndim)
    return reshape(x, tuple(n for k, n in enumerate(x.shape) if k not in drop or n != 1))


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """x with a new axis of size 1 at dim."""
    at = axis_of("unsqueeze", dim, x.ndim + 1)
    return reshape(x, *x.shape[:at], 1, *x.shape[at:])


def index(x: Tensor, at: Any) -> Tensor:
    """x[at]: integers, slices, …, None, integer and boolean arrays (lists, Tensors), as in PyTorch and NumPy.

    Where integers stand beside arrays they select first, and the arrays index what is left (PyTorch's rule; in NumPy
    such an integer counts as an array). Slices may run backwards, which PyTorch refuses; there is one … at most, and an
    index out of range is refused even where the result has no elements. (On a GPU the values of an index array are not
    looked at: there they wrap around, as CuPy's do.)

    Raises ValueError for an index out of range or too many of them, TypeError for floats, single booleans and uint8
    (which PyTorch takes for a mask and NumPy for positions).
    """
    parts = tuple(_index_part(part) for part in (at if isinstance(at, tuple) else (at,)))
    if not any(hasattr(part, "shape") for part in parts):
        return _indexed(x, parts)
    parts = _with_ellipsis(x, parts)  # of no axes, it would still set arrays apart in NumPy
    if any(is_int(part) for part in parts):
        basic: list[Any] = []
        rest: list[Any] = []
        for part in parts:
            if hasattr(part, "shape"):
                basic += [slice(None)] * _consumes(part)
                rest.append(part)
            else:
                basic.append(part)
                rest += [] if is_int(part) else [slice(None)]
        x, parts = _indexed(x, tuple(basic)), tuple(rest)
    return _indexed(x, parts)


def _indexed(x: Tensor, at: tuple[Any, ...]) -> Tensor:
    try:
        return index_p(x, at=at, shape_in=x.shape)
    except IndexError as error:
        raise ValueError(f"index: {error} — shape {x.shape}") from None


def _index_part(part: Any) -> Any:
    """A part of an index as NumPy takes it; arrays are copied, as the gradient will need them as they are now."""
    if part is None or part is Ellipsis:
        return part
    if is_int(part):
        return int(part)
    if isinstance(part, slice):
        for value in (part.start, part.stop, part.step):
            if value is not None and not is_int(value):
                raise TypeError(f"index: {part} holds {value!r:.40}; ints or nothing are needed")
        if part.step == 0:
            raise ValueError(f"index: {part} has step 0; another is needed")
        return part
    if isinstance(part, list | tuple):
        try:
            part = np.array(part) if part else np.zeros(0, np.int64)
        except ValueError:
            raise ValueError(f"index: {part!r:.60} has rows of different lengths; equal ones are needed") from None
    array = _frozen(part) if isinstance(part, Tensor) or hasattr(part, "shape") else None
    if array is None or array.dtype.kind not in "bi" or isinstance(part, np.bool_):
        what = f"has dtype {array.dtype}" if array is not None else f"is {part!r:.40}"
        raise TypeError(f"index: an index {what}; ints, slices, …, None, int64 or boolean arrays are needed")
    return int(array) if array.ndim == 0 and array.dtype.kind == "i" else array


def _consumes(part: Any) -> int:
    """How many axes of the tensor a part of an index stands for."""
    if part is None:
        return 0
    return part.ndim if hasattr(part, "shape") and part.dtype.kind == "b" else 1


def _with_ellipsis(x: Tensor, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parts with slices in place of "…"."""
    at = [k for k, part in enumerate(parts) if part is Ellipsis]
    missing = x.ndim - sum(_consumes(part) for part in parts if part is not Ellipsis)
    if missing < 0 or len(at) > 1:
        raise ValueError(f"index: {len(parts)} parts, {len(at)} of them '…', for shape {x.shape}; they do not fit")
    return parts if not at else (*parts[: at[0]], *(slice(None),) * missing, *parts[at[0] + 1 :])


def _frozen(part: Any) -> Any:
    """An array of its own, as the gradient will need it as it is now."""
    return (part.data if isinstance(part, Tensor) else part).copy()


def gather(x: Tensor, dim: int, index: Tensor | Array) -> Tensor:
    """y[…, k, …] = x[…, index[…, k, …], …] along dim; index has x's shape on every other axis. An index
    out of range is refused, but on a GPU it wraps around."""
    at = _frozen(index)
    return gather_p(x, at=at, dim=axis_of("gather", dim, x.ndim), shape_in=x.shape)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad, or crop by negative counts, from the last axis backwards: (left, right, top, bottom, …) as in PyTorch.

    Args:
        input: float32 or float64; with a mode other than "constant" without empty axes but the batch's.
        pad: two counts for each padded axis. With a mode other than "constant" the axes before them are N and C, or C
            alone: 2 counts for 2 or 3 axes, 4 for 3 or 4, 6 for 4 or 5.
        mode: "constant" (`value`, 0 by default), "reflect" (… 2 1 | 0 1 2 …), "replicate" (… 0 0 | 0 1 2 …) or
            "circular" (… 8 9 | 0 1 2 …).
        value: for "constant" only.

    Beside a crop, rows are repeated from what is left (PyTorch's "circular" reads some that were cropped), and with a
    mode other than "constant" something must be left.

    Raises:
        ValueError: an odd number of counts, too many of them, a crop larger than the axis, more reflected rows than
            there are, or an unknown mode. TypeError: counts that are no ints.

    >>> pad(Tensor([[0.0, 1.0, 2.0]]), (2, 1), mode="reflect")
    Tensor([[2., 1., 0., 1., 2., 1.]], dtype=float32)
    """
    if value is not None:
        value = number("pad", "value", value)
    choice("pad", "mode", mode, ("constant", "reflect", "replicate", "circular"))
    input = tensor("pad", "input", input)
    if not isinstance(pad, Sequence) or isinstance(pad, str) or not all(is_int(k) for k in pad):
        raise TypeError(f"pad: pad is {pad!r}; a sequence of ints is needed")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"pad: {len(pad)} counts {tuple(pad)} for shape {input.shape}; two per padded axis are needed")
    counts = [(0, 0)] * (input.ndim - len(pad) // 2)
    counts += [(pad[k], pad[k + 1]) for k in range(len(pad) - 2, -1, -2)]
    sizes = tuple(int(n + low + high) for n, (low, high) in zip(input.shape, counts, strict=True))
    if mode == "constant":
        if any(n + min(low, 0) + min(high, 0) < 0 for n, (low, high) in zip(input.shape, counts, strict=True)):
            raise ValueError(f"pad: {tuple(pad)} crops more than shape {input.shape} has; smaller counts are needed")
        if (
            value
            and sizes != input.shape
            and input.dtype.kind in "iu"
            and not limits(input.dtype)[0] <= value <= limits(input.dtype)[1]
        ):
            raise ValueError(f"pad: value is {value} for {input.dtype}; one that it can hold is needed")
        return _pad_constant(input, counts, 0.0 if value is None else value)
    if value:
        raise ValueError(f'pad: value is {value} with mode "{mode}"; it is for "constant" only')
    if len(pad) not in (2, 4, 6) or not 1 <= input.ndim - len(pad) // 2 <= 2:
        raise ValueError(
            f'pad: {len(pad)} counts {tuple(pad)} with mode "{mode}" for shape {input.shape}; two for each axis after '
            f"(N, C) or (C,) are needed"
        )
    if 0 in input.shape[-1 - len(pad) // 2 :] or min(sizes[-(len(pad) // 2) :]) < 1:
        raise ValueError(
            f'pad: from shape {input.shape} to {sizes} with mode "{mode}"; only the batch axis may be empty'
        )
    x = input
    for axis, (low, high) in enumerate(counts):
        if low or high:
            rows = _mirrored(mode, x.shape[axis], low, high)
            x = index(x, (slice(None),) * axis + (module_of(x.data).asarray(rows),))
    return x


def _pad_constant(x: Tensor, counts: list[tuple[int, int]], value: float) -> Tensor:
    if any(low < 0 or high < 0 for low, high in counts):
        kept = (slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(x.shape, counts, strict=True))
        x = index(x, tuple(kept))
    at = tuple(slice(max(low, 0), max(low, 0) + n) for n, (low, _) in zip(x.shape, counts, strict=True))
    shape = tuple(n + max(low, 0) + max(high, 0) for n, (low, high) in zip(x.shape, counts, strict=True))
    return x if shape == x.shape else pad_p(x, at=at, shape=shape, value=value)


def _mirrored(mode: str, size: int, low: int, high: int) -> Array:
    """Which row each row of the padded axis repeats."""
    kept = size + min(low, 0) + min(high, 0)
    most = {"reflect": size - 1, "replicate": max(low, high), "circular": kept}[mode]
    if max(low, high) > most:
        raise ValueError(
            f'pad: {low} and {high} rows with mode "{mode}" along an axis of {size}; at most {most} is possible'
        )
    rows = np.arange(-low, size + high)
    if mode == "circular":  # what is cropped off does not come round
        first = max(-low, 0)
        return first + (rows - first) % kept
    if mode == "replicate":
        return np.clip(rows, 0, size - 1)
    rows = np.abs(rows)  # turned back at 0, and then at size − 1
    return size - 1 - np.abs(size - 1 - rows)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along dim; all other sizes are equal. Of mixed dtypes the result has the widest;
    vectors of no elements fit anywhere (as PyTorch lets them).

    Raises ValueError for no tensors, scalars or unequal sizes, TypeError for anything but a list or tuple of tensors.
    """
    parts = list_of("cat", "tensors", tensors)
    if any(t.ndim == 0 for t in parts):
        raise ValueError("cat: a scalar cannot be put after others; stack makes a vector of scalars")
    backend_of(*(t.data for t in parts), op="cat")
    parts = one_dtype("cat", parts)
    first = next((t for t in parts if t.shape != (0,)), parts[0])
    axis = axis_of("cat", dim, first.ndim)
    nothing = (*first.shape[:axis], 0, *first.shape[axis + 1 :])
    parts = [reshape(t, nothing) if t.shape == (0,) else t for t in parts]
    for t in parts:
        if t.ndim != first.ndim or (*t.shape[:axis], 0, *t.shape[axis + 1 :]) != nothing:
            shapes = ", ".join(str(t.shape) for t in parts)
            raise ValueError(f"cat: shapes {shapes} differ on an axis other than {dim}; they must be equal there")
    return _joined(parts, axis)


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    while len(parts) > 1:  # neighbours in pairs, so that a value is copied log₂ n times and not n
        pairs = zip(parts[::2], parts[1::2], strict=False)
        joined = [cat_p(x, y, axis=axis, split=x.shape[axis]) for x, y in pairs]
        parts = joined + parts[len(parts) & ~1 :]
    return parts[0]


def one_dtype(op: str, parts: list[Tensor]) -> list[Tensor]:
    """The tensors in the widest of their dtypes. Raises TypeError for dtypes that minifcn does not compute with."""
    for t in parts:
        real(op, t)
    dtype = functools.reduce(functools.partial(promoted, op), (t.dtype for t in parts))
    return [cast(t, dtype) for t in parts]


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new axis dim; of mixed dtypes the result has the widest.

    Raises ValueError for no tensors or unequal shapes, TypeError for anything but a list or tuple of tensors.
    """
    parts = list_of("stack", "tensors", tensors)
    backend_of(*(t.data for t in parts), op="stack")
    parts = one_dtype("stack", parts)
    if len({t.shape for t in parts}) > 1:
        raise ValueError(f"stack: shapes {', '.join(str(t.shape) for t in parts)}; they must be equal")
    axis = axis_of("stack", dim, parts[0].ndim + 1)
    return _joined([unsqueeze(t, axis) for t in parts], axis)

"""Argument checks that several functions share; each raises one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minifcn.array import FLOATS, Array, is_array
from minifcn.autograd import Tensor
from minifcn.geometry import LARGEST_SIZE


def tensor(op: str, name: str, value: object) -> Tensor:
    """`value` as a Tensor; an array is wrapped. Raises TypeError for anything else."""
    if isinstance(value, Tensor):
        return value
    if is_array(value):
        return Tensor(value)
    raise TypeError(f"{op}: {name} is a {type(value).__name__}; a Tensor or an array is needed")


def list_of(op: str, name: str, values: object) -> list[Tensor]:
    """A list or tuple of Tensors or arrays, at least one, as Tensors."""
    if not isinstance(values, list | tuple):
        raise TypeError(f"{op}: {name} is a {type(values).__name__}; a list or tuple of Tensors is needed")
    if not values:
        raise ValueError(f"{op}: no {name}; at least one is needed")
    return [tensor(op, f"{name}[{k}]", t) for k, t in enumerate(values)]


def optional(op: str, name: str, value: object) -> Tensor | None:
    """As tensor, but None stays None."""
    return None if value is None else tensor(op, name, value)


def floats(op: str, **tensors: Tensor | None) -> None:
    """All float32 or all float64, else TypeError."""
    given = {name: t.dtype for name, t in tensors.items() if t is not None}
    kinds = set(given.values())
    if not kinds <= set(FLOATS) or len(kinds) > 1:
        said = ", ".join(f"{name} {dtype}" for name, dtype in given.items())
        raise TypeError(f"{op}: dtypes differ or are not floats ({said}); all float32 or all float64 are needed")


def real(op: str, x: Tensor) -> None:
    """Raises TypeError unless x holds float32, float64, integers or booleans: the dtypes that minifcn computes with."""
    if x.dtype.kind not in "biu" and x.dtype not in FLOATS:
        raise TypeError(f"{op}: input has dtype {x.dtype}; float32, float64, integers or booleans are needed")


def numeric(op: str, x: Tensor) -> None:
    """As real, without booleans."""
    real(op, x)
    if x.dtype.kind == "b":
        raise TypeError(f"{op}: input has dtype bool; numbers are needed, such as input.to(np.int64)")


def batched(op: str, x: Tensor) -> tuple[Tensor, bool]:
    """(x as (N,C,H,W), whether it had no batch axis). Raises ValueError unless x has 3 or 4 axes."""
    if x.ndim == 4:
        return x, False
    if x.ndim == 3:
        return x.reshape(1, *x.shape), True
    raise ValueError(f"{op}: input has {x.ndim} axes, shape {x.shape}; (N, C, H, W) or (C, H, W) is needed")


def unbatched(y: Tensor, was_unbatched: bool) -> Tensor:
    """y without the batch axis that `batched` added."""
    return y.reshape(*y.shape[1:]) if was_unbatched else y


def not_empty(op: str, x: Tensor) -> None:
    """Raises ValueError where another axis than the batch's is empty."""
    if 0 in x.shape[1:]:
        raise ValueError(f"{op}: input has shape {x.shape}; only the batch axis may be empty")


def raw(value: Tensor | Array) -> Array:
    """The array of a Tensor or an array: integer targets and running statistics may be either."""
    return value.data if isinstance(value, Tensor) else value


def is_int(value: object) -> bool:
    """Whether it is an integer, of Python or NumPy; True, False and arrays are none."""
    return hasattr(value, "__index__") and not (
        isinstance(value, bool | np.bool_ | Tensor | np.ndarray) or hasattr(value, "__cuda_array_interface__")
    )


def integer(op: str, name: str, value: Any, minimum: int | None = None) -> int:
    """`value` as an int. Raises TypeError if it is none, ValueError below the minimum."""
    if not is_int(value):
        raise TypeError(f"{op}: {name} is {value!r:.60}; an int is needed")
    number = int(value)
    if minimum is not None and number < minimum:
        raise ValueError(f"{op}: {name} is {number}; at least {minimum} is needed")
    if abs(number) > LARGEST_SIZE:
        raise ValueError(f"{op}: {name} is {number}; at most {LARGEST_SIZE} is possible")
    return number


def number(op: str, name: str, value: Any) -> float:
    """`value` as a float. Raises TypeError if it is no real number."""
    if not isinstance(value, int | float | np.integer | np.floating | np.bool_):
        raise TypeError(f"{op}: {name} is {value!r:.60}; a number is needed")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{op}: {name} is {value!s:.20}…, which is no float; a smaller number is needed") from None


def flag(op: str, name: str, value: Any) -> bool:
    """Raises TypeError unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} is {value!r:.60}; True or False is needed")
    return value


def sizes_of(op: str, name: str, values: Sequence[Any]) -> tuple[int, ...]:
    """Ints, given one by one or as one sequence. Raises TypeError for anything else."""
    given = values[0] if len(values) == 1 and isinstance(values[0], list | tuple) else values
    if not all(is_int(n) for n in given):
        raise TypeError(f"{op}: {name} is {tuple(given)!r:.60}; ints are needed")
    return tuple(integer(op, name, n) for n in given)


def choice(op: str, name: str, value: Any, options: tuple[str, ...]) -> None:
    """Raises ValueError unless value is one of the options."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{op}: {name} is {value!r:.60}; one of {', '.join(map(repr, options))} is needed")


def channel_vector(op: str, name: str, value: Tensor | Array, channels: int) -> None:
    """Raises ValueError unless value has shape (channels,)."""
    if value.shape != (channels,):
        raise ValueError(
            f"{op}: {name} has shape {value.shape} but there are {channels} channels; ({channels},) is needed"
        )


def probability(op: str, p: Any) -> float:
    """p as a float from 0 to 1."""
    value = number(op, "p", p)
    if not 0 <= value <= 1 or math.isnan(value):
        raise ValueError(f"{op}: p is {p}; a probability from 0 to 1 is needed")
    return value

"""Argument checks that several functions share; each raises one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn.array import FLOATS, Array
from minifcn.autograd import Tensor


def tensor(op: str, name: str, value: object) -> Tensor:
    """`value` as a Tensor; an array is wrapped. Raises TypeError for anything else."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) or hasattr(value, "__cuda_array_interface__"):
        return Tensor(value)  # type: ignore[arg-type]
    raise TypeError(f"{op}: {name} is a {type(value).__name__}; a Tensor or an array is needed")


def floats(op: str, **tensors: Tensor | None) -> None:
    """All float32 or all float64, else TypeError."""
    given = {name: t.dtype for name, t in tensors.items() if t is not None}
    kinds = set(given.values())
    if not kinds <= set(FLOATS) or len(kinds) > 1:
        said = ", ".join(f"{name} {dtype}" for name, dtype in given.items())
        raise TypeError(f"{op}: dtypes differ or are not floats ({said}); all float32 or all float64 are needed")


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


def raw(value: Tensor | Array) -> Array:
    """The array of a Tensor or an array: integer targets and running statistics may be either."""
    return value.data if isinstance(value, Tensor) else value


def choice(op: str, name: str, value: Any, options: tuple[str, ...]) -> None:
    """Raises ValueError unless value is one of the options."""
    if value not in options:
        raise ValueError(f"{op}: {name} is {value!r}; one of {', '.join(map(repr, options))} is needed")


def channel_vector(op: str, name: str, value: Tensor | Array, channels: int) -> None:
    """Raises ValueError unless value has shape (channels,)."""
    if value.shape != (channels,):
        raise ValueError(
            f"{op}: {name} has shape {value.shape} but there are {channels} channels; ({channels},) is needed"
        )

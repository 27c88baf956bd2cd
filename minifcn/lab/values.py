"""Numbers for a layer whose weights and scores nobody gave, and weights that somebody did."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn.geometry import Pair, pair
from minifcn.nn.init import tent
from minifcn.weights import read

_SHOWN = 6  # arrays in a sentence


def whole_numbers(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """1 … 9, then 2 … 9, 1, and so on in reading order: sums that a reader can check, without rounding, and rows that
    differ whatever their length.

    >>> whole_numbers((2, 9))
    array([[1., 2., 3., 4., 5., 6., 7., 8., 9.],
           [2., 3., 4., 5., 6., 7., 8., 9., 1.]])
    """
    k = np.arange(math.prod(shape))
    return (1 + (k + k // 9) % 9).reshape(shape).astype(np.float64)


def bilinear_filter(kernel: int | Pair) -> NDArray[Any]:
    """(1, 1, I, J): the bilinear filter of stride ⌈k/2⌉ along each axis.

    >>> bilinear_filter(4)[0, 0, 0] * 16
    array([1., 3., 3., 1.])
    """
    height, width = pair(kernel, "bilinear_filter", "kernel", 1)
    return np.outer(tent(height), tent(width))[None, None]


def read_filter(source: str | os.PathLike[str]) -> NDArray[Any]:
    """A filter (O,C,I,J), float32 or float64, from FILE or FILE:NAME.

    Args:
        source: a file that `minifcn.weights.read` reads, and the name of an array in it, which is not needed where just
            one array can be a filter. Arrays of (I, J) are taken as one channel; others must have four axes.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it cannot be read, or holds no filter, or several.
    """
    path, name = _split(str(source))
    arrays = read(path)
    if name is not None and name not in arrays:
        raise ValueError(f"tconv: {path} holds no array {name!r}; it has {_list(arrays)}")
    fitting = {key: a for key, a in arrays.items() if a.ndim in (2, 4) and a.size and name in (None, key)}
    if len(fitting) != 1:
        found = "several filters" if fitting else "no filter"
        raise ValueError(
            f"tconv: {path} holds {found}: {_list(fitting or arrays)}; one array of (I, J) or (O, C, I, J) is needed, "
            f"which FILE:NAME selects"
        )
    (w,) = fitting.values()
    if not np.isfinite(w).all():
        broken = int((~np.isfinite(w)).sum())
        raise ValueError(f"tconv: the filter in {path} holds {broken} NaN or Inf; numbers are needed")
    w = w if w.dtype == np.float32 else w.astype(np.float64)
    return w if w.ndim == 4 else w[None, None]


def _split(source: str) -> tuple[Path, str | None]:
    """The file, and the name after the colon (a colon may also be part of the file's name)."""
    if not Path(source).exists() and ":" in source:
        path, _, name = source.rpartition(":")
        return Path(path), name
    return Path(source), None


def _list(arrays: dict[str, NDArray[Any]]) -> str:
    """A network's file has many: some are enough to see what they are called."""
    shown = [f"{name} {a.shape}" for name, a in list(arrays.items())[:_SHOWN]]
    if len(arrays) > _SHOWN:
        shown.append(f"and {len(arrays) - _SHOWN} more")
    return ", ".join(shown) or "nothing"

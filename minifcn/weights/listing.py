"""What a weights file holds, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn.weights.faults import shown

_PIECE = 1 << 16  # values that are looked at together, so that a table needs no memory beside the arrays


@dataclass(frozen=True, slots=True)
class Extent:
    """What values an array has.

    Args:
        low, high: the least and the greatest finite value, None where there is none.
        nans, infinities: how many values are NaN, and infinite.
    """

    low: float | None
    high: float | None
    nans: int
    infinities: int


def extent(array: NDArray[Any]) -> Extent:
    """What values an array of booleans, integers or floats has, of any shape.

    >>> extent(np.array([1.5, -2.0, np.nan]))
    Extent(low=-2.0, high=1.5, nans=1, infinities=0)
    """
    lows, highs, nans, infinities = [], [], 0, 0
    flags: Any = ["external_loop", "buffered", "zerosize_ok"]
    with np.nditer(array, flags, buffersize=_PIECE) as pieces:
        piece: Any  # the stubs have a tuple of arrays, which it is for several operands
        for piece in pieces:
            finite = np.isfinite(piece)
            if not finite.all():
                missing = int(np.isnan(piece).sum())
                nans += missing
                infinities += piece.size - int(finite.sum()) - missing
                piece = piece[finite]
            if piece.size:
                lows.append(piece.min().item())
                highs.append(piece.max().item())
    return Extent(min(lows, default=None), max(highs, default=None), nans, infinities)


def table(arrays: Mapping[str, NDArray[Any]]) -> str:
    """A line for each array: name, shape, dtype, bytes and the range of its values, with a warning of NaN and Inf.

    Args:
        arrays: name → array of booleans, integers or floats, as `minifcn.weights.read` returns them.

    >>> print(table({"conv.weight": np.ones((8, 3, 3, 3), np.float32), "conv.bias": np.array([0.5, np.inf])}))
    name         shape    dtype    bytes  min … max
    conv.weight  8×3×3×3  float32    864  1 … 1
    conv.bias    2        float64     16  0.5 … 0.5  (1 Inf)
    2 arrays, 218 values, 880 bytes; NOT all finite: 0 NaN and 1 Inf
    """
    rows = [("name", "shape", "dtype", "bytes", "min … max")]
    nans = infinities = 0
    for name, array in arrays.items():
        found = extent(array)
        nans, infinities = nans + found.nans, infinities + found.infinities
        shape = "×".join(map(str, array.shape)) or "scalar"
        rows.append((shown(name), shape, str(array.dtype), f"{array.nbytes:,}", _range(found)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{name:{widths[0]}}  {shape:{widths[1]}}  {dtype:{widths[2]}}  {size:>{widths[3]}}  {values}".rstrip()
        for name, shape, dtype, size, values in rows
    ]
    values, size = sum(array.size for array in arrays.values()), sum(array.nbytes for array in arrays.values())
    total = f"{len(arrays):,} array{'s' * (len(arrays) != 1)}, {values:,} values, {size:,} bytes"
    if nans or infinities:
        total += f"; NOT all finite: {nans:,} NaN and {infinities:,} Inf"
    return "\n".join([*lines, total])


def _number(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(int(value))


def _range(found: Extent) -> str:
    text = "" if found.low is None or found.high is None else f"{_number(found.low)} … {_number(found.high)}"
    bad = [f"{count:,} {what}" for count, what in ((found.nans, "NaN"), (found.infinities, "Inf")) if count]
    return f"{text}  ({', '.join(bad)})" if bad else text

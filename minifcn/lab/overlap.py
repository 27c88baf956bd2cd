"""How many products meet in each pixel, and whether phases that differ show as a checkerboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn.geometry import ConvGeometry
from minifcn.lab.arithmetic import phases
from minifcn.lab.words import counted, number


def row_counts(geom: ConvGeometry, axis: int) -> NDArray[np.int64]:
    """(H,): how many pairs of a score and a tap feed each row along an axis.

    >>> from minifcn.lab.arithmetic import layer
    >>> row_counts(layer(3, kernel=3, stride=2, padding=1), 0)
    array([1, 2, 1, 2, 1])
    """
    counts = np.zeros(geom.x_hw[axis], np.int64)
    first = np.arange(geom.y_hw[axis]) * geom.stride[axis] - geom.padding[axis]  # the row that tap 0 reaches
    for i in range(geom.w_hw[axis]):
        rows = first + i * geom.dilation[axis]
        counts[rows[(rows >= 0) & (rows < len(counts))]] += 1  # one tap reaches no row twice
    return counts


def inside(geom: ConvGeometry, axis: int) -> range:
    """The rows around the middle in which no tap misses its score.

    >>> from minifcn.lab.arithmetic import layer
    >>> inside(layer(5, kernel=4, stride=2, padding=1), 0)
    range(1, 9)
    """
    whole = np.zeros(geom.x_hw[axis], np.int64)
    for phase in phases(geom, axis):
        whole[phase.rows.start :: geom.stride[axis]] = len(phase.taps)
    short = np.flatnonzero(row_counts(geom, axis) < whole)
    middle = len(whole) // 2
    return range(int(max(short[short < middle] + 1, default=0)), int(min(short[short >= middle], default=len(whole))))


def overlap(geom: ConvGeometry) -> NDArray[np.int64]:
    """(H, W): how many products add up in each pixel, the transposed convolution of ones with ones.

    The count of a pixel is that of its row times that of its column.

    >>> from minifcn.lab.arithmetic import layer
    >>> overlap(layer(3, kernel=3, stride=2, padding=1, output_padding=1))[1]
    array([2, 4, 2, 4, 2, 2])
    """
    return np.outer(row_counts(geom, 0), row_counts(geom, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Checkerboard:
    """Whether, and why, a constant comes out as a pattern that repeats with the stride.

    Inside is where no tap misses its score: away from the image's border.

    Args:
        counts: (s, s), products that add up inside, by phase.
        sums: (O, C, s, s), what input channel o, where it is 1 everywhere, adds to output channel c inside, by phase;
            None without a filter.
        even: whether all phases are alike (in the sums of every pair of channels where there is a filter, in their
            counts otherwise).
        verdict: a sentence.
    """

    counts: NDArray[np.int64]
    sums: NDArray[Any] | None
    even: bool
    verdict: str


def checkerboard(geom: ConvGeometry, w: NDArray[Any] | None = None) -> Checkerboard:
    """Compare the phases: their numbers of taps, and the sums of the filter's (O,C,I,J) taps.

    Taps are spread evenly over the phases if s divides k (and shares no divisor with d): Odena et al. 2016,
    "Deconvolution and checkerboard artifacts". But even counts do not make even sums, nor uneven ones uneven sums; with
    a filter the sums decide. They are called equal within the rounding of the filter's dtype.

    Raises ValueError for a filter of another shape than the geometry's.

    >>> from minifcn.lab.arithmetic import layer
    >>> checkerboard(layer(5, kernel=3, stride=2, padding=1)).counts
    array([[4, 2],
           [2, 1]])
    """
    by_axis = phases(geom, 0), phases(geom, 1)
    rows, columns = ([len(phase.taps) for phase in axis] for axis in by_axis)
    counts = np.outer(rows, columns).astype(np.int64)
    least, most = int(counts.min()), int(counts.max())
    per_pixel = f"every pixel inside gets {counted(most, 'product')}"
    if least < most:
        per_pixel = f"a pixel inside gets {least} to {most} products, by its phase"
    if w is None:
        even = least == most
        return Checkerboard(counts, None, even, f"{'even' if even else 'uneven'}: {per_pixel}")
    if w.shape != geom.w_shape:
        raise ValueError(f"checkerboard: w has shape {w.shape} and the geometry {geom.w_shape}; they must be equal")
    sums = np.zeros((geom.o, geom.c, *geom.stride), np.result_type(w, np.float32))
    for a in by_axis[0]:
        part = w[:, :, a.taps].sum(axis=2, dtype=sums.dtype)  # (O, C, J)
        for b in by_axis[1]:
            if a.taps and b.taps:
                sums[:, :, a.phase, b.phase] = part[:, :, b.taps].sum(axis=2)
    spread = sums.max(axis=(2, 3)) - sums.min(axis=(2, 3))  # (O, C)
    even = bool((spread <= 8 * np.finfo(sums.dtype).eps * np.abs(w).sum(axis=(2, 3), dtype=sums.dtype)).all())
    o, c = np.unravel_index(spread.argmax(), spread.shape)
    low, high = float(sums[o, c].min()), float(sums[o, c].max())
    if even:
        link = "and" if least == most else "but"
        verdict = f"no checkerboard: {per_pixel}, {link} the weights of every phase have the same sum"
    else:
        link = "but" if least == most else "and"
        verdict = f"checkerboard: {per_pixel}, {link} the phases' weights add up to between "
        digits = 4 if number(low, 4) != number(high, 4) else 12
        verdict += f"{number(low, digits)} and {number(high, digits)}"
        verdict += f" from channel {o} to channel {c}, where they differ most" if spread.size > 1 else ""
    if least == 0:
        verdict += "; phases without a tap are holes, 0 whatever the scores are"
    return Checkerboard(counts, sums, even, verdict)

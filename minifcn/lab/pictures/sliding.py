"""How a filter slides over an input with zeros between and around its cells: the integers under the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

from minifcn.geometry import ConvGeometry, Pair
from minifcn.lab.arithmetic import equivalent_convolution

Kind = Literal["tconv", "conv"]


@dataclass(frozen=True, slots=True)
class Slide:
    """One axis of a filter that slides over a map: the input, with zeros between and around its cells.

    Cell t of the map holds input cell t / spread where that is one, and 0 otherwise. At output u the filter's taps lie
    on the cells start + u·step + m·dilation, m = 0 … taps − 1.

    Args:
        cells: of the map, those cut off included.
        kept: those not cut off.
        spread: from one input cell to the next.
        inputs, outputs, taps: how many.
        start, step, dilation: as above.
        turned: whether the filter's last tap comes first, as in a transposed convolution.
    """

    cells: range
    kept: range
    spread: int
    inputs: int
    outputs: int
    taps: int
    start: int
    step: int
    dilation: int
    turned: bool

    def source(self, t: int) -> int | None:
        """The input cell at t, or None for a zero."""
        cell, rest = divmod(t, self.spread)
        return cell if rest == 0 and 0 <= cell < self.inputs else None

    def footprint(self, u: int) -> list[Pair]:
        """(t, tap) for every tap at output u."""
        taps = range(self.taps - 1, -1, -1) if self.turned else range(self.taps)
        return [(self.start + u * self.step + m * self.dilation, tap) for m, tap in enumerate(taps)]

    def meetings(self, u: int) -> list[Pair]:
        """(input cell, tap) for every tap at output u that does not lie on a zero."""
        return [(cell, tap) for t, tap in self.footprint(u) if (cell := self.source(t)) is not None]


def slides(geom: ConvGeometry, kind: Kind) -> tuple[Slide, Slide]:
    """How the filter slides along height and width.

    "conv" goes over the padded image with its stride. "tconv" is the convolution of stride 1 that is the transposed one
    (`arithmetic.equivalent_convolution`): over scores s cells apart, with p′ = d(k−1) − padding zeros around them,
    output_padding more at the end, and the filter turned by 180°; where p′ < 0, that many cells are cut off.

    >>> from minifcn.lab import layer
    >>> height, _ = slides(layer(3, kernel=3, stride=2, padding=1), "tconv")
    >>> height.cells, [height.source(t) for t in height.cells]
    (range(-1, 6), [None, 0, None, 1, None, 2, None])
    >>> height.footprint(1)
    [(0, 2), (1, 1), (2, 0)]
    """
    height, width = (_slide(geom, axis, kind) for axis in range(2))
    return height, width


def _slide(geom: ConvGeometry, axis: int, kind: Kind) -> Slide:
    taps, dilation = geom.w_hw[axis], geom.dilation[axis]
    if kind == "conv":
        size, padding = geom.x_hw[axis], geom.padding[axis]
        padded = range(-padding, size + padding)
        step = geom.stride[axis]
        return Slide(padded, padded, 1, size, geom.y_hw[axis], taps, -padding, step, dilation, turned=False)
    direct, scores, stride = equivalent_convolution(geom), geom.y_hw[axis], geom.stride[axis]
    first, last = -direct.before[axis], (scores - 1) * stride + direct.after[axis]
    cells = range(min(first, 0), max(last, (scores - 1) * stride) + 1)
    kept = range(first, last + 1)
    return Slide(cells, kept, stride, scores, geom.x_hw[axis], taps, first, 1, dilation, turned=True)


@dataclass(frozen=True, slots=True)
class Touch:
    """A tap of the filter on a cell of the map; `source` is the input cell there, None for a zero."""

    cell: Pair
    tap: Pair
    source: Pair | None


def footprint(over: tuple[Slide, Slide], at: Pair) -> list[Touch]:
    """Every tap of the filter at output `at`, row by row."""
    touches = []
    for (row, i), (column, j) in product(over[0].footprint(at[0]), over[1].footprint(at[1])):
        p, q = over[0].source(row), over[1].source(column)
        touches.append(Touch((row, column), (i, j), None if p is None or q is None else (p, q)))
    return touches

"""What `python -m minifcn tconv` prints: one transposed convolution explained, every number computed on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn import kernels
from minifcn.geometry import AXES, ConvGeometry
from minifcn.lab import ways
from minifcn.lab.arithmetic import (
    checkerboard,
    equivalent_convolution,
    feeding,
    formula,
    image_sizes,
    output_padding,
    overlap,
    pytorch_line,
    relationship,
)
from minifcn.lab.bilinear import bilinear_check

Numbers = NDArray[Any]

Way = Callable[[Numbers, Numbers, ConvGeometry], Numbers]

WIDTH = 100  # characters in a line
ROWS = 40  # of a table that is shown in full
MOST = 2**24  # multiplications or matrix entries: what would take more is left out, and said to be


def explain(y: Numbers, w: Numbers, geom: ConvGeometry, *, bilinear: bool = False) -> str:
    """A report on one transposed convolution.

    Args:
        y: scores (1,O,P,Q).
        w: filter (O,C,I,J).
        geom: from `layer`.
        bilinear: whether to say how far the filter is from bilinear interpolation.

    Returns:
        Text in sections: size, who feeds whom, the matrix, the adjoint identity, four ways to compute it, the overlap,
        and bilinear interpolation.
    """
    sections: list[tuple[str, Iterator[str]]] = [
        ("Size", _size(geom)),
        ("Who feeds whom", _feeding(geom)),
        ("The matrix", _matrix(w, geom)),
        ("The adjoint", _adjoint(y, w, geom)),
        ("Four ways to compute it", _four_ways(y, w, geom)),
        ("Overlap", _overlap(w, geom)),
    ]
    if bilinear:
        sections.append(("Bilinear interpolation", _bilinear(w, geom)))
    text = [_heading(geom), pytorch_line(geom)]
    for title, lines in sections:
        text += ["", title, *(f"  {line}".rstrip() for line in lines)]
    return "\n".join(text)


def _heading(geom: ConvGeometry) -> str:
    (p, q), (h, v) = geom.y_hw, geom.x_hw
    through = f", {geom.o} to {geom.c} channels" if (geom.o, geom.c) != (1, 1) else ""
    return f"Transposed convolution of {p}×{q} scores to an image of {h}×{v}{through}"


def _alike(geom: ConvGeometry) -> bool:
    """Whether the width is as the height."""
    both = geom.x_hw, geom.y_hw, geom.w_hw, geom.stride, geom.padding, geom.dilation
    return all(height == width for height, width in both)


def _axes(geom: ConvGeometry) -> list[tuple[int, str]]:
    """(axis, what to call it); one of them where they are alike."""
    return [(0, "height and width")] if _alike(geom) else list(enumerate(AXES))


def _size(geom: ConvGeometry) -> Iterator[str]:
    yield "(input − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1"
    for axis, name in _axes(geom):
        which = relationship(geom, axis)
        a, padding = output_padding(geom)[axis], geom.padding[axis]
        yield f"{name}: {formula(geom, axis)}"
        yield f"  Dumoulin & Visin's relationship {which.number}, {which.title}: {which.rule}"
        if which.remark:
            yield f"  {which.remark}"
        sizes = image_sizes(geom)[axis]
        if len(sizes) > 1:
            listed = " or ".join(map(str, sizes)) if len(sizes) <= 4 else f"{sizes[0]} to {sizes[-1]}"
            yield f"  The matching convolution makes {geom.y_hw[axis]} scores of an image of {listed};"
            yield f"  output_padding {a} chooses {geom.x_hw[axis]}."
        if padding:
            yield f"  padding pads nothing, it crops: {padding} at the start and {padding} at the end."
        if a:
            kept = min(a, padding)
            unreached = f", and {a - kept} that no score reaches" if kept < a else ""
            yield f"  output_padding pads nothing, it crops less: it gives back {kept} at the end{unreached}."


def _feeding(geom: ConvGeometry) -> Iterator[str]:
    yield "h = p·stride + i·dilation − padding: image row h, score row p, filter row i"
    for axis, name in _axes(geom):
        if geom.x_hw[axis] > ROWS:
            yield f"{name}: {geom.x_hw[axis]} rows are too many to list"
            continue
        letters = ("h", "p", "i") if axis == 0 else ("v", "q", "j")
        pairs = [feeding(geom, axis, h) for h in range(geom.x_hw[axis])]
        yield f"{name}:"
        cells = [
            [letters[0], *map(str, range(geom.x_hw[axis]))],
            [letters[1], *("+".join(str(p) for p, _ in met) or "–" for met in pairs)],
            [letters[2], *("+".join(str(i) for _, i in met) or "–" for met in pairs)],
        ]
        yield from (f"  {line}" for line in _columns(cells))


def _columns(cells: list[list[str]], width: int = WIDTH) -> Iterator[str]:
    """Lines of a table with a heading at the left; as many columns to a line as fit."""
    first = max(len(row[0]) for row in cells)
    sizes = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    start = 1
    while start < len(cells[0]):
        stop, used = start, first
        while stop < len(cells[0]) and (stop == start or used + sizes[stop] + 2 <= width):
            used += sizes[stop] + 2
            stop += 1
        if start > 1:
            yield ""
        for row in cells:
            yield row[0].ljust(first) + "".join("  " + row[k].rjust(sizes[k]) for k in range(start, stop))
        start = stop


def _matrix(w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    rows, columns = geom.o * geom.y_hw[0] * geom.y_hw[1], geom.c * geom.x_hw[0] * geom.x_hw[1]
    yield f"The convolution is a matrix C of {rows}×{columns}, and the transposed convolution multiplies by Cᵀ,"
    if rows * columns > MOST:
        yield f"which is too large to write down here ({rows * columns:.1e} entries)."
        return
    c = ways.conv_matrix(w, geom)
    yield f"{columns}×{rows}. {np.count_nonzero(c)} of {c.size} entries are not 0."
    shown = [_grid(matrix) for matrix in (c, c.T)]
    if all(len(lines) <= ROWS and max(map(len, lines)) <= WIDTH for lines in shown):
        for title, lines in zip(("C =", "Cᵀ ="), shown, strict=True):
            yield title
            yield from (f"  {line}" for line in lines)
        return
    yield f"It is shown in full where both fit {ROWS} lines of {WIDTH} characters; --input 2x2 makes a small one."
    first = c[0].reshape(geom.c, *geom.x_hw)[0]
    lines = _grid(first) if len(first) <= ROWS and first.shape[1] * 2 <= WIDTH else []
    if lines and len(lines[0]) <= WIDTH:
        yield "Its first row, as an image: the filter where score (0, 0) sees it."
        yield from (f"  {line}" for line in lines)


def _grid(values: Numbers) -> list[str]:
    """A matrix as lines; zeros are dots, so that the pattern shows."""
    cells = [[_number(value) if value else "·" for value in row] for row in values]
    width = max(len(cell) for row in cells for cell in row)
    return [" ".join(cell.rjust(width) for cell in row) for row in cells]


def _number(value: float) -> str:
    """As short as it can be read.

    >>> _number(3.0), _number(0.5625), _number(-1 / 3)
    ('3', '0.5625', '−0.33333')
    """
    return f"{value:.5g}".replace("-", "−")


def _adjoint(y: Numbers, w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    x = np.random.default_rng(0).integers(-9, 10, geom.x_shape).astype(w.dtype)
    y = np.random.default_rng(1).integers(-9, 10, geom.y_shape).astype(w.dtype)
    left = float(np.vdot(kernels.run("conv2d", x, w, geom=geom), y))
    right = float(np.vdot(x, kernels.run("conv_transpose2d", y, w, geom=geom)))
    yield "For whole numbers x and y, drawn from −9 … 9, and this filter:"
    yield f"  ⟨conv2d(x, w), y⟩           = {_exact(left)}"
    yield f"  ⟨x, conv_transpose2d(y, w)⟩ = {_exact(right)}"
    yield f"  difference: {_difference(left, right)}. The same w serves both: no flip, no swap of its axes."


def _exact(value: float) -> str:
    return f"{value:.15g}".replace("-", "−")


def _difference(left: float, right: float) -> str:
    return f"{abs(left - right):.1e}" if left != right else "0"


def _four_ways(y: Numbers, w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    direct = equivalent_convolution(geom)
    apart = " and ".join(map(str, dict.fromkeys(geom.stride)))
    pixels, scores = geom.x_hw[0] * geom.x_hw[1], geom.y_hw[0] * geom.y_hw[1]
    channels, taps = geom.o * geom.c, geom.w_hw[0] * geom.w_hw[1]
    table: list[tuple[str, str, int, Way]] = [
        ("scatter", "every score stamps its multiple of the filter; stamps add up", geom.macs, ways.scatter),
        ("matrix", "Cᵀ times the scores", scores * pixels * channels, ways.by_matrix),
        (
            "zero insertion",
            f"scores {apart} apart, zeros between; stride 1, and the filter turned by 180°",
            pixels * taps * channels,
            ways.by_zero_insertion,
        ),
        ("phases", f"{prod(geom.stride)} convolutions of stride 1, interleaved", geom.macs, ways.by_phases),
    ]
    expected = kernels.run("conv_transpose2d", y, w, geom=geom)
    largest = float(np.abs(expected).max()) or 1.0
    yield f"{'':<16}{'multiplications':>15}  off by"
    for name, words, work, way in table:
        difference = "left out"  # it would take long
        if work <= MOST:
            off = float(np.abs(way(y, w, geom) - expected).max()) / largest
            difference = f"{off:.1e}" if off else "0"
        yield f"{name:<16}{work:>15,}  {difference:<8}  {words}"
    yield "(relative to the largest value of minifcn's own conv_transpose2d)"
    yield "Zero insertion puts p′ = dilation·(kernel − 1) − padding zeros around the scores, and after them"
    yield "output_padding more:"
    for axis, name in _axes(geom):
        before, after = direct.before[axis], direct.after[axis]
        yield f"  {name}: {_border(before)} before, {_border(after)} after"
    for title, values in (("scores", y), ("filter", w), ("image", expected)):
        small = values.shape[2] <= ROWS and values.shape[3] <= WIDTH // 2
        lines = _grid(values[0, 0]) if small else []
        if lines and len(lines[0]) <= WIDTH:
            yield f"{title}{'' if channels == 1 else ', channel 0'}:"
            yield from (f"  {line}" for line in lines)


def _border(zeros: int) -> str:
    """
    >>> _border(2), _border(-1)
    ('2', '1 cropped')
    """
    return str(zeros) if zeros >= 0 else f"{-zeros} cropped"


def _overlap(w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    counts = overlap(geom)
    board = checkerboard(geom, w)
    yield f"A pixel gets {counts.min()} to {counts.max()} products, per pair of channels."
    if len(counts) <= ROWS and counts.shape[1] * 2 <= WIDTH:
        yield from (f"  {line}" for line in _grid(counts))
    if geom.stride != (1, 1) and max(geom.stride) <= 8:
        yield "By phase, (h + padding) mod stride down and (v + padding) mod stride across, pixels inside get"
        sums = board.sums[0] if board.sums is not None else board.counts
        left, right = _grid(board.counts), _grid(sums)
        yield f"  {'products':<{max(len(left[0]), 8)}}    of a constant 1" + (", channel 0" if geom.c > 1 else "")
        yield from (f"  {a:<{max(len(a), 8)}}    {b}" for a, b in zip(left, right, strict=True))
    yield board.verdict[0].upper() + board.verdict[1:] + "."


def _bilinear(w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    check = bilinear_check(w, geom)
    yield f"Tried on {check.scores[0]}×{check.scores[1]} scores. Inside, that is where no tap misses its score:"
    yield f"  a constant comes back        off by {check.constant:.1e}"
    yield f"  a linear ramp comes back     off by {check.ramp:.1e}"
    for axis, name in _axes(geom):
        steps = " ".join(_number(step) for step in check.slopes[axis][:6])
        more = " …" if len(check.slopes[axis]) > 6 else ""
        yield f"  steps of the ramp, {name}: {steps}{more} (1/stride is {_number(1 / geom.stride[axis])})"
    yield "At the border scores are missing, and the first rows get this part of what a constant gives inside:"
    for axis, name in _axes(geom):
        fades = " ".join(_number(part) for part in check.border[axis][:8]) or "all of it"
        yield f"  {name}: {fades}{' …' if len(check.border[axis]) > 8 else ''}"
    yield f"tconv(y)/tconv(1) is bilinear interpolation with clamped borders, everywhere: off by {check.normalized:.1e}"
    if check.holds:
        yield "Verdict: it interpolates bilinearly."
    elif check.constant < 1e-6:
        yield "Verdict: it keeps constants and is no bilinear interpolation: only the ramp shows it."
    else:
        yield "Verdict: it is no bilinear interpolation."

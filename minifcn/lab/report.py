"""What `python -m minifcn tconv` prints: one transposed convolution explained, every number computed on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import numpy as np

from minifcn import kernels
from minifcn.geometry import AXES, ConvGeometry
from minifcn.lab import ways
from minifcn.lab.arithmetic import (
    OP,
    equivalent_convolution,
    feeding,
    formula,
    image_sizes,
    output_padding,
    phases,
    pytorch_line,
    relationship,
)
from minifcn.lab.bilinear import BilinearCheck, bilinear_check
from minifcn.lab.overlap import checkerboard, inside, overlap
from minifcn.lab.words import counted, listed, minus, number, wrapped

Numbers = ways.Numbers
Way = Callable[[Numbers, Numbers, ConvGeometry], Numbers]

WIDTH = 100  # characters in a line
ROWS = 40  # of a table that is shown in full
MOST = 2**24  # values of an array
WORK = 2**28  # multiplications of a way; one that takes more is left out, and said to be
STEPS = 2**16  # of a loop in Python, likewise; taps and phases, too


def check_size(geom: ConvGeometry) -> None:
    """Raise ValueError for a layer that is too large to be explained, before any array of it is made."""
    for what, count, most in (
        ("the scores have {:,} values", prod(geom.y_shape), MOST),
        ("the image has {:,} values", prod(geom.x_shape), MOST),
        ("the filter has {:,} weights", prod(geom.w_shape), MOST),
        ("the kernel has {:,} taps", prod(geom.w_hw), STEPS),
        ("the strides make {:,} phases", prod(geom.stride), STEPS),
    ):
        if count > most:
            raise ValueError(f"{OP}: {what.format(count)}; at most {most:,} can be explained")


def describe(y: Numbers, w: Numbers, geom: ConvGeometry, *, bilinear: bool = False) -> str:
    """A report on one transposed convolution.

    Args:
        y: scores (1,O,P,Q).
        w: filter (O,C,I,J).
        geom: from `layer`.
        bilinear: whether to say how far the filter is from bilinear interpolation.

    Returns:
        Text in sections: size, who feeds whom, the matrix, the adjoint identity, four ways to compute it, the overlap,
        and bilinear interpolation. Lines have at most 100 characters, but for the PyTorch layer's.

    Raises:
        ValueError: arrays of other shapes than the geometry's, or a layer of more than 2²⁴ values, 2¹⁶ taps or 2¹⁶
            phases.
    """
    check_size(geom)
    ways.checked(OP, y, w, geom)
    given, w = w, w.astype(np.float64)  # ways are compared to the last digit; verdicts allow for the filter's rounding
    y = y.astype(np.float64)
    sections: list[tuple[str, Iterator[str]]] = [
        ("Size", _size(geom)),
        ("Who feeds whom", _feeding(geom)),
        ("The matrix", _matrix(w, geom)),
        ("The adjoint", _adjoint(w, geom)),
        ("Four ways to compute it", _four_ways(y, w, geom)),
        ("Overlap", _overlap(given, geom)),
    ]
    if bilinear:
        sections.append(("Bilinear interpolation", _bilinear(given, geom)))
    text = [_heading(geom), pytorch_line(geom)]
    for title, lines in sections:
        text += ["", title]
        for line in lines:  # sentences may be longer; tables are narrow enough
            margin = " " * (len(line) - len(line.lstrip()) + 2)
            text += wrapped(line.strip(), WIDTH, margin) if len(line) + 2 > WIDTH else [f"  {line}".rstrip()]
    return "\n".join(text)


def values_of(y: Numbers, w: Numbers, geom: ConvGeometry) -> dict[str, Numbers]:
    """y (1,O,P,Q), w (O,C,I,J) → both, x = conv_transpose2d(y, w) (1,C,H,W) and, up to 2²⁴ entries, C."""
    arrays = {"y": y, "w": w, "x": kernels.run("conv_transpose2d", y, w, geom=geom)}
    if y.size * arrays["x"].size <= MOST:
        arrays["C"] = ways.conv_matrix(w, geom)
    return arrays


def _heading(geom: ConvGeometry) -> str:
    (p, q), (h, v) = geom.y_hw, geom.x_hw
    through = f", {geom.o} to {counted(geom.c, 'channel')}" if (geom.o, geom.c) != (1, 1) else ""
    return f"Transposed convolution of {p}×{q} scores to an image of {h}×{v}{through}"


def _axes(geom: ConvGeometry) -> list[tuple[int, str]]:
    """(axis, what to call it); one of them where they are alike."""
    both = geom.x_hw, geom.y_hw, geom.w_hw, geom.stride, geom.padding, geom.dilation
    return [(0, "height and width")] if all(a == b for a, b in both) else list(enumerate(AXES))


# -- the integers


def _size(geom: ConvGeometry) -> Iterator[str]:
    yield "(input − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1"
    yield "(The guide is Dumoulin & Visin 2016, arXiv:1603.07285.)"
    for axis, name in _axes(geom):
        which = relationship(geom, axis)
        a, s, padding = output_padding(geom)[axis], geom.stride[axis], geom.padding[axis]
        yield f"{name}: {formula(geom, axis)}"
        yield (
            f"  The guide's relationship {which.number}, {which.title}: {which.rule}"
            if which.number
            else f"  The guide's relationships: {which.title}, but {which.rule} still"
        )
        yield from (f"  {remark}" for remark in filter(None, which.remark.split("; ")))
        sizes, scores = image_sizes(geom)[axis], counted(geom.y_hw[axis], "score")
        if a >= s:
            yield (
                f"  The matching convolution makes more than {scores} of an image of {geom.x_hw[axis]}; where it is "
                "spoken of below, its last ones are left out."
            )
        elif s > 1:
            yield (
                f"  The matching convolution makes {scores} of an image of {listed(sizes)}; output_padding {a} chooses "
                f"{geom.x_hw[axis]}."
            )
        if padding:
            yield f"  padding pads nothing, it crops: {padding} at the start and {padding} at the end."
        if a:
            kept = min(a, padding)
            unreached = f", and {a - kept} that no score reaches" if kept < a else ""
            yield f"  output_padding pads nothing, it crops less: it gives back {kept} at the end{unreached}."


def _feeding(geom: ConvGeometry) -> Iterator[str]:
    for axis, name in _axes(geom):
        h, p, i, way = ("h", "p", "i", "row") if axis == 0 else ("v", "q", "j", "column")
        yield f"{name}: {h} = {p}·stride + {i}·dilation − padding; {way}s {h} of image, {p} of scores, {i} of filter"
        if geom.x_hw[axis] > ROWS:
            yield f"  ({geom.x_hw[axis]} {way}s are too many to list)"
            continue
        pairs = [feeding(geom, axis, row) for row in range(geom.x_hw[axis])]
        if any(len(met) > 8 for met in pairs):
            yield "  (too many pairs to list)"
            continue
        cells = [
            [h, *map(str, range(geom.x_hw[axis]))],
            [p, *(",".join(str(score) for score, _ in met) or "–" for met in pairs)],
            [i, *(",".join(str(tap) for _, tap in met) or "–" for met in pairs)],
        ]
        yield from (f"  {line}" for line in _in_lines(cells))


def _in_lines(rows: list[list[str]]) -> Iterator[str]:
    """A table whose rows have a heading at the left; as many columns to a line as fit."""
    first = max(len(row[0]) for row in rows)
    sizes = [max(len(row[k]) for row in rows) + 2 for k in range(len(rows[0]))]
    start = 1
    while start < len(sizes):
        stop, used = start + 1, first + sizes[start]
        while stop < len(sizes) and used + sizes[stop] <= WIDTH - 4:
            used += sizes[stop]
            stop += 1
        if start > 1:
            yield ""
        for row in rows:
            yield row[0].ljust(first) + "".join(row[k].rjust(sizes[k]) for k in range(start, stop))
        start = stop


# -- the numbers


def _shown(values: Numbers) -> list[str]:
    """A matrix as lines, zeros as dots so that the pattern shows; no lines where it is too large for that."""
    if len(values) > ROWS or values.shape[1] * 2 > WIDTH:
        return []
    cells = [[number(float(value)) if value else "·" for value in row] for row in values]
    width = max(len(cell) for row in cells for cell in row)
    lines = ["  " + " ".join(cell.rjust(width) for cell in row) for row in cells]
    return lines if len(lines[0]) <= WIDTH - 2 else []


def _matrix(w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    rows, columns = geom.o * geom.y_hw[0] * geom.y_hw[1], geom.c * geom.x_hw[0] * geom.x_hw[1]
    yield f"The convolution is a matrix C of {rows}×{columns}, and the transposed convolution multiplies by Cᵀ."
    if rows * columns > MOST:
        yield f"With {rows * columns:,} entries it is too large to be made here."
        return
    c = ways.conv_matrix(w, geom)
    yield f"{np.count_nonzero(c):,} of {c.size:,} entries are not 0."
    down, across = _shown(c.T), _shown(c)
    if down and across:
        yield from ("C =", *across, "Cᵀ =", *down)
        return
    yield f"(Both are shown where they fit {ROWS} lines of {WIDTH} characters.)"
    first = _shown(c[0].reshape(geom.c, *geom.x_hw)[0])
    if first:
        yield "The first row of C, as an image: the filter where score (0, 0) sees it."
        yield from first


def _adjoint(w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    left, right = ways.adjoint_sides(w, geom)
    yield "For whole numbers x and y, drawn from −9 … 9, and this filter:"
    yield f"  ⟨conv2d(x, w), y⟩           = {number(left, 15)}"
    yield f"  ⟨x, conv_transpose2d(y, w)⟩ = {number(right, 15)}"
    relative = abs(left - right) / (max(abs(left), abs(right)) or 1.0)
    yield f"  relative difference: {_off(relative)}. The same w serves both: no flip, no swap of its axes."


def _off(difference: float) -> str:
    return minus(f"{difference:.1e}") if difference else "0"


def _four_ways(y: Numbers, w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    direct = equivalent_convolution(geom)
    apart = " and ".join(map(str, dict.fromkeys(geom.stride)))
    pixels, scores = prod(geom.x_hw), prod(geom.y_hw)
    channels, taps, parts = geom.o * geom.c, prod(geom.w_hw), prod(geom.stride)
    # each phase of an axis multiplies each of its rows by each of its taps
    by_phase = prod(sum(len(phase.rows) * len(phase.taps) for phase in phases(geom, axis)) for axis in range(2))
    table: list[tuple[str, str, int, Way]] = [
        ("scatter", "each score stamps the filter; stamps add up", scores * taps * channels, ways.scatter),
        ("matrix", "Cᵀ times the scores", scores * pixels * channels, ways.by_matrix),
        (
            "zero insertion",
            f"scores {apart} apart, zeros between; w turned by 180°",
            pixels * taps * channels,
            ways.by_zero_insertion,
        ),
        (
            "phases",
            f"{counted(parts, 'convolution')} of stride 1, interleaved",
            by_phase * channels,
            ways.by_phases,
        ),
    ]
    expected = kernels.run("conv_transpose2d", y, w, geom=geom)
    largest = float(np.abs(expected).max()) or 1.0
    yield f"{'':<16}{'multiplications':>17}  off by"
    for name, words, work, way in table:
        difference = "left out"  # it would take long
        if work <= (MOST if way is ways.by_matrix else WORK) and (way is not ways.scatter or scores <= STEPS):
            difference = _off(float(np.abs(way(y, w, geom) - expected).max()) / largest)
        yield f"{name:<16}{work:>17,}  {difference:<8}  {words}"
    yield (
        "(Multiplications of all channels; off by: the largest difference to minifcn's own conv_transpose2d, as a part "
        f"of its largest value, in float64. Left out is what takes more than {WORK:,} multiplications, {MOST:,} for "
        "the matrix.)"
    )
    yield (
        "Zero insertion puts p′ = dilation·(kernel − 1) − padding zeros around the scores, and output_padding more "
        "after them:"
    )
    for axis, name in _axes(geom):
        yield f"  {name}: {_border(direct.before[axis])} before, {_border(direct.after[axis])} after"
    channel = "" if channels == 1 else ", channel 0"
    inserted = ways.insert_zeros(y, geom) if pixels <= STEPS else None
    yield from _titled(f"scores{channel}", y[0, 0])
    yield from _titled(f"filter{channel and ', channel 0 to channel 0'}", w[0, 0])
    if inserted is not None and _shown(inserted[0, 0]) and (geom.stride != (1, 1) or direct.before != (0, 0)):
        yield from _titled(f"scores with zeros{channel}", inserted[0, 0])
        yield from _titled("filter turned by 180°", w[0, 0, ::-1, ::-1])
    to = f"{channel}, to which all {geom.o} channels of the scores add" if geom.o > 1 else channel
    yield from _titled(f"image{to}", expected[0, 0])


def _titled(title: str, values: Numbers) -> Iterator[str]:
    lines = _shown(values)
    yield f"{title}:" if lines else f"{title}: {values.shape[0]}×{values.shape[1]} do not fit (--npz saves all values)"
    yield from lines


def _border(zeros: int) -> str:
    return str(zeros) if zeros >= 0 else f"{-zeros} cropped"


def _overlap(w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    counts, board = overlap(geom), checkerboard(geom, w)
    least, most = int(counts.min()), int(counts.max())
    span = counted(most, "product") if least == most else f"{least} to {most} products"
    yield f"A pixel gets {span}{'' if geom.o * geom.c == 1 else ' for each pair of channels'}."
    yield from _shown(counts)
    products = _shown(board.counts)
    sums = [] if board.sums is None else _shown(board.sums[0, 0])
    if geom.stride != (1, 1) and products and sums:
        yield (
            "Inside, where no tap misses its score, a pixel of phase (h + padding) mod stride (down), (v + padding) "
            "mod stride (across) gets so many products:"
        )
        yield from products
        yield f"and of a constant 1 they make{'' if geom.o * geom.c == 1 else ' (channel 0 to channel 0)'}:"
        yield from sums
    yield board.verdict[0].upper() + board.verdict[1:] + "."
    if not (inside(geom, 0) and inside(geom, 1)):
        yield "(No pixel of this image is inside, it is all border; on more scores there would be some.)"


def _bilinear(w: Numbers, geom: ConvGeometry) -> Iterator[str]:
    try:
        check = bilinear_check(w, geom)
    except ValueError as error:  # weights of zeros, or too large: the rest of the report stands
        yield f"Not tried. {error}."
        return
    several = check.filters > 1
    if several:
        yield f"{check.filters} filters lead from one channel to another. What follows is each alone, and the worst:"
        if geom.c == 1 or geom.o != geom.c:
            yield "(As weights of a layer with groups, each would have its own channel to itself.)"
    yield f"Tried on {check.scores[0]}×{check.scores[1]} scores within −1 … 1. Inside, where no tap misses its score:"
    yield f"  a constant comes back        off by {_off(check.constant)}"
    yield f"  linear ramps come back       off by {_off(check.ramp)}"
    yield f"  noise is interpolated        off by {_off(check.anything)}"
    for axis, name in _axes(geom):
        steps = " ".join(number(step) for step in check.slopes[axis][:6])
        more = " …" if len(check.slopes[axis]) > 6 else ""
        yield f"  steps of the ramp, {name}: {steps}{more} (1/stride is {number(1 / geom.stride[axis])})"
    if check.constants:
        yield "At the border scores are missing, and the first rows get this part of what a constant gives inside:"
        for axis, name in _axes(geom):
            fades = " ".join(number(part) for part in check.border[axis][:8]) or "all of it"
            yield f"  {name}: {fades}{' …' if len(check.border[axis]) > 8 else ''}"
        yield (
            "tconv(y)/tconv(1) against bilinear interpolation with clamped borders, in every pixel that a score "
            f"reaches: off by {_off(check.normalized)}"
        )
    yield _verdict(check)


def _verdict(check: BilinearCheck) -> str:
    each = "Verdict: it" if check.filters == 1 else "Verdict: each of them"
    if check.holds:
        return f"{each} interpolates bilinearly."
    if check.ramps:
        return "Verdict: it returns constants and ramps, and is no bilinear interpolation: the rest comes back changed."
    if check.constants:
        return "Verdict: it keeps constants and is no bilinear interpolation: only the ramp shows it."
    return "Verdict: it is no bilinear interpolation."

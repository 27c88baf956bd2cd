"""An alignment told as a lesson: where cells lie, where maps meet, which sizes fit, and what is off by how much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from minifcn import nn
from minifcn.geometry import AxisMap, CoordMap, Pair
from minifcn.lab.words import wrapped
from minifcn.models.fcn import IMAGE, Fusion

if TYPE_CHECKING:  # alignment.py imports this file
    from minifcn.lab.alignment import Alignment, Exact, Fit, Stage

LINE = 100  # characters
_paragraph = partial(wrapped, width=LINE)
SHOWN = 5  # misfits


def explain(a: Alignment) -> str:
    """The text of `Alignment.text`."""
    parts = _stages_text(a), _fusions_text(a), _sizes_text(a), _verdict(a)
    return "\n\n".join("\n".join(lines) for lines in parts)


def _stages_text(a: Alignment) -> list[str]:
    rows = [("stage", "cell u lies at", "sees", f"cells at {_by(a.size)}", "rows", "columns")]
    for stage in a.stages:
        rows.append((stage.name, _map(stage.map), _once(stage.sees), _by(stage.cells), *_ends(stage)))
    return [
        *_paragraph(
            "Where cells lie. The middle of what cell u of a stage sees is at pixel a·u + b; pixel 0 is the image's "
            "first. A layer with kernel k, stride s and padding p adds a·((k − 1)/2 − p) to b and a·(k − 1) to the "
            "pixels that a cell sees along an axis, and then makes a·s of a. The rows and columns are those of the "
            "first and the last cell: compared with the image's they say whether a map reaches into the padding."
        ),
        "",
        *_columns(rows),
    ]


def _fusions_text(a: Alignment) -> list[str]:
    lines = _paragraph(
        "Where maps meet. Cell u of a transposed convolution lies at (u − c)/s cells of its input, with "
        "c = (k − 1)/2 − p. The crop is the distance between the cells 0 of two maps, counted in cells."
    )
    for number, (fusion, fits) in enumerate(a.fusions, start=1):
        layer, last = fusion.layer, fusion.stage == IMAGE
        then = "cut to the image" if last else f"{fusion.stage} {'joins' if fusion.joins else 'gives the size'}"
        heading, *more = _paragraph(
            f"{number}. {fusion.name}: kernel {_once(layer.kernel_size)}, stride {_once(layer.stride)}, padding "
            f"{_once(layer.padding)}, c = {_once(_middle_text(layer, axis) for axis in range(2))}; then {then}"
        )
        lines += ["", heading, *("   " + line for line in more)]
        rows = [(fusion.name, _once(map(_upsampled, fusion.before, fusion.after, _middle(layer), layer.stride)))]
        if last or fusion.joins:
            rows.append((fusion.stage, _map(fusion.onto)))
            rows.append(("crop", _once(_crop(fusion, axis) for axis in range(2))))
        rows.append((f"at {_by(a.size)}", _meeting(fusion, fits)))
        lines += ["   " + line for line in _columns(rows)]
    return lines


def _middle_text(layer: nn.ConvTranspose2d, axis: int) -> str:
    """(4 − 1)/2 − 0 = 3/2"""
    dilation = f"{layer.dilation[axis]}·" * (layer.dilation[axis] > 1)
    return f"{dilation}({layer.kernel_size[axis]} − 1)/2 − {layer.padding[axis]} = {number(_middle(layer)[axis])}"


def _upsampled(before: AxisMap, after: AxisMap, c: Fraction, stride: int) -> str:
    """Where the output's cells lie: 32·(u − 3/2)/2 + 25/2 = 16u − 23/2"""
    cell = f"(u{_signed(-c)})" if c else "u"
    return f"{number(before.scale)}·{cell}/{stride}{_signed(before.offset)} = {_axis(after)}"


def _crop(fusion: Fusion, axis: int) -> str:
    """(−23/2 + 183/2)/16 = 5: its cell 0 lies on cell 5 of pool4"""
    first, second = tuple(fusion.after)[axis], tuple(fusion.onto)[axis]
    offset, start = fusion.offset[axis], fusion.start[axis]
    whole, cell = offset.denominator == 1, number(offset)
    if fusion.stage == IMAGE:
        first, second = second, first
        where = f"pixel 0 lies on its cell {cell}" if whole else "pixel 0 lies between its cells"
    else:
        where = (
            f"its cell 0 lies on cell {cell} of {fusion.stage}"
            if whole
            else f"its cell 0 lies between {fusion.stage}'s cells"
        )
    distance = f"({number(first.offset)}{_signed(-second.offset) or ' − 0'})/{number(first.scale)}"
    return f"{distance} = {cell}: {where}" + ("" if start == offset else f", but meets cell {number(start)}")


def _meeting(fusion: Fusion, fits: tuple[Fit, Fit]) -> str:
    """26 × 34 and 35 × 43 cells: pool4 is cropped to rows 5…30, columns 5…38"""
    upsampled, onto, cells = (_by(getattr(fit, part) for fit in fits) for part in ("upsampled", "onto", "cells"))
    if fusion.told:
        return f"{onto} cells, as it is told to make (output_size)"
    cropped = []
    for name, total, part in ((fusion.name, upsampled, "from_upsampled"), (fusion.stage, onto, "from_onto")):
        if total != cells:
            rows, columns = (f"{getattr(fit, part)}…{getattr(fit, part) + fit.cells - 1}" for fit in fits)
            cropped.append(f"{name} is cropped to rows {rows}, columns {columns}")
    both = upsampled if fusion.stage == IMAGE else f"{upsampled} and {onto}"
    return f"{both} cells: {'; '.join(cropped) or 'nothing is cropped'}"


def _sizes_text(a: Alignment) -> list[str]:
    span = f"Sizes {a.sizes[0]}…{a.sizes[-1]}" if a.sizes else "No sizes"
    if not a.misfits:
        return [f"{span}: every crop fits, no layer is without output, every image gets scores of its own size."]
    some = list(a.misfits.items())[:SHOWN]
    return [
        f"{span}: {len(a.misfits)} of {len(a.sizes)} do not fit:",
        *(f"  {size}: {reason}" for size, reason in some),
        *["  …"] * (len(a.misfits) > SHOWN),
    ]


def _middle(layer: nn.ConvTranspose2d) -> Exact:
    """c = d·(k − 1)/2 − p."""
    height, width = (
        Fraction(d * (k - 1), 2) - p for k, p, d in zip(layer.kernel_size, layer.padding, layer.dilation, strict=True)
    )
    return height, width


def _needed(fusions: Sequence[Fusion]) -> list[Exact]:
    """The c with which each upsampling and its crop would lead from the stage before onto its own: with m cells cropped
    of the upsampled map, a·(u + m − c)/s + b = (a/s)·u + b′ for c = m + (b − b′)·s/a."""
    found, before = [], fusions[0].before
    for fusion in fusions:
        upsampled, stage = _cropped(fusion, fusion.start)
        onto = fusion.onto.then_crop(stage)
        height, width = (
            m + (old.offset - new.offset) * s / old.scale
            for m, old, new, s in zip(upsampled, before, onto, fusion.layer.stride, strict=True)
        )
        found.append((height, width))
        before = onto
    return found


def _cropped(fusion: Fusion, start: Pair) -> tuple[Pair, Pair]:
    """How many cells a crop from `start` on takes from the beginning of the upsampled map and of the stage."""
    height, width = start
    if fusion.stage == IMAGE:
        return start, (0, 0)
    return (max(-height, 0), max(-width, 0)), (max(height, 0), max(width, 0))


def _right_crops(fusions: Sequence[Fusion]) -> list[Pair]:
    """The crops that lay every map onto the next, where whole cells do."""
    found, at = [], fusions[0].before
    for fusion in fusions:
        after = fusion.layer.coord_map(at)
        height, width = after.crop_onto(fusion.onto) if fusion.stage == IMAGE else fusion.onto.crop_onto(after)
        found.append((int(height), int(width)))
        at = after.then_crop(_cropped(fusion, found[-1])[0])
    return found


def _errors(fusions: Sequence[Fusion]) -> list[Exact]:
    """By how many cells the deepest scores appear too far down and right after each upsampling and its crop."""
    found = []
    for fusion in fusions:
        sign = 1 if fusion.stage == IMAGE else -1
        height, width = (sign * (offset - start) for offset, start in zip(fusion.offset, fusion.start, strict=True))
        found.append((height, width))
    return found


def _verdict(a: Alignment) -> list[str]:
    if a.exact:
        return ["Exact: cells that meet lie on the same pixel, and every score lies on its own."]
    fusions = [fusion for fusion, _ in a.fusions]
    needed = _needed(fusions)
    deepest, *shallower = a.displaced
    why, remedy = _reasons(fusions, needed)
    ways = [f"{_once(map(number, a.displaced[stage]))} by way of {stage}" for stage in shallower]
    return [
        *_paragraph(f"NOT exact: cells meet that do not lie on the same pixel. {why}"),
        "",
        *_paragraph(
            "Each layer multiplies the error before it by its stride s, and adds its own, c less the c that is needed "
            "with its crop. Above 0, scores appear too far down and right; below 0, too far up and left."
        ),
        "",
        *_columns(_errors_table(fusions, needed, deepest)),
        "",
        *_paragraph(
            f"In the end the scores are {_once(map(number, a.displaced[deepest]))} pixels off by way of "
            f"{', '.join([deepest, *ways])}. These are the middles of kernels: a learned filter can lean to one side "
            "and make up for some of it."
        ),
        "",
        *_paragraph(remedy),
    ]


def _errors_table(fusions: Sequence[Fusion], needed: Sequence[Exact], deepest: str) -> list[tuple[str, str, str, str]]:
    rows = [("layer", "c", "needed", f"error of {deepest}'s scores")]
    before: Exact = (Fraction(0), Fraction(0))
    for fusion, error, need in zip(fusions, _errors(fusions), needed, strict=True):
        grown = _once(map(_growth, before, error, fusion.layer.stride))
        unit = "pixels" if fusion.stage == IMAGE else f"cell{'s' * (max(map(abs, error)) > 1)} of {fusion.stage}"
        c, wanted = (_once(map(number, pair)) for pair in (_middle(fusion.layer), need))
        rows.append((fusion.name, c, wanted, f"{grown} {unit}"))
        before = error
    return rows


def _growth(before: Fraction, error: Fraction, stride: int) -> str:
    """An error as 2·(1/2) + 1/2 = 3/2"""
    old = f"({number(before)})" if before.denominator > 1 or before < 0 else number(before)
    return f"{stride}·{old}{_signed(error - stride * before)} = {number(error)}"


def _reasons(fusions: Sequence[Fusion], needed: Sequence[Exact]) -> tuple[str, str]:
    """Why the cells lie off each other, and what would be exact."""
    found = [c for fusion in fusions for c in _middle(fusion.layer)]
    wanted = [c for pair in needed for c in pair]
    if all((c - need).denominator == 1 for c, need in zip(found, wanted, strict=True)):
        return _crop_reasons(fusions)
    cropped = any(cells for fusion in fusions for cells in fusion.start)
    strides = [s for fusion in fusions for s in fusion.layer.stride]
    if not cropped and not any(wanted):
        return (
            "The cells of every stage lie on pixels 0, a, 2a …, so an upsampled map has to begin on pixel 0 as well, "
            "which takes c = 0, as an odd kernel can have. The middle of an even one lies between two taps, so that c "
            "is 1/2, 3/2 …: half a cell is off, and no crop of whole cells mends that.",
            'Exact would be kernels of 2s − 1 with padding s − 1: upsampling="aligned", or the network of the same '
            "name with _aligned.",
        )
    if not cropped and all(s % 2 == 0 and need == Fraction(s - 1, 2) for need, s in zip(wanted, strides, strict=True)):
        return (
            "The cells of every stage lie in the middle of their a × a pixels, between two cells of the stage before, "
            "which takes c = (s − 1)/2. The middle of an odd kernel is a tap, so that c is whole: half a cell is off, "
            "and no crop of whole cells mends that.",
            "Exact would be kernels of 2s with padding s/2, as fcn16s_vgg16 has them.",
        )
    return _LEADING, "Exact would be the c that is needed, or another crop where c is whole cells from it."


_LEADING = "The table has the c that would lead, with its crop, from each stage onto the next."


def _crop_reasons(fusions: Sequence[Fusion]) -> tuple[str, str]:
    """The same where whole cells are off."""
    right = _right_crops(fusions)
    if min(right[-1]) < 0:  # the image cannot begin before the map
        return _LEADING, "Exact would be the c that is needed."
    wrong = [
        f"a crop of {_once(map(number, crop))} in place of {_once(map(number, fusion.start))} after {fusion.name}"
        for fusion, crop in zip(fusions, right, strict=True)
        if crop != fusion.start
    ]
    return (
        "Each c is whole cells from the c that is needed, and a crop makes up for whole cells; but a crop is wrong.",
        f"Exact would be {' and '.join(wrong)}.",
    )


def _ends(stage: Stage) -> tuple[str, str]:
    """The rows, and the columns, of the first and the last cell."""
    rows, columns = (
        f"{_decimal(m.offset)} … {_decimal(m.offset + m.scale * (n - 1))}"
        for m, n in zip(stage.map, stage.cells, strict=True)
    )
    return rows, columns


def _map(m: CoordMap) -> str:
    return _once(map(_axis, m))


def _axis(m: AxisMap) -> str:
    """16u − 23/2"""
    scale = "" if m.scale == 1 else number(m.scale) + "·" * (m.scale.denominator > 1)
    return f"{scale}u{_signed(m.offset)}"


def number(x: Fraction | int) -> str:
    return str(x).replace("-", "−")


def _signed(x: Fraction) -> str:
    """As a summand: " + 1/2", " − 1/2", or nothing for 0."""
    return f" {'−' if x < 0 else '+'} {abs(x)}" if x else ""


def _decimal(x: Fraction) -> str:
    """Halves as .5, which are easier to compare; other fractions stay exact."""
    return number(x) if x.denominator != 2 else str(float(x)).replace("-", "−")


def _once(values: Iterable[object]) -> str:
    """The height's and the width's, or the one value that both have."""
    height, width = map(str, values)
    return height if height == width else f"{height} (height), {width} (width)"


def _by(values: Iterable[int]) -> str:
    return " × ".join(map(str, values))


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]

"""What the pictures of a layer have in common: the maps of one channel, as cells, and the words about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minifcn import kernels
from minifcn.geometry import AXES, ConvGeometry, Pair
from minifcn.lab.arithmetic import equivalent_convolution, output_padding, pytorch_line
from minifcn.lab.pictures import drawing
from minifcn.lab.pictures.drawing import Box, Draw, Entry, Grid, Look
from minifcn.lab.pictures.sliding import Kind, Slide, footprint, slides
from minifcn.lab.ways import scatter

Numbers = NDArray[Any]

MARGIN = 24  # around a picture, in pixels
_MOST_CELLS = 320  # along an axis of any map


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn: the maps of one channel, how the filter slides, and what the maps are called."""

    kind: Kind
    given: ConvGeometry
    geom: ConvGeometry  # of one channel
    over: tuple[Slide, Slide]
    input: Numbers  # the scores for "tconv", the image for "conv"
    w: Numbers
    output: Numbers

    @classmethod
    def of(cls, op: str, input: Numbers, w: Numbers, geom: ConvGeometry, kind: Kind) -> Scene:
        """Check the arrays, and compute the output; `op` is for messages."""
        if kind not in ("tconv", "conv"):
            raise ValueError(f'{op}: kind is {kind!r}; "tconv" or "conv" is needed')
        expected = geom.y_shape if kind == "tconv" else geom.x_shape
        if input.shape != expected or w.shape != geom.w_shape:
            raise ValueError(
                f"{op}: input has shape {input.shape} and weight {w.shape}; {expected} and {geom.w_shape} are needed"
            )
        if 0 in expected:
            raise ValueError(f"{op}: input has shape {input.shape}; at least one value is needed")
        over = slides(geom, kind)
        for axis, slide in enumerate(over):
            longest = max(len(slide.cells), slide.outputs)
            if longest > _MOST_CELLS:
                raise ValueError(
                    f"{op}: a map of {longest} cells along the {AXES[axis]} is too large to be drawn; a smaller input, "
                    f"stride, kernel or padding is needed, so that no map, zeros included, exceeds {_MOST_CELLS}"
                )
        one = replace(geom, n=1, c=1, o=1, groups=1)
        first, filter = input[:1, :1].astype(np.float64), w[:1, :1].astype(np.float64)
        if not (np.isfinite(first).all() and np.isfinite(filter).all()):
            raise ValueError(f"{op}: there are NaN or Inf among the values; numbers are needed")
        output = scatter(first, filter, one) if kind == "tconv" else kernels.run("conv2d", first, filter, geom=one)
        exact = w if w.dtype.kind == "f" else filter  # in the dtype that it was given in, which says how exact it is
        return cls(kind, geom, one, over, first[0, 0], exact[0, 0], output[0, 0])

    @property
    def channels(self) -> str:
        """A sentence, where there are more than the one that is drawn."""
        counts = ((self.given.o, "scores"), (self.given.c, "image"))
        others = [f"channel 0 of {n} of the {name}" for n, name in counts if n > 1]
        return f"Drawn is one layer alone: {' and '.join(others)}." if others else ""

    @property
    def cropped(self) -> bool:
        """Whether cells are cut off."""
        return any(len(slide.cells) > len(slide.kept) for slide in self.over)

    @property
    def looks(self) -> tuple[Look, Look, Look]:
        """Of an input cell, an output cell, and the output cell that is computed."""
        if self.kind == "tconv":
            return drawing.SCORE, drawing.IMAGE, drawing.IMAGE_NOW
        return drawing.IMAGE, drawing.SCORE, drawing.SCORE_NOW

    @property
    def names(self) -> tuple[str, str]:
        return ("y", "x") if self.kind == "tconv" else ("x", "y")

    @property
    def rows(self) -> tuple[int, int]:
        """Of the map with its zeros, and of the output."""
        return len(self.over[0].cells), self.over[0].outputs

    @property
    def columns(self) -> tuple[int, int]:
        return len(self.over[1].cells), self.over[1].outputs


# Words


def number(value: float) -> str:
    """A value in at most 6 letters where that is exact; otherwise to 3 digits, or 3 decimals below 1.

    >>> number(0.0625), number(-1 / 3), number(-0.0), number(1e6), number(1 / 30000)
    ('0.0625', '−0.333', '0', '1e6', '3e−5')
    """
    exact = f"{value:.5g}"
    if len(exact.lstrip("-")) <= 6 and float(exact) == value:
        text = exact
    elif 1e-3 <= abs(value) < 1:
        text = f"{value:.3f}".rstrip("0").rstrip(".")
    else:
        text = f"{value:.3g}" if abs(value) >= 1 else f"{value:.0e}"
    mantissa, e, exponent = ("0" if text == "-0" else text).partition("e")
    return (f"{mantissa}e{int(exponent)}" if e else mantissa).replace("-", "−")


def size(hw: Sequence[int]) -> str:
    return f"{hw[0]}×{hw[1]}"


def _both(values: Pair) -> str:
    return str(values[0]) if values[0] == values[1] else f"({values[0]}, {values[1]})"


def title(scene: Scene) -> str:
    scores, pixels = f"{size(scene.geom.y_hw)} scores", f"{size(scene.geom.x_hw)} pixels"
    if scene.kind == "tconv":
        return f"Transposed convolution: {scores} to {pixels}"
    return f"Convolution: {pixels} to {scores}"


def settings(scene: Scene) -> str:
    geom = scene.geom
    extra = f" · output_padding {_both(output_padding(geom))}" if scene.kind == "tconv" else ""
    return (
        f"kernel {size(geom.w_hw)} · stride {_both(geom.stride)} · padding {_both(geom.padding)}{extra} · "
        f"dilation {_both(geom.dilation)}"
    )


def course(scene: Scene) -> str:
    """How the filter moves, and over what."""
    geom = scene.geom
    if scene.kind == "conv":
        border = f"a border of zeros, {_both(geom.padding)} wide" if any(geom.padding) else "no border"
        return f"The filter moves by {_both(geom.stride)} over the image with {border}."
    direct, extra = equivalent_convolution(geom), output_padding(geom)
    count = _both(direct.zeros) if any(direct.zeros) else "no"
    border = f"p′ = d·(k − 1) − p = {_both(direct.before)}".replace("-", "−").replace(" ", "\xa0")
    crop = " (below 0: cells are cut off)" if scene.cropped else ""
    after = f", and output_padding {_both(extra)} more below and to the right" if any(extra) else ""
    return (
        f"As a convolution of stride 1 with the filter turned by 180°: {count} zero{'' if count == '1' else 's'} "
        f"between scores, a border of {border}{crop}{after}."
    )


def torch_line(scene: Scene) -> str:
    """The PyTorch layer, to copy."""
    geom = scene.given
    if scene.kind == "tconv":
        return pytorch_line(geom)
    words = {"kernel_size": geom.w_hw, "stride": geom.stride, "padding": geom.padding, "dilation": geom.dilation}
    given = ", ".join(f"{name}={_both(value)}" for name, value in words.items())
    return f"torch.nn.Conv2d({geom.c}, {geom.o}, {given}, bias=False)"


def sums(scene: Scene, at: Pair, width: float, letters: int) -> tuple[str, str]:
    """The sum that makes output `at`, in letters and in numbers, as many products as fit; the others are counted."""
    source_name, name = scene.names
    target, value = f"{name}[{at[0]}, {at[1]}]", float(scene.output[at])
    rows, columns = (slide.meetings(u) for slide, u in zip(scene.over, at, strict=True))
    total = len(rows) * len(columns)
    if not total:
        return f"{target} = 0", "the filter lies on zeros alone"
    most = 1 + int(width / drawing.wide(f"{source_name}[1, 1]·w[1, 1]", letters))  # that could fit
    pairs = [((p, q), (i, j)) for (p, i), (q, j) in islice(product(rows, columns), most)]
    products = [f"{source_name}[{p}, {q}]·w[{i}, {j}]" for (p, q), (i, j) in pairs]
    values = [(float(scene.input[source]), float(scene.w[tap])) for source, tap in pairs]
    numbers = ["·".join(f"({number(f)})" if f < 0 else number(f) for f in factors) for factors in values]
    for count in range(len(pairs), 0, -1):
        rest = f" + … ({total} products)" if count < total else ""
        shown = [f for factors in values[:count] for f in factors] + [value]
        rounded = "" if all(float(number(f).replace("−", "-")) == f for f in shown) else "  (rounded)"
        lines = (
            f"{target} = {' + '.join(products[:count])}{rest}",
            f"= {' + '.join(numbers[:count])}{rest} = {number(value)}{rounded}",
        )
        if max(drawing.wide(line, letters) for line in lines) <= width:
            break
    return lines


# Maps


@dataclass(frozen=True, slots=True)
class Cells:
    """An array as cells of one look: numbers where they fit, and shades of the look's colour where they do not."""

    name: str
    look: Look
    texts: dict[Pair, str]
    longest: tuple[str, ...]
    shares: Numbers  # from the smallest value (0) to the largest (1)
    ends: tuple[float, float]

    @classmethod
    def of(cls, name: str, values: Numbers, look: Look) -> Cells:
        texts = {(row, column): number(float(values[row, column])) for row, column in np.ndindex(*values.shape)}
        low, high = float(values.min()), float(values.max())
        shares = (values - low) / (high - low) if high > low else np.zeros(values.shape)
        return cls(name, look, texts, drawing.longest(texts.values()), shares, (low, high))

    def letters(self, cell: int) -> int:
        """The size of the numbers in cells of this size; 0 where they do not fit."""
        return letters_for(self.longest, cell)

    def entries(self, cell: int) -> list[Entry]:
        """What the shades mean, where there are any."""
        if self.letters(cell):
            return []
        return [
            (drawing.shade(self.look, share), f"{self.name} = {number(end)}")
            for share, end in zip((0.0, 1.0), self.ends, strict=True)
        ]

    def paint(self, draw: Draw, box: Box, at: Pair, look: Look | None = None, middle: float = 0.5) -> None:
        """Paint a cell with its value `middle` of the way down; `look` is for one that stands out."""
        letters = self.letters(box[2] - box[0])
        shown = look or (self.look if letters else drawing.shade(self.look, float(self.shares[at])))
        drawing.paint(draw, box, shown)
        if letters:
            write_in(draw, box, self.texts[at], letters, shown.ink, middle)

    def paint_all(self, draw: Draw, grid: Grid) -> None:
        for at in self.texts:
            self.paint(draw, grid.box(*at), at)


def letters_for(texts: tuple[str, ...], cell: int) -> int:
    """The size of letters with which every text fits into a cell; 0 where there is none."""
    return drawing.fitting(texts, cell - 6, cell * 0.5, 16) if cell >= 14 else 0


def write_in(draw: Draw, box: Box, text: str, size: int, ink: drawing.Colour, middle: float = 0.5) -> None:
    """Write into a box, centred, `middle` of the way down."""
    x0, y0, x1, y1 = box
    drawing.write(draw, (x0 + x1 + 1) / 2, y0 + middle * (y1 - y0 + 1), text, size, ink, align=0.5)


@dataclass(frozen=True, slots=True)
class Ground:
    """The map that the filter slides over, with the filter's values in the corners of its footprint's cells."""

    scene: Scene
    cells: Cells
    taps: Cells

    @classmethod
    def of(cls, scene: Scene) -> Ground:
        return cls(scene, Cells.of(scene.names[0], scene.input, scene.looks[0]), Cells.of("w", scene.w, drawing.FILTER))

    def corner(self, cell: int) -> int:
        """The size of the filter's values in cells of this size; 0 where they do not fit."""
        return drawing.fitting(self.taps.longest, cell - 5, cell * 0.26, 11) if cell >= 28 else 0

    def middle(self, cell: int) -> float:
        """How far down a cell its own value is: higher where the filter's goes below."""
        return 0.38 if self.corner(cell) else 0.5

    def box(self, grid: Grid, cell: Pair) -> Box:
        height, width = self.scene.over
        return grid.box(cell[0] - height.cells.start, cell[1] - width.cells.start)

    def paint(self, draw: Draw, grid: Grid) -> None:
        """Paint the map without the filter."""
        height, width = self.scene.over
        inputs = []
        for cell in product(height.cells, width.cells):
            p, q = height.source(cell[0]), width.source(cell[1])
            kept = cell[0] in height.kept and cell[1] in width.kept
            if p is None or q is None:
                self._paint_zero(draw, self.box(grid, cell), drawing.ZERO if kept else drawing.cut(drawing.ZERO))
            else:
                inputs.append((cell, (p, q), None if kept else drawing.cut(self.cells.look)))
        drawing.surround(draw, grid)
        for cell, at, look in inputs:  # after the zeros, whose dashes would run over their edges
            self.cells.paint(draw, self.box(grid, cell), at, look, self.middle(grid.cell))

    def _paint_zero(self, draw: Draw, box: Box, look: Look) -> None:
        drawing.paint(draw, box, look)
        cell = box[2] - box[0]
        if letters := self.cells.letters(cell):
            write_in(draw, box, "0", letters, look.ink, self.middle(cell))

    def paint_footprint(self, draw: Draw, grid: Grid, at: Pair) -> None:
        """Paint the filter at output `at`."""
        now = drawing.SCORE_NOW if self.scene.kind == "tconv" else drawing.IMAGE_NOW
        height, width = self.scene.over
        rows, columns = _Pixels.of(height, at[0], grid.cell), _Pixels.of(width, at[1], grid.cell)
        x0, y0, _, _ = self.box(grid, (rows.first, columns.first))
        cells = np.outer(rows.cells, columns.cells)
        edges = cells & np.logical_or.outer(rows.edges, columns.edges)
        stamps = [(cells, drawing.ZERO_NOW.fill), (np.outer(rows.input, columns.input), now.fill)]
        for mask, colour in [*stamps, *[(edges, now.edge)] * drawing.edged(grid.cell)]:
            draw.bitmap((x0, y0), Image.fromarray(mask.astype(np.uint8) * 255), fill=colour)
        letters, corner = self.cells.letters(grid.cell), self.corner(grid.cell)
        for touch in footprint(self.scene.over, at) if letters or corner else []:
            box = self.box(grid, touch.cell)
            if letters:
                text = "0" if touch.source is None else self.cells.texts[touch.source]
                write_in(draw, box, text, letters, now.ink, self.middle(grid.cell))
            if corner:
                x, y = box[2] - 3, box[1] + 0.78 * (grid.cell + 1)
                drawing.write(draw, x, y, self.taps.texts[touch.tap], corner, drawing.TAP, align=1.0)
        drawing.frame(draw, (x0, y0, x0 + len(columns.cells) - 1, y0 + len(rows.cells) - 1), grid.cell)


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Which pixels along an axis, from the footprint's first cell on, are the footprint's.

    A footprint has up to 320² cells, and an animation 400 frames: painted cell by cell it would take minutes.

    Args:
        first: that cell.
        cells: pixels of any of its cells.
        input: those of cells in whose row there is input, and not zeros alone.
        edges: those of the cells' edges.
    """

    first: int
    cells: Numbers
    input: Numbers
    edges: Numbers

    @classmethod
    def of(cls, slide: Slide, u: int, cell: int) -> _Pixels:
        touched = [t for t, _ in slide.footprint(u)]
        cells, input, edges = np.zeros((3, (touched[-1] - touched[0] + 1) * cell + 1), bool)
        for t in touched:
            start = (t - touched[0]) * cell
            cells[start : start + cell + 1] = True
            input[start : start + cell + 1] = slide.source(t) is not None
            edges[[start, start + cell]] = True
        return cls(touched[0], cells, input, edges)


def under(ground: Ground, cell: int) -> str:
    return "under the filter, whose value is yellow" if ground.corner(cell) else "under the filter"


def cut_entry(scene: Scene) -> tuple[Entry, ...]:
    return ((drawing.cut(scene.looks[0]), "cut off (p′ < 0)"),) if scene.cropped else ()


def evenly(count: int, most: int) -> list[int]:
    """Which of `count` things are shown where only `most` can be: evenly spaced, the first and the last among them.

    >>> evenly(9, 5), evenly(3, 5)
    ([0, 2, 4, 6, 8], [0, 1, 2])
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    return [round(k * (count - 1) / (most - 1)) for k in range(most)]

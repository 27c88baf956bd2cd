"""Paint for the lab's pictures: letters, colours, cells and legends, on Pillow.

The colours keep their meaning in every picture, and people who do not tell red from green tell them apart: scores are
blue, the image is green, the filter is yellow; zeros are white with a dashed edge, and what is cut off is crossed out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw
Box = tuple[int, int, int, int]  # left, top, right, bottom; edges included
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 36, 44)
QUIET: Colour = (104, 110, 120)  # captions, and the digits of zeros
RULE: Colour = (168, 174, 182)
MARK: Colour = (213, 94, 0)  # frames what belongs together: the filter's footprint, and the cell it makes
TAP: Colour = (255, 222, 120)  # the filter's yellow, on a dark cell
HEAT: tuple[Colour, Colour] = (245, 240, 250), (74, 20, 122)  # few, many
_SMALLEST = 10  # letters, in pixels, that one can still read


@dataclass(frozen=True, slots=True)
class Look:
    """How a cell is painted; `deep` is the dark end of a scale of its colour, for cells too small for numbers."""

    fill: Colour
    edge: Colour = RULE
    ink: Colour = INK
    deep: Colour = INK
    dashed: bool = False
    crossed: bool = False


SCORE = Look((176, 212, 243), (64, 124, 178), deep=(14, 60, 112))
FILTER = Look((250, 228, 160), (176, 140, 40), deep=(120, 78, 0))
IMAGE = Look((168, 224, 200), (48, 142, 108), deep=(0, 72, 54))
ZERO = Look(PAPER, RULE, QUIET, dashed=True)
EMPTY = Look(PAPER)
SCORE_NOW = Look((24, 88, 152), INK, PAPER)
ZERO_NOW = Look((112, 120, 134), INK, PAPER)
IMAGE_NOW = Look((0, 112, 84), INK, PAPER)


def cut(look: Look) -> Look:
    """The same cell, cut off by padding."""
    return replace(look, fill=blend(look.fill, PAPER, 0.6), edge=RULE, ink=QUIET, dashed=True, crossed=True)


def shade(look: Look, share: float) -> Look:
    """The same cell on a scale of its colour: pale at a share of 0, deep at 1."""
    pale = blend(look.fill, PAPER, 0.6)
    fill = blend(pale, look.edge, 2 * share) if share < 0.5 else blend(look.edge, look.deep, 2 * share - 1)
    return replace(look, fill=fill)


def blend(a: Colour, b: Colour, share: float) -> Colour:
    """A share of 0 is a, a share of 1 is b."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


# Letters. Pillow's built-in font has little beyond ASCII, and without FreeType it is a bitmap of Latin-1; a font of the
# system would make every machine's pictures different. So minus and times are drawn, and the rest is spelled in ASCII.

_ASCII = {"−": "-", "×": "x", "·": "*", "′": "'", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "–": "-", "—": "-"}
_STROKES = {"−": [(0.08, 0.5, 0.92, 0.5)], "×": [(0.1, 0.1, 0.9, 0.9), (0.1, 0.9, 0.9, 0.1)]}  # in the box of a plus
_FINE = 8  # strokes are drawn this much larger, and averaged


@lru_cache
def font(size: int) -> Font:
    """Pillow's built-in font, letters of about `size` pixels; of one fixed size where Pillow has no FreeType."""
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):  # Pillow 10.0 takes no size
        return ImageFont.load_default()


@lru_cache(maxsize=1024)
def _has(face: Font, letter: str) -> bool:
    if letter.isascii() or letter == "\xa0":
        return True
    if not isinstance(face, ImageFont.FreeTypeFont):
        return letter.encode("latin-1", "ignore") != b""
    glyph, missing = face.getmask(letter), face.getmask("\uffff")
    return (glyph.size, bytes(glyph)) != (missing.size, bytes(missing))


def spelled(text: str, size: int) -> str:
    """`text` in the letters that can be painted: those of the font, drawn signs, and ASCII for what is left."""
    face = font(size)
    return "".join(a if a in _STROKES or _has(face, a) else _ASCII.get(a, "?") for a in text)


def _runs(text: str, size: int) -> Iterator[tuple[str, float]]:
    """The text in pieces, each with the pixels it takes up: words, spaces and drawn signs."""
    face = font(size)
    for run in re.split(r"([ \xa0−×])", text):
        if run in (" ", "\xa0"):  # the font's own is too narrow beside digits
            yield "", max(face.getlength(" "), size * 0.3)
        elif run:
            yield run, face.getlength("+" if run in _STROKES else run)


@lru_cache(maxsize=256)
def _stroke(sign: str, size: int) -> tuple[Image.Image, int, int]:
    """A drawn sign as a mask, and where it goes: right of the pen and below the line's top."""
    left, top, right, bottom = font(size).getbbox("+")
    side = max(round(min(right - left, bottom - top)), 3)  # a bitmap font says its line's height, not the sign's
    mask = Image.new("L", (side * _FINE, side * _FINE))
    for stroke in _STROKES[sign]:
        ends = [round(end * side * _FINE) for end in stroke]
        ImageDraw.Draw(mask).line(ends, fill=255, width=max(round(size * _FINE / 11), _FINE))
    return mask.resize((side, side), Image.Resampling.BOX), round(left), round((top + bottom - side) / 2)


@lru_cache(maxsize=65536)
def wide(text: str, size: int) -> float:
    """The pixels that `text` takes up along the line."""
    return sum(length for _, length in _runs(spelled(text, size), size))


def write(draw: Draw, x: float, y: float, text: str, size: int, ink: Colour = INK, align: float = 0.0) -> None:
    """Paint one line. x is its left end, centre (align 0.5) or right end (align 1); y is the middle of a digit."""
    face = font(size)
    _, top, _, bottom = face.getbbox("0")
    pen, line = x - align * wide(text, size), round(y - (top + bottom) / 2)
    for run, length in _runs(spelled(text, size), size):
        if run in _STROKES:
            mask, right, down = _stroke(run, size)
            draw.bitmap((round(pen) + right, line + down), mask, fill=ink)
        elif run:
            draw.text((round(pen), line), run, fill=ink, font=face)
        pen += length


def write_lines(draw: Draw, left: int, top: int, lines: Sequence[str], size: int, ink: Colour = INK) -> None:
    """Paint lines below each other, from (left, top) on."""
    for k, line in enumerate(lines):
        write(draw, left, top + (k + 0.5) * leading(size), line, size, ink)


def paragraph(text: str, size: int, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels; a word that is wider has a line of its own."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and wide(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def leading(size: int) -> int:
    """From one line to the next, in pixels."""
    return round(size * 1.5)


def longest(texts: Iterable[str]) -> tuple[str, ...]:
    """A few of the longest, which stand for all where there are many."""
    return tuple(sorted(set(texts), key=lambda text: (-len(text), text))[:12])


@lru_cache(maxsize=4096)
def fitting(texts: tuple[str, ...], width: float, height: float, largest: int) -> int:
    """The largest size, up to `largest`, at which all texts fit into width × height pixels; 0 where none is legible."""
    for size in range(largest, _SMALLEST - 1, -1):
        _, top, _, bottom = font(size).getbbox("0")
        if bottom - top <= height and all(wide(text, size) <= width for text in texts):
            return size
    return 0


# Cells


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a map lies in a picture. Neighbouring cells share the pixels of an edge."""

    left: int
    top: int
    cell: int
    rows: int
    columns: int

    @property
    def width(self) -> int:
        return self.columns * self.cell + 1

    @property
    def height(self) -> int:
        return self.rows * self.cell + 1

    def box(self, row: int, column: int) -> Box:
        """The pixels of a cell."""
        x, y = self.left + column * self.cell, self.top + row * self.cell
        return x, y, x + self.cell, y + self.cell


def edged(cell: int) -> bool:
    """Whether cells of this size, in pixels, have an edge: there would be nothing else left of smaller ones."""
    return cell >= 6


def paint(draw: Draw, box: Box, look: Look) -> None:
    """Paint a cell."""
    x0, y0, x1, y1 = box
    edge = edged(x1 - x0)
    draw.rectangle(box, fill=look.fill, outline=look.edge if edge and not look.dashed else look.fill)
    if look.crossed:
        draw.line((x0 + 1, y0 + 1, x1 - 1, y1 - 1), fill=look.edge)
        draw.line((x0 + 1, y1 - 1, x1 - 1, y0 + 1), fill=look.edge)
    if look.dashed and edge:
        for x in range(x0, x1, 4):
            draw.line([(x, y0), (min(x + 1, x1), y0)], fill=look.edge)
            draw.line([(x, y1), (min(x + 1, x1), y1)], fill=look.edge)
        for y in range(y0, y1, 4):
            draw.line([(x0, y), (x0, min(y + 1, y1))], fill=look.edge)
            draw.line([(x1, y), (x1, min(y + 1, y1))], fill=look.edge)


def surround(draw: Draw, grid: Grid) -> None:
    """A line around a map whose cells have no edge."""
    if not edged(grid.cell):
        x, y = grid.left - 1, grid.top - 1
        draw.rectangle((x, y, x + grid.width + 1, y + grid.height + 1), outline=RULE)


def frame(draw: Draw, box: Box, cell: int) -> None:
    """Mark a cell, or a group of cells of this size, by a strong outline."""
    x0, y0, x1, y1 = box
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=MARK, width=3 if cell >= 12 else 2)


# Legends

Entry = tuple[Look, str]
_SWATCH, _LETTERS = 16, 13


def legend_lines(entries: Sequence[Entry], width: float) -> list[list[Entry]]:
    """The entries, as many on a line as fit."""
    lines: list[list[Entry]] = []
    used = 0.0
    for entry in entries:
        length = _entry_width(entry)
        if not lines or used + length > width:
            lines.append([])
            used = 0.0
        lines[-1].append(entry)
        used += length
    return lines


def _entry_width(entry: Entry) -> float:
    return _SWATCH + 6 + wide(entry[1], _LETTERS) + 18


def legend_height(entries: Sequence[Entry], width: float) -> int:
    return len(legend_lines(entries, width)) * (_SWATCH + 8)


def write_legend(draw: Draw, left: int, top: int, entries: Sequence[Entry], width: float) -> None:
    """Swatches with what they mean, from (left, top) on."""
    for k, line in enumerate(legend_lines(entries, width)):
        x, y = float(left), top + k * (_SWATCH + 8)
        for entry in line:
            look, text = entry
            paint(draw, (round(x), y, round(x) + _SWATCH, y + _SWATCH), look)
            write(draw, round(x) + _SWATCH + 6, y + _SWATCH / 2, text, _LETTERS)
            x += _entry_width(entry)


# Panels


@dataclass(frozen=True, slots=True)
class Panel:
    """A titled map: `paint` fills a grid of rows × columns, `entries` gives the legend below it for a size of cells."""

    title: str
    rows: int
    columns: int
    paint: Callable[[Draw, Grid], None]
    entries: Callable[[int], Sequence[Entry]]


@dataclass(frozen=True, slots=True)
class Place:
    """A panel where it lies: its grid, the lines of the title above it, its width, and its height without the title."""

    panel: Panel
    grid: Grid
    title: tuple[str, ...]
    width: int
    height: int


_TITLE, _GAP = 14, 28
_ROOMY = 440  # pixels that a map of few cells may take up: it has room for numbers even where a large one has none


def _placed(panel: Panel, cell: int, left: int, top: int) -> Place:
    cell = max(cell, min(44, _ROOMY // max(panel.rows, panel.columns)))
    width = max(panel.columns * cell + 1, min(round(wide(panel.title, _TITLE)) + 1, 240))
    title = tuple(paragraph(panel.title, _TITLE, width))
    grid = Grid(left, top + _title_height(title), cell, panel.rows, panel.columns)
    entries = panel.entries(cell)
    below = legend_height(entries, width) + 8 if entries else 0
    return Place(panel, grid, title, width, grid.height + below)


def _title_height(title: Sequence[str]) -> int:
    return len(title) * leading(_TITLE) + 6


def _flow(panels: Sequence[Panel], cell: int, left: int, top: int, width: int) -> list[list[Place]]:
    """The panels in as many lines as they need. The maps of a line are level with each other."""
    lines: list[list[Place]] = [[]]
    x, y = left, top
    for panel in panels:
        place = _placed(panel, cell, x, y)
        if lines[-1] and x + place.width > left + width:
            x, y = left, extent(lines)[1] + _GAP
            lines.append([])
            place = _placed(panel, cell, x, y)
        low = max(other.grid.top for other in [*lines[-1], place])
        lines[-1] = [replace(other, grid=replace(other.grid, top=low)) for other in [*lines[-1], place]]
        x += place.width + _GAP
    return lines


def arrange(
    groups: Sequence[Sequence[Panel]], left: int, top: int, width: int, height: int, cells: range
) -> list[list[Place]]:
    """Lines of panels, with the first size of `cells` at which they fit into width × height pixels, or the last.

    There is one line if that is wide enough; if not, every group begins one.
    """
    lines: list[list[Place]] = []
    for cell in cells:
        lines = _flow([panel for group in groups for panel in group], cell, left, top, width)
        if len(lines) > 1:
            lines = []
            for group in groups:
                lines += _flow(group, cell, left, extent(lines)[1] + _GAP if lines else top, width)
        right, low = extent(lines)
        if right <= left + width and low <= top + height:
            break
    return lines


def extent(lines: Sequence[Sequence[Place]]) -> tuple[int, int]:
    """Right and bottom end of the panels."""
    places = [place for line in lines for place in line]
    return max(place.grid.left + place.width for place in places), max(
        place.grid.top + place.height for place in places
    )


def show(draw: Draw, place: Place) -> None:
    """Paint a panel: title, map, legend."""
    grid, panel = place.grid, place.panel
    write_lines(draw, grid.left, grid.top - _title_height(place.title), place.title, _TITLE)
    panel.paint(draw, grid)
    write_legend(draw, grid.left, grid.top + grid.height + 8, panel.entries(grid.cell), place.width)

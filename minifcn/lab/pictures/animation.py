"""A GIF of the sliding computation, in the style of the guide's animations (Dumoulin & Visin 2016,
https://github.com/vdumoulin/conv_arithmetic).

Below, the input with its zeros in dashed cells, and the filter's footprint sliding over it; above, the output, filling
up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from minifcn.geometry import ConvGeometry, Pair
from minifcn.lab.pictures import drawing
from minifcn.lab.pictures.drawing import Draw, Entry, Grid
from minifcn.lab.pictures.scene import (
    MARGIN,
    Cells,
    Ground,
    Numbers,
    Scene,
    course,
    cut_entry,
    evenly,
    settings,
    sums,
    title,
    torch_line,
    under,
)
from minifcn.lab.pictures.sliding import Kind
from minifcn.training.files import replacing

_MOST_FRAMES = 400
_LENGTH_MS = 24_000  # of all frames, unless the caller says how long one is
_MOST_PIXELS = 300_000_000  # of all frames: while it writes, Pillow holds a byte for each
_CELL = 44  # pixels, at most


def animate(
    path: str | os.PathLike[str],
    input: Numbers,
    w: Numbers,
    geom: ConvGeometry,
    kind: Kind = "tconv",
    frame_ms: int | None = None,
) -> None:
    """y (N,O,P,Q) → x (N,C,H,W), or x → y: a GIF of the filter (O,C,I,J) sliding, a frame for each output; atomically.

    It loops, and holds the last frame. Drawn is channel 0 alone, for sample 0. More than 400 outputs (fewer, where maps
    are large) share the frames evenly, and the picture says so. The file's comment is the PyTorch layer.

    Args:
        path: the file.
        input: scores (N,O,P,Q) for "tconv", the image (N,C,H,W) for "conv".
        w: the filter, the same for both.
        geom: of the pair (`arithmetic.layer`, `arithmetic.layer_to`).
        kind: "tconv", drawn as the convolution of stride 1 over scores with zeros between and around them; or "conv",
            over the padded image, with its stride.
        frame_ms: milliseconds per frame, at least 20. By default 400, and less where all frames would take more than
            24 s.

    Raises:
        ValueError: as for `picture`; frames that are too short.

    Reference: Dumoulin & Visin 2016, §2 and §4.

    >>> import tempfile
    >>> from minifcn.lab import layer, whole_numbers
    >>> geom = layer(2, kernel=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     animate(f"{folder}/tconv.gif", whole_numbers(geom.y_shape), whole_numbers(geom.w_shape), geom)
    ...     with Image.open(f"{folder}/tconv.gif") as film:
    ...         film.n_frames
    9
    """
    if frame_ms is not None and frame_ms < 20:
        raise ValueError(
            f"animate: frame_ms is {frame_ms}; at least 20 is needed, as browsers do not show shorter ones"
        )
    stage = _Stage.of(Scene.of("animate", np.asarray(input), np.asarray(w), geom, kind))
    frame_ms = min(400, _LENGTH_MS // len(stage.shown)) if frame_ms is None else frame_ms
    durations = [frame_ms] * (len(stage.shown) - 1) + [max(5 * frame_ms, 1500)]
    frames = stage.frames()
    with replacing(path) as draft:
        next(frames).save(
            draft,
            format="GIF",
            save_all=True,
            append_images=frames,
            duration=durations if len(durations) > 1 else durations[0],
            loop=0,
            optimize=True,
            comment=torch_line(stage.scene).encode(),
        )


_BODY = 900, 700  # width and height that the two maps may take up
_NARROWEST = 640  # for the words
_WORDS, _SUMS = 13, 15  # sizes of letters


@dataclass(frozen=True, slots=True)
class _Stage:
    """What stays the same from frame to frame, and where the rest goes."""

    scene: Scene
    ground: Ground
    output: Cells
    upper: Grid  # of the output
    lower: Grid  # of the input with its zeros
    below: int  # the top of the sums
    shown: list[int]  # the outputs that have a frame
    still: Image.Image  # words, legend, the input without the filter, and the output without values

    @classmethod
    def of(cls, scene: Scene) -> _Stage:
        ground, output = Ground.of(scene), Cells.of(scene.names[1], scene.output, scene.looks[1])
        side_by_side, cell = _composition(scene)
        (rows, high), (columns, across) = scene.rows, scene.columns
        maps = (columns + across) * cell + 3 * MARGIN if side_by_side else max(columns, across) * cell
        width = max(maps, _NARROWEST)
        start = MARGIN + (width - maps) // 2
        label = drawing.leading(14)

        head = [line for text in (settings(scene), course(scene)) for line in drawing.paragraph(text, _WORDS, width)]
        top = MARGIN + drawing.leading(19) + len(head) * drawing.leading(_WORDS) + 12 + label
        if side_by_side:
            lower = Grid(start, top, cell, rows, columns)
            upper = Grid(start + columns * cell + 3 * MARGIN, top, cell, high, across)
        else:
            upper = Grid(MARGIN + (width - across * cell) // 2, top, cell, high, across)
            low = top + upper.height + 20 + label
            lower = Grid(MARGIN + (width - columns * cell) // 2, low, cell, rows, columns)
        below = max(upper.top + upper.height, lower.top + lower.height) + 14

        legend = below + 2 * drawing.leading(_SUMS) + 10
        entries = [*_stage_entries(scene, ground, cell), *ground.cells.entries(cell), *output.entries(cell)]
        words = legend + drawing.legend_height(entries, width)
        count = high * across
        shown = evenly(count, min(_MOST_FRAMES, _MOST_PIXELS // (width * words)))
        skipped = f"Frames show {len(shown)} of {count} positions, evenly chosen." if len(shown) < count else ""
        foot = [line for text in (skipped, scene.channels) if text for line in drawing.paragraph(text, _WORDS, width)]

        extent = width + 2 * MARGIN, words + len(foot) * drawing.leading(_WORDS) + MARGIN
        still = Image.new("RGB", extent, drawing.PAPER)
        draw = ImageDraw.Draw(still)
        drawing.write(draw, MARGIN, MARGIN + 10, title(scene), 19)
        drawing.write_lines(draw, MARGIN, MARGIN + drawing.leading(19), head, _WORDS, drawing.QUIET)
        zeros = ", with zeros" if rows * columns > scene.input.size else ""
        for grid, text in ((upper, f"output {scene.names[1]}"), (lower, f"input {scene.names[0]}{zeros}")):
            drawing.write(draw, grid.left, grid.top - label / 2, text, 14)
        for at in np.ndindex(high, across):
            drawing.paint(draw, upper.box(*at), drawing.EMPTY)
        drawing.surround(draw, upper)
        ground.paint(draw, lower)
        drawing.write_legend(draw, MARGIN, legend, entries, width)
        drawing.write_lines(draw, MARGIN, words, foot, _WORDS, drawing.QUIET)
        return cls(scene, ground, output, upper, lower, below, shown, still)

    def frames(self) -> Iterator[Image.Image]:
        """One for each output that is shown, in the colours of one palette."""
        palette = _palette(self.scene)
        canvas = self.still.copy()
        draw, done = ImageDraw.Draw(canvas), 0
        for k in self.shown:
            for filled in range(done, k + 1):
                at = divmod(filled, self.upper.columns)
                self.output.paint(draw, self.upper.box(*at), at)
            done = k + 1
            moment = canvas.copy()
            self._paint_moment(ImageDraw.Draw(moment), divmod(k, self.upper.columns))
            yield moment.quantize(palette=palette, dither=Image.Dither.NONE)

    def _paint_moment(self, draw: Draw, at: Pair) -> None:
        self.ground.paint_footprint(draw, self.lower, at)
        self.output.paint(draw, self.upper.box(*at), at, self.scene.looks[2])
        drawing.frame(draw, self.upper.box(*at), self.upper.cell)
        lines = sums(self.scene, at, self.still.width - 2 * MARGIN, _SUMS)
        drawing.write_lines(draw, MARGIN, self.below, lines, _SUMS)


def _composition(scene: Scene) -> tuple[bool, int]:
    """Whether the maps are side by side, and the size of their cells. The guide has the output above; that gives way
    where cells would be too small for numbers and larger ones fit side by side."""
    (rows, high), (columns, across) = scene.rows, scene.columns
    above = min(_BODY[0] // max(columns, across), _BODY[1] // (rows + high))
    beside = min(_BODY[0] // (columns + across), _BODY[1] // max(rows, high))
    side_by_side = above < min(beside, 36)
    return side_by_side, min(max(beside if side_by_side else above, 2), _CELL)


def _stage_entries(scene: Scene, ground: Ground, cell: int) -> tuple[Entry, ...]:
    now = drawing.SCORE_NOW if scene.kind == "tconv" else drawing.IMAGE_NOW
    source, target = ("score", "pixel") if scene.kind == "tconv" else ("pixel", "score")
    return (
        (scene.looks[0], f"{source} (input)"),
        (drawing.ZERO, "zero"),
        (now, under(ground, cell)),
        (drawing.ZERO_NOW, "zero under the filter"),
        *cut_entry(scene),
        (scene.looks[1], f"{target} (output)"),
        (scene.looks[2], f"{target} that is computed"),
        (drawing.EMPTY, "still to come"),
    )


def _palette(scene: Scene) -> Image.Image:
    """The colours of the looks, and those between a cell and its letters: a palette for all frames, without dither."""
    paper, ink = drawing.PAPER, drawing.INK
    looks = [*scene.looks, drawing.SCORE_NOW, drawing.IMAGE_NOW, drawing.ZERO_NOW, drawing.cut(scene.looks[0])]
    ramps = [(paper, ink), (paper, drawing.QUIET)]
    ramps += [(look.fill, look.ink) for look in looks]
    ramps += [(look.fill, drawing.TAP) for look in looks if look.ink == paper]
    colours = [drawing.blend(a, b, k / 7) for a, b in ramps for k in range(8)]
    colours += [drawing.MARK, *(look.edge for look in (*looks, drawing.ZERO))]
    colours += [drawing.shade(look, k / 39).fill for look in scene.looks[:2] for k in range(40)]
    distinct = list(dict.fromkeys(colours))
    image = Image.new("P", (1, 1))
    image.putpalette([value for colour in distinct for value in colour])
    return image

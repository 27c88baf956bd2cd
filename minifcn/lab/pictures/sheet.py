"""A PNG that explains one transposed convolution: what goes in, how it is computed, what comes out."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from minifcn.geometry import ConvGeometry
from minifcn.lab.arithmetic import formula
from minifcn.lab.overlap import checkerboard, overlap
from minifcn.lab.pictures import drawing
from minifcn.lab.pictures.drawing import Draw, Entry, Grid, Look, Panel
from minifcn.lab.pictures.scene import (
    MARGIN,
    Cells,
    Ground,
    Numbers,
    Scene,
    course,
    cut_entry,
    evenly,
    letters_for,
    settings,
    size,
    title,
    torch_line,
    under,
    write_in,
)
from minifcn.training.files import replacing

_WIDTH = 1200  # of the picture, in pixels
_CELL = 44  # pixels, at most


def picture(path: str | os.PathLike[str], y: Numbers, w: Numbers, geom: ConvGeometry) -> None:
    """y (N,O,P,Q), w (O,C,I,J) → a PNG that explains x (N,C,H,W) = conv_transpose2d(y, w), written atomically.

    Five maps: the scores; the filter; the scores with zeros between and around them, and the turned filter on them for
    one pixel; the image; and how many products meet in each pixel. Below them the size's formula, the PyTorch layer,
    and whether there is a checkerboard. Drawn is channel 0 of y and w alone, for sample 0. Cells that are too small for
    numbers have shades.

    Args:
        path: the file.
        y, w: arrays of the geometry's shapes.
        geom: of the transposed convolution (`arithmetic.layer`).

    Raises:
        ValueError: arrays of other shapes, NaN or Inf, or a map of more than 320 cells along an axis, zeros included.

    Reference: Dumoulin & Visin 2016, §4.

    >>> import tempfile
    >>> from minifcn.lab import layer, whole_numbers
    >>> geom = layer(3, kernel=3, stride=2, padding=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     picture(f"{folder}/tconv.png", whole_numbers(geom.y_shape), whole_numbers(geom.w_shape), geom)
    ...     with Image.open(f"{folder}/tconv.png") as sheet:
    ...         sheet.format
    'PNG'
    """
    scene = Scene.of("picture", np.asarray(y), np.asarray(w), geom, "tconv")
    top = MARGIN + drawing.leading(20) + drawing.leading(14) + 16
    ground = Ground.of(scene)
    panels = _panels(scene, ground)
    lines = drawing.arrange(panels, MARGIN, top, _WIDTH - 2 * MARGIN, _WIDTH - top, range(_CELL, 1, -1))
    places = [place for line in lines for place in line]
    right, bottom = drawing.extent(lines)
    width = max(right, 880) - MARGIN
    entries = (
        (drawing.SCORE, "score"),
        (drawing.FILTER, "filter"),
        (drawing.ZERO, "zero, inserted or at the border"),
        (drawing.SCORE_NOW, under(ground, places[2].grid.cell)),
        (drawing.ZERO_NOW, "zero under the filter"),
        (drawing.IMAGE, "pixel of the image"),
        (drawing.IMAGE_NOW, "the pixel that is computed in 3"),
        *cut_entry(scene),
    )
    sentences = [line for text in _explained(scene) for line in drawing.paragraph(text, 14, width)]
    legend = bottom + 24
    words = legend + drawing.legend_height(entries, width) + 10
    image = Image.new("RGB", (width + 2 * MARGIN, words + len(sentences) * drawing.leading(14) + MARGIN), drawing.PAPER)
    draw = ImageDraw.Draw(image)
    drawing.write(draw, MARGIN, MARGIN + 12, title(scene), 20)
    drawing.write(draw, MARGIN, MARGIN + drawing.leading(20) + 8, settings(scene), 14, drawing.QUIET)
    for place in places:
        drawing.show(draw, place)
    drawing.write_legend(draw, MARGIN, legend, entries, width)
    drawing.write_lines(draw, MARGIN, words, sentences, 14)
    with replacing(path) as draft:
        image.save(draft, format="PNG")


def _explained(scene: Scene) -> list[str]:
    rule = "(input − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1"
    height, width = formula(scene.geom, 0), formula(scene.geom, 1)
    sizes = (
        [f"height and width: {rule} = {height}"]
        if height == width
        else [f"height: {rule} = {height}", f"width: {width}"]
    )
    verdict = checkerboard(scene.geom, scene.w[None, None]).verdict
    return [
        f"3: {course(scene)}",
        *sizes,
        f"PyTorch: {torch_line(scene)}",
        f"{scene.channels} For these channels, {verdict}." if scene.channels else f"{verdict[0].upper()}{verdict[1:]}.",
    ]


def _panels(scene: Scene, ground: Ground) -> tuple[list[Panel], list[Panel]]:
    """What goes in, and what comes out."""
    geom = scene.geom
    at = (geom.x_hw[0] // 2, geom.x_hw[1] // 2)
    scores, filter, image = ground.cells, ground.taps, Cells.of("x", scene.output, drawing.IMAGE)
    counts = overlap(geom)

    def paint_ground(draw: Draw, grid: Grid) -> None:
        ground.paint(draw, grid)
        ground.paint_footprint(draw, grid, at)

    def paint_image(draw: Draw, grid: Grid) -> None:
        image.paint_all(draw, grid)
        image.paint(draw, grid.box(*at), at, drawing.IMAGE_NOW)
        drawing.frame(draw, grid.box(*at), grid.cell)

    def paint_heat(draw: Draw, grid: Grid) -> None:
        most = int(counts.max())
        letters = letters_for((str(most),), grid.cell)
        for row, column in np.ndindex(*counts.shape):
            box, count = grid.box(row, column), int(counts[row, column])
            look = _heat(count, most)
            drawing.paint(draw, box, look)
            if letters:
                write_in(draw, box, str(count), letters, look.ink)

    direct = f"3  Scores with zeros, and w turned by\xa0180°, at pixel\xa0({at[0]},\xa0{at[1]})"
    heat = _heat_entries(counts)
    return (
        [
            Panel(f"1  Scores y, {size(geom.y_hw)}: the input", *geom.y_hw, scores.paint_all, scores.entries),
            Panel(f"2  Filter w, {size(geom.w_hw)}", *geom.w_hw, filter.paint_all, filter.entries),
            Panel(direct, scene.rows[0], scene.columns[0], paint_ground, lambda cell: ()),
        ],
        [
            Panel(f"4  Image x, {size(geom.x_hw)}: the output", *geom.x_hw, paint_image, image.entries),
            Panel("5  Overlap: how many products add up in each pixel", *geom.x_hw, paint_heat, lambda cell: heat),
        ],
    )


def _heat(count: int, most: int) -> Look:
    share = count / most if most else 0.0
    return Look(drawing.blend(*drawing.HEAT, share), ink=drawing.INK if share < 0.5 else drawing.PAPER)


def _heat_entries(counts: NDArray[np.int64]) -> tuple[Entry, ...]:
    """Every count that occurs; of many, some, evenly chosen."""
    found = np.unique(counts)
    chosen = found[evenly(len(found), 8)]
    return tuple((_heat(int(count), int(found[-1])), str(count)) for count in chosen)

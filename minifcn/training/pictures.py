"""Pictures of a run: images beside truth and prediction, and the learning curve."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from minifcn.data import IGNORE_COLOR, overlay
from minifcn.training.files import replacing

SHEET_ROWS = 6  # images that a run shows
_TILE = 256  # pixels across, of every picture in the sheet
_GAP = 8
_ALPHA = 0.6
_CELL = 130  # pixels of width for a class's name, at least
_LINE = 22  # pixels of height for a line of text
_INK, _PAPER = (32, 32, 32), (255, 255, 255)
_NO_MATPLOTLIB = 'learning_curve.png needs matplotlib; pip install "minifcn[plot]" for it'

_said: set[str] = set()  # what has been said once need not be said again


def overlay_sheet(
    path: str | os.PathLike[str],
    rows: Sequence[tuple[NDArray[Any], ...]],
    classes: Sequence[str],
    palette: ArrayLike,
    titles: Sequence[str] = ("prediction",),
) -> None:
    """Write a PNG of rows image | truth | prediction … with the classes' names and colours below, atomically.

    Args:
        path: the file.
        rows: images (H, W, 3) uint8, each with its true classes (H, W) and with those of each prediction; sizes may
            differ by row.
        classes: K names.
        palette: K colours (red, green, blue), 0…255: (K, 3).
        titles: of the predictions.

    Raises:
        ValueError: without rows, or for another number of predictions than titles.
    """
    if not rows:
        raise ValueError("overlay_sheet: there are no rows; at least one image is needed")
    wrong = [len(row) - 2 for row in rows if len(row) != 2 + len(titles)]
    if wrong:
        raise ValueError(f"overlay_sheet: a row has {wrong[0]} predictions; {len(titles)}, one per title, are needed")
    strips = [_strip(image, maps, palette) for image, *maps in rows]
    legend = _legend(classes, palette, strips[0].width)
    parts = [_titles(strips[0].width, ("image", "truth", *titles)), *strips, legend]
    height = sum(part.height for part in parts) + _GAP * (len(parts) + 1)
    sheet = Image.new("RGB", (strips[0].width + 2 * _GAP, height), _PAPER)
    y = _GAP
    for part in parts:
        sheet.paste(part, (_GAP, y))
        y += part.height + _GAP
    _save(path, sheet)


def _strip(image: NDArray[Any], maps: Sequence[NDArray[Any]], palette: ArrayLike) -> Image.Image:
    """The pictures of one row, side by side, at the sheet's scale."""
    # over grey, a class keeps the hue that the legend shows
    grey = np.repeat(image.mean(axis=2).round().astype(np.uint8)[..., None], 3, axis=2)  # (H, W, 3)
    pictures = [image, *(overlay(grey, labels, palette, _ALPHA) for labels in maps)]
    h, v = image.shape[:2]
    size = (_TILE, max(1, round(_TILE * h / v)))
    strip = Image.new("RGB", (len(pictures) * (_TILE + _GAP) - _GAP, size[1]), _PAPER)
    # enlarged pixels stay squares that one can count; a reduced picture is averaged
    resampling = Image.Resampling.NEAREST if v <= _TILE else Image.Resampling.BOX
    for column, picture in enumerate(pictures):
        tile = Image.fromarray(np.ascontiguousarray(picture)).resize(size, resampling)
        strip.paste(tile, (column * (_TILE + _GAP), 0))
    return strip


def _titles(width: int, titles: Sequence[str]) -> Image.Image:
    line = Image.new("RGB", (width, _LINE), _PAPER)
    for column, title in enumerate(titles):
        ImageDraw.Draw(line).text((column * (_TILE + _GAP), 4), title, fill=_INK, font=ImageFont.load_default())
    return line


def _legend(classes: Sequence[str], palette: ArrayLike, width: int) -> Image.Image:
    columns = width // _CELL
    cell = width // columns
    entries = [*zip(classes, np.asarray(palette).tolist(), strict=True), ("void", list(IGNORE_COLOR))]
    lines = -(-len(entries) // columns)
    legend = Image.new("RGB", (width, max(1, lines * _LINE)), _PAPER)
    draw = ImageDraw.Draw(legend)
    for k, (name, colour) in enumerate(entries):
        x, y = k % columns * cell, k // columns * _LINE
        draw.rectangle((x, y + 3, x + 14, y + 17), fill=tuple(colour), outline=_INK)
        # Pillow's built-in font may know no more than Latin-1, and raises for the rest
        label = name[:16].encode("latin-1", "replace").decode("latin-1")
        draw.text((x + 20, y + 4), label, fill=_INK, font=ImageFont.load_default())
    return legend


def learning_curve(path: str | os.PathLike[str], records: Sequence[Mapping[str, Any]]) -> str | None:
    """Write a PNG of loss and mean IU over the epochs, atomically; needs matplotlib (the extra `plot`).

    Args:
        path: the file.
        records: the lines of a run's metrics.jsonl.

    Returns:
        None, or a sentence that says why there is no picture (said once in a process; an empty one after that).
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # draws without a display
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        sentence = "" if _NO_MATPLOTLIB in _said else _NO_MATPLOTLIB
        _said.add(_NO_MATPLOTLIB)
        return sentence
    epochs = [record["epoch"] for record in records]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    for key, label in (("train_loss", "training"), ("val_loss", "validation")):
        losses.plot(*_points(records, key), marker=".", label=label)
    for key, label in (("mean_iu", "mean IU"), ("pixel_accuracy", "pixel accuracy")):
        scores.plot(*_points(records, key), marker=".", label=label)
    scores.set_ylim(0, 1)
    for axes, title in ((losses, "loss"), (scores, "validation")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=120)
    return None


def _points(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """(epochs, values) where there is a value: the line goes on over epochs that were not validated."""
    points = [(record["epoch"], float(record[key])) for record in records if record[key] is not None]
    return [epoch for epoch, _ in points], [value for _, value in points]


def save_labels(path: str | os.PathLike[str], labels: NDArray[np.uint8], palette: ArrayLike) -> None:
    """Write classes (H, W) as a palette PNG, atomically: its pixel values are the classes, and viewers show colours.

    Args:
        path: the file.
        labels: 0…K−1 or 255, uint8.
        palette: K colours (red, green, blue), 0…255: (K, 3).
    """
    picture = Image.fromarray(labels)
    colours = np.full((256, 3), IGNORE_COLOR, np.uint8)
    colours[: len(np.asarray(palette))] = palette
    picture.putpalette(colours.tobytes())
    _save(path, picture)


def save_picture(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write red, green, blue (H, W, 3) uint8 as a PNG, atomically."""
    _save(path, Image.fromarray(pixels))


def _save(path: str | os.PathLike[str], picture: Image.Image) -> None:
    with replacing(path) as draft:
        picture.save(draft, format="PNG")

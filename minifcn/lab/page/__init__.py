"""The laboratory's interactive page: one file that opens in any browser, and loads nothing from anywhere.

Computation and drawing are apart: compute.js holds the arithmetic (functions and sentences of `lab.arithmetic` and
`lab.ways`), links.js what is linked with what, grid.js a grid of cells that mouse, touch and keyboard can point at,
grids.js, views.js and sections.js what the page draws with it, page.js the controls. `render` puts them into page.html.
"""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn.geometry import AXES, ConvGeometry, Pair
from minifcn.lab.arithmetic import output_padding
from minifcn.lab.values import bilinear_filter, whole_numbers
from minifcn.training.files import replacing

Numbers = NDArray[Any]

OP = "page"
SCRIPTS = ("compute.js", "colours.js", "links.js", "grid.js", "grids.js", "views.js", "sections.js", "page.js")
RANGES = {  # of the sliders: what can still be drawn, and answers at once
    "input": (1, 12),
    "kernel": (1, 16),
    "stride": (1, 8),
    "padding": (0, 10),
    "output_padding": (0, 8),
    "dilation": (1, 4),
}


def write_page(path: str | os.PathLike[str], y: Numbers | None, w: Numbers | None, geom: ConvGeometry) -> None:
    """Write `render(y, w, geom)` to a file, atomically.

    Args:
        path: the file.
        y, w, geom: as for `render`.

    Raises:
        ValueError: as for `render`.
    """
    text = render(y, w, geom)
    with replacing(Path(path)) as draft:
        draft.write_text(text, encoding="utf-8")


def render(y: Numbers | None, w: Numbers | None, geom: ConvGeometry) -> str:
    """Scores (N,O,P,Q), filter (O,C,I,J) → the page as HTML, which begins with this layer.

    The page shows one channel: y[0, 0] and w[0, 0].

    Args:
        y: scores of the geometry's size to offer among the page's own; None for those only.
        w: a filter, likewise.
        geom: the layer, see `lab.layer`; each size within `RANGES`.

    Returns:
        The HTML.

    Raises:
        ValueError: a size out of range, values that are not finite or not of the geometry's size.

    >>> from minifcn.lab.arithmetic import layer
    >>> render(None, None, layer(5, kernel=3, stride=2, padding=1)).startswith("<!doctype html>")
    True
    """
    given = {
        "config": _config(geom),
        "ranges": RANGES,
        "channels": (geom.o, geom.c),
        "scores": _values("scores", y, geom.y_hw, {}),
        "weights": _values("weights", w, geom.w_hw, {"bilinear": bilinear_filter(geom.w_hw)}),
    }
    # inside <script> the text ends at </script, whatever a string in it means: no "<" is left that could begin one
    data = json.dumps(given, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "/*{{page.css}}*/": _read("page.css"),
        "/*{{scripts}}*/": "\n".join(_read(name) for name in SCRIPTS),
        "{{given}}": data,
    }
    page = _read("page.html")
    for mark, text in parts.items():
        page = page.replace(mark, text)
    return page


def _config(geom: ConvGeometry) -> dict[str, Pair]:
    config = {
        "input": geom.y_hw,
        "kernel": geom.w_hw,
        "stride": geom.stride,
        "padding": geom.padding,
        "output_padding": output_padding(geom),
        "dilation": geom.dilation,
    }
    for name, values in config.items():
        low, high = RANGES[name]
        for axis, value in zip(AXES, values, strict=True):
            if not low <= value <= high:
                raise ValueError(f"{OP}: {name} is {value} along the {axis}; the page shows {low} to {high}")
    return config


def _values(name: str, array: Numbers | None, size: Pair, own: dict[str, Numbers]) -> dict[str, Any]:
    """What the page begins with: one of its own choices, where that is what was given, or else the numbers."""
    own = {"numbers": whole_numbers((1, 1, *size)), **own}
    if array is None:
        return {"choice": "numbers", "values": None}
    if array.ndim != 4 or array.shape[2:] != size or 0 in array.shape:
        raise ValueError(f"{OP}: the shape of the {name} is {array.shape}; (…, …, {size[0]}, {size[1]}) is needed")
    plane = array[0, 0].astype(np.float64)
    if not np.isfinite(plane).all():
        raise ValueError(f"{OP}: NaN or Inf is among the {name}; numbers are needed")
    for choice, values in own.items():
        if np.array_equal(plane, values[0, 0]):
            return {"choice": choice, "values": None}
    return {"choice": "given", "values": plane.tolist()}


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")

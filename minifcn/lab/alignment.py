"""Where a network's cells lie in the image, which crops follow from that, and whether every image size works.

A fully convolutional network adds maps of different stages, and cuts the image's size out of the last one. Both are
right only where cells that meet lie on the same pixel. Two rules say where a cell lies (CoordMap computes with them):
if cell u of a layer's input lies at pixel a·u + b, then cell u of its output lies

    after a convolution or pooling       at a·(u·s + c) + b      kernel k, stride s, padding p, dilation d
    after a transposed convolution       at a·(u − c)/s + b      c = d·(k − 1)/2 − p, the middle of the kernel

(the second is the first, solved for the other end). All numbers come from the layers themselves, as fractions.

Reference: Long, Shelhamer & Darrell 2015, §4.2; its crops 5, 9 and 31 are those that the authors' prototxt files have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from minifcn import models, nn
from minifcn.geometry import (
    CoordMap,
    Pair,
    conv_output_size,
    conv_transpose_output_size,
    pair,
    pool_output_size,
)
from minifcn.lab.alignment_report import explain, number
from minifcn.models.fcn import IMAGE, Fusion, Layer, coord_maps
from minifcn.models.field import receptive_field, window
from minifcn.models.parts import Upsampling

OP = "align"
SIZES = range(1, 2001)
Exact = tuple[Fraction, Fraction]  # (height, width)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Args:
        name: as the network has it, or "image".
        map: where its cells lie, in pixels.
        sees: pixels of the image that a cell sees, per axis.
        cells: how many there are at the image's size, per axis.
    """

    name: str
    map: CoordMap
    sees: Pair
    cells: Pair


@dataclass(frozen=True, slots=True)
class Fit:
    """The cells that meet along one axis: `cells` of them, from `from_upsampled` and `from_onto` on.

    Args:
        upsampled: how many cells the upsampled map has.
        onto: how many the stage has, or pixels the image.
        from_upsampled, from_onto: the first that is used of either.
        cells: how many are used of both.
    """

    upsampled: int
    onto: int
    from_upsampled: int
    from_onto: int
    cells: int


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where everything lies in a network; `text()` tells it.

    Args:
        size: of the image, (height, width).
        stages: the image, then the stages in order.
        fusions: the upsamplings, each with what meets at the image's size along height and width.
        displaced: by how many pixels (down, right) the scores of each stage appear in the end.
        sizes: the image sizes that were tried.
        misfits: those that the network cannot take, and why.
    """

    size: Pair
    stages: tuple[Stage, ...]
    fusions: tuple[tuple[Fusion, tuple[Fit, Fit]], ...]
    displaced: dict[str, Exact]
    sizes: range
    misfits: dict[int, str]

    @property
    def exact(self) -> bool:
        """Whether every stage's scores appear where they belong."""
        return not any(pixels for distance in self.displaced.values() for pixels in distance)

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """The alignment as a lesson of about a page, in lines of 100 characters."""
        return explain(self)


def align(model: nn.Module, size: int | Pair = (360, 480), sizes: range = SIZES) -> Alignment:
    """Where the cells of a network's stages lie, what its crops are and whether they fit.

    Args:
        model: a network of minifcn.models, or one with the methods of Upsampling.
        size: (height, width) of an image, in pixels, at least 1.
        sizes: image sizes to try, at least 1.

    Returns:
        Stages, fusions and misfits.

    Raises:
        ValueError: the network cannot take an image of that size, or a size is below 1. TypeError: a model that does
            not tell its layers and fusions.

    >>> from minifcn import models
    >>> found = align(models.create("fcn8s_vgg16_paper", width=1 / 64), sizes=range(1, 101))
    >>> [int(fusion.offset[0]) for fusion, _ in found.fusions], found.exact, found.misfits
    ([5, 9, 31], True, {})
    """
    network = _network(model)
    height, width = pair(size, OP, "size", 1)
    layers, fusions = network.layers(), network.fusions()
    cells, fits = [], []
    for axis, pixels in enumerate((height, width)):
        try:
            found = _walk(_steps(layers, axis), fusions, pixels, axis)
        except _Misfit as misfit:
            raise ValueError(f"{OP}: at {height} × {width} pixels, {misfit}; another size is needed") from None
        cells.append(found[0])
        fits.append(found[1])
    stages = [Stage(IMAGE, CoordMap(), (1, 1), (height, width))]
    before: list[Layer] = []
    for name, at in coord_maps(layers).items():
        before += layers[name]
        stages.append(Stage(name, at, receptive_field(before).size, (cells[0][name], cells[1][name])))
    return Alignment(
        (height, width),
        tuple(stages),
        tuple(zip(fusions, zip(*fits, strict=True), strict=True)),
        _displaced(stages[-1].name, fusions),
        sizes,
        misfits(model, sizes),
    )


def misfits(model: nn.Module, sizes: Iterable[int] = SIZES) -> dict[int, str]:
    """The image sizes that a network cannot take, along either axis, and why.

    Sizes go through the layers as integers, without any array. A misfit is a layer without output, an upsampled map and
    a stage that do not overlap, or a last map that does not reach to the image's last pixel.

    Args:
        model: as for align.
        sizes: in pixels, at least 1.

    Returns:
        The reason for each size that does not fit.

    Raises:
        ValueError: a size below 1. TypeError: a model that does not tell its layers and fusions.

    >>> from minifcn import models
    >>> misfits(models.create("fcn32s_vgg16_paper", width=1 / 64), range(1, 500))
    {}
    """
    network = _network(model)
    layers, fusions = network.layers(), network.fusions()
    steps = [_steps(layers, axis) for axis in range(2)]
    found: dict[int, str] = {}
    for size in sizes:
        pair(size, OP, "size", 1)
        try:
            for axis in range(2):
                _walk(steps[axis], fusions, size, axis)
        except _Misfit as misfit:
            found[size] = str(misfit)
    return found


# -- sizes


def names() -> list[str]:
    """The networks of minifcn.models that are made of layers and fusions, which `align` asks for.

    >>> "fcn8s_vgg16_paper" in names(), "hed" in names()
    (True, False)
    """
    return [name for name in models.available() if name.startswith(("fcn32s_", "fcn16s_", "fcn8s_", "unet"))]


class _Misfit(Exception):
    """Why an image size does not work."""


_Steps = dict[str, list[Callable[[int], int]]]


def _network(model: nn.Module) -> Upsampling:
    if not isinstance(model, Upsampling):
        raise TypeError(
            f"{OP}: a {type(model).__name__} does not tell its layers and fusions; a network of minifcn.models, or one "
            "with the methods layers() and fusions(), is needed"
        )
    return model


def _steps(layers: dict[str, list[Layer]], axis: int) -> _Steps:
    """For each stage, functions from a size to the next along an axis."""
    return {stage: [_step(layer, axis) for layer in added] for stage, added in layers.items()}


def _step(layer: Layer, axis: int) -> Callable[[int], int]:
    w = window(layer)
    options = {name: getattr(w, name)[axis] for name in ("kernel", "stride", "padding", "dilation")}
    if isinstance(layer, nn.MaxPool2d):
        return partial(pool_output_size, **options, ceil_mode=layer.ceil_mode)
    return int if layer.padding == "same" else partial(conv_output_size, **options)


def _walk(steps: _Steps, fusions: Sequence[Fusion], size: int, axis: int) -> tuple[dict[str, int], list[Fit]]:
    """(cells of each stage, what meets in each fusion) for an image of `size` pixels along an axis. Raises _Misfit."""
    cells: dict[str, int] = {}
    now = size
    for stage, added in steps.items():
        for step in added:
            now = step(now)
            if now < 1:
                raise _Misfit(f"the layers of {stage} have no output")
        cells[stage] = now
    fits = []
    for fusion in fusions:
        onto = size if fusion.stage == IMAGE else cells[fusion.stage]
        fits.append(_fit(fusion, now, onto, axis))
        now = fits[-1].cells
    return cells, fits


def _fit(fusion: Fusion, size: int, onto: int, axis: int) -> Fit:
    layer = fusion.layer
    upsampled = conv_transpose_output_size(
        size,
        layer.kernel_size[axis],
        layer.stride[axis],
        layer.padding[axis],
        layer.dilation[axis],
        0 if fusion.told else layer.output_padding[axis],
    )
    if fusion.told:  # output_padding reaches the sizes up to stride − 1 more
        most = upsampled + layer.stride[axis] - 1
        if not upsampled <= onto <= most:
            raise _Misfit(f"{fusion.name} reaches {upsampled} to {most} cells, and {fusion.stage} has {onto}")
        upsampled = onto
    start = fusion.start[axis]
    if fusion.stage == IMAGE:
        if start < 0 or start + onto > upsampled:
            raise _Misfit(
                f"{fusion.name} has {upsampled} cells, and the image needs {onto} from cell {number(start)} on"
            )
        return Fit(upsampled, onto, start, 0, onto)
    from_upsampled, from_onto = max(-start, 0), max(start, 0)
    common = min(upsampled - from_upsampled, onto - from_onto)
    if common < 1:
        raise _Misfit(f"{fusion.name}, with {upsampled} cells, and {fusion.stage}, with {onto}, do not overlap")
    return Fit(upsampled, onto, from_upsampled, from_onto, common)


# -- positions


def _displaced(deepest: str, fusions: Sequence[Fusion]) -> dict[str, Exact]:
    """By how many pixels the scores of each stage appear too far down and right in the end."""
    sources = [(deepest, fusions[0].before, 0)]
    for k, fusion in enumerate(fusions):
        if fusion.joins:
            height, width = fusion.start
            sources.append((fusion.stage, fusion.onto.then_crop((max(height, 0), max(width, 0))), k + 1))
    found = {}
    for stage, at, first in sources:
        for fusion in fusions[first:]:
            height, width = fusion.start if fusion.stage == IMAGE else (-fusion.start[0], -fusion.start[1])
            at = fusion.layer.coord_map(at).then_crop((max(height, 0), max(width, 0)))
        found[stage] = (-at.height.offset, -at.width.offset)  # score v is about pixel v + offset
    return found

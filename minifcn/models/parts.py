"""A network on a part of an image, with the very scores that it has on the whole one.

A part that begins on a multiple of the deepest stride has the whole image's cells at every stage: cell u of its map is
cell u + begin/stride of the image's. (Layers commute with such shifts, transposed convolutions and crops too.) A cell
has another value only where it sees beyond the part, for there it meets padding. So the scores of rows first … last are
right where all that they see lies inside the part, or beyond the image's own border, where the padding is the same:

    from the rows, back through every upsampling, fusion and layer, to first and last pixel

which `pixels` does in integers, layer by layer (`sees`). A pooling that rounds up, or an output_padding, changes only
cells at the end of a map; those see beyond the part as well, unless it ends where the image does.

Bilinear enlargement to the image's size is another matter: its step is the ratio of two sizes, which a part does not
have. The networks that do this tell their maps before it, and parts are enlarged by the whole image's ratio.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.functional.vision import interpolate_p
from minifcn.geometry import Pair, ResizeGeometry, ResizePart
from minifcn.models.fcn import IMAGE, Fusion, Layer, coord_maps
from minifcn.models.field import sees

OP = "tiles"
Part = tuple[slice, slice]  # rows and columns of an image; start and stop are given


@runtime_checkable
class Upsampling(Protocol):
    """A network whose stages are upsampled by transposed convolutions (FCN, FCN16sDecoder, UNet)."""

    def layers(self) -> dict[str, list[Layer]]:
        """What leads to each stage from the one before."""

    def fusions(self) -> tuple[Fusion, ...]:
        """The upsamplings that follow, in order."""


@runtime_checkable
class Enlarging(Protocol):
    """A network whose maps are stretched to the image's size (FCNResNet, HED)."""

    def layers(self) -> dict[str, list[Layer]]:
        """What leads to each stage from the one before."""

    def coarse(self, x: Tensor) -> dict[str, Tensor]:
        """The maps before they are stretched, by stage."""

    def finish(self, maps: list[Tensor]) -> Tensor:
        """The scores, from the maps at the image's size."""


Network = Upsampling | Enlarging


def network(module: nn.Module) -> Network:
    """The module itself, if it tells what `pixels` and `scores` ask for; TypeError otherwise."""
    if not isinstance(module, Upsampling | Enlarging):
        raise TypeError(
            f"{OP}: a {type(module).__name__} does not tell what its scores see; a network of minifcn.models, or one "
            "with its methods layers() and fusions(), is needed"
        )
    return module


def stride(network: Network) -> int:
    """Pixels that parts must begin on multiples of: those from one cell of the coarsest map to the next.

    >>> from minifcn import models
    >>> stride(models.create("fcn8s_vgg16", width=1 / 64)), stride(models.create("unet", width=1 / 64))
    (32, 16)
    """
    scales = {int(axis.scale) for at in coord_maps(network.layers()).values() for axis in at}
    return math.lcm(*scales)


def pixels(network: Network, rows: Pair, axis: int, size: int) -> Pair:
    """The first and last pixel that the scores of a run of rows (or columns) see.

    Args:
        network: of minifcn.models.
        rows: the first and the last.
        axis: 0 for rows, 1 for columns.
        size: of the image along the axis.

    Returns:
        Pixels; those in the padding included, so the first may be below 0 and the last beyond the image.

    >>> from minifcn import models
    >>> unet = models.create("unet", width=1 / 64)
    >>> pixels(unet, (0, 0), 0, 500), pixels(unet, (256, 511), 0, 1000)
    ((-94, 93), (162, 605))
    """
    seen = _at_stages(network, rows, axis, size)
    now: list[Pair] = []
    for stage, layers in reversed(network.layers().items()):
        now += seen.get(stage, [])
        for layer in reversed(layers):
            now = [sees(layer, cells, axis) for cells in now]
    return min(first for first, _ in now), max(last for _, last in now)


def _at_stages(network: Network, rows: Pair, axis: int, size: int) -> dict[str, list[Pair]]:
    """The cells of each stage that these rows of scores are made of: all those of the deepest one, and of the others
    those that are seen past the stages below them."""
    deepest = list(network.layers())[-1]
    if isinstance(network, Enlarging):  # the other maps, if any, are finer and see less
        whole = _stretch(network, deepest, (size, size))
        (first, _), (last, _) = whole.taps(axis, rows[0])[0], whole.taps(axis, rows[1])[-1]
        return {deepest: [(first, last)]}
    seen: dict[str, list[Pair]] = {}
    for fusion in reversed(network.fusions()):
        for conv in reversed(fusion.then):
            rows = sees(conv, rows, axis)
        start = fusion.start[axis]
        if fusion.stage == IMAGE:
            up = _moved(rows, start)
        else:  # whichever of the two maps begins before the other is cropped
            up = _moved(rows, max(-start, 0))
            if fusion.joins:
                seen[fusion.stage] = [_moved(rows, max(start, 0))]
        rows = sees(fusion.layer, up, axis)
    return seen | {deepest: [rows]}


def _moved(cells: Pair, by: int) -> Pair:
    return cells[0] + by, cells[1] + by


def scores(network: Network, x: Tensor, read: Part, kept: Part, size: Pair) -> Tensor:
    """The scores (N,classes,rows,columns) of `kept` in an image of `size`, from x, its part `read` (N,C,h,v).

    Args:
        network: of minifcn.models.
        x: the part.
        read: which rows and columns of the image it is; both begin on multiples of `stride`, and hold what `pixels`
            tells of those kept, as far as the image has it.
        kept: which scores are wanted, in rows and columns of the image.
        size: (H, W) of the image.
    """
    inner = tuple(slice(k.start - r.start, k.stop - r.start) for k, r in zip(kept, read, strict=True))
    if not isinstance(network, Enlarging):
        return network(x)[(..., *inner)]  # type: ignore[operator, no-any-return]
    enlarged = []
    for stage, part in network.coarse(x).items():
        step = _steps(network, stage)
        begin = (read[0].start // step[0], read[1].start // step[1])
        whole = _stretch(network, stage, size)
        first, wanted = (kept[0].start, kept[1].start), (kept[0].stop - kept[0].start, kept[1].stop - kept[1].start)
        geom = ResizePart.of(whole, begin, (part.shape[2], part.shape[3]), first, wanted)
        enlarged.append(interpolate_p(part, geom=geom))
    return network.finish(enlarged)


def _stretch(network: Enlarging, stage: str, size: Pair) -> ResizeGeometry:
    """From a stage's map of the whole image to the image; every layer on the way rounds sizes up."""
    cells = tuple(-(-pixels // step) for pixels, step in zip(size, _steps(network, stage), strict=True))
    return ResizeGeometry.of_resize((cells[0], cells[1]), size, None, "bilinear", False)


def _steps(network: Network, stage: str) -> Pair:
    """Pixels from one cell of a stage to the next, per axis."""
    at = coord_maps(network.layers())[stage]
    return int(at.height.scale), int(at.width.scale)

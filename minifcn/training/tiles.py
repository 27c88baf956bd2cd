"""Scores of an image that is too large for the memory that a network needs: tile by tile, with exact seams.

A tile's scores come from the tile and all pixels around it that these scores see, so they are those of the whole image,
to rounding: `minifcn.models.parts` derives why. Memory is that of one tile with what is around it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minifcn.autograd import Tensor, no_grad
from minifcn.geometry import Pair
from minifcn.memory import HEADROOM
from minifcn.models import parts
from minifcn.models.parts import Part
from minifcn.models.summary import peak_bytes
from minifcn.nn import Module

OP = "tiles"
AUTO = "auto"
_PROBE = 512  # pixels: the side of the square whose memory is measured
_SHARE = 0.5  # of the memory that is free may be used


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of an image: those whose scores are kept, and those that the network is given for them."""

    kept: Part
    read: Part


def cut(module: Module, size: Pair, side: int) -> list[Tile]:
    """The tiles of an image, row by row.

    Args:
        module: a network of minifcn.models.
        size: (H, W) of the image, in pixels.
        side: of the squares that are kept; those at the right and lower edges are smaller where it does not divide the
            size. A multiple of the network's deepest stride.

    Raises:
        ValueError: for another side. TypeError: a module that does not tell what its scores see.

    >>> from minifcn import models
    >>> first, second = cut(models.create("unet", width=1 / 64), (300, 200), 256)
    >>> second.kept, second.read
    ((slice(256, 300, None), slice(0, 200, None)), (slice(160, 300, None), slice(0, 200, None)))
    """
    network = parts.network(module)
    stride = parts.stride(network)
    if side < 1 or side % stride:
        near = max(round(side / stride), 1) * stride
        raise ValueError(
            f"{OP}: a side of {side} pixels; a multiple of the network's stride {stride}, such as {near}, is needed"
        )
    down, across = (_spans(network, size, side, axis) for axis in range(2))
    return [Tile((rows, columns), (high, wide)) for rows, high in down for columns, wide in across]


def _spans(network: parts.Network, size: Pair, side: int, axis: int) -> list[tuple[slice, slice]]:
    """(kept, read) along an axis. What is read begins on a multiple of the stride, and ends with the last pixel that is
    seen; both inside the image."""
    stride, pixels = parts.stride(network), size[axis]
    found = []
    for start in range(0, pixels, side):
        stop = min(start + side, pixels)
        first, last = parts.pixels(network, (start, stop - 1), axis, pixels)
        found.append((slice(start, stop), slice(max(first // stride * stride, 0), min(last + 1, pixels))))
    return found


def scores_by_tiles(
    module: Module, read: Callable[[Part], Tensor], size: Pair, side: int
) -> Iterator[tuple[Part, Tensor]]:
    """(rows and columns, scores (N,classes,rows,columns)) of every tile: put together, those of the whole image.

    Sums may be rounded in another order than for the whole image. The network should be in evaluation mode, as batch
    norm over a tile is not that over an image.

    Args:
        module: a network of minifcn.models.
        read: gives rows and columns of the image as the network's input (N,C,rows,columns).
        size: (H, W) of the image.
        side: as for `cut`.

    Raises:
        ValueError, TypeError: as `cut`.
    """
    network = parts.network(module)
    for tile in cut(module, size, side):
        yield tile.kept, parts.scores(network, read(tile.read), tile.read, tile.kept, size)


def largest_side(module: Module, size: Pair, memory: int | None = None) -> int | None:
    """The largest side for which a tile with what is around it stays within some memory; None if the image does.

    Args:
        module: a network of minifcn.models, on the CPU.
        size: (H, W) of the image.
        memory: bytes; half of what is free where it is None. What the network needs beside its parameters is measured
            on 512×512 pixels and taken to grow with their number, and for tiles of different sizes the pool of
            `minifcn.memory` may hold half as much again.

    Raises:
        ValueError: where even the smallest tile needs more. TypeError: a module that does not tell what its scores see.
    """
    network = parts.network(module)
    stride = parts.stride(network)
    budget = int(_SHARE * free_memory()) if memory is None else memory
    per_pixel = HEADROOM * _bytes(module, _PROBE) / _PROBE**2

    def needs(side: int) -> float:
        """Bytes for the largest tile."""
        pixels: list[int] = [
            max(read.stop - read.start for _, read in _spans(network, size, side, axis)) for axis in range(2)
        ]
        return per_pixel * pixels[0] * pixels[1]

    low, high = 0, -(-max(size) // stride)  # sides in strides; the image itself is one tile of the last
    if needs(high * stride) <= budget:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle * stride) <= budget else (low, middle)
    if low:
        return low * stride
    raise ValueError(
        f"{OP}: the smallest tiles, {stride}×{stride} pixels with all that they see, need about "
        f"{needs(stride) / 1e6:,.0f} MB, and {budget / 1e6:,.0f} MB may be used; more memory or a smaller network is "
        "needed"
    )


def _bytes(module: Module, side: int) -> int:
    """The most that the classes of a square take at a time, beside the parameters."""
    channels = next(p.shape[1] for p in module.parameters() if p.ndim == 4)

    def classes() -> None:
        module(Tensor(np.zeros((1, channels, side, side), np.float32))).data.argmax(axis=1)

    with no_grad():
        classes()  # what is made once and kept
        return peak_bytes(classes)


def free_memory() -> int:
    """Bytes that this process may still ask for, as far as the system tells."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [4 << 30]
    lines = _text("/proc/meminfo").splitlines()
    found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    limit, used = _text("/sys/fs/cgroup/memory.max").strip(), _text("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():  # "max" where there is no limit
        found.append(int(limit) - int(used))
    return max(min(found), 0)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""

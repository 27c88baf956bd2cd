"""Transposed convolution by phases (sub-pixel convolution), and the two kernels that it is a gradient of.

At stride s, image row h and filter row i meet at score p where p·s + i − padding = h. Cut h and i into blocks of s,

    h + padding = r·s + a,      i = k·s + a      (0 ≤ a < s),      and then      p = r − k:

row h receives from filter rows of its own phase a only. Columns likewise, with phases e, blocks t and taps l. So on a
grid (r, t) that is s times coarser than the image, with the phases (a, e) as further channels, the transposed
convolution is an ordinary one of stride 1 with ⌈I/s⌉·⌈J/s⌉ taps:

    S[(c,a,e), (r,t)] = x[c, r·s + a − padding, t·s + e − padding]      space to depth
    Y[(o,k,l), (r,t)] = y[o, r − k, t − l]                              the scores, shifted
    W[(o,k,l), (c,a,e)] = w[o, c, k·s + a, l·s + e]                     the filter, regrouped

and the trilinear form is ⟨W, Y Sᵀ⟩, so that each of its three kernels is one matrix product:

    conv_transpose2d   S = Wᵀ Y,  then depth to space: every pixel is written once, and nothing is added up in memory
    conv2d             W S,       whose rows (o,k,l), shifted back by (k,l), add up to y
    conv2d_weight      W = Y Sᵀ

Where s does not divide the filter's size, some phases have a tap less; phases with equal counts go together. (A 1×1
filter of stride 2 has one tap in phase (0, 0) and none elsewhere: there the image is 0.)

A filter that is zero wherever o ≠ c, as FCN's bilinear enlargements are, is C filters of one channel each: of the dense
product only the diagonal is computed. (With an infinite or NaN score the dense product would be NaN in all channels.)

Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"; Dumoulin & Visin 2016, §4.6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from minifcn.array import Array
from minifcn.geometry import ConvGeometry, Pair
from minifcn.kernels.epilogue import Epilogue
from minifcn.kernels.registry import kernel
from minifcn.kernels.windows import band, windows
from minifcn.memory import empty, scratch
from minifcn.threads import parallel, runs

TILE_BYTES = 1 << 20  # of a tile's image in phases: with the scores beside it, what a core's L2 cache holds
MANY = 256  # phases from which on one transposed copy of all is faster than a strided copy of each
LANES = 4  # partial sums of a weight gradient; a constant, so that the result does not depend on the thread count


class Phases(NamedTuple):
    """Along one axis: the phases first ≤ a < last, which have `taps` filter rows each."""

    first: int
    last: int
    taps: int


def _phases(kernel: int, stride: int) -> list[Phases]:
    """All phases of an axis that have taps, those with equally many together."""
    more, rest = -(-kernel // stride), kernel % stride
    if rest == 0:
        return [Phases(0, stride, more)]
    return [Phases(0, rest, more)] + ([Phases(rest, stride, more - 1)] if more > 1 else [])


def _auto_upsampling(dtype: np.dtype[Any], geom: ConvGeometry) -> bool:
    scores = geom.n * geom.y_hw[0] * geom.y_hw[1]
    return max(geom.stride) > 1 and (_divides(geom) or (geom.c // geom.groups >= 8 and scores >= 8192))


def _auto_overlapping(most: int) -> Callable[..., bool]:
    """Filters that overlap in every pixel, and up to so many channels: with more, im2col copies little beside them."""

    def auto(dtype: np.dtype[Any], geom: ConvGeometry, **_: Any) -> bool:
        twice = all(k >= 2 * s > 2 for k, s in zip(geom.w_hw, geom.stride, strict=True))
        return twice and max(geom.c, geom.o) // geom.groups <= most

    return auto


def _tasks(geom: ConvGeometry, height: int, per_row: int) -> list[tuple[int, slice, slice]]:
    """(image, groups, coarse rows) for one task each; per_row are the bytes of a group's row."""
    groups = runs(geom.groups, TILE_BYTES // (per_row * height))
    rows = runs(height, TILE_BYTES // (per_row * (groups[0].stop - groups[0].start)))
    return list(product(range(geom.n), groups, rows))


def _of(groups: slice, channels: int) -> slice:
    """The channels of some groups."""
    return slice(groups.start * channels, groups.stop * channels)


def _diagonal(w: Array, geom: ConvGeometry) -> tuple[Array, ConvGeometry]:
    """(w, geometry) with a group for each channel, where that leaves out zeros only; else as they were."""
    if geom.groups > 1 or geom.c != geom.o or geom.c == 1:
        return w, geom
    own = w[np.arange(geom.c), np.arange(geom.c)]  # (C, I, J)
    if np.count_nonzero(w) > np.count_nonzero(own):
        return w, geom
    return own[:, None], dataclasses.replace(geom, groups=geom.c)


def _grid(geom: ConvGeometry) -> Pair:
    """Rows and columns (R, T) of the coarse grid: all r with a pixel, or with a score and a tap."""
    height, width = (
        max(-(-(x + p) // s), y + -(-k // s) - 1)
        for x, p, s, y, k in zip(geom.x_hw, geom.padding, geom.stride, geom.y_hw, geom.w_hw, strict=True)
    )
    return height, width


def _shifted(y: Array, rows: slice, width: int, taps: Pair, out: Array) -> None:
    """Y of some rows r: out (O, K, L, rows, T) from the scores y (O, P, Q)."""
    k, l = taps
    span, reach = (rows.start - k + 1, rows.stop), (1 - l, width)
    padded = band(y, span, reach, scratch("scores", (len(y), span[1] - span[0], width + l - 1), y.dtype))
    # the window at (r, t) holds y[r − k + 1 …, t − l + 1 …]: its last row is k = 0
    found = windows(padded, taps, (rows.stop - rows.start, width), (1, 1), (1, 1))
    np.copyto(out, found[:, ::-1, ::-1])


def _to_depth(x: Array, geom: ConvGeometry, rows: slice, width: int, out: Array) -> None:
    """S of some rows r: out (C, s, s, rows, T) from the image x (C, H, W)."""
    (sh, sw), (ph, pw) = geom.stride, geom.padding
    span, reach = (rows.start * sh - ph, rows.stop * sh - ph), (-pw, width * sw - pw)
    padded = band(x, span, reach, scratch("band", (len(x), span[1] - span[0], width * sw), x.dtype))
    np.copyto(out, windows(padded, geom.stride, (rows.stop - rows.start, width), geom.stride, (1, 1)))


def _to_space(deep: Array, geom: ConvGeometry, rows: slice, image: Array) -> None:
    """Put some rows r, deep (C, s, s, rows, T), into the image (C, H, W)."""
    (sh, sw), (ph, pw), (height, width) = geom.stride, geom.padding, geom.x_hw
    channels, _, _, count, across = deep.shape
    pixels = scratch("pixels", (channels, count, sh, across, sw), deep.dtype)
    np.copyto(pixels, deep.transpose(0, 3, 1, 4, 2))
    top, bottom = max(rows.start * sh - ph, 0), min(rows.stop * sh - ph, height)
    start = top - (rows.start * sh - ph)
    if top < bottom:
        found = pixels.reshape(channels, count * sh, across * sw)
        image[:, top:bottom] = found[:, start : start + bottom - top, pw : pw + width]


def _clip(geom: ConvGeometry, axis: int, phase: int, first: int, last: int) -> tuple[slice, slice]:
    """Which of the coarse rows first ≤ r < last have a pixel of this phase, and which pixels those are."""
    stride, padding, size = geom.stride[axis], geom.padding[axis], geom.x_hw[axis]
    start = max(-(-(padding - phase) // stride), first)
    stop = max(min(-(-(size + padding - phase) // stride), last), start)
    at = start * stride + phase - padding
    return slice(start - first, stop - first), slice(at, max(at + (stop - start - 1) * stride + 1, at), stride)


@kernel(
    "conv_transpose2d",
    backend="numpy",
    algorithm="phases",
    supports=lambda geom: geom.dilation == (1, 1),
    limits="dilation 1",
    auto=_auto_upsampling,
    best="strides above 1 that divide the filter's size; if they do not, 8 or more channels and 8192 or more scores",
)
def conv_transpose2d_phases(y: Array, w: Array, b: Array | None = None, *, geom: ConvGeometry) -> Array:
    """x (N,C,H,W) from y (N,O,P,Q) and b (C,): S = Wᵀ Y, then depth to space."""
    x = empty(geom.x_shape, y.dtype)
    if x.size == 0 or y.size == 0 or w.size == 0:
        x[...] = 0 if b is None else b[:, None, None]
        return x
    w, geom = _diagonal(w, geom)
    channels, filters = geom.c // geom.groups, geom.o // geom.groups
    height, width = _grid(geom)
    w = w.reshape(geom.groups, filters, channels, *geom.w_hw)
    kinds = list(product(*(_phases(k, s) for k, s in zip(geom.w_hw, geom.stride, strict=True))))
    grouped = [_regrouped(w, rows, columns, geom.stride) for rows, columns in kinds]
    whole = all(sum(p.last - p.first for p in _phases(k, s)) == s for k, s in zip(geom.w_hw, geom.stride, strict=True))
    per_row = channels * geom.stride[0] * geom.stride[1] * width * y.itemsize
    tasks = _tasks(geom, height, per_row)  # bands of rows r follow each other without a gap: they cover each pixel once

    def fill(task: tuple[int, slice, slice]) -> None:
        n, groups, rows = task
        count = rows.stop - rows.start
        image, scores = x[n, _of(groups, channels)], y[n, _of(groups, filters)]
        bias = None if b is None else b[_of(groups, channels), None, None]
        if not whole:  # some pixels have no tap at all
            (sh, ph) = geom.stride[0], geom.padding[0]
            image[:, max(rows.start * sh - ph, 0) : max(rows.stop * sh - ph, 0)] = 0 if bias is None else bias
        for (down, across), matrix in zip(kinds, grouped, strict=True):
            own = matrix[groups]
            shifted = scratch("shifted", (len(scores), down.taps, across.taps, count, width), y.dtype)
            _shifted(scores, rows, width, (down.taps, across.taps), shifted)
            deep = scratch("deep", (*own.shape[:2], count * width), y.dtype)
            np.matmul(own, shifted.reshape(len(own), -1, count * width), out=deep)
            deep = deep.reshape(len(image), down.last - down.first, across.last - across.first, count, width)
            if bias is not None:
                deep += bias[..., None, None]
            if deep.shape[1] * deep.shape[2] >= MANY and deep.shape[1:3] == geom.stride:
                _to_space(deep, geom, rows, image)
                continue
            for a, e in product(range(down.first, down.last), range(across.first, across.last)):
                r, h = _clip(geom, 0, a, rows.start, rows.stop)
                t, v = _clip(geom, 1, e, 0, width)
                image[:, h, v] = deep[:, a - down.first, e - across.first, r, t]

    parallel(fill, tasks, alone=geom.macs < 1 << 20)
    return x


def _regrouped(w: Array, rows: Phases, columns: Phases, stride: Pair) -> Array:
    """Wᵀ of these phases, (groups, C·a·e, O·k·l), from w (groups, O, C, I, J)."""
    (sh, sw), (groups, filters, channels) = stride, w.shape[:3]
    down, across = rows.last - rows.first, columns.last - columns.first
    matrix = np.empty((groups, channels, down, across, filters, rows.taps, columns.taps), w.dtype)
    for k, l in np.ndindex(rows.taps, columns.taps):
        part = w[..., k * sh + rows.first : k * sh + rows.last, l * sw + columns.first : l * sw + columns.last]
        matrix[..., k, l] = part.transpose(0, 2, 3, 4, 1)
    return matrix.reshape(groups, channels * down * across, -1)


def _divides(geom: ConvGeometry, **_: Any) -> bool:
    return geom.dilation == (1, 1) and all(k % s == 0 for k, s in zip(geom.w_hw, geom.stride, strict=True))


DIVIDES = "dilation 1 and a filter whose size is a multiple of the stride"


def _square(w: Array, geom: ConvGeometry) -> Array:
    """W (groups, O·k·l, C·a·e) of a filter whose size is a multiple of the stride, from w (O, C/groups, I, J)."""
    (sh, sw), (i, j) = geom.stride, geom.w_hw
    blocks = w.reshape(geom.groups, geom.o // geom.groups, -1, i // sh, sh, j // sw, sw)
    return blocks.transpose(0, 1, 3, 5, 2, 4, 6).reshape(geom.groups, geom.o // geom.groups * (i // sh) * (j // sw), -1)


@kernel(
    "conv2d",
    backend="numpy",
    algorithm="phases",
    supports=_divides,
    limits=DIVIDES,
    auto=_auto_overlapping(32),
    best="strides above 1, filters of twice the stride or more, and up to 32 channels",
)
def conv2d_phases(
    x: Array,
    w: Array,
    b: Array | None = None,
    scale: Array | None = None,
    add: Array | None = None,
    *,
    geom: ConvGeometry,
    relu: bool = False,
) -> Array:
    """y (N,O,P,Q) from x (N,C,H,W): space to depth, W S, and its rows shifted and added up; and the epilogue."""
    y = empty(geom.y_shape, x.dtype)
    end = Epilogue(b, scale, add, relu)
    if y.size == 0 or w.size == 0:
        return end.of_nothing(y)
    w, geom = _diagonal(w, geom)
    channels, filters = geom.c // geom.groups, geom.o // geom.groups
    (sh, sw), (p, q) = geom.stride, geom.y_hw
    down, across = geom.w_hw[0] // sh, geom.w_hw[1] // sw
    width = q + across - 1
    matrix = _square(w, geom)
    per_row = channels * sh * sw * width * x.itemsize
    tasks = _tasks(geom, p, per_row)

    def fill(task: tuple[int, slice, slice]) -> None:
        n, groups, rows = task
        needed = slice(rows.start, rows.stop + down - 1)
        count, own, at = needed.stop - needed.start, matrix[groups], _of(groups, filters)
        deep = scratch("deep", (len(own) * channels, sh, sw, count, width), x.dtype)
        _to_depth(x[n, _of(groups, channels)], geom, needed, width, deep)
        products = scratch("products", (*own.shape[:2], count * width), x.dtype)
        np.matmul(own, deep.reshape(len(own), -1, count * width), out=products)
        taps = products.reshape(-1, down, across, count, width)
        scores = y[n, at, rows]
        for k, l in np.ndindex(down, across):
            tap = taps[:, k, l, k : k + rows.stop - rows.start, l : l + q]
            if k == l == 0:
                scores[...] = tap
            else:
                scores += tap
        end.apply(scores, at, None if add is None else add[n, at, rows])

    parallel(fill, tasks, alone=geom.macs < 1 << 20)
    return y


@kernel(
    "conv2d_weight",
    backend="numpy",
    algorithm="phases",
    supports=_divides,
    limits=DIVIDES,
    auto=_auto_overlapping(64),
    best="strides above 1, filters of twice the stride or more, and up to 64 channels",
)
def conv2d_weight_phases(x: Array, y: Array, *, geom: ConvGeometry) -> Array:
    """w (O,C/groups,I,J) = Y Sᵀ, summed over images and rows."""
    w = empty(geom.w_shape, x.dtype)
    if y.size == 0 or w.size == 0:
        w[...] = 0
        return w
    channels, filters = geom.c // geom.groups, geom.o // geom.groups
    (sh, sw), (i, j) = geom.stride, geom.w_hw
    down, across = i // sh, j // sw
    height, width = geom.y_hw[0] + down - 1, geom.y_hw[1] + across - 1
    per_row = (channels * sh * sw + filters * down * across) * width * x.itemsize
    tasks = _tasks(geom, height, per_row)
    lanes = [tasks[lane::LANES] for lane in range(min(LANES, len(tasks)))]
    sums = np.zeros((len(lanes), geom.groups, filters * down * across, channels * sh * sw), x.dtype)

    def add(lane: int) -> None:
        for n, groups, rows in lanes[lane]:
            count, own = rows.stop - rows.start, sums[lane, groups]
            deep = scratch("deep", (len(own) * channels, sh, sw, count, width), x.dtype)
            _to_depth(x[n, _of(groups, channels)], geom, rows, width, deep)
            shifted = scratch("shifted", (len(own) * filters, down, across, count, width), x.dtype)
            _shifted(y[n, _of(groups, filters)], rows, width, (down, across), shifted)
            left, right = (a.reshape(len(own), -1, count * width) for a in (shifted, deep))
            own += np.matmul(left, right.transpose(0, 2, 1), out=scratch("products", own.shape, x.dtype))

    parallel(add, range(len(lanes)), alone=geom.macs < 1 << 20)
    total = np.sum(sums, axis=0).reshape(geom.groups, filters, down, across, channels, sh, sw)
    w.reshape(geom.groups, filters, channels, down, sh, across, sw)[...] = total.transpose(0, 1, 4, 2, 5, 3, 6)
    return w

"""The three convolution kernels as matrix products: im2col + GEMM.

Gather the windows of the image as columns, cols (C·I·J, P·Q), and each partial derivative of the trilinear form is one
matrix product with them:

    conv2d            y (O, P·Q)   = w (O, C·I·J) @ cols
    conv2d_weight     w (O, C·I·J) = y (O, P·Q) @ colsᵀ
    conv_transpose2d  cols         = wᵀ @ y (O, P·Q), then fold() adds the columns back into the image

All columns at once would be I·J times the image: 1.1 GB for conv1_2 of the padded VGG-16 at 500×500. So they are made
tile by tile, in a buffer that fits the processor's cache, and each tile is one task for a worker thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from minifcn.array import Array
from minifcn.geometry import ConvGeometry, Pair
from minifcn.kernels.epilogue import Epilogue
from minifcn.kernels.registry import kernel
from minifcn.kernels.windows import band, fold, reach, rectangles, windows
from minifcn.memory import empty, scratch
from minifcn.threads import parallel, runs

TILE_BYTES = 2 << 20  # columns of one tile: about a core's L2 cache, so that the GEMM reads what the gather just wrote
SHARED_BYTES = 32 << 20  # columns of a small image, gathered once for a large filter: the most that a kernel holds
LARGE_FILTER = 4 << 20  # bytes of a filter from which on it matters how often it is read
SHORT_TASK = 1 << 23  # multiplications that take one thread less than about a millisecond
LANES = 4  # partial sums of a weight gradient; a constant, so that the result does not depend on the thread count


class Tile(NamedTuple):
    """The scores p0 ≤ p < p1, q0 ≤ q < q1 of image n in group g: one matrix product."""

    n: int
    g: int
    rows: Pair
    columns: Pair


def _tiles(geom: ConvGeometry, itemsize: int, budget: int | None = None) -> Iterator[Tile]:
    """Cut the scores into rectangles whose columns fit the budget: whole rows, which are contiguous, where one fits.
    Without one it is TILE_BYTES, about, in tiles of equal height, and LANES tiles in all or more, for the threads."""
    per_score = geom.c // geom.groups * geom.w_hw[0] * geom.w_hw[1] * itemsize
    p, q = geom.y_hw
    limit = (TILE_BYTES if budget is None else budget) // per_score
    if budget is None and limit >= q:
        count = -(-p // (limit // q))
        lanes = -(-LANES // (geom.n * geom.groups))
        limit = -(-p // (-(-count // lanes) * lanes)) * q
    for n in range(geom.n):
        for g in range(geom.groups):
            for rows, columns in rectangles(geom.y_hw, limit):
                yield Tile(n, g, rows, columns)


def _short(geom: ConvGeometry, tasks: int) -> bool:
    """Whether there is too little to do for a second thread to help."""
    return geom.macs < SHORT_TASK * min(tasks, LANES)


def _columns(x: Array, geom: ConvGeometry, tile: Tile) -> Array:
    """The windows of one tile as columns (C/groups·I·J, scores), in this thread's scratch memory."""
    rows, columns = tile.rows[1] - tile.rows[0], tile.columns[1] - tile.columns[0]
    channels = geom.c // geom.groups
    cols = scratch("columns", (channels, *geom.w_hw, rows, columns), x.dtype)
    _gather(x, geom, tile, slice(0, channels), cols)
    return cols.reshape(-1, rows * columns)


def _shared_columns(x: Array, geom: ConvGeometry, tile: Tile) -> Array:
    """As _columns, for a large tile that all workers will read: they gather it together, some channels each."""
    rows, columns = tile.rows[1] - tile.rows[0], tile.columns[1] - tile.columns[0]
    channels = geom.c // geom.groups
    cols = scratch("columns", (channels, *geom.w_hw, rows, columns), x.dtype)
    parallel(lambda part: _gather(x, geom, tile, part, cols[part]), _shares(channels, 2 * LANES))
    return cols.reshape(-1, rows * columns)


def _gather(x: Array, geom: ConvGeometry, tile: Tile, part: slice, cols: Array) -> None:
    """Copy the windows of some of a group's channels into cols (channels, I, J, rows, columns)."""
    start = tile.g * (geom.c // geom.groups)
    image = x[tile.n, start + part.start : start + part.stop]
    rows, columns = reach(geom, 0, tile.rows), reach(geom, 1, tile.columns)
    extent = (rows[1] - rows[0], columns[1] - columns[0])
    padded = band(image, rows, columns, scratch("band", (len(image), *extent), x.dtype))
    np.copyto(cols, windows(padded, geom.w_hw, cols.shape[3:], geom.stride, geom.dilation))


def _scores(y: Array, geom: ConvGeometry, tile: Tile) -> Array:
    """The view (O/groups, scores) of a tile in y (N, O, P, Q)."""
    per_group = geom.o // geom.groups
    part = y[tile.n, tile.g * per_group : (tile.g + 1) * per_group, slice(*tile.rows), slice(*tile.columns)]
    return part.reshape(per_group, -1)  # rows are whole, or there is one: never a copy


def _shares(count: int, parts: int) -> list[slice]:
    """0 ≤ row < count in at most `parts` runs of equal length."""
    return runs(count, math.ceil(count / parts))


def _filter_dominates(geom: ConvGeometry, itemsize: int) -> bool:
    """Whether the filter is too large to be read once per tile, and tiles as large as may be held are smaller: fc6, 7×7
    on 12×15 scores, has 411 MB of weights and 18 MB of columns."""
    (p, q), (i, j) = geom.y_hw, geom.w_hw
    per_filter = geom.c // geom.groups * i * j * itemsize
    columns, filters = per_filter * p * q, per_filter * (geom.o // geom.groups)
    return filters > max(min(columns, SHARED_BYTES), LARGE_FILTER)


@kernel("conv2d", backend="numpy", algorithm="gemm")
def conv2d_gemm(
    x: Array,
    w: Array,
    b: Array | None = None,
    scale: Array | None = None,
    add: Array | None = None,
    *,
    geom: ConvGeometry,
    relu: bool = False,
) -> Array:
    """y (N,O,P,Q) = w (O, C·I·J) @ columns of x (N,C,H,W), and the epilogue."""
    w, end = Epilogue(b, scale, add, relu).into(w, math.prod(geom.y_shape))
    x, w, per_group = np.ascontiguousarray(x), np.ascontiguousarray(w), geom.o // geom.groups
    y = empty(geom.y_shape, x.dtype)
    w_rows = w.reshape(geom.groups, per_group, -1)  # (groups, O/groups, C/groups·I·J)
    if y.size == 0 or w_rows.shape[2] == 0:
        return end.of_nothing(y)

    def product(tile: Tile, part: slice, cols: Array) -> None:
        out = _scores(y, geom, tile)[part]
        np.matmul(w_rows[tile.g, part], cols, out=out)
        channels = slice(tile.g * per_group + part.start, tile.g * per_group + part.stop)
        end.apply(out, channels, None if end.add is None else _scores(end.add, geom, tile)[part])

    if _filter_dominates(geom, x.itemsize):  # few columns, many filters: gather once, and share out the filters
        for tile in _tiles(geom, x.itemsize, SHARED_BYTES):
            cols = _shared_columns(x, geom, tile)
            parts = _shares(w_rows.shape[1], 2 * LANES)
            parallel(lambda part, tile=tile, cols=cols: product(tile, part, cols), parts)  # type: ignore[misc]
        return y
    tiles, every = list(_tiles(geom, x.itemsize)), slice(0, per_group)
    parallel(lambda tile: product(tile, every, _columns(x, geom, tile)), tiles, alone=_short(geom, len(tiles)))
    return y


@kernel("conv2d_weight", backend="numpy", algorithm="gemm")
def conv2d_weight_gemm(x: Array, y: Array, *, geom: ConvGeometry) -> Array:
    """w (O,C/groups,I,J) = y (O, P·Q) @ columnsᵀ, summed over images and tiles."""
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    w = empty(geom.w_shape, x.dtype)
    w_rows = w.reshape(geom.groups, geom.o // geom.groups, -1)
    if y.size == 0 or w.size == 0:
        w[...] = 0
        return w
    if w.nbytes > 2 * TILE_BYTES:  # a large filter: every worker sums its own rows of it, over few large tiles
        started = set()
        for tile in _tiles(geom, x.itemsize, SHARED_BYTES):
            cols, scores, filters = _shared_columns(x, geom, tile), _scores(y, geom, tile), w_rows[tile.g]

            def fill(part: slice, cols: Array = cols, scores: Array = scores, filters: Array = filters) -> None:
                np.matmul(scores[part], cols.T, out=filters[part])

            def add(part: slice, cols: Array = cols, scores: Array = scores, filters: Array = filters) -> None:
                filters[part] += scores[part] @ cols.T

            parallel(add if tile.g in started else fill, _shares(len(filters), 4 * LANES))
            started.add(tile.g)
        return w

    tiles = list(_tiles(geom, x.itemsize))
    lanes = [tiles[lane::LANES] for lane in range(min(LANES, len(tiles)))]
    sums = np.zeros((len(lanes), *w_rows.shape), x.dtype)

    def sum_lane(lane: int) -> None:
        product = scratch("product", w_rows.shape[1:], x.dtype)
        for tile in lanes[lane]:
            sums[lane, tile.g] += np.matmul(_scores(y, geom, tile), _columns(x, geom, tile).T, out=product)

    parallel(sum_lane, range(len(lanes)), alone=_short(geom, len(tiles)))
    np.sum(sums, axis=0, out=w_rows)  # in a fixed order, whoever computed them
    return w


@kernel("conv_transpose2d", backend="numpy", algorithm="gemm")
def conv_transpose2d_gemm(y: Array, w: Array, b: Array | None = None, *, geom: ConvGeometry) -> Array:
    """x (N,C,H,W) from y (N,O,P,Q) and b (C,): wᵀ @ y and fold(), or at stride 1 a convolution with the filter turned
    round."""
    y, w = np.ascontiguousarray(y), np.ascontiguousarray(w)
    full = geom.turned()
    if full is not None and not _filter_dominates(geom, y.itemsize):
        turned = w.reshape(geom.groups, -1, *w.shape[1:])[..., ::-1, ::-1].swapaxes(1, 2)  # (g, C/g, O/g, I, J)
        return conv2d_gemm(y, turned.reshape(full.w_shape), b, geom=full)

    channels, per_group = geom.c // geom.groups, geom.o // geom.groups
    taps = geom.w_hw[0] * geom.w_hw[1]
    w_rows = w.reshape(geom.groups, per_group, channels * taps)
    p, q = geom.y_hw
    y_rows = y.reshape(geom.n, geom.groups, per_group, p * q)  # (n, g, O/g, P·Q)
    span = [reach(geom, axis, (0, geom.y_hw[axis])) for axis in range(2)]
    x = empty(geom.x_shape, y.dtype)
    if x.size == 0 or y.size == 0 or w.size == 0:
        x[...] = 0 if b is None else b[:, None, None]
        return x
    # a task owns some channels of the image, so overlapping windows never meet in two tasks
    step = max(min(TILE_BYTES // (taps * p * q * y.itemsize), math.ceil(channels / LANES)), 1)
    band_rows = max(min(SHARED_BYTES // (step * taps * q * y.itemsize), p), 1)
    tasks = [(n, g, part) for n in range(geom.n) for g in range(geom.groups) for part in runs(channels, step)]

    def scatter(task: tuple[int, int, slice]) -> None:
        n, g, part = task
        count = part.stop - part.start
        height, width = (max(end, size) - start for (start, end), size in zip(span, geom.x_hw, strict=True))
        padded = scratch("padded", (count, height, width), y.dtype)
        padded[...] = 0
        filters = w_rows[g, :, part.start * taps : part.stop * taps].T  # (c·I·J, O/g), a view
        for p0 in range(0, p, band_rows):
            p1 = min(p0 + band_rows, p)
            cols = scratch("columns", (count * taps, (p1 - p0) * q), y.dtype)
            np.matmul(filters, y_rows[n, g, :, p0 * q : p1 * q], out=cols)
            target = padded[:, p0 * geom.stride[0] :]
            fold(cols.reshape(count, *geom.w_hw, p1 - p0, q), target, geom.stride, geom.dilation)
        (top, _), (left, _) = span  # top = −padding: the rows above the image are cut off
        image = padded[:, -top : -top + geom.x_hw[0], -left : -left + geom.x_hw[1]]
        at = slice(g * channels + part.start, g * channels + part.stop)
        if b is None:
            x[n, at] = image
        else:
            np.add(image, b[at, None, None], out=x[n, at])

    parallel(scatter, tasks, alone=_short(geom, len(tasks)))
    return x

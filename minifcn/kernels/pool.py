"""Pooling without a copy of the windows: one pass over the image per filter tap (i, j), in chunks of planes.

Max pooling saves which tap won, one byte per score. With it the gradient is a linear pair: pool_put sends scores back
to the taps that they were taken from, pool_take fetches them again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minifcn.array import Array
from minifcn.geometry import AdaptiveGeometry, PoolGeometry
from minifcn.kernels.registry import kernel
from minifcn.kernels.select import select
from minifcn.kernels.windows import tap as tap_slices
from minifcn.memory import empty, scratch
from minifcn.threads import parallel, runs

CHUNK_BYTES = 1 << 20  # planes worked on at a time, so that all passes but the first find them in cache


def _chunks(geom: PoolGeometry, itemsize: int) -> list[slice]:
    return runs(geom.n * geom.c, CHUNK_BYTES // max(geom.x_hw[0] * geom.x_hw[1] * itemsize, 1))


def _padded_hw(geom: PoolGeometry) -> tuple[int, int]:
    """The rows and columns that all windows together reach, padding and ceil_mode's overhang included."""
    height, width = (
        max((y - 1) * s + d * (k - 1) + 1, p + x)
        for y, s, d, k, p, x in zip(
            geom.y_hw, geom.stride, geom.dilation, geom.w_hw, geom.padding, geom.x_hw, strict=True
        )
    )
    return height, width


def _pad(planes: Array, geom: PoolGeometry, fill: float) -> Array:
    """Planes (B, H, W) with the padding that the windows reach filled in; the planes themselves where there is none."""
    hw = _padded_hw(geom)
    if hw == geom.x_hw:
        return planes
    padded = np.full((len(planes), *hw), fill, planes.dtype)
    _inside(padded, geom)[...] = planes
    return padded


def _inside(padded: Array, geom: PoolGeometry) -> Array:
    (top, left), (height, width) = geom.padding, geom.x_hw
    return padded[:, top : top + height, left : left + width]


def _taps(geom: PoolGeometry) -> list[tuple[int, tuple[slice, slice]]]:
    """(number, rows and columns) of every tap of the window."""
    return [
        (i * geom.w_hw[1] + j, tap_slices(i, j, geom.y_hw, geom.stride, geom.dilation))
        for i, j in np.ndindex(*geom.w_hw)
    ]


def _planes(array: Array) -> Array:
    """(N, C, …) as (N·C, …)."""
    array = np.ascontiguousarray(array)
    return array.reshape(-1, *array.shape[2:])


def _tap_dtype(geom: PoolGeometry) -> type[np.unsignedinteger]:
    return np.uint8 if geom.w_hw[0] * geom.w_hw[1] <= 256 else np.uint32


def _first_taps(geom: PoolGeometry) -> Array:
    """The first tap of each window (P, Q) that is not in the padding."""
    first = [
        -(-np.maximum(padding - np.arange(size) * stride, 0) // dilation)
        for padding, size, stride, dilation in zip(geom.padding, geom.y_hw, geom.stride, geom.dilation, strict=True)
    ]
    taps: Array = first[0][:, None] * geom.w_hw[1] + first[1]
    return taps


@kernel("max_pool2d", backend="numpy", algorithm="taps")
def max_pool2d_taps(x: Array, *, geom: PoolGeometry) -> tuple[Array, Array]:
    """(y, tap), both (N,C,P,Q): the largest value of each window, and the number i·J + j of the tap that holds it."""
    x_planes = _planes(x)
    y = np.full((len(x_planes), *geom.y_hw), -np.inf, x.dtype)
    tap = empty(y.shape, _tap_dtype(geom))
    tap[...] = _first_taps(geom)  # what wins where nothing is larger than −∞

    def work(chunk: slice) -> None:
        padded, best, winner = _pad(x_planes[chunk], geom, -np.inf), y[chunk], tap[chunk]
        _scan(padded, best, winner, geom, nan=False)
        if np.isnan(best).any():  # rare, so looked for once instead of at every tap
            best[...] = -np.inf
            winner[...] = _first_taps(geom)
            _scan(padded, best, winner, geom, nan=True)

    parallel(work, _chunks(geom, x.itemsize))
    return y.reshape(geom.y_shape), tap.reshape(geom.y_shape)


def _scan(padded: Array, best: Array, winner: Array, geom: PoolGeometry, nan: bool) -> None:
    """Raise best to the largest value of each window, and winner to its tap; with `nan`, a NaN is larger than all."""
    for number, (rows, columns) in _taps(geom):
        value = padded[:, rows, columns]
        better = value > best  # false beside a NaN, so a NaN that was found stays
        if nan:
            better |= np.isnan(value)
        np.maximum(best, value, out=best)
        # numbers rise from tap to tap, so the last better one is the largest
        np.maximum(winner, better * winner.dtype.type(number), out=winner)


def _halves(geom: PoolGeometry) -> bool:
    return geom.w_hw == geom.stride == (2, 2) and geom.padding == (0, 0) and geom.dilation == (1, 1)


HALVES = "2×2 windows side by side, without padding"


@kernel(
    "max_pool2d",
    backend="numpy",
    algorithm="halves",
    supports=_halves,
    limits=HALVES,
    auto=lambda dtype, geom: True,
)
def max_pool2d_halves(x: Array, *, geom: PoolGeometry) -> tuple[Array, Array]:
    """(y, tap), both (N,C,P,Q), of 2×2 windows: the larger of two neighbours, then of two rows. That is the order of
    the taps, so equal values are decided alike."""
    x_planes = _planes(x)
    y = empty((len(x_planes), *geom.y_hw), x.dtype)
    tap = empty(y.shape, np.uint8)

    def work(chunk: slice) -> None:
        padded, best, winner = _pad(x_planes[chunk], geom, -np.inf), y[chunk], tap[chunk]
        pairs = padded[:, : 2 * geom.y_hw[0], : 2 * geom.y_hw[1]]
        left, right = pairs[..., ::2], pairs[..., 1::2]  # (B, 2P, Q)
        across = np.greater(right, left, out=scratch("across", right.shape, np.dtype(bool))).view(np.uint8)
        rows = np.maximum(left, right, out=scratch("rows", right.shape, x.dtype))
        upper, lower = rows[:, ::2], rows[:, 1::2]  # (B, P, Q)
        down = np.greater(lower, upper, out=scratch("down", best.shape, np.dtype(bool))).view(np.uint8)
        np.maximum(upper, lower, out=best)
        np.subtract(across[:, 1::2], across[:, ::2], out=winner)  # the tap of the upper row, and how far it is
        winner += 2  # from there to the lower row's; in bytes that wrap around
        winner *= down
        winner += across[:, ::2]
        if np.isnan(best).any():
            best[...] = -np.inf
            winner[...] = 0
            _scan(padded, best, winner, geom, nan=True)

    parallel(work, _chunks(geom, x.itemsize))
    return y.reshape(geom.y_shape), tap.reshape(geom.y_shape)


@kernel(
    "pool_put",
    backend="numpy",
    algorithm="halves",
    supports=lambda tap, geom: _halves(geom),
    limits=HALVES,
    auto=lambda dtype, tap, geom: True,
)
def pool_put_halves(y: Array, *, tap: Array, geom: PoolGeometry) -> Array:
    """x (N,C,H,W) of 2×2 windows: every pixel belongs to one window, so it is written once, y or 0."""
    y_planes, tap_planes = _planes(y), _planes(tap)
    x = empty((len(y_planes), *geom.x_hw), y.dtype)

    def work(chunk: slice) -> None:
        own = y_planes[chunk]
        direct = _padded_hw(geom) == geom.x_hw
        padded = x[chunk] if direct else scratch("padded", (len(own), *_padded_hw(geom)), y.dtype)
        padded[:, 2 * geom.y_hw[0] :] = 0  # an odd row or column that no window reaches
        padded[:, :, 2 * geom.y_hw[1] :] = 0
        keep = scratch("keep", own.shape, np.dtype(bool))
        for number, (rows, columns) in _taps(geom):
            np.equal(tap_planes[chunk], tap.dtype.type(number), out=keep)
            select(keep, own, padded[:, rows, columns])
        if not direct:
            x[chunk] = _inside(padded, geom)

    parallel(work, _chunks(geom, y.itemsize))
    return x.reshape(geom.x_shape)


@kernel("pool_put", backend="numpy", algorithm="taps")
def pool_put_taps(y: Array, *, tap: Array, geom: PoolGeometry) -> Array:
    """x (N,C,H,W): y (N,C,P,Q) added at the taps that were chosen."""
    y_planes, tap_planes = _planes(y), _planes(tap)

    def add(padded: Array, chunk: slice, number: int, at: tuple[slice, slice]) -> None:
        own = y_planes[chunk]
        padded[:, at[0], at[1]] += select(tap_planes[chunk] == number, own, np.empty_like(own))

    return _accumulate(geom, y.dtype, add)


@kernel("pool_take", backend="numpy", algorithm="taps")
def pool_take_taps(x: Array, *, tap: Array, geom: PoolGeometry) -> Array:
    """y (N,C,P,Q): x (N,C,H,W) at the taps that were chosen."""
    x_planes, tap_planes = _planes(x), _planes(tap)
    y = np.zeros((len(x_planes), *geom.y_hw), x.dtype)

    def work(chunk: slice) -> None:
        padded, own = _pad(x_planes[chunk], geom, 0), y[chunk]
        for number, (rows, columns) in _taps(geom):
            own += select(tap_planes[chunk] == number, padded[:, rows, columns], np.empty_like(own))

    parallel(work, _chunks(geom, x.itemsize))
    return y.reshape(geom.y_shape)


@kernel("avg_pool2d", backend="numpy", algorithm="taps")
def avg_pool2d_taps(x: Array, *, scale: Array, geom: PoolGeometry) -> Array:
    """y (N,C,P,Q): the sum of each window times scale (P,Q), one over its divisor."""
    x_planes = _planes(x)
    y = np.zeros((len(x_planes), *geom.y_hw), x.dtype)

    def work(chunk: slice) -> None:
        padded = _pad(x_planes[chunk], geom, 0)
        for _, (rows, columns) in _taps(geom):
            y[chunk] += padded[:, rows, columns]
        y[chunk] *= scale

    parallel(work, _chunks(geom, x.itemsize))
    return y.reshape(geom.y_shape)


@kernel("avg_pool2d_adjoint", backend="numpy", algorithm="taps")
def avg_pool2d_adjoint_taps(y: Array, *, scale: Array, geom: PoolGeometry) -> Array:
    """x (N,C,H,W): every score, times its scale, spread over its window."""
    y_planes = _planes(y)

    def add(padded: Array, chunk: slice, number: int, at: tuple[slice, slice]) -> None:
        padded[:, at[0], at[1]] += y_planes[chunk] * scale

    return _accumulate(geom, y.dtype, add)


def _accumulate(
    geom: PoolGeometry, dtype: np.dtype[np.floating], add: Callable[[Array, slice, int, tuple[slice, slice]], None]
) -> Array:
    """x (N,C,H,W) filled by `add`, called once for every chunk of planes and tap of the window."""
    x = empty((geom.n * geom.c, *geom.x_hw), dtype)

    def work(chunk: slice) -> None:
        padded = np.zeros((chunk.stop - chunk.start, *_padded_hw(geom)), dtype)
        for number, at in _taps(geom):
            add(padded, chunk, number, at)
        x[chunk] = _inside(padded, geom)

    parallel(work, _chunks(geom, x.itemsize))
    return x.reshape(geom.x_shape)


@kernel("adaptive_avg_pool2d", backend="numpy", algorithm="spans")
def adaptive_avg_pool2d_spans(x: Array, *, geom: AdaptiveGeometry) -> Array:
    """y (N,C,P,Q): the mean of each window, rows first; added in float64, as one window may be the whole image."""
    rows, columns = geom.spans(0), geom.spans(1)
    bands = np.empty((*x.shape[:2], len(rows), x.shape[3]))  # (N, C, P, W)
    for p, (start, end) in enumerate(rows):
        np.mean(x[:, :, start:end], axis=2, dtype=np.float64, out=bands[:, :, p])
    y = np.empty(geom.y_shape, x.dtype)
    for q, (start, end) in enumerate(columns):
        y[..., q] = bands[..., start:end].mean(axis=3)
    return y


@kernel("adaptive_avg_pool2d_adjoint", backend="numpy", algorithm="spans")
def adaptive_avg_pool2d_adjoint_spans(y: Array, *, geom: AdaptiveGeometry) -> Array:
    """x (N,C,H,W): every score over its window's size, spread over the window, columns first."""
    bands = np.zeros((*y.shape[:3], geom.x_shape[3]), y.dtype)  # (N, C, P, W)
    for q, (start, end) in enumerate(geom.spans(1)):
        bands[..., start:end] += y[..., q, None] * y.dtype.type(1 / (end - start))
    x = np.zeros(geom.x_shape, y.dtype)
    for p, (start, end) in enumerate(geom.spans(0)):
        x[:, :, start:end] += bands[:, :, p, None] * y.dtype.type(1 / (end - start))
    return x

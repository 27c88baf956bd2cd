"""3×3 convolution of stride 1 with fewer multiplications: Winograd's minimal filtering, F(2,3) and F(4,3).

One axis first. F(m, r) computes m scores y of a filter g with r taps from n = m + r − 1 pixels d,

    y[p] = Σ_i d[p + i]·g[i],      as      y = Aᵀ[(G g) ⊙ (Bᵀ d)]

with n multiplications instead of m·r. Where it comes from (Cook and Toom): the polynomials g and t of degrees r − 1 and
m − 1 have a product of n coefficients, so n points determine it. Evaluate both there, multiply the values, interpolate:

    g·t = V⁻¹[(V_r g) ⊙ (V_m t)],      V_k[a, e] = aᵉ for the points a, and for the point ∞ the leading coefficient.

That is linear in t, and the transpose of "times g" is the correlation above: y = V_mᵀ[(V_r g) ⊙ (V⁻ᵀ d)]. So Aᵀ = V_mᵀ,
and G = V_r, Bᵀ = V⁻ᵀ but for a factor per point, moved from Bᵀ to G so that Bᵀ holds integers. `cook_toom` does this in
fractions, and a test checks the identity with them, without rounding.

On images both axes are transformed, and the sum over channels happens between the transforms. So for each of the n·n
points there is one matrix product, tiles × channels × filters:

    M[ξ] (T, O) = V[ξ] (T, C) @ U[ξ] (C, O)      V = Bᵀ d B of every tile,  U = G g Gᵀ of every filter,  y = Aᵀ M A

F(4,3) multiplies 36 times for 16 scores where the definition does 144 times. Its three relatives are the
same arithmetic:

    conv_transpose2d   a convolution with the filter turned round and the padding 2 − p
    conv2d_weight      transposed in w:  U[ξ] (O, C) = (A gy Aᵀ)[ξ]ᵀ (O, T) @ V[ξ] (T, C),  then Gᵀ U G
    the bias           added at the point (1, 1) only: there Aᵀ has ones, so each of the m·m scores receives it once

In float32 the result is off by about 3·10⁻⁶ of its size for F(4,3), where a plain sum is by 3·10⁻⁷; and one NaN or Inf
in the image spoils all scores of the tiles that it lies in. float64 never goes this way unless asked to.

Within a tile the channels of a pixel lie side by side (channels last), so that transforms are products with a long
contiguous axis. All work is cut so that it stays in a core's cache.

Lavin & Gray 2016, "Fast algorithms for convolutional neural networks", §4; Winograd 1980, "Arithmetic complexity of
computations", ch. III.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from minifcn.array import Array
from minifcn.geometry import ConvGeometry, Pair
from minifcn.kernels.registry import kernel
from minifcn.kernels.windows import band, rectangles, windows
from minifcn.memory import empty, scratch
from minifcn.threads import parallel, runs

POINTS = (0, 1, -1, 2, -2)  # small, so that little is lost to rounding; the last one is always ∞
TAPS = 3
# OpenBLAS (with AVX-512) multiplies up to 10⁶ multiplications without first copying the matrices, which is faster
PRODUCT = 10**6
TILE = 1 << 13  # tiles × channels of a task: with the 36 points of each, about what a core's L2 cache holds
FILTER = 1 << 14  # channels × filters of a task, where the filters are too many for a cache
FILTER_BYTES = 3 << 20  # transformed filters up to here are made once and read by all tiles, as they stay in a cache
SHARED_BYTES = 32 << 20  # transformed tiles that all workers read: the most that these kernels hold
LANES = 4  # partial sums of a weight gradient; a constant, so that the result does not depend on the thread count

Matrix = list[list[Fraction]]


def cook_toom(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """Aᵀ (m, n), G (n, r) and Bᵀ (n, n) of F(m, r), n = m + r − 1, exact: y = Aᵀ[(G g) ⊙ (Bᵀ d)].

    >>> [[int(v) for v in row] for row in cook_toom(2, 3)[2]]
    [[-1, 0, 1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
    """
    n = m + r - 1
    points = [Fraction(p) for p in POINTS[: n - 1]]

    def evaluate(terms: int) -> Matrix:
        """V: a polynomial's coefficients → its values at the points, and its leading coefficient."""
        return [[p**e for e in range(terms)] for p in points] + [[Fraction(int(e == terms - 1)) for e in range(terms)]]

    def with_roots(roots: list[Fraction]) -> list[Fraction]:
        """The coefficients of Π (x − root), and zeros up to n."""
        product = [Fraction(1)]
        for root in roots:
            product = [a - root * b for a, b in zip([Fraction(0), *product], [*product, Fraction(0)], strict=True)]
        return product + [Fraction(0)] * (n - len(product))

    # Lagrange: the polynomial that is 1 at point a and 0 at the others is Π_{b≠a} (x − b) / Π_{b≠a} (a − b). The
    # numerators' coefficients are the rows of Bᵀ; the denominators are the factors that G takes over.
    others = [[b for b in points if b != a] for a in points]
    factors = [math.prod((a - b for b in bs), start=Fraction(1)) for a, bs in zip(points, others, strict=True)]
    from_points = [with_roots(bs) for bs in others] + [with_roots(points)]
    filters = [[v / f for v in row] for row, f in zip(evaluate(r), [*factors, Fraction(1)], strict=True)]
    return [list(column) for column in zip(*evaluate(m), strict=True)], filters, from_points


class Transform(NamedTuple):
    """The matrices of F(m, 3) in one dtype."""

    m: int
    n: int
    scores: Array  # Aᵀ (m, n)
    filters: Array  # G (n, 3)
    pixels: Array  # Bᵀ (n, n)


@cache
def transform(m: int, dtype: np.dtype[Any]) -> Transform:
    """F(m, 3) for arrays of a dtype."""
    scores, filters, pixels = (np.array([[float(v) for v in row] for row in a], dtype) for a in cook_toom(m, TAPS))
    return Transform(m, m + TAPS - 1, scores, filters, pixels)


def _both_axes(matrix: Array, t: Array, out: Array) -> None:
    """out[a,b,…] = Σ_{k,l} matrix[a,k]·matrix[b,l]·t[k,l,…], of t (K, K, L) and out (A, A, L)."""
    rows, terms = matrix.shape
    half = scratch("half", (terms, rows, t.shape[2]), t.dtype)  # (L, A, …): one product for each column l, all small
    np.matmul(matrix, t.transpose(1, 0, 2), out=half)
    np.matmul(matrix, half.transpose(1, 0, 2), out=out)


def _to_tiles(matrix: Array, image: Array, step: int, padding: Pair, tiles: tuple[Pair, Pair], out: Array) -> None:
    """The transformed tiles of image (C, H, W), out (N, N, T·C): K·K pixels of each, `step` apart, matrix (N, K)."""
    terms, channels = matrix.shape[1], len(image)
    rows, columns = (
        (first * step - pad, (last - 1) * step + terms - pad) for (first, last), pad in zip(tiles, padding, strict=True)
    )
    hw = (rows[1] - rows[0], columns[1] - columns[0])
    planes = band(image, rows, columns, scratch("planes", (channels, *hw), image.dtype), copy=True)
    pixels = scratch("pixels", (*hw, channels), image.dtype)
    np.copyto(pixels, planes.transpose(1, 2, 0))
    counts = (tiles[0][1] - tiles[0][0], tiles[1][1] - tiles[1][0])
    named = windows(pixels.transpose(2, 0, 1), (terms, terms), counts, (step, step), (1, 1))  # (C, K, K, P, Q)
    gathered = scratch("gathered", (terms, terms, *counts, channels), image.dtype)
    np.copyto(gathered, named.transpose(1, 2, 3, 4, 0))
    _both_axes(matrix, gathered.reshape(terms, terms, -1), out)


def _from_tiles(f: Transform, products: Array, y: Array, tiles: tuple[Pair, Pair]) -> None:
    """Put y = Aᵀ M A of these tiles, products (N·N, T, O), into the scores y (O, P, Q)."""
    (p0, p1), (q0, q1) = tiles
    filters = len(y)
    flat = scratch("scores", (f.m, f.m, products[0].size), y.dtype)
    _both_axes(f.scores, products.reshape(f.n, f.n, -1), flat)
    pixels = scratch("pixels", (p1 - p0, f.m, q1 - q0, f.m, filters), y.dtype)
    np.copyto(pixels, flat.reshape(f.m, f.m, p1 - p0, q1 - q0, filters).transpose(2, 0, 3, 1, 4))
    part = y[:, f.m * p0 : f.m * p1, f.m * q0 : f.m * q1]  # the last tiles may reach beyond
    whole = pixels.reshape((p1 - p0) * f.m, (q1 - q0) * f.m, filters).transpose(2, 0, 1)
    part[...] = whole[:, : part.shape[1], : part.shape[2]]


def _to_filters(f: Transform, w: Array, out: Array) -> None:
    """U = G g Gᵀ of w (O, C, 3, 3): out (N, N, C·O)."""
    filters, channels = w.shape[:2]
    taps = scratch("taps", (TAPS, TAPS, channels, filters), w.dtype)
    if w.strides[0] > w.strides[1]:  # in the order in which memory holds them first: far fewer cache lines are touched
        planes = scratch("planes", (TAPS, TAPS, filters, channels), w.dtype)
        np.copyto(planes, w.transpose(2, 3, 0, 1))
        np.copyto(taps, planes.transpose(0, 1, 3, 2))
    else:
        np.copyto(taps, w.transpose(2, 3, 1, 0))
    _both_axes(f.filters, taps.reshape(TAPS, TAPS, -1), out)


def _grid(f: Transform, y_hw: Pair) -> Pair:
    """Rows and columns of tiles."""
    return -(-y_hw[0] // f.m), -(-y_hw[1] // f.m)


def _count(tiles: tuple[Pair, Pair]) -> int:
    (p0, p1), (q0, q1) = tiles
    return (p1 - p0) * (q1 - q0)


def _convolve(x: Array, w: Array, b: Array | None, y: Array, padding: Pair, f: Transform) -> None:
    """y (N, O, P, Q) = x (N, C, H, W) with the filters w (O, C, 3, 3), one group."""
    channels, filters = x.shape[1], len(w)
    points, grid = f.n * f.n, _grid(f, (y.shape[2], y.shape[3]))

    def products(v: Array, u: Array, n: int, part: slice, tiles: tuple[Pair, Pair]) -> None:
        """The scores of some filters, u (N·N, C, O), on some tiles, v (N·N, T, C)."""
        m = scratch("products", (points, v.shape[1], u.shape[2]), x.dtype)
        np.matmul(v, u, out=m)
        if b is not None:
            m[f.n + 1] += b[part]  # the point (1, 1)
        _from_tiles(f, m, y[n, part], tiles)

    if points * channels * filters * x.itemsize <= FILTER_BYTES:  # every task reads all filters
        u = scratch("shared", (points, channels, filters), x.dtype)
        flat = u.reshape(f.n, f.n, -1)
        parallel(
            lambda part: _to_filters(f, w[:, part], flat[..., part.start * filters : part.stop * filters]),
            runs(channels, -(-channels // LANES)),
            alone=channels * filters < 1 << 14,
        )

        def by_tiles(task: tuple[int, tuple[Pair, Pair]]) -> None:
            n, tiles = task
            v = scratch("tiles", (points, _count(tiles), channels), x.dtype)
            _to_tiles(f.pixels, x[n], f.m, padding, tiles, v.reshape(f.n, f.n, -1))
            for part in runs(filters, PRODUCT // (channels * _count(tiles))):
                products(v, u[..., part], n, part, tiles)

        parallel(by_tiles, _blocks(len(x), grid, TILE // max(channels, filters)))
        return

    width = max(FILTER // channels, 1)

    for n, block in _blocks(len(x), grid, SHARED_BYTES // (points * channels * x.itemsize)):
        v = scratch("shared", (points, _count(block), channels), x.dtype)
        pieces = _pieces(block, PRODUCT // (channels * width))

        def gather(piece: tuple[slice, tuple[Pair, Pair]], n: int = n, v: Array = v) -> None:
            at, tiles = piece
            flat = v.reshape(f.n, f.n, -1)[..., at.start * channels : at.stop * channels]
            _to_tiles(f.pixels, x[n], f.m, padding, tiles, flat)

        def by_filters(part: slice, n: int = n, v: Array = v, pieces: Any = pieces) -> None:
            u = scratch("filters", (points, channels, part.stop - part.start), x.dtype)
            _to_filters(f, w[part], u.reshape(f.n, f.n, -1))
            for at, tiles in pieces:
                products(v[:, at], u, n, part, tiles)

        parallel(gather, _pieces(block, _count(block) // (2 * LANES)))
        parallel(by_filters, runs(filters, width))


def _blocks(images: int, grid: Pair, limit: int) -> list[tuple[int, tuple[Pair, Pair]]]:
    """(image, rectangle of at most `limit` tiles)."""
    return [(n, tiles) for n in range(images) for tiles in rectangles(grid, limit)]


def _pieces(block: tuple[Pair, Pair], limit: int) -> list[tuple[slice, tuple[Pair, Pair]]]:
    """Cut a rectangle of tiles into whole rows of them, about `limit` tiles each: (which of its tiles, which tiles)."""
    (p0, p1), columns = block
    width = columns[1] - columns[0]
    return [
        (slice(rows.start * width, rows.stop * width), ((p0 + rows.start, p0 + rows.stop), columns))
        for rows in runs(p1 - p0, limit // width)
    ]


def _weight(x: Array, y: Array, w: Array, padding: Pair, f: Transform) -> None:
    """w (O, C, 3, 3) = Σ x·y over images and scores, one group."""
    channels, filters = x.shape[1], y.shape[1]
    points, grid = f.n * f.n, _grid(f, (y.shape[2], y.shape[3]))
    spread = np.ascontiguousarray(f.scores.T)  # A (n, m)

    def tiles_of(n: int, tiles: tuple[Pair, Pair], v: Array, z: Array) -> None:
        _to_tiles(f.pixels, x[n], f.m, padding, tiles, v)
        _to_tiles(spread, y[n], f.m, (0, 0), tiles, z)

    def finish(u: Array, part: slice, add: bool) -> None:
        """Gᵀ U G of some filters, u (N·N, O, C)."""
        taps = scratch("taps", (TAPS, TAPS, u[0].size), x.dtype)
        _both_axes(np.ascontiguousarray(f.filters.T), u.reshape(f.n, f.n, -1), taps)
        taps = taps.reshape(TAPS, TAPS, -1, channels).transpose(2, 3, 0, 1)
        if add:
            w[part] += taps
        else:
            w[part] = taps

    if points * channels * filters * x.itemsize <= FILTER_BYTES:  # all filters at once, over some of the tiles
        tasks = _blocks(len(x), grid, TILE // max(channels, filters))
        lanes = [tasks[lane::LANES] for lane in range(min(LANES, len(tasks)))]
        sums = np.zeros((len(lanes), points, filters, channels), x.dtype)

        def by_tiles(lane: int) -> None:
            u = scratch("products", sums.shape[1:], x.dtype)
            for n, tiles in lanes[lane]:
                v = scratch("tiles", (points, _count(tiles), channels), x.dtype)
                z = scratch("score tiles", (points, _count(tiles), filters), x.dtype)
                tiles_of(n, tiles, v.reshape(f.n, f.n, -1), z.reshape(f.n, f.n, -1))
                sums[lane] += np.matmul(z.transpose(0, 2, 1), v, out=u)

        parallel(by_tiles, range(len(lanes)))
        finish(np.sum(sums, axis=0), slice(0, filters), add=False)  # in a fixed order, whoever computed them
        return

    width = max(FILTER // channels, 1)
    started = False
    for n, block in _blocks(len(x), grid, SHARED_BYTES // (points * (channels + filters) * x.itemsize)):
        v = scratch("shared", (points, _count(block), channels), x.dtype)
        z = scratch("shared scores", (points, _count(block), filters), x.dtype)

        def gather(piece: tuple[slice, tuple[Pair, Pair]], n: int = n, v: Array = v, z: Array = z) -> None:
            at, tiles = piece
            tiles_of(
                n,
                tiles,
                v.reshape(f.n, f.n, -1)[..., at.start * channels : at.stop * channels],
                z.reshape(f.n, f.n, -1)[..., at.start * filters : at.stop * filters],
            )

        def by_filters(part: slice, v: Array = v, z: Array = z, add: bool = started) -> None:
            u = scratch("filters", (points, part.stop - part.start, channels), x.dtype)
            product = scratch("products", u.shape, x.dtype)
            for k, at in enumerate(runs(v.shape[1], PRODUCT // (channels * width))):
                np.matmul(z[:, at, part].transpose(0, 2, 1), v[:, at], out=product if k else u)
                if k:
                    u += product
            finish(u, part, add)

        parallel(gather, _pieces(block, _count(block) // (2 * LANES)))
        parallel(by_filters, runs(filters, width))
        started = True


def _supports(geom: ConvGeometry) -> bool:
    return geom.w_hw == (TAPS, TAPS) and geom.stride == geom.dilation == (1, 1) and max(geom.padding) < TAPS


LIMITS = "a 3×3 filter, stride 1, dilation 1 and padding up to 2"


def _groups(geom: ConvGeometry) -> list[tuple[slice, slice]]:
    """The image's channels and the filters of each group."""
    c, o = geom.c // geom.groups, geom.o // geom.groups
    return [(slice(g * c, (g + 1) * c), slice(g * o, (g + 1) * o)) for g in range(geom.groups)]


def _conv2d(m: int, x: Array, w: Array, b: Array | None, geom: ConvGeometry) -> Array:
    y = empty(geom.y_shape, x.dtype)
    if y.size:
        for channels, filters in _groups(geom):
            _convolve(
                x[:, channels],
                w[filters],
                None if b is None else b[filters],
                y[:, filters],
                geom.padding,
                transform(m, x.dtype),
            )
    return y


def _conv_transpose2d(m: int, y: Array, w: Array, b: Array | None, geom: ConvGeometry) -> Array:
    turned = geom.turned()
    assert turned is not None  # `supports` asks for it
    x = empty(geom.x_shape, y.dtype)
    if x.size:
        for channels, filters in _groups(geom):
            _convolve(
                y[:, filters],
                w[filters, :, ::-1, ::-1].swapaxes(0, 1),
                None if b is None else b[channels],
                x[:, channels],
                turned.padding,
                transform(m, y.dtype),
            )
    return x


def _conv2d_weight(m: int, x: Array, y: Array, geom: ConvGeometry) -> Array:
    w = empty(geom.w_shape, x.dtype)
    if not y.size:
        w[...] = 0
    elif w.size:
        for channels, filters in _groups(geom):
            _weight(x[:, channels], y[:, filters], w[filters], geom.padding, transform(m, x.dtype))
    return w


def _auto(dtype: np.dtype[Any], geom: ConvGeometry) -> bool:
    return dtype == np.float32 and min(geom.c, geom.o) // geom.groups >= 16 and geom.y_hw[0] * geom.y_hw[1] >= 256


def _register(m: int, auto: Callable[..., bool], best: str) -> None:
    """conv2d, conv_transpose2d and conv2d_weight by F(m, 3)."""
    functions: dict[str, Callable[..., Array]] = {
        "conv2d": lambda x, w, b=None, *, geom: _conv2d(m, x, w, b, geom),
        "conv_transpose2d": lambda y, w, b=None, *, geom: _conv_transpose2d(m, y, w, b, geom),
        "conv2d_weight": lambda x, y, *, geom: _conv2d_weight(m, x, y, geom),
    }
    for op, function in functions.items():
        kernel(
            op, backend="numpy", algorithm=f"winograd_f{m}", supports=_supports, limits=LIMITS, auto=auto, best=best
        )(function)


_register(4, _auto, "float32, 16 or more channels in and out of each group, and 256 or more scores")
_register(2, lambda dtype, geom: False, "nothing, as F(4,3) is faster")

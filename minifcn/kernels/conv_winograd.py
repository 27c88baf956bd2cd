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
    the epilogue       a scale multiplies the filters; a bias is added at the point (1, 1) only: there Aᵀ has ones, so
                       each of the m·m scores receives it once

In float32 the result is off by 2 to 6·10⁻⁶ of its size for F(4,3), where a plain sum is by some 10⁻⁷, and single scores
by ten times that; and one NaN or Inf in the image spoils all scores of the tiles that it lies in. float64 never goes
this way unless asked to.

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
from minifcn.kernels.epilogue import Epilogue
from minifcn.kernels.registry import kernel
from minifcn.kernels.windows import band, rectangles, sliding
from minifcn.memory import LINE, empty, scratch
from minifcn.threads import parallel, runs

POINTS = (0, 1, -1, 2, -2)  # small, so that little is lost to rounding; the last one is always ∞
TAPS = 3
# OpenBLAS (with AVX-512) computes products of up to 10⁶ multiplications without first copying the matrices, which is
# faster: so the transforms and the products between them are many small ones, in few calls
PRODUCT = 10**6
TILE = 1 << 14  # tiles × channels of a task: 2.4 MB with the 36 points of each; half of it, or half more, were slower
GATHER = 1 << 14  # tiles × channels that one thread transforms before a second one has woken up
SHORT = 1 << 26  # multiplications of the definition: below, two threads do not pay, nor do the transforms
SHORT_FILTERS = 1 << 15  # filters × channels below which one thread transforms them
FILTER = 1 << 14  # channels × filters of a task, where the filters are too many for a cache
FILTER_BYTES = 3 << 20  # transformed filters up to here are made once and read by all tiles, as they stay in a cache
SHARED_BYTES = 32 << 20  # transformed tiles that all workers read: the most that these kernels hold
PAD = LINE // 4  # a transposed copy of rows a power of two apart would use a few sets of the cache only
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
    """The transformed tiles of image (C, H, W), out (N, N, T·C): K·K pixels of each, `step` apart, matrix (N, K).

    out[a,b,p,q,c] = Σ_{k,l} matrix[a,k]·matrix[b,l]·pixels[p·step + k, q·step + l, c], first over l, for each row of
    pixels once, then over k. The windows, which overlap, are views: nothing is gathered.
    """
    (points, terms), channels = matrix.shape, len(image)
    rows, columns = (
        (first * step - pad, (last - 1) * step + terms - pad) for (first, last), pad in zip(tiles, padding, strict=True)
    )
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    p, q = (last - first for first, last in tiles)
    pixels = scratch("pixels", (height, width, channels), image.dtype)
    band(image, rows, columns, pixels.transpose(2, 0, 1), copy=True)
    half = scratch("half", (height, points, q, channels), image.dtype)
    across = sliding(pixels, 1, terms, q, step)  # (height, Q, K, C)
    np.matmul(matrix, across, out=half.transpose(0, 2, 1, 3))
    down = sliding(half.reshape(height, points, -1), 0, terms, p, step)  # (P, K, N, Q·C)
    np.matmul(matrix, down.transpose(0, 2, 1, 3), out=out.reshape(points, points, p, -1).transpose(2, 1, 0, 3))


def _from_tiles(f: Transform, products: Array, y: Array, tiles: tuple[Pair, Pair]) -> tuple[slice, slice]:
    """Put y = Aᵀ M A of these tiles, products (N·N, T, O), into the scores y (O, P, Q). Returns which P and Q."""
    (p0, p1), (q0, q1) = tiles
    p, q, filters = p1 - p0, q1 - q0, len(y)
    half = scratch("half", (p, f.m, f.n, q, filters), y.dtype)
    down = products.reshape(f.n, f.n, p, -1).transpose(2, 1, 0, 3)  # (P, N, N, Q·O), the sum is over the last N
    np.matmul(f.scores, down, out=half.reshape(p, f.m, f.n, -1).transpose(0, 2, 1, 3))
    scores = scratch("scores", (p * f.m, q * f.m, filters + PAD), y.dtype)
    across = scores.reshape(p, f.m, q, f.m, -1)[..., :filters]
    np.matmul(f.scores, half.transpose(0, 1, 3, 2, 4), out=across)
    at = slice(f.m * p0, f.m * p1), slice(f.m * q0, f.m * q1)
    part = y[:, *at]  # the last tiles may reach beyond
    np.copyto(part, scores[: part.shape[1], : part.shape[2], :filters].transpose(2, 0, 1))
    return at


def _to_filters(f: Transform, w: Array, scale: Array | None, out: Array) -> None:
    """U = G g Gᵀ of w (O, C, 3, 3) times scale (O,): out (N, N, C·O)."""
    filters, channels = w.shape[:2]
    taps = scratch("taps", (TAPS, TAPS, channels, filters), w.dtype)
    if w.strides[0] > w.strides[1]:  # in the order in which memory holds them first: far fewer cache lines are touched
        planes = scratch("planes", (TAPS, TAPS, filters, channels + PAD), w.dtype)[..., :channels]
        if scale is None:
            np.copyto(planes, w.transpose(2, 3, 0, 1))
        else:
            np.multiply(w.transpose(2, 3, 0, 1), scale[:, None], out=planes)
        np.copyto(taps, planes.transpose(0, 1, 3, 2))
    else:
        np.copyto(taps, w.transpose(2, 3, 1, 0))
        if scale is not None:
            taps *= scale
    _both_axes(f.filters, taps.reshape(TAPS, TAPS, -1), out)


def _grid(f: Transform, y_hw: Pair) -> Pair:
    """Rows and columns of tiles."""
    return -(-y_hw[0] // f.m), -(-y_hw[1] // f.m)


def _count(tiles: tuple[Pair, Pair]) -> int:
    (p0, p1), (q0, q1) = tiles
    return (p1 - p0) * (q1 - q0)


class Part(NamedTuple):
    """Some tiles of image n, and which of a task's tiles they are."""

    n: int
    tiles: tuple[Pair, Pair]
    at: slice


def _convolve(x: Array, w: Array, end: Epilogue, y: Array, padding: Pair, f: Transform) -> None:
    """y (N, O, P, Q) = x (N, C, H, W) with the filters w (O, C, 3, 3), one group, and the epilogue."""
    channels, filters = x.shape[1], len(w)
    points, grid = f.n * f.n, _grid(f, (y.shape[2], y.shape[3]))
    alone = _macs(channels, y) < SHORT
    rest = Epilogue(add=end.add, relu=end.relu)

    def gather(parts: list[Part], v: Array) -> None:
        """The transformed tiles v (N·N, T, C)."""
        for n, tiles, at in parts:
            _to_tiles(f.pixels, x[n], f.m, padding, tiles, v[:, at].reshape(f.n, f.n, -1))

    def products(v: Array, u: Array, parts: list[Part], of: slice) -> None:
        """The scores of some filters, u (N·N, C, O), on some of the tiles v (N·N, T, C)."""
        tiles = slice(parts[0].at.start, parts[-1].at.stop)
        m = scratch("products", (points, tiles.stop - tiles.start, u.shape[2]), x.dtype)
        np.matmul(v[:, tiles], u, out=m)
        if end.b is not None:
            m[f.n + 1] += end.b[of]  # the point (1, 1)
        for n, own, at in _from_zero(parts):
            place = (n, of, *_from_tiles(f, m[:, at], y[n, of], own))
            rest.apply(y[place], of, None if rest.add is None else rest.add[place])

    if points * channels * filters * x.itemsize <= FILTER_BYTES:  # every task reads all filters
        u = scratch("shared", (points, channels, filters), x.dtype)
        flat = u.reshape(f.n, f.n, -1)
        parallel(
            lambda part: _to_filters(f, w[:, part], end.scale, flat[..., part.start * filters : part.stop * filters]),
            runs(channels, -(-channels // LANES)),
            alone=channels * filters < SHORT_FILTERS,
        )

        def by_tiles(parts: list[Part]) -> None:
            v = scratch("tiles", (points, parts[-1].at.stop, channels), x.dtype)
            gather(parts, v)
            for of in runs(filters, PRODUCT // (channels * v.shape[1])):
                products(v, u[..., of], parts, of)

        parallel(by_tiles, _tasks(len(x), grid, max(channels, filters)), alone)
        return

    width = max(FILTER // channels, 1)
    for block in _cut(len(x), grid, SHARED_BYTES // (points * channels * x.itemsize)):
        v = scratch("shared", (points, block[-1].at.stop, channels), x.dtype)

        def by_filters(of: slice, block: list[Part] = block, v: Array = v) -> None:
            u = scratch("filters", (points, channels, of.stop - of.start), x.dtype)
            _to_filters(f, w[of], None if end.scale is None else end.scale[of], u.reshape(f.n, f.n, -1))
            for parts in _recut(block, PRODUCT // (channels * width)):
                products(v, u, parts, of)

        parallel(lambda parts, v=v: gather(parts, v), _shares(block, channels), alone)  # type: ignore[misc]
        parallel(by_filters, runs(filters, width), alone)


def _macs(channels: int, y: Array) -> int:
    """Multiplications of the definition."""
    return channels * TAPS * TAPS * y.size


def _cut(images: int, grid: Pair, limit: int) -> list[list[Part]]:
    """All tiles in lists of at most `limit` ≥ 1: rectangles of an image, and small images together."""
    size = grid[0] * grid[1]
    whole = [Part(n, ((0, grid[0]), (0, grid[1])), slice(n * size, (n + 1) * size)) for n in range(images)]
    return [_from_zero(parts) for parts in _recut(whole, max(limit, 1))]


def _recut(parts: list[Part], limit: int) -> list[list[Part]]:
    """The same tiles, each at the same place, in lists of at most `limit` ≥ 1."""
    lists: list[list[Part]] = []
    left = 0
    for n, ((p0, p1), (q0, q1)), at in parts:
        for rows, columns in rectangles((p1 - p0, q1 - q0), limit):  # in the order in which the tiles lie
            tiles = ((p0 + rows[0], p0 + rows[1]), (q0 + columns[0], q0 + columns[1]))
            start = at.start + rows[0] * (q1 - q0) + columns[0]
            if _count(tiles) > left:
                lists.append([])
                left = limit
            left -= _count(tiles)
            lists[-1].append(Part(n, tiles, slice(start, start + _count(tiles))))
    return lists


def _from_zero(parts: list[Part]) -> list[Part]:
    """The same tiles, with places counted from the first one's."""
    first = parts[0].at.start
    return [part._replace(at=slice(part.at.start - first, part.at.stop - first)) for part in parts]


def _tasks(images: int, grid: Pair, channels: int) -> list[list[Part]]:
    """Tiles for one task each: no more than fit the cache, and few enough to leave some for the other threads."""
    return _cut(images, grid, min(TILE // channels, -(-images * grid[0] // LANES) * grid[1]))


def _shares(block: list[Part], channels: int) -> list[list[Part]]:
    """The tiles of a block for the threads to transform."""
    return _recut(block, max(block[-1].at.stop // (2 * LANES), GATHER // channels, 1))


def _weight(x: Array, y: Array, w: Array, padding: Pair, f: Transform) -> None:
    """w (O, C, 3, 3) = Σ x·y over images and scores, one group."""
    channels, filters = x.shape[1], y.shape[1]
    points, grid = f.n * f.n, _grid(f, (y.shape[2], y.shape[3]))
    alone = _macs(channels, y) < SHORT
    spread = np.ascontiguousarray(f.scores.T)  # A (n, m)
    gather_taps = np.ascontiguousarray(f.filters.T)  # Gᵀ (3, n)

    def gather(parts: list[Part], v: Array, z: Array) -> None:
        """The transformed tiles v (N·N, T, C) of the image and z (N·N, T, O) of the scores."""
        for n, tiles, at in parts:
            _to_tiles(f.pixels, x[n], f.m, padding, tiles, v[:, at].reshape(f.n, f.n, -1))
            _to_tiles(spread, y[n], f.m, (0, 0), tiles, z[:, at].reshape(f.n, f.n, -1))

    def finish(u: Array, of: slice, add: bool) -> None:
        """Gᵀ U G of some filters, u (N·N, O, C)."""
        taps = scratch("taps", (TAPS, TAPS, u[0].size), x.dtype)
        _both_axes(gather_taps, u.reshape(f.n, f.n, -1), taps)
        taps = taps.reshape(TAPS, TAPS, -1, channels).transpose(2, 3, 0, 1)
        if add:
            w[of] += taps
        else:
            w[of] = taps

    if points * channels * filters * x.itemsize <= FILTER_BYTES:  # all filters at once, over some of the tiles
        tasks = _tasks(len(x), grid, max(channels, filters))
        lanes = [tasks[lane::LANES] for lane in range(min(LANES, len(tasks)))]
        sums = empty((len(lanes), points, filters, channels), x.dtype)

        def by_tiles(lane: int) -> None:
            product = scratch("products", sums.shape[1:], x.dtype)
            for k, parts in enumerate(lanes[lane]):
                v = scratch("tiles", (points, parts[-1].at.stop, channels), x.dtype)
                z = scratch("score tiles", (points, parts[-1].at.stop, filters), x.dtype)
                gather(parts, v, z)
                np.matmul(z.transpose(0, 2, 1), v, out=product if k else sums[lane])
                if k:
                    sums[lane] += product

        parallel(by_tiles, range(len(lanes)), alone)
        finish(np.sum(sums, axis=0), slice(0, filters), add=False)  # in a fixed order, whoever computed them
        return

    width = max(FILTER // channels, 1)
    started = False
    for block in _cut(len(x), grid, SHARED_BYTES // (points * (channels + filters) * x.itemsize)):
        v = scratch("shared", (points, block[-1].at.stop, channels), x.dtype)
        z = scratch("shared scores", (points, block[-1].at.stop, filters), x.dtype)

        def by_filters(of: slice, v: Array = v, z: Array = z, add: bool = started) -> None:
            u = scratch("filters", (points, of.stop - of.start, channels), x.dtype)
            product = scratch("products", u.shape, x.dtype)
            for k, at in enumerate(runs(v.shape[1], PRODUCT // (channels * width))):
                np.matmul(z[:, at, of].transpose(0, 2, 1), v[:, at], out=product if k else u)
                if k:
                    u += product
            finish(u, of, add)

        parallel(lambda parts, v=v, z=z: gather(parts, v, z), _shares(block, channels), alone)  # type: ignore[misc]
        parallel(by_filters, runs(filters, width), alone)
        started = True


def _supports(geom: ConvGeometry, **_: Any) -> bool:
    return geom.w_hw == (TAPS, TAPS) and geom.stride == geom.dilation == (1, 1) and max(geom.padding) < TAPS


LIMITS = "a 3×3 filter, stride 1, dilation 1 and padding up to 2"


def _groups(geom: ConvGeometry) -> list[tuple[slice, slice]]:
    """The image's channels and the filters of each group."""
    c, o = geom.c // geom.groups, geom.o // geom.groups
    return [(slice(g * c, (g + 1) * c), slice(g * o, (g + 1) * o)) for g in range(geom.groups)]


def _conv2d(m: int, x: Array, w: Array, end: Epilogue, geom: ConvGeometry) -> Array:
    y = empty(geom.y_shape, x.dtype)
    if y.size:
        for channels, filters in _groups(geom):
            _convolve(
                x[:, channels],
                w[filters],
                end.of(filters),
                y[:, filters],
                geom.padding,
                transform(m, x.dtype),
            )
    return y


def _conv_transpose2d(m: int, y: Array, w: Array, end: Epilogue, geom: ConvGeometry) -> Array:
    turned = geom.turned()
    assert turned is not None  # `supports` asks for it
    x = empty(geom.x_shape, y.dtype)
    if x.size:
        for channels, filters in _groups(geom):
            _convolve(
                y[:, filters],
                w[filters, :, ::-1, ::-1].swapaxes(0, 1),
                end.of(channels),
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


def _auto(dtype: np.dtype[Any], geom: ConvGeometry, **_: Any) -> bool:
    enough = min(geom.c, geom.o) // geom.groups >= 16 and geom.n * geom.y_hw[0] * geom.y_hw[1] >= 100
    return dtype == np.float32 and enough and geom.macs // geom.groups >= SHORT


def _register(m: int, auto: Callable[..., bool], best: str) -> None:
    """conv2d, conv_transpose2d and conv2d_weight by F(m, 3)."""
    functions: dict[str, Callable[..., Array]] = {
        "conv2d": lambda x, w, b=None, scale=None, add=None, *, geom, relu=False: _conv2d(
            m, x, w, Epilogue(b, scale, add, relu), geom
        ),
        "conv_transpose2d": lambda y, w, b=None, *, geom: _conv_transpose2d(m, y, w, Epilogue(b), geom),
        "conv2d_weight": lambda x, y, *, geom: _conv2d_weight(m, x, y, geom),
    }
    for op, function in functions.items():
        kernel(
            op, backend="numpy", algorithm=f"winograd_f{m}", supports=_supports, limits=LIMITS, auto=auto, best=best
        )(function)


_register(
    4, _auto, "float32, 100 or more scores, and for each group 16 or more channels in and out and 2²⁶ multiplications"
)
_register(2, lambda dtype, geom, **_: False, "nothing, as F(4,3) is faster")

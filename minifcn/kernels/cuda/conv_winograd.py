"""3×3 convolution of stride 1 on a GPU by Winograd's F(4,3): transforms of our own, and cuBLAS between them.

    M[ξ] (O, T) = U[ξ] (O, C) @ V[ξ] (C, T)      V = Bᵀ d B of every tile,  U = G g Gᵀ of every filter,  y = Aᵀ M A

with one matrix product for each of the 36 points ξ. The derivation is in kernels/conv_winograd.py; as there,
conv_transpose2d is a convolution with the filter turned round, and conv2d_weight is the transposed arithmetic
U[ξ] (O, C) = Z[ξ] (O, T) @ V[ξ]ᵀ with Z = A gy Aᵀ.

The products are in strict float32 whatever precision is set: the transforms enlarge the errors of rounding, and TF32's
are large already. auto takes them for large convolutions under "high" too, which lets factors be rounded but does not
demand it: with a quarter of the multiplications, strict ones are as fast as TF32 on average, and more exact.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from minifcn.array import Array, module_of
from minifcn.geometry import ConvGeometry, Pair
from minifcn.kernels.cuda.blas import Matrix, multiply
from minifcn.kernels.cuda.conv_gemm import LARGE, Cut, cuts
from minifcn.kernels.cuda.launch import MOST_BLOCKS, MOST_ROWS, Finish, contiguous, launch, new
from minifcn.kernels.registry import kernel

TILE, POINTS, THREADS = 4, 36, 128
TILES = np.dtype([(name, np.int32) for name in ("images", "first_row", "rows", "columns")])  # struct Tiles
WORKSPACE = 256 << 20  # bytes of transformed pixels and scores that are held at a time
CHANNELS = 32  # in and out, from which on the 36 products are large enough


def _supports(geom: ConvGeometry, **_: Any) -> bool:
    return geom.w_hw == (3, 3) and geom.stride == geom.dilation == (1, 1)


def _supports_transposed(geom: ConvGeometry) -> bool:
    return _supports(geom) and geom.turned() is not None


LIMITS = "3×3 filters, stride 1 and dilation 1"


def _auto(dtype: np.dtype[Any], geom: ConvGeometry, **_: Any) -> bool:
    channels = min(geom.c, geom.o) // geom.groups
    return dtype == np.float32 and channels >= CHANNELS and geom.macs >= LARGE


BEST = f"float32, {CHANNELS} or more channels in and out for each group, and {LARGE:.1e} or more multiplications"


def _grid(geom_hw: Pair) -> Pair:
    """Tile rows and columns over scores."""
    return -(-geom_hw[0] // TILE), -(-geom_hw[1] // TILE)


class _Tiles(NamedTuple):
    """Images and tile rows that are done together."""

    cut: Cut
    struct: Any  # the same as struct Tiles
    size: int  # tiles

    @property
    def images(self) -> slice:
        return slice(self.cut.first_image, self.cut.first_image + self.cut.images)


@functools.lru_cache(maxsize=512)
def _cuts(geom: ConvGeometry, itemsize: int, workspace: int) -> list[_Tiles]:
    """All of them, the largest first."""
    rows, columns = _grid(geom.y_hw)
    found = []
    for cut in cuts(geom.n, rows, POINTS * (geom.c + geom.o) * columns * itemsize, workspace):
        struct = np.array([(cut.images, cut.first_row, cut.rows, columns)], TILES)
        found.append(_Tiles(cut, struct, cut.images * cut.rows * columns))
    return found


def _launch(name: str, like: Array, tiles: int, channels: int, args: tuple[Any, ...]) -> None:
    numbers = tuple(np.int32(a) if isinstance(a, int) else a for a in args)
    grid = (min(-(-tiles // THREADS), MOST_BLOCKS), min(channels, MOST_ROWS))
    launch("winograd", name, like, grid, numbers, THREADS)


def _filters(w: Array, geom: ConvGeometry, turned: bool) -> Array:
    """U (36, O, C/groups), or turned (36, C, O/groups)."""
    o, c = w.shape[:2]
    u = new(w, (POINTS, o * c))
    _launch("filters", w, o * c, 1, (contiguous(w), u, o, c, geom.groups, int(turned)))
    return u


def _pixels(v: Array, x: Array, geom: ConvGeometry, tiles: _Tiles) -> None:
    """V (36, C, T)."""
    _launch("pixels", x, tiles.size, geom.c, (x[tiles.images], v, tiles.struct, geom.c, *geom.x_hw, *geom.padding))


def _conv2d(
    x: Array, u: Array, b: Array | None, scale: Array | None, add: Array | None, geom: ConvGeometry, relu: bool
) -> Array:
    """y from x and the transformed filters."""
    x, y = contiguous(x), new(x, geom.y_shape)
    if not y.size:
        return y
    add = None if add is None else contiguous(add, x.dtype)
    filters, channels = geom.o // geom.groups, geom.c // geom.groups
    every = _cuts(geom, x.itemsize, WORKSPACE)
    v, m = (new(x, (POINTS * k * every[0].size,)) for k in (geom.c, geom.o))
    for tiles in every:
        count = tiles.size
        _pixels(v, x, geom, tiles)
        for g in range(geom.groups):
            multiply(
                Matrix(u, g * filters * channels, channels, geom.o * channels),
                Matrix(v, g * channels * count, count, geom.c * count),
                Matrix(m, g * filters * count, count, geom.o * count),
                (filters, count, channels),
                POINTS,
                strict=True,
            )
        after = Finish.of(y, b, scale, None if add is None else add[tiles.images], relu)
        _launch("scores", x, count, geom.o, (m, y[tiles.images], after.struct, tiles.struct, geom.o, *geom.y_hw))
    return y


@kernel("conv2d", backend="cupy", algorithm="winograd_f4", supports=_supports, limits=LIMITS, auto=_auto, best=BEST)
def conv2d_winograd_f4(
    x: Array,
    w: Array,
    b: Array | None = None,
    scale: Array | None = None,
    add: Array | None = None,
    *,
    geom: ConvGeometry,
    relu: bool = False,
) -> Array:
    """y (N,O,P,Q) from x (N,C,H,W), and the epilogue."""
    return _conv2d(x, _filters(w, geom, turned=False), b, scale, add, geom, relu)


@kernel(
    "conv_transpose2d",
    backend="cupy",
    algorithm="winograd_f4",
    supports=_supports_transposed,
    limits=f"{LIMITS}, and padding of 2 at most",
    auto=_auto,
    best=BEST,
)
def conv_transpose2d_winograd_f4(y: Array, w: Array, b: Array | None = None, *, geom: ConvGeometry) -> Array:
    """x (N,C,H,W) from y (N,O,P,Q): a convolution with the filters turned round."""
    turned = geom.turned()
    assert turned is not None  # `supports` asks for it
    return _conv2d(y, _filters(w, geom, turned=True), b, None, None, turned, relu=False)


@kernel(
    "conv2d_weight", backend="cupy", algorithm="winograd_f4", supports=_supports, limits=LIMITS, auto=_auto, best=BEST
)
def conv2d_weight_winograd_f4(x: Array, y: Array, *, geom: ConvGeometry) -> Array:
    """w (O,C/groups,3,3) = Gᵀ U G with U[ξ] = Z[ξ] @ V[ξ]ᵀ, added up over images and tiles."""
    x, y = contiguous(x), contiguous(y)
    if not y.size:
        zeros: Array = module_of(x).zeros(geom.w_shape, x.dtype)
        return zeros
    filters, channels = geom.o // geom.groups, geom.c // geom.groups
    u, more = new(x, (POINTS, geom.o, channels)), False
    every = _cuts(geom, x.itemsize, WORKSPACE)
    v, z = (new(x, (POINTS * k * every[0].size,)) for k in (geom.c, geom.o))
    for tiles in every:
        count = tiles.size
        _pixels(v, x, geom, tiles)
        _launch("scores_adjoint", x, count, geom.o, (y[tiles.images], z, tiles.struct, geom.o, *geom.y_hw))
        for g in range(geom.groups):
            multiply(
                Matrix(z, g * filters * count, count, geom.o * count),
                Matrix(v, g * channels * count, count, geom.c * count, turned=True),
                Matrix(u, g * filters * channels, channels, geom.o * channels),
                (filters, channels, count),
                POINTS,
                more,
                strict=True,
            )
        more = True
    w = new(x, geom.w_shape)
    _launch("filters_adjoint", x, geom.o * channels, 1, (u, w, geom.o, channels))
    return w

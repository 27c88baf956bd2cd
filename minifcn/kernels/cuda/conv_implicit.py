"""Convolution on a GPU as a product whose second factor, the windows as columns, is never stored (implicit.cuh).

Two algorithms launch the same products: "implicit" in strict float32 or float64, and "tensor_cores" in TF32, for
set_float32_matmul_precision("high"). Transposed convolutions of a stride go by their phases, those of stride 1 as
convolutions with the filter turned round.

A convolution is one launch here, or two, and nothing but its result is written: auto takes that for small convolutions,
and for the first layer's weight gradients; large ones are faster by cuBLAS.

A bilinear upsampling is diagonal in its channels: such filters are recognised on the GPU, and gathered per channel.

Where a result has too few blocks to fill a GPU, the sums are cut into shares, which a second kernel adds up in order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minifcn.array import Array, module_of
from minifcn.geometry import ConvGeometry
from minifcn.kernels.cuda.conv_depthwise import transpose_into
from minifcn.kernels.cuda.conv_gemm import FEW_CHANNELS, LARGE, SMALL
from minifcn.kernels.cuda.launch import (
    LARGEST_PLANE,
    MOST_ROWS,
    Finish,
    contiguous,
    launch,
    new,
    over,
    pointer,
    windows,
)
from minifcn.kernels.cuda.load import SINGLE, SINGLE_ONLY
from minifcn.kernels.cuda.pointwise import add_parts
from minifcn.kernels.precision import tensor_cores
from minifcn.kernels.registry import kernel

# structs of implicit.cuh
TAP = np.dtype([(name, np.int32) for name in ("place", "down", "right", "unused")])
PROBLEM = np.dtype(
    [(name, np.uintp) for name in ("a", "x", "taps")] + [(name, np.int32) for name in ("M", "K", "pitch", "places")]
)
PHASES = np.dtype([(name, np.int32) for name in ("C", "H", "W", "sh", "sw", "first_h", "first_v")])

DEPTH = 16  # terms of a sum that a block reads at a time
ENOUGH_THREADS = 132 * 512  # 512 for each of the 132 processors of an H100
LEAST_SHARE = 256  # terms of a sum below which cutting it gains nothing


class Blocks(NamedTuple):
    """A kernel's name ending, and the rows and columns and threads of its blocks."""

    suffix: str
    rows: int
    columns: int
    threads: int


SCALAR = (Blocks("", 64, 64, 256),)
TENSOR = (Blocks("_large", 128, 128, 256), Blocks("_flat", 64, 128, 256), Blocks("_small", 64, 64, 128))
PHASE_THREADS = {"conv_implicit": 256, "tensor_cores": 128}


def _grid(options: tuple[Blocks, ...], rows: int, columns: int, terms: int) -> tuple[Blocks, tuple[int, int, int]]:
    """(blocks, grid): the largest blocks of which there are enough and that are not half empty, or the smallest, with
    their sums cut into shares."""
    for blocks in options:
        across, down = -(-columns // blocks.columns), -(-rows // blocks.rows)
        enough = ENOUGH_THREADS // blocks.threads
        if across * down >= enough and 2 * rows > blocks.rows:
            return blocks, (across, down, 1)
    shares = max(min(enough // (across * down), terms // LEAST_SHARE), 1)
    slabs = -(-terms // DEPTH)
    each = -(-slabs // shares)
    return blocks, (across, down, max(-(-terms // (each * DEPTH)), 1))


def _table(channels: int, channel_step: int, taps: list[tuple[int, int, int]]) -> Array:
    """TAPs (channels · taps) from those of one channel, (place, down, right)."""
    table = np.zeros((channels, len(taps)), TAP)
    for name, column in zip(("place", "down", "right"), zip(*taps, strict=True), strict=True):
        table[name] = column
    table["place"] += np.arange(channels, dtype=np.int32)[:, None] * channel_step
    return table.reshape(-1)


@functools.lru_cache(maxsize=512)
def _taps_on_device(
    cupy: Any, device: int, channels: int, hw: tuple[int, int], w_hw: tuple[int, int], dilation: tuple[int, int]
) -> Any:
    """struct Tap for each c·I·J + i·J + j, on the device."""
    height, width = hw
    steps = [(i * dilation[0], j * dilation[1]) for i in range(w_hw[0]) for j in range(w_hw[1])]
    table = _table(channels, height * width, [(down * width + right, down, right) for down, right in steps])
    return cupy.asarray(table.view(np.int32))


def _taps(like: Array, channels: int, hw: tuple[int, int], w_hw: tuple[int, int], dilation: tuple[int, int]) -> Any:
    return _taps_on_device(module_of(like), like.device.id, channels, hw, w_hw, dilation)  # type: ignore[attr-defined]


def _problem(a: Array, x: Array, taps: Any, rows: int, terms: int, pitch: int, places: int) -> Array:
    return np.array([(pointer(a), pointer(x), pointer(taps), rows, terms, pitch, places)], PROBLEM)


def _pitch(terms: int, like: Array) -> int:
    """The elements from row to row where rows of so many terms begin at multiples of 16 bytes."""
    pack = 16 // like.itemsize
    return -(-terms // pack) * pack


def _rows_of_packs(w: Array, terms: int) -> tuple[Array, int]:
    """Filters (O, terms) whose rows begin at multiples of 16 bytes, and the elements from row to row: w itself, or a
    copy with zeros at the ends."""
    pitch = _pitch(terms, w)
    if pitch == terms and pointer(w) % 16 == 0:
        return w, terms
    padded = module_of(w).zeros((w.shape[0], pitch), w.dtype)
    padded[:, :terms] = w.reshape(w.shape[0], terms)
    return padded, pitch


def _fits(geom: ConvGeometry, **_: Any) -> bool:
    """One group, and places and terms that can be counted in 32 bits, with room for a block beyond the last."""
    limit = LARGEST_PLANE - 1024
    sizes = (geom.n * math.prod(geom.y_hw), geom.c * math.prod(geom.x_hw), geom.o * math.prod(geom.y_hw))
    return geom.groups == 1 and max(*sizes, math.prod(geom.w_shape)) < limit and geom.o <= MOST_ROWS * 64


LIMITS = "one group, and images and scores that can be counted in 32 bits"


def _turned(geom: ConvGeometry) -> bool:
    return geom.turned() is not None and _fits(geom)


def _phased(geom: ConvGeometry) -> bool:
    rows = geom.c * math.prod(geom.stride)
    return geom.dilation == (1, 1) and geom.stride != (1, 1) and _fits(geom) and rows <= MOST_ROWS * 64


def _transposable(geom: ConvGeometry) -> bool:
    return _phased(geom) or _turned(geom)


TRANSPOSABLE = f"{LIMITS}; dilation 1 with a stride, or stride 1 with padding up to dilation·(kernel − 1)"


def _conv2d(
    family: str,
    options: tuple[Blocks, ...],
    x: Array,
    w: Array,
    b: Array | None,
    scale: Array | None,
    add: Array | None,
    geom: ConvGeometry,
    relu: bool,
) -> Array:
    x, w, y = contiguous(x), contiguous(w), new(x, geom.y_shape)
    if not y.size:
        return y
    after = Finish.of(y, b, scale, add, relu)
    terms, places = math.prod(geom.w_shape[1:]), geom.n * math.prod(geom.y_hw)
    w, pitch = _rows_of_packs(w, terms)
    problem = _problem(w, x, _taps(x, geom.c, geom.x_hw, geom.w_hw, geom.dilation), geom.o, terms, pitch, places)
    blocks, grid = _grid(options, geom.o, places, terms)
    parts = new(x, (grid[2], geom.o, places)) if grid[2] > 1 else None
    launch(family, f"conv2d{blocks.suffix}", x, grid, (problem, windows(geom), after.struct, y, parts), blocks.threads)
    if parts is not None:
        numbers = (np.int32(geom.o), np.int32(places), np.int32(math.prod(geom.y_hw)), np.int32(grid[2]))
        launch("conv_implicit", "finish_parts", x, over(y.size), (parts, after.struct, y, *numbers))
    return y


def _conv2d_weight(family: str, options: tuple[Blocks, ...], x: Array, y: Array, geom: ConvGeometry) -> Array:
    x, y = contiguous(x), contiguous(y)
    if not y.size:
        zeros: Array = module_of(x).zeros(geom.w_shape, x.dtype)
        return zeros
    taps, places = math.prod(geom.w_shape[1:]), geom.n * math.prod(geom.y_hw)
    table = _taps(x, geom.c, geom.x_hw, geom.w_hw, geom.dilation)
    problem = _problem(y, x, table, geom.o, places, 0, places)
    blocks, grid = _grid(options, geom.o, taps, places)
    parts = new(x, (grid[2], *geom.w_shape))
    given = (problem, windows(geom), np.int32(taps), parts)
    launch(family, f"conv2d_weight{blocks.suffix}", x, grid, given, blocks.threads)
    return add_parts(parts)


def _conv_transpose2d(
    family: str, options: tuple[Blocks, ...], y: Array, w: Array, b: Array | None, geom: ConvGeometry
) -> Array:
    if geom.stride == (1, 1):
        turned = geom.turned()
        assert turned is not None  # `supports` asks for it
        return _conv2d(family, options, y, w[:, :, ::-1, ::-1].swapaxes(0, 1), b, None, None, turned, relu=False)
    y, w, x = contiguous(y), contiguous(w), new(y, geom.x_shape)
    if not x.size:
        return x
    (sh, sw), padding = geom.stride, geom.padding
    taps = tuple(-(-k // s) for k, s in zip(geom.w_hw, geom.stride, strict=True))  # T, R
    first = tuple(p // s for p, s in zip(padding, geom.stride, strict=True))  # the first u and v within the image
    last = tuple((n - 1 + p) // s for n, p, s in zip(geom.x_hw, padding, geom.stride, strict=True))
    grid_hw = tuple(b - a + 1 for a, b in zip(first, last, strict=True))  # U, V
    terms, rows, places = geom.o * math.prod(taps), geom.c * sh * sw, geom.n * math.prod(grid_hw)
    pitch = _pitch(terms, y)
    filters = new(y, (rows, pitch))
    dense = module_of(y).zeros(1, np.int32) if geom.c == geom.o else None  # until that is found
    numbers = (geom.o, geom.c, *geom.w_hw, sh, sw, *taps, pitch)
    launch("conv_implicit", "phase_filters", y, over(filters.size), (w, filters, dense, *map(np.int32, numbers)))
    # phase (u, v) sees the scores through windows of T × R, the last of which is at p = u
    seen = ConvGeometry(
        n=geom.n,
        c=geom.o,
        o=rows,
        x_hw=geom.y_hw,
        w_hw=(taps[0], taps[1]),
        y_hw=(grid_hw[0], grid_hw[1]),
        stride=(1, 1),
        padding=(taps[0] - 1 - first[0], taps[1] - 1 - first[1]),
        dilation=(1, 1),
        groups=1,
    )
    table = _taps(y, geom.o, geom.y_hw, seen.w_hw, (1, 1))
    problem = _problem(filters, y, table, rows, terms, pitch, places)
    phases = (geom.c, *geom.x_hw, sh, sw, first[0] * sh - padding[0], first[1] * sw - padding[1])
    grid = (-(-places // 64), -(-rows // 64))
    bias = None if b is None else contiguous(b)
    given = (problem, windows(seen), np.array([phases], PHASES), bias, dense, x)
    launch(family, "conv_transpose2d", y, grid, given, PHASE_THREADS[family])
    if dense is not None:
        transpose_into(x, y, w, bias, geom, (geom.c + 1) * math.prod(geom.w_hw), dense)
    return x


def _check_dtype(op: str, family: str, array: Array) -> None:
    if family in SINGLE_ONLY and array.dtype != SINGLE:
        raise TypeError(f"{op}: algorithm 'tensor_cores' for {array.dtype}; float32 or another algorithm is needed")


def _register(
    algorithm: str, family: str, options: tuple[Blocks, ...], auto: dict[str, Callable[..., bool]], best: dict[str, str]
) -> None:
    """The three kernels of a family."""

    def conv2d(
        x: Array,
        w: Array,
        b: Array | None = None,
        scale: Array | None = None,
        add: Array | None = None,
        *,
        geom: ConvGeometry,
        relu: bool = False,
    ) -> Array:
        _check_dtype("conv2d", family, x)
        return _conv2d(family, options, x, w, b, scale, add, geom, relu)

    def conv2d_weight(x: Array, y: Array, *, geom: ConvGeometry) -> Array:
        _check_dtype("conv2d_weight", family, x)
        return _conv2d_weight(family, options, x, y, geom)

    def conv_transpose2d(y: Array, w: Array, b: Array | None = None, *, geom: ConvGeometry) -> Array:
        _check_dtype("conv_transpose2d", family, y)
        return _conv_transpose2d(family, options, y, w, b, geom)

    limits: dict[str, tuple[Callable[..., bool], str]] = {
        "conv2d": (_fits, LIMITS),
        "conv2d_weight": (_fits, LIMITS),
        "conv_transpose2d": (_transposable, TRANSPOSABLE),
    }
    for function in (conv2d, conv2d_weight, conv_transpose2d):
        supports, words = limits[function.__name__]
        kernel(
            function.__name__,
            backend="cupy",
            algorithm=algorithm,
            supports=supports,
            limits=words,
            auto=auto[function.__name__],
            best=best[function.__name__],
        )(function)


def _needs_columns(geom: ConvGeometry) -> bool:
    """Whether gemm would have to copy windows: for all but 1×1 filters of stride 1."""
    return geom.w_hw != (1, 1) or geom.stride != (1, 1)


def _enlarging(geom: ConvGeometry) -> bool:
    """Whether the phases of a transposed convolution have all the same taps, as those of an upsampling do. Others are
    filled up with zeros: of 3×3 filters and a stride of 2, 16 taps are multiplied for 9."""
    return geom.stride != (1, 1) and all(k % s == 0 for k, s in zip(geom.w_hw, geom.stride, strict=True))


def _high(dtype: np.dtype[Any], geom: ConvGeometry, **_: Any) -> bool:
    return tensor_cores(dtype) and _needs_columns(geom) and geom.macs < LARGE and geom.c > FEW_CHANNELS


def _high_weight(dtype: np.dtype[Any], geom: ConvGeometry) -> bool:
    return tensor_cores(dtype) and _needs_columns(geom) and (geom.macs < LARGE or geom.c <= FEW_CHANNELS)


def _high_transposed(dtype: np.dtype[Any], geom: ConvGeometry) -> bool:
    return tensor_cores(dtype) and _enlarging(geom)


def _strict(dtype: np.dtype[Any], geom: ConvGeometry, **_: Any) -> bool:
    return _is_strict(dtype) and _needs_columns(geom) and geom.macs < SMALL


def _strict_weight(dtype: np.dtype[Any], geom: ConvGeometry) -> bool:
    return _is_strict(dtype) and _needs_columns(geom) and (geom.macs < SMALL or geom.c <= FEW_CHANNELS)


def _strict_transposed(dtype: np.dtype[Any], geom: ConvGeometry) -> bool:
    if dtype != SINGLE:
        return geom.stride != (1, 1)
    return _is_strict(dtype) and _enlarging(geom)


def _is_strict(dtype: np.dtype[Any]) -> bool:
    return dtype == SINGLE and not tensor_cores(dtype)


ENLARGING = "strides that divide the filter"
HIGH = 'float32 under set_float32_matmul_precision("high"), but for 1×1 filters of stride 1,'

_register(
    "tensor_cores",
    "tensor_cores",
    TENSOR,
    {"conv2d": _high, "conv2d_weight": _high_weight, "conv_transpose2d": _high_transposed},
    {
        "conv2d": f"{HIGH} below {LARGE:.1e} multiplications with more than {FEW_CHANNELS} channels in",
        "conv2d_weight": f"{HIGH} below {LARGE:.1e} multiplications or with up to {FEW_CHANNELS} channels in",
        "conv_transpose2d": f'float32 under set_float32_matmul_precision("high") and {ENLARGING}',
    },
)
_register(
    "implicit",
    "conv_implicit",
    SCALAR,
    {"conv2d": _strict, "conv2d_weight": _strict_weight, "conv_transpose2d": _strict_transposed},
    {
        "conv2d": f"strict float32 below {SMALL:.1e} multiplications, but for 1×1 filters of stride 1",
        "conv2d_weight": f"strict float32 below {SMALL:.1e} multiplications or with up to {FEW_CHANNELS} channels in, "
        "but for 1×1 filters of stride 1",
        "conv_transpose2d": f"strict float32 and {ENLARGING}; float64 and any stride",
    },
)

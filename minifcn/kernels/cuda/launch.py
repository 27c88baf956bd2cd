"""Launching a kernel: grids, arguments, results."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from minifcn.array import Array, module_of
from minifcn.geometry import ConvGeometry, PoolGeometry
from minifcn.kernels.cuda.load import function

THREADS = 256  # of a block, unless a kernel says otherwise
MOST_BLOCKS = 2048  # of a kernel whose threads walk on in steps of the grid: some times what a large GPU runs at once
MOST_ROWS = 65535  # of a grid's second and third axis, a limit of CUDA
NULL = np.uintp(0)

# structs of common.cuh
FINISH = np.dtype([("scale", np.uintp), ("b", np.uintp), ("add", np.uintp), ("relu", np.int32)], align=True)
WINDOWS = np.dtype([(name, np.int32) for name in ("N", "C", *"HWIJPQ", "sh", "sw", "ph", "pw", "dh", "dw")])
LARGEST_PLANE = 2**31 - 2**20  # elements: within a plane the kernels count in 32 bits, some steps beyond its end


def launch(
    family: str, name: str, like: Array, grid: tuple[int, ...], args: tuple[Any, ...], threads: int = THREADS
) -> None:
    """Run a kernel, of the unit for the dtype of `like`, on its device.

    In `args` None stands for a null pointer, and numbers are NumPy's, of the width that the kernel takes: Python's
    would be passed in 8 bytes, unnoticed.
    """
    function(like, family, name)(grid, (threads,), tuple(NULL if a is None else a for a in args))


def contiguous(array: Array, dtype: Any = None) -> Array:
    """The array itself where it lies as the kernels read it (and has the dtype, if one is given), else a copy: they
    know nothing of strides."""
    if array.flags.c_contiguous and dtype in (None, array.dtype):
        return array
    return module_of(array).ascontiguousarray(array, dtype)  # type: ignore[no-any-return]


def pointer(array: Array | None) -> int:
    """Where an array lies on the device, as a struct has it; whoever makes the struct keeps the array."""
    return 0 if array is None else int(array.data.ptr)  # type: ignore[attr-defined]


class Finish(NamedTuple):
    """What follows a convolution, as struct Finish, with the arrays that it points to."""

    struct: Any
    arrays: tuple[Array | None, ...]

    @classmethod
    def of(cls, y: Array, b: Array | None, scale: Array | None, add: Array | None, relu: bool) -> Finish:
        """max(y·scale + b + add, 0) of scores y (N,O,P,Q): b and scale (O,), add of y's shape, or None."""
        arrays = tuple(None if a is None else contiguous(a, y.dtype) for a in (scale, b, add))
        return cls(np.array([(*map(pointer, arrays), relu)], FINISH), arrays)


def new(like: Array, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """An array whose values are still to be written, beside another and of its dtype."""
    array: Array = module_of(like).empty(shape, like.dtype if dtype is None else dtype)
    return array


def over(count: int) -> tuple[int]:
    """The grid of a kernel whose threads walk over `count` elements."""
    return (min(-(-count // THREADS), MOST_BLOCKS),)


def over_packs(array: Array) -> tuple[int]:
    """The grid of a kernel whose threads take 16 bytes of an array at a time."""
    return over(-(-array.nbytes // 16))


def over_planes_of_packs(array: Array) -> tuple[int, int]:
    """The grid of a kernel that goes over the planes of an array (N,C,H,W), 16 bytes at a time where they divide."""
    n, c, h, w = array.shape
    pack = 16 // array.itemsize
    return over_planes(n * c, h * w // pack if h * w % pack == 0 else h * w)


def over_planes(planes: int, places: int) -> tuple[int, int]:
    """The grid of a kernel with threads for the places within a plane, and rows of blocks for the planes."""
    if places > LARGEST_PLANE:
        raise ValueError(f"a plane has {places} elements; the GPU's kernels take up to {LARGEST_PLANE}")
    return min(-(-places // THREADS), MOST_BLOCKS), min(planes, MOST_ROWS)


@functools.lru_cache(maxsize=1024)
def windows(geom: ConvGeometry | PoolGeometry) -> np.ndarray[Any, Any]:
    """struct Windows of a geometry, as an argument that is passed by value."""
    (h, v), (i, j), (p, q) = geom.x_hw, geom.w_hw, geom.y_hw
    values = (geom.n, geom.c, h, v, i, j, p, q, *geom.stride, *geom.padding, *geom.dilation)
    if max(values) > LARGEST_PLANE:
        raise ValueError(f"a size of {geom} is above {LARGEST_PLANE}; the GPU's kernels take no larger ones")
    return np.array([values], WINDOWS)


def size(*shape: int) -> np.int64:
    """A number of elements, as the kernels take it."""
    return np.int64(math.prod(shape))

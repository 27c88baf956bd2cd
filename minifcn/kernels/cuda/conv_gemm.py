"""The three convolution kernels on a GPU as matrix products: im2col + cuBLAS.

    conv2d            y (O, P·Q)   = w (O, C·I·J) @ cols
    conv2d_weight     w (O, C·I·J) = y (O, P·Q) @ colsᵀ
    conv_transpose2d  cols         = wᵀ @ y (O, P·Q), then fold() adds the columns back into the image

All columns at once would be I·J times the image, so they are made for some images, or for some score rows of one, at a
time. 1×1 filters of stride 1 see the image as it is: it is its own columns.

auto takes these for whatever no other algorithm takes: under set_float32_matmul_precision("high"), cuBLAS multiplies in
TF32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from minifcn.array import Array, module_of
from minifcn.geometry import ConvGeometry
from minifcn.kernels.cuda.blas import Matrix, multiply
from minifcn.kernels.cuda.launch import contiguous, new
from minifcn.kernels.cuda.pointwise import add_parts, finish
from minifcn.kernels.cuda.windows import fold_into, unfold_into
from minifcn.kernels.registry import kernel

WORKSPACE = 256 << 20  # bytes of columns that are held at a time, unless a single score row needs more
SUMS = 64 << 20  # bytes that the sums of a weight gradient may take, one for each image

# What auto takes in float32, here and in conv_implicit.py and conv_winograd.py, was chosen by hand, by times measured
# once on one H200 (benchmarks/results/algorithms_cuda_chosen.json: 43 geometries, 3 operations, both precisions). The
# chosen time over the fastest, as geometric mean and at most: 1.37 and 10.9 before, 1.05 and 1.8 with these, on the
# times that they were set by. What takes less than 0.2 ms is bound by launching, so the limits are round numbers, and
# other GPUs may want others.
LARGE = 2_500_000_000  # multiplications from which on fewer of them, or cuBLAS, win over fewer launches
SMALL = 1_000_000_000  # multiplications below which one strict launch of our own wins over im2col and cuBLAS
FEW_CHANNELS = 4  # into the first layer: columns so short that cuBLAS is slow at weight gradients, but not at scores


class Cut(NamedTuple):
    """Rows first_row … first_row + rows − 1 of `images` images from first_image on."""

    first_image: int
    images: int
    first_row: int
    rows: int


def cuts(images: int, rows: int, bytes_per_row: int, workspace: int) -> Iterator[Cut]:
    """Whole images, as many as the workspace has room for at a time, or as many rows of one."""
    fitting = max(workspace // bytes_per_row, 1)
    if fitting >= rows:
        together = fitting // rows
        for n in range(0, images, together):
            yield Cut(n, min(together, images - n), 0, rows)
    else:
        for n in range(images):
            for p in range(0, rows, fitting):
                yield Cut(n, 1, p, min(fitting, rows - p))


class _Products(NamedTuple):
    """Matrix products of equal shape: those of some images, or of one image's groups. `image` counts within the cut."""

    geom: ConvGeometry
    cut: Cut
    image: int
    batch: int
    by_group: bool

    @property
    def width(self) -> int:
        """Columns, which are scores."""
        return self.cut.rows * self.geom.y_hw[1]

    @property
    def height(self) -> int:
        """Rows of the columns: C/groups·I·J."""
        return math.prod(self.geom.w_shape[1:])

    @property
    def filters(self) -> int:
        return self.geom.o // self.geom.groups

    def w(self, array: Array) -> Matrix:
        """(O/groups, C/groups·I·J)"""
        return Matrix(array, 0, self.height, self.filters * self.height if self.by_group else 0)

    def y(self, array: Array) -> Matrix:
        """(O/groups, scores), within all of y"""
        (p, q), o = self.geom.y_hw, self.geom.o
        start = (self.cut.first_image + self.image) * o * p * q + self.cut.first_row * q
        return Matrix(array, start, p * q, (self.filters if self.by_group else o) * p * q)

    def columns(self, array: Array) -> Matrix:
        """(C/groups·I·J, scores), within those of the cut"""
        of_image = self.geom.groups * self.height * self.width
        return Matrix(array, self.image * of_image, self.width, self.height * self.width if self.by_group else of_image)


def _together(geom: ConvGeometry, cut: Cut) -> Iterator[_Products]:
    """The products of a cut, where each has a result of its own."""
    if geom.groups == 1:
        yield _Products(geom, cut, 0, cut.images, by_group=False)
    else:
        yield from _by_image(geom, cut)


def _by_image(geom: ConvGeometry, cut: Cut) -> Iterator[_Products]:
    """The products of a cut, where those of several images are added up."""
    for n in range(cut.images):
        yield _Products(geom, cut, n, geom.groups, by_group=True)


def _cuts(geom: ConvGeometry, itemsize: int) -> Iterator[Cut]:
    return cuts(geom.n, geom.y_hw[0], geom.groups * math.prod(geom.w_shape[1:]) * geom.y_hw[1] * itemsize, WORKSPACE)


def _buffer(like: Array, geom: ConvGeometry) -> Array:
    """Columns for the largest cut, which comes first."""
    cut = next(_cuts(geom, like.itemsize))
    return new(like, (cut.images, geom.c * math.prod(geom.w_hw), cut.rows * geom.y_hw[1]))


def _columns(x: Array, geom: ConvGeometry) -> Iterator[tuple[Cut, Array]]:
    """Each cut with its columns."""
    if _direct(geom):
        yield Cut(0, geom.n, 0, geom.y_hw[0]), x
        return
    cols = _buffer(x, geom)
    for cut in _cuts(geom, x.itemsize):
        images = slice(cut.first_image, cut.first_image + cut.images)
        unfold_into(cols, x[images], geom, (cut.first_row, cut.rows))
        yield cut, cols


def _direct(geom: ConvGeometry) -> bool:
    """Whether the image is its own columns."""
    return geom.w_hw == geom.stride == (1, 1) and geom.padding == (0, 0) and geom.x_hw == geom.y_hw


@kernel("conv2d", backend="cupy", algorithm="gemm")
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
    x, w, y = contiguous(x), contiguous(w), new(x, geom.y_shape)
    if y.size:
        for cut, cols in _columns(x, geom):
            for part in _together(geom, cut):
                shape = (part.filters, part.width, part.height)
                multiply(part.w(w), part.columns(cols), part.y(y), shape, part.batch)
        finish(y, b, scale, add, relu)
    return y


@kernel("conv2d_weight", backend="cupy", algorithm="gemm")
def conv2d_weight_gemm(x: Array, y: Array, *, geom: ConvGeometry) -> Array:
    """w (O,C/groups,I,J) = y (O, P·Q) @ columnsᵀ, added up over images in order."""
    x, y = contiguous(x), contiguous(y)
    if not y.size:
        zeros: Array = module_of(x).zeros(geom.w_shape, x.dtype)
        return zeros
    # a sum for each image of a cut, where those are small, so that one call makes them; else one for all images
    images = geom.n if _direct(geom) else next(_cuts(geom, x.itemsize)).images
    apart = geom.groups == 1 and images * math.prod(geom.w_shape) * x.itemsize <= SUMS
    sums, more = new(x, (images if apart else 1, *geom.w_shape)), False
    for cut, cols in _columns(x, geom):
        for part in (_together if apart else _by_image)(geom, cut):
            columns, w = part.columns(cols)._replace(turned=True), part.w(sums)
            if apart:
                w = w._replace(step=math.prod(geom.w_shape))
            multiply(part.y(y), columns, w, (part.filters, part.height, part.width), part.batch, more)
            more = more or not apart
        more = True
    return add_parts(sums)


@kernel("conv_transpose2d", backend="cupy", algorithm="gemm")
def conv_transpose2d_gemm(y: Array, w: Array, b: Array | None = None, *, geom: ConvGeometry) -> Array:
    """x (N,C,H,W) from y (N,O,P,Q) and b (C,): columns = wᵀ @ y, folded into the image."""
    y, w, x = contiguous(y), contiguous(w), new(y, geom.x_shape)
    if not x.size:
        return x
    direct = _direct(geom)
    cols = x if direct else _buffer(y, geom)
    for cut in [Cut(0, geom.n, 0, geom.y_hw[0])] if direct else _cuts(geom, y.itemsize):
        for part in _together(geom, cut):
            filters = part.w(w)._replace(turned=True)
            multiply(filters, part.y(y), part.columns(cols), (part.height, part.width, part.filters), part.batch)
        if not direct:
            image = x[cut.first_image : cut.first_image + cut.images]
            fold_into(image, cols, b, geom, (cut.first_row, cut.rows), more=cut.first_row > 0)
    if direct:
        finish(x, b)
    return x

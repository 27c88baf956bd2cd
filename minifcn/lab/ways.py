"""Four ways to compute one transposed convolution, each from its own idea; they agree to rounding, or one is wrong.

    scatter             every score stamps its multiple of the filter onto the image, and stamps add up
    by_matrix           the convolution is a matrix C; its transpose Cᵀ acts on the scores
    by_zero_insertion   zeros between and around the scores, then an ordinary convolution with the turned filter
    by_phases           s·s small convolutions of the scores, whose results are interleaved

All take scores y (N,O,P,Q), a filter w (O,C,I,J) and a geometry (`arithmetic.layer`), and return the image (N,C,H,W).
They are written to be read; `minifcn.functional.conv_transpose2d` is written to be fast. All raise ValueError where the
arrays' shapes are not the geometry's (N may be any), or the geometry has groups.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn import kernels
from minifcn.geometry import ConvGeometry
from minifcn.lab.arithmetic import equivalent_convolution, phases

Numbers = NDArray[Any]


def checked(op: str, y: Numbers | None, w: Numbers | None, geom: ConvGeometry) -> ConvGeometry:
    """The geometry, for as many samples as y has. Raises ValueError where it is not that of the arrays."""
    if geom.groups != 1:
        raise ValueError(f"{op}: the geometry has {geom.groups} groups; a layer with one is needed")
    if w is not None and w.shape != geom.w_shape:
        raise ValueError(f"{op}: w has shape {w.shape}; the geometry's {geom.w_shape} is needed")
    if y is None:
        return geom
    if y.ndim != 4 or y.shape[1:] != geom.y_shape[1:]:
        raise ValueError(f"{op}: y has shape {y.shape}; (N, {', '.join(map(str, geom.y_shape[1:]))}) is needed")
    return replace(geom, n=len(y))


def scatter(y: Numbers, w: Numbers, geom: ConvGeometry) -> Numbers:
    """(N,O,P,Q), (O,C,I,J) → (N,C,H,W): x[n,c,h,v] += w[o,c,i,j]·y[n,o,p,q] at h = p·s + i·d − padding.

    The stamps are added up on a canvas that holds all of them, and padding is cropped off it: the definition, and what
    "padding crops in a transposed convolution" means.

    >>> from minifcn.lab import layer
    >>> scatter(np.array([[[[1.0, 2.0]]]]), np.array([[[[1.0, 3.0]]]]), layer((1, 2), (1, 2), stride=2))
    array([[[[1., 3., 2., 6.]]]])
    """
    geom = checked("scatter", y, w, geom)
    (ph, pv), (sh, sv), (dh, dv) = geom.padding, geom.stride, geom.dilation
    reach = [d * (k - 1) + 1 for d, k in zip(geom.dilation, geom.w_hw, strict=True)]
    height, width = (  # of all stamps; output_padding may reach beyond them
        max((y_size - 1) * s + r, p + size)
        for y_size, s, r, p, size in zip(geom.y_hw, geom.stride, reach, geom.padding, geom.x_hw, strict=True)
    )
    canvas = np.zeros((geom.n, geom.c, height, width), np.result_type(y, w))
    for p, q in product(*map(range, geom.y_hw)):
        stamp = np.einsum("no,ocij->ncij", y[:, :, p, q], w)
        canvas[:, :, p * sh : p * sh + reach[0] : dh, q * sv : q * sv + reach[1] : dv] += stamp
    return canvas[:, :, ph : ph + geom.x_hw[0], pv : pv + geom.x_hw[1]]


def conv_matrix(w: Numbers, geom: ConvGeometry) -> Numbers:
    """The filter (O,C,I,J) → C (O·P·Q, C·H·W), the matrix of the convolution: conv2d(x, w) = C·x for flattened x.

    C[(o,p,q), (c,h,v)] = w[o,c,i,j] where h = p·s + i·d − padding and v = q·s + j·d − padding, and 0 elsewhere
    (Dumoulin & Visin 2016, §4.1). The transposed convolution multiplies by Cᵀ: the same entries, read down instead of
    across.

    >>> from minifcn.lab import layer
    >>> conv_matrix(np.array([[[[1.0, 2.0, 3.0]]]]), layer((1, 2), (1, 3), stride=2, padding=(0, 1)))
    array([[2., 3., 0.],
           [0., 1., 2.]])
    """
    geom = checked("conv_matrix", None, w, geom)
    c6 = np.zeros((geom.o, *geom.y_hw, geom.c, *geom.x_hw), w.dtype)  # (O, P, Q, C, H, W)
    for i, j in product(*map(range, geom.w_hw)):
        p, h = _met(geom, 0, i)
        q, v = _met(geom, 1, j)
        c6[:, p[:, None], q, :, h[:, None], v] = w[:, :, i, j]
    return c6.reshape(geom.o * geom.y_hw[0] * geom.y_hw[1], geom.c * geom.x_hw[0] * geom.x_hw[1])


def _met(geom: ConvGeometry, axis: int, i: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The score rows p that tap i joins to an image row, and those rows h."""
    p = np.arange(geom.y_hw[axis])
    h = p * geom.stride[axis] + i * geom.dilation[axis] - geom.padding[axis]
    inside = (h >= 0) & (h < geom.x_hw[axis])
    return p[inside], h[inside]


def by_matrix(y: Numbers, w: Numbers, geom: ConvGeometry) -> Numbers:
    """(N,O,P,Q), (O,C,I,J) → (N,C,H,W): Cᵀ·y, with C from `conv_matrix`."""
    geom = checked("by_matrix", y, w, geom)
    flat = y.reshape(geom.n, -1) @ conv_matrix(w, geom)  # (N, C·H·W): a row times C is Cᵀ times a column
    return flat.reshape(geom.x_shape)


def insert_zeros(y: Numbers, geom: ConvGeometry) -> Numbers:
    """Scores (N,O,P,Q) → (N,O,H + d(I−1),W + d(J−1)): score (p, q) at (p·s + p′, q·s + p′), zeros elsewhere.

    Where p′ = d(k−1) − padding is negative, scores are cropped instead.

    >>> from minifcn.lab import layer
    >>> insert_zeros(np.array([[[[1.0, 2.0]]]]), layer((1, 2), (1, 3), stride=2, padding=(0, 1)))
    array([[[[0., 1., 0., 2., 0.]]]])
    """
    geom = checked("insert_zeros", y, None, geom)
    before = equivalent_convolution(geom).before
    size = [x + d * (k - 1) for x, d, k in zip(geom.x_hw, geom.dilation, geom.w_hw, strict=True)]
    z = np.zeros((*y.shape[:2], *size), y.dtype)
    at = [np.arange(geom.y_hw[axis]) * geom.stride[axis] + before[axis] for axis in range(2)]
    keep = [np.flatnonzero((at[axis] >= 0) & (at[axis] < size[axis])) for axis in range(2)]
    z[:, :, at[0][keep[0]][:, None], at[1][keep[1]]] = y[:, :, keep[0][:, None], keep[1]]
    return z


def by_zero_insertion(y: Numbers, w: Numbers, geom: ConvGeometry) -> Numbers:
    """(N,O,P,Q), (O,C,I,J) → (N,C,H,W): a convolution of stride 1, with the turned filter, of `insert_zeros(y)`."""
    geom = checked("by_zero_insertion", y, w, geom)
    z, turned = insert_zeros(y, geom), w[:, :, ::-1, ::-1]
    x = np.zeros(geom.x_shape, np.result_type(y, w))
    for i, j in product(*map(range, geom.w_hw)):
        h, v = i * geom.dilation[0], j * geom.dilation[1]
        x += np.einsum("nohv,oc->nchv", z[:, :, h : h + geom.x_hw[0], v : v + geom.x_hw[1]], turned[:, :, i, j])
    return x


def by_phases(y: Numbers, w: Numbers, geom: ConvGeometry) -> Numbers:
    """(N,O,P,Q), (O,C,I,J) → (N,C,H,W): for each pair of phases a convolution of stride 1 with the taps that belong to
    it; the results are interleaved, and every pixel is written once (Shi et al. 2016, "Is the deconvolution layer the
    same as a convolutional layer?")."""
    geom = checked("by_phases", y, w, geom)
    x = np.zeros(geom.x_shape, np.result_type(y, w))
    for a, b in product(phases(geom, 0), phases(geom, 1)):
        part = np.zeros((geom.n, geom.c, len(a.rows), len(b.rows)), x.dtype)
        for i, j in product(a.taps, b.taps):
            # consecutive rows of one phase read consecutive scores, from this one on
            p = (a.rows.start + geom.padding[0] - i * geom.dilation[0]) // geom.stride[0]
            q = (b.rows.start + geom.padding[1] - j * geom.dilation[1]) // geom.stride[1]
            part += np.einsum("nopq,oc->ncpq", _window(y, p, q, len(a.rows), len(b.rows)), w[:, :, i, j])
        x[:, :, a.rows.start :: geom.stride[0], b.rows.start :: geom.stride[1]] = part
    return x


def adjoint_sides(w: Numbers, geom: ConvGeometry) -> tuple[float, float]:
    """Filter (O,C,I,J) → ⟨conv2d(x, w), y⟩ and ⟨x, conv_transpose2d(y, w)⟩, which are equal.

    For an image x and scores y of whole numbers drawn from −9 … 9, by minifcn's own kernels in float64: equal to
    rounding, and exactly so for a w of whole numbers.

    >>> from minifcn.lab import layer
    >>> left, right = adjoint_sides(np.array([[[[1.0, 3.0]]]]), layer((1, 2), (1, 2), stride=2))
    >>> left == right
    True
    """
    geom = checked("adjoint_sides", None, w, geom)
    w = w.astype(np.float64)
    x, y = (
        np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float64)
        for seed, shape in enumerate((geom.x_shape, geom.y_shape))
    )
    scores, image = kernels.run("conv2d", x, w, geom=geom), kernels.run("conv_transpose2d", y, w, geom=geom)
    return float(np.vdot(scores, y)), float(np.vdot(x, image))


def _window(y: Numbers, p: int, q: int, rows: int, columns: int) -> Numbers:
    """y[:, :, p : p + rows, q : q + columns], with zeros where that lies outside of y."""
    window = np.zeros((*y.shape[:2], rows, columns), y.dtype)
    top, left = max(-p, 0), max(-q, 0)
    found = y[:, :, max(p, 0) : max(p + rows, 0), max(q, 0) : max(q + columns, 0)]
    window[:, :, top : top + found.shape[2], left : left + found.shape[3]] = found
    return window

"""What it takes for a transposed convolution to interpolate bilinearly, and how to see whether it does.

Pixel h of the image lies at u = (h − centre)/s in units of scores, centre = d(k−1)/2 − padding. A filter interpolates
if every pixel inside is the value at u of the straight line through the two scores beside it. Tests of it, of growing
strength:

    Σw = s²               the average pixel keeps a constant's value; single phases need not
    constant in and out   the weights of every phase add up to 1
    ramp in and out       every phase also has its centre of mass at u: the first test that sees *where* the weights are
    anything in and out   every phase is the two (in two dimensions four) weights of the interpolation, and nothing else

Only the last is proof. With d = 1 and k ≤ 2s a phase has at most two taps along an axis, and then a constant, a ramp
along each axis and the product of the ramps suffice: as many equations as weights. It takes a ramp to find what is
wrong with a filter such as outer([.4, .6, .6, .4]) for stride 2. A larger filter can pass all of these and blur, as a
symmetric one whose weights add up to 1 does at stride 1.

At the border scores are missing, and the image fades: the first row has the gain 3/4 for s = 2, and close to 1/2 for
large s. What a pixel received, divided by what a constant would have given it, tconv(y)/tconv(1), is bilinear
interpolation with clamped borders everywhere.

Reference: Long et al. 2015, §3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn import kernels
from minifcn.geometry import AxisMap, ConvGeometry, Pair
from minifcn.lab.arithmetic import layer, output_padding
from minifcn.lab.overlap import inside, row_counts
from minifcn.lab.ways import checked

Numbers = NDArray[Any]

MOST = 2**24  # values of an array


def positions(geom: ConvGeometry, axis: int) -> list[Fraction]:
    """Where the rows of the image lie, in units of scores: (h − d(k−1)/2 + padding)/s, exact.

    >>> from minifcn.lab import layer
    >>> [str(u) for u in positions(layer(2, kernel=4, stride=2, padding=1), 0)]
    ['-1/4', '1/4', '3/4', '5/4']
    """
    at = AxisMap().then_conv_transpose(geom.w_hw[axis], geom.stride[axis], geom.padding[axis], geom.dilation[axis])
    return [at.scale * h + at.offset for h in range(geom.x_hw[axis])]


def sample(y: Numbers, geom: ConvGeometry) -> Numbers:
    """Scores (N,O,P,Q) → (N,O,H,W): bilinear interpolation at `positions`, those beyond the border clamped to it.

    With k = 2s − (s mod 2) and padding (k − s)/2 they are those of PyTorch's interpolate without align_corners. Raises
    ValueError where y does not have the geometry's shape.
    """
    geom = checked("sample", y, None, geom)
    rows, columns = (_interpolation(positions(geom, axis), geom.y_hw[axis]) for axis in range(2))
    x: Numbers = np.einsum("hp,vq,nopq->nohv", rows, columns, y, optimize=True)
    return x


def _interpolation(at: list[Fraction], size: int) -> Numbers:
    """(H, P): the factors of the two scores beside each position."""
    factors = np.zeros((len(at), size))
    for h, u in enumerate(at):
        u = min(max(u, Fraction(0)), Fraction(size - 1))
        p = min(int(u), max(size - 2, 0))
        factors[h, p] = float(1 - (u - p))
        if size > 1:
            factors[h, p + 1] = float(u - p)
    return factors


def gain(w: Numbers, geom: ConvGeometry) -> Numbers:
    """Filter (O,C,I,J) → (C,H,W): the transposed convolution of ones, what each pixel makes of a constant 1."""
    geom = checked("gain", None, w, geom)
    return _enlarge(np.ones((), w.dtype), w, geom)


def normalized(y: Numbers, w: Numbers, geom: ConvGeometry) -> Numbers:
    """tconv(y)/tconv(1), (N,O,P,Q), (O,C,I,J) → (N,C,H,W): what a pixel received, as a part of what it could have.

    With a bilinear filter it is `sample(y)` everywhere, borders included. NaN where a pixel receives nothing.
    """
    geom = checked("normalized", y, w, geom)
    with np.errstate(invalid="ignore", divide="ignore"):
        x: Numbers = kernels.run("conv_transpose2d", y, w, geom=geom) / gain(w, geom)
    return x


@dataclass(frozen=True, slots=True)
class BilinearCheck:
    """How far the filters of a transposed convolution are from bilinear interpolation; 0 to rounding if they are.

    A filter is the (I,J) weights that lead from one channel to another. Filters of zeros are left out. All numbers are
    the worst of any filter, for scores within −1 … 1.

    Args:
        filters: how many there are with a weight that is not 0.
        scores: (P, Q), the size at which they were tried: that of the geometry, or more where that has no inside.
        constant: largest |tconv(1) − 1| inside.
        ramp: largest |tconv(ramp) − ramp at the pixel's position| inside, for a ramp along each axis and their product.
        anything: largest |tconv(noise) − bilinear interpolation| inside.
        slopes: per axis, the steps of the ramp from one pixel to the next inside, one for each phase and in scores, of
            the filter whose steps differ most; 1/s each if it interpolates.
        border: per axis, the gain of the first rows, as a part of the gain inside, up to where that is reached, of the
            first filter.
        normalized: largest |tconv(noise)/tconv(1) − clamped bilinear interpolation| in all pixels that any score
            reaches; NaN where tconv(1) is 0 in one of them.
        tolerance: rounding of the filter's dtype, with which `constant`, `ramp` and `anything` are to be compared.
    """

    filters: int
    scores: Pair
    constant: float
    ramp: float
    anything: float
    slopes: tuple[tuple[float, ...], tuple[float, ...]]
    border: tuple[tuple[float, ...], tuple[float, ...]]
    normalized: float
    tolerance: float

    @property
    def constants(self) -> bool:
        """Whether all filters return a constant, to rounding."""
        return self.constant <= self.tolerance

    @property
    def ramps(self) -> bool:
        """Whether all filters return ramps, to rounding."""
        return self.ramp <= self.tolerance

    @property
    def holds(self) -> bool:
        """Whether all filters interpolate bilinearly inside, to rounding."""
        return self.anything <= self.tolerance


def bilinear_check(w: Numbers, geom: ConvGeometry) -> BilinearCheck:
    """Try each filter of (O,C,I,J) on a constant, on ramps and on noise, in float64.

    Raises ValueError where w does not have the geometry's shape, or no weight that is not 0, or where the layer reaches
    so far that an image with an inside would have more than 2²⁴ pixels.

    >>> from minifcn.lab import layer
    >>> from minifcn.nn.init import bilinear_kernel
    >>> right = bilinear_check(bilinear_kernel(4)[None, None], layer(5, kernel=4, stride=2, padding=1))
    >>> right.holds, [round(step, 6) for step in right.slopes[0]], right.border[0]
    (True, [0.5, 0.5], (0.75,))
    >>> edge = np.array([0.4, 0.6, 0.6, 0.4])
    >>> wrong = bilinear_check(np.outer(edge, edge)[None, None], layer(5, kernel=4, stride=2, padding=1))
    >>> wrong.constants, wrong.ramps, wrong.holds, [round(step, 6) for step in wrong.slopes[0]]
    (True, False, False, [0.2, 0.8])
    """
    checked("bilinear_check", None, w, geom)
    filters = w.reshape(-1, *geom.w_hw)
    filters = filters[filters.any(axis=(1, 2))]
    if not len(filters):
        raise ValueError("bilinear_check: all weights are 0; one that is not is needed")
    wide = _with_inside(geom)
    tries = [_Try.of(part, wide) for part in _portions(filters.astype(np.float64), wide)]
    uneven = [max(tries, key=lambda t: t.unevenness[axis]) for axis in range(2)]
    rounding = float(np.finfo(np.result_type(w, np.float32)).eps)
    return BilinearCheck(
        len(filters),
        wide.y_hw,
        max(t.constant for t in tries),
        max(t.ramp for t in tries),
        max(t.anything for t in tries),
        (uneven[0].slopes[0], uneven[1].slopes[1]),
        tries[0].border,
        float(np.max([t.normalized for t in tries])),
        8 * rounding * max(1.0, max(t.gain for t in tries)),
    )


def _portions(filters: Numbers, geom: ConvGeometry) -> Iterator[Numbers]:
    """The filters, so many at a time that their images together have at most MOST pixels."""
    count = max(MOST // (geom.x_hw[0] * geom.x_hw[1]), 1)
    return (filters[k : k + count] for k in range(0, len(filters), count))


@dataclass(frozen=True, slots=True)
class _Try:
    """What some filters made of the tests; see BilinearCheck."""

    constant: float
    ramp: float
    anything: float
    slopes: tuple[tuple[float, ...], tuple[float, ...]]
    border: tuple[tuple[float, ...], tuple[float, ...]]
    normalized: float
    gain: float
    unevenness: tuple[float, float]

    @classmethod
    def of(cls, filters: Numbers, wide: ConvGeometry) -> _Try:
        """Filters (C,I,J) as a layer from one channel to C."""
        geom = layer(
            wide.y_hw, wide.w_hw, wide.stride, wide.padding, output_padding(wide), wide.dilation, (1, len(filters))
        )
        w = filters[None]  # (1, C, I, J)
        within = inside(geom, 0), inside(geom, 1)
        middle = np.ix_(range(geom.c), *within)
        ones = gain(w, geom)

        # ramps from −1 to 1 along each axis, of the scores and of the positions that pixels have among them
        halves = [max(size - 1, 1) / 2 for size in geom.y_hw]
        ramps = [_along((np.arange(geom.y_hw[axis]) - half) / half, axis) for axis, half in enumerate(halves)]
        lines = [
            _along((np.array([float(u) for u in positions(geom, axis)]) - half) / half, axis)
            for axis, half in enumerate(halves)
        ]
        found = [_enlarge(ramp, w, geom) for ramp in ramps]
        off = [x - line for x, line in zip(found, lines, strict=True)]
        off.append(_enlarge(ramps[0] * ramps[1], w, geom) - lines[0] * lines[1])

        noise = np.random.default_rng(0).uniform(-1, 1, geom.y_hw)
        image, clamped = _enlarge(noise, w, geom), sample(noise[None, None], geom)[0]
        fed = np.outer(row_counts(geom, 0), row_counts(geom, 1)) > 0
        slopes, border, unevenness = [], [], []
        for axis, half in enumerate(halves):
            first = within[axis].start
            steps = half * _lines(np.diff(found[axis], axis=axis + 1), within, axis)
            steps = steps[:, first : first + geom.stride[axis]]  # (C, s)
            differences = np.abs(steps - 1 / geom.stride[axis]).max(axis=1)
            unevenness.append(float(differences.max()))
            slopes.append(tuple(steps[differences.argmax()].tolist()))
            fades = _lines(ones, within, axis)[0]
            border.append(tuple((fades[:first] / fades[first]).tolist()) if fades[first] else ())
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(ones == 0, np.nan, image / ones)
        return cls(
            float(np.abs(ones - 1)[middle].max()),
            max(float(np.abs(x)[middle].max()) for x in off),
            float(np.abs(image - clamped)[middle].max()),
            (slopes[0], slopes[1]),
            (border[0], border[1]),
            float(np.abs(shares - clamped)[:, fed].max()),
            float(np.abs(ones).max()),
            (unevenness[0], unevenness[1]),
        )


def _enlarge(y: Numbers, w: Numbers, geom: ConvGeometry) -> Numbers:
    """(C,H,W): the transposed convolution of y, which can be stretched to (P,Q), in all channels."""
    y = np.broadcast_to(y, (1, *geom.y_shape[1:])).astype(w.dtype)
    x: Numbers = kernels.run("conv_transpose2d", y, w, geom=checked("enlarge", y, w, geom))[0]
    return x


def _lines(x: Numbers, within: tuple[range, range], axis: int) -> Numbers:
    """Of (C,H,W), the line (C,H) or (C,W) along an axis that starts where the other axis has its inside."""
    other = within[1 - axis].start
    lines: Numbers = x[:, :, other] if axis == 0 else x[:, other]
    return lines


def _along(values: Numbers, axis: int) -> Numbers:
    """(H, 1) or (1, W)."""
    return values[:, None] if axis == 0 else values[None]


def _with_inside(geom: ConvGeometry) -> ConvGeometry:
    """The layer between one channel and another, on as many scores as give two strides of pixels inside."""
    height, width = (
        max(size, -(-(d * (k - 1) + 2 * p) // s) + 4)
        for size, d, k, p, s in zip(geom.y_hw, geom.dilation, geom.w_hw, geom.padding, geom.stride, strict=True)
    )
    wide = layer((height, width), geom.w_hw, geom.stride, geom.padding, output_padding(geom), geom.dilation)
    pixels = wide.x_hw[0] * wide.x_hw[1]
    if pixels > MOST:
        raise ValueError(
            f"bilinear_check: it takes an image of {pixels:,} pixels until no tap misses its score; a layer for which "
            f"{MOST:,} are enough is needed"
        )
    return wide

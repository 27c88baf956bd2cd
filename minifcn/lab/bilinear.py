"""What it takes for a transposed convolution to interpolate bilinearly, and how to see whether it does.

Pixel h of the image lies at u = (h − centre)/s in units of scores, centre = d(k−1)/2 − padding. A filter interpolates
if every pixel inside is the value at u of the straight line through the two scores beside it. Three tests, of growing
strength:

    Σw = s²               the average pixel keeps a constant's value; single phases need not
    constant in and out   the weights of every phase add up to 1
    ramp in and out       every phase also has its centre of mass at u: the first test that sees *where* the weights are

The last two suffice. A filter with k ≤ 2s has at most two taps in each phase along an axis, and two equations determine
two weights (in two dimensions four do: a constant, a ramp along each axis, and the product of the ramps). So it takes a
ramp to find what is wrong with a filter such as outer([.4, .6, .6, .4]) for stride 2.

At the border scores are missing, and the image fades: the first row has the gain 3/4 for s = 2, and close to 1/2 for
large s. What a pixel received, divided by what a constant would have given it, tconv(y)/tconv(1), is bilinear
interpolation with clamped borders everywhere.

Reference: Long et al. 2015, §3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn import kernels
from minifcn.geometry import AxisMap, ConvGeometry
from minifcn.lab.arithmetic import feeding, layer, output_padding, phases

Numbers = NDArray[Any]


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

    With k = 2s − (s mod 2) and padding (k − s)/2 they are those of PyTorch's interpolate without align_corners.
    """
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
    return _enlarge(np.ones((), w.dtype), w, geom)


def normalized(y: Numbers, w: Numbers, geom: ConvGeometry) -> Numbers:
    """tconv(y)/tconv(1), (N,O,P,Q), (O,C,I,J) → (N,C,H,W): what a pixel received, as a part of what it could have.

    With a bilinear filter it is `sample(y)` everywhere, borders included. NaN where a pixel receives nothing.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        x: Numbers = kernels.run("conv_transpose2d", y, w, geom=geom) / gain(w, geom)
    return x


@dataclass(frozen=True, slots=True)
class BilinearCheck:
    """How far a transposed convolution is from bilinear interpolation; 0 to rounding where it is one.

    Args:
        scores: (P, Q), the size at which it was tried: that of the geometry, or more where that has no inside.
        constant: largest |tconv(1) − 1| inside.
        ramp: largest |tconv(ramp) − position| inside, for a ramp along each axis and for their product.
        slopes: per axis, the steps from one pixel to the next inside, one for each phase; 1/s each if it interpolates.
        border: per axis, the gain of the first rows, as a part of the gain inside, up to where that is reached.
        normalized: largest |tconv(y)/tconv(1) − clamped bilinear| everywhere, for y uniform in −1…1; NaN where a pixel
            receives nothing.
    """

    scores: tuple[int, int]
    constant: float
    ramp: float
    slopes: tuple[tuple[float, ...], tuple[float, ...]]
    border: tuple[tuple[float, ...], tuple[float, ...]]
    normalized: float

    @property
    def holds(self) -> bool:
        """Whether a constant and a ramp come through, to six digits."""
        return self.constant < 1e-6 and self.ramp < 1e-6


def bilinear_check(w: Numbers, geom: ConvGeometry) -> BilinearCheck:
    """Try a filter (O,C,I,J) on a constant, on ramps and on noise, the same in all O channels, in float64.

    >>> from minifcn.lab import layer
    >>> from minifcn.nn.init import bilinear_kernel
    >>> right = bilinear_check(bilinear_kernel(4)[None, None], layer(5, kernel=4, stride=2, padding=1))
    >>> right.holds, right.slopes[0], right.border[0]
    (True, (0.5, 0.5), (0.75,))
    >>> edge = np.array([0.4, 0.6, 0.6, 0.4])
    >>> wrong = bilinear_check(np.outer(edge, edge)[None, None], layer(5, kernel=4, stride=2, padding=1))
    >>> wrong.constant < 1e-15, wrong.holds, [round(step, 6) for step in wrong.slopes[0]]
    (True, False, [0.2, 0.8])
    """
    w = w.astype(np.float64)
    geom = _roomy(geom)
    inside = _inside(geom, 0), _inside(geom, 1)
    middle = np.ix_(range(geom.c), *inside)
    ones = gain(w, geom)
    ramps = [_along(np.arange(size, dtype=np.float64), axis) for axis, size in enumerate(geom.y_hw)]
    lines = [_along(np.array([float(u) for u in positions(geom, axis)]), axis) for axis in range(2)]
    off, slopes, border = [], [], []
    for axis in range(2):
        x = _enlarge(ramps[axis], w, geom)
        off.append(x - lines[axis])
        steps, fades = (_line(values, inside, axis) for values in (np.diff(x, axis=axis + 1), ones))
        first = inside[axis][0]
        slopes.append(tuple(steps[first : first + geom.stride[axis]].tolist()))
        with np.errstate(invalid="ignore", divide="ignore"):
            border.append(tuple((fades[:first] / fades[first]).tolist()))
    off.append(_enlarge(ramps[0] * ramps[1], w, geom) - lines[0] * lines[1])
    noise = np.random.default_rng(0).uniform(-1, 1, geom.y_hw)
    clamped = sample(noise[None, None], geom)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        normalized_off = np.abs(_enlarge(noise, w, geom) / ones - clamped).max()
    return BilinearCheck(
        geom.y_hw,
        float(np.abs(ones - 1)[middle].max()),
        max(float(np.abs(x)[middle].max()) for x in off),
        (slopes[0], slopes[1]),
        (border[0], border[1]),
        float(normalized_off),
    )


def _enlarge(y: Numbers, w: Numbers, geom: ConvGeometry) -> Numbers:
    """(C,H,W): the transposed convolution of y, which can be stretched to (P,Q), in all channels."""
    x: Numbers = kernels.run("conv_transpose2d", np.broadcast_to(y, geom.y_shape).copy(), w, geom=geom)[0]
    return x


def _line(x: Numbers, inside: tuple[range, range], axis: int) -> Numbers:
    """Of the first channel (C,H,W), the line along an axis that starts where the other axis has its inside."""
    other = inside[1 - axis][0]
    line: Numbers = x[0, :, other] if axis == 0 else x[0, other]
    return line


def _along(values: Numbers, axis: int) -> Numbers:
    """(H, 1) or (1, W)."""
    return values[:, None] if axis == 0 else values[None]


def _roomy(geom: ConvGeometry) -> ConvGeometry:
    """The same layer on as many scores as it takes to have two strides of pixels inside."""
    height, width = (
        max(size, -(-(d * (k - 1) + 2 * p) // s) + 4)
        for size, d, k, p, s in zip(geom.y_hw, geom.dilation, geom.w_hw, geom.padding, geom.stride, strict=True)
    )
    extra = output_padding(geom)
    return layer((height, width), geom.w_hw, geom.stride, geom.padding, extra, geom.dilation, channels=(geom.o, geom.c))


def _inside(geom: ConvGeometry, axis: int) -> range:
    """The rows around the middle that get a product from every tap of their phase."""
    taps = {h: len(phase.taps) for phase in phases(geom, axis) for h in phase.rows}
    short = [h for h in range(geom.x_hw[axis]) if len(feeding(geom, axis, h)) < taps[h]]
    middle = geom.x_hw[axis] // 2
    return range(
        max((h + 1 for h in short if h < middle), default=0),
        min((h for h in short if h >= middle), default=geom.x_hw[axis]),
    )

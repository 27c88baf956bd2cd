"""Sizes and positions: everything about a convolution that is an integer or a fraction. No arrays.

Convolution is one trilinear form

    B(x, w, y) = Σ x[n,c,h,v] · w[o,c,i,j] · y[n,o,p,q]        h = p·sh + i·dh − ph,   v = q·sw + j·dw − pw

linear in each argument. Its three partial derivatives are the three convolution kernels of the library:

    conv2d            (x, w) → ∂B/∂y        image × filter  → scores
    conv_transpose2d  (y, w) → ∂B/∂x        scores × filter → image
    conv2d_weight     (x, y) → ∂B/∂w        image × scores  → filter

One frozen ConvGeometry holds the sizes of x, w *and* y and serves all three. That settles the one ambiguity of the
subject: the floor division below sends up to `stride` different image sizes to the same score size, so the transposed
convolution has to be told which of them it should return (PyTorch's `output_padding` is that choice).

Reference: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

Pair = tuple[int, int]
Shape = tuple[int, ...]
AXES = ("height", "width")
LARGEST_SIZE = 2**40  # of an axis, a stride or a kernel: far beyond any memory, and far from where products overflow


def pair(value: int | tuple[int, ...] | list[int], op: str, name: str, minimum: int) -> Pair:
    """(a, b) from an int or a pair of ints, each at least `minimum`.

    Raises TypeError if it is neither, ValueError if one is too small; `op` and `name` are for the message.

    >>> pair(3, "conv2d", "stride", 1), pair((2, 1), "conv2d", "stride", 1)
    ((3, 3), (2, 1))
    """
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not all(hasattr(v, "__index__") and not isinstance(v, bool) and getattr(v, "shape", ()) == () for v in values):
        raise TypeError(f"{op}: {name} is {value!r}; an int or a pair of ints is needed")
    if len(values) == 1:
        values *= 2
    if len(values) != 2:
        raise ValueError(
            f"{op}: {name} has {len(values)} values {value!r}; one int or a pair (height, width) is needed"
        )
    a, b = (v.__index__() for v in values)
    if min(a, b) < minimum:
        raise ValueError(f"{op}: {name} is {value!r}; at least {minimum} is needed")
    if max(a, b) > LARGEST_SIZE:
        raise ValueError(f"{op}: {name} is {value!r}; at most {LARGEST_SIZE} is possible")
    return a, b


def conv_output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Scores along one axis: ⌊(h + 2p − d(k−1) − 1) / s⌋ + 1 (Dumoulin & Visin, relationships 6 and 15).

    >>> conv_output_size(5, kernel=3, stride=2, padding=1, dilation=1)
    3
    """
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def conv_transpose_output_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int, output_padding: int
) -> int:
    """Image along one axis: (p − 1)·s − 2·padding + d(k−1) + output_padding + 1 (Dumoulin & Visin, relationship 14).

    >>> conv_transpose_output_size(3, kernel=3, stride=2, padding=1, dilation=1, output_padding=0)
    5
    """
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


@dataclass(frozen=True, slots=True)
class ConvGeometry:
    """The sizes of one trilinear form: image x (N,C,H,W), filter w (O,C/groups,I,J), scores y (N,O,P,Q)."""

    n: int
    c: int
    o: int
    x_hw: Pair
    w_hw: Pair
    y_hw: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @property
    def x_shape(self) -> Shape:
        return (self.n, self.c, *self.x_hw)

    @property
    def w_shape(self) -> Shape:
        return (self.o, self.c // self.groups, *self.w_hw)

    @property
    def y_shape(self) -> Shape:
        return (self.n, self.o, *self.y_hw)

    @property
    def macs(self) -> int:
        """Multiplications of the direct form: N·O·P·Q·(C/groups)·I·J, the same for all three kernels."""
        (p, q), (i, j) = self.y_hw, self.w_hw
        return self.n * self.o * p * q * (self.c // self.groups) * i * j

    def turned(self) -> ConvGeometry | None:
        """The convolution that the transposed one is at stride 1, with the filter turned by 180° and its channels
        swapped: padding d(k−1) − p (Dumoulin & Visin, relationship 9). None at a larger stride, or where the padding
        would be negative.

        >>> geom = ConvGeometry.of_conv((1, 3, 5, 5), (8, 3, 3, 3), (1, 1), (0, 0), (1, 1), 1, "conv2d")
        >>> geom.turned().y_shape, geom.turned().padding
        ((1, 3, 5, 5), (2, 2))
        """
        height, width = (d * (k - 1) - p for d, k, p in zip(self.dilation, self.w_hw, self.padding, strict=True))
        if self.stride != (1, 1) or min(height, width) < 0:
            return None
        return ConvGeometry(
            n=self.n,
            c=self.o,
            o=self.c,
            x_hw=self.y_hw,
            w_hw=self.w_hw,
            y_hw=self.x_hw,
            stride=(1, 1),
            padding=(height, width),
            dilation=self.dilation,
            groups=self.groups,
        )

    @classmethod
    def of_conv(
        cls, x_shape: Shape, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int, op: str
    ) -> Self:
        """The geometry of a convolution of x (N,C,H,W) with w (O,C/groups,I,J).

        Raises ValueError where the filter, dilated, is larger than the padded image, or channels and groups disagree.
        """
        n, c, *x_hw = x_shape
        o, c_per_group, *w_hw = w_shape
        given = f"input {x_shape}, weight {w_shape}"
        _check_filter(op, w_shape, given)
        if groups < 1 or c % groups or o % groups:
            raise ValueError(
                f"{op}: groups={groups} does not divide {c} input and {o} output channels — {given}; "
                f"both channel counts must be multiples of groups"
            )
        if c != c_per_group * groups:
            raise ValueError(f"{op}: input has {c} channels but weight expects {c_per_group * groups} — {given}")
        y_hw = []
        for axis in range(2):
            padded, reach = x_hw[axis] + 2 * padding[axis], dilation[axis] * (w_hw[axis] - 1) + 1
            if padded < reach:
                raise ValueError(
                    f"{op}: the padded input's {AXES[axis]} is {padded} but the dilated kernel covers {reach} — "
                    f"{given}; a larger input, more padding or a smaller kernel is needed"
                )
            y_hw.append(conv_output_size(x_hw[axis], w_hw[axis], stride[axis], padding[axis], dilation[axis]))
        return cls(
            n, c, o, (x_hw[0], x_hw[1]), (w_hw[0], w_hw[1]), (y_hw[0], y_hw[1]), stride, padding, dilation, groups
        )

    @classmethod
    def of_conv_transpose(
        cls,
        y_shape: Shape,
        w_shape: Shape,
        stride: Pair,
        padding: Pair,
        output_padding: Pair,
        dilation: Pair,
        groups: int,
        op: str,
    ) -> Self:
        """The geometry of a transposed convolution of y (N,O,P,Q) with w (O,C/groups,I,J): the same w as the
        convolution that it is the adjoint of, neither flipped nor swapped.

        Raises ValueError where an output would be empty, output_padding reaches max(stride, dilation), or channels
        and groups disagree.
        """
        n, o, *y_hw = y_shape
        w_o, c_per_group, *w_hw = w_shape
        given = f"input {y_shape}, weight {w_shape}"
        _check_filter(op, w_shape, given)
        if o != w_o:
            raise ValueError(f"{op}: input has {o} channels but weight expects {w_o} — {given}")
        if groups < 1 or o % groups:
            raise ValueError(
                f"{op}: groups={groups} does not divide {o} input channels — {given}; a divisor of {o} is needed"
            )
        x_hw = []
        for axis in range(2):
            # more than stride − 1 would ask for rows that the matching convolution never reads (PyTorch allows
            # dilation − 1 as well, and so do we)
            limit = max(stride[axis], dilation[axis])
            if output_padding[axis] >= limit:
                raise ValueError(
                    f"{op}: output_padding {output_padding[axis]} along the {AXES[axis]} must be smaller than stride "
                    f"or dilation (stride {stride[axis]}, dilation {dilation[axis]})"
                )
            size = conv_transpose_output_size(
                y_hw[axis], w_hw[axis], stride[axis], padding[axis], dilation[axis], output_padding[axis]
            )
            if size < 1:
                raise ValueError(
                    f"{op}: the output's {AXES[axis]} would be {size} — {given}, stride {stride[axis]}, padding "
                    f"{padding[axis]}; less padding or a larger input is needed"
                )
            x_hw.append(size)
        c = c_per_group * groups
        return cls(
            n, c, o, (x_hw[0], x_hw[1]), (w_hw[0], w_hw[1]), (y_hw[0], y_hw[1]), stride, padding, dilation, groups
        )


def _check_filter(op: str, w_shape: Shape, given: str) -> None:
    if min(w_shape) < 1:
        raise ValueError(f"{op}: the kernel is empty — {given}; at least 1 is needed on every axis")


def pool_output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Windows along one axis. With ceil_mode a last partial window counts, unless it would start beyond the image and
    its left padding (PyTorch's rule, and Caffe's): such a window would see nothing but padding.

    >>> pool_output_size(5, kernel=2, stride=2, padding=0, dilation=1, ceil_mode=True)
    3
    """
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


@dataclass(frozen=True, slots=True)
class PoolGeometry:
    """The windows of a pooling of x (N,C,H,W) into y (N,C,P,Q): h = p·s + i·d − padding, as in a convolution."""

    n: int
    c: int
    x_hw: Pair
    w_hw: Pair
    y_hw: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @property
    def x_shape(self) -> Shape:
        return (self.n, self.c, *self.x_hw)

    @property
    def y_shape(self) -> Shape:
        return (self.n, self.c, *self.y_hw)

    @property
    def columns_shape(self) -> Shape:
        """(N, C·I·J, P·Q): the windows as columns."""
        (i, j), (p, q) = self.w_hw, self.y_hw
        return (self.n, self.c * i * j, p * q)

    @classmethod
    def of_unfold(cls, x_shape: Shape, w_hw: Pair, stride: Pair, padding: Pair, dilation: Pair, op: str) -> Self:
        """The geometry of reading x (N,C,H,W) by windows of w_hw: as a pooling without ceil_mode, with any padding.

        Raises ValueError where no window fits.
        """
        n, c, *x_hw = x_shape
        y_hw = []
        for axis in range(2):
            size = conv_output_size(x_hw[axis], w_hw[axis], stride[axis], padding[axis], dilation[axis])
            if size < 1:
                raise ValueError(
                    f"{op}: no window fits along the {AXES[axis]}, which is {x_hw[axis]} and with padding "
                    f"{x_hw[axis] + 2 * padding[axis]}, while the dilated kernel covers "
                    f"{dilation[axis] * (w_hw[axis] - 1) + 1}; a larger input, more padding or a smaller kernel is "
                    f"needed"
                )
            y_hw.append(size)
        return cls(n, c, (x_hw[0], x_hw[1]), w_hw, (y_hw[0], y_hw[1]), stride, padding, dilation)

    @classmethod
    def of_pool(
        cls, x_shape: Shape, w_hw: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool, op: str
    ) -> Self:
        """The geometry of pooling x (N,C,H,W) by windows of w_hw.

        Raises ValueError where no window fits or the padding exceeds half of the kernel (then a window could hold
        nothing but padding).
        """
        n, c, *x_hw = x_shape
        y_hw = []
        for axis in range(2):
            kernel = w_hw[axis]
            if 2 * padding[axis] > kernel:
                raise ValueError(
                    f"{op}: padding {padding[axis]} along the {AXES[axis]} exceeds half of the kernel {kernel}; "
                    f"at most {kernel // 2} is possible"
                )
            size = pool_output_size(x_hw[axis], kernel, stride[axis], padding[axis], dilation[axis], ceil_mode)
            if size < 1:
                raise ValueError(
                    f"{op}: the output's {AXES[axis]} would be {size} — input {x_shape}, kernel {kernel}, "
                    f"padding {padding[axis]}; a larger input or a smaller kernel is needed"
                )
            y_hw.append(size)
        return cls(n, c, (x_hw[0], x_hw[1]), w_hw, (y_hw[0], y_hw[1]), stride, padding, dilation)


@dataclass(frozen=True, slots=True)
class AdaptiveGeometry:
    """The windows of an adaptive pooling of x (N,C,H,W) into y (N,C,P,Q): of different sizes, and they may overlap."""

    x_shape: Shape
    y_hw: Pair

    @property
    def y_shape(self) -> Shape:
        return (*self.x_shape[:2], *self.y_hw)

    def spans(self, axis: int) -> list[Pair]:
        """(start, end) of every window along an axis: ⌊p·H/P⌋ … ⌈(p+1)·H/P⌉.

        >>> AdaptiveGeometry((1, 1, 5, 5), (2, 2)).spans(0)
        [(0, 3), (2, 5)]
        """
        size, count = self.x_shape[2 + axis], self.y_hw[axis]
        return [(p * size // count, -(-(p + 1) * size // count)) for p in range(count)]


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Where cell u of a map lies, in pixels of the image: scale·u + offset, exact. Pixel 0's centre is at 0."""

    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    def then_conv(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> AxisMap:
        """After a convolution or pooling: cell p sees p·s + d·i − padding, with centre p·s + d(k−1)/2 − padding."""
        centre = Fraction(dilation * (kernel - 1), 2) - padding
        return AxisMap(self.scale * stride, self.offset + self.scale * centre)

    def then_conv_transpose(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> AxisMap:
        """After a transposed convolution, the same relation read from the other side: cell u of the output lies at
        (u − centre)/s cells of the input."""
        centre = Fraction(dilation * (kernel - 1), 2) - padding
        return AxisMap(self.scale / stride, self.offset - self.scale / stride * centre)

    def then_crop(self, start: int) -> AxisMap:
        """After dropping the first `start` cells (a negative start adds cells, as padding does)."""
        return AxisMap(self.scale, self.offset + self.scale * start)

    def crop_onto(self, other: AxisMap) -> Fraction:
        """The cell of self that lies where cell 0 of `other` lies: the crop that lays self onto other.

        Raises ValueError where the two maps differ in scale: no crop can align those.
        """
        if self.scale != other.scale:
            raise ValueError(
                f"crop_onto: cells are {self.scale} pixels apart on one map and {other.scale} on the other; "
                f"only maps of equal stride can be aligned by a crop"
            )
        return (other.offset - self.offset) / self.scale


@dataclass(frozen=True, slots=True)
class CoordMap:
    """Where the cells of a map lie in image pixels, per axis (Caffe's coord_map, with exact fractions).

    The paper's crop 5 is derived, not typed: pool4 of the padded VGG-16 against score_fr (pool5, then a 7×7 fc6
    without padding) upsampled by a 4×4 transposed convolution of stride 2:

    >>> conv3 = dict(kernel=3, stride=1, padding=1)
    >>> image = CoordMap()
    >>> pool4 = image.then_conv(kernel=3, stride=1, padding=100)
    >>> for _ in range(4):
    ...     pool4 = pool4.then_conv(**conv3).then_conv(kernel=2, stride=2, padding=0)
    >>> score_fr = pool4.then_conv(**conv3).then_conv(kernel=2, stride=2, padding=0).then_conv(7, 1, 0)
    >>> pool4.crop_onto(score_fr.then_conv_transpose(kernel=4, stride=2, padding=0))
    (Fraction(5, 1), Fraction(5, 1))
    """

    height: AxisMap = AxisMap()
    width: AxisMap = AxisMap()

    def then_conv(
        self, kernel: int | Pair, stride: int | Pair, padding: int | Pair, dilation: int | Pair = 1
    ) -> CoordMap:
        """After a convolution or pooling with these parameters."""
        return CoordMap(*(m.then_conv(*a) for m, a in zip(self, _axes(kernel, stride, padding, dilation), strict=True)))

    def then_conv_transpose(
        self, kernel: int | Pair, stride: int | Pair, padding: int | Pair, dilation: int | Pair = 1
    ) -> CoordMap:
        """After a transposed convolution with these parameters (output_padding moves nothing)."""
        axes = _axes(kernel, stride, padding, dilation)
        return CoordMap(*(m.then_conv_transpose(*a) for m, a in zip(self, axes, strict=True)))

    def then_crop(self, start: Pair) -> CoordMap:
        """After dropping the first start[axis] cells of each axis."""
        return CoordMap(self.height.then_crop(start[0]), self.width.then_crop(start[1]))

    def crop_onto(self, other: CoordMap) -> tuple[Fraction, Fraction]:
        """The (height, width) crop that lays self onto other; a fraction means that no crop aligns them exactly."""
        return self.height.crop_onto(other.height), self.width.crop_onto(other.width)

    def __iter__(self) -> Iterator[AxisMap]:
        return iter((self.height, self.width))


def _axes(*values: int | Pair) -> list[tuple[int, ...]]:
    """The height's parameters, then the width's."""
    return [tuple(v if isinstance(v, int) else v[axis] for v in values) for axis in range(2)]


@dataclass(frozen=True, slots=True)
class ResizeGeometry:
    """Interpolation of x (…,H,W) to y (…,P,Q): which pixels, with which factors, make an output row or column.

    `mode` is "nearest" or "bilinear"; `step` is the distance between two outputs in input pixels, per axis.
    """

    x_hw: Pair
    y_hw: Pair
    step: tuple[Fraction, Fraction]
    mode: str
    align_corners: bool

    @classmethod
    def of_resize(
        cls, x_hw: Pair, y_hw: Pair, scale_factor: tuple[float, float] | None, mode: str, align_corners: bool
    ) -> Self:
        """The geometry of a resize to y_hw; a given scale_factor, rather than the ratio of sizes, then sets the step
        (as PyTorch does, except to the same size, which copies, and with "nearest" to the double one)."""
        steps = []
        for axis in range(2):
            if y_hw[axis] == x_hw[axis] or (mode == "nearest" and y_hw[axis] == 2 * x_hw[axis]):
                steps.append(Fraction(x_hw[axis], y_hw[axis]))
            elif align_corners:
                steps.append(Fraction(x_hw[axis] - 1, max(y_hw[axis] - 1, 1)))
            elif scale_factor is not None:
                steps.append(1 / Fraction(scale_factor[axis]))
            else:
                steps.append(Fraction(x_hw[axis], max(y_hw[axis], 1)))
        return cls(x_hw, y_hw, (steps[0], steps[1]), mode, align_corners)

    def taps(self, axis: int, p: int) -> list[tuple[int, Fraction]]:
        """(pixel, factor) of output p along an axis; positions beyond the border are clamped to it.

        >>> ResizeGeometry.of_resize((2, 2), (4, 4), None, "bilinear", False).taps(0, 1)
        [(0, Fraction(3, 4)), (1, Fraction(1, 4))]
        """
        last, step = self.x_hw[axis] - 1, self.step[axis]
        if self.mode == "nearest":
            return [(min(int(p * step), last), Fraction(1))]
        # without align_corners pixels are unit squares, so centres lie at p + 1/2
        position = p * step if self.align_corners else max((p + Fraction(1, 2)) * step - Fraction(1, 2), Fraction(0))
        low = min(int(position), last)
        part = position - low if low < last else Fraction(0)
        return [(low, 1 - part)] + ([(low + 1, part)] if part else [])


@dataclass(frozen=True, slots=True)
class ResizePart(ResizeGeometry):
    """A rectangle of a larger resize's outputs, made from a rectangle of its inputs that holds all of their taps.

    `x_hw` and `y_hw` are the rectangles' sizes, `x_first` and `y_first` their first cells in `whole`.
    """

    whole: ResizeGeometry
    x_first: Pair
    y_first: Pair

    @classmethod
    def of(cls, whole: ResizeGeometry, x_first: Pair, x_hw: Pair, y_first: Pair, y_hw: Pair) -> Self:
        """The part of `whole` from these first cells on, of these sizes."""
        return cls(x_hw, y_hw, whole.step, whole.mode, whole.align_corners, whole, x_first, y_first)

    def taps(self, axis: int, p: int) -> list[tuple[int, Fraction]]:
        """(pixel, factor) of output p along an axis, both counted in the rectangles.

        >>> whole = ResizeGeometry.of_resize((4, 4), (8, 8), None, "bilinear", False)
        >>> whole.taps(0, 5), ResizePart.of(whole, (2, 2), (2, 2), (5, 5), (2, 2)).taps(0, 0)
        ([(2, Fraction(3, 4)), (3, Fraction(1, 4))], [(0, Fraction(3, 4)), (1, Fraction(1, 4))])
        """
        return [(h - self.x_first[axis], factor) for h, factor in self.whole.taps(axis, self.y_first[axis] + p)]

"""One transposed convolution, in integers: sizes, who feeds whom, phases.

Everything follows from the relation between a row h of the image, a filter row i and a row p of the scores,

    h = p·s + i·d − padding                                      (s stride, d dilation; columns likewise)

by which a convolution gathers (score p from the rows h) and its transpose scatters (score p to the rows h). Functions
take a ConvGeometry: `y_hw` is the size of the scores, which go into the transposed convolution, and `x_hw` that of the
image, which comes out. `axis` is 0 for the height and 1 for the width.

Reference: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, §4 and §5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from minifcn.geometry import AXES, ConvGeometry, Pair, conv_output_size, conv_transpose_output_size, pair
from minifcn.lab.words import minus

OP = "tconv"


def layer(
    input: int | Pair,
    kernel: int | Pair,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    output_padding: int | Pair = 0,
    dilation: int | Pair = 1,
    channels: Pair = (1, 1),
) -> ConvGeometry:
    """The geometry of a transposed convolution of (1,O,P,Q) scores with a filter (O,C,I,J).

    Args:
        input: (P, Q), rows and columns of the scores, at least 1.
        kernel: (I, J), at least 1.
        stride, dilation: at least 1.
        padding: of the matching convolution, at least 0; here it crops.
        output_padding: below stride or dilation.
        channels: (O, C).

    Returns:
        The geometry; `x_hw` is the output's size.

    Raises:
        ValueError: an output without pixels or an output_padding that is too large, with the nearest valid setting; a
            value out of range. TypeError: something other than ints.

    >>> layer(5, kernel=3, stride=2, padding=1).x_hw
    (9, 9)
    """
    scores, taps = pair(input, OP, "input", 1), pair(kernel, OP, "kernel", 1)
    strides, dilations = pair(stride, OP, "stride", 1), pair(dilation, OP, "dilation", 1)
    paddings, extras = pair(padding, OP, "padding", 0), pair(output_padding, OP, "output_padding", 0)
    for axis, name in enumerate(AXES):
        p, k, s, d = scores[axis], taps[axis], strides[axis], dilations[axis]
        crop, a = paddings[axis], extras[axis]
        if a >= max(s, d):
            raise ValueError(
                f"{OP}: output_padding {a} along the {name} must be smaller than stride or dilation (stride {s}, "
                f"dilation {d}); the nearest valid setting is output_padding {max(s, d) - 1}"
            )
        size = conv_transpose_output_size(p, k, s, crop, d, a)
        if size < 1:
            most = ((p - 1) * s + d * (k - 1) + a) // 2
            raise ValueError(
                f"{OP}: the output's {name} would be {_sum(p, k, s, crop, d, a)} = {minus(size)}; the nearest valid "
                f"setting is padding {most}"
            )
    o, c = pair(channels, OP, "channels", 1)
    return ConvGeometry.of_conv_transpose(
        (1, o, *scores), (o, c, *taps), strides, paddings, extras, dilations, groups=1, op=OP
    )


def layer_to(
    image: int | Pair,
    kernel: int | Pair,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    channels: Pair = (1, 1),
) -> ConvGeometry:
    """The geometry of the transposed convolution that leads back to an image of the given size: its scores are as many
    as the matching convolution makes, and its output_padding is what that convolution's division leaves over.

    Args:
        image: (H, W) of the matching convolution's input, at least 1.
        kernel, stride, padding, dilation, channels: as for `layer`.

    Raises:
        ValueError: the kernel is larger than the padded image, with the nearest valid padding; a value out of range.

    >>> geom = layer_to(10, kernel=3, stride=2, padding=1)
    >>> geom.y_hw, output_padding(geom)
    ((5, 5), (1, 1))
    """
    sizes, taps = pair(image, OP, "image", 1), pair(kernel, OP, "kernel", 1)
    strides, dilations = pair(stride, OP, "stride", 1), pair(dilation, OP, "dilation", 1)
    paddings = pair(padding, OP, "padding", 0)
    scores, extras = [], []
    for axis, name in enumerate(AXES):
        h, k, s, d, around = sizes[axis], taps[axis], strides[axis], dilations[axis], paddings[axis]
        reach = d * (k - 1) + 1
        if h + 2 * around < reach:
            raise ValueError(
                f"{OP}: the padded image's {name} is {h} + 2·{around} = {h + 2 * around} but the dilated kernel covers "
                f"{reach}; the nearest valid setting is padding {-(-(reach - h) // 2)}"
            )
        scores.append(conv_output_size(h, k, s, around, d))
        extras.append(h - conv_transpose_output_size(scores[-1], k, s, around, d, 0))
    return layer((scores[0], scores[1]), taps, strides, paddings, (extras[0], extras[1]), dilations, channels)


def output_padding(geom: ConvGeometry) -> Pair:
    """Rows and columns of the image beyond the smallest that fits: PyTorch's argument, the `a` of relationship 14."""
    height, width = (
        geom.x_hw[axis]
        - conv_transpose_output_size(
            geom.y_hw[axis], geom.w_hw[axis], geom.stride[axis], geom.padding[axis], geom.dilation[axis], 0
        )
        for axis in range(2)
    )
    return height, width


def image_sizes(geom: ConvGeometry) -> tuple[range, range]:
    """Heights, and widths, of all images that the matching convolution sends to scores of this size.

    There are as many as the stride (fewer where some would be below 1), because ⌊(H + 2·padding − d(k−1) − 1)/s⌋
    forgets the remainder; that is why a transposed convolution must be told which one is meant.

    >>> image_sizes(layer(5, kernel=3, stride=2, padding=1))
    (range(9, 11), range(9, 11))
    """
    height, width = (
        range(max(size - a, 1), size - a + s)
        for size, a, s in zip(geom.x_hw, output_padding(geom), geom.stride, strict=True)
    )
    return height, width


def formula(geom: ConvGeometry, axis: int) -> str:
    """The output's size along an axis, (P−1)·stride − 2·padding + dilation·(kernel−1) + output_padding + 1, filled in.

    >>> formula(layer(5, kernel=3, stride=2, padding=1), 0)
    '(5 − 1)·2 − 2·1 + 1·(3 − 1) + 0 + 1 = 9'
    """
    terms = geom.y_hw, geom.w_hw, geom.stride, geom.padding, geom.dilation, output_padding(geom)
    return f"{_sum(*(values[axis] for values in terms))} = {geom.x_hw[axis]}"


def _sum(p: int, k: int, s: int, padding: int, d: int, a: int) -> str:
    return f"({p} − 1)·{s} − 2·{padding} + {d}·({k} − 1) + {a} + 1"


@dataclass(frozen=True, slots=True)
class Relationship:
    """Which relationship of Dumoulin & Visin's guide (arXiv v2, §4) gives the size along an axis.

    Args:
        number: 8 to 14; None where the guide has none, because no convolution of this stride makes that input of that
            output (output_padding of at least the stride, which PyTorch allows up to the dilation).
        title: what it is about.
        rule: the output's size o′ of an input of size i′.
        remark: what the guide leaves open for this configuration, or "".
    """

    number: int | None
    title: str
    rule: str
    remark: str


def relationship(geom: ConvGeometry, axis: int) -> Relationship:
    """The most special relationship that holds along an axis.

    >>> relationship(layer(5, kernel=3, stride=2, padding=1), 0).rule
    'o′ = s(i′ − 1) + k − 2p'
    """
    k, s, p, d = geom.w_hw[axis], geom.stride[axis], geom.padding[axis], geom.dilation[axis]
    a = output_padding(geom)[axis]
    reach = d * (k - 1)  # of the dilated kernel beyond its first tap: the guide's k − 1
    remarks = []
    if d > 1:
        remarks.append(f"with k = {reach + 1}, the size of the dilated kernel (relationship 15)")
    if p > reach:
        remarks.append(f"the guide has p ≤ k − 1; here p′ = {minus(reach - p)} means cropping")
    if a >= s:
        remarks.append(f"a = {a} is no remainder of a division by {s}: no convolution of this stride leads back")
    number: int | None
    if a >= s:
        number, title, rule = None, "none of the guide's", "o′ = s(i′ − 1) + a + k − 2p"
    elif a:
        number, title, rule = 14, "zero padding, non-unit strides, transposed", "o′ = s(i′ − 1) + a + k − 2p"
    elif s > 1 and p:
        number, title, rule = 13, "zero padding, non-unit strides, transposed", "o′ = s(i′ − 1) + k − 2p"
    elif s > 1:
        number, title, rule = 12, "no zero padding, non-unit strides, transposed", "o′ = s(i′ − 1) + k"
    elif not p:
        number, title, rule = 8, "no zero padding, unit strides, transposed", "o′ = i′ + (k − 1)"
    elif 2 * p == reach:
        number, title, rule = 10, "half padding, transposed", "o′ = i′"
    elif p == reach:
        number, title, rule = 11, "full padding, transposed", "o′ = i′ − (k − 1)"
    else:
        number, title, rule = 9, "zero padding, unit strides, transposed", "o′ = i′ + (k − 1) − 2p"
    return Relationship(number, title, rule, "; ".join(remarks))


@dataclass(frozen=True, slots=True)
class EquivalentConvolution:
    """The convolution of stride 1 that a transposed convolution is, on scores with zeros between and around them.

    Its filter is the same one turned by 180° (which the guide does not say), with the same dilation.

    Args:
        zeros: between neighbouring scores, s − 1.
        before: p′ = d(k−1) − padding, rows and columns of zeros at the top and left; negative: that many are cropped.
        after: the same at the bottom and right, with output_padding added.
    """

    zeros: Pair
    before: Pair
    after: Pair


def equivalent_convolution(geom: ConvGeometry) -> EquivalentConvolution:
    """Zeros, p′ and crop of the direct convolution that gives the same (Dumoulin & Visin, relationships 8 to 14).

    In h = p·s + i·d − padding put i = k − 1 − i′: then h + i′·d = p·s + p′ with p′ = d(k−1) − padding. So row h
    gathers, through the turned filter, from row h + i′·d of a map in which score p lies at p·s + p′ and zeros
    everywhere else.

    >>> equivalent_convolution(layer(5, kernel=3, stride=2, padding=1, output_padding=1))
    EquivalentConvolution(zeros=(1, 1), before=(1, 1), after=(2, 2))
    """
    height, width = (d * (k - 1) - p for d, k, p in zip(geom.dilation, geom.w_hw, geom.padding, strict=True))
    below, beside = output_padding(geom)
    return EquivalentConvolution(
        (geom.stride[0] - 1, geom.stride[1] - 1), (height, width), (height + below, width + beside)
    )


@dataclass(frozen=True, slots=True)
class Phase:
    """The rows (or columns) of the image with the same remainder, and the taps that reach them.

    Args:
        phase: φ = (h + padding) mod s.
        taps: the filter rows i with i·d ≡ φ (mod s); none, where the filter leaves a hole.
        rows: the rows h.
    """

    phase: int
    taps: range
    rows: range


def phases(geom: ConvGeometry, axis: int) -> tuple[Phase, ...]:
    """The s phases along an axis (Shi et al. 2016).

    Row h and tap i meet at a score only where s divides h + padding − i·d. So the rows of one phase are an ordinary
    convolution of the scores with the taps of that phase.

    With g = gcd(s, d), i·d ≡ φ has a solution only where g divides φ; solutions are s/g apart. So at most every g-th
    phase is reached, and the others are holes.

    >>> [list(phase.taps) for phase in phases(layer(5, kernel=3, stride=2, padding=1), 0)]
    [[0, 2], [1]]
    """
    k, s, p, d = geom.w_hw[axis], geom.stride[axis], geom.padding[axis], geom.dilation[axis]
    g = gcd(s, d)
    step = s // g
    found = []
    for phase in range(s):
        first = phase // g * pow(d // g, -1, step) % step if phase % g == 0 else k
        found.append(Phase(phase, range(first, k, step), range((phase - p) % s, geom.x_hw[axis], s)))
    return tuple(found)


def feeding(geom: ConvGeometry, axis: int, h: int) -> list[tuple[int, int]]:
    """(p, i) for every score row p that feeds image row h, and the tap i through which it does.

    >>> feeding(layer(5, kernel=3, stride=2, padding=1), 0, 1)
    [(1, 0), (0, 2)]
    """
    s, d = geom.stride[axis], geom.dilation[axis]
    found = []
    for i in range(geom.w_hw[axis]):
        p, rest = divmod(h + geom.padding[axis] - i * d, s)
        if rest == 0 and 0 <= p < geom.y_hw[axis]:
            found.append((p, i))
    return found


def reached(geom: ConvGeometry, axis: int, p: int) -> list[tuple[int, int]]:
    """(h, i) for every image row h that score row p reaches, and the tap i through which it does.

    >>> reached(layer(5, kernel=3, stride=2, padding=1), 0, 0)
    [(0, 1), (1, 2)]
    """
    rows = [(p * geom.stride[axis] + i * geom.dilation[axis] - geom.padding[axis], i) for i in range(geom.w_hw[axis])]
    return [(h, i) for h, i in rows if 0 <= h < geom.x_hw[axis]]


def pytorch_line(geom: ConvGeometry) -> str:
    """The PyTorch layer with this geometry, to copy.

    >>> pytorch_line(layer(5, kernel=(3, 2), stride=2, padding=1))
    'torch.nn.ConvTranspose2d(1, 1, kernel_size=(3, 2), stride=2, padding=1, output_padding=0, dilation=1, bias=False)'
    """
    arguments = {
        "kernel_size": geom.w_hw,
        "stride": geom.stride,
        "padding": geom.padding,
        "output_padding": output_padding(geom),
        "dilation": geom.dilation,
    }
    words = [f"{name}={a if a == b else (a, b)}" for name, (a, b) in arguments.items()]
    return f"torch.nn.ConvTranspose2d({geom.o}, {geom.c}, {', '.join(words)}, bias=False)"

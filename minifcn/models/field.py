"""Which pixels a cell sees: the receptive field of a stack of layers, in integers.

By h = p·s + i·d − padding, cell p of a layer sees k cells of its input, from p·s − padding on, d apart. If cell u of
the input itself sees the `size` pixels from start + jump·u on, then cell p sees the pixels from

    start + jump·(p·s − padding)     to     start + jump·(p·s − padding + d·(k − 1)) + size − 1

so that, beginning with a pixel that sees itself (size 1, jump 1, start 0), each layer does

    size  += d·(k − 1)·jump
    start −= padding·jump
    jump  *= s

and the middle of the field, start + (size − 1)/2 + jump·u, is where CoordMap says that cell u lies.

Reference: Long, Shelhamer & Darrell 2015, §3: f(k, s) after g(k′, s′) is one filter (k′ + (k − 1)·s′, s·s′).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from minifcn import nn
from minifcn.geometry import Pair, pair

OP = "receptive_field"
Layer = nn.Module | tuple[int | Pair, ...]  # or (kernel, stride, padding[, dilation])
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
POINTWISE = (nn.ReLU, nn.Sigmoid, nn.BatchNorm2d, nn.LocalResponseNorm, nn.Dropout, nn.Dropout2d, nn.Identity)


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """Cell u sees the `size` pixels from start + stride·u on, per axis (height, width).

    Pixels before 0 and beyond the image are padding. With dilation, not every pixel in between need be seen.
    """

    size: Pair
    stride: Pair
    start: Pair


@dataclass(frozen=True, slots=True)
class Window:
    """A layer's cell p sees the cells p·stride + i·dilation − padding of its input, i = 0 … kernel − 1, per axis."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)


def receptive_field(layers: Iterable[Layer]) -> ReceptiveField:
    """The field of the last layer's cells in the first layer's input (derived at the top of this file).

    Args:
        layers: in order; each an nn.Conv2d, MaxPool2d or AvgPool2d, an nn.ConvTranspose2d of stride 1, a layer that
            works on each pixel alone (ReLU, BatchNorm2d, …), an nn.Sequential of these, or a tuple (kernel, stride,
            padding) or (kernel, stride, padding, dilation) of ints or pairs.

    Returns:
        Size, stride and start in pixels, per axis.

    Raises:
        ValueError: a transposed convolution of greater stride: its cells take turns in what they see. `seen` has the
            answer for one of them. TypeError: a layer of another kind.

    >>> receptive_field([(7, 2, 3), (3, 2, 1)])
    ReceptiveField(size=(11, 11), stride=(4, 4), start=(-5, -5))
    """
    size, jump, start = [1, 1], [1, 1], [0, 0]
    for layer in _each(layers):
        w = window(layer)
        for axis in range(2):
            size[axis] += w.dilation[axis] * (w.kernel[axis] - 1) * jump[axis]
            start[axis] -= w.padding[axis] * jump[axis]
            jump[axis] *= w.stride[axis]
    return ReceptiveField((size[0], size[1]), (jump[0], jump[1]), (start[0], start[1]))


def seen(layers: Iterable[Layer], cell: int, axis: int = 0) -> tuple[int, ...]:
    """The pixels that one cell sees along an axis, transposed convolutions of any stride included.

    Read backwards, a convolution's cell p comes from all p·s + i·d − padding, and a transposed convolution's pixel h
    from the p with p·s + i·d − padding = h: (h + padding − i·d)/s for those i that make it whole.

    Args:
        layers: as for receptive_field.
        cell: of the last layer's output, along the axis.
        axis: 0 for the height, 1 for the width.

    Returns:
        Pixels in rising order, those in the padding included (below 0; sizes are not known here).

    Raises:
        TypeError: a layer of another kind.

    >>> up = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1)
    >>> seen([up], 4), seen([up], 5)
    ((2,), (2, 3))
    """
    cells = {cell}
    for layer in reversed(_each(layers)):
        transposed = isinstance(layer, nn.ConvTranspose2d)
        w = _parameters(layer)
        stride, padding = w.stride[axis], w.padding[axis]
        reach = [i * w.dilation[axis] for i in range(w.kernel[axis])]
        if transposed:
            cells = {(h + padding - r) // stride for h in cells for r in reach if (h + padding - r) % stride == 0}
        else:
            cells = {p * stride + r - padding for p in cells for r in reach}
    return tuple(sorted(cells))


def sees(layer: Layer, cells: Pair, axis: int) -> Pair:
    """The first and last cell of a layer's input that the cells from the first to the last of `cells` see.

    As `seen`, for a row of neighbours and one layer, without the list in between.

    Args:
        layer: as for receptive_field, transposed convolutions of any stride included.
        cells: (first, last) of the layer's output, along the axis.
        axis: 0 for the height, 1 for the width.

    Raises:
        TypeError: a layer of another kind.

    >>> sees(nn.Conv2d(1, 1, 3, stride=2, padding=1), (0, 4), axis=0)
    (-1, 9)
    >>> sees(nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1), (0, 4), axis=0)
    (-1, 2)
    """
    w = _parameters(layer)
    stride, padding, span = w.stride[axis], w.padding[axis], w.dilation[axis] * (w.kernel[axis] - 1)
    first, last = cells
    if isinstance(layer, nn.ConvTranspose2d):
        return -((span - first - padding) // stride), (last + padding) // stride
    return first * stride - padding, last * stride + span - padding


def window(layer: Layer) -> Window:
    """What a layer's cells see of its input.

    A transposed convolution of stride 1 is a convolution with padding d·(k − 1) − padding (Dumoulin & Visin 2016,
    relationship 9). With a greater stride each of its s phases sees other inputs, and no stride·p + start says which.

    Raises ValueError for such a layer, TypeError for one of another kind.

    >>> window(nn.MaxPool2d(3, 2, padding=1))
    Window(kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1))
    """
    w = _parameters(layer)
    if not isinstance(layer, nn.ConvTranspose2d):
        return w
    if w.stride != (1, 1):
        raise ValueError(
            f"{OP}: the cells of a transposed convolution of stride {w.stride} take turns in what they see, and have "
            "no field in common; seen(layers, cell) lists what one cell sees"
        )
    height, width = (d * (k - 1) - p for k, p, d in zip(w.kernel, w.padding, w.dilation, strict=True))
    return Window(w.kernel, w.stride, (height, width), w.dilation)


def _each(layers: Iterable[Layer]) -> list[Layer]:
    """The layers, those inside of Sequential one by one."""
    found: list[Layer] = []
    for layer in layers:
        found += _each(layer) if isinstance(layer, nn.Sequential) else [layer]
    return found


def _parameters(layer: Layer) -> Window:
    """Kernel, stride, padding and dilation as they were given, a transposed convolution's too."""
    if isinstance(layer, POINTWISE):
        return Window((1, 1), (1, 1), (0, 0))
    padding: int | Pair | str
    if isinstance(layer, tuple) and len(layer) in (3, 4):
        kernel, stride, padding, dilation = (*layer, 1)[:4]
    elif isinstance(layer, (*WINDOWS, nn.ConvTranspose2d)):
        kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
        dilation = 1 if isinstance(layer, nn.AvgPool2d) else layer.dilation
    else:
        what = layer if isinstance(layer, tuple) else f"a {type(layer).__name__}"
        raise TypeError(
            f"{OP}: a layer is {what}; a convolution, a pooling, a layer that works on each pixel alone, or a tuple "
            "(kernel, stride, padding[, dilation]) is needed"
        )
    kernels, dilations = pair(kernel, OP, "kernel", 1), pair(dilation, OP, "dilation", 1)
    if isinstance(padding, str):  # an odd row of "same" is at the end
        spans = [d * (k - 1) for k, d in zip(kernels, dilations, strict=True)]
        padding = (spans[0] // 2, spans[1] // 2) if padding == "same" else 0
    return Window(kernels, pair(stride, OP, "stride", 1), pair(padding, OP, "padding", 0), dilations)

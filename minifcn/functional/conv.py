"""Convolution and transposed convolution: three primitives, each of which is a gradient of the other two; unfold, fold.

    B(x, w, y) = Σ x[n,c,h,v] · w[o,c,i,j] · y[n,o,p,q]        h = p·sh + i·dh − ph,   v = q·sw + j·dw − pw

is linear in x, in w and in y, and conv2d, conv_transpose2d and conv2d_weight are ∂B/∂y, ∂B/∂x and ∂B/∂w (geometry.py).
Take gy, the cotangent of conv2d's result. ⟨conv2d(x, w), gy⟩ = B(x, w, gy), so its gradient in x is ∂B/∂x at (w, gy):
conv_transpose2d(gy, w). The six rules below are this sentence for each kernel and argument, and they close the set:
derivatives of every order need nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from minifcn import kernels
from minifcn.array import module_of
from minifcn.autograd import Primitive, Tensor, is_grad_enabled
from minifcn.functional._checks import (
    batched,
    choice,
    floats,
    integer,
    not_empty,
    optional,
    tensor,
    unbatched,
)
from minifcn.functional.arithmetic import expand
from minifcn.functional.shape import index, pad, reshape
from minifcn.geometry import ConvGeometry, Pair, PoolGeometry, conv_transpose_output_size, pair

conv2d_p = Primitive("conv2d(x, w) -> y")
conv_transpose2d_p = Primitive("conv_transpose2d(y, w) -> x")
conv2d_weight_p = Primitive("conv2d_weight(x, y) -> w")

conv2d_rules = (
    lambda gy, w, geom: conv_transpose2d_p(gy, w, geom=geom),
    lambda gy, x, geom: conv2d_weight_p(x, gy, geom=geom),
)
conv_transpose2d_rules = (
    lambda gx, w, geom: conv2d_p(gx, w, geom=geom),
    lambda gx, y, geom: conv2d_weight_p(gx, y, geom=geom),
)
conv2d_p.defvjp(*conv2d_rules)
conv_transpose2d_p.defvjp(*conv_transpose2d_rules)
conv2d_weight_p.defvjp(
    lambda gw, y, geom: conv_transpose2d_p(y, gw, geom=geom),
    lambda gw, x, geom: conv2d_p(x, gw, geom=geom),
)

# cols (N,C·I·J,P·Q): the windows of x as columns, and back
unfold_p = Primitive("unfold(x) -> cols")
fold_p = Primitive("fold(cols) -> x")
unfold_p.defvjp(lambda gcols, geom: fold_p(gcols, geom=geom))
fold_p.defvjp(lambda gx, geom: unfold_p(gx, geom=geom))

# s[c] = Σ x[n,c,h,v], a bias's gradient; its own is the same number at every pixel
channel_sum_p = Primitive("channel_sum(x) -> s", lambda x, *, shape: kernels.run("channel_sum", x))
channel_sum_p.defvjp(lambda gs, shape: expand(reshape(gs, -1, 1, 1), shape))

# with a bias, which the kernels add while a score is still in the processor's cache
conv2d_bias_p = Primitive(
    "conv2d_bias(x, w, b) -> y", lambda x, w, b, *, geom: kernels.run("conv2d", x, w, b, geom=geom)
)
conv2d_bias_p.defvjp(*conv2d_rules, lambda gy: channel_sum_p(gy, shape=gy.shape))
conv_transpose2d_bias_p = Primitive(
    "conv_transpose2d_bias(y, w, b) -> x", lambda y, w, b, *, geom: kernels.run("conv_transpose2d", y, w, b, geom=geom)
)
conv_transpose2d_bias_p.defvjp(*conv_transpose2d_rules, lambda gx: channel_sum_p(gx, shape=gx.shape))


# without a gradient: for passes that are not recorded, in which nn/containers.py gives several layers to one kernel
conv2d_then_p = Primitive(
    "conv2d_then(x, w) -> y",
    lambda x, w, *, b, scale, add, relu, geom: kernels.run("conv2d", x, w, b, scale, add, geom=geom, relu=relu),
)


def _check_bias(op: str, channels: int, bias: Tensor | None) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"{op}: bias has shape {bias.shape} but there are {channels} output channels")


def _arguments(op: str, input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, weight and bias as Tensors of one float dtype; any of them may be an array."""
    x, w = tensor(op, "input", input), tensor(op, "weight", weight)
    b = optional(op, "bias", bias)
    floats(op, input=x, weight=w, bias=b)
    if w.ndim != 4:
        raise ValueError(f"{op}: weight has {w.ndim} axes, shape {w.shape}; 4 are needed")
    return x, w, b


def _has_pixels(op: str, x: Tensor) -> None:
    """Raises ValueError for an image without pixels, unless nothing at all is asked of it."""
    if x.size == 0 and 0 not in x.shape[:2]:
        raise ValueError(f"{op}: input has shape {x.shape}; only the batch may be empty")


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """input (N,C,H,W) or (C,H,W) → scores (N,O,P,Q), with P = ⌊(H + 2·padding − dilation·(I−1) − 1)/stride⌋ + 1.

    y[n,o,p,q] = Σ_{c,i,j} x[n, c, p·s + i·d − padding, q·s + j·d − padding] · w[o,c,i,j] + bias[o]

    In float32, 3×3 filters of stride 1 go by Winograd's F(4,3) where channels and sizes make it faster: relative errors
    of 2e-6 to 6e-6 instead of some 1e-7, in gradients too, and an infinite or NaN pixel spoils the scores of its tiles.
    `mf.using(conv2d="gemm", conv_transpose2d="gemm", conv2d_weight="gemm")` avoids it; mf.explain says what is chosen.

    Args:
        input: image, float32 or float64.
        weight: filter (O, C/groups, I, J).
        bias: (O,), or None.
        stride, padding, dilation: one int or (height, width); padding also "valid" (none) or "same" (P = H, needs
            stride 1; an odd total puts the extra row and column at the end).
        groups: input and output channels are cut into this many groups that do not see each other.

    Raises:
        ValueError: shapes, groups or sizes that do not fit, or no channels at all (for which PyTorch returns a tensor
            without channels, whatever O is). TypeError: mixed dtypes, or no tensors.

    Dumoulin & Visin 2016, relationships 6 and 15.

    >>> conv2d(Tensor([[[1.0, 2.0, 3.0]]]), Tensor([[[[1.0, -1.0]]]]))
    Tensor([[[-1., -1.]]], dtype=float32)
    """
    x, w, b, geom, single = _convolution(input, weight, bias, stride, padding, dilation, groups)
    return unbatched(conv2d_p(x, w, geom=geom) if b is None else conv2d_bias_p(x, w, b, geom=geom), single)


def conv2d_then(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    add: Tensor | None,
    relu: bool,
    stride: int | Pair,
    padding: int | Pair | str,
    dilation: int | Pair,
    groups: int,
) -> Tensor:
    """y = conv2d(input, weight)·scale + bias + add, and its positive part if `relu`: one kernel, without a gradient.

    bias and scale are (O,) or None, add is of the result's shape, or can be stretched to it, or None; the rest is as
    for conv2d. Raises RuntimeError where a gradient would be lost.
    """
    x, w, b, geom, single = _convolution(input, weight, bias, stride, padding, dilation, groups)
    after = {"b": b, "scale": scale, "add": add}
    if is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, w, *after.values())):
        raise RuntimeError("conv2d_then: it has no gradient, and its arguments require one; use no_grad()")
    arrays = {name: None if t is None else t.data for name, t in after.items()}
    if add is not None:
        try:
            arrays["add"] = module_of(add.data).broadcast_to(add.data, geom.y_shape)
        except ValueError:
            raise ValueError(f"conv2d: {add.shape} cannot be added to scores of shape {geom.y_shape}") from None
    return unbatched(conv2d_then_p(x, w, **arrays, relu=relu, geom=geom), single)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Pair,
    padding: int | Pair | str,
    dilation: int | Pair,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor | None, ConvGeometry, bool]:
    """conv2d's arguments, checked: image with a batch axis, weight, bias, geometry, and whether the axis is new."""
    x, w, b = _arguments("conv2d", input, weight, bias)
    x, single = batched("conv2d", x)
    _has_pixels("conv2d", x)
    strides, dilations = pair(stride, "conv2d", "stride", 1), pair(dilation, "conv2d", "dilation", 1)
    if isinstance(padding, str):
        choice("conv2d", "padding", padding, ("same", "valid"))
        x, paddings = _same(x, w, strides, dilations) if padding == "same" else (x, (0, 0))
    else:
        paddings = pair(padding, "conv2d", "padding", 0)
    groups = integer("conv2d", "groups", groups, 1)
    geom = ConvGeometry.of_conv(x.shape, w.shape, strides, paddings, dilations, groups, "conv2d")
    _check_bias("conv2d", geom.o, b)
    return x, w, b, geom, single


def _same(x: Tensor, w: Tensor, stride: Pair, dilation: Pair) -> tuple[Tensor, Pair]:
    """(x, padding) for as many scores as pixels: d(k−1) rows in all, half on each side and an odd one at the end."""
    if stride != (1, 1):
        raise ValueError(f'conv2d: padding is "same" with stride {stride}; it needs stride 1')
    height, width = (d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True))
    return pad(x, (0, width % 2, 0, height % 2)), (height // 2, width // 2)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    output_padding: int | Pair = 0,
    groups: int = 1,
    dilation: int | Pair = 1,
    *,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """input (N,O,P,Q) or (O,P,Q) → image (N,C,H,W), H = (P−1)·stride − 2·padding + dilation·(I−1) + output_padding + 1.

    x[n,c,h,v] = Σ w[o,c,i,j] · y[n,o,p,q] over all p·s + i·d − padding = h, q·s + j·d − padding = v: the adjoint of the
    conv2d with the same weight array and parameters, ⟨conv2d(x, w), y⟩ = ⟨x, conv_transpose2d(y, w)⟩.

    Args:
        input: scores, float32 or float64.
        weight: filter (O, C/groups, I, J): O input and C output channels, the layout of the matching conv2d's weight.
        bias: (C,), or None.
        stride, dilation: as in conv2d.
        padding: the matching conv2d's; here it *crops* the output.
        output_padding: which of the image sizes that conv2d sends to (P, Q) is meant: rows and columns at the end,
            fewer than stride or dilation. It adds no zeros around anything.
        output_size: (H, W) wanted, or the whole shape with them at its end, instead of output_padding.

    Raises:
        ValueError: shapes, groups or sizes that do not fit, or an output without pixels. TypeError: mixed dtypes, or no
            tensors.

    Dumoulin & Visin 2016, relationship 14.

    >>> conv_transpose2d(Tensor([[[1.0, 2.0]]]), Tensor([[[[1.0, 3.0]]]]), stride=2)
    Tensor([[[1., 3., 2., 6.]]], dtype=float32)
    """
    op = "conv_transpose2d"
    y, w, b = _arguments(op, input, weight, bias)
    y, single = batched(op, y)
    _has_pixels(op, y)
    strides, dilations = pair(stride, op, "stride", 1), pair(dilation, op, "dilation", 1)
    paddings, extra = pair(padding, op, "padding", 0), pair(output_padding, op, "output_padding", 0)
    if output_size is not None:
        if extra != (0, 0):
            raise ValueError(f"{op}: both output_size {output_size} and output_padding {extra}; one of them is enough")
        if isinstance(output_size, list | tuple) and len(output_size) == (3 if single else 4):
            output_size = output_size[-2:]
        wanted = pair(output_size, op, "output_size", 1)  # type: ignore[arg-type]
        extra = _output_padding(wanted, y.shape, w.shape, strides, paddings, dilations)
    groups = integer(op, "groups", groups, 1)
    geom = ConvGeometry.of_conv_transpose(y.shape, w.shape, strides, paddings, extra, dilations, groups, op)
    _check_bias(op, geom.c, b)
    image = conv_transpose2d_p(y, w, geom=geom) if b is None else conv_transpose2d_bias_p(y, w, b, geom=geom)
    return unbatched(image, single)


def _output_padding(
    wanted: Pair, y_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair
) -> Pair:
    """The output_padding that gives the wanted size; ValueError, with the possible sizes, where none does."""
    smallest = [
        conv_transpose_output_size(y_shape[2 + k], w_shape[2 + k], stride[k], padding[k], dilation[k], 0)
        for k in range(2)
    ]
    extra = [want - least for want, least in zip(wanted, smallest, strict=True)]
    if any(not 0 <= e < s for e, s in zip(extra, stride, strict=True)):
        largest = [least + s - 1 for least, s in zip(smallest, stride, strict=True)]
        raise ValueError(f"conv_transpose2d: output_size {wanted}; {tuple(smallest)} to {tuple(largest)} is possible")
    return extra[0], extra[1]


def crop(x: Tensor, start: Pair, size: Pair) -> Tensor:
    """Rows start[0] … start[0] + size[0] and likewise columns of x (…,H,W); its adjoint pads with zeros.

    Raises ValueError where they reach beyond x, or x has fewer than 2 axes.
    """
    x = tensor("crop", "x", x)
    if x.ndim < 2:
        raise ValueError(f"crop: x has {x.ndim} axes, shape {x.shape}; (…, H, W) is needed")
    starts, sizes = pair(start, "crop", "start", 0), pair(size, "crop", "size", 0)
    if any(s + n > full for s, n, full in zip(starts, sizes, x.shape[-2:], strict=True)):
        raise ValueError(f"crop: {sizes} from {starts} on reaches beyond {x.shape[-2:]}; a smaller part is needed")
    if starts == (0, 0) and sizes == x.shape[-2:]:
        return x
    return index(x, (..., slice(starts[0], starts[0] + sizes[0]), slice(starts[1], starts[1] + sizes[1])))


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(…, C·r², H, W) → (…, C, H·r, W·r): channel c·r² + a·r + b becomes pixel (a, b) of each r×r block.

    Raises ValueError where the channels are no multiple of r². Shi et al. 2016, eq. 4.
    """
    op = "pixel_shuffle"
    x = tensor(op, "input", input)
    r = integer(op, "upscale_factor", upscale_factor, 1)
    if x.ndim < 3:
        raise ValueError(f"{op}: input has {x.ndim} axes, shape {x.shape}; (…, C, H, W) is needed")
    *outer, channels, height, width = x.shape
    if channels % (r * r):
        raise ValueError(f"{op}: {channels} channels and upscale_factor {r}; a multiple of {r * r} is needed")
    blocks = reshape(x, *outer, channels // (r * r), r, r, height, width)
    k = len(outer)
    shuffled = blocks.permute(*range(k), k, k + 3, k + 1, k + 4, k + 2)  # (…, C, H, r, W, r)
    return reshape(shuffled, *outer, channels // (r * r), height * r, width * r)


def unfold(
    input: Tensor, kernel_size: int | Pair, dilation: int | Pair = 1, padding: int | Pair = 0, stride: int | Pair = 1
) -> Tensor:
    """input (N,C,H,W) or (C,H,W) → the windows that a convolution sees, as columns (N, C·I·J, P·Q): im2col.

    columns[n, c·I·J + i·J + j, p·Q + q] = x[n, c, p·s + i·d − padding, q·s + j·d − padding], 0 in the padding. A
    convolution is then one matrix product, w (O, C·I·J) @ columns.

    Args:
        input: float32 or float64.
        kernel_size, dilation, padding, stride: one int or (height, width), as in conv2d.

    Raises:
        ValueError: no window fits, or a parameter is out of range. TypeError: not a float tensor.

    >>> unfold(Tensor([[[1.0, 2.0, 3.0]]]), (1, 2))
    Tensor([[1., 2.],
            [2., 3.]], dtype=float32)
    """
    op = "unfold"
    x, single = batched(op, tensor(op, "input", input))
    floats(op, input=x)
    not_empty(op, x)
    w_hw, strides, paddings, dilations = _windows(op, kernel_size, stride, padding, dilation)
    geom = PoolGeometry.of_unfold(x.shape, w_hw, strides, paddings, dilations, op)
    return unbatched(unfold_p(x, geom=geom), single)


def fold(
    input: Tensor,
    output_size: int | Pair,
    kernel_size: int | Pair,
    dilation: int | Pair = 1,
    padding: int | Pair = 0,
    stride: int | Pair = 1,
) -> Tensor:
    """Columns (N, C·I·J, P·Q) or (C·I·J, P·Q) → image (N,C,H,W): every value added to where unfold read it, col2im.

    It is the adjoint of unfold, ⟨unfold(x), t⟩ = ⟨x, fold(t)⟩, and not its inverse: a pixel that m windows see comes
    back m times.

    Args:
        input: columns, float32 or float64.
        output_size: (H, W) of the image, or one int.
        kernel_size, dilation, padding, stride: as in unfold.

    Raises:
        ValueError: sizes that do not fit, or a parameter out of range. TypeError: not a float tensor.

    >>> fold(Tensor([[1.0, 2.0], [2.0, 3.0]]), (1, 3), (1, 2))
    Tensor([[[1., 4., 3.]]], dtype=float32)
    """
    op = "fold"
    cols = tensor(op, "input", input)
    floats(op, input=cols)
    if cols.ndim not in (2, 3):
        raise ValueError(
            f"{op}: input has {cols.ndim} axes, shape {cols.shape}; (N, C·I·J, P·Q) or without N is needed"
        )
    single = cols.ndim == 2
    cols = reshape(cols, 1, *cols.shape) if single else cols
    x_hw = pair(output_size, op, "output_size", 1)
    w_hw, strides, paddings, dilations = _windows(op, kernel_size, stride, padding, dilation)
    taps = w_hw[0] * w_hw[1]
    n, rows, count = cols.shape
    if rows < 1 or rows % taps:
        raise ValueError(
            f"{op}: input has {rows} rows and the kernel {taps} taps — input {input.shape}; a multiple is needed"
        )
    geom = PoolGeometry.of_unfold((n, rows // taps, *x_hw), w_hw, strides, paddings, dilations, op)
    if geom.columns_shape[2] != count:
        raise ValueError(
            f"{op}: input has {count} columns, but {geom.y_hw[0]}·{geom.y_hw[1]} = {geom.columns_shape[2]} windows of "
            f"{w_hw} fit an image of {x_hw} with stride {strides}, padding {paddings}, dilation {dilations}"
        )
    return unbatched(fold_p(cols, geom=geom), single)


def _windows(
    op: str, kernel_size: int | Pair, stride: int | Pair, padding: int | Pair, dilation: int | Pair
) -> tuple[Pair, Pair, Pair, Pair]:
    """(kernel_size, stride, padding, dilation) as pairs."""
    return (
        pair(kernel_size, op, "kernel_size", 1),
        pair(stride, op, "stride", 1),
        pair(padding, op, "padding", 0),
        pair(dilation, op, "dilation", 1),
    )

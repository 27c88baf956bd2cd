"""A layer for each function: it owns the parameters, and the function does the work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

import minifcn.functional as F
from minifcn.array import Array
from minifcn.autograd import Tensor
from minifcn.functional._checks import choice, integer, optional, probability, tensor
from minifcn.geometry import CoordMap, Pair, pair
from minifcn.nn import init
from minifcn.nn.module import Module, Parameter


class _Conv(Module):
    """What Conv2d and ConvTranspose2d share: sizes, weight and bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair,
        padding: int | Pair | str,
        dilation: int | Pair,
        groups: int,
        bias: bool,
        transposed: bool,
    ) -> None:
        super().__init__()
        op = type(self).__name__
        self.in_channels = integer(op, "in_channels", in_channels, 1)
        self.out_channels = integer(op, "out_channels", out_channels, 1)
        self.groups = integer(op, "groups", groups, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"{op}: groups={groups} does not divide {in_channels} and {out_channels} channels")
        self.kernel_size = pair(kernel_size, op, "kernel_size", 1)
        self.stride, self.dilation = pair(stride, op, "stride", 1), pair(dilation, op, "dilation", 1)
        self.padding = padding if isinstance(padding, str) else pair(padding, op, "padding", 0)
        if isinstance(padding, str):
            choice(op, "padding", padding, ("same", "valid"))
            if padding == "same" and self.stride != (1, 1):
                raise ValueError(f'{op}: padding is "same" with stride {self.stride}; it needs stride 1')
        first, second = (self.in_channels, self.out_channels) if transposed else (self.out_channels, self.in_channels)
        shape = (first, second // self.groups, *self.kernel_size)
        bound = 1 / math.sqrt(max(init.fans(shape)[0], 1))
        self.weight = Parameter(init.uniform(shape, bound))
        self.register_parameter("bias", Parameter(init.uniform((out_channels,), bound)) if bias else None)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )


class Conv2d(_Conv):
    """F.conv2d with weight (O, C/groups, I, J) and bias (O,), both uniform in ±1/√fan_in at first (as in PyTorch)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, False)

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,H,W) → (N,O,P,Q)."""
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def coord_map(self, before: CoordMap) -> CoordMap:
        """Where the output's cells lie, given where the input's do."""
        if isinstance(self.padding, str):
            spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            padding = (spans[0] // 2, spans[1] // 2) if self.padding == "same" else (0, 0)
        else:
            padding = self.padding
        return before.then_conv(self.kernel_size, self.stride, padding, self.dilation)


class ConvTranspose2d(_Conv):
    """F.conv_transpose2d with weight (C_in, C_out/groups, I, J) and bias (C_out,)."""

    padding: Pair

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        output_padding: int | Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Pair = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, True)
        self.output_padding = pair(output_padding, "ConvTranspose2d", "output_padding", 0)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N,C_in,P,Q) → (N,C_out,H,W); output_size asks for one of the possible (H,W)."""
        return F.conv_transpose2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            0 if output_size is not None else self.output_padding,
            self.groups,
            self.dilation,
            output_size=output_size,
        )

    def coord_map(self, before: CoordMap) -> CoordMap:
        """Where the output's cells lie, given where the input's do."""
        return before.then_conv_transpose(self.kernel_size, self.stride, self.padding, self.dilation)


class MaxPool2d(Module):
    """F.max_pool2d."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N,C,H,W) → (N,C,P,Q), with the indices if asked for."""
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def coord_map(self, before: CoordMap) -> CoordMap:
        """Where the output's cells lie, given where the input's do."""
        return before.then_conv(self.kernel_size, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}"
        )


class MaxUnpool2d(Module):
    """F.max_unpool2d: each value back to where MaxPool2d(…, return_indices=True) took it from, zeros elsewhere.

    Args: kernel_size, stride, padding: those of the pooling. Several image sizes pool to the same size; forward's
    output_size says which one is meant.

    >>> x = Tensor([[[1.0, 5.0], [2.0, 3.0]]])
    >>> y, indices = MaxPool2d(2, return_indices=True)(x)
    >>> MaxUnpool2d(2)(y, indices)
    Tensor([[[0., 5.],
             [0., 0.]]], dtype=float32)
    """

    def __init__(self, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding = padding

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N,C,P,Q) and the indices → (N,C,H,W); output_size asks for one of the possible (H,W)."""
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(Module):
    """F.avg_pool2d."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,H,W) → (N,C,P,Q)."""
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AdaptiveAvgPool2d(Module):
    """F.adaptive_avg_pool2d."""

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,H,W) → (N,C,P,Q)."""
        return F.adaptive_avg_pool2d(input, self.output_size)


class BatchNorm2d(Module):
    """F.batch_norm with running statistics: the batch's in training, the running ones otherwise.

    `gather` is None, or what F.batch_norm takes to know the statistics of other processes; `synchronize_batch_norm`
    sets it.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        num_features = integer("BatchNorm2d", "num_features", num_features, 0)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.gather: Callable[[Array], Array] | None = None
        ones, zeros = (f(num_features, np.float32) for f in (np.ones, np.zeros))
        self.register_parameter("weight", Parameter(ones) if affine else None)
        self.register_parameter("bias", Parameter(zeros) if affine else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", Tensor(np.zeros(num_features, np.float32)) if tracked else None)
        self.register_buffer("running_var", Tensor(np.ones(num_features, np.float32)) if tracked else None)
        self.register_buffer("num_batches_tracked", Tensor(np.zeros((), np.int64)) if tracked else None)

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,H,W) → the same shape. momentum=None averages over all batches seen."""
        if tensor("BatchNorm2d", "input", input).ndim != 4:
            raise ValueError(f"BatchNorm2d: input has {input.ndim} axes, shape {input.shape}; (N, C, H, W) is needed")
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            with cast(Tensor, self.num_batches_tracked).writing() as count:
                count += 1
                momentum = 1 / int(count) if momentum is None else momentum
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training or self.running_mean is None,
            momentum=0.0 if momentum is None else momentum,
            eps=self.eps,
            gather=self.gather,
        )

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


def synchronize_batch_norm(module: Module, gather: Callable[[Array], Array] | None) -> None:
    """Every BatchNorm2d of a module normalises in training with the statistics of all processes' images (PyTorch's
    SyncBatchNorm), or with None with those of its own again.

    Args:
        module: the same on every process, and called by all with images at the same time.
        gather: the arrays of all processes (…) → (size, …), as `minifcn.training.World.gather`.
    """
    for layer in module.modules():
        if isinstance(layer, BatchNorm2d):
            layer.gather = gather


class LocalResponseNorm(Module):
    """F.local_response_norm."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,…) → the same shape."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class Linear(Module):
    """F.linear with weight (O, C) and bias (O,)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = integer("Linear", "in_features", in_features, 0)
        self.out_features = integer("Linear", "out_features", out_features, 0)
        bound = 1 / math.sqrt(max(in_features, 1))
        self.weight = Parameter(init.uniform((out_features, in_features), bound))
        self.register_parameter("bias", Parameter(init.uniform((out_features,), bound)) if bias else None)

    def forward(self, input: Tensor) -> Tensor:
        """(…, C) → (…, O)."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class ReLU(Module):
    """F.relu. `inplace` is accepted for PyTorch's sake and changes nothing: results never overwrite their arguments."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """Any shape."""
        return F.relu(input)


class Sigmoid(Module):
    """F.sigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape."""
        return F.sigmoid(input)


class Softmax(Module):
    """F.softmax along dim. PyTorch guesses a dim that is not given; here it must be."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Any shape that has the axis dim."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """F.log_softmax along dim."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape that has the axis dim."""
        return F.log_softmax(input, self.dim)


class Flatten(Module):
    """Axes start_dim … end_dim as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """(N, …) → (N, all the rest), by default."""
        return tensor("Flatten", "input", input).flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class ZeroPad2d(Module):
    """F.pad with zeros: one count for all sides, or (left, right, top, bottom); negative counts crop."""

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        super().__init__()
        self.padding = tuple(padding) if isinstance(padding, tuple | list) else (padding,) * 4

    def forward(self, input: Tensor) -> Tensor:
        """(…,H,W) → (…, H + top + bottom, W + left + right)."""
        return F.pad(input, self.padding)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class PixelShuffle(Module):
    """F.pixel_shuffle."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """(…, C·r², H, W) → (…, C, H·r, W·r)."""
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class Unfold(Module):
    """F.unfold: the windows of an image as columns."""

    def __init__(
        self, kernel_size: int | Pair, dilation: int | Pair = 1, padding: int | Pair = 0, stride: int | Pair = 1
    ) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,H,W) → (N, C·I·J, P·Q)."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Unfold):
    """F.fold: columns added up to an image."""

    def __init__(
        self,
        output_size: int | Pair,
        kernel_size: int | Pair,
        dilation: int | Pair = 1,
        padding: int | Pair = 0,
        stride: int | Pair = 1,
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """(N, C·I·J, P·Q) → (N,C,H,W)."""
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"{self.output_size}, {super().extra_repr()}"


class Identity(Module):
    """The input itself."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape."""
        return input


class Dropout(Module):
    """F.dropout in training, nothing otherwise. `inplace` is accepted for PyTorch's sake and changes nothing."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = probability(type(self).__name__, p)

    def forward(self, input: Tensor) -> Tensor:
        """Any shape."""
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout2d(Dropout):
    """F.dropout2d in training, nothing otherwise."""

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,H,W)."""
        return F.dropout2d(input, self.p, self.training)


class CrossEntropyLoss(Module):
    """F.cross_entropy."""

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        self.register_buffer("weight", optional(type(self).__name__, "weight", weight))
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (N,C,…) and labels (N,…) → the loss."""
        return F.cross_entropy(input, target, self.weight, self.ignore_index, self.reduction)


class NLLLoss(CrossEntropyLoss):
    """F.nll_loss."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities (N,C,…) and labels (N,…) → the loss."""
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class Upsample(Module):
    """F.interpolate."""

    def __init__(
        self,
        size: int | Pair | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,H,W) → (N,C,P,Q)."""
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)

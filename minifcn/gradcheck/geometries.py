"""The geometries that kernels, adjoints, gradients and errors are tested on: one table for all."""

from __future__ import annotations

from dataclasses import dataclass

from minifcn.geometry import ConvGeometry, Pair, PoolGeometry


@dataclass(frozen=True)
class ConvCase:
    """One convolution: image, filter, and parameters; the transposed one with the same geometry."""

    name: str
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def geom(self) -> ConvGeometry:
        return ConvGeometry.of_conv(self.x, self.w, self.stride, self.padding, self.dilation, self.groups, "test")

    @property
    def output_padding(self) -> Pair:
        """What the transposed convolution must be told to return exactly x's size."""
        geom = self.geom
        extra = [
            size - ((p - 1) * s - 2 * pad + d * (k - 1) + 1)
            for size, p, s, pad, d, k in zip(
                geom.x_hw, geom.y_hw, geom.stride, geom.padding, geom.dilation, geom.w_hw, strict=True
            )
        ]
        return extra[0], extra[1]


CONV_CASES = [
    ConvCase("plain", (2, 3, 6, 5), (4, 3, 3, 2)),
    ConvCase("same", (1, 2, 5, 6), (3, 2, 3, 3), padding=(1, 1)),
    ConvCase("full", (2, 1, 3, 9), (2, 1, 3, 3), padding=(2, 2)),
    ConvCase("pointwise", (2, 4, 3, 5), (3, 4, 1, 1)),
    ConvCase("pointwise strided", (2, 3, 5, 4), (2, 3, 1, 1), stride=(2, 2)),
    ConvCase("strided, last row unused", (1, 2, 8, 7), (3, 2, 3, 3), stride=(2, 2), padding=(1, 1)),
    ConvCase("stride per axis", (2, 2, 9, 7), (2, 2, 2, 3), stride=(3, 2), padding=(0, 1)),
    ConvCase("dilated", (1, 2, 9, 8), (2, 2, 3, 3), dilation=(2, 3), padding=(2, 1)),
    ConvCase("dilated and strided", (2, 1, 10, 9), (2, 1, 3, 2), stride=(2, 3), dilation=(2, 2), padding=(1, 0)),
    ConvCase("groups", (2, 4, 5, 5), (6, 2, 3, 3), padding=(1, 1), groups=2),
    ConvCase("depthwise strided", (1, 3, 7, 6), (6, 1, 3, 3), stride=(2, 1), padding=(1, 2), groups=3),
    ConvCase("one filter per channel", (2, 3, 9, 8), (3, 1, 4, 3), stride=(2, 3), padding=(1, 2), groups=3),
    ConvCase("one dilated filter per channel", (1, 2, 7, 8), (2, 1, 2, 3), dilation=(3, 2), padding=(2, 1), groups=2),
    ConvCase("padding beyond the kernel", (1, 2, 3, 4), (2, 2, 2, 2), padding=(4, 3)),
    ConvCase("stem 7x7", (1, 3, 11, 12), (4, 3, 7, 7), stride=(2, 2), padding=(3, 3)),
    ConvCase("upsampler 4x4 stride 2", (1, 2, 8, 6), (3, 2, 4, 4), stride=(2, 2), padding=(1, 1)),
    ConvCase("stride beyond the kernel", (1, 2, 9, 8), (2, 2, 2, 2), stride=(4, 3)),
    ConvCase("large filter on a small map", (2, 3, 4, 3), (40, 3, 5, 5), padding=(2, 2)),
    ConvCase("one pixel", (2, 3, 1, 1), (4, 3, 1, 1)),
]


@dataclass(frozen=True)
class PoolCase:
    """One pooling."""

    name: str
    x: tuple[int, int, int, int]
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    @property
    def geom(self) -> PoolGeometry:
        return PoolGeometry.of_pool(
            self.x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, "test"
        )


POOL_CASES = [
    PoolCase("2x2/2", (2, 3, 6, 4), (2, 2), (2, 2)),
    PoolCase("2x2/2 odd, floor", (1, 2, 5, 7), (2, 2), (2, 2)),
    PoolCase("2x2/2 odd, ceil", (1, 2, 5, 7), (2, 2), (2, 2), ceil_mode=True),
    PoolCase("3x3/2 padded", (2, 2, 7, 8), (3, 3), (2, 2), padding=(1, 1)),
    PoolCase("3x2/1 overlapping", (1, 2, 5, 5), (3, 2), (1, 1)),
    PoolCase("ceil drops a window in the padding", (1, 1, 4, 5), (2, 2), (3, 2), padding=(1, 1), ceil_mode=True),
    PoolCase("stride beyond the kernel", (1, 2, 8, 9), (2, 2), (3, 4)),
    PoolCase("global", (2, 2, 3, 4), (3, 4), (3, 4)),
]
DILATED_POOL = PoolCase("dilated", (1, 2, 8, 7), (2, 3), (2, 1), padding=(1, 1), dilation=(2, 2))

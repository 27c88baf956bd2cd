"""Random geometries, valid and invalid, for the property tests: what hypothesis draws, and what must come of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import strategies as st

Pair = tuple[int, int]
COUNTS: Counter[str] = Counter()  # what was compared; printed at the end of the run


def pairs(low: int, high: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@dataclass(frozen=True)
class Conv:
    """One convolution, or the transposed one that maps the other way. `hw` is the size of its input."""

    n: int
    groups: int
    c: int  # channels of the image in each group
    o: int  # channels of the scores in each group
    hw: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    output_padding: Pair = (0, 0)

    @property
    def weight(self) -> tuple[int, int, int, int]:
        return (self.o * self.groups, self.c, *self.kernel)

    @property
    def scores(self) -> Pair:
        """The convolution's output, from counting: how often a window of the dilated kernel can be put down."""
        counts = [
            len([p for p in range(h + 2 * pad) if p % s == 0 and p + d * (k - 1) < h + 2 * pad])
            for h, k, s, pad, d in zip(self.hw, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        ]
        return counts[0], counts[1]

    @property
    def image(self) -> Pair:
        """The transposed convolution's output: where the last window ends, less the padding cut off at both ends."""
        sizes = [
            max(p * s + d * (k - 1) for p in range(n)) + 1 - 2 * pad + extra
            for n, k, s, pad, d, extra in zip(
                self.hw, self.kernel, self.stride, self.padding, self.dilation, self.output_padding, strict=True
            )
        ]
        return sizes[0], sizes[1]


@st.composite
def convs(draw: st.DrawFn, transposed: bool = False) -> Conv:
    """Small enough for the index loops of `reference`, and often at the edge: empty batches, single pixels, kernels
    larger than the image, padding beyond the kernel, output_padding up to its limit and one beyond."""
    stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 3))
    limits = [max(s, d) for s, d in zip(stride, dilation, strict=True)]
    beyond = draw(st.integers(0, 9)) == 0
    extra = st.tuples(*(st.integers(0, limit if beyond else limit - 1) for limit in limits))
    return Conv(
        n=draw(st.sampled_from([1, 1, 1, 2, 0])),
        groups=draw(st.sampled_from([1, 1, 2, 3])),
        c=draw(st.integers(1, 2)),
        o=draw(st.integers(1, 2)),
        hw=draw(pairs(1, 4)) if transposed else draw(st.one_of(pairs(1, 8), pairs(5, 9))),
        kernel=draw(pairs(1, 4)),
        stride=stride,
        padding=draw(pairs(0, 3 if transposed else 4)),
        dilation=dilation,
        output_padding=draw(extra) if transposed else (0, 0),
    )


@dataclass(frozen=True)
class Pool:
    """One pooling."""

    n: int
    c: int
    hw: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil_mode: bool
    count_include_pad: bool
    divisor: int | None
    ties: bool


@st.composite
def pools(draw: st.DrawFn, dilated: bool) -> Pool:
    kernel = draw(pairs(1, 4))
    allowed = st.tuples(*(st.integers(0, k // 2) for k in kernel))
    padding = draw(pairs(0, 3)) if draw(st.integers(0, 9)) == 0 else draw(allowed)
    return Pool(
        n=draw(st.sampled_from([1, 2, 0])),
        c=draw(st.integers(1, 2)),
        hw=draw(st.one_of(pairs(1, 9), pairs(5, 9))),
        kernel=kernel,
        stride=draw(pairs(1, 4)),
        padding=padding,
        dilation=draw(pairs(1, 3)) if dilated else (1, 1),
        ceil_mode=draw(st.booleans()),
        count_include_pad=draw(st.booleans()),
        divisor=draw(st.sampled_from([None, None, 3])),
        ties=draw(st.booleans()),
    )


@dataclass(frozen=True)
class Resize:
    """One interpolation: to a size, or by factors."""

    hw: Pair
    size: Pair | None
    factors: tuple[float, float] | None
    mode: str
    align_corners: bool | None


@st.composite
def resizes(draw: st.DrawFn) -> Resize:
    mode = draw(st.sampled_from(["nearest", "bilinear"]))
    by_size = draw(st.booleans())
    quarters = st.integers(1, 14).map(lambda k: k / 4)  # exact in binary: both sides see the same factor
    return Resize(
        hw=draw(pairs(1, 7)),
        size=draw(pairs(1, 12)) if by_size else None,
        factors=None if by_size else draw(st.tuples(quarters, quarters)),
        mode=mode,
        align_corners=draw(st.sampled_from([None, False, True])) if mode == "bilinear" else None,
    )

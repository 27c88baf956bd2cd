"""Sizes and positions, against brute force and literals of the literature."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.geometry import (
    AxisMap,
    ConvGeometry,
    CoordMap,
    PoolGeometry,
    ResizeGeometry,
    conv_output_size,
    conv_transpose_output_size,
    pair,
    pool_output_size,
)

sizes, small, stride, padding = st.integers(1, 40), st.integers(1, 7), st.integers(1, 5), st.integers(0, 6)


@given(sizes, small, stride, padding, st.integers(1, 3))
def test_conv_size_counts_the_windows_that_fit(h: int, k: int, s: int, p: int, d: int) -> None:
    reach = d * (k - 1) + 1
    starts = [start for start in range(-p, h + p, s) if start + reach <= h + p]
    assert max(conv_output_size(h, k, s, p, d), 0) == len(starts)


@given(sizes, small, stride, padding, st.integers(1, 3))
def test_transposed_size_inverts_it_for_exactly_one_output_padding(h: int, k: int, s: int, p: int, d: int) -> None:
    """Dumoulin & Visin, relationship 14: output_padding is (h + 2p − d(k−1) − 1) mod s."""
    scores = conv_output_size(h, k, s, p, d)
    if scores < 1:
        return
    sizes = [conv_transpose_output_size(scores, k, s, p, d, a) for a in range(s)]
    assert [a for a, size in enumerate(sizes) if size == h] == [(h + 2 * p - d * (k - 1) - 1) % s]
    assert all(conv_output_size(size, k, s, p, d) == scores for size in sizes)


@given(sizes, small, stride, st.integers(0, 3), st.integers(1, 2), st.booleans())
def test_pool_size_counts_windows(h: int, k: int, s: int, p: int, d: int, ceil: bool) -> None:
    if 2 * p > k or h + 2 * p < d * (k - 1) + 1:
        return
    reach = d * (k - 1) + 1
    if ceil:  # until all rows are covered, but never a window that starts beyond image and left padding
        count = 1
        while (count - 1) * s + reach < h + 2 * p and count * s < h + p:
            count += 1
    else:
        count = len([start for start in range(-p, h + p, s) if start + reach <= h + p])
    assert pool_output_size(h, k, s, p, d, ceil) == count


@given(st.integers(1, 9), stride, padding, st.integers(1, 3), stride, st.integers(1, 9))
def test_coord_map_is_the_mean_position_of_the_window(k: int, s: int, p: int, d: int, s2: int, cell: int) -> None:
    """A cell's position is the mean of the pixels that it sees, through two layers."""
    first = [cell * s2 - 1 + i for i in range(3)]  # a 3-wide layer of stride s2, padding 1, on top
    pixels = [u * s - p + d * i for u in first for i in range(k)]
    m = AxisMap().then_conv(k, s, p, d).then_conv(3, s2, 1)
    assert m.scale * cell + m.offset == Fraction(sum(pixels), len(pixels))


@given(st.integers(1, 9), stride, padding, st.integers(1, 3))
def test_transposed_map_undoes_the_convolution_s(k: int, s: int, p: int, d: int) -> None:
    assert AxisMap().then_conv(k, s, p, d).then_conv_transpose(k, s, p, d) == AxisMap()


@given(st.integers(1, 16).map(lambda half: 2 * half))
def test_bilinear_upsampling_by_pixels_and_by_points(f: int) -> None:
    """k = 2f, p = f/2 keeps the image's edges in place; k = 2f − 1, p = f − 1 keeps pixel 0 in place."""
    even = AxisMap().then_conv_transpose(2 * f, f, f // 2)
    assert even.offset == -Fraction(f - 1, 2 * f)  # the first of f new pixels per pixel
    assert AxisMap().then_conv_transpose(2 * f - 1, f, f - 1).offset == 0


def test_crops_of_the_paper() -> None:
    """fcn.berkeleyvision.org's crops: 19 (32s); 5, 27 (16s); 5, 9, 31 (8s); 18 for AlexNet."""
    same = {"kernel": 3, "stride": 1, "padding": 1}
    pool = {"kernel": 2, "stride": 2, "padding": 0}
    at, pools = CoordMap().then_conv(3, 1, 100), []
    for depth in (2, 2, 3, 3, 3):
        for k in range(depth):
            at = at if k == 0 and not pools else at.then_conv(**same)
        at = at.then_conv(**pool)
        pools.append(at)
    fr = at.then_conv(7, 1, 0).then_conv(1, 1, 0)
    assert fr.then_conv_transpose(64, 32, 0).crop_onto(CoordMap())[0] == 19
    up2 = fr.then_conv_transpose(4, 2, 0)
    assert pools[3].crop_onto(up2)[0] == 5
    assert up2.then_conv_transpose(32, 16, 0).crop_onto(CoordMap())[0] == 27
    up4 = up2.then_conv_transpose(4, 2, 0)
    assert pools[2].crop_onto(up4)[0] == 9
    assert up4.then_conv_transpose(16, 8, 0).crop_onto(CoordMap())[1] == 31
    alex = CoordMap().then_conv(11, 4, 100).then_conv(3, 2, 0).then_conv(5, 1, 2).then_conv(3, 2, 0)
    alex = alex.then_conv(3, 1, 1).then_conv(3, 1, 1).then_conv(3, 1, 1).then_conv(3, 2, 0).then_conv(6, 1, 0)
    assert alex.then_conv_transpose(63, 32, 0).crop_onto(CoordMap()) == (18, 18)


def test_maps_of_different_scale_cannot_be_aligned() -> None:
    with pytest.raises(ValueError, match="cells are 2 pixels apart on one map and 1 on the other"):
        CoordMap().then_conv(2, 2, 0).crop_onto(CoordMap())
    assert CoordMap().then_crop((3, -2)).crop_onto(CoordMap()) == (-3, 2)


def test_pair() -> None:
    assert pair(2, "op", "stride", 1) == pair((2, 2), "op", "stride", 1) == pair([2], "op", "stride", 1) == (2, 2)
    for value, message in [(0, "stride is 0; at least 1"), ((1, 2, 3), "has 3 values"), ((1, -1), "at least 1")]:
        with pytest.raises(ValueError, match=message):
            pair(value, "op", "stride", 1)
    for value in (1.5, "same", True, None, (1, 2.0)):
        with pytest.raises(TypeError, match="op: stride is .*an int or a pair"):
            pair(value, "op", "stride", 1)  # type: ignore[arg-type]


CONV = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "op": "conv2d"}


@pytest.mark.parametrize(
    ("x", "w", "change", "message"),
    [
        ((2, 4, 9, 9), (8, 3, 3, 3), {}, "input has 4 channels but weight expects 3 — input .*weight"),
        ((2, 4, 9, 9), (8, 2, 3, 3), {"groups": 3}, "groups=3 does not divide 4 input and 8 output channels"),
        ((2, 4, 9, 9), (8, 4, 3, 3), {"groups": 0}, "groups=0 does not divide"),
        ((2, 4, 2, 9), (8, 4, 3, 3), {}, "padded input's height is 2 but the dilated kernel covers 3"),
        (
            (2, 4, 9, 9),
            (8, 4, 3, 3),
            {"dilation": (1, 9)},
            "padded input's width is 9 but the dilated kernel covers 19",
        ),
        ((2, 4, 9, 9), (8, 4, 0, 3), {}, "the kernel is empty"),
    ],
)
def test_conv_geometry_errors(x: tuple, w: tuple, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match="conv2d: .*" + message):
        ConvGeometry.of_conv(x, w, **{**CONV, **change})


@pytest.mark.parametrize(
    ("y", "w", "change", "message"),
    [
        ((2, 4, 3, 3), (3, 4, 3, 3), {}, "input has 4 channels but weight expects 3"),
        ((2, 4, 3, 3), (4, 4, 3, 3), {"output_padding": (0, 1)}, "output_padding 1 along the width must be smaller"),
        ((2, 4, 1, 3), (4, 4, 3, 3), {"padding": (2, 0)}, "output's height would be -1"),
        ((2, 4, 3, 3), (4, 4, 3, 3), {"groups": 3}, "groups=3 does not divide 4 input channels"),
    ],
)
def test_transposed_geometry_errors(y: tuple, w: tuple, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match="conv_transpose2d: .*" + message):
        ConvGeometry.of_conv_transpose(y, w, **{**CONV, "op": "conv_transpose2d", "output_padding": (0, 0), **change})


def test_pool_geometry_errors() -> None:
    with pytest.raises(ValueError, match="padding 2 along the height exceeds half of the kernel 3; at most 1"):
        PoolGeometry.of_pool((1, 1, 5, 5), (3, 3), (1, 1), (2, 2), (1, 1), False, "max_pool2d")
    with pytest.raises(ValueError, match="output's width would be 0"):
        PoolGeometry.of_pool((1, 1, 5, 2), (3, 3), (1, 1), (0, 0), (1, 1), False, "max_pool2d")


@given(sizes, sizes, st.booleans(), st.sampled_from(["nearest", "bilinear"]))
def test_resize_taps_sum_to_one_and_stay_inside(h: int, p: int, corners: bool, mode: str) -> None:
    geom = ResizeGeometry.of_resize((h, h), (p, p), None, mode, corners and mode == "bilinear")
    for k in range(p):
        taps = geom.taps(0, k)
        assert sum(factor for _, factor in taps) == 1
        assert all(0 <= at < h and factor >= 0 for at, factor in taps)


def test_macs() -> None:
    geom = ConvGeometry.of_conv((2, 4, 5, 6), (6, 2, 3, 3), **{**CONV, "groups": 2})
    assert geom.macs == 2 * 6 * 3 * 4 * (2 * 3 * 3)

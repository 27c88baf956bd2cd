"""Winograd's convolution: the matrices in exact fractions, and every way in which the work is cut into tiles."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import minifcn as mf
from minifcn import kernels
from minifcn.geometry import ConvGeometry
from minifcn.kernels import conv_winograd
from minifcn.kernels.conv_winograd import cook_toom
from minifcn.kernels.registry import REFERENCE

ALGORITHMS = ("winograd_f4", "winograd_f2")


@pytest.mark.parametrize(("m", "r"), [(1, 1), (2, 3), (4, 3), (3, 2), (3, 4), (1, 3), (3, 1)])
def test_the_identity_holds_without_rounding(m: int, r: int) -> None:
    """Aᵀ[(G g) ⊙ (Bᵀ d)] = Σ_i d[p + i]·g[i], for every pair of unit vectors: both sides are bilinear."""
    scores, filters, pixels = cook_toom(m, r)
    n = m + r - 1
    assert (len(scores), len(filters), len(pixels)) == (m, n, n)
    for tap in range(r):
        for pixel in range(n):
            products = [filters[k][tap] * pixels[k][pixel] for k in range(n)]
            for p in range(m):
                assert sum(a * b for a, b in zip(scores[p], products, strict=True)) == Fraction(int(p + tap == pixel))


def test_the_matrices_of_the_paper() -> None:
    """Lavin & Gray 2016, eq. 13 (F(4,3)), up to the sign of a row that Bᵀ and G may share."""
    scores, filters, pixels = cook_toom(4, 3)
    expected = [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
    sixth, twelfth, fourth, one = Fraction(1, 6), Fraction(1, 12), Fraction(1, 24), Fraction(1)
    g = [
        [Fraction(1, 4), 0, 0],
        [-sixth, -sixth, -sixth],
        [-sixth, sixth, -sixth],
        [fourth, twelfth, sixth],
        [fourth, -twelfth, sixth],
        [0, 0, one],
    ]
    for row, paper, own, g_paper in zip(pixels, expected, filters, g, strict=True):
        sign = 1 if row == paper else -1
        assert [sign * v for v in row] == paper
        assert [sign * v for v in own] == g_paper
    assert scores == [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def test_the_bias_enters_at_one_point() -> None:
    """At the point 1 every row of Aᵀ has a one: a constant added there reaches all scores once."""
    for m in (2, 4):
        assert all(row[conv_winograd.POINTS.index(1)] == 1 for row in cook_toom(m, 3)[0])


# few filters, all read by every tile; many filters, and too many tiles to hold at once; more tiles in a row than a task
CUTS = {
    "by tiles": {},
    "by filters": {"FILTER_BYTES": 0},
    "by filters, in blocks": {"FILTER_BYTES": 0, "SHARED_BYTES": 20_000, "FILTER": 9, "PRODUCT": 200},
    "tiny tasks": {"TILE": 7, "PRODUCT": 60},
    "several threads": {"GATHER": 1, "SHORT": 0, "SHORT_FILTERS": 0},
    "several threads, by filters": {"GATHER": 1, "SHORT": 0, "FILTER_BYTES": 0},
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("n", "c", "o", "hw", "padding", "groups"),
    [
        (2, 3, 5, (9, 14), (1, 1), 1),
        (1, 4, 6, (4, 4), (0, 2), 2),
        (1, 1, 1, (3, 3), (0, 0), 1),
        (1, 2, 7, (1, 30), (1, 1), 1),
        (7, 2, 3, (5, 4), (1, 1), 1),
    ],
)
def test_however_it_is_cut(
    cut: str,
    algorithm: str,
    n: int,
    c: int,
    o: int,
    hw: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    geom = ConvGeometry.of_conv((n, c, *hw), (o, c // groups, 3, 3), (1, 1), padding, (1, 1), groups, "test")
    rng = np.random.default_rng(7)
    x, w, y, b_o, b_c, scale, add = (
        rng.standard_normal(s) for s in (geom.x_shape, geom.w_shape, geom.y_shape, o, c, o, geom.y_shape)
    )
    for name, value in CUTS[cut].items():
        monkeypatch.setattr(conv_winograd, name, value)
    for op, arrays, params in [
        ("conv2d", (x, w, b_o), {}),
        ("conv2d", (x, w, b_o, scale, add), {"relu": True}),
        ("conv_transpose2d", (y, w, b_c), {}),
        ("conv2d_weight", (x, y), {}),
    ]:
        with mf.using(**{op: REFERENCE}):
            expected = kernels.run(op, *arrays, geom=geom, **params)
        with mf.using(**{op: algorithm}):
            found = kernels.run(op, *arrays, geom=geom, **params)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-12, err_msg=op)


@pytest.mark.parametrize("channels", [64, 256, 512])
def test_float32_is_as_accurate_as_said(channels: int) -> None:
    """2 to 6·10⁻⁶ of the result's size for F(4,3), and single scores up to ten times that; F(2,3) loses less. Against
    the same product in float64."""
    rng = np.random.default_rng(0)
    geom = ConvGeometry.of_conv((1, channels, 32, 32), (64, channels, 3, 3), (1, 1), (1, 1), (1, 1), 1, "test")
    x = rng.standard_normal(geom.x_shape).astype(np.float32)
    w = rng.standard_normal(geom.w_shape).astype(np.float32)
    with mf.using(conv2d="gemm"):
        exact = kernels.run("conv2d", x.astype(np.float64), w.astype(np.float64), geom=geom)
    errors = {}
    for algorithm in ALGORITHMS:
        with mf.using(conv2d=algorithm):
            y = kernels.run("conv2d", x, w, geom=geom)
        assert y.dtype == np.float32
        errors[algorithm] = np.linalg.norm(y - exact) / np.linalg.norm(exact)
        assert np.abs(y - exact).max() / np.abs(exact).max() < 5e-5
    assert errors["winograd_f2"] < errors["winograd_f4"] < 5.5e-6


def test_auto_takes_it_in_float32_only() -> None:
    geom = ConvGeometry.of_conv((1, 64, 64, 64), (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1, "test")
    x, w = np.zeros(geom.x_shape, np.float32), np.zeros(geom.w_shape, np.float32)
    lines = [line.split()[:2] for line in mf.explain("conv2d", x, w, geom=geom).splitlines()]
    assert ["winograd_f4", "yes"] in lines
    double = mf.explain("conv2d", x.astype(np.float64), w.astype(np.float64), geom=geom)
    assert ["gemm", "yes"] in [line.split()[:2] for line in double.splitlines()]
    assert "auto takes it for float32" in double


def test_it_refuses_what_it_cannot_do() -> None:
    geom = ConvGeometry.of_conv((1, 4, 9, 9), (4, 4, 3, 3), (2, 2), (1, 1), (1, 1), 1, "test")
    with (
        pytest.raises(kernels.Unsupported, match="it needs a 3×3 filter, stride 1, dilation 1 and padding up to 2"),
        mf.using(conv2d="winograd_f4"),
    ):
        kernels.run("conv2d", np.zeros(geom.x_shape), np.zeros(geom.w_shape), geom=geom)


def test_workspace_stays_under_its_cap() -> None:
    """The transformed tiles of this image would take 150 MB at once."""
    import tracemalloc

    mf.set_num_threads(mf.get_num_threads())  # buffers belong to threads: new ones have none
    geom = ConvGeometry.of_conv((1, 256, 256, 256), (96, 256, 3, 3), (1, 1), (1, 1), (1, 1), 1, "test")
    x, w = np.ones(geom.x_shape, np.float32), np.ones(geom.w_shape, np.float32)
    tracemalloc.start()
    try:
        y = kernels.run("conv2d", x, w, geom=geom)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    per_thread = 24e6
    assert peak - y.nbytes < conv_winograd.SHARED_BYTES + per_thread * mf.get_num_threads()

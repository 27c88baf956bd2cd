"""Transposed convolution by phases: cut into bands of rows, with filters that are zero off the diagonal, and chosen."""

from __future__ import annotations

import numpy as np
import pytest

import minifcn as mf
from minifcn import kernels
from minifcn.geometry import ConvGeometry
from minifcn.kernels import conv_phases
from minifcn.kernels.registry import REFERENCE
from minifcn.nn.init import bilinear

# y (O, P, Q), filter (C, I, J), stride, padding, output_padding: FCN's three, a learned 3×3, odd ones
CASES = [
    ((3, 4, 5), (3, 16, 16), (8, 8), (4, 4), (0, 0)),
    ((2, 5, 3), (2, 4, 4), (2, 2), (1, 1), (0, 0)),
    ((2, 3, 4), (3, 4, 4), (2, 2), (0, 0), (0, 0)),
    ((3, 4, 5), (2, 3, 3), (2, 2), (1, 1), (1, 0)),
    ((2, 3, 3), (2, 5, 4), (3, 2), (1, 3), (0, 1)),
    ((1, 3, 4), (2, 1, 2), (2, 3), (0, 0), (1, 0)),
    ((2, 4, 1), (1, 2, 6), (1, 4), (1, 2), (0, 3)),
]


def _geometry(case: tuple, n: int = 2, groups: int = 1) -> ConvGeometry:
    (o, p, q), (c, i, j), stride, padding, extra = case
    shapes = (n, o * groups, p, q), (o * groups, c, i, j)
    return ConvGeometry.of_conv_transpose(*shapes, stride, padding, extra, (1, 1), groups, "test")


@pytest.mark.parametrize("tile", [1 << 20, 100])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_its_definition(case: tuple, groups: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_phases, "TILE_BYTES", tile)  # 100: one row of the coarse grid at a time
    geom = _geometry(case, groups=groups)
    rng = np.random.default_rng(3)
    x, w, y = (rng.standard_normal(s) for s in (geom.x_shape, geom.w_shape, geom.y_shape))
    b_c, b_o = rng.standard_normal(geom.c), rng.standard_normal(geom.o)
    kernel = next(k for k in mf.algorithms("conv2d") if k.algorithm == "phases")
    for op, *arrays in [("conv_transpose2d", y, w, b_c), ("conv2d", x, w, b_o), ("conv2d_weight", x, y)]:
        if op != "conv_transpose2d" and kernel.refuses({"geom": geom}):
            continue
        with mf.using(**{op: REFERENCE}):
            expected = kernels.run(op, *arrays, geom=geom)
        with mf.using(**{op: "phases"}):
            np.testing.assert_allclose(kernels.run(op, *arrays, geom=geom), expected, rtol=0, atol=1e-12, err_msg=op)


@pytest.mark.parametrize("factor", [2, 8])
def test_a_bilinear_filter_is_computed_channel_by_channel(factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense product has as many rows as channels and phases together; the diagonal one as many as phases."""
    w = bilinear((5, 5, 2 * factor, 2 * factor)).astype(np.float64)
    geom = ConvGeometry.of_conv_transpose(
        (1, 5, 4, 3), w.shape, (factor, factor), (factor // 2, factor // 2), (0, 0), (1, 1), 1, "test"
    )
    y, x = (
        np.random.default_rng(0).standard_normal(geom.y_shape),
        np.random.default_rng(1).standard_normal(geom.x_shape),
    )
    rows: list[int] = []
    regrouped, square = conv_phases._regrouped, conv_phases._square
    monkeypatch.setattr(conv_phases, "_regrouped", lambda *a: (m := regrouped(*a), rows.append(m.shape[1]))[0])
    monkeypatch.setattr(conv_phases, "_square", lambda *a: (m := square(*a), rows.append(m.shape[2]))[0])
    for op, a in (("conv_transpose2d", y), ("conv2d", x)):
        with mf.using(**{op: REFERENCE}):
            expected = kernels.run(op, a, w, geom=geom)
        with mf.using(**{op: "phases"}):
            np.testing.assert_allclose(kernels.run(op, a, w, geom=geom), expected, rtol=0, atol=1e-13)
    assert rows == [factor**2, factor**2]
    w[0, 1, 0, 0] = 1e-300  # not zero
    with mf.using(conv_transpose2d="phases"):
        kernels.run("conv_transpose2d", y, w, geom=geom)
    assert rows[-1] == 5 * factor**2


def test_auto_takes_it_for_fcns_enlargements() -> None:
    for case in [
        ((21, 45, 60), (21, 16, 16), (8, 8), (4, 4), (0, 0)),
        ((21, 23, 30), (21, 4, 4), (2, 2), (1, 1), (0, 0)),
    ]:
        geom = _geometry(case, n=1)
        y, w = np.zeros(geom.y_shape, np.float32), np.zeros(geom.w_shape, np.float32)
        for op, first in (("conv_transpose2d", y), ("conv2d", np.zeros(geom.x_shape, np.float32))):
            chosen = [line.split()[:2] for line in mf.explain(op, first, w, geom=geom).splitlines()]
            assert ["phases", "yes"] in chosen, op

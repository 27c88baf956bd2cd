"""Four ways to compute a transposed convolution, the matrix, and the identities between them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from layers import draw

import minifcn.functional as F
from minifcn import lab
from minifcn.autograd import Tensor
from minifcn.kernels.reference import conv2d_reference, conv_transpose2d_reference

WAYS = [lab.scatter, lab.by_matrix, lab.by_zero_insertion, lab.by_phases]


@pytest.mark.parametrize("way", WAYS)
def test_equals_the_definition_exactly(way: Callable[..., Any]) -> None:
    """500 layers of whole numbers: not a digit differs (facts: the phases of 500 out of 500)."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        geom, _ = draw(rng, channels=(2, 1))
        y, w = (rng.integers(-9, 10, shape).astype(float) for shape in (geom.y_shape, geom.w_shape))
        assert (way(y, w, geom) == conv_transpose2d_reference(y, w, geom=geom)).all()


@pytest.mark.parametrize("way", WAYS)
def test_channels_and_dtype(way: Callable[..., Any]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        geom, settings = draw(rng, channels=(3, 4))
        y, w = (rng.integers(-9, 10, shape).astype(np.float32) for shape in (geom.y_shape, geom.w_shape))
        x = way(y, w, geom)
        assert (x == F.conv_transpose2d(Tensor(y), Tensor(w), **settings).numpy()).all()
        assert x.dtype == np.float32


@pytest.mark.parametrize("way", WAYS)
def test_many_samples_and_wrong_shapes(way: Callable[..., Any]) -> None:
    geom = lab.layer(3, 3, 2, 1, channels=(2, 1))
    y, w = (np.random.default_rng(3).integers(-9, 10, shape).astype(float) for shape in ((4, 2, 3, 3), (2, 1, 3, 3)))
    assert (way(y, w, geom)[3] == way(y[3:], w, geom)[0]).all()
    with pytest.raises(ValueError, match=rf"{way.__name__}: y has shape \(1, 2, 4, 4\); \(N, 2, 3, 3\) is needed"):
        way(np.ones((1, 2, 4, 4)), w, geom)
    with pytest.raises(ValueError, match=rf"{way.__name__}: w has shape \(2, 1, 2, 2\)"):
        way(y, np.ones((2, 1, 2, 2)), geom)
    with pytest.raises(ValueError, match="the geometry has 2 groups"):
        way(y, w, replace(geom, groups=2))


def test_adjoint_identity_2000_times() -> None:
    """⟨C x, y⟩ = ⟨x, Cᵀ y⟩, with C x from the convolution and Cᵀ y from the transposed one, at 1e-9."""
    rng = np.random.default_rng(2)
    worst = 0.0
    for _ in range(2000):
        geom, settings = draw(rng)
        x, y, w = (rng.standard_normal(shape) for shape in (geom.x_shape, geom.y_shape, geom.w_shape))
        # an output_padding of at least the stride has no such convolution; its extra scores are left out
        scores = F.conv2d(Tensor(x), Tensor(w), **{k: settings[k] for k in ("stride", "padding", "dilation")}).numpy()[
            :, :, : geom.y_hw[0], : geom.y_hw[1]
        ]
        image = F.conv_transpose2d(Tensor(y), Tensor(w), **settings).numpy()
        worst = max(worst, abs(float(np.vdot(scores, y) - np.vdot(x, image))))
    assert worst < 1e-9


def test_adjoint_sides_are_equal() -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        geom, _ = draw(rng, channels=(2, 3))
        left, right = lab.adjoint_sides(rng.integers(-9, 10, geom.w_shape).astype(np.float32), geom)
        assert left == right
    geom = lab.layer(3, 3, 2, 1)
    w = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    x = np.random.default_rng(0).integers(-9, 10, (1, 1, 5, 5)).astype(float)
    y = np.random.default_rng(1).integers(-9, 10, (1, 1, 3, 3)).astype(float)
    assert lab.adjoint_sides(w, geom)[0] == np.vdot(conv2d_reference(x, w, geom=geom), y) != 0


def test_matrix_is_the_convolution_and_its_transpose() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        geom, _ = draw(rng, channels=(2, 3))
        w = rng.integers(-9, 10, geom.w_shape).astype(float)
        x, y = (rng.integers(-9, 10, shape).astype(float) for shape in (geom.x_shape, geom.y_shape))
        c = lab.conv_matrix(w, geom)
        assert (c @ x.ravel() == conv2d_reference(x, w, geom=geom).ravel()).all()
        assert (c.T @ y.ravel() == conv_transpose2d_reference(y, w, geom=geom).ravel()).all()


def test_matrix_of_the_guide() -> None:
    """Dumoulin & Visin 2016, §4.1: a 3×3 filter on a 4×4 image; C is 4×16, and these are its first and last rows."""
    w = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    c = lab.conv_matrix(w, lab.layer(2, 3))
    assert c.shape == (4, 16)
    assert c[0].tolist() == [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0]
    assert c[3].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9]


def test_zero_insertion_by_hand() -> None:
    """3×3, stride 2, padding 1: one zero between, p′ = 1 around; padding 3: one row of scores cropped."""
    y = np.array([[1.0, 2], [3, 4]])[None, None]
    assert lab.insert_zeros(y, lab.layer(2, 3, stride=2, padding=1))[0, 0].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 0, 2, 0],
        [0, 0, 0, 0, 0],
        [0, 3, 0, 4, 0],
        [0, 0, 0, 0, 0],
    ]
    nine = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    assert lab.insert_zeros(nine, lab.layer(3, 1, padding=1))[0, 0].tolist() == [[5]]
    # crop before, pad after: a single score lies beyond the crop
    assert not lab.insert_zeros(np.ones((1, 1, 1, 1)), lab.layer(1, 1, 5, 2, 4)).any()


def test_the_filter_must_be_turned() -> None:
    """What the guide does not say: with the filter as it is, zero insertion gives something else."""
    geom = lab.layer(2, 3, stride=2, padding=1)
    y, w = np.arange(1.0, 5).reshape(1, 1, 2, 2), np.arange(1.0, 10).reshape(1, 1, 3, 3)
    z, zeros = Tensor(lab.insert_zeros(y, geom)), lab.scatter(y, w, geom)
    assert (F.conv2d(z, Tensor(w[:, :, ::-1, ::-1].copy())).numpy() == zeros).all()
    assert not (F.conv2d(z, Tensor(w)).numpy() == zeros).all()


def test_padding_crops() -> None:
    """Padding p and no padding with a crop of p, as Caffe's networks have it, are the same."""
    rng = np.random.default_rng(5)
    for f in (2, 3, 4, 8):
        y, w = (
            rng.integers(-9, 10, (1, 1, 5, 5)).astype(float),
            rng.integers(-9, 10, (1, 1, 2 * f, 2 * f)).astype(float),
        )
        for p in range(f):
            cropped = lab.scatter(y, w, lab.layer(5, 2 * f, f))[..., p : 6 * f - p, p : 6 * f - p]
            assert (lab.scatter(y, w, lab.layer(5, 2 * f, f, padding=p)) == cropped).all()

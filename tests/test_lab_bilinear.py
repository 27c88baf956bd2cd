"""Bilinear interpolation by transposed convolution: where it holds, and a filter that only a ramp unmasks."""

import numpy as np
import pytest

import minifcn.functional as F
from minifcn import lab
from minifcn.autograd import Tensor
from minifcn.geometry import ResizeGeometry
from minifcn.kernels.reference import interpolate_reference
from minifcn.nn.init import bilinear_kernel

FACTORS = (2, 3, 4, 8, 16, 32)
FIRST_ROW = (0.75, 2 / 3, 0.625, 0.5625, 0.53125, 0.515625)
ARTICLE = np.outer([0.4, 0.6, 0.6, 0.4], [0.4, 0.6, 0.6, 0.4])  # the second article's 4×4 "bilinear" matrix, as printed


def even(f: int, n: int = 6) -> tuple[np.ndarray, object]:
    """The filter of k = 2f − (f mod 2) taps and its layer with padding (k − f)/2."""
    k = 2 * f - f % 2
    return bilinear_kernel(k)[None, None], lab.layer(n, k, stride=f, padding=(k - f) // 2)


def half_pixel(y: np.ndarray, f: int) -> np.ndarray:
    """Interpolation by whole factors with clamped borders, by the definition of interpolate without align_corners."""
    size = (y.shape[2] * f, y.shape[3] * f)
    return interpolate_reference(y, geom=ResizeGeometry.of_resize(y.shape[2:], size, None, "bilinear", False))


@pytest.mark.parametrize("f", FACTORS)
def test_equals_half_pixel_bilinear_inside(f: int) -> None:
    w, geom = even(f)
    y = np.random.default_rng(f).uniform(-1, 1, (1, 1, 6, 6))
    x, expected = lab.scatter(y, w, geom), half_pixel(y, f)
    assert x.shape == expected.shape
    inside = slice(f // 2, -(f // 2))  # ⌊f/2⌋ rows at each side are affected by the border
    assert np.abs(x - expected)[..., inside, inside].max() <= 8e-16
    assert np.abs(x - expected)[..., f // 2 - 1, :].max() > 1e-3
    assert np.abs(lab.sample(y, geom) - expected).max() <= 8e-16


@pytest.mark.parametrize("f", FACTORS)
def test_divided_by_the_gain_it_is_clamped_bilinear_everywhere(f: int) -> None:
    w, geom = even(f)
    y = np.random.default_rng(f).uniform(-1, 1, (1, 1, 6, 6))
    assert np.abs(lab.normalized(y, w, geom) - half_pixel(y, f)).max() <= 8e-16
    # so does repeating the edge once and cropping f
    edge = np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    x = lab.scatter(edge, w, even(f, 8)[1])[..., f:-f, f:-f]
    assert np.abs(x - half_pixel(y, f)).max() <= 8e-16


@pytest.mark.parametrize(("f", "first"), [*zip(FACTORS, FIRST_ROW, strict=True)])
def test_gain_at_the_border(f: int, first: float) -> None:
    w, geom = even(f)
    gain = lab.gain(w, geom)[0]
    assert gain[0, geom.x_hw[1] // 2] == pytest.approx(first, abs=1e-12)
    assert gain[0, 0] == pytest.approx(first**2, abs=1e-12)  # squared at the corners
    check = lab.bilinear_check(w, geom)
    assert check.border[0][0] == pytest.approx(first, abs=1e-12)
    assert len(check.border[0]) == len(check.border[1]) == f // 2
    assert (check.constants, check.ramps, check.holds, check.normalized <= 8e-16) == (True, True, True, True)
    assert check.slopes[0] == pytest.approx([1 / f] * f, abs=1e-12)


def test_the_article_matrix_passes_all_but_the_ramp() -> None:
    geom = lab.layer(6, 4, stride=2, padding=1)
    w = ARTICLE[None, None]
    assert w.sum() == pytest.approx(4, abs=1e-12)  # s²
    assert lab.checkerboard(geom, w).even  # every phase adds up to 1
    assert lab.gain(w, geom)[0, 4, 4] == pytest.approx(1, abs=1e-12)
    check = lab.bilinear_check(w, geom)
    assert sorted(check.slopes[0]) == pytest.approx([0.2, 0.8], abs=1e-12)
    assert (check.constants, check.ramps, check.holds) == (True, False, False)
    # .4 and .6 in place of .25 and .75 are off by .15 of the step between scores: 1/3, of 7 from −1 to 1
    assert check.scores == (7, 7)
    assert check.ramp >= 0.15 / 3 - 1e-12


def test_what_the_article_computes_is_yet_another_matrix() -> None:
    """With its factor 2.5 and centre 1.5 its own formula adds up to 5.76, a gain of 1.44; right are 2 and 1.5."""
    tent = 1 - np.abs(np.arange(4) - 1.5) / 2.5
    wrong = np.outer(tent, tent)
    assert wrong[0, :2].tolist() == pytest.approx([0.16, 0.32])
    assert wrong.sum() == pytest.approx(5.76)
    assert lab.bilinear_check(wrong[None, None], lab.layer(6, 4, 2, 1)).constant == pytest.approx(0.44)
    assert bilinear_kernel(4)[:2].tolist() == [[0.0625, 0.1875, 0.1875, 0.0625], [0.1875, 0.5625, 0.5625, 0.1875]]


def test_a_filter_that_only_the_product_of_the_ramps_unmasks() -> None:
    w = bilinear_kernel(4)
    w[np.ix_([1, 3], [1, 3])] += 0.1 * np.array([[1, -1], [-1, 1]])
    geom = lab.layer(6, 4, 2, 1)
    check = lab.bilinear_check(w[None, None], geom)
    assert check.slopes[0] == pytest.approx([0.5, 0.5], abs=1e-12)
    assert (check.constants, check.ramps, check.holds) == (True, False, False)


def test_which_kernel_and_padding_belong_to_a_factor() -> None:
    """(k + 1)//2 gives the factor back for k = 2f − (f mod 2), and other sizes interpolate by another factor."""
    for f in FACTORS:
        assert (2 * f - f % 2 + 1) // 2 == f
    other = lab.bilinear_check(bilinear_kernel(6)[None, None], lab.layer(6, 6, stride=2, padding=2))
    assert not other.holds
    shifted = lab.layer(6, 4, stride=2)  # with another padding the positions shift along: the ramp still comes back
    assert lab.bilinear_check(bilinear_kernel(4)[None, None], shifted).holds


def test_odd_kernels_interpolate_with_aligned_corners() -> None:
    """k = 2s − 1, padding s − 1: score p lies on pixel p·s, the grid of align_corners."""
    y = np.random.default_rng(9).uniform(-1, 1, (1, 1, 5, 6))
    for s in (2, 4, 8):
        geom = lab.layer((5, 6), 2 * s - 1, s, s - 1)
        x = lab.scatter(y, bilinear_kernel(2 * s - 1)[None, None], geom)
        size = (4 * s + 1, 5 * s + 1)
        assert x.shape[2:] == size
        aligned = F.interpolate(Tensor(y), size=size, mode="bilinear", align_corners=True).numpy()
        assert np.abs(x - aligned).max() <= 8e-16
        assert np.abs(lab.sample(y, geom) - aligned).max() <= 8e-16


def test_holes_and_channels() -> None:
    holes = lab.bilinear_check(np.ones((1, 1, 1, 1)), lab.layer(4, 1, stride=2))
    assert (holes.constant, holes.holds) == (1, False)
    opposite = lab.bilinear_check(np.array([1.0, -1.0]).reshape(1, 1, 1, 2), lab.layer(4, (1, 2)))
    assert np.isnan(opposite.normalized)  # a constant comes back as 0 inside
    diagonal = np.zeros((3, 3, 4, 4))
    diagonal[range(3), range(3)] = bilinear_kernel(4)
    assert lab.bilinear_check(diagonal, lab.layer(4, 4, 2, 1, channels=(3, 3))).holds
    assert lab.bilinear_check(diagonal, lab.layer(4, 4, 2, 1, channels=(3, 3))).filters == 3
    diagonal[1, 1] *= 2
    assert lab.bilinear_check(diagonal, lab.layer(4, 4, 2, 1, channels=(3, 3))).constant == pytest.approx(1)
    grouped = diagonal[[0, 2], [0, 2]][:, None]  # (2, 1, 4, 4): each alone
    assert lab.bilinear_check(grouped, lab.layer(4, 4, 2, 1, channels=(2, 1))).holds
    # filters that make up for each other where all channels are equal are judged alone
    noise = np.random.default_rng(0).standard_normal((4, 4))
    pair = np.stack([2 * bilinear_kernel(4) + noise, -bilinear_kernel(4) - noise])[:, None]
    assert not lab.bilinear_check(pair, lab.layer(4, 4, 2, 1, channels=(2, 1))).holds


@pytest.mark.parametrize(
    ("w", "layer"),
    [
        (np.full((3, 3), 1 / 9), {"kernel": 3, "padding": 1}),  # a blur
        (np.outer([0.5, 0, 0.5], [0.5, 0, 0.5]), {"kernel": 3, "padding": 1}),
        (bilinear_kernel(4), {"kernel": 4, "stride": 2, "dilation": 3}),  # between scores that are 3 apart
        (  # Keys' cubic convolution at the positions of stride 2, reproducing quadratics even
            np.outer(*[np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 128] * 2),
            {"kernel": 8, "stride": 2, "padding": 3},
        ),
    ],
)
def test_filters_that_return_constants_and_ramps_and_do_not_interpolate(w: np.ndarray, layer: dict[str, int]) -> None:
    check = lab.bilinear_check(w[None, None], lab.layer(9, **layer))
    assert (check.constants, check.ramps, check.holds) == (True, True, False)
    assert check.anything > 0.1


@pytest.mark.parametrize("n", [5, 100])
@pytest.mark.parametrize("s", [3, 5, 7])
def test_rounding_to_float32_is_no_difference(s: int, n: int) -> None:
    k = 2 * s - 1
    w = bilinear_kernel(k).astype(np.float32)[None, None]
    geom = lab.layer(n, k, s, (k - s) // 2)
    assert lab.bilinear_check(w, geom).holds
    assert not lab.bilinear_check(w * np.float32(1.00001), geom).holds


def test_rows_that_no_score_reaches_are_left_out() -> None:
    check = lab.bilinear_check(bilinear_kernel(4)[None, None], lab.layer(5, 4, 2, 0, output_padding=1))
    assert check.normalized <= 8e-16
    with pytest.raises(ValueError, match="all weights are 0"):
        lab.bilinear_check(np.zeros((1, 1, 2, 2)), lab.layer(3, 2))
    with pytest.raises(ValueError, match="pixels until no tap misses its score"):
        lab.bilinear_check(np.ones((1, 1, 2, 2)), lab.layer(3, 2, dilation=5000))


@pytest.mark.parametrize("channels", [1, 70])
def test_many_filters_are_tried_in_portions(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from minifcn.lab import bilinear

    w = np.random.default_rng(1).standard_normal((channels, 2, 3, 3))
    geom = lab.layer(4, 3, 2, 1, channels=(channels, 2))
    whole = lab.bilinear_check(w, geom)
    monkeypatch.setattr(bilinear, "MOST", 500)
    assert lab.bilinear_check(w, geom) == whole

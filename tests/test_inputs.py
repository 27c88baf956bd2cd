"""What networks expect of an image, and moving it into the first convolution."""

import itertools

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn.data import normalize
from minifcn.models.inputs import CAFFE, TORCHVISION, Input, affine, fold

OTHERS = (Input("RGB", 255, (10.0, 20.0, 30.0), (2.0, 3.0, 5.0)), Input("BGR", 1, (0.3, 0.2, 0.1), (0.5, 1.0, 2.0)))
PAIRS = list(itertools.permutations((CAFFE, TORCHVISION, *OTHERS), 2))
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)
WEIGHT, BIAS = RNG.standard_normal((4, 3, 3, 3)), RNG.standard_normal(4)


def as_published(image, what):
    """The preparation in float64, as the sources write it: scale, order, mean, deviation."""
    values = image.astype(np.float64) * what.scale / 255
    if what.order == "BGR":
        values = np.stack([values[..., 2], values[..., 1], values[..., 0]], axis=-1)
    return ((values - np.array(what.mean)) / np.array(what.std)).transpose(2, 0, 1)


def scores(x, weight, bias, padding):
    """The convolution from its definition."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = x.shape[1] - 2, x.shape[2] - 2
    taps = [
        np.einsum("oc,chv->ohv", weight[:, :, i, j], x[:, i : i + rows, j : j + columns]) for i, j in np.ndindex(3, 3)
    ]
    return sum(taps) + bias[:, None, None]


@pytest.mark.parametrize("what", [CAFFE, TORCHVISION, *OTHERS], ids=lambda i: i.describe())
def test_prepared_images_are_the_published_formula(what):
    found = what.prepare(IMAGE)
    assert (found.dtype, found.shape) == (np.float32, (3, 7, 9))
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, as_published(IMAGE, what), rtol=1e-5, atol=1e-5)


def test_caffe_on_paper():
    """Orange (255, 128, 0): blue first, 0 − 104.00699, 128 − 116.66877, 255 − 122.67892."""
    found = CAFFE.prepare(np.full((1, 1, 3), (255, 128, 0), np.uint8)).ravel()
    np.testing.assert_array_equal(found, np.float32([0, 128, 255]) - np.float32([104.00699, 116.66877, 122.67892]))


def test_normalize_is_torchvisions_to_the_last_bit():
    mean, std = (np.array(v, np.float32)[:, None, None] * 255 for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for image in (IMAGE, levels, IMAGE[::-1, ::2]):
        expected = (image.transpose(2, 0, 1).astype(np.float32) - mean) / std
        assert normalize(image).tobytes() == TORCHVISION.prepare(image).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("trained", "given"), PAIRS)
def test_a_folded_convolution_computes_what_it_did_inside(trained, given):
    weight, bias = fold(WEIGHT, BIAS, trained, given)
    before = scores(as_published(IMAGE, trained), WEIGHT, BIAS, 0)
    after = scores(as_published(IMAGE, given), weight, bias, 0)
    assert np.abs(after - before).max() < 1e-12 * np.abs(before).max()


@pytest.mark.parametrize(("trained", "given"), PAIRS)
def test_at_the_border_zero_stands_for_the_other_mean_colour(trained, given):
    """The folded network with zero padding is the trained one on the image in a frame of `given`'s mean colour."""
    weight, bias = fold(WEIGHT, BIAS, trained, given)
    mean = np.array(given.mean) * 255 / given.scale
    framed = np.empty((9, 11, 3))
    framed[:] = mean if given.order == "RGB" else mean[::-1]
    framed[1:-1, 1:-1] = IMAGE
    expected = scores(as_published(framed, trained), WEIGHT, BIAS, 0)
    found = scores(as_published(IMAGE, given), weight, bias, 1)
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()


def test_between_caffe_and_torchvision_a_border_differs_by_less_than_a_grey_level():
    """The mean colours: blue 103.53 for 104.00699, green 116.28 for 116.66877, red 123.675 for 122.67892."""
    a, b = affine(CAFFE, TORCHVISION)
    np.testing.assert_allclose(b, [-0.47699, -0.38877, 0.99608], atol=1e-12)
    np.testing.assert_allclose(a, [255 * 0.225, 255 * 0.224, 255 * 0.229], rtol=1e-15)
    weight, bias = fold(WEIGHT, BIAS, CAFFE, TORCHVISION)
    found = scores(as_published(IMAGE, TORCHVISION), weight, bias, 1)
    difference = np.abs(found - scores(as_published(IMAGE, CAFFE), WEIGHT, BIAS, 1))
    assert difference[:, 1:-1, 1:-1].max() < 1e-10
    assert difference[:, 0].min() > 1e-3
    above = np.abs(WEIGHT[:, :, 0]).sum(axis=2) @ np.abs(b)  # the filters' first row is what lies on the padding
    assert (difference[:, 0, 1:-1] <= above[:, None] + 1e-12).all()


@pytest.mark.parametrize(("trained", "given"), PAIRS)
def test_folding_back_gives_the_weights_back(trained, given):
    weight, bias = fold(*fold(WEIGHT, BIAS, trained, given), given, trained)
    np.testing.assert_allclose(weight, WEIGHT, rtol=1e-13)
    np.testing.assert_allclose(bias, BIAS, rtol=1e-11)


def test_folding_onto_itself_changes_nothing_and_shares_nothing():
    before = WEIGHT.copy()
    weight, bias = fold(WEIGHT, BIAS, CAFFE, CAFFE)
    assert np.array_equal(weight, WEIGHT)
    assert np.array_equal(bias, BIAS)
    weight[:], bias[:] = 0, 0
    assert np.array_equal(WEIGHT, before)
    assert BIAS.any()


def test_dtypes_stay():
    weight, bias = fold(WEIGHT.astype(np.float32), BIAS.astype(np.float32), CAFFE, TORCHVISION)
    assert (weight.dtype, bias.dtype) == (np.float32, np.float32)
    assert weight.flags.c_contiguous
    expected = fold(WEIGHT.astype(np.float32).astype(float), BIAS.astype(np.float32).astype(float), CAFFE, TORCHVISION)
    assert np.array_equal(weight, expected[0].astype(np.float32))
    assert np.array_equal(bias, expected[1].astype(np.float32))


def test_a_network_gives_the_same_scores_on_real_inputs():
    """In float32, through prepare and conv2d, away from the border."""
    weight, bias = fold(WEIGHT.astype(np.float32), BIAS.astype(np.float32), CAFFE, TORCHVISION)
    before = F.conv2d(*(mf.Tensor(a.astype(np.float32)) for a in (CAFFE.prepare(IMAGE)[None], WEIGHT, BIAS)))
    after = F.conv2d(*(mf.Tensor(a) for a in (TORCHVISION.prepare(IMAGE)[None], weight, bias)))
    assert np.abs(after.numpy() - before.numpy()).max() < 1e-5 * np.abs(before.numpy()).max()


def test_phrases():
    assert CAFFE.describe() == "BGR 0 … 255, minus (104.00699, 116.66877, 122.67892)"
    assert TORCHVISION.describe().startswith("RGB 0 … 1, minus (0.485, 0.456, 0.406), divided by (0.229,")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("RBG", 1, (0, 0, 0)), "order is 'RBG'; 'RGB' or 'BGR'"),
        (("RGB", 256, (0, 0, 0)), "scale is 256; 1 or 255"),
        (("RGB", 1, (0, 0)), r"mean is \(0, 0\); a number for each of three"),
        (("RGB", 1, (0, 0, np.nan)), "mean is"),
        (("RGB", 1, (0, 0, 0), (1, 0, 1)), r"std is \(1\.0, 0\.0, 1\.0\); positive"),
        (("RGB", 1, (0, 0, 0), (1, 1, np.inf)), "std is"),
    ],
)
def test_inputs_that_are_none(arguments, words):
    with pytest.raises(ValueError, match=words):
        Input(*arguments)


def test_mistakes_are_named():
    with pytest.raises(TypeError, match="prepare: image is float64; it must be uint8"):
        CAFFE.prepare(np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match=r"prepare: image is \(3, 2, 2\); expected \(H, W, 3\)"):
        CAFFE.prepare(np.zeros((3, 2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"normalize: image is \(2, 2\)"):
        normalize(np.zeros((2, 2), np.uint8))
    for weight, bias in ((np.ones((2, 4, 3, 3)), np.ones(2)), (np.ones((2, 3, 3, 3)), np.ones(3)), (WEIGHT[0], BIAS)):
        with pytest.raises(ValueError, match=r"fold: weight .* \(O, 3, I, J\) and \(O,\) are needed"):
            fold(weight, bias, CAFFE, TORCHVISION)

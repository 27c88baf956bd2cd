"""Normalising, resizing and augmenting: image and labels stay on one another."""

import math
from fractions import Fraction

import numpy as np
import pytest

from minifcn.data import Augment, Sample, denormalize, normalize, resize

MEAN_COLOR = (124, 116, 104)  # 255 × (0.485, 0.456, 0.406), rounded


def coded(height, width):
    """A sample whose red and green are row and column, and whose labels are a function of them."""
    h, v = np.mgrid[:height, :width]
    return Sample(np.dstack([h, v, 0 * h]).astype(np.uint8), ((h * 7 + v) % 200).astype(np.uint8), "coded")


def test_normalize_is_the_formula():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    x = normalize(image)
    expected = (image / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    np.testing.assert_allclose(x, expected.transpose(2, 0, 1), atol=1e-6)


def test_denormalize_undoes_normalize_for_every_level():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(denormalize(normalize(image)), image)
    assert denormalize(np.full((3, 1, 1), 99.0)).tolist() == [[[255, 255, 255]]]


def test_normalize_refuses_floats_and_grey():
    with pytest.raises(TypeError, match="image is float64; it must be uint8"):
        normalize(np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match=r"image is \(2, 2\); expected \(H, W, 3\)"):
        normalize(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"x is \(2, 2, 3\); expected \(3, H, W\)"):
        denormalize(np.zeros((2, 2, 3)))


def bilinear(image, height, width):
    """Half-pixel bilinear interpolation from its definition, edges repeated."""
    out = np.zeros((height, width, 3))
    for p, q in np.ndindex(height, width):
        y = (p + 0.5) * image.shape[0] / height - 0.5
        x = (q + 0.5) * image.shape[1] / width - 0.5
        for h in (math.floor(y), math.floor(y) + 1):
            for v in (math.floor(x), math.floor(x) + 1):
                inside = image[min(max(h, 0), image.shape[0] - 1), min(max(v, 0), image.shape[1] - 1)]
                out[p, q] += (1 - abs(y - h)) * (1 - abs(x - v)) * inside
    return out


@pytest.mark.parametrize("size", [(10, 14), (7, 9), (11, 8), (5, 20)])
def test_images_grow_bilinearly_about_pixel_centres(size):
    image = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    bigger = resize(Sample(image, image[..., 0], "x"), size).image
    assert np.abs(bigger - bilinear(image, *size)).max() <= 1


@pytest.mark.parametrize("size", [(10, 14), (3, 4), (11, 2), (5, 20), (1, 1), (5, 7)])
def test_labels_take_the_pixel_under_their_centre(size):
    labels = np.random.default_rng(2).integers(0, 256, (5, 7), dtype=np.uint8)
    new = resize(Sample(np.zeros((5, 7, 3), np.uint8), labels, "x"), size).labels
    for p, q in np.ndindex(size):
        h, v = Fraction(2 * p + 1, 2) * 5 / size[0], Fraction(2 * q + 1, 2) * 7 / size[1]
        assert new[p, q] == labels[math.floor(h), math.floor(v)]


@pytest.mark.parametrize("factor", [1 / 3, 2.0, 2.7, 5.0])
def test_image_and_labels_stay_aligned_when_resized(factor):
    """A disk's centre of mass stays in its place, in image and labels; a corner rule moves it by |factor − 1|/2."""
    h, v = np.mgrid[:90, :120] + 0.5
    disk = (np.hypot(h - 31.3, v - 77.8) < 20).astype(np.uint8)
    size = (round(90 * factor), round(120 * factor))
    image, labels, _ = resize(Sample(np.dstack([disk * 255] * 3), disk, "disk"), size)
    new_h, new_v = np.mgrid[: size[0], : size[1]] + 0.5
    for old, new, scale in ((h, new_h, size[0] / 90), (v, new_v, size[1] / 120)):
        centre = (old * disk).sum() / disk.sum() * scale
        for mass in (image[..., 0].astype(float), labels.astype(float)):
            assert (new * mass).sum() / mass.sum() == pytest.approx(centre, abs=0.15)


def test_resize_refuses_an_empty_size():
    with pytest.raises(ValueError, match=r"size is \(0, 4\)"):
        resize(coded(4, 4), (0, 4))


def test_crops_and_flips_take_image_and_labels_from_one_place():
    augment, rng = Augment(crop=(9, 11), flip=True), np.random.default_rng(3)
    corners, flips = set(), 0
    for _ in range(300):
        image, labels, name = augment(coded(12, 15), rng)
        h, v = image[..., 0].astype(int), image[..., 1].astype(int)
        assert name == "coded"
        assert labels.shape == (9, 11)
        assert np.array_equal(labels, (h * 7 + v) % 200)
        flipped = bool(v[0, 0] > v[0, -1])
        assert np.array_equal(v - v.min(), np.tile(np.arange(11)[:: -1 if flipped else 1], (9, 1)))
        corners.add((int(h.min()), int(v.min())))
        flips += flipped
    assert corners == {(h, v) for h in range(4) for v in range(5)}  # every place that there is
    assert 110 < flips < 190


def test_a_crop_larger_than_the_image_is_filled_with_the_mean_and_ignored():
    rng, places = np.random.default_rng(4), set()
    for _ in range(60):
        image, labels, _ = Augment(crop=(8, 6))(coded(6, 9), rng)
        filled = labels == 255
        assert filled.sum() == 2 * 6
        assert (image[filled] == MEAN_COLOR).all()
        assert np.array_equal(image[~filled][:, 0], np.arange(6).repeat(6))  # every row, whole and in order
        places.add(int(np.flatnonzero(~filled[:, 0])[0]))
    assert places == {0, 1, 2}


@pytest.mark.parametrize("size", [(40, 50), (97, 131), (20, 240)])
def test_a_crop_of_a_scaled_sample_is_cut_from_all_of_it(size):
    """Though no more than the crop is computed. Pillow rounds after each axis, the one first that it likes better."""
    rng = np.random.default_rng(7)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    sample = Sample(image, rng.integers(0, 256, size, dtype=np.uint8), "noise")
    levels = []
    for seed in range(60):
        found = Augment(scale=(0.3, 3), crop=(33, 61))(sample, np.random.default_rng(seed))
        scaled = Augment(scale=(0.3, 3))(sample, np.random.default_rng(seed))
        after = np.random.default_rng(seed)
        after.random()  # the factor
        expected = Augment(crop=(33, 61))(scaled, after)
        assert np.array_equal(found.labels, expected.labels)
        levels.append(np.abs(found.image.astype(int) - expected.image))
    assert np.max(levels) <= 2
    assert np.mean(levels) < 0.3


def test_scale_stays_in_its_range_and_halves_as_often_as_it_doubles():
    rng = np.random.default_rng(5)
    factors = np.array([Augment(scale=(0.5, 2))(coded(100, 100), rng).labels.shape[0] / 100 for _ in range(200)])
    assert factors.min() >= 0.5
    assert factors.max() <= 2
    assert 70 < (factors < 1).sum() < 130


def test_brightness_and_contrast_change_pixels_but_not_labels():
    image = np.random.default_rng(6).integers(60, 190, (8, 8, 3), dtype=np.uint8)
    sample = Sample(image, image[..., 0], "x")
    brighter = Augment(brightness=0.2)(sample, np.random.default_rng(1))
    shift = brighter.image.astype(int) - image
    assert shift.min() >= shift.max() - 1  # the same everywhere, up to rounding
    assert 0 < np.abs(shift).max() <= 51
    stronger = Augment(contrast=0.5)(sample, np.random.default_rng(1)).image.astype(float)
    gain = stronger.std(axis=(0, 1)) / image.std(axis=(0, 1))
    assert gain == pytest.approx(gain[0], abs=0.02)
    assert 0.5 <= gain[0] <= 1.5
    assert abs(gain[0] - 1) > 0.01
    assert stronger.mean(axis=(0, 1)) == pytest.approx(image.mean(axis=(0, 1)), abs=0.5)
    assert np.array_equal(brighter.labels, sample.labels)


def test_the_same_stream_gives_the_same_change_and_the_sample_is_left_alone():
    sample = coded(40, 50)
    kept = sample.image.copy(), sample.labels.copy()
    augment = Augment(scale=(0.5, 2), crop=(32, 32), flip=True, brightness=0.1, contrast=0.1)
    one, two = (augment(sample, np.random.default_rng(8)) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.labels, two.labels)
    assert np.array_equal(sample.image, kept[0])
    assert np.array_equal(sample.labels, kept[1])
    assert Augment()(sample, np.random.default_rng(0)).image is sample.image


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": (2, 0.5)}, r"scale is \(2, 0\.5\)"),
        ({"scale": (0, 1)}, r"scale is \(0, 1\)"),
        ({"crop": (0, 9)}, r"crop is \(0, 9\)"),
        ({"brightness": -0.1}, r"brightness is -0\.1"),
        ({"contrast": 2}, "contrast is 2"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"Augment: {message}"):
        Augment(**arguments)

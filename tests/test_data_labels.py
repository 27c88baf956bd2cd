"""Class names, palettes, and drawing label maps."""

import itertools

import numpy as np
import pytest

from minifcn.data import (
    CAMVID_CLASSES,
    CAMVID_PALETTE,
    IGNORE,
    IGNORE_COLOR,
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    VOC_CLASSES,
    colorize,
    overlay,
    voc_palette,
)


@pytest.mark.parametrize(
    ("label", "color"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (7, (128, 128, 128)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_voc_palette_has_the_published_colors(label, color):
    assert tuple(voc_palette(256)[label]) == color


def test_voc_palette_gives_every_label_its_own_color():
    assert len({tuple(row) for row in voc_palette(256).tolist()}) == 256


@pytest.mark.parametrize("count", [0, 257])
def test_voc_palette_refuses_what_8_bits_cannot_hold(count):
    with pytest.raises(ValueError, match=f"num_classes is {count}; .* 1 to 256"):
        voc_palette(count)


def test_class_lists_have_the_published_lengths_and_places():
    assert len(VOC_CLASSES) == 21
    assert (VOC_CLASSES[0], VOC_CLASSES[15], VOC_CLASSES[20]) == ("background", "person", "tvmonitor")
    assert len(CAMVID_CLASSES) == 11
    assert (CAMVID_CLASSES[0], CAMVID_CLASSES[3], CAMVID_CLASSES[10]) == ("Sky", "Road", "Bicyclist")
    assert IGNORE == 255


@pytest.mark.parametrize(
    ("palette", "classes"),
    [(CAMVID_PALETTE, CAMVID_CLASSES), (SHAPES_PALETTE, SHAPES_CLASSES)],
    ids=["camvid", "shapes"],
)
def test_no_two_colors_of_a_palette_look_alike(palette, classes):
    assert palette.shape == (len(classes), 3)
    colors = [*palette.astype(int), np.array(IGNORE_COLOR)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2)) > 60


def test_colorize_looks_every_label_up():
    labels = np.array([[0, 5, 10], [255, 3, 1]])
    picture = colorize(labels, CAMVID_PALETTE)
    assert picture.dtype == np.uint8
    for h, v in np.ndindex(labels.shape):
        expected = (255, 255, 255) if labels[h, v] == 255 else tuple(CAMVID_PALETTE[labels[h, v]])
        assert tuple(picture[h, v]) == expected


@pytest.mark.parametrize("label", [-1, 11, 254, 256])
def test_colorize_names_a_label_without_color(label):
    with pytest.raises(ValueError, match=rf"label {label} has no colour in a palette of 11"):
        colorize(np.array([[0, label]]), CAMVID_PALETTE)


def test_colorize_refuses_scores_and_batches():
    with pytest.raises(TypeError, match="labels are float64; they must be integers"):
        colorize(np.zeros((2, 2)), CAMVID_PALETTE)
    with pytest.raises(ValueError, match=r"labels \(1, 2, 2\)"):
        colorize(np.zeros((1, 2, 2), int), CAMVID_PALETTE)


def test_overlay_goes_from_image_to_colors():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    labels = rng.integers(0, 11, (5, 7))
    colors = CAMVID_PALETTE[labels].astype(float)
    assert np.array_equal(overlay(image, labels, CAMVID_PALETTE, 0), image)
    assert np.array_equal(overlay(image, labels, CAMVID_PALETTE, 1), colors)
    assert np.abs(overlay(image, labels, CAMVID_PALETTE, 0.3) - (0.7 * image + 0.3 * colors)).max() <= 0.501


def test_overlay_refuses_other_sizes_and_alphas():
    with pytest.raises(ValueError, match=r"image \(4, 4, 3\) and labels \(4, 5\) differ"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), int), SHAPES_PALETTE)
    with pytest.raises(ValueError, match=r"alpha is 1\.5"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), int), SHAPES_PALETTE, 1.5)

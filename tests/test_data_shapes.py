"""The drawn scenes: the same for the same seed, rightly labelled, and telling nothing but by outline."""

import math

import numpy as np
import pytest

from minifcn.data import Shapes
from minifcn.data.shapes import OUTLINES, REACH


def same(a, b):
    return np.array_equal(a.image, b.image) and np.array_equal(a.labels, b.labels) and a.name == b.name


def test_a_scene_depends_on_seed_split_and_index_alone():
    long, short = Shapes(count=9, seed=4), Shapes(count=5, seed=4)
    later = long[4]
    assert all(same(long[i], short[i]) for i in range(5))
    assert same(later, Shapes(count=5, seed=4)[4])
    assert same(long[-1], long[8])


def test_no_scene_comes_twice_in_any_split_or_seed():
    scenes = [
        Shapes(count=12, size=(32, 32), seed=seed, split=split)[i].image.tobytes()
        for seed in (0, 1)
        for split in ("train", "val", "test")
        for i in range(12)
    ]
    assert len(set(scenes)) == len(scenes) == 72


def test_scenes_have_the_size_asked_for_and_every_class():
    data = Shapes(count=40, size=(64, 96))
    seen = set()
    for image, labels, _ in data:
        assert image.shape == (64, 96, 3)
        assert labels.shape == (64, 96)
        assert image.dtype == labels.dtype == np.uint8
        seen |= set(np.unique(labels).tolist())
    assert seen == {0, 1, 2, 3, 4, 5, 255}


def test_every_edge_between_two_classes_is_ignored_and_little_else():
    ignored = []
    for _, labels, _ in Shapes(count=30):
        for one, two in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            assert not ((one != two) & (one != 255) & (two != 255)).any()
        ignored.append((labels == 255).mean())
    assert 0.02 < np.mean(ignored) < 0.12


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disk", math.pi * 0.95**2),
        ("square", 1.6**2),
        ("triangle", 0.75 * math.sqrt(3) * 1.25**2),  # of circumradius 1.25
        ("cross", 2 * (2 * 0.72) - 0.72**2),  # two bars, their overlap once
        ("ring", math.pi * (1 - 0.44**2)),
    ],
)
def test_an_outline_encloses_its_area_and_measures_distance(name, area):
    r, step = 40.0, 0.23
    x, y = np.meshgrid(np.arange(-60, 60, step), np.arange(-60, 60, step))
    d = OUTLINES[name](x, y, r)
    inside = d < 0
    assert inside.sum() * step**2 / r**2 == pytest.approx(area, rel=0.01)
    assert np.hypot(x, y)[inside].max() <= REACH * r
    # A distance changes by at most a pixel per pixel, and by a whole one along its own gradient.
    assert max(np.abs(np.diff(d, axis=0)).max(), np.abs(np.diff(d, axis=1)).max()) <= step + 1e-9
    assert np.median(np.hypot(*np.gradient(d))) == pytest.approx(step, rel=0.01)


def test_image_and_labels_show_the_same_objects():
    """Without noise to speak of, colours jump at ignored rims: the gradient there is far above that elsewhere."""
    ratios = []
    for image, labels, _ in Shapes(count=20):
        step = np.abs(np.diff(image.astype(float), axis=1)).sum(axis=2)
        rim = (labels[:, 1:] == 255) & (labels[:, :-1] == 255)
        ratios.append(step[rim].mean() / step[~rim].mean())
    assert np.median(ratios) > 1.5


def test_color_does_not_give_the_class_away():
    totals, counts = np.zeros((6, 3)), np.zeros(6)
    for image, labels, _ in Shapes(count=200, size=(64, 64)):
        for label in range(1, 6):
            here = labels == label
            totals[label] += image[here].sum(axis=0)
            counts[label] += here.sum()
    means = totals[1:] / counts[1:, None]
    # About 130 objects a class whose colours spread by some 60 levels: a standard error of 5.
    assert np.abs(means - means.mean(axis=0)).max() < 20


def test_objects_are_of_every_class_alike():
    counts = np.zeros(256)
    for _, labels, _ in Shapes(count=200, size=(64, 64)):
        counts += np.bincount(labels.ravel(), minlength=256)
    share = counts[:6] / counts[:6].sum()
    assert 0.5 < share[0] < 0.8
    assert share[1:6].max() < 2 * share[1:6].min()


def test_iteration_ends():
    assert [scene.name for scene in Shapes(count=2, size=(32, 32), seed=7, split="val")] == [
        "shapes-val-7-0000",
        "shapes-val-7-0001",
    ]
    with pytest.raises(IndexError, match="scene 2 of 2"):
        Shapes(count=2)[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"size": (31, 64)}, r"size is \(31, 64\); .* at least 32"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "validation"}, "unknown split 'validation'; the splits are train, val, test"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"Shapes: {message}"):
        Shapes(**arguments)

"""The dataset protocol, class weights, and opening a dataset by its specification."""

from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from minifcn.data import (
    Dataset,
    PairFolder,
    Sample,
    Shapes,
    class_weights,
    median_frequency_weights,
    open_dataset,
    voc_palette,
)
from minifcn.data.dataset import CLASS_WEIGHTS
from minifcn.training import TrainConfig


class Given:
    """Label maps as given, on black images."""

    def __init__(self, *maps, classes=("a", "b", "c")):
        self.maps = [np.array(m, np.uint8) for m in maps]
        self.classes = classes
        self.num_classes = len(classes)
        self.palette = voc_palette(self.num_classes)

    def __len__(self):
        return len(self.maps)

    def __getitem__(self, index):
        return Sample(np.zeros((*self.maps[index].shape, 3), np.uint8), self.maps[index], str(index))


def test_any_class_with_the_five_members_is_a_dataset():
    assert isinstance(Given([[0]]), Dataset)
    assert isinstance(Shapes(1), Dataset)
    assert not isinstance([1, 2], Dataset)


def test_median_frequency_weights_worked_by_hand():
    # a: 4 + 2 of the 8 + 6 labelled pixels; b: 4 of 8 (it is in the first image only); c: 4 of 6 (the second only).
    data = Given([[0, 0, 0, 0], [1, 1, 1, 1]], [[0, 0, 2, 2], [2, 2, 255, 255]])
    # f = 6/14, 1/2, 2/3; the median is 1/2.
    assert median_frequency_weights(data) == pytest.approx([7 / 6, 1, 3 / 4])
    assert class_weights(data, "median") == pytest.approx([7 / 6, 1, 3 / 4])
    assert class_weights(data, "sqrt-median") == pytest.approx([(7 / 6) ** 0.5, 1, (3 / 4) ** 0.5])
    assert class_weights(data, "none") is None
    with pytest.raises(ValueError, match="kind is 'mean'; one of none, median, sqrt-median is needed"):
        class_weights(data, "mean")
    (entry,) = (entry for entry in fields(TrainConfig) if entry.name == "class_weights")
    assert entry.metadata["choices"] == CLASS_WEIGHTS


def test_a_class_that_never_occurs_weighs_nothing_and_is_named():
    with pytest.warns(UserWarning, match="no pixel of b; weight 0"):
        weights = median_frequency_weights(Given([[0, 2, 2, 2]]))
    # f = 1/4, –, 3/4; the median of two is their mean, 1/2.
    assert weights == pytest.approx([2, 0, 2 / 3])
    assert weights.dtype == np.float32


def test_weights_of_nothing_are_refused():
    with pytest.raises(ValueError, match="every pixel of the dataset is ignored"):
        median_frequency_weights(Given([[255, 255]]))


def test_open_dataset_opens_each_kind(tmp_path):
    assert isinstance(open_dataset("shapes", "val", count=3), Shapes)
    for i in range(4):
        Image.new("RGB", (6, 5)).save(tmp_path / f"{i}.jpg")
        Image.fromarray(np.full((5, 6), i % 2, np.uint8)).save(tmp_path / f"{i}.png")
    folder = open_dataset(f"folder:{tmp_path}:{tmp_path}", "all", classes=["no", "yes"])
    assert isinstance(folder, PairFolder)
    assert (len(folder), folder.classes) == (4, ("no", "yes"))


def test_open_dataset_knows_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"no folder {tmp_path}/nowhere"):
        open_dataset("camvid:~/nowhere", "train")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shape", "unknown kind of data 'shape' .* did you mean shapes\\?"),
        ("CamVit:x", "unknown kind of data 'CamVit' .* did you mean camvid:DIR\\?"),
        ("folders:a:b", "did you mean folder:IMAGES:MASKS\\?"),
        ("imagenet:x", "the forms are shapes, camvid:DIR, voc:DIR, folder:IMAGES:MASKS"),
        ("", "unknown kind of data ''"),
        ("camvid", "write camvid:DIR"),
        ("voc:", "write voc:DIR"),
        ("folder:a", "write folder:IMAGES:MASKS"),
        ("folder:a:b:c", "write folder:IMAGES:MASKS"),
        ("shapes:9", "write shapes"),
    ],
)
def test_open_dataset_says_how_to_write_it(spec, message):
    with pytest.raises(ValueError, match=message):
        open_dataset(spec, "train")

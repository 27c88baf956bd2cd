"""The pictures show what they were given, and do without matplotlib where it is missing."""

import sys

import numpy as np
import pytest
from PIL import Image

from minifcn.training import pictures
from minifcn.training.pictures import learning_curve, overlay_sheet, save_labels, save_picture

PALETTE = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)


def test_each_row_shows_image_truth_and_prediction(tmp_path):
    green = np.full((64, 128, 3), (0, 255, 45), np.uint8)  # 100 on average
    red, blue = np.ones((64, 128), np.uint8), np.full((64, 128), 2, np.uint8)
    overlay_sheet(tmp_path / "sheet.png", [(green, red, blue), (green, blue, red)], ["none", "red", "blue"], PALETTE)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    middle_of_column = [8 + 128 + column * 264 for column in range(3)]
    top = 8 + 22 + 8  # below the line of titles; a tile is 256 × 128
    # 0.4 of grey 100 and 0.6 of the colour
    shown, red_over, blue_over = [0, 255, 45], [193, 40, 40], [40, 40, 193]
    for row, expected in ((0, [shown, red_over, blue_over]), (1, [shown, blue_over, red_over])):
        found = [pixels[top + row * (128 + 8) + 64, x].tolist() for x in middle_of_column]
        assert np.abs(np.subtract(found, expected)).max() <= 1


def test_images_of_different_sizes_share_a_sheet(tmp_path):
    rows = [
        (np.zeros((h, v, 3), np.uint8), np.zeros((h, v), np.uint8), np.full((h, v), 255, np.uint8))
        for h, v in ((300, 500), (33, 17), (1, 900))
    ]
    overlay_sheet(tmp_path / "sheet.png", rows, ["a", "名前 in Japanese", "b" * 80], PALETTE)
    with Image.open(tmp_path / "sheet.png") as sheet:
        heights = [round(256 * 300 / 500), round(256 * 33 / 17), 1]
        assert sheet.size == (3 * 256 + 4 * 8, sum(heights) + 22 + 22 + 6 * 8)


def test_a_sheet_of_several_predictions_has_a_column_for_each(tmp_path):
    grey, maps = np.full((64, 128, 3), 100, np.uint8), [np.full((64, 128), k, np.uint8) for k in (1, 2, 1)]
    overlay_sheet(tmp_path / "sheet.png", [(grey, *maps)], ["none", "red", "blue"], PALETTE, ["first", "second"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[1] == 4 * 256 + 5 * 8
    found = [pixels[8 + 22 + 8 + 64, 8 + 128 + column * 264].tolist() for column in range(4)]
    assert found == [[100, 100, 100], [193, 40, 40], [40, 40, 193], [193, 40, 40]]
    with pytest.raises(ValueError, match=r"a row has 1 predictions; 2, one per title, are needed"):
        overlay_sheet(tmp_path / "sheet.png", [(grey, *maps[:2])], ["a", "b", "c"], PALETTE, ["first", "second"])


def test_a_sheet_needs_a_row(tmp_path):
    with pytest.raises(ValueError, match="there are no rows"):
        overlay_sheet(tmp_path / "sheet.png", [], [], PALETTE)


def test_label_files_hold_classes_and_show_colours(tmp_path):
    labels = np.array([[0, 1, 2], [255, 2, 1]], np.uint8)
    save_labels(tmp_path / "labels.png", labels, PALETTE)
    with Image.open(tmp_path / "labels.png") as picture:
        assert picture.mode == "P"
        assert np.asarray(picture).tolist() == labels.tolist()
        shown = np.asarray(picture.convert("RGB"))
    assert shown[0].tolist() == PALETTE.tolist()
    assert shown[1, 0].tolist() == [255, 255, 255]


def test_pictures_keep_their_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    save_picture(tmp_path / "picture.png", pixels)
    with Image.open(tmp_path / "picture.png") as picture:
        assert np.asarray(picture).tolist() == pixels.tolist()


RECORDS = [
    {"epoch": 1, "train_loss": 1.5, "val_loss": 1.2, "mean_iu": 0.2, "pixel_accuracy": 0.5},
    {"epoch": 2, "train_loss": 0.9, "val_loss": None, "mean_iu": None, "pixel_accuracy": 0.6},
    {"epoch": 3, "train_loss": 0.8, "val_loss": 0.7, "mean_iu": 0.4, "pixel_accuracy": 0.7},
]


def test_a_curve_goes_on_over_epochs_that_were_not_validated():
    assert pictures._points(RECORDS, "mean_iu") == ([1, 3], [0.2, 0.4])


def test_the_learning_curve_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="learning curves need the extra `plot`")
    assert learning_curve(tmp_path / "curve.png", RECORDS) is None
    with Image.open(tmp_path / "curve.png") as picture:
        assert min(picture.size) > 300
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_without_matplotlib_one_sentence_says_so_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    monkeypatch.setattr(pictures, "_said", set())
    assert 'pip install "minifcn[plot]"' in (learning_curve(tmp_path / "curve.png", RECORDS) or "")
    assert learning_curve(tmp_path / "curve.png", RECORDS) == ""
    assert not (tmp_path / "curve.png").exists()

"""The metrics equal numbers worked out by hand from the definitions of Long et al. 2015, section 5."""

import math
import warnings

import numpy as np
import pytest

from minifcn.training.metrics import ConfusionMatrix

# Seven pixels, the last one void:
TRUTH = np.array([[0, 0, 0, 1, 1, 2, 255]], np.uint8)
GUESS = np.array([[0, 0, 1, 1, 0, 2, 1]], np.int64)


def matrix_of(truth, guess, num_classes):
    matrix = ConfusionMatrix(num_classes)
    matrix.update(truth, guess)
    return matrix


def test_counts_are_truth_by_prediction_without_void():
    assert matrix_of(TRUTH, GUESS, 3).counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_the_four_numbers():
    matrix = matrix_of(TRUTH, GUESS, 3)
    assert matrix.pixel_accuracy == pytest.approx(4 / 6)
    assert matrix.mean_accuracy == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    # IU: 2 / (3 + 3 − 2), 1 / (2 + 2 − 1), 1 / 1
    assert matrix.per_class_iu == pytest.approx([1 / 2, 1 / 3, 1])
    assert matrix.mean_iu == pytest.approx(11 / 18)
    assert matrix.frequency_weighted_iu == pytest.approx((3 * 1 / 2 + 2 * 1 / 3 + 1) / 6)


def test_a_class_in_neither_is_left_out_and_one_only_predicted_counts_as_zero():
    matrix = matrix_of([0, 0, 0, 1], [0, 0, 2, 1], 4)
    assert matrix.per_class_iu[:3] == pytest.approx([2 / 3, 1, 0])
    assert math.isnan(matrix.per_class_iu[3])
    assert matrix.mean_iu == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert matrix.mean_accuracy == pytest.approx((2 / 3 + 1) / 2), "class 2 has no pixels to be right about"
    assert matrix.frequency_weighted_iu == pytest.approx((3 * 2 / 3 + 1 * 1) / 4)


def test_a_class_never_predicted_has_iu_zero():
    assert matrix_of([0, 1], [0, 0], 2).per_class_iu == pytest.approx([1 / 2, 0])


def test_one_matrix_for_all_images_is_not_the_mean_of_images():
    matrix = ConfusionMatrix(2)
    matrix.update([0, 0, 0, 0], [0, 0, 0, 0])
    matrix.update([1, 1, 0, 0], [1, 0, 0, 0])
    # counts [[6, 0], [1, 1]]: IU 6/7 and 1/2; image by image it would be mean(1, mean(2/3, 1/2))
    assert matrix.mean_iu == pytest.approx((6 / 7 + 1 / 2) / 2)


def test_merged_parts_equal_the_whole():
    whole, left, right = ConfusionMatrix(3), ConfusionMatrix(3), ConfusionMatrix(3)
    rng = np.random.default_rng(0)
    for part in (left, right):
        truth, guess = rng.integers(0, 3, (2, 5, 7)), rng.integers(0, 3, (2, 5, 7))
        part.update(truth, guess)
        whole.update(truth, guess)
    left.merge(right)
    assert left.counts.tolist() == whole.counts.tolist()
    assert whole.counts.sum() == 2 * 2 * 5 * 7


def test_nothing_but_void_gives_nan_and_no_warning():
    matrix = matrix_of([255, 255], [0, 1], 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = (matrix.pixel_accuracy, matrix.mean_accuracy, matrix.mean_iu, matrix.frequency_weighted_iu)
        matrix.table()
    assert all(map(math.isnan, numbers))
    assert matrix.summary() == {
        "pixel_accuracy": None,
        "mean_accuracy": None,
        "mean_iu": None,
        "frequency_weighted_iu": None,
        "per_class_iu": [None, None],
    }


def test_unsigned_bytes_do_not_overflow():
    truth = np.full(300, 200, np.uint8)
    assert matrix_of(truth, truth, 201).counts[200, 200] == 300


@pytest.mark.parametrize(
    ("truth", "guess", "kind", "words"),
    [
        ([0, 3], [0, 0], ValueError, "labels hold classes 0…3; 0…2, or 255 for void, are needed"),
        ([0, -1], [0, 0], ValueError, "labels hold classes -1…0"),
        ([0, 1], [0, 3], ValueError, "predictions hold classes 0…3"),
        ([0, 1], [0, 255], ValueError, "predictions hold classes 0…255"),
        ([[0, 1]], [0, 1], ValueError, r"labels \(1, 2\) and predictions \(2,\)"),
        ([0.0, 1.0], [0, 1], TypeError, "labels are float64; integers are needed"),
        ([True, False], [0, 1], TypeError, "labels are bool"),
    ],
)
def test_wrong_input_is_named(truth, guess, kind, words):
    matrix = ConfusionMatrix(3)
    with pytest.raises(kind, match=words):
        matrix.update(truth, guess)
    assert matrix.counts.sum() == 0, "a refused update counts nothing"


def test_wrong_numbers_of_classes_are_named():
    with pytest.raises(ValueError, match="num_classes is 0; at least 1"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match="2 classes and 3"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))
    with pytest.raises(ValueError, match="1 names for 2 classes"):
        ConfusionMatrix(2).table(["sky"])


def test_table_has_a_line_for_every_class_and_number():
    lines = matrix_of(TRUTH, GUESS, 4).table(["sky", "road", "tree", "boat"]).splitlines()
    assert [line.split() for line in lines] == [
        ["class", "IU", "accuracy", "pixels"],
        ["sky", "0.500", "0.667", "50.0%"],
        ["road", "0.333", "0.500", "33.3%"],
        ["tree", "1.000", "1.000", "16.7%"],
        ["boat", "–", "–", "0.0%"],
        [],
        ["pixel", "accuracy", "0.667"],
        ["mean", "accuracy", "0.722"],
        ["mean", "IU", "0.611"],
        ["frequency", "weighted", "IU", "0.528"],
    ]

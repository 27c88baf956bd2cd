"""A configuration survives its file, and refuses values that would fail later."""

import dataclasses
import json

import pytest

from minifcn.training.config import TrainConfig, parse_names, parse_range, parse_size


def test_every_entry_survives_the_file():
    config = TrainConfig(
        model="fcn32s_vgg16", size=(40, 60), crop=(32, 48), scale=(0.5, 2.0), lr=0.1 + 0.2, flip=False, seed=7
    )
    assert TrainConfig.from_json(config.to_json()) == config
    assert set(json.loads(config.to_json())) == {entry.name for entry in dataclasses.fields(TrainConfig)}


def test_names_of_classes_survive_the_file():
    config = TrainConfig(data="folder:a:b", classes=("sky", "road"))
    assert TrainConfig.from_json(config.to_json()) == config


def test_entries_that_a_file_lacks_have_their_defaults():
    assert TrainConfig.from_json('{"epochs": 3}') == TrainConfig(epochs=3)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"epochs": 0}, "epochs is 0; at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5; int is needed"),
        ({"val_every": 0}, "val_every is 0; at least 1"),
        ({"epochs": True}, "epochs is True; int is needed"),
        ({"lr": "0.1"}, "lr is '0.1'; float is needed"),
        ({"lr": 0.0}, "lr is 0.0; a number above 0"),
        ({"lr": float("nan")}, "lr is nan; a number above 0"),
        ({"width": -1.0}, "width is -1.0"),
        ({"brightness": -0.1}, "brightness is -0.1; 0 to 1 is needed"),
        ({"contrast": 1.5}, "contrast is 1.5; 0 to 1 is needed"),
        ({"matmul_precision": "medium"}, "matmul_precision is 'medium'; one of highest, high is needed"),
        ({"momentum": 1.0}, "momentum is 1.0; 0 or more and below 1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"seed": -1}, "seed is -1"),
        ({"crop": (0, 5)}, r"crop is \(0, 5\)"),
        ({"size": (5,)}, r"size is \(5,\)"),
        ({"scale": (2.0, 1.0)}, r"scale is \(2.0, 1.0\); 0 < least ≤ most"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; one of sgd, adam"),
        ({"classes": ("sky",)}, "classes is .*; camvid, voc and shapes have names"),
    ],
)
def test_a_value_out_of_range_is_named(entries, words):
    with pytest.raises(ValueError, match=f"^TrainConfig: {words}"):
        TrainConfig(**entries)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds list; a JSON object"),
        ('{"epoch": 3}', "unknown entries epoch"),
    ],
)
def test_a_file_that_holds_no_configuration_is_named(text, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig.from_json(text)


@pytest.mark.parametrize("text", ["0x5", "x", "3x", "3x4x5", "-3", "3.5", "", "axb", "²x3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_ranges_and_names_are_read():
    assert parse_size("360×480") == (360, 480)
    assert parse_range(" 0.5 , 2") == (0.5, 2.0)
    assert parse_names("a,b c") == ("a", "b c")
    for text in ("1", "1,2,3", "a,b", ""):
        with pytest.raises(ValueError, match="LEAST,MOST"):
            parse_range(text)
    with pytest.raises(ValueError, match="none of them empty"):
        parse_names("a,,b")


def test_every_public_name_of_the_room_is_there():
    from minifcn import training

    assert sorted(name for names in training._HOMES.values() for name in names) == sorted(training.__all__)
    assert all(getattr(training, name).__name__ == name for name in training.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = training.trian

"""A damaged image is named and stood in for, and nothing else changes."""

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from minifcn.data import Augment, Loader, PairFolder, Shapes, Skipping, count_stand_ins
from minifcn.training import TrainConfig, Trainer, train

COUNT = 7


class Torn(Shapes):
    """Scenes of which some cannot be read."""

    def __init__(self, *bad, error=ValueError):
        super().__init__(count=COUNT, size=(32, 32))
        self.bad, self.error = bad, error

    def __getitem__(self, index):
        if index in self.bad:
            raise self.error(f"image {index} is truncated")
        return super().__getitem__(index)


class Replaced(Shapes):
    """What `Torn(3, 6)` should look like: 4 stands at 3, and 0 at 6."""

    def __getitem__(self, index):
        return super().__getitem__({3: 4, 6: 0}.get(index, index))


def batches(dataset, workers):
    loader = Loader(dataset, 2, shuffle=True, augment=Augment(scale=(0.5, 1.5), crop=(24, 24)), seed=5, workers=workers)
    return [batch for epoch in range(2) for batch in loader.epoch(epoch)]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_every_other_sample_is_what_it_would_have_been(workers):
    said = []
    ours = batches(Skipping(Torn(3, 6), said.append), workers)
    expected = batches(Replaced(count=COUNT, size=(32, 32)), 0)
    assert len(ours) == len(expected) == 8
    for batch, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(batch.images, other.images)
        np.testing.assert_array_equal(batch.labels, other.labels)
        assert [name.partition(" in place of ")[0] for name in batch.names] == list(other.names)
    assert [sum(count_stand_ins(b.names) for b in part) for part in (ours[:4], ours[4:])] == [2, 2]
    assert sorted(said) == [f"skipped, the next image takes its place: image {k} is truncated" for k in (3, 6)]


def test_several_in_a_row_and_the_ends():
    said = []
    scenes = Skipping(Torn(0, 1, 6), said.append)
    assert [scenes[k].name for k in (0, 6)] == [f"{Shapes(count=COUNT)[2].name} in place of sample {k}" for k in (0, 6)]
    assert scenes[-1].name == scenes[6].name
    assert len(said) == 3, "each is named once"
    with pytest.raises(IndexError):
        scenes[COUNT]
    assert (len(scenes), scenes.classes) == (COUNT, Shapes().classes)


def test_two_threads_that_meet_at_one_name_it_once():
    both = threading.Barrier(2, timeout=10)

    class Together(Torn):
        def __getitem__(self, index):
            if index == 3:
                both.wait()
            return super().__getitem__(index)

    said = []
    scenes = Skipping(Together(3), said.append)
    with ThreadPoolExecutor(2) as pool:
        assert len({sample.name for sample in pool.map(scenes.__getitem__, (3, 3))}) == 1
    assert len(said) == 1


def test_where_nothing_can_be_read_the_first_reason_is_given():
    with pytest.raises(ValueError, match="no sample of 7 can be used; the first: image 0 is truncated"):
        Skipping(Torn(*range(COUNT)), lambda line: None)[4]


def test_a_file_that_is_missing_is_no_damaged_one():
    with pytest.raises(FileNotFoundError):
        Skipping(Torn(3, error=FileNotFoundError), lambda line: None)[3]


# -- in training


@pytest.fixture
def photos(tmp_path):
    """(configuration, a training image's file, a validation image's)."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for k in range(10):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "images" / f"{k}.png")
        Image.fromarray(rng.integers(0, 2, (32, 32), np.uint8)).save(tmp_path / "masks" / f"{k}.png")
    folders = tmp_path / "images", tmp_path / "masks"
    config = TrainConfig(
        data=f"folder:{folders[0]}:{folders[1]}", classes=("a", "b"), width=0.0625, epochs=2, batch_size=2, workers=2
    )
    parts = [PairFolder(*folders, split=split) for split in ("train", "val")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minifcn.training.trainer.learning_curve", lambda path, records: None)
        yield config, parts[0].pairs[1].image, parts[1].pairs[0].image


def tear(file):
    file.write_bytes(file.read_bytes()[:200])


def quiet(line):
    pass


def left(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return (folder / "best.safetensors").read_bytes(), [r | {"seconds": 0} for r in records]


def test_a_damaged_image_stops_the_run_or_is_skipped_as_chosen(photos, tmp_path):
    config, image, _ = photos
    tear(image)
    said = []
    with pytest.raises(ValueError, match=f"{image} is truncated or damaged"):
        train(config, tmp_path / "run", say=said.append)
    assert "stopped by an error and saved after step" in said[-1]
    skip = replace(config, bad_images="skip")
    said = []
    train(skip, tmp_path / "run", resume=True, say=said.append)
    assert sum(str(image) in line for line in said) == 1
    train(skip, tmp_path / "other", say=quiet)
    assert left(tmp_path / "run") == left(tmp_path / "other")
    assert [record["skipped"] for record in left(tmp_path / "run")[1]] == [1, 1]


def test_they_are_counted_across_a_stop(photos, tmp_path):
    config, image, _ = photos
    tear(image)
    config = replace(config, bad_images="skip", epochs=1)
    train(config, tmp_path / "whole", say=quiet)
    folder = tmp_path / "run"
    trainer = Trainer(config, folder, say=quiet)
    while True:
        trainer.module.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGINT))
        try:
            trainer.fit()
        except KeyboardInterrupt:
            trainer = Trainer.resume(folder, say=quiet)
            if trainer.step == len(trainer.loader):
                break
    train(out=folder, resume=True, say=quiet)
    assert left(folder) == left(tmp_path / "whole")
    assert left(folder)[1][0]["skipped"] == 1


def test_a_damaged_validation_image_always_stops(photos, tmp_path):
    """A score over fewer images would be another score. Once the file is mended the run goes on."""
    config, _, image = photos
    whole = image.read_bytes()
    tear(image)
    with pytest.raises(ValueError, match=f"{image} is truncated or damaged"):
        train(replace(config, bad_images="skip"), tmp_path / "run", say=quiet)
    image.write_bytes(whole)
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert [record["skipped"] for record in left(tmp_path / "run")[1]] == [0, 0]

"""The loader: the same batches whatever the threads do, bounded look-ahead, and no thread left behind."""

import threading
import time
import weakref

import numpy as np
import pytest
from PIL import Image

from minifcn.data import Augment, CamVidFolder, Loader, Sample, Shapes, normalize, voc_palette


class Numbers:
    """Samples that are filled with their own number, and a record of which were read."""

    classes, num_classes, palette = ("a", "b"), 2, voc_palette(2)

    def __init__(self, count, sizes=((6, 8),), delay=False):
        self.count, self.sizes, self.delay = count, sizes, delay
        self.read = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        if self.delay:  # earlier samples of a batch take longer: they would come last if order were by completion
            time.sleep(0.004 * (3 - index % 4))
        size = self.sizes[index % len(self.sizes)]
        return Sample(np.full((*size, 3), index, np.uint8), np.full(size, index % 2, np.uint8), f"n{index}")


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert loader_threads() == []


def loader_threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("minifcn-loader")]


def noise(sample, rng):
    return sample._replace(image=rng.integers(0, 256, sample.image.shape, dtype=np.uint8))


def flat(batches):
    return [(b.images.tobytes(), b.labels.tobytes(), b.names) for b in batches]


def test_batches_hold_normalised_images_labels_and_names_in_order():
    batches = list(Loader(Numbers(5), batch_size=2))
    assert [b.names for b in batches] == [("n0", "n1"), ("n2", "n3"), ("n4",)]
    assert batches[1].images.shape == (2, 3, 6, 8)
    assert (batches[1].images.dtype, batches[1].labels.dtype) == (np.float32, np.int64)
    assert batches[1].labels[:, 0, 0].tolist() == [0, 1]
    expected = (np.array([3, 3, 3]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert batches[1].images[1, :, 4, 4] == pytest.approx(expected, abs=1e-6)


def test_results_do_not_depend_on_the_number_of_threads():
    runs = [
        flat(Loader(Numbers(11, delay=True), 4, shuffle=True, augment=noise, seed=3, workers=workers).epoch(2))
        for workers in (0, 1, 4)
    ]
    assert runs[0] == runs[1] == runs[2]


def test_files_give_the_same_batches_whatever_the_number_of_threads(tmp_path):
    """Every change there is, on photographs of several sizes, in two epochs."""
    rng = np.random.default_rng(0)
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    for k in range(9):
        size = (40 + k, 60 - k)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "train" / f"{k}.png")
        Image.fromarray(rng.integers(0, 11, size, np.uint8)).save(tmp_path / "trainannot" / f"{k}.png")
    augment = Augment(scale=(0.5, 2), crop=(32, 48), flip=True, brightness=0.2, contrast=0.2)
    runs = []
    for workers in (0, 1, 3):
        data = CamVidFolder(tmp_path, "train")
        loader = Loader(data, 2, shuffle=True, augment=augment, seed=5, workers=workers)
        runs.append([flat(loader.epoch(epoch)) for epoch in (0, 1)])
    assert runs[0] == runs[1] == runs[2]
    assert runs[0][0] != runs[0][1]


def test_every_epoch_has_its_own_order_and_changes_and_every_sample_once():
    loader = Loader(Numbers(40), 8, shuffle=True, augment=noise, seed=1)
    epochs = [list(loader.epoch(e)) for e in (0, 1, 0)]
    orders = [[name for b in batches for name in b.names] for batches in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(f"n{i}" for i in range(40))
    assert orders[0] != orders[1] != sorted(orders[1])
    assert flat(epochs[0]) == flat(epochs[2])
    by_name = [{n: x.tobytes() for b in e for n, x in zip(b.names, b.images, strict=True)} for e in epochs[:2]]
    assert not set(by_name[0].values()) & set(by_name[1].values())
    assert len(set(by_name[0].values())) == 40
    other = Loader(Numbers(40), 8, shuffle=True, seed=2)
    assert [name for b in other for name in b.names] != orders[0]


def test_a_sample_is_changed_alike_wherever_it_stands():
    plain = next(iter(Loader(Numbers(6), 6, augment=noise, seed=5)))
    mixed = next(iter(Loader(Numbers(6), 6, shuffle=True, augment=noise, seed=5)))
    assert plain.names != mixed.names
    for n, name in enumerate(mixed.names):
        assert np.array_equal(mixed.images[n], plain.images[plain.names.index(name)])


def test_starting_in_the_middle_gives_the_rest_and_reads_only_that():
    whole = flat(Loader(Numbers(10), 3, shuffle=True, augment=noise).epoch(4))
    data = Numbers(10)
    rest = flat(Loader(data, 3, shuffle=True, augment=noise, workers=2).epoch(4, start=2))
    assert rest == whole[2:]
    assert len(data.read) == 4
    assert list(Loader(data, 3).epoch(0, start=4)) == []


def test_images_of_different_sizes_are_padded_right_and_below():
    images, labels, _ = next(iter(Loader(Numbers(3, sizes=((4, 9), (7, 5), (2, 2))), 3)))
    assert images.shape == (3, 3, 7, 9)
    for n, (h, v) in enumerate(((4, 9), (7, 5), (2, 2))):
        inside = np.zeros((7, 9), bool)
        inside[:h, :v] = True
        assert (labels[n] == np.where(inside, n % 2, 255)).all()
        assert (images[n][:, ~inside] == 0).all()
        assert (images[n][:, inside] != 0).all()


@pytest.mark.parametrize(("drop_last", "batches"), [(False, 4), (True, 3)])
def test_length_counts_the_batches(drop_last, batches):
    loader = Loader(Numbers(10), 3, drop_last=drop_last)
    assert len(loader) == len(list(loader)) == batches


@pytest.mark.parametrize("workers", [1, 3])
def test_leaving_early_stops_the_threads(workers):
    data = Numbers(1000)
    for batch in Loader(data, 2, workers=workers):
        assert loader_threads()
        if batch.names[0] == "n4":
            break
    assert loader_threads() == []
    assert len(data.read) < 20


def test_an_exception_in_the_loop_stops_the_threads():
    def train():
        for _ in Loader(Numbers(1000), 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert loader_threads() == []


def test_looking_ahead_is_bounded():
    data = Numbers(400)
    batches = Loader(data, 4, workers=3).epoch(0)
    for taken in range(1, 4):
        next(batches)
        time.sleep(0.05)  # far longer than reading everything would take
        assert len(data.read) <= 4 * (taken + 2)
    batches.close()


def test_reading_happens_while_the_caller_works():
    data = Numbers(12)
    batches = Loader(data, 2).epoch(0)
    next(batches)
    deadline = time.monotonic() + 5
    while len(data.read) < 6 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(data.read) == 6  # the batch in hand and two more, though nobody asked for them yet
    batches.close()


def test_memory_of_a_used_batch_is_not_kept():
    batches = Loader(Numbers(10), 2).epoch(0)
    first = weakref.ref(next(batches).images)
    next(batches)
    assert first() is None
    batches.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_surfaces_with_its_name(tmp_path, workers):
    (tmp_path / "train").mkdir()
    (tmp_path / "trainannot").mkdir()
    for i in range(6):
        Image.effect_noise((8, 6), 50).save(tmp_path / "train" / f"{i}.png")
        Image.new("L", (8, 6)).save(tmp_path / "trainannot" / f"{i}.png")
    broken = tmp_path / "train" / "3.png"
    broken.write_bytes(broken.read_bytes()[:70])
    got = []
    with pytest.raises(ValueError, match=rf"{broken} is truncated or damaged") as caught:
        got += [b.names for b in Loader(CamVidFolder(tmp_path, "train"), 2, workers=workers).epoch(1)]
    assert "sample 3" in caught.value.__notes__[0]
    assert "epoch 1" in caught.value.__notes__[0]


def test_a_failing_augmentation_names_the_sample():
    def fail(sample, rng):
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError) as caught:
        list(Loader(Numbers(3), 1, augment=fail))
    assert caught.value.__notes__ == ["Loader: in sample 0 (n0) of epoch 0"]


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"n0 has image \(6, 8, 3\) but labels \(6, 7\)"):
        list(Loader(Numbers(1), 1, augment=lambda sample, rng: sample._replace(labels=sample.labels[:, 1:])))


def test_shapes_through_the_loader_are_the_shapes():
    data = Shapes(count=3, size=(40, 48))
    images, labels, names = next(iter(Loader(data, 3, workers=2)))
    for n in range(3):
        assert np.array_equal(images[n], normalize(data[n].image))
        assert np.array_equal(labels[n], data[n].labels)
        assert names[n] == data[n].name
    cropped = next(iter(Loader(data, 3, augment=Augment(scale=(0.5, 2), crop=(33, 35), flip=True))))
    assert cropped.images.shape == (3, 3, 33, 35)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1, "workers": -1}, "workers is -1"),
        ({"batch_size": 1, "seed": -1}, "seed is -1"),
        ({"batch_size": 9, "drop_last": True}, r"drop_last leaves no batch \(4 samples, batch_size 9\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"Loader: {message}"):
        Loader(Numbers(4), **arguments)


def test_wrong_epochs_and_starts_are_named_at_once():
    loader = Loader(Numbers(4), 2)
    with pytest.raises(ValueError, match="epoch is -1"):
        loader.epoch(-1)
    with pytest.raises(ValueError, match="start is 3; the epoch has batches 0 … 1"):
        loader.epoch(0, start=3)
    with pytest.raises(ValueError, match="the dataset is empty"):
        Loader(Numbers(0), 2)


def test_iterating_twice_gives_the_next_epoch():
    loader = Loader(Shapes(count=8, size=(32, 32)), batch_size=8, shuffle=True)
    orders = [next(iter(loader)).names for _ in range(2)]
    assert orders[0] != orders[1]
    assert orders == [next(loader.epoch(e)).names for e in range(2)]

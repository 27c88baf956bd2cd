"""A learning rate for the sum of the losses and one for their mean make the same updates, and recipes by name."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from benchmarks.measure import RESULTS
from minifcn import nn
from minifcn.data import IGNORE, Augment, Batch, Sample, Shapes
from minifcn.training import TrainConfig, World, train
from minifcn.training.recipes import RECIPES, configure, convert, in_other_words, step_pixels
from minifcn.training.shares import Share, shares

pytestmark = pytest.mark.usefixtures("no_learning_curves")

TINY = TrainConfig(
    model="fcn8s_resnet18", width=0.0625, size=(32, 40), scenes=4, val_scenes=2, epochs=1, batch_size=2, lr=0.01
)
PIXELS = 4 * 6 * 8


def quiet(line):
    pass


# -- the sum and the mean


def batches(count=12):
    """Batches of 192 pixels, none of them void, whose class shows in the image."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        labels = rng.integers(0, 3, (4, 6, 8))
        images = rng.standard_normal((4, 3, 6, 8))
        images[:, 0] += labels
        yield Batch(images, labels, tuple("abcd"))


def trained(optimizer, reduction):
    """The weights of a network after a dozen steps in float64; optimizer(parameters) makes the updates."""
    mf.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1)).to("float64")
    steps = optimizer(list(net.parameters()))
    for share in shares(World(), batches(), 3):
        share.forward(net, reduction=reduction)[1].backward()
        steps.step()
        steps.zero_grad()
    return np.concatenate([p.numpy().ravel() for p in net.parameters()])


def test_sgd_with_converted_rates_makes_the_same_updates():
    lr, decay = 4e-4, 10.0
    mean_lr, mean_decay = convert(lr, decay, PIXELS, "mean")
    by_sum = trained(lambda p: mf.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=decay), "sum")
    by_mean = trained(lambda p: mf.optim.SGD(p, lr=mean_lr, momentum=0.9, weight_decay=mean_decay), "mean")
    np.testing.assert_allclose(by_mean, by_sum, rtol=1e-11, atol=1e-13)
    undecayed = trained(lambda p: mf.optim.SGD(p, lr=mean_lr, momentum=0.9), "mean")
    unconverted = trained(lambda p: mf.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=decay), "mean")
    assert min(abs(undecayed - by_sum).max(), abs(unconverted - by_sum).max()) > 0.01


def test_adam_with_a_converted_weight_decay_makes_the_same_updates():
    lr, decay = convert(0.02, 5.0, PIXELS, "mean", optimizer="adam")
    by_sum = trained(lambda p: mf.optim.Adam(p, lr=0.02, weight_decay=5.0, eps=1e-8 * PIXELS), "sum")
    by_mean = trained(lambda p: mf.optim.Adam(p, lr=lr, weight_decay=decay), "mean")
    np.testing.assert_allclose(by_mean, by_sum, rtol=1e-9, atol=1e-11)
    undecayed = trained(lambda p: mf.optim.Adam(p, lr=lr), "mean")
    assert abs(undecayed - by_sum).max() > 0.01


def test_converting_there_and_back_changes_nothing():
    for optimizer in ("sgd", "adam"):
        there = convert(1e-10, 5e-4, 123_456, "mean", optimizer)
        assert convert(*there, 123_456, "sum", optimizer) == pytest.approx((1e-10, 5e-4), rel=1e-14)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1.0, 1.0, 10, "median"), "to is 'median'"),
        ((1.0, 1.0, 0, "mean"), "pixels is 0; a number above 0"),
        ((1.0, 1.0, math.nan, "mean"), "pixels is nan"),
        ((1.0, 1.0, 10, "mean", "lion"), "optimizer is 'lion'"),
    ],
)
def test_what_cannot_be_converted(arguments, words):
    with pytest.raises(ValueError, match=f"^convert: {words}"):
        convert(*arguments)


def test_the_shares_of_a_summed_loss_add_up_to_it():
    (batch,) = batches(1)
    batch.labels[0, :3] = IGNORE
    weights = mf.Tensor(np.array([0.5, 4.0, 1.25]))
    net = nn.Conv2d(3, 3, 1).to("float64")
    whole = F.cross_entropy(net(mf.Tensor(batch.images)), batch.labels, weights, ignore_index=IGNORE, reduction="sum")
    facts = {"count": 4, "pixels": np.ones(3, int), "stand_ins": 0, "weight": 7.0}
    parts = [Share(Batch(*(entry[s] for entry in batch)), s.start, **facts) for s in (slice(0, 1), slice(1, 4))]
    assert sum(part.forward(net, weights, reduction="sum")[1].item() for part in parts) == pytest.approx(whole.item())
    assert sum(part.forward(net, weights)[1].item() for part in parts) == pytest.approx(whole.item() / 7)


@pytest.mark.parametrize("class_weights", ["none", "median"])
def test_curves_of_both_losses_are_of_one_unit(tmp_path, class_weights):
    """The loss of the first step is that of the initial weights, whatever is minimised."""
    config = replace(TINY, scenes=8, batch_size=8, class_weights=class_weights)
    by_mean = train(config, tmp_path / "mean", say=quiet)
    by_sum = train(replace(config, loss="sum", lr=1e-5), tmp_path / "sum", say=quiet)
    assert by_sum.records[0]["train_loss"] == pytest.approx(by_mean.records[0]["train_loss"], rel=1e-5)
    assert json.loads((tmp_path / "sum" / "config.json").read_text())["loss"] == "sum"


def test_a_run_with_a_summed_loss_says_what_its_rates_would_be_for_the_mean(tmp_path):
    said = []
    config = replace(TINY, loss="sum", optimizer="sgd", lr=2e-6, weight_decay=1.0)
    train(config, tmp_path / "run", say=said.append)
    scenes = Shapes(count=4, size=(32, 40))
    pixels = sum(int((scenes[k].labels != IGNORE).sum()) for k in range(4)) / 4 * 2  # two images a step
    assert pixels < 2560  # their outlines are void
    (line,) = (line for line in said if line.startswith("summed loss"))
    assert line == (
        f"summed loss over about {pixels:,.0f} valid pixels a step: lr 2e-06 is what {2e-6 * pixels:.3g} is for the "
        f"mean loss, weight decay 1 what {1 / pixels:.3g} is"
    )
    again = []
    train(out=tmp_path / "run", resume=True, say=again.append)
    assert not any(line.startswith("summed loss") for line in again)


def test_adams_rate_is_the_same_for_both():
    said = in_other_words(replace(TINY, loss="sum", weight_decay=0.5), 1000)
    assert (
        "lr 0.01 is the same (Adam divides by the gradient's size) for the mean loss, weight decay 0.5 what 0.0" in said
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_rate_for_the_mean_under_the_sum_is_explained_where_it_ends(tmp_path):
    config = replace(TINY, loss="sum", optimizer="sgd", lr=1e6, scenes=20)
    with pytest.raises(FloatingPointError, match=r"the loss is the sum over \d,\d+ pixels, so a learning rate for th"):
        train(config, tmp_path / "run", say=quiet)
    with pytest.raises(FloatingPointError, match=r"a new run with a lower --lr is needed$"):
        train(replace(config, optimizer="adam", lr=1e30), tmp_path / "adam", say=quiet)  # whose rate is one for both


class Lines:
    """Images of 20×30 pixels, number k with k % 5 lines of void."""

    classes, num_classes, palette = ("a", "b"), 2, np.zeros((2, 3), np.uint8)

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        labels = np.tile(np.array([0, 0, 1], np.uint8), (20, 10))
        labels[: index % 5] = IGNORE
        return Sample(np.zeros((20, 30, 3), np.uint8), labels, str(index))


def test_the_pixels_of_a_step_are_counted():
    void = 30 * 11 / 7  # an image: 0, 1, 2, 3, 4, 0 and 1 lines
    assert step_pixels(Lines(7), 3) == pytest.approx(3 * (600 - void))
    assert step_pixels(Lines(7), 100) == pytest.approx(7 * (600 - void))  # a step has no more images than there are
    weighted = step_pixels(Lines(7), 3, class_weights=[0.5, 8.0])
    assert weighted == pytest.approx(3 * (600 - void) * (0.5 * 2 / 3 + 8.0 / 3))
    assert step_pixels(Lines(1), 3, Augment(crop=(8, 9))) == 72
    assert step_pixels(Lines(1), 3, Augment(crop=(40, 40))) == 600  # beyond the image is void
    assert step_pixels(Lines(6400), 1) == pytest.approx(600 - 30 * 2, rel=0.03)  # of which 64 are looked at


# -- recipes


def test_the_references_solvers():
    """voc-fcn*/solver.prototxt: base_lr, momentum, weight_decay."""
    solvers = {
        "fcn32s_vgg16_paper": (1e-10, 0.99, 5e-4, 1, "sum"),
        "fcn16s_vgg16_paper": (1e-12, 0.99, 5e-4, 1, "sum"),
        "fcn8s_vgg16": (1e-14, 0.99, 5e-4, 1, "sum"),
        "fcn8s_atonce_vgg16_paper": (1e-10, 0.99, 5e-4, 1, "sum"),
        "fcn32s_alexnet_paper": (1e-4, 0.9, 5e-4, 20, "mean"),
    }
    for model, (lr, momentum, decay, images, loss) in solvers.items():
        config, said = configure("reference", {"model": model})
        assert (config.lr, config.momentum, config.weight_decay) == (lr, momentum, decay), model
        assert (config.batch_size, config.loss, config.optimizer, config.schedule) == (images, loss, "sgd", "constant")
        assert (config.crop, config.scale, config.flip, config.width) == (None, None, False, 1.0)
        assert said is None
    assert configure("reference", {"model": "fcn32s_vgg16"})[0].paper_bias


def test_the_papers_rates():
    for backbone, lr in (("alexnet", 1e-3), ("vgg16", 1e-4), ("googlenet", 5e-5)):
        for stride, factor in ((32, 1), (16, 0.01), (8, 0.01)):
            config, _ = configure("paper", {"model": f"fcn{stride}s_{backbone}"})
            assert config.lr == pytest.approx(lr * factor)
            assert (config.batch_size, config.momentum, config.loss, config.paper_bias) == (20, 0.9, "mean", True)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_rule_is_for_networks_that_exist_and_entries_that_do(recipe):
    from fnmatch import filter as matching

    for pattern, entries in RECIPES[recipe].rules:
        assert matching(mf.models.available(), pattern), pattern
        TrainConfig(**entries)
        assert pattern in str(RECIPES[recipe])


def test_pixels_that_are_weighed_are_called_so():
    config = TrainConfig(optimizer="sgd", loss="sum", lr=1e-10, class_weights="median")
    assert "about 1,000 valid pixels (times their classes' weights) a step" in in_other_words(config, 1000)
    _, said = configure("reference", {"model": "fcn32s_vgg16", "loss": "mean", "class_weights": "median"}, lambda _: 7)
    assert "about 7 valid pixels (times their classes' weights) a step, lr 1e-10 is 7e-10" in said


def test_the_recipe_for_camvid_is_the_one_that_was_measured():
    rows = json.loads((RESULTS / "stages_camvid.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16"]
    for row in rows:
        elsewhere = ("data", "init", "device", "workers")  # which are the command line's
        given = {name: row["config"][name] for name in ("model", *elsewhere)}
        assert configure("camvid", given)[0] == TrainConfig.from_dict(row["config"])


def test_the_command_line_overrides_a_recipe():
    config, _ = configure("camvid", {"model": "fcn32s_resnet18", "lr": 7.0, "flip": False, "epochs": 11})
    assert (config.lr, config.flip, config.epochs, config.model) == (7.0, False, 11, "fcn32s_resnet18")


def test_a_recipe_for_the_other_loss_is_converted_where_nothing_was_given():
    given = {"model": "fcn16s_vgg16", "loss": "mean"}
    counted = []

    def count(config):
        counted.append(config.loss)
        return 1000

    config, said = configure("reference", given, count)
    assert (config.lr, config.weight_decay, config.loss) == (pytest.approx(1e-9), pytest.approx(5e-7), "mean")
    assert said.endswith("lr 1e-12 is 1e-09 and weight decay 0.0005 is 5e-07 for the mean")
    config, said = configure("reference", given | {"lr": 0.5}, count)
    assert (config.lr, config.weight_decay) == (0.5, pytest.approx(5e-7))
    assert said.endswith("a step, weight decay 0.0005 is 5e-07 for the mean")
    assert configure("reference", given | {"lr": 0.5, "weight_decay": 0.25}, count)[0].weight_decay == 0.25
    assert len(counted) == 2
    config, _ = configure("paper", {"model": "fcn32s_vgg16", "loss": "sum"}, count)
    assert (config.lr, config.weight_decay) == (pytest.approx(1e-7), pytest.approx(0.5))


def test_the_pixels_of_the_runs_own_data_count():
    config, _ = configure("reference", {"model": "fcn32s_vgg16", "loss": "mean", "size": (32, 40), "scenes": 5})
    scenes = Shapes(count=5, size=(32, 40))
    pixels = np.mean([(scenes[k].labels != IGNORE).sum() for k in range(5)])
    assert config.lr == pytest.approx(1e-10 * pixels)


@pytest.mark.parametrize("class_weights", ["none", "median"])
def test_damaged_images_are_not_counted_where_training_skips_them(monkeypatch, class_weights):
    class Torn(Lines):
        def __getitem__(self, index):
            if index == 1:
                raise ValueError("1.png is truncated")
            return super().__getitem__(index)

    monkeypatch.setattr("minifcn.data.open_dataset", lambda *words, **options: Torn(3))
    given = {"model": "fcn32s_vgg16", "loss": "mean", "class_weights": class_weights}
    config, _ = configure("reference", given | {"bad_images": "skip"})
    # 0, 2 and 2 lines of void; a and b are ⅔ and ⅓ of the rest, whose median is ½
    weight = 1.0 if class_weights == "none" else 2 / 3 * (1 / 2) / (2 / 3) + 1 / 3 * (1 / 2) / (1 / 3)
    assert config.lr == pytest.approx(1e-10 * (600 + 540 + 540) / 3 * weight)
    with pytest.raises(ValueError, match=r"1\.png is truncated"):
        configure("reference", given)


@pytest.mark.parametrize(
    ("recipe", "given", "words"),
    [
        ("mine", {}, "there is no recipe 'mine'; one of reference, paper, camvid"),
        ("reference", {"model": "fcn8s_resnet18"}, "recipe reference has no learning rate for fcn8s_resnet18; --lr"),
        ("paper", {"model": "fcn8s_vgg16", "optimizer": "adam"}, "recipe paper is for sgd; with adam, --lr is needed"),
    ],
)
def test_what_a_recipe_cannot_do(recipe, given, words):
    with pytest.raises(ValueError, match=words):
        configure(recipe, given)

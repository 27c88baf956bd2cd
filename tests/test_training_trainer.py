"""A run that was stopped, anywhere and in any way, and resumed equals one that was not, to the bit."""

import json
import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import minifcn as mf
from minifcn.data import Augment, Shapes
from minifcn.training import TrainConfig, Trainer, evaluate, load_model, train
from minifcn.training.checkpoint import read
from minifcn.training.inference import choose_device, predict

pytestmark = pytest.mark.usefixtures("no_learning_curves")

TINY = TrainConfig(
    model="fcn8s_resnet18", width=0.0625, size=(32, 40), scenes=6, val_scenes=2, epochs=2, batch_size=2, lr=0.01
)
WITH_DROPOUT = replace(
    TINY, model="fcn8s_vgg16", width=0.03125, optimizer="sgd", schedule="step", step_epochs=1, paper_bias=True
)
RECIPES = pytest.mark.parametrize("config", [TINY, WITH_DROPOUT], ids=["adam-poly", "sgd-step-dropout"])


def quiet(line):
    pass


def untimed(folder):
    """Everything that a run leaves, except how long it took."""
    arrays, about = read(folder / "checkpoint.safetensors", "test")
    about["progress"].pop("seconds")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("seconds")
    return {
        "checkpoint": {key: (a.dtype.str, a.shape, a.tobytes()) for key, a in arrays.items()},
        "about": about,
        "records": records,
        "best": (folder / "best.safetensors").read_bytes(),
        "overlays": (folder / "overlays.png").read_bytes(),
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of a run by configuration; each is trained once."""
    done = {}

    def folder_of(config):
        if config not in done:
            done[config] = tmp_path_factory.mktemp("whole") / "run"
            train(config, done[config], say=quiet)
        return done[config]

    return folder_of


def stop_at_forward(trainer, number, how):
    """Call `how` in the `number`-th forward pass, counted from 1."""
    passes = 0

    def hook(module, inputs, output):
        nonlocal passes
        passes += 1
        if passes == number:
            how()

    trainer.module.register_forward_hook(hook)


def interrupt():
    raise KeyboardInterrupt


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def fail():
    raise RuntimeError("the power went")


# an epoch is 3 training passes and 1 validation pass
@RECIPES
@pytest.mark.parametrize("number", [2, 4, 6])
def test_interrupted_inside_a_pass(tmp_path, uninterrupted, config, number):
    trainer = Trainer(config, tmp_path / "run", say=quiet)
    stop_at_forward(trainer, number, interrupt)
    with pytest.raises(KeyboardInterrupt, match="interrupted and saved after step .*--resume"):
        trainer.fit()
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert untimed(tmp_path / "run") == untimed(uninterrupted(config))


@RECIPES
@pytest.mark.parametrize(("number", "epoch", "steps"), [(2, 1, 2), (4, 1, 3), (5, 2, 1)])
def test_ctrl_c_lets_the_step_finish(tmp_path, uninterrupted, config, number, epoch, steps):
    trainer = Trainer(config, tmp_path / "run", say=quiet)
    stop_at_forward(trainer, number, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt, match=f"saved after step {steps} of epoch {epoch}; python -m minifcn train"):
        trainer.fit()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert untimed(tmp_path / "run") == untimed(uninterrupted(config))


def test_interrupted_again_and_again(tmp_path, uninterrupted):
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    for _ in range(8):
        stop_at_forward(trainer, 2, interrupt)
        try:
            trainer.fit()
        except KeyboardInterrupt:
            trainer = Trainer.resume(tmp_path / "run", say=quiet)
        else:
            break
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert untimed(tmp_path / "run") == untimed(uninterrupted(TINY))


@pytest.mark.parametrize("number", [2, 7])
def test_a_crash_goes_on_from_the_last_epoch(tmp_path, uninterrupted, number):
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    stop_at_forward(trainer, number, fail)
    with pytest.raises(RuntimeError, match="the power went"):
        trainer.fit()
    assert (tmp_path / "run" / "checkpoint.safetensors").exists() == (number == 7)
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert untimed(tmp_path / "run") == untimed(uninterrupted(TINY))


def test_a_crash_between_line_and_checkpoint_leaves_no_line_twice(tmp_path, uninterrupted, monkeypatch):
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    save = trainer._save
    monkeypatch.setattr(trainer, "_save", lambda: fail() if trainer.epoch == 2 else save())
    with pytest.raises(RuntimeError, match="the power went"):
        trainer.fit()
    metrics = tmp_path / "run" / "metrics.jsonl"
    assert len(metrics.read_text().splitlines()) == 2
    with metrics.open("a") as file:
        file.write('{"epoch": 3, "tr')
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert untimed(tmp_path / "run") == untimed(uninterrupted(TINY))


@pytest.mark.parametrize("at", ["_append_metrics", "_keep_if_best", "_save"])
def test_a_crash_around_the_first_line_and_weights_does_the_epoch_again(tmp_path, uninterrupted, monkeypatch, at):
    """After each of the writings that end the first epoch."""
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    write = getattr(trainer, at)

    def last(*what):
        write(*what)
        if at != "_save" or trainer.epoch == 0:
            fail()

    monkeypatch.setattr(trainer, at, last)
    with pytest.raises(RuntimeError, match="the power went"):
        trainer.fit()
    assert (tmp_path / "run" / "metrics.jsonl").exists() == (at != "_save")
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert untimed(tmp_path / "run") == untimed(uninterrupted(TINY))


def test_an_interruption_inside_an_update_keeps_the_last_checkpoint(tmp_path, uninterrupted, monkeypatch):
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    update = trainer.optimizer.step

    def half_an_update():
        update()
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer.optimizer, "step", half_an_update)
    with pytest.raises(KeyboardInterrupt, match="inside an update, which cannot be saved"):
        trainer.fit()
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert untimed(tmp_path / "run") == untimed(uninterrupted(TINY))


def test_resuming_a_finished_run_changes_nothing(uninterrupted):
    folder = uninterrupted(TINY)
    before = untimed(folder)
    lines = []
    result = train(out=folder, resume=True, say=lines.append)
    assert untimed(folder) == before
    assert result.mean_iu == max(record["mean_iu"] for record in before["records"])
    assert not any(line.startswith("epoch") for line in lines)
    assert lines[0].endswith(f"run in {folder}, which is finished already; --epochs N trains longer")


def test_more_epochs_go_on_where_the_run_ended(tmp_path):
    config = replace(TINY, epochs=1, schedule="constant")
    train(config, tmp_path / "short", say=quiet)
    train(replace(config, epochs=2), tmp_path / "short", resume=True, say=quiet)
    train(replace(config, epochs=2), tmp_path / "long", say=quiet)
    assert untimed(tmp_path / "short") == untimed(tmp_path / "long")
    assert json.loads((tmp_path / "short" / "config.json").read_text())["epochs"] == 2


@pytest.fixture(scope="module")
def validated_seldom(tmp_path_factory):
    """The folder of a run of three epochs that validates the second, and the last."""
    folder = tmp_path_factory.mktemp("seldom") / "run"
    lines = []
    train(replace(WITH_DROPOUT, epochs=3, val_every=2), folder, say=lines.append)
    return folder, [line for line in lines if line.startswith("epoch")]


def without_scores(run):
    """What of a run does not depend on which epochs were validated."""
    run["about"]["progress"].pop("best_iu")
    run["about"]["progress"].pop("best_epoch")
    return run["checkpoint"], run["about"], [(r["train_loss"], r["lr"]) for r in run["records"]]


def test_epochs_without_validation_train_the_same(tmp_path, validated_seldom):
    folder, lines = validated_seldom
    train(replace(WITH_DROPOUT, epochs=3), tmp_path / "run", say=quiet)
    every, seldom = untimed(tmp_path / "run"), untimed(folder)
    assert seldom["records"][1:] == every["records"][1:]
    assert {key: value for key, value in seldom["records"][0].items() if value is not None} == {
        key: every["records"][0][key] for key in ("epoch", "train_loss", "lr")
    }
    assert set(seldom["records"][0]) == set(every["records"][0])
    best = max(seldom["records"][1:], key=lambda record: record["mean_iu"])
    assert seldom["about"]["progress"]["best_epoch"] == best["epoch"]
    assert without_scores(seldom) == without_scores(every)
    assert ["mean IU" in line for line in lines] == [False, True, True]


def test_validation_may_become_rarer_on_resuming(tmp_path, validated_seldom):
    trainer = Trainer(replace(WITH_DROPOUT, epochs=3), tmp_path / "run", say=quiet)
    stop_at_forward(trainer, 6, interrupt)  # in the second epoch
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    train(replace(WITH_DROPOUT, epochs=3, val_every=5), tmp_path / "run", resume=True, say=quiet)
    run = untimed(tmp_path / "run")
    assert [record["per_class_iu"] is None for record in run["records"]] == [False, True, False]
    assert without_scores(run) == without_scores(untimed(validated_seldom[0]))


def test_the_last_epoch_is_validated_where_resuming_ends_the_run_early(tmp_path):
    config = replace(TINY, epochs=3, val_every=3, schedule="constant")
    trainer = Trainer(config, tmp_path / "run", say=quiet)
    stop_at_forward(trainer, 4, interrupt)  # right after the first epoch, which is not validated
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    train(replace(config, epochs=1), tmp_path / "run", resume=True, say=quiet)
    train(replace(config, epochs=1), tmp_path / "short", say=quiet)
    assert (tmp_path / "run" / "best.safetensors").is_file()
    assert untimed(tmp_path / "run")["records"] == untimed(tmp_path / "short")["records"]


def test_more_loading_threads_compute_the_same(tmp_path, uninterrupted):
    train(replace(TINY, workers=3), tmp_path / "run", say=quiet)
    assert untimed(tmp_path / "run") == untimed(uninterrupted(TINY))


def test_another_seed_computes_something_else(tmp_path, uninterrupted):
    train(replace(TINY, seed=1), tmp_path / "run", say=quiet)
    assert untimed(tmp_path / "run")["best"] != untimed(uninterrupted(TINY))["best"]


def test_the_callers_random_state_and_trainer_do_not_meet(tmp_path, uninterrupted):
    before = mf.random.get_state()
    mf.manual_seed(99)
    try:
        state = mf.random.get_state()
        train(WITH_DROPOUT, tmp_path / "run", say=quiet)
        assert mf.random.get_state() == state
    finally:
        mf.random.set_state(before)
    assert untimed(tmp_path / "run") == untimed(uninterrupted(WITH_DROPOUT))


def test_what_a_run_leaves(uninterrupted):
    folder = uninterrupted(TINY)
    expected = {"config.json", "metrics.jsonl", "best.safetensors", "overlays.png"}
    expected |= {"checkpoint.safetensors", "checkpoint.previous.safetensors"}
    assert {path.name for path in folder.iterdir()} == expected
    assert TrainConfig.from_json((folder / "config.json").read_text()) == TINY
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert all(len(record["per_class_iu"]) == 6 and math.isfinite(record["train_loss"]) for record in records)
    with Image.open(folder / "overlays.png") as sheet:
        assert sheet.width == 3 * 256 + 4 * 8
        assert sheet.height > 2 * 205  # two rows of 256 × 205 and the legend


def test_the_best_weights_score_what_their_line_says(uninterrupted):
    folder = uninterrupted(TINY)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(records, key=lambda record: record["mean_iu"])
    module, _ = load_model(folder)
    matrix, loss = evaluate(module, Shapes(count=2, size=(32, 40), split="val"))
    assert matrix.summary() == {key: best[key] for key in matrix.summary()}
    assert loss == best["val_loss"]


def test_the_loss_of_a_data_set_is_the_mean_over_valid_pixels(uninterrupted):
    module, _ = load_model(uninterrupted(TINY))
    scenes = Shapes(count=2, size=(32, 40), split="val")
    total, valid = 0.0, 0
    for image, labels, _ in (scenes[0], scenes[1]):
        x = mf.Tensor(mf.data.normalize(image)[None])
        with mf.no_grad():
            scores = np.asarray(module(x), dtype=np.float64)[0]
        log_probabilities = scores - np.log(np.exp(scores - scores.max(0)).sum(0)) - scores.max(0)
        for h, v in np.argwhere(labels != 255):
            total -= log_probabilities[labels[h, v], h, v]
            valid += 1
    assert evaluate(module, scenes)[1] == pytest.approx(total / valid, rel=1e-5)


def test_training_lowers_the_loss(tmp_path):
    result = train(replace(TINY, epochs=6, scenes=16, schedule="constant"), tmp_path / "run", say=quiet)
    losses = [record["train_loss"] for record in result.records]
    assert losses[-1] < 0.7 * losses[0]


def test_the_precision_of_products_holds_while_it_trains(tmp_path):
    seen = []
    trainer = Trainer(replace(TINY, epochs=1, matmul_precision="high"), tmp_path / "run", say=quiet)
    trainer.module.register_forward_hook(lambda *_: seen.append(mf.get_float32_matmul_precision()))
    assert mf.get_float32_matmul_precision() == "highest"
    trainer.fit()
    assert set(seen) == {"high"}
    assert mf.get_float32_matmul_precision() == "highest"


def test_every_random_change_reaches_the_images(tmp_path):
    changes = {"scale": (0.5, 2.0), "crop": (24, 24), "flip": True, "brightness": 0.25, "contrast": 0.5}
    assert Trainer(replace(TINY, **changes), tmp_path / "run", say=quiet).loader.augment == Augment(**changes)


def test_class_weights_change_the_training_and_not_the_validation_loss(tmp_path):
    result = train(replace(TINY, epochs=1, scenes=24, class_weights="median"), tmp_path / "run", say=quiet)
    plain = train(replace(TINY, epochs=1, scenes=24), tmp_path / "plain", say=quiet)
    assert result.records[0]["train_loss"] != plain.records[0]["train_loss"]
    module, _ = load_model(tmp_path / "run")
    assert evaluate(module, Shapes(count=2, size=(32, 40), split="val"))[1] == result.records[0]["val_loss"]


def test_crops_of_nothing_but_void_are_passed_over(tmp_path, monkeypatch):
    draw = Shapes.__getitem__
    monkeypatch.setattr(
        Shapes, "__getitem__", lambda self, i: draw(self, i)._replace(labels=np.full((32, 40), 255, np.uint8))
    )
    result = train(replace(TINY, epochs=1), tmp_path / "run", say=quiet)
    assert result.records[0]["train_loss"] is None
    assert result.records[0]["mean_iu"] is None
    assert math.isnan(result.mean_iu)


def test_a_loss_that_is_no_number_is_named(tmp_path):
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    weight = next(trainer.module.parameters())
    state = {key: np.array(value) for key, value in trainer.module.state_dict().items()}
    name = next(name for name, p in trainer.module.named_parameters() if p is weight)
    state[name][:] = np.nan
    trainer.module.load_state_dict(state)
    with pytest.raises(FloatingPointError, match=r"the loss is nan in epoch 1, step 1 .*lower --lr"):
        trainer.fit()


def test_nothing_is_overwritten(tmp_path, uninterrupted):
    folder = uninterrupted(TINY)
    before = untimed(folder)
    with pytest.raises(FileExistsError, match=r"is not empty, and nothing is overwritten; --resume .* goes on"):
        train(TINY, folder, say=quiet)
    assert untimed(folder) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("")
    with pytest.raises(FileExistsError, match="choose a new folder"):
        train(TINY, tmp_path / "notes", say=quiet)
    with pytest.raises(FileExistsError, match="is a file"):
        train(TINY, tmp_path / "notes" / "mine.txt", say=quiet)


def test_each_run_without_a_folder_takes_the_next_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "fcn8s_resnet18-2").mkdir(parents=True)
    folders = [Trainer(TINY, say=quiet).folder.as_posix() for _ in range(2)]
    assert folders == ["runs/fcn8s_resnet18-1", "runs/fcn8s_resnet18-3"]


def test_a_mistake_leaves_no_folder_behind(tmp_path):
    with pytest.raises(FileNotFoundError):
        train(replace(TINY, data="camvid:nowhere"), tmp_path / "run", say=quiet)
    with pytest.raises(ValueError, match="fcn8s_resnet18"):
        train(replace(TINY, model="fcn8s_resnet81"), tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()


def test_a_run_cannot_become_another_one(tmp_path, uninterrupted):
    folder = uninterrupted(TINY)
    with pytest.raises(ValueError, match=r"has --lr 0.01, not 0.5; only --epochs, --val-every, .*-every can change"):
        train(replace(TINY, lr=0.5), folder, resume=True, say=quiet)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        train(out=tmp_path, resume=True, say=quiet)
    with pytest.raises(ValueError, match="a run to resume is needed"):
        train(resume=True, say=quiet)


def test_lost_metrics_are_named(tmp_path):
    train(replace(TINY, epochs=1), tmp_path / "run", say=quiet)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"has 0 lines after 1 epochs"):
        train(out=tmp_path / "run", resume=True, say=quiet)


def test_prediction_has_the_images_own_size_and_leaves_the_mode(uninterrupted):
    module, _ = load_model(uninterrupted(TINY))
    module.train()
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    before = {key: np.asarray(value).tobytes() for key, value in module.state_dict().items()}
    labels = predict(module, image)
    assert labels.shape == (37, 53)
    assert labels.dtype == np.uint8
    assert labels.max() < 6
    assert module.training
    assert {key: np.asarray(value).tobytes() for key, value in module.state_dict().items()} == before


def test_data_with_other_classes_are_named(uninterrupted):
    module, _ = load_model(uninterrupted(TINY))

    class Two(Shapes):
        classes = ("a", "b")
        num_classes = 2

    with pytest.raises(ValueError, match="the network has 6 classes and the data 2"):
        evaluate(module, Two(count=1, size=(32, 32)))


def test_devices():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda")
    with pytest.raises(ValueError, match="one of cpu, cuda, auto"):
        choose_device("tpu")


def test_images_of_many_sizes_are_scored_each_at_its_own(uninterrupted, monkeypatch):
    module, _ = load_model(uninterrupted(TINY))
    sizes = [(32, 40), (32, 40), (33, 40), (60, 32), (60, 32), (60, 32)]
    seen = []

    class Mixed(Shapes):
        def __getitem__(self, index):
            return Shapes(count=index + 1, size=sizes[index])[index]

    module.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    monkeypatch.setattr("minifcn.training.inference._PIXELS", 2 * 60 * 32)
    scenes = Mixed(count=len(sizes))
    matrix, _ = evaluate(module, scenes)
    assert seen == [(2, 6, 32, 40), (1, 6, 33, 40), (2, 6, 60, 32), (1, 6, 60, 32)]
    counts = np.zeros((6, 6), int)
    for k in range(len(sizes)):
        image, labels, _ = scenes[k]
        guess = predict(module, image)
        valid = labels != 255
        np.add.at(counts, (labels[valid], guess[valid]), 1)
    assert matrix.counts.tolist() == counts.tolist()


def test_a_class_that_no_label_shows_is_named(tmp_path):
    """Masks of 0 and 255 with two named classes: every pixel of the second class would be void."""
    from PIL import Image

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    for k in range(4):
        Image.fromarray(np.repeat(mask[..., None], 3, axis=2)).save(tmp_path / "images" / f"{k}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{k}.png")
    said: list[str] = []
    data = f"folder:{tmp_path / 'images'}:{tmp_path / 'masks'}"
    config = TrainConfig(data=data, classes=("ground", "thing"), width=0.0625, epochs=1, batch_size=2)
    train(config, tmp_path / "run", say=said.append)
    assert any("no training pixel of this epoch is labelled thing" in line for line in said)


def test_a_run_starts_from_another_runs_weights_and_goes_on_exactly(tmp_path, uninterrupted):
    """FCN-16s from FCN-8s of the same run's kind: what fits is copied, the rest is as it would have been."""
    before = uninterrupted(TINY)
    config = replace(TINY, model="fcn16s_resnet18", init=str(before), backbone_lr=0.1)
    said = []
    trainer = Trainer(config, tmp_path / "whole", say=said.append)
    source, fresh = (
        load_model(before)[0].state_dict(),
        Trainer(replace(config, init=None), tmp_path / "fresh", say=quiet),
    )
    for name, value in trainer.module.state_dict().items():
        same = name in source and source[name].shape == value.shape
        wanted = source[name] if same else fresh.module.state_dict()[name]
        np.testing.assert_array_equal(value.numpy(), wanted.numpy(), err_msg=name)
        assert same == (name != "upscore16.weight"), name
    assert "starting from" in said[0]
    assert "upscore16.weight" in said[0]
    whole = trainer.fit().folder
    interrupted = Trainer(config, tmp_path / "interrupted", say=quiet)
    stop_at_forward(interrupted, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit()
    assert untimed(train(None, tmp_path / "interrupted", resume=True, say=quiet).folder) == untimed(whole)


def test_a_run_that_stopped_before_its_first_checkpoint_starts_from_the_weights_again(tmp_path, uninterrupted):
    config = replace(TINY, init=str(uninterrupted(TINY)))
    begun = Trainer(config, tmp_path / "run", say=quiet)
    again = Trainer.resume(tmp_path / "run", say=quiet)
    for name, value in begun.module.state_dict().items():
        np.testing.assert_array_equal(again.module.state_dict()[name].numpy(), value.numpy())


def test_weights_that_fit_nowhere_leave_no_folder(tmp_path):
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(ValueError, match="load: .*other.npz"):
        Trainer(replace(TINY, init=str(tmp_path / "other.npz")), tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("config", "groups"), [(TINY, 2), (WITH_DROPOUT, 4)], ids=["plain", "paper_bias"])
def test_the_backbone_learns_at_a_part_of_the_rate(tmp_path, config, groups):
    trainer = Trainer(replace(config, backbone_lr=0.25), tmp_path / "run", say=quiet)
    names = {id(p): name for name, p in trainer.module.named_parameters()}
    rates = {}
    for group in trainer.optimizer.param_groups:
        for p in group["params"]:
            rates[names[id(p)]] = group["lr"]
    assert len(trainer.optimizer.param_groups) == groups
    assert set(rates) == {name for name, p in trainer.module.named_parameters() if p.requires_grad}
    for name, rate in rates.items():
        part = 0.25 if name.startswith("backbone.") else 1
        bias = 2 if config.paper_bias and name.endswith("bias") else 1
        assert rate == pytest.approx(config.lr * part * bias), name
    assert trainer.lr == config.lr

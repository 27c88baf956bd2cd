"""The paper's schedule: each stage begins where the one before ended, and a kill at any moment changes nothing."""

import json
import os
import shutil
import signal
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minifcn as mf
from benchmarks import measure, tables
from benchmarks import stages as bench_stages
from benchmarks.__main__ import main as bench
from minifcn.cli import main
from minifcn.training import TrainConfig, Trainer, load_model, predict, save_weights, train
from minifcn.training import stages as stages_module
from minifcn.training.checkpoint import ModelCard, find_weights, read
from minifcn.training.stages import (
    plan,
    read_stages,
    resume_stages,
    stage_folder,
    stage_models,
    stages_table,
    train_stages,
)
from minifcn.training.trainer import read_config

pytestmark = pytest.mark.usefixtures("no_learning_curves")

GIVEN = {
    "model": "fcn8s_vgg11", "width": 1 / 64, "size": (32, 32), "scenes": 4, "val_scenes": 2, "batch_size": 2,
    "epochs": 1, "lr": 0.01,
}  # fmt: skip
NAMES = ("1-fcn32s_vgg11", "2-fcn16s_vgg11", "3-fcn8s_vgg11")
CONFIGS, _ = plan(GIVEN, epochs=(2, 1, 1), lr=(1, 0.5, 0.25))


def quiet(line):
    pass


def untimed(folder):
    """Everything that stages leave, but for how long they took; where they lie is called RUN."""
    left = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and ".previous." not in p.name):
        name = str(path.relative_to(folder))
        if path.name == "checkpoint.safetensors":
            arrays, about = read(path, "test")
            about["progress"].pop("seconds")
            left[name] = {key: (a.dtype.str, a.shape, a.tobytes()) for key, a in arrays.items()}, about
        elif path.suffix in (".json", ".jsonl"):
            lines = path.read_text().replace(str(folder.absolute()), "RUN").splitlines()
            if path.suffix == ".jsonl":
                lines = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
            left[name] = lines
        else:
            left[name] = path.read_bytes()
    return left


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, lines of the report) of stages that were left alone. Tests read it and do not write to it."""
    folder, said = tmp_path_factory.mktemp("stages") / "run", []
    train_stages(CONFIGS, folder, say=said.append)
    return folder, said


# -- the plan


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("fcn8s_resnet18_aligned", [f"fcn{s}s_resnet18_aligned" for s in (32, 16, 8)]),
        ("fcn16s_googlenet", ["fcn32s_googlenet", "fcn16s_googlenet"]),
    ],
)
def test_the_stages_of_a_network(model, names):
    assert list(stage_models(model)) == names


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("fcn8s_atonce_vgg16", "learns all strides at once"),
        ("fcn32s_vgg16", "has no coarser siblings"),
        ("fcn16s_decoder_vgg16", "has no coarser siblings"),
        ("unet", "has no coarser siblings"),
        ("fcn_resnet50", "has no coarser siblings"),
    ],
)
def test_networks_without_stages(model, why):
    with pytest.raises(ValueError, match=f"{model} {why}.*--staged is for an FCN-16s or FCN-8s"):
        plan({"model": model})


def test_what_the_stages_share_and_what_they_do_not():
    configs, notes = plan({**GIVEN, "fuse": "cat", "init": "/vgg.pth", "seed": 3}, epochs=(4, 3, 2))
    assert [config.init for config in configs] == ["/vgg.pth", None, None]
    assert [config.fuse for config in configs] == ["sum", "cat", "cat"]
    assert [config.epochs for config in configs] == [4, 3, 2]
    assert {(config.seed, config.lr, config.size) for config in configs} == {(3, 0.01, (32, 32))}
    assert notes == []


@pytest.mark.parametrize(
    ("given", "lr", "rates"),
    [
        ({}, None, (1e-10, 1e-12, 1e-14)),
        ({"lr": 1e-9}, None, (1e-9, 1e-11, 1e-13)),  # the recipe's hundredth
        ({}, (1, 0.5, 0.5), (1e-10, 5e-11, 5e-11)),
        ({"lr": 4.0}, (0.5, 0.25, 2), (2.0, 1.0, 8.0)),
        ({"loss": "mean"}, None, (1e-8, 1e-10, 1e-12)),  # of 100 pixels
        ({"loss": "mean"}, (1, 1, 3), (1e-8, 1e-8, 3e-8)),
    ],
)
def test_learning_rates_of_the_stages(given, lr, rates):
    configs, notes = plan({"model": "fcn8s_vgg16", **given}, recipe="reference", lr=lr, count=lambda config: 100)
    assert [config.lr for config in configs] == pytest.approx(rates)
    assert [note.partition(":")[0] for note in notes] == (list(stage_models("fcn8s_vgg16")) if "loss" in given else [])


def test_factors_stand_in_the_place_of_a_recipes_rates():
    given = {"model": "fcn16s_vgg16", "loss": "mean"}
    configs, notes = plan(given, recipe="reference", lr=(1, 0.5), count=lambda config: 100)
    for config in configs:
        assert config.weight_decay == pytest.approx(5e-6)
    assert notes[0].endswith("lr 1e-10 is 1e-08 and weight decay 0.0005 is 5e-06 for the mean")
    assert notes[1].endswith("a step, weight decay 0.0005 is 5e-06 for the mean")  # its rate is half of the first one
    configs, _ = plan({"model": "fcn16s_alexnet"}, recipe="reference", lr=(1, 0.01))  # which has none for the second
    assert [config.lr for config in configs] == pytest.approx([1e-4, 1e-6])


def test_a_number_for_each_stage():
    with pytest.raises(ValueError, match="--stage-epochs has 3 numbers; 2 are needed, for fcn32s_vgg11, fcn16s_vgg11"):
        plan({"model": "fcn16s_vgg11"}, epochs=(1, 2, 3))
    with pytest.raises(ValueError, match="--stage-lr has 1 numbers; 3 are needed"):
        plan({"model": "fcn8s_vgg11"}, lr=(1,))


# -- each stage from the one before


@pytest.mark.parametrize("backbone", ["vgg11", "resnet18_aligned", "vgg11_paper"])
def test_a_stage_begins_with_the_answers_of_the_one_before(tmp_path, backbone):
    """Two upsamplings after each other are not one to the last digit, but they decide alike almost everywhere."""
    coarse = mf.models.create(f"fcn32s_{backbone}", num_classes=6, width=1 / 32, seed=1)
    rng = np.random.default_rng(0)
    coarse.score_fr.weight.data[...] = rng.standard_normal(coarse.score_fr.weight.shape)
    file = tmp_path / "coarse.safetensors"
    save_weights(file, coarse, ModelCard(f"fcn32s_{backbone}", 6, {"width": 1 / 32}))
    config = TrainConfig(**GIVEN | {"model": f"fcn16s_{backbone}", "width": 1 / 32, "init": str(file)})
    fine = Trainer(config, tmp_path / "run", say=quiet).module
    (skip,) = fine.skips
    assert not getattr(fine, f"score_{skip}").weight.data.any()  # a ResNet's would be random otherwise
    assert not getattr(fine, f"score_{skip}").bias.data.any()
    image = mf.Tensor(rng.standard_normal((1, 3, 128, 160)).astype(np.float32))
    with mf.no_grad():
        before, after = coarse.eval()(image).numpy(), fine.eval()(image).numpy()
    assert len(np.unique(before.argmax(1))) > 1
    assert np.mean(before.argmax(1) == after.argmax(1)) > 0.9
    assert np.abs(before - after).mean() < 0.1 * before.std()


def test_weights_of_another_kind_leave_new_scores_as_they_are(tmp_path):
    """A classifier, or a network of other classes, has learned nothing that zeros would keep."""
    other = mf.models.create("fcn32s_resnet18", num_classes=3, width=1 / 32, seed=1)
    save_weights(tmp_path / "other.safetensors", other, ModelCard("fcn32s_resnet18", 3, {"width": 1 / 32}))
    config = TrainConfig(**GIVEN | {"model": "fcn16s_resnet18", "width": 1 / 32})
    init = str(tmp_path / "other.safetensors")
    module = Trainer(replace(config, init=init), tmp_path / "run", say=quiet).module
    fresh = mf.models.create("fcn16s_resnet18", num_classes=6, width=1 / 32, seed=0)
    (skip,) = module.skips
    assert np.array_equal(getattr(module, f"score_{skip}").weight.data, getattr(fresh, f"score_{skip}").weight.data)


def test_stages_are_runs_of_their_own(whole, tmp_path):
    """The same by hand: three runs, each from the one before."""
    folder, said = whole
    before = None
    for name, config in zip(NAMES, CONFIGS, strict=True):
        own = replace(config, init=None if before is None else str(before))
        assert read_config(folder / name) == replace(own, init=None if before is None else str(folder / before.name))
        train(own, tmp_path / name, say=quiet)
        before = tmp_path / name
    for name in NAMES:
        assert (tmp_path / name / "best.safetensors").read_bytes() == (folder / name / "best.safetensors").read_bytes()
    beginnings = [line for line in said if line.startswith("stage ")]
    starts = [line for line in said if line.startswith(("starting from", "score_"))]
    assert [line.split(".")[0] for line in starts[1::2]] == ["score_pool4", "score_pool3"]
    for start, new in zip(starts[::2], starts[1::2], strict=True):
        assert new.endswith(".bias are new and begin at zero")
        missing = {line.split()[0] for line in start.splitlines() if line.startswith("  ")}
        assert missing.isdisjoint(new.removesuffix(" are new and begin at zero").split(", "))
        assert "have to be trained" not in start
    assert beginnings == [
        "stage 1 of 3: fcn32s_vgg11",
        "stage 2 of 3: fcn16s_vgg11, from the best weights of 1-fcn32s_vgg11",
        "stage 3 of 3: fcn8s_vgg11, from the best weights of 2-fcn16s_vgg11",
    ]


def test_what_stages_leave(whole):
    folder, said = whole
    assert {path.name for path in folder.iterdir()} == {"stages.json", "stages.png", *NAMES}
    stages = read_stages(folder)
    assert [stage.config for stage in stages] == list(CONFIGS)
    for name, stage in zip(NAMES, stages, strict=True):
        records = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        best = max(records, key=lambda record: record["mean_iu"])
        assert stage.result["epoch"] == best["epoch"]
        for key in ("pixel_accuracy", "mean_accuracy", "mean_iu", "per_class_iu"):
            assert stage.result[key] == best[key]
    assert said[-1] == stages_table(stages)
    with Image.open(folder / "stages.png") as sheet:
        assert sheet.width == 5 * 256 + 6 * 8
        assert sheet.height > 2 * 256


def test_the_table_has_a_line_for_each_stride_and_a_column_for_each_class(whole):
    stages = read_stages(whole[0])
    lines = stages_table(stages).splitlines()
    for line, stage in zip(lines[1:4], stages, strict=True):
        keys = ("pixel_accuracy", "mean_accuracy", "mean_iu")
        assert line.split() == [stage.stride, str(stage.result["epoch"]), *(f"{stage.result[k]:.3f}" for k in keys)]
    assert [line.split()[0] for line in lines[6:]] == stages[0].result["classes"]
    ious = [[stage.result["per_class_iu"][k] for stage in stages] for k in range(6)]
    assert [line.split()[1:] for line in lines[6:]] == [[f"{iu:.3f}" for iu in row] for row in ious]


def test_the_weights_of_stages_are_those_of_the_last_finished_one(whole, tmp_path, capsys):
    folder, _ = whole
    assert find_weights(folder) == folder / NAMES[2] / "best.safetensors"
    assert main(["eval", str(folder)]) == 0
    assert "fcn8s_vgg11 (width 0.015625, 6 classes) on 2 images of shapes, val" in capsys.readouterr().out
    shutil.copytree(folder, tmp_path / "run")
    plan_of = json.loads((folder / "stages.json").read_text())
    for k in (2, 1, 0):
        plan_of["stages"][k]["result"] = None
        (tmp_path / "run" / "stages.json").write_text(json.dumps(plan_of))
        if k:
            assert load_model(tmp_path / "run")[1].model == CONFIGS[k - 1].model
    with pytest.raises(FileNotFoundError, match=f"no stage in .* is finished; .* such as .*{NAMES[0]}"):
        find_weights(tmp_path / "run")


def test_a_finished_stage_whose_weights_or_folder_are_gone_is_named(whole, tmp_path, capsys):
    run = shutil.copytree(whole[0], tmp_path / "run")
    (run / NAMES[2] / "best.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"load_weights: {run / NAMES[2]} holds no best.safetensors"):
        find_weights(run)
    shutil.rmtree(run / NAMES[2])
    assert main(["eval", str(run)]) == 2
    assert capsys.readouterr().err == (
        f"minifcn: load_weights: {run} lacks the folder {NAMES[2]} of its last finished stage; put it back, or give "
        "the folder of another stage\n"
    )


def test_the_folders_of_stages_are_those_of_the_plan(whole):
    stages, entries = read_stages(whole[0]), json.loads((whole[0] / "stages.json").read_text())["stages"]
    assert [stage_folder(whole[0], stages, k) for k in range(3)] == [whole[0] / name for name in NAMES]
    assert [entry["folder"] for entry in entries] == list(NAMES)


@pytest.mark.parametrize("text", ["", "[]", '{"stages": []}', '{"stages": [{"config": 3}]}', '{"stages": [3]}'])
def test_the_weights_of_a_damaged_plan(tmp_path, text):
    (tmp_path / "stages.json").write_text(text)
    with pytest.raises(ValueError, match=r"^load_weights: .*stages\.json is damaged .*; give the folder of a stage"):
        find_weights(tmp_path)


# -- stopped and resumed


class PowerCutError(BaseException):
    """Nobody catches it."""


def count_replaced(monkeypatch, limit):
    """Cut the power at the limit-th file that is to be put in its place; returns the files so far."""
    replaced, real = [], os.replace

    def replacing(draft, target):
        replaced.append(Path(target).name)
        if len(replaced) == limit:
            raise PowerCutError
        real(draft, target)

    monkeypatch.setattr(os, "replace", replacing)
    return replaced


def test_the_power_fails_again_and_again(whole, tmp_path, monkeypatch):
    """Whatever file it is at, of four that each attempt may write: all ends the same."""
    out, attempts = tmp_path / "run", 0
    while attempts < 30:
        attempts += 1
        with monkeypatch.context() as patch:
            files = count_replaced(patch, 5)
            try:
                if (out / "stages.json").is_file():
                    resume_stages(out, say=quiet)
                else:
                    train_stages(CONFIGS, out, say=quiet)
            except PowerCutError:
                continue
        break
    assert 4 < attempts < 30
    assert files[-1] == "stages.png"
    assert untimed(out) == untimed(whole[0])


@pytest.mark.parametrize("cut", [1, 2, 3, 10, 11])
def test_the_power_fails_once(whole, tmp_path, monkeypatch, cut):
    """At the plan, the first stage's configuration, its first checkpoint, its results, the second's configuration."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        files = count_replaced(patch, cut)
        with pytest.raises(PowerCutError):
            train_stages(CONFIGS, out, say=quiet)
    at = {1: "stages.json", 2: "config.json", 3: "checkpoint.safetensors", 10: "stages.json", 11: "config.json"}
    assert files[-1] == at[cut]
    if cut == 1:
        train_stages(CONFIGS, out, say=quiet)
    else:
        resume_stages(out, say=quiet)
    assert untimed(out) == untimed(whole[0])


def test_ctrl_c_in_a_stage_says_how_to_go_on_with_all(whole, tmp_path, monkeypatch):
    step = Trainer._train_step

    def pressed(self, share):
        step(self, share)
        if self.config.model == "fcn16s_vgg11":
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressed)
        with pytest.raises(KeyboardInterrupt, match=f"saved .*--resume {out} goes on"):
            train_stages(CONFIGS, out, say=quiet)
    said = []
    resume_stages(out, say=said.append)
    assert [line[:7] for line in said if line.startswith("stage ")] == ["stage 2", "stage 3"]
    assert untimed(out) == untimed(whole[0])


def test_ctrl_c_while_a_stages_last_epoch_is_saved_does_not_begin_the_next(tmp_path, monkeypatch):
    save = Trainer._save

    def pressed(self):
        save(self)
        if self.epoch == self.config.epochs and not pressed.once:
            pressed.once = True
            os.kill(os.getpid(), signal.SIGINT)

    pressed.once = False
    out = tmp_path / "run"
    monkeypatch.setattr(Trainer, "_save", pressed)
    with pytest.raises(KeyboardInterrupt, match=f"after the last epoch, .*--resume {out} goes on from there$"):
        train_stages(CONFIGS, out, say=quiet)
    assert not (out / NAMES[1]).exists()
    said = []
    resume_stages(out, say=said.append)
    assert said[0] == "stage 1 of 3: fcn32s_vgg11"
    assert said[1].endswith(f"run in {out / NAMES[0]}, which is finished already")


def test_ctrl_c_between_stages_says_how_to_go_on(whole, tmp_path, monkeypatch):
    def pressed(*arguments):
        raise KeyboardInterrupt

    old, new = shutil.copytree(whole[0], tmp_path / "old"), tmp_path / "new"
    monkeypatch.setattr(stages_module, "_draw", pressed)
    words = "^interrupted where everything is saved; python -m minifcn train --resume"
    with pytest.raises(KeyboardInterrupt, match=f"{words} {old} goes on from there$"):
        resume_stages(old, say=quiet)
    monkeypatch.setattr(stages_module, "_begin", pressed)
    with pytest.raises(KeyboardInterrupt, match=f"{words} {new} goes on from there$"):
        train_stages(CONFIGS, new, say=quiet)


def test_a_stages_network_goes_before_the_next_one_comes(tmp_path, monkeypatch):
    alive, build = [], Trainer._build

    def counted(self, *given):
        assert all(network() is None for network in alive)
        build(self, *given)
        alive.append(weakref.ref(self.module))

    monkeypatch.setattr(Trainer, "_build", counted)
    train_stages(CONFIGS[:2], tmp_path / "run", say=quiet)
    assert len(alive) == 2


def test_resuming_finished_stages_changes_nothing(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    said = []
    resume_stages(tmp_path / "run", say=said.append)
    assert said == [stages_table(read_stages(whole[0]))]


def test_an_unfinished_stage_without_checkpoints_is_refused_and_kept(whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    plan_of = json.loads((out / "stages.json").read_text())
    plan_of["stages"][2]["result"] = None
    (out / "stages.json").write_text(json.dumps(plan_of))
    for file in (out / NAMES[2]).glob("checkpoint*"):
        file.unlink()
    before = {path: path.read_bytes() for path in (out / NAMES[2]).iterdir()}
    with pytest.raises(FileNotFoundError, match=f"{NAMES[2]} has .* of a run, .*--init {out / NAMES[2]}$"):
        resume_stages(out, say=quiet)
    assert {path: path.read_bytes() for path in (out / NAMES[2]).iterdir()} == before


def test_stages_that_were_trained_by_hand_are_taken_up(whole, tmp_path):
    """One that is finished and one that is not; in another place than where they go on."""
    there, out = tmp_path / "there", tmp_path / "run"
    train(CONFIGS[0], there / NAMES[0], say=quiet)
    second = Trainer(replace(CONFIGS[1], init=str(there / NAMES[0])), there / NAMES[1], say=quiet)
    second.module.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="saved after step 1 of epoch 1"):
        second.fit()
    shutil.move(there, out)
    metrics = (out / NAMES[0] / "metrics.jsonl").read_bytes()
    train_stages(CONFIGS, out, say=quiet)
    assert (out / NAMES[0] / "metrics.jsonl").read_bytes() == metrics
    for name in NAMES:
        assert (out / name / "best.safetensors").read_bytes() == (whole[0] / name / "best.safetensors").read_bytes()


def test_other_runs_in_the_stages_folders_are_refused_and_left(tmp_path):
    out = tmp_path / "run"
    train(replace(CONFIGS[0], seed=1), out / NAMES[0], say=quiet)
    with pytest.raises(ValueError, match=f"the run in .*{NAMES[0]} has --seed 1, not 0"):
        train_stages(CONFIGS, out, say=quiet)
    train(replace(CONFIGS[1], init=None), tmp_path / "other" / NAMES[1], say=quiet)
    with pytest.raises(ValueError, match=f"{NAMES[1]} began from nothing, not from {NAMES[0]}"):
        train_stages(CONFIGS, tmp_path / "other", say=quiet)
    assert not (out / "stages.json").exists()
    assert not (tmp_path / "other" / "stages.json").exists()
    longer = tmp_path / "longer" / NAMES[0]
    Trainer(replace(CONFIGS[0], epochs=4), longer, say=quiet)
    with pytest.raises(ValueError, match=f"{NAMES[0]} has 4 epochs, and the plan 2; --stage-epochs makes"):
        train_stages(CONFIGS, longer.parent, say=quiet)
    assert read_config(longer).epochs == 4


def test_folders_that_stages_cannot_have(whole, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds notes.txt, and nothing is overwritten"):
        train_stages(CONFIGS, tmp_path, say=quiet)
    with pytest.raises(FileExistsError, match=r"notes.txt is a file"):
        train_stages(CONFIGS, tmp_path / "notes.txt", say=quiet)
    with pytest.raises(FileExistsError, match=r"holds stages already; --resume .* goes on with them"):
        train_stages(CONFIGS, whole[0], say=quiet)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / f".stages.json.{os.getpid()}.tmp").write_text('{"sta')  # in the first moment of all
    train_stages(CONFIGS[:1], tmp_path / "killed", say=quiet)
    with pytest.raises(FileNotFoundError, match=r"holds no stages \(no stages.json\)"):
        resume_stages(tmp_path, say=quiet)
    (tmp_path / "stages.json").write_text('{"stages": [{"config": 3}]}')
    with pytest.raises(ValueError, match=r"stages.json is damaged"):
        resume_stages(tmp_path, say=quiet)


def test_a_mistake_leaves_nothing_behind(tmp_path):
    configs = [replace(config, data=f"camvid:{tmp_path}/nowhere") for config in CONFIGS]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_stages(configs, tmp_path / "run", say=quiet)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run" / NAMES[0]).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_stages(configs, tmp_path / "run", say=quiet)
    assert list(tmp_path.rglob("*")) == [tmp_path / "run", tmp_path / "run" / NAMES[0]]


def test_what_may_change_on_resuming(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"--epochs cannot change when stages are resumed, only --val-every, --workers.* can;"
    ):
        resume_stages(tmp_path / "run", {"epochs": 3}, say=quiet)
    plan_of = json.loads((whole[0] / "stages.json").read_text())
    plan_of["stages"][2]["result"] = None
    (tmp_path / "run" / "stages.json").write_text(json.dumps(plan_of))
    resume_stages(tmp_path / "run", {"workers": 2}, say=quiet)
    stages = read_stages(tmp_path / "run")
    assert [stage.config.workers for stage in stages] == [1, 1, 2]
    assert [stage.result for stage in stages] == [stage.result for stage in read_stages(whole[0])]


# -- the command


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = ["--width", "0.0625", "--size", "32x32", "--scenes", "2", "--val-scenes", "1", "--batch-size", "2"]
    words = ["train", "--staged", "--model", "fcn16s_resnet18", *tiny, "--stage-epochs", "2,1", "--stage-lr", "1,.5"]
    assert main(words) == 0
    folder = Path("runs/fcn16s_resnet18-staged-1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"the stages' weights and stages.png are in {folder}"
    assert lines[-1] == f"mean IU {read_stages(folder)[-1].result['mean_iu']:.2f}"
    assert [(s.config.epochs, s.config.lr) for s in read_stages(folder)] == [(2, 3e-3), (1, 1.5e-3)]
    assert main(["train", "--resume", str(folder)]) == 0
    capsys.readouterr()
    for mistake, sentence in [
        (["--stage-epochs", "1,1"], "--stage-epochs is for --staged"),
        (["--staged", "--stage-epochs", "1,1", "--epochs", "3"], "--epochs and --stage-epochs both say how long"),
        (["--staged", "--stage-epochs", "1,0"], "'1,0' is no list of whole numbers above 0"),
        (["--staged", "--stage-lr", "1,x"], "'1,x' is no list of numbers above 0"),
        (["--staged", "--model", "unet"], "unet has no coarser siblings to start from"),
        (["--staged", "--model", "fcn8s_vgg61"], "did you mean 'fcn8s_vgg16'"),
        (["--staged", "--recipe", "paper"], "recipe paper has no learning rate for fcn32s_resnet18; --lr is needed"),
        (["--staged", "--resume", str(folder)], "--staged is for a new run"),
        (["--resume", str(folder), "--lr", "1"], "--lr cannot change when stages are resumed"),
    ]:
        assert main(["train", *mistake]) == 2
        assert sentence in capsys.readouterr().err


# -- the table in README


def test_the_record_of_stages_is_what_they_left(tmp_path, monkeypatch, capsys):
    """Every number of the row and of the table is one of stages.json or metrics.jsonl."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(bench_stages, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "update_readme", lambda: None)
    drawn = []
    monkeypatch.setattr(bench_stages, "learning_curve", lambda path, records: drawn.append((path, records)))
    configs = [replace(c, epochs=3, val_every=2, scenes=5) for c in CONFIGS]
    train_stages(configs, tmp_path / "run", say=quiet)
    assert bench(["stages", "--run", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "stages_shapes.json").read_text())
    assert result["command"] == "python -m benchmarks stages --run RUN"
    assert str(tmp_path) not in (tmp_path / "stages_shapes.json").read_text()
    for row, name, stage in zip(result["rows"], NAMES, read_stages(tmp_path / "run"), strict=True):
        lines = [json.loads(line) for line in (tmp_path / "run" / name / "metrics.jsonl").read_text().splitlines()]
        assert row["records"] == lines
        assert row["per_class_iu"] == lines[row["best_epoch"] - 1]["per_class_iu"]
        assert row["mean_iu"] == stage.result["mean_iu"]
        assert row["seconds_per_step"] == round(lines[0]["seconds"] / 2, 3)  # of 5 images, two steps of 2
        assert row["config"]["seed"] == 0
    ((path, records),) = drawn
    assert path.name == "stages_shapes_curve.png"
    assert [record["epoch"] for record in records] == list(range(1, 10))
    assert (tmp_path / "stages_shapes.png").read_bytes() == (tmp_path / "run" / "stages.png").read_bytes()
    table = tables._stages(result)
    for row in result["rows"]:
        assert f"| {row['best_epoch']} of 3 | {row['pixel_accuracy']:.3f} | {row['mean_accuracy']:.3f} | " in table
    quick = [
        row | {"seconds_per_step": seconds} for row, seconds in zip(result["rows"], (0.057, 0.98, 99.6), strict=True)
    ]
    table = tables._stages(result | {"rows": quick, "environment": {"device": "cuda", "gpu": "NVIDIA H200"}})
    assert table.startswith("`python -m benchmarks stages --run RUN` — one NVIDIA H200\n")
    assert all(f" | {seconds} |\n" in table for seconds in ("0.057", "0.98", "99.6"))
    with pytest.raises(SystemExit, match="2"):
        bench(["stages", "--run", str(tmp_path)])
    assert "holds no stages (no stages.json)" in capsys.readouterr().err


# -- on files like CamVid's


def _street(rng):
    """(image, mask) of 48×64 pixels: sky over road, a car, and a void rim, in CamVid's numbers."""
    mask = np.full((48, 64), 3, np.uint8)
    mask[: rng.integers(16, 32)] = 0
    top, left = rng.integers(12, 30), rng.integers(4, 40)
    mask[top : top + 14, left : left + 20] = 8
    colors = np.zeros((12, 3))
    colors[[0, 3, 8]] = (90, 140, 220), (110, 105, 100), (170, 60, 50)
    image = colors[mask] * rng.uniform(0.8, 1.2) + rng.normal(0, 12, (48, 64, 3))
    mask[:, :3] = 11
    return image.clip(0, 255).astype(np.uint8), mask


def test_the_recipe_for_camvid_learns_streets(tmp_path):
    """From a folder as CamVid's to scores that a count by hand confirms, far above what a blind guess would have."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 6)):
        for part in (split, f"{split}annot"):
            (tmp_path / part).mkdir()
        for k in range(count):
            for part, pixels in zip((split, f"{split}annot"), _street(rng), strict=True):
                Image.fromarray(pixels).save(tmp_path / part / f"{k}.png")
    given = {
        "model": "fcn8s_resnet18_aligned", "width": 0.125, "data": f"camvid:{tmp_path}", "crop": (32, 48),
        "lr": 5e-3,
    }  # fmt: skip
    configs, _ = plan(given, recipe="camvid", epochs=(6, 2, 6), lr=(1, 1, 1))
    assert {(c.optimizer, c.schedule, c.batch_size, c.scale) for c in configs} == {("adam", "poly", 4, (0.75, 1.25))}
    done = train_stages(configs, tmp_path / "run", say=quiet)

    module, _ = load_model(find_weights(tmp_path / "run"))
    both, either, truth_of = np.zeros(11), np.zeros(11), np.zeros(11)
    for k in range(6):
        truth = np.asarray(Image.open(tmp_path / "valannot" / f"{k}.png"))
        seen = predict(module, np.asarray(Image.open(tmp_path / "val" / f"{k}.png")))
        for c in range(11):
            t, s = (truth == c), (seen == c) & (truth != 11)
            both[c], either[c], truth_of[c] = both[c] + (t & s).sum(), either[c] + (t | s).sum(), truth_of[c] + t.sum()
    occurs = either > 0
    assert done.mean_iu == pytest.approx((both[occurs] / either[occurs]).mean(), abs=1e-9)
    blind = truth_of.max() / truth_of.sum() / 3  # the most frequent class everywhere
    assert done.mean_iu > 0.5 > 2 * blind

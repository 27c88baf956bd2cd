"""Whatever happens to a run, one whole checkpoint is there, what is damaged is named, and the numbers stay the same."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minifcn as mf
import minifcn.nn as nn
from benchmarks import kills, tables
from minifcn.training import ModelCard, TrainConfig, Trainer, load_checkpoint, load_weights, save_checkpoint, train
from minifcn.training import recovery as recovery_module
from minifcn.training import trainer as trainer_module
from minifcn.training.checkpoint import BEST, DamagedFile, read, save_weights
from minifcn.training.interrupt import Interrupted, interrupted, polite_interrupt
from minifcn.training.recovery import Pace

pytestmark = pytest.mark.usefixtures("no_learning_curves")

TINY = TrainConfig(width=0.0625, size=(32, 40), scenes=6, val_scenes=2, epochs=2, batch_size=2, lr=0.01)
NEWEST, PREVIOUS, DAMAGED = (f"checkpoint{part}.safetensors" for part in ("", ".previous", ".damaged"))
CARD = ModelCard("fcn8s_resnet18", 3)


def quiet(line):
    pass


def fail():
    raise RuntimeError("the power went")


def in_training_pass(trainer, number, how):
    """Call `how` in the `number`-th training pass of a run, counted from 1."""
    passes = 0

    def hook(module, inputs, output):
        nonlocal passes
        passes += module.training
        if module.training and passes == number:
            how()

    trainer.module.register_forward_hook(hook)
    return trainer


def place(file):
    progress = read(file, "test")[1]["progress"]
    return progress["epoch"], progress["step"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(TINY, folder, say=quiet)
    return folder


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run that the power ended in the second epoch's third step, with a checkpoint after every step."""
    folder = tmp_path / "run"
    trainer = in_training_pass(Trainer(replace(TINY, checkpoint_every=1), folder, say=quiet), 6, fail)
    with pytest.raises(RuntimeError, match="the power went"):
        trainer.fit()
    return folder


def small_checkpoint(path):
    net = nn.Conv2d(1, 2, 1)
    optimizer = mf.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(mf.Tensor(np.ones((1, 1, 2, 2), np.float32))).sum().backward()
    optimizer.step()
    save_checkpoint(path, net, CARD, optimizer, None, {"epoch": 1, "step": 2})
    return net, optimizer


# -- the checksum


def test_a_change_of_any_byte_is_noticed(tmp_path):
    file = tmp_path / "c"
    small_checkpoint(file)
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.integers(8)
        file.write_bytes(changed)
        with pytest.raises(DamagedFile):
            read(file, "test")
    for length in range(0, len(data), 17):
        file.write_bytes(data[:length])
        with pytest.raises(DamagedFile):
            read(file, "test")


def test_arrays_that_change_places_are_noticed(tmp_path):
    """Two values of one shape under each other's names: each byte is one that was written."""
    save_weights(tmp_path / "w", nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)), CARD)
    arrays = load_file(tmp_path / "w")
    arrays["0.weight"], arrays["1.weight"] = arrays["1.weight"], arrays["0.weight"]
    save_file(arrays, tmp_path / "w", metadata(tmp_path / "w"))
    with pytest.raises(DamagedFile, match="do not have the checksum that was written with them"):
        load_weights(tmp_path / "w")


def metadata(file):
    header = file.read_bytes()
    return json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]


def test_files_from_before_the_checksum_are_read(tmp_path):
    net, optimizer = small_checkpoint(tmp_path / "new")
    about = json.loads(metadata(tmp_path / "new")["minifcn"])
    assert len(about.pop("sha256")) == 64
    assert about["format"] == "checkpoint 2"
    about["format"] = "checkpoint 1"
    save_file(load_file(tmp_path / "new"), tmp_path / "old", {"minifcn": json.dumps(about)})
    assert load_checkpoint(tmp_path / "old", net, CARD, optimizer) == {"epoch": 1, "step": 2}
    about["format"] = "checkpoint 2"
    save_file(load_file(tmp_path / "new"), tmp_path / "old", {"minifcn": json.dumps(about)})
    with pytest.raises(DamagedFile, match="checksum"):
        load_checkpoint(tmp_path / "old", net, CARD, optimizer)


# -- two checkpoints


def test_at_most_the_step_in_progress_is_lost(stopped, whole):
    assert place(stopped / NEWEST) == (1, 2)
    assert place(stopped / PREVIOUS) == (1, 1)
    train(out=stopped, resume=True, say=quiet)
    assert kills.state(stopped) == kills.state(whole)


@pytest.mark.parametrize("every", [2, 5])
def test_steps_between_checkpoints(tmp_path, whole, every):
    """Three steps in an epoch, and a checkpoint at the end of each: 2 adds one, and 5 none."""
    trainer = in_training_pass(Trainer(replace(TINY, checkpoint_every=every), tmp_path / "run", say=quiet), 6, fail)
    with pytest.raises(RuntimeError):
        trainer.fit()
    assert place(tmp_path / "run" / NEWEST) == ((1, 2) if every == 2 else (1, 0))
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert kills.state(tmp_path / "run") == kills.state(whole)


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def scribble(file):
    file.write_text("no checkpoint at all")


@pytest.mark.parametrize(
    ("harm", "words"), [(cut, "no complete safetensors"), (flip, "is damaged"), (scribble, "no complete safetensors")]
)
def test_a_damaged_newest_falls_back_to_the_one_before(stopped, whole, harm, words):
    harm(stopped / NEWEST)
    damaged = (stopped / NEWEST).read_bytes()
    said = []
    Trainer.resume(stopped, say=said.append)
    assert len(said) == 1
    assert said[0].startswith("note: ")
    assert words in said[0]
    assert f"going on from {PREVIOUS} (step 1 of epoch 2)" in said[0]
    assert (stopped / DAMAGED).read_bytes() == damaged, "nothing is deleted"
    assert not (stopped / NEWEST).exists(), "so that the next save does not put it in the whole one's place"
    train(out=stopped, resume=True, say=quiet)
    assert kills.state(stopped) == kills.state(whole)
    assert place(stopped / NEWEST) == (2, 0)


def test_falling_back_over_the_end_of_an_epoch_does_it_again(tmp_path, whole):
    """The newest is the end of epoch 2, the one before the end of epoch 1: line and best weights of 2 are there."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    flip(folder / NEWEST)
    said = []
    train(out=folder, resume=True, say=said.append)
    assert "(step 0 of epoch 2)" in said[0]
    assert kills.state(folder) == kills.state(whole)


def test_a_kill_between_the_two_renamings(stopped, whole):
    (stopped / NEWEST).rename(stopped / PREVIOUS)
    (stopped / f".{NEWEST}.{dead_process()}.tmp").write_bytes(b"half")
    said = []
    train(out=stopped, resume=True, say=said.append)
    assert f"{NEWEST} is missing; going on from {PREVIOUS} (step 2 of epoch 2)" in said[0]
    assert not any(".tmp" in name for name in names(stopped))
    assert kills.state(stopped) == kills.state(whole)


def test_two_damaged_ones_are_named_and_kept(stopped):
    for name in (NEWEST, PREVIOUS):
        flip(stopped / name)
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(DamagedFile, match=rf"{NEWEST} is damaged: .*; the one before cannot be used .*--init") as found:
        train(out=stopped, resume=True, say=quiet)
    assert "\n" not in str(found.value)
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before
    (stopped / PREVIOUS).unlink()
    with pytest.raises(DamagedFile, match=f"there is no {PREVIOUS} to go on from; nothing was deleted"):
        train(out=stopped, resume=True, say=quiet)
    assert (stopped / NEWEST).read_bytes() == before[NEWEST]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("left", [("metrics.jsonl", "best.safetensors"), ("metrics.jsonl",), ("best.safetensors",)])
def test_a_trained_run_without_checkpoints_is_refused_and_kept(whole, tmp_path, left):
    for name in ("config.json", *left):
        shutil.copy(whole / name, tmp_path / name)
    before = files(tmp_path)
    advice = f"; a new run can start from its best weights with --init {tmp_path}" if BEST in left else ""
    with pytest.raises(
        FileNotFoundError,
        match=f"^train: {tmp_path} has {' and '.join(left)} of a run, and neither {NEWEST} nor {PREVIOUS} to go on "
        f"from; nothing was deleted{advice}$",
    ):
        train(out=tmp_path, resume=True, say=quiet)
    assert files(tmp_path) == before


def test_a_run_that_has_trained_nothing_begins(whole, tmp_path):
    """A kill in the first moments leaves the configuration; somebody's empty file is no line."""
    shutil.copy(whole / "config.json", tmp_path / "config.json")
    (tmp_path / "metrics.jsonl").touch()
    train(out=tmp_path, resume=True, say=quiet)
    assert kills.state(tmp_path) == kills.state(whole)


def test_another_network_is_no_damage(stopped):
    other = Trainer(replace(TINY, width=0.125), stopped.parent / "other", say=quiet)
    with pytest.raises(ValueError, match="another model"):
        recovery_module.restore(stopped, other.module, other.card, other.optimizer, other.schedule, quiet)
    assert (stopped / NEWEST).exists()


def test_a_whole_checkpoint_is_there_at_every_moment(stopped, monkeypatch):
    """Before and after everything that names a file."""
    moments = []

    def one_is_whole():
        found = []
        for name in (NEWEST, PREVIOUS):
            with suppress(FileNotFoundError, DamagedFile):
                found.append(place(stopped / name))
        assert found
        moments.append(max(found))

    def watched(do):
        def act(*arguments, **more):
            one_is_whole()
            do(*arguments, **more)
            one_is_whole()

        return act

    for name in ("replace", "unlink", "rename"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    flip(stopped / NEWEST)
    train(out=stopped, resume=True, say=quiet)
    assert moments == sorted(moments), "and none is ever lost"
    assert (moments[0], moments[-1]) == ((1, 1), (2, 0))
    assert len(moments) > 10


# -- when to save


def test_by_default_saving_takes_less_than_two_percent():
    now = 0.0
    pace = Pace(0, lambda: now)

    def save():
        nonlocal now
        now += cost

    saved = []
    for cost in (2**-10, 3.0):
        pace.timed(save)
        start, spent = now, 0.0
        for _ in range(1000):
            now += 1.0
            if pace.is_due(1):
                pace.timed(save)
                spent += cost
                saved.append(now)
        assert 0.015 < spent / (now - start) < 0.02 if cost == 3.0 else spent == 100 * cost
    assert saved[0] == 10 + 2 * 2**-10


def test_between_epochs_it_is_saved_unless_that_is_slow_and_was_just_done():
    now = 0.0
    pace = Pace(0, lambda: now)

    def save():
        nonlocal now
        now += cost

    assert pace.is_due_between(), "nothing was saved yet"
    cost = 0.25
    pace.timed(save)
    assert pace.is_due_between(), "that was quick"
    cost = 3.0
    pace.timed(save)
    assert not pace.is_due_between()
    now += 149.0
    assert not pace.is_due_between()
    now += 1.0  # fifty times as long as the save took
    assert pace.is_due_between()
    cost = 60.0
    pace.timed(save)
    now += 599.0
    assert not pace.is_due_between()
    now += 1.0
    assert pace.is_due_between(), "ten minutes, not fifty"
    often = Pace(7, lambda: now)
    often.timed(save)
    assert often.is_due_between(), "who says how often loses no more than that"


def test_epochs_that_were_not_saved_are_done_again_with_the_same_numbers(tmp_path, monkeypatch):
    """Saves are slow here, so when the power goes in the third epoch there is only the one before the first line."""
    config = replace(TINY, epochs=4, val_every=4)
    train(config, tmp_path / "whole", say=quiet)
    monkeypatch.setattr(recovery_module, "_QUICK_SECONDS", 0.0)
    folder, said = tmp_path / "run", []
    trainer = in_training_pass(Trainer(config, folder, say=quiet), 8, fail)
    with pytest.raises(RuntimeError, match="the power went"):
        trainer.fit()
    assert place(folder / NEWEST) == (0, 3)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    train(out=folder, resume=True, say=said.append)
    assert "note: epochs 1 to 2 are done again, as no checkpoint was written after them" in said
    assert kills.state(folder) == kills.state(tmp_path / "whole")


@pytest.mark.parametrize("changes", [{"val_every": 5}, {"epochs": 2}])
def test_the_best_weights_are_of_an_epoch_that_the_run_has(tmp_path, monkeypatch, changes):
    """The power goes after an epoch with new best weights, and the run goes on in another way."""
    scores = {1: 0.5, 2: 0.2, 3: 0.6, 4: 0.3, 5: 0.4}
    validate = Trainer._validate
    monkeypatch.setattr(
        Trainer, "_validate", lambda self, check: validate(self, check) | {"mean_iu": scores[self.epoch + 1]}
    )
    monkeypatch.setattr(recovery_module, "_QUICK_SECONDS", 0.0)
    config, folder = replace(TINY, epochs=5), tmp_path / "run"
    with pytest.raises(RuntimeError, match="the power went"):
        in_training_pass(Trainer(config, folder, say=quiet), 11, fail).fit()
    result = train(replace(config, **changes), folder, resume=True, say=quiet)
    assert (result.epoch, result.mean_iu) == (3, 0.6)
    assert result.records[2]["mean_iu"] == 0.6


def test_saving_at_any_time_changes_no_number(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(recovery_module, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(recovery_module, "_SAVES", 0)
    trainer = in_training_pass(Trainer(TINY, tmp_path / "run", say=quiet), 5, fail)
    with pytest.raises(RuntimeError):
        trainer.fit()
    assert place(tmp_path / "run" / NEWEST) == (1, 1)
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert kills.state(tmp_path / "run") == kills.state(whole)


def test_how_often_can_change_on_resuming(stopped):
    result = train(replace(TINY, checkpoint_every=2), stopped, resume=True, say=quiet)
    assert json.loads((result.folder / "config.json").read_text())["checkpoint_every"] == 2
    with pytest.raises(ValueError, match="checkpoint_every is -1; 0 or more"):
        TrainConfig(checkpoint_every=-1)


def test_classes_seen_before_a_stop_are_not_called_missing(tmp_path):
    said = []
    trainer = in_training_pass(Trainer(replace(TINY, scenes=16), tmp_path / "run", say=quiet), 8, press(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    train(out=tmp_path / "run", resume=True, say=said.append)
    assert not any("no training pixel" in line for line in said)


# -- signals


def press(*numbers):
    return lambda: [os.kill(os.getpid(), number) for number in numbers]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_polite_signal_lets_the_step_finish(tmp_path, whole, name):
    """Also one that is sent twice, as service managers do."""
    number = getattr(signal, name)
    trainer = in_training_pass(Trainer(TINY, tmp_path / "run", say=quiet), 5, press(number, number))
    before = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored, and stays so
    try:
        with pytest.raises(
            Interrupted, match=f"interrupted by {name} and saved after step 2 of epoch 2; .*--resume"
        ) as stop:
            trainer.fit()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert stop.value.exit_code == 128 + number
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert kills.state(tmp_path / "run") == kills.state(whole)


def test_ctrl_c_again_stops_at_once_and_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with polite_interrupt() as check:
            press(signal.SIGHUP)()
            check()
            press(signal.SIGTERM)()
            with pytest.raises(Interrupted):
                press(signal.SIGINT)()
            with pytest.raises(Interrupted) as stop:
                check()
        assert stop.value.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert str(interrupted(KeyboardInterrupt(), "and saved")) == "interrupted and saved"


def test_a_signal_after_the_last_look_is_not_lost():
    def pressed(number, then):
        with polite_interrupt() as check:
            check()
            press(number)()
            then()

    for number in (signal.SIGTERM, signal.SIGINT):
        with pytest.raises(Interrupted) as stop:
            pressed(number, lambda: None)
        assert stop.value.exit_code == 128 + number
    with pytest.raises(RuntimeError, match="the power went"):
        pressed(signal.SIGTERM, fail)


FINISHED = "after the last epoch, with everything saved but the pictures; python -m minifcn train --resume"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_the_last_epoch_is_saved(tmp_path, whole, monkeypatch, name):
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    save = trainer._save

    def and_press():
        save()
        if trainer.epoch == 2 and not trainer._is_pressed:
            trainer._is_pressed = True
            press(getattr(signal, name))()

    trainer._is_pressed = False
    monkeypatch.setattr(trainer, "_save", and_press)
    by = {"SIGTERM": "interrupted by SIGTERM", "SIGINT": "interrupted"}[name]
    with pytest.raises(Interrupted, match=f"^{by} {FINISHED} {tmp_path / 'run'} goes on from there$") as stop:
        trainer.fit()
    assert stop.value.exit_code == 128 + getattr(signal, name)
    assert not (tmp_path / "run" / "overlays.png").exists()
    train(out=tmp_path / "run", resume=True, say=quiet)
    assert kills.state(tmp_path / "run") == kills.state(whole)


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_ctrl_c_while_pictures_are_made_says_what_is_saved(tmp_path, whole, monkeypatch):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "overlay_sheet", interrupt)
        with pytest.raises(Interrupted, match=f"^interrupted {FINISHED} {folder} goes on from there$"):
            train(out=folder, resume=True, say=quiet)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_say_rates", interrupt)
        with pytest.raises(
            Interrupted, match=f"^interrupted before the first step; .*--resume {tmp_path / 'new'} .* b"
        ):
            train(TINY, tmp_path / "new", say=quiet)


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# -- disks


def test_a_disk_that_is_full_keeps_the_last_checkpoint(stopped, whole):
    resource = pytest.importorskip("resource")
    before = {name: (stopped / name).read_bytes() for name in (NEWEST, PREVIOUS)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    said = []
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[NEWEST]) // 2, limits[1]))
        with pytest.raises(
            OSError, match=rf"{NEWEST} cannot be written .*; the file that was there before stays"
        ) as full:
            train(out=stopped, resume=True, say=said.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(full.value)
    assert "stopped by an error after step 3 of epoch 2, which could not be saved" in said[-1]
    assert said[-1].endswith("goes on from the last checkpoint")
    assert {name: (stopped / name).read_bytes() for name in before} == before
    assert not any(".tmp" in name for name in names(stopped))
    train(out=stopped, resume=True, say=quiet)
    assert kills.state(stopped) == kills.state(whole)


def test_a_disk_that_is_full_before_the_first_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    said = []
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(OSError, match="cannot be written"):
            train(replace(TINY, checkpoint_every=1), tmp_path / "run", say=said.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said[-1].endswith("goes on from the beginning")
    assert names(tmp_path / "run") == ["config.json"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of folders are POSIX's")
def test_a_folder_that_cannot_be_written_to(stopped, whole):
    """A superuser may write everywhere, so for a moment we are nobody."""
    trainer = Trainer.resume(stopped, say=quiet)
    user = os.geteuid()
    before = names(stopped)
    stopped.chmod(0o555)
    try:
        if user == 0:
            opened = [folder for folder in stopped.parents if folder.stat().st_mode & 0o077 == 0]
            modes = [folder.stat().st_mode for folder in opened]
            for folder in opened:
                folder.chmod(0o755)
            os.seteuid(65534)
        with pytest.raises(PermissionError, match=f"{stopped.name} cannot be written to; .* belongs there"):
            trainer.fit()
    finally:
        if user == 0:
            os.seteuid(user)
            for folder, mode in zip(opened, modes, strict=True):
                folder.chmod(mode)
        stopped.chmod(0o755)
    assert names(stopped) == before
    train(out=stopped, resume=True, say=quiet)
    assert kills.state(stopped) == kills.state(whole)


# -- kills


def test_runs_that_are_killed_end_as_the_one_that_was_not(monkeypatch):
    """The benchmark with a few kills; Linux and macOS have SIGKILL."""
    name = "Adam, batch norm, a checkpoint every step"
    monkeypatch.setattr(kills, "RECIPES", {name: replace(kills.RECIPES[name], scenes=12, epochs=2)})
    monkeypatch.setattr(kills, "_DAMAGED_IN", 2)
    monkeypatch.setattr(kills, "_LONGEST", 1.0)
    (row,) = kills.rows(2, seed=1)
    assert row["kills"] >= 2
    assert row["runs"] >= 1
    assert row["identical"]
    table = tables._kills({"command": "c", "environment": {"processor": "p"}, "rows": [row]})
    assert f"| {name} | {row['kills']} |" in table
    assert f"of {row['runs']} runs, {row['runs']} ended" in table


def test_the_benchmark_sees_a_difference(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    records[0]["train_loss"] = float(np.nextafter(records[0]["train_loss"], 1))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert kills.state(folder) != kills.state(whole)

"""The command line: what it prints and writes, and one sentence with exit code 2 for every mistake of a user."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minifcn as mf
from minifcn.cli import main
from minifcn.cli.reporting import BROKEN_PIPE
from minifcn.data import Shapes
from minifcn.data.labels import IGNORE_COLOR
from minifcn.training import load_model, save_weights
from minifcn.training.checkpoint import ModelCard
from minifcn.training.inference import predict

TINY = ["--width", "0.0625", "--size", "32x32", "--scenes", "4", "--val-scenes", "2", "--batch-size", "2"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of one tiny run. Tests read it and do not write to it."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", *TINY, "--epochs", "1", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def photos(tmp_path):
    """Two photographs of odd sizes, one with a mask beside it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (37, 53, 3), np.uint8)).save(folder / "one.jpg")
    Image.fromarray(np.zeros((37, 53), np.uint8)).save(folder / "one.png")
    Image.fromarray(rng.integers(0, 256, (41, 30, 3), np.uint8)).save(folder / "two.png")
    return folder


def complaint(capsys, *words, code=2):
    """The one sentence that a command leaves on stderr."""
    assert main([str(word) for word in words]) == code
    text = capsys.readouterr().err
    assert text.startswith("minifcn: ")
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text.removeprefix("minifcn: ")


# -- what the commands do


def test_train_ends_with_the_mean_iu(capsys):
    assert main(["train", *TINY, "--epochs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    records = [json.loads(line) for line in Path("runs/fcn8s_resnet18-1/metrics.jsonl").read_text().splitlines()]
    assert lines[0].startswith("fcn8s_resnet18 (width 0.0625, 6 classes), ")
    assert "run in runs/fcn8s_resnet18-1" in lines[0]
    assert [line.split()[:2] for line in lines if line.startswith("epoch")] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert Path("runs/fcn8s_resnet18-1/overlays.png").exists()
    if importlib.util.find_spec("matplotlib"):
        assert Path("runs/fcn8s_resnet18-1/learning_curve.png").exists()
    else:
        assert any('pip install "minifcn[plot]"' in line for line in lines)
    assert lines[-1] == f"mean IU {max(record['mean_iu'] for record in records):.2f}"


def test_eval_prints_what_training_measured(run, capsys):
    assert main(["eval", str(run)]) == 0
    text = capsys.readouterr().out
    record = json.loads((run / "metrics.jsonl").read_text())
    assert f"mean IU                {record['mean_iu']:.3f}" in text
    assert f"pixel accuracy         {record['pixel_accuracy']:.3f}" in text
    assert f"loss                   {record['val_loss']:.3f}" in text
    assert all(name in text for name in Shapes.classes)


def test_eval_takes_a_weights_file_and_other_data(run, tmp_path, capsys):
    lone = tmp_path / "lone.safetensors"
    shutil.copy(run / "best.safetensors", lone)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    scenes = Shapes(count=3, size=(32, 48))
    for k in range(3):
        image, labels, _ = scenes[k]
        Image.fromarray(image).save(tmp_path / "images" / f"{k}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{k}.png")
    assert main(["eval", str(lone), "--data", "folder:images:masks", "--split", "all"]) == 0
    assert "on 3 images of folder:images:masks, all" in capsys.readouterr().out


def test_predict_writes_labels_and_overlays_of_the_images_own_sizes(run, photos, capsys):
    assert main(["predict", str(run), str(photos), "--out", "out"]) == 0
    assert sorted(os.listdir("out")) == ["one_labels.png", "one_overlay.png", "two_labels.png", "two_overlay.png"]
    assert f"{photos}/one.png: taken for the mask of the JPEG of that name, not for" in capsys.readouterr().out
    module, card = load_model(run)
    for name, file, size in (("one", "one.jpg", (53, 37)), ("two", "two.png", (30, 41))):
        with Image.open(f"out/{name}_labels.png") as labels, Image.open(photos / file) as photo:
            expected = predict(module, np.asarray(photo.convert("RGB")))
            assert labels.mode == "P"
            assert np.array_equal(np.asarray(labels), expected)
            assert labels.getpalette()[:18] == [part for colour in card.palette for part in colour]
        with Image.open(f"out/{name}_overlay.png") as overlay:
            assert (overlay.mode, overlay.size) == ("RGB", size)


def test_predict_paints_with_vocs_colours_where_the_weights_have_none(photos, capsys):
    card = ModelCard("fcn32s_vgg11", 3, {"width": 1 / 16})
    save_weights("bare.safetensors", card.create(), card)  # scores are 0, so class 0 wins everywhere
    assert main(["predict", "bare.safetensors", str(photos / "two.png")]) == 0
    labels = Image.open("predictions/two_labels.png")
    assert np.array_equal(np.asarray(labels), np.zeros((41, 30)))
    assert labels.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, *IGNORE_COLOR]


def test_predict_with_one_class_says_that_every_pixel_would_be_of_it(photos, capsys):
    card = ModelCard("hed", 1, {"width": 1 / 32})
    save_weights("hed.safetensors", card.create(), card)
    said = complaint(capsys, "predict", "hed.safetensors", photos / "two.png")
    assert "hed (width 0.03125, 1 class) has one class, so every pixel would be of it" in said
    assert not Path("predictions").exists()


def test_train_starts_from_a_runs_weights(run, capsys):
    assert main(["train", *TINY, "--epochs", "1", "--init", str(run), "--out", "next"]) == 0
    said = capsys.readouterr().out
    assert f"starting from {run}" in said
    assert "parameters and buffers matched" in said
    assert "nowhere.pth; a run's folder or a weights file is needed" in complaint(
        capsys, "train", *TINY, "--init", "nowhere.pth"
    )
    wider = complaint(capsys, "train", *TINY, "--width", "0.125", "--init", str(run))
    assert "of the backbone's 100 parameters and buffers in the shapes of fcn8s_resnet18 (width 0.125" in wider
    assert "the file's layers are 1/2 times as wide" in wider
    assert "a UNet has no backbone" in complaint(capsys, "train", *TINY, "--model", "unet", "--backbone-lr", "0.1")


def test_half_an_option_is_not_guessed(capsys):
    assert "minifcn weights --help lists what is possible" in complaint(capsys, "weights", "x.npz", "--num_classes", 3)
    assert "unrecognized arguments: --ov" in complaint(capsys, "weights", "x.npz", "--ov")


def test_predict_never_overwrites_unless_told_to(run, photos, capsys):
    words = ["predict", run / "best.safetensors", photos / "two.png", "--out", "out"]
    assert main([str(word) for word in words]) == 0
    with open("out/two_overlay.png", "w") as file:
        file.write("mine")
    assert "two_labels.png and 1 more exist already; give --overwrite" in complaint(capsys, *words)
    with open("out/two_overlay.png") as file:
        assert file.read() == "mine"
    assert main([str(word) for word in [*words, "--overwrite"]]) == 0
    with Image.open("out/two_overlay.png") as overlay:
        assert overlay.size == (30, 41)


def test_predict_goes_on_after_a_broken_image(run, photos, capsys):
    (photos / "abc.jpg").write_bytes((photos / "one.jpg").read_bytes()[:300])
    assert "abc.jpg" in complaint(capsys, "predict", run, photos)
    assert len(os.listdir("predictions")) == 4


def test_info_lists_networks_and_layers(capsys):
    assert main(["info"]) == 0
    assert capsys.readouterr().out.split() == list(mf.models.available())
    assert main(["info", "fcn8s_resnet18", "--size", "64x96", "--width", "0.125", "--num-classes", "5"]) == 0
    text = capsys.readouterr().out
    assert "1 × 5 × 64 × 96" in text
    assert "training step" in text
    assert main(["info", "fcn8s_resnet18", "--size", "64x96", "--width", "0.125", "--no-memory"]) == 0
    assert "training step" not in capsys.readouterr().out


def test_a_recipe_by_name_and_what_overrides_it(capsys):
    words = ["train", "--recipe", "reference", "--model", "fcn16s_vgg11", *TINY, "--epochs", "1", "--loss", "mean"]
    assert main([*words, "--out", "run"]) == 0
    said = capsys.readouterr().out
    config = json.loads(Path("run/config.json").read_text())
    assert (config["momentum"], config["paper_bias"], config["batch_size"], config["width"]) == (0.99, True, 2, 0.0625)
    assert said.startswith("recipe reference is for the sum over the pixels: with about ")
    pixels = config["lr"] / 1e-12
    assert f"with about {pixels:,.0f} valid pixels a step, lr 1e-12 is {config['lr']:.3g}" in said
    assert 1000 < pixels < 2048  # two scenes of 32×32, with void
    assert main(["train", "--resume", "run"]) == 0
    assert "--recipe is for a new run" in complaint(capsys, "train", "--resume", "run", "--recipe", "reference")
    assert "has no learning rate for unet; --lr is" in complaint(
        capsys, "train", "--recipe", "paper", "--model", "unet"
    )
    assert "invalid choice: 'mine'" in complaint(capsys, "train", "--recipe", "mine")


def test_info_lists_recipes(capsys):
    assert main(["info", "--recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("reference: the solvers of the authors' code")
    assert "  fcn16s_vgg*        lr 1e-12" in lines
    assert any("crop 320x416, scale 0.75,1.25, flip True, matmul_precision high" in line for line in lines)


@pytest.mark.parametrize("names", [("PMI_RANK", "PMI_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")])
def test_only_training_is_for_several_processes(capsys, monkeypatch, names):
    monkeypatch.setenv(names[0], "0")
    monkeypatch.setenv(names[1], "3")
    said = complaint(capsys, "eval", "run")
    assert said == "eval: 3 processes were started, and only train shares its work among several; start one\n"
    monkeypatch.setenv(names[0], "2")
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "run"])
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])


def test_ctrl_c_saves_and_says_how_to_go_on(capsys, monkeypatch):
    from minifcn.training.trainer import Trainer

    step = Trainer._train_step

    def pressed(self, batch):
        step(self, batch)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressed)
        text = complaint(capsys, "train", *TINY, "--epochs", "1", "--out", "my run", code=130)
    assert text == (
        "interrupted and saved after step 1 of epoch 1; python -m minifcn train --resume 'my run' goes on from there\n"
    )
    assert main(["train", "--resume", "my run"]) == 0
    whole = ["train", *TINY, "--epochs", "1", "--out", "whole"]
    assert main(whole) == 0
    with open("my run/best.safetensors", "rb") as ours, open("whole/best.safetensors", "rb") as theirs:
        assert ours.read() == theirs.read()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_real_signal_to_a_process_of_its_own(tmp_path, name):
    command = [sys.executable, "-m", "minifcn", "train", *TINY, "--epochs", "10000", "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True)
    try:
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + getattr(signal, name)
    assert f"interrupted{' by SIGTERM' if name == 'SIGTERM' else ''} and saved" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


# -- what it says to mistakes


def test_mistakes_in_the_command_itself(capsys):
    assert "bad --size" not in complaint(capsys, "train", "--size", "12by4")
    for words, sentence in [
        (["train", "--size", "12by4"], "HEIGHTxWIDTH"),
        (["info", "fcn8s_resnet18", "--size", "0x4"], "HEIGHTxWIDTH"),
        (["train", "--optimizer", "lion"], "invalid choice: 'lion'"),
        (["train", "--epochs", "many"], "invalid int value: 'many'"),
        (["train", "--epochs", "0"], "epochs is 0; at least 1"),
        (["train", "--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["predict", "run"], "required: IMAGE"),
        (["eval", "run", "--workers", "0"], "no whole number above 0"),
        (["trian"], "invalid choice: 'trian'"),
        ([], "required: COMMAND"),
        (["train", "--resume"], "--resume needs the folder of a run"),
        (["train", "--resume", "a", "--out", "b"], "two folders"),
    ]:
        assert sentence in complaint(capsys, *words)


def test_a_misspelt_model_is_answered_with_the_nearest(capsys):
    assert "fcn8s_resnet18" in complaint(capsys, "train", *TINY, "--model", "fcn8s_resnet81")
    assert "fcn8s_vgg16" in complaint(capsys, "info", "fcn8_vgg16")
    assert not os.path.exists("runs")


def test_missing_and_empty_data(tmp_path, capsys):
    assert "nowhere" in complaint(capsys, "train", "--data", "camvid:nowhere")
    assert "unknown kind of data 'photos'" in complaint(capsys, "train", "--data", "photos:here")
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    assert f"no images in {Path('images').resolve()}" in complaint(capsys, "train", "--data", "folder:images:masks")
    for split in ("train", "trainannot", "val", "valannot"):
        (tmp_path / "camvid" / split).mkdir(parents=True)
    assert "no images" in complaint(capsys, "train", "--data", "camvid:camvid")
    assert not os.path.exists("runs")


@pytest.fixture
def pairs(tmp_path):
    """Folders of four scenes and their masks."""
    scenes = Shapes(count=4, size=(32, 32))
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for k in range(4):
        image, labels, _ = scenes[k]
        Image.fromarray(image).save(tmp_path / "images" / f"{k}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{k}.png")
    return tmp_path


SMALL = ["--width", "0.0625", "--crop", "32x32", "--batch-size", "2", "--epochs", "1"]
FOLDER = ["train", "--data", "folder:images:masks", "--classes", ",".join(Shapes.classes), *SMALL]


def test_options_without_effect_are_refused(capsys):
    assert "--size is for shapes only; --crop" in complaint(capsys, *FOLDER, "--size", "64x64")
    assert "--val-scenes is for shapes only" in complaint(capsys, *FOLDER, "--val-scenes", "3")


def test_training_on_a_folder_of_ones_own(pairs, capsys):
    assert main(FOLDER) == 0
    assert "masks: 3 training and 1 validation images" in capsys.readouterr().out


def test_damaged_files_in_a_data_set(pairs, capsys):
    whole = {k: (pairs / "images" / f"{k}.png").read_bytes() for k in range(4)}
    for k in range(4):
        (pairs / "images" / f"{k}.png").write_bytes(whole[k][: len(whole[k]) // 2])
    assert "is truncated or damaged" in complaint(capsys, *FOLDER)
    for k in range(4):
        (pairs / "images" / f"{k}.png").write_text("this is no image")
    assert "is not an image" in complaint(capsys, *FOLDER)
    for k in range(4):
        (pairs / "images" / f"{k}.png").write_bytes(whole[k])
        Image.fromarray(np.zeros((31, 32), np.uint8)).save(pairs / "masks" / f"{k}.png")
    assert "they must be of one size" in complaint(capsys, *FOLDER)


def test_a_checkpoint_of_another_model(run, tmp_path, capsys):
    assert "has --model 'fcn8s_resnet18', not 'fcn32s_resnet18'" in complaint(
        capsys, "train", "--resume", run, "--model", "fcn32s_resnet18"
    )
    assert main(["train", *TINY, "--epochs", "1", "--model", "fcn32s_resnet18", "--out", "other"]) == 0
    capsys.readouterr()
    shutil.copy(run / "checkpoint.safetensors", "other")
    sentence = complaint(capsys, "train", "--resume", "other")
    assert "is a checkpoint of another model, fcn8s_resnet18 (width 0.0625, 6 classes), not of fcn32s_res" in sentence


def test_weights_that_cannot_be_used(run, photos, capsys):
    for words in (["eval"], ["predict", photos]):
        command, *rest = words
        assert "there is no file missing" in complaint(capsys, command, "missing", *rest)
        assert "no complete safetensors file" in complaint(capsys, command, photos / "one.jpg", *rest)
        assert "holds no best.safetensors" in complaint(capsys, command, photos, *rest)
    shutil.copy(run / "best.safetensors", "lone.safetensors")
    assert "give --data" in complaint(capsys, "eval", "lone.safetensors")
    assert "unknown split 'vla'" in complaint(capsys, "eval", run, "--split", "vla")


def test_data_with_another_number_of_classes(run, tmp_path, capsys):
    for name in ("val", "valannot"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / name / "0.png")
    assert "has 11 classes; data with the same classes" in complaint(capsys, "eval", run, "--data", "camvid:.")


def test_images_that_cannot_be_predicted(run, photos, tmp_path, capsys):
    assert "no file or folder nowhere" in complaint(capsys, "predict", run, "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no images in empty" in complaint(capsys, "predict", run, "empty")
    assert "would write the same files" in complaint(capsys, "predict", run, photos / "one.jpg", photos / "one.png")
    assert "--out file is a file" in complaint(capsys, "predict", run, photos, "--out", _file(tmp_path / "file").name)
    (tmp_path / "note.jpg").write_text("this is no image")
    assert "is not an image" in complaint(capsys, "predict", run, "note.jpg")


def test_a_run_is_never_overwritten(run, tmp_path, capsys):
    assert "nothing is overwritten; --resume" in complaint(capsys, "train", *TINY, "--out", run)
    _file(tmp_path / "notes" / "mine.txt")
    assert "is not empty, and nothing is overwritten" in complaint(capsys, "train", *TINY, "--out", "notes")
    assert "holds no run" in complaint(capsys, "train", "--resume", "notes")


def test_a_gpu_that_is_not_there(run, photos, capsys):
    if mf.gpu_status()[0]:
        pytest.skip("this machine has a GPU")
    for words in (["train", *TINY], ["eval", run], ["predict", run, photos]):
        assert "no GPU can be used" in complaint(capsys, *words, "--device", "cuda")


def test_what_the_system_refuses(capsys, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr(os, "fsync", full)
    assert complaint(capsys, "train", *TINY, "--epochs", "1") == "No space left on device: runs/x\n"


def test_a_lack_of_memory(capsys, monkeypatch):
    def greedy(*words, **more):
        return np.empty(2**62, np.uint8)

    monkeypatch.setattr(mf.models, "create", greedy)
    assert "not enough memory (Unable to allocate" in complaint(capsys, "info", "fcn8s_resnet18")


@pytest.mark.parametrize(
    "bug",
    [
        lambda *a, **k: {}["no such key"],
        lambda *a, **k: int("not from us"),
        lambda *a, **k: np.zeros(2) + np.zeros(3),
        lambda *a, **k: np.zeros(2).reshape(5),
    ],
)
def test_a_bug_keeps_its_traceback(bug, monkeypatch):
    monkeypatch.setattr(mf.models, "create", bug)
    with pytest.raises((KeyError, ValueError)):
        main(["info", "fcn8s_resnet18"])


def test_a_value_error_from_a_function_that_we_called_is_a_bug(monkeypatch):
    """The innermost Python frame is ours, but the error is not: int() raised it."""
    namespace = {"__name__": "minifcn.broken"}
    exec("def create(*a, **k): return int('not a number')", namespace)
    monkeypatch.setattr(mf.models, "create", namespace["create"])
    with pytest.raises(ValueError, match="invalid literal"):
        main(["info", "fcn8s_resnet18"])


def test_traceback_shows_one_for_every_error():
    with pytest.raises(ValueError, match="fcn8s_vgg16"):
        main(["info", "fcn8_vgg16", "--traceback"])


def test_warnings_are_notes(capsys, monkeypatch):
    import warnings

    def warn(*words, **more):
        warnings.warn("class 3 never occurs", stacklevel=2)
        raise KeyboardInterrupt

    monkeypatch.setattr(mf.models, "create", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["info", "fcn8s_resnet18"]) == 130
    assert capsys.readouterr().err == "minifcn: note: class 3 never occurs\nminifcn: interrupted\n"


# -- as a program


def program(code, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **options)


def test_help_loads_nothing_heavy():
    done = program(
        """
        import sys
        from minifcn.cli import main
        try:
            main(["train", "--help"])
        except SystemExit as end:
            assert end.code == 0
        heavy = {"PIL", "tqdm", "safetensors", "matplotlib", "minifcn.nn", "minifcn.data"} & set(sys.modules)
        assert not heavy, heavy
        """
    )
    assert done.returncode == 0, done.stderr
    assert "--batch-size" in done.stdout
    assert "(fcn8s_resnet18)" in done.stdout


def test_module_and_exit_code(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "minifcn", "info", "fcn8_vgg16"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("minifcn: ")
    assert done.stdout == ""


def test_a_terminal_without_our_letters_is_no_error():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "minifcn", "info", "fcn32s_resnet18", "--width", "0.0625", "--size", "32x64"]
    done = subprocess.run([*command, "--no-memory"], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 ? 21 ? 32 ? 64" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="pipes that close early are a matter of POSIX")
def test_a_reader_that_leaves_early_is_no_error():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "minifcn", "info"]
    done = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert done.returncode == BROKEN_PIPE
    assert done.stderr == ""


def _file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def test_bench_keeps_its_numbers_where_it_is_told(tmp_path, capfd):
    out = tmp_path / "numbers.json"
    words = ["bench", "import", "--rounds", "1", "--out", str(out)]
    assert main(words) == 0
    result = json.loads(out.read_text())
    assert result["command"] == "minifcn bench import --rounds 1 --out FILE"  # where it lies is no part of it
    took = result["rows"][0]["minifcn"]["median_s"]
    assert took > 0
    assert f"minifcn {took * 1e3:.1f} ms" in capfd.readouterr().out
    for wrong, sentence in [
        (words, f"{out}: File exists"),
        (["bench", "import", "--out", str(tmp_path / "no" / "file")], "No such file or directory"),
        (["bench", "import", "--rounds", "0"], "--rounds is 0; it must be at least 1"),
        (["bench", "parity"], "invalid choice: 'parity'"),
        (["bench", "kernels", "--models", "fcn8s_vgg61"], "no network 'fcn8s_vgg61'"),
        (["bench", "import", "--device", "cuda"], "import is measured on the CPU"),
        (["bench", "kernels", "--against", "cpu"], "--against cpu compares a GPU with the CPU"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            main(wrong)
        assert stopped.value.code == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("minifcn bench: ")
        assert sentence in line
    assert json.loads(out.read_text()) == result

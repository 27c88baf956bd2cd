"""README and the examples do what they say: every code block and every example runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minifcn as mf

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.strip().splitlines()]
# so that a test takes seconds; .ci/run installs as README does, and trains the default for real
SHORTER = {"train": ["--epochs", "1", "--workers", "1"]}
SHORTER_SHAPES = ["--scenes", "16", "--val-scenes", "8", "--size", "32x32"]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python"}
    assert all(line.startswith(("pip install ", "python -m ")) for line in COMMANDS)


@pytest.mark.parametrize("code", [block for language, block in BLOCKS if language == "python"])
def test_python_block(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_shell_commands_in_order(tmp_path: Path) -> None:
    """One after another in one folder, as a reader would; with fewer and smaller images."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for k in range(12):
        labels = np.zeros((40, 50), np.uint8)
        labels[10:30, 5 + k : 25 + k] = 1
        labels[0] = 255
        image = np.where(labels[..., None] == 1, 200, 60) + rng.integers(0, 30, (40, 50, 3))
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / f"{k}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{k}.png")
    ran = []
    for line in COMMANDS:
        words = shlex.split(line)
        if words[:3] != ["python", "-m", "minifcn"]:
            continue
        command = words[3]
        extra = SHORTER.get(command, []) + (SHORTER_SHAPES if command == "train" and "--data" not in words else [])
        if "--stage-epochs" in words:
            at = extra.index("--epochs")
            extra[at : at + 2] = ["--stage-epochs", "1,1,1"]
        done = subprocess.run(
            [sys.executable, *words[1:], *extra], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if command == "train":
            assert re.fullmatch(r"mean IU (0\.\d\d|nan)", done.stdout.strip().splitlines()[-1])
        ran.append(command)
    laboratory, staged = ["tconv", "align", "align", "trace"], ["train", "eval", "info"]
    assert ran == [
        "train",
        "gradcheck",
        *laboratory,
        "info",
        "train",
        "eval",
        "predict",
        *staged,
        "weights",
        "weights",
        "train",
    ]
    assert len(list((tmp_path / "predictions").glob("*_overlay.png"))) == 12
    assert (tmp_path / "runs" / "mine" / "overlays.png").is_file()
    assert (tmp_path / "runs" / "staged" / "stages.png").is_file()


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    assert "python -m pytest" in COMMANDS
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_networks_that_readme_names_exist() -> None:
    named = set(re.findall(r"`(fcn\d+s_\w+)`", README))
    assert len(named) >= 5
    assert named <= set(mf.models.available())


def test_the_map_of_the_rooms_is_complete() -> None:
    mapped = set(re.findall(r"^\| `(\w+)(?:\.py|/)` \|", README, re.MULTILINE))
    package = ROOT / "minifcn"
    rooms = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert mapped == rooms - {"__init__", "__main__"}


def test_tables_are_the_ones_that_the_results_give() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.tables import BEGIN, END, render
    finally:
        sys.path.remove(str(ROOT))
    assert README.partition(BEGIN)[2].partition(END)[0].strip() == render().strip()


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_example(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout

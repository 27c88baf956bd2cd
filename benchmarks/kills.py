"""Training that is killed at random moments, and resumed: is every run, to the bit, the one that was left alone?

Each recipe is trained once undisturbed. Then it is trained again and again in processes that SIGKILL ends after a
random time and that the next one resumes, until a run ends by itself; its checkpoint, metrics, best weights and picture
are compared with the undisturbed run's. After one kill in ten the newest checkpoint is damaged as well: a bit is
changed, or the end is missing. Only times may differ.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from minifcn.training import TrainConfig
from minifcn.training.checkpoint import BEST, CHECKPOINT, read
from minifcn.training.recovery import DAMAGED, PREVIOUS
from minifcn.training.trainer import CONFIG, METRICS

_SMALL = TrainConfig(width=0.0625, size=(32, 40), scenes=24, val_scenes=4, epochs=3, batch_size=2, lr=0.01)
RECIPES = {
    "Adam, batch norm, a checkpoint every step": replace(_SMALL, checkpoint_every=1),
    "SGD, dropout, median weights, a checkpoint every third step": replace(
        _SMALL,
        model="fcn8s_vgg16",
        width=0.03125,
        optimizer="sgd",
        schedule="step",
        step_epochs=1,
        class_weights="median",
        checkpoint_every=3,
    ),
}
_DAMAGED_IN = 10  # one kill of so many
_LONGEST = 0.7  # until a kill, as a part of the undisturbed time; a tenth more after each kill, so that every run ends
# Learning curves are left out: Matplotlib takes longer to load than the training.
_CHILD = """
import sys
from minifcn.training import trainer
trainer.learning_curve = lambda path, records: None
print("ready", flush=True)
trainer.train(out=sys.argv[1], resume=True, say=lambda line: print(line, flush=True))
"""


@dataclass
class Counts:
    """What happened to the runs of a recipe."""

    kills: int = 0
    inside_a_save: int = 0  # a file that was being written was left behind
    damaged: int = 0
    fell_back: int = 0
    runs: int = 0
    different: int = 0


def rows(kills: int, seed: int) -> list[dict[str, Any]]:
    """One row per recipe; the kills are shared out among them.

    Args:
        kills: at least so many in all.
        seed: draws the moments; what the process was doing then is the machine's chance.
    """
    rng = np.random.default_rng(seed)
    found = []
    for name, config in RECIPES.items():
        with TemporaryDirectory() as folder:
            start = time.perf_counter()
            counts = _recipe(Path(folder), config, -(-kills // len(RECIPES)), rng)
            row = {"recipe": name, **vars(counts), "identical": counts.different == 0}
        found.append(row | {"seconds": round(time.perf_counter() - start)})
        print(", ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    return found


def state(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves, except how long it took."""
    arrays, about = read(folder / CHECKPOINT, "kills")
    records = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    for entries in (about["progress"], *records):
        del entries["seconds"]
    return {
        "checkpoint": {key: (a.dtype.str, a.shape, a.tobytes()) for key, a in arrays.items()},
        "about": about,
        "records": records,
        "files": [(folder / name).read_bytes() for name in (BEST, "overlays.png")],
    }


def _recipe(work: Path, config: TrainConfig, kills: int, rng: np.random.Generator) -> Counts:
    counts = Counts()
    whole = _new(work / "whole", config)
    _, seconds = _train(whole, None)
    expected = state(whole)
    while counts.kills < kills:
        run = _new(work / f"run{counts.runs}", config)
        longest, left = _LONGEST * seconds, set[Path]()
        while not _train(run, rng.uniform(0, longest))[0]:
            longest *= 1.1
            counts.kills += 1
            left, before = set(run.glob(".*.tmp")), left
            counts.inside_a_save += not left <= before
            _count_fallback(run, counts)
            if rng.integers(_DAMAGED_IN) == 0 and (run / CHECKPOINT).exists() and (run / PREVIOUS).exists():
                _damage(run / CHECKPOINT, rng)
                counts.damaged += 1
        _count_fallback(run, counts)
        counts.runs += 1
        counts.different += state(run) != expected
    return counts


def _new(folder: Path, config: TrainConfig) -> Path:
    folder.mkdir()
    (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    return folder


def _train(folder: Path, seconds: float | None) -> tuple[bool, float]:
    """(whether it came to its end, seconds) of a process that goes on with a run, and is killed after so many."""
    command = [sys.executable, "-c", _CHILD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # it is a pipe
        process.stdout.readline()  # the imports are done
        start = time.perf_counter()
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return False, 0.0
    if process.returncode:
        raise RuntimeError(f"kills: a run could not be resumed: {errors[-2000:]}")
    return True, time.perf_counter() - start


def _count_fallback(run: Path, counts: Counts) -> None:
    if (run / DAMAGED).exists():
        (run / DAMAGED).unlink()
        counts.fell_back += 1


def _damage(file: Path, rng: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    place = int(rng.integers(len(data)))
    if rng.integers(2):
        data[place] ^= 1 << int(rng.integers(8))
    else:
        del data[place:]
    file.write_bytes(data)

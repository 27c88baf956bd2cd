"""Data come without end and without growing: the memory of a validation, and the benchmark of waiting for images."""

import json
from types import SimpleNamespace

import pytest

import minifcn as mf
from benchmarks import feeding, tables
from benchmarks.__main__ import main
from minifcn.data import Shapes
from minifcn.models.summary import peak_bytes
from minifcn.training import evaluate


@pytest.mark.parametrize(("workers", "slack"), [(0, 3), (2, 6)])
def test_validation_takes_no_more_memory_for_more_images(workers, slack):
    """Four times as many: the same peak, up to what is just then read ahead, or waits in the pool."""
    model = mf.models.create("fcn8s_resnet18", Shapes(1).num_classes, width=1 / 16, seed=0)

    def peak(count):  # of images so large that no two go through together
        data = Shapes(count=count, size=(256, 300), split="val")
        return peak_bytes(lambda: evaluate(model, data, workers=workers))

    few, many = peak(5), peak(20)
    one = 256 * 300 * (3 * 4 + 8)  # bytes of an image and its labels; 15 more would show
    assert many < few + slack * one


def tiny():
    model = mf.models.create("fcn32s_vgg11", 21, width=1 / 64, seed=0)
    return SimpleNamespace(model=model, optimizer=mf.optim.SGD(list(model.parameters()), lr=1e-4))


def test_rows_of_feeding(capsys):
    rows = feeding.rows(2, images=3, kinds=(("JPEG", (40, 60)), ("PNG", (40, 60))), crop=(32, 48), network=tiny)
    cases = [(kind, workers) for kind in ("JPEG 40x60", "PNG 40x60") for workers in (0, 1, 2)]
    assert [(row["kind"], row["workers"]) for row in rows] == cases
    assert all(0 < row["waiting"] < 1 and row["image"]["min_s"] > 0 for row in rows)
    assert rows[0]["kilobytes"] < rows[3]["kilobytes"]
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    where = {"processor": "P", "threads": 1, "blas": [], "versions": {}}
    text = tables._feeding({"command": "feed it", "environment": where, "rows": rows})
    cells = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert cells == [6] * 8


def test_waiting_is_the_time_between_steps(monkeypatch):
    """By a clock that the loader and the step move: 3 s for each image, 1 s for each step."""
    now = [0.0]
    monkeypatch.setattr(feeding.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(feeding, "_step", lambda ours, batch: now.__setitem__(0, now[0] + 1))

    def epoch(number):
        for seconds in (100, 3, 3):  # the first is left out
            now[0] += seconds
            yield None

    found = feeding._training(None, SimpleNamespace(epoch=epoch))
    assert (found["wait"]["median_s"], found["step"]["median_s"], found["waiting"]) == (3, 1, 0.75)


def test_the_command_keeps_what_it_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(feeding, "rows", lambda rounds: [{"rounds": rounds}])
    assert main(["feeding", "--rounds", "2", "--out", str(tmp_path / "f.json")]) == 0
    assert json.loads((tmp_path / "f.json").read_text())["rows"] == [{"rounds": 2}]


def test_the_files_are_as_large_as_photographs(tmp_path):
    """CamVid's PNGs of 720×960 have about a megabyte; scenes without grain would be decoded in no time."""
    assert 0.5e6 < feeding._write(tmp_path, "PNG", (720, 960), 1) < 2e6

"""The whole corpus of hostile.py, read in a process of its own: refused in one sentence, nothing run, little memory.

And the two benchmarks that go with it: the fuzzing finds what it should, and their tables can be written.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile
import numpy as np
import pytest

from benchmarks import fuzz, reading, tables
from benchmarks.__main__ import main

ROOT = Path(__file__).parents[1]
MINUTES = 10  # it takes seconds: whoever needs as long hangs


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What came of each file, and at last whether one of them was executed."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile.write(folder)
    command = [sys.executable, str(ROOT / "tests" / "hostile.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        try:
            code = subprocess.run(command, stdout=out, stderr=err, env=environment, timeout=60 * MINUTES).returncode
        except subprocess.TimeoutExpired:
            code = f"still at it after {MINUTES} minutes"
    last = (folder / "err").read_text(errors="replace")[-2000:]
    assert code == 0, f"ended with {code}; its last words, the file's name being the first of them: {last}"
    return [json.loads(line) for line in (folder / "out").read_text().splitlines()]


def files(rows: list[dict], *results: str) -> list[dict]:
    return [row for row in rows if row.get("result") in results]


def test_each_is_refused_or_read_as_it_should_be(rows):
    wrong = [row for row in files(rows, "read", "refused", "failed") if row["expect"] not in ("either", row["result"])]
    failed = files(rows, "failed")
    assert not wrong + failed, "\n".join(f"{row['case']}: {row['result']} {row['said']}" for row in wrong + failed)
    assert len(files(rows, "refused")) > 1000


def test_a_refusal_is_one_sentence_of_ours(rows):
    for row in files(rows, "refused"):
        said = row["said"]
        assert said.isprintable(), row
        assert said.startswith(("read: PATH", "read_image: PATH", "read_image: no file PATH", "read_mask: ")), row
        assert len(said) < 1000, row


def test_nothing_is_executed(rows):
    """No program started, no other file written, no pickle of Python's own, no line compiled."""
    assert rows[-1] == {"executed": False}
    seen = [(row["case"], row["seen"]) for row in rows[:-1] if row["seen"]]
    assert not seen


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="Linux says how much memory a process had at most"
)
def test_memory_is_at_most_twice_the_file_and_100_mb(rows):
    for row in files(rows, "refused"):
        assert row["grew"] <= 2 * row["size"] + 100e6, row


def test_the_watch_sees_what_it_is_for(tmp_path):
    """Python's own unpickler runs what our readers refuse: the marker comes to be, and the hook says why."""
    marker = tmp_path / hostile.MARKER
    plain = next(case for case in hostile.cases(tmp_path) if case.name == "plain pickle: os.system")
    (tmp_path / "file").write_bytes(plain.content)
    code = "import hostile, pickle, sys; watch = hostile.Watch(); watch.on = True; "
    code += "pickle.load(open(sys.argv[1], 'rb')); print(watch.seen)"
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert marker.exists()
    assert "pickle.find_class" in found.stdout
    assert "os.system" in found.stdout


# -- fuzzing


@pytest.mark.parametrize("kind", fuzz.FORMATS)
def test_cases_are_the_same_each_time_and_not_each_other(kind):
    if kind == "h5":
        pytest.importorskip("h5py", reason="h5py writes the sound HDF5 files")
    cases = [fuzz.case(kind, 5, number) for number in range(100)]
    assert cases == [fuzz.case(kind, 5, number) for number in range(100)]
    assert len(set(cases)) > 50
    assert cases[:10] != [fuzz.case(kind, 6, number) for number in range(10)]


def test_repaired_checksums_and_lengths_are_right():
    """So that what lies behind them is reached: much of what is rebuilt is read, or refused for what it holds."""
    for number in range(50):
        rebuilt = fuzz._rechunked(fuzz.random.Random(number), fuzz.seeds("png")[0])
        at = 8
        while at < len(rebuilt):
            length = int.from_bytes(rebuilt[at : at + 4], "big")
            body, check = rebuilt[at + 4 : at + 8 + length], rebuilt[at + 8 + length : at + 12 + length]
            assert int.from_bytes(check, "big") == fuzz.zlib.crc32(body)
            at += 12 + length


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (KeyError("x"), "KeyError at"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), "not a sentence of ours"),
        (ValueError("bad"), "not a sentence of ours"),
        (ValueError("read: {path}: two\nlines"), "not a sentence of ours"),
        (None, "no array of numbers"),
    ],
)
def test_what_is_no_sentence_of_ours_is_a_finding(tmp_path, monkeypatch, fault, words):
    def reader(path):
        if fault is None:
            return {"x": np.array([None])}
        raise type(fault)(str(fault).format(path=path)) if type(fault) is ValueError else fault

    monkeypatch.setitem(hostile.READERS, "read", reader)
    try:
        found = fuzz._outcome(tmp_path / "file", "npy", 0)
    except KeyError as error:
        found = "finding", fuzz._said(error)
    assert found[0] == "finding"
    assert words in found[1]


LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the bounds are Linux's")
FAULTY = {
    "crash by SIGABRT": "os.abort()",
    "_Hang at": "exec('while True: pass')",
    "MemoryError at": "{'x': np.ones(10**9)}",
}


@LINUX
@pytest.mark.parametrize("words", FAULTY)
def test_crashes_hangs_and_memory_are_findings(tmp_path, words):
    """With a faulty reader in place of the tests' own."""
    code = (
        "import os, sys, numpy as np; from benchmarks import fuzz; fuzz.HANG = 1; sound = fuzz._outcome; "
        "faulty = lambda path, kind, number: sound(path, kind, 0) if path.name == 'sound' else "
        f"({FAULTY[words]}, ('read', ''))[1]; fuzz._outcome = faulty; said = []; "
        "out = type('Out', (), {'send': staticmethod(said.append)}); "
        "fuzz._work('npy', 0, 0, 0.2, sys.argv[1], out); print(said[0])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    if "crash" in words:
        assert done.returncode == -6
        assert [path.name for path in tmp_path.iterdir()] == ["0"], "the file that it died of stays"
    else:
        assert words in done.stdout, done.stderr


@LINUX
def test_rows_of_fuzzing(tmp_path, capsys):
    (row,) = fuzz.rows(1 / 30, 3, tmp_path, ("npy",))
    assert row["files"] == row["read"] + row["refused"] > 0
    assert (row["findings"], row["what"]) == (0, {})
    assert not list(tmp_path.iterdir())
    assert "npy" in capsys.readouterr().out
    text = tables._fuzz({"command": "fuzz it", "rows": [row | {"what": {"crash": 2}, "findings": 2}]})
    assert f"| npy | {row['files']:,} | {row['read']:,} |" in text
    assert "Findings: npy: crash (2)." in text


# -- reading


@LINUX
def test_rows_of_reading(tmp_path):
    (row,) = reading.rows(4, 1)
    assert row["megabytes"] == pytest.approx(4, rel=0.1)
    assert 0.9 < row["minifcn_peak_over_file"] < 1.5  # the mapped file; a copy would be another 1
    assert row["minifcn_anonymous_over_file"] < 0.5
    assert row["ratio"]["of_medians"] > 0
    where = {"processor": "P", "threads": 1, "blas": [], "versions": {}}
    text = tables._reading({"command": "read it", "environment": where, "rows": [row]})
    assert "| `mf.weights.read`, and every value added up |" in text
    cells = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert len(cells) >= 5
    assert set(cells) == {6}


@pytest.mark.parametrize(
    ("words", "said"),
    [(("fuzz", "--minutes", "0"), "--minutes is 0.0"), (("reading", "--megabytes", "0"), "--megabytes is 0")],
)
def test_mistakes_in_the_command_are_said(capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@LINUX
def test_the_commands_keep_what_they_measure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        fuzz, "rows", lambda minutes, seed, keep: [{"minutes": minutes, "seed": seed, "keep": str(keep)}]
    )
    assert main(["fuzz", "--minutes", "0.5", "--seed", "4", "--keep", "there", "--out", str(tmp_path / "f.json")]) == 0
    assert json.loads((tmp_path / "f.json").read_text())["rows"] == [{"minutes": 0.5, "seed": 4, "keep": "there"}]
    monkeypatch.setattr(reading, "rows", lambda megabytes, rounds: [{"megabytes": megabytes, "rounds": rounds}])
    assert main(["reading", "--megabytes", "3", "--rounds", "2"]) == 0, "too small to be kept"
    assert "megabytes 3, rounds 2" in capsys.readouterr().out

"""A reader meets the old file or the new one, never half of one."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minifcn.training.files import clear_drafts, replacing


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path):
    target = tmp_path / "weights"
    target.write_text("old")
    with replacing(target) as draft:
        draft.write_text("new")
        assert target.read_text() == "old", "nothing changes before the block ends"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["weights"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_inside_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "weights"
    target.write_text("old")

    def write_half():
        with replacing(target) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["weights"]


def test_a_full_disk_at_the_last_moment_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "weights"
    target.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), replacing(target) as draft:
        draft.write_text("new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["weights"]


def test_what_cannot_be_written_is_said_in_a_sentence(tmp_path, monkeypatch):
    def refuses(number):
        def touch(self, *arguments, **more):
            raise OSError(number, os.strerror(number), str(self))

        return touch

    for number, words in [
        (errno.EROFS, f"^{tmp_path} cannot be written to; new belongs there$"),
        (errno.ENOSPC, f"^{tmp_path / 'new'} cannot be written .No space left on device.$"),
    ]:
        monkeypatch.setattr(Path, "touch", refuses(number))
        with pytest.raises(OSError, match=words), replacing(tmp_path / "new"):
            pass
    assert os.listdir(tmp_path) == []


def test_errors_of_other_files_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere") as error, replacing(tmp_path / "new"):
        (tmp_path / "elsewhere").read_text()
    assert error.value.errno == errno.ENOENT


def test_the_one_before_can_be_kept(tmp_path):
    for text in ("first", "second", "third"):
        with replacing(tmp_path / "new", tmp_path / "old") as draft:
            draft.write_text(text)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"new": "third", "old": "second"}


def test_drafts_of_processes_that_are_gone_are_cleared(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    gone = [f".a.{process.pid}.tmp", f".a.{os.getpid()}.tmp"]
    stay = ["a", f".a.{os.getppid()}.tmp", f".b.{process.pid}.tmp", f"a.{process.pid}.tmp", ".a.x.tmp", ".a.1.b.tmp"]
    for name in (*gone, *stay):
        (tmp_path / name).write_text("")
    clear_drafts(tmp_path, ["a"])
    assert sorted(os.listdir(tmp_path)) == sorted(stay)


def test_the_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    with replacing(tmp_path / "ours") as draft:
        draft.write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode

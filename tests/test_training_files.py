"""A reader meets the old file or the new one, never half of one."""

import os

import pytest

from minifcn.training.files import replacing


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


def test_the_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    with replacing(tmp_path / "ours") as draft:
        draft.write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode

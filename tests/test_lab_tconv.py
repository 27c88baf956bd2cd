"""`python -m minifcn tconv`: what it says about a layer, filters from files, and what it refuses."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import minifcn.functional as F
from minifcn import cli, lab
from minifcn.autograd import Tensor


def tconv(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["tconv", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["tconv", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("minifcn: ")
    assert said.err.count("\n") == 1
    return said.err


def block(text: str, title: str) -> list[list[str]]:
    """The words of the table that follows a title."""
    lines = text[text.index(f"\n  {title}\n") :].splitlines()[2:]
    rows = []
    for line in lines:
        if not re.fullmatch(r"    [ \d.·−]+", line):
            break
        rows.append(line.replace("·", "0").replace("−", "-").split())
    return rows


def test_a_small_layer_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "2x2", "--kernel", "3", "--stride", "2", "--padding", "1", "--output-padding", "1")
    assert "height and width: (2 − 1)·2 − 2·1 + 1·(3 − 1) + 1 + 1 = 4" in out
    assert "relationship 14" in out
    assert "2 scores of an image of 3 or 4" in out
    assert "it gives back 1 at the end" in out
    assert max(map(len, out.splitlines())) <= 120
    # the matrices that are printed are those of this layer: checked by what they do, with minifcn's own kernels
    c, transposed = (np.array(block(out, title), float) for title in ("C =", "Cᵀ ="))
    assert c.shape == (4, 16)
    assert (transposed == c.T).all()
    y, w, x = (np.array(block(out, f"{title}:"), float) for title in ("scores", "filter", "image"))
    assert w.ravel().tolist() == list(range(1, 10))
    expected = F.conv_transpose2d(Tensor(y[None, None]), Tensor(w[None, None]), None, 2, 1, 1).numpy()[0, 0]
    assert (x == expected).all()
    assert (transposed @ y.ravel() == x.ravel()).all()
    image = np.random.default_rng(0).integers(-9, 9, (4, 4)).astype(float)
    scores = F.conv2d(Tensor(image[None, None]), Tensor(w[None, None]), stride=2, padding=1).numpy()
    assert (c @ image.ravel() == scores.ravel()).all()


def test_the_four_ways_and_the_adjoint_agree(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "4x3", "--kernel", "3x2", "--stride", "2x1", "--padding", "1x2", "--dilation", "1x3")
    for way, count in (("scatter", 72), ("matrix", 12 * 14), ("zero insertion", 14 * 6), ("phases", 72)):
        found = re.search(rf"^  {way} +([\d,]+)  (\S+)", out, re.MULTILINE)
        assert found, way
        assert (int(found[1].replace(",", "")), found[2]) == (count, "0"), way
    left, right = re.findall(r"= (−?\d+)$", out, re.MULTILINE)[-2:]
    assert left == right
    assert "difference: 0." in out
    assert "height: 1 before, 1 after" in out
    assert "width: 1 before, 1 after" in out


def test_what_padding_beyond_the_kernel_does(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "5", "--kernel", "1", "--padding", "1")
    assert "height and width: 1 cropped before, 1 cropped after" in out
    assert "p′ = −1 means cropping" in out
    assert block(out, "image:") == [["7", "8", "9"], ["3", "4", "5"], ["8", "9", "1"]]  # whole numbers times 1


def test_output_padding_beyond_what_padding_crops(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "2", "--kernel", "2", "--stride", "4", "--padding", "1", "--output-padding", "3")
    assert "it gives back 1 at the end, and 2 that no score reaches." in out
    assert block(out, "image:")[-2:] == [["0"] * 7] * 2


def test_bilinear(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--bilinear", "--stride", "8", "--padding", "4")
    assert "kernel_size=16, stride=8, padding=4" in out
    assert "height and width: 0.5625 0.6875 0.8125 0.9375" in out
    assert "Verdict: it interpolates bilinearly." in out
    assert "No checkerboard" in out
    out = tconv(capsys, "--bilinear", "--kernel", "3", "--stride", "3")
    assert "Verdict: it is no bilinear interpolation." in out


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors", "safetensors:up.weight"])
def test_filters_from_files(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edge = np.array([0.4, 0.6, 0.6, 0.4], np.float32)
    article, path = np.outer(edge, edge), tmp_path / f"w.{kind.partition(':')[0]}"
    if kind == "npy":
        np.save(path, article)
    elif kind == "npz":
        np.savez(path, w=article, bias=np.zeros(3))
    else:
        more = {"down.weight": np.ones((2, 1, 3, 3), np.float32)} if ":" in kind else {}
        save_file({"up.weight": article[None, None], **more}, path)
    source = str(path) + (":up.weight" if ":" in kind else "")
    out = tconv(capsys, "--weights", source, "--stride", "2", "--padding", "1")
    assert "kernel_size=4" in out
    assert "Verdict: it keeps constants and is no bilinear interpolation: only the ramp shows it." in out
    assert re.search(r"steps of the ramp, height and width: 0\.[28] 0\.[28] ", out)


def test_a_filter_of_many_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "w.npy", np.random.default_rng(0).standard_normal((3, 2, 4, 4)))
    out = tconv(capsys, "--weights", str(tmp_path / "w.npy"), "--input", "3", "--stride", "2", "--padding", "1")
    assert "3 to 2 channels" in out
    assert "torch.nn.ConvTranspose2d(3, 2, kernel_size=4" in out
    for way in ("scatter", "matrix", "zero insertion", "phases"):
        off = re.search(rf"^  {way} +([\d,]+)  (\S+)", out, re.MULTILINE)
        assert off
        assert float(off[2]) < 1e-14
        assert int(off[1].replace(",", "")) == 6 * {"matrix": 9 * 36, "zero insertion": 36 * 16}.get(way, 9 * 16)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--stride", "2", "--output-padding", "2"], "the nearest valid setting is output_padding 1"),
        (
            ["--input", "1", "--kernel", "1", "--padding", "2"],
            "would be (1 − 1)·1 − 2·2 + 1·(1 − 1) + 0 + 1 = −3; the near",
        ),
        (["--image", "2", "--kernel", "5", "--padding", "1"], "the nearest valid setting is padding 2"),
        (["--image", "9", "--output-padding", "1"], "leave --output-padding out"),
        (["--kernel", "0"], "'0' is no whole number from 1 on"),
        (["--stride", "1x2x3"], "one, or two as in 3x2"),
        (["--weights", "nothing.npy"], "there is no file nothing.npy"),
        (["--png", "nowhere/a.png"], "there is no folder nowhere"),
        (["--bilinear", "--weights", "a.npy"], "not allowed with"),
    ],
)
def test_refusals(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, *words)


def test_files_that_hold_no_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "vector.npy", np.ones(3))
    np.save(tmp_path / "nan.npy", np.full((3, 3), np.nan))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.savez(tmp_path / "two.npz", a=np.ones((3, 3)), b=np.ones((2, 1, 3, 3)))
    np.save(tmp_path / "objects.npy", np.array([[{}]], object), allow_pickle=True)
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04" + b"\0" * 40)
    (tmp_path / "text.txt").write_text("1 2 3")
    for name, sentence in {
        "vector.npy": "holds no filter: array (3,)",
        "nan.npy": "holds 9 NaN or Inf",
        "words.npy": "real numbers are needed",
        "two.npz": "holds several filters: a (3, 3), b (2, 1, 3, 3)",
        "two.npz:c": "holds no array 'c'; it has a (3, 3), b (2, 1, 3, 3)",
        "objects.npy": "without pickles",
        "broken.safetensors": "cannot be read",
        "broken.npz": "cannot be read",
        "text.txt": "is no .npy, .npz or .safetensors file",
    }.items():
        assert sentence in refused(capsys, "--weights", str(tmp_path / name)), name
    assert "--kernel is 4x4 and the filter" in refused(
        capsys, "--kernel", "4", "--weights", f"{tmp_path / 'two.npz'}:a"
    )


@pytest.mark.parametrize("kind", ["png", "gif", "conv-gif", "html"])
def test_pictures_and_pages_are_written_and_never_overwritten(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"layer.{kind}"
    small = ["--input", "2", "--stride", "2", f"--{kind}", str(path)]
    assert str(path) in tconv(capsys, *small)
    start = {"png": b"\x89PNG", "html": b"<!doctype html>"}.get(kind, b"GIF89a")
    assert path.read_bytes()[: len(start)].lower() == start.lower()
    path.write_text("mine")
    assert "exists already; give --overwrite or another name" in refused(capsys, *small)
    assert path.read_text() == "mine"
    tconv(capsys, *small, "--overwrite")
    assert path.read_bytes()[: len(start)].lower() == start.lower()


def test_large_layers_are_explained_without_what_would_take_long(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "40x60", "--bilinear", "--stride", "16", "--padding", "8")
    assert "too large to write down here" in out
    assert re.search(r"^  matrix +[\d,]+  left out", out, re.MULTILINE)
    assert "Verdict: it interpolates bilinearly." in out
    assert lab.layer((40, 60), 32, 16, 8).x_hw == (640, 960)
    assert "an image of 640×960" in out

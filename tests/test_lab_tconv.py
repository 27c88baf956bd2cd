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


def multiplications(out: str, way: str) -> int:
    found = re.search(rf"^  {way} +([\d,]+)  0  ", out, re.MULTILINE)
    assert found, way
    return int(found[1].replace(",", ""))


def test_the_four_ways_and_the_adjoint_agree(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "4x3", "--kernel", "3x2", "--stride", "2x1", "--padding", "1x2", "--dilation", "1x3")
    # an image of 7×2. Rows of phase 0 (1, 3 and 5: 3 rows, taps 0 and 2) and phase 1 (0, 2, 4, 6: 4 rows, tap 1) make
    # 3·2 + 4·1 = 10 pairs of a row and a tap; columns have one phase, 2·2 = 4
    for way, count in (("scatter", 12 * 6), ("matrix", 12 * 14), ("zero insertion", 14 * 6), ("phases", 10 * 4)):
        assert multiplications(out, way) == count, way
    left, right = re.findall(r"= (−?\d+)$", out, re.MULTILINE)[-2:]
    assert left == right
    assert "relative difference: 0." in out
    assert "height: 1 before, 1 after" in out
    assert "width: 1 before, 1 after" in out


def test_at_stride_1_phases_are_zero_insertion(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "5", "--kernel", "3")
    assert multiplications(out, "phases") == multiplications(out, "zero insertion") == 49 * 9
    assert multiplications(out, "scatter") == 25 * 9
    out = tconv(capsys, "--input", "5", "--kernel", "3", "--stride", "2", "--padding", "1")
    assert multiplications(out, "phases") == (4 * 2 + 5 * 1) ** 2


@pytest.mark.parametrize(("extra", "size"), [("2", 15), ("3", 16)])
def test_no_convolution_leads_back(extra: str, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--kernel", "2", "--stride", "2", "--dilation", "4", "--output-padding", extra)
    assert "The guide's relationships: none of the guide's, but o′ = s(i′ − 1) + a + k − 2p still" in out
    assert f"makes more than 5 scores of an image of {size};" in out
    assert "chooses" not in out


def test_what_padding_beyond_the_kernel_does(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "5", "--kernel", "1", "--padding", "1")
    assert "height and width: 1 cropped before, 1 cropped after" in out
    assert "p′ = −1 means cropping" in out
    assert block(out, "image:") == [["7", "8", "9"], ["4", "5", "6"], ["9", "1", "3"]]  # whole numbers times 1


def test_output_padding_beyond_what_padding_crops(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "2", "--kernel", "2", "--stride", "4", "--padding", "1", "--output-padding", "3")
    assert "it gives back 1 at the end, and 2 that no score reaches." in " ".join(out.split())
    assert block(out, "image:")[-2:] == [["0"] * 7] * 2


def test_bilinear(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--bilinear", "--stride", "8", "--padding", "4")
    assert "kernel_size=16, stride=8, padding=4" in out
    assert "height and width: 0.5625 0.6875 0.8125 0.9375" in out
    assert "Verdict: it interpolates bilinearly." in out
    assert "No checkerboard" in out
    out = tconv(capsys, "--bilinear", "--kernel", "3", "--stride", "3")
    assert "Verdict: it is no bilinear interpolation." in out
    assert "At the border" not in out  # as there is no constant that would fade


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
        assert float(off[2].replace("−", "-")) < 1e-14
        # the phases of an axis: 3 rows each with 2 taps each
        each = {"scatter": 9 * 16, "matrix": 9 * 36, "zero insertion": 36 * 16, "phases": 12 * 12}
        assert int(off[1].replace(",", "")) == 6 * each[way]


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
        (["--weights", "nothing.npy"], "nothing.npy does not exist"),
        (["--png", "nowhere/a.png"], "there is no folder nowhere"),
        (["--bilinear", "--weights", "a.npy"], "not allowed with"),
        (["--gif", "a.gif", "--conv-gif", "a.gif"], "a.gif is given twice"),
        (["--png", "a.gif"], "--png a.gif; a name that ends in .png is needed"),
        (["--bilinear"], "--bilinear with stride 1 leaves everything as it is"),
        (["--input", "10000000000"], "the scores have 100,000,000,000,000,000,000 values; at most 16,777,216 can be"),
        (["--input", "3", "--stride", "5000"], "the image has"),
        (["--input", "1", "--kernel", "3000"], "the kernel has 9,000,000 taps"),
        (["--input", "1", "--kernel", "1", "--stride", "1000"], "the strides make 1,000,000 phases"),
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
    np.savez(tmp_path / "ten.npz", **{f"w{k}": np.ones((2, 2)) for k in range(10)})
    np.savez(tmp_path / "two.npz", a=np.ones((3, 3)), b=np.ones((2, 1, 3, 3)))
    np.save(tmp_path / "objects.npy", np.array([[{}]], object), allow_pickle=True)
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04" + b"\0" * 40)
    (tmp_path / "text.txt").write_text("1 2 3")
    for name, sentence in {
        "vector.npy": "holds no filter: arr_0 (3,)",
        "nan.npy": "holds 9 NaN or Inf",
        "words.npy": "booleans, integers and floats of up to 8 bytes are needed",
        "two.npz": "holds several filters: a (3, 3), b (2, 1, 3, 3)",
        "ten.npz": "w4 (2, 2), w5 (2, 2), and 4 more; one array",
        "two.npz:c": "holds no array 'c'; it has a (3, 3), b (2, 1, 3, 3)",
        "objects.npy": "Python objects, which only pickle could read",
        "broken.safetensors": "is of no known format",
        "broken.npz": "is not a zip file",
        "text.txt": "is of no known format",
    }.items():
        assert sentence in refused(capsys, "--weights", str(tmp_path / name)), name
    assert "--kernel is 4x4 and the filter" in refused(
        capsys, "--kernel", "4", "--weights", f"{tmp_path / 'two.npz'}:a"
    )


@pytest.mark.parametrize("kind", ["png", "gif", "conv-gif", "html"])
def test_pictures_and_pages_are_written_and_never_overwritten(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"layer.{kind.removeprefix('conv-')}"
    small = ["--input", "2", "--stride", "2", f"--{kind}", str(path)]
    assert str(path) in tconv(capsys, *small)
    start = {"png": b"\x89PNG", "html": b"<!doctype html>"}.get(kind, b"GIF89a")
    assert path.read_bytes()[: len(start)].lower() == start.lower()
    path.write_text("mine")
    assert "exists already; give --overwrite or another name" in refused(capsys, *small)
    assert path.read_text() == "mine"
    tconv(capsys, *small, "--overwrite")
    assert path.read_bytes()[: len(start)].lower() == start.lower()


@pytest.mark.parametrize(
    "words",
    [
        ["--input", "40", "--kernel", "40", "--padding", "20"],
        ["--input", "6", "--bilinear", "--stride", "8", "--output-padding", "7"],
        [
            "--kernel",
            "5",
            "--stride",
            "3",
            "--dilation",
            "4",
            "--padding",
            "20",
            "--input",
            "30",
            "--output-padding",
            "3",
        ],
        ["--input", "1", "--kernel", "1", "--stride", "7x3"],
        ["--input", "1x3000", "--kernel", "1x9"],
    ],
)
def test_lines_are_short_enough_to_be_read(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = tconv(capsys, *words).splitlines()
    assert max(len(line) for line in lines if not line.startswith("torch.nn.")) <= 100
    assert all(line == line.rstrip() for line in lines)


def test_bilinear_dilated_is_no_interpolation(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--bilinear", "--stride", "2", "--dilation", "3")
    assert "it returns constants and ramps, and is no bilinear interpolation" in out
    assert "nan" not in out


def test_weights_of_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "w.npy", np.zeros((3, 3)))
    out = tconv(capsys, "--weights", str(tmp_path / "w.npy"), "--stride", "2")
    assert "Not tried. bilinear_check: all weights are 0" in out
    assert "nan" not in out


def test_filters_of_a_layer_with_groups_are_judged_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "w.npy", np.tile(lab.bilinear_filter((4, 4)), (21, 1, 1, 1)).astype(np.float32))
    out = tconv(capsys, "--weights", str(tmp_path / "w.npy"), "--stride", "2", "--padding", "1")
    assert "21 filters lead from one channel to another" in out
    assert "groups, each would have its own channel" in out
    assert "Verdict: each of them interpolates bilinearly." in out


def test_all_values_can_be_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--input", "7x9", "--kernel", "5", "--stride", "3", "--padding", "2", "--output-padding", "1"]
    out = tconv(capsys, *words, "--npz", str(tmp_path / "layer.npz"))
    assert "image: 20×26 do not fit (--npz saves all values)" in out
    with np.load(tmp_path / "layer.npz") as found:
        y, w, x, c = (found[name] for name in ("y", "w", "x", "C"))
    assert (c.T @ y.ravel() == x.ravel()).all()
    assert (x == F.conv_transpose2d(Tensor(y), Tensor(w), None, 3, 2, 1).numpy()).all()


def test_what_the_page_cannot_show_is_said_after_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "tconv",
        "--bilinear",
        "--stride",
        "32",
        "--html",
        str(tmp_path / "a.html"),
        "--png",
        str(tmp_path / "a.png"),
    ]
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert "Verdict: it interpolates bilinearly." in said.out
    assert "kernel is 64 along the height; the page shows 1 to 16" in said.err
    assert not list(tmp_path.iterdir())


def test_an_image_that_is_all_border(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "(No pixel of this image is inside, it is all border; on more scores there would be some.)"
    assert sentence in tconv(capsys, "--input", "1", "--kernel", "3")
    assert sentence not in tconv(capsys, "--input", "3", "--kernel", "3")


def test_large_layers_are_explained_without_what_would_take_long(capsys: pytest.CaptureFixture[str]) -> None:
    out = tconv(capsys, "--input", "40x60", "--bilinear", "--stride", "16", "--padding", "8")
    assert "it is too large to be made here" in out
    assert re.search(r"^  matrix +[\d,]+  left out", out, re.MULTILINE)
    assert "Verdict: it interpolates bilinearly." in out
    assert re.search(r"^  scatter +[\d,]+  2\.\de−16|^  scatter +[\d,]+  0 ", out, re.MULTILINE)
    out = tconv(capsys, "--input", "300", "--kernel", "1")
    assert re.search(r"^  scatter +90,000  left out", out, re.MULTILINE)
    assert lab.layer((40, 60), 32, 16, 8).x_hw == (640, 960)

"""The numbers that the examples print, each against a value that was found another way."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import minifcn as mf
from minifcn.data import IGNORE, Shapes

EXAMPLES = Path(__file__).parents[1] / "examples"
ROUNDING = 1e-12  # of a few thousand additions in float64
ROUNDING_32 = 2e-5  # of a small network's scores, which are about 1, in float32

Printed = Callable[[str], str]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Printed:
    """What an example prints; each is run once."""

    @cache
    def run(name: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")],
            cwd=tmp_path_factory.mktemp("example"),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def found(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of the only match."""
    matches = list(re.finditer(pattern, text, re.MULTILINE))
    assert len(matches) == 1, f"{len(matches)} times {pattern!r} in\n{text}"
    return matches[0].groups()


def number(pattern: str, text: str) -> float:
    """The only group of the only match."""
    (value,) = found(pattern, text)
    return float(value.replace(",", "").replace("−", "-"))


def test_trilinear_form(printed: Printed) -> None:
    text = printed("trilinear_form")
    rng = np.random.default_rng(0)
    x, w, y = (rng.standard_normal(shape) for shape in ((2, 7, 8), (3, 2, 3, 3), (3, 4, 4)))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    form = sum(
        y[o, p, q] * np.sum(padded[:, 2 * p : 2 * p + 3, 2 * q : 2 * q + 3] * w[o])
        for o, p, q in product(range(3), range(4), range(4))
    )
    values = re.findall(r" ([+-]\d+\.\d{12})$", text, re.MULTILINE)
    assert len(values) == 5
    assert all(abs(float(value) - form) < 2e-12 for value in values)
    assert number(r"^\|.*\| +(\S+)$", text) < ROUNDING


def test_tape_by_hand(printed: Printed) -> None:
    """With a pencil: s = (2−3, 6−2, 4+1, −2−1) = (−1, 4, 5, −3), f = 16 + 25, ∂f/∂s = 2·relu(s), ∂f/∂w = 8·(3, 2) +
    10·(2, −1), ∂f/∂x = 8·w from pixel 1 on + 10·w from pixel 2 on, ∂²f/∂w² = 2·(outer((3, 2)) + outer((2, −1))).
    ⟨∂f/∂x, x⟩ = 16·3 + 12·2 − 10·(−1) = 82 = 2f."""
    text = printed("tape_by_hand")
    for name, value, cotangent in [
        ("f = ⟨kept, kept⟩", "41", "1"),
        ("kept = relu(scores)", "0 4 5 0", "0 8 10 0"),
        ("scores = x ∗ w", "-1 4 5 -3", "0 8 10 0"),
        ("x", "1 3 2 -1 1", "0 16 12 -10 0"),
        ("w", "2 -1", "44 6"),
    ]:
        assert found(rf"^  {re.escape(name)}  +(.+?)  +(.+?)  +(.+?)$", text) == (value, cotangent, cotangent)
    derivatives = [re.split("  +", line) for line in text.split("\n\n")[1].splitlines()[2:]]
    assert derivatives == [
        ["", name, *[value] * 3] if name else ["", *[value] * 3]
        for name, value in [
            ("f", "41"),
            ("∂f/∂w", "44 6"),
            ("∂²f/∂w²", "26 8"),
            ("", "8 10"),
            ("∂⟨∂f/∂x, x⟩/∂w", "88 12"),
        ]
    ]
    assert found(r"^  forward +(.*)$", text) == ("conv2d, relu, dot",)
    (backward,) = found(r"^  backward +(.*)$", text)
    called = backward.split(", ")
    # dot's argument is the same twice, so two cotangents meet; then relu's, and the convolution's in x and in w
    assert called.count("mul") == 2
    assert called.count("add") == 1
    assert {"relu_grad", "conv_transpose2d", "conv2d_weight"} <= set(called)


def test_transpose_is_the_adjoint(printed: Printed) -> None:
    text = printed("transpose_is_the_adjoint")
    matrix = np.zeros((4, 9), int)
    for p, q, i, j in product(range(2), range(2), range(3), range(3)):
        h, v = 2 * p + i - 1, 2 * q + j - 1
        if 0 <= h < 3 and 0 <= v < 3:
            matrix[2 * p + q, 3 * h + v] = 3 * i + j + 1
    rows = [line.split()[1:] for line in text.splitlines() if re.match(r"  \d,\d ", line)]
    shown = [[0 if cell == "·" else int(cell) for cell in row] for row in rows]
    assert shown[:4] == matrix.tolist()
    assert shown[4:] == matrix.T.tolist()
    assert number(r"^\|C x − conv2d\(x\)\| +(\S+)$", text) < ROUNDING
    assert number(r"^\|Cᵀy − conv_transpose2d\(y\)\| +(\S+)$", text) < ROUNDING
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(9), rng.standard_normal(4)
    for side in (r"⟨C x, y⟩", r"⟨x, Cᵀy⟩"):
        assert abs(number(rf"^{side} +(\S+)$", text) - y @ matrix @ x) < 2e-12
    assert number(r"C has rank (\d+), and there are 9 pixels", text) == np.linalg.matrix_rank(matrix)


@pytest.mark.parametrize(
    ("name", "axis", "fails"),
    [
        ("bilinear", (0.25, 0.75, 0.75, 0.25), (False, False, False)),
        ("as printed", (0.4, 0.6, 0.6, 0.4), (False, False, True)),  # the ramp alone finds it
        ("its formula", (0.4, 0.8, 0.8, 0.4), (True, True, True)),
    ],
)
def test_filters_for_interpolation(
    name: str, axis: tuple[float, ...], fails: tuple[bool, ...], printed: Printed
) -> None:
    """Pixel 2m receives taps 3 and 1 of scores m − 1 and m, and pixel 2m + 1 taps 2 and 0 of m and m + 1."""
    text = printed("transpose_is_the_adjoint")
    cells = re.split(r"  +(?!✗)", found(rf"^{name}  +(.*)$", text)[0])
    assert tuple(float(v) for v in cells[0].split()) == axis
    total, level, steps = (re.findall(r"[\d.]+", cell) for cell in cells[1:])
    even, odd = axis[3] + axis[1], axis[2] + axis[0]
    assert float(total[0]) == pytest.approx(sum(axis) ** 2, abs=0.005)
    assert even == pytest.approx(odd)
    assert float(level[0]) == pytest.approx(even * odd, abs=0.005)
    # the ramp lies along one axis; along the other it is a constant
    pixels = [even * v for m in (1, 2) for v in (axis[3] * (m - 1) + axis[1] * m, axis[2] * m + axis[0] * (m + 1))]
    assert list(map(float, steps)) == pytest.approx([pixels[2] - pixels[1], pixels[1] - pixels[0]], abs=0.005)
    assert tuple("✗" in cell for cell in cells[1:]) == fails


def test_one_convolution_four_algorithms(printed: Printed) -> None:
    text = printed("one_convolution_four_algorithms")
    counts = {
        "by_loops": 8 * 16 * 18 * 18 * 3 * 3,
        "by_matrix_product": 8 * 16 * 18 * 18 * 3 * 3,
        "by_winograd": 8 * 16 * 9 * 9 * 4 * 4,  # 2×2 scores at a time
        "by_fourier": 8 * 16 * 20 * 11 * 4,  # of a real image's frequencies, half are the others' conjugates
    }
    for name, count in counts.items():
        multiplications, part, difference = found(rf"^{name} +(\S+) +(\S+) +(\S+)$", text)
        assert int(multiplications.replace(",", "")) == count
        assert float(part) == pytest.approx(count / counts["by_loops"], abs=0.005)
        assert float(difference) < ROUNDING
    _, explained, errors = text.split("\n\n")
    algorithms = [k.algorithm for k in mf.algorithms("conv2d")]
    assert [line.split()[0] for line in explained.splitlines()[2:]] == algorithms
    assert [line.split()[1] for line in explained.splitlines()[2:]].count("yes") == 1
    answers = dict(line.split(maxsplit=1) for line in errors.splitlines()[1:])
    assert list(answers) == algorithms
    assert answers.pop("pointwise") == "does not do this one: it needs a 1×1 filter and no padding"
    assert all(0 < float(error) < 1e-5 for error in answers.values())


def test_classifier_to_fcn(printed: Printed) -> None:
    text = printed("classifier_to_fcn")
    right, objects = map(float, found(r"Right on (\d+)% of 1000 unseen crops, of which (\d+)% show an object", text))
    assert right >= 90 > 60 > objects
    assert found(r"give a crop scores (\(.*?\)), and differ", text) == ("(2, 1, 1)",)
    assert number(r"differ from the classifier by (\S+)\.$", text) < ROUNDING_32
    assert number(r"they fit as well, and are right on (\d+)%", text) < right - 5

    p, q = (64 - 18) // 4 + 1, (160 - 18) // 4 + 1
    assert found(r"^An image \(3, 64, 160\): (\d+) × (\d+) cells", text) == (str(p), str(q))
    assert number(r"^  largest difference +(\S+)$", text) < ROUNDING_32
    # conv 3→8 and a pooling, conv 8→16 and a pooling, 3×3 of 16 → 32, 32 → 2
    once = 62 * 158 * 8 * 27 + 29 * 77 * 16 * 72 + p * q * (32 * 16 * 9 + 2 * 32)
    crop = 16 * 16 * 8 * 27 + 6 * 6 * 16 * 72 + 32 * 16 * 9 + 2 * 32
    assert number(r"^  one pass +(\S+) million", text) == round(once / 1e6, 2)
    assert number(r"^  crop by crop +(\S+) million", text) == round(p * q * crop / 1e6, 2)
    assert number(r"million, (\S+) times", text) == round(p * q * crop / once, 1)

    heat, truth = (
        np.array([list(row[start : start + q]) for row in text.splitlines()[-1 - p : -1]]) for start in (2, 2 + q + 3)
    )
    labels = Shapes(1, (64, 160), split="test")[0].labels
    middles = np.array([[labels[4 * a + 9, 4 * b + 9] for b in range(q)] for a in range(p)])
    assert ((truth == "o") == (middles > 0)).all()
    known = middles != IGNORE
    darkness = np.vectorize(" .:-=+*#%@".index)(heat)
    agreement = np.mean((darkness >= 5)[known] == (middles > 0)[known])  # the upper five of ten: more than a half
    assert agreement > 0.85
    assert abs(number(r"^Right in (\d+)% of the cells", text) / 100 - agreement) < 0.015


def test_shift_and_stitch(printed: Printed) -> None:
    text = printed("shift_and_stitch")
    # each layer adds (k − 1)·(the strides before it): conv, pool, conv, pool, conv
    sight = 1 + 2 + 1 + 2 * 2 + 1 * 2 + 2 * 4
    dense = 46 - sight + 1
    assert found(r"stride (\d), each score sees (\d+) × (\d+) pixels\. Of an image of 46 × 46", text) == (
        "4",
        "18",
        "18",
    )
    assert sight == 18
    assert found(r"^  as it is +(\d+) × (\d+) scores$", text) == ("8", "8")
    assert found(r"^  with à-trous filters +(\d+) × (\d+) scores", text) == (str(dense),) * 2
    assert found(r"from (\d+) passes over shifted images, (\d+) × (\d+) scores", text) == ("16", "32", "32")
    for way, there, border in [("up and left", "first", "last"), ("down and right", "last", "first")]:
        pattern = (
            rf"^  shifted {way} +the {there} (\d+) × (\d+) are the dense ones \(to (\S+)\)\n +and the {border} (\d+)"
        )
        *size, difference, rest = found(pattern, text)
        assert size == [str(dense)] * 2
        assert float(difference) < ROUNDING_32
        assert int(rest) == 32 - dense
    differences = re.findall(r"\(to (\S+?)\)", text)
    assert len(differences) == 5
    assert all(float(difference) < ROUNDING_32 for difference in differences)
    assert found(r"from the 8 × 8, (\d+) × (\d+) scores", text) == (str(dense),) * 2
    assert 0.02 < number(r"off by (\S+) standard deviations", text) < 1.5

    once = 44 * 44 * 8 * 27 + 20 * 20 * 16 * 72 + 8 * 8 * 5 * 144
    costs = {
        "as it is": once,
        "upsampled": once + 5 * 8 * 8 * 7 * 7,
        "à trous": 44 * 44 * 8 * 27 + 39 * 39 * 16 * 72 + 29 * 29 * 5 * 144,
        "shifted and stitched": 16 * once,
    }
    for name, macs in costs.items():
        millions, times = found(rf"^  {name} +([\d.]+) +([\d.]+) times", text)
        assert (float(millions), float(times)) == (round(macs / 1e6, 2), round(macs / once, 2))


def test_where_crops_come_from(printed: Printed) -> None:
    text = printed("where_crops_come_from")
    # the first and last pixel that cell 0 sees: (kernel − 1) and paddings, times the strides before
    first, span, jump = -100 + 1, 0, 1
    for stage, depth in enumerate((2, 2, 3, 3, 3), start=1):
        first, span = first - depth * jump, span + (2 * depth + 1) * jump
        jump *= 2
        middle = f"{2 * first + span}/2"
        assert found(rf"^  pool{stage} +(\d+) apart, the first at (\S+) +(\d+) apart, (\S+)$", text) == (
            str(jump), middle, str(jump), middle,
        )  # fmt: skip
    middle = f"{2 * first + span + 6 * jump}/2"  # fc6
    assert found(r"^  score_fr +32 apart, the first at (\S+) +32 apart, (\S+)$", text) == (middle, middle)
    for name, crops, general in [  # of the authors' prototxt files
        ("FCN-32s", "19", "P − 81"),
        ("FCN-16s", "5, 27", "5, P − 73"),
        ("FCN-8s", "5, 9, 31", "5, 9, P − 69"),
    ]:
        assert found(rf"^  {name} +(.+?)  +(.+)$", text) == (crops, general)
    for name, crops, looks, speaks in [
        ("fcn8s_vgg16_paper", "5, 9, 31", 32 * 15 + 12.5, 32 * 15 + 12.5),
        ("fcn8s_resnet18", "-1/2, -3/2, 31/2", 32 * 15, 32 * 15 + 15.5),
        ("fcn8s_resnet18_aligned", "0, 0, 0", 32 * 15, 32 * 15),
    ]:
        pattern = rf"^{name}  +(.+?)  +(.+?)  +pixel (\S+) +(\S+) +(\S+)$"
        hand, own, *pixels = found(pattern, text)
        assert hand == own == crops
        assert [float(v) for v in pixels] == [looks, speaks, speaks - looks]

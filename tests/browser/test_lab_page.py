"""The laboratory's page in a browser: its numbers are minifcn's, it can be used with keys alone, and it can be read."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Browser, chromium, reason_unavailable

import minifcn as mf
import minifcn.functional as F
from minifcn import lab
from minifcn.geometry import ConvGeometry
from minifcn.lab.page import RANGES, render, write_page
from minifcn.lab.values import bilinear_filter, whole_numbers
from minifcn.lab.ways import conv_matrix, insert_zeros

Config = dict[str, Any]
SETTINGS = ("input", "kernel", "stride", "padding", "output_padding", "dilation")
VIEWS = ("scatter", "zeros", "matrix", "phases")
TAB, ENTER, ESCAPE, SPACE, END, LEFT, RIGHT, DOWN = (
    "\ue004", "\ue007", "\ue00c", " ", "\ue010", "\ue012", "\ue014", "\ue015",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "layer.html"
    write_page(path, None, None, lab.layer(5, kernel=3, stride=2, padding=1))
    return path


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    missing = reason_unavailable()
    if missing and os.environ.get("MINIFCN_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{missing}, and MINIFCN_REQUIRE_BROWSER=1")
    if missing:
        pytest.skip(missing)
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(window: Browser, page: Path) -> Iterator[Browser]:
    """The window, with the page as it begins. Whatever a test does, the page asks the network for nothing, and has
    nothing to complain about."""
    window.look()
    window.open(page)
    yield window
    window.run("localStorage.clear()")
    assert window.complaints() == []
    assert [url for url in window.requests() if re.match("(https?|wss?|ftp):", url)] == []


def _layer(config: Config) -> ConvGeometry:
    return lab.layer(**{key: tuple(config[key]) for key in SETTINGS})


def _hash(config: Config, **more: str) -> str:
    return "&".join(
        [f"{key}={config[key][0]}x{config[key][1]}" for key in SETTINGS] + [f"{k}={v}" for k, v in more.items()]
    )


# -- numbers


def _random_config(rng: np.random.Generator) -> Config:
    """Often at the edge: single scores, padding beyond the kernel, output_padding at its limit and one beyond."""

    def pair(draw: Callable[[], int]) -> list[int]:
        first = draw()
        return [first, first if alike else draw()]

    alike = rng.integers(3) == 0
    config = {
        "input": pair(lambda: int(rng.integers(1, 6))),
        "kernel": pair(lambda: int(rng.integers(1, 6))),
        "stride": pair(lambda: int(rng.integers(1, 5))),
        "padding": pair(lambda: int(rng.choice([0, 0, 1, 1, 2, 3, 5]))),
        "dilation": pair(lambda: int(rng.choice([1, 1, 2, 3]))),
    }
    limits = [max(s, d) for s, d in zip(config["stride"], config["dilation"], strict=True)]
    config["output_padding"] = [int(rng.integers(0, limit + int(rng.integers(8) == 0))) for limit in limits]
    if alike:
        config["output_padding"][1] = config["output_padding"][0]
    shape, taps = config["input"], config["kernel"]
    whole = rng.integers(2) == 0
    config["y"] = (rng.integers(-9, 10, shape) if whole else rng.standard_normal(shape)).tolist()
    weights = [
        rng.integers(-9, 10, taps) if whole else rng.standard_normal(taps),
        bilinear_filter(tuple(taps))[0, 0],
        np.ones(taps, np.int64),
    ]
    config["w"] = weights[rng.choice([0, 0, 0, 1, 2])].tolist()
    return config


COMPUTE = """
return arguments[0].map((config) => {
  const found = lab.compute(config);
  if (found.error) return found;
  const axes = lab.axesOf(config);
  const entries = found.matrix.flatMap((row, r) => row.flatMap((value, c) => (value ? [[r, c, value]] : [])));
  return {
    ...found,
    matrix: {shape: [found.matrix.length, found.matrix[0].length], entries},
    feeding: axes.map((axis, k) => lab.count(found.output_size[k]).map((h) => lab.feeding(axis, h))),
    reached: axes.map((axis) => lab.count(axis.input).map((p) => lab.reached(axis, p))),
  };
})"""


def _check_numbers(config: Config, geom: ConvGeometry, found: dict[str, Any]) -> None:
    y, w = (np.array(config[key], np.float64)[None, None] for key in "yw")
    whole = all(isinstance(value, int) for row in config["y"] + config["w"] for value in row)

    def same(got: Any, expected: Any) -> None:
        got, expected = np.array(got, np.float64), np.asarray(expected)
        assert got.shape == expected.shape
        if whole:
            np.testing.assert_array_equal(got, expected)
        else:
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * max(1.0, float(np.abs(expected).max())))

    x = F.conv_transpose2d(
        mf.Tensor(y),
        mf.Tensor(w),
        stride=geom.stride,
        padding=geom.padding,
        output_padding=tuple(config["output_padding"]),
        dilation=geom.dilation,
    )
    assert sorted(found["output"]) == ["matrix", "phases", "scatter", "zero_insertion"]
    for image in found["output"].values():
        same(image, np.asarray(x)[0, 0])
    same(found["inserted"], insert_zeros(y, geom)[0, 0])
    matrix = np.zeros(found["matrix"]["shape"])
    for row, column, value in found["matrix"]["entries"]:
        matrix[row, column] = value
    same(matrix, conv_matrix(w, geom))
    np.testing.assert_array_equal(found["overlap"], lab.overlap(geom))
    board = lab.checkerboard(geom, w)
    assert board.sums is not None
    np.testing.assert_array_equal(found["phase_counts"], board.counts)
    same(found["phase_sums"], board.sums[0, 0])
    assert (found["even"], found["verdict"]) == (board.even, board.verdict)
    direct = lab.equivalent_convolution(geom)
    assert found["error"] is None
    assert tuple(found["output_size"]) == geom.x_hw
    assert (found["zeros"], found["before"], found["after"]) == tuple(map(list, asdict(direct).values()))
    assert found["pytorch"] == lab.pytorch_line(geom)
    for axis in range(2):
        sizes = lab.image_sizes(geom)[axis]
        assert found["formula"][axis] == lab.formula(geom, axis)
        assert found["relationship"][axis] == asdict(lab.relationship(geom, axis))
        assert range(found["image_sizes"][axis][0], found["image_sizes"][axis][1] + 1) == sizes
        for name, who, count in (("feeding", lab.feeding, geom.x_hw), ("reached", lab.reached, geom.y_hw)):
            pairs = [[list(pair) for pair in who(geom, axis, k)] for k in range(count[axis])]
            assert found[name][axis] == pairs


def _check_refusal(config: Config, error: dict[str, Any], refused: str) -> None:
    assert f"tconv: {error['reason']}" == refused
    nearest = error["nearest"]
    assert {key for key in SETTINGS if nearest[key] != config[key]} <= {"padding", "output_padding"}
    assert _layer(nearest)  # one step back it is refused again
    for key, axis in product(("padding", "output_padding"), range(2)):
        if nearest[key][axis] != config[key][axis]:
            further = {**nearest, key: [v + (k == axis) for k, v in enumerate(nearest[key])]}
            with pytest.raises(ValueError, match="the nearest valid setting"):
                _layer(further)


def test_numbers_are_minifcns(browser: Browser) -> None:
    rng = np.random.default_rng(6)
    configs = [_random_config(rng) for _ in range(800)]
    found = [one for start in range(0, 800, 200) for one in browser.run(COMPUTE, configs[start : start + 200])]
    valid = refused = cropped = 0
    for config, one in zip(configs, found, strict=True):
        try:
            geom = _layer(config)
        except ValueError as error:
            _check_refusal(config, one["error"], str(error))
            refused += 1
        else:
            _check_numbers(config, geom, one)
            valid += 1
            cropped += min(one["before"]) < 0
    assert valid >= 500
    assert refused >= 50
    assert cropped >= 50


def test_values_to_begin_with_are_minifcns(browser: Browser) -> None:
    for shape in ((1, 1), (3, 3), (4, 4), (5, 2), (2, 9), (12, 12), (7, 16)):
        found = browser.run("return [lab.WEIGHTS, lab.SCORES].map((of) => of.numbers(...arguments[0]))", shape)
        np.testing.assert_array_equal(found, [whole_numbers(shape)] * 2)
        np.testing.assert_array_equal(
            browser.run("return lab.WEIGHTS.bilinear(...arguments[0])", shape), bilinear_filter(shape)[0, 0]
        )


def test_digits_are_pythons(browser: Browser) -> None:
    rng = np.random.default_rng(0)
    values = [1.0625, 1.0635, 99995.0, 0.0001, 0.00001234565, 123456.0, -0.5, 0.1 + 0.2, 0.0, -0.0, 1e-300, 5e22]
    values += [999999999999.5, 0.9999999999995, 1e12, 2.0000000000005]
    values += (rng.standard_normal(300) * 10.0 ** rng.integers(-9, 9, 300)).tolist()
    values += (rng.integers(-(2**20), 2**20, 300) / 4096).tolist()  # ties occur
    for digits in (4, 12):
        found = browser.run("return arguments[0].map((v) => lab.general(v, arguments[1]))", values, digits)
        assert found == [f"{value + 0.0:.{digits}g}" for value in values]


def test_ends_that_differ_in_the_fifth_digit_are_told_apart(browser: Browser) -> None:
    config = dict(zip(SETTINGS, ([3, 3], [1, 2], [1, 2], [0, 0], [0, 0], [1, 1]), strict=True))
    config |= {"y": np.ones((3, 3)).tolist(), "w": [[1.00001, 1.00002]]}
    said = browser.run("return lab.compute(arguments[0]).verdict", config)
    assert said.endswith("add up to between 1.00001 and 1.00002")
    assert said == lab.checkerboard(_layer(config), np.array(config["w"])[None, None]).verdict


# -- what is shown


def test_the_page_begins_with_what_it_was_given(window: Browser, tmp_path: Path) -> None:
    geom = lab.layer((2, 3), kernel=(3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0), channels=(2, 3))
    rng = np.random.default_rng(0)
    y, w = rng.integers(-5, 6, geom.y_shape).astype(np.float32), rng.integers(-5, 6, geom.w_shape)
    write_page(tmp_path / "given.html", y, w, geom)
    window.look()
    window.open(tmp_path / "given.html")
    assert window.text("#pytorch") == lab.pytorch_line(geom)
    assert window.text("#command").endswith(" --weights FILE")
    assert window.text("#notice") == "Of 2 channels in and 3 out, the first of each is shown."
    alone = lab.layer((2, 3), kernel=(3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0))
    x = lab.scatter(y[:1, :1], w[:1, :1], alone)[0, 0]
    names = window.run("return [...document.querySelectorAll('#board-image .cell')].map((c) => c.ariaLabel)")
    assert names == [f"x[{h}, {v}] = {_signed(value)}" for (h, v), value in np.ndenumerate(x)]
    _slide(window, "kernel-width", 3)
    assert window.text("#notice") == "The given weights are 3 × 2; whole numbers are shown instead."
    assert window.run("return document.getElementById('weights').value") == "numbers"
    assert window.run("return document.querySelector('#weights [value=given]').disabled")
    assert "--weights" not in window.text("#command")
    assert window.text("#pytorch").startswith("torch.nn.ConvTranspose2d(1, 1, ")
    _wait(lambda: "weights=numbers" in window.run("return location.hash"))
    _slide(window, "kernel-width", 2)
    assert window.text("#notice") == "The given weights fit again: choose them in the list."
    assert window.run("return document.getElementById('weights').value") == "numbers"
    _choose(window, "weights", "given")
    assert window.text("#notice") == "Of 2 channels in and 3 out, the first of each is shown."
    assert window.text("#command").endswith(" --weights FILE")
    assert window.text("#pytorch") == lab.pytorch_line(geom)
    window.open(tmp_path / "given.html", "kernel=4&weights=given")
    assert window.run("return document.getElementById('weights').value") == "numbers"
    assert "weights=numbers" in window.run("return location.hash")
    assert window.complaints() == []


def _slide(browser: Browser, slider: str, value: int) -> None:
    browser.run(
        """const slider = document.getElementById(arguments[0]);
        slider.value = arguments[1];
        slider.dispatchEvent(new Event("input"))""",
        slider,
        value,
    )


def _choose(browser: Browser, select: str, value: str) -> None:
    browser.run(
        """const select = document.getElementById(arguments[0]);
        select.value = arguments[1];
        select.dispatchEvent(new Event("change"))""",
        select,
        value,
    )


def test_every_cell_with_room_shows_a_number(window: Browser, tmp_path: Path) -> None:
    """Learned weights have many digits: a cell of 24 pixels shows some of them, of the right value."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((1, 1, 4, 4)) * 10.0 ** rng.integers(-4, 4, (4, 4))
    write_page(tmp_path / "learned.html", None, w, lab.layer(3, kernel=4, stride=2, padding=1))
    for width in (1280, 360):
        window.look(width)
        window.open(tmp_path / "learned.html")
        shown = window.run("return [...document.querySelectorAll('#board-filter .cell')].map((c) => c.textContent)")
        for text, value in zip(shown, w.ravel().tolist(), strict=True):
            if text == "≈0":
                assert abs(value) < 0.005
                continue
            digits = 1 if "e" in text else 2
            step = 10.0 ** (np.floor(np.log10(abs(value))) + 1 - digits)  # of the last of these digits
            assert abs(float(text.replace("−", "-")) - value) <= max(step / 2, 0.005 * (digits == 2)) * 1.001
        blank = """return [...document.querySelectorAll(".cell")].filter((c) => c.offsetWidth >= 23 && !c.textContent
            && c.getAttribute("aria-label") !== "corner").map((c) => c.outerHTML)"""
        for view in VIEWS:
            window.run("document.getElementById(`tab-${arguments[0]}`).click()", view)
            assert window.run(blank) == []
    assert window.complaints() == []


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def test_the_terminal_line_is_the_same_layer(browser: Browser, page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from minifcn.cli import main

    config = dict(zip(SETTINGS, ([4, 3], [2, 3], [3, 1], [1, 0], [2, 0], [1, 2]), strict=True))
    browser.open(page, _hash(config, weights="bilinear"))
    words = browser.text("#command").split()
    assert words[:4] == ["python", "-m", "minifcn", "tconv"]
    assert main(words[3:]) == 0
    assert browser.text("#pytorch") in capsys.readouterr().out


def test_sizes_formulas_and_sentences(browser: Browser, page: Path) -> None:
    browser.open(page, "input=5&kernel=3&stride=2&padding=1&output_padding=1")
    assert browser.text("#sizes") == "5 × 5 scores become an image of 10 × 10"
    assert "(5 − 1)·2 − 2·1 + 1·(3 − 1) + 1 + 1 = 10" in browser.text("#formulas")
    assert "Relationship 14, zero padding, non-unit strides, transposed" in browser.text("#formulas")
    matching = browser.text("#matching")
    assert "the matching convolution makes 5 scores of an image of 9 or 10 pixels." in matching
    assert (
        "output_padding 1 says that 10 is meant, and gives back 1 of the 1 that padding crops at the end." in matching
    )
    assert browser.text("#overlap").startswith(
        "Checkerboard: a pixel inside gets 1 to 4 products, by its phase, and the phases' weights add up to between "
        "5 and 20."
    )
    assert "1: 36 pixels" in browser.text("#overlap")  # (6 rows with one product) × (6 columns)
    browser.open(page, "input=3&kernel=3&stride=2&padding=0&output_padding=1&view=zeros")
    assert "adds 1 beyond all stamps, where the image is 0" in browser.text("#matching")
    assert "p′ = 1·(3 − 1) − 0 = 2: 2 zeros at the start; with output_padding, 3 zeros at the end." in browser.text(
        "#view"
    )
    browser.open(page, "input=3&kernel=1&stride=1&padding=1&view=zeros")
    assert "p′ = 1·(1 − 1) − 1 = −1: 1 cropped on each side." in browser.text("#view")


def test_all_four_ways_agree_on_the_page(browser: Browser, page: Path) -> None:
    for configuration, ending in (("weights=numbers", "to the last digit."), ("weights=bilinear", "")):
        browser.open(page, f"input=6&kernel=5&stride=3&padding=2&{configuration}")
        _wait(lambda: browser.text("#agreement") != "")
        said = browser.text("#agreement")
        assert said.startswith("Just computed in all four ways: the same image, to ")
        assert said.endswith(ending)
        difference = re.search(r"10⁻([⁰¹²³⁴⁵⁶⁷⁸⁹]+)", said)
        assert difference is None or int(difference[1].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789"))) >= 14


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "waited for 10 seconds"
        time.sleep(0.02)


def test_the_address_holds_the_layer(browser: Browser, page: Path) -> None:
    _slide(browser, "stride-height", 3)
    _wait(lambda: "stride=3" in browser.run("return location.hash"))
    address = browser.run("return location.href")
    browser.run("document.getElementById('tab-matrix').click()")
    _wait(lambda: "view=matrix" in browser.run("return location.hash"))
    browser.driver.back()
    _wait(lambda: browser.run("return document.querySelector('[aria-selected=true]').id") == "tab-scatter")
    assert browser.run("return location.href") == address
    browser.driver.forward()
    _wait(lambda: browser.run("return document.querySelector('[aria-selected=true]').id") == "tab-matrix")
    browser.driver.get("about:blank")
    browser.driver.get(address)
    assert browser.text("#pytorch").startswith("torch.nn.ConvTranspose2d(1, 1, kernel_size=3, stride=3, padding=1")


def test_what_the_address_cannot_mean_is_said(browser: Browser, page: Path) -> None:
    nonsense = "input=99x0&kernel=-3&stride=x&padding=0&weights=constructor&scores=given&view=__proto__&%&="
    browser.open(page, nonsense)
    assert browser.run("return lab.state().config.input") == [12, 1]  # the nearest that there are
    assert browser.text("#sizes").startswith("12 × 1 scores")
    assert browser.text("#notice").replace("\n", " ") == (
        "input 99 × 0 is out of range: 12 × 1 is shown. kernel −3 is out of range: 1 is shown. "
        "stride “x” is no size: 2 is shown. The page has no weights “constructor”. The page has no scores “given”. "
        "The page has no view “__proto__”."
    )
    address = "#input=12x1&kernel=1x1&stride=2x2&padding=0x0&output_padding=0x0&dilation=1x1"
    assert browser.run("return location.hash") == f"{address}&weights=numbers&scores=numbers&view=scatter"
    _slide(browser, "stride-height", 3)
    assert browser.text("#notice") == ""
    browser.open(page, "nowhere")
    assert browser.text("#notice") == "“nowhere” names no layer: this is the first one."
    assert browser.run("return location.hash").startswith("#input=5&kernel=3&")
    browser.open(page, "kernel=4&view=zeros")  # what is left out is no fault
    assert browser.text("#notice") == ""


# -- what is linked with what

SMALL = [  # matrices of these have few enough entries to be elements
    ((2, 2), (3, 3), (2, 2), (1, 1), (0, 0), (1, 1)),
    ((2, 2), (2, 3), (1, 2), (0, 1), (0, 1), (1, 1)),
    ((3, 2), (2, 2), (2, 1), (1, 1), (1, 1), (2, 2)),
    ((3, 2), (1, 2), (1, 1), (1, 0), (0, 0), (1, 1)),  # p′ < 0 along the height
]


def _both(geom: ConvGeometry, who: Callable[..., list[tuple[int, int]]], at: tuple[int, int]) -> list[tuple[Any, Any]]:
    """((a, i), (b, j)) for all that meet along the height and along the width."""
    return list(product(who(geom, 0, at[0]), who(geom, 1, at[1])))


@pytest.mark.parametrize("sizes", SMALL, ids=str)
def test_pointing_at_a_pixel_marks_what_feeds_it(browser: Browser, page: Path, sizes: tuple) -> None:
    config = dict(zip(SETTINGS, map(list, sizes), strict=True))
    geom = _layer(config)
    before = lab.equivalent_convolution(geom).before
    for view, (h, v) in product(VIEWS, [(0, 0), (geom.x_hw[0] - 1, geom.x_hw[1] // 2)]):
        browser.open(page, _hash(config, view=view))
        browser.hover(browser.cell("image x", f"x[{h}, {v}]"))
        met = _both(geom, lab.feeding, (h, v))
        scores, taps = {(p, q) for (p, _), (q, _) in met}, {(i, j) for (_, i), (_, j) in met}
        assert browser.marked("scores y", "score") == scores
        assert browser.marked("filter w", "tap") == taps
        assert browser.marked("image x", "ring") == browser.marked("products in each pixel", "ring") == {(h, v)}
        if view == "scatter":
            assert browser.marked("the stamp of each score", "image") == {(p, q, i, j) for (p, i), (q, j) in met}
            assert browser.marked("all stamps, added up and cropped", "ring") == {(h, v)}
        elif view == "zeros":
            grid, crop = "scores with zeros between and around them", [max(-b, 0) for b in before]
            assert browser.marked(grid, "score") == scores
            window = product(*(range(k) for k in geom.w_hw))
            assert browser.places(grid, "ring") == {
                (h + i * geom.dilation[0] + crop[0], v + j * geom.dilation[1] + crop[1]) for i, j in window
            }
            turned = {(geom.w_hw[0] - 1 - i, geom.w_hw[1] - 1 - j) for i, j in taps}
            assert browser.places("filter w, turned by 180°", "tap") == turned
        elif view == "matrix":
            assert browser.places("the matrix C", "tap") == {
                (p * geom.y_hw[1] + q + 1, h * geom.x_hw[1] + v + 1) for p, q in scores
            }
        else:
            a, b = (k + p for k, p in zip((h, v), geom.padding, strict=True))
            phase = a % geom.stride[0], b % geom.stride[1]
            assert browser.marked(f"pixels of phase ({phase[0]}, {phase[1]})", "image") == {(h, v)}
            assert browser.marked(f"taps of phase ({phase[0]}, {phase[1]})", "tap") == taps
            assert browser.places("taps in each phase", "ring") == {phase}
        _check_sum(browser.text("#sum"), geom, (h, v), met)


def _check_sum(text: str, geom: ConvGeometry, at: tuple[int, int], met: list[tuple[Any, Any]]) -> None:
    y, w = whole_numbers(geom.y_hw), whole_numbers(geom.w_hw)
    total = sum(y[p, q] * w[i, j] for (p, i), (q, j) in met)
    lines = text.split("\n\n") if "\n\n" in text else text.split("\n")
    assert lines[0] == f"x[{at[0]}, {at[1]}] = {total:g}"
    if met:
        assert lines[1] == "= " + " + ".join(f"y[{p},{q}]·w[{i},{j}]" for (p, i), (q, j) in met)
        assert lines[2] == "= " + " + ".join(f"{y[p, q]:g}·{w[i, j]:g}" for (p, i), (q, j) in met) + f" = {total:g}"


@pytest.mark.parametrize("sizes", SMALL, ids=str)
def test_pointing_at_a_score_marks_what_it_reaches(browser: Browser, page: Path, sizes: tuple) -> None:
    config = dict(zip(SETTINGS, map(list, sizes), strict=True))
    geom = _layer(config)
    for view in VIEWS:
        p, q = geom.y_hw[0] - 1, 0
        browser.open(page, _hash(config, view=view))
        browser.hover(browser.cell("scores y", f"y[{p}, {q}]"))
        met = _both(geom, lab.reached, (p, q))
        pixels = {(h, v) for (h, _), (v, _) in met}
        assert browser.marked("image x", "image") == pixels
        assert browser.marked("scores y", "ring") == {(p, q)}
        if view == "scatter":
            assert browser.marked("the stamp of each score", "image") == {(p, q, i, j) for (_, i), (_, j) in met}
            cropped = {(p, q, i, j) for i, j in product(*map(range, geom.w_hw))} - {
                (p, q, i, j) for (_, i), (_, j) in met
            }
            assert browser.marked("the stamp of each score", "band") == cropped
        elif view == "zeros":
            assert browser.marked("scores with zeros between and around them", "ring") == {(p, q)}
        elif view == "matrix":
            row = p * geom.y_hw[1] + q + 1
            assert browser.places("the matrix C", "tap") == {(row, h * geom.x_hw[1] + v + 1) for h, v in pixels}
        else:
            assert browser.marked("image x, coloured by phase", "image") == pixels
        assert f"It reaches {_pixels(len(pixels))}" in browser.text("#sum")


def test_of_many_products_the_first_are_shown(browser: Browser, page: Path) -> None:
    browser.open(page, "input=8&kernel=16&stride=2&padding=7")
    browser.hover(browser.cell("image x", "x[8, 7]"))
    lines = browser.text("#sum").split("\n\n")
    y, w = whole_numbers((8, 8)), whole_numbers((16, 16))
    taps = [[(a, k + 7 - 2 * a) for a in range(8) if 0 <= k + 7 - 2 * a < 16] for k in (8, 7)]
    met = sorted(product(*taps), key=lambda pairs: (pairs[0][1], pairs[1][1]))
    total = sum(y[p, q] * w[i, j] for (p, i), (q, j) in met)
    assert lines[0] == f"x[8, 7] = {total:g}"
    assert lines[1].startswith("= y[7,7]·w[1,0] + ")
    assert lines[1].endswith(f" + … ({len(met)} products)")
    numbers = [f"{y[p, q]:g}·{w[i, j]:g}" for (p, i), (q, j) in met[:6]]
    assert lines[2] == f"= {' + '.join(numbers)} + … ({len(met)} products) = {total:g}"


@pytest.mark.parametrize("width", [1264, 360])
def test_the_sum_is_whole(browser: Browser, page: Path, width: int) -> None:
    browser.look(width, 800)
    for configuration in ("input=5&kernel=4&stride=2&padding=1&weights=bilinear", "input=8&kernel=16&stride=2"):
        browser.open(page, configuration)
        hidden, below = browser.run(
            """const sum = document.getElementById("sum");
            const last = sum.lastChild.getBoundingClientRect();
            return [sum.scrollHeight - sum.clientHeight, sum.getBoundingClientRect().bottom - last.bottom]"""
        )
        assert hidden == 0
        assert below >= (8 if width == 360 else 0)  # on a phone the window ends there


def _pixels(count: int) -> str:
    return {0: "no pixels", 1: "1 pixel"}.get(count, f"{count} pixels")


def test_pointing_at_a_view_marks_the_board(browser: Browser, page: Path) -> None:
    """The other direction: from the views to scores, filter and image."""
    config = dict(zip(SETTINGS, map(list, SMALL[0]), strict=True))  # 2×2 scores, 3×3 taps, stride 2, padding 1: 3×3
    browser.open(page, _hash(config, view="scatter"))
    browser.hover(
        browser.cell("the stamp of each score", "y[1, 0]·w[0, 2]")
    )  # lands on row 2 + 0 − 1, column 0 + 2 − 1
    assert browser.marked("scores y", "score") == {(1, 0)}
    assert browser.marked("filter w", "tap") == {(0, 2)}
    assert browser.marked("image x", "image") == {(1, 1)}
    assert browser.text("#sum").split("\n")[0] == "y[1, 0]·w[0, 2]"
    browser.hover(browser.cell("all stamps, added up and cropped", "cropped"))
    assert browser.text("#sum") == "Padding crops this cell off the image."
    browser.open(page, _hash(config, view="matrix"))
    browser.hover(browser.cell("the matrix C", "y[0, 1] to x[2, 1]: 0"))  # y[0, 1] reaches rows 0·2 + i − 1 = −1, 0, 1
    assert browser.marked("image x", "image") == set()
    assert browser.text("#sum") == "y[0, 1] does not reach x[2, 1]: C is 0 here."
    browser.hover(browser.cell("the matrix C", "y[0, 1] to x[1, 1]: w[2, 0]"))
    assert browser.marked("scores y", "score") == {(0, 1)}
    assert browser.marked("filter w", "tap") == {(2, 0)}
    assert browser.marked("image x", "image") == {(1, 1)}
    browser.open(page, _hash(config, view="phases"))
    browser.hover(browser.cell("taps of phase (1, 0)", "w[1, 2]"))  # x[2p + 1 − 1, 2q + 2 − 1]
    assert browser.marked("image x", "image") == {(0, 1), (2, 1)}
    assert "It carries y[p, q] to x[p·2, q·2 + 1]: 2 products in the image." in browser.text("#sum")


# -- keys alone


def _tab_to(browser: Browser, wanted: Callable[[dict[str, str]], bool], most: int = 60) -> dict[str, str]:
    for _ in range(most):
        browser.press(TAB)
        focused = browser.focused()
        if wanted(focused):
            return focused
    raise AssertionError(f"{most} times Tab, and the keyboard is at {focused}")


def test_everything_with_keys_alone(browser: Browser) -> None:
    browser.press(TAB)
    assert browser.focused()["class"] == "skip"
    browser.press(TAB)  # the colours
    browser.press(RIGHT)
    assert browser.run("return document.documentElement.dataset.theme") == "light"
    browser.press(RIGHT)
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    browser.press(TAB)
    assert browser.focused()["id"] == "input-height"
    browser.press(RIGHT)
    assert browser.text("#sizes") == "6 × 6 scores become an image of 11 × 11"
    browser.press(LEFT, TAB, RIGHT)
    assert browser.focused()["id"] == "kernel-height"
    assert browser.text("#sizes") == "5 × 5 scores become an image of 10 × 10"
    browser.press(LEFT)
    _tab_to(browser, lambda at: at["id"] == "separate")
    browser.press(SPACE)
    assert browser.run("return document.getElementById('input-width').checkVisibility()")
    browser.press(SPACE, TAB, "b")  # a letter chooses in a list
    assert browser.focused()["id"] == "weights"
    assert browser.run("return document.getElementById('weights').value") == "bilinear"
    browser.press(DOWN, DOWN)
    assert browser.run("return document.getElementById('weights').value") == "numbers"

    cell = _tab_to(browser, lambda at: "cell" in at["class"])
    assert cell["label"] == "y[0, 0] = 1"
    browser.press(RIGHT, DOWN)
    assert browser.focused()["label"] == "y[1, 1] = 7"
    assert browser.marked("image x", "image") == set(product((1, 2, 3), (1, 2, 3)))
    browser.press(TAB)
    assert browser.focused()["label"] == "w[0, 0] = 1"
    browser.press(TAB, END, DOWN, DOWN, LEFT)
    assert browser.focused()["label"].startswith("x[2, 7] = ")
    assert browser.marked("scores y", "score") == {(1, 3), (1, 4)}
    assert browser.text("#sum").startswith("x[2, 7] = ")
    browser.press(ESCAPE)
    assert browser.marked("scores y", "score") == set()
    assert browser.text("#sum") == "Point at a cell, of any grid on this page."

    _tab_to(browser, lambda at: at["id"] == "tab-scatter")
    for view in (*VIEWS[1:], VIEWS[0]):
        browser.press(RIGHT)
        assert browser.focused()["id"] == f"tab-{view}"
        assert browser.run("return document.getElementById('view').getAttribute('aria-labelledby')") == f"tab-{view}"
    browser.press(LEFT, LEFT)
    assert browser.focused()["id"] == "tab-matrix"
    browser.press(TAB, RIGHT)  # C, Cᵀ
    assert browser.run("return document.activeElement.value") == "yes"
    browser.press(TAB)
    assert browser.focused()["label"] == "corner"
    browser.press(DOWN, DOWN, RIGHT)  # the row of pixel (0, 1), the column of score (0, 0)
    assert browser.focused()["label"] == "y[0, 0] to x[0, 1]: w[1, 2] = 6"
    assert browser.marked("image x", "image") == {(0, 1)}

    _tab_to(browser, lambda at: at["text"] == "Copy")
    browser.press(ENTER)
    _wait(lambda: browser.text("#copied") != "")
    assert browser.focused()["text"] in ("Copied.", "Press Ctrl + C")
    assert browser.text("#copied") in ("Copied.", "Selected: press Ctrl + C, or ⌘ + C, to copy.")
    line = (
        "torch.nn.ConvTranspose2d(1, 1, kernel_size=3, stride=2, padding=1, output_padding=0, dilation=1, bias=False)"
    )
    assert browser.run("return getSelection().toString()") == line


def test_copying_where_the_browser_forbids_it(browser: Browser) -> None:
    browser.run(
        """Object.defineProperty(navigator, "clipboard", {value: undefined});
        document.execCommand = () => false;
        document.querySelector("[data-copy=command]").click()"""
    )
    _wait(lambda: browser.text("#copied") != "")
    assert browser.text("#copied").startswith("Selected: press Ctrl + C")
    selected = browser.run("return getSelection().toString()")
    assert selected == "python -m minifcn tconv --input 5x5 --kernel 3 --stride 2 --padding 1"


def test_what_is_copied_is_said_at_its_button(browser: Browser) -> None:
    browser.run(
        """Object.defineProperty(navigator, "clipboard", {value: {writeText: async () => undefined}});
        document.querySelector("[data-copy=command]").click()"""
    )
    buttons = "return [...document.querySelectorAll('[data-copy]')].map((button) => button.textContent)"
    _wait(lambda: browser.run(buttons) == ["Copy", "Copied."])
    _wait(lambda: browser.run(buttons) == ["Copy", "Copy"])


def test_space_and_enter_pin_a_cell(browser: Browser) -> None:
    _tab_to(browser, lambda at: at["label"].startswith("x[0, 0]"))
    browser.press(RIGHT)
    assert browser.marked("image x", "ring") == {(0, 1)}
    at = browser.run("return scrollY")
    browser.press(SPACE)
    assert browser.marked("image x", "ring") == set()
    browser.press(SPACE)
    assert browser.marked("image x", "ring") == {(0, 1)}
    browser.press(ENTER)
    assert browser.marked("image x", "ring") == set()
    assert browser.run("return scrollY") == at  # Space has not scrolled the page


def test_the_chosen_colours_are_kept(browser: Browser, page: Path) -> None:
    browser.run("document.querySelector('[name=theme][value=dark]').click()")
    browser.open(page, "input=4&kernel=2")
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    assert browser.run("return document.querySelector('[name=theme]:checked').value") == "dark"
    browser.run("document.querySelector('[name=theme][value=auto]').click()")
    browser.open(page)
    assert browser.run("return document.documentElement.dataset.theme") == "light"


def test_the_skip_link_leads_to_the_grids(browser: Browser) -> None:
    browser.press(TAB, ENTER)
    assert browser.focused()["id"] == "board"
    browser.press(TAB)
    assert browser.focused()["label"] == "y[0, 0] = 1"


def test_a_large_grid_is_one_drawing_with_a_current_cell(browser: Browser, page: Path) -> None:
    browser.open(page, "input=12&kernel=9&stride=8&padding=0&view=zeros")
    geom = lab.layer(12, kernel=9, stride=8)
    x = lab.scatter(whole_numbers(geom.y_shape), whole_numbers(geom.w_shape), geom)[0, 0]
    assert browser.run("return document.querySelectorAll('#board-image .cell').length") == 1
    _tab_to(browser, lambda at: at["label"].startswith("x[0, 0]"))
    browser.press(RIGHT, DOWN, DOWN)
    assert browser.focused()["label"] == f"x[2, 1] = {x[2, 1]:g}"
    assert browser.text("#sum").startswith(f"x[2, 1] = {x[2, 1]:g}")
    # the drawing above has something where the cell is, and nothing in the far corner
    inked = """
        const [below, above] = document.querySelectorAll("#board-image canvas");
        const copy = new OffscreenCanvas(above.width, above.height).getContext("2d", {willReadFrequently: true});
        copy.drawImage(above, 0, 0);
        const size = above.width / 97;
        const at = (h, v) => copy.getImageData(v * size, h * size, size, size).data.some(Boolean);
        return [at(2, 1), at(90, 90)]"""
    assert browser.run(inked) == [True, False]
    browser.press(ESCAPE)
    assert browser.run(inked) == [False, False]


# -- settings that are no layer


@pytest.mark.parametrize(
    ("configuration", "reason", "mended"),
    [
        ("input=5&kernel=3&stride=2&output_padding=2", "output_padding 2 along height and width", "output_padding=1"),
        (
            "input=1&kernel=3&stride=1&padding=2",
            "the output's height and width would be (1 − 1)·1 − 2·2 + 1·(3 − 1) + 0 + 1 = −1",
            "padding=1",
        ),
        ("input=5x1&kernel=3x1&padding=1x3&output_padding=0x3", "output_padding 3 along the width", "padding=(1, 0)"),
    ],
    ids=["output_padding", "padding", "both, along the width"],
)
def test_settings_that_are_no_layer(browser: Browser, page: Path, configuration: str, reason: str, mended: str) -> None:
    browser.open(page, configuration)
    assert reason in browser.text("#problem")
    assert browser.run("return document.querySelector('main').inert")
    for _ in range(30):
        browser.press(TAB)
        if browser.focused()["id"] == "nearest":
            break
    browser.press(ENTER)
    assert not browser.run("return document.getElementById('problem').checkVisibility()")
    assert f", {mended}, " in browser.text("#pytorch")
    assert browser.focused()["id"] == "board"


def test_the_last_layer_stays_in_sight(browser: Browser) -> None:
    browser.run("scrollTo(0, 400)")
    top = "return document.getElementById('board-image').getBoundingClientRect().top"
    place = browser.run(top)
    names = "return [...document.querySelectorAll('#board-image .cell')].map((cell) => cell.ariaLabel)"
    shown, line, height = browser.run(names), browser.text("#pytorch"), "return document.body.scrollHeight"
    before = browser.run(height)
    _slide(browser, "output_padding-height", 2)
    assert "output_padding 2 along height and width" in browser.text("#reason")
    assert (browser.run(names), browser.text("#pytorch")) == (shown, line)
    assert abs(browser.run(height) - before) < 80  # the reason takes the place of the formula
    assert abs(browser.run(top) - place) < 1  # nothing jumps
    assert browser.run("return Number(getComputedStyle(document.querySelector('main')).opacity)") < 0.5
    _slide(browser, "output_padding-height", 1)
    assert browser.text("#sizes") == "5 × 5 scores become an image of 10 × 10"
    assert not browser.run("return document.querySelector('main').inert")


def test_no_setting_of_the_sliders_is_an_exception(browser: Browser, page: Path) -> None:
    """All corners of the ranges, and some of what lies between, in all views."""
    rng = np.random.default_rng(1)
    for view in VIEWS:
        browser.open(page, f"input=5&kernel=3&view={view}")
        for _ in range(30):
            values = {k: int(rng.choice([low, high, rng.integers(low, high + 1)])) for k, (low, high) in RANGES.items()}
            browser.run(
                """for (const [key, value] of Object.entries(arguments[0])) {
                  const slider = document.getElementById(`${key}-height`);
                  slider.value = value;
                  slider.dispatchEvent(new Event("input"));
                }""",
                values,
            )
            assert browser.run("return document.querySelector('main').inert") == _refused(values), values
        assert browser.complaints() == []


def _refused(values: dict[str, int]) -> bool:
    try:
        lab.layer(**values)
    except ValueError:
        return True
    return False


# -- looks

CONTRASTS = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgb = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = rgb(getComputedStyle(at).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255, 255];
};
const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
const found = [];
for (const element of document.querySelectorAll("body *")) {
  if (!hasText(element) || !element.checkVisibility() || ["SCRIPT", "OPTION"].includes(element.tagName)) continue;
  const [a, b] = [rgb(getComputedStyle(element).color), behind(element)].map(luminance);
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 160)]);
}
return [found.length, found.filter(([contrast]) => contrast < 4.5)]"""


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 360])
def test_it_can_be_read_and_fits(
    browser: Browser, page: Path, tmp_path: Path, width: int, dark: bool, view: str
) -> None:
    browser.look(width, 740 if width == 360 else 900, dark)
    for configuration in (
        "input=5&kernel=3&stride=2&padding=1",
        "input=4x6&kernel=4x2&stride=3x2&padding=3x1&output_padding=2x0&weights=bilinear",
        "input=12&kernel=9&stride=8&padding=3&dilation=4",
        "input=3&kernel=2&padding=4&stride=2",  # no layer
    ):
        browser.open(page, f"{configuration}&view={view}")
        assert browser.run("return document.documentElement.dataset.theme") == ("dark" if dark else "light")
        root = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        wide, there = browser.run(root)
        assert wide <= there
        count, faint = browser.run(CONTRASTS)
        assert count > 20
        assert faint == []
        # every grid is inside its panel, or can be scrolled there
        outside = """
            const inside = (e) => e.closest(".scroller, #board > *").getBoundingClientRect().right;
            return [...document.querySelectorAll("[role=grid]")].filter((e) => e.checkVisibility()
              && !e.closest(".scroller") && e.getBoundingClientRect().right > inside(e) + 1).map((e) => e.ariaLabel)"""
        assert browser.run(outside) == []
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_a_finger_can_point(browser: Browser, page: Path) -> None:
    for configuration in ("input=5&kernel=3&stride=2&padding=1", "input=10&kernel=4&stride=2&padding=1"):
        for view in VIEWS:
            browser.look(360, 740)
            browser.open(page, f"{configuration}&view={view}")
            small = """
                const cell = (grid) =>
                  Math.min(grid.offsetWidth / grid.ariaColCount, grid.offsetHeight / grid.ariaRowCount);
                return [...document.querySelectorAll("[role=grid]")].filter((grid) => cell(grid) < 24)
                  .map((grid) => grid.ariaLabel)"""
            assert browser.run(small) == []
            assert browser.run("return document.documentElement.scrollWidth") <= 360
    assert "tap any cell" in browser.text("header")
    assert not browser.run("return document.querySelector('.keys').checkVisibility()")
    # the size is in sight, at the sliders as at the end of the page
    in_sight = """
        scrollTo(0, arguments[0]);
        const sizes = document.getElementById("sizes").getBoundingClientRect();
        return sizes.top >= 0 && sizes.bottom <= document.getElementById("sum").getBoundingClientRect().top"""
    assert [browser.run(in_sight, at) for at in (0, 300, 2000)] == [True, True, True]


def test_what_is_selected_is_scrolled_to(browser: Browser, page: Path) -> None:
    """Where an image is larger than its place: to the pixel that is selected elsewhere, and the page stays."""
    browser.open(page, "input=10x12&kernel=4&stride=2&padding=1&view=scatter")
    visible = """
        const [image, ring] = ["#board-image", "#board-image .ring"].map((s) => document.querySelector(s)
            .getBoundingClientRect());
        return ring.left >= image.left && ring.right <= image.right && ring.top >= image.top
            && ring.bottom <= image.bottom"""
    assert browser.run(visible)
    for name in ("x[0, 23]", "x[19, 0]"):
        browser.hover(browser.cell("products in each pixel", name))
        assert browser.run(visible)


def test_on_paper(browser: Browser, page: Path) -> None:
    browser.look(dark=True)
    browser.open(page, "input=10x12&kernel=4&stride=2&padding=1&view=matrix")
    _tab_to(browser, lambda at: at["label"].startswith("x[0, 0]"))
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    browser.look(720, 1000, dark=True, printed=True)
    _wait(lambda: browser.run("return document.documentElement.dataset.theme") == "light")
    for selector in ("form", "#theme", "[data-copy]", ".keys", "#tab-scatter", "#view .choice"):
        assert not browser.run("return document.querySelector(arguments[0]).checkVisibility()", selector)
    assert browser.text("#tab-matrix") == "Matrix"
    assert browser.run("return getComputedStyle(document.getElementById('sum')).position") == "static"
    assert browser.text("#sum").startswith("x[0, 0] = 6")  # y[0, 0]·w[1, 1] = 1·6
    white = "return getComputedStyle(document.documentElement).backgroundColor"
    assert browser.run(white) == "rgb(255, 255, 255)"
    assert browser.run(CONTRASTS)[1] == []
    cut = """return [...document.querySelectorAll(".scroller")].filter((e) => e.scrollWidth > 720)
        .map((e) => e.textContent)"""
    assert browser.run(cut) == []
    browser.look(dark=True)
    _wait(lambda: browser.run("return document.documentElement.dataset.theme") == "dark")


def test_it_answers_at_once(browser: Browser, page: Path) -> None:
    """The largest layers that the sliders allow: well under what one would call waiting, on a slow machine too."""
    for view in VIEWS:
        browser.open(page, f"input=12&kernel=9&stride=8&dilation=4&view={view}")
        took = browser.run(
            """const slider = document.getElementById("padding-height");
            return Array.from({length: 5}, (_, k) => {
              const begin = performance.now();
              slider.value = k % 2;
              slider.dispatchEvent(new Event("input"));
              document.body.getBoundingClientRect();
              return performance.now() - begin;
            })"""
        )
        assert min(took) < 400, (view, took)


# -- the file


def test_the_file_is_whole() -> None:
    text = render(None, None, lab.layer(5, kernel=3))
    assert "{{" not in text.replace("${{", "")
    assert text.count("</script>") == 2
    assert not re.search(r"\b(src|href)=.?(https?:|//)|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", text)


def test_what_the_page_cannot_show() -> None:
    with pytest.raises(ValueError, match=r"page: kernel is 64 along the height; the page shows 1 to 16"):
        render(None, None, lab.layer(5, kernel=64, stride=8))
    geom = lab.layer(2, kernel=2)
    with pytest.raises(ValueError, match=r"page: the shape of the weights is \(1, 1, 3, 3\); \(…, …, 2, 2\) is needed"):
        render(None, np.zeros((1, 1, 3, 3)), geom)
    with pytest.raises(ValueError, match=r"page: NaN or Inf is among the scores"):
        render(np.full((1, 1, 2, 2), np.nan), None, geom)


def test_known_values_are_a_choice_of_the_page() -> None:
    geom = lab.layer(3, kernel=4, stride=2, padding=1)
    text = render(whole_numbers(geom.y_shape), bilinear_filter((4, 4)), geom)
    assert '"scores": {"choice": "numbers", "values": null}' in text
    assert '"weights": {"choice": "bilinear", "values": null}' in text

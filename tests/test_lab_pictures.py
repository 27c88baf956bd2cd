"""The pictures: the filter's footprint against the definition, then what is painted where, and in which words."""

import re
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from PIL import Image, ImageFont

from minifcn.lab import layer, layer_to, whole_numbers
from minifcn.lab.pictures import animate, animation, drawing, picture
from minifcn.lab.pictures import scene as scene_module
from minifcn.lab.pictures.scene import Ground, Scene, evenly, number, sums
from minifcn.lab.pictures.sliding import footprint, slides


def drawn_layers(count):
    """Random small configurations, those without an output left out."""
    rng = np.random.default_rng(20)

    def two(low, high):
        return tuple(int(v) for v in rng.integers(low, high + 1, 2))

    found = []
    while len(found) < count:
        stride, dilation = two(1, 4), two(1, 3)
        extra = tuple(int(rng.integers(max(s, d))) for s, d in zip(stride, dilation, strict=True))
        try:
            found.append(layer(two(1, 4), two(1, 4), stride, two(0, 5), extra, dilation))
        except ValueError:
            continue
    return found


ODD = {
    "one cell": layer(1, kernel=1),
    "cropped": layer(6, kernel=3, padding=3),
    "cropped, strided, one more row": layer(5, kernel=3, stride=2, padding=4, output_padding=1),
    "a hole in every phase but one": layer(3, kernel=1, stride=3),
    "holes": layer(3, kernel=2, stride=4),
    "dilation with holes": layer((2, 3), kernel=3, stride=2, dilation=2),
    "unequal axes": layer((2, 5), (3, 5), (3, 1), (1, 0), (1, 0), (1, 2)),
    "tall": layer((20, 2), kernel=3, stride=2, padding=1),
    "wide": layer((2, 40), kernel=3, stride=2, padding=1),
    "output_padding beyond the stride": layer(3, kernel=3, output_padding=1, dilation=2),
    "no score at all": layer(1, kernel=1, stride=3, padding=1, output_padding=2),
    "too small for numbers": layer(40, kernel=4, stride=2, padding=1),
    "channels": layer(3, kernel=3, stride=2, padding=1, channels=(4, 2)),
}


def arrays(geom, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-3, 10, geom.y_shape).astype(float), rng.integers(-2, 3, geom.w_shape).astype(float)


def pairs_of(geom, axis, size, met):
    """(score, tap) by image row where `met` is "x", (row, tap) by score where it is "y": all p·s + i·d − padding."""
    found = {u: set() for u in range(size)}
    for p, i in product(range(geom.y_hw[axis]), range(geom.w_hw[axis])):
        h = p * geom.stride[axis] + i * geom.dilation[axis] - geom.padding[axis]
        if 0 <= h < geom.x_hw[axis]:
            found[h if met == "x" else p].add((p if met == "x" else h, i))
    return found


@pytest.mark.parametrize(("kind", "met"), [("tconv", "x"), ("conv", "y")])
def test_the_footprint_meets_what_the_definition_says(kind, met):
    checked = 0
    for geom in drawn_layers(300):
        over = slides(geom, kind)
        output = geom.x_hw if kind == "tconv" else geom.y_hw
        assert (over[0].outputs, over[1].outputs) == output
        expected = [pairs_of(geom, axis, output[axis], met) for axis in range(2)]
        for at in np.ndindex(*output):
            touches = footprint(over, at)
            meetings = [((p, q), (i, j)) for (p, i), (q, j) in product(expected[0][at[0]], expected[1][at[1]])]
            assert {(t.source, t.tap) for t in touches if t.source is not None} == set(meetings)
            assert sum(t.source is not None for t in touches) == len(meetings)
            assert sorted(t.tap for t in touches) == sorted(np.ndindex(*geom.w_hw))
            for touch in touches:  # never on what is cut off, nor outside of what is drawn
                assert all(t in s.kept and t in s.cells for t, s in zip(touch.cell, over, strict=True))
            rows = sorted({t.cell[0] for t in touches})
            assert set(np.diff(rows)) <= {geom.dilation[0]}
            checked += 1
    assert checked > 2000


def test_the_map_has_the_size_of_the_equivalent_convolutions_input():
    for geom in drawn_layers(100):
        for axis, slide in enumerate(slides(geom, "tconv")):
            assert len(slide.kept) == geom.x_hw[axis] + geom.dilation[axis] * (geom.w_hw[axis] - 1)
            scores = [t for t in slide.cells if slide.source(t) is not None]
            assert [slide.source(t) for t in scores] == list(range(geom.y_hw[axis]))
            assert set(np.diff(scores)) <= {geom.stride[axis]}


def test_zeros_and_crops_of_known_cases():
    full = slides(layer(2, kernel=3), "tconv")[0]  # the guide's figure 4.1: a border of 2
    assert [full.source(t) for t in full.kept] == [None, None, 0, 1, None, None]
    more = slides(layer(3, kernel=3, stride=2, padding=1, output_padding=1), "tconv")[0]  # one more, at the end alone
    assert [more.source(t) for t in more.kept] == [None, 0, None, 1, None, 2, None, None]
    cropped = slides(layer(6, kernel=3, padding=3), "tconv")[0]  # p′ = −1
    assert [cropped.source(t) for t in cropped.cells] == [0, 1, 2, 3, 4, 5]
    assert [cropped.source(t) for t in cropped.kept] == [1, 2, 3, 4]
    strided = slides(layer_to(6, kernel=3, stride=2, padding=1), "conv")[0]  # its last row is never read
    assert [strided.source(t) for t in strided.cells] == [None, 0, 1, 2, 3, 4, 5, None]
    assert [strided.footprint(u) for u in range(3)] == [
        [(-1, 0), (0, 1), (1, 2)],
        [(1, 0), (2, 1), (3, 2)],
        [(3, 0), (4, 1), (5, 2)],
    ]


def test_the_outputs_shown_are_spread_evenly_from_first_to_last():
    assert evenly(1, 400) == [0]
    assert evenly(5, 5) == [0, 1, 2, 3, 4]
    for count, most in ((441, 400), (65536, 345), (7, 2), (1000, 3)):
        shown = evenly(count, most)
        assert (len(set(shown)), shown[0], shown[-1]) == (most, 0, count - 1)
        assert max(np.diff(shown)) - min(np.diff(shown)) <= 1
    assert evenly(9, 1) == [8]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0625, "0.0625"),
        (1.4375, "1.4375"),
        (-7.0, "−7"),
        (-0.0, "0"),
        (12345.0, "12345"),
        (1e6, "1e6"),
        (2 / 3, "0.667"),
        (-0.0123456, "−0.012"),
        (0.99996, "1"),
        (31.41592, "31.4"),
        (-0.00001234, "−1e−5"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_the_sum_below_the_animation_is_the_output():
    geom = layer((2, 3), (3, 2), (2, 1), (1, 0))
    y, w = arrays(geom)
    scene = Scene.of("test", y, w, geom, "tconv")
    for h, v in np.ndindex(*geom.x_hw):
        rows, columns = (pairs_of(geom, axis, geom.x_hw[axis], "x") for axis in range(2))
        terms = [y[0, 0, p, q] * w[0, 0, i, j] for (p, i), (q, j) in product(rows[h], columns[v])]
        letters, numbers = sums(scene, (h, v), 10_000, 15)
        assert letters.startswith(f"x[{h}, {v}] = ")
        assert letters.count("·") == len(terms)
        left, right = numbers.removeprefix("= ").replace("−", "-").replace("·", "*").rsplit(" = ", 1)
        assert eval(left) == float(right) == sum(terms)
        for p, q, i, j in (map(int, found) for found in re.findall(r"y\[(\d), (\d)\]·w\[(\d), (\d)\]", letters)):
            assert (p, i) in rows[h]
            assert (q, j) in columns[v]
    short, _ = sums(scene, (1, 1), 300, 15)
    assert short.endswith("+ … (4 products)")
    assert drawing.wide(short, 15) <= 300


def test_a_sum_of_nothing_and_a_rounded_one_say_so():
    geom = layer(2, kernel=1, stride=2)
    scene = Scene.of("test", np.full(geom.y_shape, 1 / 3), np.ones(geom.w_shape), geom, "tconv")
    assert sums(scene, (0, 1), 500, 15) == ("x[0, 1] = 0", "the filter lies on zeros alone")
    assert sums(scene, (0, 0), 500, 15)[1] == "= 0.333·1 = 0.333  (rounded)"


@pytest.fixture
def words(monkeypatch):
    """Every text that is painted, with the picture's size and the text's box."""
    painted = []
    write = drawing.write

    def record(draw, x, y, text, size, ink=drawing.INK, align=0.0):
        width, height = drawing.wide(text, size), size * 0.7
        box = (x - align * width, y - height / 2, x - align * width + width, y + height / 2)
        painted.append((draw.im.size, box, text))
        write(draw, x, y, text, size, ink, align)

    monkeypatch.setattr(drawing, "write", record)
    return painted


@pytest.mark.parametrize("name", ODD)
def test_no_letter_leaves_the_picture_or_touches_another(tmp_path, words, name):
    picture(tmp_path / "tconv.png", *arrays(ODD[name]), ODD[name])
    with Image.open(tmp_path / "tconv.png") as found:
        assert found.format == "PNG"
        assert 800 <= found.width <= 1200
        assert 300 <= found.height <= 1600
        size = found.size
    texts = {(box, text) for _, box, text in words}
    for (left, top, right, bottom), _text in texts:
        assert left >= 4
        assert top >= 4
        assert right <= size[0] - 4
        assert bottom <= size[1] - 4
    for ((l0, t0, r0, b0), one), ((l1, t1, r1, b1), other) in combinations(sorted(texts), 2):
        assert r0 < l1 or r1 < l0 or b0 < t1 or b1 < t0, f"{one!r} on {other!r}"


@pytest.mark.parametrize("kind", ["tconv", "conv"])
@pytest.mark.parametrize("name", ODD)
def test_every_animation_has_a_frame_for_each_output(tmp_path, words, monkeypatch, name, kind):
    geom = ODD[name]
    monkeypatch.setattr(animation, "_MOST_FRAMES", 60)
    y, w = arrays(geom)
    input = y if kind == "tconv" else np.ones(geom.x_shape)
    animate(tmp_path / "film.gif", input, w, geom, kind=kind)
    outputs = np.prod(geom.x_hw if kind == "tconv" else geom.y_hw)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == min(outputs, 60)
        assert max(film.size) <= 1300
        for size, (left, top, right, bottom), text in words:
            assert left >= 0, text
            assert top >= 0, text
            assert right <= size[0], text
            assert bottom <= size[1], text
    said = [text for _, _, text in words]
    assert (f"Frames show 60 of {outputs} positions, evenly chosen." in said) == (outputs > 60)


def test_an_animation_loops_holds_its_last_frame_and_names_the_layer(tmp_path):
    geom = layer(3, kernel=3, stride=2, padding=1)
    y, w = arrays(geom)
    animate(tmp_path / "film.gif", y, w, geom, frame_ms=100)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 25
        durations = []
        for k in range(film.n_frames):
            film.seek(k)
            durations.append(film.info["duration"])
        assert film.info["loop"] == 0
        comment = film.info["comment"].decode()
    assert durations == [100] * 24 + [1500]
    assert comment == (
        "torch.nn.ConvTranspose2d(1, 1, kernel_size=3, stride=2, padding=1, output_padding=0, dilation=1, bias=False)"
    )
    animate(tmp_path / "back.gif", np.ones(geom.x_shape), w, geom, kind="conv")
    with Image.open(tmp_path / "back.gif") as film:
        assert film.n_frames == 9
        comment = film.info["comment"].decode()
    assert comment == "torch.nn.Conv2d(1, 1, kernel_size=3, stride=2, padding=1, dilation=1, bias=False)"


@pytest.mark.parametrize(("size", "each"), [(5, 400), (10, 240)])  # 25 frames, and 100 of them within 24 s
def test_long_animations_are_faster(tmp_path, size, each):
    geom = layer(size, 1)
    animate(tmp_path / "film.gif", whole_numbers(geom.y_shape), whole_numbers(geom.w_shape), geom)
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.info["duration"]) == (size**2, each)


def at_most(a, b, difference=3):
    return max(abs(int(p) - q) for p, q in zip(a, b, strict=True)) <= difference


@pytest.mark.parametrize("kind", ["tconv", "conv"])
@pytest.mark.parametrize(
    "geom",
    [
        layer(3, kernel=3, stride=2, padding=1),
        layer(5, kernel=3, stride=2, padding=4),  # cropped by 2
        layer((3, 2), (2, 3), (1, 2), (0, 1), (0, 1), (2, 1)),
    ],
)
def test_each_frame_shows_the_footprint_and_fills_the_output(tmp_path, geom, kind):
    y, w = arrays(geom)
    input = y if kind == "tconv" else whole_numbers(geom.x_shape)
    animate(tmp_path / "film.gif", input, w, geom, kind=kind)
    scene = Scene.of("test", input, w, geom, kind)
    stage = animation._Stage.of(scene)
    source, filled, current = scene.looks
    covered = drawing.SCORE_NOW if kind == "tconv" else drawing.IMAGE_NOW
    output, sizes = (geom.x_hw, geom.y_hw) if kind == "tconv" else (geom.y_hw, geom.x_hw)
    meetings = [pairs_of(geom, axis, output[axis], "x" if kind == "tconv" else "y") for axis in range(2)]
    with Image.open(tmp_path / "film.gif") as film:
        for k, at in enumerate(np.ndindex(*output)):
            film.seek(k)
            frame = np.asarray(film.convert("RGB"))

            def colour(grid, cell, frame=frame):  # beside the edge, where no letters are
                left, _, _, bottom = grid.box(*cell)
                return frame[bottom - 5, left + 4]

            for n, cell in enumerate(np.ndindex(*output)):
                look = filled if n < k else current if n == k else drawing.EMPTY
                assert at_most(colour(stage.upper, cell), look.fill), (at, cell)
            rows, columns = ({p for p, _ in axis[u]} for axis, u in zip(meetings, at, strict=True))
            for row, column in np.ndindex(*sizes):  # the input's own cells, by where they lie in the map
                spread = geom.stride if kind == "tconv" else (1, 1)
                t = row * spread[0], column * spread[1]
                cell = tuple(u - over.cells.start for u, over in zip(t, scene.over, strict=True))
                kept = all(u in over.kept for u, over in zip(t, scene.over, strict=True))
                free = source.fill if kept else drawing.cut(source).fill
                expected = covered.fill if row in rows and column in columns else free
                if kept:
                    assert at_most(colour(stage.lower, cell), expected), (at, cell)
                else:  # under a cross, which the corner may meet
                    assert not at_most(colour(stage.lower, cell), source.fill), (at, cell)


def test_a_cell_under_the_filter_holds_the_value_and_the_tap_that_meets_it(words):
    geom = layer((2, 3), (3, 2), stride=2, padding=(1, 0))
    y, w = 1.0 + np.arange(6).reshape(geom.y_shape), 11.0 + np.arange(6).reshape(geom.w_shape)
    ground = Ground.of(Scene.of("test", y, w, geom, "tconv"))
    height, width = ground.scene.over
    grid = drawing.Grid(0, 0, 44, len(height.cells), len(width.cells))
    draw = drawing.ImageDraw.Draw(Image.new("RGB", (grid.width, grid.height)))
    for at in np.ndindex(*geom.x_hw):
        words.clear()
        ground.paint_footprint(draw, grid, at)
        rows, columns = (pairs_of(geom, axis, geom.x_hw[axis], "x")[at[axis]] for axis in range(2))
        assert len(words) == 2 * w.size
        for (p, i), (q, j) in product(rows, columns):
            left, top, right, bottom = grid.box(2 * p - height.cells.start, 2 * q - width.cells.start)
            inside = [text for _, (l, t, r, b), text in words if left < l < r < right and top < t < b < bottom]
            assert inside == [f"{y[0, 0, p, q]:.0f}", f"{w[0, 0, i, j]:.0f}"]


@pytest.mark.parametrize("cell", [2, 3, 5, 6, 9, 13])
@pytest.mark.parametrize(
    "geom",
    [
        layer(3, kernel=3, stride=2, padding=1),
        layer((4, 3), (2, 4), (3, 1), (0, 1), dilation=(1, 3)),
        layer((3, 2), (3, 1), 2, dilation=(2, 1)),
        layer(1, kernel=1, stride=3, padding=1, output_padding=2),
    ],
)
@pytest.mark.parametrize("kind", ["tconv", "conv"])
def test_a_footprint_without_numbers_looks_as_if_painted_cell_by_cell(kind, geom, cell):
    y, w = arrays(geom)
    scene = Scene.of("test", y if kind == "tconv" else whole_numbers(geom.x_shape), w, geom, kind)
    ground, (height, width) = Ground.of(scene), scene.over
    grid = drawing.Grid(5, 7, cell, len(height.cells), len(width.cells))
    assert ground.cells.letters(cell) == 0
    for at in np.ndindex(*scene.output.shape):
        images = [Image.new("RGB", (grid.width + 12, grid.height + 14), drawing.PAPER) for _ in range(2)]
        whole, single = map(drawing.ImageDraw.Draw, images)
        ground.paint_footprint(whole, grid, at)
        boxes = []
        for touch in footprint(scene.over, at):
            boxes.append(grid.box(touch.cell[0] - height.cells.start, touch.cell[1] - width.cells.start))
            covered = drawing.SCORE_NOW if kind == "tconv" else drawing.IMAGE_NOW
            drawing.paint(single, boxes[-1], drawing.ZERO_NOW if touch.source is None else covered)
        drawing.frame(single, (*boxes[0][:2], *boxes[-1][2:]), cell)
        np.testing.assert_array_equal(*map(np.asarray, images))


def test_the_sum_of_a_large_filter_names_as_many_products_as_fit(monkeypatch):
    """90 × 90 taps, of which only a few may be spelled out: there is a frame for each of 400 outputs."""
    geom = layer(90, kernel=90, padding=45)
    monkeypatch.setattr(scene_module, "number", lambda value: spelled.append(value) or number(value))
    scene = Scene.of("test", whole_numbers(geom.y_shape), whole_numbers(geom.w_shape), geom, "tconv")
    rows = pairs_of(geom, 0, geom.x_hw[0], "x")
    for h, v in ((0, 0), (44, 44), (20, 88)):
        spelled = []
        letters, numbers = sums(scene, (h, v), 640, 15)
        rest = f" + … ({len(rows[h]) * len(rows[v])} products)"
        assert letters.endswith(rest)
        assert f"{rest} = {number(float(scene.output[h, v]))}" in numbers
        assert letters.count("·") in (3, 4, 5)
        assert drawing.wide(letters, 15) <= 640
        assert len(spelled) < 200
    wide, _ = sums(scene, (44, 44), 1000, 15)
    assert wide.count("·") > letters.count("·")


@pytest.mark.parametrize("kind", ["tconv", "conv"])
def test_small_cells_to_come_are_surrounded(kind):
    """Cells of 5 pixels and less have no edges, and a map of white ones would not be seen."""
    geom = layer(45, kernel=3, stride=3)
    input = whole_numbers(geom.y_shape if kind == "tconv" else geom.x_shape)
    w = whole_numbers(geom.w_shape)
    stage = animation._Stage.of(Scene.of("test", input, w, geom, kind))
    grid = stage.upper
    assert grid.cell < 6
    around = stage.still.crop((grid.left - 1, grid.top - 1, grid.left + grid.width + 1, grid.top + grid.height + 1))
    pixels = np.asarray(around)
    assert np.unique(pixels[1:-1, 1:-1].reshape(-1, 3), axis=0).tolist() == [list(drawing.PAPER)]
    for line in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert np.unique(line, axis=0).tolist() == [list(drawing.RULE)]
    frame = np.asarray(next(stage.frames()).convert("RGB"))  # in the film's palette, and with the first cell marked
    assert frame[grid.top + grid.height, grid.left : grid.left + grid.width].max() < 200
    assert frame[grid.top : grid.top + grid.height, grid.left + grid.width].max() < 200


def test_large_cells_hold_the_numbers_and_small_ones_a_scale(tmp_path, words):
    geom = layer(3, kernel=3, stride=2, padding=1)
    y, w = whole_numbers(geom.y_shape), whole_numbers(geom.w_shape)
    picture(tmp_path / "tconv.png", y, w, geom)
    said = [text for _, _, text in words]
    # x[1, 1] by hand: scores 1, 2, 4, 5 through taps 9, 7, 3, 1
    assert str(1 * 9 + 2 * 7 + 4 * 3 + 5 * 1) in said
    assert not any(text.startswith("x = ") for text in said)
    words.clear()
    large = layer(40, kernel=4, stride=2, padding=1)
    picture(tmp_path / "tconv.png", whole_numbers(large.y_shape), np.ones(large.w_shape), large)
    said = [text for _, _, text in words]
    assert {"y = 1", "y = 9"} <= set(said)
    assert "1" in said  # the filter still has room


def test_the_picture_explains_the_layer(tmp_path, words):
    geom = layer(5, kernel=3, stride=2, padding=1, channels=(4, 2))
    picture(tmp_path / "tconv.png", *arrays(geom), geom)
    text = " ".join(text for _, _, text in words).replace("\xa0", " ")
    assert "(5 − 1)·2 − 2·1 + 1·(3 − 1) + 0 + 1 = 9" in text
    assert "torch.nn.ConvTranspose2d(4, 2, kernel_size=3, stride=2, padding=1" in text
    assert "p′ = d·(k − 1) − p = 1." in text
    assert "channel 0 of 4 of the scores and channel 0 of 2 of the image. For these channels, " in text
    assert re.search(r"For these channels, checkerboard: a pixel inside gets 1 to 4 products", text)
    assert "cut off" not in text
    words.clear()
    geom = layer((6, 5), kernel=3, padding=(3, 1))
    picture(tmp_path / "tconv.png", *arrays(geom), geom)
    text = " ".join(text for _, _, text in words).replace("\xa0", " ")
    assert (
        "No checkerboard: every pixel inside gets 9 products, and the weights of every phase have the same sum." in text
    )
    assert "these channels" not in text
    assert "height: (input − 1)·stride" in text
    assert "width: (5 − 1)·1 − 2·1 + 1·(3 − 1) + 0 + 1 = 5" in text
    assert "p′ = d·(k − 1) − p = (−1, 1) (below 0: cells are cut off)" in text


def test_letters_that_the_font_lacks_are_drawn_or_spelled():
    assert drawing.spelled("p′ − 1 × 2 · 3 …", 14) == "p' − 1 × 2 · 3 …"  # minus and times are drawn
    assert drawing.spelled("a → b ≥ c 名", 14) == "a -> b >= c ?"


@pytest.fixture
def bitmap_letters(monkeypatch):
    """Pillow without FreeType: one bitmap font of Latin-1."""
    if not hasattr(ImageFont, "load_default_imagefont"):
        pytest.skip("this Pillow does not give its bitmap font where it has FreeType")
    bitmap = ImageFont.load_default_imagefont()
    caches = [drawing.font, drawing._has, drawing._stroke, drawing.wide, drawing.fitting]

    def load_default(size=None):
        if size is not None:
            raise ImportError("no FreeType")
        return bitmap

    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(ImageFont, "load_default", load_default)
    yield
    for cache in caches:
        cache.cache_clear()


def test_without_freetype_the_pictures_are_drawn_too(tmp_path, bitmap_letters, words):
    assert drawing.spelled("p′ = −1 × 2 · 3 …", 14) == "p' = −1 × 2 · 3 ..."
    geom = layer(5, kernel=3, stride=2, padding=4, output_padding=1)
    picture(tmp_path / "tconv.png", *arrays(geom), geom)
    animate(tmp_path / "film.gif", *arrays(geom), geom)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 16
    for size, (left, _, right, bottom), text in words:
        assert left >= 0, text
        assert right <= size[0], text
        assert bottom <= size[1], text


def test_what_cannot_be_drawn_is_said(tmp_path):
    geom = layer(3, kernel=3, stride=2, padding=1)
    y, w = arrays(geom)
    path = tmp_path / "film.gif"
    with pytest.raises(ValueError, match=r"input has shape \(1, 1, 3, 2\) .* \(1, 1, 3, 3\) and .* are needed"):
        animate(path, y[..., :2], w, geom)
    with pytest.raises(ValueError, match="frame_ms is 10; at least 20 is needed"):
        animate(path, y, w, geom, frame_ms=10)
    with pytest.raises(ValueError, match="kind is 'both'"):
        animate(path, y, w, geom, kind="both")
    with pytest.raises(ValueError, match="NaN or Inf"):
        picture(path, np.full(geom.y_shape, np.inf), w, geom)
    with pytest.raises(ValueError, match="at least one value is needed"):
        picture(path, y[:0], w, replace(geom, n=0))
    large = layer((2, 200), kernel=4, stride=2, padding=1)
    with pytest.raises(ValueError, match="a map of 403 cells along the width is too large .* exceeds 320"):
        picture(path, *arrays(large), large)
    assert list(tmp_path.iterdir()) == []

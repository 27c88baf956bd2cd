"""Where cells lie, which crops follow, which image sizes fit, and what a cell sees: against the paper's numbers,
forward passes and gradients."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import minifcn as mf
from minifcn import models, nn
from minifcn.cli import main
from minifcn.geometry import AxisMap, CoordMap
from minifcn.lab.alignment import Alignment, align, misfits, names
from minifcn.models.field import ReceptiveField, Window, receptive_field, seen, window

NARROW = 1 / 64
STRIDES = (32, 16, 8)
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
FEW = range(1, 3)  # where sizes are not what a test is about


def half(n: int) -> Fraction:
    return Fraction(n, 2)


def both(x: Fraction | int) -> tuple[Fraction, Fraction]:
    return Fraction(x), Fraction(x)


def square(scale: int, offset: Fraction) -> CoordMap:
    return CoordMap(AxisMap(Fraction(scale), offset), AxisMap(Fraction(scale), offset))


def create(name: str) -> nn.Module:
    return models.create(name, 2, width=NARROW, seed=0).eval()


def paper(stride: int, padding: int = 100, head_padding: int = 0, ceil: bool = True) -> models.FCN:
    """The authors' network, with another first padding, or with pools that round down."""
    vgg = models.VGG(width=NARROW, first_padding=padding)
    for layer in vgg.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = ceil
    return models.FCN(vgg, 2, stride, "paper", models.fcn.FullyConnected(vgg.channels["pool5"], 8, head_padding)).eval()


def offsets(a: Alignment) -> dict[str, tuple[Fraction, Fraction]]:
    return {fusion.stage: fusion.offset for fusion, _ in a.fusions}


# ----- positions and crops


def test_the_papers_network_by_hand() -> None:
    """A 3×3 convolution with padding 1 moves nothing; conv1_1 has padding 100, so cells move by −99; pool k adds half
    of its input's spacing, 2^(k−1)/2; fc6 without padding adds 3·32."""
    a = align(create("fcn8s_vgg16_paper"))
    assert {stage.name: stage.map for stage in a.stages} == {
        "image": square(1, Fraction(0)),
        "pool1": square(2, half(1) - 99),
        "pool2": square(4, half(3) - 99),
        "pool3": square(8, half(7) - 99),
        "pool4": square(16, half(15) - 99),
        "pool5": square(32, half(31) - 99),
        "fc7": square(32, half(31) - 99 + 96),
    }
    assert {stage.name: stage.sees[0] for stage in a.stages} == {
        "image": 1,
        "pool1": 6,
        "pool2": 16,
        "pool3": 44,
        "pool4": 100,
        "pool5": 212,
        "fc7": 404,
    }
    # 360 + 198 = 558 → 279 → 140 → 70 → 35 → 18 → 12, and 480 + 198 = 678 → 339 → 170 → 85 → 43 → 22 → 16
    heights, widths = zip(*(stage.cells for stage in a.stages), strict=True)
    assert heights == (360, 279, 140, 70, 35, 18, 12)
    assert widths == (480, 339, 170, 85, 43, 22, 16)
    assert a.exact
    assert a.misfits == {}
    assert a.sizes == range(1, 2001)


@pytest.mark.parametrize(
    ("stride", "crops"),
    [(32, {"image": 19}), (16, {"pool4": 5, "image": 27}), (8, {"pool4": 5, "pool3": 9, "image": 31})],
)
def test_the_papers_crops(stride: int, crops: dict[str, int]) -> None:
    a = align(create(f"fcn{stride}s_vgg16_paper"))
    assert offsets(a) == {stage: both(crop) for stage, crop in crops.items()}
    assert {fusion.stage: fusion.start for fusion, _ in a.fusions} == {stage: (n, n) for stage, n in crops.items()}


@pytest.mark.parametrize("padding", [81, 97, 100, 113, 200])
def test_crops_in_closed_form(padding: int) -> None:
    """pool4 5 and pool3 9 whatever the padding P; the image's P − 81, P − 73 and P − 69."""
    for stride, constant in ((32, 81), (16, 73), (8, 69)):
        found = [int(offset[0]) for offset in offsets(align(paper(stride, padding), sizes=FEW)).values()]
        assert found == [*[5, 9][: {32: 0, 16: 1, 8: 2}[stride]], padding - constant]


@pytest.mark.parametrize("backbone", RESNETS)
def test_the_second_articles_head_is_off(backbone: str) -> None:
    a = align(create(f"fcn8s_{backbone}"), sizes=FEW)
    assert offsets(a) == {"layer3": both(half(-1)), "layer2": both(half(-3)), "image": both(half(31))}
    # 8 + 4 + 7/2 pixels, 4 + 7/2 and 7/2, as test_models sees them in images that such networks copy
    assert a.displaced == {"layer4": both(half(31)), "layer3": both(half(15)), "layer2": both(half(7))}
    assert not a.exact
    text = a.text()
    for line in (
        "(−8 − 0)/16 = −1/2: its cell 0 lies between layer3's cells, but meets cell 0",
        "(−12 − 0)/8 = −3/2: its cell 0 lies between layer2's cells, but meets cell 0",
        "(0 + 31/2)/1 = 31/2: pixel 0 lies between its cells, but meets cell 0",
        "2·0 + 1/2 = 1/2 cell of layer3",
        "2·(1/2) + 1/2 = 3/2 cells of layer2",
        "8·(3/2) + 7/2 = 31/2 pixels",
        "_aligned",
    ):
        assert line in text


@pytest.mark.parametrize(
    "name",
    [f"fcn{s}s_{b}" for s in STRIDES for b in ("vgg16", *(f"{r}_aligned" for r in RESNETS))],
)
def test_exact_heads_crop_nothing(name: str) -> None:
    a = align(create(name))
    assert a.exact
    assert set(offsets(a).values()) == {both(0)}
    assert set(a.displaced.values()) == {both(0)}
    assert a.misfits == {}
    assert a.text().endswith("Exact: cells that meet lie on the same pixel, and every score lies on its own.")


@pytest.mark.parametrize("backbone", RESNETS)
def test_the_decoders_odd_kernels_are_exact_on_resnets(backbone: str) -> None:
    a = align(create(f"fcn16s_decoder_{backbone}"), sizes=FEW)
    assert a.exact
    assert set(offsets(a).values()) == {both(0)}
    assert [fusion.name for fusion, _ in a.fusions if fusion.joins] == ["up1"]


def test_the_decoders_odd_kernels_are_off_on_vgg() -> None:
    """pool5's cells are at 32u + 31/2. Kernels 3 with padding 1 keep cell 0 where it is, up to the image."""
    a = align(create("fcn16s_decoder_vgg16"))
    assert offsets(a) == {
        "pool4": both(half(1)),
        "pool3": both(half(3)),
        "pool2": both(half(7)),
        "pool1": both(half(15)),
        "image": both(half(-31)),
    }
    assert a.displaced == {"pool5": both(half(-31)), "pool4": both(half(-15))}
    assert a.misfits == {}
    text = a.text()
    assert "2·0 − 1/2 = −1/2 cell of pool4" in text
    assert "2·(−15/2) − 1/2 = −31/2 pixels" in text
    assert "Exact would be kernels of 2s with padding s/2" in text


@pytest.mark.parametrize(("branch", "expected"), [("pool5", 31), ("pool4", 15)])
def test_the_decoder_on_vgg_shows_what_its_displacement_says(branch: str, expected: int) -> None:
    """Stages that hold their own positions, taken through linear interpolation: pixel v then shows position v + 31/2
    (v + 15/2), which is too far up and left."""
    model: Any = create("fcn16s_decoder_vgg16").to(np.float64)
    for k in range(1, 6):
        up, bn = getattr(model, f"up{k}"), getattr(model, f"bn{k}")
        up.weight.data[...], up.bias.data[...] = 0, 0
        up.weight.data[0, 0] = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
        bn.running_var.data[...] = 1 - bn.eps
    model.classifier.weight.data[...], model.classifier.bias.data[...] = 0, 0
    model.classifier.weight.data[0, 0] = 1
    stages = {}
    for k, (name, channels) in enumerate(model.backbone.channels.items(), start=1):
        cells = 256 // 2**k
        stages[name] = np.zeros((1, channels, cells, cells))
        if name == branch:
            stages[name][0, 0] = (np.arange(cells) * 2**k + (2**k - 1) / 2)[:, None]  # the middle of its 2^k rows
    model.backbone = lambda x: {name: mf.Tensor(stage) for name, stage in stages.items()}
    with mf.no_grad():
        shown = model(mf.Tensor(np.zeros((1, 3, 256, 256)))).numpy()[0, 0, 64:192, 128]
    np.testing.assert_allclose(shown, np.arange(64, 192) + expected / 2, rtol=1e-12)


def test_a_negative_offset_crops_the_upsampled_map() -> None:
    """With padding 3, fc7 begins three cells of 32 pixels earlier, six of pool4's: 5 − 6 = −1."""
    model = paper(8, head_padding=3)
    a = align(model, (40, 61), sizes=range(1, 101))
    fusion, (height, _) = a.fusions[0]
    assert (fusion.offset, fusion.start) == (both(-1), (-1, -1))
    assert (height.from_upsampled, height.from_onto) == (1, 0)
    assert a.exact
    assert a.misfits == {}
    assert "its cell 0 lies on cell −1 of pool4" in a.text()
    assert "upscore2 is cropped to rows 1…" in a.text()
    assert scores(model, 40, 61).shape == (1, 2, 40, 61)


def test_axes_may_differ() -> None:
    vgg = models.VGG(width=NARROW, first_padding=100)
    vgg.features[0].padding = (100, 97)
    model = models.FCN(vgg, 2, 8, "paper", models.fcn.FullyConnected(vgg.channels["pool5"], 8, 0)).eval()
    a = align(model, (20, 33), sizes=range(1, 65))
    assert offsets(a)["image"] == (31, 28)
    assert a.misfits == {}
    assert "16u − 183/2 (height), 16u − 177/2 (width)" in a.text()
    assert scores(model, 20, 33).shape == (1, 2, 20, 33)


def test_a_whole_crop_that_is_not_made_is_an_error_too() -> None:
    """Padding 2 moves every cell of a network whose maps nest from cell 0 on by a pixel."""
    vgg = models.VGG(width=NARROW, first_padding=2)
    a = align(models.FCN(vgg, 2, 8, "same", models.fcn.FullyConnected(vgg.channels["pool5"], 8, 3)), sizes=FEW)
    assert a.displaced == {"fc7": both(1), "pool4": both(1), "pool3": both(1)}
    assert not a.exact
    assert "pixel 0 lies on its cell 1, but meets cell 0" in a.text()


class Steps(nn.Module):
    """Each stage by one layer from the one before, then upsamplings with any crops: (stage, layer, crop)."""

    def __init__(self, stages: dict[str, models.fcn.Layer], *ups: tuple[str, nn.ConvTranspose2d, int]) -> None:
        super().__init__()
        self.stages, self.ups = stages, ups

    def layers(self) -> dict[str, list[models.fcn.Layer]]:
        return {stage: [layer] for stage, layer in self.stages.items()}

    def fusions(self) -> tuple[models.fcn.Fusion, ...]:
        maps, at, found = {}, CoordMap(), []
        for stage, layer in self.stages.items():
            maps[stage] = at = layer.coord_map(at)
        for stage, up, start in self.ups:
            after, onto, added = up.coord_map(at), maps.get(stage, CoordMap()), stage != "image"
            offset = onto.crop_onto(after) if added else after.crop_onto(onto)
            name, starts = f"to_{stage}", (start, start)
            found.append(models.fcn.Fusion(stage, name, up, at, after, onto, offset, starts, added, told=False))
            at = after.then_crop((max(-start, 0) * added,) * 2)
        return tuple(found)


CENTRED = nn.Conv2d(1, 1, 3, 2, 1)  # cells at 2u, then at 4u: c = 0 is needed
BETWEEN = nn.MaxPool2d(2)  # cells at 2u + 1/2, then at 4u + 3/2: c = 1/2 is needed


def halves(down: models.fcn.Layer, up: tuple[int, int], last: tuple[int, int], *crops: int) -> Alignment:
    """Two stages of stride 2 and the way back, by layers with these kernels and paddings, at 60 × 60."""
    ups = ((stage, nn.ConvTranspose2d(1, 1, k, 2, p)) for stage, (k, p) in (("half", up), ("image", last)))
    model = Steps({"half": down, "deep": down}, *((*up, crop) for up, crop in zip(ups, crops, strict=True)))
    return align(model, 60, sizes=FEW)


@pytest.mark.parametrize(
    ("down", "up", "last", "wrong", "right", "displaced", "said"),
    [
        # c = 0, and c = 3 before a crop of 3. half's cell 1, at pixel 2, appears at pixel 0; deep's second error, of
        # the same 2 pixels, makes up for its first.
        (CENTRED, (3, 1), (7, 0), (1, 3), (0, 3), {"deep": both(0), "half": both(-2)},
         ["to_half 0 −1 2·0 + 1 = 1 cell of half", "to_image 3 5 2·1 − 2 = 0 pixels", "a crop of 0 in place of 1"]),
        # c = 1 where 0 is needed: 2·1 + 1 pixels
        (CENTRED, (3, 0), (3, 0), (0, 0), (-1, 1), {"deep": both(3), "half": both(1)},
         ["a crop of −1 in place of 0 after to_half and a crop of 1 in place of 0 after to_image."]),
        # c = 3/2 where 1/2 is needed
        (BETWEEN, (6, 1), (6, 1), (-1, 0), (-1, 1), {"deep": both(1), "half": both(1)},
         ["a crop of 1 in place of 0 after to_image."]),
    ],
)  # fmt: skip
def test_where_only_crops_are_wrong_they_are_named(
    down: models.fcn.Layer,
    up: tuple[int, int],
    last: tuple[int, int],
    wrong: tuple[int, int],
    right: tuple[int, int],
    displaced: dict[str, Any],
    said: list[str],
) -> None:
    assert halves(down, up, last, *right).exact
    a = halves(down, up, last, *wrong)
    assert a.displaced == displaced
    text = " ".join(a.text().split())
    assert "half a cell" not in text
    assert "makes up for whole cells; but a crop is wrong." in text
    assert "Exact would be a crop of " in text
    for words in said:
        assert words in text


def test_where_a_crop_is_wrong_and_half_a_cell_is_off() -> None:
    """c = 1/2 where, with a crop of 1, −1 is needed; then 3 where, with a crop of 2 after one of 1, 2 + 2·1 is."""
    a = halves(CENTRED, (2, 0), (7, 0), 1, 2)
    assert a.displaced == {"deep": both(2), "half": both(-1)}
    text = " ".join(a.text().split())
    assert "half a cell" not in text  # one and a half
    assert "to_half 1/2 −1 2·0 + 3/2 = 3/2 cells of half" in text
    assert "to_image 3 4 2·(3/2) − 1 = 2 pixels" in text
    assert "Exact would be the c that is needed, or another crop where c is whole cells from it." in text
    text = " ".join(halves(CENTRED, (4, 1), (4, 1), 0, 0).text().split())
    assert "half a cell is off" in text
    assert "Exact would be kernels of 2s − 1" in text


def test_where_no_crop_can_begin() -> None:
    """Windows of 4 at 4u + 3/2, and c = 1/2: the map's first cell lies on pixel 1, and pixel 0 has none."""
    a = align(
        Steps({"deep": nn.MaxPool2d(4, ceil_mode=True)}, ("image", nn.ConvTranspose2d(1, 1, 4, 4, 1), 0)), 61, FEW
    )
    assert a.displaced == {"deep": both(-1)}
    assert a.text().endswith("Exact would be the c that is needed.")


def test_a_stride_of_3_needs_odd_kernels_where_cells_lie_between() -> None:
    """Windows of 3 at 3u + 1, so that c = 1 is needed; kernels of 2s have 3/2."""
    pool = nn.MaxPool2d(3)
    assert align(Steps({"deep": pool}, ("image", nn.ConvTranspose2d(1, 1, 5, 3, 1), 0)), 60, FEW).exact
    a = align(Steps({"deep": pool}, ("image", nn.ConvTranspose2d(1, 1, 6, 3, 1), 0)), 60, FEW)
    assert a.displaced == {"deep": both(half(1))}
    assert a.text().endswith("Exact would be the c that is needed, or another crop where c is whole cells from it.")


# ----- sizes


@pytest.mark.parametrize("stride", STRIDES)
def test_padding_100_and_pools_that_round_up_take_every_size(stride: int) -> None:
    assert misfits(paper(stride)) == {}


@pytest.mark.parametrize(("stride", "failing"), [(32, 735), (16, 244), (8, 0)])
def test_pools_that_round_down_do_not(stride: int, failing: int) -> None:
    found = misfits(paper(stride, ceil=False))
    empty = [size for size, reason in found.items() if reason == "the layers of fc7 have no output"]
    assert empty == list(range(1, 26))
    assert len(found) - len(empty) == failing
    assert all("the image needs" in reason for size, reason in found.items() if size > 25)


@pytest.mark.parametrize("stride", STRIDES)
def test_97_is_the_smallest_padding_for_every_size(stride: int) -> None:
    assert misfits(paper(stride, 97)) == {}
    assert [len(misfits(paper(stride, padding), range(1, 101))) for padding in (96, 95, 94)] == [2, 4, 6]
    assert all(1 in misfits(paper(stride, padding), [1]) for padding in range(80, 97))


@pytest.mark.parametrize("name", names())
def test_every_network_takes_every_size(name: str) -> None:
    assert misfits(create(name)) == {}


def scores(model: nn.Module, height: int, width: int) -> np.ndarray:
    with mf.no_grad():
        return model(mf.Tensor(np.ones((1, 3, height, width), np.float32))).numpy()


@pytest.mark.parametrize("stride", [32, 8])
def test_misfits_are_the_sizes_at_which_a_forward_pass_stops(stride: int) -> None:
    model = paper(stride, ceil=False)
    found = misfits(model, range(18, 60))
    assert len(found) > 7
    for size in range(18, 60):
        if size in found:
            with pytest.raises(ValueError, match="."):
                scores(model, size, size)
        else:
            assert scores(model, size, size).shape == (1, 2, size, size)


def test_a_padding_too_small_for_the_last_crop_is_a_misfit() -> None:
    """P − 69 < 0: the last map begins after pixel 0."""
    model = paper(8, 64)
    assert "the image needs 100 from cell −5 on" in misfits(model, [100])[100]
    with pytest.raises(ValueError, match="start"):
        scores(model, 100, 100)


def test_a_size_that_a_decoder_cannot_reach_is_a_misfit() -> None:
    """Pools that round down lose a row of 33: 33 → 16 → 8 → 4 → 2 → 1, and 3×3 kernels of stride 2 make 1 or 2 of 1
    and then 31 or 32 of 16."""
    model: Any = create("fcn16s_decoder_vgg16")
    for layer in model.backbone.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = False
    assert misfits(model, [32, 33]) == {33: "up5 reaches 31 to 32 cells, and image has 33"}
    with pytest.raises(ValueError, match="output_size"):
        scores(model, 33, 33)


class Own(nn.Module):
    """A network of one's own: n pixels → n − 2 fine cells → ⌊n/2⌋ − 1 deep ones, upsampled to one more than twice as
    many and added from fine cell 9 on."""

    def layers(self) -> dict[str, list[models.fcn.Layer]]:
        return {"fine": [nn.Conv2d(1, 1, 3)], "deep": [nn.Conv2d(1, 1, 2, 2)]}

    def fusions(self) -> tuple[models.fcn.Fusion, ...]:
        up, at = nn.ConvTranspose2d(1, 1, 2, 2, output_padding=1), CoordMap()
        return (models.fcn.Fusion("fine", "up", up, at, at, at, both(9), (9, 9), joins=True, told=False),)


def test_maps_that_do_not_overlap_are_a_misfit() -> None:
    found = misfits(Own(), range(1, 100))
    assert list(found) == list(range(1, 12))
    assert found[3] == "the layers of deep have no output"
    assert found[11] == "up, with 9 cells, and fine, with 9, do not overlap"


@pytest.mark.parametrize(
    "name",
    [
        "fcn8s_vgg16_paper",
        "fcn16s_vgg16",
        "fcn8s_resnet101",
        "fcn32s_resnet18",
        "fcn8s_resnet50_aligned",
        "fcn16s_decoder_vgg16",
        "fcn16s_decoder_resnet34",
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (33, 50), (97, 64)])
def test_cells_are_those_of_a_forward_pass(name: str, size: tuple[int, int]) -> None:
    model: Any = create(name)
    shapes: dict[str, tuple[int, ...]] = {}

    def note(key: str) -> Any:
        return lambda module, inputs, output: shapes.__setitem__(key, output.shape[2:])

    a = align(model, size, sizes=FEW)
    for fusion, _ in a.fusions:
        fusion.layer.register_forward_hook(note(fusion.name))
    with mf.no_grad():
        x = mf.Tensor(np.zeros((1, 3, *size), np.float32))
        stages = dict(model.backbone(x))
        if getattr(model, "head", None) is not None:
            stages["fc7"] = model.head(stages["pool5"])
        assert model(x).shape[2:] == size
    assert {stage.name: stage.cells for stage in a.stages} == {
        "image": size,
        **{stage: y.shape[2:] for stage, y in stages.items()},
    }
    assert {fusion.name: tuple(fit.upsampled for fit in fits) for fusion, fits in a.fusions} == shapes


# ----- what a cell sees


def test_a_field_by_hand() -> None:
    """7/2 with padding 3, then 3/2 with padding 1: 7 + 2·2 pixels, 4 apart, from −3 − 1·2."""
    field = ReceptiveField(size=(11, 11), stride=(4, 4), start=(-5, -5))
    assert receptive_field([(7, 2, 3), (3, 2, 1)]) == field
    stem = [nn.Conv2d(1, 1, 7, 2, 3), nn.BatchNorm2d(1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    assert receptive_field(stem) == field
    assert receptive_field([nn.Sequential(*stem)]) == field
    assert receptive_field([]) == ReceptiveField((1, 1), (1, 1), (0, 0))
    assert receptive_field([((3, 5), (1, 2), (0, 4), 2)]) == ReceptiveField((5, 9), (1, 2), (0, -4))
    assert seen([(7, 2, 3), (3, 2, 1)], 10) == tuple(range(35, 46))


def test_the_papers_field() -> None:
    for padding in (1, 100):
        field = receptive_field([layer for layers in paper(8, padding).layers().values() for layer in layers])
        assert (field.size, field.stride) == ((404, 404), (32, 32))


@pytest.mark.parametrize("name", [n for n in names() if n.startswith("fcn8s_")])
def test_the_middle_of_the_field_is_where_the_cell_lies(name: str) -> None:
    model: Any = create(name)
    before: list[Any] = []
    for stage, layers in model.layers().items():
        before += layers
        field = receptive_field(before)
        at = next(s.map for s in align(model, sizes=FEW).stages if s.name == stage)
        for axis, m in enumerate(at):
            assert m == AxisMap(Fraction(field.stride[axis]), field.start[axis] + half(field.size[axis] - 1))


def extent(run: Any, size: int, cell: int) -> tuple[int, int]:
    """The first and the last row with an influence on row `cell` of run(x), for x (1,3,size,1) and positive weights.

    A maximum of rising values has its gradient at its window's end, and of falling ones at its beginning, so a rising
    and a falling image together show the whole field.
    """
    rows = []
    for ramp in (np.arange(1.0, size + 1), np.arange(size, 0.0, -1)):
        x = mf.Tensor(np.broadcast_to(ramp[None, None, :, None], (1, 3, size, 1)).copy(), requires_grad=True)
        (gx,) = mf.grad(run(x)[:, :, cell].sum(), [x])
        rows += list(np.flatnonzero(gx.numpy().any(axis=(0, 1, 3))))
    return min(rows), max(rows)


def make_positive(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data[...] = 1 / layer.weight.data[0].size
            if layer.bias is not None:
                layer.bias.data[...] = 0
    module.to(np.float64).eval()


@pytest.mark.parametrize(("name", "size"), [("resnet101", 971), ("resnet50", 427), ("resnet18", 435)])
def test_gradients_reach_as_far_as_the_field(name: str, size: int) -> None:
    """torchvision's ResNets have their stride in the 3×3 convolution: 7, 11, 35, then 43 + 3·16 = 91, 107 + 22·32 = 811
    and 843 + 2·64 = 971 for ResNet-101 (1027 has the stride elsewhere)."""
    backbone = models.ResNet(name, NARROW)
    make_positive(backbone)
    field = receptive_field([layer for layers in backbone.layers().values() for layer in layers])
    assert (field.size, field.stride) == ((size, size), (32, 32))
    first, last = extent(lambda x: backbone(x)["layer4"], 1088, 16)
    assert first == field.start[0] + 16 * 32
    assert last - first + 1 == size


def test_gradients_reach_404_rows_in_the_papers_network() -> None:
    model: Any = create("fcn32s_vgg16")
    make_positive(model)
    first, last = extent(lambda x: model.head(model.backbone(x)["pool5"]), 1024, 16)
    assert last - first + 1 == 404
    assert half(first + last) == 32 * 16 + half(31)


def random_stack(draw: random.Random, transposed: bool) -> list[Any]:
    def layer() -> Any:
        kernel, stride = draw.randint(1, 4), draw.randint(1, 3)
        padding, dilation = draw.randint(0, kernel // 2), draw.randint(1, 2)
        if transposed and draw.random() < 0.5:
            return nn.ConvTranspose2d(1, 1, kernel, stride, padding, bias=False, dilation=dilation)
        if draw.random() < 0.3:
            return nn.AvgPool2d(kernel, stride, padding)
        if draw.random() < 0.2:
            return nn.Conv2d(1, 1, kernel, padding="same", dilation=dilation, bias=False)
        return nn.Conv2d(1, 1, kernel, stride, padding, dilation, bias=False)

    return [layer() for _ in range(draw.randint(1, 4))]


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_where_a_cell_sees(transposed: bool) -> None:
    """With weights of 1, the gradient of one cell is not 0 exactly where the cell sees the image."""
    draw = random.Random(0)
    compared = 0
    while compared < 100:
        layers = random_stack(draw, transposed)
        net = nn.Sequential(*layers).to(np.float64)
        for layer in layers:
            if not isinstance(layer, nn.AvgPool2d):
                layer.weight.data[...] = 1
        x = mf.Tensor(np.zeros((1, 1, 60, 60)), requires_grad=True)
        try:
            y = net(x)
        except ValueError:
            continue  # too small for this stack
        cell = y.shape[2] // 2
        (gx,) = mf.grad(y[:, :, cell].sum(), [x])
        reached = np.flatnonzero(gx.numpy().any(axis=(0, 1, 3)))
        found = seen(layers, cell)
        # a stack may crop a map and pad it later: such zeros are not pixels, and end a path that `seen` follows
        if inside(layers, cell, 60):
            assert reached.tolist() == [h for h in found if 0 <= h < 60]
            compared += 1
        if not any(isinstance(layer, nn.ConvTranspose2d) and layer.stride != (1, 1) for layer in layers):
            field = receptive_field(layers)
            start = field.start[0] + field.stride[0] * cell
            assert (found[0], found[-1]) == (start, start + field.size[0] - 1)


def inside(layers: list[Any], cell: int, size: int) -> bool:
    """Whether a cell sees nothing of the padding between layers (which has no gradient)."""
    sizes = [size]
    x = mf.Tensor(np.zeros((1, 1, size, size)))
    for layer in layers:
        x = layer(x)
        sizes.append(x.shape[2])
    return all(0 <= h < sizes[k] for k in range(1, len(layers)) for h in seen(layers[k:], cell))


def test_a_transposed_convolution_has_a_field_of_stride_1_only() -> None:
    same = receptive_field([nn.ConvTranspose2d(1, 1, 3, padding=2, dilation=2)])
    assert same == receptive_field([nn.Conv2d(1, 1, 3, padding=2, dilation=2)]) == receptive_field([(3, 1, 2, 2)])
    assert window(nn.ConvTranspose2d(1, 1, 3)) == Window((3, 3), (1, 1), (2, 2))
    up = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1)
    assert [seen([up], h) for h in range(4)] == [(0,), (0, 1), (1,), (1, 2)]  # 3 = 2 + 1 taps by turns
    with pytest.raises(ValueError, match=r"stride \(2, 2\) take turns in what they see, .* seen\(layers, cell\)"):
        receptive_field([up])


def test_layers_of_other_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="a layer is a Linear; a convolution, a pooling"):
        receptive_field([nn.Linear(2, 2)])
    with pytest.raises(TypeError, match=r"a layer is \(3, 1\);"):
        receptive_field([(3, 1)])
    with pytest.raises(ValueError, match="kernel is 0; at least 1 is needed"):
        receptive_field([(0, 1, 0)])


# ----- text, errors and the command


@pytest.mark.parametrize("name", names())
def test_the_text_fits_into_100_columns(name: str) -> None:
    lines = align(create(name), sizes=FEW).text().split("\n")
    assert max(map(len, lines)) <= 100
    assert not any(line != line.rstrip() for line in lines)


def test_misfits_are_listed() -> None:
    text = align(paper(32, ceil=False), (480, 480)).text()
    assert "Sizes 1…2000: 760 of 2000 do not fit:\n  1: the layers of fc7 have no output\n  2: " in text
    assert "\n  5: the layers of fc7 have no output\n  …\n" in text
    assert "Sizes 1…9: every crop fits" in align(create("fcn32s_vgg16"), sizes=range(1, 10)).text()


def test_faults_are_named() -> None:
    with pytest.raises(TypeError, match=r"align: a Sequential does not tell its layers and fusions; a network of"):
        align(nn.Sequential(nn.Conv2d(3, 2, 1)))
    with pytest.raises(ValueError, match=r"align: size is \(0, 4\); at least 1 is needed"):
        align(create("fcn32s_vgg16"), (0, 4))
    with pytest.raises(ValueError, match=r"align: size is 0; at least 1 is needed"):
        misfits(create("fcn32s_vgg16"), [0])
    with pytest.raises(ValueError, match="align: at 480 × 20 pixels, the layers of fc7 have no output; another size"):
        align(paper(32, ceil=False), (480, 20))


def test_the_command_derives_the_papers_crops(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", "fcn8s_vgg16_paper"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("fcn8s_vgg16_paper: exact\n")
    for line in (
        "fc7    32u + 25/2      404   12 × 16             12.5 … 364.5   12.5 … 492.5",
        "32·(u − 3/2)/2 + 25/2 = 16u − 23/2",
        "(−23/2 + 183/2)/16 = 5: its cell 0 lies on cell 5 of pool4",
        "26 × 34 and 35 × 43 cells: pool4 is cropped to rows 5…30, columns 5…38",
        "(−47/2 + 191/2)/8 = 9: its cell 0 lies on cell 9 of pool3",
        "(0 + 31)/1 = 31: pixel 0 lies on its cell 31",
        "440 × 568 cells: upscore8 is cropped to rows 31…390, columns 31…510",
        "Sizes 1…2000: every crop fits",
        "Exact:",
    ):
        assert line in out


def test_the_command_takes_a_size_and_lists_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", "fcn8s_resnet101", "--size", "375x500"]) == 0
    out = capsys.readouterr().out
    assert "cells at 375 × 500" in out
    assert out.startswith("fcn8s_resnet101: NOT exact")
    assert "NOT exact: cells meet" in out
    assert main(["align"]) == 0
    assert capsys.readouterr().out.split() == names()


def test_the_commands_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", "fcn8s_vgg61"]) == 2
    assert "did you mean 'fcn8s_vgg16'?" in capsys.readouterr().err
    assert main(["align", "fcn8s_vgg16", "--size", "0x4"]) == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err

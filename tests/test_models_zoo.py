"""AlexNet, GoogLeNet and U-Net: parameter counts, every image size, where cells lie, and what is particular to each."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn import models, nn
from minifcn.geometry import AxisMap, CoordMap
from minifcn.gradcheck import check_grad
from minifcn.gradcheck.models import call_with
from minifcn.lab.alignment import align, misfits
from minifcn.models.alexnet import AlexNet
from minifcn.models.fcn import coord_maps
from minifcn.models.field import receptive_field
from minifcn.models.googlenet import GoogLeNet, Inception
from minifcn.models.unet import UNet
from minifcn.nn import init

NARROW = 1 / 64


def learnable(module: nn.Module) -> int:
    return sum(p.size for p in module.parameters() if p.requires_grad)


@pytest.fixture
def without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Initial weights of 0, so that a full-width network is counted without drawing its random numbers."""
    monkeypatch.setattr(init, "kaiming_normal", lambda shape, mode="fan_in": np.zeros(shape, np.float32))
    monkeypatch.setattr(init, "uniform", lambda shape, bound: np.zeros(shape, np.float32))


# ----- parameter counts


@pytest.mark.usefixtures("without_numbers")
def test_alexnet_has_caffenets_convolutions() -> None:
    conv1, conv2 = 96 * 3 * 11 * 11 + 96, 256 * 48 * 5 * 5 + 256
    conv3, conv4, conv5 = 384 * 256 * 9 + 384, 384 * 192 * 9 + 384, 256 * 192 * 9 + 256
    assert [learnable(layer) for layer in AlexNet().children()][:5] == [conv1, conv2, conv3, conv4, conv5]
    assert learnable(AlexNet()) == learnable(AlexNet(paper=True)) == 2_334_080
    names = [f"conv{k}.{part}" for k in range(1, 6) for part in ("weight", "bias")]
    assert list(AlexNet().state_dict()) == names
    assert AlexNet().channels == {"conv1": 96, "pool1": 96, "pool2": 256, "pool5": 256}


@pytest.mark.usefixtures("without_numbers")
def test_fcn_alexnet_has_the_papers_57_million() -> None:
    fc6, fc7, score = 4096 * 256 * 6 * 6 + 4096, 4096 * 4096 + 4096, 21 * 4096 + 21
    model = models.create("fcn32s_alexnet_paper", 21)
    assert learnable(model) == 2_334_080 + fc6 + fc7 + score == 56_954_261
    assert sum(p.size for p in model.parameters() if not p.requires_grad) == 21 * 21 * 63 * 63


# by hand from bvlc_googlenet's deploy.prototxt: C·n1 + C·r3 + 9·r3·n3 + C·r5 + 25·r5·n5 + C·np, and the biases
BLOCKS = {
    "inception_3a": 163_696,
    "inception_3b": 388_736,
    "inception_4a": 376_176,
    "inception_4b": 449_160,
    "inception_4c": 510_104,
    "inception_4d": 605_376,
    "inception_4e": 868_352,
    "inception_5a": 1_043_456,
    "inception_5b": 1_444_080,
}


@pytest.mark.usefixtures("without_numbers")
def test_googlenet_has_the_papers_6_million() -> None:
    model = GoogLeNet()
    assert {name: learnable(getattr(model, name)) for name in BLOCKS} == BLOCKS
    conv1, reduce, conv2 = 64 * 3 * 49 + 64, 64 * 64 + 64, 192 * 64 * 9 + 192
    assert learnable(model) == conv1 + reduce + conv2 + sum(BLOCKS.values()) == 5_973_552
    assert list(model.channels.values()) == [64, 192, 480, 832, 1024]
    assert learnable(models.create("fcn32s_googlenet", 21)) == 5_973_552 + 21 * 1024 + 21


def test_googlenets_names_follow_caffes() -> None:
    names = {key.rpartition(".")[0] for key in GoogLeNet(NARROW).state_dict()}
    branches = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5")
    assert names == {
        "conv1",
        "conv2_reduce",
        "conv2",
        *(f"{block}.conv{branch}" for block in BLOCKS for branch in branches),
        *(f"{block}.pool_proj" for block in BLOCKS),
    }


@pytest.mark.usefixtures("without_numbers")
def test_unet_has_31_million() -> None:
    """Down: 9·c·o + o and 9·o·o + o. Up: 4·c·o + o with c = 2·o, then the same pair. For the paper's one channel and
    two classes that is the 31,030,658 that tf_unet counts too (padding takes no parameters)."""
    sizes = (64, 128, 256, 512, 1024)
    down = 9 * 1 * 64 + sum(9 * o // 2 * o for o in sizes[1:]) + sum(9 * o * o + 2 * o for o in sizes)
    up = sum((8 + 18 + 9) * o * o + 3 * o for o in sizes[:4])
    assert learnable(UNet(2, in_channels=1)) == down + up + 64 * 2 + 2 == 31_030_658
    assert learnable(UNet(21)) == 31_030_658 + 2 * 64 * 9 + 19 * 65


# ----- widths and channels


@pytest.mark.parametrize("width", [1e-3, 1 / 64, 1 / 48, 1 / 7, 0.3])
def test_groups_divide_alexnets_channels_at_every_width(width: float) -> None:
    model = AlexNet(width)
    assert [getattr(model, f"conv{k}").groups for k in range(1, 6)] == [1, 2, 1, 2, 2]
    with mf.no_grad():
        stages = model(mf.Tensor(np.ones((1, 3, 9, 9), np.float32)))
    assert {name: stage.shape[1] for name, stage in stages.items()} == model.channels
    for n, full in zip(model.channels.values(), (96, 96, 256, 256), strict=True):
        assert n == 2 or (n % 2 == 0 and abs(n - full * width) <= 1)


@pytest.mark.parametrize("build", [AlexNet, GoogLeNet], ids=["alexnet", "googlenet"])
@pytest.mark.parametrize("c", [1, 4])
def test_images_may_have_other_channels(build: Any, c: int) -> None:
    model = build(NARROW, in_channels=c)
    assert model.conv1.weight.shape[1] == c
    with mf.no_grad():
        assert model(mf.Tensor(np.ones((2, c, 5, 7), np.float32)))["conv1"].shape[0] == 2
        assert UNet(3, NARROW, in_channels=c)(mf.Tensor(np.ones((2, c, 5, 7), np.float32))).shape == (2, 3, 5, 7)


# ----- sizes


@pytest.mark.parametrize(
    ("model", "strides"),
    [(AlexNet(NARROW), (4, 8, 16, 32)), (GoogLeNet(NARROW), (2, 4, 8, 16, 32))],
    ids=["alexnet", "googlenet"],
)
def test_a_stage_of_stride_s_has_a_cell_for_every_s_pixels(model: Any, strides: tuple[int, ...]) -> None:
    assert list(model.layers()) == list(model.channels)
    for height in range(1, 71):
        width = 1 + height * 37 % 71  # 1 … 70 in another order
        with mf.no_grad():
            stages = model(mf.Tensor(np.ones((1, 3, height, width), np.float32)))
        for (name, stage), s in zip(stages.items(), strides, strict=True):
            assert stage.shape == (1, model.channels[name], ceil(height / s), ceil(width / s))


@pytest.mark.parametrize(("size", "cells"), [(1, 6), (30, 6), (31, 7), (62, 7), (63, 8), (227, 13)])
def test_the_papers_padding_leaves_room_for_fc6(size: int, cells: int) -> None:
    """By hand: ⌊190/4⌋ + 1 = 48 → ⌈45/2⌉ + 1 = 24 → ⌈21/2⌉ + 1 = 12 → ⌈9/2⌉ + 1 = 6 for one pixel. 7 cells need 14 of
    pool2, 28 of pool1 and 56 of conv1, which 220 − 189 = 31 pixels have; 8 need 16, 32 and 64: 252 − 189 = 63."""
    with mf.no_grad():
        stages = AlexNet(NARROW, paper=True)(mf.Tensor(np.ones((1, 3, size, 1), np.float32)))
    assert stages["pool5"].shape[2:] == (cells, 6)


@pytest.mark.parametrize(
    "name", [f"fcn{s}s_{b}" for s in (32, 16, 8) for b in ("alexnet", "alexnet_paper", "googlenet")]
)
def test_fcns_take_every_size(name: str) -> None:
    model = models.create(name, 2, width=NARROW, seed=0).eval()
    assert misfits(model, range(1, 1001)) == {}
    for height, width in ((1, 1), (33, 50), (1, 70)):
        with mf.no_grad():
            out = model(mf.Tensor(np.ones((1, 3, height, width), np.float32)))
        assert out.shape == (1, 2, height, width)


def test_unet_takes_every_size() -> None:
    model = UNet(2, NARROW).eval()
    for height in range(1, 50):
        width = 1 + height * 29 % 53
        with mf.no_grad():
            assert model(mf.Tensor(np.ones((1, 3, height, width), np.float32))).shape == (1, 2, height, width)


# ----- where cells lie


def at(scale: int, offset: int) -> CoordMap:
    axis = AxisMap(Fraction(scale), Fraction(offset))
    return CoordMap(axis, axis)


def test_cells_lie_on_pixels_0_s_2s() -> None:
    assert coord_maps(AlexNet(NARROW).layers()) == {
        "conv1": at(4, 0),
        "pool1": at(8, 0),
        "pool2": at(16, 0),
        "pool5": at(32, 0),
    }
    stages = ("conv1", "conv2", "inception_3b", "inception_4e", "inception_5b")
    assert coord_maps(GoogLeNet(NARROW).layers()) == {s: at(2**k, 0) for k, s in enumerate(stages, start=1)}


def test_the_furthest_branch_says_what_a_cell_sees() -> None:
    """k − 1 of each layer times the strides before it. AlexNet: 11, + 2·4, + 4·8 + 2·8, + 3·2·16 + 2·16. GoogLeNet: 7,
    + 2·2 + 2·4, + 2·4 + 2·(4·8), + 2·8 + 5·(4·16), + 2·16 + 2·(4·32)."""

    def fields(model: Any) -> list[int]:
        layers, found = [], []
        for added in model.layers().values():
            layers += added
            found.append(receptive_field(layers).size[0])
        return found

    assert fields(AlexNet(NARROW)) == [11, 19, 67, 195]
    assert fields(GoogLeNet(NARROW)) == [7, 19, 91, 427, 715]


def test_the_papers_cells_begin_in_the_padding() -> None:
    maps = coord_maps(AlexNet(NARROW, paper=True).layers())
    assert maps == {"conv1": at(4, -95), "pool1": at(8, -91), "pool2": at(16, -83), "pool5": at(32, -67)}


@pytest.mark.parametrize(
    ("paper", "pool2", "pool1", "last"),
    [(True, 5, 10, {32: 18, 16: 18, 8: 18}), (False, -2, -1, {32: 47, 16: 15, 8: 7})],
)
def test_alexnets_crops_are_whole(paper: bool, pool2: int, pool1: int, last: dict[int, int]) -> None:
    """Step by step with CoordMap, and what the networks make of it. 18 is the authors' literal."""
    maps = coord_maps(AlexNet(NARROW, paper).layers())
    fc6 = maps["pool5"].then_conv(6, 1, 0 if paper else 3)
    offsets = {32: fc6.then_conv_transpose(63, 32, 0).crop_onto(CoordMap())}
    up = fc6.then_conv_transpose(3, 2, 0)
    assert maps["pool2"].crop_onto(up) == (pool2, pool2)
    fused = up.then_crop((max(-pool2, 0),) * 2)
    offsets[16] = fused.then_conv_transpose(31, 16, 0).crop_onto(CoordMap())
    up = fused.then_conv_transpose(3, 2, 0)
    assert maps["pool1"].crop_onto(up) == (pool1, pool1)
    fused = up.then_crop((max(-pool1, 0),) * 2)
    offsets[8] = fused.then_conv_transpose(15, 8, 0).crop_onto(CoordMap())
    assert offsets == {s: (crop, crop) for s, crop in last.items()}
    for s in (32, 16, 8):
        found = models.create(f"fcn{s}s_alexnet{'_paper' * paper}", 2, width=NARROW).offsets
        wanted = {"pool2": pool2, "pool1": pool1} if s == 8 else {"pool2": pool2} if s == 16 else {}
        assert found == {stage: (crop, crop) for stage, crop in (wanted | {"image": last[s]}).items()}


def copy(conv: Any, taps: Any, factor: float) -> None:
    """Channel 0 to channel 0 by these taps along both axes."""
    conv.weight.data[...], conv.bias.data[...] = 0, 0
    for i in taps:
        for j in taps:
            conv.weight.data[0, 0, i, j] = factor


@pytest.mark.parametrize("branch", [0, 1, 2], ids=["32", "16", "8"])
@pytest.mark.parametrize("name", ["fcn8s_alexnet", "fcn8s_alexnet_paper", "fcn8s_googlenet"])
def test_a_bright_pixel_is_shown_where_it_is(name: str, branch: int) -> None:
    """Weights that copy, and one bright pixel under a cell of the deepest stage, of which every pooling makes one cell:
    the response's centre of mass is that pixel, by way of each stage."""
    model = models.create(name, 1, width=NARROW, seed=0).to(np.float64).eval()
    for layer in model.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            copy(layer, [layer.kernel_size[0] // 2], 1)
    if model.head is not None:
        copy(model.head.fc6, [2, 3], 1 / 4)  # the middle of six
        copy(model.head.fc7, [0], 1)
    scores = [model.score_fr, *(getattr(model, f"score_{stage}") for stage in model.skips)]
    for k, score in enumerate(scores):
        copy(score, [0], float(k == branch))
    row, column = (64 - 3, 96 - 3) if name.endswith("paper") else (64, 96)  # 32u − 67, or 32u
    image = np.zeros((1, 3, 150, 170))
    image[0, 0, row, column] = 1
    with mf.no_grad():
        shown = model(mf.Tensor(image)).numpy()[0, 0]
    assert shown.sum() > 1
    centre = [float((shown.sum(1 - axis) * np.arange(n)).sum() / shown.sum()) for axis, n in enumerate(shown.shape)]
    assert centre == pytest.approx([row, column], abs=1e-9)


def test_all_branches_of_an_inception_leave_cells_where_they_are() -> None:
    block = Inception(2, (3, 2, 4, 2, 5, 6)).to(np.float64)
    assert block.out_channels == 3 + 4 + 5 + 6
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            copy(layer, [layer.kernel_size[0] // 2], 1)
    x = np.zeros((1, 2, 8, 9))
    x[0, 0, 3, 5] = 1
    y = block(mf.Tensor(x)).numpy()[0]
    for first in (0, 3, 7):  # 1×1, 3×3, 5×5: in that order
        assert np.array_equal(y[first], x[0, 0])
    around = np.zeros((8, 9))
    around[2:5, 4:7] = 1
    assert np.array_equal(y[12], around)  # the pooling's
    assert not np.delete(y, [0, 3, 7, 12], axis=0).any()


def test_unets_windows_nest() -> None:
    found = align(UNet(2, NARROW), size=(45, 60), sizes=range(1, 1001))
    assert found.exact
    assert found.misfits == {}
    assert [(f.stage, f.name, f.offset, f.joins) for f, _ in found.fusions] == [
        (f"down{k}", f"up{k}", (0, 0), True) for k in (4, 3, 2, 1)
    ]
    # 5 of the first pair; each level adds 1, 2, 4, 8 for its pooling and 8, 16, 32, 64 for its convolutions
    assert [stage.sees[0] for stage in found.stages] == [1, 5, 14, 32, 68, 140]
    assert [stage.cells for stage in found.stages][-2:] == [(6, 8), (3, 4)]


# ----- U-Net


def test_a_skip_comes_before_what_comes_up() -> None:
    """The copied map is on the left in the paper's figure: the first half of the channels."""
    model = UNet(1, NARROW).to(np.float64).eval()
    rng = np.random.default_rng(0)
    x = mf.Tensor(rng.standard_normal((1, 3, 8, 8)))
    model.merge1.conv1.weight.data[:, 1:] = 0  # channel 0 of 2 is down1's
    before = model(x).numpy()
    model.up1.weight.data[...] += 1
    assert np.array_equal(model(x).numpy(), before)
    model.down1.conv2.weight.data[...] += 1
    assert not np.array_equal(model(x).numpy(), before)


def test_dropout_is_at_the_end_of_the_way_down() -> None:
    model = UNet(1, NARROW)
    shapes: list[tuple[int, ...]] = []
    model.drop.register_forward_hook(lambda layer, inputs, output: shapes.append(output.shape))
    model(mf.Tensor(np.ones((1, 3, 33, 20), np.float32)))
    assert shapes == [(1, 8, 5, 3), (1, 16, 3, 2)]
    x = mf.Tensor(np.ones((1, 3, 16, 16), np.float32))
    assert model.drop.p == 0.5
    merged: list[bool] = []
    model.merge4.register_forward_hook(lambda layer, inputs, output: merged.append(output.numpy().any()))
    for model.drop.p in (0.0, 1.0):  # at 1 nothing is left of the skip either
        model(x)
    assert merged == [True, False]
    model.drop.p = 0.5
    model.eval()
    assert np.array_equal(model(x).numpy(), model(x).numpy())


def test_unets_activations_keep_their_size_at_the_start() -> None:
    """Mean squares, of the image and of the scores, are within a factor of 4; and the variance of up4 is 1/c."""
    model = models.create("unet", 8, width=1 / 8, seed=0).eval()
    assert model.up4.weight.numpy().var() * 128 == pytest.approx(1, rel=0.05)
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    with mf.no_grad():
        assert 1 / 4 < (model(mf.Tensor(x)).numpy() ** 2).mean() < 4


@pytest.mark.parametrize(
    "build", [AlexNet, GoogLeNet, lambda width: UNet(2, width)], ids=["alexnet", "googlenet", "unet"]
)
def test_biases_start_at_0_and_weights_do_not(build: Any) -> None:
    for key, p in build(NARROW).named_parameters():
        assert p.numpy().any() == key.endswith("weight"), key


@pytest.mark.parametrize("shape", [(3, 3, 8), (1, 4, 8, 8), (3, 3)])
def test_unet_says_which_shape_it_needs(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"UNet: the image has shape .*; \(N, 3, H, W\) is needed"):
        UNet(2, NARROW)(mf.Tensor(np.ones(shape, np.float32)))


def test_unets_gradients_are_right() -> None:
    model = UNet(2, NARROW).eval()
    rng = np.random.default_rng(0)
    arrays = [p.numpy().astype(np.float64) + 0.1 * rng.standard_normal(p.shape) for p in model.parameters()]
    image, labels = rng.standard_normal((1, 3, 7, 5)), rng.integers(0, 2, (1, 7, 5))

    def loss(x: mf.Tensor, *parameters: mf.Tensor) -> mf.Tensor:
        return F.cross_entropy(call_with(model, parameters, x), labels)

    checks = check_grad(loss, [image, *arrays], order=1)
    assert len(checks) == 1 + 2 * (10 + 4 + 8 + 1)

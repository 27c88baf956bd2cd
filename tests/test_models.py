"""The networks: parameter counts, crops, every image size, alignment, names, initial weights."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import minifcn as mf
from minifcn import models, nn
from minifcn.nn import init

NARROW = 1 / 64  # the narrowest width at which no channel count is rounded: 1, 2, 4, 8, 8


def learnable(module: nn.Module) -> int:
    return sum(p.size for p in module.parameters() if p.requires_grad)


def fixed(module: nn.Module) -> int:
    return sum(p.size for p in module.parameters() if not p.requires_grad)


@pytest.fixture
def without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Initial weights of 0: a full-width network is counted without drawing 134 million random numbers (np.zeros takes
    no memory before it is written to)."""
    monkeypatch.setattr(init, "kaiming_normal", lambda shape, mode="fan_in": np.zeros(shape, np.float32))
    monkeypatch.setattr(init, "uniform", lambda shape, bound: np.zeros(shape, np.float32))


# ----- parameter counts


@pytest.mark.usefixtures("without_numbers")
@pytest.mark.parametrize(
    ("name", "classes", "learned", "bilinear"),
    [
        ("fcn32s_vgg16_paper", 21, 134_346_581, 1_806_336),
        ("fcn16s_vgg16_paper", 21, 134_357_354, 458_640),
        ("fcn8s_vgg16_paper", 21, 134_362_751, 127_008),
        ("fcn8s_vgg16_paper", 11, 134_314_081, 11 * 11 * (4 * 4 + 4 * 4 + 16 * 16)),
        ("fcn8s_vgg16", 21, 134_362_751, 127_008),
    ],
)
def test_the_papers_networks_have_the_published_numbers_of_parameters(
    name: str, classes: int, learned: int, bilinear: int
) -> None:
    model = models.create(name, classes)
    assert (learnable(model), fixed(model)) == (learned, bilinear)


# torchvision's counts less its classifier, 1000·C + 1000; tensors; entries of the state
RESNETS = {
    "resnet18": (11_689_512 - 513_000, 60, 120),
    "resnet34": (21_797_672 - 513_000, 108, 216),
    "resnet50": (25_557_032 - 2_049_000, 159, 318),
    "resnet101": (44_549_160 - 2_049_000, 312, 624),
    "resnet152": (60_192_808 - 2_049_000, 465, 930),
}


@pytest.mark.usefixtures("without_numbers")
@pytest.mark.parametrize("name", RESNETS)
def test_resnets_have_torchvisions_numbers_of_parameters(name: str) -> None:
    backbone = models.ResNet(name)
    numbers, tensors, entries = RESNETS[name]
    assert learnable(backbone) == numbers
    assert len(list(backbone.parameters())) == tensors
    assert len(backbone.state_dict()) == entries


# torchvision's counts, three fully connected layers of 123,642,856 included
VGGS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


@pytest.mark.usefixtures("without_numbers")
@pytest.mark.parametrize("name", VGGS)
def test_vggs_have_torchvisions_numbers_of_parameters(name: str) -> None:
    assert learnable(models.VGG(name)) == VGGS[name] - 123_642_856


def test_vgg16_has_torchvisions_convolutions() -> None:
    backbone = models.VGG("vgg16", NARROW)
    at = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(backbone.state_dict()) == [f"features.{k}.{part}" for k in at for part in ("weight", "bias")]
    assert backbone.features[28].weight.shape == (8, 8, 3, 3)


def test_vgg11_bn_has_torchvisions_layers() -> None:
    """Its conv → batch norm → ReLU, by place."""
    backbone = models.VGG("vgg11_bn", NARROW)
    kinds = [type(layer).__name__ for layer in backbone.features]
    conv = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds == [*conv, "MaxPool2d", *conv, "MaxPool2d", *(2 * conv + ["MaxPool2d"]) * 3]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert list(backbone.state_dict()) == [
        key
        for k in (0, 4, 8, 11, 15, 18, 22, 25)
        for key in (f"features.{k}.weight", f"features.{k}.bias", *(f"features.{k + 1}.{part}" for part in norm))
    ]


@pytest.mark.usefixtures("without_numbers")
@pytest.mark.parametrize(("name", "numbers"), [("fcn_resnet50", 35_322_218), ("fcn_resnet101", 54_314_346)])
def test_dilated_networks_have_the_published_numbers_of_parameters(name: str, numbers: int) -> None:
    """Of torchvision's files, whose second classifier has 2,359,296 + 512 + 5,397 of them."""
    assert learnable(models.create(name, aux=True)) == numbers
    assert learnable(models.create(name)) == numbers - 2_365_205


def test_dilated_networks_have_torchvisions_dropout_and_outputs() -> None:
    model = models.create("fcn_resnet50", 3, width=NARROW, seed=0, aux=True).eval()
    assert (model.classifier[3].p, model.aux_classifier[3].p) == (0.1, 0.1)
    x = mf.Tensor(np.random.default_rng(0).standard_normal((2, 3, 20, 31)).astype(np.float32))
    both = model.outputs(x)
    assert {key: y.shape for key, y in both.items()} == {"out": (2, 3, 20, 31), "aux": (2, 3, 20, 31)}
    assert np.array_equal(both["out"], model(x))
    assert not np.array_equal(both["out"], both["aux"])
    assert list(models.create("fcn_resnet50", 3, width=NARROW, seed=0).eval().outputs(x)) == ["out"]


def test_dilation_takes_the_place_of_stride() -> None:
    """torchvision's replace_stride_with_dilation=[False, True, True]: a layer's first block has the dilation of the
    layer before."""
    resnet = models.ResNet("resnet50", NARROW, dilated=True)
    for layer, stride, first, later in (("layer2", 2, 1, 1), ("layer3", 1, 1, 2), ("layer4", 1, 2, 4)):
        convs = [block.conv2 for block in getattr(resnet, layer)]
        assert [conv.stride[0] for conv in convs] == [stride, *[1] * (len(convs) - 1)]
        assert [conv.dilation[0] for conv in convs] == [first, *[later] * (len(convs) - 1)]
        assert getattr(resnet, layer)[0].downsample[0].stride == (stride, stride)
    maps = models.fcn.coord_maps(resnet.layers())
    assert maps["layer2"] == maps["layer3"] == maps["layer4"]
    assert maps["layer4"] == models.fcn.coord_maps(models.ResNet("resnet18", NARROW).layers())["layer2"]


def test_backbones_take_images_of_other_channels() -> None:
    for backbone in (models.VGG("vgg11", NARROW, in_channels=4), models.ResNet("resnet18", NARROW, in_channels=4)):
        found = backbone(mf.Tensor(np.ones((1, 4, 32, 64), np.float32)))
        assert {stage: x.shape[1] for stage, x in found.items()} == backbone.channels
    with pytest.raises(ValueError, match="has shape \\(1, 3, 8, 8\\); \\(N, 4, H, W\\) is needed"):
        models.FCNResNet("resnet50", 2, NARROW, in_channels=4)(mf.Tensor(np.ones((1, 3, 8, 8), np.float32)))


def test_backbones_that_do_not_exist_are_refused() -> None:
    with pytest.raises(
        ValueError, match="VGG: name is 'vgg12'; one of vgg11, vgg13, vgg16, vgg19, vgg11_bn, .* needed"
    ):
        models.VGG("vgg12")
    with pytest.raises(ValueError, match="ResNet: name is 'resnet20'; one of resnet18, .* needed"):
        models.ResNet("resnet20")
    with pytest.raises(
        ValueError, match="resnet34 has no bottlenecks to dilate; one of resnet50, resnet101, resnet152"
    ):
        models.ResNet("resnet34", dilated=True)
    with pytest.raises(ValueError, match="FCNResNet: name is 'resnet152'; one of resnet50, resnet101 is needed"):
        models.FCNResNet("resnet152", 2)


def test_resnets_have_torchvisions_names() -> None:
    """A literal excerpt of torchvision's state_dict keys: first, last, and a block with a shortcut of its own."""
    basic = set(models.ResNet("resnet18", NARROW).state_dict())
    assert {
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
        "layer1.0.conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.conv2.weight",
        "layer1.0.bn2.weight",
        "layer2.0.conv1.weight",
        "layer2.0.conv2.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.weight",
        "layer2.0.downsample.1.running_mean",
        "layer4.1.bn2.num_batches_tracked",
    } <= basic
    assert not any(k.startswith("layer1.0.downsample") or "conv3" in k for k in basic)
    deep = models.ResNet("resnet101", NARROW).state_dict()
    assert {
        "layer1.0.downsample.0.weight",
        "layer1.2.conv3.weight",
        "layer3.22.bn3.running_var",
        "layer4.2.bn3.bias",
    } <= set(deep)
    assert "layer3.23.conv1.weight" not in deep
    strided = models.ResNet("resnet50", NARROW).layer2[0]
    assert (strided.conv1.stride, strided.conv2.stride) == ((1, 1), (2, 2))  # torchvision's choice, "v1.5"


def test_the_heads_names() -> None:
    def names(model: str) -> list[str]:
        return sorted(
            {
                k.rpartition(".")[0]
                for k in models.create(model, 3, width=NARROW).state_dict()
                if not k.startswith("backbone")
            }
        )

    assert names("fcn8s_vgg16_paper") == sorted(
        ["head.fc6", "head.fc7", "score_fr", "score_pool4", "score_pool3", "upscore2", "upscore_pool4", "upscore8"]
    )
    assert names("fcn16s_vgg16") == sorted(["head.fc6", "head.fc7", "score_fr", "score_pool4", "upscore2", "upscore16"])
    assert names("fcn32s_resnet18") == ["score_fr", "upscore32"]
    assert names("fcn8s_resnet101_aligned") == sorted(
        ["score_fr", "score_layer3", "score_layer2", "upscore2", "upscore_layer3", "upscore8"]
    )
    assert names("fcn16s_decoder_vgg16") == sorted(
        [*(f"{part}{k}" for k in range(1, 6) for part in ("up", "bn")), "classifier"]
    )


# ----- crops and alignment as numbers


@pytest.mark.parametrize(
    ("name", "crops"),
    [
        ("fcn32s_vgg16_paper", {"image": 19}),
        ("fcn16s_vgg16_paper", {"pool4": 5, "image": 27}),
        *((f"fcn8s_{vgg}_paper", {"pool4": 5, "pool3": 9, "image": 31}) for vgg in VGGS),
        ("fcn8s_atonce_vgg16_paper", {"pool4": 5, "pool3": 9, "image": 31}),
    ],
)
def test_the_papers_crops_are_derived(name: str, crops: dict[str, int]) -> None:
    model = models.create(name, 3, width=NARROW)
    assert model.offsets == {stage: (Fraction(crop), Fraction(crop)) for stage, crop in crops.items()}
    assert model.misalignment == {}


@pytest.mark.parametrize(
    "name", [f"fcn{s}s_{b}" for s in (32, 16, 8) for b in (*VGGS, "resnet18_aligned", "resnet152_aligned")]
)
def test_aligned_networks_crop_nothing(name: str) -> None:
    model = models.create(name, 3, width=NARROW)
    assert set(model.offsets.values()) == {(Fraction(0), Fraction(0))}
    assert model.misalignment == {}


@pytest.mark.parametrize("backbone", RESNETS)
def test_the_articles_head_says_how_far_off_it_is(backbone: str) -> None:
    """Cell u of a 4/2/1 layer lies at (u − 1/2)/2 cells of its input: 16u − 8 pixels, half a cell from 16u. Another
    time: 8u − 12, and 16/8/4 makes v − 31/2 of it."""
    model = models.create(f"fcn8s_{backbone}", 3, width=NARROW)
    wanted = {"layer3": Fraction(-1, 2), "layer2": Fraction(-3, 2), "image": Fraction(31, 2)}
    assert model.misalignment == {stage: (offset, offset) for stage, offset in wanted.items()}


@pytest.mark.parametrize("first_padding", [100, 1, 97, 64])
def test_crops_follow_the_first_padding(first_padding: int) -> None:
    """pool4 5 and pool3 9 whatever the padding, and the image's padding − 69."""
    vgg = models.VGG(width=NARROW, first_padding=first_padding)
    head = models.fcn.FullyConnected(vgg.channels["pool5"], 64, padding=0)
    crops = models.FCN(vgg, 3, 8, "paper", head).offsets
    assert [int(crops[k][0]) for k in ("pool4", "pool3", "image")] == [5, 9, first_padding - 69]


def test_a_head_that_no_crop_aligns_is_refused() -> None:
    with pytest.raises(ValueError, match="no crop aligns"):
        models.FCN(models.ResNet("resnet18", NARROW), 3, 8, "paper")
    with pytest.raises(ValueError, match="no crop aligns"):
        models.FCN(models.VGG(width=NARROW), 3, 8, "aligned")
    with pytest.raises(ValueError, match="stride is 4; 8, 16 or 32 is needed"):
        models.FCN(models.VGG(width=NARROW), 3, 4, "same")
    with pytest.raises(ValueError, match="upsampling is 'bilinear'; one of paper, odd, same, aligned is needed"):
        models.FCN(models.VGG(width=NARROW), 3, 8, "bilinear")


# ----- alignment as behaviour


def copy_channel_0(conv: Any) -> None:
    """The centre tap of channel 0 to channel 0, and nothing else."""
    conv.weight.data[...] = 0
    i, j = (k // 2 for k in conv.kernel_size)
    conv.weight.data[0, 0, i, j] = 1
    if conv.bias is not None:
        conv.bias.data[...] = 0


def copy_through_backbone(backbone: Any, residual: bool) -> None:
    """Weights with which a backbone copies channel 0 of the image to channel 0 of every stage."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            copy_channel_0(module)
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.data[...] = 1 - module.eps  # √(var + eps) = 1
    for module in backbone.modules():
        if not hasattr(module, "downsample"):
            continue
        last = module.bn3 if hasattr(module, "bn3") else module.bn2
        if module.downsample is None or not residual:
            last.weight.data[...] = 0  # the block is its shortcut
        else:
            module.downsample[1].weight.data[...] = 0  # the block is its convolutions


def make_copy(model: Any, branch: str, residual: bool) -> None:
    """Weights with which the network copies channel 0 of the image through its layers, up to `branch`'s scores, and
    bilinear filters bring it back; the other branches' scores are 0."""
    model.to(np.float64).eval()
    copy_through_backbone(model.backbone, residual)
    if model.head is not None:
        copy_channel_0(model.head.fc6)
        copy_channel_0(model.head.fc7)
    for name, module in model.named_modules():
        if name.startswith("score_"):
            copy_channel_0(module)
            module.weight.data[...] *= name == branch


def coordinates(model: Any, size: int = 160) -> np.ndarray:
    """(2, H, W): the row and the column that every output pixel shows, for a network that copies its input.

    A maximum of rising numbers lies at its window's far corner, and of falling numbers at its near corner; the middle
    of the two is the window's centre, so each coordinate goes through once rising and once falling.
    """
    rows, columns = np.meshgrid(np.arange(size) + 1.0, np.arange(size) + 1.0, indexing="ij")
    x = np.zeros((4, 3, size, size))
    x[:, 0] = rows, size + 1 - rows, columns, size + 1 - columns
    with mf.no_grad():
        y = model(mf.Tensor(x)).numpy()[:, 0]
    rising, falling = y[::2], size + 1 - y[1::2]
    return (rising + falling) / 2 - 1


INTERIOR = slice(64, 96)  # two cells of 32 pixels from the border, where zeros come in
VGG_BRANCHES, RESNET_BRANCHES = (
    ("score_fr", "score_pool4", "score_pool3"),
    ("score_fr", "score_layer3", "score_layer2"),
)


def shift(name: str, branch: str, residual: bool = False) -> tuple[float, float]:
    """By how many pixels (down, right) the network shows the image displaced, through one branch."""
    model = models.create(name, 2, width=NARROW, seed=0)
    make_copy(model, branch, residual)
    shown = coordinates(model)[:, INTERIOR, INTERIOR]
    at = np.arange(160.0)[INTERIOR]
    down, right = at[:, None] - shown[0], at[None, :] - shown[1]
    assert np.ptp(down) < 1e-9  # the same everywhere: a displacement, and bilinear up to rounding
    assert np.ptp(right) < 1e-9
    return float(down.mean()), float(right.mean())


EXACT = [
    *(
        (f"fcn{s}s_vgg16{v}", b)
        for v in ("", "_paper")
        for n, s in enumerate((32, 16, 8))
        for b in VGG_BRANCHES[: n + 1]
    ),
    *(
        (f"fcn{s}s_{r}_aligned", b)
        for r in ("resnet18", "resnet50")
        for n, s in enumerate((32, 16, 8))
        for b in RESNET_BRANCHES[: n + 1]
    ),
    *((f"fcn8s_{vgg}", b) for vgg in ("vgg11", "vgg19_bn") for b in VGG_BRANCHES),
]


@pytest.mark.parametrize(("name", "branch"), EXACT)
def test_every_branch_of_an_aligned_network_shows_a_pixel_where_it_is(name: str, branch: str) -> None:
    assert shift(name, branch) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("name", ["fcn8s_resnet18_aligned", "fcn8s_resnet101_aligned"])
def test_residual_branches_lie_where_their_shortcuts_do(name: str) -> None:
    for branch in RESNET_BRANCHES:
        assert shift(name, branch, residual=True) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize(("branch", "pixels"), [("score_fr", 15.5), ("score_layer3", 7.5), ("score_layer2", 3.5)])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_articles_head_shows_each_stage_displaced_by_another_distance(
    backbone: str, branch: str, pixels: float
) -> None:
    """8 + 4 + 3½, 4 + 3½ and 3½ pixels: what misalignment says in cells, seen in an image."""
    assert shift(f"fcn8s_{backbone}", branch) == pytest.approx((pixels, pixels), abs=1e-9)


@pytest.mark.parametrize("residual", [False, True])
def test_bilinear_interpolation_shows_what_a_dilated_network_sees_three_and_a_half_pixels_away(residual: bool) -> None:
    """It takes the cells for the middles of blocks of 8 pixels; they lie on the first pixels of these blocks."""
    model = models.create("fcn_resnet50", 2, width=NARROW, seed=0).to(np.float64).eval()
    copy_through_backbone(model.backbone, residual)
    copy_through_backbone(model.classifier, residual)
    down, right = np.indices((160, 160)) - coordinates(model)
    for displaced in (down, right):
        np.testing.assert_allclose(displaced[INTERIOR, INTERIOR], 3.5, atol=1e-9)


# ----- image sizes


def scores(model: nn.Module, height: int, width: int, batch: int = 1) -> np.ndarray:
    with mf.no_grad():
        return model(mf.Tensor(np.ones((batch, 3, height, width), np.float32))).numpy()


@pytest.mark.parametrize(
    "name",
    [
        "fcn8s_vgg16",
        "fcn8s_resnet18",
        "fcn8s_resnet18_aligned",
        "fcn16s_decoder_vgg16",
        "fcn16s_decoder_resnet18",
        "fcn_resnet50",
    ],
)
def test_every_size_from_1_to_130_works(name: str) -> None:
    model = models.create(name, 2, width=NARROW, seed=0).eval()
    for height in range(1, 131):
        width = 1 + height * 57 % 131  # 57 generates all residues: widths are a shuffle of 1 … 130
        assert scores(model, height, width).shape == (1, 2, height, width)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_every_size_works_for_the_papers_networks(stride: int) -> None:
    """The crops depend on sizes modulo 32 only, so one full period of heights, and widths from 1 on."""
    model = models.create(f"fcn{stride}s_vgg16_paper", 2, width=NARROW, seed=0).eval()
    for height, width in zip(range(1, 34), (*range(33, 0, -2), *range(100, 116)), strict=True):
        assert scores(model, height, width).shape == (1, 2, height, width)


@pytest.mark.parametrize("name", models.available())
def test_every_model_can_be_made_and_returns_the_images_size(name: str) -> None:
    model = models.create(name, 5, width=NARROW, seed=0).eval()
    for height, width in ((1, 1), (33, 50), (45, 60)):
        out = scores(model, height, width, batch=2)
        assert out.shape == (2, 5, height, width)
        assert out.dtype == np.float32
        assert np.isfinite(out).all()


@pytest.mark.parametrize("size", [360, 375, 500])
def test_sizes_at_which_the_articles_code_stops(size: int) -> None:
    model = models.create("fcn8s_resnet101", 2, width=NARROW, seed=0).eval()
    assert scores(model, size, 64).shape == (1, 2, size, 64)


# ----- initial weights


def test_scores_start_at_zero_on_vgg_and_upsampling_is_bilinear_and_fixed() -> None:
    model = models.create("fcn8s_vgg16", 3, width=NARROW, seed=0).eval()
    assert not scores(model, 40, 40).any()
    row = np.array([0.25, 0.75, 0.75, 0.25])  # 1 − |i − 3/2| / 2
    for layer in (model.upscore2, model.upscore_pool4):
        assert not layer.weight.requires_grad
        np.testing.assert_allclose(layer.weight.numpy(), np.einsum("oc,ij->ocij", np.eye(3), np.outer(row, row)))
    row = (np.arange(16) * 2 + 1) / 16
    row = np.minimum(row, row[::-1])
    np.testing.assert_allclose(model.upscore8.weight.numpy()[1, 1], np.outer(row, row), rtol=1e-6)
    article = models.create("fcn8s_resnet18", 3, width=NARROW, seed=0)
    assert all(p.requires_grad for p in article.parameters())
    assert article.score_fr.weight.numpy().any()
    odd = models.create("fcn8s_resnet18_aligned", 3, width=NARROW, seed=0).upscore2.weight.numpy()[2, 2]
    np.testing.assert_allclose(odd, np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]))


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn8s_resnet18", "fcn16s_decoder_vgg16"])
def test_initial_weights_follow_the_seed(name: str) -> None:
    def state(**options: Any) -> np.ndarray:
        model = models.create(name, 3, width=1 / 16, **options)
        return np.concatenate([p.numpy().ravel() for p in model.parameters()])

    before = mf.random.get_state()
    assert np.array_equal(state(seed=3), state(seed=3))
    assert not np.array_equal(state(seed=3), state(seed=4))
    assert mf.random.get_state() == before  # a seed of its own leaves the library's stream alone
    try:
        mf.manual_seed(3)
        first, second = state(), state()
        assert np.array_equal(first, state(seed=3))
        assert not np.array_equal(first, second)
        mf.manual_seed(3)
        assert np.array_equal(state(), first)
    finally:
        mf.random.set_state(before)


def test_no_two_layers_start_with_the_same_weights() -> None:
    model = models.create("fcn8s_vgg16", 3, width=1 / 16, seed=0)
    a, b = (model.backbone.features[k].weight.numpy() for k in (26, 28))
    assert a.shape == b.shape
    assert not np.array_equal(a, b)


# ----- names and faults


def test_available_lists_every_family() -> None:
    paper = ("", "_paper")
    wanted = [f"fcn{s}s_{b}{v}" for s in (32, 16, 8) for b in (*VGGS, "alexnet") for v in paper]
    wanted += [f"fcn{s}s_{b}{v}" for s in (32, 16, 8) for b in RESNETS for v in ("", "_aligned")]
    wanted += [f"fcn{s}s_googlenet" for s in (32, 16, 8)]
    wanted += [f"fcn16s_decoder_{b}" for b in (*VGGS, *RESNETS)]
    wanted += [f"fcn8s_atonce_{b}{v}" for b in VGGS for v in paper]
    wanted += ["fcn_resnet50", "fcn_resnet101", "unet", "hed"]
    assert sorted(models.available()) == sorted(wanted)
    assert len(VGGS) == 8
    assert len(RESNETS) == 5


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("fcn8s_vgg-16", "fcn8s_vgg16"),
        ("fcn8s_vgg61", "fcn8s_vgg16"),
        ("FCN8s_resnet101", "fcn8s_resnet101"),
        ("fcn8s_resnet18_alinged", "fcn8s_resnet18_aligned"),
        ("fcn16s_decoder_resnet_34", "fcn16s_decoder_resnet34"),
    ],
)
def test_a_typo_gets_the_nearest_name(typo: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"no model '{typo}'; did you mean '{meant}'"):
        models.create(typo)


def test_nonsense_gets_a_sentence_too() -> None:
    with pytest.raises(ValueError, match="there is no model '';"):
        models.create("")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"num_classes": 0}, "num_classes is 0"), ({"width": 0.0}, "width is 0"), ({"width": -1.0}, "width is -1")],
)
def test_options_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        models.create("fcn8s_vgg16", **options)


# ----- initial weights


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (lambda: models.VGG("vgg16", width=1 / 4), "features.24"),
        (lambda: models.AlexNet(width=1 / 2), "conv3"),
        (lambda: models.GoogLeNet(width=1 / 2), "inception_4e.conv3x3"),
        (lambda: models.UNet(2, width=1 / 4), "down4.conv2"),
    ],
)
def test_convolutions_begin_with_the_variance_that_keeps_activations(build: Any, layer: str) -> None:
    """He et al. 2015: 2 over the number of a filter's taps in all channels (fan_in); biases begin at 0."""
    mf.manual_seed(0)
    conv = dict(build().named_modules())[layer]
    w = conv.weight.numpy()
    assert w.var() == pytest.approx(2 / w[0].size, rel=0.05)
    assert not conv.bias.numpy().any()
    assert w.shape[0] != w.shape[1] or layer in ("features.24", "down4.conv2")  # where fan_out is another number

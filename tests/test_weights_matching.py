"""Loading weights: what a report says, that a network is loaded whole or not at all, and the command."""

import sys
import types

import numpy as np
import pytest

import minifcn as mf
from minifcn import models, nn
from minifcn.cli import main
from minifcn.models.inputs import CAFFE, TORCHVISION, Input, fold
from minifcn.training.checkpoint import ModelCard, load_model, save_weights
from minifcn.training.files import write_arrays
from minifcn.weights.matching import match


def small():
    """Two convolutions, with the names 0.weight, 0.bias, 1.weight, 1.bias."""
    mf.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 5, 1))


def values(model, dtype=np.float32):
    """Other values for each of a network's names."""
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=tensor.shape).astype(dtype) for name, tensor in model.state_dict().items()}


def values_of(model):
    """A network's own values."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def bits(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def refused(model, arrays, **options):
    """The sentence with which weights are refused, after which the network is what it was."""
    before = bits(model)
    with pytest.raises(ValueError, match=r"^load: ") as error:
        mf.weights.load(model, arrays, **options)
    assert bits(model) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def equal(model, arrays):
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), arrays[name], err_msg=name)


# -- names


@pytest.mark.parametrize(
    "front",
    [
        *("", "module.", "model.", "_orig_mod.", "module._orig_mod.", "state_dict.", "model_state_dict.module."),
        *("model.module.", "net.", "model/"),
    ],
)
def test_fronts_come_off(front):
    model, arrays = small(), values(small())
    report = mf.weights.load(model, {front + name: array for name, array in arrays.items()})
    assert report.prefix == front
    assert report.layout == "minifcn's own names"
    assert report.matched == ("0.weight", "0.bias", "1.weight", "1.bias")
    equal(model, arrays)


def test_a_front_that_belongs_to_the_network_stays():
    model = nn.Sequential()
    model.model = small()
    arrays = values(model)
    assert next(iter(arrays)) == "model.0.weight"
    assert mf.weights.load(model, arrays).prefix == ""
    equal(model, arrays)
    report = mf.weights.load(model, {f"module.{name}": array for name, array in arrays.items()})
    assert report.prefix == "module."


def test_what_lies_beside_a_state_dict_is_not_needed():
    model, arrays = small(), values(small())
    beside = {"optim_state_dict.state.0": np.zeros(3), "optimizer.0.exp_avg": np.zeros(3), "epoch": np.array(3)}
    beside |= {"lr_scheduler.last": np.zeros(1), "best_mean_iu": np.array(0.5), "iteration": np.array(1)}
    report = mf.weights.load(model, {f"model.{name}": array for name, array in arrays.items()} | beside)
    assert sorted(report.dropped) == sorted(beside)
    equal(model, arrays)


def test_equal_layouts_are_taken_for_our_own():
    model = models.VGG("vgg11", width=1 / 32)  # torchvision's names are minifcn's
    report = mf.weights.load(model, values(model))
    assert report.layout == "minifcn's own names"
    assert report.input == "the names do not tell what the network was trained on; nothing was rewritten"


# -- what does not fit


def test_missing_and_unexpected_names_are_given_the_nearest():
    arrays = values(small())
    arrays["1.wieght"] = arrays.pop("1.weight")
    arrays["elsewhere"] = np.zeros(7)
    text = refused(small(), arrays)
    assert text == (
        "load: the arrays and this Sequential do not fit (minifcn's own names, 3 matched) — "
        "1 missing: 1.weight (5, 2, 1, 1), nearest: 1.wieght (5, 2, 1, 1) — "
        "2 unexpected: 1.wieght (5, 2, 1, 1), nearest: 1.weight (5, 2, 1, 1); elsewhere (7,); "
        "strict=False loads what fits"
    )


def test_the_nearest_are_near_by_shape_and_by_name():
    model = nn.Sequential()
    model.score = nn.Conv2d(4, 3, 1)
    near = {"score_a.weight": np.zeros((9, 9)), "scale.weight": np.zeros((3, 4, 1, 1)), "zzz": np.zeros((3, 4, 1, 1))}
    (odd, _) = match(model, near).report.missing
    assert odd.name == "score.weight"
    assert odd.nearest == ("scale.weight (3, 4, 1, 1)", "score_a.weight (9, 9)")  # the right shape comes first
    for shape, nearest in (((9, 9), ()), ((3, 4, 1, 1), ("score.bias_of_another (3, 4, 1, 1)",))):
        far = {"score.bias_of_another": np.zeros(shape)}  # the names are alike to 0.42
        assert match(model, far).report.missing[0].nearest == nearest


def test_another_number_of_classes():
    model = models.create("fcn8s_vgg16_paper", num_classes=7, width=1 / 32)
    arrays = values(models.create("fcn8s_vgg16_paper", num_classes=21, width=1 / 32))
    text = refused(model, arrays)
    assert "mis-shaped: score_fr.weight is (21, 128, 1, 1) and should be (7, 128, 1, 1); score_fr.bias is (21,)" in text
    assert "the file is of 21 classes and the network of 7; one created with num_classes=21 takes these layers" in text
    assert text.endswith("strict=False loads what fits")
    before = model.score_fr.weight.numpy().copy()
    report = mf.weights.load(model, arrays, strict=False)
    assert len(report.misshaped) == 9  # three score layers and three upsamplings
    np.testing.assert_array_equal(model.score_fr.weight.numpy(), before)
    np.testing.assert_array_equal(model.head.fc7.weight.numpy(), arrays["head.fc7.weight"])


def test_another_width_is_not_taken_for_another_number_of_classes():
    model = models.create("fcn_resnet50", num_classes=3, width=1 / 32)
    text = refused(model, values(models.create("fcn_resnet50", num_classes=3, width=1 / 16)))
    assert "mis-shaped: backbone.conv1.weight is (4, 3, 7, 7) and should be (2, 3, 7, 7)" in text
    assert "num_classes" not in text


def test_a_file_of_another_layout_names_both_sides():
    model = models.create("fcn32s_vgg16", num_classes=2, width=1 / 32)
    (entry,) = match(model, {"conv1_2.weight": np.zeros((9, 9))}).report.misshaped
    assert str(entry) == (
        "backbone.features.2.weight (conv1_2.weight in the file) is (9, 9) and should be (2, 2, 3, 3)"
    )


def test_what_fits_is_loaded_when_asked():
    model, arrays = small(), values(small())
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    file = {"0.weight": arrays["0.weight"], "1.weight": np.zeros((4, 2, 1, 1)), "other": np.zeros(1)}
    report = mf.weights.load(model, file, strict=False)
    assert report.matched == ("0.weight",)
    assert [odd.name for odd in report.missing] == ["0.bias", "1.bias"]
    assert [odd.name for odd in report.unexpected] == ["other"]
    assert [entry.target for entry in report.misshaped] == ["1.weight"]
    assert not report.fits
    equal(model, before | {"0.weight": arrays["0.weight"]})


def test_nothing_fits():
    for strict in (True, False):
        assert refused(small(), {"other": np.zeros(3)}, strict=strict).endswith("other (3,); nothing fits")
    assert "nothing fits" in refused(small(), {}, strict=False)


def test_an_unneeded_array_is_a_fault_all_the_same():
    assert "unexpected: extra (3,)" in refused(small(), values(small()) | {"extra": np.zeros(3)})


def test_two_arrays_for_one_parameter():
    model = models.create("fcn32s_vgg16", num_classes=2, width=1 / 32)
    file = {"score_fr.weight": np.ones((2, 128, 1, 1)), "score_fr_sem.weight": np.zeros((2, 128, 1, 1))}
    report = mf.weights.load(model, file, strict=False)
    assert [odd.name for odd in report.unexpected] == ["score_fr_sem.weight"]
    assert (model.score_fr.weight.numpy() == 1).all()


def test_long_lists_are_cut():
    many = values(small()) | {f"extra{k}": np.zeros(k) for k in range(2000)}
    many["1.weights"] = many.pop("1.weight")  # the nearest are looked for where they are shown, as that takes time
    assert match(small(), many).report.unexpected[-1].nearest == ()
    many["1.weight"] = many.pop("1.weights")
    text = refused(small(), many)
    assert text.endswith("extra2 (2,); … and 1997 more; strict=False loads what fits")


def test_counters_may_be_missing():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    arrays = values(model)
    counter = arrays.pop("1.num_batches_tracked")
    assert mf.weights.load(model, arrays).fits
    equal(model, arrays | {"1.num_batches_tracked": counter * 0})


def test_only_fixed_bilinear_filters_may_be_missing():
    model = models.create("fcn32s_vgg16", num_classes=2, width=1 / 32)
    arrays = values(model)
    arrays.pop("upscore32.weight")
    assert mf.weights.load(model, arrays).kept == ("upscore32.weight",)
    learned = models.create("fcn32s_vgg16", num_classes=2, width=1 / 32)
    learned.upscore32.weight.requires_grad = True
    assert "missing: upscore32.weight" in refused(learned, arrays)
    other = models.create("fcn32s_vgg16", num_classes=2, width=1 / 32)
    other.upscore32.weight.data[0, 0, 0, 0] += 1
    assert "missing: upscore32.weight" in refused(other, arrays)
    frozen = models.create("fcn32s_vgg16", num_classes=2, width=1 / 32).requires_grad_(False)
    assert "missing: head.fc6.bias" in refused(frozen, {n: a for n, a in arrays.items() if n != "head.fc6.bias"})


# -- values


@pytest.mark.parametrize("theirs", [np.float16, np.float64, np.float32])
@pytest.mark.parametrize("ours", [np.float32, np.float64])
def test_dtypes(theirs, ours):
    model, arrays = small().to(ours), values(small(), theirs)
    report = mf.weights.load(model, arrays)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == ours
        np.testing.assert_array_equal(tensor.numpy(), arrays[name].astype(ours))
    converted = f"4 arrays converted from {np.dtype(theirs)} to {np.dtype(ours)}"
    assert report.notes == ((converted,) if theirs != ours else ())


@pytest.mark.parametrize("odd", [np.array(["a"] * 5), np.array([None] * 5), np.zeros(5, np.complex64)])
def test_anything_but_real_numbers_is_refused(odd):
    model = small()
    before = bits(model)
    with pytest.raises(TypeError, match=r"^load: 1\.bias is an array of .*; real numbers are needed$"):
        mf.weights.load(model, values(model) | {"1.bias": odd})
    assert bits(model) == before


def test_values_that_are_not_finite_are_said():
    arrays = values(small())
    arrays["0.bias"][:] = np.nan, np.inf
    arrays["1.bias"][2] = -np.inf
    report = mf.weights.load(small(), arrays)
    assert report.fits
    assert report.notes == ("NOT all finite: 0.bias has 1 NaN and 1 Inf; 1.bias has 0 NaN and 1 Inf",)


def test_sources(tmp_path):
    arrays = values(small())
    write_arrays(tmp_path / "w.pth", {f"module.{name}": array for name, array in arrays.items()})
    for source in (tmp_path / "w.pth", str(tmp_path / "w.pth"), {n: mf.Tensor(a) for n, a in arrays.items()}):
        model = small()
        mf.weights.load(model, source)
        equal(model, arrays)
    del arrays["1.bias"]
    write_arrays(tmp_path / "less.npz", arrays)
    assert f"load: {tmp_path / 'less.npz'} and this Sequential do not fit" in refused(small(), tmp_path / "less.npz")
    with pytest.raises(FileNotFoundError):
        mf.weights.load(small(), tmp_path / "none")


# -- what images the weights expect

VGG11 = [f"conv{b}_{k}" for b, depth in enumerate((1, 1, 2, 2, 2), start=1) for k in range(1, depth + 1)]


def caffe_file():
    """A VGG-11 with Caffe's names, and weights of a size that suits images from 0 to 255."""
    model = models.VGG("vgg11", width=1 / 8)
    convs = [name.removesuffix(".weight") for name in model.state_dict() if name.endswith("weight")]
    rng = np.random.default_rng(2)
    return {
        f"{there}.{kind}": (rng.normal(size=model.state_dict()[f"{here}.{kind}"].shape) / 100).astype(np.float32)
        for there, here in zip(VGG11, convs, strict=True)
        for kind in ("weight", "bias")
    }


def first_layer(model, image, convention):
    out = model.features[0](mf.Tensor(convention.prepare(image)[None])).numpy()
    return out[..., 1:-1, 1:-1]  # at the border, padding is another colour


def test_the_first_convolution_is_rewritten():
    image = np.random.default_rng(3).integers(0, 256, (12, 13, 3), np.uint8)
    asis, model, other = (models.VGG("vgg11", width=1 / 8) for _ in range(3))
    report = mf.weights.load(asis, caffe_file(), given=None)
    assert report.input.startswith("the network must be given BGR 0 … 255, minus")
    expected = first_layer(asis, image, CAFFE)
    report = mf.weights.load(model, caffe_file())
    assert report.input.startswith(
        "trained on BGR 0 … 255, minus (104.00699, 116.66877, 122.67892); the first convolution"
    )
    assert "was rewritten for RGB 0 … 1, minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)" in str(report)
    np.testing.assert_allclose(first_layer(model, image, TORCHVISION), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(first_layer(model, image, CAFFE) - expected).max() > 1
    mine = Input("RGB", 255, (1, 2, 3), (4, 5, 6))
    mf.weights.load(other, caffe_file(), given=mine)
    np.testing.assert_allclose(first_layer(other, image, mine), expected, rtol=1e-4, atol=1e-4)
    for name, tensor in model.state_dict().items():  # all the rest is as it was
        if not name.startswith("features.0."):
            np.testing.assert_array_equal(tensor.numpy(), asis.state_dict()[name].numpy())
    report = mf.weights.load(asis, caffe_file(), given=CAFFE)
    assert "which it will be given; nothing was rewritten" in report.input
    np.testing.assert_array_equal(first_layer(asis, image, CAFFE), expected)


def test_half_precision_is_rewritten_in_single():
    arrays = {name: array.astype(np.float16) for name, array in caffe_file().items()}
    wide = {name: array.astype(np.float32) for name, array in arrays.items()}
    one, two = (models.VGG("vgg11", width=1 / 8) for _ in range(2))
    mf.weights.load(one, arrays)
    mf.weights.load(two, wide)
    assert bits(one) == bits(two)


def test_names_that_mislead():
    """Caffe's VGG-16 is about under torchvision's names."""
    names = dict(zip(VGG11, (0, 3, 6, 8, 11, 13, 16, 18), strict=True))
    file = {f"features.{names[n[:7]]}.{n[8:]}": array for n, array in caffe_file().items()}
    misled, told, caffe = (models.VGG("vgg11", width=1 / 8) for _ in range(3))
    assert mf.weights.load(misled, file).input.endswith("nothing was rewritten")
    mf.weights.load(told, file, trained=CAFFE)
    mf.weights.load(caffe, caffe_file())
    assert bits(told) == bits(caffe) != bits(misled)


def test_a_first_convolution_that_is_not_loaded_is_not_rewritten():
    file = caffe_file()
    file["conv1_1.weight"] = np.zeros((8, 4, 3, 3))
    report = mf.weights.load(models.VGG("vgg11", width=1 / 8), file, strict=False)
    assert report.input.endswith("the first convolution is not among what fits, so it was not rewritten")


def test_what_cannot_be_rewritten_is_refused():
    resnet = models.ResNet("resnet18", width=1 / 16)
    text = refused(resnet, values(resnet), trained=CAFFE)
    assert text.startswith("load: conv1.weight (4, 3, 7, 7) cannot be rewritten from BGR")
    assert "a bias and three channels are needed, or given=None" in text
    mf.weights.load(resnet, values(resnet), trained=CAFFE, given=None)
    deep = models.VGG("vgg11", width=1 / 8, in_channels=4)
    assert "features.0.weight (8, 4, 3, 3) cannot be rewritten" in refused(deep, values(deep), trained=CAFFE)


# -- from PyTorch, and back


@pytest.mark.oracle
def test_a_network_of_pytorch_comes_back_as_it_was(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    compiled = types.ModuleType("torchvision._meta_registrations")  # which no model needs
    monkeypatch.setitem(sys.modules, compiled.__name__, compiled)
    torchvision = pytest.importorskip("torchvision", reason="pip install torchvision==0.28.0")
    torch.manual_seed(0)
    source, target = torchvision.models.resnet18(), torchvision.models.resnet18()
    for buffer in source.buffers():
        buffer.copy_(torch.randint(1, 9, buffer.shape))
    torch.save(torch.nn.DataParallel(source).state_dict(), tmp_path / "theirs.pth")
    model = models.ResNet("resnet18")
    report = mf.weights.load(model, tmp_path / "theirs.pth")
    assert report.fits
    assert report.prefix == "module."
    assert report.dropped == ("module.fc.weight", "module.fc.bias")
    write_arrays(tmp_path / "ours.pth", {name: tensor.numpy() for name, tensor in model.state_dict().items()})
    found = target.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True), strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    for name, tensor in source.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(target.state_dict()[name], tensor), name


# -- the report


def test_the_report():
    model = models.create("fcn16s_vgg16", num_classes=3, width=1 / 32)
    arrays = values(model)
    for name in ("upscore2.weight", "upscore16.weight", "score_pool4.bias"):
        arrays.pop(name)
    arrays["score_fr.weight"] = np.zeros((2, 128, 1, 1), np.float32)
    arrays["optimizer.a\nb"] = np.zeros(3)
    report = match(model, {f"module.{n}" if "optimizer" not in n else n: a for n, a in arrays.items()}).report
    assert str(report).splitlines() == [
        "minifcn's own names, without 'module.' in front: 31 of 36 parameters and buffers matched",
        "missing (1), left as the network has them:",
        "  score_pool4.bias (3,)",
        "mis-shaped (1), left as the network has them:",
        "  score_fr.weight (module.score_fr.weight in the file) is (2, 128, 1, 1) and should be (3, 128, 1, 1)",
        "left with them, as of the same layers: score_fr.bias",
        "hint: the file is of 2 classes and the network of 3; one created with num_classes=2 takes these layers too",
        "not needed (1): 'optimizer.a\\nb'",
        "fixed bilinear filters, kept (2): upscore2.weight, upscore16.weight",
        "input: the names do not tell what the network was trained on; nothing was rewritten",
    ]


def test_a_report_can_be_made_without_loading():
    model = small()
    before = bits(model)
    found = match(model, values(model))
    assert found.report.fits
    assert found.report.sentence() == ""
    assert bits(model) == before
    equal(small(), {name: tensor.numpy() for name, tensor in small().state_dict().items()})
    assert {name: array.shape for name, array in found.arrays.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


# -- what commonly does not fit


def test_a_vgg_of_another_depth_has_other_layers_under_the_same_numbers():
    """features.28 is conv5_3 in VGG-16 and conv5_1 in VGG-19: of the former's file nothing belongs into the latter."""
    file = values(models.VGG("vgg16", width=1 / 32))
    for other in ("vgg19", "vgg13", "vgg16_bn"):
        text = refused(models.create(f"fcn32s_{other}", num_classes=3, width=1 / 32), file, strict=False)
        assert "0 matched) — these are features.0, 2, 5, 7 … 28 of a VGG" in text


def test_counters_do_not_make_a_fit():
    file = values(models.create("fcn8s_resnet18", num_classes=3, width=1 / 16))
    report = match(models.create("fcn8s_resnet18", num_classes=3, width=1 / 32), file).report
    assert not any(name.endswith("num_batches_tracked") for name in report.matched)
    assert "the file's layers are 2 times as wide; a network of 2 times the width takes them" in str(report)


def test_other_channels_are_pointed_to_surgery():
    file = values(models.ResNet("resnet18", width=1 / 16))
    model = models.create("fcn8s_resnet18", num_classes=3, width=1 / 16, in_channels=4)
    report = match(model, file, given=None).report
    assert report.hint == "the file is for 3 channels and the network for 4; models.surgery.adapt_input converts"


def test_a_classifiers_backbone_lacks_score_layers_only():
    vgg = {**values(models.VGG("vgg11", width=1 / 32)), **{f"classifier.{k}.bias": np.zeros(128) for k in (0, 3)}}
    vgg |= {"classifier.0.weight": np.zeros((128, 16 * 49)), "classifier.3.weight": np.zeros((128, 128))}
    report = match(models.create("fcn32s_vgg11", num_classes=3, width=1 / 32), vgg).report
    assert [odd.name for odd in report.missing] == ["score_fr.weight", "score_fr.bias"]
    assert report.hint.startswith("only score layers are missing")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"inception3a.branch1.conv.weight": np.zeros((64, 192, 1, 1))}, "torchvision's GoogLeNet"),
        ({"features.0.weight": np.zeros((64, 3, 11, 11))}, "torchvision's AlexNet"),
        ({"encoder.stem": np.zeros(3)}, "names of no layout that is known here"),
    ],
)
def test_networks_that_minifcn_does_not_have_are_named(file, words):
    model = models.create("fcn32s_alexnet", num_classes=3, width=1 / 32)
    assert words in refused(model, file, strict=False)
    assert match(model, file).report.input == "nothing was loaded"


def test_minifcns_own_files_know_their_images(tmp_path):
    """What was rewritten for RGB when it was loaded is rewritten back for a network that is given BGR."""
    model = models.create("hed", num_classes=1, width=1 / 32, seed=1)
    save_weights(tmp_path / "hed.safetensors", model, ModelCard("hed", 1, {"width": 1 / 32}))
    again = models.create("hed", num_classes=1, width=1 / 32, seed=2)
    report = mf.weights.load(again, tmp_path / "hed.safetensors")
    assert "which it will be given; nothing was rewritten" in report.input
    equal(again, values_of(model))
    mf.weights.load(again, tmp_path / "hed.safetensors", given=CAFFE)
    first = model.backbone.features[0]
    weight, bias = fold(first.weight.numpy(), first.bias.numpy(), TORCHVISION, CAFFE)
    np.testing.assert_array_equal(again.backbone.features[0].weight.numpy(), weight)
    np.testing.assert_array_equal(again.backbone.features[0].bias.numpy(), bias)


def test_what_recognises_a_vgg_of_another_depth_is_final():
    """Its score layers must not land on a random backbone, under whichever layout."""
    full = values(models.create("fcn8s_vgg16", num_classes=3, width=1 / 32))
    convolutions = [f"conv{b}_{k}" for b, depth in enumerate((2, 2, 3, 3, 3), start=1) for k in range(1, depth + 1)]
    features = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    caffe = {
        f"{conv}.{kind}": full.pop(f"backbone.features.{n}.{kind}")
        for conv, n in zip(convolutions, features, strict=True)
        for kind in ("weight", "bias")
    }
    caffe |= {name.removeprefix("head."): array for name, array in full.items()}
    assert match(models.create("fcn8s_vgg16", num_classes=3, width=1 / 32), caffe).report.fits
    for other in ("vgg19", "vgg16_bn"):
        text = refused(models.create(f"fcn8s_{other}", num_classes=3, width=1 / 32), caffe, strict=False)
        assert "Caffe's names" in text
        assert "of a VGG, and the network's has features.0" in text


def test_a_layer_is_loaded_whole_or_not_at_all():
    file = values(models.create("fcn_resnet50", num_classes=3, width=1 / 32))
    file["classifier.4.weight"] = np.zeros((3, 99, 1, 1), np.float32)
    model = models.create("fcn_resnet50", num_classes=3, width=1 / 32)
    bias = model.classifier[4].bias.numpy().copy()
    report = mf.weights.load(model, file, strict=False)
    assert report.withheld == ("classifier.4.bias",)
    np.testing.assert_array_equal(model.classifier[4].bias.numpy(), bias)


def test_a_head_that_the_network_has_is_not_called_unneeded():
    """DeepLab's classifier has other layers than the FCN's, under names that begin alike."""
    file = values(models.create("fcn_resnet50", num_classes=3, width=1 / 32))
    file["classifier.0.convs.0.0.weight"] = np.zeros((8, 64, 1, 1))
    file["aux_classifier.0.weight"] = np.zeros((8, 32, 3, 3))
    report = match(models.create("fcn_resnet50", num_classes=3, width=1 / 32), file).report
    assert [odd.name for odd in report.unexpected] == ["classifier.0.convs.0.0.weight"]
    assert report.dropped == ("aux_classifier.0.weight",)


def test_one_equal_name_tells_nothing_of_the_images():
    file = {f"res2a_branch{k}.weight": np.zeros((4, 4, 1, 1)) for k in range(9)} | {
        "conv1.weight": np.zeros((2, 3, 7, 7))
    }
    report = mf.weights.load(models.create("fcn8s_resnet18", 3, width=1 / 32), file, strict=False)
    assert report.matched == ("backbone.conv1.weight",)
    assert report.input.startswith("the names do not tell")
    assert report.backbone[0] == 1
    assert report.backbone[1] > 90


def test_a_network_that_scales_its_stages_is_told_of():
    file = values(models.create("fcn8s_vgg16", num_classes=3, width=1 / 32))
    at_once = models.create("fcn8s_atonce_vgg16", num_classes=3, width=1 / 32)
    assert "multiplies pool4 by 0.01 and pool3 by 0.0001" in match(at_once, file).report.notes[-1]
    assert not match(models.create("fcn8s_vgg16", num_classes=3, width=1 / 32), file).report.notes


@pytest.mark.parametrize("option", ["given", "trained"])
def test_an_input_is_no_word(option):
    with pytest.raises(TypeError, match=f"load: {option} is 'BGR'; an Input such as TORCHVISION"):
        mf.weights.load(small(), values(small()), **{option: "BGR"})


# -- the command

MODEL = ("--into", "fcn32s_vgg11", "--num-classes", "3", "--width", "0.03125")


@pytest.fixture
def trunk(tmp_path):
    """The file of a VGG-11's convolutions, with Caffe's names."""
    model = models.VGG("vgg11", width=1 / 32)
    state = list(values(model).values())
    names = [f"{conv}.{kind}" for conv in VGG11 for kind in ("weight", "bias")]
    write_arrays(tmp_path / "trunk.npz", dict(zip(names, state, strict=True)))
    return tmp_path / "trunk.npz"


def run(*words):
    return main(["weights", *map(str, words)])


def complaint(capsys, *words):
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert err.startswith("minifcn: ")
    assert err.count("\n") == 1
    return out, err.removeprefix("minifcn: ")


def test_the_command_says_what_fits(trunk, tmp_path, capsys):
    out, err = complaint(capsys, trunk, *MODEL, "--to", tmp_path / "net.safetensors")
    assert out.splitlines()[:2] == [
        f"{trunk} into fcn32s_vgg11 (width 0.03125, 3 classes)",
        "Caffe's names: 16 of 23 parameters and buffers matched",
    ]
    assert "missing (6), left as the network has them:" in out
    assert err == (
        f"weights: {trunk} does not fit fcn32s_vgg11 (width 0.03125, 3 classes): 6 missing; --partly loads what fits\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["trunk.npz"]


def test_the_command_writes_the_network(trunk, tmp_path, capsys):
    written = {}
    for suffix in ("safetensors", "npz", "pth"):
        target = tmp_path / f"net.{suffix}"
        assert run(trunk, *MODEL, "--partly", "--to", target) == 0
        out = capsys.readouterr().out
        assert "the first convolution was rewritten for RGB 0 … 1" in out
        assert out.endswith(f"written: {target}\n")
        written[suffix] = mf.weights.read(target)
    expected = models.create("fcn32s_vgg11", num_classes=3, width=1 / 32, seed=0)
    mf.weights.load(expected, trunk, strict=False)
    for arrays in written.values():
        assert sorted(arrays) == sorted(expected.state_dict())
        equal(expected, arrays)
    model, card = load_model(tmp_path / "net.safetensors")
    assert card.describe() == "fcn32s_vgg11 (width 0.03125, 3 classes)"
    equal(model, written["pth"])
    assert run(tmp_path / "net.pth", *MODEL) == 0  # and back, where everything fits
    assert "23 of 23 parameters and buffers matched" in capsys.readouterr().out


def test_minifcns_own_file_tells_what_it_is_of(tmp_path, capsys):
    card = ModelCard("fcn8s_resnet18", 3, {"width": 1 / 32, "fuse": "cat"}, ("a", "b", "c"))
    folder = tmp_path / "run"
    folder.mkdir()
    save_weights(folder / "best.safetensors", card.create(), card)
    assert run(folder) == 0
    assert capsys.readouterr().out.endswith("weights of fcn8s_resnet18 (width 0.03125, fuse cat, 3 classes)\n")
    target = tmp_path / "again.safetensors"
    assert run(folder, "--into", "fcn8s_resnet18", "--to", target) == 0
    assert load_model(target)[1] == card
    target = tmp_path / "sum.safetensors"
    _, err = complaint(capsys, folder, "--into", "fcn8s_resnet18", "--fuse", "sum", "--to", target)
    assert "does not fit fcn8s_resnet18 (width 0.03125, fuse sum, 3 classes): 4 unexpected" in err
    assert not target.exists()


def test_the_command_can_be_told_whose_images(trunk, capsys):
    """A VGG of Caffe's under torchvision's names, as pytorch-fcn uses."""
    torch_names = trunk.with_name("torch.npz")
    write_arrays(torch_names, values(models.VGG("vgg11", width=1 / 32)))
    assert run(torch_names, *MODEL, "--partly") == 0
    assert "which it will be given; nothing was rewritten" in capsys.readouterr().out
    assert run(torch_names, *MODEL, "--partly", "--trained", "caffe") == 0
    assert "trained on BGR 0 … 255, minus (104.00699" in capsys.readouterr().out


def test_hed_has_one_class_unless_told(tmp_path, capsys):
    write_arrays(tmp_path / "hed.npz", values(models.create("hed", num_classes=1, width=1 / 32)))
    assert run(tmp_path / "hed.npz", "--into", "hed", "--width", "0.03125", "--to", tmp_path / "hed.safetensors") == 0
    assert "into hed (width 0.03125, 1 class)" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "hed.safetensors"), "photo.png"]) == 2


def test_the_networks_file_is_good_for_prediction(trunk, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "photo.png")
    assert run(trunk, *MODEL, "--partly", "--to", tmp_path / "net.safetensors") == 0
    words = ["predict", str(tmp_path / "net.safetensors"), str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert (tmp_path / "out" / "photo_labels.png").exists()


def test_mistakes_of_the_command(trunk, tmp_path, capsys):
    assert "--num-classes says something about the network of --into" in complaint(capsys, trunk, "--num-classes", 3)[1]
    assert "--partly says" in complaint(capsys, trunk, "--partly")[1]
    assert "did you mean 'fcn32s_vgg11'" in complaint(capsys, trunk, "--into", "fcn32s_vgg1")[1]
    err = complaint(capsys, trunk, "--into", "fcn32s_resnet18", "--width", "0.03125", "--partly")[1]
    assert err.endswith("nothing fits\n")
    write_arrays(tmp_path / "more.npz", values(models.create("fcn32s_vgg11", num_classes=4, width=1 / 32)))
    err = complaint(capsys, tmp_path / "more.npz", *MODEL)[1]
    assert "3 mis-shaped; the file is of 4 classes and the network of 3; one created with num_classes=4" in err
    there = tmp_path / "there.pth"
    there.write_bytes(b"precious")
    assert "exists already" in complaint(capsys, trunk, *MODEL, "--partly", "--to", there)[1]
    assert there.read_bytes() == b"precious"
    assert run(trunk, *MODEL, "--partly", "--to", there, "--overwrite") == 0
    assert len(mf.weights.read(there)) == 23

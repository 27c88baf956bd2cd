"""The options of models.create: fusion by concatenation, at-once scales, other channels, torchvision's second head."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import minifcn as mf
from minifcn import models, nn

NARROW = 1 / 32
RNG = np.random.default_rng(0)


def scored(name: str, **options: Any) -> nn.Module:
    """A narrow float64 network whose score layers, zero at first, hold numbers."""
    model = models.create(name, 3, width=NARROW, seed=0, **options).to(np.float64).eval()
    rng = np.random.default_rng(1)
    for key, p in model.named_parameters():
        if key.startswith("score"):
            with p.writing() as array:
                array[...] = rng.standard_normal(p.shape)
    return model


def scores(model: nn.Module, image: np.ndarray) -> np.ndarray:
    with mf.no_grad():
        return model(mf.Tensor(image)).numpy()


@pytest.mark.parametrize("name", ["fcn16s_vgg16", "fcn8s_vgg16_paper", "fcn8s_alexnet", "fcn8s_resnet18_aligned"])
def test_concatenation_begins_as_the_sum(name: str) -> None:
    image = RNG.standard_normal((2, 3, 45, 38))
    summed, concatenated = scored(name), scored(name, fuse="cat")
    assert np.array_equal(scores(summed, image), scores(concatenated, image))
    more = set(concatenated.state_dict()) - set(summed.state_dict())
    stages = [s for s in summed.offsets if s != "image"]
    assert more == {f"fuse_{stage}.{part}" for stage in stages for part in ("weight", "bias")}
    for stage in stages:
        assert getattr(concatenated, f"fuse_{stage}").weight.shape == (3, 6, 1, 1)


def test_concatenation_is_of_the_upsampled_map_and_then_the_skip() -> None:
    """With the second half of its weights zero the skip counts for nothing, and the network is the FCN-32s' scores
    enlarged twice; with the first half zero the deep scores count for nothing."""
    image = RNG.standard_normal((1, 3, 64, 64))
    model = scored("fcn16s_vgg16", fuse="cat")
    whole = scores(model, image)
    with model.fuse_pool4.weight.writing() as w:
        w[:, 3:] = 0
    deep = scores(model, image)
    with model.score_pool4.weight.writing() as w:
        w[...] = 7
    assert np.array_equal(scores(model, image), deep)
    model = scored("fcn16s_vgg16", fuse="cat")
    with model.fuse_pool4.weight.writing() as w:
        w[:, :3] = 0
    shallow = scores(model, image)
    with model.score_fr.weight.writing() as w:
        w[...] = 7
    assert np.array_equal(scores(model, image), shallow)
    np.testing.assert_allclose(deep + shallow, whole, rtol=0, atol=1e-12 * np.abs(whole).max())


@pytest.mark.parametrize("variant", ["", "_paper"])
def test_at_once_is_the_fcn_8s_with_scaled_features(variant: str) -> None:
    """A factor on the features is a factor on the score layer's weights, and not on its bias."""
    image = RNG.standard_normal((1, 3, 33, 40))
    at_once, plain = scored(f"fcn8s_atonce_vgg16{variant}"), scored(f"fcn8s_vgg16{variant}")
    assert list(at_once.state_dict()) == list(plain.state_dict())
    assert not np.allclose(scores(at_once, image), scores(plain, image))
    for layer, scale in ((plain.score_pool4, 0.01), (plain.score_pool3, 0.0001)):
        with layer.weight.writing() as w:
            w *= scale
    np.testing.assert_allclose(scores(at_once, image), scores(plain, image), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(
    "name",
    [
        "fcn8s_vgg16", "fcn32s_vgg11_bn_paper", "fcn32s_alexnet", "fcn8s_googlenet", "fcn8s_resnet50_aligned",
        "fcn16s_decoder_resnet18", "fcn_resnet50", "unet", "hed",
    ],
)  # fmt: skip
def test_images_may_have_other_channels(name: str, channels: int) -> None:
    model = models.create(name, 2, width=NARROW, seed=0, in_channels=channels).eval()
    image = np.zeros((1, channels, 36, 41), np.float32)
    assert scores(model, image).shape == (1, 2, 36, 41)
    with pytest.raises(ValueError, match=rf"the image has shape \(1, 3, 36, 41\); \(N, {channels}, H, W\) is needed"):
        scores(model, np.zeros((1, 3, 36, 41), np.float32))


def test_alexnets_crop_is_the_papers() -> None:
    model = models.create("fcn32s_alexnet_paper", 2, width=NARROW)
    assert model.offsets == {"image": (Fraction(18), Fraction(18))}
    assert model.upscore32.kernel_size == (63, 63)


def test_the_second_classifier_is_there_when_asked_for() -> None:
    plain, more = (models.create("fcn_resnet50", 2, width=NARROW, aux=aux) for aux in (False, True))
    extra = set(more.state_dict()) - set(plain.state_dict())
    assert extra
    assert all(key.startswith("aux_classifier.") for key in extra)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("fcn8s_vgg16", {"fuse": "max"}, "fuse is 'max'; 'sum' or 'cat' is needed"),
        ("fcn32s_vgg16", {"fuse": "cat"}, "fuse is 'cat' and fcn32s_vgg16 has no choice; an FCN-16s or FCN-8s has"),
        ("fcn16s_decoder_vgg16", {"fuse": "cat"}, "fcn16s_decoder_vgg16 has no choice"),
        ("unet", {"fuse": "cat"}, "unet has no choice"),
        ("fcn8s_vgg16", {"aux": True}, "fcn8s_vgg16 has no second classifier; fcn_resnet50 and fcn_resnet101 do"),
        ("fcn8s_vgg16", {"in_channels": 0}, "in_channels is 0; at least 1 is needed"),
    ],
)
def test_options_that_a_network_does_not_have(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        models.create(name, width=NARROW, **options)

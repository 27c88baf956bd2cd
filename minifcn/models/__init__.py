"""Networks by name: fcn{32,16,8}s_BACKBONE and its variants.

fcn8s_vgg16           padding 1, same-padded fc6: as aligned, and about half the work of the paper's
fcn8s_vgg16_paper     padding 100 and crops, as published
fcn8s_resnet101       as tutorials write it: even kernels, so its maps are off by up to 15½ pixels
fcn8s_resnet101_aligned   odd kernels: exact
fcn16s_decoder_vgg16  pochih/FCN-pytorch's net: learned 3×3 upsampling down to stride 1
"""

from __future__ import annotations

import difflib
import math

from minifcn import nn, random
from minifcn.models.fcn import FC_CHANNELS, FCN, FCN16sDecoder, FullyConnected
from minifcn.models.resnet import BLOCKS, ResNet
from minifcn.models.vgg import VGG16

__all__ = ["FCN", "FCN16sDecoder", "ResNet", "VGG16", "available", "create"]

STRIDES = (32, 16, 8)


def available() -> list[str]:
    """The names that create() takes."""
    backbones = {"vgg16": ("", "_paper"), **dict.fromkeys(BLOCKS, ("", "_aligned"))}
    return [
        *(f"fcn{s}s_{b}{variant}" for b, variants in backbones.items() for variant in variants for s in STRIDES),
        *(f"fcn16s_decoder_{b}" for b in backbones),
    ]


def create(name: str, num_classes: int = 21, *, width: float = 1.0, seed: int | None = None) -> nn.Module:
    """The network of that name, with initial weights.

    Args:
        name: one of available().
        num_classes: classes, at least 1.
        width: multiplies the channel counts of backbone and head (1/4 makes a network 16 times cheaper).
        seed: of the initial weights; without it they follow mf.manual_seed and what was drawn since.

    Returns:
        A Module that maps a Tensor (N,3,H,W) to scores (N,num_classes,H,W).

    Raises:
        ValueError: an unknown name (the message suggests the nearest), or values out of range.

    >>> sum(p.size for p in create("fcn8s_vgg16", width=1 / 16).parameters() if p.requires_grad) < 10**6
    True
    """
    if name not in available():
        near = difflib.get_close_matches(name, available(), n=1, cutoff=0.0)[0]
        raise ValueError(f"create: there is no model {name!r}; did you mean {near!r}? (models.available() lists all)")
    if num_classes < 1:
        raise ValueError(f"create: num_classes is {num_classes}; at least 1 is needed")
    if not 0 < width < math.inf:
        raise ValueError(f"create: width is {width}; a positive number is needed")
    if seed is None:
        return _build(name, num_classes, width)
    before = random.get_state()
    random.manual_seed(seed)
    try:
        return _build(name, num_classes, width)
    finally:
        random.set_state(before)


def _build(name: str, num_classes: int, width: float) -> nn.Module:
    net, *rest = name.split("_")
    if rest[0] == "decoder":
        backbone = VGG16(width) if rest[1] == "vgg16" else ResNet(rest[1], width)
        return FCN16sDecoder(backbone, num_classes)
    stride = int(net.removeprefix("fcn").removesuffix("s"))
    variant = rest[1] if len(rest) > 1 else "same"
    if rest[0] == "vgg16":
        paper = variant == "paper"
        vgg = VGG16(width, first_padding=100 if paper else 1)
        head = FullyConnected(vgg.channels["pool5"], max(round(FC_CHANNELS * width), 1), padding=0 if paper else 3)
        return FCN(vgg, num_classes, stride, variant, head)
    return FCN(ResNet(rest[0], width), num_classes, stride, variant, fixed_upsampling=False, zero_scores=False)

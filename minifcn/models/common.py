"""What several networks share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.nn import init
from minifcn.nn.module import Parameter


def kaiming_conv(c: int, o: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1) -> nn.Conv2d:
    """A convolution that begins with init.kaiming_normal weights and biases of 0."""
    conv = nn.Conv2d(c, o, kernel, stride, padding, groups=groups)
    conv.weight = Parameter(init.kaiming_normal(conv.weight.shape))
    conv.bias.data[...] = 0
    return conv


def check_image(network: str, x: Tensor, channels: int) -> None:
    """Raises ValueError unless x is (N, channels, H, W).

    >>> check_image("HED", Tensor([[0.0]]), 3)
    Traceback (most recent call last):
    ValueError: HED: the image has shape (1, 1); (N, 3, H, W) is needed
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{network}: the image has shape {x.shape}; (N, {channels}, H, W) is needed")


def nearest(typed: str, names: Iterable[str]) -> str:
    """Which of the names is meant: one whose letters were only exchanged, or else the most similar.

    >>> nearest("vgg61", ["vgg19", "vgg16"])
    'vgg16'
    """
    return max(
        names, key=lambda name: (sorted(name) == sorted(typed), difflib.SequenceMatcher(None, typed, name).ratio())
    )

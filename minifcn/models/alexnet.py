"""AlexNet's convolutions as a backbone (Krizhevsky et al. 2012), as in the authors' voc-fcn-alexnet.

Layers have Caffe's names (conv1 … conv5). Their order is CaffeNet's: a norm follows its pooling, where AlexNet's comes
before it.
"""

from __future__ import annotations

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.models.common import kaiming_conv
from minifcn.nn.containers import run

GROUPS = 2  # of conv2, conv4 and conv5: the halves that ran on two GPUs


class AlexNet(nn.Module):
    """image (N,C,H,W) → {"conv1": 1/4, "pool1": 1/8, "pool2": 1/16, "pool5": 1/32 of the size}.

    Args:
        width: multiplies every channel count; the products are rounded to multiples of the 2 groups.
        paper: conv1 padded by 100, and pools without padding that round up, as published; fc6 then finds room at every
            image size. Otherwise every layer keeps cell 0 on pixel 0 (conv1 padded by 5, pools by 1), so a stage of
            stride s has cells on pixels 0, s, 2s …, ⌈H/s⌉ by ⌈W/s⌉ of them.
        in_channels: C.

    >>> AlexNet(width=1 / 16).channels
    {'conv1': 6, 'pool1': 6, 'pool2': 16, 'pool5': 16}
    """

    def __init__(self, width: float = 1.0, paper: bool = False, in_channels: int = 3) -> None:
        super().__init__()
        a, b, c = (GROUPS * max(round(channels * width / GROUPS), 1) for channels in (96, 256, 384))
        self.conv1 = kaiming_conv(in_channels, a, 11, stride=4, padding=100 if paper else 5)
        self.conv2 = kaiming_conv(a, b, 5, padding=2, groups=GROUPS)
        self.conv3 = kaiming_conv(b, c, 3, padding=1)
        self.conv4 = kaiming_conv(c, c, 3, padding=1, groups=GROUPS)
        self.conv5 = kaiming_conv(c, b, 3, padding=1, groups=GROUPS)
        for name in ("pool1", "pool2", "pool5"):
            setattr(self, name, nn.MaxPool2d(3, 2, padding=0 if paper else 1, ceil_mode=paper))
        self.norm1, self.norm2 = (nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75) for _ in range(2))
        self.relu = nn.ReLU()
        self.channels = {"conv1": a, "pool1": a, "pool2": b, "pool5": b}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The stages, in order."""
        relu = self.relu
        conv1 = run([self.conv1, relu], x)
        pool1 = self.pool1(conv1)
        pool2 = run([self.norm1, self.conv2, relu, self.pool2], pool1)
        pool5 = run([self.norm2, self.conv3, relu, self.conv4, relu, self.conv5, relu, self.pool5], pool2)
        return {"conv1": conv1, "pool1": pool1, "pool2": pool2, "pool5": pool5}

    def layers(self) -> dict[str, list[nn.Conv2d | nn.MaxPool2d]]:
        """What leads to each stage from the one before: the layers whose cells lie elsewhere than their input's."""
        return {
            "conv1": [self.conv1],
            "pool1": [self.pool1],
            "pool2": [self.conv2, self.pool2],
            "pool5": [self.conv3, self.conv4, self.conv5, self.pool5],
        }

"""VGG-16's convolutions as a backbone: five stages, each ending in a 2×2 pooling (Simonyan & Zisserman 2015, column D).

Parameters have torchvision's names (features.0.weight …), so its weights fit.
"""

from __future__ import annotations

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.nn import init
from minifcn.nn.containers import run
from minifcn.nn.module import Parameter

STAGES = (("pool1", 2, 64), ("pool2", 2, 128), ("pool3", 3, 256), ("pool4", 3, 512), ("pool5", 3, 512))


class VGG16(nn.Module):
    """image (N,3,H,W) → {"pool1": 1/2, …, "pool5": 1/32 of the size}.

    Args:
        width: multiplies every channel count.
        first_padding: padding of conv1_1. The paper's 100 makes room for fc6 at every image size; 1 keeps the size.

    Pools round up (Caffe's ceil mode), so that no row of the image is lost at any size.
    """

    def __init__(self, width: float = 1.0, first_padding: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends: dict[int, str] = {}  # index of a pooling layer → its stage
        self.channels: dict[str, int] = {}
        c = 3
        for stage, depth, channels in STAGES:
            o = max(round(channels * width), 1)
            for _ in range(depth):
                conv = nn.Conv2d(c, o, 3, padding=first_padding if not layers else 1)
                conv.weight = Parameter(init.kaiming_normal(conv.weight.shape))
                conv.bias.data[...] = 0
                layers += [conv, nn.ReLU()]
                c = o
            self.ends[len(layers)] = stage
            self.channels[stage] = c
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The stages, in order."""
        stages, layers, start = {}, list(self.features), 0
        for end, stage in self.ends.items():
            x = stages[stage] = run(layers[start : end + 1], x)
            start = end + 1
        return stages

    def layers(self) -> dict[str, list[nn.Conv2d | nn.MaxPool2d]]:
        """What leads to each stage from the one before: the layers whose cells lie elsewhere than their input's."""
        layers: list[nn.Conv2d | nn.MaxPool2d] = []
        stages = {}
        for k, layer in enumerate(self.features):
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                layers.append(layer)
            if k in self.ends:
                stages[self.ends[k]], layers = layers, []
        return stages

"""The convolutions of VGG-11, 13, 16 and 19 as backbones: five stages, each ending in a 2×2 pooling (Simonyan &
Zisserman 2015, table 1, columns A, B, D and E), and the same with a batch norm after each convolution ("vgg16_bn").

Parameters have torchvision's names (features.0.weight …), so its weights fit.
"""

from __future__ import annotations

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.models.common import kaiming_conv
from minifcn.nn.containers import run

STAGES = (("pool1", 64), ("pool2", 128), ("pool3", 256), ("pool4", 512), ("pool5", 512))
_COLUMNS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
DEPTHS = {f"{name}{norm}": depths for norm in ("", "_bn") for name, depths in _COLUMNS.items()}  # convolutions a stage


class VGG(nn.Module):
    """image (N,C,H,W) → {"pool1": 1/2, …, "pool5": 1/32 of the size}.

    Args:
        name: one of DEPTHS.
        width: multiplies every channel count.
        first_padding: padding of conv1_1. The paper's 100 makes room for fc6 at every image size; 1 keeps the size.
        in_channels: C.

    Raises:
        ValueError: another name.

    Pools round up (Caffe's ceil mode), so that no row of the image is lost at any size.

    >>> VGG("vgg11_bn", width=1 / 64).channels
    {'pool1': 1, 'pool2': 2, 'pool3': 4, 'pool4': 8, 'pool5': 8}
    """

    def __init__(self, name: str = "vgg16", width: float = 1.0, first_padding: int = 1, in_channels: int = 3) -> None:
        super().__init__()
        if name not in DEPTHS:
            raise ValueError(f"VGG: name is {name!r}; one of {', '.join(DEPTHS)} is needed")
        layers: list[nn.Module] = []
        self.ends: dict[int, str] = {}  # index of a pooling layer → its stage
        self.channels: dict[str, int] = {}
        c = in_channels
        for (stage, channels), depth in zip(STAGES, DEPTHS[name], strict=True):
            o = max(round(channels * width), 1)
            for _ in range(depth):
                conv = kaiming_conv(c, o, 3, padding=1 if layers else first_padding)
                norm = [nn.BatchNorm2d(o)] if name.endswith("_bn") else []
                layers += [conv, *norm, nn.ReLU()]
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

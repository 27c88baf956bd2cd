"""GoogLeNet's convolutions as a backbone (Szegedy et al. 2015, table 1), with the norms and biases of bvlc_googlenet.

Caffe's inception_3a/3x3_reduce is inception_3a.conv3x3_reduce here, and so on; its conv1/7x7_s2, conv2/3x3_reduce and
conv2/3x3 are conv1, conv2_reduce and conv2. The two auxiliary classifiers are left out.
"""

from __future__ import annotations

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.functional import cat
from minifcn.models.common import kaiming_conv
from minifcn.nn.containers import run

# block → channels of 1×1 · 3×3 reduce · 3×3 · 5×5 reduce · 5×5 · pool projection
INCEPTIONS = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
STAGES = ("conv1", "conv2", "inception_3b", "inception_4e", "inception_5b")


class Inception(nn.Module):
    """(N,C,H,W) → the concatenation of four branches, of the same size (Szegedy et al. 2015, fig. 2b).

    Args:
        c: C.
        sizes: channels, in the order of INCEPTIONS' columns.
    """

    def __init__(self, c: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        one, three_reduce, three, five_reduce, five, projection = sizes
        self.conv1x1 = kaiming_conv(c, one, 1)
        self.conv3x3_reduce = kaiming_conv(c, three_reduce, 1)
        self.conv3x3 = kaiming_conv(three_reduce, three, 3, padding=1)
        self.conv5x5_reduce = kaiming_conv(c, five_reduce, 1)
        self.conv5x5 = kaiming_conv(five_reduce, five, 5, padding=2)
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.pool_proj = kaiming_conv(c, projection, 1)
        self.relu = nn.ReLU()
        self.out_channels = one + three + five + projection

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) → (N,out_channels,H,W)."""
        relu = self.relu
        branches: list[list[nn.Module]] = [
            [self.conv1x1, relu],
            [self.conv3x3_reduce, relu, self.conv3x3, relu],
            [self.conv5x5_reduce, relu, self.conv5x5, relu],
            [self.pool, self.pool_proj, relu],
        ]
        return cat([run(branch, x) for branch in branches], dim=1)


class GoogLeNet(nn.Module):
    """image (N,C,H,W) → {"conv1": 1/2, "conv2": 1/4, "inception_3b": 1/8, "inception_4e": 1/16, "inception_5b": 1/32}.

    Args:
        width: multiplies every channel count.
        in_channels: C.

    Every layer keeps cell 0 on pixel 0, so a stage of stride s has cells on pixels 0, s, 2s …, ⌈H/s⌉ by ⌈W/s⌉ of them.
    For that the pools of stride 2 are padded by 1. Caffe's are not, and round up: their windows lie one cell further
    down and right.

    >>> GoogLeNet(width=1 / 8).channels
    {'conv1': 8, 'conv2': 24, 'inception_3b': 60, 'inception_4e': 104, 'inception_5b': 128}
    """

    def __init__(self, width: float = 1.0, in_channels: int = 3) -> None:
        super().__init__()

        def scaled(*channels: int) -> tuple[int, ...]:
            return tuple(max(round(n * width), 1) for n in channels)

        a, reduced, c = scaled(64, 64, 192)
        self.channels = {"conv1": a, "conv2": c}
        self.conv1 = kaiming_conv(in_channels, a, 7, stride=2, padding=3)
        self.conv2_reduce = kaiming_conv(a, reduced, 1)
        self.conv2 = kaiming_conv(reduced, c, 3, padding=1)
        for name, sizes in INCEPTIONS.items():
            block = Inception(c, scaled(*sizes))
            setattr(self, name, block)
            c = block.out_channels
            if name in STAGES:
                self.channels[name] = c
        for k in range(1, 5):
            setattr(self, f"pool{k}", nn.MaxPool2d(3, 2, padding=1))
        self.norm1, self.norm2 = (nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75) for _ in range(2))
        self.relu = nn.ReLU()

    def _stages(self) -> dict[str, list[nn.Module]]:
        """The modules that lead to each stage from the one before."""
        stages: dict[str, list[nn.Module]] = {
            "conv1": [self.conv1, self.relu],
            "conv2": [self.pool1, self.norm1, self.conv2_reduce, self.relu, self.conv2, self.relu],
            "inception_3b": [self.norm2, self.pool2],
            "inception_4e": [self.pool3],
            "inception_5b": [self.pool4],
        }
        for stage in STAGES[2:]:
            stages[stage] += [getattr(self, name) for name in INCEPTIONS if name[:-1] == stage[:-1]]  # 3a and 3b …
        return stages

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The stages, in order."""
        stages = {}
        for stage, modules in self._stages().items():
            x = stages[stage] = run(modules, x)
        return stages

    def layers(self) -> dict[str, list[nn.Conv2d | nn.MaxPool2d]]:
        """What leads to each stage from the one before: the layers whose cells lie elsewhere than their input's, and in
        an inception the 5×5 branch. (All four branches leave cells where they are; this one sees furthest.)"""
        stages: dict[str, list[nn.Conv2d | nn.MaxPool2d]] = {}
        for stage, modules in self._stages().items():
            stages[stage] = []
            for module in modules:
                if isinstance(module, Inception):
                    stages[stage] += [module.conv5x5_reduce, module.conv5x5]
                elif isinstance(module, nn.Conv2d | nn.MaxPool2d):
                    stages[stage].append(module)
        return stages

"""ResNet-18/34/50/101/152 as backbones: a stem and four layers of residual blocks (He et al. 2016, table 1).

Parameters have torchvision's names (conv1.weight, layer1.0.bn1.bias …), so its weights fit; like torchvision's, the
bottleneck's stride is in its 3×3 convolution.
"""

from __future__ import annotations

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.nn import init
from minifcn.nn.containers import run
from minifcn.nn.module import Parameter

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
BOTTLENECK = ("resnet50", "resnet101", "resnet152")


def _conv(c: int, o: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias (the batch norm after it has one), with the padding that keeps cell 0 in place."""
    conv = nn.Conv2d(c, o, kernel, stride, kernel // 2 * dilation, dilation, bias=False)
    conv.weight = Parameter(init.kaiming_normal(conv.weight.shape, mode="fan_out"))
    return conv


class _Block(nn.Module):
    """relu(x + residual(x)); where sizes or channels change, x goes through a 1×1 convolution first.

    `branch` lists the residual's layers."""

    expansion: int

    def _finish(self, c: int, o: int, stride: int) -> None:
        """What comes after the convolutions, in torchvision's order."""
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or c != o:
            self.downsample = nn.Sequential(_conv(c, o, 1, stride), nn.BatchNorm2d(o))

    def branch(self) -> list[nn.Module]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) → (N,O,⌈H/stride⌉,⌈W/stride⌉)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return run([*self.branch(), self.relu], x, shortcut)  # type: ignore[no-any-return]


class BasicBlock(_Block):
    """Two 3×3 convolutions."""

    expansion = 1

    def __init__(self, c: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(c, inner, 3, stride), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = _conv(inner, inner, 3), nn.BatchNorm2d(inner)
        self._finish(c, inner, stride)

    def branch(self) -> list[nn.Module]:
        return [self.conv1, self.bn1, self.relu, self.conv2, self.bn2]


class Bottleneck(_Block):
    """1×1 down, 3×3, 1×1 up to four times the channels."""

    expansion = 4

    def __init__(self, c: int, inner: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        o = inner * self.expansion
        self.conv1, self.bn1 = _conv(c, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = _conv(inner, inner, 3, stride, dilation), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = _conv(inner, o, 1), nn.BatchNorm2d(o)
        self._finish(c, o, stride)

    def branch(self) -> list[nn.Module]:
        return [self.conv1, self.bn1, self.relu, self.conv2, self.bn2, self.relu, self.conv3, self.bn3]


class ResNet(nn.Module):
    """image (N,C,H,W) → {"stem": 1/2, "layer1": 1/4, "layer2": 1/8, "layer3": 1/16, "layer4": 1/32 of the size}.

    Args:
        name: one of BLOCKS.
        width: multiplies every channel count.
        in_channels: C.
        dilated: layer3 and layer4 keep layer2's size. Where they would halve it, the 3×3 convolutions from there on
            spread their taps 2 and 4 cells apart, so that they reach as far (Yu & Koltun 2016). As in torchvision, the
            first 3×3 convolution of a layer has the dilation of the layer before.

    Raises:
        ValueError: another name, or `dilated` without bottlenecks.

    >>> layer4 = ResNet("resnet50", width=1 / 64, dilated=True).layer4
    >>> [block.conv2.dilation for block in layer4], [block.conv2.stride for block in layer4]
    ([(2, 2), (4, 4), (4, 4)], [(1, 1), (1, 1), (1, 1)])
    """

    def __init__(self, name: str, width: float = 1.0, in_channels: int = 3, dilated: bool = False) -> None:
        super().__init__()
        if name not in BLOCKS:
            raise ValueError(f"ResNet: name is {name!r}; one of {', '.join(BLOCKS)} is needed")
        if dilated and name not in BOTTLENECK:
            raise ValueError(f"ResNet: {name} has no bottlenecks to dilate; one of {', '.join(BOTTLENECK)} is needed")
        c = max(round(64 * width), 1)
        self.conv1, self.bn1, self.relu = _conv(in_channels, c, 7, stride=2), nn.BatchNorm2d(c), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.channels = {"stem": c}
        stride, dilation = 1, 1  # of a layer's first block
        for k, depth in enumerate(BLOCKS[name], start=1):
            inner = max(round(64 * 2 ** (k - 1) * width), 1)
            later = dilation * 2 if dilated and k >= 3 else 1
            blocks: list[BasicBlock | Bottleneck] = []
            for n in range(depth):
                s, d = (stride, dilation) if n == 0 else (1, later)
                block = Bottleneck(c, inner, s, d) if name in BOTTLENECK else BasicBlock(c, inner, s)
                blocks.append(block)
                c = inner * block.expansion
            setattr(self, f"layer{k}", nn.Sequential(*blocks))
            self.channels[f"layer{k}"] = c
            stride, dilation = 1 if dilated and k >= 2 else 2, later

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The stages, in order."""
        stages = {"stem": run([self.conv1, self.bn1, self.relu], x)}
        x = self.maxpool(stages["stem"])
        for name in list(self.channels)[1:]:
            x = stages[name] = getattr(self, name)(x)
        return stages

    def layers(self) -> dict[str, list[nn.Conv2d | nn.MaxPool2d]]:
        """What leads to each stage from the one before, along the residual branches: the layers whose cells lie
        elsewhere than their input's. (The shortcuts agree, in positions and in sizes.)"""
        stages: dict[str, list[nn.Conv2d | nn.MaxPool2d]] = {"stem": [self.conv1]}
        for name in list(self.channels)[1:]:
            blocks = getattr(self, name)
            stages[name] = [conv for block in blocks for conv in block.branch() if isinstance(conv, nn.Conv2d)]
        stages["layer1"].insert(0, self.maxpool)
        return stages

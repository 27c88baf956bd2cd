"""The networks once more, in plain PyTorch, written from the papers and from torchvision's layer lists.

Nothing here asks minifcn for a size, a crop or a channel count: crops are the literals of the authors' prototxt files,
and output sizes are written out for each network. Only the parameter names are minifcn's, so that a state fits.
"""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, interpolate, relu

from benchmarks import twins_zoo

# fmt: off
VGG_LAYERS = {
    "vgg11": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg13": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    "vgg19": [
        64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M",
    ],
}
# fmt: on
RESNET_BLOCKS = {
    "resnet18": [2, 2, 2, 2],
    "resnet34": [3, 4, 6, 3],
    "resnet50": [3, 4, 6, 3],
    "resnet101": [3, 4, 23, 3],
    "resnet152": [3, 8, 36, 3],
}
BOTTLENECKS = ("resnet50", "resnet101", "resnet152")


class VGG(nn.Module):
    """pool1 … pool5; `narrow` divides the channel counts."""

    def __init__(self, name: str, narrow: int, first_padding: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c = 3
        for item in VGG_LAYERS[name.removesuffix("_bn")]:
            if item == "M":
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
                continue
            layers.append(nn.Conv2d(c, item // narrow, 3, padding=1 if layers else first_padding))
            c = item // narrow
            if name.endswith("_bn"):
                layers.append(nn.BatchNorm2d(c))
            layers.append(nn.ReLU())
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        pools = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x)
        return pools


class Head(nn.Module):
    def __init__(self, narrow: int, padding: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(512 // narrow, 4096 // narrow, 7, padding=padding)
        self.fc7 = nn.Conv2d(4096 // narrow, 4096 // narrow, 1)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.fc7(relu(self.fc6(x))))  # dropout is off in these comparisons


def joined(model: nn.Module, stage: str, up: Tensor, skip: Tensor) -> Tensor:
    """The sum of two maps of one size, or what the model's convolution fuse_<stage> makes of them side by side."""
    if hasattr(model, f"fuse_{stage}"):
        return getattr(model, f"fuse_{stage}")(torch.cat([up, skip], dim=1))
    return up + skip


class FCNOnVGG(nn.Module):
    """voc-fcn32s, -16s, -8s and (`atonce`) -8s-atonce; `paper` with the first padding of 100 and crops, else with
    padding 1; `fuse` "sum" or "cat"."""

    def __init__(
        self, backbone: str, stride: int, classes: int, narrow: int, paper: bool, atonce: bool, fuse: str
    ) -> None:
        super().__init__()
        self.stride, self.paper = stride, paper
        self.scale4, self.scale3 = (0.01, 0.0001) if atonce else (1.0, 1.0)
        self.backbone = VGG(backbone, narrow, 100 if paper else 1)
        self.head = Head(narrow, 0 if paper else 3)
        self.score_fr = nn.Conv2d(4096 // narrow, classes, 1)

        def up(factor: int) -> nn.ConvTranspose2d:
            padding = 0 if paper else factor // 2
            return nn.ConvTranspose2d(classes, classes, 2 * factor, factor, padding, bias=False)

        if stride <= 16:
            self.score_pool4 = nn.Conv2d(512 // narrow, classes, 1)
            self.upscore2 = up(2)
        if stride == 8:
            self.score_pool3 = nn.Conv2d(256 // narrow, classes, 1)
            self.upscore_pool4 = up(2)
        if fuse == "cat" and stride <= 16:
            self.fuse_pool4 = nn.Conv2d(2 * classes, classes, 1)
        if fuse == "cat" and stride == 8:
            self.fuse_pool3 = nn.Conv2d(2 * classes, classes, 1)
        setattr(self, f"upscore{stride}", up(stride))

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        _, _, pool3, pool4, pool5 = self.backbone(x)
        score = self.score_fr(self.head(pool5))
        if self.stride == 32:
            return self._to_image(self.upscore32(score), 19, h, w)
        score = self._fuse("pool4", self.upscore2(score), self.score_pool4(pool4 * self.scale4), 5)
        if self.stride == 16:
            return self._to_image(self.upscore16(score), 27, h, w)
        score = self._fuse("pool3", self.upscore_pool4(score), self.score_pool3(pool3 * self.scale3), 9)
        return self._to_image(self.upscore8(score), 31, h, w)

    def _fuse(self, stage: str, up: Tensor, skip: Tensor, crop: int) -> Tensor:
        if self.paper:  # the skip is larger than what comes up
            skip = skip[:, :, crop : crop + up.shape[2], crop : crop + up.shape[3]]
        else:  # pools round up, so what comes up is larger
            up = up[:, :, : skip.shape[2], : skip.shape[3]]
        return joined(self, stage, up, skip)

    def _to_image(self, up: Tensor, crop: int, h: int, w: int) -> Tensor:
        crop = crop if self.paper else 0
        return up[:, :, crop : crop + h, crop : crop + w]


class BasicBlock(nn.Module):
    widening = 1

    def __init__(self, c: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        if stride == 2 or c != inner:
            self.downsample = nn.Sequential(nn.Conv2d(c, inner, 1, stride, bias=False), nn.BatchNorm2d(inner))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Bottleneck(nn.Module):
    widening = 4

    def __init__(self, c: int, inner: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * inner, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * inner)
        if stride == 2 or c != 4 * inner:
            self.downsample = nn.Sequential(nn.Conv2d(c, 4 * inner, 1, stride, bias=False), nn.BatchNorm2d(4 * inner))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv3(relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))))
        return relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNet(nn.Module):
    """The stem and layer1 … layer4; `dilated`: layer3 and layer4 keep the size of layer2."""

    def __init__(self, name: str, narrow: int, dilated: bool = False) -> None:
        super().__init__()
        block = Bottleneck if name in BOTTLENECKS else BasicBlock
        c = 64 // narrow
        self.conv1 = nn.Conv2d(3, c, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        strides = [1, 2, 1, 1] if dilated else [1, 2, 2, 2]  # of a layer's first block
        dilations = [(1, 1), (1, 1), (1, 2), (2, 4)]  # of its first block, and of the others
        for k, (inner, depth) in enumerate(zip([64, 128, 256, 512], RESNET_BLOCKS[name], strict=True)):
            blocks = OrderedDict()
            for n in range(depth):
                dilation = {"dilation": dilations[k][min(n, 1)]} if dilated else {}
                blocks[str(n)] = block(c, inner // narrow, strides[k] if n == 0 else 1, **dilation)
                c = inner // narrow * block.widening
            setattr(self, f"layer{k + 1}", nn.Sequential(blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = [relu(self.bn1(self.conv1(x)))]
        x = torch.nn.functional.max_pool2d(stages[0], 3, 2, 1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            stages.append(x)
        return stages


class FCNOnResNet(nn.Module):
    """The second article's head (even kernels, 4/2/1, 4/2/1, 16/8/4), cropped at the end so that every size works; or,
    `aligned`, with kernels 2s − 1, padding s − 1, and the output_padding that reaches the wanted size."""

    def __init__(self, backbone: str, stride: int, classes: int, narrow: int, aligned: bool, fuse: str) -> None:
        super().__init__()
        self.stride, self.aligned = stride, aligned
        self.backbone = ResNet(backbone, narrow)
        deep = (2048 if backbone in BOTTLENECKS else 512) // narrow
        self.score_fr = nn.Conv2d(deep, classes, 1)

        def up(factor: int) -> nn.ConvTranspose2d:
            kernel = {2: 3, 8: 15, 16: 31, 32: 63}[factor] if aligned else {2: 4, 8: 16, 16: 32, 32: 64}[factor]
            return nn.ConvTranspose2d(classes, classes, kernel, factor, bias=False)  # padding: see _up

        if stride <= 16:
            self.score_layer3 = nn.Conv2d(deep // 2, classes, 1)
            self.upscore2 = up(2)
        if stride == 8:
            self.score_layer2 = nn.Conv2d(deep // 4, classes, 1)
            self.upscore_layer3 = up(2)
        if fuse == "cat" and stride <= 16:
            self.fuse_layer3 = nn.Conv2d(2 * classes, classes, 1)
        if fuse == "cat" and stride == 8:
            self.fuse_layer2 = nn.Conv2d(2 * classes, classes, 1)
        setattr(self, f"upscore{stride}", up(stride))

    def forward(self, x: Tensor) -> Tensor:
        _, _, layer2, layer3, layer4 = self.backbone(x)
        score = self.score_fr(layer4)
        if self.stride <= 16:
            score = joined(self, "layer3", self._up(score, self.upscore2, 2, layer3), self.score_layer3(layer3))
        if self.stride == 8:
            score = joined(self, "layer2", self._up(score, self.upscore_layer3, 2, layer2), self.score_layer2(layer2))
        return self._up(score, getattr(self, f"upscore{self.stride}"), self.stride, x)

    def _up(self, score: Tensor, layer: nn.ConvTranspose2d, factor: int, like: Tensor) -> Tensor:
        h, w = like.shape[2:]
        if self.aligned:  # (P − 1)·s + 1 pixels without output_padding
            missing = [n - (p - 1) * factor - 1 for n, p in zip((h, w), score.shape[2:], strict=True)]
            return conv_transpose2d(score, layer.weight, None, factor, factor - 1, missing)
        return conv_transpose2d(score, layer.weight, None, factor, factor // 2)[:, :, :h, :w]


class Decoder(nn.Module):
    """The first article's FCN16s (pochih/FCN-pytorch): five 3×3 transposed convolutions of stride 2. Its
    output_padding of 1 reaches even sizes; odd ones need 0."""

    def __init__(self, backbone: str, classes: int, narrow: int) -> None:
        super().__init__()
        if backbone.startswith("vgg"):
            self.backbone, sizes = VGG(backbone, narrow, 1), [512, 512, 256, 128, 64, 32]
        elif backbone in ("resnet18", "resnet34"):
            self.backbone, sizes = ResNet(backbone, narrow), [512, 256, 128, 64, 64, 32]
        else:
            self.backbone, sizes = ResNet(backbone, narrow), [2048, 1024, 512, 256, 64, 32]
        for k in range(5):
            c, o = sizes[k] // narrow, sizes[k + 1] // narrow
            setattr(self, f"up{k + 1}", nn.ConvTranspose2d(c, o, 3, 2, 1))
            setattr(self, f"bn{k + 1}", nn.BatchNorm2d(o))
        self.classifier = nn.Conv2d(32 // narrow, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2, x3, x4, x5 = self.backbone(x)
        score = self.bn1(relu(self._up(1, x5, x4)) + x4)
        score = self.bn2(relu(self._up(2, score, x3)))
        score = self.bn3(relu(self._up(3, score, x2)))
        score = self.bn4(relu(self._up(4, score, x1)))
        score = self.bn5(relu(self._up(5, score, x)))
        return self.classifier(score)

    def _up(self, k: int, x: Tensor, like: Tensor) -> Tensor:
        layer = getattr(self, f"up{k}")
        even = [1 - n % 2 for n in like.shape[2:]]
        return conv_transpose2d(x, layer.weight, layer.bias, 2, 1, even)


class DilatedFCN(nn.Module):
    """torchvision.models.segmentation's fcn_resnet50 and fcn_resnet101, without the auxiliary head."""

    def __init__(self, backbone: str, classes: int, narrow: int) -> None:
        super().__init__()
        self.backbone = ResNet(backbone, narrow, dilated=True)
        self.classifier = nn.Sequential(
            nn.Conv2d(2048 // narrow, 512 // narrow, 3, padding=1, bias=False),
            nn.BatchNorm2d(512 // narrow),
            nn.ReLU(),
            nn.Identity(),  # dropout is off in these comparisons
            nn.Conv2d(512 // narrow, classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        scores = self.classifier(self.backbone(x)[-1])
        return interpolate(scores, size=x.shape[2:], mode="bilinear", align_corners=False)


def twin(name: str, classes: int, narrow: int, fuse: str = "sum") -> nn.Module:
    """The PyTorch network of minifcn's name, with channel counts divided by `narrow`. `fuse` is for FCNs on VGG and
    ResNet."""
    if name.startswith("fcn_"):
        return DilatedFCN(name.removeprefix("fcn_"), classes, narrow)
    if name.startswith("fcn16s_decoder_"):
        return Decoder(name.removeprefix("fcn16s_decoder_"), classes, narrow)
    found = re.fullmatch(r"fcn(32|16|8)s_(atonce_)?((?:vgg|resnet)\d+(?:_bn)?)(_paper|_aligned)?", name)
    if not found:
        return twins_zoo.twin(name, classes, narrow)
    stride, backbone = int(found[1]), found[3]
    if backbone.startswith("vgg"):
        paper, atonce = found[4] == "_paper", found[2] is not None
        return FCNOnVGG(backbone, stride, classes, narrow, paper, atonce, fuse)
    return FCNOnResNet(backbone, stride, classes, narrow, found[4] == "_aligned", fuse)

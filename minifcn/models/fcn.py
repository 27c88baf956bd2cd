"""FCN-32s, FCN-16s and FCN-8s on any backbone (Long, Shelhamer & Darrell 2015, §4).

A 1×1 convolution turns the deepest stage into class scores at 1/32 of the size. They are upsampled 2×, and the scores
of the stage with that stride are added: what the deep layers recognise, with where the shallow ones saw it. FCN-16s
does that once, FCN-8s twice, and the last upsampling goes to the image's size.

Two maps may only be added where their cells mean the same place. CoordMap knows where that is, so every crop below is
derived from the layers' parameters when the network is built; none is typed in. There are four ways to upsample by s:

    upsampling   kernel   padding   the output's cells
    "paper"      2s       0         reach beyond the image on all sides; crops 5, 9 and 31 for FCN-8s with padding 100
    "odd"        2s − 1   0         the same where an even kernel would miss by half a cell (AlexNet: crop 18)
    "same"       2s       s/2       s per cell; exact where stage cells lie in the middle of their s pixels (VGG)
    "aligned"    2s − 1   s − 1     exact where stage cells lie on pixel 0, s, 2s … (ResNet: odd, centred kernels)

"same" on a ResNet is what many people write. Its maps are off by 1/2 a cell at the first fusion, 3/2 at the second and
15½ pixels at the end; `FCN.misalignment` says so.

Scores may also be concatenated, and a 1×1 convolution makes one map of the two: fuse="cat". It begins as the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Protocol

import numpy as np

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.functional import cat, crop
from minifcn.geometry import CoordMap, Pair
from minifcn.models.common import check_image, kaiming_conv
from minifcn.nn import init
from minifcn.nn.containers import run
from minifcn.nn.module import Parameter

FC_CHANNELS = 4096  # of fc6 and fc7
UPSAMPLINGS = ("paper", "odd", "same", "aligned")
FUSES = ("sum", "cat")
IMAGE = "image"
Layer = nn.Conv2d | nn.MaxPool2d


class Backbone(Protocol):
    """What FCN asks of a backbone: named stages, the last three at 1/8, 1/16 and 1/32, and the layers to them."""

    channels: dict[str, int]

    def __call__(self, x: Tensor) -> dict[str, Tensor]: ...

    def layers(self) -> dict[str, list[Layer]]: ...


def coord_maps(layers: dict[str, list[Layer]]) -> dict[str, CoordMap]:
    """Where each stage's cells lie in the image, after the layers that lead to it from the stage before."""
    at, maps = CoordMap(), {}
    for stage, added in layers.items():
        for layer in added:
            at = layer.coord_map(at)
        maps[stage] = at
    return maps


@dataclass(frozen=True, slots=True)
class Fusion:
    """One upsampling, and what its cells are laid onto: a stage's scores, or at the end the image.

    Args:
        stage: the stage, or "image".
        name: of the layer, in the model.
        layer: upsamples.
        before, after: where the cells of its input and output lie.
        onto: where the stage's cells lie, or the image's pixels.
        offset: the crop, per axis, that lays one map onto the other: the cell of the stage under cell 0 of the output,
            or the cell of the output under pixel 0. A fraction means that no crop does.
        start: what the model crops: so many cells, at the beginning of the stage (of the output, before the image). A
            negative number crops the other map.
        joins: whether the stage is added, or concatenated; it may lend its size only.
        told: whether the layer is given the size that it must reach (output_size).
        then: convolutions that follow before the next one, and leave cells where they are.
    """

    stage: str
    name: str
    layer: nn.ConvTranspose2d
    before: CoordMap
    after: CoordMap
    onto: CoordMap
    offset: tuple[Fraction, Fraction]
    start: Pair
    joins: bool
    told: bool
    then: tuple[nn.Conv2d, ...] = ()


class FullyConnected(nn.Module):
    """VGG's or AlexNet's fc6 and fc7 as convolutions, 7×7 (6×6) and 1×1, with dropout after each: pool5 → fc7.

    padding 0 needs a map of 7×7 (6×6) at least, which the paper's padding of 100 provides; padding 3 keeps VGG's size,
    and makes AlexNet's one larger.
    """

    def __init__(self, c: int, channels: int, padding: int, kernel: int = 7) -> None:
        super().__init__()
        self.fc6 = kaiming_conv(c, channels, kernel, padding=padding)
        self.fc7 = kaiming_conv(channels, channels, 1)
        self.relu, self.drop = nn.ReLU(), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,P,Q) → (N,4096,P′,Q′)."""
        return run([self.fc6, self.relu, self.drop, self.fc7, self.relu, self.drop], x)  # type: ignore[no-any-return]

    def coord_map(self, before: CoordMap) -> CoordMap:
        """Where fc7's cells lie."""
        return self.fc7.coord_map(self.fc6.coord_map(before))


class FCN(nn.Module):
    """image (N,C,H,W), any size → class scores (N,classes,H,W).

    Args:
        backbone: gives the stages, and takes images of C channels.
        num_classes: classes.
        stride: 32, 16 or 8: how fine the finest fused stage is.
        upsampling: "paper", "odd", "same" or "aligned" (see above).
        head: between the deepest stage and its score layer; None for nothing.
        fixed_upsampling: keep the bilinear filters as they are (the paper's choice), or train them from there.
        zero_scores: start with all scores 0 (the paper's choice), or with PyTorch's default weights.
        fuse: "sum" (the paper's choice), or "cat" with a convolution fuse_<stage>.
        scales: stage → factor on its features before they are scored. The authors' FCN-8s "at once" has 0.01 for pool4
            and 0.0001 for pool3, which keeps the three strides' gradients alike where all are trained from the start.

    Raises:
        ValueError: a stride, upsampling or fuse that does not exist, or cells that no crop aligns (all but "same").
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        stride: int,
        upsampling: str,
        head: FullyConnected | None = None,
        fixed_upsampling: bool = True,
        zero_scores: bool = True,
        fuse: str = "sum",
        scales: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        if stride not in (8, 16, 32):
            raise ValueError(f"FCN: stride is {stride}; 8, 16 or 32 is needed")
        if upsampling not in UPSAMPLINGS:
            raise ValueError(f"FCN: upsampling is {upsampling!r}; one of {', '.join(UPSAMPLINGS)} is needed")
        if fuse not in FUSES:
            raise ValueError(f"FCN: fuse is {fuse!r}; {' or '.join(FUSES)} is needed")
        self.backbone = backbone
        self.in_channels = in_channels(backbone)
        self.upsampling = upsampling
        self.head = head
        names = list(backbone.channels)
        self.deepest = names[-1]
        # the stages to fuse, from deep to shallow: 1/16 for 16s, then 1/8 for 8s
        self.skips = [names[-2], names[-3]][: {32: 0, 16: 1, 8: 2}[stride]]
        self.fuse, self.scales = fuse, dict(scales)

        def score(channels: int) -> nn.Conv2d:
            conv = nn.Conv2d(channels, num_classes, 1)
            if zero_scores:
                conv.weight.data[...], conv.bias.data[...] = 0, 0
            return conv

        def upsample(factor: int) -> nn.ConvTranspose2d:
            kernel, padding = {
                "paper": (2 * factor, 0),
                "odd": (2 * factor - 1, 0),
                "same": (2 * factor, factor // 2),
                "aligned": (2 * factor - 1, factor - 1),
            }[upsampling]
            layer = nn.ConvTranspose2d(num_classes, num_classes, kernel, factor, padding, bias=False)
            layer.weight = Parameter(init.bilinear(layer.weight.shape), requires_grad=not fixed_upsampling)
            return layer

        deep_channels = backbone.channels[self.deepest] if head is None else head.fc7.out_channels
        self.score_fr = score(deep_channels)
        for k, name in enumerate(self.skips):
            setattr(self, f"score_{name}", score(backbone.channels[name]))
            setattr(self, self._upscore(k), upsample(2))
            if fuse == "cat":
                setattr(self, f"fuse_{name}", _sum_of_both(num_classes))
        self.last = f"upscore{stride}"
        setattr(self, self.last, upsample(stride))
        # the cell of each stage's scores on which cell 0 of the upsampled map lies; "image": the cell of the last map
        # on which pixel 0 lies
        self.offsets = {fusion.stage: fusion.offset for fusion in self.fusions()}
        if upsampling != "same" and self.misalignment:
            raise ValueError(f"FCN: no crop aligns {self.misalignment} for upsampling={upsampling!r}")

    def _upscore(self, k: int) -> str:
        """The layer before fusion k: upscore2, then upscore_<stage that it starts from>, as the authors name them."""
        return "upscore2" if k == 0 else f"upscore_{self.skips[k - 1]}"

    def layers(self) -> dict[str, list[Layer]]:
        """What leads to each stage from the one before, the head included as stage "fc7"."""
        head: dict[str, list[Layer]] = {} if self.head is None else {"fc7": [self.head.fc6, self.head.fc7]}
        return self.backbone.layers() | head

    def fusions(self) -> tuple[Fusion, ...]:
        """The upsamplings in order, with the crops, derived from the layers' parameters."""
        maps = coord_maps(self.backbone.layers())
        at = maps[self.deepest] if self.head is None else self.head.coord_map(maps[self.deepest])
        upsamplings = [(stage, self._upscore(k), maps[stage]) for k, stage in enumerate(self.skips)]
        found = []
        for stage, name, onto in [*upsamplings, (IMAGE, self.last, CoordMap())]:
            layer, joins = getattr(self, name), stage != IMAGE
            after = layer.coord_map(at)
            offset = onto.crop_onto(after) if joins else after.crop_onto(onto)
            height, width = start = self._start(offset)
            found.append(
                Fusion(stage, name, layer, at, after, onto, offset, start, joins, told=self.upsampling == "aligned")
            )
            at = after.then_crop((max(-height, 0), max(-width, 0)))
        return tuple(found)

    @property
    def misalignment(self) -> dict[str, tuple[Fraction, Fraction]]:
        """The fusions, and the final crop ("image"), whose maps no crop lays onto each other, and by how many cells
        (height, width) they are off."""
        return {name: offset for name, offset in self.offsets.items() if any(o.denominator != 1 for o in offset)}

    def _start(self, offset: tuple[Fraction, Fraction]) -> Pair:
        """The crop in whole cells. "same" maps nest from cell 0 on, whether or not that is where they belong."""
        height, width = (0, 0) if self.upsampling == "same" else offset
        return int(height), int(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) → (N,classes,H,W). Raises ValueError for another shape."""
        check_image("FCN", x, self.in_channels)
        stages = self.backbone(x)
        deep = stages[self.deepest]
        if self.head is not None:
            deep = self.head(deep)
        fused: Tensor = self.score_fr(deep)  # 1/32
        for k, name in enumerate(self.skips):
            features = stages[name] * self.scales[name] if name in self.scales else stages[name]
            skip = getattr(self, f"score_{name}")(features)  # 1/16, then 1/8
            up, skip = _common(
                self._upsample(self._upscore(k), fused, _hw(skip)), skip, self._start(self.offsets[name])
            )
            fused = up + skip if self.fuse == "sum" else getattr(self, f"fuse_{name}")(cat([up, skip], dim=1))
        image_hw = _hw(x)
        up = self._upsample(self.last, fused, image_hw)
        return crop(up, self._start(self.offsets[IMAGE]), image_hw)

    def _upsample(self, layer: str, x: Tensor, wanted: Pair) -> Tensor:
        """An odd kernel reaches every size by its output_padding; the even ones are cropped afterwards."""
        up: Tensor = getattr(self, layer)(x, output_size=wanted if self.upsampling == "aligned" else None)
        return up


def _common(up: Tensor, skip: Tensor, offset: Pair) -> tuple[Tensor, Tensor]:
    """The region that both maps cover; `offset` is the cell of skip under cell 0 of up."""
    starts = [(max(o, 0), max(-o, 0)) for o in offset]  # (of skip, of up), per axis
    size = [min(s - a, u - b) for s, u, (a, b) in zip(_hw(skip), _hw(up), starts, strict=True)]
    skip = crop(skip, (starts[0][0], starts[1][0]), (size[0], size[1]))
    return crop(up, (starts[0][1], starts[1][1]), (size[0], size[1])), skip


def _sum_of_both(classes: int) -> nn.Conv2d:
    """The 1×1 convolution of two maps (N,2·classes,P,Q) that begins as their sum."""
    conv = nn.Conv2d(2 * classes, classes, 1)
    conv.weight.data[...] = np.tile(np.eye(classes, dtype=np.float32), 2)[:, :, None, None]
    conv.bias.data[...] = 0
    return conv


def in_channels(backbone: Backbone) -> int:
    """How many channels the images have that a backbone takes."""
    return next(iter(backbone.layers().values()))[0].in_channels


def _hw(x: Tensor) -> Pair:
    return x.shape[2], x.shape[3]


class FCN16sDecoder(nn.Module):
    """image (N,C,H,W), any size → class scores (N,classes,H,W): the encoder–decoder of pochih/FCN-pytorch ("FCN16s").

    Five learned 3×3 transposed convolutions of stride 2, each followed by ReLU and batch norm, lead from 1/32 back to
    the image's size; the 1/16 stage is added after the first. Each is told the size of the stage that it must reach
    (output_size), which is what makes every image size work. Its kernel does not divide by its stride, so neighbouring
    pixels get 1, 2 or 4 contributions: the network has to learn that checkerboard away.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.in_channels = in_channels(backbone)
        *shallower, deepest = backbone.channels.values()
        widths = [shallower[-1], *reversed(shallower[:-1]), max(shallower[0] // 2, 1)]  # 512, 256, 128, 64, 32 on VGG
        c = deepest
        for k, o in enumerate(widths, start=1):
            setattr(self, f"up{k}", nn.ConvTranspose2d(c, o, 3, stride=2, padding=1))
            setattr(self, f"bn{k}", nn.BatchNorm2d(o))
            c = o
        self.relu = nn.ReLU()
        self.classifier = nn.Conv2d(c, num_classes, 1)

    def layers(self) -> dict[str, list[Layer]]:
        """What leads to each stage from the one before."""
        return self.backbone.layers()

    def fusions(self) -> tuple[Fusion, ...]:
        """The upsamplings in order. Nothing is cropped: each map begins where the stage whose size it has begins."""
        *maps, (_, at) = coord_maps(self.backbone.layers()).items()
        found = []
        for k, (stage, onto) in enumerate([*reversed(maps), (IMAGE, CoordMap())], start=1):
            layer = getattr(self, f"up{k}")
            after = layer.coord_map(at)
            offset = after.crop_onto(onto) if stage == IMAGE else onto.crop_onto(after)
            found.append(Fusion(stage, f"up{k}", layer, at, after, onto, offset, (0, 0), joins=k == 1, told=True))
            at = after
        return tuple(found)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) → (N,classes,H,W). Raises ValueError for another shape."""
        check_image("FCN", x, self.in_channels)
        *shallower, score = self.backbone(x).values()
        sizes = [_hw(stage) for stage in reversed(shallower)] + [_hw(x)]
        for k, size in enumerate(sizes, start=1):
            score = self.relu(getattr(self, f"up{k}")(score, output_size=size))
            if k == 1:
                score = score + shallower[-1]
            score = getattr(self, f"bn{k}")(score)
        return self.classifier(score)  # type: ignore[no-any-return]

"""HED, holistically-nested edge detection (Xie & Tu 2015, §3): one network looks for contours at five scales at once.

Each block of VGG-16 is read out before its pooling by a 1×1 convolution, from fine (1/1 of the size) to coarse (1/16).
Each of these side outputs is enlarged to the image's size, is trained on its own, and has its share in the fused one.
"""

from __future__ import annotations

import numpy as np

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.functional import cat, interpolate
from minifcn.models.common import check_image
from minifcn.models.fcn import Layer
from minifcn.models.vgg import VGG
from minifcn.nn.containers import run


class HED(nn.Module):
    """image (N,C,H,W), any size → fused scores (N,classes,H,W); their sigmoid is the probability of an edge.

    Args:
        num_classes: kinds of edges, which are not exclusive.
        width: multiplies the backbone's channel counts.
        in_channels: C.

    The side outputs start at 0 and the fusion as their mean, as published. Convolutions keep the size, and the sides
    are enlarged bilinearly, as in the Keras port whose trained weights are to be had; where 16 does not divide the
    size, the coarsest map reaches up to 15 pixels beyond the image and is squeezed into it. The Caffe original pads the
    image by 35, enlarges by transposed convolutions, and crops.

    >>> f"{sum(p.size for p in HED().parameters()):,}"
    '14,716,171'
    """

    def __init__(self, num_classes: int = 1, width: float = 1.0, in_channels: int = 3) -> None:
        super().__init__()
        self.backbone = VGG("vgg16", width, in_channels=in_channels)
        self.sides: list[str] = []
        for k, channels in enumerate(self.backbone.channels.values(), start=1):
            side = nn.Conv2d(channels, num_classes, 1)
            side.weight.data[...], side.bias.data[...] = 0, 0
            self.sides.append(f"score_dsn{k}")
            setattr(self, self.sides[-1], side)
        count = len(self.sides)
        self.fuse = nn.Conv2d(count * num_classes, num_classes, 1)
        mean = np.tile(np.eye(num_classes) / count, count)  # each class of all sides: (classes, sides·classes)
        self.fuse.weight.data[...], self.fuse.bias.data[...] = mean[:, :, None, None], 0

    def forward(self, x: Tensor) -> Tensor:
        """The fused scores. Raises ValueError for another shape."""
        return self.outputs(x)[-1]

    def outputs(self, x: Tensor) -> list[Tensor]:
        """The scores of the five sides, from fine to coarse, then the fused ones: six of (N,classes,H,W), each to be
        trained towards the same edges."""
        first, *coarser = self.coarse(x).values()
        sides = [first, *(interpolate(score, (x.shape[2], x.shape[3]), mode="bilinear") for score in coarser)]
        return [*sides, self.finish(sides)]

    def coarse(self, x: Tensor) -> dict[str, Tensor]:
        """The scores of the five sides, each of its own size, from 1/1 to 1/16. Raises ValueError for another shape."""
        check_image("HED", x, self.backbone.features[0].in_channels)
        found = {}
        for side, layers in zip(self.sides, self._blocks(), strict=True):
            x = run(layers, x)
            found[side] = getattr(self, side)(x)
        return found

    def finish(self, sides: list[Tensor]) -> Tensor:
        """The fused scores, from those of the sides at the image's size."""
        return self.fuse(cat(sides, dim=1))  # type: ignore[no-any-return]

    def layers(self) -> dict[str, list[Layer]]:
        """What leads to each side's map from the one before it."""
        return {
            side: [layer for layer in layers if isinstance(layer, Layer)]
            for side, layers in zip(self.sides, self._blocks(), strict=True)
        }

    def _blocks(self) -> list[list[nn.Module]]:
        """The layers from one side to the next: a pooling, then a block. The last pooling is never reached."""
        layers, ends = list(self.backbone.features), list(self.backbone.ends)
        return [layers[start:end] for start, end in zip([0, *ends], ends, strict=False)]

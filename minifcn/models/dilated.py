"""torchvision's FCN-ResNet-50 and 101: a dilated ResNet that stays at 1/8 of the size, two convolutions, and bilinear
interpolation to the image's size. No skips: layer4's cells are as dense as layer2's.

Parameters have torchvision's names (backbone.conv1.weight, classifier.0.weight, aux_classifier.4.bias …), so its
weights fit: torchvision/models/segmentation/fcn.py, 0.28.
"""

from __future__ import annotations

import minifcn.functional as F
from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.models.common import check_image
from minifcn.models.fcn import Layer
from minifcn.models.resnet import ResNet

BACKBONES = ("resnet50", "resnet101")


class FCNHead(nn.Sequential):
    """(N,C,P,Q) → class scores (N,num_classes,P,Q): a 3×3 convolution to C/4 channels, batch norm, ReLU, dropout, and a
    1×1 convolution."""

    def __init__(self, c: int, num_classes: int) -> None:
        inner = max(c // 4, 1)
        super().__init__(
            nn.Conv2d(c, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(inner, num_classes, 1),
        )


class FCNResNet(nn.Module):
    """image (N,C,H,W), any size → class scores (N,num_classes,H,W).

    Args:
        name: "resnet50" or "resnet101", the backbone.
        num_classes: classes.
        width: multiplies every channel count.
        in_channels: C.
        aux: whether layer3 has a head too, whose loss guides training (torchvision weighs it with 0.5).

    Raises:
        ValueError: another name.

    Scores are stretched over the image from edge to edge (align_corners=False), but their cells lie on pixels 0, 8, …:
    between the outermost cells the network shows things up to 3½ pixels from where they are, in torchvision as here.

    >>> import numpy as np
    >>> photograph = Tensor(np.zeros((1, 3, 30, 41), np.float32))
    >>> model = FCNResNet("resnet50", 5, width=1 / 64, aux=True).eval()
    >>> model(photograph).shape, list(model.outputs(photograph))
    ((1, 5, 30, 41), ['out', 'aux'])
    """

    def __init__(
        self, name: str, num_classes: int, width: float = 1.0, in_channels: int = 3, aux: bool = False
    ) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"FCNResNet: name is {name!r}; one of {', '.join(BACKBONES)} is needed")
        self.backbone = ResNet(name, width, in_channels, dilated=True)
        self.classifier = FCNHead(self.backbone.channels["layer4"], num_classes)
        self.aux_classifier = FCNHead(self.backbone.channels["layer3"], num_classes) if aux else None

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) → (N,num_classes,H,W). Raises ValueError for another shape."""
        return _enlarged(self.coarse(x)["classifier"], x)

    def coarse(self, x: Tensor) -> dict[str, Tensor]:
        """The map that is enlarged, "classifier": scores at 1/8 of the size. Raises ValueError for another shape."""
        check_image("FCNResNet", x, self.backbone.conv1.in_channels)
        return {"classifier": self.classifier(self.backbone(x)["layer4"])}

    def finish(self, maps: list[Tensor]) -> Tensor:
        """The scores, from the enlarged map: itself."""
        return maps[0]

    def layers(self) -> dict[str, list[Layer]]:
        """What leads to each stage from the one before, the classifier included."""
        classifier: list[Layer] = [layer for layer in self.classifier if isinstance(layer, nn.Conv2d)]
        return self.backbone.layers() | {"classifier": classifier}

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """{"out": scores (N,num_classes,H,W)}, and "aux": those of layer3's head where there is one. Raises ValueError
        for another shape."""
        check_image("FCNResNet", x, self.backbone.conv1.in_channels)
        stages = self.backbone(x)
        heads = {"out": (self.classifier, "layer4")}
        if self.aux_classifier is not None:
            heads["aux"] = self.aux_classifier, "layer3"
        return {key: _enlarged(head(stages[stage]), x) for key, (head, stage) in heads.items()}


def _enlarged(scores: Tensor, image: Tensor) -> Tensor:
    """Scores at the image's size."""
    return F.interpolate(scores, size=(image.shape[2], image.shape[3]), mode="bilinear", align_corners=False)

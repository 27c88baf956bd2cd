"""U-Net (Ronneberger, Fischer & Brox 2015, fig. 1), with padded convolutions.

Four poolings lead down to 1/16 of the size, and four 2×2 transposed convolutions back up. After each, the map of that
size from the way down is put beside it, and two convolutions choose from both: where an FCN adds scores, a U-Net
concatenates features.

The paper's convolutions have no padding, so its scores are smaller than the image, by 184 pixels, and its skips are
cropped. With padding 1 every map keeps its size. Pools round up, so that no row is lost at any size, and what the
transposed convolution makes too large by a row or column is cut off at the end.
"""

from __future__ import annotations

from minifcn import nn
from minifcn.autograd import Tensor
from minifcn.functional import cat, crop
from minifcn.models.common import check_image, kaiming_conv
from minifcn.models.fcn import Fusion, Layer, coord_maps
from minifcn.nn import init
from minifcn.nn.containers import run
from minifcn.nn.module import Parameter

LEVELS = 4


class Convs(nn.Module):
    """(N,C,H,W) → (N,O,H,W): two 3×3 convolutions, each with a ReLU."""

    def __init__(self, c: int, o: int) -> None:
        super().__init__()
        self.conv1 = kaiming_conv(c, o, 3, padding=1)
        self.conv2 = kaiming_conv(o, o, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) → (N,O,H,W)."""
        return run([self.conv1, self.relu, self.conv2, self.relu], x)  # type: ignore[no-any-return]


def _upsampling(c: int, o: int) -> nn.ConvTranspose2d:
    """(N,C,P,Q) → (N,O,2P,2Q). Each cell of the output sees one tap of c = 2·o channels, and no ReLU follows that would
    halve the variance, so 1/c keeps the size of activations: kaiming_normal's 2/(4·o)."""
    layer = nn.ConvTranspose2d(c, o, 2, stride=2)
    layer.weight = Parameter(init.kaiming_normal(layer.weight.shape))
    layer.bias.data[...] = 0
    return layer


class UNet(nn.Module):
    """image (N,C,H,W), any size → class scores (N,classes,H,W).

    Args:
        num_classes: classes.
        width: multiplies every channel count (64 … 1024).
        in_channels: C.

    Dropout follows the two deepest pairs of convolutions on the way down ("at the end of the contracting path", §3.1).

    >>> sum(p.size for p in UNet(2, width=1 / 16, in_channels=1).parameters())
    121658
    """

    def __init__(self, num_classes: int, width: float = 1.0, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = c = in_channels
        sizes = [max(round(64 * 2**k * width), 1) for k in range(LEVELS + 1)]
        for name, o in zip(self._contracting(), sizes, strict=True):
            setattr(self, name, Convs(c, o))
            c = o
        for k in range(LEVELS, 0, -1):
            setattr(self, f"up{k}", _upsampling(sizes[k], sizes[k - 1]))
            setattr(self, f"merge{k}", Convs(2 * sizes[k - 1], sizes[k - 1]))
        self.score = kaiming_conv(sizes[0], num_classes, 1)
        self.pool, self.drop = nn.MaxPool2d(2, 2, ceil_mode=True), nn.Dropout(0.5)

    @staticmethod
    def _contracting() -> list[str]:
        """The maps on the way down, in order."""
        return [*(f"down{k}" for k in range(1, LEVELS + 1)), "bottom"]

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) → (N,classes,H,W). Raises ValueError for another shape."""
        check_image("UNet", x, self.in_channels)
        maps = []
        for k, name in enumerate(self._contracting()):
            x = getattr(self, name)(self.pool(x) if k else x)
            if k >= LEVELS - 1:
                x = self.drop(x)
            maps.append(x)
        for k in range(LEVELS, 0, -1):
            skip = maps[k - 1]
            up = crop(getattr(self, f"up{k}")(x), (0, 0), (skip.shape[2], skip.shape[3]))
            x = getattr(self, f"merge{k}")(cat([skip, up], dim=1))
        return self.score(x)  # type: ignore[no-any-return]

    def layers(self) -> dict[str, list[Layer]]:
        """What leads to each map on the way down from the one before."""
        stages: dict[str, list[Layer]] = {}
        for k, name in enumerate(self._contracting()):
            convs = getattr(self, name)
            stages[name] = [*([self.pool] if k else []), convs.conv1, convs.conv2]
        return stages

    def fusions(self) -> tuple[Fusion, ...]:
        """The upsamplings in order, with the convolutions between them. Nothing is cropped at the beginning: 2×2
        windows of stride 2 nest from cell 0 on, in a pooling and in its transposed convolution."""
        maps = coord_maps(self.layers())
        at, found = maps["bottom"], []
        for k in range(LEVELS, 0, -1):
            layer, onto = getattr(self, f"up{k}"), maps[f"down{k}"]
            after = layer.coord_map(at)
            offset, merge = onto.crop_onto(after), getattr(self, f"merge{k}")
            then = (merge.conv1, merge.conv2)
            found.append(
                Fusion(f"down{k}", f"up{k}", layer, at, after, onto, offset, (0, 0), joins=True, told=False, then=then)
            )
            at = after
        return tuple(found)

"""FCN-AlexNet, FCN-GoogLeNet, U-Net and HED in plain PyTorch, written from the papers and the authors' prototxts.

As in twins.py, nothing here asks minifcn for a size, a crop or a channel count, and only the parameter names are
minifcn's, so that a state fits. `narrow` divides the channel counts; it may be 1, 2, 4, 8 or 16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, interpolate, local_response_norm, max_pool2d, relu


class AlexNet(nn.Module):
    """voc-fcn-alexnet's conv1 … pool5. `paper`: with the first padding of 100, and pools that round up."""

    def __init__(self, narrow: int, paper: bool, in_channels: int = 3) -> None:
        super().__init__()
        self.paper = paper
        a, b, c = 96 // narrow, 256 // narrow, 384 // narrow
        self.conv1 = nn.Conv2d(in_channels, a, 11, 4, 100 if paper else 5)
        self.conv2 = nn.Conv2d(a, b, 5, 1, 2, groups=2)
        self.conv3 = nn.Conv2d(b, c, 3, 1, 1)
        self.conv4 = nn.Conv2d(c, c, 3, 1, 1, groups=2)
        self.conv5 = nn.Conv2d(c, b, 3, 1, 1, groups=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        conv1 = relu(self.conv1(x))
        pool1 = self._pool(conv1)
        pool2 = self._pool(relu(self.conv2(local_response_norm(pool1, 5, 0.0001, 0.75))))
        x = relu(self.conv3(local_response_norm(pool2, 5, 0.0001, 0.75)))
        pool5 = self._pool(relu(self.conv5(relu(self.conv4(x)))))
        return [conv1, pool1, pool2, pool5]

    def _pool(self, x: Tensor) -> Tensor:
        return max_pool2d(x, 3, 2, 0, ceil_mode=True) if self.paper else max_pool2d(x, 3, 2, 1)


class Head(nn.Module):
    def __init__(self, narrow: int, padding: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(256 // narrow, 4096 // narrow, 6, padding=padding)
        self.fc7 = nn.Conv2d(4096 // narrow, 4096 // narrow, 1)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.fc7(relu(self.fc6(x))))  # dropout is off in these comparisons


class FCNOnAlexNet(nn.Module):
    """voc-fcn-alexnet (32s), and with the same parts 16s and 8s. Kernels 3, 3 and 63, 31 or 15 without padding.

    Cell u of a map lies at pixel a·u + b. A layer makes a·s of a and adds a·((k − 1)/2 − p) to b; a transposed one
    makes a/s of a, and then takes that times (k − 1)/2 from b:

                     paper                                       same-padded
        conv1        4u + 5 − 100        =  4u − 95              4u
        pool1        8u − 95 + 4         =  8u − 91              8u
        pool2       16u − 91 + 8         = 16u − 83              16u
        pool5       32u − 83 + 16        = 32u − 67              32u
        fc6         32u − 67 + 32·5/2    = 32u + 13              32u + 32·(5/2 − 3) = 32u − 16
        upscore32     u + 13 − 31        = u − 18   crop 18      u − 16 − 31  = u − 47    crop 47
        upscore2    16u + 13 − 16        = 16u − 3               16u − 16 − 16 = 16u − 32
          pool2     (−3 + 83)/16 = 5 cells of it are cropped     −32/16: 2 cells of upscore2 are, which leaves 16u
        upscore16     u − 3 − 15         = u − 18   crop 18      u − 15                   crop 15
        upscore_pool2 8u − 3 − 8         = 8u − 11               8u − 8
          pool1     (−11 + 91)/8 = 10 cells of it are cropped    −8/8: 1 cell of upscore_pool2 is, which leaves 8u
        upscore8      u − 11 − 7         = u − 18   crop 18      u − 7                    crop 7
    """

    def __init__(self, stride: int, classes: int, narrow: int, paper: bool) -> None:
        super().__init__()
        self.stride, self.paper = stride, paper
        self.backbone = AlexNet(narrow, paper)
        self.head = Head(narrow, 0 if paper else 3)
        self.score_fr = nn.Conv2d(4096 // narrow, classes, 1)
        if stride <= 16:
            self.score_pool2 = nn.Conv2d(256 // narrow, classes, 1)
            self.upscore2 = nn.ConvTranspose2d(classes, classes, 3, 2, bias=False)
        if stride == 8:
            self.score_pool1 = nn.Conv2d(96 // narrow, classes, 1)
            self.upscore_pool2 = nn.ConvTranspose2d(classes, classes, 3, 2, bias=False)
        last = nn.ConvTranspose2d(classes, classes, {8: 15, 16: 31, 32: 63}[stride], stride, bias=False)
        setattr(self, f"upscore{stride}", last)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        _, pool1, pool2, pool5 = self.backbone(x)
        score = self.score_fr(self.head(pool5))
        if self.stride <= 16:
            score = self._fuse(self.upscore2(score), self.score_pool2(pool2), 5, 2)
        if self.stride == 8:
            score = self._fuse(self.upscore_pool2(score), self.score_pool1(pool1), 10, 1)
        crop = 18 if self.paper else {32: 47, 16: 15, 8: 7}[self.stride]
        return getattr(self, f"upscore{self.stride}")(score)[:, :, crop : crop + h, crop : crop + w]

    def _fuse(self, up: Tensor, skip: Tensor, of_skip: int, of_up: int) -> Tensor:
        if self.paper:
            skip = skip[:, :, of_skip:, of_skip:]
        else:
            up = up[:, :, of_up:, of_up:]
        h, w = (min(n, m) for n, m in zip(up.shape[2:], skip.shape[2:], strict=True))
        return up[:, :, :h, :w] + skip[:, :, :h, :w]


class Inception(nn.Module):
    """Szegedy et al. 2015, fig. 2 (b)."""

    def __init__(self, c: int, sizes: list[int]) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(c, sizes[0], 1)
        self.conv3x3_reduce = nn.Conv2d(c, sizes[1], 1)
        self.conv3x3 = nn.Conv2d(sizes[1], sizes[2], 3, padding=1)
        self.conv5x5_reduce = nn.Conv2d(c, sizes[3], 1)
        self.conv5x5 = nn.Conv2d(sizes[3], sizes[4], 5, padding=2)
        self.pool_proj = nn.Conv2d(c, sizes[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        one = relu(self.conv1x1(x))
        three = relu(self.conv3x3(relu(self.conv3x3_reduce(x))))
        five = relu(self.conv5x5(relu(self.conv5x5_reduce(x))))
        pool = relu(self.pool_proj(max_pool2d(x, 3, 1, 1)))
        return torch.cat([one, three, five, pool], 1)


class GoogLeNet(nn.Module):
    """Table 1, with the norms where bvlc_googlenet has them, and pools padded by 1."""

    def __init__(self, narrow: int, in_channels: int = 3) -> None:
        super().__init__()

        def inception(c: list[int], sizes: list[int]) -> Inception:
            return Inception(sum(round(n / narrow) for n in c), [round(n / narrow) for n in sizes])

        self.conv1 = nn.Conv2d(in_channels, 64 // narrow, 7, 2, 3)
        self.conv2_reduce = nn.Conv2d(64 // narrow, 64 // narrow, 1)
        self.conv2 = nn.Conv2d(64 // narrow, 192 // narrow, 3, padding=1)
        self.inception_3a = inception([192], [64, 96, 128, 16, 32, 32])
        self.inception_3b = inception([64, 128, 32, 32], [128, 128, 192, 32, 96, 64])
        self.inception_4a = inception([128, 192, 96, 64], [192, 96, 208, 16, 48, 64])
        self.inception_4b = inception([192, 208, 48, 64], [160, 112, 224, 24, 64, 64])
        self.inception_4c = inception([160, 224, 64, 64], [128, 128, 256, 24, 64, 64])
        self.inception_4d = inception([128, 256, 64, 64], [112, 144, 288, 32, 64, 64])
        self.inception_4e = inception([112, 288, 64, 64], [256, 160, 320, 32, 128, 128])
        self.inception_5a = inception([256, 320, 128, 128], [256, 160, 320, 32, 128, 128])
        self.inception_5b = inception([256, 320, 128, 128], [384, 192, 384, 48, 128, 128])

    def forward(self, x: Tensor) -> list[Tensor]:
        conv1 = relu(self.conv1(x))
        x = local_response_norm(max_pool2d(conv1, 3, 2, 1), 5, 0.0001, 0.75)
        conv2 = relu(self.conv2(relu(self.conv2_reduce(x))))
        x = max_pool2d(local_response_norm(conv2, 5, 0.0001, 0.75), 3, 2, 1)
        three = self.inception_3b(self.inception_3a(x))
        x = self.inception_4b(self.inception_4a(max_pool2d(three, 3, 2, 1)))
        four = self.inception_4e(self.inception_4d(self.inception_4c(x)))
        five = self.inception_5b(self.inception_5a(max_pool2d(four, 3, 2, 1)))
        return [conv1, conv2, three, four, five]


class FCNOnGoogLeNet(nn.Module):
    """Every stage's cells lie on pixels 0, s, 2s …: kernels 2s − 1, padding s − 1, and the output_padding that reaches
    the wanted size."""

    def __init__(self, stride: int, classes: int, narrow: int) -> None:
        super().__init__()
        self.stride = stride
        self.backbone = GoogLeNet(narrow)
        self.score_fr = nn.Conv2d(1024 // narrow, classes, 1)
        if stride <= 16:
            self.score_inception_4e = nn.Conv2d(832 // narrow, classes, 1)
            self.upscore2 = nn.ConvTranspose2d(classes, classes, 3, 2, bias=False)
        if stride == 8:
            self.score_inception_3b = nn.Conv2d(480 // narrow, classes, 1)
            self.upscore_inception_4e = nn.ConvTranspose2d(classes, classes, 3, 2, bias=False)
        last = nn.ConvTranspose2d(classes, classes, {8: 15, 16: 31, 32: 63}[stride], stride, bias=False)
        setattr(self, f"upscore{stride}", last)

    def forward(self, x: Tensor) -> Tensor:
        _, _, three, four, five = self.backbone(x)
        score = self.score_fr(five)
        if self.stride <= 16:
            score = self._up(score, self.upscore2, 2, four) + self.score_inception_4e(four)
        if self.stride == 8:
            score = self._up(score, self.upscore_inception_4e, 2, three) + self.score_inception_3b(three)
        return self._up(score, getattr(self, f"upscore{self.stride}"), self.stride, x)

    def _up(self, score: Tensor, layer: nn.ConvTranspose2d, factor: int, like: Tensor) -> Tensor:
        missing = [n - (p - 1) * factor - 1 for n, p in zip(like.shape[2:], score.shape[2:], strict=True)]
        return conv_transpose2d(score, layer.weight, None, factor, factor - 1, missing)


class Convs(nn.Module):
    def __init__(self, c: int, o: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, o, 3, padding=1)
        self.conv2 = nn.Conv2d(o, o, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.conv2(relu(self.conv1(x))))


class UNet(nn.Module):
    """Ronneberger et al. 2015, fig. 1, with padding 1; dropout is off in these comparisons."""

    def __init__(self, classes: int, narrow: int, in_channels: int = 3) -> None:
        super().__init__()
        a, b, c, d, e = 64 // narrow, 128 // narrow, 256 // narrow, 512 // narrow, 1024 // narrow
        self.down1, self.down2, self.down3 = Convs(in_channels, a), Convs(a, b), Convs(b, c)
        self.down4, self.bottom = Convs(c, d), Convs(d, e)
        self.up4, self.merge4 = nn.ConvTranspose2d(e, d, 2, 2), Convs(2 * d, d)
        self.up3, self.merge3 = nn.ConvTranspose2d(d, c, 2, 2), Convs(2 * c, c)
        self.up2, self.merge2 = nn.ConvTranspose2d(c, b, 2, 2), Convs(2 * b, b)
        self.up1, self.merge1 = nn.ConvTranspose2d(b, a, 2, 2), Convs(2 * a, a)
        self.score = nn.Conv2d(a, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        def pool(x: Tensor) -> Tensor:
            return max_pool2d(x, 2, 2, ceil_mode=True)

        def beside(skip: Tensor, up: Tensor) -> Tensor:
            return torch.cat([skip, up[:, :, : skip.shape[2], : skip.shape[3]]], 1)

        one = self.down1(x)
        two = self.down2(pool(one))
        three = self.down3(pool(two))
        four = self.down4(pool(three))
        x = self.merge4(beside(four, self.up4(self.bottom(pool(four)))))
        x = self.merge3(beside(three, self.up3(x)))
        x = self.merge2(beside(two, self.up2(x)))
        return self.score(self.merge1(beside(one, self.up1(x))))


class Trunk(nn.Module):
    """VGG-16's thirteen convolutions under torchvision's numbers."""

    def __init__(self, narrow: int, in_channels: int) -> None:
        super().__init__()
        a, b, c, d = 64 // narrow, 128 // narrow, 256 // narrow, 512 // narrow
        sizes = {0: (in_channels, a), 2: (a, a), 5: (a, b), 7: (b, b), 10: (b, c), 12: (c, c), 14: (c, c)}
        sizes |= {17: (c, d), 19: (d, d), 21: (d, d), 24: (d, d), 26: (d, d), 28: (d, d)}
        self.features = nn.ModuleDict({str(k): nn.Conv2d(i, o, 3, padding=1) for k, (i, o) in sizes.items()})

    def block(self, x: Tensor, *numbers: int) -> Tensor:
        for k in numbers:
            x = relu(self.features[str(k)](x))
        return x


class HED(nn.Module):
    """Xie & Tu 2015 with the Keras port's same-padded convolutions, pools that round up and bilinear enlargement."""

    def __init__(self, classes: int, narrow: int, in_channels: int = 3) -> None:
        super().__init__()
        self.backbone = Trunk(narrow, in_channels)
        self.score_dsn1 = nn.Conv2d(64 // narrow, classes, 1)
        self.score_dsn2 = nn.Conv2d(128 // narrow, classes, 1)
        self.score_dsn3 = nn.Conv2d(256 // narrow, classes, 1)
        self.score_dsn4 = nn.Conv2d(512 // narrow, classes, 1)
        self.score_dsn5 = nn.Conv2d(512 // narrow, classes, 1)
        self.fuse = nn.Conv2d(5 * classes, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)[5]

    def outputs(self, x: Tensor) -> list[Tensor]:
        def pool(x: Tensor) -> Tensor:
            return max_pool2d(x, 2, 2, ceil_mode=True)

        def enlarge(score: Tensor) -> Tensor:
            return interpolate(score, x.shape[2:], mode="bilinear", align_corners=False)

        conv1 = self.backbone.block(x, 0, 2)
        conv2 = self.backbone.block(pool(conv1), 5, 7)
        conv3 = self.backbone.block(pool(conv2), 10, 12, 14)
        conv4 = self.backbone.block(pool(conv3), 17, 19, 21)
        conv5 = self.backbone.block(pool(conv4), 24, 26, 28)
        sides = [
            self.score_dsn1(conv1),
            enlarge(self.score_dsn2(conv2)),
            enlarge(self.score_dsn3(conv3)),
            enlarge(self.score_dsn4(conv4)),
            enlarge(self.score_dsn5(conv5)),
        ]
        return [*sides, self.fuse(torch.cat(sides, 1))]


def twin(name: str, classes: int, narrow: int) -> nn.Module:
    """The PyTorch network of minifcn's name, with channel counts divided by `narrow`."""
    if name == "hed":
        return HED(classes, narrow)
    if name == "unet":
        return UNet(classes, narrow)
    net, backbone, *variant = name.split("_")
    stride = int(net[3:-1])
    if backbone == "alexnet":
        return FCNOnAlexNet(stride, classes, narrow, paper=variant == ["paper"])
    return FCNOnGoogLeNet(stride, classes, narrow)

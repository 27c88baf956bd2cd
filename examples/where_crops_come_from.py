"""Where FCN's crops come from: 5, 9, 31 (and 27, 19) by three lines of arithmetic, by minifcn, and to be seen.

Run it: python examples/where_crops_come_from.py
"""

from fractions import Fraction
from itertools import chain

import numpy as np

import minifcn as mf
import minifcn.functional as F
from minifcn.geometry import CoordMap
from minifcn.nn.init import bilinear_kernel

# ---- 1. By hand, along one axis. Cell u of a map lies at pixel scale·u + offset. Cell p of a convolution or pooling
# sees cells p·s − padding … p·s − padding + k − 1, whose middle is p·s + c with c = (k−1)/2 − padding. A transposed
# convolution is the same relation from its other side: its cell h lies at (h − c)/s.
IMAGE = (Fraction(1), Fraction(0))  # scale, offset


def conv(at, k, s, padding):
    return at[0] * s, at[1] + at[0] * (Fraction(k - 1, 2) - padding)


def tconv(at, k, s, padding):
    return at[0] / s, at[1] - at[0] / s * (Fraction(k - 1, 2) - padding)


def crop(at, onto):
    """The cell of one map that lies where cell 0 of the other does: so many are in the way."""
    return (onto[1] - at[1]) / at[0]


def maps(stages):
    """Where the cells of every stage lie."""
    at, found = IMAGE, {}
    for stage, layers in stages.items():
        for layer in layers:
            at = conv(at, *layer)
        found[stage] = at
    return found


def crops(stages, skips, ups):
    """Of each skip, to lie under the upsampled map that is added to it; and of the last map, to lie on the image."""
    found, result = maps(stages), []
    *_, deep = found.values()
    for up, skip in zip(ups, [*skips, None], strict=True):
        deep = tconv(deep, *up)
        result.append(crop(found[skip], onto=deep) if skip else crop(deep, onto=IMAGE))
    return result


def vgg(padding):
    """(kernel, stride, padding) of every layer, by stage; fc6 is the 7×7, and 1×1 layers move nothing."""
    stages = {f"pool{n}": [(3, 1, 1)] * depth + [(2, 2, 0)] for n, depth in enumerate((2, 2, 3, 3, 3), start=1)}
    stages["pool1"][0] = (3, 1, padding)
    return {**stages, "score_fr": [(7, 1, 0)]}


print("Cells of the VGG-16 that has padding 100 in its first layer, in pixels, by hand and by minifcn's CoordMap:")
coord_map = CoordMap()  # the same for both axes
for stage, (scale, offset) in maps(vgg(100)).items():
    for layer in vgg(100)[stage]:
        coord_map = coord_map.then_conv(*layer)
    along = coord_map.height
    print(f"  {stage:<9}{scale!s:>2} apart, the first at {offset!s:<7}  {along.scale!s:>2} apart, {along.offset}")

heads = {  # skips; kernel, stride and padding of the transposed convolutions
    "FCN-32s": ([], [(64, 32, 0)]),
    "FCN-16s": (["pool4"], [(4, 2, 0), (32, 16, 0)]),
    "FCN-8s": (["pool4", "pool3"], [(4, 2, 0), (4, 2, 0), (16, 8, 0)]),
}
print(
    "\nIts crops, of pool4 and pool3, and last of the map that is laid on the image; and with padding P, from 0 to 200:"
)
for name, head in heads.items():
    every = [crops(vgg(P), *head) for P in range(201)]
    (skips,), (constant,) = {tuple(c[:-1]) for c in every}, {P - c[-1] for P, c in enumerate(every)}  # one for all P
    print(f"  {name:<9}{', '.join(map(str, every[100])):<11}{', '.join([*map(str, skips), f'P − {constant}'])}")

# ---- 2. Every kernel of a ResNet is odd and padded by half of it: c = 0, and cells lie on pixels 0, 8, 16 … The even
# transposed convolutions have c = ½ and 3½, and no crop of whole cells makes up for a half. Odd ones have c = 0 too.
resnet18 = {"stem": [(7, 2, 3)], "layer1": [(3, 2, 1)] + [(3, 1, 1)] * 4}
resnet18 |= {f"layer{n}": [(3, 2, 1)] + [(3, 1, 1)] * 3 for n in (2, 3, 4)}
networks = {
    "fcn8s_vgg16_paper": (vgg(100), *heads["FCN-8s"]),
    "fcn8s_resnet18": (resnet18, ["layer3", "layer2"], [(4, 2, 1), (4, 2, 1), (16, 8, 4)]),
    "fcn8s_resnet18_aligned": (resnet18, ["layer3", "layer2"], [(3, 2, 1), (3, 2, 1), (15, 8, 7)]),
}


# ---- 3. See it. Let every filter and pooling average: the gradient of a score is what it looks at. Set one score to 1
# and upsample: that is what it speaks of. The middles of the two should be the same.
def middle(pixels):
    pixels = np.asarray(pixels).ravel()
    return np.arange(pixels.size) @ pixels / pixels.sum()


def looks_at(score, stages):
    x = image = mf.Tensor(np.zeros((1, 1, 1000, 1)), requires_grad=True)
    for k, s, padding in chain(*stages.values()):
        x = F.conv2d(x, np.full((1, 1, k, 1), 1 / k), stride=(s, 1), padding=(padding, 0))
    return middle(mf.grad(x[0, 0, score, 0], image)[0])


def speaks_of(score, ups):
    y = np.eye(30)[score].reshape(1, 1, -1, 1)
    for k, s, padding in ups:
        y = F.conv_transpose2d(y, bilinear_kernel(k)[None, None, :, :1], stride=(s, 1), padding=(padding, 0))
    return middle(y)


print(f"\n{'':<24}{'crops by hand':<18}{'its own':<18}score 15 looks at  speaks of  off by")
for name, (stages, skips, ups) in networks.items():
    by_hand = crops(stages, skips, ups)
    own = [height for height, _ in mf.models.create(name, width=1 / 16).offsets.values()]
    cut = int(by_hand[-1]) if "paper" in name else 0  # the other two are laid on the image as they are
    seen, said = looks_at(15, stages), speaks_of(15, ups) - cut
    print(
        f"{name:<24}{', '.join(map(str, by_hand)):<18}{', '.join(map(str, own)):<18}"
        f"pixel {seen:<13.2f}{said:<11.2f}{abs(said - seen):.2f}"
    )

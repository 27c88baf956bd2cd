"""Dense scores from a coarse network, three ways: shift-and-stitch, à-trous filters, bilinear upsampling.

The first is OverFeat's. Long et al. 2015 show that the second computes the same (§3.2), and take the third (§3.3).

Run it: python examples/shift_and_stitch.py
"""

from itertools import product

import numpy as np

import minifcn as mf
import minifcn.functional as F
from minifcn import nn
from minifcn.data import Shapes, normalize
from minifcn.models.summary import summarize
from minifcn.nn.init import bilinear_kernel

f, size, classes = 4, 46, 5  # the network's stride; pixels along each side of the image
mf.manual_seed(0)


def network(pool_stride):
    """conv, pool, conv, pool, conv, without padding. A pooling of stride 1 keeps the cells that stride 2 would drop.
    The layers after it must step over them, or they would see half of what they saw: dilation 2, and then 4."""
    d = 2 // pool_stride
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2, pool_stride),
        nn.Conv2d(8, 16, 3, dilation=d),
        nn.ReLU(),
        nn.MaxPool2d(2, pool_stride, dilation=d),
        nn.Conv2d(16, classes, 3, dilation=d * d),
    )


coarse, atrous = network(pool_stride=2), network(pool_stride=1)
atrous.load_state_dict(coarse.state_dict())  # the same filters
x = normalize(Shapes(1, (size, size), split="test")[0].image)  # (3, H, W)


def scores(net, image):
    with mf.no_grad():
        return net(mf.Tensor(np.ascontiguousarray(image)[None])).numpy()[0]


def differ(a, b):
    return f"{np.abs(a - b).max() / np.abs(b).max():.0e}"


low, dense = scores(coarse, x), scores(atrous, x)
count, sight = dense.shape[1], size - dense.shape[1] + 1
print(f"Random filters, stride {f}, each score sees {sight} × {sight} pixels. Of an image of {size} × {size} pixels:")
print(f"  as it is              {low.shape[1]:>2} × {low.shape[2]} scores")
print(f"  with à-trous filters  {count:>2} × {count} scores, one for every place where {sight} × {sight} pixels fit")
print(f"  Every {f}th of these, down and across, is one of those (to {differ(dense[:, ::f, ::f], low)}).")

# The paper's words: f′[i,j] = f[i/s, j/s] where s divides i and j, and 0 elsewhere. Dilation leaves out the zeros.
w, pooled = coarse[3].weight.numpy(), scores(nn.Sequential(*atrous[:3]), x)
rarefied = np.zeros((*w.shape[:2], 5, 5), w.dtype)
rarefied[:, :, ::2, ::2] = w
with_zeros, dilated = F.conv2d(pooled, rarefied).numpy(), F.conv2d(pooled, w, dilation=2).numpy()
print(f"  Dilation 2 is what the paper calls rarefied, zeros between the taps (to {differ(dilated, with_zeros)}).")

# ---- Shift and stitch. Moved up by a and left by b, the image has the network look a rows and b columns further on:
# score (p, q) of that pass is the dense score (p·f + a, q·f + b), so f² passes give them all. Moved down and right, it
# looks the other way, (p·f − a, q·f − b). Zeros come in behind: where the image ends, or where it begins.
end, start = np.pad(x, ((0, 0), (0, f), (0, f))), np.pad(x, ((0, 0), (f, 0), (f, 0)))
up_left, down_right = (np.empty((classes, f * low.shape[1], f * low.shape[2]), x.dtype) for _ in range(2))
for a, b in product(range(f), repeat=2):
    up_left[:, a::f, b::f] = scores(coarse, end[:, a : a + size, b : b + size])
    h, v = f - a, f - b
    down_right[:, h - 1 :: f, v - 1 :: f] = scores(coarse, start[:, h : h + size, v : v + size])

rest = len(up_left[0]) - count
first, last = differ(up_left[:, :count, :count], dense), differ(down_right[:, rest:, rest:], dense)
print(f"\nStitched together from {f * f} passes over shifted images, {f * low.shape[1]} × {f * low.shape[2]} scores:")
print(f"  shifted up and left     the first {count} × {count} are the dense ones (to {first})")
print(f"                          and the last {rest} rows and columns see zeros")
print(f"  shifted down and right  the last {count} × {count} are the dense ones (to {last})")
print(f"                          and the first {rest} rows and columns see zeros")

# ---- Upsampling. The odd bilinear kernel puts coarse score p on the place of dense score p·f, and draws straight lines
# in between.
kernel = bilinear_kernel(2 * f - 1).astype(x.dtype)
filters = np.tile(kernel, (classes, 1, 1, 1))  # (O, C/groups, I, J)
up = F.conv_transpose2d(low, filters, stride=f, padding=f - 1, groups=classes).numpy()
between = np.ones(dense.shape[1:], bool)
between[::f, ::f] = False
off = np.sqrt(np.mean((up - dense)[:, between] ** 2)) / dense.std()
print(f"\nUpsampled bilinearly from the {low.shape[1]} × {low.shape[2]}, {up.shape[1]} × {up.shape[2]} scores:")
print(f"  on the coarse places    the dense ones (to {differ(up[:, ::f, ::f], dense[:, ::f, ::f])})")
print(f"  between them            off by {off:.2f} standard deviations of the dense scores, root mean square")

one, holes = (summarize(net, (size, size), memory=False).macs for net in (coarse, atrous))
costs = {
    "as it is": one,
    "upsampled": one + low.size * kernel.size,
    "à trous": holes,
    "shifted and stitched": one * f * f,
}
print("\nMultiplications, in millions:")
for name, macs in costs.items():
    print(f"  {name:<22}{macs / 1e6:6.2f}{macs / one:8.2f} times as many as it is")

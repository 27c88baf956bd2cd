"""The transposed convolution multiplies by a convolution's matrix, transposed; and the test that a wrong filter fails.

Run it: python examples/transpose_is_the_adjoint.py
"""

import numpy as np

import minifcn.functional as F
from minifcn.lab import conv_matrix, layer
from minifcn.nn.init import bilinear_kernel

# ---- 1. A convolution is linear in the image, so it is a matrix C: one row for each score, one column for each pixel.
# The filter is 1 … 9, so that its taps can be recognised, and the image so small that C can be read: 2×2 scores, 3×3
# pixels (layer speaks of the transposed convolution, whose input are the scores).
rng = np.random.default_rng(0)
geom = layer((2, 2), kernel=3, stride=2, padding=1)
x = rng.standard_normal(geom.x_shape)  # image  (N, C, H, W)
y = rng.standard_normal(geom.y_shape)  # scores (N, O, P, Q)
w = np.arange(1.0, 10.0).reshape(geom.w_shape)  # filter (O, C, I, J)
C = conv_matrix(w, geom)  # (O·P·Q, C·H·W)


def show(matrix, names, cut):
    """The rows with their names, a gap after every `cut` columns, and a dot for 0."""
    for name, row in zip(names, matrix, strict=True):
        cells = ["·" if v == 0 else f"{v:g}" for v in row]
        print(f"  {name}   " + "   ".join(" ".join(cells[k : k + cut]) for k in range(0, len(cells), cut)))


print("C, the filter 1 2 3 / 4 5 6 / 7 8 9 at stride 2, padding 1. Row p,q holds what score p,q sees of each pixel:")
show(C, [f"{p},{q}" for p in range(2) for q in range(2)], cut=3)
print("Its transpose. Row h,v holds what pixel h,v receives from each score, through the tap that saw it:")
show(C.T, [f"{h},{v}" for h in range(3) for v in range(3)], cut=2)

conv = F.conv2d(x, w, stride=2, padding=1).numpy()
tconv = F.conv_transpose2d(y, w, stride=2, padding=1).numpy()
print(f"|C x − conv2d(x)|             {np.abs(C @ x.ravel() - conv.ravel()).max():.1e}")
print(f"|Cᵀy − conv_transpose2d(y)|   {np.abs(C.T @ y.ravel() - tconv.ravel()).max():.1e}")
print(f"⟨C x, y⟩                      {np.sum(conv * y):+.12f}")
print(f"⟨x, Cᵀy⟩                      {np.sum(x * tconv):+.12f}")
print(f"Transposed is not inverted: C has rank {np.linalg.matrix_rank(C)}, and there are {x.size} pixels to get back.")

# ---- 2. That holds for every filter. Whether a filter interpolates is another question, and takes other tests. Three
# for stride 2: the right one, one that a tutorial prints for it, and what the tutorial's own formula gives.
tent = 1 - np.abs(np.arange(4) - 1.5) / 2.5  # the formula, with the factor 2.5 where ⌈4/2⌉ = 2 would be right
filters = {
    "bilinear": bilinear_kernel(4),
    "as printed": np.outer([0.4, 0.6, 0.6, 0.4], [0.4, 0.6, 0.6, 0.4]),
    "its formula": np.outer(tent, tent),
}


def enlarge(scores, kernel):
    """(P, Q) → (2P, 2Q)."""
    return F.conv_transpose2d(scores[None], kernel[None, None], stride=2, padding=1).numpy()[0]


def verdict(right):
    return "" if right else "  ✗"


constant, ramp = np.ones((6, 6)), np.tile(np.arange(6.0), (6, 1))  # a ramp that rises by 1 from column to column
inside = slice(1, -1)  # the outermost pixels miss a score, so even the right filter is dark there
print("\nThree filters for ×2 with stride 2 and padding 1: the bilinear one, one that a tutorial prints, and what the")
print("tutorial's own formula gives. And three tests of whether they interpolate (✗: no):")
print(f"{'':<13}{'along each axis':<24}{'sum = 4':<12}{'constant 1 → 1':<18}ramp → steps of ½ and ½")
for name, kernel in filters.items():
    axis = kernel[1] / np.sqrt(kernel[1, 1])  # kernel = outer(axis, axis)
    total = kernel.sum()
    level = enlarge(constant, kernel)[inside, inside]
    steps = np.diff(enlarge(ramp, kernel)[5, inside])  # from pixel 1 to 2, 2 to 3, …: two kinds, in turn
    print(
        f"{name:<13}{' '.join(f'{v:.2f}' for v in axis):<24}"
        f"{f'{total:.2f}' + verdict(np.isclose(total, 4)):<12}"
        f"{f'{level[0, 0]:.2f}' + verdict(np.allclose(level, 1)):<18}"
        f"{f'{steps[0]:.2f} and {steps[1]:.2f}' + verdict(np.allclose(steps, 0.5))}"
    )

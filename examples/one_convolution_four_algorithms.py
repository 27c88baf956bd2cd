"""One convolution by four algorithms: loops, one matrix product, Winograd's F(2,3) and Fourier; then the library's own.

Run it: python examples/one_convolution_four_algorithms.py
"""

from itertools import product

import numpy as np

import minifcn as mf
import minifcn.functional as F
from minifcn.geometry import ConvGeometry

rng = np.random.default_rng(0)
x = rng.standard_normal((16, 20, 20))  # image  (C, H, W)
w = rng.standard_normal((8, 16, 3, 3))  # filter (O, C, I, J)
O, C, P, Q = 8, 16, 18, 18


# Each returns the scores (O, P, Q), and how often it multiplied a number of the image's with one of a filter's.
def by_loops():
    """The definition: y[o,p,q] = Σ x[c,p+i,q+j]·w[o,c,i,j]."""
    y, count = np.zeros((O, P, Q)), 0
    for o, p, q, c, i, j in product(range(O), range(P), range(Q), range(C), range(3), range(3)):
        y[o, p, q] += x[c, p + i, q + j] * w[o, c, i, j]
        count += 1
    return y, count


def by_matrix_product():
    """im2col: what each score sees becomes a column. As many multiplications, but the machine is good at this one."""
    columns = F.unfold(x, 3).numpy()  # (C·I·J, P·Q)
    rows = w.reshape(O, -1)  # (O, C·I·J)
    return (rows @ columns).reshape(O, P, Q), O * columns.size


def by_winograd():
    """F(2,3): 4·4 multiplications for 2·2 scores, where the definition has 2·2·3·3.

    Along one axis, polynomials g of 3 and t of 2 coefficients have a product of 4, which 4 values determine: those at
    0, 1, −1 and ∞ (the leading coefficient). Evaluate both there, multiply, interpolate: V₄⁻¹[(V₃ g) ⊙ (V₂ t)]. That
    is linear in t, and its transpose is the convolution of 4 pixels d with 3 taps g: V₂ᵀ[(V₃ g) ⊙ (V₄⁻ᵀ d)].
    """

    def evaluate(terms):
        return np.array([[point**k for k in range(terms)] for point in (0, 1, -1)] + [[0] * (terms - 1) + [1]], float)

    scores, filters, pixels = evaluate(2).T, evaluate(3), np.linalg.inv(evaluate(4)).T
    tiles = np.lib.stride_tricks.sliding_window_view(x, (4, 4), axis=(1, 2))[:, ::2, ::2]  # (C, P/2, Q/2, 4, 4)
    tiles, taps = pixels @ tiles @ pixels.T, filters @ w @ filters.T  # both axes; taps (O, C, 4, 4)
    y = scores @ np.einsum("cpqab,ocab->opqab", tiles, taps) @ scores.T  # (O, P/2, Q/2, 2, 2)
    return y.transpose(0, 1, 3, 2, 4).reshape(O, P, Q), O * tiles.size


def by_fourier():
    """The same idea with points on the unit circle, where evaluation is the Fourier transform: of the whole image."""
    size = x.shape[1:]
    pixels, taps = np.fft.rfft2(x), np.fft.rfft2(w, size)  # (C, H, W/2 + 1), (O, C, H, W/2 + 1)
    y = np.fft.irfft2(np.einsum("chv,ochv->ohv", pixels, taps.conj()), size)  # conj: p + i, and not p − i
    return y[:, :P, :Q], 4 * O * pixels.size  # of complex numbers: four real multiplications each


definition, most = by_loops()
print(f"Scores {definition.shape} from an image {x.shape} and 3×3 filters, by hand in float64:")
print(f"{'':<20}{'multiplications':>16}{'of the loops':>14}{'differs by':>13}")
for algorithm in (by_loops, by_matrix_product, by_winograd, by_fourier):
    y, count = algorithm()
    print(f"{algorithm.__name__:<20}{count:>16,}{count / most:>14.2f}{np.abs(y - definition).max():>13.0e}")
print(
    "Not counted: transforms. Of filters: once for all images. Of pixels and scores: for each channel, not each pair."
)

# ---- The library has several as well. Which one it takes depends on sizes and dtype.
x32, w32 = x[None].astype(np.float32), w.astype(np.float32)
geom = ConvGeometry.of_conv(x32.shape, w32.shape, (1, 1), (0, 0), (1, 1), 1, "example")
print("\nWhat minifcn has for this call in float32, and which it takes, by mf.explain:")
print(mf.explain("conv2d", x32, w32, geom=geom))

print("\nEach of them, asked for by mf.using(conv2d=…), and how far from the loops in float64 it is, relatively:")
for kernel in mf.algorithms("conv2d"):
    if kernel.refuses({"geom": geom}):
        print(f"{kernel.algorithm:<13}does not do this one: it needs {kernel.limits}")
        continue
    with mf.using(conv2d=kernel.algorithm):
        y = F.conv2d(x32, w32).numpy()[0]
    print(f"{kernel.algorithm:<13}{np.abs(y - definition).max() / np.abs(definition).max():.0e}")

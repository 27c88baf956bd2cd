"""Initial weights. Each function returns a new array; the random ones draw from mf.random."""

from __future__ import annotations

import math

import numpy as np

from minifcn import random
from minifcn.array import Array

Shape = tuple[int, ...]


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (O, C, I, J) or (O, C): values read, and written, per filter position."""
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def kaiming_normal(shape: Shape, mode: str = "fan_in") -> Array:
    """Normal with variance 2/fan, which keeps the size of activations (or of gradients, mode="fan_out") through ReLUs.

    He et al. 2015, "Delving deep into rectifiers", eq. 10 and 14.
    """
    fan = fans(shape)[mode == "fan_out"]
    drawn = random.generator().standard_normal(shape, dtype=np.float32)
    drawn *= np.float32(math.sqrt(2 / fan))
    return drawn


def uniform(shape: Shape, bound: float) -> Array:
    """Uniform in ±bound. bound = 1/√fan_in is PyTorch's default for convolutions, linear layers and their biases."""
    drawn = random.generator().random(shape, dtype=np.float32)
    drawn *= np.float32(2 * bound)
    drawn -= np.float32(bound)
    return drawn


def bilinear_kernel(size: int) -> Array:
    """The (size, size) filter with which a transposed convolution of stride f = ⌈size/2⌉ interpolates bilinearly.

    (1 − |i − c|/f)(1 − |j − c|/f), with c the centre: f − 1 for an odd size, f − 1/2 for an even one (Long et al.
    2015, §3.3; `upsample_filt` in the authors' code). Each of the f·f phases sums to 1, so a constant stays what it is.

    >>> bilinear_kernel(4)[0] * 16
    array([1., 3., 3., 1.])
    """
    return np.outer(tent(size), tent(size))


def tent(size: int) -> Array:
    """(size,): 1 − |i − c|/f, the bilinear filter along one axis (see `bilinear_kernel`)."""
    values: Array = 1 - np.abs(np.arange(size) - (size - 1) / 2) / ((size + 1) // 2)
    return values


def bilinear(shape: Shape) -> Array:
    """Weights (O, C, k, k), O = C, with the bilinear kernel for each channel onto itself and 0 between channels.

    Raises ValueError unless O = C and the filter is square.
    """
    o, c, i, j = shape
    if o != c or i != j:
        raise ValueError(f"bilinear: weight {shape}; as many output as input channels and a square filter are needed")
    w = np.zeros(shape, np.float32)
    w[range(o), range(c)] = bilinear_kernel(i)
    return w

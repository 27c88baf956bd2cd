"""Arrays in, arrays out; never sees a Tensor. Importing a module of this room registers its kernels."""

from minifcn.kernels import conv_gemm, interpolate, loss, norm, pointwise, pool, reference
from minifcn.kernels.registry import Kernel, algorithms, explain, kernel, run, using

__all__ = [
    "Kernel",
    "algorithms",
    "conv_gemm",
    "explain",
    "interpolate",
    "kernel",
    "loss",
    "norm",
    "pointwise",
    "pool",
    "reference",
    "run",
    "using",
]

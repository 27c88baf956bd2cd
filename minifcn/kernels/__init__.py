"""Arrays in, arrays out; never sees a Tensor. Importing a module of this room registers its kernels."""

from minifcn.kernels import (
    conv_gemm,
    conv_phases,
    conv_pointwise,
    conv_winograd,
    interpolate,
    loss,
    matmul,
    norm,
    pointwise,
    pool,
    reference,
    scatter,
    unfold,
    update,
)
from minifcn.kernels.registry import Kernel, Unsupported, algorithms, chosen, explain, kernel, run, using

__all__ = [
    "Kernel",
    "Unsupported",
    "algorithms",
    "chosen",
    "conv_gemm",
    "conv_phases",
    "conv_pointwise",
    "conv_winograd",
    "explain",
    "interpolate",
    "kernel",
    "loss",
    "matmul",
    "norm",
    "pointwise",
    "pool",
    "reference",
    "run",
    "scatter",
    "unfold",
    "update",
    "using",
]

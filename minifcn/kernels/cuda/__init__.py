"""The kernels for NVIDIA GPUs: our own CUDA C++ (the .cu files), compiled and launched through CuPy, and cuBLAS for
plain matrix products. Importing this registers them; the registry does so at the first CuPy array that it meets.

Everything runs on CuPy's current stream, and tables that are kept on the device are made on the stream of their first
use: stay on one, or wait between them. CuPy flushes float32 denormals to 0."""

from minifcn.kernels.cuda import (
    conv_depthwise,
    conv_gemm,
    conv_implicit,
    conv_winograd,
    interpolate,
    loss,
    matmul,
    norm,
    pointwise,
    pool,
    scatter,
    update,
    windows,
)

__all__ = [
    "conv_depthwise",
    "conv_gemm",
    "conv_implicit",
    "conv_winograd",
    "interpolate",
    "loss",
    "matmul",
    "norm",
    "pointwise",
    "pool",
    "scatter",
    "update",
    "windows",
]

"""Batch normalisation over (N, H, W), a chunk of channels at a time so that each is read from memory once.

Ioffe & Szegedy 2015, "Batch Normalization", algorithm 1 and the gradients of §3.
"""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.kernels.registry import kernel
from minifcn.memory import empty
from minifcn.threads import parallel, runs

CHUNK_BYTES = 1 << 20


def _channels(x: Array) -> list[slice]:
    """Runs of channels of x (N, C, H, W) that fit a cache."""
    channels = x.shape[1]
    return runs(channels, CHUNK_BYTES // max(x.nbytes // max(channels, 1), 1))


def _per_channel(a: Array) -> Array:
    return a[:, None, None]  # (C, 1, 1), beside (N, C, H, W)


def _centre(x: Array, mean: Array, out: Array) -> Array:
    """out = x − mean, with the mean rounded to x's dtype, and what the rounding left over: mean − rounded mean.

    In float32 a mean of 10⁴ standard deviations is rounded by up to 10⁻³ of one, so that may not be neglected; x minus
    the rounded mean itself is exact for all x within a factor of two of it.
    """
    rounded = mean.astype(x.dtype)
    np.subtract(x, _per_channel(rounded), out=out)
    rest: Array = mean - rounded
    return rest


@kernel("batch_norm", backend="numpy", algorithm="channels")
def batch_norm_channels(x: Array, gamma: Array, beta: Array, *, eps: float) -> tuple[Array, Array, Array]:
    """(y, mean, var) with the batch's own statistics, in float64; var is the biased one. x, y (N,C,H,W), the others
    (C,)."""
    y = empty(x.shape, x.dtype)
    mean, var = np.empty((2, x.shape[1]))

    def work(part: slice) -> None:
        own, out = x[:, part], y[:, part]
        # sums in float64, and the variance from the centred values: x² − mean² would lose all digits at a large mean
        m = own.mean(axis=(0, 2, 3), dtype=np.float64)
        rest = _centre(own, m, out)
        v = np.einsum("nchv,nchv->c", out, out, dtype=np.float64, casting="safe") / (x.size // x.shape[1]) - rest**2
        scale = gamma[part] / np.sqrt(v + eps)
        out *= _per_channel(scale.astype(x.dtype))
        out += _per_channel((beta[part] - rest * scale).astype(x.dtype))
        mean[part], var[part] = m, v

    parallel(work, _channels(x))
    return y, mean, var


@kernel("batch_norm_grad", backend="numpy", algorithm="channels")
def batch_norm_grad_channels(
    gy: Array, x: Array, gamma: Array, *, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """(gx, ggamma, gbeta): with x̂ = (x − mean)/σ over M values, gx = γ/σ·(gy − gβ/M − x̂·gγ/M)."""
    gx = empty(x.shape, x.dtype)
    ggamma, gbeta = np.empty((2, x.shape[1]), x.dtype)
    count = x.size // x.shape[1]

    def work(part: slice) -> None:
        own, out = gy[:, part], gx[:, part]
        sigma = np.sqrt(var[part].astype(np.float64) + eps)
        rest = _centre(x[:, part], mean[part], out)  # out = σ·x̂ + rest
        gb = own.sum(axis=(0, 2, 3), dtype=np.float64)
        gg = (np.einsum("nchv,nchv->c", own, out, dtype=np.float64, casting="safe") - rest * gb) / sigma
        slope = -gg / (count * sigma)
        out *= _per_channel(slope.astype(x.dtype))
        out += own
        out -= _per_channel((gb / count + slope * rest).astype(x.dtype))
        out *= _per_channel((gamma[part] / sigma).astype(x.dtype))
        ggamma[part], gbeta[part] = gg, gb

    parallel(work, _channels(x))
    return gx, ggamma, gbeta


@kernel("batch_norm_inference", backend="numpy", algorithm="channels")
def batch_norm_inference_channels(x: Array, gamma: Array, beta: Array, *, mean: Array, var: Array, eps: float) -> Array:
    """y = (x − mean)·γ/√(var + eps) + β. Not x·a + (β − mean·a), which is one pass less but cancels at a large mean."""
    y = empty(x.shape, x.dtype)
    scale = (gamma / np.sqrt(var.astype(np.float64) + eps)).astype(x.dtype)

    def work(part: slice) -> None:
        out = y[:, part]
        np.subtract(x[:, part], _per_channel(mean[part]), out=out)
        out *= _per_channel(scale[part])
        out += _per_channel(beta[part])

    parallel(work, _channels(x))
    return y

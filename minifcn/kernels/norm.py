"""Batch normalisation over (N, H, W), some channels at a time, in as few passes as ufuncs and BLAS allow.

Ioffe & Szegedy 2015, "Batch Normalization", algorithm 1 and the gradients of §3.
"""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.kernels.registry import kernel
from minifcn.kernels.sums import dots, row_sums
from minifcn.memory import empty
from minifcn.threads import parallel, runs

CHUNK_BYTES = 1 << 22  # a chunk takes a dozen calls, and two threads in short calls wait for the interpreter's lock
NEAR = 4  # standard deviations: up to there a mean need not be taken off first, at the price of some bits of 24


def _channels(x: Array) -> list[slice]:
    """Equal runs of channels of x (N, C, H, W)."""
    channels = x.shape[1]
    return runs(channels, -(-channels // max(-(-x.nbytes // CHUNK_BYTES), 1)))


def _rows(x: Array) -> Array:
    """(N, C, H, W) as (N, C, H·W)."""
    return x.reshape(*x.shape[:2], -1)


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
    x, y = np.ascontiguousarray(x), empty(x.shape, x.dtype)
    mean, var = np.empty((2, x.shape[1]))
    count = x.size // x.shape[1]

    def work(part: slice) -> None:
        own, out = x[:, part], y[:, part]
        m = row_sums(_rows(own)).sum(axis=0) / count
        v = dots(_rows(own), _rows(own)).sum(axis=0) / count - m**2
        if (m**2 <= NEAR**2 * v).all():
            scale = gamma[part] / np.sqrt(v + eps)
            np.multiply(own, _per_channel(scale.astype(x.dtype)), out=out)
            out += _per_channel((beta[part] - m * scale).astype(x.dtype))
        else:  # beside a large mean x² − mean² and x·a − mean·a lose digits, and centred values do not
            left = _centre(own, m, out)
            # nor does their mean, which is `left` but for the rounding of the sum above
            rest = row_sums(_rows(out)).sum(axis=0) / count
            m += rest - left
            v = dots(_rows(out), _rows(out)).sum(axis=0) / count - rest**2
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
    gy, x, gx = np.ascontiguousarray(gy), np.ascontiguousarray(x), empty(x.shape, x.dtype)
    ggamma, gbeta = np.empty((2, x.shape[1]), x.dtype)
    count = x.size // x.shape[1]

    def work(part: slice) -> None:
        own, out = gy[:, part], gx[:, part]
        m, sigma = mean[part], np.sqrt(var[part].astype(np.float64) + eps)
        near = bool((np.abs(m) <= NEAR * sigma).all())
        # x − rest is σ·x̂: x itself, or the centred values, of which a rounded mean is left
        centred, rest = (x[:, part], m) if near else (out, _centre(x[:, part], m, out))
        gb = row_sums(_rows(own)).sum(axis=0)
        gg = (dots(_rows(own), _rows(centred)).sum(axis=0) - rest * gb) / sigma
        slope = -gg / (count * sigma)
        np.multiply(centred, _per_channel(slope.astype(x.dtype)), out=out)
        out += own
        out -= _per_channel((gb / count + slope * rest).astype(x.dtype))
        out *= _per_channel((gamma[part] / sigma).astype(x.dtype))
        ggamma[part], gbeta[part] = gg, gb

    parallel(work, _channels(x))
    return gx, ggamma, gbeta


@kernel("batch_norm_inference", backend="numpy", algorithm="channels")
def batch_norm_inference_channels(x: Array, gamma: Array, beta: Array, *, mean: Array, var: Array, eps: float) -> Array:
    """y = (x − mean)·γ/√(var + eps) + β: as x·a + (β − mean·a), a pass less, where no mean is so large beside its σ
    that the product and β − mean·a would cancel."""
    y = empty(x.shape, x.dtype)
    sigma = np.sqrt(var.astype(np.float64) + eps)
    scale = gamma / sigma
    near = bool((np.abs(mean) <= NEAR * sigma).all())
    shift = beta - mean * scale if near else beta
    scale, shift = scale.astype(x.dtype), shift.astype(x.dtype)

    def work(part: slice) -> None:
        own, out = x[:, part], y[:, part]
        if near:
            np.multiply(own, _per_channel(scale[part]), out=out)
        else:
            np.subtract(own, _per_channel(mean[part]), out=out)
            out *= _per_channel(scale[part])
        out += _per_channel(shift[part])

    parallel(work, _channels(x), alone=x.nbytes < CHUNK_BYTES)
    return y

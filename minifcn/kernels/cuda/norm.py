"""Batch normalisation and sums over channels on a GPU: sums in two stages, in an order that never changes."""

from __future__ import annotations

import numpy as np

from minifcn.array import Array, module_of
from minifcn.kernels.cuda.launch import THREADS, contiguous, launch, new, over_planes_of_packs, size
from minifcn.kernels.registry import kernel

SLICE = 1 << 13  # elements of a channel that a block adds up, at least
ENOUGH_BLOCKS = 1024  # that keep a large GPU busy; channels × slices beyond that gain nothing


def _slices(channels: int, count: int) -> int:
    """Into how many slices a channel of `count` elements is cut."""
    return max(1, min(-(-count // SLICE), -(-ENOUGH_BLOCKS // channels)))


def _sizes(x: Array) -> tuple[np.int32, np.int32, np.int32]:
    """N, C and M = H·W of x (N,C,H,W)."""
    n, c, h, w = x.shape
    return np.int32(n), np.int32(c), np.int32(h * w)


def _per_channel(channels: int) -> tuple[int]:
    return (-(-channels // THREADS),)


@kernel("channel_sum", backend="cupy", algorithm="cuda")
def channel_sum_cuda(x: Array) -> Array:
    """s (C,) = Σ x (N,C,H,W) over images and pixels, added in float64."""
    channels = x.shape[1]
    if x.size == 0:
        zeros: Array = module_of(x).zeros(channels, x.dtype)
        return zeros
    slices = _slices(channels, x.size // channels)
    sums, total = new(x, (channels, slices), np.float64), new(x, (channels,))
    launch("norm", "channel_sum", x, (channels, slices), (contiguous(x), sums, *_sizes(x)))
    totals = (sums, total, np.int32(channels), np.int32(slices))
    launch("norm", "channel_sum_total", x, _per_channel(channels), totals)
    return total


@kernel("batch_norm", backend="cupy", algorithm="cuda")
def batch_norm_cuda(x: Array, gamma: Array, beta: Array, *, eps: float) -> tuple[Array, Array, Array]:
    """(y, mean, var) with the batch's own statistics, in float64; var is the biased one. x, y (N,C,H,W), the others
    (C,)."""
    x, gamma, beta = contiguous(x), contiguous(gamma), contiguous(beta)
    y, channels = new(x, x.shape), x.shape[1]
    count = x.size // channels
    slices = _slices(channels, count)
    sums = new(x, (channels, slices, 2), np.float64)
    mean, var = new(x, (channels,), np.float64), new(x, (channels,), np.float64)
    n, c, m = _sizes(x)
    launch("norm", "batch_norm_sums", x, (channels, slices), (x, sums, n, c, m))
    moments = (x, sums, mean, var, c, m, np.int32(slices), np.int64(count))
    launch("norm", "batch_norm_moments", x, _per_channel(channels), moments)
    launch(
        "norm",
        "batch_norm",
        x,
        over_planes_of_packs(x),
        (x, y, gamma, beta, mean, var, size(*x.shape[:2]), c, m, np.float64(eps)),
    )
    return y, mean, var


@kernel("batch_norm_grad", backend="cupy", algorithm="cuda")
def batch_norm_grad_cuda(
    gy: Array, x: Array, gamma: Array, *, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """(gx, ggamma, gbeta): with x̂ = (x − mean)/σ over M values, gx = γ/σ·(gy − gβ/M − x̂·gγ/M)."""
    gy, x, gamma = contiguous(gy), contiguous(x), contiguous(gamma)
    mean, var = contiguous(mean, np.float64), contiguous(var, np.float64)
    gx, channels = new(x, x.shape), x.shape[1]
    count = x.size // channels
    slices = _slices(channels, count)
    sums, factors = new(x, (channels, slices, 2), np.float64), new(x, (channels, 3), np.float64)
    ggamma, gbeta = new(x, (channels,)), new(x, (channels,))
    n, c, m = _sizes(x)
    e = np.float64(eps)
    launch("norm", "batch_norm_grad_sums", x, (channels, slices), (gy, x, mean, var, sums, n, c, m, e))
    given = (sums, gamma, mean, var, ggamma, gbeta, factors, c, np.int32(slices), np.int64(count), e)
    launch("norm", "batch_norm_grad_factors", x, _per_channel(channels), given)
    launch("norm", "batch_norm_grad", x, over_planes_of_packs(x), (gy, x, mean, factors, gx, size(*x.shape[:2]), c, m))
    return gx, ggamma, gbeta


@kernel("batch_norm_inference", backend="cupy", algorithm="cuda")
def batch_norm_inference_cuda(x: Array, gamma: Array, beta: Array, *, mean: Array, var: Array, eps: float) -> Array:
    """y = (x − mean)/√(var + eps)·γ + β per channel, with given statistics."""
    x, gamma, beta, mean, var = (contiguous(a, x.dtype) for a in (x, gamma, beta, mean, var))
    y = new(x, x.shape)
    if x.size:
        _, c, m = _sizes(x)
        given = (x, y, gamma, beta, mean, var, size(*x.shape[:2]), c, m, np.float64(eps))
        launch("norm", "batch_norm_inference", x, over_planes_of_packs(x), given)
    return y

"""Softmax cross-entropy on a GPU."""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.kernels.cuda.launch import contiguous, launch, new, over, size
from minifcn.kernels.registry import kernel


@kernel("cross_entropy", backend="cupy", algorithm="cuda")
def cross_entropy_cuda(x: Array, *, target: Array, weight: Array | None, ignore_index: int) -> Array:
    """loss (N,M) = weight[t]·(log Σ_c exp x[n,c,m] − x[n,t,m]), 0 where t = target[n,m] is ignored. x is (N,C,M)."""
    loss = new(x, target.shape)
    if loss.size:
        arrays = (contiguous(x), contiguous(target, np.int64), _weights(weight, x), loss)
        launch("loss", "cross_entropy", x, over(loss.size), (*arrays, *_sizes(x, ignore_index)))
    return loss


@kernel("cross_entropy_grad", backend="cupy", algorithm="cuda")
def cross_entropy_grad_cuda(gy: Array, x: Array, *, target: Array, weight: Array | None, ignore_index: int) -> Array:
    """gx (N,C,M) = gy[n,m]·weight[t]·(softmax(x)[n,c,m] − [c = t]), 0 where t = target[n,m] is ignored."""
    gx = new(x, x.shape)
    if gx.size:
        arrays = (contiguous(gy), contiguous(x), contiguous(target, np.int64), _weights(weight, x), gx)
        launch("loss", "cross_entropy_grad", x, over(gy.size), (*arrays, *_sizes(x, ignore_index)))
    return gx


def _weights(weight: Array | None, x: Array) -> Array | None:
    return None if weight is None else contiguous(weight, x.dtype)


def _sizes(x: Array, ignore_index: int) -> tuple[np.generic, ...]:
    n, c, m = x.shape
    return size(n, m), np.int32(c), np.int32(m), np.int64(ignore_index)


@kernel("label_sums", backend="cupy", algorithm="cuda")
def label_sums_cuda(labels: Array, weight: Array | None = None, *, classes: int, ignore_index: int) -> Array:
    """(2,) float64: how many labels are neither ignored nor a class, and Σ weight[t] of those that are a class."""
    (slices,) = over(max(labels.size, 1))
    sums, total = new(labels, (slices, 2), np.float64), new(labels, (2,), np.float64)
    weights = None if weight is None else contiguous(weight, np.float64)
    numbers = (np.int64(labels.size), np.int32(classes), np.int64(ignore_index))
    launch("loss", "label_sums", sums, (slices,), (contiguous(labels, np.int64), weights, sums, *numbers))
    launch("loss", "label_totals", sums, (1,), (sums, total, np.int32(slices)))
    return total

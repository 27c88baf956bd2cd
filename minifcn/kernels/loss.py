"""Softmax cross-entropy per pixel, from logits, with one buffer of the logits' size.

Shifting by the largest logit leaves the softmax as it is and keeps exp from overflowing.
"""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.kernels.registry import kernel
from minifcn.memory import empty
from minifcn.threads import parallel, runs

CHUNK = 1 << 15  # pixels


def _tasks(x: Array) -> list[tuple[int, slice]]:
    """(image, run of pixels) over x (N, C, M)."""
    return [(n, m) for n in range(len(x)) for m in runs(x.shape[2], CHUNK)]


def _labels(target: Array, ignore_index: int) -> tuple[Array, Array]:
    """(which labels count, the labels with the ignored ones replaced by 0 so that they can index)."""
    counts = target != ignore_index
    return counts, np.where(counts, target, 0)


@kernel("cross_entropy", backend="numpy", algorithm="chunks")
def cross_entropy_chunks(x: Array, *, target: Array, weight: Array | None, ignore_index: int) -> Array:
    """loss (N,M) = weight[t]·(log Σ_c exp x[n,c,m] − x[n,t,m]), 0 where t = target[n,m] is ignored. x is (N,C,M)."""
    loss = np.empty(target.shape, x.dtype)

    @np.errstate(invalid="ignore", over="ignore")  # an ignored pixel's logits may be anything
    def work(task: tuple[int, slice]) -> None:
        n, m = task
        logits = x[n, :, m]
        counts, labels = _labels(target[n, m], ignore_index)
        top = logits.max(axis=0)
        value = np.log(np.exp(logits - top).sum(axis=0)) + (top - np.take_along_axis(logits, labels[None], axis=0)[0])
        if weight is not None:
            value *= weight[labels]
        loss[n, m] = np.where(counts, value, 0)

    parallel(work, _tasks(x))
    return loss


@kernel("cross_entropy_grad", backend="numpy", algorithm="chunks")
def cross_entropy_grad_chunks(gy: Array, x: Array, *, target: Array, weight: Array | None, ignore_index: int) -> Array:
    """gx (N,C,M) = gy[n,m]·weight[t]·(softmax(x)[n,c,m] − [c = t]), 0 where t = target[n,m] is ignored."""
    gx = empty(x.shape, x.dtype)

    @np.errstate(invalid="ignore", over="ignore")  # an ignored pixel's logits may be anything
    def work(task: tuple[int, slice]) -> None:
        n, m = task
        out = gx[n, :, m]
        counts, labels = _labels(target[n, m], ignore_index)
        np.subtract(x[n, :, m], x[n, :, m].max(axis=0), out=out)
        np.exp(out, out=out)
        out /= out.sum(axis=0)
        np.put_along_axis(out, labels[None], np.take_along_axis(out, labels[None], axis=0) - 1, axis=0)
        factor = gy[n, m] if weight is None else gy[n, m] * weight[labels]
        out *= factor
        out[:, ~counts] = 0  # not a product with 0: an ignored pixel's logits may be infinite

    parallel(work, _tasks(x))
    return gx


@kernel("label_sums", backend="numpy", algorithm="masks")
def label_sums_masks(labels: Array, weight: Array | None = None, *, classes: int, ignore_index: int) -> Array:
    """(2,) float64: how many labels are neither ignored nor a class, and Σ weight[t] of those that are a class."""
    counts = labels != ignore_index
    right = counts & (labels >= 0) & (labels < classes)
    wrong = np.count_nonzero(counts) - np.count_nonzero(right)
    # in float64: a float32 sum of 10⁷ weights loses digits
    total = np.count_nonzero(right) if weight is None else weight.astype(np.float64)[labels[right]].sum()
    return np.array([wrong, total], np.float64)

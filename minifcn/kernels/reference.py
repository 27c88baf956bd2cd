"""Every kernel from its definition, as index loops: the specification, and the oracle for all others.

Letters: n batch · c/o channels in/out · h,v image · i,j filter · p,q scores. Nothing here is fast, and nothing is
clever: a term of a sum is a line of the loop. Out-of-range pixels are padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np

from minifcn.array import Array
from minifcn.geometry import AdaptiveGeometry, ConvGeometry, PoolGeometry, ResizeGeometry
from minifcn.kernels.registry import REFERENCE, kernel

Index = tuple[int, int, int, int]
Term = tuple[Index, Index, Index]


def _terms(geom: ConvGeometry) -> Iterator[Term]:
    """The index triples (of x, of w, of y) of B(x, w, y) = Σ x[n,c,h,v]·w[o,c,i,j]·y[n,o,p,q]. In group g, output
    channels o see the input channels of the same group, which w counts from 0."""
    channels, filters = geom.c // geom.groups, geom.o // geom.groups
    height, width = geom.x_hw
    for n, o, p, q in np.ndindex(*geom.y_shape):
        g = o // filters
        for c, i, j in product(range(channels), range(geom.w_hw[0]), range(geom.w_hw[1])):
            h = p * geom.stride[0] + i * geom.dilation[0] - geom.padding[0]
            v = q * geom.stride[1] + j * geom.dilation[1] - geom.padding[1]
            if 0 <= h < height and 0 <= v < width:
                yield (n, g * channels + c, h, v), (o, c, i, j), (n, o, p, q)


@kernel("conv2d", backend="numpy", algorithm=REFERENCE)
def conv2d_reference(
    x: Array,
    w: Array,
    b: Array | None = None,
    scale: Array | None = None,
    add: Array | None = None,
    *,
    geom: ConvGeometry,
    relu: bool = False,
) -> Array:
    """∂B/∂y, and what may follow it: max(Σ x[n,c,h,v]·w[o,c,i,j] · scale[o] + b[o] + add[n,o,p,q], 0)."""
    y = np.zeros(geom.y_shape, x.dtype)
    for at_x, at_w, at_y in _terms(geom):
        y[at_y] += x[at_x] * w[at_w]
    for at in np.ndindex(*y.shape):
        y[at] *= 1 if scale is None else scale[at[1]]
    y = y if b is None else _plus_bias(y, b)
    y = y if add is None else add_reference(y, add)
    return relu_reference(y) if relu else y


@kernel("conv_transpose2d", backend="numpy", algorithm=REFERENCE)
def conv_transpose2d_reference(y: Array, w: Array, b: Array | None = None, *, geom: ConvGeometry) -> Array:
    """∂B/∂x, and a bias: x[n,c,h,v] = Σ y[n,o,p,q]·w[o,c,i,j] + b[c]."""
    x = np.zeros(geom.x_shape, y.dtype)
    for at_x, at_w, at_y in _terms(geom):
        x[at_x] += y[at_y] * w[at_w]
    return x if b is None else _plus_bias(x, b)


def _plus_bias(y: Array, b: Array) -> Array:
    for n, o, p, q in np.ndindex(*y.shape):
        y[n, o, p, q] += b[o]
    return y


@kernel("conv2d_weight", backend="numpy", algorithm=REFERENCE)
def conv2d_weight_reference(x: Array, y: Array, *, geom: ConvGeometry) -> Array:
    """∂B/∂w: w[o,c,i,j] = Σ x[n,c,h,v]·y[n,o,p,q]."""
    w = np.zeros(geom.w_shape, x.dtype)
    for at_x, at_w, at_y in _terms(geom):
        w[at_w] += x[at_x] * y[at_y]
    return w


def _window(geom: PoolGeometry, p: int, q: int) -> Iterator[tuple[int, int, int]]:
    """(tap, h, v) of the window at (p, q): tap counts i·J + j, and positions in the padding are left out."""
    for i, j in np.ndindex(*geom.w_hw):
        h = p * geom.stride[0] + i * geom.dilation[0] - geom.padding[0]
        v = q * geom.stride[1] + j * geom.dilation[1] - geom.padding[1]
        if 0 <= h < geom.x_hw[0] and 0 <= v < geom.x_hw[1]:
            yield i * geom.w_hw[1] + j, h, v


@kernel("channel_sum", backend="numpy", algorithm=REFERENCE)
def channel_sum_reference(x: Array) -> Array:
    """s[c] = Σ x[n,c,h,v], added in float64."""
    s = np.zeros(x.shape[1])
    for n, c, h, v in np.ndindex(*x.shape):
        s[c] += x[n, c, h, v]
    return s.astype(x.dtype)


@kernel("max_pool2d", backend="numpy", algorithm=REFERENCE)
def max_pool2d_reference(x: Array, *, geom: PoolGeometry) -> tuple[Array, Array]:
    """y[n,c,p,q] = max over the window, and the tap that holds it: the first of equal ones, or the last NaN."""
    y = np.full(geom.y_shape, -np.inf, x.dtype)
    tap = np.zeros(geom.y_shape, np.intp)
    for n, c, p, q in np.ndindex(*geom.y_shape):
        for position, (t, h, v) in enumerate(_window(geom, p, q)):
            value = x[n, c, h, v]
            if position == 0 or value > y[n, c, p, q] or math.isnan(value):
                y[n, c, p, q], tap[n, c, p, q] = value, t
    return y, tap


@kernel("pool_take", backend="numpy", algorithm=REFERENCE)
def pool_take_reference(x: Array, *, tap: Array, geom: PoolGeometry) -> Array:
    """y[n,c,p,q] = x at the tap that was chosen for (p, q)."""
    y = np.zeros(geom.y_shape, x.dtype)
    for n, c, p, q in np.ndindex(*geom.y_shape):
        for t, h, v in _window(geom, p, q):
            if t == tap[n, c, p, q]:
                y[n, c, p, q] = x[n, c, h, v]
    return y


@kernel("pool_put", backend="numpy", algorithm=REFERENCE)
def pool_put_reference(y: Array, *, tap: Array, geom: PoolGeometry) -> Array:
    """The adjoint of pool_take: y[n,c,p,q] is added to x at the chosen tap."""
    x = np.zeros(geom.x_shape, y.dtype)
    for n, c, p, q in np.ndindex(*geom.y_shape):
        for t, h, v in _window(geom, p, q):
            if t == tap[n, c, p, q]:
                x[n, c, h, v] += y[n, c, p, q]
    return x


@kernel("avg_pool2d", backend="numpy", algorithm=REFERENCE)
def avg_pool2d_reference(x: Array, *, scale: Array, geom: PoolGeometry) -> Array:
    """y[n,c,p,q] = scale[p,q] · Σ over the window; scale is one over the divisor."""
    y = np.zeros(geom.y_shape, x.dtype)
    for n, c, p, q in np.ndindex(*geom.y_shape):
        for _, h, v in _window(geom, p, q):
            y[n, c, p, q] += x[n, c, h, v] * scale[p, q]
    return y


@kernel("avg_pool2d_adjoint", backend="numpy", algorithm=REFERENCE)
def avg_pool2d_adjoint_reference(y: Array, *, scale: Array, geom: PoolGeometry) -> Array:
    """x[n,c,h,v] = Σ over the windows that hold (h, v) of scale[p,q]·y[n,c,p,q]."""
    x = np.zeros(geom.x_shape, y.dtype)
    for n, c, p, q in np.ndindex(*geom.y_shape):
        for _, h, v in _window(geom, p, q):
            x[n, c, h, v] += y[n, c, p, q] * scale[p, q]
    return x


def _adaptive_terms(geom: AdaptiveGeometry) -> Iterator[tuple[Index, Index, float]]:
    """The index pairs (of x, of y) with the factor between them, one over the window's size."""
    rows, columns = geom.spans(0), geom.spans(1)
    for n, c, p, q in np.ndindex(*geom.y_shape):
        (top, bottom), (left, right) = rows[p], columns[q]
        for h, v in product(range(top, bottom), range(left, right)):
            yield (n, c, h, v), (n, c, p, q), 1 / ((bottom - top) * (right - left))


@kernel("adaptive_avg_pool2d", backend="numpy", algorithm=REFERENCE)
def adaptive_avg_pool2d_reference(x: Array, *, geom: AdaptiveGeometry) -> Array:
    """y[n,c,p,q] = the mean of rows ⌊p·H/P⌋ … ⌈(p+1)·H/P⌉ and likewise columns."""
    y = np.zeros(geom.y_shape, x.dtype)
    for at_x, at_y, factor in _adaptive_terms(geom):
        y[at_y] += x[at_x] * factor
    return y


@kernel("adaptive_avg_pool2d_adjoint", backend="numpy", algorithm=REFERENCE)
def adaptive_avg_pool2d_adjoint_reference(y: Array, *, geom: AdaptiveGeometry) -> Array:
    """The adjoint: x[n,c,h,v] = Σ of the scores that (h, v) is in, each over its window's size."""
    x = np.zeros(geom.x_shape, y.dtype)
    for at_x, at_y, factor in _adaptive_terms(geom):
        x[at_x] += y[at_y] * factor
    return x


def _column_terms(geom: PoolGeometry) -> Iterator[tuple[Index, tuple[int, int, int]]]:
    """The index pairs (of x, of cols) that name the same value: cols[n, c·I·J + i·J + j, p·Q + q] = x[n,c,h,v]."""
    taps = geom.w_hw[0] * geom.w_hw[1]
    for n, c, p, q in np.ndindex(*geom.y_shape):
        for tap, h, v in _window(geom, p, q):
            yield (n, c, h, v), (n, c * taps + tap, p * geom.y_hw[1] + q)


@kernel("unfold", backend="numpy", algorithm=REFERENCE)
def unfold_reference(x: Array, *, geom: PoolGeometry) -> Array:
    """cols[n, c·I·J + i·J + j, p·Q + q] = x[n,c,h,v], 0 in the padding."""
    cols = np.zeros(geom.columns_shape, x.dtype)
    for at_x, at_cols in _column_terms(geom):
        cols[at_cols] = x[at_x]
    return cols


@kernel("fold", backend="numpy", algorithm=REFERENCE)
def fold_reference(cols: Array, *, geom: PoolGeometry) -> Array:
    """The adjoint of unfold: x[n,c,h,v] = Σ of all cols that were read from there."""
    x = np.zeros(geom.x_shape, cols.dtype)
    for at_x, at_cols in _column_terms(geom):
        x[at_x] += cols[at_cols]
    return x


@kernel("interpolate", backend="numpy", algorithm=REFERENCE)
def interpolate_reference(x: Array, *, geom: ResizeGeometry) -> Array:
    """y[n,c,p,q] = Σ of the taps a·x[n,c,h,v] at row p, column q."""
    y = np.zeros((*x.shape[:2], *geom.y_hw), x.dtype)
    for (n, c, p, q), _ in np.ndenumerate(y):
        for (h, a), (v, b) in product(geom.taps(0, p), geom.taps(1, q)):
            y[n, c, p, q] += float(a * b) * x[n, c, h, v]
    return y


@kernel("interpolate_adjoint", backend="numpy", algorithm=REFERENCE)
def interpolate_adjoint_reference(y: Array, *, geom: ResizeGeometry) -> Array:
    """x[n,c,h,v] = Σ of y over the outputs to which pixel (h, v) contributes, with the same factors."""
    x = np.zeros((*y.shape[:2], *geom.x_hw), y.dtype)
    for (n, c, p, q), value in np.ndenumerate(y):
        for (h, a), (v, b) in product(geom.taps(0, p), geom.taps(1, q)):
            x[n, c, h, v] += float(a * b) * value
    return x


@kernel("add", backend="numpy", algorithm=REFERENCE)
def add_reference(x: Array, y: Array) -> Array:
    """z = x + y."""
    z = np.zeros_like(x)
    for at, value in np.ndenumerate(x):
        z[at] = value + y[at]
    return z


@kernel("relu", backend="numpy", algorithm=REFERENCE)
def relu_reference(x: Array) -> Array:
    """y = x where x > 0, else 0; NaN stays NaN."""
    y = np.zeros_like(x)
    for at, value in np.ndenumerate(x):
        y[at] = 0 if value <= 0 else value
    return y


@kernel("relu_grad", backend="numpy", algorithm=REFERENCE)
def relu_grad_reference(gy: Array, y: Array) -> Array:
    """gx = gy, but 0 where y ≤ 0."""
    gx = np.zeros_like(gy)
    for at, value in np.ndenumerate(gy):
        gx[at] = 0 if y[at] <= 0 else value
    return gx


@kernel("dropout", backend="numpy", algorithm=REFERENCE)
def dropout_reference(x: Array, *, p: float, seed: int, offset: int, period: int) -> Array:
    """y[e] = x[e]/(1−p) where the random word of e // period is at least p·2³², else 0 (see kernels/philox.py)."""
    from minifcn.kernels.philox import philox_word

    y = np.zeros_like(x)
    threshold = min(round(p * 2**32), 2**32)
    for e, (at, value) in enumerate(np.ndenumerate(x)):
        if philox_word(seed, offset + e // period) >= threshold:
            y[at] = value / (1 - p)
    return y


@kernel("batch_norm", backend="numpy", algorithm=REFERENCE)
def batch_norm_reference(x: Array, gamma: Array, beta: Array, *, eps: float) -> tuple[Array, Array, Array]:
    """y = (x − mean)/√(var + eps)·γ + β per channel, and mean and (biased) var, over n, h and v, in float64.

    Ioffe & Szegedy 2015, algorithm 1.
    """
    n, channels, height, width = x.shape
    mean, var = np.zeros((2, channels))
    y = np.zeros_like(x)
    for c in range(channels):
        at = [(k, c, h, v) for k, h, v in np.ndindex(n, height, width)]
        mean[c] = math.fsum(x[e] for e in at) / len(at)
        var[c] = math.fsum((float(x[e]) - mean[c]) ** 2 for e in at) / len(at)
        for e in at:
            y[e] = (float(x[e]) - mean[c]) / math.sqrt(var[c] + eps) * gamma[c] + beta[c]
    return y, mean, var


@kernel("batch_norm_grad", backend="numpy", algorithm=REFERENCE)
def batch_norm_grad_reference(
    gy: Array, x: Array, gamma: Array, *, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """With x̂ = (x − mean)/σ over M values: gβ = Σ gy, gγ = Σ gy·x̂, gx = γ/σ·(gy − gβ/M − x̂·gγ/M)."""
    n, channels, height, width = x.shape
    ggamma, gbeta = np.zeros((2, channels), x.dtype)
    gx = np.zeros_like(x)
    for c in range(channels):
        at = [(k, c, h, v) for k, h, v in np.ndindex(n, height, width)]
        sigma = math.sqrt(var[c] + eps)
        normal = {e: (float(x[e]) - mean[c]) / sigma for e in at}
        gbeta[c] = math.fsum(gy[e] for e in at)
        ggamma[c] = math.fsum(gy[e] * normal[e] for e in at)
        for e in at:
            gx[e] = gamma[c] / sigma * (gy[e] - gbeta[c] / len(at) - normal[e] * ggamma[c] / len(at))
    return gx, ggamma, gbeta


@kernel("batch_norm_inference", backend="numpy", algorithm=REFERENCE)
def batch_norm_inference_reference(
    x: Array, gamma: Array, beta: Array, *, mean: Array, var: Array, eps: float
) -> Array:
    """y = (x − mean)/√(var + eps)·γ + β per channel, with given statistics."""
    y = np.zeros_like(x)
    for (n, c, h, v), value in np.ndenumerate(x):
        y[n, c, h, v] = (value - mean[c]) / math.sqrt(var[c] + eps) * gamma[c] + beta[c]
    return y


@kernel("cross_entropy", backend="numpy", algorithm=REFERENCE)
def cross_entropy_reference(x: Array, *, target: Array, weight: Array | None, ignore_index: int) -> Array:
    """loss[n,m] = weight[t]·(log Σ_c exp x[n,c,m] − x[n,t,m]), t = target[n,m]; 0 where t is ignored. x is (N,C,M)."""
    loss = np.zeros(target.shape, x.dtype)
    for (n, m), t in np.ndenumerate(target):
        if t != ignore_index:
            top = max(x[n, :, m])
            log_sum = top + math.log(math.fsum(math.exp(value - top) for value in x[n, :, m]))
            loss[n, m] = (1 if weight is None else weight[t]) * (log_sum - x[n, t, m])
    return loss


@kernel("cross_entropy_grad", backend="numpy", algorithm=REFERENCE)
def cross_entropy_grad_reference(
    gy: Array, x: Array, *, target: Array, weight: Array | None, ignore_index: int
) -> Array:
    """gx[n,c,m] = gy[n,m]·weight[t]·(softmax(x)[n,c,m] − [c = t]); 0 where t is ignored."""
    gx = np.zeros_like(x)
    for (n, m), t in np.ndenumerate(target):
        if t != ignore_index:
            top = max(x[n, :, m])
            exps = [math.exp(value - top) for value in x[n, :, m]]
            for c, e in enumerate(exps):
                gx[n, c, m] = gy[n, m] * (1 if weight is None else weight[t]) * (e / math.fsum(exps) - (c == t))
    return gx


@kernel("sgd_step", backend="numpy", algorithm=REFERENCE)
def sgd_step_reference(
    p: Array, g: Array, v: Array | None = None, *, lr: float, momentum: float, weight_decay: float
) -> tuple[Array, ...]:
    """v ← momentum·v + (g + weight_decay·p), p ← p − lr·v, in place; without momentum v is the bracket alone.

    Sutskever et al. 2013 in PyTorch's form.
    """
    for at in np.ndindex(*p.shape):
        change = g[at] + weight_decay * p[at]
        if v is not None:
            v[at] = change = momentum * v[at] + change
        p[at] -= lr * change
    return (p,) if v is None else (p, v)


@kernel("adam_step", backend="numpy", algorithm=REFERENCE)
def adam_step_reference(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    step: int,
) -> tuple[Array, ...]:
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − lr·m̂/(√v̂ + eps), in place, m̂ = m/(1−β₁ᵗ) and v̂ = v/(1−β₂ᵗ).

    Kingma & Ba 2015, algorithm 1; weight_decay·p is added to g.
    """
    for at in np.ndindex(*p.shape):
        slope = g[at] + weight_decay * p[at]
        m[at] = betas[0] * m[at] + (1 - betas[0]) * slope
        v[at] = betas[1] * v[at] + (1 - betas[1]) * slope**2
        unbiased = m[at] / (1 - betas[0] ** step), v[at] / (1 - betas[1] ** step)
        p[at] -= lr * unbiased[0] / (math.sqrt(unbiased[1]) + eps)
    return p, m, v


@kernel("add_at", backend="numpy", algorithm=REFERENCE)
def add_at_reference(y: Array, *, at: Array, size: int) -> Array:
    """x[k] = Σ y[e] over all e with at[e] = k; x (size,), y and at (M,)."""
    x = np.zeros(size, y.dtype)
    for e, k in enumerate(at):
        x[k] += y[e]
    return x


@kernel("move_average", backend="numpy", algorithm=REFERENCE)
def move_average_reference(running: Array, now: Array, *, momentum: float, scale: float) -> Array:
    """running ← (1 − momentum)·running + momentum·(scale·now), in place."""
    for at in np.ndindex(*running.shape):
        running[at] = (1 - momentum) * float(running[at]) + momentum * scale * float(now[at])
    return running


@kernel("label_sums", backend="numpy", algorithm=REFERENCE)
def label_sums_reference(labels: Array, weight: Array | None = None, *, classes: int, ignore_index: int) -> Array:
    """(2,) float64: how many labels are neither ignored nor a class, and Σ weight[t] of those that are a class."""
    sums = np.zeros(2)
    for t in labels.reshape(-1):
        if t != ignore_index:
            if 0 <= t < classes:
                sums[1] += 1 if weight is None else float(weight[t])
            else:
                sums[0] += 1
    return sums


@kernel("matmul", backend="numpy", algorithm=REFERENCE)
def matmul_reference(x: Array, y: Array) -> Array:
    """z[…,m,n] = Σ_k x[…,m,k]·y[…,k,n]."""
    z = np.zeros((*x.shape[:-1], y.shape[-1]), x.dtype)
    for *batch, m, n in np.ndindex(*z.shape):
        for k in range(x.shape[-1]):
            z[(*batch, m, n)] += x[(*batch, m, k)] * y[(*batch, k, n)]
    return z

"""Batch normalisation and local response normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minifcn import kernels
from minifcn.array import Array, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import channel_vector, flag, floats, integer, number, optional, raw, tensor
from minifcn.functional._compose import derivative_of
from minifcn.functional.arithmetic import sub
from minifcn.functional.pooling import avg_pool2d
from minifcn.functional.reduce import centred, sum
from minifcn.functional.reduce import mean as mean_of
from minifcn.functional.shape import pad, reshape

batch_norm_p = Primitive("batch_norm(x, gamma, beta) -> y, mean, var")
batch_norm_grad_p = Primitive("batch_norm_grad(gy, x, gamma) -> gx, ggamma, gbeta")
batch_norm_inference_p = Primitive("batch_norm_inference(x, gamma, beta) -> y")
# by the statistics of several processes' x, of `total` values per channel
batch_norm_synced_p = Primitive(
    "batch_norm_synced(x, gamma, beta) -> y, mean, var, total", lambda *arrays, **params: _synced(*arrays, **params)
)
# Σ of several processes' x, the same on all; what is lost on all of them by a change of one x is again such a sum
sum_of_processes_p = Primitive("sum_of_processes(x) -> y", lambda x, *, gather: gather(x).sum(axis=0))
sum_of_processes_p.defvjp(lambda gy, gather: sum_of_processes_p(gy, gather=gather))

Gather = Callable[[Array], Array]


def _mean(x: Tensor) -> Tensor:
    return mean_of(x, (0, 2, 3), keepdim=True)  # (1, C, 1, 1)


def _composed(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, mean: Callable[[Tensor], Tensor] = _mean) -> Tensor:
    """Ioffe & Szegedy 2015, algorithm 1, in elementary operations."""
    difference = centred(x, mean)
    var = mean(difference * difference)
    return difference / (var + eps).sqrt() * _column(gamma) + _column(beta)


def _fused(gy: Tensor, x: Tensor, gamma: Tensor, mean: Array, var: Array, eps: float) -> list[Tensor]:
    gx, (ggamma, gbeta) = batch_norm_grad_p.with_extras(gy, x, gamma, mean=mean, var=var, eps=eps)
    return [gx, Tensor(ggamma), Tensor(gbeta)]


# the statistics depend on x as well, so beyond the first order the gradient is that of the composition
batch_norm_p.defvjp_joint(
    lambda gy, x, gamma, beta, mean, var, eps: derivative_of(
        lambda x, gamma, beta: _composed(x, gamma, beta, eps),
        (x, gamma, beta),
        gy,
        fused=lambda: _fused(gy, x, gamma, mean, var, eps),
    )
)
batch_norm_synced_p.defvjp_joint(
    lambda gy, x, gamma, beta, mean, var, total, eps, gather: derivative_of(
        lambda x, gamma, beta: _composed(
            x, gamma, beta, eps, lambda x: sum_of_processes_p(sum(x, (0, 2, 3), keepdim=True), gather=gather) / total
        ),
        (x, gamma, beta),
        gy,
        fused=lambda: _fused_synced(gy, x, gamma, mean, var, total, eps, gather),
    )
)
batch_norm_inference_p.defvjp(
    lambda gy, gamma, mean, var, eps: gy * _column(gamma * _over_sigma(var, eps)),
    lambda gy, x, mean, var, eps: sum(gy * sub(x, mean[:, None, None]), (0, 2, 3)) * _over_sigma(var, eps),
    lambda gy: sum(gy, (0, 2, 3)),
)


def _synced(x: Array, gamma: Array, beta: Array, *, eps: float, gather: Gather) -> tuple[Array, Array, Array, int]:
    """(y, mean, var, total): moments of parts are put together without cancellation (Chan, Golub & LeVeque 1979)."""
    xp = module_of(x)
    _, own_mean, own_var = kernels.run("batch_norm", x, gamma, beta, eps=eps)
    own_count = xp.full_like(own_mean, x.size // x.shape[1])
    means, variances, counts = gather(xp.stack([own_mean, own_var, own_count])).swapaxes(0, 1)  # (processes, C) each
    total = int(counts[:, 0].sum())
    mean = (counts * means).sum(axis=0) / total
    var = (counts * (variances + (means - mean) ** 2)).sum(axis=0) / total
    return kernels.run("batch_norm_inference", x, gamma, beta, mean=mean, var=var, eps=eps), mean, var, total


def _fused_synced(
    gy: Tensor, x: Tensor, gamma: Tensor, mean: Array, var: Array, total: int, eps: float, gather: Gather
) -> list[Tensor]:
    """gx = γ/σ·(gy − gβ/M − x̂·gγ/M) with gβ, gγ and M of all processes. The kernel takes those of this one, gβ₁, gγ₁
    and M₁, so γ/σ·(gβ₁/M₁ − gβ/M + x̂·(gγ₁/M₁ − gγ/M)) is added: x normalised with another scale and shift."""
    partial, (ggamma, gbeta) = batch_norm_grad_p.with_extras(gy, x, gamma, mean=mean, var=var, eps=eps)
    xp = module_of(ggamma)
    own = xp.stack([ggamma, gbeta]).astype(np.float64)
    rest = own / (x.size // x.shape[1]) - gather(own).sum(axis=0) / total
    scale, shift = (Tensor(a.astype(x.dtype)) for a in rest * gamma.data / xp.sqrt(var + eps))
    gx = partial + batch_norm_inference_p(x, scale, shift, mean=mean, var=var, eps=eps)
    return [gx, Tensor(ggamma), Tensor(gbeta)]


def _column(v: Tensor) -> Tensor:
    return reshape(v, -1, 1, 1)  # (C, 1, 1), beside (N, C, H, W)


def _over_sigma(var: Array, eps: float) -> Tensor:
    return Tensor(1 / module_of(var).sqrt(var + eps))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | Array | None,
    running_var: Tensor | Array | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    gather: Gather | None = None,
) -> Tensor:
    """input (N,C), (N,C,H,W) or (N,C,…), normalised per channel: (x − mean)/√(var + eps)·weight + bias.

    Args:
        input: float32 or float64.
        running_mean, running_var: (C,), Tensors or arrays of the input's dtype, both or neither. In training they move
            by `momentum` towards the batch's mean and unbiased variance, in place; otherwise they are what is
            normalised with. A batch of nothing leaves them as they are.
        weight, bias: (C,), of the input's dtype, or None for 1 and 0.
        training: whether to normalise with the batch's own statistics.
        momentum, eps: numbers; eps may not be negative, nor 0 in training.
        gather: in training, the arrays of several processes (…) → (processes, …): the batch is then what all of them
            are given, at the same time and none of it empty. Gradients are those of the sum of their losses, and those
            of weight and bias are this process's part of it. Every process must ask for the same derivatives.

    Raises:
        ValueError: a shape that does not fit, one value per channel in training, or no statistics without training.
        TypeError: mixed dtypes, or an argument of another type.

    Ioffe & Szegedy 2015, algorithms 1 and 2.
    """
    op = "batch_norm"
    x = tensor(op, "input", input)
    given = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    vectors = {name: optional(op, name, value) for name, value in given.items()}
    floats(op, input=x, **vectors)
    flag(op, "training", training)
    momentum, eps = number(op, "momentum", momentum), number(op, "eps", eps)
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"{op}: eps is {eps}; a number above 0 is needed")
    if x.ndim < 2:
        raise ValueError(f"{op}: input has {x.ndim} axes, shape {x.shape}; (N, C) or (N, C, …) is needed")
    if (running_mean is None) != (running_var is None):
        raise ValueError(f"{op}: one of running_mean and running_var is None; both or neither are needed")
    if running_mean is None and not training:
        raise ValueError(f"{op}: running_mean and running_var are None; both are needed unless training=True")
    channels = x.shape[1]
    for name, value in vectors.items():
        if value is not None:
            channel_vector(op, name, value, channels)
    shape = x.shape
    x = reshape(x, *shape[:2], math.prod(shape[2:]), 1)
    xp = module_of(x.data)
    gamma = vectors["weight"] if vectors["weight"] is not None else Tensor(xp.ones(channels, x.dtype))
    beta = vectors["bias"] if vectors["bias"] is not None else Tensor(xp.zeros(channels, x.dtype))
    if training:
        y = _normalized_by_batch(x, gamma, beta, running_mean, running_var, momentum, eps, shape, gather)
    else:
        # copies: the statistics of a later training step must not change this step's gradient
        statistics = {"mean": raw(running_mean).copy(), "var": raw(running_var).copy()}  # type: ignore[arg-type]
        y = batch_norm_inference_p(x, gamma, beta, eps=eps, **statistics)
    return reshape(y, shape)


def _normalized_by_batch(
    x: Tensor, gamma: Tensor, beta: Tensor, running_mean: Tensor | Array | None, running_var: Tensor | Array | None,
    momentum: float, eps: float, shape: tuple[int, ...], gather: Gather | None,
) -> Tensor:  # fmt: skip
    """x (N,C,M,1) by its own statistics, or with `gather` by those of all processes; the running ones move there."""
    count = x.shape[0] * x.shape[2]
    if count == 1 and gather is None:
        raise ValueError(f"batch_norm: 1 value per channel in training, shape {shape}; more than 1 is needed")
    if x.size == 0 and gather is not None:
        raise ValueError(
            f"batch_norm: an empty input, shape {shape}, with gather; one value on every process is needed"
        )
    if x.size == 0:
        return x * _column(gamma) + _column(beta)  # nothing, but with a gradient of zeros for both
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if running is not None and not getattr(raw(running).flags, "writeable", True):
            raise ValueError(f"batch_norm: {name} is read-only; in training it must be written to")
    if gather is None:
        y, (mean, var) = batch_norm_p.with_extras(x, gamma, beta, eps=eps)
    else:
        y, (mean, var, total) = batch_norm_synced_p.with_extras(x, gamma, beta, eps=eps, gather=gather)
        count = int(total)
        if count == 1:
            raise ValueError(f"batch_norm: 1 value per channel on all processes, shape {shape}; more than 1 is needed")
    for running, now, scale in ((running_mean, mean, 1.0), (running_var, var, count / (count - 1))):
        if running is not None:
            kernels.run("move_average", raw(running), now, momentum=momentum, scale=scale)
    return y


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """input (N,C,…), each value over (k + alpha·mean of the squares of `size` neighbouring channels)^beta.

    y[n,c,…] = x[n,c,…] / (k + alpha/size · Σ x[n,c′,…]²)^beta, c − ⌊size/2⌋ ≤ c′ < c + ⌈size/2⌉, zeros beyond the ends.

    Args:
        input: 3 or more axes, channels on axis 1, float32 or float64.
        size: how many channels, the own one included.
        alpha, beta, k: as above. The paper's alpha is not divided by size.

    Raises:
        ValueError: fewer than 3 axes or size below 1. TypeError: not a float tensor, or size no int.

    Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks", §3.3.

    >>> local_response_norm(Tensor([[[1.0], [1.0]]]), 2, alpha=2.0, beta=1.0)
    Tensor([[[0.5       ],
             [0.33333334]]], dtype=float32)
    """
    op = "local_response_norm"
    x = tensor(op, "input", input)
    floats(op, input=x)
    if x.ndim < 3:
        raise ValueError(f"{op}: input has {x.ndim} axes, shape {x.shape}; (N, C, …) with 3 or more is needed")
    if x.size == 0:
        return x
    size = integer(op, "size", size, 1)
    alpha, beta, k = (number(op, name, value) for name, value in (("alpha", alpha), ("beta", beta), ("k", k)))
    n, c = x.shape[:2]
    squares = reshape(x * x, n, 1, c, math.prod(x.shape[2:]))
    padded = pad(squares, (0, 0, size // 2, (size - 1) // 2))
    around = reshape(avg_pool2d(padded, (size, 1), stride=1), x.shape)
    return x / (around * alpha + k) ** beta

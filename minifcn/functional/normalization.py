"""Batch normalisation."""

from __future__ import annotations

from minifcn.array import Array, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import channel_vector, floats, raw, tensor
from minifcn.functional._compose import derivative_of
from minifcn.functional.arithmetic import sub
from minifcn.functional.reduce import mean as mean_of
from minifcn.functional.reduce import sum
from minifcn.functional.shape import reshape

batch_norm_p = Primitive("batch_norm(x, gamma, beta) -> y, mean, var")
batch_norm_grad_p = Primitive("batch_norm_grad(gy, x, gamma) -> gx, ggamma, gbeta")
batch_norm_inference_p = Primitive("batch_norm_inference(x, gamma, beta) -> y")


def _composed(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """Ioffe & Szegedy 2015, algorithm 1, in elementary operations."""
    centred = x - mean_of(x, (0, 2, 3), keepdim=True)
    var = mean_of(centred * centred, (0, 2, 3), keepdim=True)
    return centred / (var + eps).sqrt() * _column(gamma) + _column(beta)


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
batch_norm_inference_p.defvjp(
    lambda gy, gamma, mean, var, eps: gy * _column(gamma * _over_sigma(var, eps)),
    lambda gy, x, mean, var, eps: sum(gy * sub(x, mean[:, None, None]), (0, 2, 3)) * _over_sigma(var, eps),
    lambda gy: sum(gy, (0, 2, 3)),
)


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
) -> Tensor:
    """input (N,C,H,W) or (N,C), normalised per channel: (x − mean)/√(var + eps)·weight + bias.

    Args:
        input: float32 or float64.
        running_mean, running_var: (C,), Tensors or arrays. In training they move by `momentum` towards the batch's mean
            and unbiased variance, in place; otherwise they are what is normalised with.
        weight, bias: (C,), or None for 1 and 0.
        training: whether to normalise with the batch's own statistics.

    Raises:
        ValueError: a shape that does not fit, one value per channel in training, or no statistics without training.
        TypeError: mixed dtypes.

    Ioffe & Szegedy 2015, algorithms 1 and 2.
    """
    op = "batch_norm"
    x = tensor(op, "input", input)
    weight, bias = (None if t is None else tensor(op, name, t) for name, t in (("weight", weight), ("bias", bias)))
    floats(op, input=x, weight=weight, bias=bias)
    flat = x.ndim == 2
    if x.ndim not in (2, 4):
        raise ValueError(f"{op}: input has {x.ndim} axes, shape {x.shape}; (N, C, H, W) or (N, C) is needed")
    x = reshape(x, *x.shape, 1, 1) if flat else x
    channels = x.shape[1]
    xp = module_of(x.data)
    for name, value in (
        ("weight", weight),
        ("bias", bias),
        ("running_mean", running_mean),
        ("running_var", running_var),
    ):
        if value is not None:
            channel_vector(op, name, value, channels)
            if value.dtype.kind != "f":
                raise TypeError(f"{op}: {name} has dtype {value.dtype}; floats are needed")
    gamma = Tensor(xp.ones(channels, x.dtype)) if weight is None else weight
    beta = Tensor(xp.zeros(channels, x.dtype)) if bias is None else bias
    if training:
        count = x.size // channels if channels else 0
        if count <= 1:
            raise ValueError(f"{op}: {count} value per channel in training, shape {input.shape}; more than 1 is needed")
        y, (mean, var) = batch_norm_p.with_extras(x, gamma, beta, eps=eps)
        for running, now in ((running_mean, mean), (running_var, var * (count / (count - 1)))):
            if running is not None:
                raw(running)[...] = (1 - momentum) * raw(running) + momentum * now
    else:
        if running_mean is None or running_var is None:
            raise ValueError(f"{op}: running_mean or running_var is None; both are needed unless training=True")
        # copies: the statistics of a later training step must not change this step's gradient
        statistics = {"mean": raw(running_mean).astype(x.dtype), "var": raw(running_var).astype(x.dtype)}
        y = batch_norm_inference_p(x, gamma, beta, eps=eps, **statistics)
    return reshape(y, input.shape) if flat else y

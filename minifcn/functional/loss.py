"""Cross-entropy and negative log-likelihood over classes on axis 1, with ignored labels and class weights."""

from __future__ import annotations

import math

import numpy as np

from minifcn import debugging, kernels
from minifcn.array import Array, backend_of, module_of, to_device
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import choice, floats, integer, optional, tensor
from minifcn.functional._compose import derivative_of
from minifcn.functional.activation import log_softmax
from minifcn.functional.reduce import sum
from minifcn.functional.shape import gather, reshape

# x (N,C,M), target (N,M) → loss (N,M)
cross_entropy_p = Primitive("cross_entropy(x) -> loss")
cross_entropy_grad_p = Primitive("cross_entropy_grad(g, x) -> gx")
cross_entropy_p.defvjp(
    lambda g, x, target, weight, ignore_index: derivative_of(
        lambda logits: _picked(log_softmax(logits, 1), target, weight, ignore_index),
        (x,),
        g,
        fused=lambda: [cross_entropy_grad_p(g, x, target=target, weight=weight, ignore_index=ignore_index)],
    )[0]
)

Reductions = ("mean", "sum", "none")


def _picked(log_probabilities: Tensor, target: Array, weight: Array | None, ignore_index: int) -> Tensor:
    """−weight[t]·x[n,t,m] at t = target[n,m], 0 where t is ignored."""
    xp = module_of(target)
    counts = target != ignore_index
    labels = xp.where(counts, target, 0)
    factor = counts.astype(log_probabilities.dtype)
    if weight is not None:
        factor = factor * weight[labels]
    picked = gather(log_probabilities, 1, labels[:, None])  # (N, 1, M)
    loss: Tensor = -reshape(picked, target.shape) * factor
    return loss


def cross_entropy(
    input: Tensor,
    target: Tensor | Array,
    weight: Tensor | Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """−log softmax(input)[target] per pixel: input (N,C,…) or (C,), target (N,…) or (), integers 0 … C−1.

    Args:
        input: logits, float32 or float64, classes on axis 1.
        target: labels of any integer dtype (PyTorch takes int64 and uint8); those equal to ignore_index have no loss
            and no gradient.
        weight: (C,) per class, of the input's dtype, or None.
        reduction: "mean" (divided by the sum of the counted pixels' weights; where that is 0, NaN without a gradient),
            "sum" or "none".

    Raises:
        ValueError: shapes that do not fit, or labels out of range (the message names them).
        TypeError: input or weight is not float or they differ, target or ignore_index is not integer.

    >>> round(cross_entropy(Tensor([[0.0, 0.0]]), np.array([1])).item(), 6)  # two equal scores: log 2
    0.693147
    """
    x, labels, factors, total = _arguments("cross_entropy", input, target, weight, ignore_index, reduction)
    flat_x, flat_t = _flatten(x, labels)
    loss = cross_entropy_p(flat_x, target=flat_t, weight=factors, ignore_index=ignore_index)
    return _reduce("cross_entropy", loss, labels, total, ignore_index, reduction)


def nll_loss(
    input: Tensor,
    target: Tensor | Array,
    weight: Tensor | Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """−input[target] per pixel, for input (N,C,…) that holds log-probabilities; arguments and errors as in
    cross_entropy."""
    x, labels, factors, total = _arguments("nll_loss", input, target, weight, ignore_index, reduction)
    flat_x, flat_t = _flatten(x, labels)
    return _reduce("nll_loss", _picked(flat_x, flat_t, factors, ignore_index), labels, total, ignore_index, reduction)


def _arguments(
    op: str, input: Tensor, target: Tensor | Array, weight: Tensor | Array | None, ignore_index: int, reduction: str
) -> tuple[Tensor, Array, Array | None, float]:
    """The checked input, labels as int64, weights in the input's dtype, and the sum of the weights of all labels."""
    x, labels = tensor(op, "input", input), tensor(op, "target", target).data
    given_weight = optional(op, "weight", weight)
    floats(op, input=x, weight=given_weight)
    choice(op, "reduction", reduction, Reductions)
    integer(op, "ignore_index", ignore_index)
    backend_of(x.data, labels, op=op)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{op}: target has dtype {labels.dtype}; integer class labels are needed")
    if x.ndim == 0 or labels.shape != (x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()):
        raise ValueError(f"{op}: input {x.shape} and target {labels.shape}; (N, C, …) and (N, …) are needed")
    classes = x.shape[1] if x.ndim > 1 else x.shape[0]
    if classes == 0:
        raise ValueError(f"{op}: input {x.shape} has no classes; at least one is needed")
    if given_weight is not None and given_weight.shape != (classes,):
        raise ValueError(f"{op}: weight has shape {given_weight.shape}; ({classes},), one per class, is needed")
    # copies: the gradient will need them as they are now
    labels, weights = labels.astype(np.int64), None if given_weight is None else given_weight.data.copy()
    # both at once, as a GPU would have to be waited for twice
    sums = to_device(kernels.run("label_sums", labels, weights, classes=classes, ignore_index=ignore_index), "cpu")
    if sums[0]:
        wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
        found = sorted({int(t) for t in labels[wrong].reshape(-1)[:1000]})[:5]
        raise ValueError(
            f"{op}: target holds labels {found} outside the {classes} classes; 0 to {classes - 1}, or "
            f"ignore_index={ignore_index}, is needed"
        )
    return x, labels, weights, float(sums[1])


def _flatten(x: Tensor, labels: Array) -> tuple[Tensor, Array]:
    """x as (N,C,M) and labels as (N,M)."""
    if x.ndim == 1:
        return reshape(x, 1, -1, 1), labels.reshape(1, 1)
    return reshape(x, *x.shape[:2], math.prod(x.shape[2:])), labels.reshape(len(labels), math.prod(labels.shape[1:]))


def _reduce(op: str, loss: Tensor, labels: Array, divisor: float, ignore_index: int, reduction: str) -> Tensor:
    """The losses as they are, their sum, or that over `divisor`."""
    if reduction == "none":
        return reshape(loss, labels.shape)
    total = sum(loss)
    if reduction == "sum":
        return total
    if not divisor and debugging.is_debugging():
        raise FloatingPointError(
            f"{op}: the mean is 0/0, as no label counts (all are ignore_index={ignore_index}, or their weights are 0), "
            f"at {debugging.place()}"
        )
    # of nothing, or of weights that add up to 0: NaN, but without a gradient, which would turn every parameter into NaN
    return total * (1 / divisor) if divisor else total * 0.0 + math.nan

"""ReLU, sigmoid, softmax and dropout."""

from __future__ import annotations

import math

from minifcn.array import Array, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import batched, floats, tensor, unbatched
from minifcn.functional.reduce import sum
from minifcn.functional.shape import axis_of
from minifcn.random import reserve

relu_p = Primitive("relu(x) -> y")
relu_grad_p = Primitive("relu_grad(gy, y) -> gx")
relu_p.defvjp(lambda gy, y: relu_grad_p(gy, y))
relu_grad_p.defvjp(lambda ggx, y: relu_grad_p(ggx, y), None)  # the step at y = 0 has slope 0 on both sides

# tanh(x/2)/2 + 1/2 would do, but exp(−|x|) keeps the small tail's digits
sigmoid_p = Primitive("sigmoid(x) -> y", lambda x: _sigmoid(x))
sigmoid_p.defvjp(lambda gy, y: gy * y * (1 - y))

log_softmax_p = Primitive("log_softmax(x) -> y", lambda x, *, axis: _log_softmax(x, axis))
log_softmax_p.defvjp(lambda gy, y, axis: gy - y.exp() * sum(gy, axis, keepdim=True))

# a mask that is a function of (seed, offset) is drawn again in backward instead of being kept
dropout_p = Primitive("dropout(x) -> y")
dropout_p.defvjp(
    lambda gy, p, seed, offset, period: dropout_p(gy, p=p, seed=seed, offset=offset, period=period)
)  # fmt: skip


def _sigmoid(x: Array) -> Array:
    xp = module_of(x)
    small = xp.exp(-abs(x))
    y: Array = xp.where(x >= 0, 1, small) / (1 + small)
    return y


def _log_softmax(x: Array, axis: int) -> Array:
    xp = module_of(x)
    shifted = x - x.max(axis=axis, keepdims=True)
    y: Array = shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))
    return y


def relu(input: Tensor) -> Tensor:
    """max(input, 0) of a tensor of any shape; its slope at 0 is 0.

    Raises TypeError for other than floats.

    >>> relu(Tensor([-1.0, 2.0]))
    Tensor([0., 2.], dtype=float32)
    """
    x = tensor("relu", "input", input)
    floats("relu", input=x)
    return relu_p(x)


def sigmoid(input: Tensor) -> Tensor:
    """1/(1 + exp(−input)) of a tensor of any shape.

    Raises TypeError for other than floats.
    """
    x = tensor("sigmoid", "input", input)
    floats("sigmoid", input=x)
    return sigmoid_p(x)


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """input − log Σ exp input along dim, shifted by the largest value so that nothing overflows.

    Raises ValueError for a dim that input does not have, TypeError for other than floats.
    """
    x = tensor("log_softmax", "input", input)
    floats("log_softmax", input=x)
    return log_softmax_p(x, axis=axis_of("log_softmax", dim, x.ndim))


def softmax(input: Tensor, dim: int) -> Tensor:
    """exp input / Σ exp input along dim.

    Raises ValueError for a dim that input does not have, TypeError for other than floats.

    >>> softmax(Tensor([0.0, 0.0]), dim=0)
    Tensor([0.5, 0.5], dtype=float32)
    """
    return log_softmax(input, dim).exp()


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """input with each element zero with probability p and the others divided by 1 − p; input itself unless training.

    The mask is a function of mf.manual_seed and of how much was drawn since. Srivastava et al. 2014, §10 ("inverted").

    Raises ValueError unless 0 ≤ p ≤ 1.
    """
    x = tensor("dropout", "input", input)
    return _dropout("dropout", x, p, training, period=1)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """As dropout, with whole channels of (N,C,H,W) or (C,H,W) zero. Tompson et al. 2015, §3.2.

    Raises ValueError unless 0 ≤ p ≤ 1, or for another number of axes.
    """
    x, single = batched("dropout2d", tensor("dropout2d", "input", input))
    return unbatched(_dropout("dropout2d", x, p, training, period=max(math.prod(x.shape[2:]), 1)), single)


def _dropout(op: str, x: Tensor, p: float, training: bool, period: int) -> Tensor:
    floats(op, input=x)
    if not 0 <= p <= 1:
        raise ValueError(f"{op}: p is {p}; a probability from 0 to 1 is needed")
    if not training or p == 0 or x.size == 0:
        return x
    seed, offset = reserve(x.size // period)
    return dropout_p(x, p=float(p), seed=seed, offset=offset, period=period)

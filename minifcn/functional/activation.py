"""ReLU, sigmoid, softmax and dropout."""

from __future__ import annotations

import math

from minifcn.array import Array, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import flag, floats, numeric, probability, real, tensor
from minifcn.functional.arithmetic import add_up, as_floats
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
    if x.shape[axis] == 0:
        return x.copy()  # of nothing, nothing
    shifted = x - x.max(axis=axis, keepdims=True)
    y: Array = shifted - xp.log(add_up(xp.exp(shifted), (axis,), keepdims=True))
    return y


def relu(input: Tensor) -> Tensor:
    """max(input, 0) of a tensor of any shape; its slope at 0 is 0.

    Raises TypeError for booleans.

    >>> relu(Tensor([-1.0, 2.0]))
    Tensor([0., 2.], dtype=float32)
    """
    x = tensor("relu", "input", input)
    numeric("relu", x)
    return relu_p(x)


def sigmoid(input: Tensor) -> Tensor:
    """1/(1 + exp(−input)) of a tensor of any shape; of integers as float32."""
    x = tensor("sigmoid", "input", input)
    real("sigmoid", x)
    return sigmoid_p(as_floats(x))


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """input − log Σ exp input along dim, shifted by the largest value so that nothing overflows.

    Raises ValueError for a dim that input does not have, TypeError for other than floats.
    """
    return _log_softmax_of("log_softmax", input, dim)


def softmax(input: Tensor, dim: int) -> Tensor:
    """exp input / Σ exp input along dim, which PyTorch would guess and here must be given.

    Raises ValueError for a dim that input does not have, TypeError for other than floats.

    >>> softmax(Tensor([0.0, 0.0]), dim=0)
    Tensor([0.5, 0.5], dtype=float32)
    """
    return _log_softmax_of("softmax", input, dim).exp()


def _log_softmax_of(op: str, input: Tensor, dim: int) -> Tensor:
    x = tensor(op, "input", input)
    floats(op, input=x)
    axis = axis_of(op, dim, x.ndim)
    if x.ndim == 0:  # as a vector of one
        return log_softmax_p(x.reshape(1), axis=axis).reshape(())
    return log_softmax_p(x, axis=axis)


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """input with each element zero with probability p and the others divided by 1 − p; input itself unless training.

    The mask is a function of mf.manual_seed and of how much was drawn since. A dropped element is 0 whatever it was
    (PyTorch multiplies, and 0·NaN is NaN). Srivastava et al. 2014, §10 ("inverted").

    Raises ValueError unless 0 ≤ p ≤ 1, TypeError for other than floats.
    """
    return _dropout("dropout", tensor("dropout", "input", input), p, training, whole_channels=False)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """As dropout, with whole channels of (N,C,H,W) or (C,H,W) zero (PyTorch takes three axes for (N,C,L) and drops
    rows of it). Tompson et al. 2015, §3.2.

    Raises ValueError unless 0 ≤ p ≤ 1, or for another number of axes; TypeError for other than floats.
    """
    x = tensor("dropout2d", "input", input)
    if x.ndim not in (3, 4):
        raise ValueError(f"dropout2d: input has {x.ndim} axes, shape {x.shape}; (N, C, H, W) or (C, H, W) is needed")
    return _dropout("dropout2d", x, p, training, whole_channels=True)


def _dropout(op: str, x: Tensor, p: float, training: bool, whole_channels: bool) -> Tensor:
    share = probability(op, p)
    if not flag(op, "training", training) or share == 0:
        return x
    floats(op, input=x)
    if x.size == 0:
        return x
    period = math.prod(x.shape[-2:]) if whole_channels else 1
    seed, offset = reserve(x.size // period)
    return dropout_p(x, p=share, seed=seed, offset=offset, period=period)

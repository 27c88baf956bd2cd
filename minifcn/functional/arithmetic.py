"""Element by element: + − × ÷ and powers, exp, log, sqrt, tanh, abs, clip, comparisons, where.

The primitives take equal shapes. Broadcasting is a step of its own, broadcast_to, whose adjoint is sum_to: a stretched
axis adds up its cotangents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minifcn.array import FLOATS, Array, backend_of, module_of
from minifcn.autograd import Primitive, Tensor

Number = int | float
Operand = Tensor | Array | Number

broadcast_to_p = Primitive(
    "broadcast_to(x) -> y", lambda x, *, shape, shape_in: module_of(x).broadcast_to(x, shape), view=True
)
sum_to_p = Primitive("sum_to(y) -> x", lambda y, *, shape, shape_in: _sum_to(y, shape_in))
broadcast_to_p.defvjp(lambda gy, shape, shape_in: sum_to_p(gy, shape=shape, shape_in=shape_in))
sum_to_p.defvjp(lambda gx, shape, shape_in: broadcast_to_p(gx, shape=shape, shape_in=shape_in))

astype_p = Primitive("astype(x) -> y", lambda x, *, dtype, dtype_in: x.astype(dtype))
astype_p.defvjp(lambda gy, dtype, dtype_in: astype_p(gy, dtype=dtype_in, dtype_in=dtype))

add_p = Primitive("add(x, y) -> z", lambda x, y: x + y)
sub_p = Primitive("sub(x, y) -> z", lambda x, y: x - y)
mul_p = Primitive("mul(x, y) -> z", lambda x, y: x * y)
div_p = Primitive("div(x, y) -> z", lambda x, y: x / y)
neg_p = Primitive("neg(x) -> z", lambda x: -x)
add_p.defvjp(lambda gz: gz, lambda gz: gz)
sub_p.defvjp(lambda gz: gz, lambda gz: neg_p(gz))
mul_p.defvjp(lambda gz, y: mul_p(gz, y), lambda gz, x: mul_p(gz, x))
div_p.defvjp(lambda gz, y: div_p(gz, y), lambda gz, y, z: neg_p(div_p(mul_p(gz, z), y)))
neg_p.defvjp(lambda gz: neg_p(gz))

# z = x^k with a constant k, and z = x^y with log x where x > 0 (at x = 0 the slope in y is 0, as in PyTorch)
power_p = Primitive("power(x) -> z", lambda x, *, k: x**k)
pow_p = Primitive("pow(x, y) -> z", lambda x, y: x**y)
safe_log_p = Primitive("safe_log(x) -> z", lambda x: _safe_log(x))
power_p.defvjp(lambda gz, x, k: gz * k if k in (0, 1) else gz * (power_p(x, k=k - 1) * k))
pow_p.defvjp(lambda gz, x, y: gz * y * pow_p(x, y - 1), lambda gz, x, z: gz * z * safe_log_p(x))
safe_log_p.defvjp(lambda gz, x: where(x.data > 0, gz / where(x.data > 0, x, 1.0), 0.0))

exp_p = Primitive("exp(x) -> z", lambda x: module_of(x).exp(x))
log_p = Primitive("log(x) -> z", lambda x: module_of(x).log(x))
sqrt_p = Primitive("sqrt(x) -> z", lambda x: module_of(x).sqrt(x))
tanh_p = Primitive("tanh(x) -> z", lambda x: module_of(x).tanh(x))
abs_p = Primitive("abs(x) -> z", lambda x: abs(x))
sign_p = Primitive("sign(x) -> z", lambda x: module_of(x).sign(x))
exp_p.defvjp(lambda gz, z: gz * z)
log_p.defvjp(lambda gz, x: gz / x)
sqrt_p.defvjp(lambda gz, z: gz / (z * 2))
tanh_p.defvjp(lambda gz, z: gz * (1 - z * z))
abs_p.defvjp(lambda gz, x: gz * sign_p(x))
sign_p.defvjp(None)  # flat on both sides of 0

# z = x or y by a constant mask; the gradient goes the same way
where_p = Primitive("where(x, y) -> z", lambda x, y, *, mask: module_of(x).where(mask, x, y))
where_p.defvjp(lambda gz, mask: where(mask, gz, 0.0), lambda gz, mask: where(mask, 0.0, gz))


def _sum_to(y: Array, shape: tuple[int, ...]) -> Array:
    """Sum the axes that broadcasting `shape` to y.shape stretched."""
    extra = y.ndim - len(shape)
    stretched = [extra + k for k, size in enumerate(shape) if size == 1 and y.shape[extra + k] != 1]
    summed: Array = y.sum(axis=(*range(extra), *stretched))
    return summed.reshape(shape)


def _safe_log(x: Array) -> Array:
    xp = module_of(x)
    positive = x > 0
    result: Array = xp.where(positive, xp.log(xp.where(positive, x, 1)), 0).astype(x.dtype)
    return result


def expand(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x broadcast to `shape`, without a copy; −1 keeps an axis.

    Raises ValueError where an axis of another size than 1 would have to change.
    """
    added = len(shape) - x.ndim
    full = tuple(x.shape[k - added] if size == -1 and k >= added else size for k, size in enumerate(shape))
    if full == x.shape:
        return x
    try:
        possible = np.broadcast_shapes(x.shape, full) == full
    except ValueError:
        possible = False
    if not possible:
        raise ValueError(f"expand: shape {x.shape} cannot become {shape}; only axes of size 1 can be stretched")
    return broadcast_to_p(x, shape=full, shape_in=x.shape)


def cast(x: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """x in another dtype; the gradient is cast back."""
    if x.dtype == dtype:
        return x
    if dtype not in FLOATS or x.dtype not in FLOATS:
        return Tensor(x.data.astype(dtype))
    return astype_p(x, dtype=dtype, dtype_in=x.dtype)


def operands(op: str, x: Operand, y: Operand) -> tuple[Tensor, Tensor]:
    """Both as Tensors of one shape and dtype. A Python number takes the other's dtype.

    Raises TypeError for mixed devices or other types, ValueError where shapes do not broadcast.
    """
    if isinstance(x, Tensor) and isinstance(y, Tensor):  # the usual case, quickly
        p, q = x.data, y.data
        if type(p) is type(q) and p.shape == q.shape and p.dtype == q.dtype:
            return x, y
    a, b = _operand(op, x, y), _operand(op, y, x)
    backend_of(a.data, b.data, op=op)
    if a.dtype != b.dtype:
        kinds = {t.dtype for t in (a, b) if t.dtype in FLOATS}
        dtype = kinds.pop() if len(kinds) == 1 else np.result_type(a.dtype, b.dtype)  # an integer takes the float's
        a, b = cast(a, dtype), cast(b, dtype)
    if a.shape != b.shape:
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise ValueError(
                f"{op}: shapes {a.shape} and {b.shape} do not broadcast; equal sizes or 1 are needed on every axis"
            ) from None
        a, b = expand(a, shape), expand(b, shape)
    return a, b


def _operand(op: str, value: Operand, other: Operand) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool | int | float):
        like = other.data if isinstance(other, Tensor) else np.asarray(other)
        dtype = like.dtype if isinstance(value, int) or like.dtype in FLOATS else np.dtype(np.float32)
        return Tensor(module_of(like).asarray(value, dtype=dtype))
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__cuda_array_interface__"):
        return Tensor(value)
    raise TypeError(f"{op}: an operand is a {type(value).__name__}; a Tensor, an array or a number is needed")


def add(x: Operand, y: Operand) -> Tensor:
    """x + y, broadcast."""
    return add_p(*operands("add", x, y))


def sub(x: Operand, y: Operand) -> Tensor:
    """x − y, broadcast."""
    return sub_p(*operands("sub", x, y))


def mul(x: Operand, y: Operand) -> Tensor:
    """x · y element by element, broadcast."""
    return mul_p(*operands("mul", x, y))


def div(x: Operand, y: Operand) -> Tensor:
    """x / y element by element, broadcast."""
    a, b = operands("div", x, y)
    if a.dtype not in FLOATS:  # PyTorch's true division of integers
        a, b = cast(a, np.dtype(np.float32)), cast(b, np.dtype(np.float32))
    return div_p(a, b)


def pow(x: Operand, y: Operand) -> Tensor:
    """x to the power y, broadcast."""
    if isinstance(x, Tensor) and isinstance(y, int | float):
        return power_p(x, k=y)
    return pow_p(*operands("pow", x, y))


def where(condition: Tensor | Array, x: Operand, y: Operand) -> Tensor:
    """x where the condition holds, else y; all broadcast. The condition gets no gradient.

    Raises TypeError unless the condition is boolean, ValueError where shapes do not broadcast.
    """
    mask = condition.data if isinstance(condition, Tensor) else condition
    if not hasattr(mask, "dtype") or mask.dtype != np.bool_:
        raise TypeError(f"where: condition is {mask!r:.50}; a boolean tensor or array is needed")
    mask = mask.copy()  # the gradient will need it as it is now
    if not isinstance(x, Tensor) and not isinstance(y, Tensor):
        x = Tensor(x)
    a, b = operands("where", x, y)
    shape = np.broadcast_shapes(mask.shape, a.shape)
    return where_p(expand(a, shape), expand(b, shape), mask=module_of(mask).broadcast_to(mask, shape))


def clip(x: Tensor, min: Number | None = None, max: Number | None = None) -> Tensor:
    """x limited to [min, max]; the gradient passes where x is within, its ends included."""
    if min is None and max is None:
        raise ValueError("clip: min and max are both None; at least one is needed")
    low, high = -np.inf if min is None else min, np.inf if max is None else max
    inside = (x.data >= low) & (x.data <= high)
    bound = module_of(x.data).clip(x.data, low, high).astype(x.dtype)
    return where(inside, x, Tensor(bound))


def compare(op: str, relation: Callable[[Array, Array], Array], x: Operand, y: Operand) -> Tensor:
    """A boolean Tensor: the relation between x and y, broadcast."""
    a, b = operands(op, x, y)
    return Tensor(relation(a.data, b.data))

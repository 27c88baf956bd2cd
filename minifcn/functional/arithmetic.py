"""Element by element: + − × ÷ and powers, exp, log, sqrt, tanh, abs, clip, comparisons, where.

The primitives take equal shapes. Broadcasting is a step of its own, broadcast_to, whose adjoint is sum_to: a stretched
axis adds up its cotangents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import cast as cast_type

import numpy as np

from minifcn import kernels
from minifcn.array import FLOATS, Array, backend_of, is_array, module_of
from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import number, numeric, real, tensor

Number = int | float
Operand = Tensor | Array | Number
FLOAT32, INT64 = np.dtype(np.float32), np.dtype(np.int64)


def quiet(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function without NumPy's remarks on 1/0 and log 0: ∞ and NaN are the answers, as in PyTorch, and mf.debug()
    is there to ask where one came from."""

    def quietly(*arrays: Array, **params: Any) -> Array:
        with np.errstate(all="ignore"):
            return function(*arrays, **params)

    return quietly


broadcast_to_p = Primitive(
    "broadcast_to(x) -> y", lambda x, *, shape, shape_in: module_of(x).broadcast_to(x, shape), view=True
)
sum_to_p = Primitive("sum_to(y) -> x", lambda y, *, shape, shape_in: _sum_to(y, shape_in))
broadcast_to_p.defvjp(lambda gy, shape, shape_in: sum_to_p(gy, shape=shape, shape_in=shape_in))
sum_to_p.defvjp(lambda gx, shape, shape_in: broadcast_to_p(gx, shape=shape, shape_in=shape_in))

astype_p = Primitive("astype(x) -> y", lambda x, *, dtype, dtype_in: x.astype(dtype))
astype_p.defvjp(lambda gy, dtype, dtype_in: astype_p(gy, dtype=dtype_in, dtype_in=dtype))

add_p = Primitive("add(x, y) -> z", lambda x, y: _add(x, y))
sub_p = Primitive("sub(x, y) -> z", lambda x, y: x - y)
mul_p = Primitive("mul(x, y) -> z", lambda x, y: x * y)
div_p = Primitive("div(x, y) -> z", quiet(lambda x, y: x / y))
neg_p = Primitive("neg(x) -> z", lambda x: -x)
add_p.defvjp(lambda gz: gz, lambda gz: gz)
sub_p.defvjp(lambda gz: gz, lambda gz: neg_p(gz))
mul_p.defvjp(lambda gz, y: mul_p(gz, y), lambda gz, x: mul_p(gz, x))
div_p.defvjp(lambda gz, y: div_p(gz, y), lambda gz, y, z: neg_p(div_p(mul_p(gz, z), y)))
neg_p.defvjp(lambda gz: neg_p(gz))

LARGE = 1 << 18  # elements from which on the kernel's threads and pool are worth their overhead


def _add(x: Array, y: Array) -> Array:
    alike = x.size >= LARGE and x.shape == y.shape and x.dtype == y.dtype and x.dtype in FLOATS
    if alike and x.flags.c_contiguous and y.flags.c_contiguous:  # others would have to be copied first
        return kernels.run("add", x, y)  # type: ignore[no-any-return]
    z: Array = x + y
    return z


exp_p = Primitive("exp(x) -> z", quiet(lambda x: module_of(x).exp(x)))
log_p = Primitive("log(x) -> z", quiet(lambda x: module_of(x).log(x)))
sqrt_p = Primitive("sqrt(x) -> z", quiet(lambda x: module_of(x).sqrt(x)))
tanh_p = Primitive("tanh(x) -> z", lambda x: module_of(x).tanh(x))
tanh_grad_p = Primitive("tanh_grad(gz, z) -> gx", lambda gz, z: gz * (1 - z * z))
abs_p = Primitive("abs(x) -> z", lambda x: abs(x))
sign_p = Primitive("sign(x) -> z", lambda x: (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype))  # 0 of NaN
exp_p.defvjp(lambda gz, z: gz * z)
log_p.defvjp(lambda gz, x: gz / x)
sqrt_p.defvjp(lambda gz, z: gz / (z * 2))
tanh_p.defvjp(lambda gz, z: tanh_grad_p(gz, z))
tanh_grad_p.defvjp(lambda ggx, z: tanh_grad_p(ggx, z), lambda ggx, gz, z: ggx * gz * z * -2)
abs_p.defvjp(lambda gz, x: gz * sign_p(x))
sign_p.defvjp(None)  # flat on both sides of 0

# z = x^k with a constant k, and z = x^y. ∂z/∂x = y·x^(y−1) is 0 for y = 0 whatever x is, and ∂z/∂y = z·log x is taken
# as 0 at x = 0 with y ≥ 0, as in PyTorch: where ∞ or NaN would spoil that product, 1 stands for x.
power_p = Primitive("power(x) -> z", quiet(lambda x, *, k: x**k))
pow_p = Primitive("pow(x, y) -> z", quiet(lambda x, y: x**y))
power_p.defvjp(lambda gz, x, k: gz * k if k in (0, 1) else gz * (power_p(x, k=k - 1) * k))
pow_p.defvjp(
    lambda gz, x, y: gz * y * pow_p(where((y.data == 0) & ~(abs(x.data) > 0), 1.0, x), y - 1),
    lambda gz, x, y, z: gz * z * log_p(where((x.data == 0) & (y.data >= 0), 1.0, x)),
)

# z = x or y by a constant mask; the gradient goes the same way
where_p = Primitive("where(x, y) -> z", lambda x, y, *, mask: module_of(x).where(mask, x, y))
where_p.defvjp(lambda gz, mask: where(mask, gz, 0.0), lambda gz, mask: where(mask, 0.0, gz))


def _sum_to(y: Array, shape: tuple[int, ...]) -> Array:
    """Sum the axes that broadcasting `shape` to y.shape stretched."""
    extra = y.ndim - len(shape)
    stretched = [extra + k for k, size in enumerate(shape) if size == 1 and y.shape[extra + k] != 1]
    return add_up(y, (*range(extra), *stretched)).reshape(shape)


def add_up(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """The sum over axes, added in float64: NumPy adds float32 pairwise along contiguous memory only, and elsewhere one
    by one, which loses three of seven digits over 10⁵ terms."""
    dtype = np.float64 if x.dtype.kind == "f" else None
    total: Array = module_of(x).asarray(x.sum(axis=axes, keepdims=keepdims, dtype=dtype))
    return total.astype(x.dtype) if dtype else total


def expand(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x broadcast to `shape`, without a copy; −1 keeps an axis.

    Raises ValueError where an axis of another size than 1 would have to change.
    """
    added = len(shape) - x.ndim
    full = tuple(x.shape[k - added] if size == -1 and k >= added else size for k, size in enumerate(shape))
    if full == x.shape:
        return x
    try:
        possible = min(full, default=0) >= 0 and np.broadcast_shapes(x.shape, full) == full
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


def as_floats(x: Tensor) -> Tensor:
    """Floats as they are, integers and booleans as float32 (PyTorch's default dtype)."""
    return x if x.dtype in FLOATS else cast(x, FLOAT32)


def promoted(op: str, a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a result of both: a float before an integer, whatever their widths (int64 and float32 give float32,
    where NumPy gives float64), an integer before a boolean, the wider of one kind."""
    if (a.kind == "f") != (b.kind == "f"):
        return a if a.kind == "f" else b
    common = np.result_type(a, b)
    if common.kind == "f" and a.kind != "f":
        raise TypeError(f"{op}: {a} and {b} have no integer type in common; convert one of them with to()")
    return common


def result_dtype(op: str, a: Tensor, b: Tensor) -> np.dtype[Any]:
    """As `promoted`, but a tensor without axes counts less than one with axes: it changes the kind (an integer tensor
    and a float scalar give floats) and not the width."""
    if (a.ndim == 0) == (b.ndim == 0):
        return promoted(op, a.dtype, b.dtype)
    strong, weak = (b.dtype, a.dtype) if a.ndim == 0 else (a.dtype, b.dtype)
    return promoted(op, strong, weak) if RANK[weak.kind] > RANK[strong.kind] else strong


RANK = {"b": 0, "i": 1, "u": 1, "f": 2}


def operands(op: str, x: Operand, y: Operand) -> tuple[Tensor, Tensor]:
    """Both as Tensors of one shape and dtype (see result_dtype). A Python number takes the other's dtype, unless that
    is of a lesser kind.

    Raises TypeError for mixed devices or other types, ValueError where shapes do not broadcast.
    """
    if isinstance(x, Tensor) and isinstance(y, Tensor):  # the usual case, quickly
        p, q = x.data, y.data
        if type(p) is type(q) and p.shape == q.shape and p.dtype == q.dtype and p.dtype in FLOATS:
            return x, y
    a, b = _operand(op, x, y), _operand(op, y, x)
    backend_of(a.data, b.data, op=op)
    real(op, a)
    real(op, b)
    if a.dtype != b.dtype:
        dtype = result_dtype(op, a, b)
        a, b = cast(a, dtype), cast(b, dtype)
    if a.shape != b.shape:
        shape = broadcast_shape(op, a.shape, b.shape)
        a, b = expand(a, shape), expand(b, shape)
    return a, b


def broadcast_shape(op: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that all broadcast to. Raises ValueError where there is none."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"{op}: shapes {' and '.join(map(str, shapes))} do not broadcast; equal sizes or 1 are needed on every axis"
        ) from None


def _constant(op: str, name: str, value: object, like: Array, dtype: np.dtype[Any] | None = None) -> Tensor:
    """A Python number as a tensor beside `like`: of the dtype that PyTorch has for it, unless another is given."""
    kind = _dtype_of(value) if dtype is None else dtype
    if kind in FLOATS:
        return Tensor(module_of(like).asarray(number(op, name, value), kind))
    number(op, name, value)
    least, most = limits(kind if kind.kind in "iu" and op not in WRAPPING else INT64)
    if not least <= value <= most:  # type: ignore[operator]
        raise ValueError(f"{op}: {name} is {value} for {kind}; {least} to {most} is possible")
    return Tensor(module_of(like).asarray(value).astype(kind))


WRAPPING = ("add", "sub", "mul", "div")  # where 300 wraps round to uint8, as in PyTorch


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The least and the largest value of an integer dtype."""
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _dtype_of(value: object) -> np.dtype[Any]:
    """PyTorch's dtype for a Python number."""
    return np.dtype(bool) if isinstance(value, bool) else INT64 if isinstance(value, int) else FLOAT32


def _operand(op: str, value: Operand, other: Operand) -> Tensor:
    if isinstance(value, Tensor):
        return value
    like = other.data if isinstance(other, Tensor) else other if is_array(other) else np.asarray(other)
    if isinstance(value, np.generic):
        return Tensor(module_of(like).asarray(value))
    if isinstance(value, bool | int | float):
        own = _dtype_of(value)
        return _constant(
            op, "an operand", value, like, own if RANK[own.kind] > RANK.get(like.dtype.kind, 2) else like.dtype
        )
    if is_array(value):
        return Tensor(value)
    raise TypeError(f"{op}: an operand is a {type(value).__name__}; a Tensor, an array or a number is needed")


def add(x: Operand, y: Operand) -> Tensor:
    """x + y, broadcast."""
    return add_p(*operands("add", x, y))


def sub(x: Operand, y: Operand) -> Tensor:
    """x − y, broadcast. Raises TypeError for booleans."""
    a, b = operands("sub", x, y)
    if a.dtype.kind == "b" or _is_bool(x) or _is_bool(y):
        raise TypeError("sub: an operand is boolean; numbers are needed (for masks, compare with !=)")
    return sub_p(a, b)


def _is_bool(value: Operand) -> bool:
    return value.dtype.kind == "b" if isinstance(value, Tensor) or is_array(value) else isinstance(value, bool)


def mul(x: Operand, y: Operand) -> Tensor:
    """x · y element by element, broadcast."""
    return mul_p(*operands("mul", x, y))


def div(x: Operand, y: Operand) -> Tensor:
    """x / y element by element, broadcast; integers are divided as floats."""
    a, b = operands("div", x, y)
    return div_p(as_floats(a), as_floats(b))


def pow(x: Operand, y: Operand) -> Tensor:
    """x to the power y, broadcast. Integers stay integers. At y = 0 the slope in x is 0 and the derivative of that
    slope by y is 1/x (0 in PyTorch); at x = 0, −0 or −∞ slopes are limits, where PyTorch may have NaN.

    Raises ValueError for integers to a negative power (PyTorch does so for numbers, and for tensors gives 0), TypeError
    for booleans to booleans.
    """
    a, b = operands("pow", x, y)
    if a.dtype.kind == "b":
        raise TypeError("pow: both operands are boolean; numbers are needed")
    if a.dtype.kind in "iu" and bool((b.data < 0).any()):
        raise ValueError("pow: integers to a negative power; floats are needed, such as x.to(np.float32)")
    if isinstance(x, Tensor) and not isinstance(y, Tensor) and not is_array(y):
        return power_p(cast(x, a.dtype), k=y)
    return pow_p(a, b)


def neg(x: Tensor) -> Tensor:
    """−x, element by element. Raises TypeError for booleans."""
    numeric("neg", x)
    return neg_p(x)


def abs_(x: Tensor) -> Tensor:
    """|x|, element by element; its slope at 0 is 0. Raises TypeError for booleans."""
    numeric("abs", x)
    return abs_p(x)


def exp(x: Tensor) -> Tensor:
    """eˣ, element by element; of integers as float32."""
    return exp_p(_float("exp", x))


def log(x: Tensor) -> Tensor:
    """The natural logarithm, element by element; of integers as float32."""
    return log_p(_float("log", x))


def sqrt(x: Tensor) -> Tensor:
    """√x, element by element; of integers as float32."""
    return sqrt_p(_float("sqrt", x))


def tanh(x: Tensor) -> Tensor:
    """tanh x, element by element; of integers as float32."""
    return tanh_p(_float("tanh", x))


def _float(op: str, x: Tensor) -> Tensor:
    real(op, x)
    return as_floats(x)


def where(condition: Tensor | Array, x: Operand, y: Operand) -> Tensor:
    """x where the condition holds, else y; all broadcast. The condition gets no gradient.

    Raises TypeError unless the condition is boolean (PyTorch also takes uint8, with a warning), ValueError where shapes
    do not broadcast.
    """
    mask = tensor("where", "condition", condition).data
    if mask.dtype != np.bool_:
        raise TypeError(f"where: condition has dtype {mask.dtype}; a boolean tensor or array is needed")
    mask = mask.copy()  # the gradient will need it as it is now
    if not isinstance(x, Tensor) and not is_array(x) and not isinstance(y, Tensor) and not is_array(y):
        x = _constant("where", "x", x, mask)
    a, b = operands("where", x, y)
    backend_of(mask, a.data, op="where")
    shape = broadcast_shape("where", mask.shape, a.shape)
    return where_p(expand(a, shape), expand(b, shape), mask=module_of(mask).broadcast_to(mask, shape))


def clip(x: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """x limited to [min, max], numbers or tensors that broadcast. Where min > max, max counts.

    The gradient passes to x where it is within, the ends included, and to a bound that is a tensor where x is beyond
    it; a NaN lets none through.

    Raises ValueError if both are None or one is beyond what an integer dtype holds (PyTorch refuses 300 for uint8 and
    takes −1 for 255), TypeError for booleans and other types.
    """
    if min is None and max is None:
        raise ValueError("clip: min and max are both None; at least one is needed")
    real("clip", x)
    for bound in (min, max):
        x = x if bound is None else cast(x, operands("clip", x, bound)[0].dtype)
    numeric("clip", x)
    low, high = (None if bound is None else _operand("clip", bound, x) for bound in (min, max))
    xp, values = module_of(x.data), x.data
    shape = broadcast_shape("clip", x.shape, *(t.shape for t in (low, high) if t is not None))
    inside = values == values
    if low is not None:
        inside = inside & (values >= low.data)
        values = xp.maximum(values, low.data)
    if high is not None:
        inside = inside & (values <= high.data) & (x.data <= high.data)
        values = xp.minimum(values, high.data)
    y = where(inside, x, Tensor(xp.asarray(xp.broadcast_to(values, shape), x.dtype)))
    # numbers get no gradient; of tensors, each where it is what counts
    if isinstance(min, Tensor) and low is not None:
        taken = x.data < low.data
        y = where(taken if high is None else taken & (low.data < high.data), low, y)
    if isinstance(max, Tensor) and high is not None:
        taken = x.data > high.data
        y = where(taken if low is None else taken | (high.data < low.data), high, y)
    return y


def compare(op: str, relation: Callable[[Array, Array], Array], x: Operand, y: Operand) -> Tensor:
    """A boolean Tensor: the relation between x and y, broadcast. With other things than numbers and arrays, == and !=
    say what Python says."""
    if op in ("eq", "ne") and not isinstance(y, Tensor | int | float) and not is_array(y):
        return cast_type(Tensor, NotImplemented)  # for the operator that asks
    if isinstance(x, Tensor) and type(y) is int and x.dtype.kind in "iu":
        number: Any = y  # in full, where PyTorch compares uint8 with 300 as with 44
        return Tensor(relation(x.data, number))
    a, b = operands(op, x, y)
    return Tensor(relation(a.data, b.data))

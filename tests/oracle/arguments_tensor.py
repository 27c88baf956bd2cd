"""Random arguments of Tensor's operators, indexing and methods."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
from arguments import DTYPES, WRONG_BOOLS, Draw, Dtype, Value, draws
from arguments_function import WRONG_DIMS, dim

Drawn = tuple[tuple[Any, ...], dict[str, Any]]

# ----- operators

NUMBERS = (0, 1, 2, 3, -1, -2, 0.5, -1.5, 2.0, True, False)
BINARY = {
    "Tensor.+": (operator.add, "add"),
    "Tensor.-": (operator.sub, "sub"),
    "Tensor.*": (operator.mul, "mul"),
    "Tensor./": (operator.truediv, "div"),
    "Tensor.**": (operator.pow, "pow"),
    "Tensor.<": (operator.lt, "lt"),
    "Tensor.<=": (operator.le, "le"),
    "Tensor.>": (operator.gt, "gt"),
    "Tensor.>=": (operator.ge, "ge"),
    "Tensor.==": (operator.eq, "eq"),
    "Tensor.!=": (operator.ne, "ne"),
}


def binary(d: Draw) -> Drawn:
    """Tensor and tensor, array or number, on either side; in spoilt calls something else, or sizes that do not fit."""
    shape = d.shape(0, 3, 3)

    def near() -> tuple[int, ...]:
        return tuple(1 if d.chance(0.25) else n for n in shape[d.pick(0, 0, min(1, len(shape))) :])

    x = d.any_tensor(*near())
    other: Any = d.pick(*NUMBERS) if d.chance(0.35) else d.any_tensor(*near(), bare=True)
    if d.spoilt and d.chance(0.6):
        other = d.pick(None, "x", [1.0, 2.0], d.wrong_tensor(x, replace=False), d.floats(5), d.floats(2, 7))
    return ((other, x) if d.chance(0.4) else (x, other)), {}


MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}  # None < t is what Python makes of t > None

for name, (operation, op) in BINARY.items():
    f = functools.partial(lambda operation, side, x, y: operation(x, y), operation)
    draws(name, f=f, ops=(op, MIRRORED.get(op, op)), needs="Tensor.__add__")(binary)


# ----- indexing


@draws("Tensor[]", f=lambda side, x, at: x[at], ops=("index",), needs="Tensor.__getitem__")
def index(d: Draw) -> Drawn:
    shape = tuple(d.size(1, 4) for _ in range(d.int(0, 4)))
    parts: list[Any] = []
    left = list(shape)
    length = d.int(1, 4)
    while left and d.chance(0.85):
        kind = d.pick("int", "int", "slice", "slice", "slice", "ints", "list", "bools", "None", "...")
        if kind == "None":
            parts.append(None)
        elif kind == "...":
            if Ellipsis not in parts:
                parts.append(...)
                del left[: d.int(0, len(left))]
        elif kind == "bools" and len(left) > 1 and d.chance(0.4):
            parts.append(d.bools(left.pop(0), left.pop(0)))
        else:
            parts.append(part(d, kind, left.pop(0), length))
    if d.spoilt:
        wrong = (
            7, -9, 1.0, "0", slice(None, None, -1), slice(None, None, 0), [9], [-9], [1.0], d.bools(5),
            d.ints(2, low=5, high=9), slice(1.0, 2), (0, 1), [], True, False, np.True_, [True, False],
            d.floats(2, differentiated=False), d.ints(3), None,
        )  # fmt: skip
        parts.insert(d.int(0, len(parts)), d.pick(*wrong))
        if d.chance(0.1):
            parts = [..., ..., 0]
    x = d.floats(*shape, bare=False) if d.chance(0.9) else d.ints(*shape, bare=False)
    return (x, parts[0] if len(parts) == 1 else tuple(parts)), {}


def part(d: Draw, kind: str, n: int, length: int) -> Any:
    """An index into an axis of n entries; arrays and lists have `length` entries, so that they go together."""
    if kind == "slice" or n == 0:
        ends = [None, *range(-n - 2, n + 3)]
        return slice(d.pick(*ends), d.pick(*ends), d.pick(None, 1, 1, 2, 3))
    if kind == "int":
        return d.as_int(d.int(-n, n - 1))
    if kind == "bools":
        return d.bools(n) if d.chance(0.7) else [bool(b) for b in d.rng.random(n) < 0.5]
    if kind == "list":
        return [int(k) for k in d.rng.integers(-n, n, length)]
    return d.ints(*d.pick((length,), (length,), (1,), (2, length), (0,), ()), low=-n, high=n - 1)


# ----- sums and the like

WRONG_AXES = (*WRONG_DIMS, (0, 0), (0, -9), (0, 1.0), (), [], "a", (None,), np.array([0]))


def axes(d: Draw, ndim: int) -> Any:
    """One axis, several, or all."""
    kind = d.pick("one", "one", "some", "some", "all", "none given")
    if kind == "one" or ndim == 0:
        return dim(d, ndim)
    if kind == "all":
        return None
    if kind == "none given":
        return d.pick((), [])
    some = [int(k) - ndim * d.chance(0.3) for k in d.rng.permutation(ndim)[: d.int(1, ndim)]]
    return d.pick(tuple(some), some)


@draws("Tensor.sum")
@draws("Tensor.mean")
def total(d: Draw) -> Drawn:
    shape = d.shape(0, 4)
    x = d.any_tensor(*shape)
    if d.chance(0.2):
        return (x,), {}
    return d.call(
        {"x": x},
        {"dim": axes(d, len(shape)), "keepdim": d.chance()},
        {"dim": WRONG_AXES, "keepdim": WRONG_BOOLS},
        on_tensor=True,
    )


@draws("Tensor.var")
def var(d: Draw) -> Drawn:
    shape = d.shape(0, 4)
    x = d.any_tensor(*shape) if d.chance(0.3) else d.floats(*shape, bare=False)
    if d.chance(0.2):
        return (x,), {}
    return d.call(
        {"x": x},
        {"dim": axes(d, len(shape)), "keepdim": d.chance(), "correction": d.pick(0, 1, 1, 2, 9)},
        {"dim": WRONG_AXES, "keepdim": WRONG_BOOLS, "correction": (None, "1", (1,), True, 0.5, -1)},
        keywords_from=2,
        on_tensor=True,
    )


@draws("Tensor.max")
@draws("Tensor.min")
@draws("Tensor.argmax")
def extreme(d: Draw) -> Drawn:
    shape = d.shape(0, 4)
    x = d.any_tensor(*shape)
    if d.chance(0.3):
        return (x,), {}
    return d.call(
        {"x": x, "dim": dim(d, len(shape))},
        {"keepdim": d.chance()},
        {"dim": (*WRONG_DIMS, (), (0, 1)), "keepdim": WRONG_BOOLS},
        on_tensor=True,
    )


# ----- shapes


def factored(d: Draw, size: int, parts: int) -> list[int]:
    """`parts` sizes that multiply to `size`."""
    sizes = []
    for _ in range(parts - 1):
        n = d.pick(*[k for k in range(1, max(size, 1) + 1) if size % k == 0] or [1])
        sizes.append(n)
        size //= n
    return [*sizes, size]


@draws("Tensor.reshape", ops=("reshape",))
@draws("Tensor.view", ops=("view", "reshape"))
def reshape(d: Draw) -> Drawn:
    shape = d.shape(0, 4)
    sizes: list[Any] = factored(d, int(np.prod(shape)), d.int(1, 4))
    if d.chance(0.3):
        sizes[d.int(0, len(sizes) - 1)] = -1
    if d.spoilt:
        sizes[d.int(0, len(sizes) - 1)] = d.pick(-1, -2, 0, 5, None, 1.0, "1", True, (1,))
        if d.chance(0.3):
            sizes = d.pick([], [-1, -1], [None], [0, -1], [-1, 0], [1] * len(sizes), [-1, 2, -1])
    return as_sizes(d, d.any_tensor(*shape), sizes)


def as_sizes(d: Draw, x: Value, sizes: list[Any]) -> Drawn:
    """The sizes one by one, or as a tuple or list."""
    return ((x, *sizes) if d.chance() and sizes else (x, d.pick(tuple(sizes), sizes))), {}


@draws("Tensor.expand")
def expand(d: Draw) -> Drawn:
    shape = tuple(1 if d.chance(0.5) else n for n in d.shape(0, 3))
    sizes: list[Any] = [d.pick(-1, n) if n != 1 else d.int(0, 3) for n in shape]
    sizes = [d.int(0, 3) for _ in range(d.pick(0, 0, 1, 2))] + sizes
    if d.spoilt:
        sizes.insert(d.int(0, len(sizes)), d.pick(-1, -2, 5, None, 1.0, "1", True))
        if d.chance(0.3):
            sizes = sizes[2:]
    return as_sizes(d, d.any_tensor(*shape), sizes)


@draws("Tensor.permute")
def permute(d: Draw) -> Drawn:
    shape = d.shape(0, 4)
    order: list[Any] = [int(k) - len(shape) * d.chance(0.3) for k in d.rng.permutation(len(shape))]
    if d.spoilt:
        if order and d.chance():
            order[d.int(0, len(order) - 1)] = d.pick(0, -1, 5, -6, None, 1.0, "0", True)
        else:
            order = d.pick([*order, 0], order[1:], [], [None])
    return as_sizes(d, d.any_tensor(*shape), order)


@draws("Tensor.transpose")
def transpose(d: Draw) -> Drawn:
    shape = d.shape(0, 4)
    return d.call(
        {"x": d.any_tensor(*shape), "dim0": dim(d, len(shape)), "dim1": dim(d, len(shape))},
        wrong={"dim0": WRONG_DIMS, "dim1": WRONG_DIMS},
        on_tensor=True,
    )


@draws("Tensor.flatten")
def flatten(d: Draw) -> Drawn:
    shape = d.shape(0, 5)
    ends = sorted((d.int(0, max(len(shape), 1) - 1), d.int(0, max(len(shape), 1) - 1)))
    start, end = (k - max(len(shape), 1) * d.chance(0.4) for k in ends)
    return d.call(
        {"x": d.any_tensor(*shape)},
        {"start_dim": start, "end_dim": end},
        {"start_dim": (*WRONG_DIMS, 1), "end_dim": (*WRONG_DIMS, 0)},
        on_tensor=True,
    )


@draws("Tensor.squeeze")
def squeeze(d: Draw) -> Drawn:
    shape = tuple(1 if d.chance(0.5) else n for n in d.shape(0, 4))
    x = d.any_tensor(*shape)
    if d.chance(0.25):
        return (x,), {}
    some = tuple(int(k) for k in d.rng.permutation(len(shape))[: d.int(0, 2)])
    return d.call({"x": x, "dim": d.pick(dim(d, len(shape)), some)}, wrong={"dim": WRONG_AXES}, on_tensor=True)


@draws("Tensor.unsqueeze")
def unsqueeze(d: Draw) -> Drawn:
    shape = d.shape(0, 4)
    return d.call({"x": d.any_tensor(*shape), "dim": dim(d, len(shape) + 1)}, wrong={"dim": WRONG_DIMS}, on_tensor=True)


# ----- values


@draws("Tensor.clip")
@draws("Tensor.clamp", ops=("clip", "clamp"))
def clip(d: Draw) -> Drawn:
    x = d.any_tensor(*d.shape(0, 3))
    low, high = d.pick(None, 0, -0.5, -1, True), d.pick(None, 1, 0.7, 0, 2, -2)
    wrong = ("0", (0,), [0.0], float("nan"), float("inf"))
    return d.call({"x": x}, {"min": low, "max": high}, {"min": wrong, "max": wrong}, on_tensor=True)


@draws("Tensor.item", ops=("item",))
@draws("Tensor.bool()", f=lambda side, x: bool(x), ops=("bool", "item"), needs="Tensor.__bool__")
@draws("Tensor.int()", f=lambda side, x: int(x), ops=("int", "item"), needs="Tensor.__int__")
@draws("Tensor.float()", f=lambda side, x: float(x), ops=("float", "item"), needs="Tensor.__float__")
@draws("Tensor.len()", f=lambda side, x: len(x), ops=("len",), needs="Tensor.__len__")
@draws("Tensor.iter()", f=lambda side, x: tuple(x), ops=("iter", "len"), needs="Tensor.__iter__")
@draws("Tensor.shape", f=lambda side, x: tuple(x.shape))
@draws("Tensor.ndim", f=lambda side, x: x.ndim)
@draws("Tensor.dtype", f=lambda side, x: x.dtype)
@draws("Tensor.device", f=lambda side, x: str(x.device))
@draws("Tensor.is_leaf", f=lambda side, x: (x.is_leaf, (x + 1).is_leaf))
def scalar(d: Draw) -> Drawn:
    shape = d.pick((), (1,), (1, 1), (), d.shape(0, 3))
    return (d.any_tensor(*shape),), {}


@draws("Tensor.numpy", f=lambda side, x: side.from_array(x.numpy()), needs="Tensor.numpy")
@draws("Tensor.__array__", f=lambda side, x: side.from_array(np.asarray(x)))
@draws("Tensor.data", f=lambda side, x: side.from_array(x.data))
def as_array(d: Draw) -> Drawn:
    return (d.any_tensor(*d.shape(0, 3))._replace(differentiated=False),), {}


@draws("Tensor.to")
def to(d: Draw) -> Drawn:
    target: Any = Dtype(np.dtype(d.pick(*DTYPES[:5])).name)
    if d.chance(0.2):
        target = "cpu"
    if d.spoilt:
        target = d.pick("gpu", "cpu:x", "", None, 3.5, (), Dtype("float16"), Dtype("complex64"))
    x = d.any_tensor(*d.shape(0, 3))
    array = np.nan_to_num(x.array, posinf=9, neginf=-9) if x.array.dtype.kind == "f" else x.array
    return (x._replace(array=array), target), {}


def left_behind(side: Any, x: Any, gradient: Any, **options: Any) -> Any:
    """What backward leaves in .grad."""
    (x * x).backward(gradient, **options)
    return x.grad


@draws("Tensor.backward", f=left_behind)
def backward(d: Draw) -> Drawn:
    shape = d.pick((), (1,), d.shape(0, 3))
    x = d.floats(*shape, bare=False, differentiated=not (d.spoilt and d.chance(0.3)))
    gradient = d.floats(*shape, differentiated=False)
    if len(shape) == 0 and d.chance():
        gradient = None
    if d.spoilt:
        gradient = d.pick(None, d.wrong_tensor(gradient))
    return (x, gradient), {"retain_graph": d.chance()} if d.chance(0.3) else {}

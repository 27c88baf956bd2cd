"""Random arguments for the comparison with PyTorch: what a call consists of, and how one is drawn.

A generator draws a call that is meant to be right, and says which of its arguments may be spoilt, and how; in a third
of the calls one of them is. Neither library is asked what it would accept. The generators themselves are in the files
arguments_….py; each is registered under the function's name by `draws`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

SPOILT = 0.34  # of all calls; a few of the others are wrong by themselves (a window larger than the image, say)


class Value(NamedTuple):
    """A tensor argument.

    Args:
        array: its numbers.
        differentiated: whether gradients with respect to it are compared.
        layout: how the numbers lie in minifcn's memory: "plain", "strided", "fortran" or "readonly".
        bare: whether minifcn gets the array itself and not a Tensor.
        moves: whether the call may change it (running statistics).
    """

    array: np.ndarray
    differentiated: bool = False
    layout: str = "plain"
    bare: bool = False
    moves: bool = False


class Dtype(NamedTuple):
    """A dtype argument, such as that of Tensor.to."""

    name: str


class Call(NamedTuple):
    """One drawn call: the function, its positional and its keyword arguments."""

    function: str
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        named = [f"{name}={describe(value)}" for name, value in self.options.items()]
        return f"{self.function}({', '.join([*map(describe, self.args), *named])})"

    def arguments(self) -> list[Any]:
        """Every argument, those inside of lists and tuples as well."""
        return list(flat((self.args, self.options)))

    def values(self) -> list[Value]:
        """Every tensor argument."""
        return [a for a in self.arguments() if isinstance(a, Value)]


def flat(nested: Any) -> Iterable[Any]:
    """What lies inside of lists, tuples and dictionaries."""
    if isinstance(nested, list | tuple) and not isinstance(nested, Value | Dtype):
        for part in nested:
            yield from flat(part)
    elif isinstance(nested, dict):
        yield from flat(list(nested.values()))
    else:
        yield nested


def describe(value: Any) -> str:
    """An argument in few characters: the dtype and shape of a tensor, and its numbers if they are few."""
    if isinstance(value, Value):
        a = value.array
        numbers = f" {np.array2string(a, separator=',', precision=4)}".replace("\n", "") if 0 < a.size <= 6 else ""
        marks = [value.layout] * (value.layout != "plain") + ["array"] * value.bare + ["∂"] * value.differentiated
        return f"{a.dtype}{a.shape}{numbers}{''.join(f' {m}' for m in marks)}"
    if isinstance(value, Dtype):
        return value.name
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {describe(v)}" for k, v in value.items()) + "}"
    if type(value) in (list, tuple):
        inside = ", ".join(map(describe, value)) + "," * (len(value) == 1 and type(value) is tuple)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return repr(value)


Generator = Callable[["Draw"], tuple[tuple[Any, ...], dict[str, Any]]]


class Function(NamedTuple):
    """What is compared under one name.

    Args:
        draw: the generator of its arguments.
        f: the expression, of a side (minifcn or PyTorch) and the arguments; both sides evaluate it.
        ops: the names that an error message may begin with.
        needs: the name that minifcn must have for this to be compared, e.g. "F.conv2d".
    """

    draw: Generator
    f: Callable[..., Any]
    ops: tuple[str, ...]
    needs: str


FUNCTIONS: dict[str, Function] = {}


def draws(
    name: str, f: Callable[..., Any] | None = None, ops: tuple[str, ...] = (), needs: str = ""
) -> Callable[[Generator], Generator]:
    """Register a generator: of the function of that name, or of "Tensor.name", or of any other expression f."""
    plain = name.removeprefix("Tensor.")

    def function(side: Any, *args: Any, **options: Any) -> Any:
        return getattr(side, name)(*args, **options)

    def method(side: Any, tensor: Any, *args: Any, **options: Any) -> Any:
        return getattr(tensor, plain)(*args, **options)

    def register(draw: Generator) -> Generator:
        default = method if name.startswith("Tensor.") else function
        FUNCTIONS[name] = Function(draw, f or default, ops or (plain,), needs or name)
        return draw

    return register


def draw(function: str, seed: int, index: int) -> Call:
    """The call number `index` of a function: always the same one, whatever was drawn before."""
    rng = np.random.default_rng([seed, zlib.crc32(function.encode()), index])
    return Call(function, *FUNCTIONS[function].draw(Draw(rng)))


WRONG_INTS = (0, -1, -3, True, False, None, "1", 1.0, 1.5, (1,), [1, 1], float("nan"), np.float64(1))
WRONG_PAIRS = (
    *WRONG_INTS[:9], (), [], (1, 1, 1), [1, 2, 3, 4], (1, None), (None, 1), (1.0, 1), (1, 1.5), ("1", 1), (True, 1),
    (1, False), (0, 1), (1, 0), (-1, 1), (2, -1), (-1,), (np.float64(1), 1), "same",
)  # fmt: skip
WRONG_BOOLS = (0, 1, None, "True", 1.0, (True,))
WRONG_FLOATS = (None, "1", (1.0,), [0.5], float("nan"), float("inf"), -1.0, True, 2)
NO_TENSORS = (None, 2.0, "x", [[1.0, 2.0], [3.0, 4.0]], ())
DTYPES = (np.float32, np.float64, np.int64, np.int32, np.bool_, np.uint8, np.float16, np.complex64)


class Draw:
    """A stream of random choices for one call. `dtype` is that of the call's floats."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.dtype = np.float32 if self.chance(0.3) else np.float64
        self.spoilt = self.chance(SPOILT)

    def chance(self, p: float = 0.5) -> bool:
        return bool(self.rng.random() < p)

    def int(self, low: int, high: int) -> int:
        """low … high, both included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, *options: Any) -> Any:
        return options[self.int(0, len(options) - 1)]

    def size(self, low: int = 1, high: int = 6) -> int:
        """low … high, and now and then 0 or 1."""
        return self.pick(0, 1) if self.chance(0.05) else self.int(low, high)

    def shape(self, least: int = 0, most: int = 4, high: int = 4) -> tuple[int, ...]:
        return tuple(self.size(1, high) for _ in range(self.int(least, most)))

    def batch(self) -> tuple[int, ...]:
        """(N,), or () for an unbatched input."""
        return () if self.chance(0.25) else (self.size(1, 2),)

    # ----- tensors

    def value(self, array: np.ndarray, differentiated: bool | None = None, bare: bool = True) -> Value:
        """A tensor of these numbers, in some layout; with `bare`, now and then as an array."""
        possible = array.dtype in (np.float32, np.float64)
        wanted = self.chance(0.85) if differentiated is None else differentiated
        layout = self.pick("plain", "plain", "strided", "fortran", "readonly")
        return Value(array, possible and wanted, layout, bare and not (possible and wanted) and self.chance(0.4))

    def floats(self, *shape: int, kind: str = "normal", dtype: Any = None, **how: Any) -> Value:
        """Random numbers: "normal", "ties" (small integers), "special" (with NaN, ±∞ and ±0) or "positive"."""
        if kind == "normal":
            array = self.rng.standard_normal(shape)
        elif kind == "positive":
            array = self.rng.uniform(0.2, 3, shape)
        else:
            array = self.rng.integers(-2, 3, shape).astype(np.float64)
        if kind == "special":
            odd = self.rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
            array = np.where(self.rng.random(shape) < 0.4, odd, array)
        return self.value(np.asarray(array, dtype or self.dtype), **how)

    def ints(self, *shape: int, low: int = -4, high: int = 4, dtype: Any = np.int64, bare: bool = True) -> Value:
        return self.value(self.rng.integers(low, high + 1, shape).astype(dtype), bare=bare)

    def bools(self, *shape: int, bare: bool = True) -> Value:
        return self.value(self.rng.random(shape) < 0.5, bare=bare)

    def any_tensor(self, *shape: int, bare: bool = False) -> Value:
        """Mostly floats of the call's dtype; also of the other one, integers and booleans."""
        kind = self.pick("float", "float", "float", "float", "other float", "ints", "int32", "bools", "ties", "special")
        if kind == "ints":
            return self.ints(*shape, bare=bare)
        if kind == "int32":
            return self.ints(*shape, dtype=np.int32, bare=bare)
        if kind == "bools":
            return self.bools(*shape, bare=bare)
        if kind == "other float":
            return self.floats(*shape, dtype=np.float32 if self.dtype == np.float64 else np.float64, bare=bare)
        return self.floats(*shape, kind="normal" if kind == "float" else kind, bare=bare)

    def wrong_tensor(self, value: Any, replace: bool = True) -> Any:
        """Something near `value`: with another number of axes, another size, another dtype, or no tensor at all."""
        fault = self.pick("axes", "size", "dtype", "none") if replace else self.pick("axes", "size", "dtype")
        if fault == "none" or not isinstance(value, Value):
            return self.pick(*NO_TENSORS)
        array = value.array
        if fault == "dtype":
            cast = np.abs(np.nan_to_num(array, posinf=3, neginf=-3)).astype(self.pick(*DTYPES))  # no integer is NaN
            return value._replace(array=cast, differentiated=value.differentiated and cast.dtype in DTYPES[:2])
        shape = list(array.shape)
        if fault == "size" and shape:
            at = self.int(0, len(shape) - 1)
            shape[at] = self.pick(0, 1, shape[at] + 1, max(shape[at] - 1, 0))
        else:
            shape = [self.pick(1, 2, 3) for _ in range(self.int(0, 6))]
        return value._replace(array=np.resize(array, shape) if array.size else np.zeros(shape, array.dtype))

    # ----- parameters

    def as_int(self, n: int) -> Any:
        """An int, now and then NumPy's."""
        return self.pick(n, n, n, np.int64(n), np.int32(n))

    def pair(self, low: int, high: int) -> Any:
        """One number or one per axis, in every form that holds."""
        a, b = self.int(low, high), self.int(low, high)
        return self.pick(a, a, (a, b), (a, b), [a, b], (a,), [b], np.int64(a), (np.int64(a), b))

    def plain_pair(self, low: int, high: int) -> Any:
        """As pair, mostly in a form that PyTorch takes everywhere: not all its functions take (2,) or NumPy's ints."""
        if self.chance(0.05):
            return self.pair(low, high)
        a, b = self.int(low, high), self.int(low, high)
        return self.pick(a, a, (a, b), [a, b])

    def call(
        self,
        required: dict[str, Any],
        optional: dict[str, Any] | None = None,
        wrong: dict[str, tuple[Any, ...]] | None = None,
        keywords_from: int = 99,
        on_tensor: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and the keyword arguments; in a spoilt call one of them is wrong.

        Args:
            required, optional: names and values, in PyTorch's order.
            wrong: for the parameters that are no tensors, values that are not meant to be right.
            keywords_from: how many may be passed by position.
            on_tensor: whether the first is the tensor whose method this is, so that it must stay a tensor.
        """
        wrong = wrong or {}
        given = {**required, **(optional or {})}
        if self.spoilt:
            faulty = self.pick(*[n for n in given if n in wrong or isinstance(given[n], Value)] or [None])
            if faulty in wrong:
                given[faulty] = self.pick(*wrong[faulty])
            elif faulty is not None:
                given[faulty] = self.wrong_tensor(
                    given[faulty], replace=not (on_tensor and faulty == next(iter(given)))
                )
        names = list(given)
        first = 1 if on_tensor else 0
        count = self.pick(first, max(first, len(required)), max(first, len(required)), min(keywords_from, len(names)))
        return (
            tuple(given[n] for n in names[:count]),
            {n: given[n] for n in names[count:] if n in required or self.chance(0.85)},
        )

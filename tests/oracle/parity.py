"""One drawn call, made by minifcn and by PyTorch: do they agree?

Both give values: then shapes, dtypes, numbers, what requires gradients, gradients of first order (of second order for
some calls) and the state of layers must be equal, and no argument may have changed that PyTorch leaves alone. Or both
raise: then minifcn's error must be a ValueError, TypeError or RuntimeError of its own, one line that begins with the
operation's name. Everything else is a disagreement, unless `ON_PURPOSE` says why it is meant.
"""

from __future__ import annotations

import dis
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import arguments_function
import arguments_image
import arguments_layers
import arguments_tensor
import numpy as np
from arguments import FUNCTIONS, Call, Dtype, Value, draw
from compare import OURS, THEIRS, TOLERANCE, relative_error, strided, torch
from on_purpose import GRADIENT, ON_PURPOSE, OURS_RAISES, SECOND, THEIRS_RAISES, VALUES, Difference

import minifcn as mf
import minifcn.nn

GENERATORS = (arguments_function, arguments_image, arguments_layers, arguments_tensor)  # importing fills FUNCTIONS
SECOND_ORDER = 0.3  # of the calls in float64
ORDER: dict[str, Any] = {"fortran": "F"}
ERRORS = (ValueError, TypeError, RuntimeError)


# ----- the two sides


class Side:
    """A library: it makes tensors and layers, and has the functions as attributes. A new one for each call.

    `variables` are what gradients are compared for: differentiated arguments, and then parameters of layers.
    """

    namespace: Any

    def __init__(self) -> None:
        self.variables: list[Any] = []
        self.layers: list[Any] = []
        self.given: list[tuple[Value, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.namespace, name)

    def argument(self, drawn: Any) -> Any:
        """What was drawn, as this library takes it."""
        if isinstance(drawn, Value):
            tensor = self.tensor(drawn)
            self.given.append((drawn, tensor))
            if drawn.differentiated:
                self.variables.append(tensor)
            return tensor
        if isinstance(drawn, Dtype):
            return self.dtype(drawn.name)
        if isinstance(drawn, list | tuple):
            return type(drawn)([self.argument(part) for part in drawn])
        if isinstance(drawn, dict):
            return {name: self.argument(part) for name, part in drawn.items()}
        return drawn

    def state(self) -> list[tuple[str, Any]]:
        return [item for layer in self.layers for item in layer.state_dict().items()]

    def tensor(self, value: Value) -> Any:
        raise NotImplementedError

    def dtype(self, name: str) -> Any:
        raise NotImplementedError


class _Minifcn:
    def __getattr__(self, name: str) -> Any:
        return getattr(OURS if hasattr(OURS, name) else mf, name)


class Ours(Side):
    """minifcn."""

    namespace = _Minifcn()
    dtype = staticmethod(np.dtype)
    from_array = staticmethod(np.asarray)

    def tensor(self, value: Value) -> Any:
        numbers = np.asarray(value.array)
        array = strided(numbers) if value.layout == "strided" else np.array(numbers, order=ORDER.get(value.layout, "C"))
        array.flags.writeable = value.layout != "readonly"
        return array if value.bare else mf.Tensor(array, requires_grad=value.differentiated)

    def layer(self, name: str, dtype: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        layer = getattr(minifcn.nn, name)(*args, **options).to(np.dtype(dtype))
        for (_, p), numbers in zip(layer.named_parameters(), parameters(layer), strict=True):
            p.data = numbers.astype(dtype)
            self.variables.append(p)
        self.layers.append(layer)
        return layer


class Upsample(torch.nn.Upsample):
    """As Theirs.interpolate."""

    def forward(self, input: Any) -> Any:
        return super().forward(input[None])[0] if getattr(input, "ndim", 4) == 3 else super().forward(input)


class Theirs(Side):
    """PyTorch."""

    namespace = THEIRS
    from_array = staticmethod(torch.as_tensor)

    @staticmethod
    def dtype(name: str) -> Any:
        return getattr(torch, name)

    def tensor(self, value: Value) -> Any:
        return torch.tensor(np.array(value.array, order="C"), requires_grad=value.differentiated)

    def layer(self, name: str, dtype: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        layer = (Upsample if name == "Upsample" else getattr(torch.nn, name))(*args, **options).to(self.dtype(dtype))
        for (_, p), numbers in zip(layer.named_parameters(), parameters(layer), strict=True):
            p.data = torch.tensor(numbers.astype(dtype))
            self.variables.append(p)
        self.layers.append(layer)
        return layer

    def interpolate(self, input: Any, *args: Any, **options: Any) -> Any:
        """Three axes are an image, as for minifcn; PyTorch by itself takes them for (N, C, L)."""
        if getattr(input, "ndim", 4) != 3:
            return THEIRS.interpolate(input, *args, **options)
        return THEIRS.interpolate(input[None], *args, **options)[0]

    def conv_transpose2d(self, input: Any, weight: Any, *args: Any, output_size: Any = None, **options: Any) -> Any:
        """PyTorch's function has no output_size, but its layer has."""
        if output_size is None:
            return THEIRS.conv_transpose2d(input, weight, *args, **options)
        names = ("bias", "stride", "padding")
        given = {**dict(zip(names, args, strict=False)), **options}
        bias = given.pop("bias", None)
        channels = weight.shape[0], weight.shape[1] * given.get("groups", 1)
        layer = torch.nn.ConvTranspose2d(*channels, tuple(weight.shape[2:]), bias=bias is not None, **given)
        tensors = {"weight": weight} | ({} if bias is None else {"bias": bias})
        return torch.func.functional_call(layer, tensors, (input, output_size))


def parameters(layer: Any) -> list[np.ndarray]:
    """The same random numbers for the parameters of both sides' layers."""
    rng = np.random.default_rng(3)
    return [rng.standard_normal(tuple(p.shape)) for _, p in layer.named_parameters()]


# ----- one call


class Verdict(NamedTuple):
    """What came of a call.

    Args:
        kind: "values" or "errors" (both sides gave them, and they agree), "on purpose" or "disagreement".
        said: for the last two, what each side did.
        difference: the entry of ON_PURPOSE.
    """

    kind: str
    said: str = ""
    difference: Difference | None = None


class Disagreement(Exception):
    """Both sides gave values, but not the same. The message begins with what differs, such as "gradient 0"."""


def judge(call: Call) -> Verdict:
    """Make the call on both sides and compare."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return _judge(call)


def _judge(call: Call) -> Verdict:
    ours, theirs = Ours(), Theirs()
    wanted, refusal = _run(theirs, call)
    got, error = _run(ours, call)
    if refusal is not None and error is not None:
        fault = fault_of(error, FUNCTIONS[call.function].ops)
        said = f"PyTorch {told(refusal)}; minifcn {told(error)}: {fault}"
        return Verdict("disagreement", said) if fault else Verdict("errors")
    if refusal is not None:
        return _differ(call, THEIRS_RAISES, f"PyTorch {told(refusal)}; minifcn gives {shown(got)}")
    if error is not None:
        said = f"PyTorch gives {shown(wanted)}; minifcn {told(error)}"
        fault = fault_of(error, FUNCTIONS[call.function].ops)
        return Verdict("disagreement", f"{said}: {fault}") if fault else _differ(call, OURS_RAISES, said)
    try:
        _agree(call, ours, theirs, got, wanted)
    except Disagreement as difference:
        kind = str(difference).partition(" ")[0]
        return _differ(call, kind if kind in (GRADIENT, SECOND) else VALUES, str(difference))
    return Verdict("values")


def _run(side: Side, call: Call) -> tuple[Any, Exception | None]:
    """(result, None), or (None, what was raised)."""
    args, options = side.argument(call.args), side.argument(call.options)
    try:
        return FUNCTIONS[call.function].f(side, *args, **options), None
    except Exception as error:  # whatever it is: which kinds are right is judged later
        return None, error


def _differ(call: Call, kind: str, said: str) -> Verdict:
    """A disagreement, or a difference that is meant."""
    found = next((d for d in ON_PURPOSE if kind in d.kinds and call.function in d.functions and d.applies(call)), None)
    return Verdict("on purpose" if found else "disagreement", said, found)


def fault_of(error: Exception, ops: tuple[str, ...]) -> str:
    """What is wrong with an error of minifcn's; empty if nothing is."""
    if type(error) not in ERRORS:
        return "not a ValueError, TypeError or RuntimeError"
    if not raised_by_minifcn(error):
        return "it did not begin at a raise in minifcn"
    if "\n" in str(error):
        return "more than one line"
    if not any(str(error).startswith(f"{op}: ") for op in ops):
        return f"it does not begin with {' or '.join(f'“{op}: ”' for op in ops)}"
    return ""


def raised_by_minifcn(error: BaseException) -> bool:
    """Whether a `raise` in minifcn, not a function that minifcn called, is where the error began."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return False
    raises = place.tb_frame.f_code.co_code[place.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raises and str(place.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "minifcn"


def told(error: Exception) -> str:
    return f"raises {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


def shown(result: Any) -> str:
    parts = [f"{p.dtype}{tuple(p.shape)}" if hasattr(p, "shape") else repr(p)[:60] for p in parts_of(result)]
    return ", ".join(parts).replace("torch.", "")


# ----- values


def parts_of(result: Any) -> list[Any]:
    """The tensors and numbers of a result."""
    if isinstance(result, list | tuple):
        return [part for each in result for part in parts_of(each)]
    return [result]


def _agree(call: Call, ours: Side, theirs: Side, got: Any, wanted: Any) -> None:
    """Raises Disagreement unless results, gradients, state and arguments are equal."""
    ys, ts = parts_of(got), parts_of(wanted)
    _same("the number of results", len(ys), len(ts))
    for k, (y, t) in enumerate(zip(ys, ts, strict=True)):
        _same_part(f"result {k}" if len(ys) > 1 else "the result", y, t, call)
    _same("the names of the state", [name for name, _ in ours.state()], [name for name, _ in theirs.state()])
    for (name, a), (_, b) in zip(ours.state(), theirs.state(), strict=True):
        _close(name, a, b, call)
    for k, ((value, a), (_, b)) in enumerate(zip(ours.given, theirs.given, strict=True)):
        if value.moves:
            _close(f"statistics {k}", a, b, call)
        elif not np.array_equal(np.asarray(a), value.array, equal_nan=value.array.dtype.kind in "fc"):
            raise Disagreement(f"argument {k} was changed")
    pairs = [(y, t) for y, t in zip(ys, ts, strict=True) if isinstance(y, mf.Tensor)]
    _same("requires_grad", [y.requires_grad for y, _ in pairs], [t.requires_grad for _, t in pairs])
    live = [(y, t) for y, t in pairs if t.requires_grad]
    if live:
        _gradients(call, ours.variables, theirs.variables, live)


def _gradients(call: Call, xs: list[Any], us: list[Any], live: list[tuple[Any, Any]]) -> None:
    rng = np.random.default_rng(5)
    gs = [np.asarray(rng.standard_normal(t.shape), y.dtype) for y, t in live]
    gu = _theirs([t for _, t in live], us, gs)
    if gu is None:
        return
    gx = _ours("gradient", [y for y, _ in live], xs, gs)
    for k, (a, b) in enumerate(zip(gx, gu, strict=True)):
        _close(f"gradient {k}", a, b, call, least=_size(gs))
    again = [(a, b) for a, b in zip(gx, gu, strict=True) if b.requires_grad]
    if not again or any(x.dtype != np.float64 for x in xs) or rng.random() > SECOND_ORDER:
        return
    ws = [np.asarray(rng.standard_normal(b.shape)) for _, b in again]
    ggu = _theirs([b for _, b in again], us, ws)
    if ggu is None:
        return
    ggx = _ours("second-order gradient", [a for a, _ in again], xs, ws)
    for k, (a, b) in enumerate(zip(ggx, ggu, strict=True)):
        _close(f"second-order gradient {k}", a, b, call, least=max(_size(gs), _size(ws)), factor=10)


def _ours(what: str, ys: list[Any], xs: list[Any], gs: list[np.ndarray]) -> tuple[Any, ...]:
    try:
        return mf.grad(ys, xs, gs, create_graph=True, allow_unused=True)
    except Exception as error:  # PyTorch has this gradient, so that minifcn lacks it is a difference
        raise Disagreement(f"{what}: minifcn {told(error)}") from error


def _theirs(ts: list[Any], us: list[Any], gs: list[np.ndarray]) -> list[Any] | None:
    """PyTorch's gradients; None where it gives a value but fails to differentiate it (some empty tensors)."""
    try:
        found = torch.autograd.grad(ts, us, [torch.tensor(g) for g in gs], create_graph=True, allow_unused=True)
    except RuntimeError:
        return None
    return [torch.zeros_like(u) if g is None else g for g, u in zip(found, us, strict=True)]


def _size(arrays: list[np.ndarray]) -> float:
    """The largest finite number."""
    return max((float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in arrays), default=0.0)


def _same(what: str, a: Any, b: Any) -> None:
    if a != b:
        raise Disagreement(f"{what}: {a}, PyTorch {b}")


def _same_part(what: str, y: Any, t: Any, call: Call) -> None:
    """A tensor, or anything else that a call can return."""
    if isinstance(t, torch.Tensor) and isinstance(y, mf.Tensor | np.ndarray):
        # a variance of equal numbers is nothing but rounding errors
        _close(what, y, t, call, least=1e-7 * _size([v.array for v in call.values()]) ** 2)
    elif isinstance(t, torch.dtype):
        _same(what, str(y), str(t).removeprefix("torch."))
    else:
        _same(f"{what}'s type", type(y).__name__, type(t).__name__)
        if not (y == t or (y != y and t != t)):
            raise Disagreement(f"{what}: {y}, PyTorch {t}")


def _close(what: str, a: Any, b: Any, call: Call, least: float = 0.0, factor: float = 1.0) -> None:
    """Raises Disagreement unless a is b up to rounding.

    Args:
        least: the error is measured against this at least. A gradient's terms may cancel (batch norm's of two values
            do), and then their sum is nothing but rounding errors of the size of the cotangents.
    """
    try:
        error = relative_error(a, b)
    except AssertionError as difference:
        raise Disagreement(f"{what}: {difference}") from None
    floats = [v.array.dtype for v in call.values() if v.array.dtype in TOLERANCE]
    tolerance = factor * max((TOLERANCE[d] for d in [*floats, np.dtype(a.dtype)] if d in TOLERANCE), default=0.0)
    if error <= tolerance:
        return
    x, y = np.asarray(a), b.detach().numpy(force=True)
    if np.isfinite(error) and x.size and float(np.abs(x - y)[np.isfinite(y)].max(initial=0)) <= tolerance * least:
        return
    raise Disagreement(f"{what} is {numbers(x)}, PyTorch {numbers(y)}, error {error:.1e}")


def numbers(array: np.ndarray) -> str:
    """The first few."""
    return np.array2string(array.reshape(-1)[:6], precision=6, separator=", ").replace("\n", "")


# ----- many calls


def available() -> list[str]:
    """The functions that minifcn has; a generator may be there before its function."""

    def has(needs: str) -> bool:
        room, _, name = needs.rpartition(".")
        places = {"Tensor": [mf.Tensor], "nn": [minifcn.nn], "": [OURS, mf]}[room]
        return any(hasattr(place, name) for place in places)

    return [name for name, function in FUNCTIONS.items() if has(function.needs)]


def judged(function: str, seed: int, calls: int) -> Iterator[tuple[Call, Verdict]]:
    """The first calls of a function, each with its verdict."""
    for index in range(calls):
        call = draw(function, seed, index)
        yield call, judge(call)

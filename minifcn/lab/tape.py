"""The tape made visible: every call of a primitive, forward and backward, in order.

    found = trace(lambda x, w: F.conv2d(x, w).sum(), x, w)
    print(found.table())

The engine shows each call to a Watcher (see `minifcn.debugging`), and the registry what it is asked for. A call is
numbered when it is complete, so its arguments come from calls with smaller numbers, as on the tape itself. Arrays are
recognised by identity through weak references: a traced pass frees its memory when any other would.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter_ns
from typing import Any, Generic, TypeVar

import numpy as np

from minifcn import autograd, debugging
from minifcn.array import Array, is_array, module_of
from minifcn.autograd import Node, Primitive, Tensor, grad, no_grad
from minifcn.kernels.registry import reasons
from minifcn.lab import tape_formats
from minifcn.memory import owns
from minifcn.nn import Module

FORWARD, BACKWARD = "forward", "backward"
_WALKS = (autograd._walk.__code__, Tensor.backward.__code__)  # what runs within is backward's

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Value:
    """An array that a call was given.

    Args:
        name: in the primitive's signature.
        shape: its sizes.
        dtype: of its elements, such as "float32".
        source: the number of the call that made it, or None.
        origin: what it is where no call made it: "input 0", a parameter's dotted name, "leaf 0" (another tensor that
            requires gradients), "ones 0" (the cotangent of output 0), "constant 0", or "constant 1 = 2.0".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: int | None
    origin: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What the registry chose.

    Args:
        op: the operation, such as "conv2d" for the primitive conv2d_bias.
        algorithm: the kernel that ran, such as "winograd_f4".
        why: in words.
        passed: (algorithm, why not) of those that auto would have tried before.
    """

    op: str
    algorithm: str
    why: str
    passed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a primitive.

    Args:
        number: its place in `Trace.calls`, from 0.
        phase: "forward" or "backward".
        primitive: its name.
        layer: dotted name of the innermost Module whose forward() made the call, as in named_modules of the outermost;
            in backward, that of the call whose gradient is computed. Empty outside of layers and in the outermost.
        of: in backward, the number of the call whose VJP made this one. None where cotangents of one value are added,
            and for the VJP of what was not traced, such as a call on another thread.
        args: what it was given: the arguments, and keyword parameters that are arrays.
        shape: of its result.
        dtype: of its result.
        kernels: what the registry chose; empty for a primitive that does without the registry.
        library: "NumPy" or "CuPy", or "view" for a result that shares an argument's memory.
        begin: nanoseconds from the trace's begin to the call's, on a clock that stands still while a call is recorded.
        end: nanoseconds to its end. Between the two is the forward function alone.
        bytes: that were made: the result and further results, such as a max pooling's winners; 0 for a view.
        kept: bytes that are in memory until backward only because this call was recorded: what its VJPs will name. What
            an earlier call keeps already is not counted again, nor are inputs, parameters and other leaves.
    """

    number: int
    phase: str
    primitive: str
    layer: str
    of: int | None
    args: tuple[Value, ...]
    shape: tuple[int, ...]
    dtype: str
    kernels: tuple[Choice, ...]
    library: str
    begin: int
    end: int
    bytes: int
    kept: int

    @property
    def seconds(self) -> float:
        """How long the forward function took."""
        return (self.end - self.begin) / 1e9

    @property
    def algorithm(self) -> str:
        """The kernels' names, or else the library."""
        return " + ".join(k.algorithm for k in self.kernels) or self.library

    @property
    def why(self) -> str:
        """Why these kernels, and why not those that auto tries before; empty where the registry was not asked.

        >>> passed = (("pointwise", "needs a 1×1 filter and no padding"),)
        >>> choice = Choice("conv2d", "gemm", "the first that auto takes", passed)
        >>> Call(0, "forward", "conv2d", "", None, (), (), "float32", (choice,), "NumPy", 0, 0, 0, 0).why
        'the first that auto takes; not pointwise: needs a 1×1 filter and no padding'
        """
        return " + ".join("; ".join([k.why, *(f"not {a}: {why}" for a, why in k.passed)]) for k in self.kernels)


@dataclass(frozen=True, slots=True)
class Trace:
    """Every call of a pass.

    Args:
        title: what was run.
        calls: in the order in which they were complete.
        seconds: from begin to end, what lies between the calls and the tracing itself included.
        outputs: shapes of the outputs to go back from, each with a cotangent of ones.
        back: the number of the first call on the way back from them; there may be none.
    """

    title: str
    calls: tuple[Call, ...]
    seconds: float
    outputs: tuple[tuple[int, ...], ...] = ()
    back: int = 0

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """As text, 120 columns wide: the calls by layer, the algorithms with reasons, totals and the slowest kinds."""
        return tape_formats.table(self)

    def graphviz(self) -> str:
        """As a graph in Graphviz's language, for `dot -Tsvg`: who made what for whom."""
        return tape_formats.graphviz(self)

    def events(self) -> dict[str, Any]:
        """As a JSON object in the Trace Event Format, which chrome://tracing, Perfetto and Firefox's profiler open."""
        return tape_formats.events(self)


def trace(f: Callable[..., Any], *inputs: Any, backward: bool = True) -> Trace:
    """f(*inputs), with every call of a primitive on this thread, forward and backward.

    Backward starts from a cotangent of ones for each output, so it differentiates the sum of all their elements. It
    ends at the leaves that require gradients and leaves their `.grad` alone. What f does on other threads is missing,
    and so is the way back to leaves that it uses only there. Times are of one run, which may be the first and slower
    than the next.

    Args:
        f: a Module, or a function of Tensors that returns a Tensor, or a list, tuple or dictionary of Tensors.
        inputs: Tensors or arrays. A Tensor that is the result of an operation enters as a leaf.
        backward: whether to go back; without, f may return anything. Within no_grad, layers that one kernel can do
            together are one call.

    Returns:
        The calls.

    Raises:
        TypeError: f returns no Tensor to go back from.
        RuntimeError: no output requires gradients, or something watches this thread already, such as another trace.
        Exception: whatever f raises.

    >>> x, w = Tensor([1.0, 2.0]), Tensor([3.0, 4.0], requires_grad=True)
    >>> found = trace(lambda x, w: (x * w).sum(), x, w)
    >>> [(c.phase, c.primitive, c.of) for c in found.calls if c.library != "view"]
    [('forward', 'mul', None), ('forward', 'sum', None), ('backward', 'mul', 0)]
    """
    begin = perf_counter_ns()
    tensors = [_leaf(x) for x in inputs]
    recorder = _Recorder()
    for k, x in enumerate(tensors):
        recorder.name(x.data, f"input {k}")
    with debugging.watching(recorder):
        result = f(*tensors)
        outputs = _outputs(result) if backward else []
        ones = [Tensor(module_of(y.data).ones_like(y.data)) for y in outputs]
        for k, g in enumerate(ones):
            recorder.name(g.data, f"ones {k}")
        back = len(recorder.calls)
        if outputs and recorder.leaves:
            grad(outputs, list(recorder.leaves.values()), ones, allow_unused=True)
    title = type(f).__name__ if isinstance(f, Module) else getattr(f, "__name__", type(f).__name__)
    seconds = (perf_counter_ns() - begin) / 1e9
    return Trace(title, tuple(recorder.calls), seconds, tuple(y.shape for y in outputs), back)


def trace_model(model: Module, title: str, size: tuple[int, int], batch: int = 1, *, backward: bool = True) -> Trace:
    """A network on noise: a training step's passes, or an inference pass.

    The same is run once before, so that threads and buffers are there when time is taken.

    Args:
        model: called with (N, 3, H, W). It is left in training mode, its running statistics moved; without backward,
            in evaluation mode.
        title: what to call it.
        size: (H, W) of the images, in pixels, each ≥ 1.
        batch: N ≥ 1.
        backward: training mode and backward, or else evaluation mode under no_grad.

    Raises:
        ValueError: the network cannot take images of that size; batch norm has one value per channel in training mode.
    """
    x = np.random.default_rng(0).standard_normal((batch, 3, *size), dtype=np.float32)
    model.train(backward)
    for _ in range(2):
        if backward:
            found = trace(model, x)
        else:
            with no_grad():
                found = trace(model, x, backward=False)
    return replace(found, title=title)


def _leaf(x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        return Tensor(x)
    if x.is_leaf:
        return x
    leaf = x.detach()
    leaf.requires_grad = True
    return leaf


def _outputs(result: Any) -> list[Tensor]:
    """The Tensors that f returned and from which one can go back."""
    several = list(result.values()) if isinstance(result, Mapping) else result
    tensors = [y for y in (several if isinstance(several, list | tuple) else [several]) if isinstance(y, Tensor)]
    if not tensors:
        raise TypeError(
            f"trace: a {type(result).__name__} without a Tensor was returned; return one or several Tensors to go back "
            f"from, or pass backward=False"
        )
    outputs = [y for y in tensors if y.requires_grad]
    if not outputs:
        raise RuntimeError(
            "trace: no output requires gradients; use a tensor with requires_grad=True, outside of no_grad, or pass "
            "backward=False"
        )
    return outputs


class _Memo(Generic[T]):
    """What is known of objects, by identity, for as long as they live."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], T]] = {}

    def get(self, key: Any) -> T | None:
        held = self._known.get(id(key))
        return held[1] if held is not None and held[0]() is key else None  # ids of the dead are used again

    def put(self, key: Any, value: T) -> None:
        self._known[id(key)] = (weakref.ref(key), value)


@dataclass(slots=True)
class _Running:
    """A forward function at work."""

    begin: int
    end: int = 0
    kernels: list[Choice] = field(default_factory=list)


class _Recorder:
    """The Watcher: makes Calls of what the engine shows it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.leaves: dict[int, Tensor] = {}  # that require gradients, by id
        self._zero = perf_counter_ns()
        self._running: list[_Running] = []  # inside each other, where a forward function calls a primitive
        self._last = _Running(0)
        self._going_back: list[int | None] = []  # the calls whose VJPs are at work, likewise
        self._numbers: dict[int, int] = {}  # of the calls, by their nodes' numbers
        self._paths: dict[int, tuple[Module, dict[int, str]]] = {}  # by id of the outermost module
        self._makers: _Memo[int] = _Memo()  # the call that made an array
        self._origins: _Memo[str] = _Memo()
        self._counted: _Memo[bool] = _Memo()  # memory that is kept, or was there anyhow
        self._unnamed = {"leaf": 0, "constant": 0}

    def elapsed(self) -> int:
        """Nanoseconds since the begin, without those of recording."""
        return perf_counter_ns() - self._zero

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """The clock stands still, for every primitive that is running: it is not their work."""
        before = perf_counter_ns()
        try:
            yield
        finally:
            self._zero += perf_counter_ns() - before

    def name(self, array: Array, origin: str) -> None:
        """Say what an array is that no call made."""
        if self._origins.get(array) is None:
            self._origins.put(array, origin)
            self._counted.put(_owner(array), True)

    @contextmanager
    def computing(self) -> Iterator[None]:
        running = _Running(self.elapsed())
        self._running.append(running)
        try:
            yield
        finally:
            running.end = self.elapsed()
            self._last = self._running.pop()

    def kernel(self, op: str, arrays: Sequence[Any], params: Mapping[str, Any]) -> None:
        if not self._running:
            return  # no primitive's: batch norm's running statistics, an optimizer's step
        with self._recording():
            rows = reasons(op, *arrays, **params)
            place = next(k for k, (_, taken, _) in enumerate(rows) if taken)
            passed = tuple((k.algorithm, why) for k, _, why in rows[:place])
            self._running[-1].kernels.append(Choice(op, rows[place][0].algorithm, rows[place][2], passed))

    def computed(
        self,
        primitive: Primitive,
        args: Sequence[Tensor],
        params: Mapping[str, Any],
        extras: Sequence[Array],
        y: Tensor,
    ) -> None:
        running, array = self._last, y.data
        if not isinstance(array, np.ndarray):  # a GPU computes on while Python goes ahead
            module_of(array).cuda.get_current_stream().synchronize()
            running.end = self.elapsed()
        with self._recording():
            self._record(running, primitive, args, params, extras, y)

    def _record(
        self,
        running: _Running,
        primitive: Primitive,
        args: Sequence[Tensor],
        params: Mapping[str, Any],
        extras: Sequence[Array],
        y: Tensor,
    ) -> None:
        number, array = len(self.calls), y.data
        of = self._going_back[-1] if self._going_back else None
        layer, walking = self._place()
        given = [self._argument(name, t) for name, t in zip(primitive.args, args, strict=True)]
        given += [self._value(name, a) for name, value in params.items() for a in _arrays(value)]
        shares = any(module_of(a.data).may_share_memory(a.data, array) for a in args if type(a.data) is type(array))
        self.calls.append(
            Call(
                number=number,
                phase=BACKWARD if walking or self._going_back else FORWARD,
                primitive=primitive.name,
                layer=layer if of is None else self.calls[of].layer,
                of=of,
                args=tuple(given),
                shape=y.shape,
                dtype=str(y.dtype),
                kernels=tuple(running.kernels),
                library="view" if shares else "NumPy" if isinstance(array, np.ndarray) else "CuPy",
                begin=running.begin,
                end=running.end,
                bytes=(0 if shares else array.nbytes) + sum(a.nbytes for a in extras),
                kept=0 if y._node is None else self._kept(y._node),
            )
        )
        for made in (array, *extras):
            if not shares:
                self._makers.put(_owner(made), number)
            self._makers.put(made, number)
        if y._node is not None:
            self._numbers[y._node.number] = number

    @contextmanager
    def going_back(self, node: Node) -> Iterator[None]:
        self._going_back.append(self._numbers.get(node.number))
        try:
            yield
        finally:
            self._going_back.pop()

    def _place(self) -> tuple[str, bool]:
        """The layer at work, and whether this is within a backward pass."""
        layers, walking = [], False
        for frame in debugging.frames():
            if frame.f_code is trace.__code__:
                break
            walking = walking or frame.f_code in _WALKS
            layer = debugging.layer_of(frame)
            if layer is not None:
                layers.append(layer)
        return self._path(layers[-1], layers[0]) if layers else "", walking

    def _path(self, outermost: Module, layer: Module) -> str:
        if id(outermost) not in self._paths:
            paths: dict[int, str] = {}
            for name, module in outermost.named_modules():
                paths.setdefault(id(module), name)
            self._paths[id(outermost)] = (outermost, paths)  # the module too, so that its id stays its own
            for name, t in (*outermost.named_parameters(), *outermost.named_buffers()):
                self.name(t.data, name)
        return self._paths[id(outermost)][1].get(id(layer), "")

    def _argument(self, name: str, t: Tensor) -> Value:
        if t.requires_grad and t.is_leaf and id(t) not in self.leaves:
            self.leaves[id(t)] = t
            if self._origins.get(t.data) is None and self._makers.get(t.data) is None:
                self.name(t.data, self._next("leaf"))
        return self._value(name, t.data)

    def _value(self, name: str, a: Array) -> Value:
        source, origin = self._makers.get(a), self._origins.get(a)
        if source is None and origin is None:  # a view may have been made without a primitive
            source, origin = self._makers.get(_owner(a)), self._origins.get(_owner(a))
        if source is not None:
            origin = ""
        elif origin is None:
            origin = self._next("constant")
            if a.size == 1:
                origin += f" = {a.item():g}"
            self._origins.put(a, origin)
        return Value(name, a.shape, str(a.dtype), source, origin)

    def _next(self, kind: str) -> str:
        self._unnamed[kind] += 1
        return f"{kind} {self._unnamed[kind] - 1}"

    def _kept(self, node: Node) -> int:
        """Bytes of the memory that the node keeps and that is not counted yet."""
        arrays = [*(t.data for t in node.saved), *node.extras]
        arrays += [] if node.output is None else [node.output[0]]
        arrays += [a for value in node.params.values() for a in _arrays(value)]
        kept = 0
        for owner in map(_owner, arrays):
            if self._counted.get(owner) is None:
                self._counted.put(owner, True)
                kept += owner.nbytes
        return kept


def _owner(array: Array) -> Array:
    """The array whose memory this one shows."""
    while not (isinstance(array, np.ndarray) and owns(array)) and is_array(array.base):
        array = array.base
    return array


def _arrays(value: Any) -> list[Array]:
    """The arrays that a keyword parameter holds; an index is a tuple of them."""
    values = value if isinstance(value, tuple) else (value,)
    return [v for v in values if is_array(v) and not isinstance(v, np.generic)]

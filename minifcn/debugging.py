"""Debug mode: name the operation, and the line of your code, that first made a NaN or an infinity.

    with mf.debug():
        loss = criterion(model(image), labels)
        loss.backward()

While it is on, the engine shows every result to `inspect_result`, forward and backward, and every recorded node keeps
the place that it was called from, so that an error in backward names the line of the forward pass.

Whoever else wants to see every call installs a Watcher with `watching`, as `minifcn.lab.trace` does. The engine asks
one question for both, `is_watched`, and what there is to be told is sorted out here.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ContextDecorator, contextmanager, nullcontext
from types import FrameType
from typing import Any, Protocol, Self

import numpy as np

from minifcn.array import FLOATS, Array, module_of

_lock = threading.Lock()
_calls: list[debug] = []  # those that are not used as a context: the latest holds, for all threads
_everywhere = False  # what it says
_asked = False  # whether anybody has ever asked for debug mode
_watchers = 0  # how many threads have a Watcher
_used = False  # whether either is so


class Watcher(Protocol):
    """Sees what the engine does on the thread that installed it with `watching`."""

    def computing(self) -> AbstractContextManager[object]:
        """Around the forward function of a primitive."""

    def kernel(self, op: str, arrays: Sequence[Any], params: Mapping[str, Any]) -> None:
        """The registry is about to run a kernel for these arguments."""

    def computed(
        self, primitive: Any, args: Sequence[Any], params: Mapping[str, Any], extras: Sequence[Array], y: Any
    ) -> None:
        """A primitive's call is complete: y is its output, a Tensor with a node if the call was recorded."""

    def going_back(self, node: Any) -> AbstractContextManager[object]:
        """Around the VJPs of one node."""


class _Here(threading.local):
    """What a context has set for its thread; enabled is None: as everywhere."""

    enabled: bool | None = None
    watcher: Watcher | None = None


_here = _Here()


class debug(ContextDecorator):
    """Check every operation's result for NaN and Inf, from now on or within the block.

    `mf.debug(True)` switches the checks on and `mf.debug(False)` off, for all threads; as a context manager, or as a
    decorator of a function, it holds for its own thread until the block ends. An error is raised where an operation
    makes a NaN or Inf out of finite arguments or a NaN out of infinite ones, and where it is given a NaN that no
    operation has made, such as one in the data. Infinities that were put into a tensor on purpose may pass through.
    Every result is read once more, so expect a slower step.

    Raises:
        FloatingPointError: within, by the operation, with its name, the line that called it and what it was given.
        TypeError: enabled is not True or False.

    >>> import minifcn as mf
    >>> x = mf.Tensor([1.0, 0.0])
    >>> with mf.debug():
    ...     mf.Tensor([1.0, 2.0]) / x  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FloatingPointError: div: made 1 Inf out of finite arguments at ...
    """

    def __init__(self, enabled: bool = True) -> None:
        if not isinstance(enabled, bool):
            raise TypeError(f"debug: enabled is {enabled!r}; True or False is needed")
        global _asked
        self.enabled = enabled
        self.before: list[bool | None] = []
        with _lock:
            _asked = True
            _calls.append(self)
            _update()

    def _not_for_all(self) -> None:
        """It was a context, or a decorator, and not a call for everybody."""
        with _lock:
            if self in _calls:
                _calls.remove(self)
                _update()

    def __call__(self, function: Any) -> Any:
        self._not_for_all()
        return super().__call__(function)

    def __enter__(self) -> Self:
        self._not_for_all()
        self.before.append(_here.enabled)
        _here.enabled = self.enabled
        return self

    def __exit__(self, *_: object) -> None:
        _here.enabled = self.before.pop()


def _update() -> None:
    global _everywhere, _used
    _everywhere = _calls[-1].enabled if _calls else False
    _used = _asked or _watchers > 0


def is_debugging() -> bool:
    """Whether debug mode is on, on this thread."""
    if not _used:  # the usual case, quickly
        return False
    return _everywhere if _here.enabled is None else _here.enabled


def is_watched() -> bool:
    """Whether debug mode is on or a Watcher installed, on this thread."""
    if not _used:  # the usual case, quickly
        return False
    return _here.watcher is not None or is_debugging()


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Within the block, show the watcher what the engine does on this thread.

    Raises RuntimeError where one watches already.
    """
    global _watchers
    if _here.watcher is not None:
        raise RuntimeError(
            "watching: this thread is watched already, such as by a trace around this one; one at a time is possible"
        )
    with _lock:
        _watchers += 1
        _update()
    _here.watcher = watcher
    try:
        yield
    finally:
        _here.watcher = None
        with _lock:
            _watchers -= 1
            _update()


@contextmanager
def computing() -> Iterator[None]:
    """Around a primitive's forward function, where it is watched."""
    # what NumPy would warn of is found in the result, and said better
    quiet = np.errstate(all="ignore") if is_debugging() else nullcontext()
    with quiet, _here.watcher.computing() if _here.watcher is not None else nullcontext():
        yield


def show_kernel(op: str, arrays: Sequence[Any], params: Mapping[str, Any]) -> None:
    """The registry is about to run a kernel for these arguments."""
    if _here.watcher is not None:
        _here.watcher.kernel(op, arrays, params)


def show_result(
    primitive: Any, args: Sequence[Any], params: Mapping[str, Any], extras: Sequence[Array], y: Any
) -> None:
    """A call is complete. Raises FloatingPointError as inspect_result."""
    if is_debugging():
        inspect_result(primitive.name, primitive.args, [a.data for a in args], params, y.data)
    if _here.watcher is not None:
        _here.watcher.computed(primitive, args, params, extras, y)


def inspect_result(
    op: str, names: Sequence[str], arrays: Sequence[Array], params: Mapping[str, Any], result: Array
) -> None:
    """Raise FloatingPointError if this call made a NaN or Inf, or was given a NaN (see `debug`)."""
    given = {name: a for name, a in zip(names, arrays, strict=True) if a.dtype in FLOATS}
    for name, a in given.items():
        broken, _ = _count(a)
        if broken and a.ndim == 0:  # such as the one over the count of nothing, or a number that the user wrote
            raise FloatingPointError(f"{_function(op)}: the result is NaN, as a constant that went in, at {place()}")
        if broken:  # an operation would have raised when it made them
            raise FloatingPointError(
                f"{_function(op)}: argument {name}, shape {a.shape}, holds {broken} NaN already, at {place()}; no "
                f"operation made them in debug mode, so look at where that tensor comes from"
            )
    if result.dtype not in FLOATS:
        return
    nans, infinities = _count(result)
    infinite = any(isinstance(p, float) and math.isinf(p) for p in params.values())
    infinite = infinite or any(_count(a)[1] for a in given.values())
    if nans or (infinities and not infinite):
        made = " and ".join(f"{n} {what}" for n, what in ((nans, "NaN"), (infinities, "Inf")) if n)
        raise FloatingPointError(
            f"{_function(op)}: made {made} out of {'infinite' if infinite else 'finite'} arguments at {place()}; "
            f"{', '.join(_describe(name, a) for name, a in given.items())}"
        )


@contextmanager
def backward_of(node: Any) -> Iterator[None]:
    """Whatever is found within belongs to the backward of the call that the node stands for."""
    try:
        with _here.watcher.going_back(node) if _here.watcher is not None else nullcontext():
            yield
    except FloatingPointError as error:
        if not is_debugging():
            raise
        where = f", called at {node.place}" if node.place else ""
        raise FloatingPointError(f"backward of {node.primitive.name}{where} — {error}") from None


def inspect_cotangents(cotangents: Sequence[Any], gy: Any) -> None:
    """Raise as inspect_result does: a VJP of the user's need not consist of primitives."""
    if is_debugging():
        for g in cotangents:
            if g is not None:
                inspect_result("its VJP", ("gy",), (gy.data,), {}, g.data)


def place() -> str:
    """The innermost line that is not minifcn's own, and the layer of the network, if any, that is at work in it."""
    inner = itertools.takewhile(lambda frame: not _is_command(frame), frames())  # who started it wrote no line of it
    caller = next((frame for frame in inner if not _is_ours(frame)), None)
    layers = [layer for layer in map(layer_of, frames()) if layer is not None]  # inside out
    if caller is None:
        return _within(layers).removeprefix("in ") or "a line of minifcn"
    import linecache  # here, as they would slow down `import minifcn`
    import textwrap

    code = caller.f_code
    line = textwrap.shorten(linecache.getline(code.co_filename, caller.f_lineno), 100, placeholder=" …")
    said = f"{code.co_filename}:{caller.f_lineno} in {code.co_name}" + (f": `{line}`" if line else "")
    return f"{said}, {_within(layers)}" if layers else said


def _within(layers: Sequence[Any]) -> str:
    """The innermost of these modules, by its name in the outermost; "" for none."""
    if not layers:
        return ""
    innermost, outermost = layers[0], layers[-1]
    path = next((name for name, m in outermost.named_modules() if m is innermost), "")
    return f"layer {path} ({type(innermost).__name__})" if path else f"in {type(innermost).__name__}"


def frames() -> Iterator[FrameType]:
    """What is being executed on this thread, from the caller outwards."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def layer_of(frame: FrameType) -> Any:
    """The Module whose forward() this is, or None."""
    if frame.f_code.co_name != "forward":  # else the locals need not be looked at, which takes longer
        return None
    owner = frame.f_locals.get("self")
    return owner if hasattr(owner, "named_modules") else None


def _is_command(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == "minifcn.cli" and frame.f_code.co_name == "main"


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "minifcn"


def _function(op: str) -> str:
    """The operation, under the name of the public function that called it where that is another: "mean (its mul)"."""
    frame: FrameType | None = sys._getframe(1)
    function = op
    while frame is not None and _is_ours(frame):
        module, name = str(frame.f_globals["__name__"]), frame.f_code.co_name
        if module.startswith("minifcn.functional.") and not name.startswith(("_", "<")):
            function = name
        elif not module.startswith(("minifcn.autograd", "minifcn.debugging", "minifcn.functional")):
            break
        frame = frame.f_back
    return op if function == op else f"{function} (its {op})"


def _count(a: Array) -> tuple[int, int]:
    """How many NaN and how many infinities."""
    xp = module_of(a)
    broken = int((~xp.isfinite(a)).sum())
    nans = int(xp.isnan(a).sum()) if broken else 0
    return nans, broken - nans


def _describe(name: str, a: Array) -> str:
    """Name, shape and range of an argument."""
    with np.errstate(all="ignore"):
        span = f" from {float(a.min()):.6g} to {float(a.max()):.6g}" if a.size else ""
    return f"{name} {tuple(a.shape)}{span}"

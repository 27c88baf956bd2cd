"""Debug mode: name the operation, and the line of your code, that first made a NaN or an infinity.

    with mf.debug():
        loss = criterion(model(image), labels)
        loss.backward()

While it is on, the engine shows every result to `inspect_result`, forward and backward, and every recorded node keeps
the place that it was called from, so that an error in backward names the line of the forward pass.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ContextDecorator, contextmanager
from types import FrameType
from typing import Any, Self

import numpy as np

from minifcn.array import FLOATS, Array, module_of

_lock = threading.Lock()
_calls: list[debug] = []  # those that are not used as a context: the latest holds, for all threads
_everywhere = False  # what it says
_used = False  # whether anybody has ever asked for debug mode


class _Here(threading.local):
    """What a context has set for its thread; None: as everywhere."""

    enabled: bool | None = None


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
        global _used
        self.enabled, _used = enabled, True
        self.before: list[bool | None] = []
        with _lock:
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
    global _everywhere
    _everywhere = _calls[-1].enabled if _calls else False


def is_debugging() -> bool:
    """Whether debug mode is on, on this thread."""
    if not _used:  # the usual case, quickly
        return False
    return _everywhere if _here.enabled is None else _here.enabled


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
def backward_of(op: str, called_at: str | None) -> Iterator[None]:
    """Whatever is found within belongs to the backward of `op`, which was called at that place."""
    try:
        yield
    except FloatingPointError as error:
        where = f", called at {called_at}" if called_at else ""
        raise FloatingPointError(f"backward of {op}{where} — {error}") from None


def place() -> str:
    """The innermost line that is not minifcn's own, and the layer of the network, if any, that is at work in it."""
    frame: FrameType | None = sys._getframe(1)
    caller: FrameType | None = None
    layers: list[Any] = []  # inside out
    while frame is not None:
        if caller is None and not _is_ours(frame):
            caller = frame
        owner = frame.f_locals.get("self") if frame.f_code.co_name == "forward" else None
        if owner is not None and hasattr(owner, "named_modules"):
            layers.append(owner)
        frame = frame.f_back
    if caller is None:
        return "a line of minifcn"
    import linecache  # here, as they would slow down `import minifcn`
    import textwrap

    code = caller.f_code
    line = textwrap.shorten(linecache.getline(code.co_filename, caller.f_lineno), 100, placeholder=" …")
    said = f"{code.co_filename}:{caller.f_lineno} in {code.co_name}" + (f": `{line}`" if line else "")
    if layers:
        innermost, outermost = layers[0], layers[-1]
        path = next((name for name, m in outermost.named_modules() if m is innermost), "")
        said += f", layer {path} ({type(innermost).__name__})" if path else f", in {type(innermost).__name__}"
    return said


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

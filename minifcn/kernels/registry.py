"""Which function computes an operation: chosen by the type of the arrays and, within that, by algorithm.

    @kernel("conv2d", backend="numpy", algorithm="gemm")
    def conv2d_gemm(x, w, geom): ...

`run` takes the first algorithm that supports the geometry and whose `auto` holds, which says from which sizes and for
which dtypes it is the fastest; those without `auto` come last. `using(conv2d="reference")` asks for one by name,
strictly: a geometry that it does not support raises instead of falling back.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from minifcn import debugging
from minifcn.array import Array, backend_of

Function = TypeVar("Function", bound=Callable[..., Any])
REFERENCE = "reference"


class Unsupported(ValueError):
    """An algorithm that was asked for by name does not support the geometry."""


@dataclass(frozen=True)
class Kernel:
    """One registered function: arrays in, arrays out."""

    op: str
    backend: str
    algorithm: str
    function: Callable[..., Any]
    supports: Callable[..., bool] | None  # of the operation's keyword arguments; None: always
    limits: str  # what `supports` asks for, in words
    auto: Callable[..., bool] | None  # of the dtype and the keyword arguments: whether auto takes it; None: always
    best: str  # what `auto` asks for, in words

    def refuses(self, params: dict[str, Any]) -> bool:
        return self.supports is not None and not self.supports(**params)

    def taken(self, dtype: Any, params: dict[str, Any]) -> bool:
        """Whether auto takes it, if nothing before it was taken."""
        if self.algorithm == REFERENCE or self.refuses(params):
            return False
        return self.auto is None or self.auto(dtype, **params)


_kernels: dict[tuple[str, str], dict[str, Kernel]] = {}
_chosen: ContextVar[dict[str, str]] = ContextVar("minifcn_algorithms", default={})  # noqa: B039 (never mutated)


def kernel(
    op: str,
    *,
    backend: str,
    algorithm: str,
    supports: Callable[..., bool] | None = None,
    limits: str = "",
    auto: Callable[..., bool] | None = None,
    best: str = "",
) -> Callable[[Function], Function]:
    """Register the decorated function as an algorithm for `op` on `backend`."""

    def register(function: Function) -> Function:
        known = _kernels.setdefault((op, backend), {})
        known[algorithm] = Kernel(op, backend, algorithm, function, supports, limits, auto, best)
        _kernels[op, backend] = dict(sorted(known.items(), key=lambda item: item[1].auto is None))  # a stable order
        return function

    return register


def run(op: str, *arrays: Any, **params: Any) -> Any:
    """Compute `op` on the arrays (None stands for an optional argument that was not given)."""
    if debugging.is_watched():
        debugging.show_kernel(op, arrays, params)
    return chosen(op, *arrays, **params).function(*arrays, **params)


def chosen(op: str, *arrays: Any, **params: Any) -> Kernel:
    """The kernel that `run` would take."""
    backend = backend_of(*(a for a in arrays if a is not None), op=op)
    return _choose(op, backend, arrays[0].dtype, params)


@functools.cache
def _load(backend: str) -> None:
    """Register the kernels of a GPU: only for those who have arrays there, as `import minifcn` has enough to do."""
    if backend == "cupy":
        importlib.import_module("minifcn.kernels.cuda")


def _choose(op: str, backend: str, dtype: Any, params: dict[str, Any]) -> Kernel:
    _load(backend)
    candidates = _kernels.get((op, backend), {})
    wanted = _chosen.get().get(op)
    if wanted is not None:
        if wanted not in candidates:
            raise ValueError(f"{op}: no algorithm {wanted!r} for {backend}; there are {sorted(candidates)}")
        if candidates[wanted].refuses(params):
            raise Unsupported(
                f"{op}: algorithm {wanted!r} does not support {params}; it needs {candidates[wanted].limits}"
            )
        return candidates[wanted]
    for candidate in candidates.values():
        if candidate.taken(dtype, params):
            return candidate
    raise NotImplementedError(f"{op}: no kernel for {backend} arrays supports {params}")


@contextmanager
def using(**algorithms: str) -> Iterator[None]:
    """Within the block, compute each named operation by the named algorithm, e.g. using(conv2d="reference").

    Raises ValueError for an operation that does not exist; an algorithm that does not exist or does not support the
    geometry raises where it is used.
    """
    known = {op for op, _ in _kernels}
    for op in algorithms:
        if op not in known:
            raise ValueError(f"using: no operation {op!r}; there are {sorted(known)}")
    token = _chosen.set({**_chosen.get(), **algorithms})
    try:
        yield
    finally:
        _chosen.reset(token)


def algorithms(op: str | None = None, backend: str = "numpy") -> list[Kernel]:
    """The registered kernels of one operation, or of all, on a backend ("numpy" or "cupy"), in the order in which auto
    tries them."""
    _load(backend)
    return [k for (name, held), by in _kernels.items() if held == backend and op in (None, name) for k in by.values()]


def explain(op: str, *arrays: Array, **params: Any) -> str:
    """A table of the algorithms for this call: name, whether it is the one chosen, and if not, why."""
    if op not in {name for name, _ in _kernels}:
        raise ValueError(f"explain: no operation {op!r}; there are {sorted({name for name, _ in _kernels})}")
    rows = [("algorithm", "chosen", "why")]
    rows += [(k.algorithm, "yes" if taken else "no", why) for k, taken, why in reasons(op, *arrays, **params)]
    width = max(len(r[0]) for r in rows)
    return "\n".join(f"{a:<{width}}  {b:<6}  {c}" for a, b, c in rows)


def reasons(op: str, *arrays: Any, **params: Any) -> list[tuple[Kernel, bool, str]]:
    """(kernel, whether `run` takes it, why or why not), in the order in which auto tries them; arguments as for run."""
    winner = chosen(op, *arrays, **params)
    found = []
    for k in algorithms(op, winner.backend):
        if k is winner:
            why = "asked for" if op in _chosen.get() else "the first that auto takes"
        elif k.refuses(params):
            why = f"needs {k.limits}"
        elif k.algorithm == REFERENCE:
            why = "slow by design: the definition"
        elif not k.taken(arrays[0].dtype, params):
            why = f"auto takes it for {k.best}"
        elif op in _chosen.get():
            why = f"{winner.algorithm} was asked for"
        else:
            why = "tried later"
        found.append((k, k is winner, why))
    return found

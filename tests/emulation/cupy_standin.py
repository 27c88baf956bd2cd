"""A stand-in for CuPy on NumPy's memory, with kernels run by cuda_on_cpu.h: a machine without a GPU tests the backend.

    with standing_in():
        import cupy  # this

It is strict where CuPy is, and where a GPU would go wrong in silence:

  * a name is there only if real CuPy has it, and a function or method takes only the arguments that CuPy's takes (where
    real CuPy is installed; it can be imported without a GPU);
  * NumPy arrays mixed with these are refused, and so are conversions that nobody asked for, such as np.asarray(x);
  * reductions give arrays without axes, not scalars; results are C-contiguous, however the operands lie; integer arrays
    as indices wrap around instead of raising;
  * new memory holds NaNs, and a kernel that writes beyond an array is told so;
  * arguments of kernels are checked by count, size and type; a strided array is no argument, as a kernel sees none.

What is not modelled: asynchrony and streams' order, several devices, graphs, textures, ElementwiseKernel and the like,
random numbers, and speed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, Self

import numpy as np
from emulation import compiler, cublas_standin, device_memory
from emulation.compiler import CompileError, LaunchError, reason_unavailable
from emulation.device_memory import Allocation, OutOfMemoryError

__all__ = ["ndarray", "reason_unavailable", "standing_in"]

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cupy as REAL
        import cupy_backends  # noqa: F401 (imported before anything stands in its place)
except Exception:  # not installed, or broken: then names and arguments are not checked
    REAL = None

NUMBERS = (bool, int, float, complex, np.generic)


class CUDARuntimeError(RuntimeError):
    """CuPy's, of the CUDA runtime."""


class CUDADriverError(RuntimeError):
    """CuPy's, of the CUDA driver."""


CUDARuntimeError.__module__ = "cupy_backends.cuda.api.runtime"
CUDADriverError.__module__ = "cupy_backends.cuda.api.driver"


# ------------------------------------------------------------------------------------------- what real CuPy would take


class _Parameters(NamedTuple):
    """What can be given to a function."""

    names: frozenset[str]
    most: int | None  # without names; None: any number

    def check(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for name in kwargs:
            if name not in self.names:
                raise TypeError(f"{function}() got an unexpected keyword argument {name!r}: CuPy's has none")
        if self.most is not None and len(args) > self.most:
            raise TypeError(
                f"{function}() takes {self.most} arguments and {len(args)} were given: CuPy's takes no more"
            )


ANYTHING = None  # where nothing is known
UFUNC_OPTIONS = frozenset({"out", "dtype", "casting", "where"})


def _parameters(function: Any, bound: bool) -> _Parameters | None:
    """What real CuPy's function takes: by its signature or, as its compiled methods have none, by the first line of
    their documentation."""
    if type(function).__name__ == "ufunc":
        return _Parameters(UFUNC_OPTIONS, function.nin + function.nout)
    try:
        kinds = inspect.signature(function).parameters.values()
        any_name = any(p.kind is p.VAR_KEYWORD for p in kinds)
        any_number = any(p.kind is p.VAR_POSITIONAL for p in kinds)
        named = [p.name for p in kinds if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        positional = [p.name for p in kinds if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        text = re.match(r"[\w.]*\((.*?)\)(?: ->|\n|$)", function.__doc__ or "")
        if not text:
            return ANYTHING
        every = [part.partition("=")[0].split()[-1] for part in text[1].split(",") if part.strip()]
        any_name, any_number = any(name.startswith("**") for name in every), any(n.startswith("*") for n in every)
        named = [name for name in every if not name.startswith("*")]
        before = next((k for k, name in enumerate(every) if name.startswith("*")), len(every))
        positional = every[:before]
    if any_name:
        return ANYTHING
    return _Parameters(frozenset(named), None if any_number else len(positional) - bound)


@functools.cache
def _function_parameters(name: str) -> _Parameters | None:
    return ANYTHING if REAL is None else _parameters(getattr(REAL, name), bound=False)


@functools.cache
def _methods() -> frozenset[str]:
    """What arrays have."""
    return frozenset(dir(np.ndarray if REAL is None else REAL.ndarray))


@functools.cache
def _method_parameters(name: str) -> _Parameters | None:
    return ANYTHING if REAL is None else _parameters(getattr(REAL.ndarray, name), bound=True)


def _check(parameters: _Parameters | None, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if parameters is not None:
        parameters.check(name, args, kwargs)


# ------------------------------------------------------------------------------------------------------------- arrays


def _host(value: Any) -> Any:
    """The NumPy array behind one of ours, also within lists and tuples; other values as they are. Raises TypeError, as
    CuPy does, for NumPy's own arrays."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if type(value) in (list, tuple):
        return type(value)(_host(v) for v in value)
    return value


def _ours(value: Any) -> Any:
    """What NumPy returned as the stand-in returns it: a view of one of our arrays as a view, other arrays and scalars
    as new arrays."""
    if isinstance(value, np.ndarray):
        memory = device_memory.allocation_of(value)
        return _view(value, memory) if memory is not None else _copied(value)
    if isinstance(value, np.generic):
        return _copied(np.asarray(value))
    if type(value) in (list, tuple):
        return type(value)(_ours(v) for v in value)
    return value


def _view(host: np.ndarray, memory: Allocation) -> ndarray:
    array = object.__new__(ndarray)
    array._host, array._memory, array.base = host, memory, memory.root()
    return array


def _new(shape: Any, dtype: Any, order: str = "C") -> ndarray:
    """Memory that nobody has written to."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {dtype}")
    shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    if min(shape, default=0) < 0:
        raise ValueError("Negative dimensions are not allowed")
    memory = Allocation(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    array = object.__new__(ndarray)
    array._host, array._memory, array.base = memory.memory.view(dtype).reshape(shape, order=order), memory, None
    memory.root = weakref.ref(array)
    return array


def _copied(host: np.ndarray, dtype: Any = None, order: str = "C") -> ndarray:
    """A new array with the values of NumPy's."""
    array = _new(host.shape, host.dtype if dtype is None else dtype, order)
    with np.errstate(all="ignore"):
        array._host[...] = host
    return array


def _order_like(host: np.ndarray, order: str) -> str:
    """C or F for an order of K or A."""
    keeps_f = host.flags.f_contiguous and not host.flags.c_contiguous
    return {"K": "F" if keeps_f else "C", "A": "F" if keeps_f else "C"}.get(order, order)


def _quiet(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """NumPy's function on our arrays. It warns of nothing: a GPU does not."""
    out = kwargs.get("out")
    given = {name: _host(value) for name, value in kwargs.items()}
    with np.errstate(all="ignore"):
        result = function(*_host(tuple(args)), **given)
    return _ours(result) if out is None else out


class _Flags:
    """CuPy's flags: of NumPy's there are these."""

    def __init__(self, array: ndarray) -> None:
        flags = array._host.flags
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, array.base is None
        self.forc, self.fnc = flags.forc, flags.fnc


class _MemoryPointer:
    """Where an array begins."""

    def __init__(self, array: ndarray) -> None:
        self.ptr, self.mem, self.device_id = array._host.ctypes.data, array._memory, 0
        self.device = Device(0)


def _unary(name: str) -> Callable[[ndarray], Any]:
    return lambda self: _quiet(getattr(np, name), (self,), {})


def _binary(name: str, turned: bool = False) -> Callable[[ndarray, Any], Any]:
    function = getattr(np, name)

    def method(self: ndarray, other: Any) -> Any:
        if not isinstance(other, (ndarray, *NUMBERS)):
            if isinstance(other, np.ndarray):
                raise TypeError(f"Unsupported type {type(other)}")
            return NotImplemented
        return _quiet(function, (other, self) if turned else (self, other), {})

    return method


def _in_place(name: str) -> Callable[[ndarray, Any], ndarray]:
    function = getattr(np, name)

    def method(self: ndarray, other: Any) -> ndarray:
        if not isinstance(other, (ndarray, *NUMBERS)):
            raise TypeError(f"Unsupported type {type(other)}")
        _quiet(function, (self, other), {"out": self})
        return self

    return method


OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift", "matmul": "matmul", "divmod": "divmod",
}  # fmt: skip
COMPARISONS = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"
}  # fmt: skip
UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


class ndarray:
    """An array on the device that is not there. Other methods than these are NumPy's, if CuPy has them."""

    __slots__ = ("__weakref__", "_host", "_memory", "base")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    _host: np.ndarray
    _memory: Allocation
    base: ndarray | None  # whose memory a view shows

    def __new__(cls, shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
        return _new(shape, dtype, order)

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(_Flags)
    data = property(_MemoryPointer)
    device = property(lambda self: Device(0))
    T = property(lambda self: _ours(self._host.T))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = self._host.__array_interface__
        strides = None if self._host.flags.c_contiguous else self._host.strides
        return {
            "shape": self.shape, "typestr": interface["typestr"], "descr": interface["descr"], "stream": 1,
            "version": 3, "strides": strides, "data": (self._host.ctypes.data, False),
        }  # fmt: skip

    # to and from the host

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        """A NumPy array with the values."""
        if out is None:
            return self._host.copy(order=_order_like(self._host, order))
        if not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if out.dtype != self.dtype:
            raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype} array")
        if out.shape != self.shape:
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        out[...] = self._host
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Take the values of a NumPy array."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not self._host.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        self._host[...] = arr

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self._host.item()

    def tolist(self) -> Any:
        """The values as Python numbers in lists."""
        return self._host.tolist()

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        return self._host.__dlpack__(max_version=max_version, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)  # kDLCUDA

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __repr__(self) -> str:
        return repr(self._host)

    def __str__(self) -> str:
        return str(self._host)

    def __format__(self, spec: str) -> str:
        return format(self._host, spec)

    # elements

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(len(self)))

    def __getitem__(self, at: Any) -> ndarray:
        parts, advanced = _index(self._host, at)
        if not advanced and Ellipsis not in parts:
            parts = (*parts, Ellipsis)  # so that a single element is a view too
        return _ours(self._host[parts])  # type: ignore[no-any-return]

    def __setitem__(self, at: Any, value: Any) -> None:
        parts, advanced = _index(self._host, at)
        if isinstance(value, ndarray):
            value = value._host
        elif isinstance(value, np.ndarray) and value.ndim and not advanced:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        elif not isinstance(value, (np.ndarray, *NUMBERS)) and not advanced:
            raise TypeError(f"Unsupported type {type(value)}")
        with np.errstate(all="ignore"):
            self._host[parts] = value

    def fill(self, value: Any) -> None:
        """Set all elements to one value."""
        self[...] = value

    # copies and views

    def copy(self, order: str = "C") -> ndarray:
        """A new array with the values."""
        return _copied(self._host, order=_order_like(self._host, order))

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        """The values in another type; a new array unless copy=False and it is this one's."""
        if casting is not None:
            raise TypeError("casting is not supported yet")
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        return _copied(self._host, dtype, _order_like(self._host, order))

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:
        """The same memory."""
        return _view(self._host if dtype is None else self._host.view(dtype), self._memory)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name) or name not in _methods():
            raise AttributeError(f"'ndarray' object has no attribute {name!r}")
        value = getattr(self._host, name)
        if not callable(value):
            return _ours(value)

        def method(*args: Any, **kwargs: Any) -> Any:
            _check(_method_parameters(name), name, args, kwargs)
            return _quiet(value, args, kwargs)

        return method

    # NumPy's functions on these arrays are the stand-in's

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        ours = getattr(CUPY, ufunc.__name__, None)
        if ours is None:
            return NotImplemented
        return (ours if method == "__call__" else getattr(ours, method))(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        ours = getattr(CUPY, function.__name__, None) if function.__module__ == "numpy" else None
        return NotImplemented if ours is None else ours(*args, **kwargs)


for _name, _function in OPERATORS.items():
    setattr(ndarray, f"__{_name}__", _binary(_function))
    setattr(ndarray, f"__r{_name}__", _binary(_function, turned=True))
    if _name not in ("divmod", "matmul"):
        setattr(ndarray, f"__i{_name}__", _in_place(_function))
for _name, _function in COMPARISONS.items():
    setattr(ndarray, f"__{_name}__", _binary(_function))
for _name, _function in UNARY.items():
    setattr(ndarray, f"__{_name}__", _unary(_function))
ndarray.__module__ = "cupy"


def _index(host: np.ndarray, at: Any) -> tuple[tuple[Any, ...], bool]:
    """(the parts of an index as NumPy takes them, whether arrays are among them)."""
    given = at if isinstance(at, tuple) else (at,)
    if not any(isinstance(part, ndarray | np.ndarray | list | tuple | bool | np.bool_) for part in given):
        return given, False
    parts = [_index_array(part) for part in given]
    consumed = [part.ndim if _is_array(part, "b") else int(part is not None and part is not Ellipsis) for part in parts]
    hidden = host.ndim - sum(consumed)  # axes for which "…" stands
    axis = 0
    for k, part in enumerate(parts):
        if _is_array(part, "iu") and axis < host.ndim and host.shape[axis]:
            parts[k] = part % host.shape[axis]
        axis += hidden if part is Ellipsis else consumed[k]
    return tuple(parts), True


def _is_array(part: Any, kinds: str) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind in kinds


def _index_array(part: Any) -> Any:
    """A part of an index: arrays, of NumPy's too, and lists as NumPy arrays."""
    if isinstance(part, ndarray):
        part = part._host
    elif isinstance(part, list | tuple | bool | np.bool_):
        part = np.asarray(part, None if np.size(part) else np.int32)
    if isinstance(part, np.ndarray) and part.dtype.kind not in "iub":
        raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {part.dtype.type})")
    return part


# ---------------------------------------------------------------------------------------------------------- functions


def array(
    obj: Any, dtype: Any = None, copy: bool | None = True, order: str = "K", subok: bool = False, ndmin: int = 0,
    *, blocking: bool = False,
) -> ndarray:  # fmt: skip
    """A new array with the values of any other, or of lists and numbers."""
    if isinstance(obj, ndarray):
        same = dtype is None or np.dtype(dtype) == obj.dtype
        if (
            not copy
            and same
            and (order in ("K", None) or obj._host.flags[f"{_order_like(obj._host, order)}_CONTIGUOUS"])
        ):
            return obj
        host = obj._host
    else:
        host = np.asarray(_from_lists(obj), dtype)
    host = host.reshape((1,) * (ndmin - host.ndim) + host.shape)
    return _copied(host, dtype, _order_like(host, order or "K"))


def _from_lists(obj: Any) -> Any:
    """Lists of our arrays as lists of NumPy's."""
    if type(obj) in (list, tuple):
        return type(obj)(_from_lists(o) for o in obj)
    return obj._host if isinstance(obj, ndarray) else obj


def asarray(
    a: Any, dtype: Any = None, order: str | None = None, *, copy: Any = None, blocking: bool = False
) -> ndarray:
    """The array itself where it is one of ours and nothing has to change."""
    return array(a, dtype, bool(copy), order or "K")


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    """As asarray, C-contiguous and with one axis at least."""
    return array(a, dtype, False, "C", ndmin=1)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    """The values as a NumPy array."""
    return a.get(order=order, out=out) if isinstance(a, ndarray) else np.asarray(a)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """An array that holds NaNs, −1 or True."""
    return _new(shape, dtype, order)


def empty_like(a: ndarray, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    """An array like another one, with values as empty's."""
    return _new(a.shape if shape is None else shape, dtype or a.dtype, _order_like(a._host, order))


def _filled_like(value: Any) -> Callable[..., ndarray]:
    def like(a: ndarray, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
        result = empty_like(a, dtype, order, subok, shape)
        result.fill(value)
        return result

    return like


class _Shared(NamedTuple):
    """A DLPack capsule as NumPy takes it: from an object that says that it lies on the CPU."""

    capsule: Any

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def from_dlpack(x: Any) -> ndarray:
    """An array on the memory of another one of ours, or of something that holds one of ours."""
    if x.__dlpack_device__()[0] != 2:
        raise RuntimeError("cupy.from_dlpack: not on a GPU")
    host = np.from_dlpack(_Shared(x.__dlpack__()))
    memory = device_memory.allocation_at(host.ctypes.data)
    if memory is None:
        raise RuntimeError("cupy.from_dlpack: the memory is not this device's")
    start = host.ctypes.data - memory.address
    shown = memory.memory[start:].view(np.uint8)
    return _view(np.ndarray(host.shape, host.dtype, shown, 0, host.strides), memory)


def get_array_module(*args: Any) -> ModuleType:
    """`cupy` where one of the arrays is ours, else `numpy`."""
    return CUPY if any(isinstance(a, ndarray) for a in args) else np


def is_available() -> bool:
    """Whether there is a GPU. There seems to be one."""
    return True


class _Ufunc:
    """A universal function: NumPy's, on our arrays."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._numpy: np.ufunc = getattr(np, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _check(_function_parameters(self.__name__), self.__name__, args, kwargs)
        if len(args) > self._numpy.nin:  # results given without a name
            args, kwargs["out"] = args[: self._numpy.nin], args[self._numpy.nin]
        return _quiet(self._numpy, args, kwargs)

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        """a[indices] op= b, for every time that an index occurs."""
        if a.dtype.kind == "b" or a.dtype.itemsize < 4:
            raise TypeError(f"cupy.{self.__name__}.at does not support {a.dtype}")
        parts, _ = _index(a._host, indices)
        self._numpy.at(a._host, parts, *(() if b is None else (_host(b),)))

    def __getattr__(self, name: str) -> Any:
        if name not in ("reduce", "accumulate", "outer", "reduceat"):
            raise AttributeError(f"cupy.{self.__name__} has no {name!r} here")
        return lambda *args, **kwargs: _quiet(getattr(self._numpy, name), args, kwargs)


@functools.cache
def _forwarded(name: str) -> Any:
    """The name of CuPy that NumPy stands for."""
    if name.startswith("_") or (REAL is not None and not hasattr(REAL, name)):
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    value = getattr(np, name, None)
    if value is None and name != "newaxis":
        raise AttributeError(f"the stand-in for CuPy has no {name!r}, and NumPy neither")
    if isinstance(value, ModuleType):
        raise AttributeError(f"the stand-in for CuPy has no {name!r}")
    if isinstance(value, np.ufunc):
        return _Ufunc(name)
    if isinstance(value, type) or not callable(value):
        return value

    def function(*args: Any, **kwargs: Any) -> Any:
        _check(_function_parameters(name), name, args, kwargs)
        return _quiet(value, args, kwargs)

    function.__name__ = name
    return function


# ------------------------------------------------------------------------------------------------------------ kernels


class RawKernel:
    """A kernel, compiled when it is first used."""

    def __init__(
        self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", **modes: bool
    ) -> None:
        _check_source(options, backend, modes)
        self.code, self.options, self.backend = code, options, backend
        self.name = self.__name__ = name
        self._most_dynamic = compiler.DYNAMIC_SHARED

    @property
    def kernel(self) -> compiler.Kernel:
        kernels = compiler.compile_module(self.code, self.options)
        if self.name not in kernels:
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {self.name} among {sorted(kernels)}")
        return kernels[self.name]

    def compile(self, log_stream: Any = None) -> None:
        """Now, and not at the first launch."""
        _ = self.kernel

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """How much dynamic shared memory a launch may ask for; 48 KiB unless set."""
        return self._most_dynamic

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if not 0 <= size <= compiler.MOST_SHARED:
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {size} bytes; {compiler.MOST_SHARED} are possible")
        self._most_dynamic = size

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0, **_: Any
    ) -> None:
        """Launch, and wait for the end."""
        if type(grid) is not tuple or type(block) is not tuple:
            raise TypeError(f"{self.name}: grid and block are {grid!r} and {block!r}; tuples are needed")
        if shared_mem > self._most_dynamic:
            raise CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: {self.name} with {shared_mem} bytes of dynamic shared memory; "
                f"its max_dynamic_shared_size_bytes is {self._most_dynamic}"
            )
        self.kernel(grid, block, [self._argument(k, a) for k, a in enumerate(args)], shared_mem)
        for k, a in enumerate(args):
            for memory in _memory_of(a):
                fault = memory.fault()
                if fault:
                    raise LaunchError(f"{self.name}: argument {k}: {fault}")

    def _argument(self, k: int, value: Any) -> Any:
        if not isinstance(value, ndarray):
            return value
        if not value._host.flags.c_contiguous:
            raise TypeError(f"{self.name}: argument {k} has strides {value.strides}, of which a kernel knows nothing")
        return compiler.Pointer(value._host.ctypes.data, value.dtype)


def _memory_of(argument: Any) -> Iterator[Allocation]:
    """The allocations that an argument gives to a kernel: an array's, or those of the addresses in a struct."""
    if isinstance(argument, ndarray):
        yield argument._memory
    elif isinstance(argument, np.ndarray) and argument.dtype.names:
        for name in argument.dtype.names:
            if argument.dtype[name] == np.uintp:
                found = device_memory.allocation_at(int(argument[name].item()))
                if found is not None:
                    yield found


def _check_source(options: Any, backend: str, modes: dict[str, bool]) -> None:
    if type(options) is not tuple:
        raise TypeError(f"Argument 'options' has incorrect type (expected tuple, got {type(options).__name__})")
    unknown = [o for o in options if not (isinstance(o, str) and o.startswith("-D"))]
    if unknown or backend != "nvrtc" or any(modes.values()):
        raise NotImplementedError(f"the stand-in compiles with -D options only, not {unknown}, {backend}, {modes}")


class RawModule:
    """Source with several kernels."""

    def __init__(
        self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = (),
        backend: str = "nvrtc", name_expressions: Any = None, **modes: bool,
    ) -> None:  # fmt: skip
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if code is None or name_expressions is not None:
            raise NotImplementedError('the stand-in compiles source with extern "C" kernels only')
        _check_source(options, backend, modes)
        self.code, self.options, self.backend = code, options, backend

    def compile(self, log_stream: Any = None) -> None:
        """Now, and not when the first kernel is asked for."""
        compiler.compile_module(self.code, self.options)

    def get_function(self, name: str) -> RawKernel:
        """The kernel of this name."""
        function = RawKernel(self.code, name, self.options, self.backend)
        function.compile()
        return function


# ------------------------------------------------------------------------------------------------------------- device

PROCESSORS, CAPABILITY, WARP, THREADS = 132, (9, 0), 32, 1024
PROPERTIES = {
    "name": b"CUDA on CPU",
    "major": CAPABILITY[0],
    "minor": CAPABILITY[1],
    "multiProcessorCount": PROCESSORS,
    "warpSize": WARP,
    "maxThreadsPerBlock": THREADS,
    "totalGlobalMem": device_memory.TOTAL,
    "sharedMemPerBlock": compiler.DYNAMIC_SHARED,
    "sharedMemPerBlockOptin": compiler.MOST_SHARED,
    "l2CacheSize": 50 << 20,
}
ATTRIBUTES = {
    "ComputeCapabilityMajor": CAPABILITY[0],
    "ComputeCapabilityMinor": CAPABILITY[1],
    "MultiProcessorCount": PROCESSORS,
    "WarpSize": WARP,
    "MaxThreadsPerBlock": THREADS,
    "MaxSharedMemoryPerBlock": compiler.DYNAMIC_SHARED,
    "MaxSharedMemoryPerBlockOptin": compiler.MOST_SHARED,
}


def _free_and_total() -> tuple[int, int]:
    pool = device_memory.pool
    return device_memory.TOTAL - pool.total_bytes(), device_memory.TOTAL


class Device:
    """A GPU by its number: there is number 0."""

    compute_capability = "90"
    attributes = ATTRIBUTES
    mem_info = property(lambda self: _free_and_total())

    def __init__(self, device: Any = None) -> None:
        self.id = int(device or 0)

    def use(self) -> Self:
        """Make it the current one. Raises CUDARuntimeError if it does not exist."""
        if self.id != 0:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        return self

    def synchronize(self) -> None:
        """Wait for all that it does: nothing, as everything is done when it is asked for."""

    def __enter__(self) -> Self:
        return self.use()

    def __exit__(self, *_: object) -> None:
        pass

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id


class Event:
    """A moment in a stream."""

    done = True

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.seconds = time.perf_counter()

    def record(self, stream: Any = None) -> None:
        """The moment is now."""
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        """Wait for it: it is over."""


class Stream:
    """An order of things to do, all of which are done when they are asked for."""

    null: Stream
    ptr = 0
    done = True
    _current: list[Stream] = []  # noqa: RUF012 (the one in use is last)

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, *, priority: int = 0
    ) -> None:
        pass

    def __enter__(self) -> Self:
        Stream._current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        Stream._current.pop()

    def use(self) -> Self:
        """Make it the current one."""
        Stream._current[-1] = self
        return self

    def synchronize(self) -> None:
        """Wait for all that it does."""

    def record(self, event: Event | None = None) -> Event:
        """An event at this moment."""
        event = event or Event()
        event.record()
        return event

    def wait_event(self, event: Event) -> None:
        """Do what follows after the event."""


Stream.null = Stream()
Stream._current.append(Stream.null)


# ------------------------------------------------------------------------------------------------------------ modules


class _Cupy(ModuleType):
    """The module `cupy`."""

    def __getattr__(self, name: str) -> Any:
        return _forwarded(name)


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module


RUNTIME = _module(
    "cupy.cuda.runtime",
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=lambda: 1,
    getDevice=lambda: 0,
    setDevice=lambda n: Device(n).use(),
    getDeviceProperties=lambda n: dict(PROPERTIES),
    deviceSynchronize=lambda: None,
    memGetInfo=_free_and_total,
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 13000,
)
MEMORY = _module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError, MemoryPool=device_memory.Pool)
DEVICE_MODULE = _module("cupy.cuda.device", Device=Device, get_cublas_handle=lambda: cublas_standin.HANDLE)
DRIVER = _module("cupy.cuda.driver", CUDADriverError=CUDADriverError)
COMPILER = _module("cupy.cuda.compiler", CompileException=CompileError)
STREAM = _module("cupy.cuda.stream", Stream=Stream, Event=Event, get_current_stream=lambda: Stream._current[-1])
CUDA = _module(
    "cupy.cuda",
    runtime=RUNTIME,
    memory=MEMORY,
    device=DEVICE_MODULE,
    driver=DRIVER,
    compiler=COMPILER,
    stream=STREAM,
    Device=Device,
    Stream=Stream,
    Event=Event,
    MemoryPool=device_memory.Pool,
    is_available=is_available,
    get_device_id=lambda: 0,
    get_cublas_handle=lambda: cublas_standin.HANDLE,
    get_current_stream=lambda device_id=0: Stream._current[-1],
    get_elapsed_time=lambda start, end: (end.seconds - start.seconds) * 1e3,
)
CUPY = _Cupy("cupy")
CUPY.__dict__.update(
    __version__="14.2.0" if REAL is None else REAL.__version__,
    __path__=[],  # a package, whose parts are in sys.modules or nowhere
    cuda=CUDA,
    ndarray=ndarray,
    array=array,
    asarray=asarray,
    ascontiguousarray=ascontiguousarray,
    asnumpy=asnumpy,
    empty=empty,
    empty_like=empty_like,
    zeros_like=_filled_like(0),
    ones_like=_filled_like(1),
    from_dlpack=from_dlpack,
    get_array_module=get_array_module,
    is_available=is_available,
    RawKernel=RawKernel,
    RawModule=RawModule,
    get_default_memory_pool=lambda: device_memory.pool,
    get_default_pinned_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None, n_free_blocks=lambda: 0),
)
CUBLAS = cublas_standin.module()
LIBS = _module("cupy_backends.cuda.libs", cublas=CUBLAS)
BACKENDS_CUDA = _module("cupy_backends.cuda", libs=LIBS)
BACKENDS = _module("cupy_backends", cuda=BACKENDS_CUDA)
MODULES = {
    module.__name__: module
    for module in (
        CUPY, CUDA, RUNTIME, MEMORY, DEVICE_MODULE, DRIVER, COMPILER, STREAM, BACKENDS, BACKENDS_CUDA, LIBS, CUBLAS,
    )
}  # fmt: skip


@contextlib.contextmanager
def standing_in() -> Iterator[ModuleType]:
    """Within the block `import cupy` gives the stand-in, whose memory has no limit; afterwards, what it gave before.

    Raises RuntimeError at its end if a kernel wrote where no array is.
    """
    from minifcn.array import gpu_status

    before = {name: sys.modules[name] for name in MODULES if name in sys.modules}
    sys.modules.update(MODULES)
    gpu_status.cache_clear()
    device_memory.pool.reset()
    device_memory.faults.clear()
    try:
        yield CUPY
        device_memory.check()
    finally:
        gpu_status.cache_clear()
        for name in MODULES:
            del sys.modules[name]
        sys.modules.update(before)

"""Which library holds an array, and where: the one place that tries `import cupy`.

Everything above dispatches on the type of the arrays that it is given, never on a global or an environment variable.
A function that must work on both libraries asks `module_of(x)` for `numpy` or `cupy` and calls their common names.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from minifcn.memory import owns

Array = NDArray[Any]  # a NumPy array, or a CuPy array that behaves as one
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_NUMPY = (np.ndarray, np.generic)  # a tuple: a union of types would be built anew at every look
LEAST_CAPABILITY = (8, 0)  # asynchronous copies and TF32 came with Ampere
DLPACK_CUDA = 2  # DLDeviceType kDLCUDA


def backend_of(*arrays: object, op: str = "minifcn") -> str:
    """ "numpy" or "cupy": the library that holds all of the arrays.

    Raises TypeError, naming both and the way out, where the arrays are mixed or belong to neither.
    """
    for a in arrays:
        if type(a) is not np.ndarray:
            break
    else:  # the usual case, quickly
        return "numpy"
    found = {_library(a) for a in arrays}
    if found == {"numpy"}:
        return "numpy"
    if found == {"cupy"}:
        return "cupy"
    if found == {"numpy", "cupy"}:
        raise TypeError(
            f'{op}: NumPy and CuPy arrays in one call; move all to one device with .to("cpu") or .to("cuda")'
        )
    raise TypeError(f"{op}: arrays of {sorted(found)}; NumPy or CuPy arrays are needed")


def _library(array: object) -> str:
    if isinstance(array, _NUMPY):
        return "numpy"
    return type(array).__module__.partition(".")[0]


def is_array(value: object) -> TypeGuard[Array]:
    """Whether it is an array or scalar of NumPy, or an array of CuPy."""
    return isinstance(value, _NUMPY) or hasattr(value, "__cuda_array_interface__")


def module_of(array: object) -> ModuleType:
    """The module `numpy` or `cupy` whose functions take this array."""
    return np if isinstance(array, _NUMPY) else sys.modules[_library(array)]


def device_of(array: object) -> str:
    """ "cpu", or "cuda:0" and so on."""
    return "cpu" if _library(array) == "numpy" else f"cuda:{array.device.id}"  # type: ignore[attr-defined]


def freeze(array: Array) -> Array:
    """The array, made read-only where its library can: an operation's result is part of a graph, and writing into it
    would silently change gradients. CuPy has no such flag."""
    if isinstance(array, np.ndarray):
        array.flags.writeable = False
    return array


def own(array: Array, shared: bool) -> Array:
    """A writable array whose memory nobody else has: a copy of one that is shared or a view, else the array itself."""
    if not isinstance(array, np.ndarray):
        return array.copy() if shared or array.base is not None else array
    if shared or not owns(array):
        return array.copy()
    array.flags.writeable = True
    return array


@functools.cache
def gpu_status() -> tuple[bool, str]:
    """(usable, reason) of an NVIDIA GPU through CuPy; never raises. The reason is the GPU's name where it is usable.

    Counting devices is not enough: a missing NVRTC or missing headers show only when a kernel is compiled, so one is.
    """
    install = 'pip install "cupy-cuda13x[ctk]" (or cupy-cuda12x[ctk], for a driver older than 580)'
    try:
        import cupy
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        return False, f"CuPy is not installed; {install}" if missing == "cupy" else f"CuPy lacks {missing}; {install}"
    except Exception as error:  # a broken CuPy may raise anything at import, and a status must not
        return False, f"CuPy cannot be imported ({type(error).__name__}: {error}); {install}"
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        if "InsufficientDriver" not in str(error):
            return False, f"the driver sees no GPU ({error}); check nvidia-smi and CUDA_VISIBLE_DEVICES"
        driver = runtime.driverGetVersion()
        if driver == 0:
            return False, "no NVIDIA driver is installed"
        has, needs = (f"{v // 1000}.{v % 1000 // 10}" for v in (driver, runtime.runtimeGetVersion()))
        return False, f"the driver supports CUDA {has} and CuPy needs {needs}; a newer driver is needed, or {install}"
    if count == 0:
        return False, "the driver sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
    try:
        probe = cupy.RawKernel('extern "C" __global__ void probe(int* x) { *x = 42; }', "probe")
        x = cupy.zeros(1, cupy.int32)
        probe((1,), (1,), (x,))
        works = int(x[0]) == 42
    except Exception as error:
        return False, f"a GPU is there but cannot run kernels ({type(error).__name__}: {error}); {install}"
    if not works:
        return False, "a GPU is there but a kernel gave a wrong result; check the driver"
    properties = runtime.getDeviceProperties(0)
    name, capability = properties["name"].decode(), (properties["major"], properties["minor"])
    if capability < LEAST_CAPABILITY:
        return False, f"the {name} has compute capability {capability[0]}.{capability[1]}; 8.0 or more is needed"
    return True, str(name)


def to_device(array: Array, device: str) -> Array:
    """The array on "cpu" or "cuda" (or "cuda:0"); itself where it is there already.

    One process computes on one GPU, the first that it sees; CUDA_VISIBLE_DEVICES says which those are.

    Raises ValueError for another name, RuntimeError with the reason where no GPU can be used.
    """
    if device not in ("cpu", "cuda", "cuda:0"):
        other = device.startswith("cuda:") and device[5:].isdigit()
        more = f"; to use that GPU, start Python with CUDA_VISIBLE_DEVICES={device[5:]}" if other else ""
        raise ValueError(f'to: device is {device!r}; "cpu" or "cuda" is needed{more}')
    if device == "cpu":
        return array if isinstance(array, _NUMPY) else array.get()
    usable, reason = gpu_status()
    if not usable:
        raise RuntimeError(f"to: no GPU can be used: {reason}")
    import cupy

    moved: Array = cupy.asarray(array)
    return moved


def out_of_memory(op: str, error: MemoryError) -> MemoryError:
    """The error of an operation that found no memory, with what can be done; a GPU's also with what is in use there."""
    if type(error).__module__.partition(".")[0] != "cupy":
        return MemoryError(f"{op}: {error or 'no memory is left'}; a smaller batch, crop or image needs less")
    import cupy

    free, total = cupy.cuda.runtime.memGetInfo()
    return MemoryError(
        f"{op}: the GPU has no memory left ({error}; {(total - free) >> 20:,} of its {total >> 20:,} MiB are in use, "
        f"other programs' included); a smaller batch, crop or image needs less"
    )


def cublas() -> tuple[Any, int]:
    """cuBLAS as CuPy calls it, with arrays as addresses, and this thread's handle of the current device."""
    from cupy.cuda.device import get_cublas_handle
    from cupy_backends.cuda.libs import cublas as library

    return library, get_cublas_handle()


def import_dlpack(x: Any) -> Array:
    """The array on the memory of an object that has `__dlpack__`; no copy."""
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        raise TypeError(f"from_dlpack: a {type(x).__name__} has no __dlpack__; an array of another library is needed")
    try:
        if int(x.__dlpack_device__()[0]) != DLPACK_CUDA:
            return np.from_dlpack(x)
        import cupy

        array: Array = cupy.from_dlpack(x)
        return array
    except Exception as error:  # whatever the other library raises, its words say why
        raise RuntimeError(f"from_dlpack: the {type(x).__name__} cannot be shared: {error}") from error


def export_dlpack(array: Array, options: dict[str, Any]) -> Any:
    """The array as a DLPack capsule. NumPy can say "read-only" only to a consumer that speaks version 1 of the
    protocol; an older one is told how to get a copy of its own."""
    try:
        return array.__dlpack__(**options)
    except BufferError as error:
        raise BufferError(f"__dlpack__: {error}; share a copy, t.numpy().copy()") from None

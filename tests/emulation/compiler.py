"""Compile CUDA C++ with g++ and cuda_on_cpu.h, and launch its kernels on NumPy's memory.

    kernels = compile_module(code, ("-DREAL=float",))
    kernels["relu"]((blocks,), (256,), (pointer(x), pointer(y), np.int32(x.size)))

Environment variables:
    CUDA_ON_CPU_CACHE     folder of compiled modules; by default one in the system's temporary folder
    CUDA_ON_CPU_ORDER     order of threads and blocks: forward (default), reversed, shuffled or shuffled:SEED
    CUDA_ON_CPU_COPIES    when asynchronous copies happen: deferred (default), to the wait, or eager, at once
    CUDA_ON_CPU_SANITIZE  address, thread or undefined: compile with that sanitizer (see sanitizers.py)
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
HEADER = HERE / "cuda_on_cpu.h"
DYNAMIC_SHARED = 48 << 10  # bytes that a kernel may have without asking for more
MOST_SHARED = 227 << 10  # bytes that it may ask for: an H100's
MESSAGE = 1000  # bytes of a failure's text
COMPUTE_CAPABILITY = 900  # what __CUDA_ARCH__ says
ORDERS = {"forward": 0, "reversed": 1, "shuffled": 2}
SANITIZERS = ("address", "thread", "undefined")


class CompileError(Exception):
    """g++ does not accept the code, or it does what the emulator cannot."""


class LaunchError(RuntimeError):
    """A kernel cannot be launched as asked, or did something wrong when it ran."""


def reason_unavailable() -> str | None:
    """Why no kernel can be emulated here; None where one can."""
    if platform.system() != "Linux":
        return f"kernels are emulated on Linux only, and this is {platform.system()}"
    if shutil.which("g++") is None:
        return "kernels are emulated with g++, which is not installed"
    return None


# ------------------------------------------------------------------------------------------------------- compiling


def compile_module(code: str, options: tuple[str, ...] = ()) -> dict[str, Kernel]:
    """The kernels of the code, by name. Of the options, those that define macros count.

    Raises CompileError with g++'s words.
    """
    return _load(code, options, os.environ.get("CUDA_ON_CPU_SANITIZE", ""))


@functools.cache
def _load(code: str, options: tuple[str, ...], sanitizer: str) -> dict[str, Kernel]:
    flags = _flags(sanitizer)
    parts = [code, *options, *flags, HEADER.read_text(), Path(__file__).read_text()]
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    library, names = cache_folder() / f"{name}.so", cache_folder() / f"{name}.kernels"
    if not library.exists() or not names.exists():
        expanded = _preprocessed(code, options)
        kernels = _kernels(expanded)
        names.parent.mkdir(parents=True, exist_ok=True)
        _write(names, "\n".join(kernels).encode())
        module = _in_namespace(_without_shared(expanded))
        source = "\n".join([f'#include "{HEADER}"', module, *kernels.values()])
        with tempfile.TemporaryDirectory(dir=names.parent) as folder:
            built = Path(folder) / "module.so"
            _run([*flags, "-", "-o", str(built)], source)
            built.replace(library)  # at once, as another process may be looking
    loaded = ctypes.PyDLL(str(library))
    return {kernel: Kernel(kernel, loaded, library) for kernel in names.read_text().split()}


def cache_folder() -> Path:
    """Where compiled modules lie."""
    given = os.environ.get("CUDA_ON_CPU_CACHE")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"cuda_on_cpu_{os.getuid()}"


def _write(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)


def _flags(sanitizer: str) -> list[str]:
    if sanitizer and sanitizer not in SANITIZERS:
        raise ValueError(f"CUDA_ON_CPU_SANITIZE is {sanitizer!r}; one of {', '.join(SANITIZERS)} is needed")
    flags = ["-shared", "-fPIC", "-w", "-g1", "-fno-strict-aliasing", "-ffp-contract=off"]
    # nothing of a module is seen by another one: two may have kernels and helpers of the same name
    flags += ["-fvisibility=hidden", "-fno-gnu-unique"]
    # a frame greater than the page below a stack touches that page, too, instead of what lies behind it
    flags += ["-fstack-clash-protection"]
    flags += ["-mavx2", "-mfma"] if {"avx2", "fma"} <= _processor() else []  # else fmaf is a call
    if sanitizer:
        flags += ["-O1", "-fno-omit-frame-pointer", f"-fsanitize={sanitizer}"]
    else:
        flags += ["-O2"]
    return flags


@functools.cache
def _processor() -> set[str]:
    """What the processor can do, in Linux's words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _run(arguments: list[str], source: str) -> str:
    """What g++ prints for C++ source. Raises CompileError with its first words where it fails."""
    command = ["g++", "-x", "c++", "-std=c++17", *arguments]
    unwatched = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # by no sanitizer
    result = subprocess.run(command, input=source, capture_output=True, text=True, env=unwatched)
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        more = [f"… and {len(lines) - 40} lines more"] if len(lines) > 40 else []
        raise CompileError("g++ refuses the module:\n" + "\n".join(lines[:40] + more))
    return result.stdout


def _preprocessed(code: str, options: Sequence[str]) -> str:
    """The code with its own macros expanded and without comments, so that declarations can be recognised. The macros
    that CUDA compilers define are there; those of the emulator's header are not, and expand when all is compiled."""
    defined = ["-DCUDA_ON_CPU=1", f"-D__CUDA_ARCH__={COMPUTE_CAPABILITY}", "-D__CUDACC__=1", "-D__CUDACC_RTC__=1"]
    wanted = [option for option in options if option.startswith("-D")]
    return _run(["-E", *defined, *wanted, "-"], f'#line 1 "kernel.cu"\n{code}')


_KERNEL = re.compile(r'\bextern\s*"C"(?=\s+__global__\b)')
_LAUNCHER = """# 1 "launcher"
extern "C" __attribute__((visibility("default"))) int launch_{name}(::cuda_on_cpu::Launch* launch) {{
    using namespace kernels;
    return ::cuda_on_cpu::launch(&kernels::{name}, int({bound}), launch);
}}"""


def _in_namespace(code: str) -> str:
    """The code where its names meet none of the C library's: a kernel may be called `read`."""
    return "\n".join(["namespace kernels {", '# 1 "kernel.cu"', _KERNEL.sub("", code), "}"])


def _kernels(code: str) -> dict[str, str]:
    """For every `extern "C" __global__ void name(…)`, by name, the C++ that launches it."""
    found = {}
    for match in _KERNEL.finditer(code):
        rest, bound = code[match.end() :].lstrip().removeprefix("__global__"), "0"
        bounds = re.match(r"\s*(?:void\s*)?__launch_bounds__\s*\(", rest)
        if bounds:
            end = _closing(rest, bounds.end() - 1)
            bound = _split(rest[bounds.end() : end], ",")[0]
            rest = rest[end + 1 :]
        name = re.match(r"\s*(?:void\s+)?(\w+)\s*\(", rest)
        if not name:
            raise CompileError(f"the emulator cannot read a kernel's name in `__global__{rest[:60]}`")
        found[name[1]] = _LAUNCHER.format(name=name[1], bound=bound)
    if not found:
        raise CompileError('the module has no kernel: no `extern "C" __global__ void name(…)`')
    return found


_SHARED = re.compile(r"\b(extern\s+)?__shared__\b")
_ALIGNED = re.compile(r"(?:__align__|alignas)\s*\([^()]*\)")


def _without_shared(code: str) -> str:
    """The code with its __shared__ declarations as cuda_on_cpu.h wants them (its section 5); lines stay where they
    are."""
    parts, at = [], 0
    for count, match in enumerate(_SHARED.finditer(code)):
        end = _end_of_declaration(code, match.end())
        declaration = code[match.end() : end]
        parts += [code[at : match.start()], _dynamic(declaration) if match[1] else _static(declaration, count)]
        at = end + 1
    return "".join([*parts, code[at:]])


def _dynamic(declaration: str) -> str:
    kind, name, _ = _declarator(_ALIGNED.sub(" ", declaration))
    return f"{kind}* {name} = reinterpret_cast<{kind}*>(::cuda_on_cpu::dynamic_shared());"


def _static(declaration: str, count: int) -> str:
    first, *others = _split(declaration, ",")
    kind, name, sizes = _declarator(first)
    variables = [(name, sizes), *(_declarator(other)[1:] for other in others)]
    written = []
    for name, sizes in variables:
        holder = f"shared_{count}_{name}"
        written.append(f"struct {holder} {{ {kind} {name}{sizes}; }};")
        written.append(f"auto& {name} = ::cuda_on_cpu::shared_variable<{holder}>().{name};")
    return " ".join(written)


def _declarator(text: str) -> tuple[str, str, str]:
    """(type, name, sizes) of `type name[sizes]`."""
    match = re.fullmatch(r"(.*?)(\w+)\s*((?:\[.*\])?)\s*", text, re.DOTALL)
    if not match:
        raise CompileError(f"the emulator cannot read the declaration `__shared__ {text.strip()};`")
    return match[1], match[2], match[3]


_PAIRS = {"(": ")", "[": "]", "{": "}"}


def _closing(code: str, at: int) -> int:
    """Where the bracket at a position is closed."""
    depth = 0
    for k in range(at, len(code)):
        depth += (code[k] in _PAIRS) - (code[k] in _PAIRS.values())
        if not depth:
            return k
    raise CompileError("a bracket is never closed")


def _end_of_declaration(code: str, at: int) -> int:
    """The position of the semicolon."""
    while code[at] != ";":
        at = _closing(code, at) if code[at] in _PAIRS else at
        at += 1
    return at


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that are in no brackets. Angle brackets count where they can be no operators."""
    parts, depth, angles = [""], 0, 0
    for letter in text:
        depth += (letter in _PAIRS) - (letter in _PAIRS.values())
        angles += ((letter == "<") - (letter == ">")) * (not depth)
        if letter == separator and not depth and not angles:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


# ------------------------------------------------------------------------------------------------------- launching


class Pointer(NamedTuple):
    """The address of an array, and what its elements are."""

    address: int
    dtype: np.dtype[Any]


def pointer(array: np.ndarray) -> Pointer:
    """A NumPy array as an argument. The caller keeps it alive."""
    return Pointer(array.ctypes.data, array.dtype)


class _Launch(ctypes.Structure):
    """cuda_on_cpu.h's Launch."""

    _fields_ = (
        ("values", ctypes.c_char_p),
        ("given", ctypes.c_char_p),
        ("count", ctypes.c_int),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint),
        ("eager_copies", ctypes.c_int),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_ulonglong),
        ("sanitizer_threads", ctypes.c_void_p),
        ("fault", ctypes.c_ulonglong),
        ("refused", ctypes.c_int),
        ("message", ctypes.c_char * MESSAGE),
    )


_GIVEN = struct.Struct("iicch")  # cuda_on_cpu.h's Given
_SANITIZER_THREADS = (ctypes.c_void_p * 2048)()  # two sets of a block's threads, which all modules use
_ALIGNMENT = 16  # bytes: what any argument may need

# Numbers of Python become what CuPy makes of them, which is hardly ever what a kernel takes.
_PYTHON = {bool: np.bool_, int: np.int64, float: np.float64}


class Kernel:
    """A compiled kernel; called as CuPy's RawKernel is."""

    def __init__(self, name: str, library: ctypes.PyDLL, path: Path) -> None:
        self.name = name
        self._launch = library[f"launch_{name}"]
        self._path = path
        self._lock = threading.Lock()

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_mem: int = 0) -> None:
        """Run the kernel on every block of the grid.

        Raises LaunchError, naming the kernel and, where it ran, block, thread and line.
        """
        values, given = _packed(self.name, args)
        how = (*_order(), _eager(), _sizes(grid), _sizes(block), shared_mem, ctypes.addressof(_SANITIZER_THREADS))
        launch = _Launch(values, given, len(args), *how)
        with self._lock:  # the module has one stage on which kernels play
            outcome = self._launch(ctypes.byref(launch))
        if outcome:
            raise LaunchError(f"{self.name}: {self._failure(launch, args)}")

    def _failure(self, launch: _Launch, args: Sequence[Any]) -> str:
        said = launch.message.decode().replace("kernels::", "")  # where the module's names are, to nobody's interest
        if launch.refused >= 0:
            said = f"argument {launch.refused} is {_described(args[launch.refused])}; {said}"
        if launch.fault:
            said += f", at {self._line(launch.fault)}"
        return said

    def _line(self, offset: int) -> str:
        """The line of the module's code at an offset of the library."""
        if shutil.which("addr2line") is None:
            return f"{self._path}+{offset:#x}"
        command = ["addr2line", "--inlines", "--exe", str(self._path), f"{offset:#x}"]
        lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        outside = [line.partition(" (")[0] for line in lines if HEADER.name not in line]
        return Path(outside[0]).name if outside else f"{self._path}+{offset:#x}"


def _packed(kernel: str, args: Sequence[Any]) -> tuple[bytes, bytes]:
    """The values of the arguments one after another, and what and where each is."""
    values, given, offset = [], [], 0
    for k, arg in enumerate(args):
        if type(arg) is Pointer:
            value = arg.address.to_bytes(8, "little")
            kind, element, size = b"P", arg.dtype.kind.encode(), arg.dtype.itemsize
        else:
            number = _PYTHON[type(arg)](arg) if type(arg) in _PYTHON else arg
            if not isinstance(number, np.generic) and not (isinstance(number, np.ndarray) and number.size == 1):
                raise TypeError(f"{kernel}: argument {k} is {_described(arg)}; arrays and NumPy's scalars are needed")
            value = number.tobytes()
            kind, element, size = number.dtype.kind.encode(), b" ", 0
        given.append(_GIVEN.pack(offset, len(value), kind, element, size))
        values.append(value.ljust(-len(value) % _ALIGNMENT + len(value), b"\0"))
        offset += len(values[-1])
    return b"".join(values), b"".join(given)


def _sizes(given: Sequence[int]) -> ctypes.Array[ctypes.c_uint]:
    sizes = [int(n) for n in given]
    if not 1 <= len(sizes) <= 3 or min(sizes) < 0:
        raise ValueError(f"a grid or block of {tuple(given)}; one to three sizes are needed")
    return (ctypes.c_uint * 3)(*sizes, *[1] * (3 - len(sizes)))


def _order() -> tuple[int, int]:
    given = os.environ.get("CUDA_ON_CPU_ORDER", "forward")
    name, _, seed = given.partition(":")
    if name not in ORDERS:
        raise ValueError(f"CUDA_ON_CPU_ORDER is {given!r}; one of {', '.join(ORDERS)} is needed")
    return ORDERS[name], int(seed or 1)


def _eager() -> bool:
    given = os.environ.get("CUDA_ON_CPU_COPIES", "deferred")
    if given not in ("deferred", "eager"):
        raise ValueError(f"CUDA_ON_CPU_COPIES is {given!r}; deferred or eager is needed")
    return given == "eager"


def _described(arg: Any) -> str:
    if isinstance(arg, Pointer):
        return f"an array of {arg.dtype}"
    if isinstance(arg, np.ndarray):
        return f"a NumPy array of shape {arg.shape}, {arg.nbytes} bytes"
    return f"a {type(arg).__module__}.{type(arg).__name__}".replace("builtins.", "")

"""Compile CUDA C++ for real GPUs, without one: with NVRTC, through CuPy and with the options of CuPy's RawModule.

pip install cupy-cuda13x nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime nvidia-cuda-crt
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

ARCHITECTURES = ("80", "90", "100", "120")  # Ampere, Hopper and the two Blackwells


class CompileError(Exception):
    """NVRTC refuses the code, or has a warning for it."""


class Usage(NamedTuple):
    """What a kernel takes of a multiprocessor."""

    registers: int  # of a thread
    shared: int  # bytes of a block, dynamic shared memory not counted
    stack: int  # bytes of local memory of a thread
    spilled: int  # of them, bytes that had no place in registers


def reason_unavailable() -> str | None:
    """Why nothing can be compiled here; None where it can."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # of many kinds: no CuPy, no library, one that is too old
        return f"NVRTC cannot be used ({type(error).__name__}: {error})"
    return None


def compile_for(architecture: str, code: str, options: Sequence[str] = (), name: str = "kernel.cu") -> dict[str, Usage]:
    """What each kernel of the code takes on an architecture, such as "90".

    Raises CompileError with NVRTC's words for an error, and for a warning.
    """
    from cupy._core.core import assemble_cupy_compiler_options
    from cupy.cuda import nvrtc

    # CuPy's compile_using_nvrtc wants a GPU, whatever its architecture argument says; this is what it passes
    added = ("-ftz=true", "--device-as-default-execution-space", f"-arch=sm_{architecture}")
    program = nvrtc.createProgram(code, name, (), ())
    try:
        given = assemble_cupy_compiler_options(tuple(options))
        nvrtc.compileProgram(program, (*given, *added, "--ptxas-options=-v"))
    except nvrtc.NVRTCError:
        raise CompileError(f"for sm_{architecture}:\n{nvrtc.getProgramLog(program).strip()}") from None
    else:
        log = nvrtc.getProgramLog(program)
    finally:
        nvrtc.destroyProgram(program)
    if "warning" in log:  # NVRTC 13.0 has no option that makes errors of them
        raise CompileError(f"for sm_{architecture}:\n{log.strip()}")
    return _usage(log)


def _usage(log: str) -> dict[str, Usage]:
    """From what ptxas -v says, kernel by kernel."""

    def number(pattern: str, part: str) -> int:
        found = re.search(pattern, part)
        return int(found[1]) if found else 0

    return {
        part.partition("'")[0]: Usage(
            number(r"Used (\d+) registers", part),
            number(r"(\d+) bytes smem", part),
            number(r"(\d+) bytes stack frame", part),
            number(r"(\d+) bytes spill stores", part),
        )
        for part in log.split("Compiling entry function '")[1:]
    }


def table(usage: dict[str, Usage]) -> str:
    """A line for each kernel."""
    width = max((len(name) for name in usage), default=0)
    return "\n".join(
        f"{name:<{width}} {u.registers:4} registers {u.shared:6} B shared {u.stack:5} B stack {u.spilled:5} B spilled"
        for name, u in usage.items()
    )

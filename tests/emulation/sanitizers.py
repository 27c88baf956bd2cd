"""Kernels under g++'s sanitizers, which need an environment that a running process cannot give itself.

    python tests/emulation/sanitizers.py address -m pytest --capture=no tests/test_cuda.py

runs Python with what follows the sanitizer's name, and kernels compiled for it; the process ends at the first report,
which names file and line of the kernel. Without --capture=no pytest would take the report with it.

    address    accesses beyond arrays, shared memory's included, and to arrays that are gone
    thread     races: between threads of a block that no barrier orders, and between blocks
    undefined  misaligned vectors, integers that overflow, shifts too far
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LIBRARIES = {"address": "libasan.so", "thread": "libtsan.so", "undefined": "libubsan.so"}
OPTIONS = {
    # Python gives much of its memory back to nobody
    "address": {"ASAN_OPTIONS": "detect_leaks=0"},
    # of what NumPy does only the system calls are seen
    "thread": {"TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1"},
    "undefined": {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"},
}


def library(sanitizer: str) -> Path | None:
    """Where g++ has the sanitizer's library, if it has."""
    command = ["g++", f"-print-file-name={LIBRARIES[sanitizer]}"]
    found = Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return found if found.is_absolute() and found.exists() else None


def environment(sanitizer: str) -> dict[str, str]:
    """The environment of a process whose kernels are watched.

    Raises FileNotFoundError where g++ has no such library.
    """
    found = library(sanitizer)
    if found is None:
        raise FileNotFoundError(f"g++ has no {LIBRARIES[sanitizer]}")
    # NumPy's own threads are of no interest, and slow where every access is watched
    watched = {**os.environ, **OPTIONS[sanitizer], "CUDA_ON_CPU_SANITIZE": sanitizer, "OPENBLAS_NUM_THREADS": "1"}
    if sanitizer != "undefined":  # the others want to be there before anything else is
        watched["LD_PRELOAD"] = str(found)
    return watched


def main() -> None:
    """The command line above."""
    if len(sys.argv) < 3 or sys.argv[1] not in LIBRARIES:
        sys.exit(f"usage: {sys.argv[0]} {{{','.join(LIBRARIES)}}} PYTHON_ARGUMENTS…")
    os.execve(sys.executable, [sys.executable, *sys.argv[2:]], environment(sys.argv[1]))


if __name__ == "__main__":
    main()

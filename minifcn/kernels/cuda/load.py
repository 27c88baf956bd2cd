"""From the .cu files beside this one to functions that can be launched: the only place that compiles.

A *unit* is one family's source with the headers pasted in, compiled for one dtype. Pasted, because CuPy keeps compiled
units by their text: an edited header that was only named would leave the old binary in use. The sources are plain CUDA
C++, which NVRTC, nvcc and g++ all take; CuPy compiles a unit at its first use on a machine and keeps it in
~/.cupy/kernel_cache.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.array import FLOATS, module_of

HERE = Path(__file__).parent
SINGLE, DOUBLE = FLOATS
REAL = {SINGLE: "float", DOUBLE: "double"}
FAMILIES = sorted(p.stem for p in HERE.glob("*.cu"))
SINGLE_ONLY = frozenset({"tensor_cores"})  # TF32 is a float32 matter


@dataclass(frozen=True)
class Unit:
    """What is compiled together."""

    family: str
    dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        return f"{self.family}-{self.dtype}"

    @property
    def options(self) -> tuple[str, ...]:
        return (f"-DREAL={REAL[self.dtype]}",)

    @property
    def code(self) -> str:
        # CuPy writes the text to a file in the locale's encoding, which need not have the signs of the comments. Dots
        # stand for them, as question marks could make trigraphs
        return re.sub(r"[^\x00-\x7f]", ".", _pasted(f"{self.family}.cu", set()))


def units() -> Iterator[Unit]:
    """Every unit that the backend may compile."""
    for family in FAMILIES:
        for dtype in (SINGLE,) if family in SINGLE_ONLY else (SINGLE, DOUBLE):
            yield Unit(family, dtype)


def _pasted(name: str, seen: set[str]) -> str:
    """A file's text with our own headers in place of the lines that include them, each once."""
    if name in seen:
        return ""
    seen.add(name)
    text = (HERE / name).read_text(encoding="utf-8").replace("#pragma once\n", "\n")
    parts, line = [f'#line 1 "{name}"\n'], 1
    for piece in re.split(r'^(#include "[^"]+")\n', text, flags=re.MULTILINE):
        header = re.fullmatch(r'#include "([^"]+)"', piece)
        if header:
            line += 1
            parts.append(f'{_pasted(header[1], seen)}#line {line} "{name}"\n')
        else:
            line += piece.count("\n")
            parts.append(piece)
    return "".join(parts)


@functools.cache
def _module(cupy: Any, unit: Unit) -> Any:
    return cupy.RawModule(code=unit.code, options=unit.options)


@functools.cache
def _function(cupy: Any, device: int, unit: Unit, name: str) -> Any:
    # kept, because RawModule.get_function makes a new one and hashes the whole source at every call; and for each
    # device, because how much shared memory a function may ask for is a property of it there
    return _module(cupy, unit).get_function(name)


def function(array: Any, family: str, name: str) -> Any:
    """The kernel `name` for arrays of this one's dtype on its device."""
    return _function(module_of(array), array.device.id, Unit(family, array.dtype), name)

"""Interpolation along one axis after the other: an output row is a·(one input row) + b·(the next).

Two rows at most, gathered and weighted, so that a NaN or Inf reaches only the outputs beside it. The adjoint sends the
same factors back; rows that share a source are neighbours, so they are added up in runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minifcn.array import Array
from minifcn.geometry import ResizeGeometry
from minifcn.kernels.registry import kernel
from minifcn.memory import empty
from minifcn.threads import parallel, runs

CHUNK_BYTES = 1 << 20  # of planes that are worked on together


class Taps(NamedTuple):
    """Along one axis: outputs `at` are made of inputs `source`, times `factor`. Sources do not fall."""

    at: Array
    source: Array
    factor: Array


@functools.lru_cache(maxsize=64)
def _taps(geom: ResizeGeometry, axis: int) -> tuple[Taps, Taps]:
    """The lower input of every output, and the upper one of those that have one."""
    lower, upper = [], []
    for p in range(geom.y_hw[axis]):
        (h, a), *rest = geom.taps(axis, p)
        lower.append((p, h, float(a)))
        upper += [(p, k, float(b)) for k, b in rest]
    return _columns(lower), _columns(upper)


def _columns(rows: list[tuple[int, int, float]]) -> Taps:
    at, source, factor = zip(*rows, strict=True) if rows else ((), (), ())
    return Taps(np.array(at, np.intp), np.array(source, np.intp), np.array(factor))


def _shaped(factor: Array, axis: int, dtype: np.dtype[np.floating]) -> Array:
    """Factors beside (N, C, H, W), along H (0) or W (1)."""
    return factor.astype(dtype)[:, None] if axis == 0 else factor.astype(dtype)


def _at(axis: int, rows: Array) -> Any:
    return (..., rows, slice(None)) if axis == 0 else (..., rows)


def _resize(x: Array, geom: ResizeGeometry, axis: int) -> Array:
    lower, upper = _taps(geom, axis)
    y: Array = x[_at(axis, lower.source)]
    if geom.mode == "nearest":
        return y
    y *= _shaped(lower.factor, axis, x.dtype)
    y[_at(axis, upper.at)] += x[_at(axis, upper.source)] * _shaped(upper.factor, axis, x.dtype)
    return y


def _resize_adjoint(y: Array, geom: ResizeGeometry, axis: int) -> Array:
    shape = list(y.shape)
    shape[2 + axis] = geom.x_hw[axis]
    x = np.zeros(shape, y.dtype)
    for taps in _taps(geom, axis):
        if len(taps.at):
            sources, starts = np.unique(taps.source, return_index=True)
            weighted = y[_at(axis, taps.at)] * _shaped(taps.factor, axis, y.dtype)
            x[_at(axis, sources)] += np.add.reduceat(weighted, starts, axis=2 + axis)
    return x


Chunk = tuple[slice, slice]  # of images and of channels


def _each(work: Callable[[Chunk], None], geom: ResizeGeometry, array: Array) -> None:
    """work(chunk) for planes that fit a cache together, so that the steps in between stay there."""
    n, c = array.shape[:2]
    plane = max(geom.x_hw[0] * geom.x_hw[1], geom.y_hw[0] * geom.y_hw[1]) * array.itemsize
    tasks = [(slice(k, k + 1), part) for k in range(n) for part in runs(c, CHUNK_BYTES // plane)]
    parallel(work, tasks, alone=n * c * plane < CHUNK_BYTES)


@kernel("interpolate", backend="numpy", algorithm="taps")
def interpolate_taps(x: Array, *, geom: ResizeGeometry) -> Array:
    """y (N,C,P,Q) from x (N,C,H,W)."""
    y = empty((*x.shape[:2], *geom.y_hw), x.dtype)

    def work(chunk: Chunk) -> None:
        y[chunk] = _resize(_resize(x[chunk], geom, 0), geom, 1)

    _each(work, geom, x)
    return y


@kernel("interpolate_adjoint", backend="numpy", algorithm="taps")
def interpolate_adjoint_taps(y: Array, *, geom: ResizeGeometry) -> Array:
    """x (N,C,H,W) from y (N,C,P,Q)."""
    x = empty((*y.shape[:2], *geom.x_hw), y.dtype)

    def work(chunk: Chunk) -> None:
        x[chunk] = _resize_adjoint(_resize_adjoint(y[chunk], geom, 1), geom, 0)

    _each(work, geom, y)
    return x

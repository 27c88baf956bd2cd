"""One expression, evaluated by minifcn and by PyTorch: outputs, gradients, and gradients of gradients must agree.

Importing this module skips the importing test module where PyTorch is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

TOLERANCE = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 2e-5}


class _Torch:
    """PyTorch's functions under the names that minifcn.functional has them."""

    def __getattr__(self, name: str) -> Any:
        for module in (torch.nn.functional, torch):
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)

    @staticmethod
    def crop(x: Any, start: tuple[int, int], size: tuple[int, int]) -> Any:
        return x.narrow(-2, start[0], size[0]).narrow(-1, start[1], size[1])


OURS, THEIRS = minifcn.functional, _Torch()


class Fixed:
    """A float argument that gets no gradient, such as class weights."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)


def relative_error(ours: Any, theirs: Any) -> float:
    """max |ours − theirs| / max |theirs|, over the finite elements; infinite where NaN or ∞ are at other places.

    The largest element is the yardstick, not each element its own: an element that is a sum of cancelling terms has the
    rounding error of its terms, so its own size says nothing about how well it can be known. A wrong index, sign or
    factor anywhere shows as an error of the order of 1.
    """
    a, b = np.asarray(ours), theirs.detach().numpy(force=True)
    assert a.shape == b.shape, f"shape {a.shape}, PyTorch {b.shape}"
    assert a.dtype == b.dtype, f"dtype {a.dtype}, PyTorch {b.dtype}"
    if a.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else np.inf
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return np.inf
    difference = float(np.abs(a[finite] - b[finite]).max(initial=0))
    size = float(np.abs(b[finite]).max(initial=0))
    return difference / size if size else difference


def strided(array: np.ndarray) -> np.ndarray:
    """The same values, axes reversed in memory, every second element, the last axis backwards, NaN in between."""
    if array.ndim == 0:
        return array.copy()
    base = np.zeros([2 * n for n in reversed(array.shape)], array.dtype)
    if array.dtype.kind == "f":
        base[...] = np.nan
    view = base.T[tuple(slice(None, None, 2) for _ in array.shape[1:])][..., ::-2]
    view[...] = array
    return view


def compare(f: Callable[..., Any], *args: Any, dtype: type = np.float64, second_order: bool = True) -> None:
    """Evaluate f(OURS, …) and f(THEIRS, …) on the same numbers.

    Args:
        f: takes a namespace of functions, then the arguments, and returns a tensor or several.
        args: a tuple is the shape of random numbers; a float array is taken as it is; both are differentiated. `Fixed`,
            integer and boolean arrays are not.
        dtype: of all floats.
        second_order: whether to differentiate once more.

    Everything is done twice, with contiguous and with strided memory (and integers once as arrays, once as Tensors).
    No input may change.
    """
    rng = np.random.default_rng(7)
    values = [rng.standard_normal(a) if isinstance(a, tuple) else a for a in args]
    for layout in (np.array, strided):
        ours, theirs, arrays = [], [], []
        for value in values:
            array = value.values if isinstance(value, Fixed) else value
            array = layout(array.astype(dtype) if array.dtype.kind == "f" else array)
            differentiated = array.dtype.kind == "f" and not isinstance(value, Fixed)
            arrays.append(array)
            wrap = differentiated or layout is strided
            ours.append(mf.Tensor(array, requires_grad=differentiated) if wrap else array)
            theirs.append(torch.tensor(np.ascontiguousarray(array).reshape(array.shape), requires_grad=differentiated))
        before = [array.copy() for array in arrays]
        with np.errstate(divide="ignore", invalid="ignore"):  # NumPy warns of 1/0; what comes out is compared
            _agree(f(OURS, *ours), f(THEIRS, *theirs), ours, theirs, rng, TOLERANCE[np.dtype(dtype)], second_order)
        for k, (array, old) in enumerate(zip(arrays, before, strict=True)):
            assert np.array_equal(array, old, equal_nan=array.dtype.kind == "f"), f"argument {k} was changed"


def _agree(
    y: Any, t: Any, ours: list[Any], theirs: list[Any], rng: np.random.Generator, tolerance: float, again: bool
) -> None:
    ys, ts = ([r] if not isinstance(r, tuple) else list(r) for r in (y, t))
    assert len(ys) == len(ts)
    for k, (a, b) in enumerate(zip(ys, ts, strict=True)):
        error = relative_error(a, b)
        assert error <= tolerance, f"output {k}: relative error {error:.1e}"
    xs = [x for x in ours if isinstance(x, mf.Tensor) and x.requires_grad]
    us = [u for u in theirs if u.requires_grad]
    live = [(a, b) for a, b in zip(ys, ts, strict=True) if b.requires_grad]
    assert [a.requires_grad for a in ys] == [b.requires_grad for b in ts]
    if not live:
        return
    cotangents = [rng.standard_normal(a.shape).astype(a.dtype) for a, _ in live]
    gx = mf.grad([a for a, _ in live], xs, [strided(g) for g in cotangents], create_graph=True, allow_unused=True)
    gu = torch.autograd.grad(
        [b for _, b in live], us, [torch.tensor(g) for g in cotangents], create_graph=True, allow_unused=True
    )
    gu = [torch.zeros_like(u) if g is None else g for g, u in zip(gu, us, strict=True)]
    for k, (a, b) in enumerate(zip(gx, gu, strict=True)):
        error = relative_error(a, b)
        assert error <= tolerance, f"gradient {k}: relative error {error:.1e}"
    if not again or not any(b.requires_grad for b in gu):
        return
    weights = [rng.standard_normal(b.shape).astype(a.dtype) for a, b in zip(gx, gu, strict=True)]
    pairs = [(a, b, w) for a, b, w in zip(gx, gu, weights, strict=True) if b.requires_grad]
    ggx = mf.grad([a for a, _, _ in pairs], xs, [w for _, _, w in pairs], allow_unused=True)
    ggu = torch.autograd.grad([b for _, b, _ in pairs], us, [torch.tensor(w) for _, _, w in pairs], allow_unused=True)
    for k, (a, b) in enumerate(zip(ggx, ggu, strict=True)):
        error = relative_error(a, torch.zeros_like(us[k]) if b is None else b)
        assert error <= 10 * tolerance, f"second-order gradient {k}: relative error {error:.1e}"

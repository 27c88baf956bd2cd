"""Interpolation, a linear map whose gradient is its adjoint."""

from __future__ import annotations

import math

import numpy as np

from minifcn.autograd import Primitive, Tensor
from minifcn.functional._checks import batched, choice, flag, floats, not_empty, tensor, unbatched
from minifcn.geometry import Pair, ResizeGeometry, pair

interpolate_p = Primitive("interpolate(x) -> y")
interpolate_adjoint_p = Primitive("interpolate_adjoint(y) -> x")
interpolate_p.defvjp(lambda gy, geom: interpolate_adjoint_p(gy, geom=geom))
interpolate_adjoint_p.defvjp(lambda gx, geom: interpolate_p(gx, geom=geom))


def _factors(scale_factor: object) -> tuple[float, float]:
    """scale_factor as (height, width)."""
    given = tuple(scale_factor) if isinstance(scale_factor, tuple | list) else (scale_factor, scale_factor)
    if len(given) != 2 or not all(
        isinstance(f, int | float | np.integer | np.floating) and 0 < f < math.inf for f in given
    ):
        raise ValueError(f"interpolate: scale_factor is {scale_factor!r}; a positive number or a pair is needed")
    return float(given[0]), float(given[1])


def interpolate(
    input: Tensor,
    size: int | Pair | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """input (N,C,H,W) or (C,H,W) → (N,C,P,Q), by the nearest pixel or linearly between pixels.

    Three axes are an image, as everywhere here; PyTorch takes them for a batch of signals (N,C,L).

    Args:
        size: (P, Q) or one int.
        scale_factor: instead of size: P = ⌊H·scale_factor⌋, and outputs lie 1/scale_factor input pixels apart.
        mode: "nearest" or "bilinear".
        align_corners: for "bilinear": the centres of the corner pixels coincide (True), or the image's edges do (False,
            the default; positions beyond a border pixel's centre are clamped to it).

    Raises:
        ValueError: not exactly one of size and scale_factor, an unknown mode, an empty input or output.
    """
    op = "interpolate"
    x, single = batched(op, tensor(op, "input", input))
    floats(op, input=x)
    choice(op, "mode", mode, ("nearest", "bilinear"))
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{op}: size is {size} and scale_factor {scale_factor}; exactly one of them is needed")
    not_empty(op, x)
    if align_corners is not None:
        flag(op, "align_corners", align_corners)
    if mode == "nearest" and align_corners is not None:
        raise ValueError(f'{op}: align_corners={align_corners} with mode="nearest"; it is for "bilinear" only')
    x_hw = (x.shape[2], x.shape[3])
    factors = None
    if size is not None:
        y_hw = pair(size, op, "size", 1)
    else:
        factors = _factors(scale_factor)
        y_hw = (int(x_hw[0] * factors[0]), int(x_hw[1] * factors[1]))
    if min(y_hw) < 1:
        raise ValueError(f"{op}: from {x_hw} to {y_hw}; at least one pixel on each side is needed")
    geom = ResizeGeometry.of_resize(x_hw, y_hw, factors, mode, bool(align_corners))
    return unbatched(interpolate_p(x, geom=geom), single)

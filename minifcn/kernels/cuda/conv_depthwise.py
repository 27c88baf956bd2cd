"""Convolutions of one filter per channel (groups = channels in = channels out) on a GPU: gathered directly."""

from __future__ import annotations

from typing import Any

import numpy as np

from minifcn.array import Array, module_of
from minifcn.geometry import ConvGeometry
from minifcn.kernels.cuda.launch import Finish, contiguous, launch, new, over_planes, size, windows
from minifcn.kernels.registry import kernel


def _supports(geom: ConvGeometry, **_: Any) -> bool:
    return geom.groups == geom.c == geom.o


def _auto(dtype: np.dtype[Any], geom: ConvGeometry, **_: Any) -> bool:
    return True


LIMITS = "one filter per channel: as many groups as channels in and out"


@kernel("conv2d", backend="cupy", algorithm="depthwise", supports=_supports, limits=LIMITS, auto=_auto)
def conv2d_depthwise(
    x: Array,
    w: Array,
    b: Array | None = None,
    scale: Array | None = None,
    add: Array | None = None,
    *,
    geom: ConvGeometry,
    relu: bool = False,
) -> Array:
    """y[n,c,p,q] = Σ x[n,c,h,v]·w[c,0,i,j], and the epilogue."""
    y = new(x, geom.y_shape)
    if y.size:
        after = Finish.of(y, b, scale, add, relu)
        planes = geom.n * geom.c
        grid = over_planes(planes, geom.y_hw[0] * geom.y_hw[1])
        launch(
            "depthwise", "conv2d", x, grid, (contiguous(x), contiguous(w), after.struct, y, size(planes), windows(geom))
        )
    return y


@kernel("conv_transpose2d", backend="cupy", algorithm="depthwise", supports=_supports, limits=LIMITS, auto=_auto)
def conv_transpose2d_depthwise(y: Array, w: Array, b: Array | None = None, *, geom: ConvGeometry) -> Array:
    """x[n,c,h,v] = Σ y[n,c,p,q]·w[c,0,i,j] + b[c], over the taps that reach (h, v)."""
    x = new(y, geom.x_shape)
    if x.size:
        transpose_into(x, contiguous(y), contiguous(w), b, geom, geom.w_hw[0] * geom.w_hw[1], None)
    return x


def transpose_into(
    x: Array, y: Array, w: Array, b: Array | None, geom: ConvGeometry, step: int, dense: Array | None
) -> None:
    """x (N,C,H,W) from y (N,C,P,Q), both contiguous, and one filter per channel, `step` elements apart; only if
    `dense`, an integer on the device, is 0."""
    planes = geom.n * geom.c
    grid = over_planes(planes, geom.x_hw[0] * geom.x_hw[1])
    bias = None if b is None else contiguous(b)
    launch(
        "depthwise",
        "conv_transpose2d",
        y,
        grid,
        (y, w, bias, dense, x, size(planes), windows(geom), np.int32(step)),
    )


@kernel("conv2d_weight", backend="cupy", algorithm="depthwise", supports=_supports, limits=LIMITS, auto=_auto)
def conv2d_weight_depthwise(x: Array, y: Array, *, geom: ConvGeometry) -> Array:
    """w[c,0,i,j] = Σ x[n,c,h,v]·y[n,c,p,q], added up in float64."""
    if not y.size:
        zeros: Array = module_of(x).zeros(geom.w_shape, x.dtype)
        return zeros
    w = new(x, geom.w_shape)
    launch("depthwise", "conv2d_weight", x, (w.size,), (contiguous(x), contiguous(y), w, windows(geom)))
    return w

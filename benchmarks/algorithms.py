"""Every algorithm for every convolution of the networks, and for sizes around the limits at which auto changes over.

The three kernels of each geometry are timed by each algorithm that supports it: that is the measurement behind what
`auto` takes. The filters are dense; a bilinear one, which is diagonal in its channels, has a way of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minifcn import kernels, nn
from minifcn.geometry import ConvGeometry
from minifcn.kernels.registry import REFERENCE

from .kernels import layers
from .measure import interleaved, spread

OPERANDS = {"conv2d": "xw", "conv_transpose2d": "yw", "conv2d_weight": "xy"}


def geometries(names: tuple[str, ...]) -> dict[ConvGeometry, str]:
    """Each geometry, and where it comes from: "networks" or "limits"."""
    found: dict[ConvGeometry, str] = {}
    for layer in layers(names):
        m = layer.module
        if not isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            continue
        how = (m.stride, m.padding, m.dilation, m.groups)
        if isinstance(m, nn.Conv2d):
            geom = ConvGeometry.of_conv(layer.x_shape, m.weight.shape, *how, "algorithms")
        else:
            assert layer.output_size is not None
            image = (layer.x_shape[0], m.out_channels, *layer.output_size)
            geom = ConvGeometry.of_conv(image, m.weight.shape, *how, "algorithms")
        found.setdefault(geom, "networks")
    for geom in _limits():
        found.setdefault(geom, "limits")
    return found


def _limits() -> list[ConvGeometry]:
    def of(x: tuple[int, ...], w: tuple[int, ...], stride: int, padding: int) -> ConvGeometry:
        return ConvGeometry.of_conv(x, w, (stride, stride), (padding, padding), (1, 1), 1, "algorithms")

    squares = [
        of((1, c, side, side), (c, c, 3, 3), 1, 1)
        for c in (8, 16, 32, 64, 128, 256)
        for side in (8, 12, 16, 24, 32, 48, 64, 96)
    ]
    strided = [of((1, 256, 48, 48), (o, 256, 1, 1), 2, 0) for o in (64, 128, 256, 512, 1024, 2048)]
    enlarged = [
        of((1, c, s * side, s * side), (c, c, 2 * s, 2 * s), s, s // 2)
        for s in (2, 4, 8)
        for c in (4, 8, 16, 32, 64)
        for side in (8, 16, 32)
    ]
    return squares + strided + enlarged


def rows(names: tuple[str, ...], rounds: int) -> list[dict[str, Any]]:
    """One row for each operation and geometry that more than one algorithm can do, printed as it is measured."""
    measured = []
    rng = np.random.default_rng(0)
    for geom, source in geometries(names).items():
        shapes = {"x": geom.x_shape, "w": geom.w_shape, "y": geom.y_shape}
        arrays = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
        for op, (first, second) in OPERANDS.items():
            able = [k for k in kernels.algorithms(op) if k.algorithm != REFERENCE and not k.refuses({"geom": geom})]
            if len(able) < 2:
                continue
            chosen = kernels.chosen(op, arrays[first], arrays[second], geom=geom).algorithm
            contenders = {k.algorithm: _call(k, arrays[first], arrays[second], geom) for k in able}
            times = {name: spread(t) for name, t in interleaved(contenders, rounds, settle=0.02).items()}
            medians = {name: t["median_s"] for name, t in times.items()}
            row = {
                "op": op,
                "x": geom.x_shape,
                "w": geom.w_shape,
                "stride": geom.stride,
                "padding": geom.padding,
                "from": source,
                "auto": chosen,
                "fastest": min(medians, key=medians.__getitem__),
                "auto_over_fastest": medians[chosen] / min(medians.values()),
                "algorithms": times,
            }
            x, w = ("×".join(map(str, shape)) for shape in (geom.x_shape, geom.w_shape))
            cells = "  ".join(f"{'*' if n == chosen else ''}{n} {s * 1e3:.3f} ms" for n, s in medians.items())
            print(f"{op:16} {x:>16} {w:>15} /{geom.stride[0]}  {cells}", flush=True)
            measured.append(row)
    return measured


def _call(kernel: kernels.Kernel, first: np.ndarray, second: np.ndarray, geom: ConvGeometry) -> Callable[[], object]:
    return lambda: kernel.function(first, second, geom=geom)

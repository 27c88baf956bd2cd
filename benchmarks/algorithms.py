"""Every algorithm for every convolution of the networks, and for sizes around the limits at which auto changes over.

The three kernels of each geometry are timed by each algorithm that supports it: that is the measurement behind what
`auto` takes. The filters are dense; a bilinear one, which is diagonal in its channels, has a way of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minifcn import kernels, nn
from minifcn.array import Array, to_device
from minifcn.geometry import ConvGeometry
from minifcn.kernels.registry import REFERENCE

from . import gpu
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

    def times(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        return interleaved(calls, rounds, settle=0.02)

    return list(_rows(names, "cpu", times))


def rows_on_gpu(
    names: tuple[str, ...], rounds: int, against: tuple[str, ...], peak: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """The same on a GPU, in each precision; of the tensor cores only where they are allowed."""
    for precision, said in gpu.PRECISIONS.items():

        def times(calls: dict[str, Callable[[], object]], precision: str = precision) -> dict[str, list[float]]:
            contenders = {name: gpu.Contender(call, gpu.synchronize, precision) for name, call in calls.items()}
            return gpu.interleaved(contenders, rounds)

        with gpu.precision(precision):
            for row in _rows(names, "cuda", times, () if precision == "high" else ("tensor_cores",)):
                yield {**row, "products_in": said}


def _rows(
    names: tuple[str, ...],
    device: str,
    measured: Callable[[dict[str, Callable[[], object]]], dict[str, list[float]]],
    without: tuple[str, ...] = (),
) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    backend = "numpy" if device == "cpu" else "cupy"
    for geom, source in geometries(names).items():
        shapes = {"x": geom.x_shape, "w": geom.w_shape, "y": geom.y_shape}
        arrays = {
            name: to_device(rng.standard_normal(shape, dtype=np.float32), device) for name, shape in shapes.items()
        }
        for op, (first, second) in OPERANDS.items():
            able = [
                k
                for k in kernels.algorithms(op, backend)
                if k.algorithm not in (REFERENCE, *without) and not k.refuses({"geom": geom})
            ]
            if len(able) < 2:
                continue
            chosen = kernels.chosen(op, arrays[first], arrays[second], geom=geom).algorithm
            times = measured({k.algorithm: _call(k, arrays[first], arrays[second], geom) for k in able})
            spreads = {name: spread(t) for name, t in times.items()}
            medians = {name: t["median_s"] for name, t in spreads.items()}
            x, w = ("×".join(map(str, shape)) for shape in (geom.x_shape, geom.w_shape))
            cells = "  ".join(f"{'*' if n == chosen else ''}{n} {s * 1e3:.3f} ms" for n, s in medians.items())
            print(f"{op:16} {x:>16} {w:>15} /{geom.stride[0]}  {cells}", flush=True)
            yield {
                "op": op,
                "x": geom.x_shape,
                "w": geom.w_shape,
                "stride": geom.stride,
                "padding": geom.padding,
                "from": source,
                "auto": chosen,
                "fastest": min(medians, key=medians.__getitem__),
                "auto_over_fastest": medians[chosen] / min(medians.values()),
                "algorithms": spreads,
            }


def _call(kernel: kernels.Kernel, first: Array, second: Array, geom: ConvGeometry) -> Callable[[], object]:
    return lambda: kernel.function(first, second, geom=geom)

"""Random layers: constructor arguments, then one or more inputs, in training and not.

A layer's parameters are filled with the same random numbers on both sides. The forward calls, the gradients of inputs
and parameters, and the state afterwards are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from arguments import WRONG_FLOATS, WRONG_INTS, WRONG_PAIRS, Draw, Value, draws
from arguments_function import WRONG_DIMS, elementwise, loss, softmax
from arguments_image import (
    POOL,
    WRONG_GROUPS,
    adaptive_avg_pool2d,
    avg_pool2d,
    conv2d_padding,
    convolution,
    fold,
    interpolate,
    max_pool2d,
    max_unpool2d,
    output_size,
    pixel_shuffle,
    smallest_image,
    unfold,
)

Drawn = tuple[tuple[Any, ...], dict[str, Any]]


def run(side: Any, name: str, dtype: str, build: Drawn, forwards: list[tuple[bool, Drawn]]) -> Any:
    """Build a layer, then call it once for each (training, arguments)."""
    layer = side.layer(name, dtype, *build)
    outputs = []
    for training, (args, options) in forwards:
        layer.train(training)
        outputs.append(layer(*args, **options))
    return tuple(outputs)


def layer(
    name: str, *ops: str
) -> Callable[[Callable[[Draw], tuple[Drawn, list[tuple[bool, Drawn]]]]], Callable[[Draw], Any]]:
    """Register a generator of (constructor's arguments, forwards). Errors may begin with its name or one of ops."""

    def register(draw_layer: Callable[[Draw], tuple[Drawn, list[tuple[bool, Drawn]]]]) -> Callable[[Draw], Any]:
        def draw(d: Draw) -> Drawn:
            build, forwards = draw_layer(d)
            return (np.dtype(d.dtype).name, build, forwards), {}

        def f(side: Any, *args: Any) -> Any:
            return run(side, name, *args)

        draws(f"nn.{name}", f=f, ops=(name, *ops))(draw)
        return draw_layer

    return register


def of_function(name: str, op: str, draw: Callable[[Draw], Drawn], forward: tuple[str, ...] = ("input",)) -> None:
    """The layer of a function: some of the function's arguments are for forward, the others for the constructor. The
    generator's positional arguments are named in `POSITIONS`."""

    def draw_layer(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
        args, options = draw(d)
        given = {**dict(zip(POSITIONS[op], args, strict=False)), **options}
        call = tuple(given.pop(n) for n in forward)
        return ((), given), [(d.chance(), (call, {}))]

    layer(name, op)(draw_layer)


POSITIONS = {
    "max_pool2d": POOL,
    "avg_pool2d": (
        "input",
        "kernel_size",
        "stride",
        "padding",
        "ceil_mode",
        "count_include_pad",
        "divisor_override",
    ),
    "adaptive_avg_pool2d": ("input", "output_size"),
    "unfold": ("input", "kernel_size", "dilation", "padding", "stride"),
    "fold": ("input", "output_size", "kernel_size", "dilation", "padding", "stride"),
    "pixel_shuffle": ("input", "upscale_factor"),
    "interpolate": ("input", "size", "scale_factor", "mode", "align_corners"),
    "softmax": ("input", "dim"),
    "log_softmax": ("input", "dim"),
    "cross_entropy": ("input", "target", "weight"),
    "nll_loss": ("input", "target", "weight"),
    "relu": ("input",),
    "sigmoid": ("input",),
}

of_function("MaxPool2d", "max_pool2d", max_pool2d)
of_function("AvgPool2d", "avg_pool2d", avg_pool2d)
of_function("AdaptiveAvgPool2d", "adaptive_avg_pool2d", adaptive_avg_pool2d)
of_function("Unfold", "unfold", unfold)
of_function("Fold", "fold", fold)
of_function("PixelShuffle", "pixel_shuffle", pixel_shuffle)
of_function("Upsample", "interpolate", interpolate)
of_function("Softmax", "softmax", softmax)
of_function("LogSoftmax", "log_softmax", softmax)
of_function("CrossEntropyLoss", "cross_entropy", loss, ("input", "target"))
of_function("NLLLoss", "nll_loss", loss, ("input", "target"))
of_function("ReLU", "relu", elementwise)
of_function("Sigmoid", "sigmoid", elementwise)


def spoilt(d: Draw, given: dict[str, Any], wrong: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """The constructor's arguments; in most spoilt calls one of them is wrong, and then the input is right."""
    if d.spoilt and d.chance(0.8):
        d.spoilt = False
        name = d.pick(*wrong)
        return given | {name: d.pick(*wrong[name])}
    return given


def one(d: Draw, x: Value) -> list[tuple[bool, Drawn]]:
    """One forward with x, wrong if the call is spoilt."""
    return [(d.chance(), ((d.wrong_tensor(x) if d.spoilt else x,), {}))]


@layer("Conv2d", "conv2d")
def conv2d(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    groups, c, o, i, j = convolution(d)
    given = {
        "in_channels": c * groups,
        "out_channels": o * groups,
        "kernel_size": d.pick((i, j), [i, j], i),
        "stride": d.pick(1, 1, d.pair(1, 3)),
        "padding": conv2d_padding(d),
        "dilation": d.pick(1, 1, d.pair(1, 2)),
        "groups": groups,
        "bias": d.chance(),
    }
    wrong = {
        "in_channels": (*WRONG_INTS, 7),
        "out_channels": (*WRONG_INTS, 7),
        "kernel_size": (*WRONG_PAIRS, 9),
        "stride": WRONG_PAIRS,
        "padding": (*WRONG_PAIRS, "Same", "full"),
        "dilation": (*WRONG_PAIRS, 9),
        "groups": WRONG_GROUPS,
    }
    x = d.floats(*d.batch(), c * groups, d.size(4, 8), d.size(4, 8))
    given = spoilt(d, given, wrong)
    names = list(given)[: d.pick(0, 3, 8)]
    return (tuple(given.pop(n) for n in names), given), one(d, x)


@layer("ConvTranspose2d", "conv_transpose2d")
def conv_transpose2d(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    groups, c, o, i, j = convolution(d)
    scores, stride = (d.size(2, 4), d.size(2, 4)), d.pair(1, 3)
    extra = d.pair(0, int(np.min(stride)) - 1)
    given = {
        "in_channels": c * groups,
        "out_channels": o * groups,
        "kernel_size": (i, j),
        "stride": stride,
        "padding": d.pick(0, d.pair(0, 1)),
        "output_padding": d.pick(0, extra, extra, d.pair(0, 1)),
        "groups": groups,
        "bias": d.chance(),
        "dilation": d.pick(1, d.pair(1, 2)),
    }
    size = output_size(
        d, smallest_image(scores, (i, j), stride, given["padding"], given["dilation"]), int(np.min(stride)) - 1
    )
    wrong = {
        "in_channels": (*WRONG_INTS, 7),
        "out_channels": (*WRONG_INTS, 7),
        "kernel_size": WRONG_PAIRS,
        "stride": WRONG_PAIRS,
        "padding": (*WRONG_PAIRS, 3),
        "output_padding": (*WRONG_PAIRS, 3),
        "dilation": WRONG_PAIRS,
        "groups": WRONG_GROUPS,
    }
    x = d.floats(*d.batch(), c * groups, *scores)
    given = spoilt(d, given, wrong)
    names = list(given)[: d.pick(0, 3, 9)]
    forwards = one(d, x)
    if d.chance(0.3):
        training, (args, _) = forwards[0]
        forwards = [(training, ((*args, size), {}) if d.chance() else (args, {"output_size": size}))]
    return (tuple(given.pop(n) for n in names), given), forwards


@layer("BatchNorm2d", "batch_norm")
def batch_norm2d(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    channels = d.size(1, 3)
    given = {
        "num_features": channels,
        "eps": d.pick(1e-5, 1e-3, 0.1),
        "momentum": d.pick(None, 0.1, 0.3, 0.0, 1.0),
        "affine": d.chance(0.7),
        "track_running_stats": d.chance(0.7),
    }
    wrong = {
        "num_features": (*WRONG_INTS, 5),
        "eps": WRONG_FLOATS,
        "momentum": WRONG_FLOATS[1:],
        "affine": (0, 1, None),
        "track_running_stats": (0, 1, None),
    }
    given = spoilt(d, given, wrong)
    forwards = []
    # no training after inference: PyTorch's gradient of the latter would be one of the statistics moved since
    for training in d.pick((True, False), (True, True, True, False), (False,), (True, True)):
        x = d.floats(d.size(2, 3), channels, d.size(1, 4), d.size(1, 4))
        forwards.append((training, ((d.wrong_tensor(x) if d.spoilt and d.chance(0.7) else x,), {})))
    names = list(given)[: d.pick(0, 1, 5)]
    return (tuple(given.pop(n) for n in names), given), forwards


@layer("Linear", "linear")
def linear(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    c, o = d.size(1, 4), d.size(1, 4)
    given = {"in_features": d.as_int(c), "out_features": o, "bias": d.chance()}
    given = spoilt(d, given, {"in_features": (*WRONG_INTS, 7), "out_features": WRONG_INTS, "bias": (0, 1, None)})
    names = list(given)[: d.pick(0, 2, 3)]
    x = d.floats(*d.shape(0, 3), c)
    return (tuple(given.pop(n) for n in names), given), one(d, x)


@layer("MaxUnpool2d", "max_unpool2d")
def max_unpool2d_layer(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    args, options = max_unpool2d(d)
    names = ("input", "indices", "kernel_size", "stride", "padding", "output_size")
    given = {**dict(zip(names, args, strict=False)), **options}
    size = {"output_size": given.pop("output_size")} if "output_size" in given else {}
    x, indices = given.pop("input"), given.pop("indices")
    return ((), given), [(True, ((x, indices), size))]


@layer("LocalResponseNorm", "local_response_norm")
def local_response_norm(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    given = {"size": d.int(1, 5), "alpha": d.pick(1e-4, 0.5), "beta": d.pick(0.75, 1.0), "k": d.pick(1.0, 2.0)}
    given = spoilt(d, given, {"size": WRONG_INTS, "alpha": WRONG_FLOATS, "beta": WRONG_FLOATS, "k": WRONG_FLOATS})
    return ((), given), one(d, d.floats(d.size(1, 2), d.size(1, 6), d.size(1, 3), d.size(1, 3)))


@layer("Dropout", "dropout")
def dropout(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    return drop(d, d.floats(*d.shape(0, 4)))


@layer("Dropout2d", "dropout2d")
def dropout2d(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    return drop(d, d.floats(*d.batch(), d.size(1, 3), d.size(1, 3), d.size(1, 3)))


def drop(d: Draw, x: Value) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    """In training only with p = 0 or 1: the two libraries draw other masks."""
    p = d.pick(0, 1, 0.0, 1.0, 0.5)
    given = spoilt(d, {"p": p}, {"p": (-0.1, 1.1, float("nan"), None, "0.5", 2, -1, (0.5,))})
    training = d.chance(0.7) and given["p"] in (0, 1)
    return ((), given), [(training, call) for _, call in one(d, x)]


@layer("Flatten", "flatten")
def flatten(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    shape = d.shape(2, 5)
    given = {"start_dim": d.pick(0, 1, 1), "end_dim": d.pick(-1, -1, len(shape) - 1)}
    given = spoilt(d, given, {"start_dim": WRONG_DIMS, "end_dim": WRONG_DIMS})
    names = list(given)[: d.pick(0, 1, 2)]
    return (tuple(given.pop(n) for n in names), given), one(d, d.floats(*shape))


@layer("ZeroPad2d", "pad")
def zero_pad2d(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    counts = tuple(d.int(-1, 2) for _ in range(4))
    given = spoilt(d, {"padding": d.pick(1, 2, counts, list(counts))}, {"padding": (*WRONG_PAIRS, (1, 2, 3, 4, 5), -9)})
    return ((), given), one(d, d.floats(*d.shape(2, 4)))


@layer("Identity")
def identity(d: Draw) -> tuple[Drawn, list[tuple[bool, Drawn]]]:
    return ((), {}), [(True, ((d.any_tensor(*d.shape(0, 4)),), {}))]

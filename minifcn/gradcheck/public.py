"""The cases of what users call: the functions of F, Tensor's operators and methods, the layers with parameters.

Their primitives are checked on many geometries (primitives.py), so here each argument is used once, and the points at
kinks are here: what a gradient is there is what the public function says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

import minifcn.functional as F
from minifcn import nn, random
from minifcn.array import Array
from minifcn.autograd import Tensor
from minifcn.gradcheck.cases import Case, apart, case, constant, like, mirrored, normal, positive
from minifcn.gradcheck.models import call_with

_image = normal(2, 4, 6, 5)
_target = np.arange(2 * 6 * 5).reshape(2, 6, 5) % 5  # of 4 classes: 4 is void
_tied = np.array([[[[2.0, 2.0, 0.1, 0.5], [1.0, 2.0, 0.9, -0.7], [0.3, -0.2, 1.4, 1.4]]]])


def _again(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function with the same random numbers in every call."""

    def repeated(x: Tensor) -> Tensor:
        before = random.get_state()
        random.manual_seed(4)
        try:
            return function(x)
        finally:
            random.set_state(before)

    return repeated


def _conv2d() -> Sequence[Case]:
    x, w, b = _image, normal(6, 2, 3, 3, seed=1), normal(6, seed=2)
    return [
        case("stride 2, groups 2", lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1, groups=2), x, w, b),
        case("same, even kernel", lambda x, w: F.conv2d(x, w, padding="same"), x, normal(3, 4, 2, 4)),
        case("no batch, dilation 2", lambda x, w: F.conv2d(x, w, dilation=2), x[0], normal(3, 4, 2, 2)),
    ]


def _conv_transpose2d() -> Sequence[Case]:
    y, w, b = normal(2, 4, 3, 4), normal(4, 3, 3, 3, seed=1), normal(6, seed=2)
    return [
        case(
            "output_size, groups 2",
            lambda y, w, b: F.conv_transpose2d(y, w, b, 2, 1, output_size=(6, 8), groups=2), y, w, b,
        ),
        case("output_padding", lambda y, w: F.conv_transpose2d(y, w, stride=3, output_padding=2), y[0], w),
    ]  # fmt: skip


def _max_pool2d() -> Sequence[Case]:
    def pool(x: Tensor) -> Tensor:
        return cast(Tensor, F.max_pool2d(x, 2, 1, ceil_mode=True))

    return [
        case("overlapping", pool, apart(1, 2, 4, 5)),
        case("ties", pool, _tied, at_kink=True),
        case("a constant image", lambda x: cast(Tensor, F.max_pool2d(x, 3, 2, 1)), np.ones((1, 1, 5, 4)), at_kink=True),
    ]


def _max_unpool2d() -> Sequence[Case]:
    x = apart(1, 2, 5, 6)
    y, indices = F.max_pool2d(Tensor(x), 2, return_indices=True)
    overlapping, twice = F.max_pool2d(Tensor(x), 3, 1, return_indices=True)
    return [
        case("output_size", lambda y: F.max_unpool2d(y, like(indices.data, y), 2, output_size=(5, 6)), y.numpy()),
        case("one pixel twice", lambda y: F.max_unpool2d(y, like(twice.data, y), 3, 1), overlapping.numpy()),
    ]


def _batch_norm() -> Sequence[Case]:
    mean, var, w, b = normal(4), positive(4), normal(4, seed=1), normal(4, seed=2)
    return [
        case("training", lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), _image, w, b),
        case(
            "training, two processes",
            lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, gather=mirrored),
            _image,
            w,
            b,
        ),
        case("training, (N, C)", lambda x: F.batch_norm(x, None, None, training=True), normal(6, 3)),
        case("inference", lambda x, w, b: F.batch_norm(x, like(mean, x), like(var, x), w, b), _image, w, b),
    ]


def _cross_entropy() -> Sequence[Case]:
    weight = np.array([1.0, 2.0, 3.0, 4.0])

    def loss(reduction: str) -> Callable[[Tensor], Tensor]:
        return lambda x: F.cross_entropy(x, like(_target, x), like(weight, x), 4, reduction)

    return [case(f"{reduction}, void, weights", loss(reduction), _image) for reduction in ("mean", "sum", "none")]


def _nll_loss() -> Sequence[Case]:
    return [case("void", lambda x: F.nll_loss(x, like(_target, x), None, 4), _image)]


def _pad() -> Sequence[Case]:
    def pad(mode: str) -> Callable[[Tensor], Tensor]:
        return lambda x: F.pad(x, (2, 1, 1, 3), mode)

    return [
        case("constant, cropping", lambda x: F.pad(x, (1, 2, -1, 3), value=2.0), _image),
        *(case(mode, pad(mode), normal(1, 2, 4, 3)) for mode in ("reflect", "replicate", "circular")),
    ]


def _interpolate() -> Sequence[Case]:
    return [
        case("nearest, smaller", lambda x: F.interpolate(x, (3, 4)), _image),
        case("bilinear, scale 1.7", lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), _image),
    ]


def _einsum() -> Sequence[Case]:
    return [
        case("a 1×1 convolution", lambda x, w: F.einsum("nchv,oc->nohv", x, w), normal(2, 3, 2, 2), normal(4, 3)),
        case("three operands", lambda x, y, z: F.einsum("ij,jk,k->i", x, y, z), normal(2, 3), normal(3, 4), normal(4)),
        case("a diagonal", lambda x: F.einsum("ii->i", x), normal(3, 3)),
    ]


FUNCTION_CASES: dict[str, Callable[[], Sequence[Case]]] = {
    "F.conv2d": _conv2d,
    "F.conv_transpose2d": _conv_transpose2d,
    "F.max_pool2d": _max_pool2d,
    "F.max_unpool2d": _max_unpool2d,
    "F.avg_pool2d": lambda: [
        case("ceil, without padding", lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), _image),
        case("divisor 5", lambda x: F.avg_pool2d(x, 2, divisor_override=5), _image),
    ],
    "F.adaptive_avg_pool2d": lambda: [case("(4, 3)", lambda x: F.adaptive_avg_pool2d(x, (4, 3)), _image)],
    "F.batch_norm": _batch_norm,
    "F.local_response_norm": lambda: [
        case("size 3", lambda x: F.local_response_norm(x, 3, alpha=0.5, k=2.0), normal(2, 5, 3)),
        case("size 2, at 0", lambda x: F.local_response_norm(x, 2), np.zeros((1, 3, 2, 2))),
    ],
    "F.relu": lambda: [
        case("", F.relu, apart(3, 4)),
        case("at 0", F.relu, np.array([0.5, 0.0, -0.7, 0.0, 1.1]), at_kink=True),
        case("near 0", F.relu, np.array([0.5, 2e-6, -3e-7, 1.1])),
    ],
    "F.sigmoid": lambda: [case("far out too", F.sigmoid, normal(3, 4) * 5)],
    "F.softmax": lambda: [case("", lambda x: F.softmax(x, 1), _image)],
    "F.log_softmax": lambda: [case("equal scores too", lambda x: F.log_softmax(x, -1), np.array([[0.3, 0.3, 1.0]]))],
    "F.cross_entropy": _cross_entropy,
    "F.nll_loss": _nll_loss,
    "F.dropout": lambda: [case("", _again(F.dropout), normal(4, 6))],
    "F.dropout2d": lambda: [case("", _again(F.dropout2d), _image)],
    "F.linear": lambda: [case("", lambda x, w, b: F.linear(x, w, b), normal(3, 4), normal(5, 4), normal(5))],
    "F.matmul": lambda: [
        case("batches broadcast", lambda x, y: F.matmul(x, y), normal(2, 1, 3, 4), normal(5, 4, 2)),
        case("matrix and vector", lambda x, y: F.matmul(x, y), normal(3, 4), normal(4)),
    ],
    "F.einsum": _einsum,
    "F.interpolate": _interpolate,
    "F.pixel_shuffle": lambda: [case("", lambda x: F.pixel_shuffle(x, 2), _image)],
    "F.unfold": lambda: [case("", lambda x: F.unfold(x, (3, 2), 2, 1, (2, 1)), _image)],
    "F.fold": lambda: [case("", lambda x: F.fold(x, (4, 5), (2, 3), padding=1, stride=2), normal(2, 12, 9))],
    "F.pad": _pad,
    "F.crop": lambda: [case("", lambda x: F.crop(x, (1, 0), (4, 5)), _image)],
    "F.cat": lambda: [case("three", lambda x, y: F.cat([x, y, x], 1), normal(2, 3), normal(2, 2))],
    "F.stack": lambda: [case("", lambda x, y: F.stack([x, y, x], 1), normal(2, 3), normal(2, 3, seed=1))],
    "F.where": lambda: [case("", lambda x, y: F.where(like(normal(3, 4) > 0, x), x, y), normal(3, 1), normal(4))],
}  # fmt: skip


def _clip() -> Sequence[Case]:
    ends = np.array([-0.5, 0.2, 0.75, 1.4, -0.9])
    return [
        case("", lambda x: x.clip(-0.55, 0.85), apart(3, 4)),
        case("at its ends", lambda x: x.clip(-0.5, 0.75), ends, at_kink=True),
    ]


def _max() -> Sequence[Case]:
    x = np.array([[0.4, 1.2, 1.2], [0.1, -0.5, -0.3]])
    return [
        case("", lambda x: cast(Tensor, x.max()), apart(3, 4)),
        case("ties", lambda x: cast(Tensor, x.max()), x, at_kink=True),
        case("along an axis", lambda x: x.max(1).values, apart(3, 4)),
        case("along an axis, ties", lambda x: x.max(1).values, x, at_kink=True),
    ]


def _min() -> Sequence[Case]:
    x = np.array([[0.4, -1.2, -1.2], [0.1, -0.5, -0.3]])
    return [
        case("ties", lambda x: cast(Tensor, x.min()), x, at_kink=True),
        case("along an axis", lambda x: x.min(0).values, apart(3, 4)),
    ]


def _abs() -> Sequence[Case]:
    return [
        case("", abs, apart(3, 4)),
        case("at 0", abs, np.array([0.5, 0.0, -0.7, 0.0]), at_kink=True),
    ]


TENSOR_CASES: dict[str, Callable[[], Sequence[Case]]] = {
    "Tensor.+": lambda: [case("broadcast", lambda x, y: x + y, normal(3, 1, 4), normal(2, 1))],
    "Tensor.-": lambda: [case("broadcast", lambda x, y: x - y, normal(3, 1, 4), normal(2, 1))],
    "Tensor.*": lambda: [
        case("broadcast", lambda x, y: x * y, normal(3, 1, 4), normal(2, 1)),
        case("x · x", lambda x: x * x, normal(3, 4)),
    ],
    "Tensor./": lambda: [
        case("broadcast", lambda x, y: x / (y * y + 1.0), normal(3, 1, 4), normal(2, 1)),
        case("number / x", lambda x: 2.0 / x, positive(4)),
    ],
    "Tensor.**": lambda: [
        case("number", lambda x: x**2.5, positive(4)),
        case("of a number", lambda x: 2.0**x, normal(4)),
        case("x ** y", lambda x, y: x**y, positive(3, 1), normal(4)),
    ],
    "Tensor.@": lambda: [case("", lambda x, y: x @ y, normal(3, 4), normal(4, 2))],
    "Tensor.[]": lambda: [
        case("slices, array", lambda x: x[1:, like(np.array([0, 2, 2]), x)], normal(3, 4)),
        case("mask", lambda x: x[like(normal(3, 4) > 0, x)], normal(3, 4)),
    ],
    "Tensor.sum": lambda: [case("", lambda x: x.sum((0, 2)), normal(2, 3, 4))],
    "Tensor.mean": lambda: [case("", lambda x: x.mean(1, keepdim=True), normal(2, 3, 4))],
    "Tensor.var": lambda: [case("", lambda x: x.var((0, 2)), normal(2, 3, 4))],
    "Tensor.max": _max,
    "Tensor.min": _min,
    "Tensor.abs": _abs,
    "Tensor.clip": _clip,
    "Tensor.exp": lambda: [case("", lambda x: x.exp(), normal(3, 4))],
    "Tensor.log": lambda: [case("", lambda x: x.log(), positive(3, 4))],
    "Tensor.sqrt": lambda: [case("", lambda x: x.sqrt(), positive(3, 4))],
    "Tensor.tanh": lambda: [case("", lambda x: x.tanh(), normal(3, 4))],
    "Tensor.transpose": lambda: [case("", lambda x: x.transpose(0, 2), normal(2, 3, 4))],
    "Tensor.flatten": lambda: [case("", lambda x: x.flatten(1), normal(2, 3, 4))],
    "Tensor.expand": lambda: [case("", lambda x: x.expand(2, 3, -1), normal(3, 4))],
    "Tensor.to": lambda: [case("float64", lambda x: x.to(np.float64) * constant(normal(4), x), normal(3, 4))],
}


def _layer(name: str, module: nn.Module, x: Array) -> Case:
    """A layer as a function of its input and its parameters."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    arrays = (x, *(normal(*p.shape, seed=k + 1) for k, p in enumerate(parameters)))
    return Case(name, lambda x, *ps: cast(Tensor, call_with(module, ps, x)), arrays, ("input", *names))


def _sequential() -> Sequence[Case]:
    module = nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.Sigmoid())
    return [_layer("Conv2d, BatchNorm2d, Sigmoid", module, _image)]


LAYER_CASES: dict[str, Callable[[], Sequence[Case]]] = {
    "nn.Conv2d": lambda: [_layer("stride 2", nn.Conv2d(4, 6, 3, stride=2, padding=1), _image)],
    "nn.ConvTranspose2d": lambda: [
        _layer("stride 2, output_padding", nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1), _image)
    ],
    "nn.BatchNorm2d": lambda: [
        _layer("training", nn.BatchNorm2d(4), _image),
        _layer("inference", nn.BatchNorm2d(4).eval(), _image),
    ],
    "nn.Linear": lambda: [_layer("", nn.Linear(5, 3), _image)],
    "nn.Sequential": _sequential,
}

"""The cases of the primitives: each with every geometry, at points away from kinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minifcn.array import FLOATS, Array
from minifcn.autograd import PRIMITIVES, Tensor
from minifcn.geometry import AdaptiveGeometry, PoolGeometry, ResizeGeometry
from minifcn.gradcheck.cases import Case, apart, like, mirrored, normal, positive
from minifcn.gradcheck.geometries import CONV_CASES, DILATED_POOL, POOL_CASES

# never recorded, so never differentiated: derivatives of a fused kernel that are computed in one go at first order only
# (functional/_compose.py; the checks of batch_norm and cross_entropy cover what they return), and layers that are fused
# where nothing is recorded (nn/containers.py)
NEVER_RECORDED = frozenset({"batch_norm_grad", "cross_entropy_grad", "conv2d_then"})


def _call(name: str, case: str, *arrays: Array, **params: Any) -> Case:
    """A primitive with these keyword parameters."""
    primitive = PRIMITIVES[name]

    def function(*xs: Tensor) -> Tensor:
        return primitive(*xs, **{key: like(value, xs[0]) for key, value in params.items()})

    return Case(case, function, arrays, primitive.args)


def _one(name: str, *arrays: Array, **params: Any) -> Callable[[], Sequence[Case]]:
    """The only case of a primitive that has no geometry."""
    return lambda: [_call(name, "", *arrays, **params)]


def _conv(name: str, *args: str) -> Sequence[Case]:
    """args names what is passed: the image x, the filter w, the scores y, a bias "c" or "o" for their channels."""
    cases = []
    for given in CONV_CASES:
        g = given.geom
        shapes = {"x": g.x_shape, "w": g.w_shape, "y": g.y_shape, "c": (g.c,), "o": (g.o,)}
        arrays = [normal(*shapes[arg], seed=k) for k, arg in enumerate(args)]
        cases.append(_call(name, given.name, *arrays, geom=g))
    return cases


def _unfold(name: str) -> Sequence[Case]:
    cases = []
    for given in CONV_CASES:
        geom = PoolGeometry.of_unfold(given.x, given.w[2:], given.stride, given.padding, given.dilation, name)
        cases.append(_call(name, given.name, normal(*(given.x if name == "unfold" else geom.columns_shape)), geom=geom))
    return cases


def _max_pool(name: str) -> Sequence[Case]:
    cases = []
    for given in [*POOL_CASES, DILATED_POOL]:
        x, geom = apart(*given.x), given.geom
        if name == "max_pool2d":
            cases.append(_call(name, given.name, x, geom=geom))
        else:
            _, (tap,) = PRIMITIVES["max_pool2d"].with_extras(Tensor(x), geom=geom)
            y = normal(*geom.y_shape)
            cases.append(_call(name, given.name, x if name == "pool_take" else y, tap=tap, geom=geom))
    return cases


def _avg_pool(name: str) -> Sequence[Case]:
    cases = []
    for given in POOL_CASES:
        scale = 1 / (1.0 + np.arange(np.prod(given.geom.y_hw)).reshape(given.geom.y_hw))
        shape = given.x if name == "avg_pool2d" else given.geom.y_shape
        cases.append(_call(name, given.name, normal(*shape), scale=scale, geom=given.geom))
    return cases


def _adaptive(name: str) -> Sequence[Case]:
    cases = []
    for case, y_hw in (("overlapping", (4, 3)), ("larger than the image", (7, 6)), ("global", (1, 1))):
        geom = AdaptiveGeometry((2, 2, 5, 4), y_hw)
        shape = geom.y_shape if name.endswith("adjoint") else geom.x_shape
        cases.append(_call(name, case, normal(*shape), geom=geom))
    return cases


def _resize(name: str) -> Sequence[Case]:
    cases = []
    for mode, corners in (("nearest", False), ("bilinear", False), ("bilinear", True)):
        geom = ResizeGeometry.of_resize((3, 4), (7, 2), None, mode, corners)
        shape = geom.x_hw if name == "interpolate" else geom.y_hw
        cases.append(_call(name, mode + ", corners" * corners, normal(1, 2, *shape), geom=geom))
    return cases


def _cross_entropy() -> Sequence[Case]:
    target = np.array([[0, 1, 255, 2], [2, 2, 0, 255]])
    return [
        _call("cross_entropy", name, normal(2, 3, 4), target=target, weight=weight, ignore_index=255)
        for name, weight in (("void", None), ("void, weights", np.array([0.5, 1.0, 2.0])))
    ]


def _power() -> Sequence[Case]:
    cases = [_call("power", f"k = {k}", positive(3, 4), k=k) for k in (-1.5, 0.5, 1, 2, 3)]
    return [*cases, _call("power", "k = 3, x of both signs", normal(5), k=3)]


def _extreme() -> Sequence[Case]:
    x = apart(3, 4)
    return [_call("extreme", op, x, op=op, share=(x == getattr(x, op)()).astype(float)) for op in ("max", "min")]


def _index() -> Sequence[Case]:
    keys = {
        "integer": 1,
        "slices": (slice(None, None, -2), slice(1, 4)),
        "array, one row twice": np.array([0, 2, 2]),
        "mask": normal(4, 5) > 0,
        "..., None": (..., None, 0),
    }
    return [_call("index", name, normal(4, 5), at=key, shape_in=(4, 5)) for name, key in keys.items()]


def _put() -> Sequence[Case]:
    return [
        _call("put", "array, one row twice", normal(3, 5), at=np.array([0, 2, 2]), shape_in=(4, 5)),
        _call("put", "slice", normal(2, 5), at=slice(1, 3), shape_in=(4, 5)),
    ]


def _astype() -> Sequence[Case]:
    double, astype = FLOATS[1], PRIMITIVES["astype"]
    return [Case("to float64", lambda x: astype(x, dtype=double, dtype_in=x.dtype), (normal(3, 4),), ("x",))]


def _move() -> Sequence[Case]:
    move = PRIMITIVES["move"]
    return [Case("to the CPU", lambda x: move(x, device="cpu", device_in=x.device), (normal(3),), ("x",))]


_mask = normal(3, 4, seed=5) > 0
_at = np.array([[0, 2, 2, 1], [1, 1, 0, 0]])
_given = {"mean": normal(3), "var": normal(3) ** 2 + 0.1, "eps": 1e-5}
_affine = (normal(3, seed=1), normal(3, seed=2))

PRIMITIVE_CASES: dict[str, Callable[[], Sequence[Case]]] = {
    "conv2d": lambda: _conv("conv2d", "x", "w"),
    "conv_transpose2d": lambda: _conv("conv_transpose2d", "y", "w"),
    "conv2d_weight": lambda: _conv("conv2d_weight", "x", "y"),
    "conv2d_bias": lambda: _conv("conv2d_bias", "x", "w", "o"),
    "conv_transpose2d_bias": lambda: _conv("conv_transpose2d_bias", "y", "w", "c"),
    "channel_sum": _one("channel_sum", normal(2, 3, 2, 4), shape=(2, 3, 2, 4)),
    "unfold": lambda: _unfold("unfold"),
    "fold": lambda: _unfold("fold"),
    "max_pool2d": lambda: _max_pool("max_pool2d"),
    "pool_take": lambda: _max_pool("pool_take"),
    "pool_put": lambda: _max_pool("pool_put"),
    "avg_pool2d": lambda: _avg_pool("avg_pool2d"),
    "avg_pool2d_adjoint": lambda: _avg_pool("avg_pool2d_adjoint"),
    "adaptive_avg_pool2d": lambda: _adaptive("adaptive_avg_pool2d"),
    "adaptive_avg_pool2d_adjoint": lambda: _adaptive("adaptive_avg_pool2d_adjoint"),
    "interpolate": lambda: _resize("interpolate"),
    "interpolate_adjoint": lambda: _resize("interpolate_adjoint"),
    "batch_norm": _one("batch_norm", normal(2, 3, 3, 2), *_affine, eps=1e-5),
    "batch_norm_synced": _one("batch_norm_synced", normal(2, 3, 3, 2), *_affine, eps=1e-5, gather=mirrored),
    "sum_of_processes": _one("sum_of_processes", normal(3, 4), gather=mirrored),
    "batch_norm_inference": _one("batch_norm_inference", normal(2, 3, 2, 2), *_affine, **_given),
    "cross_entropy": _cross_entropy,
    "log_softmax": _one("log_softmax", normal(2, 4, 3), axis=1),
    "relu": _one("relu", apart(3, 5)),
    "relu_grad": _one("relu_grad", normal(3, 5), apart(3, 5)),
    "sigmoid": _one("sigmoid", normal(3, 4) * 3),
    "dropout": _one("dropout", normal(4, 6), p=0.4, seed=3, offset=0, period=1),
    "matmul": _one("matmul", normal(2, 3, 4), normal(2, 4, 5)),
    "add": _one("add", normal(3, 4), normal(3, 4, seed=1)),
    "sub": _one("sub", normal(3, 4), normal(3, 4, seed=1)),
    "mul": _one("mul", normal(3, 4), normal(3, 4, seed=1)),
    "div": _one("div", normal(3, 4), positive(3, 4)),
    "neg": _one("neg", normal(3, 4)),
    "power": _power,
    "pow": _one("pow", positive(3, 4), normal(3, 4, seed=1)),
    "exp": _one("exp", normal(3, 4)),
    "log": _one("log", positive(3, 4)),
    "sqrt": _one("sqrt", positive(3, 4)),
    "tanh": _one("tanh", normal(3, 4)),
    "tanh_grad": _one("tanh_grad", normal(3, 4), np.tanh(normal(3, 4, seed=1))),
    "abs": _one("abs", apart(3, 4)),
    "sign": _one("sign", apart(3, 4)),
    "where": _one("where", normal(3, 4), normal(3, 4, seed=1), mask=_mask),
    "sum": _one("sum", normal(2, 3, 4), axes=(0, 2), shape_in=(2, 3, 4)),
    "var": _one("var", normal(2, 3, 4), axes=(0, 2), divisor=7),
    "extreme": _extreme,
    "broadcast_to": _one("broadcast_to", normal(3, 1), shape=(2, 3, 4), shape_in=(3, 1)),
    "sum_to": _one("sum_to", normal(2, 3, 4), shape=(2, 3, 4), shape_in=(3, 1)),
    "reshape": _one("reshape", normal(2, 6), shape=(3, 4), shape_in=(2, 6)),
    "permute": _one("permute", normal(2, 3, 4), axes=(2, 0, 1)),
    "index": _index,
    "put": _put,
    "gather": _one("gather", normal(3, 4), at=_at, dim=0, shape_in=(3, 4)),
    "scatter": _one("scatter", normal(2, 4), at=_at, dim=0, shape_in=(3, 4)),
    "pad": _one("pad", normal(2, 3), at=(slice(1, 3), slice(0, 3)), shape=(4, 5), value=1.5),
    "cat": _one("cat", normal(2, 3), normal(2, 2, seed=1), axis=1, split=3),
    "astype": _astype,
    "move": _move,
    "copy": _one("copy", normal(3)),
    "alias": _one("alias", normal(3)),
}

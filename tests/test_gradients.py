"""Every primitive, every argument, orders 1 and 2, against central differences in float64; and the adjoint pairs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cases import CONV_CASES, DILATED_POOL, POOL_CASES, ConvCase, PoolCase, names

import minifcn as mf
import minifcn.functional as F
from minifcn import nn
from minifcn.autograd import PRIMITIVES, Tensor
from minifcn.geometry import ResizeGeometry
from minifcn.gradcheck import check_adjoint, check_grad

Case = tuple[Callable[..., Tensor], list[np.ndarray]]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def apart(*shape: int) -> np.ndarray:
    """Values at least 0.1 apart and as far from 0, so that no maximum and no kink is near."""
    count = int(np.prod(shape))
    values = (np.arange(count) - count // 2 + 0.5) * 0.2
    return np.random.default_rng(count).permutation(values).reshape(shape)


def call(name: str, *arrays: np.ndarray, **params: Any) -> Case:
    return (lambda *args: PRIMITIVES[name](*args, **params)), list(arrays)


def conv_cases(name: str, first: str, second: str) -> Iterator[Case]:
    for case in CONV_CASES:
        shapes = {"x": case.geom.x_shape, "w": case.geom.w_shape, "y": case.geom.y_shape}
        yield call(name, normal(*shapes[first]), normal(*shapes[second], seed=1), geom=case.geom)


def pool_cases(name: str) -> Iterator[Case]:
    for case in [*POOL_CASES, DILATED_POOL]:
        x = apart(*case.x)
        _, (tap,) = PRIMITIVES["max_pool2d"].with_extras(Tensor(x), geom=case.geom)
        if name == "max_pool2d":
            yield call(name, x, geom=case.geom)
        else:
            yield call(name, x if name == "pool_take" else normal(*case.geom.y_shape), tap=tap, geom=case.geom)


def avg_cases(name: str) -> Iterator[Case]:
    for case in POOL_CASES:
        scale = 1 / (1.0 + np.arange(np.prod(case.geom.y_hw)).reshape(case.geom.y_hw))
        yield call(name, normal(*(case.x if name == "avg_pool2d" else case.geom.y_shape)), scale=scale, geom=case.geom)


def resize_cases(name: str) -> Iterator[Case]:
    for mode, corners in (("nearest", False), ("bilinear", False), ("bilinear", True)):
        geom = ResizeGeometry.of_resize((3, 4), (7, 2), None, mode, corners)
        yield call(name, normal(1, 2, *(geom.x_hw if name == "interpolate" else geom.y_hw)), geom=geom)


def cross_entropy_cases() -> Iterator[Case]:
    target = np.array([[0, 1, 255, 2], [2, 2, 0, 255]])
    for weight in (None, np.array([0.5, 1.0, 2.0])):
        yield call("cross_entropy", normal(2, 3, 4), target=target, weight=weight, ignore_index=255)


def inference_cases() -> Iterator[Case]:
    given = {"mean": normal(3), "var": normal(3) ** 2 + 0.1, "eps": 1e-5}
    yield call("batch_norm_inference", normal(2, 3, 2, 2), normal(3, seed=1), normal(3, seed=2), **given)


def one(name: str, *arrays: np.ndarray, **params: Any) -> Callable[[], Iterator[Case]]:
    return lambda: iter([call(name, *arrays, **params)])


positive = np.abs(normal(3, 4)) + 0.5
mask = normal(3, 4, seed=5) > 0
at = np.array([[0, 2, 2, 1], [1, 1, 0, 0]])
CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "conv2d": lambda: conv_cases("conv2d", "x", "w"),
    "conv_transpose2d": lambda: conv_cases("conv_transpose2d", "y", "w"),
    "conv2d_weight": lambda: conv_cases("conv2d_weight", "x", "y"),
    "add_bias": one("add_bias", normal(2, 3, 2, 2), normal(3)),
    "max_pool2d": lambda: pool_cases("max_pool2d"),
    "pool_take": lambda: pool_cases("pool_take"),
    "pool_put": lambda: pool_cases("pool_put"),
    "avg_pool2d": lambda: avg_cases("avg_pool2d"),
    "avg_pool2d_adjoint": lambda: avg_cases("avg_pool2d_adjoint"),
    "interpolate": lambda: resize_cases("interpolate"),
    "interpolate_adjoint": lambda: resize_cases("interpolate_adjoint"),
    "batch_norm": one("batch_norm", normal(2, 3, 3, 2), normal(3, seed=1), normal(3, seed=2), eps=1e-5),
    "batch_norm_inference": inference_cases,
    "cross_entropy": cross_entropy_cases,
    "relu": one("relu", apart(3, 5)),
    "relu_grad": one("relu_grad", normal(3, 5), apart(3, 5)),
    "sigmoid": one("sigmoid", normal(3, 4) * 3),
    "log_softmax": one("log_softmax", normal(2, 4, 3), axis=1),
    "dropout": one("dropout", normal(4, 6), p=0.4, seed=3, offset=0, period=1),
    "matmul": one("matmul", normal(2, 3, 4), normal(2, 4, 5)),
    "add": one("add", normal(3, 4), normal(3, 4, seed=1)),
    "sub": one("sub", normal(3, 4), normal(3, 4, seed=1)),
    "mul": one("mul", normal(3, 4), normal(3, 4, seed=1)),
    "div": one("div", normal(3, 4), positive),
    "neg": one("neg", normal(3, 4)),
    "power": lambda: iter(
        [call("power", positive, k=k) for k in (-1.5, 0.5, 1, 2, 3)] + [call("power", normal(5), k=3)]
    ),
    "pow": one("pow", positive, normal(3, 4, seed=1)),
    "safe_log": one("safe_log", np.where(mask, positive, -positive)),
    "exp": one("exp", normal(3, 4)),
    "log": one("log", positive),
    "sqrt": one("sqrt", positive),
    "tanh": one("tanh", normal(3, 4)),
    "abs": one("abs", apart(3, 4)),
    "sign": one("sign", apart(3, 4)),
    "where": one("where", normal(3, 4), normal(3, 4, seed=1), mask=mask),
    "astype": one("astype", normal(3, 4), dtype=np.dtype(np.float64), dtype_in=np.dtype(np.float64)),
    "copy": one("copy", normal(3)),
    "cat": one("cat", normal(2, 3), normal(2, 2, seed=1), axis=1, split=3),
    "alias": one("alias", normal(3)),
    "move": one("move", normal(3), device="cpu", device_in="cpu"),
    "broadcast_to": one("broadcast_to", normal(3, 1), shape=(2, 3, 4), shape_in=(3, 1)),
    "sum_to": one("sum_to", normal(2, 3, 4), shape=(2, 3, 4), shape_in=(3, 1)),
    "sum": one("sum", normal(2, 3, 4), axes=(0, 2), shape_in=(2, 3, 4)),
    "extreme": lambda: iter(
        [
            call("extreme", apart(3, 4), op=op, share=(apart(3, 4) == getattr(apart(3, 4), op)()).astype(float))
            for op in ("max", "min")
        ]
    ),
    "reshape": one("reshape", normal(2, 6), shape=(3, 4), shape_in=(2, 6)),
    "permute": one("permute", normal(2, 3, 4), axes=(2, 0, 1)),
    "index": lambda: iter(
        [
            call("index", normal(4, 5), at=key, shape_in=(4, 5))
            for key in (1, (slice(None, None, -2), slice(1, 4)), np.array([0, 2, 2]), normal(4, 5) > 0, (..., None, 0))
        ]
    ),
    "put": lambda: iter(
        [
            call("put", normal(3, 5), at=np.array([0, 2, 2]), shape_in=(4, 5)),
            call("put", normal(2, 5), at=slice(1, 3), shape_in=(4, 5)),
        ]
    ),
    "gather": one("gather", normal(3, 4), at=at, dim=0, shape_in=(3, 4)),
    "scatter": one("scatter", normal(2, 4), at=at, dim=0, shape_in=(3, 4)),
    "pad": one("pad", normal(2, 3), at=(slice(1, 3), slice(0, 3)), shape=(4, 5), value=1.5),
}
# derivatives of a fused kernel that are computed in one go at first order only: never recorded, so never differentiated
FIRST_ORDER_ONLY = {"batch_norm_grad", "cross_entropy_grad"}


def test_every_primitive_has_a_case() -> None:
    assert set(CASES) == set(PRIMITIVES) - FIRST_ORDER_ONLY


@pytest.mark.parametrize("name", sorted(CASES))
def test_primitive_at_orders_1_and_2(name: str) -> None:
    arguments = set()
    for f, arrays in CASES[name]():
        checks = check_grad(f, arrays, order=2, directions=2)
        assert max(c.error for c in checks) < 1e-6
        arguments |= {(c.order, c.argument) for c in checks}
    count = len(PRIMITIVES[name].args)
    assert arguments == {(1, k) for k in range(count)} | {(2, k) for k in range(count + 1)}


def functions() -> Iterator[tuple[str, Case]]:
    x, w, b = normal(2, 4, 6, 5), normal(6, 2, 3, 3, seed=1), normal(6, seed=2)
    yield "conv2d", (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1, groups=2), [x, w, b])
    yield "conv2d same", (lambda x, w: F.conv2d(x, w, padding="same"), [x, normal(3, 4, 2, 4)])
    y, v, c = normal(2, 4, 3, 4), normal(4, 3, 3, 3, seed=1), normal(6, seed=2)
    yield (
        "conv_transpose2d",
        (lambda y, v, c: F.conv_transpose2d(y, v, c, 2, 1, output_size=(6, 8), groups=2), [y, v, c]),
    )
    yield "batch_norm training", (lambda x, g, b: F.batch_norm(x, None, None, g, b, True), [x, normal(4), normal(4)])
    mean, var = normal(4), normal(4) ** 2 + 0.1
    yield "batch_norm inference", (lambda x, g, b: F.batch_norm(x, mean, var, g, b), [x, normal(4), normal(4)])
    target = np.arange(2 * 6 * 5).reshape(2, 6, 5) % 5
    for reduction in ("mean", "sum", "none"):
        yield (
            f"cross_entropy {reduction}",
            (lambda x, r=reduction: F.cross_entropy(x, target, np.array([1.0, 2, 3, 4]), 4, r), [x]),
        )
    yield "nll_loss", (lambda x: F.nll_loss(F.log_softmax(x, 1), target, None, 4), [x])
    yield "softmax", (lambda x: F.softmax(x, 1), [x])
    yield "adaptive_avg_pool2d", (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), [x])
    yield "avg_pool2d", (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), [x])
    yield "interpolate", (lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), [x])
    yield "linear", (F.linear, [normal(3, 4), normal(5, 4), normal(5)])
    yield "pixel_shuffle", (lambda x: F.pixel_shuffle(x, 2), [x])
    yield "pad and crop", (lambda x: F.crop(F.pad(x, (1, 2, -1, 3), value=2.0), (1, 0), (4, 5)), [x])
    yield "cat and stack", (lambda a, b: F.stack([F.cat([a, b], 1), F.cat([b, a], 1)]), [normal(2, 3), normal(2, 2)])
    yield "mean, var, max", (lambda x: x.mean(1) + x.var((1,)) + x.max(1).values, [apart(3, 5)])
    yield "broadcasting", (lambda a, b: (a * b + a) / (b * b + 1.0), [normal(3, 1, 4), normal(2, 1)])
    yield "clip", (lambda x: x.clip(-0.55, 0.85), [apart(3, 4)])
    yield "dropout2d", (lambda x: repeat_dropout(x), [x])


def repeat_dropout(x: Tensor) -> Tensor:
    mf.manual_seed(4)
    return F.dropout2d(x, 0.5)


@pytest.mark.parametrize(("name", "case"), list(functions()), ids=[name for name, _ in functions()])
def test_function_at_orders_1_and_2(name: str, case: Case) -> None:
    check_grad(*case, order=2)


@pytest.mark.parametrize("case", CONV_CASES, ids=names(CONV_CASES))
def test_transposed_convolution_is_the_adjoint(case: ConvCase) -> None:
    """⟨conv2d(x, w), y⟩ = ⟨x, conv_transpose2d(y, w)⟩ with one and the same w, through the public functions."""
    w = Tensor(normal(*case.w))
    check_adjoint(
        lambda x: F.conv2d(x, w, None, case.stride, case.padding, case.dilation, case.groups),
        lambda y: F.conv_transpose2d(
            y, w, None, case.stride, case.padding, case.output_padding, case.groups, case.dilation
        ),
        case.geom.x_shape,
        case.geom.y_shape,
    )


@pytest.mark.parametrize("case", CONV_CASES, ids=names(CONV_CASES))
def test_three_kernels_share_one_trilinear_form(case: ConvCase) -> None:
    """B(x, w, y) is the same number through each of its three derivatives."""
    geom = case.geom
    x, w, y = (Tensor(normal(*shape)) for shape in (geom.x_shape, geom.w_shape, geom.y_shape))
    values = [
        (PRIMITIVES["conv2d"](x, w, geom=geom) * y).sum().item(),
        (PRIMITIVES["conv_transpose2d"](y, w, geom=geom) * x).sum().item(),
        (PRIMITIVES["conv2d_weight"](x, y, geom=geom) * w).sum().item(),
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", POOL_CASES, ids=names(POOL_CASES))
def test_pooling_pairs_are_adjoint(case: PoolCase) -> None:
    geom = case.geom
    _, (tap,) = PRIMITIVES["max_pool2d"].with_extras(Tensor(normal(*case.x)), geom=geom)
    take, put = PRIMITIVES["pool_take"], PRIMITIVES["pool_put"]
    check_adjoint(
        lambda x: take(x, tap=tap, geom=geom), lambda y: put(y, tap=tap, geom=geom), geom.x_shape, geom.y_shape
    )
    scale = np.full(geom.y_hw, 0.3)
    mean, spread = PRIMITIVES["avg_pool2d"], PRIMITIVES["avg_pool2d_adjoint"]
    check_adjoint(
        lambda x: mean(x, scale=scale, geom=geom),
        lambda y: spread(y, scale=scale, geom=geom),
        geom.x_shape,
        geom.y_shape,
    )


def narrow(name: str) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A narrowed network in float64 with nothing at a kink or at zero, an odd-sized image and labels with void."""
    model = mf.models.create(name, num_classes=3, width=1 / 32, seed=1).to(np.float64)
    rng = np.random.default_rng(2)
    for _, p in model.named_parameters():
        if (p.data == 0).all():  # zero scores would make every other gradient zero
            p.data = rng.standard_normal(p.shape) * 0.3
    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    hw = (17, 14) if name.endswith("_paper") else (45, 38)
    labels = rng.integers(0, 4, (2, *hw))
    return model, rng.standard_normal((2, 3, *hw)), np.where(labels == 3, 255, labels)


@pytest.mark.parametrize(
    "name", ["fcn8s_vgg16", "fcn8s_vgg16_paper", "fcn8s_resnet101", "fcn8s_resnet18_aligned", "fcn16s_decoder_resnet18"]
)
def test_whole_network(name: str) -> None:
    """Every parameter tensor of a complete network (fixed ones too), by a random direction each."""
    model, image, labels = narrow(name)
    model.requires_grad_(True)
    names, parameters = zip(*model.named_parameters(), strict=True)

    def loss() -> Tensor:
        return F.cross_entropy(model(Tensor(image)), labels, ignore_index=255)

    gradients = mf.grad(loss(), parameters)
    rng = np.random.default_rng(3)
    # rounding asks for a large step; where a ReLU or a pooling winner changes within it, only a smaller one is right
    steps = (1e-5, 1e-6, 1e-7, 3e-8)
    scale = max(float(np.abs(g.data).max()) for g in gradients)
    for parameter_name, p, g in zip(names, parameters, gradients, strict=True):
        d = rng.standard_normal(p.shape)
        d /= np.linalg.norm(d)
        analytic, original = float(np.vdot(g.data, d)), p.data
        errors = []
        for step in steps:
            with mf.no_grad():
                slope = []
                for sign in (1, -1):
                    p.data = original + sign * step * d
                    slope.append(loss().item())
            p.data = original
            numeric = (slope[0] - slope[1]) / (2 * step)
            errors.append(abs(analytic - numeric) / (abs(analytic) + abs(numeric) + 1e-3 * scale))
            if errors[-1] < 1e-6:
                break
        assert min(errors) < 1e-6, f"{parameter_name}: {analytic} against {numeric}, errors {errors}"

"""Adjoint pairs: ⟨A(x), y⟩ = ⟨x, B(y)⟩ to 1e-12 in float64, with no step size and nothing to tune.

Convolution and transposed convolution through the public functions, over every combination of their parameters, and
every other pair that the gradients rest on. Random x and y: a wrong index, sign or factor anywhere shows.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from cases import POOL_CASES, PoolCase, names

import minifcn.functional as F
from minifcn.array import to_device
from minifcn.autograd import PRIMITIVES, Tensor
from minifcn.geometry import AdaptiveGeometry, ResizeGeometry
from minifcn.gradcheck import check_adjoint
from minifcn.gradcheck.cases import constant, like

Shape = tuple[int, ...]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape)


def pair(name: str, adjoint: str, x_shape: Shape, y_shape: Shape, device: str, **params: Any) -> float:
    """Two primitives with the same parameters, arrays among them on the device."""
    there, back = PRIMITIVES[name], PRIMITIVES[adjoint]
    params = {k: on(v, device) for k, v in params.items()}
    return check_adjoint(lambda x: there(x, **params), lambda y: back(y, **params), x_shape, y_shape, device=device)


def on(value: Any, device: str) -> Any:
    """The value with the arrays in it on the device."""
    if isinstance(value, tuple):
        return tuple(on(v, device) for v in value)
    return to_device(value, device) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
@pytest.mark.parametrize("padding", [0, 1, (2, 3)])
@pytest.mark.parametrize("stride", [1, 2, 3, (2, 1)])
def test_convolution_and_transposed_convolution(
    stride: Any, padding: Any, dilation: Any, groups: int, device: str
) -> None:
    """One weight array for both. Every image size that one score size has, so every output_padding from 0 up."""
    strides, paddings, dilations = (v if isinstance(v, tuple) else (v, v) for v in (stride, padding, dilation))
    count = 0
    for w_hw, scores in product([(1, 1), (3, 3), (4, 2)], [(1, 1), (5, 9)]):
        w = Tensor(normal(4, 4 // groups, *w_hw)).to(device)
        for extra in product(range(strides[0]), range(strides[1])):
            x_hw = [
                (p - 1) * s - 2 * pad + d * (k - 1) + 1 + e
                for p, s, pad, d, k, e in zip(scores, strides, paddings, dilations, w_hw, extra, strict=True)
            ]
            if min(x_hw) < 1:  # the padding would crop everything away
                continue
            check_adjoint(
                lambda x, w=w: F.conv2d(x, w, None, stride, padding, dilation, groups),
                lambda y, w=w, e=extra: F.conv_transpose2d(y, w, None, stride, padding, e, groups, dilation),
                (2, 4, *x_hw),
                (2, 4, *scores),
                tolerance=1e-12,
                device=device,
            )
            count += 1
    assert count >= 3 * strides[0] * strides[1]  # the larger of the scores always fit


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("extra", [(0, 0), (1, 0), (2, 1)])
def test_output_padding_up_to_the_dilation(stride: int, extra: tuple[int, int], device: str) -> None:
    """PyTorch allows output_padding below the dilation too: rows that no window of the matching convolution reads."""
    w = Tensor(normal(3, 2, 3, 3)).to(device)
    y_shape, dilation = (1, 3, 4, 3), 3
    x_shape = F.conv_transpose2d(Tensor(np.zeros(y_shape)).to(device), w, None, stride, 0, extra, 1, dilation).shape
    scores = F.conv2d(Tensor(np.zeros(x_shape)).to(device), w, None, stride, 0, dilation).shape[2:]
    check_adjoint(
        lambda x: F.crop(F.conv2d(x, w, None, stride, 0, dilation), (0, 0), (4, 3)),
        lambda y: F.conv_transpose2d(y, w, None, stride, 0, extra, 1, dilation),
        x_shape,
        y_shape,
        device=device,
    )
    assert scores[0] >= 4
    assert scores[1] >= 3


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (2, 1)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 2), (2, 4)])
def test_unfold_and_fold(kernel_size: Any, dilation: Any, padding: Any, stride: Any, device: str) -> None:
    hw = (7, 8)
    columns = F.unfold(Tensor(np.zeros((2, 3, *hw))), kernel_size, dilation, padding, stride).shape
    check_adjoint(
        lambda x: F.unfold(x, kernel_size, dilation, padding, stride),
        lambda t: F.fold(t, hw, kernel_size, dilation, padding, stride),
        (2, 3, *hw),
        columns,
        device=device,
    )


@pytest.mark.parametrize("counts", [(1, 2, 3, 0), (0, 0, 5, 1), (4, 0, 0, 0)])
def test_pad_and_crop(counts: tuple[int, int, int, int], device: str) -> None:
    left, right, top, bottom = counts
    check_adjoint(
        lambda x: F.pad(x, counts),
        lambda y: F.crop(y, (top, left), (5, 4)),
        (2, 3, 5, 4),
        (2, 3, 5 + top + bottom, 4 + left + right),
        device=device,
    )
    check_adjoint(
        lambda x: F.pad(x, counts),
        lambda y: F.pad(y, [-k for k in counts]),
        (5, 4),
        (5 + top + bottom, 4 + left + right),
        device=device,
    )


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_by_rows_of_the_image(mode: str, device: str) -> None:
    """Their adjoint adds the border rows back: the gradient, which is linear in its cotangent."""
    check_by_gradient(lambda x: F.pad(x, (2, 1, 0, 3), mode), (1, 2, 5, 4), device)


def check_by_gradient(f: Callable[[Tensor], Tensor], x_shape: Shape, device: str) -> None:
    """A linear function against its gradient, as two maps of which neither is known to be right."""

    def back(y: Tensor) -> Tensor:
        x = Tensor(to_device(np.zeros(x_shape), device), requires_grad=True)
        f(x).backward(y)
        assert x.grad is not None
        return x.grad

    y_shape = f(Tensor(np.zeros(x_shape)).to(device)).shape
    adjoint = lambda y: _recording(lambda: back(y))  # noqa: E731
    check_adjoint(f, adjoint, x_shape, y_shape, device=device)


def _recording(work: Callable[[], Tensor]) -> Tensor:
    from minifcn import set_grad_enabled

    with set_grad_enabled(True):  # check_adjoint evaluates without recording
        return work()


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "corners"])
@pytest.mark.parametrize(
    "sizes", [((3, 4), (7, 9)), ((8, 5), (3, 5)), ((1, 1), (4, 3)), ((5, 6), (1, 1)), ((4, 4), (8, 2))]
)
def test_interpolation_and_its_adjoint(mode: str, sizes: Any, device: str) -> None:
    x_hw, y_hw = sizes
    for factor in (None, (y_hw[0] / x_hw[0] + 0.05, y_hw[1] / x_hw[1] + 0.01)):
        geom = ResizeGeometry.of_resize(
            x_hw, y_hw, factor, "nearest" if mode == "nearest" else "bilinear", mode == "corners"
        )
        pair("interpolate", "interpolate_adjoint", (2, 3, *x_hw), (2, 3, *y_hw), device, geom=geom)


@pytest.mark.parametrize("case", POOL_CASES, ids=names(POOL_CASES))
def test_pool_take_and_put(case: PoolCase, device: str) -> None:
    geom = case.geom
    _, (tap,) = PRIMITIVES["max_pool2d"].with_extras(Tensor(normal(*case.x)).to(device), geom=geom)
    pair("pool_take", "pool_put", geom.x_shape, geom.y_shape, device, tap=tap, geom=geom)


@pytest.mark.parametrize("case", POOL_CASES, ids=names(POOL_CASES))
def test_window_sums_and_spread(case: PoolCase, device: str) -> None:
    geom = case.geom
    scale = normal(*geom.y_hw)
    pair("avg_pool2d", "avg_pool2d_adjoint", geom.x_shape, geom.y_shape, device, scale=scale, geom=geom)


@pytest.mark.parametrize("y_hw", [(1, 1), (3, 4), (9, 2), (6, 5)])
def test_adaptive_means_and_spread(y_hw: tuple[int, int], device: str) -> None:
    geom = AdaptiveGeometry((2, 3, 6, 5), y_hw)
    pair("adaptive_avg_pool2d", "adaptive_avg_pool2d_adjoint", geom.x_shape, geom.y_shape, device, geom=geom)


def test_max_unpool_gathers_back(device: str) -> None:
    _, indices = F.max_pool2d(Tensor(normal(2, 3, 6, 7)).to(device), 3, 2, return_indices=True)  # windows overlap
    check_by_gradient(lambda y: F.max_unpool2d(y, indices, 3, 2, output_size=(6, 7)), (2, 3, 2, 3), device)


@pytest.mark.parametrize(
    ("small", "large"), [((3, 1), (2, 3, 4)), ((), (3, 2)), ((1, 1), (4, 5)), ((4,), (3, 4)), ((0, 1), (0, 3))]
)
def test_broadcast_and_sum(small: Shape, large: Shape, device: str) -> None:
    pair("broadcast_to", "sum_to", small, large, device, shape=large, shape_in=small)
    check_adjoint(
        lambda x: x.expand(large),
        lambda y: PRIMITIVES["sum_to"](y, shape=large, shape_in=small),
        small,
        large,
        device=device,
    )


@pytest.mark.parametrize(
    "at",
    [
        1,
        (slice(None, None, -2), slice(1, 4)),
        np.array([0, 2, 2, 2]),
        (np.array([3, 0, 3]), np.array([1, 1, 1])),
        (slice(None), np.array([[4, 4], [0, 4]])),
        normal(4, 5) > 0,
        (..., None, 0),
    ],
    ids=str,
)
def test_indexing_and_putting_back(at: Any, device: str) -> None:
    y_shape = normal(4, 5)[at].shape
    pair("index", "put", (4, 5), y_shape, device, at=at, shape_in=(4, 5))


@pytest.mark.parametrize("dim", [0, 1])
def test_gather_and_scatter(dim: int, device: str) -> None:
    """Repeated indices: what was read twice is added twice."""
    at = np.array([[0, 1, 1], [1, 0, 1]])
    pair("gather", "scatter", (2, 3), (2, 3), device, at=at, dim=dim, shape_in=(2, 3))


LINEAR: list[tuple[str, Callable[[Tensor], Tensor], Shape]] = [
    ("sum", lambda x: x.sum((0, 2)), (2, 3, 4)),
    ("mean", lambda x: x.mean(1, keepdim=True), (2, 3, 4)),
    ("reshape and permute", lambda x: x.reshape(4, 6).permute(1, 0), (2, 3, 4)),
    ("cat of itself", lambda x: F.cat([x, x * 2, x], 1), (2, 3)),
    ("stack", lambda x: F.stack([x, x], -1), (2, 3)),
    ("matmul", lambda x: x @ constant(normal(4, 5), x), (2, 3, 4)),
    ("einsum", lambda x: F.einsum("nchv,oc->nohv", x, constant(normal(5, 3), x)), (2, 3, 4, 2)),
    ("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), (2, 8, 3, 2)),
    ("where", lambda x: F.where(like(normal(3, 4) > 0, x), x, 0.0), (3, 4)),
    ("conv2d with padding same", lambda x: F.conv2d(x, constant(normal(3, 2, 4, 2), x), padding="same"), (1, 2, 5, 6)),
]


@pytest.mark.parametrize(("name", "f", "shape"), LINEAR, ids=[name for name, *_ in LINEAR])
def test_a_linear_function_and_its_gradient(
    name: str, f: Callable[[Tensor], Tensor], shape: Shape, device: str
) -> None:
    check_by_gradient(f, shape, device)

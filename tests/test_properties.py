"""Random geometries: minifcn against its own definition in index loops, and against PyTorch where it is installed.

Forward and both gradients. A geometry that is impossible must be refused in one sentence, and PyTorch must refuse it
too. `python -m pytest tests/test_properties.py --hypothesis-profile nightly` draws 20,000 of each kind and prints the
counts; the ordinary run draws 100.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from geometries import COUNTS, Conv, Pool, Resize, convs, pools, resizes
from hypothesis import example, given

import minifcn as mf
import minifcn.functional as F
from minifcn.array import to_device
from minifcn.autograd import Tensor
from minifcn.kernels.registry import REFERENCE

HAS_TORCH = find_spec("torch") is not None
if HAS_TORCH:
    import torch

Arrays = list[np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape)


def ours(f: Callable[..., Tensor], arrays: Arrays, device: str = "cpu", g_seed: int = 5) -> Arrays:
    """[value, gradient in every argument] for a cotangent that depends on the shape of the value only."""
    xs = [Tensor(to_device(a, device), requires_grad=True) for a in arrays]
    y = f(*xs)
    g = np.random.default_rng(g_seed).standard_normal(y.shape)
    return [y.numpy(), *(t.numpy() for t in mf.grad(y, xs, Tensor(g).to(device)))]


def theirs(f: Callable[..., Any], arrays: Arrays, g_seed: int = 5) -> Arrays:
    xs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = f(*xs)
    g = torch.tensor(np.random.default_rng(g_seed).standard_normal(tuple(y.shape)))
    return [y.detach().numpy(), *(t.numpy() for t in torch.autograd.grad(y, xs, g))]


def equal(left: Arrays, right: Arrays, what: str) -> None:
    for k, (a, b) in enumerate(zip(left, right, strict=True)):
        assert a.shape == b.shape, f"{what}, {k}: {a.shape} and {b.shape}"
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * max(1, np.abs(b).max(initial=0)), err_msg=f"{what}, {k}")


def refused(op: str, work: Callable[[], object], torch_work: Callable[[], object]) -> None:
    """Both raise, and ours says it as the house does."""
    with pytest.raises(ValueError, match=f"^{op}: [^\n]+$"):
        work()
    if HAS_TORCH:
        with pytest.raises(RuntimeError):
            torch_work()
    COUNTS[f"{op}: refused"] += 1


def compare(
    op: str, kernels: tuple[str, ...], f: Callable[[Any], Callable[..., Any]], arrays: Arrays, device: str
) -> Arrays:
    """f(F) with the device's kernels, with the definitions, and f(torch's functions): one answer."""
    fast = ours(f(F), arrays, device)
    with mf.using(**dict.fromkeys(kernels, REFERENCE)):
        equal(fast, ours(f(F), arrays), f"{op} and its definition")
    COUNTS[f"{op}: compared with reference"] += 1
    if HAS_TORCH:
        equal(fast, theirs(f(torch.nn.functional), arrays), f"{op} and PyTorch")
        COUNTS[f"{op}: compared with PyTorch"] += 1
    return fast


CONVOLUTIONS = ("conv2d", "conv_transpose2d", "conv2d_weight")


@given(convs())
def test_conv2d(device: str, case: Conv) -> None:
    shape = (case.n, case.c * case.groups, *case.hw)
    arrays = [normal(*shape), normal(*case.weight), normal(case.weight[0])]

    def f(F: Any) -> Callable[..., Any]:
        return lambda x, w, b: F.conv2d(x, w, b, case.stride, case.padding, case.dilation, case.groups)

    if min(case.scores) < 1:
        refused(
            "conv2d",
            lambda: f(F)(*(Tensor(a) for a in arrays)),
            lambda: f(torch.nn.functional)(*(torch.tensor(a) for a in arrays)),
        )
        return
    y = compare("conv2d", CONVOLUTIONS, f, arrays, device)[0]
    assert y.shape == (case.n, case.weight[0], *case.scores)


# found by a run of these tests: a pointwise filter whose output_padding makes more pixels than there are scores
@example(Conv(1, 1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (2, 1), (1, 0)))
@given(convs(transposed=True))
def test_conv_transpose2d(device: str, case: Conv) -> None:
    shape = (case.n, case.weight[0], *case.hw)
    arrays = [normal(*shape), normal(*case.weight), normal(case.c * case.groups)]

    def f(F: Any) -> Callable[..., Any]:
        return lambda y, w, b: F.conv_transpose2d(
            y, w, b, case.stride, case.padding, case.output_padding, case.groups, case.dilation
        )

    beyond = any(e >= max(s, d) for e, s, d in zip(case.output_padding, case.stride, case.dilation, strict=True))
    if beyond or min(case.image) < 1:
        with pytest.raises(ValueError, match="^conv_transpose2d: [^\n]+$"):
            f(F)(*(Tensor(a) for a in arrays))
        COUNTS["conv_transpose2d: refused"] += 1
        # PyTorch lets some outputs without pixels pass, and all of an empty batch
        if HAS_TORCH and case.n and (beyond or min(case.image) < 0):
            with pytest.raises(RuntimeError):
                f(torch.nn.functional)(*(torch.tensor(a) for a in arrays))
        return
    x = compare("conv_transpose2d", CONVOLUTIONS, f, arrays, device)[0]
    assert x.shape == (case.n, case.c * case.groups, *case.image)


def image_of(case: Pool) -> np.ndarray:
    shape = (case.n, case.c, *case.hw)
    return np.random.default_rng(shape).integers(0, 3, shape).astype(float) if case.ties else normal(*shape)


def impossible(case: Pool) -> bool:
    """Padding beyond half of the kernel, or no place for a window."""
    if any(2 * p > k for p, k in zip(case.padding, case.kernel, strict=True)):
        return True
    spans = [
        h + 2 * p - d * (k - 1) - 1
        for h, p, d, k in zip(case.hw, case.padding, case.dilation, case.kernel, strict=True)
    ]
    if not case.ceil_mode:
        return min(spans) < 0
    return any(-(-span // s) < 0 for span, s in zip(spans, case.stride, strict=True))


def only_padding(case: Pool) -> bool:
    """Whether a window with dilation can miss the image altogether: then PyTorch's index is undefined."""
    return any(d > h for d, h in zip(case.dilation, case.hw, strict=True)) and case.padding != (0, 0)


@given(pools(dilated=True))
def test_max_pool2d(device: str, case: Pool) -> None:
    x = image_of(case)

    def f(F: Any) -> Callable[..., Any]:
        return lambda x: F.max_pool2d(x, case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode)

    if impossible(case):
        refused("max_pool2d", lambda: f(F)(Tensor(x)), lambda: f(torch.nn.functional)(torch.tensor(x)))
        return
    if only_padding(case):
        return
    compare("max_pool2d", ("max_pool2d", "pool_put", "pool_take"), f, [x], device)
    parameters = (case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode, True)
    if HAS_TORCH:
        indices = F.max_pool2d(Tensor(x).to(device), *parameters)[1]
        assert np.array_equal(indices.numpy(), torch.nn.functional.max_pool2d(torch.tensor(x), *parameters)[1].numpy())


@given(pools(dilated=False))
def test_avg_pool2d(device: str, case: Pool) -> None:
    x = image_of(case)

    def f(F: Any) -> Callable[..., Any]:
        return lambda x: F.avg_pool2d(
            x, case.kernel, case.stride, case.padding, case.ceil_mode, case.count_include_pad, case.divisor
        )

    if impossible(case):
        refused("avg_pool2d", lambda: f(F)(Tensor(x)), lambda: f(torch.nn.functional)(torch.tensor(x)))
        return
    compare("avg_pool2d", ("avg_pool2d", "avg_pool2d_adjoint"), f, [x], device)


@given(resizes())
def test_interpolate(device: str, case: Resize) -> None:
    x = normal(1, 2, *case.hw)

    def f(F: Any) -> Callable[..., Any]:
        return lambda x: F.interpolate(x, case.size, case.factors, case.mode, case.align_corners)

    if case.factors and min(int(h * k) for h, k in zip(case.hw, case.factors, strict=True)) < 1:
        refused("interpolate", lambda: f(F)(Tensor(x)), lambda: f(torch.nn.functional)(torch.tensor(x)))
        return
    compare("interpolate", ("interpolate", "interpolate_adjoint"), f, [x], device)


@given(convs())
def test_unfold(device: str, case: Conv) -> None:
    x = normal(case.n, case.c, *case.hw)

    def f(F: Any) -> Callable[..., Any]:
        return lambda x: F.unfold(x, case.kernel, case.dilation, case.padding, case.stride)

    if min(case.scores) < 1:
        refused("unfold", lambda: f(F)(Tensor(x)), lambda: f(torch.nn.functional)(torch.tensor(x)))
        return
    compare("unfold", ("unfold", "fold"), f, [x], device)

"""The checkers must fail on wrong derivatives: a checker that cannot fail proves nothing."""

from collections.abc import Callable

import numpy as np
import pytest

import minifcn.functional as F
from minifcn.autograd import PRIMITIVES, Primitive, Tensor
from minifcn.gradcheck import GradientError, check_adjoint, check_grad

A = np.arange(12.0).reshape(3, 4) / 7 - 0.6
X = np.array([0.3, -1.2, 0.7, 1.9])


def primitive(vjp: Callable[..., Tensor | None] | None) -> Primitive:
    """y = x³ with the given derivative."""
    p = Primitive("wrong_cube(x) -> y", lambda x: x**3)
    p.defvjp(vjp)
    del PRIMITIVES["wrong_cube"]
    return p


def right(gy: Tensor, x: Tensor) -> Tensor:
    return gy * x * x * 3


def test_right_passes() -> None:
    checks = check_grad(primitive(right), [X])
    assert [(c.order, c.argument) for c in checks] == [(1, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize(
    "vjp",
    [
        pytest.param(lambda gy, x: gy * x * x * 3.001, id="scale"),
        pytest.param(lambda gy, x: -(gy * x * x * 3), id="sign"),
        pytest.param(lambda gy, x: gy * x * 3, id="power"),
        pytest.param(lambda gy, x: gy * 0.0, id="zero"),
        pytest.param(None, id="missing"),
        pytest.param(lambda gy, x: gy * x * x * 3 + 1e-3, id="offset"),
        pytest.param(lambda gy, x: (gy * x * x * 3)[::-1], id="reversed"),
    ],
)
def test_wrong_at_order_1_fails(vjp: Callable[..., Tensor] | None) -> None:
    with pytest.raises(GradientError, match=r"order 1, argument 0 .* worst at \(\d,\)"):
        check_grad(primitive(vjp), [X])


@pytest.mark.parametrize(
    "vjp",
    [
        pytest.param(lambda gy, x: gy * Tensor(3 * x.data**2), id="detached"),
        pytest.param(lambda gy, x: gy * x.detach() * x * 3, id="half detached"),
        pytest.param(lambda gy, x: Tensor(gy.data) * x * x * 3, id="cotangent detached"),
    ],
)
def test_right_at_order_1_wrong_at_order_2_fails(vjp: Callable[..., Tensor]) -> None:
    check_grad(primitive(vjp), [X], order=1)
    with pytest.raises(GradientError, match="order 2"):
        check_grad(primitive(vjp), [X], order=2)


def test_wrong_transpose_fails() -> None:
    square = np.array([[1.0, 2.0], [0.5, -1.0]])
    p = Primitive("wrong_product(x) -> y", lambda x: square @ x)
    p.defvjp(lambda gy: F.matmul(Tensor(square), gy))
    del PRIMITIVES["wrong_product"]
    with pytest.raises(GradientError, match="order 1"):
        check_grad(p, [np.array([[0.4], [1.1]])])


def test_adjoint_passes_and_fails() -> None:
    assert check_adjoint(lambda x: Tensor(A) @ x, lambda y: Tensor(A.T) @ y, (4, 2), (3, 2)) < 1e-15
    with pytest.raises(GradientError, match="relative difference"):
        check_adjoint(lambda x: Tensor(A) @ x, lambda y: Tensor(A.T * 1.0000001) @ y, (4, 2), (3, 2))
    with pytest.raises(ValueError, match=r"adjoint returns shape \(3,\); \(4,\) was stated"):
        check_adjoint(lambda x: Tensor(A) @ x, lambda y: y, (4,), (3,))


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="float64 is needed"):
        check_grad(lambda x: x.sum(), [np.ones(2, np.float32)])
    with pytest.raises(ValueError, match="order is 3"):
        check_grad(lambda x: x.sum(), [X], order=3)

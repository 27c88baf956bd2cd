"""The checkers must fail on wrong derivatives: a checker that cannot fail proves nothing."""

from collections.abc import Callable

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn.autograd import PRIMITIVES, Primitive, Tensor
from minifcn.functional._compose import derivative_of
from minifcn.gradcheck import Check, GradientError, check_adjoint, check_grad
from minifcn.gradcheck.check import iter_checks

A = np.arange(12.0).reshape(3, 4) / 7 - 0.6
X = np.array([0.3, -1.2, 0.7, 1.9])


def primitive(vjp: Callable[..., Tensor | None] | None, f: Callable[..., np.ndarray] = lambda x: x**3) -> Primitive:
    """y = f(x) with the given derivative."""
    p = Primitive("wrong(x) -> y", f)
    p.defvjp(vjp)
    del PRIMITIVES["wrong"]
    return p


def verdicts(f: Callable[..., Tensor], *arrays: np.ndarray, order: int = 1) -> list[str]:
    return [check.verdict for check in iter_checks(f, arrays, range(1, order + 1))]


def failure(f: Callable[..., Tensor], *arrays: np.ndarray, order: int = 1) -> Check:
    """The first failure, which must be there."""
    return next(c for c in iter_checks(f, arrays, range(1, order + 1)) if c.verdict == "FAIL")


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


@pytest.mark.parametrize("fused_is_wrong", [True, False])
def test_a_composition_that_differs_from_its_fused_kernel_fails(fused_is_wrong: bool) -> None:
    """The fused gradient is what order 1 sees; a composed one that is not its equal is seen at order 2."""
    p = Primitive("wrong(x) -> y", lambda x: x**3)
    factors = (3.1, 1.0) if fused_is_wrong else (3.0, 1.1)
    p.defvjp(
        lambda gy, x: derivative_of(
            lambda x: x * x * x * factors[1], (x,), gy, fused=lambda: [gy * x * x * factors[0]]
        )[0]
    )
    del PRIMITIVES["wrong"]
    assert failure(p, X, order=2).order == (1 if fused_is_wrong else 2)


def test_orders_beyond_2() -> None:
    checks = check_grad(lambda x: x.exp() * x, [X], order=4)
    assert [(c.order, c.argument) for c in checks if c.order == 4] == [(4, 0), (4, 1), (4, 2), (4, 3)]

    def third_detached(gy: Tensor, x: Tensor) -> Tensor:
        squares = primitive(lambda g, x: g * Tensor(2 * x.data), lambda x: x**2)
        return gy * squares(x) * 3

    check_grad(primitive(third_detached), [X], order=2)
    assert failure(primitive(third_detached), X, order=3).order == 3


# -- kinks


def step(x: Tensor, at_zero: float) -> Tensor:
    """ReLU's slope, with a choice at 0."""
    return Tensor(np.where(x.data > 0, 1.0, np.where(x.data < 0, 0.0, at_zero)))


@pytest.mark.parametrize("at_zero", [0.0, 0.3, 1.0])
def test_a_subgradient_is_right(at_zero: float) -> None:
    x = np.array([0.7, 0.0, -1.3, 0.0])
    relu = primitive(lambda gy, x: gy * step(x, at_zero), lambda x: np.maximum(x, 0))
    (check,) = check_grad(relu, [x], order=1)
    assert (check.verdict, check.kinks) == ("kink", 2)
    assert abs(check.analytic) > 0.01  # of the other coordinates


@pytest.mark.parametrize("at_zero", [-0.001, 1.001, 5.0, -1e6])
def test_a_wrong_value_at_a_kink_fails(at_zero: float) -> None:
    x = np.array([0.7, 0.0, -1.3])
    check = failure(primitive(lambda gy, x: gy * step(x, at_zero), lambda x: np.maximum(x, 0)), x)
    assert check.worst is not None
    assert check.worst[0] == (1,)


@pytest.mark.parametrize("where", [0, 2])
def test_a_wrong_value_beside_kinks_fails_and_is_named(where: int) -> None:
    x = np.array([0.7, 0.0, -1.3, 0.0, 0.0])

    def wrong(gy: Tensor, x: Tensor) -> Tensor:
        slope = step(x, 0).data
        slope[where] += 1e-3
        return gy * Tensor(slope)

    check = failure(primitive(wrong, lambda x: np.maximum(x, 0)), x)
    assert check.worst is not None
    assert check.worst[0] == (where,)
    assert check.worst[1] != pytest.approx(check.worst[2], rel=1e-5)


def test_a_wrong_second_derivative_at_a_jump_fails() -> None:
    """relu's own derivative jumps at 0, from 0 to 1; its slope is 0 on both sides, and nothing else."""
    slope = primitive(lambda g, x: g * Tensor(np.where(x.data == 0, 0.4, 0.0)), lambda x: (x > 0).astype(float))
    relu = primitive(lambda gy, x: gy * slope(x), lambda x: np.maximum(x, 0))
    x = np.array([0.7, 0.0, -1.3])
    assert verdicts(relu, x) == ["kink"]
    check = failure(relu, x, order=2)
    assert (check.order, check.worst and check.worst[0]) == (2, (1,))


@pytest.mark.parametrize(
    ("f", "x"),
    [
        pytest.param(lambda x: x.relu(), [0.0, 0.5, -0.5], id="relu"),
        pytest.param(abs, [0.0, 0.5, -0.5], id="abs"),
        pytest.param(lambda x: x.clip(-1, 1), [-1.0, 0.0, 1.0], id="clip"),
        pytest.param(lambda x: x.max(), [0.5, 0.5, -0.5, 0.5], id="max"),
        pytest.param(lambda x: x.max(0).values, [0.5, 0.5, -0.5], id="max along an axis"),
        pytest.param(lambda x: F.max_pool2d(x.reshape(1, 2, 4), 2, 1), [1, 1, 2, 2, 1, 1, 0.5, 2], id="pool"),
        pytest.param(lambda x: x.relu() - 2 * x.relu() * x, [0.0, 0.5, -0.5], id="a product"),
    ],
)
def test_kinks_of_the_library(f: Callable[..., Tensor], x: list[float]) -> None:
    assert verdicts(f, np.array(x), order=2) == ["kink", "kink", "ok"]


def test_windows_that_share_a_tie_are_looked_at_one_by_one() -> None:
    """The sum of two kinks of opposite weight can have no kink at all."""
    for seed in range(20):
        for check in iter_checks(lambda x: F.max_pool2d(x.reshape(1, 4, 5), 2, 1), [np.ones(20)], [1, 2], seed=seed):
            assert check.verdict != "FAIL", check.fault


def test_a_kink_nearby_is_none() -> None:
    for distance in (3e-5, 3e-6, 3e-7):
        x = np.array([0.5, distance, -distance, -0.5])
        assert verdicts(lambda x: x.relu(), x, order=2) == ["ok", "ok", "ok"]
        wrong = primitive(lambda gy, x: gy * step(x, 0) * 0.5, lambda x: np.maximum(x, 0))
        assert failure(wrong, x).kinks == 0


def smooth(name: str) -> tuple[Callable[..., np.ndarray], Callable[[Tensor], Tensor]]:
    """Functions of steep and of gentle slopes, and their derivatives."""
    return {
        "cube": (lambda x: x**3, lambda x: x * x * 3),
        "linear": (lambda x: 2 * x, lambda x: x * 0 + 2),
        "constant": (lambda x: 0 * x + 1, lambda x: x * 0),
        "steep": (lambda x: np.tanh(1000 * x), lambda x: 1000 * (1 - (1000 * x).tanh() ** 2)),
        "large": (lambda x: 1e6 + x**2, lambda x: 2 * x),
        "wave": (lambda x: np.sin(50 * x), lambda x: Tensor(50 * np.cos(50 * x.data))),
    }[name]


@pytest.mark.parametrize("name", ["cube", "linear", "constant", "steep", "large", "wave"])
@pytest.mark.parametrize("error", [0.5, 1e-2, 1e-4])
def test_a_wrong_gradient_of_a_smooth_function_is_no_kink(name: str, error: float) -> None:
    f, slope = smooth(name)
    x = np.array([0.0, 0.4, -0.7, 1e-3])
    assert verdicts(primitive(lambda gy, x: gy * slope(x), f), x) == ["ok"]
    size = max(1.0, float(np.abs(slope(Tensor(x)).data).max()))
    for at in range(len(x)):
        place = np.arange(len(x)) == at
        wrong = primitive(lambda gy, x: gy * (slope(x) + Tensor(error * size * place)), f)  # noqa: B023
        if name != "large" or error > 0.1:  # beside 1e6 there are no more digits
            assert failure(wrong, x).kinks == 0


def test_values_that_are_not_finite() -> None:
    with pytest.raises(GradientError, match=r"order 1, argument 0 of shape \(2,\): f is nan at \(1,\); only finite"):
        check_grad(lambda x: x.log(), [np.array([1.0, -1.0])])
    with pytest.raises(GradientError, match=r"the gradient is -?inf at \(1,\)"):
        check_grad(lambda x: x.sqrt(), [np.array([1.0, 0.0])])
    check = failure(lambda x: x.log(), np.array([1.0, -1.0]))
    assert np.isnan(check.error)


# -- float32, devices, arguments


def test_float32_gradients_against_float64_differences() -> None:
    seen = set()

    def f(x: Tensor) -> Tensor:
        seen.add(x.dtype)
        return (x.exp() * x).sum(0)

    checks = check_grad(f, [np.random.default_rng(0).standard_normal((50, 3))], dtype=np.float32)
    assert seen == {np.dtype(np.float32), np.dtype(np.float64)}
    assert 1e-10 < max(c.error for c in checks) < 1e-5
    check_grad(lambda x: x.exp(), [np.ones(2, np.float32)], dtype="float32")
    right_in_64_only = primitive(lambda gy, x: gy * x * x * (3 if x.dtype == np.float64 else 3.01))
    check_grad(right_in_64_only, [X], order=1)
    with pytest.raises(GradientError, match="order 1"):
        check_grad(right_in_64_only, [X], order=1, dtype=np.float32)


def test_a_device() -> None:
    assert check_grad(lambda x: x.exp(), [X], device="cpu")
    if not mf.gpu_status()[0]:
        with pytest.raises(RuntimeError, match="no GPU can be used"):
            check_grad(lambda x: x.exp(), [X], device="cuda")


def test_random_numbers_are_noticed() -> None:
    with pytest.raises(ValueError, match="returns other values when it is called again"):
        check_grad(lambda x: F.dropout(x), [np.ones(20)])


def test_a_function_that_differentiates_itself() -> None:
    def penalty(x: Tensor) -> Tensor:
        (slope,) = mf.grad((x * x * x).sum(), x, create_graph=True)
        return (slope * slope).sum()

    assert verdicts(penalty, X, order=2) == ["ok", "ok", "ok"]


def test_adjoint_passes_and_fails() -> None:
    assert check_adjoint(lambda x: Tensor(A) @ x, lambda y: Tensor(A.T) @ y, (4, 2), (3, 2)) < 1e-15
    with pytest.raises(GradientError, match="relative difference"):
        check_adjoint(lambda x: Tensor(A) @ x, lambda y: Tensor(A.T * 1.0000001) @ y, (4, 2), (3, 2))
    with pytest.raises(ValueError, match=r"adjoint returns shape \(3,\); \(4,\) was stated"):
        check_adjoint(lambda x: Tensor(A) @ x, lambda y: y, (4,), (3,))


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="float64 is needed"):
        check_grad(lambda x: x.sum(), [np.ones(2, np.float32)])
    for order in (0, 1.5):
        with pytest.raises(ValueError, match=f"order is {order}"):
            check_grad(lambda x: x.sum(), [X], order=order)
    with pytest.raises(TypeError, match="dtype is int64"):
        check_grad(lambda x: x.sum(), [X], dtype=np.int64)
    with pytest.raises(TypeError, match="f returns a tuple; one Tensor"):
        check_grad(lambda x: (x, x), [X])


def given(gradient: list[float]) -> Callable[[Tensor], Tensor]:
    return lambda gy: gy * Tensor(np.array(gradient))


def largest(gradient: list[float]) -> Primitive:
    """The maximum, with a gradient of one's own."""
    p = Primitive("largest(x) -> y", lambda x: np.asarray(x.max()))
    p.defvjp(given(gradient))
    del PRIMITIVES["largest"]
    return p


TIED = np.array([1.0, 1.0, 0.0])


@pytest.mark.parametrize("gradient", [[1.0, 0, 0], [0.0, 1, 0], [0.5, 0.5, 0], [0.3, 0.7, 0]])
def test_any_split_of_a_tied_maximum_is_right(gradient: list[float]) -> None:
    (check,) = check_grad(largest(gradient), [TIED], order=1)
    assert (check.verdict, check.kinks) == ("kink", 2)


@pytest.mark.parametrize("gradient", [[1.0, 1, 0], [0.0, 0, 0], [0.6, 0.7, 0], [0.4, 0.5, 0]])
def test_what_is_no_split_of_a_tied_maximum_is_found(gradient: list[float]) -> None:
    """Along each tied coordinate by itself every number from 0 to 1 would do."""
    with pytest.raises(GradientError, match="where coordinates at a kink move together"):
        check_grad(largest(gradient), [TIED], order=1)


def test_a_norm_at_zero() -> None:
    def norm(gradient: np.ndarray) -> Primitive:
        p = Primitive("norm(x) -> y", lambda x: np.asarray(np.sqrt((x * x).sum())))
        p.defvjp(given(gradient.tolist()))
        del PRIMITIVES["norm"]
        return p

    assert check_grad(norm(np.zeros(9)), [np.zeros(9)], order=1)[0].verdict == "kink"
    with pytest.raises(GradientError, match="move together"):
        check_grad(norm(np.ones(9)), [np.zeros(9)], order=1)  # each entry is between −1 and 1


def test_a_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minifcn.gradcheck.check.PATIENCE", 0.2)
    with pytest.raises(GradientError, match="0.2 seconds of search have not told whether that is due to kinks"):
        check_grad(F.relu, [np.zeros(20_000)], order=1)


def test_a_smaller_step_where_a_function_varies_quickly() -> None:
    x = np.random.default_rng(0).standard_normal(5) * 1e-6
    with pytest.raises(GradientError):
        check_grad(lambda x: (x * 1e6).tanh(), [x], order=1)
    assert check_grad(lambda x: (x * 1e6).tanh(), [x], step=1e-11)[0].verdict == "ok"


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: check_grad(None, [X]), TypeError, "f is a NoneType"),
        (lambda: check_grad(lambda x: x, X), TypeError, "inputs is a ndarray; a list of arrays"),
        (lambda: check_grad(lambda x: x, [[1.0]]), TypeError, "input 0 is a list"),
        (lambda: check_grad(lambda x: x, [np.zeros((0, 3))]), ValueError, "no input has an element"),
        (lambda: check_grad(lambda x: x, [X], directions=0), ValueError, "directions is 0"),
        (lambda: check_grad(lambda x: x, [X], tolerance=0), ValueError, "tolerance is 0"),
        (lambda: check_grad(lambda x: x, [X], step=-1.0), ValueError, "step is -1.0"),
        (lambda: check_grad(lambda x: x, [X], dtype="foo"), TypeError, "dtype is 'foo'"),
        (lambda: check_grad(lambda x: x.float() * 2, [X]), TypeError, "f returns float32 for float64 arguments"),
        (lambda: check_adjoint(lambda x: x, lambda y: y, 3, (3,)), TypeError, "x_shape is 3"),
        (lambda: check_adjoint(lambda x: 3.0, lambda y: y, (3,), (3,)), TypeError, "forward returns a float"),
        (lambda: check_adjoint(None, lambda y: y, (3,), (3,)), TypeError, "forward is a NoneType"),
    ],
)
def test_arguments_get_one_sentence(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^check_(grad|adjoint): .*{message}"):
        call()

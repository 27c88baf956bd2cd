"""check_grad and check_adjoint: proof that a derivative is right, for our functions and for yours.

check_grad compares the gradient with central differences along random directions, at first and second order.
check_adjoint needs no step size: two linear maps A and B are adjoint exactly if ⟨A(x), y⟩ = ⟨x, B(y)⟩.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minifcn.array import FLOATS, Array
from minifcn.autograd import Tensor, grad, no_grad

STEP = 1e-5  # relative to the size of the inputs: truncation ~ STEP², rounding ~ 1e-16/STEP, both far below 1e-6
FLOOR = 1e-7  # a derivative this small, compared with the size of the gradient, counts as zero


class GradientError(AssertionError):
    """A derivative that differs from its numerical or adjoint counterpart."""


@dataclass(frozen=True)
class Check:
    """One comparison: the derivative of argument `argument` at `order`, along one random direction."""

    order: int
    argument: int
    analytic: float
    numeric: float
    error: float


def check_grad(
    f: Callable[..., Tensor],
    inputs: Sequence[Tensor | Array],
    order: int = 2,
    tolerance: float = 1e-6,
    directions: int = 1,
    seed: int = 0,
) -> list[Check]:
    """Compare the gradient of f with central differences.

    For a random cotangent g and a random direction d in one argument, ⟨gradient(g), d⟩ must equal the slope of
    ⟨f(…), g⟩ along d. At order 2 the same is asked of the gradient itself, as a function of the arguments and of g.

    Args:
        f: differentiable function of Tensors, smooth near the inputs; it is called many times.
        inputs: the arguments, float64.
        order: 1, or 2 for the gradient's gradient as well.
        tolerance: largest relative error, |analytic − numeric| / (|analytic| + |numeric| + a floor).
        directions: random directions for each argument.
        seed: of cotangents and directions.

    Returns:
        The comparisons that were made.

    Raises:
        GradientError: naming order, argument, both values, and the worst coordinate of the argument.
        TypeError: inputs that are not float64.
        ValueError: another order.

    >>> checks = check_grad(lambda x: (x * x).sum(), [np.array([1.0, 2.0])])
    >>> len(checks), max(c.error for c in checks) < 1e-6
    (3, True)
    """
    if order not in (1, 2):
        raise ValueError(f"check_grad: order is {order}; 1 or 2 is needed")
    arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
    if any(x.dtype != FLOATS[1] for x in arrays):
        raise TypeError(f"check_grad: inputs are {[str(x.dtype) for x in arrays]}; float64 is needed for differences")
    rng = np.random.default_rng(seed)
    checks = _check_order(f, arrays, 1, tolerance, directions, rng)
    if order == 2:
        with no_grad():
            g = rng.standard_normal(f(*(Tensor(x) for x in arrays)).shape)

        def gradient(*args: Tensor) -> Tensor:
            """All first derivatives, as one vector, of the arguments and the cotangent."""
            *xs, gy = args
            parts = grad(f(*xs), xs, gy, create_graph=True, allow_unused=True)
            total = None
            for part, weight in zip(parts, weights, strict=True):
                term = (part * weight).sum()
                total = term if total is None else total + term
            assert total is not None
            return total

        weights = [rng.standard_normal(x.shape) for x in arrays]
        checks += _check_order(gradient, [*arrays, g], 2, tolerance, directions, rng)
    return checks


def _check_order(
    f: Callable[..., Tensor],
    arrays: list[Array],
    order: int,
    tolerance: float,
    directions: int,
    rng: np.random.Generator,
) -> list[Check]:
    def value(arrays: list[Array]) -> Array:
        return np.asarray(f(*(Tensor(x, requires_grad=True) for x in arrays)).data)

    xs = [Tensor(x.copy(), requires_grad=True) for x in arrays]
    y = f(*xs)
    g = rng.standard_normal(y.shape)
    gradients = [t.data for t in grad(y, xs, g, allow_unused=True)]
    # what a typical slope is: an exact zero has no relative error of its own
    scale = max(
        max((float(np.abs(t).max(initial=0)) for t in gradients), default=0.0), float(np.abs(y.data).max(initial=0))
    )
    checks = []
    for k, x in enumerate(arrays):
        if x.size == 0:
            continue
        for _ in range(directions):
            d = rng.standard_normal(x.shape)
            d /= np.linalg.norm(d)
            numeric = _slope(value, arrays, k, d, g)
            analytic = float(np.vdot(gradients[k], d))
            error = abs(analytic - numeric) / (abs(analytic) + abs(numeric) + FLOOR * max(scale, 1e-30))
            checks.append(Check(order, k, analytic, numeric, error))
            if not error <= tolerance:
                at, own, other = _worst(value, arrays, k, gradients[k], g)
                raise GradientError(
                    f"check_grad: order {order}, argument {k} of shape {x.shape}: the gradient gives {analytic:.9g} "
                    f"along a random direction and central differences {numeric:.9g} (relative error {error:.1e}, "
                    f"at most {tolerance:.0e}); worst at {at}: {own:.9g} against {other:.9g}"
                )
    return checks


def _slope(value: Callable[[list[Array]], Array], arrays: list[Array], k: int, d: Array, g: Array) -> float:
    """The central difference of ⟨f, g⟩ along d in argument k."""
    step = STEP * max(1.0, float(np.abs(arrays[k]).max()))
    moved = [[x + sign * step * d if n == k else x for n, x in enumerate(arrays)] for sign in (1, -1)]
    return float(np.vdot(value(moved[0]) - value(moved[1]), g)) / (2 * step)


def _worst(
    value: Callable[[list[Array]], Array], arrays: list[Array], k: int, gradient: Array, g: Array
) -> tuple[tuple[int, ...], float, float]:
    """(coordinate, analytic, numeric) where they differ most, among the first 200 coordinates."""
    found = []
    for at in list(np.ndindex(*arrays[k].shape))[:200]:
        d = np.zeros(arrays[k].shape)
        d[at] = 1
        numeric = _slope(value, arrays, k, d, g)
        found.append((abs(float(gradient[at]) - numeric), at, float(gradient[at]), numeric))
    _, at, own, other = max(found)
    return at, own, other


def check_adjoint(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    tolerance: float = 1e-12,
    seed: int = 0,
) -> float:
    """Compare ⟨forward(x), y⟩ with ⟨x, adjoint(y)⟩ for random x and y in float64; no step size is involved.

    Args:
        forward: linear map from x_shape to y_shape. adjoint: the map back.
        tolerance: largest difference, relative to ‖forward(x)‖·‖y‖.

    Returns:
        The relative difference.

    Raises:
        GradientError: they differ by more. ValueError: a map returns another shape than stated.

    >>> check_adjoint(lambda x: x * 3.0, lambda y: y * 3.0, (4,), (4,)) < 1e-12
    True
    """
    rng = np.random.default_rng(seed)
    x, y = Tensor(rng.standard_normal(x_shape)), Tensor(rng.standard_normal(y_shape))
    with no_grad():
        ax, by = forward(x).data, adjoint(y).data
    for name, found, wanted in (("forward", ax.shape, y_shape), ("adjoint", by.shape, x_shape)):
        if found != tuple(wanted):
            raise ValueError(f"check_adjoint: {name} returns shape {found}; {tuple(wanted)} was stated")
    left, right = float(np.vdot(ax, y.data)), float(np.vdot(x.data, by))
    size = max(float(np.linalg.norm(ax) * np.linalg.norm(y.data)), float(np.linalg.norm(by) * np.linalg.norm(x.data)))
    error = abs(left - right) / size if size else abs(left - right)
    if not error <= tolerance:
        raise GradientError(
            f"check_adjoint: ⟨forward(x), y⟩ = {left:.15g} but ⟨x, adjoint(y)⟩ = {right:.15g} (relative difference "
            f"{error:.1e}, at most {tolerance:.0e})"
        )
    return error

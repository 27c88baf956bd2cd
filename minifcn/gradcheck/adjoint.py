"""check_adjoint: a linear map against its adjoint.

Two linear maps A and B are adjoint exactly if ⟨A(x), y⟩ = ⟨x, B(y)⟩ for all x and y. Both sides are sums of the same
products in another order, so for random x and y they agree to the last digits, or something is wrong: an index, a sign,
a factor. No step size is involved.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minifcn.autograd import Tensor, no_grad
from minifcn.gradcheck.check import GradientError


def check_adjoint(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    tolerance: float = 1e-12,
    seed: int = 0,
    device: str = "cpu",
) -> float:
    """Compare ⟨forward(x), y⟩ with ⟨x, adjoint(y)⟩ for random x and y in float64; no step size is involved.

    Args:
        forward: linear map from x_shape to y_shape. adjoint: the map back.
        tolerance: largest difference, relative to ‖forward(x)‖·‖y‖.
        device: where x and y are.

    Returns:
        The relative difference.

    Raises:
        GradientError: they differ by more, or are not finite. ValueError: a map returns another shape than stated.
        TypeError: a map that is no function or returns no Tensor, or a shape that is none.

    >>> check_adjoint(lambda x: x * 3.0, lambda y: y * 3.0, (4,), (4,)) < 1e-12
    True
    """
    for name, shape in (("x_shape", x_shape), ("y_shape", y_shape)):
        if not isinstance(shape, tuple | list) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise TypeError(f"check_adjoint: {name} is {shape!r:.40}; a tuple of sizes is needed")
    for name, function in (("forward", forward), ("adjoint", adjoint)):
        if not callable(function):
            raise TypeError(f"check_adjoint: {name} is a {type(function).__name__}; a function of a Tensor is needed")
    rng = np.random.default_rng(seed)
    x, y = (Tensor(rng.standard_normal(shape)).to(device) for shape in (x_shape, y_shape))
    with no_grad():
        results = forward(x), adjoint(y)
    for name, result in zip(("forward", "adjoint"), results, strict=True):
        if not isinstance(result, Tensor):
            raise TypeError(f"check_adjoint: {name} returns a {type(result).__name__}; a Tensor is needed")
    ax, by, at_x, at_y = (t.numpy() for t in (*results, x, y))
    for name, found, wanted in (("forward", ax.shape, y_shape), ("adjoint", by.shape, x_shape)):
        if found != tuple(wanted):
            raise ValueError(f"check_adjoint: {name} returns shape {found}; {tuple(wanted)} was stated")
    left, right = float(np.vdot(ax, at_y)), float(np.vdot(at_x, by))
    size = max(float(np.linalg.norm(ax) * np.linalg.norm(at_y)), float(np.linalg.norm(by) * np.linalg.norm(at_x)))
    error = abs(left - right) / size if size else abs(left - right)
    if not error <= tolerance:
        raise GradientError(
            f"check_adjoint: ⟨forward(x), y⟩ = {left:.15g} but ⟨x, adjoint(y)⟩ = {right:.15g} (relative difference "
            f"{error:.1e}, at most {tolerance:.0e})"
        )
    return error

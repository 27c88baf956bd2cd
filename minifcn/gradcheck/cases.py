"""What is checked: for each operation its cases, in one table that the command and the tests share.

An operation is a primitive ("conv2d"), a public function ("F.conv2d"), a method of Tensor ("Tensor.max") or a layer
with parameters ("nn.Conv2d").
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn.array import FLOATS, Array, module_of
from minifcn.autograd import Tensor


@dataclass(frozen=True)
class Case:
    """A differentiable function at one point.

    Args:
        name: what is special about it.
        function: of Tensors, of the dtype and device of its arguments.
        arrays: the arguments, float64.
        arguments: their names.
        at_kink: whether the point was put onto a kink, so that its verdict is "kink" and not "ok".
    """

    name: str
    function: Callable[..., Tensor]
    arrays: tuple[Array, ...]
    arguments: tuple[str, ...]
    at_kink: bool = False


def case(name: str, function: Callable[..., Tensor], *arrays: Array, at_kink: bool = False) -> Case:
    """A case whose arguments are called as the function calls them."""
    names = tuple(inspect.signature(function).parameters)
    return Case(name, function, arrays, names[: len(arrays)], at_kink)


def normal(*shape: int, seed: int = 0) -> Array:
    """Standard normal values, the same for the same shape and seed."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def positive(*shape: int, seed: int = 0) -> Array:
    """Values of at least 1/2."""
    return np.abs(normal(*shape, seed=seed)) + 0.5


def apart(*shape: int) -> Array:
    """Values at least 0.1 apart and as far from 0, so that no maximum and no kink is near."""
    count = int(np.prod(shape))
    values = (np.arange(count) - count // 2 + 0.5) * 0.2
    return np.random.default_rng(count).permutation(values).reshape(shape)


def mirrored(array: Array) -> Array:
    """The arrays of two processes that have the same: what is lost on both by a change of one's x is then what is lost
    on one by a change of both's, which differences can see."""
    both: Array = module_of(array).stack([array, array])
    return both


def like(value: Any, x: Tensor) -> Any:
    """A constant on x's device and, if it holds floats, in x's dtype; anything but an array is returned as it is.

    >>> like(np.ones(2), Tensor([1.0])).dtype, like(np.arange(2), Tensor([1.0])).dtype, like("max", Tensor([1.0]))
    (dtype('float32'), dtype('int64'), 'max')
    """
    if not isinstance(value, np.ndarray):
        return value
    return module_of(x.data).asarray(value, dtype=x.dtype if value.dtype in FLOATS else value.dtype)


def constant(value: Array, x: Tensor) -> Tensor:
    """`like`, as a Tensor."""
    return Tensor(like(value, x))


def table() -> dict[str, Callable[[], Sequence[Case]]]:
    """Every operation, in the order of the table, and what makes its cases."""
    from minifcn.gradcheck.primitives import PRIMITIVE_CASES
    from minifcn.gradcheck.public import FUNCTION_CASES, LAYER_CASES, TENSOR_CASES

    return {**PRIMITIVE_CASES, **FUNCTION_CASES, **TENSOR_CASES, **LAYER_CASES}

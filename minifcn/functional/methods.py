"""Tensor's operators and methods: each is the function of that name with the tensor first.

The engine knows no operation, so this room lends Tensor its methods when it is imported (the last lines).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from minifcn.array import FLOATS, to_device
from minifcn.functional import activation, arithmetic, products, reduce, shape
from minifcn.functional._checks import flag, sizes_of
from minifcn.functional.arithmetic import Operand

if TYPE_CHECKING:
    from minifcn.autograd import Tensor
    from minifcn.functional.reduce import Dim, ValuesIndices


def _dim(op: str, dim: Any, axis: Any) -> Any:
    """`axis` is NumPy's name for the same thing."""
    if dim is not None and axis is not None:
        raise TypeError(f"{op}: dim={dim} and axis={axis} name the same argument; one of them is enough")
    return axis if dim is None else dim


def _keep(op: str, keepdim: bool, keepdims: bool) -> bool:
    """`keepdims` is NumPy's name for the same thing."""
    return flag(op, "keepdim", keepdim) or flag(op, "keepdims", keepdims)


class TensorMethods:
    """What functional/ lends to Tensor."""

    __slots__ = ()

    def __add__(self, other: Operand) -> Tensor:
        return arithmetic.add(_t(self), other)

    def __radd__(self, other: Operand) -> Tensor:
        return arithmetic.add(other, _t(self))

    def __sub__(self, other: Operand) -> Tensor:
        return arithmetic.sub(_t(self), other)

    def __rsub__(self, other: Operand) -> Tensor:
        return arithmetic.sub(other, _t(self))

    def __mul__(self, other: Operand) -> Tensor:
        return arithmetic.mul(_t(self), other)

    def __rmul__(self, other: Operand) -> Tensor:
        return arithmetic.mul(other, _t(self))

    def __truediv__(self, other: Operand) -> Tensor:
        return arithmetic.div(_t(self), other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return arithmetic.div(other, _t(self))

    def __pow__(self, other: Operand) -> Tensor:
        return arithmetic.pow(_t(self), other)

    def __rpow__(self, other: Operand) -> Tensor:
        return arithmetic.pow(other, _t(self))

    def __matmul__(self, other: Tensor | np.ndarray[Any, Any]) -> Tensor:
        return products.matmul(_t(self), other)

    def __rmatmul__(self, other: Tensor | np.ndarray[Any, Any]) -> Tensor:
        return products.matmul(other, _t(self))

    def __neg__(self) -> Tensor:
        return arithmetic.neg(_t(self))

    def __abs__(self) -> Tensor:
        return arithmetic.abs_(_t(self))

    def __lt__(self, other: Operand) -> Tensor:  # type: ignore[misc]
        return arithmetic.compare("lt", operator.lt, _t(self), other)

    def __le__(self, other: Operand) -> Tensor:  # type: ignore[misc]
        return arithmetic.compare("le", operator.le, _t(self), other)

    def __gt__(self, other: Operand) -> Tensor:  # type: ignore[misc]
        return arithmetic.compare("gt", operator.gt, _t(self), other)

    def __ge__(self, other: Operand) -> Tensor:  # type: ignore[misc]
        return arithmetic.compare("ge", operator.ge, _t(self), other)

    def __eq__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return arithmetic.compare("eq", operator.eq, _t(self), other)

    def __ne__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return arithmetic.compare("ne", operator.ne, _t(self), other)

    def __getitem__(self, at: Any) -> Tensor:
        return shape.index(_t(self), at)

    def sum(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool = False) -> Tensor:
        return reduce.sum(_t(self), _dim("sum", dim, axis), _keep("sum", keepdim, keepdims))

    def mean(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool = False) -> Tensor:
        return reduce.mean(_t(self), _dim("mean", dim, axis), _keep("mean", keepdim, keepdims))

    def var(
        self,
        dim: Dim = None,
        unbiased: bool | None = None,
        keepdim: bool = False,
        *,
        correction: float | None = None,
        axis: Dim = None,
        keepdims: bool = False,
    ) -> Tensor:
        return reduce.var(
            _t(self), _dim("var", dim, axis), unbiased, _keep("var", keepdim, keepdims), correction=correction
        )

    def max(
        self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None, keepdims: bool = False
    ) -> Tensor | ValuesIndices:
        return reduce.max(_t(self), _dim("max", dim, axis), _keep("max", keepdim, keepdims))

    def min(
        self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None, keepdims: bool = False
    ) -> Tensor | ValuesIndices:
        return reduce.min(_t(self), _dim("min", dim, axis), _keep("min", keepdim, keepdims))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return reduce.argmax(_t(self), dim, keepdim)

    def reshape(self, *sizes: int | Sequence[int]) -> Tensor:
        return shape.reshape(_t(self), *sizes)

    def view(self, *sizes: int | Sequence[int]) -> Tensor:
        """reshape, under PyTorch's other name."""
        return shape.reshape(_t(self), *sizes)

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        return shape.permute(_t(self), *dims)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        return shape.transpose(_t(self), dim0, dim1)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        return shape.flatten(_t(self), start_dim, end_dim)

    def squeeze(self, dim: int | Sequence[int] | None = None) -> Tensor:
        return shape.squeeze(_t(self), dim)

    def unsqueeze(self, dim: int) -> Tensor:
        return shape.unsqueeze(_t(self), dim)

    def expand(self, *sizes: int | Sequence[int]) -> Tensor:
        return arithmetic.expand(_t(self), sizes_of("expand", "sizes", sizes))

    def abs(self) -> Tensor:
        """|x|, element by element; its slope at 0 is 0. Raises TypeError for booleans."""
        return arithmetic.abs_(_t(self))

    def exp(self) -> Tensor:
        return arithmetic.exp(_t(self))

    def log(self) -> Tensor:
        return arithmetic.log(_t(self))

    def sqrt(self) -> Tensor:
        return arithmetic.sqrt(_t(self))

    def tanh(self) -> Tensor:
        return arithmetic.tanh(_t(self))

    def relu(self) -> Tensor:
        """max(x, 0), element by element."""
        return activation.relu(_t(self))

    def clip(self, min: Operand | None = None, max: Operand | None = None) -> Tensor:
        return arithmetic.clip(_t(self), min, max)

    def clamp(self, min: Operand | None = None, max: Operand | None = None) -> Tensor:
        """clip, under PyTorch's other name."""
        return arithmetic.clip(_t(self), min, max)

    def clone(self) -> Tensor:
        """A copy with memory of its own; the gradient passes through."""
        return copy_p(_t(self))

    def numel(self) -> int:
        """The number of elements."""
        return _t(self).size

    def float(self) -> Tensor:
        """As float32."""
        return self.to(np.float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.to(np.float64)

    def to(self, target: Any) -> Tensor:
        """On another device ("cpu" or "cuda") or in another dtype; itself where nothing changes.

        Raises ValueError for a device that does not exist, TypeError for anything else that is not float32, float64, an
        integer dtype or bool (minifcn does not compute with the other dtypes).
        """
        t = _t(self)
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            # the same primitive there and back: the gradient returns to where the tensor was
            here = target in (t.device, t.device.partition(":")[0])
            return t if here else move_p(t, device=target, device_in=t.device)
        return arithmetic.cast(t, _dtype(target))

    def cpu(self) -> Tensor:
        """On the CPU."""
        return self.to("cpu")

    def cuda(self) -> Tensor:
        """On the first GPU; RuntimeError with the reason where none can be used."""
        return self.to("cuda")


def _dtype(target: Any) -> np.dtype[Any]:
    """The dtype that a user names, by a type, a dtype or a string."""
    dtype: np.dtype[Any] | None = None
    with suppress(TypeError):  # what NumPy says of other things is not for our users
        dtype = None if target is None or isinstance(target, tuple | list) else np.dtype(target)
    if dtype is None or (dtype.kind not in "biu" and dtype not in FLOATS):
        raise TypeError(
            f'to: {target!r:.60} is no dtype or device; np.float32, np.float64, an integer type, bool, "cpu" or "cuda" '
            f"is needed"
        )
    return dtype


def _t(tensor: object) -> Tensor:
    return cast("Tensor", tensor)


from minifcn.autograd import Primitive, Tensor  # noqa: E402 (only now may the class be completed)

move_p = Primitive("move(x) -> y", lambda x, *, device, device_in: to_device(x, device))
move_p.defvjp(lambda gy, device, device_in: move_p(gy, device=device_in, device_in=device))

copy_p = Primitive("copy(x) -> y", lambda x: x.copy())
copy_p.defvjp(lambda gy: gy)

for _name, _method in vars(TensorMethods).items():
    if callable(_method):
        for _room in (arithmetic, reduce, shape, activation):
            _method.__doc__ = _method.__doc__ or getattr(getattr(_room, _name, None), "__doc__", None)
        setattr(Tensor, _name, _method)

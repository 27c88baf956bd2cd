"""How exact float32 products on a GPU are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PRECISIONS = ("highest", "high")
_precision = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """What a GPU may do to float32 convolutions and matmul: "highest" (the default) keeps float32; "high" lets tensor
    cores round the factors to TF32, with 10 bits of mantissa instead of 23, and add up in float32: for speed, at the
    price of up to 5·10⁻⁴ of each factor. Of float64 and of the CPU it changes nothing.

    PyTorch's function of this name is about matmul alone; convolutions there follow torch.backends.cudnn.allow_tf32,
    which is on by default.

    Raises ValueError for another name (PyTorch also knows "medium", bfloat16).

    >>> set_float32_matmul_precision("highest")
    >>> get_float32_matmul_precision()
    'highest'
    """
    global _precision
    if precision not in PRECISIONS:
        raise ValueError(f"set_float32_matmul_precision: {precision!r}; one of {', '.join(PRECISIONS)} is needed")
    _precision = precision


def get_float32_matmul_precision() -> str:
    """ "highest" or "high"."""
    return _precision


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Within the block, the precision of `set_float32_matmul_precision`; afterwards what it was.

    Raises ValueError for another name.
    """
    before = _precision
    set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        set_float32_matmul_precision(before)


def tensor_cores(dtype: object) -> bool:
    """Whether products of this dtype may go by tensor cores."""
    return _precision == "high" and dtype == "float32"

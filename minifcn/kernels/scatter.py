"""Adding values where an index says, more than one at a place: the adjoint of reading by index."""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.kernels.registry import kernel


@kernel("add_at", backend="numpy", algorithm="ufunc")
def add_at_ufunc(y: Array, *, at: Array, size: int) -> Array:
    """x (size,) with x[at[e]] = Σ of the y[e] that go there, y and at (M,)."""
    x = np.zeros(size, y.dtype)
    np.add.at(x, at, y)
    return x

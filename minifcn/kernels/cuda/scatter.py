"""Adding values where an index says, on a GPU: in order, where CuPy's add.at would add in any."""

from __future__ import annotations

import numpy as np

from minifcn.array import Array, module_of
from minifcn.kernels.cuda.launch import contiguous, launch, over
from minifcn.kernels.registry import kernel


@kernel("add_at", backend="cupy", algorithm="sorted")
def add_at_sorted(y: Array, *, at: Array, size: int) -> Array:
    """x (size,) with x[at[e]] = Σ of the y[e] that go there, y and at (M,)."""
    xp = module_of(y)
    x: Array = xp.zeros(size, y.dtype)
    if y.size:
        order = xp.argsort(at, kind="stable")
        arrays = (contiguous(y), contiguous(at[order], np.int64), contiguous(order, np.int64), x)
        launch("scatter", "add_runs", y, over(y.size), (*arrays, np.int64(y.size)))
    return x

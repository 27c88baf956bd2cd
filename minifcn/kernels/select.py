"""Values where a mask holds, zeros elsewhere, without a branch per element.

np.where and where= predict a branch for every element, and a mask like a ReLU's is unpredictable. The bits of a float
and-ed with all ones or all zeros are the float or 0.0, in one vectorised pass. (A product with the mask would turn an
infinite value that is to be dropped into NaN.)
"""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.memory import scratch

INTEGERS = {4: np.int32, 8: np.int64}


def select(keep: Array, values: Array, out: Array) -> Array:
    """out = values where keep, else 0. All of one shape; keep is boolean, values and out are floats of one dtype."""
    integer = INTEGERS[values.itemsize]
    bits = scratch("bits", keep.shape, np.dtype(np.int8))
    np.negative(keep.view(np.int8), out=bits)  # −1 is all ones, and stays so when it becomes wider
    ones = scratch("ones", keep.shape, np.dtype(integer))
    np.copyto(ones, bits)
    np.bitwise_and(values.view(integer), ones, out=out.view(integer))
    return out

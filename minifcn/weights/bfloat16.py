"""bfloat16, which NumPy lacks: the upper half of a float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def widened(bits: NDArray[Any]) -> NDArray[np.float32]:
    """The bits of bfloat16 numbers (unsigned 16-bit integers, any shape) → the same numbers in float32, exactly.

    >>> widened(np.array([0x3F80, 0xC049], np.uint16)).tolist()
    [1.0, -3.140625]
    """
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)

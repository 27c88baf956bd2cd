"""The library's random numbers: one seed and one position, advanced by everybody who draws.

Dropout draws from a counter-based stream (kernels/philox.py), so the whole state is two integers: keep them, and a run
can be continued to the last bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

_lock = threading.Lock()
_state = {"seed": 0, "position": 0}
# (first, count, total): which items of a batch this process has
_part: ContextVar[tuple[int, int, int]] = ContextVar("part", default=(0, 1, 1))


def manual_seed(seed: int) -> None:
    """Start again from `seed`, 0 ≤ seed < 2⁶⁴: dropout masks and initial weights repeat.

    Raises ValueError outside that range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"manual_seed: seed is {seed}; 0 ≤ seed < 2**64 is needed")
    with _lock:
        _state.update(seed=int(seed), position=0)


def get_state() -> dict[str, int]:
    """The state, as {"seed": …, "position": …}."""
    with _lock:
        return dict(_state)


def set_state(state: dict[str, int]) -> None:
    """Continue from a state that get_state returned."""
    with _lock:
        _state.update(seed=int(state["seed"]), position=int(state["position"]))


def reserve(words: int) -> tuple[int, int]:
    """(seed, start) of the next `words` 32-bit words of the stream, which nobody else will get."""
    first, count, total = _part.get()
    if words % count:
        raise ValueError(
            f"reserve: {words} random words for {count} items of a batch; the same number for each is needed"
        )
    each = words // count
    with _lock:
        start = _state["position"]
        _state["position"] = start + each * total
        return _state["seed"], start + each * first


@contextmanager
def part(first: int, count: int, total: int) -> Iterator[None]:
    """Within the block, what is drawn is for the items first … first + count − 1 of a batch of `total`: these get the
    words that they would get if one process had the whole batch, and the stream moves on as if it had.

    >>> manual_seed(0)
    >>> with part(1, 2, 4):
    ...     reserve(20)  # 10 for each item
    (0, 10)
    >>> get_state()["position"]
    40
    """
    token = _part.set((first, count, total))
    try:
        yield
    finally:
        _part.reset(token)


def generator() -> np.random.Generator:
    """A NumPy generator for initial weights, a different one at each call."""
    return np.random.default_rng(reserve(1))

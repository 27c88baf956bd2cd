"""Ctrl-C at a point where the state is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def polite_interrupt(speaks: bool = True) -> Iterator[Callable[[], None]]:
    """Within the block, the first Ctrl-C waits for a point where the state is whole: it is raised by the function that
    this yields. A second Ctrl-C is raised at once. A handler that somebody else installed stays. `speaks` says whether
    the user is told."""
    pressed = False

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        if speaks:
            os.write(2, b"\nfinishing this step, then saving; Ctrl-C again stops at once\n")

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, handle)
    try:
        yield check
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

"""Ctrl-C, SIGTERM and SIGHUP at a point where the state is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Interrupted(KeyboardInterrupt):
    """A stop that was asked for by a signal.

    Args:
        words: what to tell the user.
        number: of the signal.
    """

    def __init__(self, words: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(words)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that this signal ended: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number


def signal_of(error: KeyboardInterrupt) -> int:
    """The number of the signal that it stands for."""
    return error.number if isinstance(error, Interrupted) else signal.SIGINT


def interrupted(error: KeyboardInterrupt, words: str) -> Interrupted:
    """What stopped us, and then what was done about it.

    >>> print(interrupted(Interrupted(number=signal.SIGTERM), "and saved"))
    interrupted by SIGTERM and saved
    """
    number = signal_of(error)
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    return Interrupted(f"interrupted{by} {words}", number)


@contextmanager
def saying(words: Callable[[], str]) -> Iterator[None]:
    """Within the block, an interruption that does not say how to go on gets these words, as in `interrupted`."""
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error):
            raise
        raise interrupted(error, words()) from error


@contextmanager
def polite_interrupt(speaks: bool = True) -> Iterator[Callable[[], None]]:
    """Within the block, the first Ctrl-C, SIGTERM or SIGHUP waits for a point where the state is whole: it is raised,
    as `Interrupted`, by the function that this yields, or at the block's end if that was not called any more. Ctrl-C
    after the first is raised at once; the others, which are often sent twice, are not. A handler that somebody else
    installed stays, and so does a signal that is ignored (nohup). `speaks` says whether the user is told."""
    pending, raised = 0, False

    def check() -> None:
        nonlocal raised
        if pending:
            raised = True
            raise Interrupted(number=pending)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pending
        if not pending:
            pending = number
            if speaks:
                with suppress(OSError):  # after SIGHUP there may be no terminal
                    os.write(2, b"\nfinishing this step, then saving; Ctrl-C again stops at once\n")
        elif number == signal.SIGINT:
            raise Interrupted(number=number)

    defaults = {
        getattr(signal, name): signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
        for name in _NAMES
        if hasattr(signal, name)
    }
    main = threading.current_thread() is threading.main_thread()
    ours = [number for number, default in defaults.items() if main and signal.getsignal(number) is default]
    for number in ours:
        signal.signal(number, handle)
    try:
        yield check
    finally:
        for number in ours:
            signal.signal(number, defaults[number])
    if not raised:
        check()

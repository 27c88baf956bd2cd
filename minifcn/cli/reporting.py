"""What a command says, and how it ends.

Which errors are the user's? The library raises ValueError, TypeError and so on, each with a sentence that says what is
wrong and what would be right. An error that ended here because some line of minifcn says `raise` was foreseen, and its
sentence is all the user needs: `minifcn: <sentence>` on stderr and exit code 2. So are the operating system's refusals
(OSError) and a lack of memory. An error that came from anywhere else, a KeyError in our own code or a ValueError inside
NumPy, is a bug of ours, and keeps its traceback; `--traceback` shows one for every error.
"""

from __future__ import annotations

import dis
import sys
from functools import partial
from typing import TextIO

OK, FAILED, USER_ERROR, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

_FORESEEN = (ValueError, TypeError, RuntimeError, ArithmeticError, ImportError)

say = partial(print, flush=True)  # a report that is piped into a file can be read while it grows


def sentence_of(error: BaseException) -> str | None:
    """What to tell the user about an error, or None if it is a bug (see the top of this file)."""
    if isinstance(error, MemoryError):
        first = error.__cause__ or error  # what minifcn made of it has advice of its own, without the options' names
        return f"not enough memory ({first}); a smaller --size, --crop, --batch-size, --width or --tile needs less"
    if isinstance(error, OSError):
        return str(error) if error.errno is None else f"{error.strerror}: {error.filename or 'output'}"
    return str(error) if isinstance(error, _FORESEEN) and _raised_by_us(error) else None


def _raised_by_us(error: BaseException) -> bool:
    """Whether a `raise` in minifcn, not a function that minifcn called, is where the error began."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return False
    module = str(place.tb_frame.f_globals.get("__name__", ""))
    raises = place.tb_frame.f_code.co_code[place.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raises and module.partition(".")[0] == "minifcn"


def complain(sentence: str) -> None:
    """Say it on stderr."""
    print(f"minifcn: {sentence}", file=sys.stderr, flush=True)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning in our form, for warnings.showwarning."""
    complain(f"note: {message}")

"""What is wrong with a file, said in one sentence that names the file."""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# what the standard library and NumPy make of malformed bytes; a KeyError, say, would be a bug of ours, and shows as one
_BROKEN = (ValueError, OverflowError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Fault(ValueError):
    """What is wrong with the file that is being read, and what would be right; `reading` puts its name in front."""


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Every complaint about malformed content as one ValueError that begins with `read: <path>`.

    Args:
        path: the file.
        kind: what it should be, as in "a complete .npz file".

    Raises:
        ValueError: where the block raises a Fault, or what malformed bytes make libraries raise.
        OSError: where the operating system refuses, as it is.

    >>> with reading(Path("w.npz"), "a complete .npz file"):
    ...     raise Fault("'w' is listed twice; a name for each array is needed")
    Traceback (most recent call last):
    ValueError: read: w.npz: 'w' is listed twice; a name for each array is needed
    """
    try:
        yield
    except Fault as error:
        raise ValueError(f"read: {path}: {error}") from error
    except _BROKEN as error:
        raise ValueError(f"read: {path} is not {kind} ({said(error)}); it may be truncated or damaged") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is what an offset before the file's beginning comes to
            raise
        raise ValueError(f"read: {path} is not {kind} (it points outside of itself); it may be damaged") from error


def quoted(name: str) -> str:
    """A name out of a file for a sentence or a table: on one line, without control characters, not endless.

    >>> quoted("conv1.weight"), quoted("a\\nb")
    ("'conv1.weight'", "'a\\\\nb'")
    """
    return repr(name if len(name) <= 100 else name[:99] + "…")


def shown(name: str) -> str:
    """The name as it is, or quoted where a terminal would not show it so.

    >>> shown("conv1.weight"), shown("")
    ('conv1.weight', "''")
    """
    return name if name.isprintable() and 0 < len(name) <= 100 else quoted(name)


def said(error: Exception) -> str:
    """A library's complaint for a sentence: on one line, without control characters, not endless.

    >>> said(ValueError("no key 'a\\n'\\n")), said(ValueError())
    ("no key 'a '", 'ValueError')
    """
    text = "".join(c if c.isprintable() else " " for c in str(error)[:200])
    return " ".join(text.split()) or type(error).__name__

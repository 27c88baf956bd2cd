"""Writing files so that a reader, or a power cut, meets the old file or the new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`; what the block writes there becomes `path`, whole, when the block ends.

    Where the block raises, `path` stays as it was and the temporary file goes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "score.txt"
    ...     with replacing(target) as draft:
    ...         _ = draft.write_text("0.91")
    ...     target.read_text(), len(list(Path(folder).iterdir()))
    ('0.91', 1)
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            draft.touch()
        except PermissionError as error:
            raise PermissionError(f"{target.parent} cannot be written to; {target.name} belongs there") from error
        mode = draft.stat().st_mode  # what the user's umask gives; some libraries write files that only the owner reads
        yield draft
        draft.chmod(mode)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in this folder last; only POSIX has, and needs, this."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

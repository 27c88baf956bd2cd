"""Writing files so that a reader, or a power cut, meets the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextmanager
def replacing(path: str | os.PathLike[str], previous: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """A temporary path beside `path`; what the block writes there becomes `path`, whole, when the block ends.

    Where the block raises, `path` stays as it was and the temporary file goes. A process that is killed leaves it:
    `clear_drafts` takes it away.

    Args:
        path: the file.
        previous: where the file goes that was there before, in the same folder. Between the two renamings it is under
            this name and nothing under `path`; at every moment one whole file is there.

    Raises:
        OSError: where the file cannot be written (no room, no permission), in a sentence; its class is the system's.

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
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise PermissionError(f"{target.parent} cannot be written to; {target.name} belongs there") from error
        mode = draft.stat().st_mode  # what the user's umask gives; some libraries write files that only the owner reads
        yield draft
        draft.chmod(mode)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        if previous is not None and target.exists():
            os.replace(target, previous)
        os.replace(draft, target)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(draft)):
            stays = "; the file that was there before stays" if target.exists() else ""
            raise type(error)(f"{target} cannot be written ({error.strerror}){stays}") from error
        raise
    sync_folder(target.parent)


def clear_drafts(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Remove what `replacing` left of these files in a process that was killed; drafts of running processes stay.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / f".score.txt.{os.getpid()}.tmp").write_text("0.")
    ...     clear_drafts(folder, ["score.txt"])
    ...     list(Path(folder).iterdir())
    []
    """
    for name in names:
        for draft in Path(folder).glob(f".{escape(name)}.*.tmp"):
            pid = draft.name.removeprefix(f".{name}.").removesuffix(".tmp")
            if pid.isdigit() and not _is_another_process(int(pid)):
                with suppress(OSError):  # it is in nobody's way
                    draft.unlink()


def _is_another_process(pid: int) -> bool:
    if pid == os.getpid():
        return False
    if os.name != "posix":  # elsewhere os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Make a new name in this folder last; only POSIX has, and needs, this."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of numbers under their names, whole or not at all.

    Args:
        path: ends in .safetensors, .npz or .pth, which is the format.
        arrays: by name, of any shape.

    Raises:
        ValueError: a name or dtype that the format cannot hold. OSError: where the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_arrays(Path(folder) / "two.npz", {"w": np.ones((2, 3)), "b": np.zeros(2)})
    ...     sorted(np.load(Path(folder) / "two.npz").keys())
    ['b', 'w']
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    from minifcn.weights.pth_writer import write_pth

    suffix = Path(path).suffix.lower()
    for name in arrays:
        if not (name.isprintable() and 0 < len(name) <= 1000 and name != "__metadata__"):
            raise ValueError(f"{path} cannot hold an array called {name!r:.100}; a shorter or printable name is needed")
    with replacing(path) as draft:
        if suffix == ".pth":
            with draft.open("wb") as stream:
                write_pth(stream, arrays)
            return
        if suffix == ".npz":  # not by np.savez, which takes an array called `file` for its argument
            with zipfile.ZipFile(draft, "w") as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            return
        try:  # order="C": safetensors writes an array's memory as it lies
            save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, draft)
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(f"{path} cannot be written ({error})") from error

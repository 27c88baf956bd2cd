"""Writing files so that a reader, or a power cut, meets the old file or the new one, never half of one."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


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

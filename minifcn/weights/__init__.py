"""Other people's weight files, read without PyTorch, Caffe or Keras, and without running anything that they hold.

    pth           PyTorch's .pth: a zip around a pickle, or the older row of pickles
    safetensors   .safetensors
    npz           NumPy's .npz and .npy
    caffemodel    Caffe's .caffemodel
    keras         Keras' .weights.h5 and .h5, by hdf5.py

Each has one function from a path to the arrays by name; `read` chooses by what the file holds. Files are taken for
hostile: sizes are compared with the file before memory is allocated, and what is wrong is a ValueError's one sentence.

`load` puts them into a network: layouts.py knows whose names mean what, matching.py finds what fits and says what does
not. pth_writer.py gives weights back to PyTorch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from minifcn.weights.caffemodel import read_caffemodel
from minifcn.weights.hdf5 import MAGIC as HDF5_MAGIC
from minifcn.weights.keras import read_h5
from minifcn.weights.matching import load
from minifcn.weights.npz import NPY_MAGIC, entries, read_npz
from minifcn.weights.pth import read_pth
from minifcn.weights.safetensors import read_safetensors

__all__ = ["load", "read"]

_FORMATS = "PyTorch's .pth, .safetensors, NumPy's .npz and .npy, Caffe's .caffemodel and Keras' .h5 are read"
_OTHERS = {  # what people give by mistake
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
    b"\x1f\x8b": "compressed by gzip",
    b"\x80": "a pickle of something else than torch.save writes, and only running it could read it",
}
_TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # a pickled 0x1950a86a20f9469cfc6c


def read(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Name → array of a weights file, whose format is found from its content.

    Args:
        path: a .pth, .safetensors, .npz, .npy, .caffemodel or .h5 file, whatever it is called.

    Returns:
        The arrays under the file's own names, read-only or fresh; bfloat16 is widened to float32.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file that is malformed, of another format, or that holds what only running it could read.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "net.npz", weight=np.ones((2, 3)))
    ...     {name: array.shape for name, array in read(Path(folder) / "net.npz").items()}
    {'weight': (2, 3)}
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is no plain file" if file.exists() else "does not exist"
        raise FileNotFoundError(f"read: {file} {what}; the path of a weights file is needed")
    with file.open("rb") as stream:
        head = stream.read(64)
    if not head:
        raise ValueError(f"read: {file} is empty; {_FORMATS}")
    if head[:4] == b"PK\3\4" or head[:4] == b"PK\5\6":
        return _read_zip(file)
    if head.startswith(NPY_MAGIC):
        return read_npz(file)
    if _TORCH_MAGIC in head:
        return read_pth(file)
    if head[8:9] == b"{":
        return read_safetensors(file)
    if head.startswith(HDF5_MAGIC):
        return read_h5(file)
    try:
        return read_caffemodel(file)
    except ValueError as error:
        fault = str(error).removeprefix(f"read: {file}: ")
        known = next((what for magic, what in _OTHERS.items() if head.startswith(magic)), "of no known format")
        why = f" (it starts with {head[:8]!r}; as a .caffemodel: {fault})" if known == "of no known format" else ""
        raise ValueError(f"read: {file} is {known}{why}; {_FORMATS}") from error


def _read_zip(file: Path) -> dict[str, NDArray[Any]]:
    names = entries(file)
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(f"read: {file} is a TorchScript archive; a file of its state_dict() is needed")
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return read_pth(file)
    if any(name.endswith(".npy") for name in names):
        return read_npz(file)
    raise ValueError(f"read: {file} is a zip file with neither a data.pkl nor .npy files in it; {_FORMATS}")

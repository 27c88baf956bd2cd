"""Keras' .weights.h5 and .h5: HDF5 files with an array for each of a layer's variables.

Keras 3   block1/layers/conv2d_1/vars/0       variables by number; layers by class, counted in their group
before    block1_conv2/block1_conv2/kernel:0  variables by name; below model_weights/ where a whole model was saved
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from minifcn.weights.faults import Fault, reading
from minifcn.weights.hdf5 import File

_MODEL = "model_weights"  # where a whole model was saved
_OPTIMIZERS = ("optimizer", "optimizer_weights")


def read_h5(path: Path) -> dict[str, NDArray[Any]]:
    """Name → array of Keras' HDF5 files. Of a whole model only its weights are read, without the optimizer's state.

    A name is the array's path in the file, below model_weights/ where there is such a group. Numbers in names are in
    order, so that conv2d, conv2d_1 … conv2d_10 follow one another as the layers do. The axes are Keras': (I, J, C, O)
    for a convolution, (I, J, O, C) for a transposed one, (C, O) for a dense layer.

    Args:
        path: the file. The arrays look into it: it may be replaced while they are used, but not written into.

    Returns:
        Arrays of integers, booleans and floats, most of them read-only views of the mapped file; bfloat16 becomes
        float32, which holds it exactly.

    Raises:
        ValueError: for a file that is malformed, that holds anything but arrays of numbers, that refers to other files,
            or that would unpack to more than twice its size (and 10 MB).
        OSError: where the file cannot be read.

    Source: keras/src/saving/saving_lib.py and keras/src/legacy/saving/legacy_h5_format.py of Keras 3.
    """
    with reading(path, "a complete HDF5 file"):
        if path.stat().st_size == 0:
            raise Fault("it is empty; a complete copy is needed")
        with path.open("rb") as stream:
            file = File(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
        whole = file.members(file.root).get(_MODEL)
        datasets = list(file.datasets(file.root, _OPTIMIZERS) if whole is None else file.datasets(whole))
        if not datasets:
            raise Fault("there are no arrays in it; a file that Keras' save_weights wrote is needed")
        datasets.sort(key=lambda d: [int(x) if k % 2 else x for k, x in enumerate(re.split("([0-9]+)", d.name))])
        return {dataset.name: file.array(dataset) for dataset in datasets}

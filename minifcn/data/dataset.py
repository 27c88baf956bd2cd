"""What a dataset is: numbered samples of an image and its label map, and the classes that the labels stand for."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from minifcn.data.labels import IGNORE

__all__ = ["Sample", "Dataset", "some_samples", "class_weights", "median_frequency_weights"]

CLASS_WEIGHTS = ("none", "median", "sqrt-median")


class Sample(NamedTuple):
    """One labelled image."""

    image: NDArray[np.uint8]  #: RGB (H, W, 3)
    labels: NDArray[np.uint8]  #: (H, W), a class number or 255 where ignored
    name: str  #: what to call it in messages and file names


@runtime_checkable
class Dataset(Protocol):
    """Anything with a length, samples by number, and named and coloured classes. No base class is needed.

    ``dataset[i]`` must depend on i alone and be safe to call from several threads: the loader does.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of labels 0 … K − 1."""

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Their colours, (K, 3)."""

    @property
    def num_classes(self) -> int:
        """K."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def some_samples(dataset: Dataset, most: int) -> Iterator[Sample]:
    """Up to `most` samples at equal distances, the first and the last among them; each is read when it is asked for.

    >>> from minifcn.data import Shapes
    >>> [sample.name for sample in some_samples(Shapes(count=9, size=(32, 32)), 3)]
    ['shapes-train-0-0000', 'shapes-train-0-0004', 'shapes-train-0-0008']
    """
    numbers = np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int)
    return (dataset[int(number)] for number in numbers)


def median_frequency_weights(dataset: Dataset) -> NDArray[np.float32]:
    """Class weights (K,) that make rare classes count as much as common ones: median(f) / f_c.

    f_c = (pixels of class c) / (labelled pixels of the images in which c occurs); ignored pixels are in neither count.
    The median is taken over the classes that occur. A class that never occurs has weight 0 (there is no pixel for it
    to weigh) and is named in a warning, since a model trained on these data cannot learn it. Reads every sample once.

    Returns:
        float32 (K,), for the ``weight`` of ``functional.cross_entropy``.

    Raises:
        ValueError: if no pixel of the dataset is labelled.

    Eigen & Fergus 2015, §6.3.2; Badrinarayanan et al. 2017 (SegNet), §4.
    """
    k = dataset.num_classes
    own, seen = np.zeros(k, np.int64), np.zeros(k, np.int64)
    for i in range(len(dataset)):
        labels = dataset[i].labels
        counts = np.bincount(labels[labels != IGNORE].ravel(), minlength=k)
        own += counts
        seen[counts > 0] += counts.sum()
    found = own > 0
    if not found.any():
        raise ValueError(
            "median_frequency_weights: every pixel of the dataset is ignored (255); nothing can be weighed"
        )
    if not found.all():
        absent = ", ".join(name for name, there in zip(dataset.classes, found, strict=True) if not there)
        warnings.warn(f"median_frequency_weights: no pixel of {absent}; weight 0", stacklevel=2)
    frequency = own[found] / seen[found]
    weights = np.zeros(k, np.float32)
    weights[found] = np.median(frequency) / frequency
    return weights


def class_weights(dataset: Dataset, kind: str) -> NDArray[np.float32] | None:
    """Class weights by name.

    Args:
        dataset: the training images, of K classes.
        kind: "none"; "median", for `median_frequency_weights`; or "sqrt-median", for the square roots of these, which
            find rare classes at a lower price for the others.

    Returns:
        float32 (K,), for the ``weight`` of ``functional.cross_entropy``, or None.

    Raises:
        ValueError: for another name, or as `median_frequency_weights`.
    """
    if kind not in CLASS_WEIGHTS:
        raise ValueError(f"class_weights: kind is {kind!r}; one of {', '.join(CLASS_WEIGHTS)} is needed")
    if kind == "none":
        return None
    weights = median_frequency_weights(dataset)
    return np.sqrt(weights) if kind == "sqrt-median" else weights

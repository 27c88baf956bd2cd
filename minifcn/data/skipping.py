"""Training data with damaged files among them."""

import threading
from collections.abc import Callable, Iterable

from minifcn.data.dataset import Dataset, Sample

__all__ = ["Skipping", "count_stand_ins"]


class _StandIn(str):
    """The name of a sample that takes another one's place."""


class Skipping:
    """A dataset in which the next sample takes the place of one that cannot be used; after the last comes the first.

    So the number of samples, their order and everybody's random numbers stay what they were, and sample i is a function
    of the files and i alone, whoever asks and in which order. Batches stay full: an empty image in one would change the
    statistics of batch normalisation.

    Damaged is what the dataset raises a ValueError for: a file that is truncated, no image or none of ours, sizes that
    differ, labels out of range. A file that is missing or may not be read (OSError) may be there a moment
    later, and two runs would differ; that is raised.

    Args:
        dataset: what to read.
        say: is given one line for each damaged sample, once, from the thread that reads it.

    >>> from minifcn.data import Shapes
    >>> class Torn(Shapes):
    ...     def __getitem__(self, index):
    ...         if index == 2:
    ...             raise ValueError("b.png is truncated")
    ...         return super().__getitem__(index)
    >>> scenes = Skipping(Torn(count=3, size=(32, 32)), print)
    >>> scenes[2].name
    skipped, the next image takes its place: b.png is truncated
    'shapes-train-0-0000 in place of sample 2'
    """

    def __init__(self, dataset: Dataset, say: Callable[[str], None]) -> None:
        self.dataset, self.say = dataset, say
        self.classes, self.palette, self.num_classes = dataset.classes, dataset.palette, dataset.num_classes
        self._faults: dict[int, ValueError] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, or the next one that can be used.

        Raises:
            ValueError: where no sample at all can be used.
        """
        index = range(len(self))[index]
        for at in (*range(index, len(self)), *range(index)):
            sample = self._read(at)
            if sample is not None:
                other = at != index
                return sample._replace(name=_StandIn(f"{sample.name} in place of sample {index}")) if other else sample
        raise ValueError(f"Skipping: no sample of {len(self)} can be used; the first: {self._faults[0]}")

    def _read(self, index: int) -> Sample | None:
        if index in self._faults:
            return None
        try:
            return self.dataset[index]
        except ValueError as error:
            with self._lock:
                if index not in self._faults:
                    self._faults[index] = error
                    self.say(f"skipped, the next image takes its place: {error}")
            return None


def count_stand_ins(names: Iterable[str]) -> int:
    """How many samples of a batch took another one's place."""
    return sum(isinstance(name, _StandIn) for name in names)

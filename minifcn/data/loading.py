"""Batches, read ahead by threads while the network works."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minifcn.data.dataset import Dataset, Sample
from minifcn.data.labels import IGNORE
from minifcn.data.transforms import normalize

__all__ = ["Batch", "Loader", "part_of"]

# Keys of the two kinds of random stream: the order of an epoch, and what happens to one sample in it.
_ORDER, _SAMPLE = 0, 1


class Batch(NamedTuple):
    """What a network is given at once."""

    images: NDArray[np.float32]  #: (N, 3, H, W), normalised; 0, the mean colour, beyond an image's right and lower edge
    labels: NDArray[np.int64]  #: (N, H, W); 255 where ignored, and beyond the edges
    names: tuple[str, ...]  #: N names


def part_of(count: int, part: tuple[int, int]) -> slice:
    """The items of `count` that process `rank` of `size` has, for part = (rank, size): runs as equal as can be.

    >>> [part_of(5, (rank, 3)) for rank in range(3)]
    [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
    """
    rank, size = part
    return slice(count * rank // size, count * (rank + 1) // size)


class Loader:
    """Batches of a dataset, in an order and with changes that depend on (seed, epoch) alone.

    Samples are read, augmented and normalised by background threads, two batches ahead of the one in use and no more,
    so memory stays bounded. Each sample has a random stream of its own, keyed by (seed, epoch, index): neither the
    number of threads nor their timing, nor starting in the middle, changes any batch. Images of different sizes are
    padded on the right and below to the largest of their batch.

    The threads end with the iteration: when it is exhausted, raises, is closed, or is dropped by leaving a ``for``.

    Args:
        dataset: what to read, with at least one sample.
        batch_size: N, at least 1; the last batch of an epoch may be smaller.
        shuffle: draw a new order for every epoch; otherwise the dataset's own.
        augment: called with (sample, rng) before normalisation; :class:`Augment` or any function.
        seed: any non-negative integer.
        workers: the number of threads; 0 reads in the caller's own.
        drop_last: leave out a last batch smaller than the others.
        part: (rank, size) of one of several processes that share each batch: it reads and gets its own images only, and
            each batch has at least one for every process.

    Raises:
        ValueError: if an argument is outside its range, or no batch is left.

    >>> from minifcn.data import Shapes
    >>> loader = Loader(Shapes(count=5, size=(32, 48)), batch_size=2)
    >>> [batch.images.shape for batch in loader.epoch(0)]
    [(2, 3, 32, 48), (2, 3, 32, 48), (1, 3, 32, 48)]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = False,
        augment: Callable[[Sample, np.random.Generator], Sample] | None = None,
        seed: int = 0,
        workers: int = 1,
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size is {batch_size}; it must be at least 1")
        if workers < 0:
            raise ValueError(f"Loader: workers is {workers}; it must be 0 (no threads) or more")
        if seed < 0:
            raise ValueError(f"Loader: seed is {seed}; it must not be negative")
        if len(dataset) == 0:
            raise ValueError("Loader: the dataset is empty; it needs at least 1 sample")
        if drop_last and len(dataset) < batch_size:
            raise ValueError(
                f"Loader: drop_last leaves no batch ({len(dataset)} samples, batch_size {batch_size}); "
                "use a smaller batch_size"
            )
        self.dataset, self.batch_size, self.shuffle, self.augment = dataset, batch_size, shuffle, augment
        self.seed, self.workers, self.drop_last = seed, workers, drop_last
        count = len(dataset)
        least = batch_size if drop_last or count % batch_size == 0 else count % batch_size
        if least < part[1]:
            raise ValueError(
                f"Loader: a batch of {least} images for {part[1]} processes; at least one for each is needed"
            )
        self.part = part
        self._next_epoch = 0

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else math.ceil(count / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The next epoch: 0 at first, then 1, and so on. :meth:`epoch` gives one by its number."""
        self._next_epoch += 1
        return self.epoch(self._next_epoch - 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch.

        Args:
            epoch: its number, from 0.
            start: the first batch to give, 0 … len(loader). Those before it are not read.

        Raises:
            ValueError: if an argument is outside its range. While iterating, what the dataset raises, with a note that
                names the sample.
        """
        if epoch < 0:
            raise ValueError(f"Loader.epoch: epoch is {epoch}; epochs are numbered from 0")
        if not 0 <= start <= len(self):
            raise ValueError(f"Loader.epoch: start is {start}; the epoch has batches 0 … {len(self) - 1}")
        order = np.arange(len(self.dataset))
        if self.shuffle:
            order = self._rng(_ORDER, epoch).permutation(order)
        size = self.batch_size
        groups = [order[b * size : (b + 1) * size].tolist() for b in range(start, len(self))]
        return self._batches(epoch, [group[part_of(len(group), self.part)] for group in groups])

    def _batches(self, epoch: int, groups: Sequence[Sequence[int]]) -> Iterator[Batch]:
        if self.workers == 0:
            for group in groups:
                yield _collate([self._load(epoch, i) for i in group])
            return
        ahead = max(2, math.ceil(self.workers / self.batch_size))  # enough to keep every thread busy
        waiting: deque[list[Future[tuple[NDArray[np.float32], Sample]]]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="minifcn-loader")
        try:
            for group in groups:
                waiting.append([pool.submit(self._load, epoch, i) for i in group])
                if len(waiting) > ahead:
                    yield _collate([future.result() for future in waiting.popleft()])
            while waiting:
                yield _collate([future.result() for future in waiting.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)

    def _load(self, epoch: int, index: int) -> tuple[NDArray[np.float32], Sample]:
        name = "not read yet"
        try:
            sample = self.dataset[index]
            name = sample.name
            if self.augment is not None:
                sample = self.augment(sample, self._rng(_SAMPLE, epoch, index))
            if sample.labels.shape != sample.image.shape[:2]:
                raise ValueError(f"Loader: {name} has image {sample.image.shape} but labels {sample.labels.shape}")
            return normalize(sample.image), sample
        except Exception as error:
            error.add_note(f"Loader: in sample {index} ({name}) of epoch {epoch}")
            raise

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


def _collate(loaded: Sequence[tuple[NDArray[np.float32], Sample]]) -> Batch:
    height = max(x.shape[1] for x, _ in loaded)
    width = max(x.shape[2] for x, _ in loaded)
    images = np.zeros((len(loaded), 3, height, width), np.float32)
    labels = np.full((len(loaded), height, width), IGNORE, np.int64)
    for n, (x, sample) in enumerate(loaded):
        rows, columns = x.shape[1:]
        images[n, :, :rows, :columns] = x
        labels[n, :rows, :columns] = sample.labels
    return Batch(images, labels, tuple(sample.name for _, sample in loaded))

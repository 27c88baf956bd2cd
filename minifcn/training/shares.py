"""What one process of several does of a training step: its share of the batch, of the loss and of the gradient.

A batch is the global one. Its loss is the mean over the valid pixels of all its images, weighted where classes have
weights, so a share's losses are summed and divided by what the whole batch weighs; gradients then simply add up. Where
the loss is the sum, nothing is divided. With one process all of this is what it would be without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minifcn.functional as F
from minifcn import random
from minifcn.array import module_of
from minifcn.autograd import Tensor
from minifcn.data import IGNORE, Batch, Dataset, Sample, count_stand_ins
from minifcn.nn import BatchNorm2d, Module
from minifcn.training.distributed import World
from minifcn.training.inference import evaluate
from minifcn.training.metrics import ConfusionMatrix


@dataclass(frozen=True, slots=True)
class Share:
    """A process's part of a global batch, and what it needs to know of the whole.

    Args:
        batch: its own images and labels, padded to the largest image of the whole batch.
        first: where its images begin among those of the batch.
        count: how many images the batch has.
        pixels: (K,) how many pixels of the whole batch are labelled with each class.
        stand_ins: how many of its images stand in for damaged ones.
        weight: what the batch's mean loss is divided by: the weights of these pixels' classes, added up.
    """

    batch: Batch
    first: int
    count: int
    pixels: NDArray[np.int64]
    stand_ins: int
    weight: float

    def forward(
        self, module: Module, class_weights: Tensor | None = None, device: str = "cpu", reduction: str = "mean"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(scores, loss, labels) on the device; the losses of all processes add up to the batch's cross-entropy.

        Args:
            module: the network; its dropout draws what it would draw for these images of the whole batch.
            class_weights: (K,) or None for 1.
            device: where the network is.
            reduction: "mean" or "sum" over the batch's valid pixels.
        """
        images, labels = (Tensor(a).to(device) for a in (self.batch.images, self.batch.labels))
        with random.part(self.first, len(images), self.count):
            scores = module(images)
        total = F.cross_entropy(scores, labels, weight=class_weights, ignore_index=IGNORE, reduction="sum")
        return scores, total if reduction == "sum" else total * (1 / self.weight), labels


def shares(
    world: World,
    batches: Iterator[Batch],
    num_classes: int,
    class_weights: NDArray[np.floating[Any]] | None = None,
    check: Callable[[], None] = lambda: None,
    look: Callable[[Batch], None] = lambda batch: None,
) -> Iterator[Share]:
    """This process's share of every batch. Before each one all processes meet, and at the end once more.

    Args:
        world: all of them.
        batches: what `Loader.epoch` gives this process of each batch.
        num_classes: K.
        class_weights: (K,) or None for 1.
        check: called before each batch and at the end; what it raises ends all processes.
        look: called with each of this process's batches; likewise.

    Raises:
        KeyboardInterrupt, FailedElsewhere: as `World.agree`; likewise whatever a process's batches or check raise.
    """
    while True:
        batch = error = None
        facts = np.zeros(4 + num_classes)
        try:
            check()
            batch = next(batches, None)
            if batch is not None:
                look(batch)
                facts[:4] = (*batch.labels.shape, count_stand_ins(batch.names))
                facts[4:] = _pixels(batch.labels, num_classes)
        except (Exception, KeyboardInterrupt) as caught:
            error = caught
        table = world.agree(error, facts)  # (size, 4 + K)
        if batch is None:
            return
        height, width = (int(most) for most in table[:, 1:3].max(axis=0))
        counts, pixels = table[:, 0], table[:, 4:].sum(axis=0)
        weight = float(pixels.sum() if class_weights is None else pixels @ class_weights.astype(np.float64))
        yield Share(
            _padded(batch, height, width),
            first=int(counts[: world.rank].sum()),
            count=int(counts.sum()),
            pixels=pixels.astype(np.int64),
            stand_ins=int(table[:, 3].sum()),
            weight=weight,
        )


def sum_gradients(world: World, module: Module, share: Share) -> None:
    """Every gradient becomes the sum over all processes, in one buffer and one call.

    Running statistics of batch norm that each process took from its own images become their mean, weighted by how many
    these were: so all processes have one state, which a checkpoint can hold.
    """
    if world.size == 1:
        return
    learned = [p for p in module.parameters() if p.grad is not None]
    norms = [layer for layer in module.modules() if isinstance(layer, BatchNorm2d) and layer.training]
    own = [layer for layer in norms if layer.gather is None and layer.running_mean is not None]
    running = [statistic for layer in own for statistic in (layer.running_mean, layer.running_var)]
    part = len(share.batch.images) / share.count
    pieces = [p.grad.data for p in learned if p.grad is not None] + [statistic.data * part for statistic in running]
    flat = module_of(pieces[0]).concatenate([piece.reshape(-1) for piece in pieces])
    world.sum(flat)
    begin = 0
    for tensor in [*learned, *running]:
        total = flat[begin : begin + tensor.size].reshape(tensor.shape)
        begin += tensor.size
        if tensor.grad is not None:
            tensor.grad = Tensor(total.astype(tensor.dtype, copy=False))
        else:
            with tensor.writing() as array:
                array[...] = total


def evaluate_together(world: World, module: Module, dataset: Dataset, **options: Any) -> tuple[ConfusionMatrix, float]:
    """What `evaluate` gives for a data set of which each process takes every size-th image; the same on all of them.

    Args:
        world: all processes.
        module: the same on all of them.
        dataset: what to score it on.
        options: further arguments of `evaluate`.
    """
    if world.size == 1:
        return evaluate(module, dataset, **options)
    own = _Part(dataset, range(world.rank, len(dataset), world.size))
    none = ConfusionMatrix(dataset.num_classes), 0.0
    matrix, loss = world.together(lambda: evaluate(module, own, **options) if len(own) else none)
    valid = int(matrix.counts.sum())
    total = np.array([loss * valid if valid else 0.0])
    world.sum(total)
    world.sum(matrix.counts)
    valid = int(matrix.counts.sum())
    return matrix, float(total[0]) / valid if valid else float("nan")


@dataclass(frozen=True, slots=True)
class _Part:
    """Some samples of a data set."""

    dataset: Dataset
    indices: range

    @property
    def classes(self) -> tuple[str, ...]:
        return self.dataset.classes

    @property
    def palette(self) -> NDArray[np.uint8]:
        return self.dataset.palette

    @property
    def num_classes(self) -> int:
        return self.dataset.num_classes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset[self.indices[index]]


def _pixels(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """(K,) the pixels of each class; a label that is no class is not counted here, as cross_entropy will name it."""
    return np.bincount(labels[(labels >= 0) & (labels < num_classes)], minlength=num_classes)


def _padded(batch: Batch, height: int, width: int) -> Batch:
    """The batch with the mean colour and void on the right and below, as the loader pads."""
    down, right = height - batch.labels.shape[1], width - batch.labels.shape[2]
    if not (down or right):
        return batch
    images = np.pad(batch.images, ((0, 0), (0, 0), (0, down), (0, right)))
    labels = np.pad(batch.labels, ((0, 0), (0, down), (0, right)), constant_values=IGNORE)
    return Batch(images, labels, batch.names)

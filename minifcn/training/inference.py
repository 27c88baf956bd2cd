"""A trained network at work: the classes of one image, and the score on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import minifcn.functional as F
from minifcn.array import gpu_status, to_device
from minifcn.autograd import Tensor, no_grad
from minifcn.data import IGNORE, Batch, Dataset, Loader, normalize
from minifcn.models.parts import Part
from minifcn.nn import Module
from minifcn.training.metrics import ConfusionMatrix
from minifcn.training.tiles import AUTO, largest_side, scores_by_tiles

_PIXELS = 1 << 17  # of the images that go through together: enough to keep a small network busy


def choose_device(name: str) -> str:
    """The device to compute on: "cpu" or "cuda"; "auto" is a GPU where one can be used.

    Raises:
        ValueError: for "cuda" where no GPU can be used, with the reason, or for another name.
    """
    if name not in ("cpu", "cuda", "auto"):
        raise ValueError(f"device is {name!r}; one of cpu, cuda, auto is needed")
    if name == "cpu":
        return name
    usable, reason = gpu_status()
    if usable:
        return "cuda"
    if name == "auto":
        return "cpu"
    raise ValueError(f"device is cuda, but no GPU can be used: {reason}; --device cpu works everywhere")


def predict(
    module: Module, image: NDArray[np.uint8], device: str = "cpu", tile: int | None = None
) -> NDArray[np.uint8]:
    """The most probable class of every pixel: uint8 (H, W, 3) → uint8 (H, W), at the image's own size.

    Args:
        module: a network with at most 255 classes; used in evaluation mode, and put back into its own.
        image: red, green, blue, 0…255, of any size.
        device: where the network is.
        tile: None, or the side of squares that are computed one after another, a multiple of the network's stride. They
            show the same classes (but for scores that are equal up to rounding), and memory is that of one square with
            the pixels around it that it sees; `tiles.largest_side` finds a side.

    Raises:
        ValueError, TypeError: for an image of another shape or type, another side, or a network that cannot be tiled.
    """

    def read(part: Part) -> Tensor:
        return Tensor(normalize(image[part])[None]).to(device)

    with _evaluating(module), no_grad():
        if tile is None:
            return np.asarray(_classes(module(read((slice(None), slice(None)))))[0], np.uint8)
        normalize(image[:1])  # says what is wrong with the image, if anything is
        classes = np.empty(image.shape[:2], np.uint8)
        for kept, scores in scores_by_tiles(module, read, (image.shape[0], image.shape[1]), tile):
            classes[kept] = _classes(scores)[0]
            del scores  # not to be there beside the next tile's
    return classes


def evaluate(
    module: Module,
    dataset: Dataset,
    *,
    device: str = "cpu",
    workers: int = 1,
    title: str = "validation",
    after_batch: Callable[[], None] = lambda: None,
    tile: int | str | None = None,
) -> tuple[ConfusionMatrix, float]:
    """(matrix, loss) of a network on a data set: the metrics, and the mean cross-entropy of all valid pixels.

    Every image is seen at its own size, with nothing padded to fit a batch; small ones of one size go through together.

    Args:
        module: a network; used in evaluation mode, and put back into its own.
        dataset: what to score it on; not empty.
        device: where the network is.
        workers: threads that load images ahead.
        title: what the progress bar says.
        after_batch: called after every few images; what it raises ends the evaluation.
        tile: as for `predict`; "auto" finds a side for every size of image from the memory that is free.

    Raises:
        ValueError: for an empty data set, another number of classes, or another side.
        TypeError: for a network that cannot be tiled.
    """
    if isinstance(tile, str) and tile != AUTO:
        raise ValueError(f'evaluate: tile is {tile!r}; a side in pixels, "{AUTO}" or None is needed')
    loader = Loader(dataset, batch_size=1, shuffle=False, workers=workers)
    matrix = ConfusionMatrix(dataset.num_classes)
    total = 0.0
    with _evaluating(module), no_grad(), tqdm(total=len(loader), desc=title, disable=None, leave=False) as bar:
        largest = cache(partial(largest_side, module))
        for images, labels in _same_size(loader):
            side = largest(images.shape[2:]) if isinstance(tile, str) else tile
            for part, scores in _scores(module, images, device, side):
                if scores.shape[1] != dataset.num_classes:
                    raise ValueError(
                        f"evaluate: the network has {scores.shape[1]} classes and the data {dataset.num_classes}; "
                        "data with the classes that it was trained on are needed"
                    )
                truth = np.ascontiguousarray(labels[:, *part])
                matrix.update(truth, _classes(scores))
                on_device = Tensor(truth).to(device)
                total += float(F.cross_entropy(scores, on_device, ignore_index=IGNORE, reduction="sum").item())
                del scores  # not to be there beside the next tile's
            bar.update(len(images))
            after_batch()
    valid = int(matrix.counts.sum())
    return matrix, total / valid if valid else float("nan")


def _scores(
    module: Module, images: NDArray[np.float32], device: str, side: int | None
) -> Iterator[tuple[Part, Tensor]]:
    """(rows and columns, their scores) of images (N, 3, H, W), at once or by tiles."""
    if side is None:
        yield (slice(None), slice(None)), module(Tensor(images).to(device))
        return

    def read(part: Part) -> Tensor:
        return Tensor(np.ascontiguousarray(images[:, :, *part])).to(device)

    yield from scores_by_tiles(module, read, (images.shape[2], images.shape[3]), side)


def _same_size(loader: Loader) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """(N, 3, H, W), (N, H, W): runs of images of one size, as many as stay within _PIXELS, from batches of one."""
    run: list[Batch] = []
    for batch in loader:
        if run and (batch.images.shape != run[0].images.shape or (len(run) + 1) * batch.labels.size > _PIXELS):
            yield np.concatenate([b.images for b in run]), np.concatenate([b.labels for b in run])
            run = []
        run.append(batch)
    if run:
        yield np.concatenate([b.images for b in run]), np.concatenate([b.labels for b in run])


def _classes(scores: Tensor) -> NDArray[np.int64]:
    """(N, K, H, W) → (N, H, W)"""
    classes: NDArray[np.int64] = to_device(scores.data.argmax(axis=1), "cpu")  # numbers of classes travel, not scores
    return classes


@contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)

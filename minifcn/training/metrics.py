"""How good a segmentation is: four numbers and one per class, from one confusion matrix over the whole data set.

Counts are summed over all images first and divided once at the end. A mean of per-image IUs is a different, usually
higher number, and is not comparable with published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minifcn.data import IGNORE


class ConfusionMatrix:
    """Counts n[t, u]: the pixels of true class t that were predicted as class u (K, K), int64.

    With t_t = Σ_u n[t,u] the pixels of class t (Long et al. 2015, section 5):

        pixel accuracy         Σ_t n[t,t] / Σ_t t_t
        mean accuracy          mean over t of n[t,t] / t_t
        mean IU                mean over t of n[t,t] / (t_t + Σ_u n[u,t] − n[t,t])
        frequency weighted IU  Σ_t t_t · IU_t / Σ_t t_t

    A class that is neither in the truth nor in the prediction has no IU (nan) and is left out of the mean; one that
    is predicted and not there has IU 0. Void pixels count nowhere.

    Args:
        num_classes: K ≥ 1.
        ignore_index: the label of void pixels.

    Raises:
        ValueError: for a K below 1.

    >>> matrix = ConfusionMatrix(2)
    >>> matrix.update([[0, 0], [1, 255]], [[0, 1], [1, 1]])
    >>> matrix.pixel_accuracy, matrix.mean_iu
    (0.6666666666666666, 0.5)
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE) -> None:
        if num_classes < 1:
            raise ValueError(f"ConfusionMatrix: num_classes is {num_classes}; at least 1 is needed")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)

    def update(self, labels: ArrayLike, predictions: ArrayLike) -> None:
        """Count one image or batch: true and predicted class of every pixel, integers of one shape.

        Raises:
            ValueError: for shapes that differ, or a class outside 0…K−1 that is not the void label.
            TypeError: for arrays that do not hold integers.
        """
        truth = _integers(labels, "labels")
        guess = _integers(predictions, "predictions")
        if truth.shape != guess.shape:
            raise ValueError(
                f"ConfusionMatrix.update: labels {truth.shape} and predictions {guess.shape}; one shape is needed"
            )
        valid = truth != self.ignore_index
        truth, guess = truth[valid], guess[valid]
        self._check_range(truth, "labels", f", or {self.ignore_index} for void,")
        self._check_range(guess, "predictions", "")
        k = self.num_classes
        pairs = truth.astype(np.int64) * k + guess.astype(np.int64)
        self.counts += np.bincount(pairs, minlength=k * k).reshape(k, k)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix, of another part of the data set.

        Raises:
            ValueError: for another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(
                f"ConfusionMatrix.merge: {self.num_classes} classes and {other.num_classes}; the same number is needed"
            )
        self.counts += other.counts

    @property
    def pixel_accuracy(self) -> float:
        """The part of all valid pixels whose class is right; nan where there is none."""
        return float(_divide(np.trace(self.counts), self.counts.sum()))

    @property
    def per_class_accuracy(self) -> NDArray[np.float64]:
        """(K,) the part of each class's pixels that was found; nan for a class that the truth does not hold."""
        return _divide(np.diagonal(self.counts), self.counts.sum(axis=1))

    @property
    def mean_accuracy(self) -> float:
        """The mean of `per_class_accuracy` over the classes that the truth holds."""
        return _mean(self.per_class_accuracy)

    @property
    def per_class_iu(self) -> NDArray[np.float64]:
        """(K,) intersection over union; nan for a class that neither truth nor prediction holds."""
        hits = np.diagonal(self.counts)
        return _divide(hits, self.counts.sum(axis=0) + self.counts.sum(axis=1) - hits)

    @property
    def mean_iu(self) -> float:
        """The mean of `per_class_iu` over the classes that truth or prediction holds."""
        return _mean(self.per_class_iu)

    @property
    def frequency_weighted_iu(self) -> float:
        """The mean of the IUs weighted by each class's share of the true pixels."""
        pixels = self.counts.sum(axis=1)
        held = pixels > 0  # a class that only predictions hold weighs nothing
        return float(_divide(np.sum(pixels[held] * self.per_class_iu[held]), pixels.sum()))

    def summary(self) -> dict[str, Any]:
        """The metrics by name, as JSON can hold them: a number that does not exist is None."""
        return {
            "pixel_accuracy": _json(self.pixel_accuracy),
            "mean_accuracy": _json(self.mean_accuracy),
            "mean_iu": _json(self.mean_iu),
            "frequency_weighted_iu": _json(self.frequency_weighted_iu),
            "per_class_iu": [_json(value) for value in self.per_class_iu],
        }

    def table(self, classes: Sequence[str] | None = None) -> str:
        """The metrics as text: one line per class (IU, accuracy, share of the pixels), then the four numbers.

        Args:
            classes: K names; the class numbers where it is None.

        Raises:
            ValueError: for another number of names.

        >>> matrix = ConfusionMatrix(2)
        >>> matrix.update([0, 0, 1], [0, 1, 1])
        >>> print(matrix.table(["sky", "road"]))
        class      IU  accuracy   pixels
        sky     0.500     0.500    66.7%
        road    0.500     1.000    33.3%
        <BLANKLINE>
        pixel accuracy         0.667
        mean accuracy          0.750
        mean IU                0.500
        frequency weighted IU  0.500
        """
        names = [str(k) for k in range(self.num_classes)] if classes is None else list(classes)
        if len(names) != self.num_classes:
            raise ValueError(f"ConfusionMatrix.table: {len(names)} names for {self.num_classes} classes")
        width = max(5, *map(len, names))
        shares = _divide(self.counts.sum(axis=1), self.counts.sum())
        lines = [f"{'class':{width}}  {'IU':>6}  {'accuracy':>8}  {'pixels':>7}"]
        for name, iu, accuracy, share in zip(names, self.per_class_iu, self.per_class_accuracy, shares, strict=True):
            lines.append(f"{name:{width}}  {_text(iu):>6}  {_text(accuracy):>8}  {share:>7.1%}")
        lines += [
            "",
            f"pixel accuracy         {_text(self.pixel_accuracy)}",
            f"mean accuracy          {_text(self.mean_accuracy)}",
            f"mean IU                {_text(self.mean_iu)}",
            f"frequency weighted IU  {_text(self.frequency_weighted_iu)}",
        ]
        return "\n".join(lines)

    def _check_range(self, classes: NDArray[Any], name: str, void: str) -> None:
        if classes.size and (classes.min() < 0 or classes.max() >= self.num_classes):
            raise ValueError(
                f"ConfusionMatrix.update: {name} hold classes {classes.min()}…{classes.max()}; "
                f"0…{self.num_classes - 1}{void} are needed"
            )


def _integers(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"ConfusionMatrix.update: {name} are {array.dtype}; integers are needed")
    return array


def _divide(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """part / whole, nan where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    quotient: NDArray[np.float64] = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=quotient, where=whole != 0)
    return quotient


def _mean(values: NDArray[np.float64]) -> float:
    held = values[~np.isnan(values)]
    return float(held.mean()) if held.size else float("nan")


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _text(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"

"""What keeps a network from learning, seen in the first steps of its training: "my output is all background".

FirstSteps looks on while a loop makes its first steps, and says each thing that it found in one sentence. It is told
only what the loop has computed anyway, and changes nothing: a loop that is watched computes the same numbers. What it
calls a fault follows from how the numbers come about:

    stuck scores       the paper's zero scores are legitimate in the first batch only, as the first update changes them
    scores and images  different images of a batch give different scores, unless no image reaches the scores
    one class          usual at first, where one class is frequent; a fault where the loss neither falls meanwhile nor
                       is below what equal scores would lose, where the classes' frequencies alone lead
    falling            the later half of the losses is lower than the earlier one more often than chance would have it,
                       by more than two standard deviations (Mann & Whitney 1947), which one wild loss does not upset
    too large a rate   a step that changes a layer by more than the layer's own size leaves nothing of what was there
    too small a rate   all steps of the run together cannot change any layer by 1 %, and the loss does not fall; where
                       too few steps were made to say that, the first is enough unless a layer that starts at zero
                       hides the others' gradients at first

The size of a step is taken from the weights themselves, so it holds for SGD and Adam, and for the mean of the pixels'
losses as well as for their sum, which is looked at per pixel. Layers that start at zero have no size to compare with,
and are left out there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import minifcn.functional as F
from minifcn.array import Array, module_of, to_device
from minifcn.autograd import Tensor, no_grad
from minifcn.data import IGNORE
from minifcn.debugging import debug
from minifcn.nn import BatchNorm2d, ConvTranspose2d, Dropout, Dropout2d, Module
from minifcn.optim import Optimizer

STEPS = 20  # two halves of ten losses, enough to tell a fall from noise
LONGEST = 100_000  # steps of the paper's training of one network, where the length of the run is not known
_LEAST_FOR_A_TREND = 8  # losses: with three a half, a fall without exception is not beyond two standard deviations
_SAMPLE = 4096  # values of a parameter that are compared from step to step: their norms are right to a few percent
_SHOWN = 3  # names in a sentence
_MANY = 1 << 16  # labels below this are counted, others sorted
_ROUNDING = 1e-6  # relative, of a mean in float32


@dataclass(slots=True)
class _Seen:
    """What the steps so far have shown of one parameter."""

    name: str
    parameter: Tensor
    momentum: float | None = None  # of its group, 0 for Adam; None where no optimizer has it
    without_grad: bool = True  # in all steps
    zero_grad: bool = True  # in all steps, or None
    first: NDArray[np.float64] | None = None  # a sample of its values
    last: NDArray[np.float64] | None = None
    moved: bool = False
    largest: float = 0.0  # ‖Δw‖/‖w‖ of a step
    ahead: float = 0.0  # the same for later steps, when momentum has built up

    def take(self, steps: int) -> None:
        """Look at the gradient of a step, and at what the step before has changed; `steps` were made so far."""
        g = self.parameter.grad
        self.without_grad = self.without_grad and g is None
        self.zero_grad = self.zero_grad and (g is None or _all_zero(g.data))
        now = _sample(self.parameter.data)
        if self.first is None or self.last is None:
            self.first = self.last = now
            return
        change, size = float(np.linalg.norm(now - self.last)), float(np.linalg.norm(self.last))
        self.last, self.moved = now, self.moved or change > 0
        if size:
            ratio = change / size
            self.largest = max(self.largest, ratio)
            # Σ mᵏ over the t steps so far is (1 − mᵗ)/(1 − m), and 1/(1 − m) in the end
            self.ahead = max(self.ahead, ratio / (1 - (self.momentum or 0.0) ** steps))

    @property
    def is_layer(self) -> bool:
        """Whether it is a weight with a size of its own: biases start anywhere near zero."""
        sized = self.first is not None and bool(self.first.any())
        return self.momentum is not None and self.parameter.ndim >= 2 and sized


class FirstSteps:
    """Watch the first steps of a training loop, and say what keeps the network from learning.

    Call `after_backward` between `loss.backward()` and `optimizer.step()`. It reads, and changes nothing.

    Args:
        module: the network.
        optimizer: what changes it, with all parameters that are to be trained.
        classes: names of the classes, for the sentences; None for their numbers.
        steps: how many steps to look at, at least 1; later calls return at once.
        total_steps: how long the training will be, as far as it is known.
        ignore_index: the label that does not count.
        reduction: "mean" or "sum", what the loss is over the pixels; None to see it from the first step's scores.
        gather: the arrays of all processes (…) → (size, …), where several share each batch; None for one process. Each
            gives `after_backward` its own scores and labels, and the loss and gradients of the whole batch; they all
            find the same.

    Raises:
        ValueError: steps or total_steps below 1, or another reduction.

    >>> import minifcn as mf
    >>> upsample = mf.nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1, bias=False).requires_grad_(False)
    >>> upsample.weight.data[...] = 0
    >>> net = mf.nn.Sequential(mf.nn.Conv2d(3, 2, 2, stride=2), upsample)
    >>> optimizer = mf.optim.SGD(net.parameters(), lr=0.1)
    >>> first = FirstSteps(net, optimizer, steps=3)
    >>> images, labels = Tensor(np.ones((1, 3, 4, 4), np.float32)), np.array([[[0, 1, 0, 1]] * 4])
    >>> while not first.done:
    ...     scores = net(images)
    ...     loss = mf.functional.cross_entropy(scores, labels)
    ...     loss.backward()
    ...     first.after_backward(loss, scores, labels)
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    >>> print(first.report()[0])
    the weights of 1 are all zero, so nothing passes this transposed convolution; nn.init.bilinear fills it
    """

    def __init__(
        self,
        module: Module,
        optimizer: Optimizer,
        *,
        classes: Sequence[str] | None = None,
        steps: int = STEPS,
        total_steps: int = LONGEST,
        ignore_index: int = IGNORE,
        reduction: str | None = None,
        gather: Callable[[Array], Array] | None = None,
    ) -> None:
        for name, value in (("steps", steps), ("total_steps", total_steps)):
            if value < 1:
                raise ValueError(f"FirstSteps: {name} is {value}; at least 1 is needed")
        if reduction not in (None, "mean", "sum"):
            raise ValueError(f"FirstSteps: reduction is {reduction!r}; 'mean', 'sum' or None is needed")
        self.module, self.optimizer, self.classes = module, optimizer, classes
        self.steps, self.total_steps, self.ignore_index = steps, total_steps, ignore_index
        self._gather = gather
        momenta = {id(p): group.get("momentum", 0.0) for group in optimizer.param_groups for p in group["params"]}
        self._parameters = [
            _Seen(name, p, momenta.get(id(p))) for name, p in module.named_parameters() if p.requires_grad
        ]
        self._rate = 0.0  # the highest learning rate of layers' weights: biases may have another
        self._reduction = reduction
        self._losses: list[float] = []  # the mean over the pixels, also where the loss is their sum
        self._pixels: list[float] = []
        self._counts: list[NDArray[np.int64]] = []  # of each class's labels, by step
        self._broken: tuple[int, float] | None = None  # step, and its loss that is no number
        self._evaluating = 0  # steps in evaluation mode
        self._single: NDArray[np.bool_] | None = None  # (processes,) every batch was one image; None before the first
        # after the first update:
        self._zero_scores = True
        self._same_for_all: bool | None = None  # images; None where no batch has shown two
        self._only: set[int] = set()  # classes that were the answer

    @property
    def done(self) -> bool:
        """Whether it has seen the steps that it was to see."""
        return len(self._losses) >= self.steps or self._broken is not None

    def after_backward(self, loss: Tensor, scores: Tensor, labels: Tensor | Array, pixels: float | None = None) -> None:
        """Look at a step, before its update.

        Args:
            loss: one element.
            scores: (N, C, H, W), from which the loss was computed.
            labels: (N, H, W), integers 0 … C−1 or ignore_index.
            pixels: how many pixels the loss is over, times their weights where classes have some; None to count them.
        """
        if self.done:
            return
        target = to_device(labels.data if isinstance(labels, Tensor) else labels, "cpu")
        own = np.bincount(target[target != self.ignore_index], minlength=scores.shape[1])
        every = self._all(np.append(own, len(target)))
        counts = every[:, :-1].sum(axis=0)
        if not counts.any():  # nothing but void has no loss
            return
        for seen in self._parameters:
            seen.take(len(self._losses))
        value = float(loss.item())
        if not math.isfinite(value):
            self._broken = (len(self._losses) + 1, value)
            return
        groups = self.optimizer.param_groups
        of_layers = [group for group in groups if any(p.ndim >= 2 for p in group["params"])]
        self._rate = max(self._rate, *(float(group["lr"]) for group in of_layers or groups))
        self._counts.append(counts)
        self._pixels.append(float(counts.sum()) if pixels is None else pixels)
        if self._reduction is None:
            self._reduction = "sum" if self._is_summed(value, scores, labels) else "mean"
        self._evaluating += not self.module.training
        single = every[:, -1] == 1
        self._single = single if self._single is None else self._single & single
        if self._losses:
            self._look_at_scores(scores.data)
        self._losses.append(value / self._pixels[-1] if self._reduction == "sum" else value)

    def _all(self, own: Array) -> Array:
        """(size, …) what all processes have."""
        return own[None] if self._gather is None else self._gather(own)

    def _look_at_scores(self, scores: Array) -> None:
        """Each question is asked until the answer is that all is well."""
        if self._zero_scores:
            self._zero_scores = not self._all(np.array(bool(scores.any()))).any()
        if self._same_for_all is not False:
            apart = float(abs(scores[1:] - scores[:1]).max()) if len(scores) > 1 else math.nan
            answers = self._all(np.array([apart, float(abs(scores).max())]))
            answers = answers[~np.isnan(answers[:, 0])]  # of those that have two images
            if len(answers):
                self._same_for_all = bool((answers[:, 0] <= _ROUNDING * answers[:, 1]).all())
        if len(self._only) < 2:
            winners = scores.argmax(axis=1)
            self._only |= set(self._all(np.array([int(winners.min()), int(winners.max())])).ravel().tolist())

    def _is_summed(self, loss: float, scores: Tensor, labels: Tensor | Array) -> bool:
        """Whether the pixels' losses were added up."""
        if self._pixels[0] < 2 or loss <= 10 * math.log(max(2, scores.shape[1])):  # a mean, before anything is learned
            return False
        with no_grad():
            own = F.cross_entropy(scores.detach(), labels, ignore_index=self.ignore_index, reduction="sum").item()
        total = float(self._all(np.array(own)).sum())
        return math.isclose(loss, total, rel_tol=0.01)

    def report(self) -> list[str]:
        """What was found so far, a sentence each, causes first; empty where nothing is wrong."""
        found = [*self._layers()]
        if self._broken is not None:
            step, value = self._broken
            found.append(f"the loss is {value} in step {step}; `with minifcn.debug():` around it names the operation")
        if self._losses:
            found += self._gradients()
        if len(self._losses) > 1:
            found += self._scores()
        return [*found, *self._rates(), *self._modes()]

    def _layers(self) -> Iterable[str]:
        empty = [
            name
            for name, m in self.module.named_modules()
            if isinstance(m, ConvTranspose2d) and not m.weight.data.any()
        ]
        if empty:
            these = "this transposed convolution" if len(empty) == 1 else "these transposed convolutions"
            them = "it" if len(empty) == 1 else "them"
            yield (
                f"the weights of {_some(empty)} are all zero, so nothing passes {these}; nn.init.bilinear fills {them}"
            )

    def _gradients(self) -> Iterable[str]:
        if self._parameters and all(seen.without_grad for seen in self._parameters):
            yield "no parameter has a gradient; after_backward is to be called between backward() and zero_grad()"
            return
        unused = [seen.name for seen in self._parameters if seen.without_grad]
        if unused:
            yield (
                f"{_some(unused)} {_verb(unused, 'gets', 'get')} no gradient, as the loss does not depend on "
                f"{_verb(unused, 'it', 'them')}; does forward() use what {_verb(unused, 'its layer', 'their layers')} "
                "computed?"
            )
        left = [seen.name for seen in self._parameters if seen.momentum is None and not seen.without_grad]
        if left:
            yield (
                f"{_some(left)} {_verb(left, 'is', 'are')} not among the optimizer's parameters and will never change; "
                "give it all of model.parameters(), or fix what is to stay with requires_grad_(False)"
            )
        # in one step a layer of zeros, such as the paper's scores, may hide all layers before it
        dead = [seen.name for seen in self._parameters if seen.zero_grad and not seen.without_grad]
        if dead and len(self._losses) > 1:
            yield (
                f"the gradient of {_some(dead)} was exactly zero in each of the first {len(self._losses)} steps; look "
                "for weights that are all zero, and for ReLUs that let nothing through, where a lower learning rate or "
                "another start is needed"
            )

    def _scores(self) -> Iterable[str]:
        """One of: scores that are zero, that are the same for all images, that name one class only, a loss that stays
        where it is. Each would be followed by the next."""
        count, losses, labels = len(self._losses), self._losses, np.sum(self._counts, axis=0)
        equal = math.log(len(labels))
        if self._zero_scores:
            yield (
                f"all scores are exactly zero in batches 2 to {count}, so the loss is ln {len(labels)} = {equal:.4f} "
                "whatever the image shows; look for weights that are all zero between the score layers and the result, "
                "and for parameters that no update reaches"
            )
        elif self._stays():
            near = math.isclose(losses[0], equal, rel_tol=_ROUNDING)
            as_if = f" = ln {len(labels)}, as if all scores were equal" if near else ""
            yield (
                f"the loss{self._per_pixel()} is {losses[0]:.4f} in each of the first {count} steps{as_if}: the "
                "updates change nothing; "
                f"{self._larger_rate()}"
            )
        elif self._same_for_all:
            yield (
                f"different images get the same scores in batches 2 to {count}: nothing of an image reaches them; look "
                "for ReLUs that let nothing through, and for a part of forward() that leaves the image out"
            )
        elif (
            len(self._only) == 1
            and np.count_nonzero(labels) > 1
            and self._falls() is False
            and not _mostly_below(losses, equal)
        ):
            (only,), halves = self._only, [float(np.median(half)) for half in np.array_split(losses, 2)]
            yield (
                f"every pixel of batches 2 to {count} is answered with class {self._class(only)}, which has "
                f"{labels[only] / labels.sum():.0%} of the labels, and the loss{self._per_pixel()} neither falls "
                f"beyond its noise (median {halves[0]:.4g} in the first half, {halves[1]:.4g} in the second) nor comes "
                f"below ln {len(labels)} = {equal:.4f}, what equal scores would lose; check the learning rate, that "
                "the masks number the classes 0, 1, …, and that the backbone's weights were loaded"
            )

    def _rates(self) -> Iterable[str]:
        trained = [seen for seen in self._parameters if seen.momentum is not None and not seen.zero_grad]
        layers = [seen for seen in trained if seen.is_layer]
        count = len(self._losses)
        if count > 1 and trained and not any(seen.moved for seen in trained):
            yield (
                f"no parameter has changed in the first {count} steps, though there are gradients; is optimizer.step() "
                f"called? If it is, the updates are lost in rounding: {self._larger_rate()}"
            )
            return
        if not layers:
            return
        wild = max(layers, key=lambda seen: seen.largest)
        if wild.largest > 1:
            pixels = f"{self._pixels[0]:,.0f} pixels" if self._pixels else "pixels"
            sums = f"; the loss is the sum over {pixels}: divide a learning rate for their mean by that"
            yield (
                f"one step changes {wild.name} by {wild.largest:.2g} times its own size, so nothing is left of it "
                f"(learning rate {self._rate:.3g}); a lower learning rate is needed"
                f"{sums if self._reduction == 'sum' and not self._has_own_size() else ''}"
            )
        most = max(seen.ahead for seen in layers)
        falls = self._falls()
        waiting = any(seen.parameter.ndim >= 2 and not seen.is_layer for seen in trained)  # for one that began at zero
        undecided = falls is None and count > 1 and not waiting
        if most * self.total_steps < 0.01 and (falls is False or undecided) and not self._stays():
            yield (
                f"a step changes no layer's weights by more than {most:.2g} of their size (learning rate "
                f"{self._rate:.3g}), so {self.total_steps:,} steps cannot change them by 1 %"
                f"{'' if undecided else ', and the loss does not fall'}; {self._larger_rate()}"
            )

    def _modes(self) -> Iterable[str]:
        modules = list(self.module.named_modules())
        norms = [name for name, m in modules if isinstance(m, BatchNorm2d)]
        kinds = "batch norm" if norms else "dropout"
        if self._evaluating and (norms or any(isinstance(m, Dropout | Dropout2d) for _, m in modules)):
            yield (
                f"the network was in evaluation mode in {self._evaluating} of the first {len(self._losses)} steps, so "
                f"{kinds} did not work as it should in training; call train() before, and again after each validation"
            )
        elif (
            self._single is not None
            and self._single.any()
            and any(m.training and m.gather is None for _, m in modules if isinstance(m, BatchNorm2d))
        ):
            together = "" if self._gather is None else " or one norm over all processes (--sync-batch-norm)"
            where = "" if self._single.all() else f" in {self._single.sum()} of {len(self._single)} processes"
            yield (
                f"batch norm ({_some(norms)}) sees batches of one image{where}: it uses that image's own statistics in "
                "training, and an average over images in evaluation, which may be far off; use larger "
                f"batches{together}, or keep these layers in evaluation mode"
            )

    def _stays(self) -> bool:
        """Whether the loss is the same in all steps, but for rounding."""
        return max(self._losses) - min(self._losses) <= _ROUNDING * abs(max(self._losses))

    def _falls(self) -> bool | None:
        """Whether the loss falls; None where too few steps were made to say.

        A batch of many rare labels has a higher loss whatever the network does. What the same answer everywhere, the
        classes' frequencies, would lose on it is therefore taken off, if that makes the fall clearer.
        """
        if len(self._losses) < _LEAST_FOR_A_TREND:
            return None
        losses, counts = np.array(self._losses), np.array(self._counts, np.float64)
        totals = counts.sum(axis=0)
        surprise = np.where(totals > 0, -np.log(np.maximum(totals, 1) / totals.sum()), 0)  # of a label of each class
        return any(_falls(x) for x in (losses, losses - counts @ surprise / counts.sum(axis=1)))

    def _larger_rate(self) -> str:
        words = f"a learning rate above {self._rate:.3g} is needed"
        if self._has_own_size() or self._reduction == "sum":
            return words
        return (
            f"{words}; one for the sum over the pixels, such as the paper's 1e-10, must be multiplied by their number, "
            f"here {np.mean(self._pixels):,.0f} in a step, if the loss is their mean"
        )

    def _has_own_size(self) -> bool:
        """Whether steps are as large for a sum as for a mean: Adam's."""
        return any("momentum" not in group for group in self.optimizer.param_groups)

    def _per_pixel(self) -> str:
        return " per pixel" if self._reduction == "sum" else ""

    def _class(self, number: int) -> str:
        return str(number) if self.classes is None else f"{number} ({self.classes[number]})"


class LabelCensus:
    """Counts which classes the training labels show, and refuses labels that are none.

    Args:
        classes: their names, in order of their numbers.
        ignore_index: the label that does not count.

    >>> census = LabelCensus(["ground", "thing"])
    >>> census.see(np.array([[[0, 0, 255]]]), ["a.png"])
    >>> print(census.report())
    no training pixel of this epoch is labelled thing; are the masks numbered 0, 1, …?
    >>> census.see(np.array([[[0, 2, 255]]]), ["b.png"])
    Traceback (most recent call last):
    ValueError: train: b.png holds labels 2, but the 2 classes are 0 … 1 (ground, thing); 255 marks ignored pixels
    """

    def __init__(self, classes: Sequence[str], ignore_index: int = IGNORE) -> None:
        self.classes, self.ignore_index = tuple(classes), ignore_index
        self.seen = np.zeros(len(self.classes), bool)

    def see(self, labels: NDArray[np.integer], names: Sequence[str]) -> None:
        """Take up the labels (N, H, W) of a batch with these N names.

        Raises:
            ValueError: for labels that are no class, with the names of their images.
        """
        values = _distinct(labels)
        values = values[values != self.ignore_index]
        last = len(self.classes) - 1
        wrong = values[(values < 0) | (values > last)]
        if wrong.size:
            where = [name for name, one in zip(names, labels, strict=True) if np.isin(one, wrong).any()]
            raise ValueError(
                f"train: {_some(where)} {_verb(where, 'holds', 'hold')} labels {_some([str(v) for v in wrong])}, but "
                f"the {last + 1} classes are 0 … {last} ({_some(self.classes)}); {self.ignore_index} marks ignored "
                "pixels"
            )
        self.seen[values] = True

    def report(self) -> str | None:
        """A sentence on classes that no label showed, after all labels of an epoch; None where there are none."""
        if self.seen.all():
            return None
        unseen = [name for name, seen in zip(self.classes, self.seen, strict=True) if not seen]
        return f"no training pixel of this epoch is labelled {_some(unseen, 12)}; are the masks numbered 0, 1, …?"


def broken_values(module: Module, gradients: bool = False) -> str | None:
    """The parameters, or their gradients, that hold NaN or Inf, in words; None where none does."""
    arrays = [
        (name, p.grad.data if gradients and p.grad is not None else p.data)
        for name, p in module.named_parameters()
        if not gradients or p.grad is not None
    ]
    with np.errstate(all="ignore"):
        # one number to look at, as a GPU would have to be waited for at each parameter: finite only if all values are
        if math.isfinite(float(sum(module_of(a).vdot(a, a) for _, a in arrays))):
            return None
    broken = [name for name, a in arrays if not module_of(a).isfinite(a).all()]
    if not broken:  # finite values whose squares are not
        return None
    said = f"{_some(broken)} {_verb(broken, 'holds', 'hold')} NaN or Inf"
    return f"the gradient of {_some(broken)} holds NaN or Inf" if gradients else said


def explain_nan(step: Callable[[], Tensor]) -> str | None:
    """What debug mode says of a step, from its first operation to its gradients: which operation made a NaN or Inf.

    Args:
        step: computes the loss, from the same parameters, batch and random state as before.

    >>> explain_nan(lambda: Tensor([0.0], requires_grad=True).log().sum())  # doctest: +ELLIPSIS
    'log: made 1 Inf out of finite arguments at ...; x (1,) from 0 to 0'
    """
    try:
        with debug():
            step().backward()
    except FloatingPointError as error:
        return str(error)
    return None


def _distinct(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """The numbers that occur, in order."""
    flat = labels.reshape(-1)
    if flat.size and flat.min() >= 0 and flat.max() < _MANY:  # counting takes a tenth of the time that sorting does
        return np.flatnonzero(np.bincount(flat, minlength=1))
    return np.unique(flat)


def _all_zero(a: Array) -> bool:
    if _sample(a).any():  # mostly, that answers
        return False
    # Squares of what is tiny may vanish, so 0 proves nothing; but on a GPU any() is compiled for half a second for each
    # new size, and vdot is there.
    return not module_of(a).vdot(a, a) and not a.any()


def _sample(a: Array) -> NDArray[np.float64]:
    """Up to _SAMPLE values at equal distances, which are odd so that they fall on all columns of even rows; a copy."""
    return to_device(a.reshape(-1)[:: a.size // _SAMPLE | 1], "cpu").astype(np.float64)


def _falls(x: NDArray[np.float64]) -> bool:
    """Whether the later half is lower, as many pairs of an earlier and a later value say so (Mann & Whitney's U)."""
    first, second = np.array_split(x, 2)
    pairs = first.size * second.size
    u = (first[:, None] > second).sum() + (first[:, None] == second).sum() / 2
    return bool(u - pairs / 2 > 2 * math.sqrt(pairs * (x.size + 1) / 12))


def _mostly_below(x: Sequence[float], bound: float) -> bool:
    """Whether the later half is below, in more cases than chance would have it, by two standard deviations."""
    second = np.array_split(np.array(x), 2)[1]
    return bool((second < bound).sum() - second.size / 2 > math.sqrt(second.size))


def _some(names: Sequence[str], most: int = _SHOWN) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _verb(names: Sequence[str], one: str, several: str) -> str:
    return one if len(names) == 1 else several

"""Hyper-parameters by name, and what a learning rate for the sum of the pixels' losses is for their mean.

The authors' code minimises the sum of the cross-entropies of all valid pixels of a step (Caffe's SoftmaxWithLoss with
`normalize: false`), their paper and almost everybody since then the mean. The gradient of the sum over P pixels is P
times that of the mean, and with SGD

    v ← momentum·v + (P·g + d·w),   w ← w − lr·v        is        v ← momentum·v + (g + d/P·w),   w ← w − P·lr·v

for v in other units. So P·lr and d/P for the mean do what lr and the weight decay d do for the sum: exactly where every
step has P valid pixels, and on average where their number varies. A learning rate for the one loss under the
other is wrong by P, some 10⁵: the weights stay where they are, or become NaN in the first steps. Adam divides by the
gradient's size, which makes its learning rate the same for both; the weight decay is added to the gradient before.

A recipe is a list of rules, a pattern for the network's name and what it sets; later rules override earlier ones, and
the command line overrides all. What no recipe says: the authors draw each image at random with replacement, 100,000
times; here every epoch is all images once, in a new order, and `epochs` has as many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from minifcn.training.config import TrainConfig

if TYPE_CHECKING:
    from minifcn.data import Dataset, Sample

_LOOKED_AT = 64  # images, of which the valid pixels are counted

Entries = Mapping[str, Any]


def convert(lr: float, weight_decay: float, pixels: float, to: str, optimizer: str = "sgd") -> tuple[float, float]:
    """(lr, weight_decay) that make the same updates under the other loss.

    Args:
        lr, weight_decay: for the loss that it is not converted to.
        pixels: P, the valid pixels of a step, with their weights where classes have some; above 0.
        to: "mean" for rates that were for the sum, "sum" for rates that were for the mean.
        optimizer: "sgd" or "adam".

    Raises:
        ValueError: for another `to` or optimizer, or for no pixels.

    >>> convert(1e-10, 5e-4, pixels=200_000, to="mean")
    (2e-05, 2.5e-09)
    >>> convert(1e-3, 1e-9, pixels=100_000, to="sum", optimizer="adam")
    (0.001, 0.0001)
    """
    if to not in ("mean", "sum"):
        raise ValueError(f"convert: to is {to!r}; 'mean' or 'sum' is needed")
    if optimizer not in ("sgd", "adam"):
        raise ValueError(f"convert: optimizer is {optimizer!r}; 'sgd' or 'adam' is needed")
    if not pixels > 0:
        raise ValueError(f"convert: pixels is {pixels}; a number above 0 is needed")
    factor = pixels if to == "mean" else 1 / pixels
    return lr * factor if optimizer == "sgd" else lr, weight_decay / factor


def step_pixels(
    dataset: Dataset,
    batch_size: int,
    augment: Callable[[Sample, np.random.Generator], Sample] | None = None,
    class_weights: ArrayLike | None = None,
) -> float:
    """How many valid pixels a step of training has on average, with their weights where classes have some.

    Counted on 64 images at equal distances, or on all where there are fewer, as training would cut them out.

    Args:
        dataset: the training images.
        batch_size: images in a step.
        augment: what is done to each of them.
        class_weights: (K,) or None for 1.
    """
    from minifcn.data import IGNORE, some_samples

    rng = np.random.default_rng(0)
    weights = np.ones(dataset.num_classes) if class_weights is None else np.asarray(class_weights, np.float64)
    images, total = 0, 0.0
    for sample in some_samples(dataset, _LOOKED_AT):
        labels = (sample if augment is None else augment(sample, rng)).labels
        counts = np.bincount(labels[labels != IGNORE], minlength=len(weights))
        total += float(counts[: len(weights)] @ weights)
        images += 1
    return total / images * min(batch_size, len(dataset))


def in_other_words(config: TrainConfig, pixels: float) -> str:
    """What a configuration with a summed loss would have to say for the mean, in a sentence.

    Args:
        config: with `loss="sum"`.
        pixels: of a step, above 0.

    >>> in_other_words(TrainConfig(optimizer="sgd", loss="sum", lr=1e-10, weight_decay=5e-4), 187_500)
    'summed loss over about 187,500 valid pixels a step: lr 1e-10 is what 1.88e-05 is for the mean loss, weight decay \
0.0005 what 2.67e-09 is'
    """
    lr, decay = convert(config.lr, config.weight_decay, pixels, "mean", config.optimizer)
    counted = f"{pixels:,.0f} valid pixels{_weighed(config)}"
    rate = f"what {lr:.3g} is" if config.optimizer == "sgd" else "the same (Adam divides by the gradient's size)"
    return (
        f"summed loss over about {counted} a step: lr {config.lr:.3g} is {rate} for the mean loss, "
        f"weight decay {config.weight_decay:.3g} what {decay:.3g} is"
    )


def _weighed(config: TrainConfig) -> str:
    return "" if config.class_weights == "none" else " (times their classes' weights)"


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters that belong together.

    Args:
        name: for `--recipe`.
        source: where they come from, and what differs here.
        rules: (pattern for the network's name with * and ?, entries of TrainConfig); later ones override earlier ones.
    """

    name: str
    source: str
    rules: tuple[tuple[str, Entries], ...]

    def entries(self, model: str) -> dict[str, Any]:
        """What it sets for a network.

        >>> RECIPES["reference"].entries("fcn16s_vgg16")["lr"]
        1e-12
        """
        found: dict[str, Any] = {}
        for pattern, entries in self.rules:
            if fnmatchcase(model, pattern):
                found |= entries
        return found

    def __str__(self) -> str:
        """Name and source, then a line for each rule."""
        width = max(len(pattern) for pattern, _ in self.rules)
        lines = [f"{self.name}: {self.source}"]
        for pattern, entries in self.rules:
            lines.append(f"  {pattern:<{width}}  {', '.join(_shown(entries))}")
        return "\n".join(lines)


def _shown(entries: Entries) -> Iterable[str]:
    for name, value in entries.items():
        text = ("x" if name in ("crop", "size") else ",").join(map(str, value)) if isinstance(value, tuple) else value
        yield f"{name} {f'{text:g}' if isinstance(text, float) else str(text)}"


_SOLVER = {"optimizer": "sgd", "schedule": "constant", "weight_decay": 5e-4, "flip": False, "paper_bias": True}
# 100,000 iterations of one image, 300,000 and 100,000 of 20, in passes over the 8,498 training images of SBD
_ITERATIONS, _ATONCE, _BY_20 = 12, 35, 235

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "reference",
            "the solvers of the authors' code (github.com/shelhamer/fcn.berkeleyvision.org, voc-fcn*), one image a "
            "step and the sum of its pixels' losses; epochs are those of SBD's 8,498 images. AlexNet's 20 images a "
            "step (iter_size), each with a mean of its own, are one batch with one mean here",
            (
                (
                    "*",
                    {"width": 1.0, **_SOLVER, "momentum": 0.99, "batch_size": 1, "loss": "sum", "epochs": _ITERATIONS},
                ),
                ("fcn32s_vgg*", {"lr": 1e-10}),
                ("fcn16s_vgg*", {"lr": 1e-12}),
                ("fcn8s_vgg*", {"lr": 1e-14}),
                ("fcn8s_atonce_vgg*", {"lr": 1e-10, "epochs": _ATONCE}),
                (
                    "fcn32s_alexnet*",
                    # biases of all layers but the last have no rule of their own there
                    {
                        "lr": 1e-4, "momentum": 0.9, "loss": "mean", "batch_size": 20, "paper_bias": False,
                        "epochs": _BY_20,
                    },
                ),
            ),
        ),
        Recipe(
            "paper",
            "Long, Shelhamer & Darrell, CVPR 2015, §4: 20 images a step and the mean of their pixels' losses, at least "
            "175 epochs, a hundredth of the rate where a stride is added; its weight decay is printed as 5⁻⁴ or 2⁻⁴",
            (
                ("*", {"width": 1.0, **_SOLVER, "momentum": 0.9, "batch_size": 20, "loss": "mean", "epochs": 175}),
                ("fcn32s_alexnet*", {"lr": 1e-3}),
                ("fcn32s_vgg*", {"lr": 1e-4}),
                ("fcn32s_googlenet*", {"lr": 5e-5}),
                ("fcn16s_alexnet*", {"lr": 1e-5}),
                ("fcn16s_vgg*", {"lr": 1e-6}),
                ("fcn16s_googlenet*", {"lr": 5e-7}),
                ("fcn8s_alexnet*", {"lr": 1e-5}),
                ("fcn8s_vgg*", {"lr": 1e-6}),
                ("fcn8s_googlenet*", {"lr": 5e-7}),
            ),
        ),
        Recipe(
            "camvid",
            "ours, for camvid:DIR at 360x480, --staged, from a VGG-16 that has seen photographs (--init), on a GPU "
            "(--device cuda)",
            (
                (
                    "*",
                    {
                        "width": 1.0, "optimizer": "adam", "lr": 1e-4, "weight_decay": 1e-4, "schedule": "poly",
                        "batch_size": 4, "crop": (320, 416), "scale": (0.75, 1.25), "flip": True,
                        "matmul_precision": "high", "val_every": 5, "epochs": 5,
                    },
                ),
                ("fcn16s_*", {"epochs": 3}),
                ("fcn8s_*", {"epochs": 22}),
            ),
        ),
    )
}  # fmt: skip


def configure(
    recipe: str, given: Entries, count: Callable[[TrainConfig], float] | None = None
) -> tuple[TrainConfig, str | None]:
    """A recipe's configuration with what was given in the place of its own, and a sentence where rates were converted.

    Args:
        recipe: one of RECIPES.
        given: entries of TrainConfig, which override the recipe's. With the other `loss`, those of lr and weight_decay
            that are not among them are converted.
        count: tells the valid pixels of a step of a configuration; by default its data are opened and counted.

    Raises:
        ValueError: for a name or values that do not exist, or where the recipe has no learning rate for this network or
            optimizer and none is given.

    >>> config, said = configure("reference", {"model": "fcn32s_vgg16", "loss": "mean"}, lambda config: 200_000)
    >>> config.lr, config.loss, config.momentum
    (2e-05, 'mean', 0.99)
    >>> said
    'recipe reference is for the sum over the pixels: with about 200,000 valid pixels a step, lr 1e-10 is 2e-05 and \
weight decay 0.0005 is 2.5e-09 for the mean'
    """
    if recipe not in RECIPES:
        raise ValueError(f"train: there is no recipe {recipe!r}; one of {', '.join(RECIPES)} is needed")
    model = given.get("model", TrainConfig.model)
    own = RECIPES[recipe].entries(model)
    if "lr" not in own and "lr" not in given:
        raise ValueError(f"train: recipe {recipe} has no learning rate for {model}; --lr is needed beside it")
    optimizer = given.get("optimizer", own["optimizer"])
    if optimizer != own["optimizer"] and "lr" not in given:
        raise ValueError(
            f"train: the learning rate of recipe {recipe} is for {own['optimizer']}; with {optimizer}, --lr is needed"
        )
    config = TrainConfig(**own | dict(given))
    theirs = own.get("loss", TrainConfig.loss)
    converted = [name for name in ("lr", "weight_decay") if name not in given]
    if config.loss == theirs or not converted:
        return config, None
    pixels = (count or _count)(config)
    lr, decay = convert(config.lr, config.weight_decay, pixels, config.loss, optimizer)
    new = {"lr": lr, "weight_decay": decay}
    changes = [f"{name.replace('_', ' ')} {getattr(config, name):.3g} is {new[name]:.3g}" for name in converted]
    said = (
        f"recipe {recipe} is for the {theirs} over the pixels: with about {pixels:,.0f} valid pixels{_weighed(config)} "
        f"a step, "
        f"{' and '.join(changes)} for the {config.loss}"
    )
    return TrainConfig(**own | {name: new[name] for name in converted} | dict(given)), said


def _count(config: TrainConfig) -> float:
    from minifcn.data import Skipping, class_weights, open_dataset

    dataset: Dataset = open_dataset(config.data, "train", **config.data_options("train"))
    if config.bad_images == "skip":
        dataset = Skipping(dataset, lambda line: None)  # training names them
    weights = class_weights(dataset, config.class_weights)
    return step_pixels(dataset, config.batch_size, config.augment, weights)

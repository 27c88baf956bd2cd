"""Everything that decides what a training run computes: written once here, read by the trainer and the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from minifcn.data import Augment


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from "360x480", or from one number for a square.

    Raises:
        ValueError: for anything else.

    >>> parse_size("360x480"), parse_size("128")
    ((360, 480), (128, 128))
    """
    numbers = text.lower().replace("×", "x").split("x")
    if len(numbers) > 2 or not all(number.isascii() and number.isdigit() and int(number) > 0 for number in numbers):
        raise ValueError(f"size is {text!r}; HEIGHTxWIDTH in pixels is needed, for example 360x480")
    return int(numbers[0]), int(numbers[-1])


def parse_range(text: str) -> tuple[float, float]:
    """(least, most) from "0.75,1.5".

    Raises:
        ValueError: for anything else.

    >>> parse_range("0.75,1.5")
    (0.75, 1.5)
    """
    try:
        least, most = (float(number) for number in text.split(","))
    except ValueError as error:
        raise ValueError(f"range is {text!r}; LEAST,MOST is needed, for example 0.75,1.5") from error
    return least, most


def parse_names(text: str) -> tuple[str, ...]:
    """Names from "sky, road".

    Raises:
        ValueError: for a name that is empty.

    >>> parse_names("sky, road")
    ('sky', 'road')
    """
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError(f"names are {text!r}; NAME,NAME,… is needed, none of them empty")
    return names


def _option(default: Any, help: str, **metadata: Any) -> Any:
    """A field with what the command line says about it; `parse` reads its text, `choices` are its only values."""
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class TrainConfig:
    """A training run's configuration. Two runs with equal configurations compute the same numbers.

    The defaults train a small FCN-8s on the package's own scenes in a few minutes on two cores. While it trains,
    `matmul_precision` is what `minifcn.set_float32_matmul_precision` would set, which has no say then.

    Raises:
        ValueError: for a value out of its range.

    >>> config = TrainConfig(epochs=3)
    >>> TrainConfig.from_json(config.to_json()) == config
    True
    """

    model: str = _option("fcn8s_resnet18", "network, one of `minifcn info`")
    width: float = _option(0.25, "channels of the network, as a part of the full number")
    fuse: str = _option("sum", "how FCN-16s and FCN-8s join the scores of two strides", choices=("sum", "cat"))
    init: str | None = _option(
        None,
        "start from another run's weights, or any file of `minifcn weights`, as far as they fit",
        parse=str,
        metavar="RUN|FILE",
    )
    data: str = _option("shapes", "data set: shapes, camvid:DIR, voc:DIR or folder:IMAGES:MASKS")
    size: tuple[int, int] = _option((128, 128), "size of a shapes scene in pixels", parse=parse_size, metavar="HxW")
    scenes: int = _option(1600, "number of training scenes that shapes makes")
    val_scenes: int = _option(64, "number of validation scenes that shapes makes")
    classes: tuple[str, ...] | None = _option(
        None, "names of the classes of a folder data set", parse=parse_names, metavar="NAME,NAME,…"
    )
    crop: tuple[int, int] | None = _option(None, "train on random crops of this size", parse=parse_size, metavar="HxW")
    scale: tuple[float, float] | None = _option(
        None, "scale training images by a random factor", parse=parse_range, metavar="LEAST,MOST"
    )
    flip: bool = _option(True, "mirror every other training image")
    brightness: float = _option(0.0, "make training images lighter or darker by up to this part of full scale")
    contrast: float = _option(
        0.0, "raise or lower training images' contrast by up to this part (0.3: 0.7 to 1.3 times)"
    )
    epochs: int = _option(3, "passes over the training images")
    val_every: int = _option(1, "epochs between validations; the last epoch is always validated", metavar="EPOCHS")
    batch_size: int = _option(8, "images in a step")
    optimizer: str = _option("adam", "how weights are updated", choices=("sgd", "adam"))
    lr: float = _option(3e-3, "learning rate of the first step")
    backbone_lr: float = _option(1.0, "learning rate of the backbone, as a part of the rest's")
    momentum: float = _option(0.9, "momentum of sgd")
    weight_decay: float = _option(1e-4, "weight decay")
    paper_bias: bool = _option(False, "the paper's rule for biases: twice the learning rate and no decay")
    schedule: str = _option("poly", "how the learning rate falls", choices=("poly", "step", "constant"))
    power: float = _option(0.9, "exponent of the poly schedule")
    step_epochs: int = _option(10, "epochs between the drops of the step schedule")
    gamma: float = _option(0.1, "factor of a drop of the step schedule")
    loss: str = _option(
        "mean",
        "over the valid pixels of a step; --lr and --weight-decay are for the one that is chosen",
        choices=("mean", "sum"),
    )
    class_weights: str = _option(
        "none",
        "weights of the classes in the loss; median: the median of their frequencies by each one's own; sqrt-median: "
        "the square roots of these, which find rare classes at a lower price for the others",
        choices=("none", "median", "sqrt-median"),
    )
    sync_batch_norm: bool = _option(
        False, "under mpiexec: batch norm with the statistics of all processes' images, not of each one's own"
    )
    seed: int = _option(0, "seed of weights, data order, augmentation and dropout")
    workers: int = _option(1, "threads that load images ahead")
    bad_images: str = _option("stop", "what a damaged training image does", choices=("stop", "skip"))
    checkpoint_every: int = _option(
        0, "steps between checkpoints within an epoch; 0: as often as takes less than 2 %% of the time", metavar="STEPS"
    )
    device: str = _option("cpu", "where to compute", choices=("cpu", "cuda", "auto"))
    matmul_precision: str = _option(
        "highest",
        "how exact float32 convolutions and products are on a GPU; high: by tensor cores, with factors rounded to TF32",
        choices=("highest", "high"),
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            kind = type(entry.default)
            if kind in (bool, int, float, str):
                value = getattr(self, entry.name)
                fine = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (
                    kind is bool
                )
                self._check(entry.name, fine, f"{kind.__name__} is needed")
        for name in ("scenes", "val_scenes", "epochs", "val_every", "batch_size", "step_epochs", "workers"):
            self._check(name, getattr(self, name) >= 1, "at least 1 is needed")
        for name in ("width", "lr", "backbone_lr", "power", "gamma"):
            value = getattr(self, name)
            self._check(name, math.isfinite(value) and value > 0, "a number above 0 is needed")
        for name in ("brightness", "contrast"):
            self._check(name, 0 <= getattr(self, name) <= 1, "0 to 1 is needed")
        self._check("momentum", 0 <= self.momentum < 1, "0 or more and below 1 is needed")
        self._check("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more is needed")
        for name in ("seed", "checkpoint_every"):
            self._check(name, getattr(self, name) >= 0, "0 or more is needed")
        for name in ("size", "crop"):
            value = getattr(self, name)
            fine = value is None or (isinstance(value, tuple) and len(value) == 2 and min(value) >= 1)
            self._check(name, fine, "(height, width) is needed")
        if self.scale is not None:
            self._check("scale", isinstance(self.scale, tuple) and len(self.scale) == 2, "least and most are needed")
            self._check("scale", 0 < self.scale[0] <= self.scale[1] < math.inf, "0 < least ≤ most is needed")
        self._check(
            "classes", self.classes is None or self.kind == "folder", "camvid, voc and shapes have names of their own"
        )
        for entry in fields(self):
            choices = entry.metadata.get("choices")
            if choices:
                self._check(entry.name, getattr(self, entry.name) in choices, f"one of {', '.join(choices)} is needed")

    def _check(self, name: str, fine: bool, need: str) -> None:
        if not fine:
            raise ValueError(f"TrainConfig: {name} is {getattr(self, name)!r}; {need}")

    @property
    def augment(self) -> Augment:
        """What is done to each training image: `scale`, `crop`, `flip`, `brightness` and `contrast`."""
        from minifcn.data import Augment

        return Augment(self.scale, self.crop, self.flip, self.brightness, self.contrast)

    @property
    def kind(self) -> str:
        """The kind of data: shapes, camvid, voc or folder."""
        return self.data.partition(":")[0]

    @property
    def model_options(self) -> dict[str, Any]:
        """What `minifcn.models.create` needs to know beside the number of classes."""
        # what is the default is left out: files from before the option existed are of the same network
        return {"width": self.width} | ({"fuse": self.fuse} if self.fuse != "sum" else {})

    def data_options(self, split: str) -> dict[str, Any]:
        """What `minifcn.data.open_dataset` needs to know for a split, beside `data`."""
        if self.kind == "shapes":
            return {"size": self.size, "count": self.scenes if split == "train" else self.val_scenes}
        return {} if self.classes is None else {"classes": self.classes}

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The configuration that `to_json` wrote; entries that it lacks have their defaults.

        Raises:
            ValueError: for text that is no JSON object, or has entries that are not known.
        """
        try:
            entries = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"TrainConfig: the text is not JSON ({error}); a run's config.json is needed") from error
        if not isinstance(entries, dict):
            raise ValueError(f"TrainConfig: the text holds {type(entries).__name__}; a JSON object is needed")
        return cls.from_dict(entries)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """The configuration of these entries by name; the others have their defaults.

        Raises:
            ValueError: for entries that are not known.
        """
        unknown = sorted(set(entries) - {entry.name for entry in fields(cls)})
        if unknown:
            raise ValueError(
                f"TrainConfig: unknown entries {', '.join(unknown)}; another version may have written them"
            )
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in entries.items()}
        return cls(**values)

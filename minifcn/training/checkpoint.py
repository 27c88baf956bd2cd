"""Files of a training run: weights that stand alone, and checkpoints from which training goes on exactly.

Both are safetensors files (no pickle: loading one runs no code), each written atomically:

    weights      one tensor per state_dict entry, under its own name
    checkpoint   `model.<entry>`, and `optimizer.<parameter index>.<name>` for the optimizer's arrays

What is not an array is JSON in the file's metadata, and Python's JSON returns every float to the bit. It also holds a
ModelCard, so a weights file alone is enough to build the network, name its classes and paint its output. All of it is
one metadata entry: safetensors writes several in random order, and equal states should be equal files. Its last word is
the SHA-256 of all the others and of every array, which reading compares: a file with one bit changed is a damaged file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn import models
from minifcn.array import to_device
from minifcn.nn import Module
from minifcn.optim import Optimizer, Schedule
from minifcn.training.files import replacing

BEST = "best.safetensors"
CHECKPOINT = "checkpoint.safetensors"
STAGES = "stages.json"
_ENTRY = "minifcn"
_WEIGHTS, _CHECKPOINT = "weights", "checkpoint"
_PLAIN, _WITH_SUM = "1", "2"  # versions of both: files of the first have no checksum

Arrays = dict[str, NDArray[Any]]


class DamagedFile(ValueError):
    """A file that is not, or no longer, what this module wrote."""


@dataclass(frozen=True)
class ModelCard:
    """Which network a file belongs to, and what its classes are.

    Args:
        model: a name of `minifcn.models.available()`.
        num_classes: K.
        options: further arguments of `minifcn.models.create`, as JSON can hold them.
        classes: K names, or none.
        palette: K colours (red, green, blue), 0…255, or none.
    """

    model: str
    num_classes: int
    options: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()

    def create(self, seed: int = 0) -> Module:
        """The network, freshly initialised by `seed`."""
        return models.create(self.model, num_classes=self.num_classes, seed=seed, **self.options)

    def describe(self) -> str:
        """The network in a few words.

        >>> ModelCard("fcn8s_resnet18", 7, {"width": 0.25}).describe()
        'fcn8s_resnet18 (width 0.25, 7 classes)'
        """
        classes = "1 class" if self.num_classes == 1 else f"{self.num_classes} classes"
        settings = [*(f"{key} {value}" for key, value in self.options.items()), classes]
        return f"{self.model} ({', '.join(settings)})"

    def same_network(self, other: ModelCard) -> bool:
        """Whether weights of the one fit the other; the names of the classes do not matter."""
        return (self.model, self.num_classes, self.options) == (other.model, other.num_classes, other.options)


def save_weights(path: str | os.PathLike[str], module: Module, card: ModelCard) -> None:
    """Write the weights and buffers of a network to a safetensors file, atomically.

    Args:
        path: the file; an older one is replaced when the new one is complete.
        module: the network.
        card: what it is.
    """
    _write(path, _state(module), {"format": f"{_WEIGHTS} {_WITH_SUM}", "card": asdict(card)})


def load_weights(path: str | os.PathLike[str]) -> tuple[Arrays, ModelCard]:
    """(state_dict, card) of a weights file or of a checkpoint's network.

    Args:
        path: a file that `save_weights` or `save_checkpoint` wrote, or a run's folder: its best weights.

    Raises:
        FileNotFoundError: where there is none.
        DamagedFile: for a file that is damaged or that neither of the two wrote.
    """
    file = find_weights(path)
    arrays, about = read(file, "load_weights")
    card = _card(about)
    if _kind(about) == _CHECKPOINT:
        arrays = _part(arrays, "model.")
    return arrays, card


def load_model(path: str | os.PathLike[str]) -> tuple[Module, ModelCard]:
    """The network of a weights file, checkpoint or run folder, in evaluation mode, with its card.

    Raises:
        FileNotFoundError, ValueError: as `load_weights`.
    """
    arrays, card = load_weights(path)
    module = card.create()
    module.load_state_dict(arrays)
    module.eval()
    return module, card


def find_weights(path: str | os.PathLike[str]) -> Path:
    """The weights file that a path means: itself, or the best weights of a run's folder, or of the last finished stage
    in a folder of several.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for stages whose plan is damaged.
    """
    file = Path(path)
    if file.is_dir():
        if (file / STAGES).is_file():
            file = _last_stage(file)
            if not file.is_dir():
                raise FileNotFoundError(
                    f"load_weights: {path} lacks the folder {file.name} of its last finished stage; put it back, or "
                    "give the folder of another stage"
                )
        file = file / BEST
        if not file.is_file():
            raise FileNotFoundError(
                f"load_weights: {file.parent} holds no {BEST}; a folder of `minifcn train` has one after its first "
                "validation"
            )
    if not file.is_file():
        raise FileNotFoundError(f"load_weights: there is no file {path}; a run's folder or a weights file is needed")
    return file


def _last_stage(folder: Path) -> Path:
    file = folder / STAGES
    try:
        stages = json.loads(file.read_text(encoding="utf-8", errors="replace"))["stages"]
        finished = [str(stage["folder"]) for stage in stages if stage["result"] is not None]
        first = folder / stages[0]["folder"]
    except (KeyError, IndexError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"load_weights: {file} is damaged ({error}); give the folder of a stage") from error
    if not finished:
        raise FileNotFoundError(
            f"load_weights: no stage in {folder} is finished; give the folder of one, such as {first}"
        )
    return folder / finished[-1]


def save_checkpoint(
    path: str | os.PathLike[str],
    module: Module,
    card: ModelCard,
    optimizer: Optimizer,
    schedule: Schedule | None = None,
    progress: Mapping[str, Any] | None = None,
    previous: str | os.PathLike[str] | None = None,
) -> None:
    """Write everything that training needs to go on exactly to one safetensors file, atomically.

    Args:
        path: the file; an older one is replaced when the new one is complete.
        module: the network: weights and buffers.
        card: what it is.
        optimizer: its state is kept to the bit.
        schedule: the learning rate's schedule, where there is one.
        progress: epoch, step, best score, random state …: whatever JSON can hold.
        previous: where the checkpoint goes that was there before; None, and it is replaced.
    """
    arrays = {f"model.{key}": value for key, value in _state(module).items()}
    state = optimizer.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        numbers[str(index)] = {}
        for name, value in entries.items():
            if isinstance(value, int | float | None):
                numbers[str(index)][name] = value
            else:
                arrays[f"optimizer.{index}.{name}"] = np.asarray(to_device(value, "cpu"), order="C")
    about = {
        "format": f"{_CHECKPOINT} {_WITH_SUM}",
        "card": asdict(card),
        "optimizer": {"state": numbers, "param_groups": state["param_groups"]},
        "schedule": None if schedule is None else schedule.state_dict(),
        "progress": dict(progress or {}),
    }
    _write(path, arrays, about, previous)


def load_checkpoint(
    path: str | os.PathLike[str],
    module: Module,
    card: ModelCard,
    optimizer: Optimizer,
    schedule: Schedule | None = None,
) -> dict[str, Any]:
    """Put a checkpoint's state into a network, optimizer and schedule; returns its `progress`.

    Args:
        path: a file that `save_checkpoint` wrote.
        module: a network like the one that was saved.
        card: what it is.
        optimizer: an optimizer over the same parameters.
        schedule: a schedule like the one that was saved, if one was.

    Raises:
        FileNotFoundError: where there is none.
        DamagedFile: for a file that is damaged or that this module did not write.
        ValueError: for one that is no checkpoint, or of another network.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"load_checkpoint: there is no file {path}; a run's {CHECKPOINT} is needed")
    arrays, about = read(file, "load_checkpoint")
    saved = _card(about)
    if _kind(about) != _CHECKPOINT:
        raise ValueError(f"load_checkpoint: {path} holds weights only; a run's {CHECKPOINT} is needed")
    if not saved.same_network(card):
        raise ValueError(
            f"load_checkpoint: {path} is a checkpoint of another model, {saved.describe()}, not of {card.describe()}; "
            "resume with the model that it was trained with"
        )
    state: dict[int, dict[str, Any]] = {int(i): dict(entry) for i, entry in about["optimizer"]["state"].items()}
    for key, value in _part(arrays, "optimizer.").items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    module.load_state_dict(_part(arrays, "model."))
    optimizer.load_state_dict({"state": state, "param_groups": about["optimizer"]["param_groups"]})
    if schedule is not None and about["schedule"] is not None:
        schedule.load_state_dict(about["schedule"])
    progress: dict[str, Any] = about["progress"]
    return progress


def _state(module: Module) -> Arrays:
    # order="C": safetensors writes an array's memory as it lies (ascontiguousarray would make a scalar (1,))
    return {key: np.asarray(value, order="C") for key, value in module.state_dict().items()}


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _kind(about: dict[str, Any]) -> str:
    return str(about["format"]).partition(" ")[0]


def _sum(arrays: Arrays, about: dict[str, Any]) -> str:
    """What a file's `sha256` should be; the same for the dictionary that was written and for the one that was read."""
    digest = hashlib.sha256(json.dumps(about).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)  # no copy: it lies in order
    return digest.hexdigest()


def _write(
    path: str | os.PathLike[str],
    arrays: Arrays,
    about: dict[str, Any],
    previous: str | os.PathLike[str] | None = None,
) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    about = about | {"sha256": _sum(arrays, about)}
    with replacing(path, previous) as draft:
        try:
            save_file(arrays, draft, {_ENTRY: json.dumps(about)})
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(f"save: {path} cannot be written ({error}); the file that was there before stays") from error


def read(path: Path, op: str) -> tuple[Arrays, dict[str, Any]]:
    """(arrays, what the JSON beside them says) of a file that this module wrote; `op` is for the message.

    Raises:
        DamagedFile: for a file that is damaged or that this module did not write.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            # a copy each: what the library returns may be read-only or look into the file, which a later save replaces
            arrays = {key: np.array(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
            about = json.loads((file.metadata() or {}).get(_ENTRY, "{}"))
    except SafetensorError as error:
        raise DamagedFile(
            f"{op}: {path} is no complete safetensors file ({error}); it may be truncated, or of another format, which "
            "`minifcn weights FILE --into MODEL --to NAME.safetensors` converts"
        ) from error
    except json.JSONDecodeError:
        about = {}
    known = [f"{kind} {version}" for kind in (_WEIGHTS, _CHECKPOINT) for version in (_PLAIN, _WITH_SUM)]
    if not isinstance(about, dict) or about.get("format") not in known:
        raise DamagedFile(
            f"{op}: {path} does not say which model it belongs to; a file of `minifcn train` is needed, or "
            "of `minifcn weights FILE --into MODEL --to NAME.safetensors`"
        )
    if about["format"].endswith(_WITH_SUM) and about.pop("sha256", None) != _sum(arrays, about):
        raise DamagedFile(f"{op}: {path} is damaged: its contents do not have the checksum that was written with them")
    return arrays, about


def _card(about: dict[str, Any]) -> ModelCard:
    entries = about["card"]
    classes, palette = tuple(entries["classes"]), tuple((r, g, b) for r, g, b in entries["palette"])
    return ModelCard(entries["model"], entries["num_classes"], entries["options"], classes, palette)

"""Training and use: metrics, checkpoints, the trainer, a trained network at work, pictures.

The names are loaded when they are first used, so that reading a configuration does not load Pillow or tqdm.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minifcn.training.checkpoint import (
        ModelCard,
        load_checkpoint,
        load_model,
        load_weights,
        save_checkpoint,
        save_weights,
    )
    from minifcn.training.config import TrainConfig
    from minifcn.training.diagnostics import FirstSteps, LabelCensus
    from minifcn.training.distributed import World, find_world
    from minifcn.training.inference import evaluate, predict
    from minifcn.training.metrics import ConfusionMatrix
    from minifcn.training.pictures import learning_curve, overlay_sheet, save_labels
    from minifcn.training.stages import StagedResult, plan, resume_stages, train_stages
    from minifcn.training.trainer import Trainer, TrainResult, train

__all__ = [
    "TrainConfig",
    "train",
    "Trainer",
    "TrainResult",
    "plan",
    "train_stages",
    "resume_stages",
    "StagedResult",
    "World",
    "find_world",
    "evaluate",
    "predict",
    "ConfusionMatrix",
    "FirstSteps",
    "LabelCensus",
    "ModelCard",
    "save_weights",
    "load_weights",
    "load_model",
    "save_checkpoint",
    "load_checkpoint",
    "overlay_sheet",
    "learning_curve",
    "save_labels",
]

_HOMES = {
    "config": ("TrainConfig",),
    "trainer": ("train", "Trainer", "TrainResult"),
    "stages": ("plan", "train_stages", "resume_stages", "StagedResult"),
    "distributed": ("World", "find_world"),
    "inference": ("evaluate", "predict"),
    "metrics": ("ConfusionMatrix",),
    "diagnostics": ("FirstSteps", "LabelCensus"),
    "checkpoint": (
        "ModelCard",
        "save_weights",
        "load_weights",
        "load_model",
        "save_checkpoint",
        "load_checkpoint",
    ),
    "pictures": ("overlay_sheet", "learning_curve", "save_labels"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

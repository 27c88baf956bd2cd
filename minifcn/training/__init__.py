"""Training and use: metrics, checkpoints, the trainer, pictures.

The names are loaded when they are first used, so that reading a configuration does not load Pillow or tqdm.
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "TrainConfig": "config",
    "ConfusionMatrix": "metrics",
    "Trainer": "trainer",
    "TrainResult": "trainer",
    "train": "trainer",
    "evaluate": "trainer",
    "ModelCard": "checkpoint",
    "save_weights": "checkpoint",
    "load_weights": "checkpoint",
    "load_model": "checkpoint",
    "save_checkpoint": "checkpoint",
    "load_checkpoint": "checkpoint",
    "overlay_sheet": "pictures",
    "learning_curve": "pictures",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Whether training waits for data: how many images per second the loader gives alone, and how long a training step of
fcn8s_vgg16 stands still for its next image.

Files are made on the spot: scenes with a grain like that of a camera, so that they are as large as photographs, and
masks. Each is decoded, scaled by ½ to 2, cropped to 360×480 and mirrored or not. Alone, the numbers of workers take
turns in going through all images; beside training, each has an epoch, of which the first image, for which a network
always waits, does not count.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import minifcn as mf
import minifcn.functional as F
from minifcn.data import IGNORE, Augment, Batch, Loader, PairFolder, Shapes

from .measure import interleaved, spread
from .models import SIZE, Ours

NETWORK = "fcn8s_vgg16"
KINDS = (("JPEG", (720, 960)), ("PNG", (720, 960)), ("PNG", (360, 480)))  # CamVid's own size, and the half of it
WORKERS = (0, 1, 2)
IMAGES = 16
GRAIN = 4.0  # standard deviation, of 255


def rows(
    rounds: int,
    images: int = IMAGES,
    kinds: tuple[tuple[str, tuple[int, int]], ...] = KINDS,
    crop: tuple[int, int] = SIZE,
    network: Callable[[], Ours] = lambda: Ours(NETWORK),
) -> list[dict[str, Any]]:
    """For each kind of file and number of workers: the loader's rate, and the share of training that is waiting."""
    found = []
    ours = network()
    augment = Augment(scale=(0.5, 2), crop=crop, flip=True)
    for kind, size in kinds:
        with tempfile.TemporaryDirectory() as folder:
            bytes_each = _write(Path(folder), kind, size, images)
            data = PairFolder(Path(folder) / "images", Path(folder) / "masks", num_classes=Shapes(1).num_classes)
            loaders = {n: Loader(data, 1, shuffle=True, augment=augment, workers=n) for n in WORKERS}
            seconds = interleaved({str(n): partial(_go_through, loader) for n, loader in loaders.items()}, rounds)
            for n, loader in loaders.items():
                row = {
                    "kind": f"{kind} {size[0]}x{size[1]}",
                    "kilobytes": bytes_each / 1e3,
                    "workers": n,
                    "image": spread([s / images for s in seconds[str(n)]]),
                    **_training(ours, loader),
                }
                print(
                    f"{row['kind']}, {n} workers: {1 / row['image']['median_s']:.1f} images/s alone; in training "
                    f"{row['waiting']:.2%} of the time is waiting",
                    flush=True,
                )
                found.append(row)
    return found


def _write(folder: Path, kind: str, size: tuple[int, int], count: int) -> float:
    """Images and masks in two folders; returns the bytes of an image, on average."""
    rng = np.random.default_rng(0)
    scenes = Shapes(count, size=size)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    total = 0
    for k in range(count):
        image, labels, _ = scenes[k]
        grain = rng.normal(0, GRAIN, image.shape)
        picture = Image.fromarray((image + grain).clip(0, 255).astype(np.uint8))
        path = folder / "images" / f"{k}.{'jpg' if kind == 'JPEG' else 'png'}"
        picture.save(path, kind, **({"quality": 90} if kind == "JPEG" else {}))
        total += path.stat().st_size
        Image.fromarray(labels).save(folder / "masks" / f"{k}.png")
    return total / count


def _go_through(loader: Loader) -> None:
    for _ in loader.epoch(0):
        pass


def _training(ours: Ours, loader: Loader) -> dict[str, Any]:
    """An epoch of training: the time of a wait and of a step, and the share of waiting in both."""
    waits, steps = [], []
    batches = loader.epoch(0)
    begin = time.perf_counter()
    for batch in batches:
        given = time.perf_counter()
        _step(ours, batch)
        done = time.perf_counter()
        waits.append(given - begin)
        steps.append(done - given)
        begin = done
    waits, steps = waits[1:], steps[1:]
    return {"wait": spread(waits), "step": spread(steps), "waiting": sum(waits) / (sum(waits) + sum(steps))}


def _step(ours: Ours, batch: Batch) -> None:
    ours.model.train()
    F.cross_entropy(ours.model(mf.Tensor(batch.images)), mf.Tensor(batch.labels), ignore_index=IGNORE).backward()
    ours.optimizer.step()
    ours.optimizer.zero_grad()

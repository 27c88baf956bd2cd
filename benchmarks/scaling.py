"""How time grows with the image and with the batch: per pixel, and per image, it should stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import minifcn as mf

from .measure import RESULTS, interleaved, spread

SIDES = (128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8, 16)
BATCH_SIDE = 128


def rows(names: tuple[str, ...], rounds: int) -> list[dict[str, Any]]:
    """For each network: inference at each image size, and at each batch size. The sizes take turns."""
    found = []
    for name in names:
        model = mf.models.create(name, 21, seed=0)
        model.eval()

        def infer(batch: int, side: int, model: Any = model) -> None:
            with mf.no_grad():
                model(mf.Tensor(np.ones((batch, 3, side, side), np.float32)))

        cases = {f"1x{side}": (1, side) for side in SIDES} | {f"{n}x{BATCH_SIDE}": (n, BATCH_SIDE) for n in BATCHES}
        times = interleaved({key: lambda c=case: infer(*c) for key, case in cases.items()}, rounds)
        for key, (batch, side) in cases.items():
            row = {"model": name, "batch": batch, "side": side, "minifcn": spread(times[key])}
            row["ns_per_pixel"] = row["minifcn"]["median_s"] * 1e9 / (batch * side * side)
            print(row["model"], f"{batch} of {side}²: {row['ns_per_pixel']:.0f} ns per pixel", flush=True)
            found.append(row)
    return found


def draw(result: dict[str, Any]) -> Path:
    """scaling.png: nanoseconds per pixel over the image's side, and over the batch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    for name in dict.fromkeys(r["model"] for r in result["rows"]):
        own = [r for r in result["rows"] if r["model"] == name]
        sides = [r for r in own if r["batch"] == 1]
        batches = [r for r in own if r["side"] == BATCH_SIDE]
        left.plot([r["side"] for r in sides], [r["ns_per_pixel"] for r in sides], "o-", label=name)
        right.plot([r["batch"] for r in batches], [r["ns_per_pixel"] for r in batches], "o-", label=name)
    left.set(xlabel="side of one square image", ylabel="inference, ns per pixel", xscale="log", ylim=(0, None))
    right.set(xlabel=f"images of {BATCH_SIDE}×{BATCH_SIDE} at a time", xscale="log")
    for axes, ticks in ((left, SIDES), (right, BATCHES)):
        axes.set_xticks(ticks, [str(t) for t in ticks], minor=False)
        axes.minorticks_off()
        axes.grid(True, alpha=0.3)
    left.legend()
    path = RESULTS / "scaling.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path

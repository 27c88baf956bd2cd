"""What a staged training came to: the scores of its strides, the curve, and the time, from the folder that it left.

Nothing is trained here. `python -m minifcn train --staged` did, in as many pieces as it took; a row holds a stage's
configuration, with its seed, and every line of its metrics.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from minifcn.data import open_dataset
from minifcn.training.pictures import learning_curve
from minifcn.training.stages import PICTURE, Stage, read_stages, stage_folder
from minifcn.training.trainer import METRICS

from .measure import RESULTS


def finished(run: Path) -> tuple[Stage, ...]:
    """The stages in a folder.

    Raises:
        FileNotFoundError, ValueError: for a folder without stages, or with some that are not finished.
    """
    stages = read_stages(run)
    for stage in stages:
        if stage.result is None:
            raise ValueError(f"stages: {stage.config.model} in {run} is not finished; train --resume {run} goes on")
    return stages


def name(run: Path) -> str:
    """Of the result, by the kind of data."""
    return f"stages_{finished(run)[0].config.kind}"


def rows(run: Path) -> list[dict[str, Any]]:
    """One row per stage.

    Args:
        run: the folder of a finished `train --staged`.

    Raises:
        FileNotFoundError, ValueError: as `finished`.
    """
    found = []
    stages = finished(run)
    for k, stage in enumerate(stages):
        assert stage.result is not None  # it is finished
        folder = stage_folder(run, stages, k)
        records = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
        result = {key: value for key, value in stage.result.items() if key != "epoch"}
        found.append(
            {
                "model": stage.config.model,
                "stride": stage.stride,
                "best_epoch": stage.result["epoch"],
                **result,
                "seconds": round(sum(record["seconds"] for record in records)),
                **_step(stage, records),
                "config": asdict(stage.config)
                | {"data": _without_place(stage.config.data), "init": _file_name(stage.config.init)},
                "records": records,
            }
        )
    return found


def _step(stage: Stage, records: list[dict[str, Any]]) -> dict[str, Any]:
    """The seconds of a step, from the epochs that were not followed by a validation."""
    config = stage.config
    plain = [record["seconds"] for record in records if record["mean_iu"] is None]
    images = len(open_dataset(config.data, "train", **config.data_options("train")))
    steps = max(images // config.batch_size, 1)
    return {
        "images": images,
        "steps_per_epoch": steps,
        "seconds_per_step": round(median(plain) / steps, 3) if plain else None,
    }


def _without_place(data: str) -> str:
    """A data set's words without the places of its files, which are this machine's affair."""
    kind, *places = data.split(":")
    return ":".join([kind, *("DIR" for _ in places)])


def _file_name(path: str | None) -> str | None:
    return None if path is None else Path(path).name


def draw(found: list[dict[str, Any]], run: Path) -> list[Path]:
    """The curve over all stages; of scenes that minifcn draws also what the stages see. Returns the pictures' paths."""
    records = [record for row in found for record in row["records"]]
    curve = RESULTS / f"{name(run)}_curve.png"
    missing = learning_curve(curve, [record | {"epoch": k + 1} for k, record in enumerate(records)])
    if missing is not None:
        raise ImportError(f"stages: {missing}")
    if found[0]["config"]["data"] != "shapes":  # other people's photographs stay where they are
        return [curve]
    picture = RESULTS / f"{name(run)}.png"
    picture.write_bytes((run / PICTURE).read_bytes())
    return [curve, picture]

"""The paper's schedule: an FCN-32s, then an FCN-16s from its weights, then an FCN-8s (Long et al. 2015, §4.2).

A folder holds the plan and one ordinary run for each stage:

    stages.json         every stage's configuration, written before anything starts, and its scores when it is finished
    1-fcn32s_vgg16/     a run, which eval, predict and --init take as any other
    2-fcn16s_vgg16/     the next, from the best weights of the one before
    3-fcn8s_vgg16/
    stages.png          validation images as the stages see them

The layer that scores a stage's new stride begins at zero, and its upsampling layers are bilinear, so each stage begins
with what the one before has learned, and learns what to add.

What a kill at any moment leaves is a plan with some stages finished, at most one begun, and the others not: resuming
skips the first, resumes the second, and ends with the numbers of a run that was left alone. A stage that somebody
trained by hand in its folder is taken up in the same way.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from minifcn import models
from minifcn.data import open_dataset, some_samples
from minifcn.models.common import nearest
from minifcn.training.checkpoint import STAGES, load_model
from minifcn.training.config import TrainConfig
from minifcn.training.distributed import World
from minifcn.training.files import clear_drafts, replacing
from minifcn.training.inference import choose_device, predict
from minifcn.training.interrupt import saying
from minifcn.training.pictures import SHEET_ROWS, overlay_sheet
from minifcn.training.recipes import RECIPES, Entries, configure
from minifcn.training.trainer import (
    CONFIG,
    MAY_CHANGE,
    Trainer,
    TrainResult,
    check_same_run,
    go_on,
    next_folder,
    option,
    read_config,
)

PICTURE = "stages.png"
_STRIDES = (32, 16, 8)
# epochs are part of the plan: a later stage began from the weights that they gave
_MAY_CHANGE = tuple(name for name in MAY_CHANGE if name != "epochs")
_SCORES = ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu")


@dataclass(frozen=True)
class Stage:
    """One run of several.

    Args:
        config: what it computes; `init` is the first stage's, the others' is the stage before.
        result: None, or where it is finished the scores of its best weights on the validation images: `epoch` that
            they are from, `classes`, the four numbers of metrics.jsonl, and `per_class_iu`.
    """

    config: TrainConfig
    result: dict[str, Any] | None = None

    @property
    def stride(self) -> str:
        """32s, 16s or 8s."""
        return self.config.model.partition("_")[0].removeprefix("fcn")


def stage_models(model: str) -> tuple[str, ...]:
    """The networks of the stages that end with this one.

    Raises:
        ValueError: for a name that does not exist, a network that is no FCN-16s or FCN-8s, or one without coarser
            siblings.

    >>> stage_models("fcn8s_vgg16_paper")
    ('fcn32s_vgg16_paper', 'fcn16s_vgg16_paper', 'fcn8s_vgg16_paper')
    """
    found = re.fullmatch(r"fcn(16|8)s_(\w+)", model)
    names = [f"fcn{stride}s_{found[2]}" for stride in _STRIDES if stride >= int(found[1])] if found else []
    known = models.available()
    if model not in known:
        raise ValueError(f"train: there is no model {model!r}; did you mean {nearest(model, known)!r}?")
    if not names or not set(names) <= set(known):
        why = "learns all strides at once" if "_atonce_" in model else "has no coarser siblings to start from"
        raise ValueError(f"train: {model} {why}; --staged is for an FCN-16s or FCN-8s, such as fcn8s_vgg16")
    return tuple(names)


def plan(
    given: Entries,
    *,
    recipe: str | None = None,
    epochs: Sequence[int] | None = None,
    lr: Sequence[float] | None = None,
    count: Callable[[TrainConfig], float] | None = None,
) -> tuple[tuple[TrainConfig, ...], list[str]]:
    """The configurations of all stages, and sentences on rates that were converted.

    Args:
        given: entries of TrainConfig, of the last stage and, as far as they apply, of the others.
        recipe: one of RECIPES, or None. It may give each stage values of its own.
        epochs: one number for each stage, or None for those of the entries or the recipe.
        lr: a factor for each stage's learning rate, or None for the recipe's, or 1. What is multiplied is the rate that
            is given, or the recipe's for the first stage.
        count: as for `configure`.

    Raises:
        ValueError: for a network without stages, another number of factors or epochs, and as `configure`.

    >>> configs, _ = plan({"model": "fcn16s_vgg16", "lr": 0.5}, epochs=(4, 2), lr=(1, 0.1))
    >>> [(config.model, config.epochs, config.lr) for config in configs]
    [('fcn32s_vgg16', 4, 0.5), ('fcn16s_vgg16', 2, 0.05)]
    """
    names = stage_models(given.get("model", TrainConfig.model))
    for flag, values in (("--stage-epochs", epochs), ("--stage-lr", lr)):
        if values is not None and len(values) != len(names):
            raise ValueError(
                f"train: {flag} has {len(values)} numbers; {len(names)} are needed, for {', '.join(names)}"
            )
    factors = lr if lr is not None else _factors(recipe, names) if "lr" in given else None
    configs: list[TrainConfig] = []
    notes: list[str] = []
    for k, name in enumerate(names):
        own = {**given, "model": name} | ({} if epochs is None else {"epochs": epochs[k]})
        if k:
            own.pop("init", None)
            if factors is not None:  # which are of the first stage's rate, whatever the recipe has for this one
                own["lr"] = configs[0].lr
        if name.startswith("fcn32s_"):
            own.pop("fuse", None)  # it has one stride only
        if recipe is None:
            config, note = TrainConfig(**own), None
        else:
            config, note = configure(recipe, own, count)
        if note is not None:
            notes.append(f"{name}: {note}")
        configs.append(config)
    if factors is not None:
        configs = [replace(config, lr=config.lr * factor) for config, factor in zip(configs, factors, strict=True)]
    return tuple(configs), notes


def _factors(recipe: str | None, names: Sequence[str]) -> list[float]:
    """The recipe's learning rates over that of the first stage."""
    rates = [None if recipe is None else RECIPES[recipe].entries(name).get("lr") for name in names]
    return [1.0 if rate is None or rates[0] is None else rate / rates[0] for rate in rates]


@dataclass(frozen=True)
class StagedResult:
    """What all stages came to.

    Args:
        folder: of the plan.
        stages: with their results.
    """

    folder: Path
    stages: tuple[Stage, ...]

    @property
    def mean_iu(self) -> float:
        """The last stage's; nan if the validation images have no valid pixel."""
        value = None if self.stages[-1].result is None else self.stages[-1].result["mean_iu"]
        return float("nan") if value is None else float(value)


def train_stages(
    configs: Sequence[TrainConfig],
    out: str | os.PathLike[str] | None = None,
    *,
    say: Callable[[str], None] = print,
    world: World | None = None,
) -> StagedResult:
    """Train one stage after the other, each from the best weights of the one before.

    Args:
        configs: from `plan`, or any networks whose parts have the same names.
        out: a folder, new, empty or with stages that were trained there; None takes the next free
            `runs/<model>-staged-<n>`.
        say: is given each line of the report.
        world: the processes that train together, as `find_world` finds them; None for this one alone.

    Raises:
        FileExistsError: for a folder that holds anything else.
        ValueError, FloatingPointError, KeyboardInterrupt: as `train`.
    """
    world = world or World()
    with world.ending():
        stages = tuple(Stage(config) for config in configs)
        if out is None:
            folder, new = world.first(lambda: next_folder(f"{configs[-1].model}-staged")), True
        else:
            folder = Path(out)
            new = world.first(lambda: _check_folder(folder, stages))
        if world.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, stages)
        with _saying(folder):
            try:
                begun = [_begin(folder, stages, 0, say, world)]
            except Exception:  # a mistake in the configuration leaves no plan behind, as one network's leaves no folder
                if world.rank == 0:
                    (folder / STAGES).unlink()
                    with suppress(OSError):  # there is a stage in it
                        if new:
                            folder.rmdir()
                raise
            return _train(folder, stages, say, world, begun)


def resume_stages(
    folder: str | os.PathLike[str],
    changes: Entries | None = None,
    *,
    say: Callable[[str], None] = print,
    world: World | None = None,
) -> StagedResult:
    """Go on with stages that stopped, wherever that was.

    Args:
        folder: with a stages.json.
        changes: entries of TrainConfig that may change on resuming, epochs not among them.
        say, world: as for `train_stages`.

    Raises:
        FileNotFoundError: where the folder has no plan.
        ValueError: for changes that would make it another run, a plan that cannot be read, and as `train`.
    """
    world, out, new = world or World(), Path(folder), dict(changes or {})
    fixed = [name for name in new if name not in _MAY_CHANGE]
    if fixed:
        raise ValueError(
            f"train: {option(fixed[0])} cannot change when stages are resumed, only "
            f"{', '.join(map(option, _MAY_CHANGE))} can; other changes need a new run"
        )
    with world.ending():
        stages = world.first(lambda: read_stages(out))
        if new:
            stages = tuple(s if s.result else replace(s, config=replace(s.config, **new)) for s in stages)
        if world.rank == 0:
            clear_drafts(out, (STAGES, PICTURE))
            _write(out, stages)
        with _saying(out):
            return _train(out, stages, say, world, [])


def read_stages(folder: str | os.PathLike[str]) -> tuple[Stage, ...]:
    """The plan in a folder, with the results so far.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for one that cannot be read.
    """
    file = Path(folder) / STAGES
    if not file.is_file():
        raise FileNotFoundError(f"train: {folder} holds no stages (no {STAGES}); a folder of train --staged is needed")
    try:
        entries = json.loads(file.read_text(encoding="utf-8", errors="replace"))["stages"]
        return tuple(Stage(TrainConfig.from_dict(entry["config"]), entry["result"]) for entry in entries)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"train: {file} is damaged ({error}); the file that train --staged wrote is needed") from error


def stages_table(stages: Sequence[Stage]) -> str:
    """The scores of all finished stages, one line each; below, the IU of every class, one column for each stage.

    >>> result = {"epoch": 1, "classes": ["sky", "road"], "per_class_iu": [0.5, None]}
    >>> result |= dict.fromkeys(("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"), 0.25)
    >>> print(stages_table([Stage(TrainConfig(model="fcn32s_vgg16"), result)]))
    stride  epoch  pixel accuracy  mean accuracy  mean IU
    32s         1           0.250          0.250    0.250
    <BLANKLINE>
    IU    32s
    sky   0.500
    road      –
    """
    done = [(stage.stride, stage.result) for stage in stages if stage.result is not None]
    lines = ["stride  epoch  pixel accuracy  mean accuracy  mean IU"]
    for stride, result in done:
        pixel, mean, iu = (_number(result[key]) for key in _SCORES[:3])
        lines.append(f"{stride:<6}  {result['epoch']:>5}  {pixel:>14}  {mean:>13}  {iu:>7}")
    classes = done[0][1]["classes"] if done else []
    width = max([2, *map(len, classes)])
    lines += ["", f"{'IU':<{width}}  " + "  ".join(f"{stride:<5}" for stride, _ in done)]
    for k, name in enumerate(classes):
        values = "  ".join(f"{_number(result['per_class_iu'][k]):>5}" for _, result in done)
        lines.append(f"{name:<{width}}  {values}")
    return "\n".join(line.rstrip() for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _saying(folder: Path) -> AbstractContextManager[None]:
    """What an interruption says that is not in a stage's training, and so has nothing to save."""
    return saying(lambda: f"where everything is saved; {go_on(folder)} goes on from there")


def _train(
    folder: Path, stages: tuple[Stage, ...], say: Callable[[str], None], world: World, begun: list[Trainer]
) -> StagedResult:
    """Everything that is not finished; the first of it is in `begun`, if it was begun already."""
    for k, stage in enumerate(stages):
        if stage.result is not None:
            continue
        trainer = begun.pop() if begun else _begin(folder, stages, k, say, world)
        done = _result(trainer.fit(), trainer.card.classes)
        del trainer  # with network and optimizer, before the next one's are made
        stages = (*stages[:k], replace(stage, result=done), *stages[k + 1 :])
        if world.rank == 0:
            _write(folder, stages)
    if world.rank == 0:
        _draw(folder, stages)
        say(stages_table(stages))
    return StagedResult(folder, stages)


def _begin(folder: Path, stages: Sequence[Stage], k: int, say: Callable[[str], None], world: World) -> Trainer:
    """A stage's run where it stopped, or a new one where there is none."""
    config, run = stages[k].config, stage_folder(folder, stages, k)
    before = stage_folder(folder, stages, k - 1) if k else None
    if world.rank == 0:
        origin = "" if before is None else f", from the best weights of {before.name}"
        say(f"stage {k + 1} of {len(stages)}: {config.model}{origin}")
        clear_drafts(run, (CONFIG,))  # or a folder without a run would not be empty
    if world.first((run / CONFIG).is_file):
        trainer = Trainer.resume(run, _taken_up(run, config, before), say=say, world=world)
    else:
        init = config.init if before is None else str(before.absolute())
        trainer = Trainer(replace(config, init=init), run, say=say, world=world)
    trainer.whole = folder
    return trainer


def _taken_up(folder: Path, config: TrainConfig, before: Path | None) -> TrainConfig:
    """The configuration under which the run in a stage's folder goes on; refuses one that is not this stage's."""
    stored = read_config(folder)
    if before is not None:
        if before.name not in Path(stored.init or "").parts:
            raise ValueError(
                f"train: the run in {folder} began from {stored.init or 'nothing'}, not from {before.name}; another "
                "--out is needed"
            )
        config = replace(config, init=stored.init)  # the folder may have moved since
    if stored.epochs != config.epochs:
        raise ValueError(
            f"train: the run in {folder} has {stored.epochs} epochs, and the plan {config.epochs}; --stage-epochs "
            f"makes another plan, and train --resume {folder} --epochs {config.epochs} another run"
        )
    check_same_run(folder, stored, config)
    return config


def _result(run: TrainResult, classes: Sequence[str]) -> dict[str, Any]:
    best = run.records[run.epoch - 1]
    scores = {key: best[key] for key in (*_SCORES, "per_class_iu")}
    return {"epoch": run.epoch, "classes": list(classes), **scores}


def _draw(folder: Path, stages: Sequence[Stage]) -> None:
    """stages.png: image, truth, and each stage's answer."""
    config = stages[-1].config
    device = choose_device(config.device)
    samples = list(some_samples(open_dataset(config.data, "val", **config.data_options("val")), SHEET_ROWS))
    answers = []
    for k in range(len(stages)):
        module, card = load_model(stage_folder(folder, stages, k))
        module.to(device)
        answers.append([predict(module, sample.image, device) for sample in samples])
    rows = [(s.image, s.labels, *seen) for s, *seen in zip(samples, *answers, strict=True)]
    titles = [f"FCN-{stage.stride}, mean IU {_number((stage.result or {}).get('mean_iu'))}" for stage in stages]
    overlay_sheet(folder / PICTURE, rows, card.classes, card.palette, titles)


def _check_folder(folder: Path, stages: Sequence[Stage]) -> bool:
    """Whether there is no such folder; refuses one with anything but these stages, trained so far as they may be."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        raise FileExistsError(f"train: {folder} is a file; a folder is needed")
    if (folder / STAGES).is_file():
        raise FileExistsError(f"train: {folder} holds stages already; --resume {folder} goes on with them")
    ours = [stage_folder(folder, stages, k) for k in range(len(stages))]
    clear_drafts(folder, (STAGES,))
    others = sorted(set(folder.iterdir()) - set(ours))
    if others:
        raise FileExistsError(
            f"train: {folder} holds {others[0].name}, and nothing is overwritten; choose a new folder"
        )
    for k, run in enumerate(ours):
        if (run / CONFIG).is_file():
            _taken_up(run, stages[k].config, ours[k - 1] if k else None)
    return False


def stage_folder(folder: Path, stages: Sequence[Stage], k: int) -> Path:
    """The run of stage k, counted from 0, in a folder of stages.

    >>> stage_folder(Path("runs"), [Stage(TrainConfig(model="fcn32s_vgg16"))], 0).as_posix()
    'runs/1-fcn32s_vgg16'
    """
    return folder / f"{k + 1}-{stages[k].config.model}"


def _write(folder: Path, stages: Sequence[Stage]) -> None:
    entries: list[Mapping[str, Any]] = [
        {"folder": stage_folder(folder, stages, k).name, "config": asdict(stage.config), "result": stage.result}
        for k, stage in enumerate(stages)
    ]
    with replacing(folder / STAGES) as draft:
        draft.write_text(json.dumps({"stages": entries}, indent=2) + "\n", encoding="utf-8")

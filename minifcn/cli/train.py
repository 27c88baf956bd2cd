"""`minifcn train`: train a network, in one go or in the paper's stages."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from minifcn.cli.options import add_field, given_fields, reader
from minifcn.cli.reporting import OK, say
from minifcn.training.config import TrainConfig


def together(words: list[str]) -> AbstractContextManager[None]:
    """Where an MPI launcher started several processes to train, an error of one ends all."""
    if words[:1] != ["train"]:
        return nullcontext()
    from minifcn.training.distributed import find_world

    return find_world().ending()


def execute(arguments: argparse.Namespace) -> int:
    from minifcn.training.checkpoint import STAGES
    from minifcn.training.distributed import find_world
    from minifcn.training.stages import PICTURE, resume_stages, train_stages
    from minifcn.training.trainer import train

    world = find_world()
    given = given_fields(arguments)
    resume = _resumed(arguments)
    if "data" in given:
        from minifcn.data import absolute

        given["data"] = absolute(given["data"])  # eval and --resume will find it from any folder
    if given.get("init"):
        given["init"] = str(Path(given["init"]).absolute())
    stages = None
    if resume is not None and (Path(resume) / STAGES).is_file():
        stages = resume_stages(resume, given, say=say, world=world)
    else:
        configs, notes = world.first(lambda: _planned(arguments, given, resume))
        useless = [name for name in ("size", "scenes", "val_scenes") if name in given and configs[0].kind != "shapes"]
        if useless:
            raise ValueError(
                f"train: --{useless[0].replace('_', '-')} is for shapes only; --crop sets the size of training crops"
            )
        if world.rank == 0:
            for note in notes:
                say(note)
        if arguments.staged:
            stages = train_stages(configs, arguments.out, say=say, world=world)
        else:
            run = train(configs[0], resume or arguments.out, resume=resume is not None, say=say, world=world)
    if world.rank == 0 and stages is not None:
        say(f"the stages' weights and {PICTURE} are in {stages.folder}")
        say(f"mean IU {stages.mean_iu:.2f}")
    elif world.rank == 0:
        say(f"best weights (epoch {run.epoch}) and pictures are in {run.folder}")
        say(f"mean IU {run.mean_iu:.2f}")
    return OK


def _resumed(arguments: argparse.Namespace) -> str | None:
    """The folder of the run to resume, after what cannot be combined was refused; None for a new run."""
    if arguments.resume is not None:
        if arguments.resume and arguments.out is not None and Path(arguments.out) != Path(arguments.resume):
            raise ValueError(f"train: --resume {arguments.resume} and --out {arguments.out} are two folders; give one")
        if not (arguments.resume or arguments.out):
            raise ValueError("train: --resume needs the folder of a run, for example --resume runs/fcn8s_resnet18-1")
        for name in ("recipe", "staged", "stage_epochs", "stage_lr"):
            if getattr(arguments, name):
                raise ValueError(
                    f"train: --{name.replace('_', '-')} is for a new run; one that is resumed has it in its folder"
                )
        return str(arguments.resume or arguments.out)
    for name in ("stage_epochs", "stage_lr"):
        if getattr(arguments, name) and not arguments.staged:
            raise ValueError(f"train: --{name.replace('_', '-')} is for --staged, which is missing")
    return None


def _planned(
    arguments: argparse.Namespace, given: dict[str, Any], resume: str | None
) -> tuple[Sequence[TrainConfig], list[str]]:
    """The configurations of a run or of a new run's stages, and what is to be said of them."""
    from minifcn.training.recipes import configure
    from minifcn.training.stages import plan
    from minifcn.training.trainer import read_config

    if resume is not None:
        return [replace(read_config(resume), **given)], []
    if arguments.staged:
        return plan(given, recipe=arguments.recipe, epochs=arguments.stage_epochs, lr=arguments.stage_lr)
    if arguments.recipe is None:
        return [TrainConfig(**given)], []
    config, note = configure(arguments.recipe, given)
    return [config], [] if note is None else [note]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from minifcn.training.recipes import RECIPES

    parser.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="hyper-parameters by name, which other options override; `minifcn info --recipes` lists them",
    )
    parser.add_argument(
        "--staged",
        action="store_true",
        help="train the FCN-32s first, the FCN-16s from its weights and so on; an FCN-16s or FCN-8s as --model",
    )
    parser.add_argument(
        "--stage-epochs", type=reader(_counts), metavar="N,N,…", help="epochs of each stage (as --epochs)"
    )
    parser.add_argument(
        "--stage-lr", type=reader(_factors), metavar="X,X,…", help="factors of each stage's learning rate (1)"
    )
    for entry in fields(TrainConfig):
        add_field(parser, entry.name)
    parser.add_argument("--out", metavar="RUN", help="folder of the run, new or empty (next free runs/MODEL-N)")
    parser.add_argument("--resume", metavar="RUN", nargs="?", const="", help="go on with the run in RUN, or in --out")


def _counts(text: str) -> tuple[int, ...]:
    """Whole numbers above 0 from "20,10,10"."""
    numbers = [number.strip() for number in text.split(",")]
    if not all(number.isascii() and number.isdigit() and int(number) > 0 for number in numbers):
        raise ValueError(f"{text!r} is no list of whole numbers above 0; one for each stage is needed, as in 20,10,10")
    return tuple(map(int, numbers))


def _factors(text: str) -> tuple[float, ...]:
    """Numbers above 0 from "1,0.5,0.5"."""
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{text!r} is no list of numbers above 0; one for each stage is needed, as in 1,0.5,0.5")
    return numbers

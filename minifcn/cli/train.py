"""`minifcn train`: train a network, in one go or in the paper's stages."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minifcn.cli.options import add_field, given_fields, reader
from minifcn.cli.reporting import OK, USER_ERROR, say
from minifcn.training.config import TrainConfig

if TYPE_CHECKING:
    from minifcn.training.stages import StagedResult


def together(words: list[str]) -> AbstractContextManager[None]:
    """Where an MPI launcher started several processes to train, an error of one ends all. Other commands are refused
    there: each process would do all of their work, and write the same files."""
    from minifcn.training.distributed import find_world, launched

    if words[:1] == ["train"]:
        return find_world().ending()
    rank, size = launched()
    if size == 1 or not words or words[0].startswith("-"):
        return nullcontext()
    if rank:
        raise SystemExit(USER_ERROR)  # rank 0 says it
    raise ValueError(
        f"{words[0]}: {size} processes were started, and only train shares its work among several; start one"
    )


def execute(arguments: argparse.Namespace) -> int:
    from minifcn.training.checkpoint import STAGES
    from minifcn.training.distributed import find_world
    from minifcn.training.stages import resume_stages, train_stages
    from minifcn.training.trainer import train

    world = find_world()
    given = given_fields(arguments)
    resume = _resumed(arguments)
    if "data" in given:
        from minifcn.data import absolute

        given["data"] = absolute(given["data"])  # eval and --resume will find it from any folder
    if given.get("init"):
        given["init"] = str(Path(given["init"]).absolute())
    say_first = say if world.rank == 0 else _nothing
    if resume is not None and (Path(resume) / STAGES).is_file():
        _say_stages(resume_stages(resume, given, say=say, world=world), say_first)
        return OK
    configs, notes = world.first(lambda: _planned(arguments, given, resume))
    useless = [name for name in ("size", "scenes", "val_scenes") if name in given and configs[0].kind != "shapes"]
    if useless:
        raise ValueError(
            f"train: --{useless[0].replace('_', '-')} is for shapes only; --crop sets the size of training crops"
        )
    for note in notes:
        say_first(note)
    if arguments.staged:
        _say_stages(train_stages(configs, arguments.out, say=say, world=world), say_first)
        return OK
    run = train(configs[0], resume or arguments.out, resume=resume is not None, say=say, world=world)
    say_first(f"best weights (epoch {run.epoch}) and pictures are in {run.folder}")
    say_first(f"mean IU {run.mean_iu:.2f}")
    return OK


def _say_stages(result: StagedResult, say: Callable[[str], None]) -> None:
    say(f"the stages' weights and stages.png are in {result.folder}")
    say(f"mean IU {result.mean_iu:.2f}")


def _nothing(line: str) -> None:
    pass


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
    if arguments.stage_epochs and "epochs" in arguments:
        raise ValueError("train: --epochs and --stage-epochs both say how long the stages are; give one")
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
        "--stage-lr",
        type=reader(_factors),
        metavar="X,X,…",
        help="each stage's learning rate as a factor of --lr, or of the recipe's for the first (the recipe's, or 1)",
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

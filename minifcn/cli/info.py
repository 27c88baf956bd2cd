"""`minifcn info`: list networks, recipes, or the layers of one network."""

from __future__ import annotations

import argparse

from minifcn.cli.options import add_network, given_fields
from minifcn.cli.reporting import OK, say


def execute(arguments: argparse.Namespace) -> int:
    from minifcn import models
    from minifcn.models.summary import summarize

    if arguments.recipes:
        from minifcn.training.recipes import RECIPES

        say("\n\n".join(map(str, RECIPES.values())))
        return OK
    if arguments.model is None:
        say("\n".join(models.available()))
        return OK
    options = {name: value for name, value in given_fields(arguments).items() if name in ("width", "fuse")}
    module = models.create(arguments.model, num_classes=arguments.num_classes, **options)
    summary = summarize(module, arguments.size, arguments.batch, memory=arguments.memory)
    say(summary.table())
    return OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="name of a network; without one, all names are listed"
    )
    parser.add_argument("--recipes", action="store_true", help="list the recipes of `minifcn train --recipe` instead")
    add_network(parser, (360, 480))
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure memory, which runs a training step for real",
    )

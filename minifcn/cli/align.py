"""`minifcn align`: show where a network's cells lie in the image."""

from __future__ import annotations

import argparse

from minifcn.cli.options import reader
from minifcn.cli.reporting import OK, say
from minifcn.training.config import parse_size


def execute(arguments: argparse.Namespace) -> int:
    from minifcn import models
    from minifcn.lab.alignment import align, names

    if arguments.model is None:
        say("\n".join(names()))
        return OK
    module = models.create(arguments.model, num_classes=1, width=1 / 64)  # positions do not depend on channels
    found = align(module, arguments.size)
    say(f"{arguments.model}: {'exact' if found.exact else 'NOT exact, by as much as the end says'}\n\n{found}")
    return OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="name of a network; without one, all names are listed"
    )
    parser.add_argument("--size", type=reader(parse_size), default=(360, 480), metavar="HxW", help="(360x480)")

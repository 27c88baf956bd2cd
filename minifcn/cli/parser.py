"""The parser: the commands with their names, and a line on each for `minifcn --help`."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn, Protocol

from minifcn import __version__
from minifcn.cli import align, bench, evaluate, gradcheck, info, predict, tconv, trace, train, weights


class _Command(Protocol):
    """What the file of a command holds."""

    def execute(self, arguments: argparse.Namespace) -> int:
        """From the arguments to an exit code."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Say which arguments there are."""


class _Parser(argparse.ArgumentParser):
    """argparse, with its complaints in our form, and without guessing what half an option means."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; {self.prog} --help lists what is possible")


def make_parser() -> argparse.ArgumentParser:
    """Its arguments hold, as `run`, the `execute` of the command that was named."""
    parser = _Parser(prog="minifcn", description="Fully convolutional networks for semantic segmentation, on NumPy.")
    parser.add_argument("--version", action="version", version=f"minifcn {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: _Command, words: str) -> None:
        sub = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        command.add_arguments(sub)
        sub.add_argument("--traceback", action="store_true", help="show Python's traceback for every error")
        sub.set_defaults(run=command.execute)

    add("train", train, "train a network; without options, a small one on scenes made on the spot")
    add("eval", evaluate, "score a trained network on a data set")
    add("predict", predict, "segment images with a trained network")
    add("info", info, "list a network's layers with sizes, parameters, work and memory")
    add("gradcheck", gradcheck, "compare gradients with differences, for operations and networks")
    add("align", align, "show where a network's cells lie in the image, and derive its crops")
    add("trace", trace, "list a network's operations, forward and backward, with time and memory")
    add("weights", weights, "list what a weights file holds, convert it, and load it into a network")
    add("bench", bench, "time kernels and networks on this machine, against PyTorch")
    add("tconv", tconv, "explain one transposed convolution: sizes, matrix, ways to compute it, pictures")
    return parser

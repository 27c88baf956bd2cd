"""Options that several commands have, how their words are read, and what is checked of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from minifcn.training.config import TrainConfig, parse_size

Value = TypeVar("Value")


def add_field(parser: argparse.ArgumentParser, name: str) -> None:
    """An option for one entry of TrainConfig: its default, words and type are written there, and only there."""
    entry = next(entry for entry in fields(TrainConfig) if entry.name == name)
    flag = "--" + name.replace("_", "-")
    shown = "x".join(map(str, entry.default)) if isinstance(entry.default, tuple) else entry.default
    words = entry.metadata["help"] + ("" if entry.default is None else f" ({shown})")
    if isinstance(entry.default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=words)
        return
    parser.add_argument(
        flag,
        type=reader(entry.metadata.get("parse", type(entry.default))),
        choices=entry.metadata.get("choices"),
        metavar=entry.metadata.get("metavar", None if "choices" in entry.metadata else name.upper()),
        default=argparse.SUPPRESS,
        help=words,
    )


def given_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """The entries of TrainConfig that the user wrote."""
    return {entry.name: getattr(arguments, entry.name) for entry in fields(TrainConfig) if entry.name in arguments}


def add_network(parser: argparse.ArgumentParser, size: tuple[int, int]) -> None:
    """How large a network is, and what it is given."""
    height, width = size
    parser.add_argument(
        "--size", type=reader(parse_size), default=size, metavar="HxW", help=f"of the images ({height}x{width})"
    )
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images at a time (1)")
    parser.add_argument("--num-classes", type=positive, default=21, metavar="K", help="number of classes (21)")
    parser.add_argument(
        "--width", type=float, default=argparse.SUPPRESS, help="channels, as a part of the full number (1)"
    )
    add_fuse(parser)


def add_fuse(parser: argparse.ArgumentParser) -> None:
    """--fuse, which is left out of the arguments where the user does not write it."""
    parser.add_argument(
        "--fuse",
        choices=("sum", "cat"),
        default=argparse.SUPPRESS,
        help="how FCN-16s and FCN-8s join the scores of two strides (sum)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device, a word for choose_device."""
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="where to compute (cpu)")


def add_tile(parser: argparse.ArgumentParser) -> None:
    """--tile; once the device is known, check_tile says whether they go together."""
    parser.add_argument(
        "--tile",
        type=_tile,
        metavar="PIXELS|auto",
        help="compute squares of that side one after another, with the same result in less memory (whole images)",
    )


def _tile(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor auto") from error


def check_tile(command: str, tile: int | str | None, device: str) -> None:
    """Raise where the side of tiles cannot be found on that device."""
    if tile == "auto" and device == "cuda":
        raise ValueError(
            f"{command}: --tile auto measures the CPU's memory; with a GPU give a number, such as --tile 512"
        )


def may_write(command: str, files: Sequence[Path], overwrite: bool) -> None:
    """Raise before any work where files could not be written at the end of it."""
    for k, file in enumerate(files):
        if file in files[:k]:
            raise ValueError(f"{command}: {file} is given twice; a file for each is needed")
        if file.is_dir():
            raise IsADirectoryError(f"{command}: {file} is a folder; the name of a file is needed")
        if file.exists() and not overwrite:
            raise FileExistsError(f"{command}: {file} exists already; give --overwrite or another name")
        if not file.parent.is_dir():
            raise FileNotFoundError(f"{command}: there is no folder {file.parent} for {file.name}; make it first")


def reader(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """A reader whose own words argparse repeats, where it would say only `invalid value`."""
    if isinstance(read, type):
        return read  # argparse knows what to say about int and float

    def reading(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return reading


def positive(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)

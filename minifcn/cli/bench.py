"""`minifcn bench`: hand the words on to the benchmarks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def execute(arguments: argparse.Namespace) -> int:
    from importlib import import_module
    from importlib.util import find_spec

    import minifcn

    package = "minifcn.benchmarks"  # as setup.py installs it; in a checkout it lies beside the package
    if find_spec(package) is None:
        root = Path(minifcn.__file__).parents[1]
        if not (root / "benchmarks" / "__main__.py").is_file():
            raise FileNotFoundError(f"bench: there is no benchmarks package in {root}; pip install . brings it along")
        sys.path.insert(0, str(root))
        package = "benchmarks"
    code: int = import_module(f"{package}.__main__").main(arguments.words, "minifcn bench", keep=False)
    return code


def add_arguments(parser: argparse.ArgumentParser) -> None:  # for the list that --help prints; main hands the words on
    parser.add_argument("words", metavar="WHAT", nargs="*")

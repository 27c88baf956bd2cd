"""python -m benchmarks WHAT: measure, keep the JSON, and write README's tables from it.

`python -m minifcn bench WHAT` measures the same on a user's machine, from a checkout or where only the package is
installed: it prints, and keeps the JSON where --out says.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import minifcn as mf

from . import algorithms, importing, kernels, measure, models, overhead, parity, roofline, scaling, tables

WHAT = ("kernels", "models", "scaling", "algorithms", "overhead", "import")
IN_A_CHECKOUT = ("parity", "tables")  # they need the tests, and README
OF_NETWORKS = ("kernels", "models", "scaling", "algorithms")
WITH_PEAKS = ("kernels", "models")
UNPRINTED = ("overhead", "import")  # the others print each row as they measure it
PICTURES = {"kernels": roofline.draw, "scaling": scaling.draw}


def main(argv: list[str] | None = None, prog: str = "python -m benchmarks", keep: bool = True) -> int:
    """Measure what the words ask for (those of the process where they are None); returns the exit code.

    Where it may `keep` results, a complete measurement goes to benchmarks/results and README.
    """
    words = sys.argv[1:] if argv is None else argv
    arguments = _arguments(words, prog, keep and measure.CHECKOUT)
    if arguments.what == "tables":
        tables.update_readme()
        return 0
    peaks = {"peaks": roofline.peaks()} if arguments.what in WITH_PEAKS else {}
    try:
        found = _rows(arguments, **peaks)
    except BaseException:
        if arguments.out is not None:
            arguments.out.unlink()  # _arguments made it
        raise
    if arguments.what in UNPRINTED:
        for row in found:
            print(", ".join(f"{name} {_short(value)}" for name, value in row.items()))
    command = f"{prog} {' '.join(words)}"
    if arguments.out is not None:
        print(measure.write(arguments.out, command, found, **peaks))
    elif keep and measure.CHECKOUT and _is_whole(arguments):
        path = measure.RESULTS / f"{arguments.what}.json"
        print(measure.write(path, command, found, **peaks))
        if arguments.what in PICTURES:
            print(PICTURES[arguments.what](json.loads(path.read_text())))
        tables.update_readme()
    return 0


def _short(value: Any) -> str:
    """A time in milliseconds, a ratio, or whatever else a row holds."""
    if not isinstance(value, dict):
        return str(value)
    return f"{value['of_medians']:.2f}" if "of_medians" in value else f"{value['median_s'] * 1e3:.1f} ms"


class _Parser(argparse.ArgumentParser):
    """argparse, with its complaints in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help lists what is possible\n")


def _rows(arguments: argparse.Namespace, peaks: dict[str, float] | None = None) -> list[dict[str, Any]]:
    names, rounds, against = arguments.models, arguments.rounds, arguments.against
    if arguments.what == "kernels":
        return kernels.rows(names, rounds, against, peaks or {})
    if arguments.what == "models":
        return models.rows(names, rounds, against, (peaks or {})["sgemm_gflops"])
    if arguments.what == "scaling":
        return scaling.rows(names, rounds)
    if arguments.what == "algorithms":
        return algorithms.rows(names, rounds)
    if arguments.what == "overhead":
        return overhead.rows(rounds)
    if arguments.what == "import":
        return importing.rows(rounds)
    return parity.rows(arguments.calls, arguments.seed, arguments.only, arguments.verbose)


def _is_whole(arguments: argparse.Namespace) -> bool:
    """Whether it is a complete measurement; results/ holds no others."""
    if arguments.what in OF_NETWORKS:
        compared = arguments.against is not None or arguments.what not in WITH_PEAKS
        return compared and arguments.models == models.MODELS
    return arguments.only is None


def _arguments(words: list[str], prog: str, checkout: bool) -> argparse.Namespace:
    parser = _Parser(
        prog=prog,
        description="Measure, print, and keep the numbers as JSON. kernels: every layer of the networks; models: "
        "inference and training step; scaling: image and batch sizes; algorithms: every way to compute each "
        "convolution; overhead: long chains of tiny operations; import: how long that takes.",
    )
    parser.add_argument("what", choices=(*WHAT, *IN_A_CHECKOUT) if checkout else WHAT)
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each contender (7)")
    parser.add_argument(
        "--models", default=",".join(models.MODELS), help=f"which networks, by commas ({','.join(models.MODELS)})"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu; GPU kernels are to come")
    parser.add_argument(
        "--against", choices=("torch", "nothing"), default="torch", help="the other contender, for kernels and models"
    )
    kept = "; without it, complete measurements replace those in benchmarks/results" if checkout else ""
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"keep the JSON here{kept}")
    parser.set_defaults(calls=1000, seed=0, only=None, verbose=False)
    if checkout:
        parser.add_argument("--calls", type=int, help="for parity: calls of each function (1000)")
        parser.add_argument("--seed", type=int, help="for parity: draws the calls (0)")
        parser.add_argument("--only", help="for parity: one function, e.g. conv2d, nn.Conv2d or Tensor.sum")
        parser.add_argument("--verbose", action="store_true", help="for parity: print every difference")
    arguments = parser.parse_args(words)
    arguments.models = tuple(arguments.models.split(","))
    arguments.against = None if arguments.against == "nothing" else arguments.against
    unknown = set(arguments.models) - set(mf.models.available())
    if unknown:
        parser.error(f"no network {', '.join(map(repr, sorted(unknown)))}; minifcn.models.available() lists them")
    if arguments.device == "cuda":
        parser.error("there are no GPU kernels yet; --device cpu")
    for name in ("rounds", "calls"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}; it must be at least 1")
    compares = arguments.what in ("overhead", "parity") or (arguments.against and arguments.what in WITH_PEAKS)
    if compares and importlib.util.find_spec("torch") is None:
        without = ", or --against nothing" if arguments.what in WITH_PEAKS else ""
        parser.error(f"PyTorch is not installed; pip install torch{without}")
    if arguments.out is not None:
        try:
            arguments.out.touch(exist_ok=False)  # before the work: nobody's file is replaced, and it can be written
        except OSError as error:
            parser.error(f"--out {arguments.out}: {error.strerror}; a new file in a folder that exists is needed")
    return arguments


if __name__ == "__main__":
    sys.exit(main())

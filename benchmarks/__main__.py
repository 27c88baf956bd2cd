"""python -m benchmarks WHAT: measure, keep the JSON, and write README's tables from it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys

import minifcn as mf
from benchmarks import algorithms, importing, kernels, measure, models, overhead, parity, roofline, scaling, tables


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what", choices=("kernels", "models", "scaling", "algorithms", "overhead", "import", "parity", "tables")
    )
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each contender (7)")
    parser.add_argument(
        "--models", default=",".join(models.MODELS), help=f"which networks, by commas ({','.join(models.MODELS)})"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu; GPU kernels are to come")
    parser.add_argument(
        "--against",
        choices=("torch", "nothing"),
        default="torch",
        help="the other contender (torch); a run with other models or without it is printed and not kept",
    )
    parser.add_argument("--calls", type=int, default=1000, help="for parity: calls of each function (1000)")
    parser.add_argument("--seed", type=int, default=0, help="for parity: draws the calls (0)")
    parser.add_argument(
        "--only", help="for parity: one function, e.g. conv2d, nn.Conv2d or Tensor.sum; keeps no result"
    )
    parser.add_argument("--verbose", action="store_true", help="for parity: print every difference")
    arguments = parser.parse_args()
    command = "python -m benchmarks " + " ".join(sys.argv[1:])
    names = tuple(arguments.models.split(","))
    unknown = set(names) - set(mf.models.available())
    if unknown:
        parser.error(f"no network {', '.join(sorted(unknown))}; minifcn.models.available() lists them")
    if arguments.device == "cuda":
        parser.error("there are no GPU kernels yet; --device cpu")
    against = None if arguments.against == "nothing" else arguments.against
    if arguments.rounds < 1 or arguments.calls < 1:
        parser.error("--rounds and --calls must be at least 1")
    compares = arguments.what in ("overhead", "parity") or (against and arguments.what in ("kernels", "models"))
    if compares and importlib.util.find_spec("torch") is None:
        parser.error("PyTorch is not installed; pip install torch, or --against nothing")
    whole = names == models.MODELS and against is not None  # results/ holds complete measurements only
    if arguments.what == "kernels":
        peak = roofline.peaks()
        found = kernels.rows(names, arguments.rounds, against, peak)
        if not whole:
            return 0
        path = measure.write("kernels", command, found, peaks=peak)
        print(path, roofline.draw(json.loads(path.read_text())))
    elif arguments.what == "models":
        peak = roofline.peaks()
        found = models.rows(names, arguments.rounds, against, peak["sgemm_gflops"])
        if not whole:
            return 0
        print(measure.write("models", command, found, peaks=peak))
    elif arguments.what == "scaling":
        found = scaling.rows(names, arguments.rounds)
        if not whole:
            return 0
        path = measure.write("scaling", command, found)
        print(path, scaling.draw(json.loads(path.read_text())))
    elif arguments.what == "algorithms":
        found = algorithms.rows(names, arguments.rounds)
        if names != models.MODELS:
            return 0
        print(measure.write("algorithms", command, found))
    elif arguments.what == "overhead":
        print(measure.write("overhead", command, overhead.rows(arguments.rounds)))
    elif arguments.what == "import":
        print(measure.write("import", command, importing.rows(arguments.rounds)))
    elif arguments.what == "parity":
        found = parity.rows(arguments.calls, arguments.seed, arguments.only, arguments.verbose)
        if arguments.only is not None:
            return 0
        print(measure.write("parity", command, found))
    tables.update_readme()
    return 0


if __name__ == "__main__":
    sys.exit(main())

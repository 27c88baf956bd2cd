"""python -m benchmarks WHAT: measure, keep the JSON, and write README's tables from it."""

from __future__ import annotations

import argparse
import sys

from benchmarks import importing, measure, models, overhead, parity, tables


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=("models", "overhead", "import", "parity", "tables"))
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each contender (7)")
    parser.add_argument("--model", default="fcn8s_vgg16", help="for models: the network (fcn8s_vgg16)")
    parser.add_argument("--calls", type=int, default=1000, help="for parity: calls of each function (1000)")
    parser.add_argument("--seed", type=int, default=0, help="for parity: draws the calls (0)")
    parser.add_argument(
        "--only", help="for parity: one function, e.g. conv2d, nn.Conv2d or Tensor.sum; keeps no result"
    )
    parser.add_argument("--verbose", action="store_true", help="for parity: print every difference")
    arguments = parser.parse_args()
    command = "python -m benchmarks " + " ".join(sys.argv[1:])
    if arguments.what == "models":
        print(measure.write("training_step", command, models.rows(arguments.model, arguments.rounds)))
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

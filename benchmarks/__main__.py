"""python -m benchmarks models | import | tables: measure, keep the JSON, and write README's tables from it."""

from __future__ import annotations

import argparse
import sys

from benchmarks import importing, measure, models, tables


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=("models", "import", "tables"))
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each contender (7)")
    parser.add_argument("--model", default="fcn8s_vgg16", help="for models: the network (fcn8s_vgg16)")
    arguments = parser.parse_args()
    command = "python -m benchmarks " + " ".join(sys.argv[1:])
    if arguments.what == "models":
        print(measure.write("training_step", command, models.rows(arguments.model, arguments.rounds)))
    elif arguments.what == "import":
        print(measure.write("import", command, importing.rows(arguments.rounds)))
    tables.update_readme()
    return 0


if __name__ == "__main__":
    sys.exit(main())

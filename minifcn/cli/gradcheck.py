"""`minifcn gradcheck`: compare gradients with differences."""

from __future__ import annotations

import argparse

from minifcn.cli.options import add_device, positive
from minifcn.cli.reporting import FAILED, OK, say


def execute(arguments: argparse.Namespace) -> int:
    from minifcn.gradcheck.table import names, run
    from minifcn.training.inference import choose_device

    if arguments.name is None:
        say("\n".join(names()))
        return OK
    device = choose_device(arguments.device)
    tally = run(arguments.name, arguments.order, arguments.dtype, device, arguments.algorithm, say)
    return FAILED if tally.failed else OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="OP|MODEL|all", nargs="?", help="what to check; without one, all names are listed"
    )
    parser.add_argument(
        "--order", type=positive, default=2, metavar="N", help="2: the gradient's gradient as well, and so on (2)"
    )
    parser.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="in which gradients are computed (float64)"
    )
    parser.add_argument(
        "--algorithm",
        action="append",
        default=[],
        metavar="NAME|OP=NAME",
        help="compute by this kernel, for every operation that has it or for one; may be given more than once",
    )
    add_device(parser)

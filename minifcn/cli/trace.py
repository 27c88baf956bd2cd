"""`minifcn trace`: list a network's operations, forward and backward."""

from __future__ import annotations

import argparse
from pathlib import Path

from minifcn.cli.options import add_network, given_fields, may_write
from minifcn.cli.reporting import OK, say


def execute(arguments: argparse.Namespace) -> int:
    from minifcn import models
    from minifcn.lab.tape import trace_model
    from minifcn.lab.tape_formats import write_events, write_graph

    asked = ((arguments.graph, write_graph), (arguments.json, write_events))
    jobs = [(Path(file), write) for file, write in asked if file is not None]
    may_write("trace", [file for file, _ in jobs], arguments.overwrite)
    options = {name: value for name, value in given_fields(arguments).items() if name in ("width", "fuse")}
    module = models.create(arguments.model, num_classes=arguments.num_classes, **options)
    try:
        found = trace_model(module, arguments.model, arguments.size, arguments.batch, backward=arguments.backward)
    except ValueError as error:
        if not str(error).startswith("batch_norm: 1 value per channel"):
            raise
        raise ValueError(
            f"trace: batch norm has 1 value per channel somewhere in {arguments.model}, too few for a training step "
            f"(--size {'x'.join(map(str, arguments.size))}, --batch {arguments.batch}); a larger --size or --batch is "
            f"needed, or --no-backward, which takes the running statistics instead"
        ) from error
    say(found.table())
    for file, write in jobs:
        write(found, file)
        say(f"\n{file}")
    return OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name of a network; `minifcn info` lists them")
    add_network(parser, (120, 160))
    parser.add_argument(
        "--backward",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a training step's passes; without, an inference pass, in which several layers may be one kernel",
    )
    parser.add_argument("--graph", metavar="FILE", help="write the graph for Graphviz: dot -Tsvg FILE > graph.svg")
    parser.add_argument("--json", metavar="FILE", help="write the times for chrome://tracing or ui.perfetto.dev")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")

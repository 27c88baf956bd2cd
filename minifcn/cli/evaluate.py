"""`minifcn eval`: score a trained network on a data set."""

from __future__ import annotations

import argparse

from minifcn.cli.options import add_device, add_tile, check_tile, positive
from minifcn.cli.reporting import OK, say


def execute(arguments: argparse.Namespace) -> int:
    from minifcn.data import open_dataset
    from minifcn.training.checkpoint import find_weights, load_model
    from minifcn.training.inference import choose_device, evaluate
    from minifcn.training.trainer import CONFIG, read_config

    device = choose_device(arguments.device)
    check_tile("eval", arguments.tile, device)
    file = find_weights(arguments.weights)
    module, card = load_model(file)
    run = read_config(file.parent) if (file.parent / CONFIG).is_file() else None
    if run is not None and arguments.data in (None, run.data):
        spec, options = run.data, run.data_options(arguments.split)
    elif arguments.data is not None:
        names = {"classes": card.classes} if arguments.data.startswith("folder:") and card.classes else {}
        spec, options = arguments.data, names
    else:
        raise ValueError(f"eval: {file} lies outside a run's folder, so the data are not known; give --data")
    dataset = open_dataset(spec, arguments.split, **options)
    if dataset.num_classes != card.num_classes:
        raise ValueError(
            f"eval: {file} holds {card.describe()}, and {spec} has {dataset.num_classes} classes; "
            "data with the same classes are needed"
        )
    module.to(device)
    matrix, loss = evaluate(
        module, dataset, device=device, workers=arguments.workers, title="eval", tile=arguments.tile
    )
    say(f"{card.describe()} on {len(dataset)} images of {spec}, {arguments.split}\n")
    say(matrix.table(dataset.classes))
    say(f"loss                   {loss:.3f}")
    return OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", metavar="RUN|WEIGHTS", help="folder of a run, or a weights file")
    parser.add_argument("--data", metavar="DATA", help="data set (that of the run)")
    parser.add_argument("--split", default="val", help="part of the data set (val)")
    parser.add_argument("--workers", type=positive, default=1, metavar="WORKERS", help="threads that load images (1)")
    add_tile(parser)
    add_device(parser)

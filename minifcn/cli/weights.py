"""`minifcn weights`: list what a weights file holds, convert it, load it into a network."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from minifcn.cli.options import add_fuse, may_write, positive
from minifcn.cli.reporting import OK, say


def execute(arguments: argparse.Namespace) -> int:
    from minifcn.training.checkpoint import find_weights, load_weights
    from minifcn.training.files import write_arrays
    from minifcn.weights import read
    from minifcn.weights.listing import table
    from minifcn.weights.safetensors import of_minifcn

    target = None if arguments.to is None else Path(arguments.to)
    if target is not None:
        if target.suffix not in (".safetensors", ".npz", ".pth"):
            raise ValueError(f"weights: --to {target}; a name that ends in .safetensors, .npz or .pth is needed")
        may_write("weights", [target], arguments.overwrite)
    file = find_weights(arguments.file) if Path(arguments.file).is_dir() else Path(arguments.file)
    if arguments.into is not None:
        return _weights_into(file, arguments, target)
    useless = [name for name in ("num_classes", "width", "fuse", "trained", "partly") if name in arguments]
    if useless:
        raise ValueError(f"weights: --{useless[0].replace('_', '-')} says something about the network of --into MODEL")
    arrays = read(file)
    say(table(arrays))
    if of_minifcn(file):
        say(f"weights of {load_weights(file)[1].describe()}")
    if target is not None:
        write_arrays(target, arrays)
        say(f"\nwritten: {target}")
    return OK


def _weights_into(file: Path, arguments: argparse.Namespace, target: Path | None) -> int:
    """Load a file into a network, say what fits, and write the network."""
    from minifcn.models.inputs import CAFFE, KERAS, TORCHVISION
    from minifcn.training.checkpoint import ModelCard, load_weights, save_weights
    from minifcn.training.files import write_arrays
    from minifcn.weights.matching import match
    from minifcn.weights.safetensors import of_minifcn

    # a file of minifcn's own says how many classes there are, and how wide the network is
    own = load_weights(file)[1] if of_minifcn(file) else ModelCard(arguments.into, 1 if arguments.into == "hed" else 21)
    options = own.options | {name: getattr(arguments, name) for name in ("width", "fuse") if name in arguments}
    card = replace(own, model=arguments.into, options=options)
    if getattr(arguments, "num_classes", own.num_classes) != own.num_classes:
        card = replace(card, num_classes=arguments.num_classes, classes=(), palette=())
    module = card.create()
    conventions = {"torchvision": TORCHVISION, "caffe": CAFFE, "keras": KERAS, None: None}
    found = match(module, file, trained=conventions[getattr(arguments, "trained", None)])
    report = found.report
    say(f"{file} into {card.describe()}\n{report}")
    partly = "partly" in arguments
    if not found.arrays or not (report.fits or partly):
        counts = ((report.missing, "missing"), (report.misshaped, "mis-shaped"), (report.unexpected, "unexpected"))
        faults = ", ".join(f"{len(entries)} {what}" for entries, what in counts if entries)
        if report.fault:
            raise ValueError(f"weights: {file} does not fit {card.describe()}: {report.fault}")
        advice = "; --partly loads what fits" if found.arrays else "; nothing fits"
        hint = f"; {report.hint}" if report.hint else ""
        raise ValueError(f"weights: {file} does not fit {card.describe()}: {faults}{hint}{advice}")
    if target is not None:
        module.load_state_dict(found.arrays, strict=False)
        if target.suffix == ".safetensors":
            save_weights(target, module, card)
        else:
            write_arrays(target, {name: tensor.numpy() for name, tensor in module.state_dict().items()})
        say(f"\nwritten: {target}")
    return OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="RUN|FILE", help="a run's folder, or a .pth, .safetensors, .npz, .npy, .caffemodel or .h5 file"
    )
    parser.add_argument("--into", metavar="MODEL", help="load them into this network and say what fits")
    quiet = argparse.SUPPRESS
    parser.add_argument(
        "--num-classes", type=positive, default=quiet, metavar="K", help="of that network (the file's, or 21; hed: 1)"
    )
    parser.add_argument(
        "--width", type=float, default=quiet, help="of that network: channels, as a part (the file's, or 1)"
    )
    add_fuse(parser)
    parser.add_argument(
        "--trained",
        choices=("torchvision", "caffe", "keras"),
        default=quiet,
        help="whose images they were trained on, where names mislead (VGGs from Caffe with torchvision's names)",
    )
    parser.add_argument("--partly", action="store_true", default=quiet, help="go on where only a part of them fits")
    parser.add_argument(
        "--to",
        metavar="FILE",
        help="write them, with --into the network's, to a .safetensors (for eval and predict), .npz or .pth file",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")

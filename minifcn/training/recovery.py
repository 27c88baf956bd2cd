"""Which checkpoint a run goes on from, and when it writes the next one.

The newest is kept and the one before it. Where the newest cannot be used the other one is, and says so; the steps and
epochs after it are done again, with the same numbers. A file that is damaged is put aside, never deleted. A run begins
anew only where nothing was trained: its first line and weights come after its first checkpoint.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from minifcn.nn import Module
from minifcn.optim import Optimizer, Schedule
from minifcn.training.checkpoint import BEST, CHECKPOINT, DamagedFile, ModelCard, load_checkpoint

PREVIOUS, DAMAGED = "checkpoint.previous.safetensors", "checkpoint.damaged.safetensors"
_LEAST_SECONDS, _SAVES = 10.0, 50
_QUICK_SECONDS, _MOST_SECONDS = 0.5, 600.0  # what a save may take without a thought; between epochs without one


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has come as far as its first checkpoint."""
    return (folder / CHECKPOINT).is_file() or (folder / PREVIOUS).is_file()


def check_untrained(folder: Path, files: Iterable[str]) -> None:
    """Refuse to begin a run without checkpoints where one has left something.

    Args:
        folder: a run's, without checkpoints.
        files: names of what a run writes after its first checkpoint.

    Raises:
        FileNotFoundError: where one of the files is there and not empty; nothing was changed.
    """
    left = [name for name in files if (folder / name).is_file() and (folder / name).stat().st_size]
    if left:
        raise FileNotFoundError(
            f"train: {folder} has {' and '.join(left)} of a run, and neither {CHECKPOINT} nor {PREVIOUS} to go on "
            f"from; {_advice(folder)}"
        )


def _advice(folder: Path) -> str:
    best = f"; a new run can start from its best weights with --init {folder}" if (folder / BEST).is_file() else ""
    return f"nothing was deleted{best}"


def restore(
    folder: Path,
    module: Module,
    card: ModelCard,
    optimizer: Optimizer,
    schedule: Schedule | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Put a run's newest whole checkpoint into network, optimizer and schedule; returns its progress.

    Args:
        folder: a run's, with a checkpoint.
        module, card, optimizer, schedule: as for `load_checkpoint`.
        say: is given a line where it is not the newest one.

    Raises:
        DamagedFile: where no checkpoint is whole; nothing was changed.
        ValueError: for a checkpoint of another network.
    """
    newest, previous = folder / CHECKPOINT, folder / PREVIOUS
    fault = f"train: {newest} is missing"  # the process was killed between the two renamings of a save
    if newest.is_file():
        try:
            return load_checkpoint(newest, module, card, optimizer, schedule)
        except DamagedFile as error:
            fault = str(error)
    if not previous.is_file():
        raise DamagedFile(f"{fault}; there is no {PREVIOUS} to go on from; {_advice(folder)}")
    try:
        progress = load_checkpoint(previous, module, card, optimizer, schedule)
    except DamagedFile as error:
        raise DamagedFile(f"{fault}; the one before cannot be used either ({error}); {_advice(folder)}") from error
    aside = ""
    if newest.is_file():
        os.replace(newest, folder / DAMAGED)
        aside = f", the other one is now {DAMAGED}"
    place = f"step {progress['step']} of epoch {progress['epoch'] + 1}"
    say(f"note: {fault}; going on from {PREVIOUS} ({place}){aside}")
    return progress


class Pace:
    """When to save: within an epoch, and between two.

    Args:
        every: how many steps apart; 0: once ten seconds have passed, and fifty times as long as the last save took, so
            that saving takes less than 2 % of the time. Between two epochs always, unless `every` is 0 and saves are
            slow: then in the same way, as there can be little training between them on a GPU, but after ten minutes at
            the latest.
        clock: tells the seconds.

    >>> [step for step in range(1, 8) if Pace(every=3).is_due(step)]
    [3, 6]
    """

    def __init__(self, every: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._every, self._clock = every, clock
        self._last, self._took, self._wait = clock(), 0.0, _LEAST_SECONDS

    def is_due(self, step: int) -> bool:
        """Whether to save after this step of an epoch, counted from 1."""
        return step % self._every == 0 if self._every else self._clock() - self._last >= self._wait

    def is_due_between(self) -> bool:
        """Whether to save at the end of an epoch."""
        passed = self._clock() - self._last
        return self._every > 0 or self._took < _QUICK_SECONDS or passed >= min(self._wait, _MOST_SECONDS)

    def timed(self, save: Callable[[], None]) -> None:
        """Save, and take the time."""
        start = self._clock()
        save()
        self._last = self._clock()
        self._took = self._last - start
        self._wait = max(_LEAST_SECONDS, _SAVES * self._took)

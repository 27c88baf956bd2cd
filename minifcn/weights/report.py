"""What fits and what does not when a file is loaded into a network, and how that is said."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from minifcn.weights.faults import shown

Shape = tuple[int, ...]

SHOWN: Final = 8  # names of one kind that a report lists
_OF_CLASSES: Final = re.compile(r"(?:.*\.)?(?:score\w*|upscore\w*|fuse\w*|classifier(?:\.4)?)\.(?:weight|bias)")


@dataclass(frozen=True, slots=True)
class Odd:
    """A name that the other side lacks.

    Args:
        name: in the network, or in the file.
        shape: there.
        nearest: names of the other side that might be meant, with their shapes, nearest first.
    """

    name: str
    shape: Shape
    nearest: tuple[str, ...]

    def __str__(self) -> str:
        near = f", nearest: {' or '.join(self.nearest)}" if self.nearest else ""
        return f"{shown(self.name)} {self.shape}{near}"


@dataclass(frozen=True, slots=True)
class Misshaped:
    """An array whose shape is not the network's.

    Args:
        name: in the file.
        shape: there, with its axes in minifcn's order.
        target: the parameter's name in the network.
        needed: its shape.
    """

    name: str
    shape: Shape
    target: str
    needed: Shape

    def __str__(self) -> str:
        source = "" if self.name == self.target else f" ({shown(self.name)} in the file)"
        return f"{self.target}{source} is {self.shape} and should be {self.needed}"


@dataclass(frozen=True, slots=True)
class Report:
    """How an array of names and a network fit together. `str()` says it in lines, `sentence()` what is wrong, in one.

    Args:
        layout: whose names the file has.
        prefix: what was taken off them.
        matched: the network's names that the file has, in the right shape.
        missing: those it lacks. The counters `num_batches_tracked`, which old files lack, are not among them.
        unexpected: the file's names that the network lacks.
        misshaped: what is in both, in two shapes.
        withheld: the network's names in the same layers: a bias says nothing without its weight.
        dropped: the file's names that this network does without, such as a classifier's last layer.
        kept: fixed bilinear filters of the network that the file lacks; they are right as they are.
        input: what images the weights expect, and what was done about it.
        notes: what else a reader should know, such as values that are not finite.
        fault: why nothing can fit, where that is known: the file is of another network.
    """

    layout: str
    prefix: str
    matched: tuple[str, ...]
    missing: tuple[Odd, ...]
    unexpected: tuple[Odd, ...]
    misshaped: tuple[Misshaped, ...]
    withheld: tuple[str, ...]
    dropped: tuple[str, ...]
    kept: tuple[str, ...]
    input: str
    notes: tuple[str, ...]
    fault: str

    @property
    def backbone(self) -> tuple[int, int]:
        """How many of the backbone's parameters and buffers were found, of how many; of the whole network's where it
        has no backbone."""
        here = [
            *self.matched,
            *(odd.name for odd in self.missing),
            *(odd.target for odd in self.misshaped),
            *self.withheld,
        ]
        inside = [name for name in here if name.startswith("backbone.")] or here
        return sum(name in set(self.matched) for name in inside), len(inside)

    @property
    def fits(self) -> bool:
        """Whether every parameter was found, in its shape, and every array has a place or is not needed."""
        return not (self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        off = f", without {self.prefix!r} in front" if self.prefix else ""
        if self.fault:
            return f"{self.layout}{off}: {self.fault}; nothing was loaded"
        total = len(self.matched) + len(self.missing) + len(self.misshaped) + len(self.withheld) + len(self.kept)
        lines = [f"{self.layout}{off}: {len(self.matched)} of {total} parameters and buffers matched"]
        for what, entries in self._faults():
            fate = "" if what == "unexpected" else ", left as the network has them"
            lines += [f"{what} ({len(entries)}){fate}:", *(f"  {entry}" for entry in listed(entries))]
        lines += [f"left with them, as of the same layers: {', '.join(listed(self.withheld))}"] * bool(self.withheld)
        lines += [f"hint: {self.hint}"] if self.hint else []
        lines += [f"not needed ({len(self.dropped)}): {', '.join(listed(map(shown, self.dropped)))}"] * bool(
            self.dropped
        )
        lines += [f"fixed bilinear filters, kept ({len(self.kept)}): {', '.join(listed(self.kept))}"] * bool(self.kept)
        return "\n".join([*lines, f"input: {self.input}", *(f"note: {note}" for note in self.notes)])

    def sentence(self) -> str:
        """What does not fit, on one line; "" where all fits."""
        if self.fault:
            return self.fault
        parts = [f"{len(entries)} {what}: {'; '.join(listed(entries, 3))}" for what, entries in self._faults()]
        return " — ".join(parts + ([self.hint] if parts and self.hint else []))

    @property
    def hint(self) -> str:
        """What to do about the commonest misfits: another width, other channels or classes, a classifier's weights for
        an FCN; "" where it is none of these."""
        inner = [
            e for e in self.misshaped if not _OF_CLASSES.fullmatch(e.target) and len(e.shape) == len(e.needed) == 4
        ]
        ratios = {Fraction(e.shape[0], e.needed[0]) for e in inner if e.needed[0]}
        if len(ratios) == 1 and ratios != {1}:
            (ratio,) = ratios
            return f"the file's layers are {ratio} times as wide; a network of {ratio} times the width takes them"
        if len(inner) == 1 and inner[0].shape[1] != inner[0].needed[1]:
            channels, wanted = inner[0].shape[1], inner[0].needed[1]
            return (
                f"the file is for {channels} channels and the network for {wanted}; models.surgery.adapt_input converts"
            )
        for entry in self.misshaped:
            there, here = entry.shape[:1], entry.needed[:1]
            if len(entry.shape) == len(entry.needed) and there != here and _OF_CLASSES.fullmatch(entry.target):
                classes = "1 class" if there == (1,) else f"{there[0]} classes"
                return (
                    f"the file is of {classes} and the network of {here[0]}; one created with num_classes={there[0]} "
                    "takes these layers too"
                )
        if self.missing and not self.misshaped and all(_OF_CLASSES.fullmatch(odd.name) for odd in self.missing):
            return "only score layers are missing, as the file is of a network without them; they have to be trained"
        return ""

    def _faults(self) -> list[tuple[str, tuple[Any, ...]]]:
        kinds = (("missing", self.missing), ("mis-shaped", self.misshaped), ("unexpected", self.unexpected))
        return [(what, entries) for what, entries in kinds if entries]


def listed(entries: Iterable[Any], shown: int = SHOWN) -> list[str]:
    """The first few, as text, and how many more there are, if more than one."""
    every = list(entries)
    if len(every) <= shown + 1:
        return list(map(str, every))
    return [*map(str, every[:shown]), f"… and {len(every) - shown} more"]

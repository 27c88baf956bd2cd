"""From the words of a command line to a dataset."""

import difflib
from pathlib import Path
from typing import Any

from minifcn.data.dataset import Dataset
from minifcn.data.folders import CamVidFolder, PairFolder, VOCFolder
from minifcn.data.shapes import Shapes

__all__ = ["absolute", "open_dataset"]

# Each kind with what follows it, as a user writes it.
FORMS = {"shapes": "shapes", "camvid": "camvid:DIR", "voc": "voc:DIR", "folder": "folder:IMAGES:MASKS"}


def absolute(spec: str) -> str:
    """The specification with its folders made absolute, so that it holds from any working folder."""
    kind, *folders = spec.split(":")
    return ":".join([kind, *(str(Path(f).expanduser().resolve()) if f else f for f in folders)])


def open_dataset(spec: str, split: str = "train", **options: Any) -> Dataset:
    """Open the dataset that a specification names.

    Args:
        spec: ``shapes``, ``camvid:DIR``, ``voc:DIR`` or ``folder:IMAGES:MASKS``; ``~`` is the home folder.
        split: which part: ``"train"``, ``"val"``, and what else the kind has.
        options: further arguments of :class:`Shapes`, :class:`CamVidFolder`, :class:`VOCFolder` or :class:`PairFolder`.

    Raises:
        ValueError: if the specification is none of these forms; and what the dataset itself raises.

    >>> len(open_dataset("shapes", "val", count=5))
    5
    """
    kind, *folders = spec.split(":")
    if kind not in FORMS:
        near = difflib.get_close_matches(kind.lower(), FORMS, n=1, cutoff=0.5)
        near = [] if Path(kind).exists() else near  # a folder without a kind is no misspelling
        hint = f"did you mean {FORMS[near[0]]}?" if near else f"the forms are {', '.join(FORMS.values())}"
        raise ValueError(f"open_dataset: unknown kind of data {kind!r} in {spec!r}; {hint}")
    if len(folders) != FORMS[kind].count(":") or not all(folders):
        raise ValueError(f"open_dataset: {spec!r} is incomplete or has too many parts; write {FORMS[kind]}")
    paths = [Path(folder).expanduser() for folder in folders]
    if kind == "shapes":
        return Shapes(split=split, **options)
    if kind == "camvid":
        return CamVidFolder(paths[0], split=split, **options)
    if kind == "voc":
        return VOCFolder(paths[0], split=split, **options)
    return PairFolder(paths[0], paths[1], split=split, **options)

"""Which array of a file belongs to which parameter of a network, what does not fit and why, and loading what does.

A network is never loaded by halves: everything is compared first, names and shapes, and only then copied. Fronts such
as `module.` (DataParallel) come off the names, the layout is recognised by the names that it explains, and where the
weights expect other images than the network will be given, the first convolution is rewritten (`models.inputs.fold`).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minifcn.autograd import Tensor
from minifcn.models.inputs import TORCHVISION, Input, fold
from minifcn.nn import Module, init
from minifcn.weights.faults import shown
from minifcn.weights.layouts import LAYOUTS, Layout, Place, foreign
from minifcn.weights.listing import extent
from minifcn.weights.report import SHOWN, Misshaped, Odd, Report, listed
from minifcn.weights.safetensors import of_minifcn

Array = NDArray[Any]
Shape = tuple[int, ...]

_SEARCHED: Final = 500  # names among which the nearest are looked for
_LONG: Final = 100  # characters of a name that are compared
_MOST_PREFIXES: Final = 16  # each is tried with each layout; a file that is not made up has one or two
_PREFIX: Final = re.compile(
    r"(?:(?:module|_orig_mod|model|net|network|state_dict|model_state_dict|model_state|weights|params)[./]){1,4}"
)
_BESIDE: Final = re.compile(r"(?s:(?:optim|lr_scheduler|scheduler)\w*[./].*)|epoch|iteration|step|best_\w+")
_FEATURE: Final = re.compile(r"(?:backbone\.)?features\.(\d+)\.\w+")


@dataclass(frozen=True, slots=True)
class Match:
    """A report, and the arrays that it is about.

    Args:
        report: what fits and what does not.
        arrays: the network's name → the array to load, in the network's shape, for every name in `report.matched`.
    """

    report: Report
    arrays: dict[str, Array]


@dataclass(frozen=True, slots=True)
class _Fit:
    """One reading of the file: under a layout, after a prefix was taken off.

    Args:
        pairs: the network's name → the file's.
        rest: the file's names without a place.
        claimed: how many pairs there would be without the fault.
        fault: why nothing of it has a place after all.
    """

    layout: Layout
    prefix: str
    places: dict[str, Place]
    pairs: dict[str, str]
    shaped: int
    dropped: tuple[str, ...]
    rest: tuple[str, ...]
    claimed: int
    fault: str = ""

    @property
    def score(self) -> tuple[int, int, int]:
        return self.claimed, self.shaped, len(self.dropped)


def match(
    model: Module,
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    given: Input | None = TORCHVISION,
    trained: Input | None = None,
) -> Match:
    """Find each array's place in a network, without changing the network.

    Args:
        model: the network.
        source: a file that `read` reads, or its name → array or Tensor.
        given: what the network will be given. Where the weights expect other images, the first convolution is rewritten
            for these; None leaves it as it is. minifcn's own data room gives TORCHVISION.
        trained: what the weights expect, where the names do not tell or mislead: None for what they say.

    Returns:
        The report, and the arrays that fit.

    Raises:
        FileNotFoundError: where there is no such file.
        TypeError: an array of anything but real numbers.
        ValueError: a file that cannot be read; or the first convolution should be rewritten and cannot be: it has no
            bias, or not three channels.

    >>> from minifcn import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 5, 1))
    >>> file = {"module.0.weight": np.ones((2, 3, 1, 1), np.float32), "module.0.bias": np.zeros(2, np.float32)}
    >>> print(match(net, file).report)
    minifcn's own names, without 'module.' in front: 2 of 4 parameters and buffers matched
    missing (2), left as the network has them:
      1.weight (5, 2, 1, 1)
      1.bias (5,)
    input: the names do not tell what the network was trained on; nothing was rewritten
    """
    for option, value in (("given", given), ("trained", trained)):
        if not isinstance(value, Input | None):
            raise TypeError(f"load: {option} is {value!r}; an Input such as TORCHVISION, or None, is needed")
    arrays, ours = _arrays(source)
    values = {name: np.asarray(a.numpy() if isinstance(a, Tensor) else a) for name, a in arrays.items()}
    for name, array in values.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(f"load: {shown(name)} is an array of {array.dtype}; real numbers are needed")
    own = model.state_dict()
    shapes: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in own.items()}
    scales = getattr(model, "scales", {})
    fits = [_fit(layout, prefix, values, shapes, scales) for layout in LAYOUTS for prefix in _prefixes(values)]
    best = max(fits, key=lambda fit: fit.score)  # the first of equals, and minifcn's own names come first
    found = {t: best.places[n].turn(values[n], shapes[t]) for t, n in best.pairs.items()}
    wrong = {target for target, array in found.items() if array.shape != shapes[target]}
    halves = {target.rpartition(".")[0] for target in wrong} - {""}
    state = {t: a for t, a in found.items() if t not in wrong and t.rpartition(".")[0] not in halves}
    withheld = [t for t in found if t not in wrong and t not in state and not _counter(t)]
    misshaped = tuple(Misshaped(best.pairs[t], array.shape, t, shapes[t]) for t, array in found.items() if t in wrong)
    kept = _bilinear(model, [name for name in shapes if name not in found])
    gaps = {n: shape for n, shape in shapes.items() if n not in found and n not in kept and not _counter(n)}
    rest = {name: values[name].shape for name in best.rest}
    notes = list(
        dict.fromkeys(best.places[n].note for t, n in best.pairs.items() if t in state and best.places[n].note)
    )
    notes += [*_conversions(state, own), *_not_finite({best.pairs[t]: values[best.pairs[t]] for t in state})]
    if trained is None:
        few = 2 * len(state) < len(values)  # a name or two may be the same by chance
        trained = TORCHVISION if ours else None if few else best.layout.input
    said = _prepare(state, shapes, trained, given)
    notes += [] if ours else _unscaled(scales, state, values)
    report = Report(
        best.layout.name if best.claimed else "names of no layout that is known here",
        best.prefix,
        tuple(name for name in shapes if name in state),
        _odd(gaps, rest),
        _odd(rest, gaps),
        misshaped,
        tuple(withheld),
        best.dropped,
        kept,
        said,
        tuple(notes),
        best.fault or ("" if state else foreign(values)),
    )
    return Match(report, state)


def load(
    model: Module,
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    strict: bool = True,
    given: Input | None = TORCHVISION,
    trained: Input | None = None,
) -> Report:
    """Load other people's weights into a network, whole or not at all.

    Args:
        model: the network; its dtype and device stay what they are.
        source: a file that `read` reads, or its name → array or Tensor.
        strict: whether everything must fit. False loads what does, if anything, and leaves the rest of the network as
            it is.
        given: what the network will be given: TORCHVISION, as minifcn's data room does, CAFFE, or any other Input.
            Where the weights expect other images, the first convolution is rewritten for these, and the report says so
            (`fold` says what differs then, in the padding); None leaves it as it is.
        trained: what the weights expect, where the names do not tell or mislead (torchvision's names are also in use
            for VGG weights that came from Caffe): None for what they say.

    Returns:
        What was loaded, what was not, and what the network must be given.

    Raises:
        FileNotFoundError: where there is no such file.
        TypeError: an array of anything but real numbers.
        ValueError: a file that cannot be read, or weights that do not fit; the network is as it was then.

    >>> from minifcn import models
    >>> net = models.create("fcn32s_vgg16", num_classes=3, width=1 / 64)
    >>> caffe = {"conv1_1.weight": np.ones((1, 3, 3, 3)), "conv1_1.bias": np.zeros(1)}
    >>> load(net, caffe, strict=False).input.partition(" for ")[0]
    'trained on BGR 0 … 255, minus (104.00699, 116.66877, 122.67892); the first convolution was rewritten'
    """
    found = match(model, source, given=given, trained=trained)
    if not found.arrays or (strict and not found.report.fits):
        name = "the arrays" if isinstance(source, Mapping) else Path(source)
        rest = "; strict=False loads what fits" if found.arrays else "; nothing fits"
        raise ValueError(
            f"load: {name} and this {type(model).__name__} do not fit ({found.report.layout}, "
            f"{len(found.report.matched)} matched) — {found.report.sentence()}{rest}"
        )
    model.load_state_dict(found.arrays, strict=False)
    return found.report


# -- finding the places


def _arrays(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The arrays, and whether they are of a file of minifcn's own, whose networks expect what the data room gives."""
    if isinstance(source, Mapping):
        return source, False
    from minifcn.weights import read

    return read(source), of_minifcn(Path(source))


def _prefixes(arrays: Mapping[str, Array]) -> list[str]:
    """What may be taken off the names: nothing, and each front of known words that a name has, part by part."""
    found = {""}
    for name in arrays:
        if (front := _PREFIX.match(name)) is not None:
            parts = re.findall(r"[^./]+[./]", front[0])
            found |= {"".join(parts[: n + 1]) for n in range(len(parts))}
    return sorted(found, key=len)[:_MOST_PREFIXES]


def _fit(
    layout: Layout, prefix: str, arrays: Mapping[str, Array], shapes: Mapping[str, Shape], scales: Mapping[str, float]
) -> _Fit:
    full = {name.removeprefix(prefix): name for name in arrays if name.startswith(prefix)}
    beside = [name for name in arrays if not name.startswith(prefix)]
    places = layout.places({short: arrays[name] for short, name in full.items()}, scales)
    heads = {part for name in shapes for part in name.split(".")[:2]}  # fc6 is head.fc6 here
    pairs: dict[str, str] = {}
    dropped: list[str] = []
    rest: list[str] = []
    shaped = 0
    for short, name in full.items():
        place = places.get(short)
        targets = [front + place.name for front in layout.fronts if front + place.name in shapes] if place else []
        if place is not None and targets and targets[0] not in pairs:
            pairs[targets[0]] = name
            shaped += place.turn(arrays[name], shapes[targets[0]]).shape == shapes[targets[0]]
        else:
            unneeded = place is not None and place.optional and place.name.split(".")[0] not in heads
            (dropped if unneeded or _BESIDE.fullmatch(short) else rest).append(name)
    dropped += [name for name in beside if _BESIDE.fullmatch(name)]
    rest += [name for name in beside if not _BESIDE.fullmatch(name)]
    named = {full[short]: place for short, place in places.items()}
    indices, needed = _features(places[short].name for short in places), _features(shapes)
    if _features(pairs) and not indices <= needed:  # equal numbers would be other layers
        fault = (
            f"these are {_span(indices)} of a VGG, and the network's has {_span(needed)}: another depth, or batch norm"
        )
        return _Fit(layout, prefix, named, {}, 0, (), tuple(arrays), len(pairs), fault)
    return _Fit(layout, prefix, named, pairs, shaped, tuple(dropped), tuple(rest), len(pairs))


def _features(names: Iterable[str]) -> set[int]:
    """The N of all layers called features.N, which VGG's are; of other networks, none."""
    return {int(found[1]) for name in names if (found := _FEATURE.fullmatch(name))}


def _span(indices: set[int]) -> str:
    shown = ", ".join(map(str, sorted(indices)[:4]))
    return f"features.{shown} … {max(indices)}" if len(indices) > 4 else f"features.{shown}"


def _bilinear(model: Module, missing: Iterable[str]) -> tuple[str, ...]:
    """Those of the missing that are fixed and bilinear already: no file is needed for them."""
    fixed = {name: p for name, p in model.named_parameters() if not p.requires_grad and p.ndim == 4}
    return tuple(
        name
        for name in missing
        if name in fixed and np.array_equal(fixed[name].numpy(), init.bilinear(fixed[name].shape))
    )


def _counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


def _odd(names: Mapping[str, Shape], others: Mapping[str, Shape]) -> tuple[Odd, ...]:
    """Each name with the nearest of the other side's; only those that a report shows, as each is compared with many."""
    return tuple(
        Odd(name, shape, _nearest(name, shape, others) if k < SHOWN else ())
        for k, (name, shape) in enumerate(names.items())
    )


def _nearest(name: str, shape: Shape, others: Mapping[str, Shape]) -> tuple[str, ...]:
    """Up to two of the other side's names that might be meant: of the same shape first, then by name."""
    ranks = {}
    for other, its in list(others.items())[:_SEARCHED]:
        alike = difflib.SequenceMatcher(None, name[-_LONG:], other[-_LONG:]).ratio()
        if alike >= (0.4 if its == shape else 0.6):
            ranks[other] = its == shape, alike
    best = sorted(ranks, key=lambda other: ranks[other], reverse=True)[:2]
    return tuple(f"{shown(other)} {others[other]}" for other in best)


# -- what else there is to say


def _prepare(state: dict[str, Array], shapes: Mapping[str, Shape], trained: Input | None, given: Input | None) -> str:
    """Rewrite the first convolution among the arrays where that is needed, and say what was done."""
    if not state:
        return "nothing was loaded"
    if trained is None:
        unless = "" if given in (None, TORCHVISION) else f"; right for {given.describe()} only if it was that"
        return f"the names do not tell what the network was trained on; nothing was rewritten{unless}"
    if given is None:
        return f"the network must be given {trained.describe()}, which it was trained on; nothing was rewritten"
    if trained == given:
        return f"trained on {trained.describe()}, which it will be given; nothing was rewritten"
    weight = next((name for name, shape in shapes.items() if len(shape) == 4), "")
    bias = weight.removesuffix("weight") + "bias"
    if weight not in state:
        return f"trained on {trained.describe()}; the first convolution is not among what fits, so it was not rewritten"
    if bias not in state or state[weight].shape[1] != 3:
        raise ValueError(
            f"load: {weight} {state[weight].shape} cannot be rewritten from {trained.describe()} to "
            f"{given.describe()}; a bias and three channels are needed, or given=None, which leaves it as it is"
        )
    w, b = (np.asarray(state[name], np.result_type(state[name], np.float32)) for name in (weight, bias))
    state[weight], state[bias] = fold(w, b, trained, given)
    return f"trained on {trained.describe()}; the first convolution was rewritten for {given.describe()}"


def _unscaled(scales: Mapping[str, float], state: Mapping[str, Array], values: Mapping[str, Array]) -> list[str]:
    """A warning where the network multiplies stages before their score layers and the file does not tell whether its
    own did."""
    scored = state.keys() & {f"score_{stage}.weight" for stage in scales}
    if not scored or any("scale_pool" in name for name in values):
        return []
    factors = " and ".join(f"{stage} by {scale:g}" for stage, scale in scales.items())
    return [
        f"this network multiplies {factors} before their score layers, and the file does not say so; weights of one "
        "that does not belong into the network without _atonce"
    ]


def _conversions(state: Mapping[str, Array], own: Mapping[str, Tensor]) -> list[str]:
    """Which dtypes change."""
    changes: dict[str, int] = {}
    for target, array in state.items():
        if array.dtype != own[target].dtype and not _counter(target):
            change = f"from {array.dtype} to {own[target].dtype}"
            changes[change] = changes.get(change, 0) + 1
    return [f"{count} array{'s' * (count > 1)} converted {change}" for change, count in changes.items()]


def _not_finite(arrays: Mapping[str, Array]) -> list[str]:
    """A warning where values are NaN or infinite."""
    bad = []
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            found = extent(array)
            if found.nans or found.infinities:
                bad.append(f"{shown(name)} has {found.nans:,} NaN and {found.infinities:,} Inf")
    return [f"NOT all finite: {'; '.join(listed(bad))}"] if bad else []

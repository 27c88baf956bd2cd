"""Surgery on trained networks: a classifier becomes an FCN, one network's weights go into the next, scores and input
channels grow (Long et al. 2015, §3.1 and §4; the authors' surgery.py).

convolutionize   a classifier on crops → the same scores for every crop of a larger image, in one pass
transplant       FCN-32s → FCN-16s → FCN-8s: what two networks share by name and shape
expand_scores    a network's weights → the same network for more classes
adapt_input      the first filters for RGB → for grey, for RGB and depth, for more channels
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import nn
from minifcn.array import Array, is_array, module_of, to_device
from minifcn.autograd import Tensor
from minifcn.functional._checks import choice, integer, raw
from minifcn.models.classifiers import convolutionize

__all__ = ["Transplanted", "adapt_input", "convolutionize", "expand_scores", "transplant"]

State = Mapping[str, Any]  # name → array or Tensor

OUT_AXIS: dict[type, int] = {nn.Conv2d: 0, nn.ConvTranspose2d: 1}  # which axis of the weight is the output's


# ----- weights from one network to another


@dataclass(frozen=True, slots=True)
class Transplanted:
    """What became of the names of two networks' parameters and buffers; str() says it in lines.

    Args:
        copied: were of one shape and copied.
        fitted: were copied into another shape: reshaped, or widened to more classes.
        misshapen: name → (shape in the source, shape in the target) of those that were not copied for it.
        kept: the target's that the source lacks; left as they were.
        unused: the source's that the target lacks.
    """

    copied: tuple[str, ...]
    fitted: tuple[str, ...]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    kept: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        shapes = tuple(f"{name} {old} → {new}" for name, (old, new) in self.misshapen.items())
        lines = [
            f"copied: {len(self.copied)} of {sum(map(len, (self.copied, self.fitted, shapes, self.kept)))}",
            *(
                f"{said}: {', '.join(names)}"
                for said, names in [
                    ("copied into another shape", self.fitted),
                    ("of another shape, left as they were", shapes),
                    ("not in the source, left as they were", self.kept),
                    ("not in the target, not used", self.unused),
                ]
                if names
            ),
        ]
        return "\n".join(lines)


def transplant(source: nn.Module | State, target: nn.Module, coerce: bool = False) -> Transplanted:
    """Copy into `target` the parameters and buffers that `source` has under the same name, with the same shape.

    From FCN-32s to FCN-16s these are the backbone, the head and score_fr. Where a new skip's scores start at zero, as
    on VGG, FCN-16s starts with what FCN-32s says, upsampled in two steps.

    Args:
        source: a network, or its state: name → array or Tensor. It is not changed.
        target: the network to fill, or a part of one, such as model.backbone.
        coerce: whether an array of another shape with as many values is copied in its own order, as a fully connected
            layer's (O, C·I·J) into a convolution's (O, C, I, J).

    Returns:
        What was copied and what was not.

    Raises:
        ValueError: nothing can be copied; or the two multiply a stage by different factors before its score layer, as
            FCN-8s at once does.

    Long et al. 2015, §4.2, and `transplant` in the authors' surgery.py.

    >>> source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> print(transplant(source, nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False))))
    copied: 2 of 3
    of another shape, left as they were: 2.weight (2, 4, 1, 1) → (5, 4, 1, 1)
    not in the target, not used: 2.bias
    """
    given, own = _states("transplant", source, target)
    before, now = getattr(source, "scales", {}), getattr(target, "scales", {})
    for stage in {*before, *now} if isinstance(source, nn.Module) else ():
        name = f"score_{stage}.weight"
        if name in given and name in own and before.get(stage, 1) != now.get(stage, 1):
            raise ValueError(
                f"transplant: the source multiplies {stage} by {before.get(stage, 1)} before its score layer and the "
                f"target by {now.get(stage, 1)}; two networks that do the same are needed"
            )
    done: dict[str, Any] = {}
    fitted, misshapen = [], {}
    for name, t in own.items():
        if name not in given:
            continue
        old = np.shape(given[name])
        if old == t.shape:
            done[name] = given[name]
        elif coerce and math.prod(old) == t.size:
            done[name] = raw(given[name]).reshape(t.shape)
            fitted.append(name)
        else:
            misshapen[name] = (old, t.shape)
    if not done:
        raise ValueError(
            f"transplant: nothing in the source has a name and shape of the target (the first name is "
            f"{next(iter(given), '')!r} there and {next(iter(own), '')!r} here); equal names are needed"
        )
    target.load_state_dict(done, strict=False)
    return Transplanted(
        tuple(name for name in done if name not in fitted),
        tuple(fitted),
        misshapen,
        tuple(name for name in own if name not in given),
        tuple(name for name in given if name not in own),
    )


def _states(op: str, source: nn.Module | State, target: nn.Module) -> tuple[State, dict[str, Tensor]]:
    if not isinstance(target, nn.Module):
        raise TypeError(f"{op}: target is a {type(target).__name__}; a Module is needed")
    given = source.state_dict() if isinstance(source, nn.Module) else source
    if not isinstance(given, Mapping):
        raise TypeError(f"{op}: source is a {type(source).__name__}; a Module or its state is needed")
    return given, target.state_dict()


# ----- more classes


def expand_scores(source: nn.Module | State, target: nn.Module) -> Transplanted:
    """Fill `target` with a trained network's weights, where it is that network for more classes.

    The old classes come first and keep their scores. A new class scores 0 until it is trained: its filters and biases
    in the score layers are 0. Layers from scores to scores (upsampling, fusing) carry the new classes as they do in
    `target`, and nothing passes between old and new ones.

    Args:
        source: the trained network, or its state. It is not changed.
        target: a new network, such as models.create(name, more_classes), with the names of `source`.

    Returns:
        What was copied, and what was widened (`fitted`).

    Raises:
        ValueError: other names, no more classes than before, or a layer that differs in more than its classes.

    `expand_score` in the authors' surgery.py.

    >>> old, new = nn.Sequential(nn.Conv2d(4, 2, 1)), nn.Sequential(nn.Conv2d(4, 5, 1))
    >>> print(expand_scores(old, new))
    copied: 0 of 2
    copied into another shape: 0.weight, 0.bias
    """
    given, own = _states("expand_scores", source, target)
    if set(given) != set(own):
        strange = ", ".join(sorted(set(given) ^ set(own))[:5])
        raise ValueError(f"expand_scores: the names differ ({strange}); the same network for more classes is needed")
    axes = {prefix: OUT_AXIS[type(m)] for prefix, m in target.named_modules() if type(m) in OUT_AXIS and m.groups == 1}
    done: dict[str, Any] = dict(given)
    classes: set[tuple[int, int]] = set()
    widened = [name for name, t in own.items() if np.shape(given[name]) != t.shape]
    for name in widened:
        layer = name.rpartition(".")[0]
        old, new = (to_device(raw(values), "cpu") for values in (given[name], own[name]))
        out = axes.get(layer, 0) if new.ndim > 1 else 0
        done[name] = _widened(old, new, out) if layer in axes and old.ndim == new.ndim else None
        if done[name] is None:
            raise ValueError(
                f"expand_scores: {name} is {old.shape} in the source and {new.shape} in the target, which is no matter "
                "of classes; the same network for more classes is needed"
            )
        classes.add((old.shape[out], new.shape[out]))
    if len(classes) != 1:
        found = " and ".join(f"from {old} to {new}" for old, new in sorted(classes)) or "the same in both"
        raise ValueError(f"expand_scores: the number of classes is {found}; one and the same growth is needed")
    target.load_state_dict(done)
    return Transplanted(tuple(name for name in own if name not in widened), tuple(widened), {}, (), ())


def _widened(old: Array, new: Array, out: int) -> Array | None:
    """`new` with the weights or biases of a layer for fewer classes in it; None where they are not that.

    A layer that reads scores has g·classes inputs: g maps of scores, one after another (up and skip, where FCN fuses by
    concatenation).
    """
    if old.ndim == 1:
        (k,), (more,) = old.shape, new.shape
        return np.concatenate([old, np.zeros(more - k, old.dtype)]) if k < more else None
    old, w = (np.moveaxis(a, out, 0).copy() for a in (old, new))  # (O, C, I, J), of a transposed one as well
    (k, c, *taps), (more, d, *new_taps) = old.shape, w.shape
    if k >= more or taps != new_taps:
        return None
    if c == d:
        w[:k], w[k:] = old, 0
    elif c % k == 0 and c // k * more == d:
        blocks = w.reshape(more, -1, more, *taps)  # (classes, g, classes, I, J)
        blocks[:k, :, k:], blocks[k:, :, :k], blocks[:k, :, :k] = 0, 0, old.reshape(k, -1, k, *taps)
        w = blocks.reshape(w.shape)
    else:
        return None
    return np.moveaxis(w, 0, out)


# ----- other inputs


def adapt_input(weight: Tensor | Array, in_channels: int, fill: str = "mean") -> Array:
    """The first convolution's filters (O,C,I,J), trained on C channels (3 for RGB), for in_channels: a new array.

    Args:
        weight: the filters.
        in_channels: 1 for grey: the sum over C, so that a grey image gets the scores that it gets repeated C times.
            More than C for more, such as 4 for RGB and depth, after the first C, which keep their filters.
        fill: the filters of what is more than C: "mean" over the first C (as the authors do for depth), or "zero", with
            which scores are what they were, whatever those channels hold.

    Returns:
        (O,in_channels,I,J), with which a state goes into models.create(name, classes, in_channels=in_channels).

    Raises:
        ValueError: a weight without four axes, or a number of channels between 1 and C.

    >>> rgb, depth = nn.Sequential(nn.Conv2d(3, 8, 3)), nn.Sequential(nn.Conv2d(4, 8, 3))
    >>> adapted = {"0.weight": adapt_input(rgb[0].weight, 4)}
    >>> print(transplant({**rgb.state_dict(), **adapted}, depth))
    copied: 2 of 2
    """
    w = raw(weight)
    if not is_array(w) or w.ndim != 4:
        raise ValueError(f"adapt_input: weight has shape {np.shape(w)}; an array (O, C, I, J) is needed")
    choice("adapt_input", "fill", fill, ("mean", "zero"))
    channels, wanted = w.shape[1], integer("adapt_input", "in_channels", in_channels, 1)
    if wanted == 1:
        return w.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
    if wanted < channels:
        raise ValueError(f"adapt_input: in_channels is {wanted}; 1, or at least the weight's {channels}, is needed")
    more = w.mean(axis=1, keepdims=True) * (fill == "mean")
    return module_of(w).concatenate([w, *[more] * (wanted - channels)], axis=1)  # type: ignore[no-any-return]

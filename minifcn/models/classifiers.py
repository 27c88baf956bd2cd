"""From a classifier on crops to an FCN: the same scores for every crop of a larger image, in one pass
(Long et al. 2015, §3.1)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minifcn import nn, random
from minifcn.autograd import Tensor, no_grad
from minifcn.functional._checks import choice, integer
from minifcn.geometry import pair

Chw = tuple[int, int, int]

ELEMENTWISE = (nn.ReLU, nn.Sigmoid, nn.Dropout, nn.Identity)
MIXES_POSITIONS = (nn.Linear, nn.Flatten, nn.AdaptiveAvgPool2d, nn.Unfold, nn.Upsample)


def convolutionize(classifier: nn.Sequential, input_shape: Sequence[int], order: str = "CHW") -> nn.Sequential:
    """The classifier as a network of convolutions: (N,C,H,W) of any size that is large enough → scores (N,K,P,Q).

    A fully connected layer on a map (C,I,J) is a convolution whose filter is as large as the map. So the first Linear
    after Flatten becomes Conv2d(C, O, (I, J)), later ones 1×1 convolutions, and averaging over the whole map an
    average over a window of that size at every position. A crop of `input_shape` gets the classifier's scores, as
    (N,K,1,1). In a larger image, where no layer pads, each cell has the scores of its own crop; the crops are as far
    apart as the strides say. A layer that pads, or a pooling that rounds up, sees the image's pixels where there was
    nothing around a crop, so such a network's scores inside an image differ from those of cut-out crops.

    Args:
        classifier: an nn.Sequential, which may hold others: convolutional layers, Flatten(), then Linear layers with
            ReLU, Sigmoid, Dropout and Softmax. It stays as it is: the result has copies of its parameters, under the
            same names, and none of its hooks. A model of another class goes in as its parts, for torchvision's VGG
            Sequential(model.features, model.avgpool, Flatten(), model.classifier). A module of one's own before
            Flatten, such as a residual block, is kept as it is and must treat all positions alike.
        input_shape: (C, H, W) of the crops that the classifier was trained on.
        order: in which order the first Linear's weights go through the map: "CHW", as Flatten does, or "HWC" for
            weights from Keras (the result has it right then; the classifier's own Flatten does not).

    Returns:
        The new network. Identity stands where Flatten stood.

    Raises:
        TypeError: for anything but a Sequential.
        ValueError: for a Linear that does not fit the map, no Flatten, or a layer that no convolution can replace.

    Long et al. 2015, §3.1 and §4.1.

    >>> classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))
    >>> fcn = convolutionize(classifier, (3, 8, 8))
    >>> fcn[3]
    Conv2d(4, 10, kernel_size=(6, 6), stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, bias=True)
    >>> fcn(Tensor(np.zeros((1, 3, 10, 12), np.float32))).shape
    (1, 10, 3, 5)
    """
    if not _is_chain(classifier):
        raise TypeError(
            f"convolutionize: classifier is a {type(classifier).__name__}; an nn.Sequential is needed, such as "
            "nn.Sequential(model.features, model.avgpool, nn.Flatten(), model.classifier)"
        )
    choice("convolutionize", "order", order, ("CHW", "HWC"))
    if not isinstance(input_shape, Sequence) or len(input_shape) != 3:
        raise ValueError(f"convolutionize: input_shape is {input_shape!r}; (C, H, W) is needed")
    sizes = tuple(integer("convolutionize", "input_shape", size, 1) for size in input_shape)
    fcn = _copy(classifier)
    modes = [(m, m.training) for m in fcn.modules()]
    drawn = random.get_state()  # new layers draw initial weights, which nobody sees
    try:
        with no_grad():
            _convert(fcn.eval(), sizes, order)
    finally:
        random.set_state(drawn)
    fcn.train(classifier.training)
    for m, training in modes:
        m.training = training
    return fcn


def _copy(chain: nn.Sequential) -> nn.Sequential:
    """With arrays of its own, on the device where they are; without hooks and gradients."""
    instead: dict[int, Any] = {id(m._hooks): [] for m in chain.modules()}
    instead |= {id(t.data): t.data.copy() for t in (*chain.parameters(), *chain.buffers())}
    instead |= {id(p.grad): p.grad for p in chain.parameters()}
    copied = copy.deepcopy(chain, instead)
    copied.zero_grad()
    return copied


def _convert(fcn: nn.Sequential, input_shape: tuple[int, ...], order: str) -> None:
    """Replace layers in place: up to Flatten a crop runs through them, from there on the map's shape says all."""
    like = next(fcn.parameters(), Tensor(0.0))
    x: Any = Tensor(np.zeros((1, *input_shape), like.dtype)).to(like.device)
    flat: Chw | None = None
    for parent, name, path, layer in _leaves(fcn):
        what = f"convolutionize: layer {path}, {type(layer).__name__}({layer.extra_repr()}),"
        new = layer
        if flat is not None:
            new, flat = _of_vector(layer, flat, order, what)
        elif isinstance(layer, nn.Flatten):
            if (layer.start_dim, layer.end_dim) not in ((1, -1), (1, 3)):
                raise ValueError(f"{what} does not leave (N, C·H·W); Flatten(1) is needed")
            new, flat = nn.Identity(), x.shape[1:]
        else:
            if _mixes_positions(layer):
                raise ValueError(f"{what} mixes positions of the map, or depends on its size; no convolution does that")
            before, x = x.shape[2:], layer(x)
            if not isinstance(x, Tensor) or x.ndim != 4:
                raise ValueError(f"{what} does not return a map (N, C, H, W); Flatten must come before such a layer")
            new = _of_map(layer, before, x.shape[2:], what)
        setattr(parent, name, new)
    if flat is None:
        raise ValueError("convolutionize: there is no Flatten in the classifier; it is convolutional as it is")
    if flat[1:] != (1, 1):
        raise ValueError(f"convolutionize: no Linear follows Flatten, so its {_product(flat)} values are no scores")


def _is_chain(module: object) -> bool:
    """Whether it calls its modules one after another and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _leaves(chain: nn.Sequential, prefix: str = "") -> Iterator[tuple[nn.Sequential, str, str, nn.Module]]:
    """(Sequential that holds it, name there, dotted name, layer), in the order of calls."""
    for name, layer in list(chain._modules.items()):
        if isinstance(layer, nn.Sequential) and _is_chain(layer):
            yield from _leaves(layer, f"{prefix}{name}.")
        else:
            yield chain, name, prefix + name, layer


def _mixes_positions(layer: nn.Module) -> bool:
    """Whether it, or a part of it, is known to. Averaging to a given size can be replaced where it stands by itself."""
    return any(
        isinstance(part, MIXES_POSITIONS) or (isinstance(part, nn.Softmax) and part.dim not in (1, -3))
        for part in layer.modules()
        if part is not layer or not isinstance(layer, nn.AdaptiveAvgPool2d)
    )


def _of_map(layer: nn.Module, before: tuple[int, ...], after: tuple[int, ...], what: str) -> nn.Module:
    """What does for every crop what `layer` does for one, whose map it takes from size `before` to `after`."""
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        if any(size % cells for size, cells in zip(before, after, strict=True)):
            raise ValueError(
                f"{what} averages a map of {before} to {after}, in windows of several sizes; no convolution does that"
            )
        if before == after:
            return nn.Identity()
        height, width = (size // cells for size, cells in zip(before, after, strict=True))
        # one window may be taken at every position; several are as far apart as they were
        stride = (height if after[0] > 1 else 1, width if after[1] > 1 else 1)
        return nn.AvgPool2d((height, width), stride)
    if isinstance(layer, nn.AvgPool2d) and layer.padding in (0, (0, 0)):
        kernel = pair(layer.kernel_size, "AvgPool2d", "kernel_size", 1)
        if kernel == before:
            return nn.AvgPool2d(kernel, 1, divisor_override=layer.divisor_override)
    return layer


def _of_vector(layer: nn.Module, flat: Chw, order: str, what: str) -> tuple[nn.Module, Chw]:
    """The layer for a map, which is (C,I,J) for one crop, in place of `layer` for vectors; and the map after it."""
    c, i, j = flat
    if isinstance(layer, nn.Linear):
        if layer.in_features != c * i * j:
            raise ValueError(f"{what} follows {_product(flat)} values; is input_shape that of the classifier's crops?")
        o = layer.out_features
        conv = nn.Conv2d(c, o, (i, j), bias=layer.bias is not None)
        w = layer.weight.data  # after the first Linear the map is (C,1,1), whose order is no matter
        w = w.reshape(o, c, i, j) if order == "CHW" else w.reshape(o, i, j, c).transpose(0, 3, 1, 2).copy()
        conv.weight, conv.bias = nn.Parameter(w, layer.weight.requires_grad), layer.bias
        return conv, (o, 1, 1)
    if isinstance(layer, nn.Softmax) and layer.dim in (1, -1) and (i, j) == (1, 1):
        return type(layer)(1), flat
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) in ((1, -1), (1, 1)):
        return nn.Identity(), flat
    if isinstance(layer, ELEMENTWISE) and not isinstance(layer, nn.Dropout2d):
        return layer, flat
    raise ValueError(f"{what} after Flatten cannot be done for maps; Linear, ReLU, Sigmoid, Dropout or Softmax(1) can")


def _product(flat: Chw) -> str:
    return f"{flat[0]}·{flat[1]}·{flat[2]} = {math.prod(flat)}"

"""Modules that hold others, and `run`, which takes a tensor through several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, cast

import numpy as np

from minifcn.array import module_of
from minifcn.autograd import Tensor, is_grad_enabled
from minifcn.debugging import is_debugging
from minifcn.functional.conv import conv2d_then
from minifcn.kernels.norm import NEAR
from minifcn.nn.layers import BatchNorm2d, Conv2d, ReLU
from minifcn.nn.module import Module


def run(layers: Sequence[Module], x: Any, shortcut: Tensor | None = None) -> Any:
    """x through the layers, one after another; a shortcut is added before the last one.

    Under no_grad, a Conv2d and what follows it of BatchNorm2d in eval mode, shortcut and ReLU are one kernel, which
    does it all to scores that are still in a cache. Values differ in rounding only. Layers with forward hooks, which
    are shown what each layer returns, layers with a forward of their own, and subclasses are called one by one.

    Raises ValueError for a shortcut without layers.
    """
    if shortcut is not None and not layers:
        raise ValueError("run: a shortcut is added before the last layer, but there are no layers")
    k = 0
    while k < len(layers):
        count = 1 if is_grad_enabled() or is_debugging() else _fusible(layers[k : k + 3], x)
        if shortcut is not None and k + count == len(layers):
            fits = isinstance(layers[-1], ReLU) and isinstance(shortcut, Tensor) and shortcut.dtype == x.dtype
            count = count if fits else 1  # else it comes between layers that could be one, or changes the dtype
        last = k + count == len(layers)
        if count == 1:
            x = layers[k](x + shortcut if last and shortcut is not None else x)
        else:
            x = _fused(layers[k : k + count], x, shortcut if last else None)
        k += count
    return x


def _fusible(layers: Sequence[Module], x: Any) -> int:
    """How many of the layers, from the first one on, one kernel can do."""
    kinds = [None if layer._hooks or "forward" in vars(layer) else type(layer) for layer in layers]
    if kinds[0] is not Conv2d or not isinstance(x, Tensor) or x.ndim != 4:
        return 1
    count = 1
    if kinds[1:2] == [BatchNorm2d]:
        conv, bn = layers[0], cast(BatchNorm2d, layers[1])
        tensors = [t for t in (bn.running_mean, bn.running_var, bn.weight, bn.bias) if t is not None]
        alike = all(t.dtype == conv.weight.dtype and t.shape == (conv.out_channels,) for t in tensors)
        if bn.training or bn.running_var is None or not alike or not _near(bn):
            return 1
        count = 2
    return count + 1 if kinds[count : count + 1] == [ReLU] else count


def _near(bn: BatchNorm2d) -> bool:
    """Whether no mean is so large beside its deviation that scores·scale and mean·scale would cancel."""
    mean, var = _double(bn.running_mean), _double(bn.running_var)
    return bool((mean**2 <= NEAR**2 * (var + bn.eps)).all())


def _double(t: Tensor | None) -> Any:
    """The array in float64; 0 for None."""
    return 0.0 if t is None else t.data.astype(np.float64)


def _fused(layers: Sequence[Module], x: Tensor, shortcut: Tensor | None) -> Tensor:
    """A Conv2d, then a BatchNorm2d or a ReLU or both, of which the norm is (conv + b − mean)·scale + beta with
    scale = gamma/√(var + eps)."""
    conv, bn = layers[0], layers[1] if isinstance(layers[1], BatchNorm2d) else None
    scale, shift = None, conv.bias
    if bn is not None:
        var = _double(bn.running_var)
        factor = (1 if bn.weight is None else _double(bn.weight)) / module_of(var).sqrt(var + bn.eps)
        rest = (_double(conv.bias) - _double(bn.running_mean)) * factor + _double(bn.bias)
        scale, shift = (Tensor(v.astype(conv.weight.dtype)) for v in (factor, rest))
    relu = isinstance(layers[-1], ReLU)
    return conv2d_then(
        x, conv.weight, shift, scale, shortcut, relu, conv.stride, conv.padding, conv.dilation, conv.groups
    )


def _module(op: str, k: int, module: object) -> Module:
    if isinstance(module, Module):
        return module
    what = f"the class {module.__name__}" if isinstance(module, type) else f"a {type(module).__name__}"
    raise TypeError(f"{op}: module {k} is {what}; a Module is needed")


class Sequential(Module):
    """Modules one after another: Sequential(first, second, …). Raises TypeError for anything but Modules."""

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for k, module in enumerate(modules):
            setattr(self, str(k), _module("Sequential", k, module))

    def forward(self, x: Any) -> Any:
        """The last module's output; what follows each other and can be done as one is (see run)."""
        return run(list(self), x)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, k: int) -> Module:
        return list(self._modules.values())[k]


class ModuleList(Module):
    """A list of modules that are part of the tree."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        if not isinstance(modules, Iterable):
            raise TypeError(f"ModuleList: modules is a {type(modules).__name__}; a list of Modules is needed")
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        setattr(self, str(len(self)), _module("ModuleList", len(self), module))
        return self

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, k: int) -> Module:
        return list(self._modules.values())[k]

"""Modules that hold others, and `run`, which takes a tensor through several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from minifcn.autograd import Tensor, is_grad_enabled
from minifcn.debugging import is_debugging
from minifcn.functional.conv import conv2d_then
from minifcn.nn.layers import BatchNorm2d, Conv2d, ReLU
from minifcn.nn.module import Module


def run(layers: Sequence[Module], x: Any, shortcut: Tensor | None = None) -> Any:
    """x through the layers, one after another; a shortcut is added before the last one.

    Under no_grad, a Conv2d and what follows it of BatchNorm2d in eval mode, shortcut and ReLU are one kernel, which
    does it all to scores that are still in a cache. Values differ in rounding only. Layers with forward hooks, which
    are shown what each layer returns, and subclasses are called one by one.
    """
    k, fuse = 0, not is_grad_enabled() and not is_debugging()
    while k < len(layers):
        count = _fusible(layers[k : k + 3]) if fuse else 1
        last = k + count == len(layers)
        if last and shortcut is not None and not isinstance(layers[-1], ReLU):
            count, last = 1, k + 1 == len(layers)  # it comes between layers that could be one
        if count == 1 and last and shortcut is not None:
            x = x + shortcut
        x = layers[k](x) if count == 1 else _fused(layers[k : k + count], x, shortcut if last else None)
        k += count
    return x


def _fusible(layers: Sequence[Module]) -> int:
    """How many of the layers, from the first one on, one kernel can do."""
    kinds = [None if layer._hooks else type(layer) for layer in layers]
    if kinds[0] is not Conv2d:
        return 1
    count = 1
    if kinds[1:2] == [BatchNorm2d]:
        conv, bn = layers[:2]
        if bn.training or bn.running_var is None or bn.num_features != conv.out_channels:
            return 1
        count = 2
    return count + 1 if kinds[count : count + 1] == [ReLU] else count


def _fused(layers: Sequence[Module], x: Tensor, shortcut: Tensor | None) -> Tensor:
    """A Conv2d, then a BatchNorm2d or a ReLU or both, of which the norm is (conv + b − mean)·scale + beta with
    scale = gamma/√(var + eps)."""
    conv, bn = layers[:2]
    scale, shift = None, conv.bias
    if isinstance(bn, BatchNorm2d):
        scale = 1 / (bn.running_var + bn.eps).sqrt()
        scale = scale if bn.weight is None else scale * bn.weight
        shift = (-bn.running_mean if shift is None else shift - bn.running_mean) * scale
        shift = shift if bn.bias is None else shift + bn.bias
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

"""Whole networks, narrowed: the loss as a function of every parameter.

At order 1 each parameter tensor is moved by itself. At order 2 ⟨∇loss, v⟩, for one random v over all parameters, is
moved along a random direction in the parameters of one part of the network at a time, so what is compared is a piece of
the Hessian, vᵀH d. Networks of ReLUs are smooth almost everywhere, and where one switches within a step, a smaller step
is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

import minifcn.functional as F
from minifcn import models, nn
from minifcn.array import Array
from minifcn.autograd import Tensor
from minifcn.gradcheck.cases import constant, like
from minifcn.gradcheck.check import Check, iter_checks
from minifcn.models.resnet import BasicBlock, Bottleneck

# one of each family
FAMILIES = (
    "fcn8s_vgg16", "fcn8s_vgg16_paper", "fcn8s_atonce_vgg11_bn", "fcn32s_alexnet", "fcn8s_googlenet", "fcn8s_resnet101",
    "fcn8s_resnet18_aligned", "fcn16s_decoder_resnet18", "fcn_resnet50", "unet", "hed",
)  # fmt: skip
WIDTH = 1 / 32
# For float32, the size of a residual beside its shortcut. At 1, each of ResNet-101's 33 blocks doubles what rounding
# did before it, and batch norm over a handful of pixels makes that a gradient with two right digits: nothing could be
# compared.
SINGLE_RESIDUAL = 0.1
VOID = 255


def call_with(module: nn.Module, parameters: Sequence[Tensor], *inputs: Any) -> Any:
    """module(*inputs) with these tensors in place of its parameters, in the order of named_parameters().

    Its buffers are copied, to the dtype and device of the parameters; the module itself stays as it is.

    >>> layer = nn.Linear(2, 1)
    >>> call_with(layer, [Tensor([[1.0, 2.0]]), Tensor([3.0])], Tensor([4.0, 5.0]))
    Tensor([17.], dtype=float32)
    """
    new = {id(p): t for p, t in zip(module.parameters(), parameters, strict=True)}
    new |= {id(b): constant(b.numpy().copy(), parameters[0]) for b in module.buffers()}
    tables: list[dict[str, Any]] = [table for m in module.modules() for table in (m._parameters, m._buffers)]
    before = [dict(table) for table in tables]
    for table in tables:
        table.update({name: new[id(t)] for name, t in table.items() if t is not None})
    try:
        return module(*inputs)
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.update(entries)


@dataclass(frozen=True)
class Network:
    """A narrowed network with an image and labels, as a loss of its parameters."""

    names: list[str]
    arrays: list[Array]
    loss: Callable[..., Tensor]
    size: str  # the image's

    @classmethod
    def of(cls, name: str, residual: float = 1.0) -> Network:
        """The model of that name, with nothing at a kink or at zero, two odd-sized images, and labels with void; its
        residual branches scaled by `residual`."""
        model = models.create(name, num_classes=3, width=WIDTH, seed=1)
        for m in model.modules():
            if isinstance(m, nn.Dropout):
                m.p = 0.0
            elif isinstance(m, BasicBlock | Bottleneck):
                norm = m.bn3 if isinstance(m, Bottleneck) else m.bn2
                norm.weight.data = norm.weight.data * np.float32(residual)
        rng = np.random.default_rng(2)
        arrays = []
        for p in model.parameters():
            # zero scores would make every other gradient zero
            values = p.numpy() if p.data.any() else rng.standard_normal(p.shape) * 0.3
            arrays.append(values.astype(np.float64))
        height, width = (17, 14) if name.endswith("_paper") else (45, 38)
        labels = rng.integers(0, 4, (2, height, width))
        labels[labels == 3] = VOID
        image = rng.standard_normal((2, 3, height, width))

        def loss(*parameters: Tensor) -> Tensor:
            x = parameters[0]
            scores = call_with(model, parameters, constant(image, x))
            return F.cross_entropy(scores, like(labels, x), ignore_index=VOID)

        return cls([n for n, _ in model.named_parameters()], arrays, loss, f"{height}×{width}")

    def parts(self) -> dict[str, list[int]]:
        """Which parameters belong to each part: the network's modules, and those of backbone and head."""
        parts: dict[str, list[int]] = {}
        for k, name in enumerate(self.names):
            modules = name.split(".")[:-1]
            parts.setdefault(".".join(modules[:2]), []).append(k)
        return parts

    def loss_of_parts(self, *vectors: Tensor) -> Tensor:
        """The loss, of one vector for each part."""
        parameters: list[Tensor | None] = [None] * len(self.names)
        for vector, members in zip(vectors, self.parts().values(), strict=True):
            start = 0
            for k in members:
                values = self.arrays[k]
                parameters[k] = vector[start : start + values.size].reshape(values.shape)
                start += values.size
        return self.loss(*parameters)


def check_model(
    name: str, order: int = 2, dtype: DTypeLike = np.float64, device: str | None = None
) -> Iterator[tuple[str, Check]]:
    """The checks of a narrowed network as they are made, each with the name of its parameter or part.

    Args:
        name: one of models.available().
        order: 1 for every parameter tensor, 2 also for every part, as the top of this file says.
        dtype, device: as in check_grad.

    Raises:
        ValueError: an unknown name.
    """
    network = Network.of(name, 1.0 if np.dtype(dtype) == np.float64 else SINGLE_RESIDUAL)
    for check in iter_checks(network.loss, network.arrays, [1], dtype=dtype, device=device):
        yield network.names[check.argument], check
    if order >= 2:
        parts = network.parts()
        vectors = [np.concatenate([network.arrays[k].reshape(-1) for k in members]) for members in parts.values()]
        labels = [*parts, "cotangent"]
        for check in iter_checks(network.loss_of_parts, vectors, range(2, order + 1), dtype=dtype, device=device):
            yield labels[min(check.argument, len(parts))], check

"""Every different layer of the networks, at the sizes that a 360×480 image gives it, against the same layer in PyTorch.

The shapes come from walking the models. Before a layer is timed, the algorithms that it chose are compared with
`reference` (on a small copy of the layer, as index loops cannot do the large one), and its output and gradients at full
size with PyTorch's.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minifcn as mf
from minifcn import kernels, nn
from minifcn.array import to_device
from minifcn.geometry import pair

from .measure import interleaved, ratio, spread
from .models import CLASSES, MODELS, SIZE
from .roofline import least_time

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.BatchNorm2d, nn.ReLU)
PERIOD = 1_000_003  # numbers drawn, which large arrays repeat: a prime, so that no channel is like the next


@dataclass
class Side:
    """A layer as one library does it."""

    calls: dict[str, Callable[[], object]]  # what is timed, by name
    values: Callable[[], list[Any]]  # what both libraries must agree on, as tensors of this one


@dataclass
class Layer:
    """One row: a layer, the shape of its input, and where it occurs."""

    module: nn.Module
    x_shape: tuple[int, ...]
    differentiable: bool  # whether its input needs a gradient: the image does not
    output_size: tuple[int, int] | None = None
    counts: collections.Counter[str] = field(default_factory=collections.Counter)

    @property
    def name(self) -> str:
        m = self.module
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            i, j = m.kernel_size
            kind = "conv" if isinstance(m, nn.Conv2d) else "transposed conv"
            return f"{kind} {i}×{j}{f' /{m.stride[0]}' if m.stride != (1, 1) else ''} {m.in_channels}→{m.out_channels}"
        if isinstance(m, nn.MaxPool2d):
            i, j = pair(m.kernel_size, "max pool", "kernel_size", 1)
            return f"max pool {i}×{j} /{m.stride}"
        return {"BatchNorm2d": "batch norm", "ReLU": "ReLU", "CrossEntropyLoss": "cross-entropy"}[type(m).__name__]

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies matrices."""
        return isinstance(self.module, nn.Conv2d | nn.ConvTranspose2d)

    def cost(self, y_shape: tuple[int, ...]) -> tuple[int, int]:
        """(operations of the direct form, bytes of input, parameters and output) of a forward pass."""
        size, m, macs = int(np.prod(y_shape)), self.module, 0
        if isinstance(m, nn.Conv2d):
            macs = size * m.weight.size // m.out_channels
        if isinstance(m, nn.ConvTranspose2d):
            macs = int(np.prod(self.x_shape)) * m.weight.size // m.in_channels
        return 2 * macs, 4 * (int(np.prod(self.x_shape)) + size + sum(p.size for p in m.parameters()))

    def ours(self, device: str = "cpu") -> Side:
        """The layer itself, which moves to the device: forward, and both (forward and backward)."""
        module = self.module.to(device)
        module.train()
        x = mf.Tensor(to_device(normal(self.x_shape), device), requires_grad=self.differentiable)
        call = {name: to_device(a, device) if name == "target" else a for name, a in self._options().items()}
        inputs = [*([x] if self.differentiable else []), *(p for p in module.parameters() if p.requires_grad)]

        def forward() -> mf.Tensor:
            with mf.no_grad():
                y: mf.Tensor = module(x, **call)
                return y

        gy = mf.Tensor(to_device(normal(forward().shape, seed=1), device))

        def both() -> list[mf.Tensor]:
            y = module(x, **call)
            return [y, *mf.grad(y, inputs, gy)]

        return Side({"forward": forward, "both": both}, both)

    def theirs(self, device: str = "cpu") -> Side:
        """The same layer in PyTorch."""
        import torch

        torch.set_num_threads(mf.get_num_threads())
        twin = self._twin().to(device)
        twin.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in self.module.state_dict().items()})
        for ours, theirs in zip(self.module.parameters(), twin.parameters(), strict=True):
            theirs.requires_grad_(ours.requires_grad)
        x = torch.from_numpy(normal(self.x_shape)).to(device).requires_grad_(self.differentiable)
        call = {n: torch.from_numpy(a).to(device) if n == "target" else a for n, a in self._options().items()}
        inputs = [*([x] if self.differentiable else []), *(p for p in twin.parameters() if p.requires_grad)]

        def forward() -> Any:
            with torch.no_grad():
                return twin(x, **call)

        gy = torch.from_numpy(normal(tuple(forward().shape), seed=1)).to(device)

        def both() -> list[Any]:
            y = twin(x, **call)
            return [y, *torch.autograd.grad(y, inputs, gy)]

        return Side({"forward": forward, "both": both}, both)

    def _options(self) -> dict[str, Any]:
        """What a call is given beside the input."""
        if isinstance(self.module, nn.CrossEntropyLoss):
            n, c, *hw = self.x_shape
            return {"target": np.random.default_rng(2).integers(0, c, (n, *hw))}
        return {"output_size": self.output_size} if self.output_size else {}

    def _twin(self) -> Any:
        import torch

        m = self.module
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            kind = torch.nn.Conv2d if isinstance(m, nn.Conv2d) else torch.nn.ConvTranspose2d
            how = {"dilation": m.dilation, "groups": m.groups, "bias": m.bias is not None}
            return kind(m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, **how)
        if isinstance(m, nn.MaxPool2d):
            return torch.nn.MaxPool2d(m.kernel_size, m.stride, m.padding, m.dilation, ceil_mode=m.ceil_mode)
        if isinstance(m, nn.BatchNorm2d):
            return torch.nn.BatchNorm2d(m.num_features, m.eps, m.momentum)
        return torch.nn.ReLU() if isinstance(m, nn.ReLU) else torch.nn.CrossEntropyLoss()

    def check(self, chosen: dict[str, str], device: str = "cpu", within: float = 1e-5) -> float:
        """The largest error of the chosen algorithms, forward and backward, on a small copy of the layer. Raises
        RuntimeError where it is not `within`."""
        results = []
        small = self._small()
        for place, algorithms in ((device, chosen), ("cpu", dict.fromkeys(chosen, "reference"))):
            with mf.using(**algorithms):
                results.append([t.numpy() for t in small.ours(place).values()])
        error = max(relative(a, b) for a, b in zip(*results, strict=True))
        if not error < within:
            raise RuntimeError(
                f"kernels: {self.name} by {in_words(chosen)} differs from its definition by {error:.1e}; not timed"
            )
        return error

    def _small(self) -> Layer:
        m, hw = self.module, [9, 11]
        channels, small = (3, 3), m
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            hw = [3 * k + 2 if isinstance(m, nn.Conv2d) else 4 for k in m.kernel_size]
            channels = (3, 4) if m.groups == 1 else (2 * m.groups, 2 * m.groups)
            if isinstance(m, nn.ConvTranspose2d) and m.in_channels == m.out_channels:
                channels = (3, 3)
            small = type(m)(*channels, m.kernel_size, m.stride, m.padding, bias=m.bias is not None)
        elif isinstance(m, nn.BatchNorm2d):
            small = nn.BatchNorm2d(3)
        return Layer(small, (2, channels[0], *hw), differentiable=True)


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Normally distributed numbers, float32."""
    return np.resize(np.random.default_rng(seed).standard_normal(PERIOD, dtype=np.float32), shape)


def layers(names: tuple[str, ...] = MODELS) -> list[Layer]:
    """The different layers of the models in order of appearance, with how often each model has them."""
    found: dict[tuple[Any, ...], Layer] = {}
    for name in names:
        model = mf.models.create(name, CLASSES, seed=0)
        model.train()
        handles = []
        for module in model.modules():
            if isinstance(module, LAYERS):

                def note(module: nn.Module, inputs: tuple[mf.Tensor, ...], output: mf.Tensor, name: str = name) -> None:
                    x = inputs[0]
                    size = output.shape[2:] if isinstance(module, nn.ConvTranspose2d) else None
                    key = (type(module).__name__, module.extra_repr(), x.shape, x.requires_grad, size)
                    layer = found.setdefault(key, Layer(module, x.shape, x.requires_grad, size))
                    layer.counts[name] += 1

                handles.append(module.register_forward_hook(note))
        model(mf.Tensor(np.zeros((1, 3, *SIZE), np.float32)))
        for handle in handles:
            handle.remove()
    return list(found.values())


def rows(names: tuple[str, ...], rounds: int, against: tuple[str, ...], peak: dict[str, float]) -> list[dict[str, Any]]:
    """One row for each layer, printed as it is measured."""
    measured = []
    print(f"{'layer':34} {'input':>14} {'forward':>9} {'ratio':>6} {'both':>9} {'ratio':>6}  algorithms")
    for layer in layers(names):
        row = _row(layer, rounds, against, peak)
        measured.append(row)
        sides = [(row[what]["minifcn"]["median_s"], row[what].get("ratio")) for what in ("forward", "both")]
        cells = [f"{s * 1e3:7.2f}ms {format(r['of_medians'], '6.2f') if r else ' ' * 6}" for s, r in sides]
        print(f"{row['layer']:34} {row['input']:>14} {cells[0]} {cells[1]}  {row['algorithms']}", flush=True)
    return measured


def _row(layer: Layer, rounds: int, against: tuple[str, ...], peak: dict[str, float]) -> dict[str, Any]:
    ours = layer.ours()
    sides = {"minifcn": ours, **({"torch": layer.theirs()} if "torch" in against else {})}
    with recorded() as chosen:
        values = ours.values()
    error = error_to_torch(layer.name, values, sides["torch"].values()) if "torch" in sides else None
    flops, moved = layer.cost(values[0].shape)
    row: dict[str, Any] = {
        "layer": layer.name,
        "input": "×".join(map(str, layer.x_shape[1:])),
        "times": dict(layer.counts),
        "algorithms": in_words(chosen),
        "error_to_reference": layer.check(chosen),
        "error_to_torch": error,
        "gflop": flops / 1e9,
        "gbyte": moved / 1e9,
    }
    for what in ours.calls:
        times = interleaved({name: side.calls[what] for name, side in sides.items()}, rounds, warmup=2, settle=0.02)
        row[what] = {name: spread(seconds) for name, seconds in times.items()}
        if "torch" in times:
            row[what]["ratio"] = ratio(times["minifcn"], times["torch"])
    row["percent_of_roofline"] = 100 * least_time(flops, moved, peak) / row["forward"]["minifcn"]["median_s"]
    return row


def error_to_torch(name: str, ours: list[mf.Tensor], theirs: list[Any], within: float = 1e-4) -> float:
    """The largest relative error of our values. Raises RuntimeError where it is not `within`."""
    import torch

    def norm(tensor: Any) -> float:
        return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))

    pairs = [(as_torch(a), b.detach()) for a, b in zip(ours, theirs, strict=True)]
    error = max(norm(a - b) / max(norm(b), 1e-30) for a, b in pairs)
    if not error < within:
        raise RuntimeError(f"kernels: {name} differs from PyTorch by {error:.1e}; not timed")
    return error


def as_torch(tensor: mf.Tensor) -> Any:
    """The same memory as a tensor of PyTorch's, on a GPU too."""
    import torch

    return torch.from_dlpack(tensor.detach())


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """|a − b| / |b|."""
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def in_words(chosen: dict[str, str]) -> str:
    """ "conv2d gemm, relu cuda": each operation with the algorithm that computes it."""
    return ", ".join(f"{op} {name}" for op, name in sorted(chosen.items()))


@contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Within the block, note which algorithm computes each operation."""
    chosen: dict[str, str] = {}
    run = kernels.run

    def noting(op: str, *arrays: Any, **params: Any) -> Any:
        chosen[op] = kernels.chosen(op, *arrays, **params).algorithm
        return run(op, *arrays, **params)

    kernels.run = noting
    try:
        yield chosen
    finally:
        kernels.run = run

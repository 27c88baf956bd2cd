"""Every different layer of the networks, at the sizes that a 360×480 image gives it, against the same layer in PyTorch.

The shapes come from walking the models. Before a layer is timed, the algorithms that it chose are compared with
`reference` (on a small copy of the layer, as index loops cannot do the large one), and its output and gradients at full
size with PyTorch's.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minifcn as mf
from minifcn import kernels, nn
from minifcn.geometry import pair

from .measure import interleaved, ratio, spread
from .models import CLASSES, MODELS, SIZE
from .roofline import least_time

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.BatchNorm2d, nn.ReLU)


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
        return {"BatchNorm2d": "batch norm", "ReLU": "ReLU"}[type(m).__name__]


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


def rows(names: tuple[str, ...], rounds: int, against: str | None, peak: dict[str, float]) -> list[dict[str, Any]]:
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


def _row(layer: Layer, rounds: int, against: str | None, peak: dict[str, float]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    module = layer.module
    module.train()
    x = rng.standard_normal(layer.x_shape, dtype=np.float32)
    call = {"output_size": layer.output_size} if layer.output_size else {}
    ours_x = mf.Tensor(x, requires_grad=layer.differentiable)
    parameters = [p for p in module.parameters() if p.requires_grad]
    inputs = [*([ours_x] if layer.differentiable else []), *parameters]

    def ours_forward() -> mf.Tensor:
        with mf.no_grad():
            y: mf.Tensor = module(ours_x, **call)
            return y

    with _recorded() as chosen:
        y = module(ours_x, **call)
        gy = rng.standard_normal(y.shape, dtype=np.float32)
        gradients = [g.numpy().copy() for g in mf.grad(y, inputs, mf.Tensor(gy))]

    def ours_both() -> object:
        return mf.grad(module(ours_x, **call), inputs, gy)

    contenders = {"forward": {"minifcn": ours_forward}, "both": {"minifcn": ours_both}}
    error = None
    if against == "torch":
        theirs_forward, theirs_both = _theirs(layer, x, gy)
        contenders["forward"]["torch"], contenders["both"]["torch"] = theirs_forward, theirs_both
        error = max(_relative(a, b) for a, b in zip([y.numpy(), *gradients], theirs_both(values=True), strict=True))
        if not error < 1e-4:
            raise RuntimeError(
                f"kernels: {layer.name} on {layer.x_shape} differs from PyTorch by {error:.1e}; not timed"
            )
    flops = 2 * _macs(module, layer.x_shape, y.shape)
    moved = 4 * (x.size + y.size + sum(p.size for p in module.parameters()))
    row: dict[str, Any] = {
        "layer": layer.name,
        "input": "×".join(map(str, layer.x_shape[1:])),
        "times": dict(layer.counts),
        "algorithms": ", ".join(f"{op} {name}" for op, name in sorted(chosen.items())),
        "error_to_reference": _check(layer, chosen),
        "error_to_torch": error,
        "gflop": flops / 1e9,
        "gbyte": moved / 1e9,
    }
    for what, sides in contenders.items():
        times = interleaved(sides, rounds, warmup=2, settle=0.02)
        row[what] = {side: spread(seconds) for side, seconds in times.items()}
        if "torch" in times:
            row[what]["ratio"] = ratio(times["minifcn"], times["torch"])
    row["percent_of_roofline"] = 100 * least_time(flops, moved, peak) / row["forward"]["minifcn"]["median_s"]
    return row


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def _macs(module: nn.Module, x: tuple[int, ...], y: tuple[int, ...]) -> int:
    """Multiplications of the direct form; 0 for what does not multiply matrices."""
    if isinstance(module, nn.Conv2d):
        return int(np.prod(y)) * module.weight.size // module.out_channels
    if isinstance(module, nn.ConvTranspose2d):
        return int(np.prod(x)) * module.weight.size // module.in_channels
    return 0


@contextmanager
def _recorded() -> Iterator[dict[str, str]]:
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


def _check(layer: Layer, chosen: dict[str, str]) -> float:
    """The largest error of the chosen algorithms, forward and backward, on a small copy of the layer."""
    m = layer.module
    small: nn.Module
    hw = [9, 11]
    if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
        hw = [3 * k + 2 if isinstance(m, nn.Conv2d) else 4 for k in m.kernel_size]
        channels = (3, 4) if m.groups == 1 else (2 * m.groups, 2 * m.groups)
        if isinstance(m, nn.ConvTranspose2d) and m.in_channels == m.out_channels:
            channels = (3, 3)
        small = type(m)(*channels, m.kernel_size, m.stride, m.padding, bias=m.bias is not None)
    else:
        channels, small = (3, 3), m
        if isinstance(m, nn.BatchNorm2d):
            small = nn.BatchNorm2d(3)
    rng = np.random.default_rng(1)
    x = mf.Tensor(rng.standard_normal((2, channels[0], *hw), dtype=np.float32), requires_grad=True)
    results = []
    for algorithms in (chosen, dict.fromkeys(chosen, "reference")):
        with ExitStack() as stack:
            stack.enter_context(mf.using(**algorithms))
            y = small(x)
            gy = np.random.default_rng(2).standard_normal(y.shape, dtype=np.float32)
            results.append([y.numpy(), *(g.numpy() for g in mf.grad(y, [x, *small.parameters()], gy))])
    error = max(_relative(a, b) for a, b in zip(*results, strict=True))
    if not error < 1e-5:
        raise RuntimeError(f"kernels: {layer.name} by {chosen} differs from its definition by {error:.1e}; not timed")
    return error


def _theirs(layer: Layer, x: np.ndarray, gy: np.ndarray) -> tuple[Callable[[], object], Callable[..., Any]]:
    """The same layer in PyTorch: (forward, forward and backward)."""
    import torch

    torch.set_num_threads(mf.get_num_threads())
    m = layer.module
    twin: Any
    call: dict[str, Any] = {}
    if isinstance(m, nn.Conv2d):
        twin = torch.nn.Conv2d(
            m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, m.dilation, m.groups, m.bias is not None
        )
    elif isinstance(m, nn.ConvTranspose2d):
        twin = torch.nn.ConvTranspose2d(
            m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, bias=m.bias is not None
        )
        call = {"output_size": layer.output_size}
    elif isinstance(m, nn.MaxPool2d):
        twin = torch.nn.MaxPool2d(m.kernel_size, m.stride, m.padding, m.dilation, ceil_mode=m.ceil_mode)
    elif isinstance(m, nn.BatchNorm2d):
        twin = torch.nn.BatchNorm2d(m.num_features, m.eps, m.momentum)
    else:
        twin = torch.nn.ReLU()
    twin.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in m.state_dict().items()})
    for ours, theirs in zip(m.parameters(), twin.parameters(), strict=True):
        theirs.requires_grad_(ours.requires_grad)
    leaf = torch.from_numpy(x).requires_grad_(layer.differentiable)
    inputs = [*([leaf] if layer.differentiable else []), *(p for p in twin.parameters() if p.requires_grad)]
    cotangent = torch.from_numpy(gy)

    def forward() -> object:
        with torch.no_grad():
            return twin(leaf, **call)

    def both(values: bool = False) -> Any:
        out = twin(leaf, **call)
        found = torch.autograd.grad(out, inputs, cotangent)
        return [out.detach().numpy(), *(g.numpy() for g in found)] if values else found

    return forward, both

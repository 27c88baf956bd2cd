"""What a network costs: sizes, parameters and multiply–accumulates by layer, and the memory of a pass and of a step.

One forward pass gives the sizes, and Python's tracemalloc, to which NumPy reports every array, measures what a forward
pass and a training step take, the kernels' own buffers included: both run in a thread of their own with fresh workers.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import numpy as np

import minifcn.functional as F
from minifcn.autograd import Tensor, is_grad_enabled, no_grad, set_grad_enabled
from minifcn.memory import WORKSPACE, empty_cache
from minifcn.nn import Conv2d, ConvTranspose2d, Linear, Module
from minifcn.optim import SGD
from minifcn.threads import get_num_threads, set_num_threads


@dataclass(frozen=True)
class Row:
    """One layer.

    Args:
        name: its place in the network, as in `state_dict`.
        kind: its class.
        shape: of its output; empty for a layer that the pass did not come by.
        learnable: numbers that training changes.
        fixed: parameters that it does not, such as those of a bilinear enlargement.
        macs: multiply–accumulates of convolutions and linear layers; the rest is small beside them and not counted.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    learnable: int
    fixed: int
    macs: int


@dataclass(frozen=True)
class Memory:
    """Bytes, by what they hold.

    Args:
        parameters: weights and buffers.
        gradients: one number for each learnable parameter.
        momentum: one more.
        forward: the most that a pass without gradients needs at a time, the parameters included.
        training: the most that a step of SGD with momentum needs at a time, all of the above included; or why no step
            can be made (batch norm needs more than one value per channel).
    """

    parameters: int
    gradients: int
    momentum: int
    forward: int
    training: int | str


@dataclass(frozen=True)
class Summary:
    """The layers of a network in the order of `named_modules`, and the memory that it needs.

    Args:
        input_shape: (N, 3, H, W).
        rows: one for each layer.
        memory: None where it was not measured.
    """

    input_shape: tuple[int, int, int, int]
    rows: tuple[Row, ...]
    memory: Memory | None

    @property
    def learnable(self) -> int:
        """Learnable parameters in all."""
        return sum(row.learnable for row in self.rows)

    @property
    def fixed(self) -> int:
        """Fixed parameters in all."""
        return sum(row.fixed for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply–accumulates of a forward pass in all."""
        return sum(row.macs for row in self.rows)

    def table(self) -> str:
        """The summary as text."""
        lines = [("layer", "type", "output", "parameters", "fixed", "GMAC")]
        lines += [
            (r.name, r.kind, " × ".join(map(str, r.shape)), _count(r.learnable), _count(r.fixed), _giga(r.macs))
            for r in self.rows
        ]
        lines.append(("total", "", "", f"{self.learnable:,}", f"{self.fixed:,}", f"{self.macs / 1e9:.3f}"))
        widths = [max(len(line[column]) for line in lines) for column in range(6)]
        text = [
            "  ".join(
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        text.insert(-1, "")
        if self.memory is not None:
            m = self.memory
            text += [
                "",
                f"memory for {' × '.join(map(str, self.input_shape))}, measured:",
                f"  forward pass   {_bytes(m.forward):>9}  at its peak, of which parameters {_bytes(m.parameters)}",
                f"  training step  {m.training}"
                if isinstance(m.training, str)
                else f"  training step  {_bytes(m.training):>9}  at its peak, of which parameters "
                f"{_bytes(m.parameters)}, gradients {_bytes(m.gradients)}, momentum {_bytes(m.momentum)}",
                f"  workspace      {_bytes(WORKSPACE):>9}  at most, kept by each of {get_num_threads()} threads; "
                f"what the passes used of it is counted above",
            ]
        return "\n".join(text)


def summarize(model: Module, size: tuple[int, int], batch: int = 1, *, memory: bool = True) -> Summary:
    """Run a network once and say what it costs.

    The network itself stays as it was: the step that is measured has learning rate 0, and buffers and mode are put
    back. Its gradients must be empty.

    Args:
        model: called with (N, 3, H, W), returns (N, K, H, W).
        size: (H, W) of the images, in pixels.
        batch: N ≥ 1.
        memory: whether to measure memory too, for which a training step is run for real.

    Returns:
        The layers, their totals, and the memory where it was asked for.

    Raises:
        ValueError: for a size or batch below 1, or one that is too small for the network.
    """
    if len(size) != 2 or min(*size, batch) < 1:
        raise ValueError(f"summarize: size is {size} and batch {batch}; (height, width) and N of at least 1 are needed")
    x = Tensor(np.zeros((batch, 3, *size), np.float32))
    shapes: dict[str, tuple[int, ...]] = {}
    macs: dict[str, int] = {}
    training = model.training
    buffers = {name: np.array(buffer) for name, buffer in model.named_buffers()}
    model.eval()
    try:
        with no_grad():
            with _watching(model, shapes, macs):
                model(x)
            forward = peak_bytes(lambda: model(x)) if memory else 0  # unwatched: several layers may be one kernel then
        measured = _memory(model, x, forward) if memory else None
    finally:
        model.load_state_dict(buffers, strict=False)
        model.train(training)
    return Summary((batch, 3, *size), tuple(_rows(model, shapes, macs)), measured)


def _layers(model: Module) -> list[tuple[str, Module]]:
    """(name, module), each module once, under the first of its names."""
    first: dict[int, tuple[str, Module]] = {}
    for name, layer in model.named_modules():
        first.setdefault(id(layer), (name, layer))
    return list(first.values())


def _rows(model: Module, shapes: dict[str, tuple[int, ...]], macs: dict[str, int]) -> Iterator[Row]:
    seen: set[int] = set()  # a parameter that two layers share counts once
    for name, layer in _layers(model):
        own = [p for key, p in layer.named_parameters() if "." not in key and id(p) not in seen]
        seen.update(id(p) for p in own)
        if not own and any(True for other, _ in layer.named_modules() if other):
            continue  # only holds other layers
        learnable = sum(p.size for p in own if p.requires_grad)
        fixed = sum(p.size for p in own if not p.requires_grad)
        yield Row(name or "–", type(layer).__name__, shapes.get(name, ()), learnable, fixed, macs.get(name, 0))


@contextmanager
def _watching(model: Module, shapes: dict[str, tuple[int, ...]], macs: dict[str, int]) -> Iterator[None]:
    """Within the block, note each layer's output shape and multiply–accumulates under its name."""

    def watch(name: str) -> Callable[[Module, tuple[object, ...], object], None]:
        def hook(layer: Module, inputs: tuple[object, ...], output: object) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape)
                x = inputs[0]
                if isinstance(x, Tensor):
                    macs[name] = macs.get(name, 0) + _macs(layer, tuple(x.shape), tuple(output.shape))

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in _layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _macs(layer: Module, x: tuple[int, ...], y: tuple[int, ...]) -> int:
    """Multiply–accumulates of one layer. The trilinear form has a term for each of N·O·P·Q · C/groups·I·J: a
    convolution's scores are its output, a transposed convolution's are its input."""
    if isinstance(layer, ConvTranspose2d):
        return prod(x) * (layer.out_channels // layer.groups) * prod(layer.kernel_size)
    if isinstance(layer, Conv2d):
        return prod(y) * (layer.in_channels // layer.groups) * prod(layer.kernel_size)
    if isinstance(layer, Linear):
        return prod(y) * x[-1]
    return 0


def _memory(model: Module, x: Tensor, forward: int) -> Memory:
    learned = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.numpy().nbytes for p in learned)
    parameters = sum(np.asarray(value).nbytes for value in model.state_dict().values())
    model.train()
    optimizer = SGD(learned, lr=0.0, momentum=0.9)
    for p in learned:  # momentum lives from one step to the next: a step of nothing makes it before measuring begins
        p.grad = Tensor(np.zeros_like(p.numpy()))
    optimizer.step()
    optimizer.zero_grad()
    labels = np.zeros((x.shape[0], *x.shape[2:]), np.int64)

    def step() -> None:
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    momentum = gradients
    training: int | str
    try:
        training = parameters + momentum + peak_bytes(step)
    except ValueError as error:  # the size is too small for batch norm's statistics; everything else stands
        training = f"not possible: {error}"
    return Memory(parameters, gradients, momentum, parameters + forward, training)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that were allocated at a time by `work`, beyond what there was before."""
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    try:
        gc.collect()  # garbage that is found later would give its memory to the pool, and work would take it from there
        empty_cache()  # what earlier work left in the pool would not be asked for again
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        set_num_threads(get_num_threads())  # buffers belong to threads, so new threads have none
        with ThreadPoolExecutor(1) as thread:
            thread.submit(set_grad_enabled(is_grad_enabled())(work)).result()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if ours:
            tracemalloc.stop()


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.3f}" if macs else ""


def _bytes(number: int) -> str:
    """Bytes in the unit that leaves three or four digits.

    >>> _bytes(538_000_000), _bytes(2_860_000_000)
    ('538 MB', '2.86 GB')
    """
    if number >= 1e9:
        return f"{number / 1e9:.2f} GB"
    return f"{number / 1e6:.0f} MB" if number >= 1e7 else f"{number / 1e6:.2f} MB"

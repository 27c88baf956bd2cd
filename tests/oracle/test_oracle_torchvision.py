"""Every backbone that torchvision has, and its FCN-ResNets, with the same weights at full width: the stages in float64,
gradients and running statistics for one of each kind, and the state there and back, bit for bit.

torchvision's VGG pools round down and ours up, so images have sizes divisible by 32; test_oracle_models.py has others.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from compare import relative_error, torch

import minifcn as mf
from minifcn import models
from minifcn.models.resnet import BLOCKS
from minifcn.models.vgg import DEPTHS

# only detection models need torchvision's compiled operators; with a PyTorch other than the one that they were compiled
# for, this module of it would not load
sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed: pip install torchvision")

pytestmark = pytest.mark.oracle

BOUND = 1e-10
SIZE = (64, 96)


def theirs_by(name: str) -> Any:
    """torchvision's network without its classifier, in float32. Kernels are normal with a variance of 2/fan_in; biases
    and batch norms, which would start at 0 and 1, are random too, so that no exchanged tensor can hide."""
    with torch.device("meta"):  # draws nothing: a classifier of 123 million weights is dropped unseen
        if name.startswith("fcn_"):
            make = getattr(torchvision.models.segmentation, name)
            model = make(weights=None, weights_backbone=None, aux_loss=True)
        else:
            model = getattr(torchvision.models, name)(weights=None)
            delattr(model, "classifier" if name in DEPTHS else "fc")
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for key, tensor in model.state_dict().items():
        if tensor.ndim == 4:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif key.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif key.endswith("running_var"):
            tensor.uniform_(0.8, 1.6, generator=generator)
        else:
            tensor.normal_(0, 0.3, generator=generator)
            tensor += 1.0 if is_scale(model, key) else 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.eval()


def is_scale(model: Any, key: str) -> bool:
    """Whether a tensor of one axis is a batch norm's gamma."""
    return key.endswith("weight") and isinstance(model.get_submodule(key.rpartition(".")[0]), torch.nn.BatchNorm2d)


def ours_with(name: str, theirs: Any) -> mf.nn.Module:
    """minifcn's network with torchvision's state."""
    if name.startswith("fcn_"):
        model: mf.nn.Module = models.FCNResNet(name.removeprefix("fcn_"), 21, aux=True)
    else:
        model = models.VGG(name) if name in DEPTHS else models.ResNet(name)
    model.load_state_dict({key: tensor.numpy() for key, tensor in theirs.state_dict().items()}, strict=True)
    for module in model.modules():
        if isinstance(module, mf.nn.Dropout):
            module.p = 0.0
    return model.eval()


def stages(name: str, theirs: Any, x: Any) -> dict[str, Any]:
    """What our network returns, from torchvision's."""
    if name.startswith("fcn_"):
        return dict(theirs(x))
    found = {}
    if name.startswith("resnet"):
        x = found["stem"] = theirs.relu(theirs.bn1(theirs.conv1(x)))
        x = theirs.maxpool(x)
        for k in range(1, 5):
            x = found[f"layer{k}"] = getattr(theirs, f"layer{k}")(x)
        return found
    for layer in theirs.features:
        x = layer(x)
        if isinstance(layer, torch.nn.MaxPool2d):
            found[f"pool{len(found) + 1}"] = x
    return found


def outputs(name: str, ours: Any, x: mf.Tensor) -> dict[str, mf.Tensor]:
    return ours.outputs(x) if name.startswith("fcn_") else ours(x)  # type: ignore[no-any-return]


NAMES = [*DEPTHS, *BLOCKS, "fcn_resnet50", "fcn_resnet101"]


def test_torchvision_has_these_backbones() -> None:
    """vgg11 … vgg19 with and without batch norm, resnet18 … resnet152: all that it has of the two families."""
    listed = torchvision.models.list_models(module=torchvision.models)
    assert sorted([*DEPTHS, *BLOCKS]) == sorted(n for n in listed if n.startswith(("vgg", "resnet")))


@pytest.fixture(scope="module", params=NAMES)
def network(request: pytest.FixtureRequest) -> tuple[str, Any, mf.nn.Module]:
    """The name, torchvision's network, and ours with its weights: one at a time, they are large."""
    theirs = theirs_by(request.param)
    return request.param, theirs, ours_with(request.param, theirs)


def test_a_state_comes_back_bit_for_bit(network: tuple[str, Any, mf.nn.Module]) -> None:
    _, theirs, ours = network
    sent = theirs.state_dict()
    returned = {key: torch.tensor(np.asarray(tensor)) for key, tensor in ours.state_dict().items()}
    for key, tensor in sent.items():
        assert returned[key].dtype == tensor.dtype
        assert torch.equal(returned[key], tensor), key
    assert list(returned) == list(sent)
    theirs.load_state_dict(returned, strict=True)


def test_stages_equal_torchvisions(network: tuple[str, Any, mf.nn.Module]) -> None:
    name, theirs, ours = network
    x = np.random.default_rng(0).standard_normal((1, 3, *SIZE))
    with mf.no_grad(), torch.no_grad():
        found = outputs(name, ours.to(np.float64), mf.Tensor(x))
        wanted = stages(name, theirs.double(), torch.tensor(x))
    assert list(found) == list(wanted)
    for stage, tensor in wanted.items():
        assert tensor.abs().max() > 1e-3  # a comparison of zeros would say nothing
        assert relative_error(found[stage], tensor) < BOUND, stage


@pytest.mark.parametrize(("name", "training"), [("vgg11_bn", False), ("resnet50", True), ("fcn_resnet50", True)])
def test_gradients_and_running_statistics_equal_torchvisions(name: str, training: bool) -> None:
    """Of Σ stage · cotangent over every stage (or output). In training, what a VGG's biases do is undone by the batch
    norms after them: their gradients are 0 but for rounding."""
    theirs = theirs_by(name)
    ours = ours_with(name, theirs).to(np.float64).train(training)
    theirs.double().train(training)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, *SIZE))
    found, wanted = outputs(name, ours, mf.Tensor(x)), stages(name, theirs, torch.tensor(x))
    weights = {stage: rng.standard_normal(tensor.shape) for stage, tensor in wanted.items()}
    sum(((found[stage] * mf.Tensor(w)).sum() for stage, w in weights.items()), mf.Tensor(0.0)).backward()
    sum((wanted[stage] * torch.tensor(w)).sum() for stage, w in weights.items()).backward()
    errors = {stage: relative_error(found[stage], tensor) for stage, tensor in wanted.items()}
    parameters = dict(theirs.named_parameters())
    for key, p in ours.named_parameters():
        assert p.grad is not None
        errors[f"∂{key}"] = relative_error(p.grad, parameters[key].grad)
    buffers = dict(theirs.named_buffers())
    errors |= {key: relative_error(b, buffers[key]) for key, b in ours.named_buffers()}
    wrong = {key: f"{error:.1e}" for key, error in errors.items() if not error < BOUND}
    assert not wrong

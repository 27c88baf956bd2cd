"""AlexNet, GoogLeNet, U-Net and the FCNs on them against the same networks in PyTorch (benchmarks/twins_zoo.py) with
the same weights, in float64: every stage or score, and every gradient.

Errors are measured per tensor in the maximum norm, max |ours − theirs| / max |theirs|: compare.relative_error says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compare import relative_error, torch

import minifcn as mf
from benchmarks import twins_zoo
from minifcn import models
from minifcn.models.alexnet import AlexNet
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.unet import UNet

pytestmark = pytest.mark.oracle

CLASSES, NARROW = 3, 16
BOUND = 1e-10
ODD, WIDE, EVEN, DOT = (2, 3, 65, 50), (1, 3, 47, 95), (1, 3, 32, 64), (1, 3, 1, 3)
SMALL = (1, 3, 40, 33)  # enough for the paper's networks, whose padding makes 238 × 231 of it

PAIRS: dict[str, tuple[Any, Any]] = {
    "alexnet": (lambda c: AlexNet(1 / NARROW, in_channels=c), lambda c: twins_zoo.AlexNet(NARROW, False, c)),
    "alexnet_paper": (
        lambda c: AlexNet(1 / NARROW, paper=True, in_channels=c),
        lambda c: twins_zoo.AlexNet(NARROW, True, c),
    ),
    "googlenet": (lambda c: GoogLeNet(1 / NARROW, c), lambda c: twins_zoo.GoogLeNet(NARROW, c)),
    "unet": (lambda c: UNet(CLASSES, 1 / NARROW, c), lambda c: twins_zoo.UNet(CLASSES, NARROW, c)),
}
FCNS = [f"fcn{s}s_{b}" for b in ("alexnet", "alexnet_paper", "googlenet") for s in (32, 16, 8)]


def vary(model: Any, rng: np.random.Generator) -> Any:
    """In float64 with random numbers, also in biases, scores and bilinear filters, so that no exchanged channel or axis
    can hide. Inceptions' convolutions to few channels get positive weights: some of them would else be negative
    everywhere, and leave no gradient to compare. Dropout is off."""
    model.to(np.float64)
    for key, p in model.named_parameters():
        with p.writing() as array:
            if array.ndim == 1:
                array[...] = rng.uniform(-0.1, 0.5, p.shape)
            else:
                array[...] = rng.standard_normal(p.shape) * np.sqrt(2 / np.prod(p.shape[1:]))
            if "inception" in key and p.shape[0] <= 4:
                np.abs(array, out=array)
    for module in model.modules():
        if isinstance(module, mf.nn.Dropout):
            module.p = 0.0
    return model.requires_grad_()  # the fixed bilinear filters too: their gradients are compared as well


def listed(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):
        return list(outputs.values())
    return outputs if isinstance(outputs, list) else [outputs]


def same(ours: Any, theirs: Any, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """Outputs, and the gradients of ⟨outputs, random numbers⟩ by the image and by every parameter."""
    theirs.load_state_dict({k: torch.tensor(np.asarray(t)) for k, t in ours.state_dict().items()}, strict=True)
    image = rng.standard_normal(shape)
    x, t = mf.Tensor(image, requires_grad=True), torch.tensor(image, requires_grad=True)
    ys, us = listed(ours(x)), listed(theirs(t))
    assert len(ys) == len(us)
    errors = {f"output {k}": relative_error(y, u) for k, (y, u) in enumerate(zip(ys, us, strict=True))}
    numbers = [rng.standard_normal(y.shape) for y in ys]
    mf.stack([(y * mf.Tensor(g)).sum() for y, g in zip(ys, numbers, strict=True)]).sum().backward()
    sum((u * torch.tensor(g)).sum() for u, g in zip(us, numbers, strict=True)).backward()
    errors["∂image"] = relative_error(x.grad, t.grad)
    parameters = dict(theirs.named_parameters())
    assert {key for key, _ in ours.named_parameters()} == set(parameters)
    for key, p in ours.named_parameters():
        assert parameters[key].grad.abs().max() > 1e-12, f"{key} has no gradient to compare"
        errors[f"∂{key}"] = relative_error(p.grad, parameters[key].grad)
    wrong = {key: f"{error:.1e}" for key, error in errors.items() if not error < BOUND}
    assert not wrong


@pytest.mark.parametrize("shape", [ODD, WIDE, EVEN, DOT], ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("name", PAIRS)
def test_outputs_and_every_gradient_equal_pytorchs(name: str, shape: tuple[int, ...]) -> None:
    if name == "alexnet_paper" and shape is EVEN:
        shape = SMALL
    rng = np.random.default_rng(0)
    ours, theirs = PAIRS[name]
    same(vary(ours(3), rng), theirs(3).double(), shape, rng)


@pytest.mark.parametrize("name", PAIRS)
def test_four_channels_equal_pytorchs(name: str) -> None:
    rng = np.random.default_rng(1)
    ours, theirs = PAIRS[name]
    same(vary(ours(4), rng), theirs(4).double(), (1, 4, 34, 21), rng)


@pytest.mark.parametrize(
    ("name", "shape"),
    [*((name, SMALL) for name in FCNS), *((name, ODD) for name in FCNS if "paper" not in name), ("unet", ODD)],
)
def test_fcns_equal_pytorchs(name: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    ours = vary(models.create(name, CLASSES, width=1 / NARROW, seed=1), rng)
    assert ours(mf.Tensor(rng.standard_normal(shape))).shape == (shape[0], CLASSES, *shape[2:])
    same(ours, twins_zoo.twin(name, CLASSES, NARROW).double(), shape, rng)


@pytest.mark.parametrize("name", [*FCNS, "unet"])
def test_states_make_the_round_trip_bit_for_bit(name: str) -> None:
    ours, twin = (models.create(name, CLASSES, width=1 / NARROW, seed=seed) for seed in (1, 2))
    theirs = twins_zoo.twin(name, CLASSES, NARROW)
    state = ours.state_dict()
    theirs.load_state_dict({k: torch.tensor(np.asarray(t)) for k, t in state.items()}, strict=True)
    twin.load_state_dict({k: t.numpy() for k, t in theirs.state_dict().items()})
    for key, t in twin.state_dict().items():
        assert np.asarray(t).tobytes() == np.asarray(state[key]).tobytes(), key

"""Every network against the same network in PyTorch with the same weights: scores, loss, every parameter's gradient,
and the running statistics afterwards, in float64.

Errors are measured per tensor in the maximum norm, max |ours − theirs| / max |theirs|: compare.relative_error says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compare import relative_error, torch

import minifcn as mf
import minifcn.functional as F
from benchmarks.twins import twin
from minifcn import models

pytestmark = pytest.mark.oracle

CLASSES, NARROW, IGNORED = 4, 16, 255
BOUND = 1e-10

ODD, WIDE, EVEN = (2, 3, 65, 50), (2, 3, 47, 95), (2, 3, 64, 96)
SMALL = (1, 3, 40, 33)  # enough for the paper's networks, whose padding makes 238 × 231 of it

CASES: list[tuple[str, tuple[int, ...], bool]] = [
    *((f"fcn{s}s_vgg16", shape, False) for s in (32, 16, 8) for shape in (ODD, WIDE)),
    ("fcn8s_vgg16", EVEN, False),
    *((f"fcn{s}s_vgg16_paper", SMALL, False) for s in (32, 16, 8)),
    ("fcn8s_vgg16_paper", (1, 3, 1, 70), False),
    *((f"fcn{s}s_resnet101{v}", ODD, True) for s in (32, 16, 8) for v in ("", "_aligned")),
    *((f"fcn8s_resnet101{v}", shape, False) for v in ("", "_aligned") for shape in (ODD, WIDE)),
    *((f"fcn8s_{b}{v}", ODD, True) for b in ("resnet18", "resnet34", "resnet50") for v in ("", "_aligned")),
    *((f"fcn{s}s_resnet18{v}", EVEN, True) for s in (32, 16, 8) for v in ("", "_aligned")),
    *(
        (f"fcn16s_decoder_{b}", shape, mode)
        for b in ("vgg16", "resnet18")
        for shape in (ODD, WIDE)
        for mode in (True, False)
    ),
    ("fcn16s_decoder_resnet101", ODD, True),
    *((f"fcn8s_{b}", ODD, False) for b in ("vgg11", "vgg13_bn", "vgg19_bn")),
    ("fcn8s_vgg11_bn_paper", SMALL, False),
    ("fcn16s_vgg19_paper", SMALL, False),
    *((f"fcn8s_atonce_vgg16{v}", SMALL, False) for v in ("", "_paper")),
    *((f"fcn8s_resnet152{v}", EVEN, True) for v in ("", "_aligned")),
    ("fcn16s_decoder_resnet152", EVEN, False),
    ("fcn16s_decoder_vgg13_bn", WIDE, False),
    ("fcn_resnet50", ODD, True),
    ("fcn_resnet101", EVEN, False),
]

CONCATENATED: list[tuple[str, tuple[int, ...], bool]] = [
    ("fcn8s_vgg16", ODD, False),
    ("fcn16s_vgg16_paper", SMALL, False),
    ("fcn8s_vgg16_paper", SMALL, False),
    *((f"fcn{s}s_resnet18{v}", ODD, True) for s in (16, 8) for v in ("", "_aligned")),
]


def network(name: str, rng: np.random.Generator, fuse: str = "sum") -> mf.nn.Module:
    """minifcn's network in float64. What starts at 0 or 1 (scores, biases, batch norms) gets random numbers, and the
    bilinear filters, and the fusions that begin as sums, some noise, so that no exchanged channel or axis can hide.
    Dropout is off."""
    model = models.create(name, CLASSES, width=1 / NARROW, seed=1, fuse=fuse).to(np.float64)
    for key, p in model.named_parameters():
        noise = rng.standard_normal(p.shape)
        with p.writing() as array:
            if array.ndim == 1:
                array += 0.3 * noise
            elif "score" in key or key.startswith("fuse_"):
                array += 0.3 * noise / np.sqrt(np.prod(p.shape[1:]))
    for key, b in model.named_buffers():
        if not key.endswith("num_batches_tracked"):
            with b.writing() as array:
                array += rng.uniform(0.1, 0.5, b.shape)
    for module in model.modules():
        if isinstance(module, mf.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize(
    ("name", "shape", "training"),
    CASES,
    ids=[f"{n}-{s[2]}x{s[3]}-{'train' if t else 'eval'}" for n, s, t in CASES],
)
def test_scores_and_every_gradient_equal_pytorchs(name: str, shape: tuple[int, ...], training: bool) -> None:
    rng = np.random.default_rng(0)
    compare(network(name, rng), twin(name, CLASSES, NARROW), shape, training, rng)


@pytest.mark.parametrize(
    ("name", "shape", "training"), CONCATENATED, ids=[f"{n}-{s[2]}x{s[3]}" for n, s, _ in CONCATENATED]
)
def test_concatenating_networks_equal_pytorchs(name: str, shape: tuple[int, ...], training: bool) -> None:
    rng = np.random.default_rng(0)
    compare(network(name, rng, "cat"), twin(name, CLASSES, NARROW, "cat"), shape, training, rng)


def compare(ours: Any, theirs: Any, shape: tuple[int, ...], training: bool, rng: np.random.Generator) -> None:
    """Scores, loss, gradients and running statistics with equal weights."""
    theirs.double()
    state = {k: torch.tensor(np.asarray(t)) for k, t in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=True)
    ours.train(training).requires_grad_()  # the fixed bilinear filters too: their gradients are compared as well
    theirs.train(training)
    x = rng.standard_normal(shape)
    labels = rng.integers(0, CLASSES, (shape[0], *shape[2:]))
    labels[rng.random(labels.shape) < 0.2] = IGNORED

    scores, wanted = ours(mf.Tensor(x)), theirs(torch.tensor(x))
    assert scores.shape == (shape[0], CLASSES, *shape[2:])
    errors = {"scores": relative_error(scores, wanted)}
    loss = F.cross_entropy(scores, labels, ignore_index=IGNORED)
    loss.backward()
    reference = torch.nn.functional.cross_entropy(wanted, torch.tensor(labels), ignore_index=IGNORED)
    reference.backward()
    errors["loss"] = relative_error(loss, reference)
    parameters = dict(theirs.named_parameters())
    assert {k for k, _ in ours.named_parameters()} == set(parameters)
    for key, p in ours.named_parameters():
        assert p.grad is not None
        assert parameters[key].grad.abs().max() > 1e-12, f"{key} has no gradient to compare"
        errors[f"∂{key}"] = relative_error(p.grad, parameters[key].grad)
    buffers = dict(theirs.named_buffers())
    for key, b in ours.named_buffers():
        errors[key] = relative_error(b, buffers[key])
    wrong = {key: f"{error:.1e}" for key, error in errors.items() if not error < BOUND}
    assert not wrong


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn8s_vgg16_paper", "fcn8s_resnet18", "fcn16s_decoder_vgg16"])
def test_float32_scores_equal_pytorchs_to_rounding(name: str) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = network(name, rng).to(np.float32), twin(name, CLASSES, NARROW)
    theirs.load_state_dict({k: torch.tensor(np.asarray(t)) for k, t in ours.state_dict().items()}, strict=True)
    ours.eval()
    theirs.eval()
    x = rng.standard_normal(SMALL).astype(np.float32)
    scores = ours(mf.Tensor(x))
    assert scores.dtype == np.float32
    assert relative_error(scores, theirs(torch.tensor(x))) < 1e-4


def test_every_model_has_a_twin_whose_state_fits() -> None:
    for name in models.available():
        ours = models.create(name, CLASSES, width=1 / NARROW, seed=0).state_dict()
        theirs = twin(name, CLASSES, NARROW).state_dict()
        assert {k: tuple(t.shape) for k, t in ours.items()} == {k: tuple(t.shape) for k, t in theirs.items()}

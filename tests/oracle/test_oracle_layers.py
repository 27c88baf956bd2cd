"""Layers, optimizers and schedules against PyTorch's, under the same names and with the same arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compare import Fixed, compare, relative_error, torch

import minifcn as mf
from minifcn import nn, optim

pytestmark = pytest.mark.oracle
SHAPE = (2, 4, 7, 6)

# class, arguments, keywords, input shape
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv2d", (4, 6, 3), {}, SHAPE),
    ("Conv2d", (4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, False), {}, SHAPE),
    ("Conv2d", (4, 6, 3), {"padding": "same"}, SHAPE),
    ("ConvTranspose2d", (4, 6, 3, 2, 1, 1), {}, SHAPE),
    ("ConvTranspose2d", (4, 6, (4, 2), (2, 3), (1, 0), (0, 2), 2, False, 1), {}, SHAPE),
    ("MaxPool2d", (2,), {}, SHAPE),
    ("MaxPool2d", (3, 2, 1), {"ceil_mode": True, "return_indices": True}, SHAPE),
    ("AvgPool2d", (3, 2, 1, True, False), {}, SHAPE),
    ("AvgPool2d", (2,), {"divisor_override": 3}, SHAPE),
    ("AdaptiveAvgPool2d", ((3, None),), {}, SHAPE),
    ("BatchNorm2d", (4,), {}, SHAPE),
    ("BatchNorm2d", (4,), {"eps": 0.1, "momentum": 0.3}, SHAPE),
    ("BatchNorm2d", (4,), {"momentum": None}, SHAPE),
    ("BatchNorm2d", (4,), {"affine": False}, SHAPE),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, SHAPE),
    ("LocalResponseNorm", (3, 0.5), {"k": 2.0}, SHAPE),
    ("Softmax", (1,), {}, SHAPE),
    ("LogSoftmax", (), {"dim": -1}, SHAPE),
    ("Flatten", (), {}, SHAPE),
    ("Flatten", (2, 3), {}, SHAPE),
    ("Unfold", ((3, 2), 1, 1, 2), {}, SHAPE),
    ("Fold", ((4, 5), 2), {"padding": 1}, (2, 8, 30)),
    ("PixelShuffle", (2,), {}, SHAPE),
    ("ZeroPad2d", (1,), {}, SHAPE),
    ("ZeroPad2d", ((1, 2, -1, 0),), {}, SHAPE),
    ("ReLU", (), {}, SHAPE),
    ("Sigmoid", (), {}, SHAPE),
    ("Identity", (), {}, SHAPE),
    ("Dropout", (0.0,), {}, SHAPE),
    ("Dropout2d", (), {"p": 1.0}, SHAPE),
    ("Linear", (6, 3), {}, SHAPE),
    ("Linear", (6, 3, False), {}, (6,)),
    ("Upsample", ((9, 5),), {}, SHAPE),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, SHAPE),
    ("Upsample", (None, (1.5, 2.0), "bilinear", True), {}, SHAPE),
]


def numbers(layer: Any) -> dict[str, np.ndarray]:
    """A PyTorch module's state as arrays."""
    return {name: t.numpy() for name, t in layer.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "args", "options", "shape"), LAYERS, ids=[f"{x[0]}-{k}" for k, x in enumerate(LAYERS)]
)
def test_a_layer_takes_pytorchs_arguments_and_state_and_computes_the_same(
    name: str, args: tuple[Any, ...], options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(1)
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options).double()
    ours.to(np.float64)
    assert [(k, t.shape) for k, t in ours.state_dict().items()] == [
        (k, t.shape) for k, t in theirs.state_dict().items()
    ]
    assert [k for k, _ in ours.named_parameters()] == [k for k, _ in theirs.named_parameters()]
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p))
    ours.load_state_dict(numbers(theirs))
    assert ours.training
    for training in (True, True, False):  # twice, so that running statistics that have moved are moved again
        ours.train(training)
        theirs.train(training)
        before = {k: t.clone() for k, t in theirs.state_dict().items()}
        # compare() evaluates both layouts; PyTorch's statistics move exactly as often as ours
        compare(lambda F, x: ours(x) if isinstance(x, mf.Tensor) else theirs(x), shape, second_order=False)
        for k, t in theirs.state_dict().items():
            error = relative_error(ours.state_dict()[k], t)
            assert error < 1e-12, f"{k}: {error}"
            if training and k == "running_mean":
                assert not torch.equal(t, before[k])
            if not training:
                assert torch.equal(t, before[k])
        if not list(theirs.parameters()):
            continue
        x = np.random.default_rng(0).standard_normal(shape)
        ours.zero_grad()
        theirs.zero_grad()
        y, t = ours(mf.Tensor(x)), theirs(torch.tensor(x))
        g = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(g)
        t.backward(torch.tensor(g))
        for (k, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            error = relative_error(p.grad, q.grad)
            assert error < 1e-10, f"{k}: {error}"


@pytest.mark.parametrize("size", [(13, 12), (14, 13), (13, 13)])
def test_conv_transpose_takes_an_output_size(size: tuple[int, int]) -> None:
    """(7 − 1)·2 − 2 + 3 = 13 and (6 − 1)·2 − 2 + 4 = 12, or one more."""
    theirs = torch.nn.ConvTranspose2d(4, 6, (3, 4), 2, 1, bias=False).double()
    ours = nn.ConvTranspose2d(4, 6, (3, 4), 2, 1, bias=False).to(np.float64)
    ours.load_state_dict(numbers(theirs))
    x = np.random.default_rng(0).standard_normal(SHAPE)
    assert relative_error(ours(mf.Tensor(x), output_size=size), theirs(torch.tensor(x), output_size=size)) < 1e-12


def test_cross_entropy_loss() -> None:
    weight, target = Fixed([0.5, 2.0, 1.0, 3.0]), np.random.default_rng(0).integers(0, 4, (2, 7, 6))
    target[0, :2] = 255

    def f(F: Any, x: Any, t: Any, w: Any) -> Any:
        if not isinstance(x, mf.Tensor):
            return torch.nn.CrossEntropyLoss(w, ignore_index=255, reduction="sum")(x, t)
        w = w if isinstance(w, mf.Tensor) else mf.Tensor(w)
        return nn.CrossEntropyLoss(w, ignore_index=255, reduction="sum")(x, t)

    compare(f, SHAPE, target, weight)
    state = nn.CrossEntropyLoss(mf.Tensor(weight.values)).state_dict()
    assert list(state) == list(torch.nn.CrossEntropyLoss(torch.tensor(weight.values)).state_dict()) == ["weight"]


def test_nll_loss() -> None:
    target = np.random.default_rng(0).integers(0, 4, (2, 7, 6))

    def f(F: Any, x: Any, t: Any) -> Any:
        n = nn if isinstance(x, mf.Tensor) else torch.nn
        return n.NLLLoss(ignore_index=1, reduction="mean")(n.LogSoftmax(1)(x), t)

    compare(f, SHAPE, target)


def test_max_unpool() -> None:
    def f(F: Any, x: Any) -> Any:
        n = nn if isinstance(x, mf.Tensor) else torch.nn
        return n.MaxUnpool2d(2)(*n.MaxPool2d(2, return_indices=True)(x), output_size=(7, 6))

    compare(f, SHAPE)


def test_containers_name_their_parts_as_pytorch_does() -> None:
    def build(n: Any) -> Any:
        block = n.Sequential(n.Conv2d(3, 4, 3), n.BatchNorm2d(4), n.Sequential(n.ReLU(), n.Linear(2, 2)))
        return n.Sequential(n.ModuleList([block, n.Identity()]), n.Linear(2, 3, bias=False))

    ours, theirs = build(nn), build(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [k for k, _ in ours.named_parameters()] == [k for k, _ in theirs.named_parameters()]
    assert [k for k, _ in ours.named_buffers()] == [k for k, _ in theirs.named_buffers()]
    assert [k for k, _ in ours.named_modules()] == [k for k, _ in theirs.named_modules()]


def test_a_parameter_that_is_assigned_again_keeps_its_place() -> None:
    ours, theirs = nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)
    ours.weight, theirs.weight = nn.Parameter(ours.weight.numpy()), torch.nn.Parameter(theirs.weight)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize(
    ("name", "args"), [("Conv2d", (32, 64, 5)), ("ConvTranspose2d", (32, 64, 5)), ("Linear", (400, 300))]
)
def test_initial_weights_have_pytorchs_distribution(name: str, args: tuple[int, ...]) -> None:
    """Uniform in the same interval: equal extremes and spreads, up to chance."""
    mf.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = getattr(nn, name)(*args), getattr(torch.nn, name)(*args)
    for p, q in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        a, b = np.asarray(p), q.detach().numpy()
        few = a.size < 1000
        assert np.abs(a).max() == pytest.approx(np.abs(b).max(), rel=0.15 if few else 1e-3)
        assert a.std() == pytest.approx(b.std(), rel=0.3 if few else 0.02)


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("shape", [(32, 64, 3, 3), (100, 300)])
def test_kaiming_normal_has_pytorchs_spread(shape: tuple[int, ...], mode: str) -> None:
    torch.manual_seed(0)
    mf.manual_seed(0)
    theirs = torch.nn.init.kaiming_normal_(torch.empty(shape), mode=mode, nonlinearity="relu")
    assert nn.init.kaiming_normal(shape, mode).std() == pytest.approx(float(theirs.std()), rel=0.02)


# ----- optimizers

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.2}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.99, "weight_decay": 0.1}),
    ("SGD", {}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-2, "weight_decay": 0.3}),
]
SIZES = ((5, 3), (), (70001,))  # the last one is longer than a chunk


def twins() -> tuple[list[Any], list[Any]]:
    """The same parameters for both libraries."""
    rng = np.random.default_rng(2)
    values = [rng.standard_normal(shape) for shape in SIZES]
    return [mf.Tensor(np.array(v), requires_grad=True) for v in values], [
        torch.tensor(v, requires_grad=True) for v in values
    ]


def give_gradients(ours: list[Any], theirs: list[Any], step: int) -> None:
    rng = np.random.default_rng(step)
    for k, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        g = np.asarray(rng.standard_normal(p.shape))
        if (step, k) == (2, 1):  # a step in which a parameter has no gradient
            p.grad = q.grad = None
        else:
            p.grad, q.grad = mf.Tensor(g), torch.tensor(g)


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_an_optimizer_makes_pytorchs_steps(name: str, options: dict[str, Any]) -> None:
    ours, theirs = twins()
    a, b = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for step in range(6):
        give_gradients(ours, theirs, step)
        a.step()
        b.step()
        for p, q in zip(ours, theirs, strict=True):
            assert relative_error(p, q) < 1e-12
    a.zero_grad()
    assert all(p.grad is None for p in ours)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_parameter_groups_override_the_defaults(name: str) -> None:
    ours, theirs = twins()
    extra = {"momentum": 0.9} if name == "SGD" else {}
    made = [
        getattr(module, name)(
            [{"params": [p[0]], "lr": 0.2, "weight_decay": 0.0}, {"params": p[1:], **extra}], lr=0.1, weight_decay=0.1
        )
        for module, p in ((optim, ours), (torch.optim, theirs))
    ]
    for step in range(4):
        give_gradients(ours, theirs, step)
        for optimizer in made:
            optimizer.step()
        for p, q in zip(ours, theirs, strict=True):
            assert relative_error(p, q) < 1e-12


def test_adam_continued_from_its_state_makes_pytorchs_steps() -> None:
    ours, theirs = twins()
    a, b = optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    for step in range(6):
        if step == 3:
            fresh = optim.Adam(ours, lr=0.7)
            fresh.load_state_dict(a.state_dict())
            a = fresh
        give_gradients(ours, theirs, step)
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        assert relative_error(p, q) < 1e-12


def test_schedules_follow_pytorchs() -> None:
    p, q = mf.Tensor(np.zeros(1), requires_grad=True), torch.zeros(1, requires_grad=True)
    pairs = [
        (optim.PolyLR, torch.optim.lr_scheduler.PolynomialLR, {"power": 0.9}, "total_steps", "total_iters", 7),
        (optim.PolyLR, torch.optim.lr_scheduler.PolynomialLR, {"power": 2.0}, "total_steps", "total_iters", 5),
        (optim.StepLR, torch.optim.lr_scheduler.StepLR, {"gamma": 0.3}, "step_size", "step_size", 3),
        (optim.StepLR, torch.optim.lr_scheduler.StepLR, {}, "step_size", "step_size", 1),
    ]
    for ours, theirs, options, own, other, count in pairs:
        a, b = optim.SGD([p], lr=0.4), torch.optim.SGD([q], lr=0.4)
        s, t = ours(a, **{own: count}, **options), theirs(b, **{other: count}, **options)
        for _ in range(10):
            assert a.param_groups[0]["lr"] == pytest.approx(b.param_groups[0]["lr"], rel=1e-12, abs=1e-15)
            b.step()  # PyTorch warns otherwise
            s.step()
            t.step()

"""Modules, state, layers and optimizers, without PyTorch (tests/oracle compares with it)."""

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn import nn, optim
from minifcn.autograd import Tensor
from minifcn.nn import containers
from minifcn.nn.containers import run


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[0](self.bn(self.conv(x)))


NAMES = [
    "conv.weight",
    "bn.weight",
    "bn.bias",
    "bn.running_mean",
    "bn.running_var",
    "bn.num_batches_tracked",
    "blocks.0.0.weight",
    "blocks.0.0.bias",
]


def test_state_has_pytorch_s_names_in_order() -> None:
    net = Net()
    assert list(net.state_dict()) == NAMES
    assert [n for n, _ in net.named_parameters()] == [n for n in NAMES if "running" not in n and "num" not in n]
    assert [n for n, _ in net.named_buffers()] == NAMES[3:6]
    net.conv.weight = nn.Parameter(np.zeros((4, 3, 3, 3), np.float32))
    assert list(net.state_dict()) == NAMES


def test_loading_lists_every_fault_and_changes_nothing() -> None:
    net = Net()
    state = {k: np.array(v) + 1 for k, v in net.state_dict().items()}
    before = np.array(net.bn.weight)
    bad = {**state, "bn.weight": np.zeros(5), "extra": np.zeros(1)}
    del bad["conv.weight"]
    with pytest.raises(
        ValueError, match=r"bn.weight is \(5,\) and should be \(4,\) — missing: conv.weight — unexpected: extra"
    ):
        net.load_state_dict(bad)
    np.testing.assert_array_equal(net.bn.weight.data, before)
    assert net.load_state_dict(state) == ([], [])
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.data, state[name])
    del state["conv.weight"]
    assert net.load_state_dict({**state, "extra": 1}, strict=False) == (["conv.weight"], ["extra"])


def test_train_eval_and_zero_grad_reach_every_module() -> None:
    net = Net().eval()
    assert not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    net(Tensor(np.random.default_rng(0).standard_normal((2, 3, 5, 5), dtype=np.float32))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_batch_norm_keeps_running_statistics() -> None:
    """momentum moves towards the batch's mean and unbiased variance; None averages all batches seen."""
    x = Tensor(np.random.default_rng(0).standard_normal((3, 2, 4, 4), dtype=np.float32) * 3 + 1)
    mean, var = np.array(x).mean((0, 2, 3)), np.array(x).var((0, 2, 3), ddof=1)
    for momentum, expected_mean, expected_var in [(0.1, 0.1 * mean, 0.9 + 0.1 * var), (None, mean, var)]:
        bn = nn.BatchNorm2d(2, momentum=momentum)
        bn(x)
        np.testing.assert_allclose(bn.running_mean.data, expected_mean, rtol=1e-5)
        np.testing.assert_allclose(bn.running_var.data, expected_var, rtol=1e-5)
        assert bn.num_batches_tracked.item() == 1
        frozen = np.array(bn.running_mean)
        y = bn.eval()(x)
        np.testing.assert_array_equal(bn.running_mean.data, frozen)
        hand = (np.array(x) - expected_mean[:, None, None]) / np.sqrt(expected_var[:, None, None] + 1e-5)
        np.testing.assert_allclose(y.data, hand, rtol=1e-4, atol=1e-5)


def test_batch_norm_at_a_large_mean() -> None:
    """mean/std = 1e4 in float32: the normalised values still have mean 0 and variance 1."""
    x = Tensor(np.random.default_rng(0).standard_normal((4, 1, 32, 32), dtype=np.float32) + np.float32(1e4))
    y = F.batch_norm(x, None, None, training=True).data
    assert abs(y.mean()) < 1e-3
    assert abs(y.var() - 1) < 1e-2


def test_layers_print_what_they_are() -> None:
    text = repr(Net())
    assert "(conv): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(0, 0)" in text
    assert "(0): Conv2d(4, 4, kernel_size=(1, 1)" in text


def test_module_mistakes_are_explained() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            self.conv = nn.Conv2d(1, 1, 1)

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\) must come before assigning conv"):
        Forgetful()
    with pytest.raises(AttributeError, match="Net has no attribute 'convolution'"):
        Net().convolution  # noqa: B018
    with pytest.raises(NotImplementedError, match=r"Module: no forward\(\)"):
        nn.Module()(1)
    with pytest.raises(ValueError, match="groups=2 does not divide 3 and 4 channels"):
        nn.Conv2d(3, 4, 1, groups=2)


def test_hooks_see_inputs_and_outputs() -> None:
    net, seen = Net(), []
    handle = net.bn.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].shape, output.shape)))
    image = Tensor(np.zeros((2, 3, 5, 5), np.float32))
    net(image)
    handle.remove()
    net(image)
    assert seen == [((2, 4, 3, 3), (2, 4, 3, 3))]


def _stack(layers: str, groups: int, bias: bool, affine: bool) -> list[nn.Module]:
    """A letter for each layer: convolution, batch norm with statistics that are not 0 and 1, ReLU."""
    rng = np.random.default_rng(5)
    made: list[nn.Module] = []
    for letter in layers:
        if letter == "c":
            made.append(nn.Conv2d(4, 4, 3, padding=1, groups=groups, bias=bias))
        elif letter == "b":
            bn = nn.BatchNorm2d(4, affine=affine)
            bn.running_mean.data, bn.running_var.data = rng.standard_normal(4), rng.random(4) + 0.5
            made.append(bn)
        else:
            made.append(nn.ReLU())
    for layer in made:
        for p in layer.parameters():
            p.data = rng.standard_normal(p.shape)
    return made


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("layers", ["c", "cb", "cr", "cbr", "cbrcbr", "ccbrb", "rcb", "br"])
@pytest.mark.parametrize(("groups", "bias", "affine"), [(1, True, True), (2, False, True), (1, True, False)])
def test_fused_layers_give_what_they_give_one_by_one(
    layers: str, shortcut: bool, groups: int, bias: bool, affine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = _stack(layers, groups, bias, affine)
    for layer in stack:
        layer.eval()
    rng = np.random.default_rng(6)
    fused: list[int] = []
    then = containers.conv2d_then
    monkeypatch.setattr(containers, "conv2d_then", lambda *args: (fused.append(1), then(*args))[1])
    # a shortcut comes before the last layer, so it parts what ends in a batch norm
    count = layers.count("cb") + layers.count("cr") - (shortcut and layers.endswith("cb"))
    for shape in [(2, 4, 7, 6), (4, 5, 3)]:  # with a batch axis, and a single image, which is not fused
        if len(shape) == 3 and "b" in layers:
            continue  # a batch norm takes no single image
        x, other = Tensor(rng.standard_normal(shape)), Tensor(rng.standard_normal(shape)) if shortcut else None
        expected = x
        for k, layer in enumerate(stack):
            if k == len(stack) - 1 and other is not None:
                expected = expected + other
            expected = layer(expected)
        fused.clear()
        with mf.no_grad():
            y = run(stack, x, other)
        np.testing.assert_allclose(y.data, expected.data, rtol=0, atol=1e-12)
        assert len(fused) == (count if len(shape) == 4 else 0)
        fused.clear()
        np.testing.assert_array_equal(run(stack, x, other).data, expected.data)  # recorded: one by one
        assert not fused


def test_what_somebody_looks_at_is_not_fused() -> None:
    conv, bn, relu = stack = _stack("cbr", 1, True, True)
    x = Tensor(np.random.default_rng(1).standard_normal((2, 4, 5, 5)))
    with mf.no_grad():
        seen: list[Tensor] = []
        handle = conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
        bn.eval()
        run(stack, x)
        handle.remove()
        np.testing.assert_array_equal(seen[0].data, conv(x).data)
        before = np.array(bn.running_mean)
        bn.train()
        run(stack, x)
        assert not np.array_equal(
            bn.running_mean.data, before
        )  # the batch's own statistics, which move the running ones

        class Leaky(nn.ReLU):
            def forward(self, input: Tensor) -> Tensor:
                return input * 0.1

        np.testing.assert_array_equal(run([conv, Leaky()], x).data, conv(x).data * 0.1)
    loss = run([conv, bn.eval(), relu], x).sum()
    loss.backward()
    assert conv.weight.grad is not None
    assert bn.weight.grad is not None


def test_shortcuts_are_added_alike_however_it_is_computed() -> None:
    stack = _stack("cbr", 1, True, True)
    stack[1].eval()
    rng = np.random.default_rng(3)
    x = Tensor(rng.standard_normal((2, 4, 5, 5)))
    row = Tensor(rng.standard_normal((4, 1, 1)))
    for shortcut in (row, 1.5, np.asarray(row), row.float()):
        expected = run(stack, x, shortcut)
        with mf.no_grad():
            y = run(stack, x, shortcut)
        assert y.dtype == expected.dtype
        np.testing.assert_allclose(y.data, expected.data, rtol=0, atol=1e-12)
    narrow = [layer.to(np.float32) for layer in stack]
    with mf.no_grad():
        assert run(narrow, x.float(), x[:, :, :5]).dtype == np.float64  # a wider shortcut widens the result
    with pytest.raises(ValueError, match="shape"):
        run(stack, x.float(), Tensor(np.zeros((2, 4, 5, 4), np.float32)))
    with mf.no_grad(), pytest.raises(ValueError, match=r"\(2, 4, 5, 4\) cannot be added to scores of shape"):
        run(stack, x.float(), Tensor(np.zeros((2, 4, 5, 4), np.float32)))
    with pytest.raises(ValueError, match="there are no layers"):
        run([], x, x)


def test_what_cannot_be_one_kernel_is_not() -> None:
    conv, bn, _ = stack = _stack("cbr", 1, True, True)
    bn.eval()
    x = Tensor(np.random.default_rng(1).standard_normal((2, 4, 5, 5)))
    with mf.no_grad():
        with pytest.raises(ValueError, match="BatchNorm2d: input has 3 axes"):
            run(stack, x[0])
        conv.forward = lambda input: input * 0
        assert not run([conv, nn.ReLU()], x).data.any()  # it has a forward of its own
        del conv.forward
        bn.running_mean.data = bn.running_mean.data + 1e9  # far beyond its deviation, where x·a − m·a cancels
        np.testing.assert_array_equal(run([conv, bn], x).data, bn(conv(x)).data)
        bn.to(np.float32)
        with pytest.raises(TypeError, match="batch_norm"):
            run(stack, x)
    with pytest.raises(RuntimeError, match="has no gradient"):
        containers.conv2d_then(x, conv.weight, None, None, None, True, (1, 1), (1, 1), (1, 1), 1)


def test_casting_a_module() -> None:
    net = Net().to(np.float64)
    assert {t.dtype.name for t in net.state_dict().values()} == {"float64", "int64"}
    net(Tensor(np.ones((2, 3, 5, 5)))).sum().backward()
    optim.SGD(net.parameters(), lr=0.1).step()


def test_seed_repeats_weights_and_dropout() -> None:
    def draw() -> tuple[np.ndarray, np.ndarray]:
        mf.manual_seed(5)
        return np.array(nn.Conv2d(2, 2, 3).weight), np.array(F.dropout(Tensor(np.ones(50)), 0.5))

    (w1, d1), (w2, d2) = draw(), draw()
    np.testing.assert_array_equal(w1, w2)
    np.testing.assert_array_equal(d1, d2)
    assert not np.array_equal(np.array(F.dropout(Tensor(np.ones(50)), 0.5)), d2)
    with pytest.raises(ValueError, match="seed is -1"):
        mf.manual_seed(-1)


def test_sgd_by_hand() -> None:
    p = nn.Parameter(np.array([1.0, -2.0]))
    sgd = optim.SGD([p], lr=0.1, momentum=0.5, weight_decay=0.2)
    value, velocity = np.array([1.0, -2.0]), 0.0
    for gradient in (np.array([0.3, 0.4]), np.array([-1.0, 0.5]), np.array([0.0, 2.0])):
        p.grad = Tensor(gradient)
        sgd.step()
        velocity = 0.5 * velocity + gradient + 0.2 * value
        value = value - 0.1 * velocity
    np.testing.assert_allclose(p.data, value, rtol=1e-15)


def test_schedules_and_the_paper_s_groups() -> None:
    net = Net()
    groups = optim.paper_groups(net, lr=0.1, weight_decay=0.01)
    assert [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups] == [(3, 0.1, 0.01), (2, 0.2, 0.0)]
    sgd = optim.SGD(groups, lr=0.1)
    poly = optim.PolyLR(sgd, total_steps=4, power=0.5)
    rates = []
    for _ in range(5):
        rates.append([g["lr"] for g in sgd.param_groups])
        poly.step()
    np.testing.assert_allclose(rates, np.sqrt([[1, 1], [0.75, 0.75], [0.5, 0.5], [0.25, 0.25], [0, 0]]) * [0.1, 0.2])
    adam = optim.Adam([nn.Parameter(np.ones(1))], lr=1.0)
    step = optim.StepLR(adam, step_size=2, gamma=0.1)
    step.load_state_dict({"steps": 5})
    assert adam.param_groups[0]["lr"] == pytest.approx(0.01)


def test_optimizer_mistakes_are_explained() -> None:
    p = nn.Parameter(np.ones(1))
    with pytest.raises(ValueError, match="SGD: no parameters"):
        optim.SGD([], lr=0.1)
    with pytest.raises(ValueError, match="SGD: lr is -1"):
        optim.SGD([p], lr=-1)
    with pytest.raises(ValueError, match="a parameter is in two groups"):
        optim.Adam([p, p])
    with pytest.raises(ValueError, match=r"groups of \[2\] parameters for an optimizer with \[1\]"):
        optim.SGD([p], lr=0.1).load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]})


def test_bilinear_kernel() -> None:
    np.testing.assert_array_equal(nn.init.bilinear_kernel(4)[1] * 16, [3, 9, 9, 3])
    np.testing.assert_array_equal(nn.init.bilinear_kernel(3) * 4, [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    with pytest.raises(ValueError, match="as many output as input channels"):
        nn.init.bilinear((2, 3, 4, 4))


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_bilinear_upsampling_reproduces_constants_and_ramps(factor: int) -> None:
    """A constant stays constant and a ramp a ramp of equal slope, inside; the rim darkens, as zeros enter there."""
    k = 2 * factor - factor % 2
    up = nn.ConvTranspose2d(1, 1, k, factor, padding=(k - factor) // 2, bias=False)
    up.weight.data = nn.init.bilinear(up.weight.shape)
    inside = slice(factor, -factor)
    ones = up(Tensor(np.ones((1, 1, 6, 6), np.float32))).data[0, 0]
    np.testing.assert_allclose(ones[inside, inside], 1, atol=1e-6)
    assert ones[0, 0] < 0.6
    ramp = np.broadcast_to(np.arange(6, dtype=np.float32), (1, 1, 6, 6))
    slopes = np.diff(up(Tensor(ramp.copy())).data[0, 0, 2 * factor, inside])
    np.testing.assert_allclose(slopes, 1 / factor, atol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda p: optim.SGD(p, lr=0.5), lambda p: optim.SGD(p, 0.5, momentum=0.9), optim.Adam]
)
def test_parameters_of_any_memory_layout_are_updated(make) -> None:  # type: ignore[no-untyped-def]
    values = np.arange(6.0).reshape(2, 3)
    frozen = values.copy()
    frozen.flags.writeable = False
    results = []
    for array in (values.copy(), np.asfortranarray(values), frozen):
        p = nn.Parameter(array)
        p.grad = Tensor(np.ones((2, 3)))
        make([p]).step()
        results.append(p.data)
        assert (p.data < values).all()
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_a_parameter_is_not_replaced_by_an_array() -> None:
    net = Net()
    with pytest.raises(TypeError, match=r"weight is a Parameter and was assigned a ndarray; .* weight.data"):
        net.conv.weight = np.zeros((4, 3, 3, 3))
    with pytest.raises(TypeError, match="running_mean is a Tensor"):
        net.bn.running_mean = np.zeros(4)
    del net.conv.weight
    assert "conv.weight" not in net.state_dict()


def test_moving_nothing_keeps_gradients() -> None:
    net = Net()
    net(Tensor(np.ones((2, 3, 5, 5), np.float32))).sum().backward()
    net.to("cpu")
    assert all(p.grad is not None for p in net.parameters())

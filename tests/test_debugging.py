"""Debug mode names the operation, and the line of this file, that first made a NaN or Inf."""

import threading

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn.autograd import Primitive, Tensor
from minifcn.debugging import is_debugging

HERE = "test_debugging.py"


def caught(work: object) -> str:
    with pytest.raises(FloatingPointError) as error, mf.debug():
        work()  # type: ignore[operator]
    assert "\n" not in str(error.value)
    return str(error.value)


def log_of_squares(x: Tensor) -> Tensor:
    squares = x * x
    return squares.log().sum()  # the guilty line


def test_forward_names_operation_line_and_arguments() -> None:
    said = caught(lambda: log_of_squares(Tensor([1.0, 0.0, 2.0])))
    assert said.startswith("log: made 1 Inf out of finite arguments at ")
    assert f"{HERE}:" in said
    assert "in log_of_squares: `return squares.log().sum() # the guilty line`" in said
    assert said.endswith("x (3,) from 0 to 4")


def test_a_nan_out_of_infinities_is_named_and_passing_infinities_are_not() -> None:
    x = Tensor([np.inf, 1.0])
    with mf.debug():
        assert x.sum().item() == np.inf  # put in on purpose
        assert F.relu(-x).data.tolist() == [0, 0]
    assert caught(lambda: x - x).startswith("sub: made 1 NaN out of infinite arguments at ")


def test_a_nan_in_the_data_is_found_where_it_enters() -> None:
    image = np.zeros((1, 1, 3, 3))
    image[0, 0, 1, 2] = np.nan
    said = caught(lambda: F.conv2d(Tensor(image), Tensor(np.ones((1, 1, 2, 2)))))
    assert said.startswith("conv2d: argument x, shape (1, 1, 3, 3), holds 1 NaN already, at ")
    assert "no operation made them" in said


def test_backward_names_the_line_of_the_forward_pass() -> None:
    x = Tensor([0.0, 4.0], requires_grad=True)

    def step() -> None:
        y = x.sqrt()  # finite, with an infinite slope
        y.sum().backward()

    said = caught(step)
    assert said.startswith("backward of sqrt, called at ")
    assert "`y = x.sqrt() # finite, with an infinite slope` — div: made 1 Inf out of finite arguments" in said


def test_a_wrong_derivative_of_the_user_is_named() -> None:
    from minifcn.autograd import PRIMITIVES

    bad = Primitive("spoiled(x) -> y", lambda x: x * 2)
    bad.defvjp(lambda gy: Tensor(gy.data * np.nan))
    del PRIMITIVES["spoiled"]
    x = Tensor([1.0], requires_grad=True)
    said = caught(lambda: (bad(x) * 3).sum().backward())
    assert said.startswith("backward of spoiled, called at ")
    assert "made 1 NaN" in said


def test_the_public_function_and_the_layer_are_named() -> None:
    assert caught(lambda: F.softmax(Tensor([np.inf, 1.0]), 0)).startswith("softmax (its log_softmax): made 2 NaN")
    model = mf.models.create("fcn8s_resnet18", width=1 / 16)
    name, parameter = next((n, p) for n, p in model.named_parameters() if n.endswith("layer2.0.bn2.bias"))
    parameter.data = np.full(parameter.shape, np.nan, np.float32)
    said = caught(lambda: model(Tensor(np.ones((1, 3, 40, 40), np.float32))))
    assert said.startswith("batch_norm: argument beta")
    assert f"layer {name.removesuffix('.bias')} (BatchNorm2d)" in said


def test_overflow_in_float32_is_found_and_numpy_does_not_warn() -> None:
    x = Tensor(np.full((2, 2), 3e38, np.float32))
    assert caught(lambda: x + x).startswith("add: made 4 Inf out of finite arguments")


def test_what_is_infinite_on_purpose_and_what_is_nothing() -> None:
    with mf.debug():
        assert F.pad(Tensor([1.0]), (1, 1), value=-np.inf).data.tolist() == [-np.inf, 1, -np.inf]
    said = caught(lambda: F.cross_entropy(Tensor(np.zeros((1, 2, 2))), np.full((1, 2), 255), ignore_index=255))
    assert said.startswith("cross_entropy: the mean is 0/0, as no label counts (all are ignore_index=255, or their ")
    assert caught(lambda: Tensor(np.zeros(0)).mean()).startswith("mean (its broadcast_to): the result is NaN")


def test_each_thread_has_its_own_contexts() -> None:
    """One enters, another enters, the first leaves, the second leaves: neither disturbs the other."""
    first, second, out = mf.debug(), mf.debug(), []
    steps = [threading.Event() for _ in range(3)]

    def other() -> None:
        steps[0].wait(5)
        with second:
            steps[1].set()
            steps[2].wait(5)
            out.append(is_debugging())
        out.append(is_debugging())

    thread = threading.Thread(target=other)
    thread.start()
    with first:
        steps[0].set()
        steps[1].wait(5)
    steps[2].set()
    thread.join()
    assert out == [True, False]
    assert not is_debugging()
    with first:  # a context can be used again
        assert is_debugging()
    assert not is_debugging()


def test_a_function_can_be_decorated() -> None:
    @mf.debug()
    def step(x: Tensor) -> Tensor:
        return x.log()

    assert not is_debugging()
    with pytest.raises(FloatingPointError, match="log: made 1 Inf"):
        step(Tensor([0.0]))
    assert not is_debugging()


def test_the_layer_of_a_users_own_module_is_named() -> None:
    class Net(mf.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = mf.nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x)

    said = caught(lambda: Net()(Tensor(np.full((1, 1, 2, 2), np.nan, np.float32))))
    assert "`return self.first(x)`, layer first (Conv2d)" in said


def test_it_is_switched_as_a_function_and_as_a_context() -> None:
    assert not is_debugging()
    mf.debug(True)
    try:
        assert is_debugging()
        with mf.debug(False):
            assert not is_debugging()
            with np.errstate(divide="ignore"):
                assert (Tensor([1.0]) / 0.0).item() == np.inf
        assert is_debugging()
    finally:
        mf.debug(False)
    assert not is_debugging()
    with pytest.raises(TypeError, match="debug: enabled is 1; True or False is needed"):
        mf.debug(1)  # type: ignore[arg-type]


def test_a_healthy_training_step_passes() -> None:
    model = mf.models.create("fcn8s_resnet18", num_classes=3, width=1 / 16, seed=0)
    optimizer = mf.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    labels = np.zeros((2, 40, 45), np.int64)
    labels[:, :3] = 255
    with mf.debug():
        for _ in range(2):
            images = np.random.default_rng(0).standard_normal((2, 3, 40, 45)).astype(np.float32)
            F.cross_entropy(model(Tensor(images)), labels, ignore_index=255).backward()
            optimizer.step()
            optimizer.zero_grad()

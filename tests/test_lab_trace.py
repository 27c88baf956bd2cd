"""The trace: every call, in order, with what was chosen, kept and when, and none of it disturbs the pass."""

import itertools
import json
import re
import shutil
import subprocess
import threading
import time
import tracemalloc
import weakref
from dataclasses import replace

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn import debugging
from minifcn.autograd import Primitive, Tensor
from minifcn.cli import main
from minifcn.kernels import registry
from minifcn.lab import tape
from minifcn.lab.tape import Call, Trace, trace, trace_model


def normal(*shape: int, requires_grad: bool = False) -> Tensor:
    values = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    return Tensor(values, requires_grad=requires_grad)


def network(name: str = "fcn8s_resnet18") -> mf.nn.Module:
    return mf.models.create(name, num_classes=3, width=1 / 16, seed=0)


def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, 40, 56), dtype=np.float32)


@pytest.fixture(scope="module")
def step() -> Trace:
    """A network, forward and backward. Tests read it only."""
    return trace(network(), image())


@pytest.fixture(autouse=True)
def nobody_watches():
    assert not debugging.is_watched()
    yield
    assert not debugging.is_watched(), "the test left a Watcher"
    assert debugging._watchers == 0
    assert debugging._here.watcher is None


# -- what is listed


def test_a_product_and_a_sum_by_hand() -> None:
    x, w = normal(2, 3), normal(3, requires_grad=True)
    found = trace(lambda x, w: (x * w).sum(), x, w)
    assert [(c.number, c.phase, c.primitive, c.shape, c.of) for c in found.calls] == [
        (0, "forward", "broadcast_to", (2, 3), None),
        (1, "forward", "mul", (2, 3), None),
        (2, "forward", "sum", (1, 1), None),  # axes are kept, and then
        (3, "forward", "reshape", (), None),  # taken away
        (4, "backward", "reshape", (1, 1), 3),
        (5, "backward", "broadcast_to", (2, 3), 2),
        (6, "backward", "mul", (2, 3), 1),  # gx is not wanted
        (7, "backward", "sum_to", (3,), 0),
    ]
    assert [[(a.name, a.shape, a.source, a.origin) for a in found.calls[k].args] for k in (1, 4, 6)] == [
        [("x", (2, 3), None, "input 0"), ("y", (2, 3), 0, "")],
        [("x", (), None, "ones 0")],
        [("x", (2, 3), 5, ""), ("y", (2, 3), None, "input 0")],
    ]
    assert [c.algorithm for c in found.calls] == ["view", "NumPy", "NumPy", "view", "view", "view", "NumPy", "NumPy"]
    assert [c.bytes for c in found.calls] == [0, 24, 4, 0, 0, 0, 24, 12]
    assert {c.kernels for c in found.calls} == {()}
    assert found.outputs == ((),)
    assert w.grad is None


def test_cotangents_are_added_where_ways_meet() -> None:
    x = normal(4, requires_grad=True)
    found = trace(lambda x: x.exp() + x.tanh(), x)
    assert [(c.primitive, c.phase, c.of) for c in found.calls] == [
        ("exp", "forward", None),
        ("tanh", "forward", None),
        ("add", "forward", None),
        ("tanh_grad", "backward", 1),
        ("mul", "backward", 0),  # the VJP of exp
        ("add", "backward", None),
    ]
    assert [a.source for a in found.calls[-1].args] == [3, 4]


def test_several_outputs_and_what_cannot_be_gone_back_from() -> None:
    x = normal(2, 2, requires_grad=True)
    assert trace(lambda x: (x.exp(), 1, x.sum()), x).outputs == ((2, 2), ())
    assert trace(lambda x: {"a": x.exp(), "b": x.detach()}, x).outputs == ((2, 2),)
    assert trace(lambda x: x, x).calls == ()
    assert trace(lambda x: None, x, backward=False).calls == ()
    with pytest.raises(TypeError, match=r"trace: a NoneType without a Tensor was returned; return one or several"):
        trace(lambda x: None, x)
    with pytest.raises(RuntimeError, match=r"trace: no output requires gradients; use a tensor with requires_grad"):
        trace(lambda x: x.exp(), normal(2))
    with pytest.raises(RuntimeError, match=r"outside of no_grad"), mf.no_grad():
        trace(lambda x: x.exp(), x)


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_nothing_is_left_out(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where every primitive computes, whoever calls it."""
    module, names = network(), []
    compute = Primitive._compute

    def counted(self, arrays, params):
        names.append(self.name)
        return compute(self, arrays, params)

    monkeypatch.setattr(Primitive, "_compute", counted)
    x = Tensor(image())
    with mf.set_grad_enabled(mode == "training"):
        y = module.train(mode == "training")(x)
        forward = len(names)
        if mode == "training":
            y.backward(np.ones(y.shape, np.float32))
        expected = names.copy()
        names.clear()
        found = trace(module, x, backward=mode == "training")
    assert [c.primitive for c in found.calls] == expected == names
    assert sum(c.phase == "forward" for c in found.calls) == forward > 20
    assert [c.number for c in found.calls] == [*range(len(expected))]


def test_layers_are_named_as_they_are_called(step: Trace) -> None:
    module, called = network(), []
    for name, layer in module.named_modules():
        if isinstance(layer, mf.nn.Conv2d | mf.nn.ConvTranspose2d):
            layer.register_forward_hook(lambda *_, name=name: called.append(name))
    module(Tensor(image()))
    convolutions = {"conv2d", "conv2d_bias", "conv_transpose2d"}
    assert [c.layer for c in step.calls if c.phase == "forward" and c.primitive in convolutions] == called
    backward = [c for c in step.calls if c.of is not None]
    assert all(c.layer == step.calls[c.of].layer for c in backward)
    first = [c for c in backward if c.layer == "backbone.conv1"]
    assert [(c.primitive, step.calls[c.of].primitive) for c in first] == [("conv2d_weight", "conv2d")]  # gx: not wanted
    assert [a.origin for a in step.calls[0].args] == ["input 0", "backbone.conv1.weight"]


def test_every_source_is_the_call_that_made_it(step: Trace) -> None:
    """Shapes and dtypes of what was given are those of what was made; further results have other shapes."""
    extras = {"batch_norm": ("mean", "var"), "max_pool2d": ("tap",), "batch_norm_grad": ()}
    for c in step.calls:
        for a in c.args:
            assert a.source is None or a.source < c.number
            if a.source is not None and a.name not in extras.get(step.calls[a.source].primitive, ()):
                assert (a.shape, a.dtype) == (step.calls[a.source].shape, step.calls[a.source].dtype), c
    named = dict(network().named_parameters())
    origins = {a.origin: a.shape for c in step.calls if c.phase == "forward" for a in c.args if a.source is None}
    assert origins.pop("input 0") == (1, 3, 40, 56)
    assert origins == {name: p.shape for name, p in named.items()}


def test_without_recording_layers_become_one_call() -> None:
    module = network().eval()
    with mf.no_grad():
        found = trace(module, image(), backward=False)
    assert found.outputs == ()
    names = [c.primitive for c in found.calls]
    assert names.count("conv2d_then") == 20
    assert "batch_norm_inference" not in names
    assert {c.kept for c in found.calls} == {0}
    second = found.calls[3]  # the block's second convolution, its norm, the shortcut from the pool and the ReLU
    assert (second.primitive, second.layer) == ("conv2d_then", "backbone.layer1.0")
    assert {a.name: a.source for a in second.args} == {"x": 2, "w": None, "b": None, "scale": None, "add": 1}


def test_a_gradient_within_the_function_is_backward_too() -> None:
    x = normal(3, requires_grad=True)

    def slope(x: Tensor) -> Tensor:
        (gx,) = mf.grad((x.exp() + x.tanh()).sum(), x, create_graph=True)
        return gx

    found = trace(slope, x)
    exp, tanh = (next(c.number for c in found.calls if c.primitive == name) for name in ("exp", "tanh"))
    inner = [c for c in found.calls if c.of in (exp, tanh)]
    assert {c.primitive for c in inner} >= {"tanh_grad", "mul"}
    product = next(c.number for c in inner if c.primitive == "mul")
    assert any(c.of == product for c in found.calls)  # the gradient's gradient: of a call in backward
    forward = [c.primitive for c in found.calls if c.phase == "forward"]
    assert forward == ["exp", "tanh", "add", "sum", "reshape"]  # the sum of cotangents is not among them
    headings = [line.split("  ")[0] for line in found.table().splitlines() if re.match("(for|back)ward ", line)]
    assert headings == ["forward", "backward", "backward from ones for the output: 3"]
    again = found.table().splitlines().index(next(s for s in found.table().splitlines() if " ones for " in s))
    assert re.match(rf" *#{found.back}  ", found.table().splitlines()[again + 2])


def test_a_result_enters_as_a_leaf() -> None:
    w = normal(3, requires_grad=True)
    x = w.exp()
    found = trace(lambda x: (x * w).sum(), x)
    assert [c.primitive for c in found.calls if c.of == 0] == ["mul", "mul"]
    assert "exp" not in [c.primitive for c in found.calls]
    x.sum().backward()  # its own graph is still there
    np.testing.assert_array_equal(w.grad.numpy(), x.numpy())


def test_layers_and_passes_around_the_trace_do_not_count() -> None:
    class Outer(mf.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = self.again = mf.nn.Sequential(mf.nn.Conv2d(2, 3, 3))  # of two names, the first

        def forward(self, x: Tensor) -> list[Trace]:
            return [trace(self.inner, x), trace(lambda x: self.again(x).exp(), x), trace(Tail(self), x)]

    class Tail(mf.nn.Module):
        def __init__(self, outer: mf.nn.Module) -> None:
            super().__init__()
            self.one, self.two = outer.inner, outer.again

        def forward(self, x: Tensor) -> Tensor:
            return self.two(x).exp()

    found = Outer()(normal(1, 2, 6, 6))
    layers = [[(c.primitive, c.layer) for c in t.calls if c.phase == "forward"] for t in found]
    assert layers == [
        [("conv2d_bias", "0")],
        [("conv2d_bias", "0"), ("exp", "")],
        [("conv2d_bias", "one.0"), ("exp", "")],
    ]
    inside: list[Trace] = []

    def back(gy: Tensor) -> Tensor:
        inside.append(trace(lambda g: g.exp(), gy, backward=False))
        return gy

    curious = Primitive("curious(x) -> y", lambda x: x * 2)
    curious.defvjp(back)
    del mf.autograd.PRIMITIVES["curious"]
    curious(normal(3, requires_grad=True)).sum().backward()
    assert [c.phase for c in inside[0].calls] == ["forward"]


def test_a_primitive_within_a_primitive() -> None:
    """The inner one is complete first; each has its own kernels."""
    outer = Primitive("outer(x) -> y", lambda x: registry.run("relu", F.softmax(F.relu(Tensor(x)), 0).data))
    del mf.autograd.PRIMITIVES["outer"]
    found = trace(outer, normal(3), backward=False)
    assert [(c.primitive, c.algorithm) for c in found.calls][:1] == [("relu", "chunks")]
    assert (found.calls[-1].primitive, found.calls[-1].algorithm) == ("outer", "chunks")
    assert all(found.calls[-1].begin <= c.begin <= c.end <= found.calls[-1].end for c in found.calls)
    check_events(found.events(), found)


def test_what_was_not_traced_is_said() -> None:
    """A call on another thread is missing. Its VJP is there where it is on the way to a leaf that was seen here."""

    def beside(work) -> Tensor:
        results: list[Tensor] = []
        thread = threading.Thread(target=lambda: results.append(work()))
        thread.start()
        thread.join()
        return results[0]

    w, other = normal(3, requires_grad=True), normal(3, requires_grad=True)

    def crossing() -> Tensor:
        h = w.exp()
        return beside(lambda: h.tanh() + other.exp()).exp()

    found = trace(crossing)
    assert [(c.primitive, c.phase, c.of) for c in found.calls] == [
        ("exp", "forward", None),
        ("exp", "forward", None),
        ("mul", "backward", 1),
        ("tanh_grad", "backward", None),  # and nothing of other.exp()
        ("mul", "backward", 0),
    ]
    assert "\n  VJP of what was not traced\n    #3  tanh_grad" in found.table()
    assert "no backward" not in found.table()
    assert (found.back, found.calls[3].layer) == (2, "")
    check_dot(found.graphviz(), found)
    check_events(found.events(), found)

    sentence = "\n\nno backward: none of these calls leads from a leaf that requires gradients to an output\n\n"
    ready = w.exp()
    for function in (
        lambda: w,
        lambda: ready,
        lambda: ready * 2,
        lambda: beside(w.exp),
        lambda: (other.exp(), ready)[1],
    ):
        found = trace(function)
        assert (found.outputs, found.back) == (((3,),), len(found.calls))
        assert sentence in found.table()
    assert sentence not in trace(lambda: w.exp()).table()
    assert sentence not in trace(lambda: w.exp(), backward=False).table()


# -- algorithms


def test_algorithms_are_those_that_ran_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, str]] = []

    def noting(kernel: registry.Kernel) -> registry.Kernel:
        def function(*arrays, **params):
            ran.append((kernel.op, kernel.algorithm))
            return kernel.function(*arrays, **params)

        return replace(kernel, function=function)

    noted = {key: {name: noting(k) for name, k in by.items()} for key, by in registry._kernels.items()}
    monkeypatch.setattr(registry, "_kernels", noted)
    found = trace(network(), image())
    chosen = [(k.op, k.algorithm) for c in found.calls for k in c.kernels]
    outside = [pair for pair in ran if pair[0] == "move_average"]  # running statistics: no primitive's
    assert len(outside) == 40
    assert chosen == [pair for pair in ran if pair[0] != "move_average"]
    assert {"gemm", "phases", "pointwise"} <= {name for op, name in chosen if op == "conv2d"}


def test_what_was_asked_for_and_what_was_passed_over() -> None:
    x, w = normal(1, 2, 6, 6), normal(3, 2, 3, 3, requires_grad=True)

    def there_and_back(x: Tensor, w: Tensor) -> Tensor:
        return F.conv_transpose2d(F.conv2d(x, w), w)

    with mf.using(conv2d="reference"):
        found = trace(there_and_back, x, w)
    conv, tconv, *back = found.calls
    assert (conv.primitive, conv.algorithm) == ("conv2d", "reference")
    assert conv.why.startswith("asked for; ")
    assert "not pointwise: needs a 1×1 filter and no padding" in conv.why
    assert "not gemm: reference was asked for" in conv.why
    assert (tconv.primitive, tconv.algorithm) == ("conv_transpose2d", "gemm")
    assert tconv.why.startswith("the first that auto takes; ")
    assert "not winograd_f4: auto takes it for float32, 100 or more scores" in tconv.why
    assert [(c.primitive, c.of, c.algorithm) for c in back] == [
        ("conv2d", 1, "reference"),
        ("conv2d_weight", 1, "gemm"),
        ("conv2d_weight", 0, "gemm"),
        ("add", None, "NumPy"),
    ]


def test_a_kernel_chosen_within_a_forward_function() -> None:
    """Whoever calls the registry, however often, under whatever was asked for: what ran is what is said."""

    def forward(x, w, *, geom):
        with mf.using(conv2d="reference"):
            first = registry.run("conv2d", x, w, geom=geom)
        return first - registry.run("conv2d", x, w, geom=geom)

    twice = Primitive("twice(x, w) -> y", forward)
    del mf.autograd.PRIMITIVES["twice"]
    geom = mf.geometry.ConvGeometry.of_conv((1, 1, 4, 4), (1, 1, 2, 2), (1, 1), (0, 0), (1, 1), 1, "conv2d")
    (call,) = trace(lambda x, w: twice(x, w, geom=geom), normal(1, 1, 4, 4), normal(1, 1, 2, 2), backward=False).calls
    assert call.algorithm == "reference + gemm"
    assert [k.why for k in call.kernels] == ["asked for", "the first that auto takes"]


def test_it_works_in_any_place(device: str) -> None:
    w = Tensor(normal(3, 2, 3, 3).to(device).data, requires_grad=True)
    x = normal(1, 2, 6, 6).to(device)
    found = trace(lambda x, w: F.relu(F.conv2d(x, w)).sum(), x, w)
    kinds = [c.primitive for c in found.calls]
    assert kinds == ["conv2d", "relu", "sum", "reshape", "reshape", "broadcast_to", "relu_grad", "conv2d_weight"]
    assert found.calls[2].library == ("NumPy" if device == "cpu" else "CuPy")
    assert [c.library for c in found.calls[3:6]] == ["view"] * 3
    backend = "numpy" if device == "cpu" else "cupy"
    assert found.calls[0].algorithm in {k.algorithm for k in mf.algorithms("conv2d", backend)}


# -- time and memory


def test_calls_follow_each_other_in_time(step: Trace) -> None:
    assert all(0 <= c.begin <= c.end for c in step.calls)
    assert all(a.end <= b.begin for a, b in itertools.pairwise(step.calls))
    assert 0 < sum(c.seconds for c in step.calls) <= step.calls[-1].end / 1e9 <= step.seconds


def test_the_time_is_that_of_the_forward_function(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Primitive("slow(x) -> y", lambda x: (time.sleep(0.02), x * 2)[1])
    del mf.autograd.PRIMITIVES["slow"]
    (call,) = trace(slow, normal(3), backward=False).calls
    assert call.seconds >= 0.02
    monkeypatch.setattr(tape, "reasons", lambda *a, **k: (time.sleep(0.5), registry.reasons(*a, **k))[1])
    found = trace(F.relu, normal(3), backward=False)  # to ask why takes no time of the call's
    assert found.calls[0].algorithm == "chunks"
    assert found.calls[0].seconds < 0.4 < found.seconds
    outer = Primitive("outer(x) -> y", lambda x: F.relu(Tensor(x)).data)  # nor of a call's around it
    del mf.autograd.PRIMITIVES["outer"]
    found = trace(outer, normal(3), backward=False)
    assert [c.primitive for c in found.calls] == ["relu", "outer"]
    assert found.calls[1].seconds < 0.4 < found.seconds


def test_what_is_kept_is_counted_once() -> None:
    x = normal(100, requires_grad=True)
    found = trace(lambda x: (x.exp() * x.tanh() * 2.0).reshape(10, 10) ** 2, x)
    kept = [(c.primitive, c.kept) for c in found.calls if c.phase == "forward" and c.library != "view"]
    # exp and tanh keep what they return, which their product needs as well, and x**2 its argument. The factor 2, a
    # scalar, is a constant that is stretched without a copy.
    assert kept == [("exp", 400), ("tanh", 400), ("mul", 0), ("mul", 4), ("power", 400)]


@pytest.mark.parametrize("name", ["fcn8s_resnet18", "fcn32s_vgg16"])
def test_what_is_kept_is_what_stays_allocated(name: str) -> None:
    """NumPy tells tracemalloc of every array: those that live after a forward pass are what is kept and the output."""
    module, x = network(name), Tensor(image())
    threads = mf.get_num_threads()
    mf.set_num_threads(1)  # each has scratch memory of its own, which stays as well; this one's is there
    arrays = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    try:
        kept = sum(c.kept for c in trace(module, x).calls)
        tracemalloc.start()
        y = module(x)
        snapshot = tracemalloc.take_snapshot().filter_traces([arrays])
    finally:
        tracemalloc.stop()
        mf.set_num_threads(threads)
    whole = y.numpy()
    while whole.base is not None:  # fcn32s cuts its scores out of more
        whole = whole.base
    assert sum(entry.size for entry in snapshot.traces) == kept + whole.nbytes


# -- nothing is disturbed


def test_gradients_are_the_same_to_the_last_bit() -> None:
    def gradients(traced: bool) -> list[np.ndarray]:
        module = network()

        def work(x: Tensor) -> None:
            F.cross_entropy(module(x), np.ones((1, 40, 56), np.int64)).backward()

        if traced:
            trace(work, image(), backward=False)
        else:
            work(Tensor(image()))
        return [p.grad.numpy() for p in module.parameters() if p.requires_grad]

    for a, b in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_of_the_module_are_left_alone() -> None:
    module, x = network(), Tensor(image())
    trace(module, x)
    assert all(p.grad is None for p in module.parameters())
    module(x).sum().backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


def test_memory_is_freed_as_ever() -> None:
    alive: list[bool] = []

    def work(x: Tensor) -> None:
        y = x * x
        seen = weakref.ref(y.data)
        del y
        alive.append(seen() is not None)

    trace(work, normal(1000), backward=False)
    assert alive == [False]


def test_an_array_in_the_place_of_a_dead_one_is_another() -> None:
    """Python gives the identity of what has gone to what comes."""
    identities = set()

    def work() -> None:
        for _ in range(50):
            fresh = Tensor(np.full(3, 2.0))
            identities.add(id(fresh.data))
            fresh * fresh

    found = trace(work, backward=False)
    assert len(identities) < 50
    assert [[a.origin for a in c.args] for c in found.calls] == [[f"constant {k}"] * 2 for k in range(50)]


def test_errors_come_through_and_the_hook_goes() -> None:
    def fails(x: Tensor) -> Tensor:
        x.exp()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trace(fails, normal(3))
    assert not debugging.is_watched()
    with pytest.raises(ValueError, match="channels"):
        trace(F.conv2d, normal(1, 2, 5, 5), normal(1, 3, 2, 2))
    broken = Primitive("broken(x) -> y", lambda x: x + 1)
    broken.defvjp(lambda gy: 1 / 0)
    del mf.autograd.PRIMITIVES["broken"]
    with pytest.raises(ZeroDivisionError):
        trace(broken, normal(3, requires_grad=True))

    def recovers(x: Tensor) -> Tensor:
        with pytest.raises(registry.Unsupported), mf.using(conv2d="winograd_f4"):
            F.conv2d(x, normal(1, 2, 2, 2))
        return x.exp()

    assert [c.primitive for c in trace(recovers, normal(1, 2, 5, 5), backward=False).calls] == ["exp"]


def test_a_trace_within_a_trace_is_refused() -> None:
    x = normal(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="this thread is watched already, such as by a trace around this one"):
        trace(lambda x: trace(lambda x: x.exp(), x), x, backward=False)
    assert len(trace(lambda x: x.exp(), x).calls) == 2


def test_each_thread_has_its_own() -> None:
    x = normal(3)
    other: list[Trace] = []

    def work(x: Tensor) -> Tensor:
        def beside() -> None:
            assert not debugging.is_watched()
            x.tanh()
            other.append(trace(lambda x: x.sqrt(), abs(x), backward=False))
            assert not debugging.is_watched()

        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
        return x.exp()

    assert [c.primitive for c in trace(work, x, backward=False).calls] == ["exp"]
    assert [c.primitive for c in other[0].calls] == ["sqrt"]


def test_debug_mode_goes_with_it() -> None:
    x = normal(1, 2, 6, 6)
    plain = trace(lambda x: F.softmax(x, 1), x, backward=False)
    with mf.debug():
        debugged = trace(lambda x: F.softmax(x, 1), x, backward=False)
        assert [c.primitive for c in debugged.calls] == [c.primitive for c in plain.calls]
        with pytest.raises(FloatingPointError, match="log: made 3 NaN out of finite arguments"):
            trace(lambda x: x.log(), Tensor([-1.0, -2.0, -3.0]), backward=False)
        assert debugging.is_watched()  # by debug mode, still
    assert trace(lambda x: x.log(), Tensor([-1.0]), backward=False).calls[0].primitive == "log"


# -- formats


def test_the_table(step: Trace) -> None:
    x, w = normal(2, 3), normal(3, requires_grad=True)
    text = trace(lambda x, w: (x * w).sum(), x, w).table()
    lines = text.splitlines()
    assert lines[0] == "<lambda>: 8 calls of primitives; float32 where no dtype is said"
    assert re.search(r"#1  mul +2×3  2×3  → 2×3 +NumPy +\d+\.\d{3} +24 B +–$", text, re.M)
    assert re.search(r"^backward from ones for the output: scalar +ms +made +kept$", text, re.M)
    assert "  VJP of #1 mul\n" in text
    assert re.search(r"^  forward +4 +\d+\.\d{3} +28 B +0 B$", text, re.M)
    assert re.search(r"^  backward +4 +\d+\.\d{3} +36 B +0 B$", text, re.M)
    large = step.table().splitlines()
    assert max(map(len, large)) <= 120
    numbers = [int(found[1]) for line in large if (found := re.match(r" *#(\d+)  ", line))]
    assert numbers == [*range(len(step.calls))]
    shares = [float(line.split()[-2]) for line in large[large.index("") :] if line.endswith(" %")]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    assert 90 < sum(shares) <= 100.5
    assert any(line.startswith("  conv2d by phases in ") for line in large)


def test_an_empty_trace_has_every_format() -> None:
    found = trace(lambda: None, backward=False)
    assert found.table().splitlines()[0] == "<lambda>: 0 calls of primitives; float32 where no dtype is said"
    check_dot(found.graphviz(), found)
    check_events(found.events(), found)


WORD = r'(?:\w+|"(?:[^"\\]|\\.)*")'
ATTRIBUTES = rf"\[(?:\w+={WORD}(?:, )?|\w+=[\d.]+(?:, )?)+\]"


def check_dot(text: str, found: Trace) -> tuple[set[str], list[tuple[str, str]]]:
    """Read it by a small grammar: one statement a line, boxes that close, edges between nodes that are there."""
    depth, nodes, edges, boxes = 0, [], [], []
    for line in text.splitlines():
        line = line.strip()
        if match := re.fullmatch(rf"(digraph|subgraph) ({WORD}) {{", line):
            assert (match[1] == "digraph") == (depth == 0)
            boxes.append(match[2])
            depth += 1
        elif line == "}":
            depth -= 1
        elif match := re.fullmatch(rf"(\w+) -> (\w+)(?: {ATTRIBUTES})?;", line):
            edges.append((match[1], match[2]))
        elif match := re.fullmatch(rf"(\w+) {ATTRIBUTES};", line):
            nodes += [] if match[1] in ("graph", "node", "edge") else [match[1]]
        else:
            assert re.fullmatch(rf"label={WORD};", line), line
    assert depth == 0
    assert len(set(nodes)) == len(nodes)
    assert len(set(boxes)) == len(boxes)
    assert {node for edge in edges for node in edge} <= set(nodes)
    assert {node for node in nodes if node.startswith("c")} == {f"c{c.number}" for c in found.calls}
    return set(nodes), edges


def test_the_graph(step: Trace) -> None:
    x, w = normal(2, 3, requires_grad=True), normal(2, 3, requires_grad=True)
    found = trace(lambda x, w: x * w, x, w)
    nodes, edges = check_dot(found.graphviz(), found)
    assert nodes == {"v0", "v1", "v2", "c0", "c1", "c2"}  # x, w, ones; the product; g·w and g·x
    forward, saved, back, of = ([], [], [], [])
    for a, b in edges:
        kind = saved if a[0] == "v" and b != "c0" else forward if a[0] == "v" else back if b[0] == "v" else of
        kind.append((a, b))
    assert forward == [("v0", "c0"), ("v1", "c0")]
    assert sorted(saved) == [("v0", "c2"), ("v1", "c1")]
    assert back == [("c1", "v2"), ("c2", "v2")]  # drawn with the head at the tail: ones go into both products
    assert of == [("c1", "c0"), ("c2", "c0")]
    assert found.graphviz().count("[dir=back]") == 2
    nodes, edges = check_dot(step.graphviz(), step)
    assert nodes - {f"c{c.number}" for c in step.calls} == {"v0", "v1"}  # the image and the ones
    given = {(a.source, c.number) for c in step.calls for a in c.args if a.source is not None}
    assert {tuple(sorted((int(a[1:]), int(b[1:])))) for a, b in edges if a[0] == b[0] == "c"} >= given
    quoted = replace(found, calls=(replace(found.calls[0], layer='a"b\\.c'),))
    assert '"cluster_a\\"b\\\\"' in quoted.graphviz()
    check_dot(quoted.graphviz(), quoted)


def test_graphviz_reads_the_graph(step: Trace) -> None:
    dot = shutil.which("dot")
    if dot is None:
        pytest.skip("Graphviz's dot is not installed")
    drawn = subprocess.run([dot, "-Tplain"], input=step.graphviz(), capture_output=True, text=True, timeout=60)
    assert drawn.returncode == 0
    assert drawn.stderr == ""
    place = {words[1]: float(words[3]) for line in drawn.stdout.splitlines() if (words := line.split())[0] == "node"}
    assert len(place) == len(step.calls) + 2
    forward = [c for c in step.calls if c.phase == "forward"]
    assert all(place[f"c{a.source}"] > place[f"c{c.number}"] for c in forward for a in c.args if a.source is not None)


def check_events(events: dict, found: Trace) -> list[dict]:
    """The Trace Event Format: required keys, and on each thread bars that lie within or beside each other."""
    events = json.loads(json.dumps(events))["traceEvents"]
    required = {"X": {"dur", "cat"}, "M": {"args"}, "s": {"id", "cat"}, "f": {"id", "cat", "bp"}}
    for event in events:
        assert {"ph", "ts", "pid", "tid", "name"} | required[event["ph"]] <= set(event)
        for key in {"ts", "dur"} & set(event):
            assert type(event[key]) in (int, float)
            assert event[key] >= 0
            nanoseconds = round(event[key] * 1000)  # which fit into a float, and are compared as whole numbers below
            assert event[key] == nanoseconds / 1000
            event[key] = nanoseconds
    meta = [(e["name"], e["tid"], e["args"]["name"]) for e in events if e["ph"] == "M"]
    assert meta[1:] == [("thread_name", 1, "forward"), ("thread_name", 2, "backward")]
    assert meta[0][0] == "process_name"
    bars = [e for e in events if e["ph"] == "X"]
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)
    for thread in (1, 2):
        around: list[dict] = []
        for bar in (b for b in bars if b["tid"] == thread):
            while around and around[-1]["ts"] + around[-1]["dur"] <= bar["ts"]:
                around.pop()
            if around:
                assert bar["ts"] + bar["dur"] <= around[-1]["ts"] + around[-1]["dur"]
            around.append(bar)
    calls = sorted((e for e in bars if "number" in e.get("args", {})), key=lambda e: e["args"]["number"])
    assert [(e["name"], e["cat"], e["args"]["number"]) for e in calls] == [
        (c.primitive, c.phase, c.number) for c in found.calls
    ]
    return events


def test_the_events(step: Trace) -> None:
    events = check_events(step.events(), step)
    bars = [e for e in events if e["ph"] == "X"]
    for c in step.calls:
        (bar,) = [e for e in bars if e.get("args", {}).get("number") == c.number]
        assert (bar["ts"], bar["dur"]) == (c.begin, c.end - c.begin)
        assert bar["args"]["algorithm"] == c.algorithm
        assert bar["args"]["why"] == c.why
        assert bar["args"]["bytes"] == c.bytes
        around = {b["name"] for b in bars if b["ts"] <= bar["ts"] and b["ts"] + b["dur"] >= bar["ts"] + bar["dur"]}
        parts = c.layer.split(".") if c.layer else []
        assert {".".join(parts[: k + 1]) for k in range(len(parts))} <= around
        if c.of is not None:
            assert f"VJP of #{c.of} {step.calls[c.of].primitive}" in around
    starts, ends = ([e for e in events if e["ph"] == ph] for ph in "sf")
    assert {e["id"] for e in starts} == {e["id"] for e in ends} == {c.number for c in step.calls if c.of is not None}
    assert all(e["ts"] == step.calls[step.calls[e["id"]].of].begin for e in starts)
    assert ({e["tid"] for e in starts}, {e["tid"] for e in ends}) == ({1}, {2})


def test_layers_that_begin_together_lie_within_each_other() -> None:
    """By hand: two calls in one layer of another, one call beside them; times in microseconds."""

    def call(number: int, layer: str, begin: int, end: int) -> Call:
        return Call(number, "forward", "add", layer, None, (), (1,), "float32", (), "NumPy", begin, end, 4, 0)

    calls = (call(0, "a.b", 1500, 2900), call(1, "a.b", 3100, 3200), call(2, "a", 4000, 9999), call(3, "", 9999, 10000))
    bars = [(e["name"], e["ts"], e["dur"]) for e in Trace("t", calls, 1.0).events()["traceEvents"] if e["ph"] == "X"]
    assert bars == [
        ("a", 1.5, 8.499),
        ("a.b", 1.5, 1.7),
        ("add", 1.5, 1.4),
        ("add", 3.1, 0.1),
        ("add", 4.0, 5.999),
        ("add", 9.999, 0.001),
    ]


# -- the command


COMMAND = ["trace", "fcn8s_resnet18", "--size", "40x56", "--width", "0.0625", "--num-classes", "3"]


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, "--graph", "g.dot", "--json", "t.json"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("fcn8s_resnet18: ")
    assert "backward from ones for the output: 1×3×40×56" in said
    assert said.endswith("\ng.dot\n\nt.json\n")
    assert (tmp_path / "g.dot").read_text(encoding="utf-8").startswith("digraph trace {")
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["displayTimeUnit"] == "ms"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.dot", "t.json"]
    before = (tmp_path / "t.json").read_bytes()
    for words, sentence in (
        (["--json", "t.json"], "trace: t.json exists already; give --overwrite or another name"),
        (["--graph", "no/g.dot"], "trace: there is no folder no for g.dot; make it first"),
        (["--graph", "a", "--json", "a"], "trace: a is given twice; a file for each is needed"),
    ):
        assert main([*COMMAND, *words]) == 2
        assert capsys.readouterr() == ("", f"minifcn: {sentence}\n")
    assert (tmp_path / "t.json").read_bytes() == before
    assert main([*COMMAND, "--no-backward", "--batch", "2", "--json", "t.json", "--overwrite"]) == 0
    said = capsys.readouterr().out
    assert "conv2d_then" in said
    assert "2×3×40×56" in said
    assert "\nbackward" not in said
    assert "\n  backward" not in said
    assert (tmp_path / "t.json").read_bytes() != before


def test_an_image_too_small_for_batch_norm(capsys) -> None:
    """At 16×16, layer4 has one cell: no variance in training, while evaluation takes the running statistics."""
    small = ["trace", "fcn8s_resnet18", "--size", "16x16", "--width", "0.0625"]
    assert main(small) == 2
    assert capsys.readouterr() == (
        "",
        "minifcn: trace: batch norm has 1 value per channel somewhere in fcn8s_resnet18, too few for a training step "
        "(--size 16x16, --batch 1); a larger --size or --batch is needed, or --no-backward, which takes the running "
        "statistics instead\n",
    )
    for remedy in (["--no-backward"], ["--batch", "2"], ["--size", "16x33"]):
        assert main([*small, *remedy]) == 0
        assert capsys.readouterr().err == ""


def test_a_model_is_run_once_before() -> None:
    module, runs = network(), []
    module.register_forward_hook(lambda *_: runs.append(mf.is_grad_enabled()))
    found = trace_model(module, "mine", (33, 40), 2)
    assert (found.title, found.outputs, runs) == ("mine", ((2, 3, 33, 40),), [True, True])
    assert module.training
    assert all(p.grad is None for p in module.parameters())
    found = trace_model(module, "mine", (33, 40), backward=False)
    assert runs == [True, True, False, False]
    assert not module.training

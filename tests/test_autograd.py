"""The engine: recording, walking, memory, misuse."""

import gc
import threading
import tracemalloc
import weakref
from collections.abc import Callable

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn.autograd import PRIMITIVES, Primitive, Tensor


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


def test_chain_rule_by_hand() -> None:
    x, y = leaf(2.0), leaf(3.0)
    z = x * y + x  # ∂z/∂x = y + 1, ∂z/∂y = x
    (z * z).backward()  # ∂/∂x = 2z(y + 1) = 2·8·4, ∂/∂y = 2z·x = 2·8·2
    assert (x.grad.item(), y.grad.item()) == (64.0, 32.0)


def test_gradients_accumulate_until_cleared() -> None:
    x = leaf(3.0)
    (x * 2).backward()
    (x * 5).backward()
    assert x.grad.item() == 7.0
    x.grad = None
    (x * 5).backward()
    assert x.grad.item() == 5.0


def test_one_tensor_used_many_times() -> None:
    x = leaf(2.0)
    y = x
    for _ in range(20):
        y = y + y  # 2²⁰ paths, 20 nodes
    y.backward()
    assert x.grad.item() == 2.0**20


@pytest.mark.parametrize("length", [5_000, 50_000])
def test_long_chains_do_not_recurse(length: int) -> None:
    x = leaf(1.0)
    y = x
    for _ in range(length):
        y = y + 1.0
    y.backward()
    assert x.grad.item() == 1.0
    del y  # nor does taking the chain down
    z = x
    for _ in range(length):
        z = z + 1.0
    del z


def test_double_backward_and_third_order() -> None:
    x = leaf(2.0)
    orders = []
    y = x**4
    for _ in range(3):
        (y,) = mf.grad(y, x, create_graph=True)
        orders.append(y.item())
    assert orders == [32.0, 48.0, 48.0]  # 4x³, 12x², 24x


def test_backward_with_create_graph_leaves_a_differentiable_grad() -> None:
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    (second,) = mf.grad(x.grad, x)
    assert second.item() == 18.0


def test_grad_of_an_intermediate_result() -> None:
    x = leaf(2.0)
    h = x * x
    y = h * h
    gh, gx = mf.grad(y, [h, x])
    assert (gh.item(), gx.item()) == (8.0, 32.0)  # 2h, 4x³
    assert x.grad is None


def test_grad_of_several_outputs_with_cotangents() -> None:
    x = leaf(1.0, 2.0)
    (g,) = mf.grad([x * 2, x * x], x, [np.array([1.0, 10.0]), np.array([100.0, 1.0])])
    np.testing.assert_array_equal(g.data, [2 + 200, 20 + 4])


def test_unused_input_raises_or_gives_zeros() -> None:
    x, other = leaf(1.0), leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"no output depends on input 1, shape \(2,\)"):
        mf.grad(x * 2, [x, other])
    gx, gother = mf.grad(x * 2, [x, other], allow_unused=True)
    assert gx.item() == 2.0
    np.testing.assert_array_equal(gother.data, [0.0, 0.0])


def test_a_graph_walked_twice_says_that_it_was_freed() -> None:
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match=r"the graph of mul was freed .* retain_graph=True"):
        y.backward()
    z = x * x
    z.backward(retain_graph=True)
    z.backward()
    assert x.grad.item() == 12.0


def test_freed_in_the_middle_is_noticed_too() -> None:
    x = leaf(2.0)
    shared = x * x
    (shared * 3).backward()
    with pytest.raises(RuntimeError, match="was freed"):
        (shared * 5).backward()


def test_backward_arguments_are_checked() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"gradient is missing for shape \(2,\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"gradient has shape \(3,\) and the tensor \(2,\)"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(RuntimeError, match="does not require gradients"):
        Tensor([1.0]).backward()
    with pytest.raises(RuntimeError, match="input 0, shape .* does not require gradients"):
        mf.grad(x.sum(), Tensor([1.0]))
    (x * 2).backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad.data, [2.0, 20.0])


def test_no_grad_as_block_decorator_and_per_thread() -> None:
    x = leaf(1.0)

    @mf.no_grad()
    def double(t: Tensor) -> Tensor:
        return t * 2

    assert not double(x).requires_grad
    with mf.no_grad():
        assert not (x * 2).requires_grad
        with mf.set_grad_enabled(True):
            assert (x * 2).requires_grad
        assert not mf.is_grad_enabled()
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(mf.is_grad_enabled()))
        thread.start()
        thread.join()
        assert seen == [True]
    with pytest.raises(ZeroDivisionError), mf.no_grad():
        raise ZeroDivisionError
    assert mf.is_grad_enabled()


def test_parameters_changed_before_backward_are_caught() -> None:
    w = leaf(2.0)
    y = w * w
    w.data = w.data - 1.0
    with pytest.raises(RuntimeError, match=r"x of mul, shape \(1,\), was changed in place|y of mul"):
        y.backward()
    y = w * w
    (w * 3).backward()
    mf.optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


def test_a_view_shares_its_base_s_changes() -> None:
    w = Tensor(np.ones((2, 3)), requires_grad=True)
    y = w.reshape(3, 2) * w.reshape(3, 2).exp()
    with w.writing() as array:
        array += 1
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.sum().backward()


def test_results_cannot_be_written_into() -> None:
    y = leaf(1.0, 2.0) * 2
    with pytest.raises(ValueError, match="read-only"):
        y.data[0] = 5
    with pytest.raises(RuntimeError, match="only leaves may be changed in place"), y.writing():
        pass
    with pytest.raises(TypeError, match="item assignment"):
        y[0] = 5.0  # type: ignore[index]


def test_the_caller_s_array_stays_writable() -> None:
    array = np.ones((2, 2), np.float32)
    F.dropout(Tensor(array), p=0.0)
    Tensor(array).reshape(4)
    Tensor(array).to("cpu")
    F.relu(Tensor(array))
    array[0, 0] = 7
    assert array[0, 0] == 7


def test_values_are_kept_only_if_a_gradient_names_them() -> None:
    """relu names its output and not its input; conv2d's image is not named when only the image needs a gradient."""
    x = Tensor(np.ones((1, 1, 4, 4)), requires_grad=True)
    w = Tensor(np.ones((1, 1, 3, 3)))
    h = x * 2
    alive = weakref.ref(h)
    y = F.conv2d(h, w)
    del h
    gc.disable()
    try:
        assert alive() is None
        r = F.relu(y)
        alive = weakref.ref(y)
        del y
        assert alive() is None
        r.sum().backward()
    finally:
        gc.enable()
    assert x.grad.data.sum() == 2 * 9 * 4


def test_memory_goes_back_as_backward_goes() -> None:
    """Thirty 1 MB activations: forward keeps them, backward hands each back and needs few beside them."""
    x = Tensor(np.ones((1 << 17,)), requires_grad=True)  # 1 MiB
    tracemalloc.start()
    try:
        y = x
        for _ in range(30):
            y = y.tanh()
        kept, _ = tracemalloc.get_traced_memory()
        y = y.sum()
        tracemalloc.reset_peak()
        y.backward()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    megabyte = x.data.nbytes
    assert 29 * megabyte < kept < 32 * megabyte
    assert peak - kept < 6 * megabyte
    assert after < 3 * megabyte


def test_a_dropped_graph_is_freed_without_the_garbage_collector() -> None:
    x = Tensor(np.ones(4), requires_grad=True)
    y = (x.exp() * x).tanh()
    alive = weakref.ref(y)
    gc.disable()
    try:
        del y
        assert alive() is None
    finally:
        gc.enable()


def test_integers_and_dtypes() -> None:
    assert Tensor([1, 2]).dtype.kind == "i"
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor(np.array([1.0])).dtype == np.float64
    with pytest.raises(TypeError, match="requires_grad with dtype int64"):
        Tensor(np.array([1]), requires_grad=True)
    x, y = Tensor([1.0], requires_grad=True), Tensor(np.array([2.0]), requires_grad=True)
    (x * y).backward()
    assert (x * y).dtype == np.float64
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)


def test_numpy_on_the_left_gives_a_tensor() -> None:
    x = leaf(1.0, 2.0)
    y = np.array([3.0, 4.0]) * x - np.float64(1)
    assert isinstance(y, Tensor)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, [3.0, 4.0])


def test_tensor_as_array_number_and_text() -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3))
    assert np.asarray(x) is not None
    assert np.shares_memory(np.asarray(x), x.data)
    assert (len(x), x.shape, x.ndim, x.size, x.device) == (2, (2, 3), 2, 6, "cpu")
    assert float(x[1, 2]) == 5.0
    assert repr(Tensor([1.5], requires_grad=True)) == "Tensor([1.5], dtype=float32, requires_grad=True)"
    with pytest.raises(ValueError, match="6 elements; exactly one is needed"):
        x.item()


def test_a_primitive_of_ones_own() -> None:
    """A user can add one: forward on arrays, VJP in tensors; a missing VJP says so."""
    cube = Primitive("cube(x) -> y", lambda x: x**3)
    try:
        x = leaf(2.0)
        with pytest.raises(NotImplementedError, match="cube: no VJP"):
            cube(x)
        cube.defvjp(lambda gy, x: gy * x * x * 3)
        from minifcn.gradcheck import check_grad

        check_grad(cube, [np.array([1.5, -2.0])])
    finally:
        del PRIMITIVES["cube"]


def test_mixed_backends_name_both() -> None:
    class FakeCuPyArray:
        __cuda_array_interface__ = {"shape": (1,)}  # noqa: RUF012
        __module__ = "cupy"
        dtype, shape, ndim, size = np.dtype(np.float64), (1,), 1, 1

    FakeCuPyArray.__module__ = "cupy._core"
    with pytest.raises(TypeError, match=r"NumPy and CuPy arrays in one call.*\.to\(\"cpu\"\)"):
        leaf(1.0) + Tensor(FakeCuPyArray())  # type: ignore[arg-type]


def test_no_gpu_is_one_sentence() -> None:
    usable, reason = mf.gpu_status()
    if usable:
        pytest.skip("a GPU is there")
    with pytest.raises(RuntimeError, match="no GPU can be used: "):
        leaf(1.0).cuda()
    assert reason
    with pytest.raises(TypeError, match="gpu"):
        leaf(1.0).to("gpu")


def test_every_leaf_gets_a_gradient_of_its_own() -> None:
    """One cotangent reaches both leaves of a sum; scaling one gradient in place must not scale the other, nor g."""
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    g = np.array([1.0, 1.0])
    (a + b).backward(g)
    with a.grad.writing() as array:
        array *= 0.5
    np.testing.assert_array_equal(a.grad.data, [0.5, 0.5])
    np.testing.assert_array_equal(b.grad.data, [1.0, 1.0])
    np.testing.assert_array_equal(g, [1.0, 1.0])


def test_indices_and_masks_are_taken_as_they_were() -> None:
    x = leaf(1.0, 2.0, 3.0)
    at, mask = np.array([0, 0]), np.array([True, False, True])
    y, z = x[at], mf.where(mask, x, 0.0)
    at[...], mask[...] = 2, False
    (y.sum() + 10 * z.sum()).backward()
    np.testing.assert_array_equal(x.grad.data, [12, 0, 10])


def test_what_is_above_an_input_is_not_freed() -> None:
    a = leaf(3.0)
    b = a * a
    c = b * b
    (gb,) = mf.grad(c, b)
    (ga,) = mf.grad(b, a)
    assert (gb.item(), ga.item()) == (18.0, 6.0)


def test_one_decorated_function_in_two_threads() -> None:
    """The thread that records goes in first and comes out first; each gets its own mode back."""
    inside, leave = threading.Barrier(2), threading.Event()
    modes: dict[str, bool] = {}

    @mf.no_grad()
    def both(name: str) -> None:
        inside.wait()
        if name == "off":
            leave.wait()

    def recording() -> None:
        both("on")
        modes["on"] = mf.is_grad_enabled()
        leave.set()

    def not_recording() -> None:
        with mf.no_grad():
            both("off")
            modes["off"] = mf.is_grad_enabled()

    threads = [threading.Thread(target=f) for f in (recording, not_recording)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert modes == {"on": True, "off": False}


def test_iteration_and_unpacking() -> None:
    a, b = Tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    (a * b).sum().backward()
    assert [row.data.tolist() for row in Tensor(np.eye(2))] == [[1, 0], [0, 1]]
    assert f"{Tensor([1.23456]):.2f}" == "1.23"
    with pytest.raises(TypeError, match="a scalar tensor has no length"):
        list(Tensor(1.0))


def test_integers_take_the_other_side_s_float() -> None:
    i, f = Tensor([1, 2]), Tensor([0.5, 0.5])
    assert [(i * f).dtype, (i + 0.5).dtype, (i / 2).dtype, (i / i).dtype] == [np.float32] * 4
    assert (i * i).dtype == np.int64
    with pytest.raises(TypeError, match="gradient has dtype complex128 and the tensor float32"):
        (Tensor([1.0], requires_grad=True) * 2).backward(Tensor(np.array([1j])))
    x = Tensor([1.0], requires_grad=True)
    (x * 2).backward(np.array([1.5]))  # float64, as PyTorch cast to the tensor's float32
    assert x.grad.dtype == np.float32
    assert x.grad.item() == 3


def test_a_tensor_of_a_tensor_shares_its_changes() -> None:
    w = leaf(2.0)
    y = w * w
    with Tensor(w).writing() as array:
        array += 1
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


def test_a_freed_branch_beside_the_way_is_no_hindrance() -> None:
    x, w = leaf(3.0), leaf(2.0)
    h = x * x
    h.sum().backward()
    (g,) = mf.grad((h + w * w).sum(), [w])
    assert g.item() == 4
    with pytest.raises(RuntimeError, match="was freed by an earlier backward"):
        mf.grad((h + w * w).sum(), [x])
    with pytest.raises(RuntimeError, match="was freed by an earlier backward"):
        (h + w * w).sum().backward()


def test_a_copy_by_an_array_index_does_not_share_changes() -> None:
    w = Tensor(np.ones((2, 3)), requires_grad=True)
    y = w[:, [0, 1]]
    z = (y * y).sum()
    with w.writing() as array:
        array -= 1
    z.backward()  # y is a copy: it is as it was
    assert w.grad.data.tolist() == [[2, 2, 0], [2, 2, 0]]


def test_a_detached_tensor_with_another_array_leaves_the_first_alone() -> None:
    w = Tensor(np.ones(2), requires_grad=True)
    y = (w * w).sum()
    d = w.detach()
    d.data = np.zeros(2)
    y.backward()
    assert w.grad.data.tolist() == [2, 2]
    y = (w * w).sum()
    w.detach().data -= 1  # in place, in w's memory
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


def test_threads_add_their_gradients_to_one_leaf() -> None:
    w = Tensor(np.zeros(1), requires_grad=True)

    def work() -> None:
        for _ in range(300):
            (w * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert w.grad.item() == 1200


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Tensor(None), TypeError, "Tensor: NoneType became dtype object; numbers are needed"),
        (lambda: Tensor(["a"]), TypeError, "numbers are needed"),
        (lambda: Tensor([[1, 2], [3]]), ValueError, "Tensor: no array can be made"),
        (lambda: Tensor([1.0], 3), TypeError, "requires_grad is 3; True or False"),
        (lambda: Tensor(np.ma.masked_array([1.0, 2.0], [0, 1])), TypeError, "a masked array"),
        (lambda: mf.grad(3.0, leaf(1.0)), TypeError, "grad: outputs holds a float"),
        (lambda: mf.grad(leaf(1.0) * 2, None), TypeError, "grad: inputs holds a NoneType"),
        (lambda: mf.grad(leaf(1.0) * 2, []), ValueError, "grad: no inputs"),
        (lambda: setattr(leaf(1.0), "data", 5), TypeError, "Tensor.data: a int was assigned"),
        (lambda: (leaf(1.0) * 2).backward(2.0), TypeError, "backward: gradient is a float"),
        (lambda: int(Tensor([np.nan])), ValueError, "int: the value is nan"),
    ],
)
def test_wrong_arguments_get_one_sentence(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_matrix_is_an_array() -> None:
    m = Tensor(np.matrix([[1.0, 2.0], [3.0, 4.0]]))
    assert (m * m).data.tolist() == [[1, 4], [9, 16]]
    assert 3.0 in m
    assert 5.0 not in m


def own(vjp: Callable[..., Tensor]) -> Primitive:
    p = Primitive("own(x) -> y", lambda x: x * 2)
    p.defvjp(vjp)
    del PRIMITIVES["own"]
    return p


def test_mistakes_in_ones_own_primitive_are_named() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(TypeError, match=r"own: its VJP names 'z'; arguments \(x\), the result \(y\)"):
        own(lambda gy, z: gy * z)(x).sum().backward()
    with pytest.raises(RuntimeError, match=r"shape \(2,\) came out as \(1,\)"):
        own(lambda gy: gy[:1])(x).sum().backward()
    with pytest.raises(TypeError, match="own: arguments are ndarray; Tensors are needed"):
        own(lambda gy: gy)(np.ones(2))

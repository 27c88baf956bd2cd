"""The GPU backend beyond what its kernels compute: which is taken, how work is cut, errors, memory, determinism."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cases import CONV_CASES
from PIL import Image
from test_kernels import EXAMPLES, IN_PLACE, normal

import minifcn as mf
import minifcn.functional as F
from minifcn import kernels, nn
from minifcn.array import backend_of, is_array, to_device
from minifcn.cli import main
from minifcn.geometry import ConvGeometry
from minifcn.kernels.conv_winograd import cook_toom
from minifcn.kernels.cuda import conv_gemm, conv_implicit, conv_winograd, load, norm
from minifcn.kernels.registry import REFERENCE


@pytest.fixture
def high() -> Iterator[None]:
    mf.set_float32_matmul_precision("high")
    yield
    mf.set_float32_matmul_precision("highest")


def conv(x: tuple[int, ...], w: tuple[int, ...], stride: int = 1, padding: int = 0, groups: int = 1) -> ConvGeometry:
    return ConvGeometry.of_conv(x, w, (stride, stride), (padding, padding), (1, 1), groups, "test")


def reference(op: str, *arrays: np.ndarray, geom: ConvGeometry) -> np.ndarray:
    with mf.using(**{op: REFERENCE}):
        return kernels.run(op, *arrays, geom=geom)


# -- sources


def test_every_line_of_a_unit_says_where_it_is_from() -> None:
    """What a compiler complains about is found in the file that was written."""
    for unit in load.units():
        name, number = "", 0
        for line in unit.code.splitlines():
            mark = re.fullmatch(r'#line (\d+) "(.*)"', line)
            if mark:
                number, name = int(mark[1]), mark[2]
                continue
            written = (load.HERE / name).read_text().splitlines()[number - 1]
            assert line == ("" if written == "#pragma once" else re.sub(r"[^\x00-\x7f]", ".", written))
            number += 1


def test_pasted_sources_are_whole() -> None:
    assert {unit.family for unit in load.units()} == {path.stem for path in load.HERE.glob("*.cu")}
    for unit in load.units():
        assert '#include "' not in unit.code
        assert unit.code.count("typedef REAL real;") == 1


# -- what auto takes


OPERATIONS = ("conv2d", "conv_transpose2d", "conv2d_weight")


def chosen(op: str, geom: ConvGeometry, device: str, dtype: type = np.float32) -> str:
    """By the arrays' type and the geometry alone, so that large ones need no memory."""
    return kernels.chosen(op, to_device(np.zeros(1, dtype), device), geom=geom).algorithm


def taken(geom: ConvGeometry, device: str, dtype: type = np.float32) -> list[str]:
    return [chosen(op, geom, device, dtype) for op in OPERATIONS]


WIDE = conv((4, 64, 112, 112), (128, 64, 3, 3), padding=1)  # 3.7·10⁹ multiplications
LESS_WIDE = conv((1, 512, 28, 28), (512, 512, 3, 3), padding=1)  # 1.8·10⁹
SMALL = conv((1, 32, 8, 8), (32, 32, 3, 3), padding=1)
FIRST = conv((16, 3, 224, 224), (64, 3, 3, 3), padding=1)
LINEAR = conv((4, 512, 16, 16), (4096, 512, 7, 7))  # as large as WIDE, but no filters for Winograd
ONE, ONE_STRIDED = conv((1, 32, 8, 8), (32, 32, 1, 1)), conv((4, 256, 56, 56), (512, 256, 1, 1), 2)
DOWN, UP = conv((4, 128, 56, 56), (128, 128, 3, 3), 2, 1), conv((1, 11, 320, 416), (11, 11, 16, 16), 8, 4)
DEPTHWISE = conv((1, 8, 8, 8), (8, 1, 4, 4), 2, 1, groups=8)


def test_what_auto_takes(gpu: str) -> None:
    assert taken(WIDE, gpu) == ["winograd_f4"] * 3
    assert taken(LESS_WIDE, gpu) == taken(LINEAR, gpu) == taken(ONE, gpu) == ["gemm"] * 3
    assert taken(SMALL, gpu) == taken(DOWN, gpu) == taken(ONE_STRIDED, gpu) == ["implicit", "gemm", "implicit"]
    assert taken(FIRST, gpu) == ["gemm", "gemm", "implicit"]
    assert taken(UP, gpu) == ["implicit"] * 3
    assert taken(DEPTHWISE, gpu) == ["depthwise"] * 3


@pytest.mark.parametrize("precision", mf.kernels.precision.PRECISIONS)
def test_what_auto_takes_in_float64(gpu: str, high: None, precision: str) -> None:
    mf.set_float32_matmul_precision(precision)
    for geom in (WIDE, LESS_WIDE, LINEAR, SMALL, FIRST, ONE):
        assert taken(geom, gpu, np.float64) == ["gemm"] * 3
    for geom in (DOWN, UP, ONE_STRIDED):
        assert taken(geom, gpu, np.float64) == ["gemm", "implicit", "gemm"]


def test_what_auto_takes_in_tf32(gpu: str, high: None) -> None:
    assert taken(WIDE, gpu) == ["winograd_f4"] * 3
    assert taken(LINEAR, gpu) == taken(ONE, gpu) == ["gemm"] * 3
    for geom in (LESS_WIDE, SMALL, DOWN, ONE_STRIDED):
        assert taken(geom, gpu) == ["tensor_cores", "gemm", "tensor_cores"]
    assert taken(FIRST, gpu) == ["gemm", "gemm", "tensor_cores"]
    assert taken(UP, gpu) == ["tensor_cores"] * 3
    assert taken(DEPTHWISE, gpu) == ["depthwise"] * 3


def test_precision_is_a_name() -> None:
    with pytest.raises(ValueError, match="set_float32_matmul_precision: 'medium'; one of highest, high is needed"):
        mf.set_float32_matmul_precision("medium")


def test_tf32_rounds_and_highest_does_not(gpu: str, high: None) -> None:
    """1 + 2⁻¹² is 1 in TF32."""
    x, w = (np.full(shape, 1 + 2.0**-12, np.float32) for shape in ((1, 8, 8, 8), (8, 8, 3, 3)))
    on_gpu = [mf.Tensor(a).to(gpu) for a in (x, w)]
    assert F.conv2d(*on_gpu).numpy().max() == 72.0
    mf.set_float32_matmul_precision("highest")
    np.testing.assert_allclose(F.conv2d(*on_gpu).numpy(), 72 * (1 + 2.0**-12) ** 2, rtol=2e-6)


def test_winograd_never_rounds(gpu: str, high: None) -> None:
    """Asked for by name under "high", it still multiplies in float32."""
    geom = conv((2, 6, 10, 13), (5, 6, 3, 3), padding=1)
    x, w, y = (normal(*s).astype(np.float32) for s in (geom.x_shape, geom.w_shape, geom.y_shape))
    for op, arrays in [("conv2d", (x, w)), ("conv2d_weight", (x, y)), ("conv_transpose2d", (y, w))]:
        with mf.using(**{op: "winograd_f4"}):
            found = to_device(kernels.run(op, *(to_device(a, gpu) for a in arrays), geom=geom), "cpu")
        expected = reference(op, *arrays, geom=geom)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# -- how work is cut


@pytest.mark.parametrize("rows", [1, 2, 7, 10])
@pytest.mark.parametrize(("groups", "sums"), [(1, 1 << 20), (1, 0), (2, 1 << 20)])
def test_columns_a_few_rows_at_a_time(
    gpu: str, monkeypatch: pytest.MonkeyPatch, rows: int, groups: int, sums: int
) -> None:
    """A weight gradient adds up in one place for each image, or in one for all."""
    monkeypatch.setattr(conv_gemm, "SUMS", sums)
    geom = ConvGeometry.of_conv((3, 4, 9, 7), (6, 4 // groups, 3, 2), (2, 1), (1, 1), (1, 2), groups, "test")
    x, w, y = normal(*geom.x_shape), normal(*geom.w_shape), normal(*geom.y_shape)
    monkeypatch.setattr(conv_gemm, "WORKSPACE", rows * 8 * 4 * 3 * 2 * geom.y_hw[1])
    cuts = list(conv_gemm._cuts(geom, 8))
    assert {cut.rows for cut in cuts} <= set(range(1, rows + 1))
    assert sum(cut.images * cut.rows for cut in cuts) == geom.n * geom.y_hw[0]
    for op, arrays in [("conv2d", (x, w)), ("conv2d_weight", (x, y)), ("conv_transpose2d", (y, w))]:
        with mf.using(**{op: "gemm"}):
            found = kernels.run(op, *(to_device(a, gpu) for a in arrays), geom=geom)
        np.testing.assert_allclose(to_device(found, "cpu"), reference(op, *arrays, geom=geom), atol=1e-12)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_winograd_a_few_tiles_at_a_time(gpu: str, monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    geom = conv((images, 3, 10, 13), (2, 3, 3, 3), padding=2)
    x, w, y = normal(*geom.x_shape), normal(*geom.w_shape), normal(*geom.y_shape)
    for budget in (1, 36 * 5 * 4 * 8 * 3, 36 * 5 * 4 * 8 * 3 * 2):
        monkeypatch.setattr(conv_winograd, "WORKSPACE", budget)
        for op, arrays in [("conv2d", (x, w)), ("conv2d_weight", (x, y)), ("conv_transpose2d", (y, w))]:
            with mf.using(**{op: "winograd_f4"}):
                found = kernels.run(op, *(to_device(a, gpu) for a in arrays), geom=geom)
            np.testing.assert_allclose(to_device(found, "cpu"), reference(op, *arrays, geom=geom), atol=1e-11)


def test_winograds_matrices_are_those_that_are_derived(gpu: str) -> None:
    """On unit filters: G g Gᵀ is a product of two columns of G, and of the transposed filter's the turned ones."""
    _, g, _ = cook_toom(4, 3)
    matrix = np.array([[float(v) for v in row] for row in g])
    geom = conv((1, 9, 3, 3), (1, 9, 3, 3))
    w = np.eye(9).reshape(1, 9, 3, 3)
    u = to_device(conv_winograd._filters(to_device(w, gpu), geom, turned=False), "cpu").reshape(6, 6, 9)
    turned = to_device(conv_winograd._filters(to_device(w, gpu), geom, turned=True), "cpu").reshape(6, 6, 9)
    for tap in range(9):
        np.testing.assert_allclose(u[..., tap], np.outer(matrix[:, tap // 3], matrix[:, tap % 3]), atol=1e-15)
        np.testing.assert_array_equal(turned[..., tap], u[..., 8 - tap])


@pytest.mark.parametrize("algorithm", ["implicit", "tensor_cores"])
def test_filters_that_are_diagonal_in_their_channels(gpu: str, algorithm: str) -> None:
    """A bilinear upsampling is gathered, exactly; one number beside the diagonal, and all is multiplied."""
    geom = conv((2, 3, 18, 22), (3, 3, 4, 4), stride=2, padding=1)
    y, w = normal(*geom.y_shape).astype(np.float32), np.zeros((3, 3, 4, 4), np.float32)
    tent = np.array([0.25, 0.75, 0.75, 0.25])
    w[range(3), range(3)] = np.outer(tent, tent)
    with mf.using(conv_transpose2d=algorithm):
        found = to_device(kernels.run("conv_transpose2d", to_device(y, gpu), to_device(w, gpu), geom=geom), "cpu")
        y[1, 0, 2, 3] = np.inf  # not seen by the other channels, as their filters are not multiplied with it
        apart = to_device(kernels.run("conv_transpose2d", to_device(y, gpu), to_device(w, gpu), geom=geom), "cpu")
        w[2, 0, 3, 1] = 1.0
        y[1, 0, 2, 3] = 0.0
        dense = to_device(kernels.run("conv_transpose2d", to_device(y, gpu), to_device(w, gpu), geom=geom), "cpu")
    assert np.isfinite(apart[:, 1:]).all()
    assert not np.isfinite(apart[1, 0]).all()
    np.testing.assert_allclose(dense, reference("conv_transpose2d", y, w, geom=geom), atol=5e-3)
    assert np.abs(dense - found).max() > 0.1
    w[2, 0, 3, 1] = 0.0
    y[1, 0, 2, 3] = normal(*geom.y_shape)[1, 0, 2, 3]
    np.testing.assert_allclose(found, reference("conv_transpose2d", y, w, geom=geom), atol=2e-6)


@pytest.mark.parametrize("algorithm", ["implicit", "tensor_cores"])
def test_sums_in_shares(gpu: str, monkeypatch: pytest.MonkeyPatch, algorithm: str) -> None:
    """Blocks in all three axes of the grid, sums cut into shares, and an epilogue after them."""
    geom = conv((2, 7, 9, 10), (70, 7, 3, 3), padding=1)
    x, w, y = (normal(*s).astype(np.float32) for s in (geom.x_shape, geom.w_shape, geom.y_shape))
    after = [normal(70).astype(np.float32), normal(70).astype(np.float32) + 2, y[::-1].copy()]
    monkeypatch.setattr(conv_implicit, "LEAST_SHARE", 16)
    tolerance = 3e-6 if algorithm == "implicit" else 2e-3
    with mf.using(conv2d=REFERENCE):
        expected = kernels.run("conv2d", x, w, *after, geom=geom, relu=True)
    with mf.using(conv2d=algorithm, conv2d_weight=algorithm):
        found = kernels.run("conv2d", *(to_device(a, gpu) for a in (x, w, *after)), geom=geom, relu=True)
        gw = kernels.run("conv2d_weight", to_device(x, gpu), to_device(y, gpu), geom=geom)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(to_device(found, "cpu") / scale, expected / scale, atol=tolerance)
    expected = reference("conv2d_weight", x, y, geom=geom)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(to_device(gw, "cpu") / scale, expected / scale, atol=tolerance)


@pytest.mark.parametrize(("filters", "blocks"), [(130, "_large"), (60, "_flat")])
def test_large_blocks_of_tensor_cores(gpu: str, monkeypatch: pytest.MonkeyPatch, filters: int, blocks: str) -> None:
    """Those of 128 × 128, and of 64 × 128 for few filters, which small results do not get by themselves."""
    monkeypatch.setattr(conv_implicit, "ENOUGH_THREADS", 1)
    assert conv_implicit._grid(conv_implicit.TENSOR, filters, 200, 45)[0].suffix == blocks
    geom = conv((2, 5, 9, 10), (filters, 5, 3, 3), padding=1)
    x, w, y = (normal(*s).astype(np.float32) for s in (geom.x_shape, geom.w_shape, geom.y_shape))
    for op, arrays in [("conv2d", (x, w)), ("conv2d_weight", (x, y))]:
        with mf.using(**{op: "tensor_cores"}):
            found = to_device(kernels.run(op, *(to_device(a, gpu) for a in arrays), geom=geom), "cpu")
        expected = reference(op, *arrays, geom=geom)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found / scale, expected / scale, atol=2e-3)


@pytest.mark.parametrize("shape", [(3, 2, 40, 17), (5, 1, 1, 1), (700, 2, 3, 1), (1, 3, 1, 900)], ids=str)
def test_sums_over_channels_in_slices(gpu: str, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    """Slices that end within a plane, and steps that skip planes."""
    x, gy, gamma, beta = normal(*shape) + 5, normal(*shape), normal(shape[1]), normal(shape[1])
    on_gpu = [to_device(a, gpu) for a in (x, gy, gamma, beta)]
    axes = (0, 2, 3)
    mean, var = x.mean(axes), x.var(axes)
    for slice_length in (norm.SLICE, 100, 7):
        monkeypatch.setattr(norm, "SLICE", slice_length)
        np.testing.assert_allclose(to_device(kernels.run("channel_sum", on_gpu[0]), "cpu"), x.sum(axes), rtol=1e-12)
        found = kernels.run("batch_norm", on_gpu[0], *on_gpu[2:], eps=1e-3)
        np.testing.assert_allclose(to_device(found[1], "cpu"), mean, rtol=1e-12)
        np.testing.assert_allclose(to_device(found[2], "cpu"), var, rtol=1e-12, atol=1e-12)
        normal_x = (x - mean[:, None, None]) / np.sqrt(var + 1e-3)[:, None, None]
        _, ggamma, gbeta = kernels.run(
            "batch_norm_grad", on_gpu[1], on_gpu[0], on_gpu[2], mean=found[1], var=found[2], eps=1e-3
        )
        np.testing.assert_allclose(to_device(ggamma, "cpu"), (gy * normal_x).sum(axes), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(to_device(gbeta, "cpu"), gy.sum(axes), rtol=1e-11, atol=1e-12)


# -- the same bits every time


def test_the_order_of_threads_and_blocks_changes_no_bit(gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real GPU: three runs, which it orders as it likes. Emulated: forwards, backwards and shuffled."""
    for kernel in mf.algorithms(backend="cupy"):
        examples = [e for e in EXAMPLES[kernel.op]() if not kernel.refuses(e[1])][:3]
        results = []
        for order in ("forward", "reversed", "shuffled"):
            monkeypatch.setenv("CUDA_ON_CPU_ORDER", order)
            for arrays, params in examples:
                there = {
                    k: to_device(v.astype(np.float32) if v.dtype.kind == "f" else v, gpu)
                    if isinstance(v, np.ndarray)
                    else v
                    for k, v in params.items()
                }
                found = kernel.function(*(to_device(a.astype(np.float32), gpu) for a in arrays), **there)
                results.append([to_device(r, "cpu") for r in (found if isinstance(found, tuple) else [found])])
        for k, first in enumerate(results[: len(examples)]):
            for other in results[k :: len(examples)]:
                for a, b in zip(first, other, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=f"{kernel.op} {kernel.algorithm}")


def test_dropout_draws_the_cpus_mask(gpu: str) -> None:
    x = np.ones((3, 4, 50), np.float32)
    for period in (1, 50):
        on_cpu, on_gpu = (
            kernels.run("dropout", to_device(x, device), p=0.4, seed=-5, offset=7, period=period)
            for device in ("cpu", gpu)
        )
        np.testing.assert_array_equal(to_device(on_gpu, "cpu"), on_cpu)


# -- devices and memory


def test_a_model_there_and_back(gpu: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    x = mf.Tensor(normal(2, 3, 6, 5).astype(np.float32))
    on_cpu = model(x).numpy()
    before = {k: t.numpy().copy() for k, t in model.state_dict().items()}
    model.to(gpu)
    assert {t.device for t in (*model.parameters(), *model.buffers())} == {"cuda:0"}
    y = model(x.to(gpu))
    assert y.device == "cuda:0"
    np.testing.assert_allclose(y.numpy(), on_cpu, atol=1e-5)
    model.cpu()
    assert {t.device for t in model.parameters()} == {"cpu"}
    for name in ("0.weight", "0.bias"):
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), before[name])


def test_another_gpu_is_chosen_outside() -> None:
    with pytest.raises(ValueError, match=r"to: device is 'cuda:3'; .* start Python with CUDA_VISIBLE_DEVICES=3$"):
        mf.Tensor([1.0]).to("cuda:3")


def test_gradients_are_arrays_of_their_own(gpu: str) -> None:
    """Two leaves that share a cotangent: changing one gradient leaves the other as it is."""
    a, b = (mf.Tensor(to_device(np.ones(shape), gpu), requires_grad=True) for shape in ((4,), (2, 2)))
    (a + b.reshape(4)).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    a.grad.data[...] = 7.0
    assert b.grad.numpy().tolist() == [[1.0, 1.0], [1.0, 1.0]]
    x = mf.Tensor(to_device(np.ones(3), gpu), requires_grad=True)
    x.sum().backward()
    assert x.grad is not None
    x.grad.data[0] = 5.0
    assert x.grad.numpy().tolist() == [5.0, 1.0, 1.0]


def test_scalars_and_arrays_as_operands(gpu: str) -> None:
    """NumPy's scalars count as numbers on either device; CuPy's arrays are operands as NumPy's are."""
    x = mf.Tensor(np.array([1.0, 2.0], np.float32)).to(gpu)
    assert (x * np.float64(2)).numpy().tolist() == (np.float32(2) * x).numpy().tolist() == [2.0, 4.0]
    assert (x * np.float64(2)).dtype == np.float32
    assert 1.0 in x
    assert 3.0 not in x
    assert F.where(x.data > 1, x.data, 0.0).numpy().tolist() == [0.0, 2.0]
    with pytest.raises(TypeError, match="sub: an operand is boolean"):
        x - (x.data > 1)


def test_states_go_from_device_to_device(gpu: str) -> None:
    there, here = nn.Linear(3, 2).to(gpu), nn.Linear(3, 2)
    here.load_state_dict(there.state_dict())
    np.testing.assert_array_equal(here.weight.numpy(), there.weight.numpy())
    there.load_state_dict(nn.Linear(3, 2).state_dict())


def test_gradients_return_to_where_the_tensor_was(gpu: str) -> None:
    x = mf.Tensor([1.0, -2.0], requires_grad=True)
    (x.to(gpu) * 3).relu().sum().backward()
    assert x.grad is not None
    assert x.grad.device == "cpu"
    assert x.grad.numpy().tolist() == [3.0, 0.0]


def test_mixed_devices_say_the_way_out(gpu: str) -> None:
    a, b = mf.Tensor([1.0]), mf.Tensor([1.0]).to(gpu)
    for mixed in (lambda: a + b, lambda: F.linear(b[None], a[None]), lambda: mf.cat([a, b])):
        with pytest.raises(TypeError, match=r'NumPy and CuPy arrays in one call; move all .* \.to\("cpu"\) or'):
            mixed()


def test_no_memory_left(gpu: str) -> None:
    import cupy

    pool = cupy.get_default_memory_pool()
    x = mf.Tensor(np.ones((1, 1, 2000, 3000), np.float32)).to(gpu)  # far more than the pool may have lying about
    pool.free_all_blocks()
    pool.set_limit(pool.total_bytes() + 1024)
    try:
        with pytest.raises(MemoryError, match=r"relu: the GPU has no memory left \(.*\d.*of its .* MiB are in use"):
            F.relu(x)
    finally:
        pool.set_limit(0)
    assert F.relu(x).sum().item() == 6_000_000


@pytest.mark.parametrize("rule", [mf.optim.SGD, mf.optim.Adam], ids=["SGD", "Adam"])
def test_an_optimizer_goes_on_where_its_parameters_are(gpu: str, rule: type) -> None:
    """Three steps on the CPU, against one there and, with its state, two on the GPU."""
    options = {"momentum": 0.9, "weight_decay": 0.01} if rule is mf.optim.SGD else {}

    def steps(start: np.ndarray, device: str, count: int, state: dict | None = None) -> tuple[np.ndarray, dict]:
        p = mf.Tensor(to_device(start, device), requires_grad=True)
        optimizer = rule([p], lr=0.1, **options)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(count):
            optimizer.zero_grad()
            (p * p * p).sum().backward()
            optimizer.step()
        assert {backend_of(v) for v in optimizer.state[0].values() if is_array(v)} == {backend_of(p.data)}
        return p.numpy().copy(), optimizer.state_dict()

    start = normal(5, 3).astype(np.float32)
    expected, _ = steps(start.copy(), "cpu", 3)
    first, state = steps(start.copy(), "cpu", 1)
    found, _ = steps(first, gpu, 2, state)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_every_case_is_taken_by_some_algorithm(gpu: str) -> None:
    for case in CONV_CASES:
        for op in ("conv2d", "conv_transpose2d", "conv2d_weight"):
            assert chosen(op, case.geom, gpu) in {k.algorithm for k in mf.algorithms(op, "cupy")}


def test_backends_have_the_same_operations() -> None:
    assert {k.op for k in mf.algorithms(backend="cupy")} == {k.op for k in mf.algorithms()}
    assert {k.op for k in mf.algorithms(backend="cupy")} >= IN_PLACE


# -- whole programs

TINY = ["--width", "0.0625", "--size", "32x32", "--scenes", "4", "--val-scenes", "2", "--batch-size", "2"]


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_goes_the_same_way(gpu: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train`, `eval`, `predict` and --resume with --device cuda, against the CPU; a run begun there ends here."""
    on_cpu, on_gpu, moved = (tmp_path / name for name in ("cpu", "gpu", "moved"))
    assert main(["train", *TINY, "--epochs", "2", "--out", str(on_cpu)]) == 0
    assert main(["train", *TINY, "--epochs", "2", "--out", str(on_gpu), "--device", gpu]) == 0
    assert main(["train", *TINY, "--epochs", "1", "--out", str(moved)]) == 0
    assert main(["train", "--resume", str(moved), "--epochs", "2", "--device", gpu]) == 0
    expected = records(on_cpu)
    for folder in (on_gpu, moved):
        found = records(folder)
        assert len(found) == 2
        # steps of Adam follow a gradient's sign, so that rounding grows
        assert found[0]["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=1e-4)
        assert found[1]["train_loss"] == pytest.approx(expected[1]["train_loss"], rel=0.05)
    assert main(["eval", str(on_gpu), "--device", gpu]) == 0
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 41, 3), np.uint8)).save(image)
    assert main(["predict", str(on_gpu), str(image), "--out", str(tmp_path / "predicted"), "--device", gpu]) == 0
    assert main(["gradcheck", "relu", "--device", gpu]) == 0
    assert "checks of" in capsys.readouterr().out


def test_a_network_without_recording(gpu: str) -> None:
    """Conv, batch norm, shortcut and ReLU in one kernel, as on the CPU."""
    model = mf.models.create("fcn8s_resnet18", num_classes=3, width=1 / 16, seed=0)
    rng = np.random.default_rng(0)
    for p in model.parameters():
        p.data = (p.data + rng.standard_normal(p.shape) * 0.05).astype(np.float32)
    for name, t in model.named_buffers():
        if name.endswith(("mean", "var")):
            t.data[...] = rng.uniform(0.1, 1, t.shape)
    model.eval()
    x = mf.Tensor(normal(2, 3, 45, 38).astype(np.float32))
    with mf.no_grad():
        expected = model(x).numpy()
        found = model.to(gpu)(x.to(gpu)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())

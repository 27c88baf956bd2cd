"""Every registered kernel against its definition in kernels/reference.py, found in the registry, for both dtypes."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cases import CONV_CASES, DILATED_POOL, POOL_CASES, ConvCase, names

import minifcn as mf
from minifcn import kernels
from minifcn.array import to_device
from minifcn.geometry import AdaptiveGeometry, ConvGeometry, PoolGeometry, ResizeGeometry
from minifcn.kernels import conv_gemm
from minifcn.kernels.philox import philox_word, philox_words
from minifcn.kernels.registry import REFERENCE

Example = tuple[list[np.ndarray], dict[str, Any]]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def conv_examples(*args: str) -> Iterator[Example]:
    """With every geometry: x, w, y, and a bias over the channels "c" of x or "o" of y."""
    for case in CONV_CASES:
        g = case.geom
        shapes = {"x": g.x_shape, "w": g.w_shape, "y": g.y_shape, "c": (g.c,), "o": (g.o,)}
        yield [normal(*shapes[arg]) for arg in args], {"geom": g}


def with_and_without_bias(first: str, second: str, bias: str) -> Iterator[Example]:
    yield from conv_examples(first, second)
    yield from conv_examples(first, second, bias)


def max_pool_examples() -> Iterator[Example]:
    for case in [*POOL_CASES, DILATED_POOL]:
        yield [normal(*case.x)], {"geom": case.geom}
    tied = np.zeros((1, 1, 4, 4))
    yield [tied], {"geom": POOL_CASES[0].geom.of_pool(tied.shape, (2, 2), (2, 2), (0, 0), (1, 1), False, "test")}
    broken = normal(1, 2, 6, 6)
    broken[0, 0, 1, 1] = broken[0, 1, 4, 4] = broken[0, 1, 4, 5] = np.nan
    broken[0, 0, 3, 3] = np.inf
    yield (
        [np.where(normal(1, 2, 6, 6) > 1, broken, -np.inf)],
        {"geom": DILATED_POOL.geom.of_pool((1, 2, 6, 6), (3, 3), (2, 2), (1, 1), (1, 1), True, "test")},
    )
    yield [broken], {"geom": POOL_CASES[0].geom.of_pool(broken.shape, (3, 3), (2, 2), (1, 1), (1, 1), False, "test")}


def tap_examples(side: str) -> Iterator[Example]:
    for (x,), params in list(max_pool_examples())[:-1]:
        with mf.using(max_pool2d=REFERENCE):
            _, tap = kernels.run("max_pool2d", x, **params)
        yield [x if side == "x" else normal(*params["geom"].y_shape)], {"tap": tap, **params}


def avg_pool_examples(side: str) -> Iterator[Example]:
    for case in POOL_CASES:
        scale = 0.5 + np.arange(np.prod(case.geom.y_hw)).reshape(case.geom.y_hw)
        yield [normal(*(case.x if side == "x" else case.geom.y_shape))], {"scale": scale, "geom": case.geom}


def unfold_examples(side: str) -> Iterator[Example]:
    for case in CONV_CASES:
        geom = PoolGeometry.of_unfold(case.x, case.geom.w_hw, case.stride, case.padding, case.dilation, "test")
        yield [normal(*(geom.x_shape if side == "x" else geom.columns_shape))], {"geom": geom}


def adaptive_examples(side: str) -> Iterator[Example]:
    for x_hw, y_hw in [((6, 4), (3, 2)), ((7, 5), (3, 4)), ((3, 2), (5, 7)), ((5, 6), (1, 1)), ((4, 4), (0, 2))]:
        geom = AdaptiveGeometry((2, 3, *x_hw), y_hw)
        yield [normal(*(geom.x_shape if side == "x" else geom.y_shape))], {"geom": geom}


def resize_examples(side: str) -> Iterator[Example]:
    for mode in ("nearest", "bilinear"):
        for x_hw, y_hw in [((3, 4), (7, 5)), ((6, 5), (2, 3)), ((1, 1), (3, 2)), ((4, 4), (8, 8)), ((5, 3), (1, 1))]:
            for corners in (False, True) if mode == "bilinear" else (False,):
                for factor in (None, (y_hw[0] / x_hw[0] + 0.1, 1.9)):
                    geom = ResizeGeometry.of_resize(x_hw, y_hw, factor, mode, corners)
                    yield [normal(2, 3, *(x_hw if side == "x" else y_hw))], {"geom": geom}


def batch_norm_examples() -> Iterator[Example]:
    yield [normal(2, 3, 4, 5), normal(3), normal(3) + 1], {"eps": 1e-5}
    yield [normal(3, 2, 1, 1) * 100 + 7, normal(2), normal(2)], {"eps": 1e-3}
    yield [normal(4, 2, 11, 14) * 3 - 1, normal(2), normal(2)], {"eps": 1e-3}  # several steps of a GPU's block


def batch_norm_given_examples(count: int) -> Iterator[Example]:
    for (x, gamma, beta), params in batch_norm_examples():
        mean, var = normal(len(gamma)), normal(len(gamma)) ** 2
        yield [normal(*x.shape), x, gamma] if count == 3 else [x, gamma, beta], {"mean": mean, "var": var, **params}


def cross_entropy_examples(grad: bool) -> Iterator[Example]:
    for weight in (None, np.array([0.5, 0.0, 2.0, 1.5])):
        for size in (1.0, 1e4):
            x, target = normal(2, 4, 6) * size, np.arange(12).reshape(2, 6) % 5
            params = {"target": np.where(target == 4, 255, target), "weight": weight, "ignore_index": 255}
            yield [normal(2, 6), x] if grad else [x], params
    x = normal(2, 4, 6)
    x[:, :2, ::2], x[:, 3, 1] = -np.inf, -np.inf  # classes that cannot be, the first ones too
    params = {"target": np.full((2, 6), 2), "weight": None, "ignore_index": 255}
    yield [normal(2, 6), x] if grad else [x], params


def dropout_examples() -> Iterator[Example]:
    for p, offset, period in [(0.5, 0, 1), (0.1, 3, 1), (0.9, 6, 20), (1.0, 0, 1)]:
        yield [normal(2, 3, 4, 5)], {"p": p, "seed": 12345678901, "offset": offset, "period": period}


def conv_transpose2d_examples() -> Iterator[Example]:
    yield from with_and_without_bias("y", "w", "c")
    for x, w, padding in [  # many phases
        ((1, 2, 40, 61), (3, 2, 16, 48), (5, 3)),
        ((2, 2, 33, 64), (2, 2, 32, 32), (0, 16)),
    ]:
        geom = ConvGeometry.of_conv(x, w, (16, 16), padding, (1, 1), 1, "test")
        yield [normal(*geom.y_shape), normal(*w), normal(2)], {"geom": geom}


def conv2d_examples() -> Iterator[Example]:
    yield from with_and_without_bias("x", "w", "o")
    for arrays, params in conv_examples("x", "w", "o", "o", "y"):
        arrays[3] = arrays[3] * 2 + 0.5  # the scale, other numbers than the bias
        yield arrays, {"relu": True, **params}


def matmul_examples() -> Iterator[Example]:
    """Plain, transposed, batched, broadcast, of a strided view, and of nothing."""
    a, b = normal(3, 4), normal(4, 5)
    yield [a, b], {}
    yield [normal(4, 3).T, normal(5, 4).T], {}
    yield [normal(2, 3, 3, 4), np.broadcast_to(b, (2, 3, 4, 5))], {}
    yield [normal(2, 4, 3).swapaxes(1, 2), normal(2, 4, 1)], {}
    yield [normal(6, 8)[::2, ::2], b], {}
    yield [normal(2, 3, 0), normal(2, 0, 4)], {}


def label_examples() -> Iterator[Example]:
    labels = np.random.default_rng(0).integers(-1, 6, (3, 7, 40))
    for weight in ([], [np.array([0.5, 0.0, 2.0, 1.5])]):
        yield [labels, *weight], {"classes": 4, "ignore_index": 5}
        yield [labels[:, :0], *weight], {"classes": 4, "ignore_index": -100}


def add_at_examples() -> Iterator[Example]:
    yield [normal(7)], {"at": np.array([3, 0, 3, 3, 1, 0, 5]), "size": 6}
    yield [normal(600)], {"at": np.arange(600) ** 2 % 7, "size": 9}
    yield [normal(0)], {"at": np.zeros(0, np.int64), "size": 2}


def sgd_examples() -> Iterator[Example]:
    for momentum, decay in [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.5, 0.01)]:
        arrays = [normal(3, 5), normal(3, 5) + 1, *([normal(5, 3).reshape(3, 5)] if momentum else [])]
        yield arrays, {"lr": 0.1, "momentum": momentum, "weight_decay": decay}


def adam_examples() -> Iterator[Example]:
    for decay, step in [(0.0, 1), (0.1, 7)]:
        p, g, m, v = normal(4, 3), normal(4, 3) + 1, normal(4, 3) * 2, normal(3, 4).reshape(4, 3) ** 2
        yield [p, g, m, v], {"lr": 0.1, "betas": (0.9, 0.9999), "eps": 1e-8, "weight_decay": decay, "step": step}


EXAMPLES: dict[str, Callable[[], Iterator[Example]]] = {
    "conv2d": conv2d_examples,
    "conv_transpose2d": conv_transpose2d_examples,
    "conv2d_weight": lambda: conv_examples("x", "y"),
    "channel_sum": lambda: iter([([normal(2, 3, 4, 5)], {}), ([normal(1, 2, 70, 65)], {}), ([normal(0, 3, 4, 4)], {})]),
    "max_pool2d": max_pool_examples,
    "pool_take": lambda: tap_examples("x"),
    "pool_put": lambda: tap_examples("y"),
    "avg_pool2d": lambda: avg_pool_examples("x"),
    "avg_pool2d_adjoint": lambda: avg_pool_examples("y"),
    "adaptive_avg_pool2d": lambda: adaptive_examples("x"),
    "adaptive_avg_pool2d_adjoint": lambda: adaptive_examples("y"),
    "unfold": lambda: unfold_examples("x"),
    "fold": lambda: unfold_examples("columns"),
    "interpolate": lambda: resize_examples("x"),
    "interpolate_adjoint": lambda: resize_examples("y"),
    "add": lambda: iter([([normal(3, 4, 5), normal(3, 5, 4).transpose(0, 2, 1)], {}), ([np.ones(3), np.ones(3)], {})]),
    "relu": lambda: iter([([normal(3, 4, 5)], {}), ([np.array([0.0, -0.0, np.nan, np.inf, -np.inf])], {})]),
    "relu_grad": lambda: iter([([normal(3, 4), normal(3, 4)[::-1]], {}), ([np.ones(3), np.array([0.0, 1, -1])], {})]),
    "dropout": dropout_examples,
    "batch_norm": batch_norm_examples,
    "batch_norm_grad": lambda: batch_norm_given_examples(3),
    "batch_norm_inference": lambda: batch_norm_given_examples(2),
    "cross_entropy": lambda: cross_entropy_examples(False),
    "cross_entropy_grad": lambda: cross_entropy_examples(True),
    "matmul": matmul_examples,
    "label_sums": label_examples,
    "add_at": add_at_examples,
    "sgd_step": sgd_examples,
    "adam_step": adam_examples,
    "move_average": lambda: iter([([normal(5), normal(5) + 1], {"momentum": 0.1, "scale": 1.25})]),
}
IN_PLACE = {"sgd_step", "adam_step", "move_average"}
ALL = [k for k in mf.algorithms() if k.algorithm != REFERENCE]


def run(
    kernel: kernels.Kernel, arrays: list[np.ndarray], params: dict[str, Any], dtype: type, device: str = "cpu"
) -> list[np.ndarray]:
    """The kernel's results as NumPy arrays, of the arrays in this dtype, on the device."""

    def there(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        return to_device(value.astype(dtype) if value.dtype.kind == "f" else value, device)

    with mf.using(**{kernel.op: kernel.algorithm}):
        result = kernels.run(kernel.op, *map(there, arrays), **{k: there(v) for k, v in params.items()})
    return [to_device(r, "cpu") for r in (result if isinstance(result, tuple) else [result])]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equals_its_definition(kernel: kernels.Kernel, device: str, dtype: type) -> None:
    if kernel.algorithm == "tensor_cores" and dtype is np.float64:
        pytest.skip("tensor cores multiply float32, rounded to TF32")
    reference = next(k for k in mf.algorithms(kernel.op) if k.algorithm == REFERENCE)
    tolerance = 2e-3 if kernel.algorithm == "tensor_cores" else 1e-12 if dtype is np.float64 else 2e-5
    compared = 0
    for arrays, params in EXAMPLES[kernel.op]():
        if kernel.refuses(params):
            continue
        compared += 1
        expected = run(reference, arrays, params, dtype)
        results = run(kernel, arrays, params, dtype, device)
        assert results[0].dtype == expected[0].dtype
        assert results[0].dtype == dtype or kernel.op == "label_sums"
        for ours, theirs in zip(results, expected, strict=True):
            if ours.dtype.kind == "f":  # the numbers of taps may be integers of any size
                assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=1.0)
            np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=tolerance, err_msg=str(params))
    assert compared


GEMM_CUTS = {
    "one tile": {},
    "many tiles": {"TILE_BYTES": 2000},
    "columns shared, filters in parts": {"LARGE_FILTER": 0, "SHORT_TASK": 0},
    "columns shared, tile by tile": {"LARGE_FILTER": 0, "SHARED_BYTES": 3000, "SHORT_TASK": 0},
}


@pytest.mark.parametrize("cut", GEMM_CUTS)
@pytest.mark.parametrize("groups", [1, 2])
def test_im2col_however_it_is_cut(cut: str, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With filters larger than the columns, and all that may follow a convolution."""
    for name, value in GEMM_CUTS[cut].items():
        monkeypatch.setattr(conv_gemm, name, value)
    geom = ConvGeometry.of_conv((3, 6, 7, 5), (40, 6 // groups, 3, 2), (2, 1), (1, 1), (1, 2), groups, "test")
    x, w, y, b, scale, add, b_c = (
        normal(*shape) for shape in (geom.x_shape, geom.w_shape, geom.y_shape, (40,), (40,), geom.y_shape, (6,))
    )
    for op, arrays, params in [
        ("conv2d", (x, w, b, scale * 2, add), {"relu": True}),
        ("conv_transpose2d", (y, w, b_c), {}),
        ("conv2d_weight", (x, y), {}),
    ]:
        with mf.using(**{op: REFERENCE}):
            expected = kernels.run(op, *arrays, geom=geom, **params)
        with mf.using(**{op: "gemm"}):
            found = kernels.run(op, *arrays, geom=geom, **params)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12, err_msg=op)


def test_every_kernel_has_a_definition_and_examples() -> None:
    defined = {k.op for k in mf.algorithms() if k.algorithm == REFERENCE}
    assert defined == {k.op for k in ALL} == set(EXAMPLES)


@pytest.mark.parametrize("case", CONV_CASES, ids=names(CONV_CASES))
def test_convolution_definition_by_hand(case: ConvCase) -> None:
    """The definition itself, against a padded image and NumPy's sum of products, one score at a time."""
    x, w, geom = normal(*case.x), normal(*case.w), case.geom
    with mf.using(conv2d=REFERENCE):
        y = kernels.run("conv2d", x, w, geom=geom)
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in case.padding)))
    per_group = case.x[1] // case.groups
    for n, o, p, q in np.ndindex(*y.shape):
        start = o // (case.w[0] // case.groups) * per_group
        rows = p * case.stride[0] + np.arange(case.w[2]) * case.dilation[0]
        columns = q * case.stride[1] + np.arange(case.w[3]) * case.dilation[1]
        window = padded[n, start : start + per_group][:, rows][:, :, columns]
        assert y[n, o, p, q] == pytest.approx((window * w[o]).sum(), abs=1e-12)


@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d", "conv2d_weight"])
def test_tiles_change_nothing(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a few scores, in the middle of a row, give what one tile gives."""
    for arrays, params in EXAMPLES[op]():
        with mf.using(**{op: "gemm"}):
            whole = kernels.run(op, *arrays, **params)
            with monkeypatch.context() as patch:
                patch.setattr(conv_gemm, "TILE_BYTES", 600)
                patch.setattr(conv_gemm, "SHARED_BYTES", 900)
                np.testing.assert_allclose(kernels.run(op, *arrays, **params), whole, atol=1e-12, err_msg=str(params))


@pytest.mark.parametrize("kernel", ALL, ids=lambda k: f"{k.op}-{k.algorithm}")
def test_inputs_are_only_read(kernel: kernels.Kernel) -> None:
    """But by the optimizers' steps, which are there to write.

    Read-only, non-contiguous inputs are accepted and give the same, to the rounding of sums in another order."""
    for arrays, params in EXAMPLES[kernel.op]():
        if kernel.refuses(params):
            continue
        strange = []
        for a in arrays:
            b = np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a
            b.flags.writeable = kernel.op in IN_PLACE
            strange.append(b)
        for ours, plain in zip(run_as_is(kernel, strange, params), run_as_is(kernel, arrays, params), strict=True):
            np.testing.assert_allclose(
                ours, plain, rtol=0, atol=1e-13 * max(np.abs(plain[np.isfinite(plain)]).max(initial=1), 1)
            )


def run_as_is(kernel: kernels.Kernel, arrays: list[np.ndarray], params: dict[str, Any]) -> list[np.ndarray]:
    result = kernel.function(*arrays, **params)
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("op", sorted(EXAMPLES))
def test_bit_identical_for_every_thread_count(op: str) -> None:
    before = mf.get_num_threads()
    big = {
        "conv2d": ([normal(2, 8, 40, 41), normal(16, 8, 3, 3)], {"padding": (1, 1)}),
        "conv_transpose2d": ([normal(2, 16, 20, 21), normal(16, 8, 4, 4)], {"stride": (2, 2)}),
        "conv2d_weight": ([normal(2, 8, 40, 41), normal(2, 16, 40, 41)], {"padding": (1, 1)}),
    }
    examples = list(EXAMPLES[op]())
    if op in big:
        arrays, how = big[op]
        case = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "op": "test", **how}
        if op == "conv_transpose2d":
            geom = examples[0][1]["geom"].of_conv_transpose(
                arrays[0].shape, arrays[1].shape, output_padding=(0, 0), **case
            )
        else:
            geom = examples[0][1]["geom"].of_conv(arrays[0].shape, (16, 8, 3, 3), **case)
        examples.append((arrays, {"geom": geom}))
    try:
        results = []
        for count in (1, 2, 3):
            mf.set_num_threads(count)
            results.append([np.asarray(kernels.run(op, *(v.copy() for v in a), **p)[0]) for a, p in examples])
    finally:
        mf.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


# image, filter, stride, padding: few filters and many for Winograd, an upsampler, a 1×1, a filter that dominates
BIG = [
    ((2, 24, 40, 41), (32, 24, 3, 3), 1, 1),
    ((1, 160, 24, 30), (176, 160, 3, 3), 1, 1),
    ((1, 21, 80, 96), (21, 21, 16, 16), 8, 4),
    ((2, 48, 30, 31), (64, 48, 1, 1), 1, 0),
    ((1, 64, 12, 15), (600, 64, 7, 7), 1, 3),
]


@pytest.mark.parametrize("shapes", BIG, ids=str)
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d", "conv2d_weight"])
def test_every_way_to_convolve_is_bit_identical_for_every_thread_count(op: str, shapes: tuple) -> None:
    x_shape, w_shape, stride, padding = shapes
    geom = ConvGeometry.of_conv(x_shape, w_shape, (stride,) * 2, (padding,) * 2, (1, 1), 1, "test")
    x, w, y = (normal(*s).astype(np.float32) for s in (geom.x_shape, geom.w_shape, geom.y_shape))
    arrays = {"conv2d": (x, w), "conv_transpose2d": (y, w), "conv2d_weight": (x, y)}[op]
    before = mf.get_num_threads()
    for kernel in mf.algorithms(op):
        if kernel.algorithm == REFERENCE or kernel.refuses({"geom": geom}):
            continue
        try:
            results = []
            for count in (1, 2, 3, 2):
                mf.set_num_threads(count)
                results.append(kernel.function(*arrays, geom=geom).copy())
        finally:
            mf.set_num_threads(before)
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other, err_msg=kernel.algorithm)


def test_philox_known_answers() -> None:
    """The vectors of Random123's kat_vectors for philox4x32-10, and the stream in one piece or many."""
    from minifcn.kernels.philox import philox4x32

    ones = 0xFFFFFFFF
    assert philox4x32((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox4x32((ones,) * 4, (ones,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    assert philox4x32((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)) == (
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    )
    words = philox_words(7, 0, 50)
    assert [philox_word(7, k) for k in range(50)] == words.tolist()
    np.testing.assert_array_equal(np.concatenate([philox_words(7, 0, 13), philox_words(7, 13, 37)]), words)


def test_dropout_keeps_its_share() -> None:
    y = kernels.run("dropout", np.ones(200_000), p=0.3, seed=1, offset=0, period=1)
    assert set(np.unique(y)) == {0.0, 1 / 0.7}
    assert abs((y == 0).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / y.size)  # four standard deviations


def test_registry_is_strict() -> None:
    geom = CONV_CASES[0].geom
    x, w = normal(*geom.x_shape), normal(*geom.w_shape)
    with pytest.raises(ValueError, match="no operation 'conv3d'"), mf.using(conv3d="gemm"):
        pass
    known = str(sorted(k.algorithm for k in mf.algorithms("conv2d")))
    with pytest.raises(ValueError, match=re.escape(f"no algorithm 'fft' for numpy; there are {known}")):  # noqa: SIM117
        with mf.using(conv2d="fft"):
            kernels.run("conv2d", x, w, geom=geom)
    chosen = dict(line.split()[:2] for line in mf.explain("conv2d", x, w, geom=geom).splitlines()[1:])
    others = {k.algorithm for k in mf.algorithms("conv2d")} - {"gemm"}
    assert chosen == {"gemm": "yes", **dict.fromkeys(others, "no")}
    with pytest.raises(TypeError, match="arrays of"):
        kernels.run("relu", [1.0, 2.0])


def test_workspace_stays_under_its_cap() -> None:
    """A padded conv whose im2col would take 75 MB allocates little more than its result, about 3 MB for each thread."""
    import tracemalloc

    geom = CONV_CASES[0].geom.of_conv((1, 32, 256, 256), (4, 32, 3, 3), (1, 1), (1, 1), (1, 1), 1, "test")
    x, w = np.ones(geom.x_shape, np.float32), np.ones(geom.w_shape, np.float32)
    before = mf.get_num_threads()
    mf.set_num_threads(2)
    tracemalloc.start()
    try:
        y = kernels.run("conv2d", x, w, geom=geom)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        mf.set_num_threads(before)
    columns = x.nbytes * 9
    assert peak - y.nbytes < 12e6 < columns / 6

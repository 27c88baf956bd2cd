"""What the functions say about wrong arguments, and the corners that PyTorch's users know."""

from collections.abc import Callable

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn import nn
from minifcn.autograd import Tensor


def t(*shape: int, dtype: type = np.float32) -> Tensor:
    return Tensor(np.ones(shape, dtype))


LABELS = np.zeros((2, 4, 4), np.int64)
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: F.conv2d(t(2, 4, 9, 9), t(8, 3, 3, 3)), ValueError, "conv2d: input has 4 channels but weight expects 3"),
    (lambda: F.conv2d(t(4, 9), t(8, 4, 3, 3)), ValueError, r"conv2d: input has 2 axes, shape \(4, 9\)"),
    (lambda: F.conv2d(t(1, 4, 9, 9), t(8, 4, 3)), ValueError, "conv2d: weight has 3 axes"),
    (lambda: F.conv2d(t(1, 4, 9, 9), t(8, 4, 3, 3, dtype=np.float64)), TypeError, "input float32, weight float64"),
    (lambda: F.conv2d([[1.0]], t(1, 1, 1, 1)), TypeError, "conv2d: input is a list"),  # type: ignore[arg-type]
    (lambda: F.conv2d(t(1, 1, 3, 3, dtype=np.int64), t(1, 1, 1, 1, dtype=np.int64)), TypeError, "not floats"),
    (lambda: F.conv2d(t(1, 1, 3, 3), t(2, 1, 1, 1), t(3)), ValueError, r"bias has shape \(3,\) but there are 2"),
    (lambda: F.conv2d(t(1, 1, 3, 3), t(1, 1, 1, 1), stride=0), ValueError, "conv2d: stride is 0; at least 1"),
    (lambda: F.conv2d(t(1, 1, 3, 3), t(1, 1, 1, 1), padding=-1), ValueError, "conv2d: padding is -1; at least 0"),
    (lambda: F.conv2d(t(1, 1, 3, 3), t(1, 1, 1, 1), padding="full"), ValueError, "one of 'same', 'valid'"),
    (lambda: F.conv2d(t(1, 1, 3, 3), t(1, 1, 3, 3), stride=2, padding="same"), ValueError, "it needs stride 1"),
    (lambda: F.conv_transpose2d(t(1, 2, 3, 3), t(3, 1, 3, 3)), ValueError, "input has 2 channels but weight expects 3"),
    (
        lambda: F.conv_transpose2d(t(1, 2, 3, 3), t(2, 1, 3, 3), stride=2, output_padding=2),
        ValueError,
        "output_padding 2 along the height must be smaller than stride or dilation",
    ),
    (
        lambda: F.conv_transpose2d(t(1, 2, 3, 3), t(2, 1, 3, 3), stride=2, output_size=(9, 7)),
        ValueError,
        r"output_size \(9, 7\); \(7, 7\) to \(8, 8\) is possible",
    ),
    (
        lambda: F.conv_transpose2d(t(1, 2, 3, 3), t(2, 1, 3, 3), stride=2, output_padding=1, output_size=(8, 8)),
        ValueError,
        "both output_size",
    ),
    (lambda: F.max_pool2d(t(1, 1, 4, 4), 2, padding=2), ValueError, "padding 2 along the height exceeds half"),
    (lambda: F.max_pool2d(t(1, 1, 1, 4), 2), ValueError, "output's height would be 0"),
    (lambda: F.avg_pool2d(t(1, 1, 4, 4), 2, divisor_override=0), ValueError, "divisor_override is 0"),
    (
        lambda: F.batch_norm(t(1, 3, 1, 1), None, None, training=True),
        ValueError,
        "1 value per channel in training, shape",
    ),
    (lambda: F.batch_norm(t(2, 3, 2, 2), None, None), ValueError, "running_mean and running_var are None"),
    (lambda: F.batch_norm(t(2, 3, 2, 2), t(2), t(2)), ValueError, "running_mean has shape .* 3 channels"),
    (lambda: F.batch_norm(t(2, 3, 2, 2), t(3), None), ValueError, "one of running_mean and running_var is None"),
    (lambda: F.batch_norm(t(2, 3, 2, 2), np.zeros(3), np.ones(3)), TypeError, "running_mean float64"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS[:, :3]), ValueError, r"input \(2, 3, 4, 4\) and target \(2, 3, 4\)"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS * 1.0), TypeError, "target has dtype float64"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS + 7), ValueError, r"labels \[7\] outside the 3 classes; 0 to 2, or"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS, t(4)), ValueError, r"weight has shape \(4,\); \(3,\)"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS, np.ones(3)), TypeError, "input float32, weight float64"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS, reduction="avg"), ValueError, "reduction is 'avg'; one of 'mean'"),
    (lambda: F.cross_entropy(t(2, 3), [0, 1]), TypeError, "target is a list"),  # type: ignore[arg-type]
    (lambda: F.conv2d(t(1, 2, 3, 3), t(0, 2, 1, 1)), ValueError, "the kernel is empty"),
    (
        lambda: F.conv2d(t(1, 2, 3, 3), t(2, 2, 1, 1), groups=1.0),  # type: ignore[arg-type]
        TypeError,
        "conv2d: groups is 1.0; an int is needed",
    ),
    (lambda: F.interpolate(t(1, 1, 2, 2), scale_factor=float("nan")), ValueError, "scale_factor is nan; a positive"),
    (
        lambda: mf.models.create("fcn8s_resnet18", width=1 / 64)(t(3, 32, 32)),
        ValueError,
        r"FCN: the image has shape \(3, 32, 32\); \(N, 3, H, W\) is needed",
    ),
    (lambda: F.dropout(t(3), 1.5), ValueError, "dropout: p is 1.5"),
    (lambda: F.linear(t(2, 3), t(4, 5)), ValueError, r"linear: input \(2, 3\) and weight \(4, 5\)"),
    (lambda: F.matmul(t(2, 3), t(4, 5)), ValueError, "inner sizes 3 and 4 differ"),
    (lambda: F.interpolate(t(1, 1, 2, 2)), ValueError, "exactly one of them is needed"),
    (lambda: F.interpolate(t(1, 1, 2, 2), size=4, mode="cubic"), ValueError, "mode is 'cubic'; one of 'nearest'"),
    (lambda: F.interpolate(t(1, 1, 2, 2), size=4, align_corners=True), ValueError, 'for "bilinear" only'),
    (lambda: F.pixel_shuffle(t(1, 3, 2, 2), 2), ValueError, "3 channels and upscale_factor 2; a multiple of 4"),
    (lambda: F.pad(t(2, 2), (1,)), ValueError, "pad: 1 counts"),
    (lambda: F.pad(t(2, 2), (-2, -1)), ValueError, "crops more than shape"),
    (lambda: F.crop(t(1, 1, 4, 4), (2, 0), (3, 4)), ValueError, r"\(3, 4\) from \(2, 0\) on reaches beyond \(4, 4\)"),
    (lambda: F.pad(t(2, 3), (3, 0), "reflect"), ValueError, 'mode "reflect" along an axis of 3; at most 2 is possible'),
    (lambda: F.pad(t(2, 3), (4, 0), "circular"), ValueError, "at most 3 is possible"),
    (lambda: F.pad(t(2, 3), (1, 0, 1, 0), "replicate"), ValueError, r"two for each axis after \(N, C\) or \(C,\)"),
    (lambda: F.pad(t(1, 2, 3), (1, 0), "replicate", 2.0), ValueError, 'it is for "constant" only'),
    (lambda: F.pad(t(2, 3), (1.0, 0)), TypeError, "a sequence of ints is needed"),
    (lambda: F.unfold(t(1, 1, 2, 4), 3), ValueError, "unfold: no window fits along the height, which is 2"),
    (lambda: F.unfold(t(1, 0, 4, 4), 3), ValueError, "only the batch axis may be empty"),
    (lambda: F.fold(t(1, 9, 5), 4, 3), ValueError, "fold: input has 5 columns, but 2·2 = 4 windows"),
    (lambda: F.fold(t(1, 8, 4), 4, 3), ValueError, "8 rows and the kernel 9 taps"),
    (lambda: F.fold(t(1, 1, 9, 4), 4, 3), ValueError, "fold: input has 4 axes"),
    (lambda: F.max_unpool2d(t(1, 1, 2, 2), np.zeros((1, 1, 2, 1), int), 2), ValueError, "equal shapes are needed"),
    (lambda: F.max_unpool2d(t(1, 1, 2, 2), np.zeros((1, 1, 2, 2), np.int32), 2), TypeError, "int64 is needed"),
    (
        lambda: F.max_unpool2d(t(1, 1, 2, 2), np.full((1, 1, 2, 2), 16), 2),
        ValueError,
        "indices from 16 to 16 for 4×4 pixels; 0 to 15 is possible",
    ),
    (
        lambda: F.max_unpool2d(t(1, 1, 2, 2), np.zeros((1, 1, 2, 2), int), 2, output_size=(6, 4)),
        ValueError,
        r"output_size \(6, 4\); 3 to 5 by 3 to 5 is possible",
    ),
    (lambda: F.local_response_norm(t(2, 3), 2), ValueError, r"\(N, C, …\) with 3 or more is needed"),
    (lambda: F.local_response_norm(t(1, 2, 3), 0), ValueError, "size is 0; at least 1"),
    (lambda: F.local_response_norm(t(1, 2, 3), 2, alpha="1"), TypeError, "alpha is '1'; a number"),  # type: ignore[arg-type]
    (lambda: F.einsum("ij,jk", t(2, 3)), ValueError, "names 2 operands and there are 1"),
    (lambda: F.einsum("ij", t(2, 3, 4)), ValueError, "one letter for each axis is needed"),
    (lambda: F.einsum("ij->ijk", t(2, 3)), ValueError, "'k' of 'ij->ijk' is in no operand"),
    (lambda: F.einsum("ij->ii", t(2, 3)), ValueError, "'i' of 'ij->ii' is twice in the result"),
    (
        lambda: F.einsum("ij,jk", t(2, 3), t(4, 5)),
        ValueError,
        "axis 'j' of 'ij,jk' has size 4 in operand 1 and 3 before",
    ),
    (lambda: F.einsum("ii", t(2, 3)), ValueError, r"axis 'i' is twice in operand 0 of 'ii', with the sizes \[2, 3\]"),
    (lambda: F.einsum("i1", t(2, 3)), ValueError, "letters and at most one '...' are needed"),
    (lambda: F.einsum("i", np.zeros(3, int)), TypeError, "all float32 or all float64 are needed"),
    (lambda: F.cat([t(2, 3), t(3, 3)], 1), ValueError, "differ on an axis other than 1"),
    (lambda: F.cat([t(), t()]), ValueError, "cat: a scalar cannot be put after others"),
    (lambda: F.cat(t(2, 3)), TypeError, "tensors is a Tensor; a list or tuple"),  # type: ignore[arg-type]
    (lambda: F.softmax(t(2, 3), 2), ValueError, "softmax: dim is 2 for a tensor of 2 axes; -2 to 1 is possible"),
    (lambda: F.softmax(t(2, 3), "1"), TypeError, "softmax: dim is '1'; an int"),  # type: ignore[arg-type]
    (lambda: F.conv2d(t(1, 2, 0, 3), t(2, 2, 1, 1), padding=1), ValueError, "only the batch may be empty"),
    (lambda: F.max_pool2d(t(1, 2, 3, 3), 2, ceil_mode=1), TypeError, "ceil_mode is 1; True or False"),  # type: ignore[call-overload]
    (lambda: F.batch_norm(t(2, 3), None, None, training=True, eps=0.0), ValueError, "eps is 0.0; a number above 0"),
    (lambda: F.linear(t(2, 3), t(4, 3), t(2)), ValueError, "linear: shapes"),
    (lambda: t(2, 3).mean(keepdim=1), TypeError, "mean: keepdim is 1; True or False"),  # type: ignore[arg-type]
    (lambda: Tensor([1, 2]).mean(), TypeError, "mean: input has dtype int64; float32 or float64 is needed"),
    (lambda: Tensor([1, 2]) ** -1, ValueError, "pow: integers to a negative power"),
    (lambda: t(2) - True, TypeError, "sub: an operand is boolean"),
    (lambda: t(2).to("float16"), TypeError, "to: 'float16' is no dtype or device"),
    (lambda: t(2).to(None), TypeError, "to: None is no dtype or device"),
    (lambda: t(2) + np.ones(2, np.complex64), TypeError, "add: input has dtype complex64"),
    (lambda: t(2, 3)[1.0], TypeError, "index: an index is 1.0; ints, slices"),
    (lambda: t(2, 3)[np.array([0, 1], np.uint8)], TypeError, "index: an index has dtype uint8"),
    (lambda: t(2, 3)[0, 0, 0], ValueError, "index: too many indices"),
    (lambda: t(2, 3)[..., ...], ValueError, "index: an index can only have a single ellipsis"),
    (lambda: t(2, 3)[::"a"], TypeError, "index: slice"),  # type: ignore[misc]
    (lambda: t(2, 3)[::0], ValueError, "has step 0"),
    (lambda: t(2, 3).clip(), ValueError, "clip: min and max are both None"),
    (lambda: Tensor(np.zeros(2, np.uint8)).clip(0, 300), ValueError, "clip: an operand is 300 for uint8; 0 to 255"),
    (lambda: F.where(np.ones(1, bool), Tensor(np.zeros(1, np.uint8)), 300), ValueError, "300 for uint8; 0 to 255"),
    (lambda: F.pad(Tensor([1]), (1, 1), value=float("inf")), ValueError, "value is inf for int64"),
    (lambda: Tensor([1]) + 2**70, ValueError, "add: an operand is 1180591620717411303424 for int64"),
    (lambda: t(2) * 10**400, ValueError, "which is no float"),
    (
        lambda: Tensor(np.ones(1, np.int64)) + np.ones(1, np.uint64),
        TypeError,
        "add: int64 and uint64 have no integer type",
    ),
    (lambda: F.cat([Tensor(np.ones(1, np.int64)), Tensor(np.ones(1, np.uint64))]), TypeError, "cat: int64 and uint64"),
    (lambda: t(2, 3)[[[0, 1], [0]]], ValueError, "index: .* has rows of different lengths"),
    (lambda: F.conv2d(t(1, 1, 3, 3), t(1, 1, 1, 1), stride=2**70), ValueError, "conv2d: stride is 11805.*; at most"),
    (lambda: F.conv2d(t(1, 1, 3, 3), t(1, 1, 1, 1), stride=np.array([2, 2])), TypeError, "conv2d: stride is array"),
    (lambda: F.einsum("i.. .", t(2)), ValueError, "letters and at most one '...' are needed"),
    (
        lambda: F.batch_norm(t(2, 3, 2, 2), np.broadcast_to(np.float32(0), 3), t(3), training=True),
        ValueError,
        "batch_norm: running_mean is read-only",
    ),
    (lambda: nn.Sequential([nn.ReLU()]), TypeError, "Sequential: module 0 is a list; a Module is needed"),
    (lambda: nn.Sequential(nn.ReLU), TypeError, "Sequential: module 0 is the class ReLU"),
    (lambda: nn.ModuleList([1]), TypeError, "ModuleList: module 0 is a int"),
    (lambda: nn.ReLU().to(np.int32), TypeError, "ReLU.to: <class 'numpy.int32'> is no float dtype"),
    (lambda: nn.ReLU().load_state_dict(None), TypeError, "load_state_dict: state is a NoneType"),
    (lambda: mf.optim.SGD(nn.Linear(1, 1)), TypeError, "SGD: params is a Linear; model.parameters"),
    (lambda: mf.optim.SGD(nn.Linear(1, 1).state_dict()), TypeError, "SGD: params is a dict"),
    (lambda: mf.optim.SGD([1.0]), TypeError, "SGD: a parameter is a float"),
    (lambda: mf.optim.Adam(nn.Linear(1, 1).parameters(), lr="a"), TypeError, "Adam: lr is 'a'; a number"),
    (lambda: t(2, 3).var(unbiased=True, correction=0), ValueError, "var: unbiased=True and correction=0"),
    (lambda: F.stack([]), ValueError, "stack: no tensors"),
    (lambda: t(2, 3) + t(2, 4), ValueError, r"add: shapes \(2, 3\) and \(2, 4\) do not broadcast"),
    (lambda: t(2, 3) + "x", TypeError, "add: an operand is a str"),  # type: ignore[operator]
    (lambda: t(2, 3).reshape(4, 2), ValueError, r"shape \(2, 3\) has 6 elements and cannot become \(4, 2\)"),
    (lambda: t(2, 3).reshape(-1, -1), ValueError, "cannot become"),
    (lambda: t(2, 3).permute(0), ValueError, "every axis is needed once"),
    (lambda: t(2, 3).sum(2), ValueError, "dim is 2 for a tensor of 2 axes"),
    (lambda: t(2, 3).sum((0, 0)), ValueError, "names an axis twice"),
    (lambda: t(2, 3)[5], ValueError, "index 5 is out of bounds"),
    (lambda: t(2, 3).expand(4, 3), ValueError, r"shape \(2, 3\) cannot become \(4, 3\)"),
    (lambda: t(2, 3).sum(0, axis=1), TypeError, "name the same argument"),
    (lambda: t(0, 3).max(), ValueError, "has no elements"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS, ids=[str(k) for k in range(len(ERRORS))])
def test_one_sentence_names_the_fault(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_unbatched_is_a_batch_of_one() -> None:
    rng = np.random.default_rng(0)
    x, w = Tensor(rng.standard_normal((3, 6, 5))), Tensor(rng.standard_normal((3, 3, 3, 3)))
    batch = x.reshape(1, 3, 6, 5)
    for f in (
        lambda x: F.conv2d(x, w),
        lambda x: F.conv_transpose2d(x, w),
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.interpolate(x, size=3),
    ):
        np.testing.assert_array_equal(f(x).data, f(batch).data[0])


@pytest.mark.parametrize("n", [0, 1])
def test_empty_batches(n: int) -> None:
    x = Tensor(np.ones((n, 3, 6, 5), np.float32), requires_grad=True)
    w = Tensor(np.ones((4, 3, 3, 3), np.float32), requires_grad=True)
    y = F.max_pool2d(F.relu(F.conv2d(x, w, padding=1)), 2)
    assert y.shape == (n, 4, 3, 2)
    F.conv_transpose2d(y, w, stride=2).sum().backward()
    assert x.grad.shape == x.shape
    assert w.grad.shape == w.shape
    assert (n > 0) == bool(w.grad.data.any())


def test_pooling_ties_go_to_the_first_and_indices_are_flat() -> None:
    x = Tensor(np.array([[[1.0, 3, 3, 0], [3, 3, 0, 5]]]), requires_grad=True)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y.data, [[[3, 5]]])
    np.testing.assert_array_equal(indices.data, [[[1, 7]]])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, [[[0, 1, 0, 0], [0, 0, 0, 1]]])


def test_cross_entropy_with_everything_ignored_is_nan_without_gradient() -> None:
    x = Tensor(np.ones((1, 2, 3)), requires_grad=True)
    loss = F.cross_entropy(x, np.full((1, 3), 255), ignore_index=255)
    assert np.isnan(loss.item())
    loss.backward()
    np.testing.assert_array_equal(x.grad.data, 0)


def test_cross_entropy_survives_huge_logits() -> None:
    x = Tensor(np.array([[1e4, -1e4, 0.0]], np.float32), requires_grad=True)
    loss = F.cross_entropy(x, np.array([1]))
    assert loss.item() == 2e4
    loss.backward()
    np.testing.assert_array_equal(x.grad.data, [[1, -1, 0]])


def test_arrays_may_stand_for_tensors() -> None:
    x, w, b = np.ones((1, 2, 4, 4)), np.ones((3, 2, 3, 3)), np.ones(3)
    np.testing.assert_array_equal(F.conv2d(x, w, b).data, 19)
    assert F.pad(x, (1, 1)).shape == (1, 2, 4, 6)
    assert F.cat([x, x], 1).shape == (1, 4, 4, 4)
    assert F.adaptive_avg_pool2d(x, [3, 4]).shape == (1, 2, 3, 4)
    with pytest.raises(TypeError, match="bias is a int"):
        F.conv_transpose2d(x, w, 2, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_cat_of_many(count: int) -> None:
    pieces = [Tensor(np.full((2, k), float(k)), requires_grad=True) for k in range(1, count + 1)]
    joined = F.cat(pieces, 1)
    np.testing.assert_array_equal(joined.data, np.concatenate([np.array(p) for p in pieces], 1))
    (joined * np.arange(joined.shape[1], dtype=np.float64)).sum().backward()
    np.testing.assert_array_equal(
        np.concatenate([p.grad.data for p in pieces], 1)[0], np.arange(joined.shape[1], dtype=np.float64)
    )


def test_an_integer_beside_an_array_selects_first() -> None:
    """PyTorch's order of axes, not NumPy's (4, 0): the arrays index what the integer leaves."""
    x = Tensor(np.arange(36.0).reshape(3, 3, 4), requires_grad=True)
    y = x[1, :, [0, 3]]
    np.testing.assert_array_equal(y.data, x.data[1][:, [0, 3]])
    y.sum().backward()
    assert x.grad.data.sum() == 6
    assert Tensor(np.zeros((3, 1, 1, 3)))[-3, -3:0:3, np.array([-1]), [-1, -3, -2, -3]].shape == (0, 4)


def test_dtypes_of_mixed_operands() -> None:
    """Kinds before widths, tensors with axes before those without, as in PyTorch (and unlike NumPy)."""
    f32, f64, i64, b = (Tensor(np.ones(2, d)) for d in (np.float32, np.float64, np.int64, bool))
    scalar64, scalar_i = Tensor(np.float64(2)), Tensor(np.int64(2))
    cases = [
        (f32 + i64, np.float32), (f32 + f64, np.float64), (f32 * scalar64, np.float32), (i64 * scalar64, np.float64),
        (i64 + scalar_i, np.int64), (b + 1, np.int64), (b * 0.5, np.float32), (i64 / i64, np.float32),
        (b + b, np.bool_), (i64**2, np.int64), (i64**0.5, np.float32), (Tensor(np.ones(2, np.uint8)) + 300, np.uint8),
        (i64.exp(), np.float32), (i64.sum(), np.int64), (b.sum(), np.int64), (F.cat([b, i64, f32]), np.float32),
    ]  # fmt: skip
    assert [y.dtype for y, _ in cases] == [np.dtype(d) for _, d in cases]
    assert (b == -1).data.tolist() == [False, False]  # −1 does not become True


def test_none_is_unequal_to_every_tensor() -> None:
    assert (Tensor([1.0]) == None) is False  # noqa: E711
    assert (Tensor([1.0]) != "x") is True


def test_max_unpool_of_overlapping_windows_keeps_the_last() -> None:
    y = Tensor(np.array([[[1.0, 2.0, 3.0]]]), requires_grad=True)
    x = F.max_unpool2d(y, np.array([[[1, 1, 4]]]), (1, 2), output_size=(1, 6))
    np.testing.assert_array_equal(x.data, [[[0, 2, 0, 0, 3, 0]]])
    x.sum().backward()
    np.testing.assert_array_equal(y.grad.data, [[[0, 1, 1]]])


def test_local_response_norm_by_hand() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    y = F.local_response_norm(Tensor(x), 4, alpha=0.3, beta=0.7, k=1.5).data
    for n, c, m in np.ndindex(*x.shape):
        around = x[n, max(c - 2, 0) : c + 2, m]  # two before, itself, one after
        assert y[n, c, m] == pytest.approx(x[n, c, m] / (1.5 + 0.3 / 4 * (around**2).sum()) ** 0.7)


def test_batch_norm_of_nothing_moves_nothing() -> None:
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    weight = Tensor(np.ones(3, np.float32), requires_grad=True)
    y = F.batch_norm(t(0, 3, 4), mean, var, weight, training=True)
    assert y.shape == (0, 3, 4)
    y.sum().backward()
    assert weight.grad.data.tolist() == mean.tolist() == [0, 0, 0]
    assert var.tolist() == [1, 1, 1]


def test_dlpack_shares_memory_both_ways() -> None:
    array = np.arange(3.0)
    x = mf.from_dlpack(array)
    array[1] = 7
    assert x.data.tolist() == [0, 7, 2]
    back = np.from_dlpack(x)
    array[0] = 5
    assert back.tolist() == [5, 7, 2]
    assert np.from_dlpack(x * 2).tolist() == [10, 14, 4]
    with pytest.raises(BufferError, match="requires gradients cannot be shared"):
        np.from_dlpack(Tensor([1.0], requires_grad=True))
    with pytest.raises(TypeError, match="from_dlpack: a list has no __dlpack__"):
        mf.from_dlpack([1.0])


def test_numpy_scalars_and_views_are_never_written_to() -> None:
    """Every function on read-only, negatively strided input; the input is as it was."""
    base = np.random.default_rng(3).standard_normal((2, 4, 12, 12))
    view = base[:, :, ::-2, 1::2]
    view.flags.writeable = False
    before = view.copy()
    x, w = Tensor(view), Tensor(np.ones((4, 4, 3, 3))[..., ::-1])
    y, at = F.max_pool2d(x, 2, return_indices=True)
    for result in (
        F.conv2d(x, w), F.conv_transpose2d(x, w), y, F.max_unpool2d(y, at, 2), F.avg_pool2d(x, 3), F.relu(x),
        F.adaptive_avg_pool2d(x, 2), F.batch_norm(x, None, None, training=True), F.interpolate(x, size=5),
        F.softmax(x, 1), F.unfold(x, 2), F.local_response_norm(x, 3), F.pad(x, (1, 1), value=1.0), x[:, [0, 0]],
        F.cross_entropy(x, np.zeros((2, 6, 6), int)), F.dropout(x, 0.5), x.var(), F.einsum("nchv->nc", x),
    ):  # fmt: skip
        assert np.isfinite(result.data).all()
    np.testing.assert_array_equal(view, before)


def test_indices_of_an_unpooling_may_change_before_backward() -> None:
    y, at = F.max_pool2d(Tensor(np.arange(16.0).reshape(1, 1, 4, 4)), 2, return_indices=True)
    scores, indices = Tensor(y.data, requires_grad=True), at.numpy().copy()
    z = F.max_unpool2d(scores, indices, 2)
    indices[...] = 0
    z.backward(np.arange(16.0).reshape(1, 1, 4, 4))
    assert scores.grad.data.reshape(-1).tolist() == [5, 7, 13, 15]


def test_gradients_of_tensor_bounds() -> None:
    """To x within, to a bound where it is what counts, and nowhere where x is NaN or both bounds are equal."""
    x = Tensor(np.array([-2.0, 0.5, 3.0, np.nan, -2.0]), requires_grad=True)
    low = Tensor(np.array([-1.0, -1, -1, -1, 1]), requires_grad=True)
    high = Tensor(np.array([1.0, 1, 1, 1, 1]), requires_grad=True)
    y = x.clip(low, high)
    np.testing.assert_array_equal(y.data, [-1, 0.5, 1, np.nan, 1])
    y.sum().backward()
    assert x.grad.data.tolist() == [0, 1, 0, 0, 0]
    assert low.grad.data.tolist() == [1, 0, 0, 0, 0]
    assert high.grad.data.tolist() == [0, 0, 1, 0, 0]


def test_comparisons_with_numbers_that_a_dtype_cannot_hold() -> None:
    x = Tensor(np.array([44, 3], np.uint8))  # 300 = 44 mod 256
    assert (x == 300).data.tolist() == [False, False]
    assert (x < 300).data.tolist() == [True, True]
    assert (x > -1).data.tolist() == [True, True]


def test_infinite_results_come_without_numpys_remarks() -> None:
    """pytest turns warnings into errors."""
    x = Tensor([0.0, 1.0], requires_grad=True)
    for y in (x.log(), 1 / x, x**-1, (x * 1000).exp(), (x - 1).sqrt(), x ** Tensor([-1.0, 2.0])):
        y.sum().backward()
    assert F.dropout(Tensor([np.inf, np.nan, 1.0]), 1.0).data.tolist() == [0, 0, 0]

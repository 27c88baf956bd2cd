"""What the functions say about wrong arguments, and the corners that PyTorch's users know."""

from collections.abc import Callable

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
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
    (lambda: F.batch_norm(t(2, 3, 2, 2), None, None), ValueError, "running_mean or running_var is None"),
    (lambda: F.batch_norm(t(2, 3, 2, 2), np.zeros(2), np.ones(2)), ValueError, "running_mean has shape .* 3 channels"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS[:, :3]), ValueError, r"input \(2, 3, 4, 4\) and target \(2, 3, 4\)"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS * 1.0), TypeError, "target has dtype float64"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS + 7), ValueError, r"labels \[7\] outside the 3 classes; 0 to 2, or"),
    (lambda: F.cross_entropy(t(2, 3, 4, 4), LABELS, np.ones(4)), ValueError, r"weight has shape \(4,\); \(3,\)"),
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
    (lambda: F.cat([t(2, 3), t(3, 3)], 1), ValueError, "differ on an axis other than 1"),
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

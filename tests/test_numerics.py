"""Numbers that are easy to lose: large logits, large means, long sums. float32 against float64 or exact values."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

import minifcn.functional as F
from minifcn.autograd import Tensor

SMALL, LARGE = np.float32, np.float64
MANY = 10_000_000


@pytest.mark.parametrize("dtype", [SMALL, LARGE])
def test_log_softmax_of_logits_of_ten_thousand(dtype: type) -> None:
    x = Tensor(np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype), requires_grad=True)
    y = F.log_softmax(x, 1)
    third, half = -math.log(3), -math.log(2)
    wanted = [[0, -2e4, -1e4], [third] * 3, [half, half, -2e4 + half]]
    np.testing.assert_allclose(y.data, wanted, rtol=np.finfo(dtype).eps)
    np.testing.assert_allclose(F.softmax(x, 1).data, np.exp(wanted), rtol=4 * np.finfo(dtype).eps)
    y[:, 0].sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(
        x.grad.data, [[0, 0, 0], [2 / 3, -1 / 3, -1 / 3], [0.5, -0.5, 0]], atol=4 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize("dtype", [SMALL, LARGE])
def test_cross_entropy_of_logits_of_ten_thousand(dtype: type) -> None:
    """One pixel is certain and right, one certain and wrong, one undecided; per pixel and in all three reductions."""
    x = np.array([[1e4, -1e4], [1e4, -1e4], [-1e4, -1e4]], dtype)
    target = np.array([0, 1, 1])
    losses = [0.0, 2e4, math.log(2)]
    np.testing.assert_allclose(
        F.cross_entropy(Tensor(x), target, reduction="none").data, losses, rtol=np.finfo(dtype).eps
    )
    assert F.cross_entropy(Tensor(x), target, reduction="sum").item() == pytest.approx(sum(losses), rel=1e-6)
    logits = Tensor(x, requires_grad=True)
    loss = F.cross_entropy(logits, target)
    loss.backward()
    assert logits.grad is not None
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-6)
    np.testing.assert_allclose(logits.grad.data * 3, [[0, 0], [1, -1], [0.5, -0.5]], atol=1e-6)


LAYOUTS: dict[str, Callable[[np.ndarray], tuple[Tensor, int | tuple[int, ...] | None]]] = {
    "one row": lambda x: (Tensor(x), None),
    "one column": lambda x: (Tensor(x.reshape(-1, 1)), 0),
    "many short rows": lambda x: (Tensor(x.reshape(-1, 2)), (0, 1)),
    "columns": lambda x: (Tensor(np.asfortranarray(x.reshape(1000, -1))), None),
    "every second one": lambda x: (Tensor(np.repeat(x, 2)[::2]), None),
    "around the channels": lambda x: (Tensor(x.reshape(10, 1, 1000, -1)), (0, 2, 3)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_sums_of_ten_million_values(layout: str) -> None:
    """0.1 rounded to float32, 10⁷ times: NumPy's own float32 sum down a column is off by a hundredth."""
    tenth = np.float32(0.1)
    exact = float(Fraction(float(tenth)) * MANY)
    x, axes = LAYOUTS[layout](np.full(MANY, tenth))
    assert x.sum(axes).item() == pytest.approx(exact, rel=1e-7)
    assert x.mean(axes).item() == pytest.approx(float(tenth), rel=2e-7)


def test_float32_sums_that_cancel() -> None:
    """10⁷ values of both signs: right to 1e-6 of the sum of their sizes, and far better."""
    x = np.random.default_rng(0).standard_normal(MANY, dtype=np.float32)
    exact = math.fsum(x.tolist())
    assert abs(Tensor(x.reshape(-1, 100)).sum(0).sum().item() - exact) < 1e-6 * abs(exact) + 1e-9 * MANY


def test_losses_and_biases_sum_over_ten_million_pixels() -> None:
    x = Tensor(np.zeros((1, 2, 2000, 5000), np.float32), requires_grad=True)
    bias = Tensor(np.zeros(2, np.float32), requires_grad=True)
    loss = F.cross_entropy(
        F.conv2d(x, Tensor(np.eye(2, dtype=np.float32)[..., None, None]), bias), np.zeros((1, 2000, 5000), int)
    )
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    loss.backward()
    assert bias.grad is not None
    np.testing.assert_allclose(bias.grad.data, [-0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_variance_of_data_far_from_zero(mean: float) -> None:
    """Of the same float32 numbers in exact arithmetic, as float64 has them to spare."""
    x = (np.random.default_rng(1).standard_normal(100_000) + mean).astype(np.float32)
    exact = x.astype(np.float64).var(ddof=1)
    t = Tensor(x, requires_grad=True)
    v = t.var()
    assert v.item() == pytest.approx(exact, rel=1e-6)
    v.backward()
    assert t.grad is not None
    wide = x.astype(np.float64)
    wanted = 2 * (wide - wide.mean()) / (len(x) - 1)
    np.testing.assert_allclose(t.grad.data, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def test_batch_norm_of_values_whose_squares_overflow() -> None:
    """In float32 the square of 10²⁰ is infinite, and the variance may not be."""
    x = np.random.default_rng(3).standard_normal((2, 2, 5, 6)).astype(np.float32)
    y = F.batch_norm(Tensor(x * np.float32(1e20)), None, None, training=True, eps=1e-9)
    np.testing.assert_allclose(y.data, F.batch_norm(Tensor(x), None, None, training=True, eps=1e-9).data, atol=2e-6)


def far(shape: tuple[int, ...]) -> np.ndarray:
    """float32 values with mean/std = 10⁴ in every channel."""
    rng = np.random.default_rng(2)
    return (rng.standard_normal(shape) * 0.01 + 100 * (1 + np.arange(shape[1])[:, None, None] % 2)).astype(np.float32)


def test_batch_norm_at_a_mean_of_ten_thousand_deviations() -> None:
    """Values, statistics and gradients of float32 data, against float64 arithmetic on the same numbers."""
    x = far((4, 3, 16, 17))
    gamma, beta, g = (
        np.random.default_rng(10 + k).standard_normal(s).astype(np.float32) for k, s in enumerate([3, 3, x.shape])
    )
    results = []
    for dtype in (SMALL, LARGE):
        arguments = [Tensor(a.astype(dtype), requires_grad=True) for a in (x, gamma, beta)]
        running = [np.zeros(3, dtype), np.ones(3, dtype)]
        y = F.batch_norm(arguments[0], *running, *arguments[1:], training=True, momentum=1.0, eps=1e-9)
        y.backward(g.astype(dtype))
        results.append([y.data, *running, *(t.grad.data for t in arguments)])  # type: ignore[union-attr]
    names = ("y", "mean", "var", "gx", "ggamma", "gbeta")
    for name, ours, exact in zip(names, *results, strict=True):
        error = np.abs(ours - exact).max() / np.abs(exact).max()
        assert error < 2e-6, f"{name}: {error:.1e}"
    assert np.abs(results[0][0].mean(axis=(0, 2, 3), dtype=np.float64) - beta).max() < 1e-6


def test_batch_norm_inference_at_a_mean_of_ten_thousand_deviations() -> None:
    x = far((2, 3, 8, 9))
    mean = x.mean(axis=(0, 2, 3))
    var = x.astype(np.float64).var(axis=(0, 2, 3)).astype(np.float32)
    y = F.batch_norm(Tensor(x), mean, var, eps=0.0).data
    exact = (x.astype(np.float64) - mean[:, None, None]) / np.sqrt(var.astype(np.float64))[:, None, None]
    np.testing.assert_allclose(y, exact, rtol=2e-6, atol=1e-6)


def test_sigmoid_keeps_its_tails() -> None:
    x = np.array([-100.0, -80.0, -20.0, 0.0, 20.0, 100.0], np.float32)
    np.testing.assert_allclose(
        F.sigmoid(Tensor(x)).data, 1 / (1 + np.exp(-x.astype(np.float64))), rtol=3e-7, atol=1.2e-38
    )


def test_nan_and_infinity_reach_only_their_own_outputs() -> None:
    """One bad pixel spoils the outputs that see it and no others."""
    x = np.zeros((1, 1, 6, 6))
    x[0, 0, 0, 0] = np.nan
    x[0, 0, 5, 5] = np.inf
    pooled = F.adaptive_avg_pool2d(Tensor(x), (3, 3)).data[0, 0]
    assert np.isfinite(pooled).sum() == 7
    resized = F.interpolate(Tensor(x), (12, 12), mode="bilinear").data[0, 0]
    assert np.isfinite(resized).sum() == 144 - 18  # each corner pixel has weight in 3 × 3 outputs
    assert np.isfinite(F.avg_pool2d(Tensor(x), 2).data).sum() == 7
    assert np.isfinite(F.max_pool2d(Tensor(x), 2).data).sum() == 7

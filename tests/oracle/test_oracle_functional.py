"""Every function, operator and method, and its gradients of first and second order, against PyTorch.

Each case is one expression that both libraries evaluate: `F` is minifcn.functional or PyTorch. So the names, the order
of the arguments and their defaults are compared as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from compare import OURS, THEIRS, Fixed, compare, relative_error, torch

import minifcn as mf
import minifcn.functional

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning"),
]


class Case(NamedTuple):
    op: str
    what: str
    f: Callable[..., Any]
    args: tuple[Any, ...]


def case(op: str, what: str, f: Callable[..., Any], *args: Any) -> Case:
    return Case(op, what, f, args)


def ids(cases: list[Case]) -> list[str]:
    return [f"{c.op}: {c.what}" for c in cases]


X = (2, 4, 7, 6)  # N, C, H, W
RNG = np.random.default_rng(11)
LABELS = RNG.integers(0, 5, (2, 3, 4))
VOID = np.where(RNG.random((2, 3, 4)) < 0.3, 255, LABELS)
WEIGHTS = Fixed([0.5, 2.0, 0.0, 1.0, 3.0])
TIES = RNG.integers(0, 3, X).astype(np.float64)

CONVOLUTIONS = [
    case("conv2d", "plain", lambda F, x, w: F.conv2d(x, w), X, (5, 4, 3, 2)),
    case("conv2d", "bias", lambda F, x, w, b: F.conv2d(x, w, b), X, (5, 4, 3, 2), (5,)),
    case("conv2d", "stride", lambda F, x, w, b: F.conv2d(x, w, b, 2), X, (5, 4, 3, 3), (5,)),
    case(
        "conv2d",
        "stride, padding per axis",
        lambda F, x, w, b: F.conv2d(x, w, b, (3, 1), (0, 2)),
        X,
        (5, 4, 3, 3),
        (5,),
    ),
    case("conv2d", "stride larger than the filter", lambda F, x, w: F.conv2d(x, w, stride=3), X, (2, 4, 2, 1)),
    case("conv2d", "padding larger than the filter", lambda F, x, w: F.conv2d(x, w, padding=(4, 3)), X, (2, 4, 2, 3)),
    case("conv2d", "dilation", lambda F, x, w: F.conv2d(x, w, dilation=2, padding=1), X, (5, 4, 3, 2)),
    case(
        "conv2d", "dilation per axis", lambda F, x, w: F.conv2d(x, w, dilation=(1, 3), stride=(2, 1)), X, (5, 4, 3, 2)
    ),
    case("conv2d", "groups", lambda F, x, w, b: F.conv2d(x, w, b, groups=2, padding=1), X, (6, 2, 3, 3), (6,)),
    case("conv2d", "depthwise", lambda F, x, w: F.conv2d(x, w, stride=2, padding=1, groups=4), X, (8, 1, 3, 3)),
    case("conv2d", "1 x 1", lambda F, x, w, b: F.conv2d(x, w, b), X, (5, 4, 1, 1), (5,)),
    case("conv2d", "1 x 1 with a stride", lambda F, x, w: F.conv2d(x, w, stride=2), X, (5, 4, 1, 1)),
    case("conv2d", "filter as large as the image", lambda F, x, w: F.conv2d(x, w), X, (5, 4, 7, 6)),
    case("conv2d", "same, odd filter", lambda F, x, w, b: F.conv2d(x, w, b, padding="same"), X, (5, 4, 3, 5), (5,)),
    case("conv2d", "same, even filter", lambda F, x, w: F.conv2d(x, w, padding="same"), X, (5, 4, 4, 2)),
    case(
        "conv2d", "same, even dilated", lambda F, x, w: F.conv2d(x, w, padding="same", dilation=(3, 2)), X, (5, 4, 2, 4)
    ),
    case("conv2d", "valid", lambda F, x, w: F.conv2d(x, w, padding="valid", stride=2), X, (5, 4, 3, 3)),
    case("conv2d", "unbatched", lambda F, x, w, b: F.conv2d(x, w, b, padding=1), X[1:], (5, 4, 3, 3), (5,)),
    case("conv2d", "empty batch", lambda F, x, w: F.conv2d(x, w), (0, 4, 5, 5), (5, 4, 3, 3)),
    case(
        "conv2d", "everything", lambda F, x, w, b: F.conv2d(x, w, b, (2, 1), (3, 1), (2, 1), 2), X, (6, 2, 3, 4), (6,)
    ),
    case("conv_transpose2d", "plain", lambda F, y, w: F.conv_transpose2d(y, w), X, (4, 5, 3, 2)),
    case("conv_transpose2d", "bias", lambda F, y, w, b: F.conv_transpose2d(y, w, b), X, (4, 5, 3, 2), (5,)),
    case("conv_transpose2d", "stride", lambda F, y, w: F.conv_transpose2d(y, w, stride=2), X, (4, 5, 4, 4)),
    case("conv_transpose2d", "4/2/1", lambda F, y, w: F.conv_transpose2d(y, w, None, 2, 1), X, (4, 4, 4, 4)),
    case(
        "conv_transpose2d", "16/8/4", lambda F, y, w: F.conv_transpose2d(y, w, None, 8, 4), (1, 2, 3, 2), (2, 2, 16, 16)
    ),
    case("conv_transpose2d", "3/2/1/1", lambda F, y, w, b: F.conv_transpose2d(y, w, b, 2, 1, 1), X, (4, 5, 3, 3), (5,)),
    case(
        "conv_transpose2d",
        "per axis",
        lambda F, y, w: F.conv_transpose2d(y, w, None, (3, 1), (0, 2), (2, 0)),
        X,
        (4, 5, 3, 5),
    ),
    case("conv_transpose2d", "gaps", lambda F, y, w: F.conv_transpose2d(y, w, stride=(3, 4)), X, (4, 5, 2, 1)),
    case(
        "conv_transpose2d",
        "dilation",
        lambda F, y, w: F.conv_transpose2d(y, w, None, 2, 1, 1, 1, (2, 3)),
        X,
        (4, 5, 3, 2),
    ),
    case(
        "conv_transpose2d",
        "output_padding below dilation",
        lambda F, y, w: F.conv_transpose2d(y, w, output_padding=1, dilation=2),
        X,
        (4, 5, 3, 2),
    ),
    case(
        "conv_transpose2d", "groups", lambda F, y, w, b: F.conv_transpose2d(y, w, b, 2, 1, 0, 2), X, (4, 3, 3, 3), (6,)
    ),
    case("conv_transpose2d", "1 x 1", lambda F, y, w: F.conv_transpose2d(y, w), X, (4, 5, 1, 1)),
    case("conv_transpose2d", "unbatched", lambda F, y, w, b: F.conv_transpose2d(y, w, b, 2), X[1:], (4, 5, 2, 2), (5,)),
    case("conv_transpose2d", "empty batch", lambda F, y, w: F.conv_transpose2d(y, w), (0, 4, 5, 5), (4, 5, 3, 3)),
    case("unfold", "plain", lambda F, x: F.unfold(x, 3), X),
    case("unfold", "everything", lambda F, x: F.unfold(x, (3, 2), (1, 2), (2, 1), (2, 3)), X),
    case("unfold", "unbatched", lambda F, x: F.unfold(x, 2, padding=1), X[1:]),
    case("fold", "plain", lambda F, t: F.fold(t, (7, 6), 3), (2, 36, 20)),
    case("fold", "everything", lambda F, t: F.fold(t, (7, 6), (3, 2), (1, 2), (2, 1), (2, 3)), (2, 24, 10)),
    case("fold", "unbatched", lambda F, t: F.fold(t, 4, 2, stride=2), (8, 4)),
    case("pixel_shuffle", "by 2", lambda F, x: F.pixel_shuffle(x, 2), X),
    case("pixel_shuffle", "by 3", lambda F, x: F.pixel_shuffle(x, 3), (2, 18, 2, 5)),
    case("pixel_shuffle", "unbatched", lambda F, x: F.pixel_shuffle(x, 2), X[1:]),
]

POOLS = [
    case("max_pool2d", "2", lambda F, x: F.max_pool2d(x, 2), X),
    case("max_pool2d", "overlap, padding", lambda F, x: F.max_pool2d(x, 3, 2, 1), X),
    case("max_pool2d", "per axis", lambda F, x: F.max_pool2d(x, (3, 2), (1, 2), (1, 0)), X),
    case("max_pool2d", "gaps", lambda F, x: F.max_pool2d(x, 2, 3), X),
    case("max_pool2d", "dilation", lambda F, x: F.max_pool2d(x, (3, 2), 1, 1, (2, 3)), X),
    case("max_pool2d", "ceil_mode", lambda F, x: F.max_pool2d(x, 2, ceil_mode=True), X),
    case(
        "max_pool2d", "ceil_mode, window dropped", lambda F, x: F.max_pool2d(x, 2, 2, 1, ceil_mode=True), (1, 2, 5, 7)
    ),
    case(
        "max_pool2d",
        "ceil_mode, all",
        lambda F, x: F.max_pool2d(x, (3, 2), (3, 2), (1, 1), (2, 1), True),
        (2, 2, 11, 9),
    ),
    case("max_pool2d", "of one pixel", lambda F, x: F.max_pool2d(x, 2, ceil_mode=True), (1, 2, 1, 1)),
    case("max_pool2d", "indices", lambda F, x: F.max_pool2d(x, 2, return_indices=True), X),
    case(
        "max_pool2d", "indices, all", lambda F, x: F.max_pool2d(x, 3, (2, 1), 1, (1, 2), True, return_indices=True), X
    ),
    case("max_pool2d", "ties", lambda F, x: F.max_pool2d(x, 3, 2, 1, return_indices=True), TIES),
    case(
        "max_pool2d",
        "−∞ everywhere",
        lambda F, x: F.max_pool2d(x, 2, return_indices=True),
        np.full((1, 1, 4, 4), -np.inf),
    ),
    case("max_pool2d", "NaN", lambda F, x: F.max_pool2d(x, 2), np.where(TIES == 2, np.nan, TIES)),
    case("max_pool2d", "unbatched", lambda F, x: F.max_pool2d(x, 2, 1), X[1:]),
    case("max_pool2d", "empty batch", lambda F, x: F.max_pool2d(x, 2), (0, 4, 6, 6)),
    case(
        "max_unpool2d",
        "a pooling undone",
        lambda F, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
        (2, 4, 6, 6),
    ),
    case(
        "max_unpool2d",
        "output_size, padding, per axis",
        lambda F, x: F.max_unpool2d(
            *F.max_pool2d(x, (2, 3), (2, 3), (1, 0), return_indices=True), (2, 3), None, (1, 0), (7, 7)
        ),
        (2, 4, 7, 7),
    ),
    case(
        "max_unpool2d",
        "unbatched",
        lambda F, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(7, 6)),
        X[1:],
    ),
    case("avg_pool2d", "2", lambda F, x: F.avg_pool2d(x, 2), X),
    case("avg_pool2d", "overlap, padding", lambda F, x: F.avg_pool2d(x, 3, 2, 1), X),
    case("avg_pool2d", "per axis", lambda F, x: F.avg_pool2d(x, (3, 2), (1, 2), (1, 0)), X),
    case("avg_pool2d", "ceil_mode", lambda F, x: F.avg_pool2d(x, 2, ceil_mode=True), X),
    case("avg_pool2d", "ceil_mode, padding", lambda F, x: F.avg_pool2d(x, 3, 2, 1, True), (2, 2, 6, 8)),
    case("avg_pool2d", "ceil_mode, window dropped", lambda F, x: F.avg_pool2d(x, 2, 2, 1, True), (1, 2, 5, 7)),
    case("avg_pool2d", "padding not counted", lambda F, x: F.avg_pool2d(x, 3, 2, 1, False, False), X),
    case(
        "avg_pool2d", "ceil_mode, padding not counted", lambda F, x: F.avg_pool2d(x, 3, 2, 1, True, False), (2, 2, 6, 8)
    ),
    case("avg_pool2d", "divisor_override", lambda F, x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5), X),
    case("avg_pool2d", "divisor_override, ceil_mode", lambda F, x: F.avg_pool2d(x, 2, 2, 0, True, True, 3), X),
    case("avg_pool2d", "unbatched", lambda F, x: F.avg_pool2d(x, 2, 1), X[1:]),
    case("avg_pool2d", "empty batch", lambda F, x: F.avg_pool2d(x, 2), (0, 4, 6, 6)),
    case("adaptive_avg_pool2d", "1", lambda F, x: F.adaptive_avg_pool2d(x, 1), X),
    case("adaptive_avg_pool2d", "uneven", lambda F, x: F.adaptive_avg_pool2d(x, (3, 4)), X),
    case("adaptive_avg_pool2d", "one size kept", lambda F, x: F.adaptive_avg_pool2d(x, (None, 4)), X),
    case("adaptive_avg_pool2d", "larger than the input", lambda F, x: F.adaptive_avg_pool2d(x, (9, 11)), X),
    case("adaptive_avg_pool2d", "unbatched", lambda F, x: F.adaptive_avg_pool2d(x, 2), X[1:]),
]

MEAN, VAR = Fixed(RNG.standard_normal(4)), Fixed(RNG.uniform(0.5, 2, 4))
NORMALIZATION = [
    case("batch_norm", "inference", lambda F, x, w, b, m, v: F.batch_norm(x, m, v, w, b), X, (4,), (4,), MEAN, VAR),
    case("batch_norm", "inference, plain", lambda F, x, m, v: F.batch_norm(x, m, v), X, MEAN, VAR),
    case("batch_norm", "inference, eps", lambda F, x, m, v: F.batch_norm(x, m, v, eps=0.1), X, MEAN, VAR),
    case("batch_norm", "inference, weight only", lambda F, x, w, m, v: F.batch_norm(x, m, v, w), X, (4,), MEAN, VAR),
    case("batch_norm", "training", lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True), X, (4,), (4,)),
    case("batch_norm", "training, plain", lambda F, x: F.batch_norm(x, None, None, training=True), X),
    case(
        "batch_norm",
        "training, eps",
        lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True, 0.1, 0.3),
        X,
        (4,),
        (4,),
    ),
    case(
        "batch_norm", "training, (N, C)", lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True), (6, 4), (4,), (4,)
    ),
    case("batch_norm", "inference, (N, C)", lambda F, x, m, v: F.batch_norm(x, m, v), (6, 4), MEAN, VAR),
    case(
        "batch_norm",
        "training, (N, C, L)",
        lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True),
        (3, 4, 5),
        (4,),
        (4,),
    ),
    case(
        "batch_norm", "inference, (N, C, D, H, W)", lambda F, x, m, v: F.batch_norm(x, m, v), (2, 4, 2, 3, 2), MEAN, VAR
    ),
    case("local_response_norm", "odd", lambda F, x: F.local_response_norm(x, 3, 0.3, 0.6, 1.2), X),
    case("local_response_norm", "even", lambda F, x: F.local_response_norm(x, 4, alpha=0.5), X),
    case("local_response_norm", "wider than the channels", lambda F, x: F.local_response_norm(x, 9), (2, 3, 5)),
    case("batch_norm", "two values", lambda F, x, w: F.batch_norm(x, None, None, w, training=True), (2, 4, 1, 1), (4,)),
    case("batch_norm", "far from zero", lambda F, x: F.batch_norm(x + 1e4, None, None, training=True), X),
]

ACTIVATIONS = [
    case("relu", "any shape", lambda F, x: F.relu(x), X),
    case("relu", "at zero", lambda F, x: F.relu(x), TIES - 1),
    case("relu", "NaN, ±∞", lambda F, x: F.relu(x), np.array([np.nan, np.inf, -np.inf, 0.0])),
    case("sigmoid", "any shape", lambda F, x: F.sigmoid(x), X),
    case("sigmoid", "tails", lambda F, x: F.sigmoid(x), np.array([-800.0, -40.0, -0.0, 0.0, 40.0, 800.0])),
    case("softmax", "dim 1", lambda F, x: F.softmax(x, dim=1), X),
    case("softmax", "last", lambda F, x: F.softmax(x, -1), (5, 3)),
    case("softmax", "large", lambda F, x: F.softmax(x * 1e4, 1), X),
    case("log_softmax", "dim 1", lambda F, x: F.log_softmax(x, dim=1), X),
    case("log_softmax", "vector", lambda F, x: F.log_softmax(x, 0), (7,)),
    case("log_softmax", "large", lambda F, x: F.log_softmax(x * 1e4, -3), X),
    case("dropout", "p = 0", lambda F, x: F.dropout(x, 0.0), X),
    case("dropout", "p = 1", lambda F, x: F.dropout(x, 1.0), X),
    case("dropout", "inference", lambda F, x: F.dropout(x, 0.5, False), X),
    case("dropout2d", "p = 1", lambda F, x: F.dropout2d(x, 1.0), X),
    case("dropout2d", "inference", lambda F, x: F.dropout2d(x, 0.5, training=False), X),
]

ONE = np.array(3)
LAST_IMPOSSIBLE = RNG.standard_normal((2, 5, 3, 4))
LAST_IMPOSSIBLE[:, 4] = -np.inf


def losses() -> list[Case]:
    """Ignored labels × class weights × reductions × number of axes, for both losses."""
    cases = []
    targets = {
        "(N,C)": ((6, 5), LABELS.reshape(-1)[:6]),
        "(N,C,L)": ((2, 5, 12), LABELS.reshape(2, 12)),
        "(N,C,H,W)": ((2, 5, 3, 4), LABELS),
        "(N,C,D,H,W)": ((2, 5, 3, 2, 2), LABELS.reshape(2, 3, 2, 2)),
    }
    for op in ("cross_entropy", "nll_loss"):
        for reduction in ("mean", "sum", "none"):
            for axes, (shape, target) in targets.items():
                f = lambda F, x, t, op=op, r=reduction: getattr(F, op)(x, t, reduction=r)  # noqa: E731
                cases.append(case(op, f"{axes} {reduction}", f, shape, target))
            f = lambda F, x, t, op=op, r=reduction: getattr(F, op)(x, t, ignore_index=255, reduction=r)  # noqa: E731
            g = lambda F, x, t, w, op=op, r=reduction: getattr(F, op)(x, t, w, ignore_index=255, reduction=r)  # noqa: E731
            h = lambda F, x, t, w, op=op, r=reduction: getattr(F, op)(x, t, w, reduction=r)  # noqa: E731
            k = lambda F, x, t, w, op=op, r=reduction: getattr(F, op)(x, t, w, ignore_index=1, reduction=r)  # noqa: E731
            shape = (2, 5, 3, 4)
            cases += [
                case(op, f"ignored {reduction}", f, shape, VOID),
                case(op, f"ignored, weights {reduction}", g, shape, VOID, WEIGHTS),
                case(op, f"weights {reduction}", h, shape, LABELS, WEIGHTS),
                case(op, f"a class is ignored {reduction}", k, shape, LABELS, WEIGHTS),
                case(op, f"all ignored {reduction}", f, shape, np.full((2, 3, 4), 255)),
                case(
                    op, f"−100 is ignored by default {reduction}", h, shape, np.where(VOID == 255, -100, VOID), WEIGHTS
                ),
                case(op, f"one vector {reduction}", h, (5,), ONE, WEIGHTS),
                case(op, f"empty batch {reduction}", f, (0, 5, 3, 4), LABELS[:0]),
            ]
    cases += [
        case("cross_entropy", "large logits", lambda F, x, t: F.cross_entropy(x * 1e4, t), (2, 5, 3, 4), LABELS),
        case("cross_entropy", "impossible classes", lambda F, x, t: F.cross_entropy(x, t), LAST_IMPOSSIBLE, LABELS % 4),
    ]
    return cases


PRODUCTS = [
    case("linear", "bias", lambda F, x, w, b: F.linear(x, w, b), (3, 5), (4, 5), (4,)),
    case("linear", "many axes", lambda F, x, w: F.linear(x, w), (2, 3, 2, 5), (4, 5)),
    case("linear", "vector", lambda F, x, w, b: F.linear(x, w, b), (5,), (4, 5), (4,)),
    case("matmul", "matrices", lambda F, x, y: F.matmul(x, y), (3, 4), (4, 2)),
    case("matmul", "batches broadcast", lambda F, x, y: F.matmul(x, y), (5, 1, 3, 4), (2, 4, 2)),
    case("matmul", "vector, vector", lambda F, x, y: F.matmul(x, y), (4,), (4,)),
    case("matmul", "matrix, vector", lambda F, x, y: F.matmul(x, y), (3, 4), (4,)),
    case("matmul", "vector, batch", lambda F, x, y: F.matmul(x, y), (4,), (2, 4, 3)),
    case("matmul", "batch, vector", lambda F, x, y: F.matmul(x, y), (2, 3, 4), (4,)),
    case("einsum", "matrix product", lambda F, x, y: F.einsum("ij,jk->ik", x, y), (3, 4), (4, 2)),
    case("einsum", "a 1×1 convolution", lambda F, x, w: F.einsum("nchv,oc->nohv", x, w), X, (5, 4)),
    case("einsum", "no arrow", lambda F, x, y: F.einsum("ijk,kl", x, y), (2, 3, 4), (4, 5)),
    case("einsum", "trace", lambda F, x: F.einsum("ii", x), (4, 4)),
    case("einsum", "diagonal beside an axis", lambda F, x, y: F.einsum("iji,i->ji", x, y), (3, 4, 3), (3,)),
    case("einsum", "ellipsis", lambda F, x, y: F.einsum("...ij,...jk", x, y), (2, 1, 3, 4), (5, 4, 2)),
    case("einsum", "ellipsis summed", lambda F, x: F.einsum("...i->i", x), (2, 3, 4)),
    case("einsum", "three operands", lambda F, x, y, z: F.einsum("nij,jk,kn->ni", x, y, z), (2, 3, 4), (4, 5), (5, 2)),
    case("einsum", "an axis of 1 stretches", lambda F, x, y: F.einsum("ij,kj->ik", x, y), (3, 1), (2, 4)),
    case("matmul", "operator", lambda F, x, y: x @ y, (2, 3, 4), (4, 5)),
]

MOVES = [
    case("pad", "all sides", lambda F, x: F.pad(x, (1, 2, 3, 0)), X),
    case("pad", "one axis, value", lambda F, x: F.pad(x, (1, 2), value=-3.5), X),
    case("pad", "mode", lambda F, x: F.pad(x, (1, 0), "constant", 2.0), X),
    case("pad", "crop", lambda F, x: F.pad(x, (-1, -2, -3, 0)), X),
    case("pad", "crop and pad", lambda F, x: F.pad(x, (-1, 2, 3, -4), value=1.0), X),
    case("pad", "channels", lambda F, x: F.pad(x, (0, 0, 0, 0, 1, 2)), X),
    case("pad", "reflect", lambda F, x: F.pad(x, (1, 2, 3, 0), "reflect"), X),
    case("pad", "reflect and crop", lambda F, x: F.pad(x, (-1, 2, 0, 4), "reflect"), X),
    case("pad", "replicate", lambda F, x: F.pad(x, (9, 2, 0, 3), "replicate"), X),
    case("pad", "replicate one axis", lambda F, x: F.pad(x, (2, 1), "replicate"), (3, 4)),
    case("pad", "circular", lambda F, x: F.pad(x, (6, 2, 3, 0), "circular"), X),
    case("pad", "circular and crop", lambda F, x: F.pad(x, (-1, 2, 2, -2), "circular"), X),
    case("pad", "nothing", lambda F, x: F.pad(x, (0, 0, 0, 0)) * 2, X),
    case("crop", "middle", lambda F, x: F.crop(x, (2, 1), (4, 5)), X),
    case("crop", "all", lambda F, x: F.crop(x, (0, 0), (7, 6)) * 2, X),
    case("cat", "channels", lambda F, x, y, z: F.cat([x, y, z], 1), X, (2, 1, 7, 6), (2, 3, 7, 6)),
    case("cat", "last", lambda F, x, y: F.cat((x, y), dim=-1), (2, 3), (2, 4)),
    case("cat", "a tensor twice", lambda F, x: F.cat([x, x]), (2, 3)),
    case("cat", "an empty part", lambda F, x, y: F.cat([x, y], 1), (2, 3), (2, 0)),
    case("stack", "first", lambda F, x, y: F.stack([x, y]), (2, 3), (2, 3)),
    case("stack", "last", lambda F, x, y: F.stack([x, y], dim=-1), (2, 3), (2, 3)),
    case("stack", "middle", lambda F, x, y: F.stack((x, y), 1), (2, 3), (2, 3)),
    case("where", "equal shapes", lambda F, x, y, c: F.where(c, x, y), (3, 4), (3, 4), RNG.random((3, 4)) < 0.5),
    case("where", "broadcast", lambda F, x, y, c: F.where(c, x, y), (3, 1), (4,), RNG.random((2, 1, 1)) < 0.5),
    case("Tensor.reshape", "sizes", lambda F, x: x.reshape(2, -1, 3), (3, 4, 2)),
    case("Tensor.reshape", "tuple", lambda F, x: x.reshape((6, 4)), (3, 4, 2)),
    case("Tensor.transpose", "", lambda F, x: x.transpose(0, -1), (3, 4, 2)),
    case("Tensor.permute", "sizes", lambda F, x: x.permute(2, 0, 1), (3, 4, 2)),
    case("Tensor.permute", "tuple", lambda F, x: x.permute((1, -1, 0)), (3, 4, 2)),
    case("Tensor.flatten", "all", lambda F, x: x.flatten(), (3, 4, 2)),
    case("Tensor.flatten", "some", lambda F, x: x.flatten(1, -1), (3, 4, 2)),
    case("Tensor.flatten", "scalar", lambda F, x: x.flatten(), ()),
    case("Tensor.squeeze", "all", lambda F, x: x.squeeze(), (1, 4, 1)),
    case("Tensor.squeeze", "one", lambda F, x: x.squeeze(-1), (1, 4, 1)),
    case("Tensor.squeeze", "larger than 1", lambda F, x: x.squeeze(1) * 1, (1, 4, 1)),
    case("Tensor.unsqueeze", "", lambda F, x: (x.unsqueeze(0), x.unsqueeze(-1), x.unsqueeze(1)), (3, 4)),
    case("Tensor.expand", "", lambda F, x: x.expand(5, 3, 4), (3, 1)),
    case("Tensor.expand", "−1", lambda F, x: x.expand(2, -1, 4), (3, 1)),
    case("Tensor[]", "integer", lambda F, x: x[1], (3, 4)),
    case("Tensor[]", "negative", lambda F, x: x[-1, -2], (3, 4)),
    case("Tensor[]", "slices", lambda F, x: x[1:, ::2], (3, 4)),
    case("Tensor[]", "ellipsis and None", lambda F, x: x[..., None, 1:3], (3, 4, 5)),
    case("Tensor[]", "list", lambda F, x: x[[0, 2, 0]], (3, 4)),
    case("Tensor[]", "integers", lambda F, x, i: x[i], (3, 4), np.array([[2, 0], [2, 2]])),
    case("Tensor[]", "integers in front", lambda F, x, i: x[i, :], (3, 4), np.array([2, 0, 2])),
    case("Tensor[]", "integers behind", lambda F, x, i: x[:, i], (3, 4), np.array([3, 0, 3])),
    case("Tensor[]", "integers paired", lambda F, x, i, j: x[i, j], (3, 4), np.array([2, 0, 2]), np.array([3, 1, 3])),
    case("Tensor[]", "integers apart", lambda F, x, i, j: x[i, :, j], (3, 4, 5), np.array([2, 0]), np.array([3, 1])),
    case("Tensor[]", "booleans", lambda F, x, m: x[m], (3, 4), RNG.random((3, 4)) < 0.5),
    case("Tensor[]", "boolean rows", lambda F, x, m: x[m], (3, 4), np.array([True, False, True])),
    case("Tensor[]", "boolean columns", lambda F, x, m: x[:, m], (3, 4), np.array([True, False, True, True])),
]

POSITIVE = RNG.uniform(0.2, 3, (3, 4))
ELEMENTS = [
    case("Tensor.+", "broadcast", lambda F, x, y: x + y, (2, 3, 4), (3, 1)),
    case("Tensor.-", "broadcast", lambda F, x, y: x - y, (3, 1), (2, 1, 4)),
    case("Tensor.*", "broadcast", lambda F, x, y: x * y, (3, 4), ()),
    case("Tensor.*", "with itself", lambda F, x: x * x, (3, 4)),
    case("Tensor./", "broadcast", lambda F, x, y: x / y, (2, 3, 4), POSITIVE),
    case("Tensor./", "by zero", lambda F, x, y: x / y, np.array([1.0, -1.0, 0.0]), np.zeros(3)),
    case("Tensor operators", "numbers left", lambda F, x: (2 + x, 2 - x, 2.5 * x, 2 / x, 2**x), POSITIVE),
    case("Tensor operators", "numbers right", lambda F, x: (x + 2, x - 2, x * 2.5, x / 2, -x), POSITIVE),
    case("Tensor.**", "numbers", lambda F, x: (x**2, x**3, x**0.5, x**-1, x**1, x**0), POSITIVE),
    case("Tensor.**", "at zero", lambda F, x: (x**2, x**1, x**3), np.array([0.0, -1.0, 2.0])),
    case("Tensor.**", "0 at zero", lambda F, x: x**0, np.array([0.0, -1.0, 2.0])),
    case("Tensor.**", "tensors", lambda F, x, y: x**y, POSITIVE, (4,)),
    case("Tensor.**", "0 to a tensor", lambda F, x, y: x**y, np.array([0.0, 0.0, 1.0]), np.array([2.0, 3.0, 0.0])),
    case(
        "Tensor comparisons", "", lambda F, x, y: (x < y, x <= y, x > y, x >= y, x == y, x != y), TIES[0, 0], TIES[1, 0]
    ),
    case("Tensor.abs", "", lambda F, x: (x.abs(), abs(x)), TIES - 1),
    case("Tensor.exp", "", lambda F, x: x.exp(), (3, 4)),
    case("Tensor.log", "", lambda F, x: x.log(), POSITIVE),
    case("Tensor.sqrt", "", lambda F, x: x.sqrt(), POSITIVE),
    case("Tensor.tanh", "", lambda F, x: x.tanh(), (3, 4)),
    case("Tensor.relu", "", lambda F, x: x.relu(), (3, 4)),
    case("Tensor.clip", "both", lambda F, x: x.clip(-0.5, 0.7), (3, 4)),
    case("Tensor.clip", "one", lambda F, x: (x.clip(min=0.1), x.clip(max=0.1)), (3, 4)),
    case("Tensor.clip", "at the ends", lambda F, x: x.clip(0, 1), TIES),
    case(
        "Tensor.sum", "", lambda F, x: (x.sum(), x.sum(dim=1), x.sum((0, 2), keepdim=True), x.sum(axis=-1)), (2, 3, 4)
    ),
    case("Tensor.mean", "", lambda F, x: (x.mean(), x.mean(dim=1), x.mean((0, 2), keepdim=True)), (2, 3, 4)),
    case(
        "Tensor.var",
        "",
        lambda F, x: (x.var(), x.var(dim=1), x.var((0, 2), keepdim=True), x.var(1, correction=0)),
        (2, 3, 4),
    ),
    case("Tensor.max", "of all", lambda F, x: x.max(), (2, 3, 4)),
    case("Tensor.min", "of all", lambda F, x: x.min(), (2, 3, 4)),
    case("Tensor.max", "along", lambda F, x: tuple(x.max(dim=1)), (2, 3, 4)),
    case("Tensor.min", "along", lambda F, x: tuple(x.min(-1, keepdim=True)), (2, 3, 4)),
    case("Tensor.max", "NumPy's axis", lambda F, x: (*x.max(axis=1), *x.min(axis=-1)), (2, 3, 4)),
    case("Tensor.max", "along, ties", lambda F, x: tuple(x.max(1)), TIES),
    case("Tensor.max", "of all, ties", lambda F, x: x.max(), TIES),
    case("Tensor.max", "NaN", lambda F, x: (x.max(), *x.max(0)), np.array([1.0, np.nan, 3.0])),
    case("Tensor.argmax", "", lambda F, x: (x.argmax(), x.argmax(1), x.argmax(-1, keepdim=True)), (2, 3, 4)),
]

RESIZES = [
    case("interpolate", "nearest, size", lambda F, x: F.interpolate(x, (11, 4)), X),
    case("interpolate", "nearest, one size", lambda F, x: F.interpolate(x, 5), X),
    case("interpolate", "nearest, factor", lambda F, x: F.interpolate(x, scale_factor=2), X),
    case("interpolate", "nearest, odd factor", lambda F, x: F.interpolate(x, scale_factor=1.7), X),
    case("interpolate", "nearest, factors", lambda F, x: F.interpolate(x, scale_factor=(0.6, 2.3)), X),
    case("interpolate", "bilinear", lambda F, x: F.interpolate(x, (11, 4), mode="bilinear"), X),
    case(
        "interpolate", "bilinear, down", lambda F, x: F.interpolate(x, (3, 2), mode="bilinear", align_corners=False), X
    ),
    case("interpolate", "bilinear, factor", lambda F, x: F.interpolate(x, scale_factor=2, mode="bilinear"), X),
    case("interpolate", "bilinear, odd factor", lambda F, x: F.interpolate(x, None, 1.7, "bilinear"), X),
    case("interpolate", "bilinear, factors", lambda F, x: F.interpolate(x, None, (0.6, 2.3), "bilinear"), X),
    case("interpolate", "corners", lambda F, x: F.interpolate(x, (11, 4), None, "bilinear", True), X),
    case("interpolate", "corners, factor", lambda F, x: F.interpolate(x, None, 2.5, "bilinear", True), X),
    case("interpolate", "corners, to one pixel", lambda F, x: F.interpolate(x, (1, 1), None, "bilinear", True), X),
    case("interpolate", "of one pixel", lambda F, x: F.interpolate(x, (3, 4), mode="bilinear"), (2, 3, 1, 1)),
    case("interpolate", "same size", lambda F, x: F.interpolate(x, (7, 6), mode="bilinear"), X),
    case("interpolate", "empty batch", lambda F, x: F.interpolate(x, (3, 4)), (0, 3, 2, 2)),
]

CASES = [
    *CONVOLUTIONS,
    *POOLS,
    *NORMALIZATION,
    *ACTIVATIONS,
    *losses(),
    *PRODUCTS,
    *MOVES,
    *ELEMENTS,
    *RESIZES,
]


# at x = 0 PyTorch's second derivatives are NaN where the limits are finite
FIRST_ORDER_ONLY = {("Tensor.**", "0 to a tensor")}


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_outputs_and_gradients_of_both_orders_equal_pytorchs(case: Case) -> None:
    compare(case.f, *case.args, second_order=case[:2] not in FIRST_ORDER_ONLY)


IN_FLOAT32 = {
    "everything", "4/2/1", "overlap, padding", "1", "training", "inference", "ignored, weights mean", "dim 1", "bias",
    "bilinear", "nearest, size",
}  # fmt: skip
SINGLE = [c for c in CASES if c.op in minifcn.functional.__all__ and c.what in IN_FLOAT32]


@pytest.mark.parametrize("case", SINGLE, ids=ids(SINGLE))
def test_float32_equals_pytorchs_and_stays_float32(case: Case) -> None:
    compare(case.f, *case.args, dtype=np.float32, second_order=False)


def test_every_public_function_is_compared() -> None:
    assert set(minifcn.functional.__all__) <= {c.op for c in CASES}


@pytest.mark.parametrize(("size", "extra"), [((15, 12), (1, 0)), ((14, 13), (0, 1)), ((14, 12), (0, 0))])
def test_output_size_is_the_matching_output_padding(size: tuple[int, int], extra: tuple[int, int]) -> None:
    """(7 − 1)·2 − 2 + 3 + extra, (6 − 1)·2 − 2 + 4 + extra: 13 + … and 12 + …"""
    rng = np.random.default_rng(0)
    y, w = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((4, 3, 4, 4))
    ours = OURS.conv_transpose2d(mf.Tensor(y), mf.Tensor(w), stride=2, padding=1, output_size=size)
    theirs = THEIRS.conv_transpose2d(torch.tensor(y), torch.tensor(w), stride=2, padding=1, output_padding=extra)
    assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "corners"])
def test_interpolation_between_all_small_sizes(mode: str) -> None:
    options = {"mode": "nearest"} if mode == "nearest" else {"mode": "bilinear", "align_corners": mode == "corners"}
    for size in range(1, 25):
        x = np.random.default_rng(size).standard_normal((1, 1, size, 1))
        for wanted in range(1, 25):
            ours = OURS.interpolate(mf.Tensor(x), (wanted, 1), **options)
            theirs = THEIRS.interpolate(torch.tensor(x), (wanted, 1), **options)
            assert relative_error(ours, theirs) < 1e-12, (size, wanted)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_pool_sizes_for_every_small_geometry(op: str, ceil_mode: bool) -> None:
    for size in range(1, 12):
        x = np.random.default_rng(size).standard_normal((1, 1, size, 12))
        for kernel in (1, 2, 3):
            for stride in (1, 2, 3, 4):
                for padding in range(kernel // 2 + 1):
                    if size + 2 * padding < kernel:
                        continue
                    f = lambda F, x: getattr(F, op)(x, kernel, stride, padding, ceil_mode=ceil_mode)  # noqa: B023, E731
                    error = relative_error(f(OURS, mf.Tensor(x)), f(THEIRS, torch.tensor(x)))
                    assert error < 1e-12, (size, kernel, stride, padding)


@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0, 0.0])
@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_batch_norm_moves_the_running_statistics_as_pytorch_does(momentum: float, kind: str) -> None:
    rng = np.random.default_rng(3)
    mean, var = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
    ours = [mf.Tensor(a.copy()) if kind == "tensors" else a.copy() for a in (mean, var)]
    theirs = [torch.tensor(a) for a in (mean, var)]
    for _ in range(3):
        x = rng.standard_normal((2, 4, 3, 5)) * 2 + 1
        a = OURS.batch_norm(mf.Tensor(x), *ours, training=True, momentum=momentum)
        b = THEIRS.batch_norm(torch.tensor(x), *theirs, training=True, momentum=momentum)
        assert relative_error(a, b) < 1e-12
        for now, wanted in zip(ours, theirs, strict=True):
            assert relative_error(now, wanted) < 1e-12


@pytest.mark.parametrize("op", ["dropout", "dropout2d"])
def test_dropout_with_a_shared_mask(op: str) -> None:
    """The random numbers differ, so the mask is read off and given to PyTorch."""
    mf.manual_seed(5)
    x = np.random.default_rng(0).standard_normal((3, 8, 6, 5))
    ours = mf.Tensor(x, requires_grad=True)
    y = getattr(OURS, op)(ours, 0.3)
    mask = np.asarray(y) != 0
    if op == "dropout2d":
        assert (mask == mask[:, :, :1, :1]).all()
    assert 0 < mask.mean() < 1
    theirs = torch.tensor(x, requires_grad=True)
    t = theirs * torch.tensor(mask) / 0.7
    assert relative_error(y, t) < 1e-12
    g = np.random.default_rng(1).standard_normal(x.shape)
    y.backward(g)
    t.backward(torch.tensor(g))
    assert relative_error(ours.grad, theirs.grad) < 1e-12

"""Random arguments of normalisations, activations, losses, products and what joins tensors."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from arguments import WRONG_BOOLS, WRONG_FLOATS, WRONG_INTS, Draw, Value, draws

Drawn = tuple[tuple[Any, ...], dict[str, Any]]
WRONG_DIMS = (7, -7, 2, -3, None, 1.0, "0", (0,), [0], True, np.float64(0))


def dim(d: Draw, ndim: int) -> Any:
    """An axis, from either end, now and then as NumPy's int."""
    return d.as_int(d.int(-max(ndim, 1), max(ndim, 1) - 1))


# ----- normalisation


def channel_vector(d: Draw, channels: int, kind: str = "normal", moves: bool = False) -> Value:
    """One number per channel; running statistics must be writable, so they come plain."""
    value = d.floats(channels, kind=kind)
    return Value(value.array, bare=d.chance(0.3), moves=True) if moves else value


@draws("batch_norm")
def batch_norm(d: Draw) -> Drawn:
    channels, beyond = d.size(1, 3), d.pick((), (), (3,), (2, 3), (2, 3), (2, 1, 2))
    shape = (d.size(2, 4), channels, *beyond)
    if d.chance(0.05):
        shape = (1, channels, *(1 for _ in beyond))
    training = d.chance()
    statistics = d.chance(0.75) or not training
    return d.call(
        {
            "input": d.floats(*shape),
            "running_mean": channel_vector(d, channels, moves=True) if statistics else None,
            "running_var": channel_vector(d, channels, "positive", moves=True) if statistics else None,
        },
        {
            "weight": d.pick(None, channel_vector(d, channels)),
            "bias": d.pick(None, channel_vector(d, channels)),
            "training": training,
            "momentum": d.pick(0.1, 0.3, 0.0, 1.0, 1, 0),
            "eps": d.pick(1e-5, 1e-3, 0.1, 1),
        },
        {
            "running_mean": (None, 1.0, "x"),
            "running_var": (None, 1.0, "x"),
            "weight": (2.0, "x", [1.0]),
            "bias": (2.0, "x", [1.0]),
            "training": WRONG_BOOLS,
            "momentum": (*WRONG_FLOATS, 1.5),
            "eps": (*WRONG_FLOATS, 0.0, 0),
        },
    )


@draws("local_response_norm")
def local_response_norm(d: Draw) -> Drawn:
    shape = (d.size(1, 2), d.size(1, 6), *d.pick((3,), (2, 3), (2, 3), (2, 1, 2)))
    return d.call(
        {"input": d.floats(*shape), "size": d.as_int(d.int(1, 5))},
        {"alpha": d.pick(1e-4, 0.5, 1), "beta": d.pick(0.75, 0.5, 1, 2.0), "k": d.pick(1.0, 2.0, 1)},
        {"size": WRONG_INTS, "alpha": WRONG_FLOATS, "beta": WRONG_FLOATS, "k": WRONG_FLOATS},
    )


# ----- activations


@draws("relu")
@draws("sigmoid")
@draws("Tensor.relu")
@draws("Tensor.abs", ops=("abs",))
@draws("Tensor.exp")
@draws("Tensor.log")
@draws("Tensor.sqrt")
@draws("Tensor.tanh")
@draws("Tensor.neg", f=lambda side, x: -x, needs="Tensor.__neg__")
@draws("Tensor.clone")
@draws("Tensor.numel")
@draws("Tensor.float")
@draws("Tensor.double")
@draws("Tensor.detach")
@draws("Tensor.cpu")
def elementwise(d: Draw) -> Drawn:
    kind = d.pick("normal", "ties", "special", "positive", "any")
    shape = d.shape(0, 4)
    x = d.any_tensor(*shape) if kind == "any" else d.floats(*shape, kind=kind, bare=False)
    return d.call({"x": x}, on_tensor=True)


@draws("softmax")
@draws("log_softmax")
def softmax(d: Draw) -> Drawn:
    shape = d.shape(0, 4)
    x = d.floats(*shape, kind=d.pick("normal", "normal", "normal", "ties", "special"))
    if d.chance(0.1):
        x = x._replace(array=x.array * x.array.dtype.type(500))
    return d.call({"input": x, "dim": dim(d, len(shape))}, wrong={"dim": WRONG_DIMS})


def dropped(side: Any, op: str, *args: Any, **options: Any) -> Any:
    """A result of dropout that both sides share, though they draw other masks: where chance is left, only whether each
    element is 0 or has been scaled."""
    y = getattr(side, op)(*args, **options)
    given = {**dict(zip(("input", "p", "training"), args, strict=False)), **options}
    p = given.get("p", 0.5)
    if not given.get("training", True) or p in (0, 1):
        return y
    return (y * (y * (1 - p) - given["input"])).abs() < 1e-5


# ----- losses


@draws("cross_entropy")
@draws("nll_loss")
def loss(d: Draw) -> Drawn:
    classes, beyond = d.int(1, 4), d.pick((), (), (3,), (2, 3), (2, 3), (0,), (2, 1, 2))
    n = d.size(1, 3)
    unbatched = d.chance(0.15)
    ignore = d.pick(-100, -100, 255, 0, -1, 1)
    labels = d.rng.integers(0, classes, () if unbatched else (n, *beyond))
    labels = np.where(d.rng.random(labels.shape) < d.pick(0, 0.3, 0.3, 1), ignore, labels)
    if d.spoilt and d.chance(0.2):
        labels = np.where(d.rng.random(labels.shape) < 0.5, d.pick(-1, classes, 99), labels)
    shape = (classes,) if unbatched else (n, classes, *beyond)
    weight = d.floats(classes, kind="positive", differentiated=False)
    if d.chance(0.3):
        weight = weight._replace(array=weight.array * (d.rng.random(classes) < 0.5).astype(weight.array.dtype))
    return d.call(
        {"input": d.floats(*shape), "target": d.value(labels.astype(np.int64))},
        {
            "weight": d.pick(None, None, weight),
            "ignore_index": d.as_int(ignore),
            "reduction": d.pick("mean", "mean", "sum", "none"),
        },
        {
            "ignore_index": (None, "1", 1.0, 1.5, True, (1,)),
            "reduction": ("batchmean", "Mean", "", None, 1, True),
        },
        keywords_from=3,
    )


# ----- products


@draws("linear")
def linear(d: Draw) -> Drawn:
    c, o = d.size(1, 4), d.size(1, 4)
    weight = d.floats(o, c) if d.chance(0.9) else d.floats(c)
    return d.call(
        {"input": d.floats(*d.shape(0, 3), c), "weight": weight},
        {"bias": d.pick(None, d.floats(o), d.floats(o), d.floats(), d.floats(1))},
        {"bias": (2.0, "x", [1.0])},
    )


@draws("matmul")
def matmul(d: Draw) -> Drawn:
    x, y = factors(d)
    if d.spoilt:
        x = d.wrong_tensor(x)
    return (x, y), {}


@draws("Tensor.@", f=lambda side, x, y: x @ y, ops=("matmul",), needs="Tensor.__matmul__")
def matmul_operator(d: Draw) -> Drawn:
    x, y = factors(d)
    x = x._replace(bare=False)
    if d.spoilt:
        y = d.pick(2.0, True, d.wrong_tensor(y, replace=False))
    elif d.chance(0.3):
        x, y = x._replace(bare=True, differentiated=False), y._replace(bare=False)
    return (x, y), {}


def factors(d: Draw) -> tuple[Value, Value]:
    """Two tensors of 1 to 4 axes whose product exists, batch axes broadcast."""
    m, k, n = d.size(1, 3), d.size(1, 3), d.size(1, 3)
    batch = d.shape(0, 2, 3)
    left, right = ((*(1 if d.chance(0.3) else b for b in batch[d.int(0, len(batch)) :]),) for _ in range(2))
    x = d.floats(k) if d.chance(0.2) else d.floats(*left, m, k)
    y = d.floats(k) if d.chance(0.2) else d.floats(*right, k, n)
    return x, y


EQUATIONS = [
    ("ij,jk->ik", ["ij", "jk"]),
    ("ij,jk", ["ij", "jk"]),
    ("bij,bjk->bik", ["bij", "bjk"]),
    ("nchw,oc->nohw", ["nchw", "oc"]),
    ("ii->i", ["ii"]),
    ("ii", ["ii"]),
    ("ij->ji", ["ij"]),
    ("ba", ["ba"]),
    ("ij->", ["ij"]),
    ("ij->j", ["ij"]),
    ("i,j->ij", ["i", "j"]),
    ("i,i->", ["i", "i"]),
    ("i,i", ["i", "i"]),
    ("ij,ij->ij", ["ij", "ij"]),
    ("i,ij,j->", ["i", "ij", "j"]),
    ("ab,bc,cd->ad", ["ab", "bc", "cd"]),
    ("...ij,...jk->...ik", ["bij", "bjk"]),
    ("...ij,jk->...ik", ["abij", "jk"]),
    ("...i->...", ["abi"]),
    ("i...->...i", ["iab"]),
    (" i j , j k -> k i ", ["ij", "jk"]),
    ("Ij,jK->IK", ["Ij", "jK"]),
    (",i->i", ["", "i"]),
    ("->", [""]),
]
WRONG_EQUATIONS = (
    "ij,jk->il", "ij->ii", "ij", "ij,jk,kl->il", "ij,jk->", "i-j", "ij,jk=>ik", "", "i1,j->ij", "ij->i->j", "..ij->ij",
    "...ij->ij", "ijk,jk->i", None, 3, "ij,jk->ijj", "ij,,jk->ik",
)  # fmt: skip


@draws("einsum")
def einsum(d: Draw) -> Drawn:
    equation, letters = d.pick(*EQUATIONS)
    sizes = {letter: d.size(1, 3) for letter in sorted(set("".join(letters)))}
    tensors = [d.floats(*(1 if d.chance(0.04) else sizes[x] for x in each)) for each in letters]
    if d.spoilt:
        if d.chance():
            equation = d.pick(*WRONG_EQUATIONS)
        else:
            k = d.int(0, len(tensors) - 1)
            tensors[k] = d.wrong_tensor(tensors[k])
    return (equation, *tensors), {}


# ----- joining


@draws("cat")
def cat(d: Draw) -> Drawn:
    ndim = d.int(1, 4)
    shape, axis = [d.size(1, 3) for _ in range(ndim)], d.int(0, ndim - 1)
    tensors = []
    for _ in range(d.int(1, 4)):
        shape[axis] = d.size(1, 3)
        tensors.append(d.floats(0) if d.chance(0.06) else d.any_tensor(*shape, bare=True))
    return joined(d, tensors, d.pick(axis, axis - ndim))


@draws("stack")
def stack(d: Draw) -> Drawn:
    shape = d.shape(0, 3, 3)
    tensors = [d.any_tensor(*shape, bare=True) for _ in range(d.int(1, 4))]
    return joined(d, tensors, d.int(-len(shape) - 1, len(shape)))


def joined(d: Draw, tensors: list[Any], axis: int) -> Drawn:
    """A list or tuple of tensors; in a spoilt call empty, no list, or one of them wrong."""
    if d.spoilt and d.chance(0.7):
        k = d.int(0, len(tensors) - 1)
        tensors[k] = d.wrong_tensor(tensors[k])
        if d.chance(0.2):
            tensors = d.pick([], (), None, tensors[0], 3)
        d.spoilt = False
    given = tuple(tensors) if isinstance(tensors, list) and d.chance(0.3) else tensors
    return d.call({"tensors": given}, {"dim": d.as_int(axis)}, {"dim": WRONG_DIMS})


@draws("where")
def where(d: Draw) -> Drawn:
    shape = d.shape(0, 3, 3)

    def near() -> tuple[int, ...]:
        return tuple(1 if d.chance(0.25) else n for n in shape[d.pick(0, 0, min(1, len(shape))) :])

    condition = d.bools(*near())
    x, y = (d.pick(2, -1.5, 0, True) if d.chance(0.15) else d.any_tensor(*near(), bare=True) for _ in range(2))
    if d.spoilt:
        if d.chance():
            condition = d.wrong_tensor(condition)
        else:
            x = d.wrong_tensor(x)
    return (condition, x, y), {}


for name in ("dropout", "dropout2d"):

    @draws(name, f=functools.partial(lambda op, side, *args, **options: dropped(side, op, *args, **options), name))
    def dropout(d: Draw, whole_channels: bool = name == "dropout2d") -> Drawn:
        shape = (*d.batch(), d.size(1, 3), d.size(1, 3), d.size(1, 3)) if whole_channels else d.shape(0, 4)
        return d.call(
            {"input": d.floats(*shape)},
            {"p": d.pick(0, 1, 0.0, 1.0, 0.5, 0.3), "training": d.chance(0.7)},
            {"p": (-0.1, 1.1, float("nan"), float("inf"), None, "0.5", 2, -1, (0.5,), True), "training": WRONG_BOOLS},
        )

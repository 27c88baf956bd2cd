"""Random calls of every function, right and wrong ones, against PyTorch; and the comparison itself.

Many more of them: python -m benchmarks parity --calls 1000.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from arguments import FUNCTIONS, Call, Function, Value, draw
from parity import available, judge, judged

import minifcn as mf
import minifcn.functional
import minifcn.nn
from minifcn.autograd import PRIMITIVES, Primitive

pytestmark = pytest.mark.oracle

CALLS = 60
NO_LAYERS = {"Module", "Parameter", "Sequential", "ModuleList", "init", "synchronize_batch_norm"}
METHODS = """
    + - * / ** @ < <= > >= == != [] neg abs sum mean max min var argmax reshape view transpose permute flatten squeeze
    unsqueeze expand exp log sqrt tanh relu clip clamp clone to cpu detach backward numpy data shape dtype ndim device
    item len() bool() int() float() iter() numel float double
"""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_call_agrees(name: str) -> None:
    if name not in available():
        pytest.skip(f"minifcn has no {name}")
    found = [(call, verdict.said) for call, verdict in judged(name, 0, CALLS) if verdict.kind == "disagreement"]
    told = "\n".join(f"{call}\n    {said}" for call, said in found[:5])
    assert not found, f"{len(found)} of {CALLS} calls disagree, among them\n{told}"


def test_every_public_name_has_a_generator() -> None:
    assert set(minifcn.functional.__all__) <= set(FUNCTIONS)
    assert {f"nn.{name}" for name in minifcn.nn.__all__ if name not in NO_LAYERS} <= set(FUNCTIONS)
    assert {f"Tensor.{name}".replace(".[]", "[]") for name in METHODS.split()} <= set(FUNCTIONS)


def test_a_call_is_drawn_again_by_its_number() -> None:
    assert str(draw("conv2d", 3, 17)) == str(draw("conv2d", 3, 17)) != str(draw("conv2d", 3, 18))


# ----- the comparison finds what is wrong

X = Value(np.array([[1.0, -2.0], [0.5, 3.0]]), differentiated=True)
wrong_slope_p = Primitive("wrong_slope(x) -> y", lambda x: x * 3)
wrong_slope_p.defvjp(lambda gy: gy * 2)
right_slope_p = Primitive("right_slope(x) -> y", lambda x: x * x)
# right at first order; at second, the slope of x is taken for 0
right_slope_p.defvjp(lambda gy, x: gy * (x.detach() * 2))
del PRIMITIVES["wrong_slope"], PRIMITIVES["right_slope"]  # other tests go through all of them


def verdict_of(
    ours: Callable[..., Any], theirs: Callable[..., Any], *args: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str]:
    """(kind, what is said) of a call of two functions that are made up."""

    def f(side: Any, *args: Any) -> Any:
        return (ours if type(side).__name__ == "Ours" else theirs)(*args)

    monkeypatch.setitem(FUNCTIONS, "made_up", Function(lambda d: ((), {}), f, ("made_up",), "made_up"))
    kind, said, _ = judge(Call("made_up", args, {}))
    return kind, said


def changed(x: Any) -> Any:
    with x.writing() as array:
        array += 1
    return mf.Tensor(np.zeros(2))


def refused(kind: type[Exception], message: str) -> Callable[..., Any]:
    """A function of minifcn's, as far as the comparison can see, that raises."""
    scope = {"__name__": "minifcn.made_up", "kind": kind, "message": message}
    exec("def f(*args):\n    raise kind(message)", scope)
    return scope["f"]


def theirs_raises(*_: Any) -> Any:
    raise ValueError("no")


SAME = (lambda x: x * 3, lambda x: x * 3)
FAULTS: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "value": (lambda x: x * 3.0001, lambda x: x * 3, "the result is"),
    "shape": (lambda x: (x * 3).reshape(4), lambda x: x * 3, "shape"),
    "dtype": (lambda x: (x * 3).detach().to(np.float32), lambda x: (x * 3).detach(), "dtype"),
    "number": (lambda x: (x, x), lambda x: x, "number of results"),
    "gradient": (lambda x: wrong_slope_p(x), lambda x: x * 3, "gradient 0"),
    "second order": (lambda x: right_slope_p(x), lambda x: x * x, "second-order gradient"),
    "no gradient": (lambda x: x.detach() * 3, lambda x: x * 3, "requires_grad"),
    "argument changed": (changed, lambda x: x.new_zeros(2), "was changed"),
    "type": (lambda x: 1.0, lambda x: 1, "type"),
    "missing error": (lambda x: x * 3, theirs_raises, "PyTorch raises ValueError: no; minifcn gives"),
    "needless error": (refused(ValueError, "made_up: no"), lambda x: x * 3, "PyTorch gives"),
    "kind of error": (refused(IndexError, "made_up: no"), theirs_raises, "not a ValueError"),
    "error of Python's": (lambda x: x.shape[9], theirs_raises, "not a ValueError"),
    "error from inside": (lambda x: np.reshape(x.data, (3, 5)), theirs_raises, "did not begin at a raise in minifcn"),
    "lines": (refused(ValueError, "made_up: no\nno"), theirs_raises, "more than one line"),
    "name": (refused(ValueError, "other: no"), theirs_raises, "does not begin with"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_reports(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, words = FAULTS[fault]
    monkeypatch.setattr("parity.SECOND_ORDER", 1.0)
    kind, said = verdict_of(ours, theirs, X, monkeypatch=monkeypatch)
    assert kind == "disagreement"
    assert words in said


def test_the_comparison_lets_pass_what_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict_of(*SAME, X, monkeypatch=monkeypatch) == ("values", "")
    assert verdict_of(refused(ValueError, "made_up: no"), theirs_raises, X, monkeypatch=monkeypatch) == ("errors", "")
    near = verdict_of(lambda x: x * (3 + 1e-12), lambda x: x * 3, X, monkeypatch=monkeypatch)
    assert near == ("values", "")


# ----- ON_PURPOSE hides no faults


def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: function(*args, **options) * 2.0


def always_refused(function: Callable[..., Any]) -> Callable[..., Any]:
    return refused(ValueError, f"{function.__name__}: no")


def never_refused(function: Callable[..., Any]) -> Callable[..., Any]:
    def f(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except (ValueError, TypeError, RuntimeError):
            return mf.Tensor(np.zeros(2))

    return f


MUTATIONS = [
    ("Tensor.var", minifcn.functional.reduce, "var", doubled, "values"),
    ("interpolate", minifcn.functional, "interpolate", doubled, "values"),
    ("einsum", minifcn.functional, "einsum", doubled, "values"),
    ("cross_entropy", minifcn.functional, "cross_entropy", never_refused, "errors"),
    ("linear", minifcn.functional, "linear", never_refused, "errors"),
    ("conv_transpose2d", minifcn.functional, "conv_transpose2d", always_refused, "values"),
    ("max_unpool2d", minifcn.functional, "max_unpool2d", always_refused, "values"),
    ("pad", minifcn.functional, "pad", always_refused, "values"),
    ("conv2d", minifcn.functional, "conv2d", always_refused, "values"),
    ("cat", minifcn.functional, "cat", always_refused, "values"),
]


@pytest.mark.parametrize(("name", "room", "attribute", "mutate", "kind"), MUTATIONS, ids=lambda v: str(v)[:20])
def test_what_differs_on_purpose_hides_no_fault(
    name: str, room: Any, attribute: str, mutate: Callable[..., Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the calls that agree, nearly all must be reported when the function is broken, and not excused."""
    before = [verdict.kind for _, verdict in judged(name, 11, 150)]
    monkeypatch.setattr(room, attribute, mutate(getattr(room, attribute)))
    after = [verdict.kind for _, verdict in judged(name, 11, 150)]
    affected = [b for a, b in zip(before, after, strict=True) if a == kind]
    assert len(affected) > 20
    # many variances are drawn of one value, or of equal ones: NaN and 0 are their own doubles
    assert affected.count("disagreement") >= (0.45 if name == "Tensor.var" else 0.8) * len(affected), affected
    assert affected.count("on purpose") <= 0.1 * len(affected), affected

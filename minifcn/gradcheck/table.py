"""`python -m minifcn gradcheck`: run the cases and the networks, and print a line for each comparison as it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from minifcn import models
from minifcn.gradcheck.cases import Case, table
from minifcn.gradcheck.check import Check, iter_checks
from minifcn.gradcheck.models import FAMILIES, WIDTH, Network, check_model
from minifcn.kernels import Unsupported, algorithms, using
from minifcn.kernels.registry import REFERENCE
from minifcn.models.common import nearest

ALL = "all"
COTANGENT = "cotangent"
NUMBERS = " {:>5} {:>10} {:>10} {:>7} {}"  # order, gradient, difference, error, verdict
ROW = "{:<27} {:<34} {:<9}" + NUMBERS  # operation, case, argument: 120 columns with the longest verdict
NETWORK_ROW = "{:<27} {:<44}" + NUMBERS  # network, parameter

Say = Callable[[str], None]


@dataclass
class Tally:
    """What was compared, and how it went."""

    checks: int = 0
    failed: int = 0
    kinks: int = 0
    unsupported: int = 0
    operations: set[str] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)

    def summary(self) -> str:
        """The last line of the table."""
        if self.failed:
            return f"{_count(self.failed, 'check')} of {self.checks} FAILED"
        of = [_count(len(self.operations), "operation")] * bool(self.operations)
        of += [_count(len(self.networks), "network")] * bool(self.networks)
        more = f", {self.kinks} of them at kinks" if self.kinks else ""
        more += f"; {_count(self.unsupported, 'case')} unsupported" if self.unsupported else ""
        return f"{_count(self.checks, 'check')} of {' and '.join(of) or 'nothing'} passed{more}"


def names() -> list[str]:
    """What can be checked: the operations, then the networks."""
    return [*table(), *models.available()]


def run(
    name: str,
    order: int = 2,
    dtype: DTypeLike = np.float64,
    device: str = "cpu",
    algorithm: Sequence[str] = (),
    say: Say = print,
) -> Tally:
    """Check one operation, one network, or all of them, and print what comes out.

    Args:
        name: one of names(), an operation without what comes before the dot ("conv2d" is the primitive and F.conv2d),
            or "all": every operation, and one network of each family.
        order, dtype, device: as in check_grad.
        algorithm: kernels to use instead of the usual: "NAME" for every operation that has an algorithm of that name,
            "OP=NAME" for one.
        say: prints a line.

    Returns:
        How many comparisons were made, and how many failed.

    Raises:
        ValueError: an unknown name or algorithm; the message has the nearest.
        RuntimeError: device="cuda" where no GPU can be used.
    """
    operations, networks = _find(name)
    chosen = _algorithms(algorithm, "numpy" if device == "cpu" else "cupy")
    if name == ALL and REFERENCE in chosen.values():
        say("networks are left out: in index loops each takes several minutes (name one to check it all the same)")
        networks = []
    tally = Tally()
    say(ROW.format("operation", "case", "argument", "order", "gradient", "difference", "error", "verdict"))
    prepared = {op: table()[op]() for op in operations}
    with using(**chosen):
        for op, cases in prepared.items():
            _check_operation(op, cases, order, dtype, device, tally, say)
        for model in networks:
            _check_network(model, order, dtype, device, tally, say)
    if tally.kinks:
        say("kink (n): at n coordinates there is no slope, and the gradient lies between those on either side")
    say(tally.summary())
    return tally


def _find(name: str) -> tuple[list[str], list[str]]:
    """(operations, networks) of that name."""
    if name == ALL:
        return list(table()), list(FAMILIES)
    if name in models.available():
        return [], [name]
    found = [op for op in table() if name in (op, _short(op))]
    if not found:
        near = nearest(name, [ALL, *names(), *map(_short, table())])
        raise ValueError(
            f"gradcheck: there is no operation or network {name!r}; did you mean {near!r}? (gradcheck without a name "
            "lists all)"
        )
    return found, []


def _short(op: str) -> str:
    """F.conv2d as conv2d."""
    return op.partition(".")[2] or op


def _algorithms(words: Sequence[str], backend: str) -> dict[str, str]:
    """The algorithm of each operation that NAME and OP=NAME ask for."""
    available: dict[str, list[str]] = {}
    for kernel in algorithms(backend=backend):
        available.setdefault(kernel.op, []).append(kernel.algorithm)
    chosen: dict[str, str] = {}
    for word in words:
        op, equals, name = word.rpartition("=")
        if equals and op not in available:
            near = nearest(op, available)
            raise ValueError(f"gradcheck: no operation {op!r} has algorithms; did you mean {near!r}?")
        having = [o for o in ([op] if equals else available) if name in available[o]]
        if not having:
            possible = available[op] if equals else sorted({n for every in available.values() for n in every})
            raise ValueError(
                f"gradcheck: there is no algorithm {name!r}{f' for {op}' * bool(equals)}; did you mean "
                f"{nearest(name, possible)!r}? (there are {', '.join(possible)})"
            )
        chosen.update(dict.fromkeys(having, name))
    return chosen


def _check_operation(
    op: str, cases: Sequence[Case], order: int, dtype: DTypeLike, device: str, tally: Tally, say: Say
) -> None:
    tally.operations.add(op)
    for case in cases:
        labels = [*case.arguments, *[COTANGENT] * order]
        try:
            for check in iter_checks(case.function, case.arrays, range(1, order + 1), dtype=dtype, device=device):
                _report(check, ROW.format(op, case.name, labels[check.argument], *_numbers(check)), tally, say)
        except Unsupported as error:
            _report_unsupported(op, case.name, error, tally, say)


def _check_network(model: str, order: int, dtype: DTypeLike, device: str, tally: Tally, say: Say) -> None:
    tally.networks.add(model)
    then = ", then the parameters of each part together" if order > 1 else ""
    say(f"{model}, channels × 1/{round(1 / WIDTH)}, two images of {Network.of(model).size}: each parameter{then}")
    try:
        for label, check in check_model(model, order, dtype, device):
            _report(check, NETWORK_ROW.format(model, label, *_numbers(check)), tally, say)
    except Unsupported as error:
        _report_unsupported(model, "", error, tally, say)


def _numbers(check: Check) -> tuple[int, str, str, str, str]:
    verdict = f"kink ({check.kinks})" if check.verdict == "kink" else check.verdict
    return check.order, f"{check.analytic:.3e}", f"{check.numeric:.3e}", f"{check.error:.0e}", verdict


def _report(check: Check, row: str, tally: Tally, say: Say) -> None:
    say(row)
    tally.checks += 1
    tally.kinks += check.verdict == "kink"
    if check.verdict == "FAIL":
        tally.failed += 1
        if check.worst is None:
            say(f"    {check.fault}")
        else:
            at, own, other = check.worst
            say(f"    worst at {at}: the gradient is {own:.9g} and the difference {other:.9g}")


def _report_unsupported(name: str, case: str, error: Unsupported, tally: Tally, say: Say) -> None:
    say(ROW.format(name, case, "", "", "", "", "", "unsupported"))
    say(f"    {error}")
    tally.unsupported += 1


def _count(number: int, noun: str) -> str:
    """
    >>> _count(1, "check"), _count(2, "check")
    ('1 check', '2 checks')
    """
    return f"{number} {noun}{'s' * (number != 1)}"

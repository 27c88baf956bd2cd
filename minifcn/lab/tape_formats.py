"""A trace as a table, as a graph and as events, and the last two written to files."""

from __future__ import annotations

import json
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from minifcn.training.files import replacing

if TYPE_CHECKING:
    from minifcn.lab.tape import Call, Choice, Trace, Value

WIDTH = 120  # columns of a table
KINDS = 10  # how many kinds of primitives the summary lists
NAMED = 6  # how many calls of one algorithm are listed by number
DEPTH = 2  # the graph has a box for each layer whose name has no more parts
FILLS = {"forward": "#d7e8f7", "backward": "#fbdcc0"}
LANES = {"forward": 1, "backward": 2}  # thread ids in the events


# -- the table


class _Columns(NamedTuple):
    """Widths of the columns that depend on what stands in them."""

    primitive: int
    algorithm: int

    @property
    def shapes(self) -> int:
        return WIDTH - 40 - self.primitive - self.algorithm

    def row(self, number: str, primitive: str, shapes: str, algorithm: str, ms: str, made: str, kept: str) -> str:
        return (
            f"{number:>6}  {primitive:<{self.primitive}}  {shapes:<{self.shapes}}  {algorithm:<{self.algorithm}}"
            f"{ms:>10}{made:>9}{kept:>9}"
        ).rstrip()


def table(trace: Trace) -> str:
    """See Trace.table."""
    calls = trace.calls
    columns = _Columns(*(max((len(getattr(c, name)) for c in calls), default=0) for name in _Columns._fields))
    usual = _usual(calls)
    lines = [
        f"{trace.title}: {_many(len(calls), 'call')} of primitives; {usual} where no dtype is said",
        "ms: the computing alone; made: bytes of results, none for a view; kept: bytes that stay until backward for it",
    ]
    for phase, inside in groupby(calls, key=partial(_phase, trace)):
        lines += ["", f"{phase:<{WIDTH - 28}}{'ms':>10}{'made':>9}{'kept':>9}"]
        for heading, together in groupby(inside, key=partial(_heading, trace)):
            lines += [f"  {heading}"] if heading else []
            lines += [line for c in together for line in _call_rows(columns, c, usual)]
    if trace.outputs and trace.back == len(calls):
        lines += ["", "no backward: none of these calls leads from a leaf that requires gradients to an output"]
    return "\n".join([*lines, "", *_algorithms(calls), "", *_totals(trace), "", *_slowest(calls)])


def _usual(calls: Sequence[Call]) -> str:
    """The dtype of most results."""
    return next((dtype for dtype, _ in Counter(c.dtype for c in calls).most_common(1)), "float32")


def _phase(trace: Trace, c: Call) -> str:
    """The line above calls of one phase. A function that goes back itself has such phases of its own."""
    if c.phase == "forward" or not trace.outputs or c.number < trace.back:
        return c.phase
    shapes = ", ".join(map(_shape, trace.outputs))
    return f"backward from ones for {'each output' if len(trace.outputs) > 1 else 'the output'}: {shapes}"


def _heading(trace: Trace, c: Call) -> str:
    """The line above calls that belong together."""
    if c.phase == "forward":
        return c.layer
    if c.of is None:
        return "a sum, where cotangents of one value meet" if c.primitive == "add" else "VJP of what was not traced"
    return f"VJP of #{c.of} {trace.calls[c.of].primitive}" + (f" in {c.layer}" if c.layer else "")


def _call_rows(columns: _Columns, c: Call, usual: str) -> list[str]:
    """One call: a line, and more where its shapes need them."""
    words = [_typed(a.shape, a.dtype, usual) for a in c.args] + [f"→ {_typed(c.shape, c.dtype, usual)}"]
    first, *rest = _fold(words, columns.shapes)
    made, kept = (_bytes(n) if n else "–" for n in (c.bytes, c.kept))
    lines = [columns.row(f"#{c.number}", c.primitive, first, c.algorithm, f"{c.seconds * 1e3:.3f}", made, kept)]
    return lines + [columns.row("", "", line, "", "", "", "") for line in rest]


def _fold(words: Sequence[str], width: int) -> list[str]:
    """The words in lines of at most `width`, where that is possible, none of them broken."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= width:
            lines[-1] += "  " + word
        else:
            lines.append(word)
    return lines


def _algorithms(calls: Sequence[Call]) -> list[str]:
    """What the registry chose and why, each once."""
    users: dict[Choice, list[int]] = {}
    for c in calls:
        for choice in c.kernels:
            users.setdefault(choice, []).append(c.number)
    lines = ["algorithms, and why"]
    for choice, numbers in sorted(users.items(), key=lambda item: (item[0].op, item[0].algorithm)):
        named = ", ".join(f"#{n}" for n in numbers[:NAMED]) + ", …" * (len(numbers) > NAMED)
        lines.append(f"  {choice.op} by {choice.algorithm} in {_many(len(numbers), 'call')} ({named}): {choice.why}")
        for name, why in choice.passed:
            lines += textwrap.wrap(f"not {name}: {why}", WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 8)
    return lines if users else ["algorithms: no kernel of the registry was needed"]


def _totals(trace: Trace) -> list[str]:
    lines = [f"{'in all':<30}{'calls':>8}{'ms':>12}{'made':>12}{'kept':>12}"]
    for phase in ("forward", "backward"):
        inside = [c for c in trace.calls if c.phase == phase]
        ms, made, kept = _ms(inside), _bytes(sum(c.bytes for c in inside)), _bytes(sum(c.kept for c in inside))
        lines += [f"  {phase:<28}{len(inside):>8}{ms:>12.3f}{made:>12}{kept:>12}"] if inside else []
    lines.append(
        f"  {'from begin to end':<28}{len(trace.calls):>8}{trace.seconds * 1e3:>12.3f}  with the tracing itself"
    )
    return lines


def _slowest(calls: Sequence[Call]) -> list[str]:
    total = _ms(calls)
    kinds = {name: [c for c in calls if c.primitive == name] for name in {c.primitive for c in calls}}
    order = sorted(kinds, key=lambda name: (-_ms(kinds[name]), name))
    lines = [f"{'slowest primitives':<30}{'calls':>8}{'ms':>12}{'share':>12}"]
    for name in order[:KINDS]:
        ms = _ms(kinds[name])
        lines.append(f"  {name:<28}{len(kinds[name]):>8}{ms:>12.3f}{100 * ms / max(total, 1e-9):>10.1f} %")
    return lines


def _ms(calls: Iterable[Call]) -> float:
    return sum(c.end - c.begin for c in calls) / 1e6


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _shape(shape: tuple[int, ...]) -> str:
    """
    >>> _shape((1, 3, 64, 96)), _shape(())
    ('1×3×64×96', 'scalar')
    """
    return "×".join(map(str, shape)) or "scalar"


def _typed(shape: tuple[int, ...], dtype: str, usual: str = "") -> str:
    return _shape(shape) if dtype == usual else f"{_shape(shape)} {dtype}"


def _bytes(number: int) -> str:
    """
    >>> [_bytes(n) for n in (0, 999, 4096, 61_440_000, 7_000_000_000)]
    ['0 B', '999 B', '4.10 kB', '61.4 MB', '7.00 GB']
    """
    if number < 1000:
        return f"{number} B"
    scaled, unit = next((number / s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if number >= s)
    return f"{scaled:#.3g} {unit}" if scaled < 100 else f"{scaled:.0f} {unit}"


# -- the graph


def graphviz(trace: Trace) -> str:
    """See Trace.graphviz.

    Forward runs down and backward up beside it: edges of backward are written from the later call to the earlier one,
    to be drawn with the arrow's head at the tail. A dashed edge leads from a call to the one whose VJP made it, and
    pale edges to it from values that the forward pass left. Calls are in the boxes of their layers. Parameters and
    constants are drawn outside of layers only; within, a call names those that it is given.
    """
    usual = _usual(trace.calls)
    first: dict[str, Call] = {}  # where each value is given first that no call made
    for c in trace.calls:
        for a in c.args:
            if a.source is None:
                first.setdefault(a.origin, c)
    drawn = [name for name, c in first.items() if not c.layer or name.startswith(("input ", "ones "))]
    leaves = {name: f"v{k}" for k, name in enumerate(drawn)}
    lines = [
        "digraph trace {",
        '  graph [fontname="Helvetica", fontsize=11, color="#9aa5b1", nodesep=0.25, ranksep=0.3, labeljust=l];',
        '  node [shape=box, style=filled, fontname="Helvetica", fontsize=10, margin="0.08,0.04", color="#5b6770"];',
        '  edge [color="#5b6770", arrowsize=0.6];',
    ]
    for name, node in leaves.items():
        shape = next(_typed(a.shape, a.dtype, usual) for a in first[name].args if a.origin == name)
        lines.append(f'  {node} [label={_quoted(name, shape)}, shape=ellipse, fillcolor="#eeeeee"];')
    nodes = [(_box(c, trace.calls), _node(c, leaves, usual)) for c in trace.calls]
    lines += _boxes(nodes, 0, "  ")
    for c in trace.calls:
        for a in {(a.source, a.origin): a for a in c.args}.values():
            maker = first[a.origin] if a.source is None else trace.calls[a.source]
            source = leaves.get(a.origin) if a.source is None else f"c{a.source}"
            if source is None:
                continue
            if c.phase == "forward":
                lines.append(f"  {source} -> c{c.number};")
            elif maker.phase == "forward":
                lines.append(f'  {source} -> c{c.number} [constraint=false, color="#b8c0c8"];')
            else:
                lines.append(f"  c{c.number} -> {source} [dir=back];")
        if c.of is not None:
            lines.append(f'  c{c.number} -> c{c.of} [minlen=0, style=dashed, color="#d9822b"];')
    return "\n".join([*lines, "}", ""])


def _box(c: Call, calls: Sequence[Call]) -> list[str]:
    """Parts of the name of the layer in whose box a call is drawn. A sum of cotangents goes where the first is from."""
    source = c.args[0].source if c.phase == "backward" and c.of is None else None
    layer = c.layer if source is None else calls[source].layer
    return layer.split(".")[:DEPTH] if layer else []


def _boxes(nodes: Sequence[tuple[list[str], str]], depth: int, indent: str) -> Iterator[str]:
    """The nodes, those of one layer in a box, and boxes in boxes."""
    inside: dict[str, list[tuple[list[str], str]]] = {}
    for box, node in nodes:
        if len(box) > depth:
            inside.setdefault(".".join(box[: depth + 1]), []).append((box, node))
        else:
            yield indent + node
    for layer, held in inside.items():
        yield f"{indent}subgraph {_quoted(f'cluster_{layer}')} {{"
        yield f"{indent}  label={_quoted(layer)};"
        yield from _boxes(held, depth + 1, indent + "  ")
        yield indent + "}"


def _node(c: Call, leaves: Mapping[str, str], usual: str) -> str:
    time = f" · {c.seconds * 1e3:.3f} ms" if c.bytes else ""
    words = [f"#{c.number} {c.primitive}", f"{_typed(c.shape, c.dtype, usual)} · {c.algorithm}{time}"]
    undrawn = [f"{a.name} {_shape(a.shape)}" for a in c.args if a.source is None and a.origin not in leaves]
    words += [", ".join(undrawn)] if undrawn and c.phase == "forward" else []
    style = ', style="filled,dashed"' if c.library == "view" else ""
    return f'c{c.number} [label={_quoted(*words)}, fillcolor="{FILLS[c.phase]}"{style}];'


def _quoted(*lines: str) -> str:
    """Lines of text as a string of Graphviz's language."""
    return '"' + r"\n".join(line.replace("\\", r"\\").replace('"', r"\"") for line in lines) + '"'


# -- the events


def events(trace: Trace) -> dict[str, Any]:
    """See Trace.events.

    Two lanes, forward and backward. On each, a call lies within the bars of its layers, and in backward within that of
    the VJP; an arrow leads to it from the forward call. Times are microseconds, with the nanoseconds as decimals.
    """
    names: list[tuple[str, int, str]] = [("process_name", 0, f"minifcn trace of {trace.title}")]
    names += [("thread_name", lane, phase) for phase, lane in LANES.items()]
    found = [
        {"ph": "M", "name": name, "ts": 0, "pid": 1, "tid": lane, "args": {"name": said}} for name, lane, said in names
    ]
    timed = [event for phase in LANES for event in _lane([c for c in trace.calls if c.phase == phase], trace.calls)]
    timed.sort(key=lambda event: (event["ts"], -event.get("dur", 0)))  # what contains comes before what is contained
    return {"traceEvents": found + timed, "displayTimeUnit": "ms"}


def _lane(calls: Sequence[Call], every: Sequence[Call]) -> Iterator[dict[str, Any]]:
    """The bars of one phase and the arrows to them; what contains comes before what is contained."""
    around = {c.number: _around(c, every) for c in calls}
    for depth in range(1, 1 + max(map(len, around.values()), default=0)):
        for bars, inside in groupby(calls, key=lambda c: around[c.number][:depth]):
            if len(bars) == depth:
                yield _bar(list(inside), *bars[-1])
    for c in calls:
        yield _bar([c], c.phase, c.primitive) | {"args": _details(c)}
        if c.of is not None:
            arrow = {"cat": "VJP", "name": "VJP", "id": c.number, "pid": 1}
            start = every[c.of]
            yield {"ph": "s", "ts": start.begin / 1000, "tid": LANES[start.phase], **arrow}
            yield {"ph": "f", "ts": c.begin / 1000, "tid": LANES[c.phase], "bp": "e", **arrow}


def _around(c: Call, every: Sequence[Call]) -> list[tuple[str, str]]:
    """(category, name) of the bars that a call lies within, from outside to inside."""
    parts = c.layer.split(".") if c.layer else []
    bars = [("layer", ".".join(parts[: k + 1])) for k in range(len(parts))]
    return bars if c.of is None else [*bars, ("VJP", f"VJP of #{c.of} {every[c.of].primitive}")]


def _bar(calls: Sequence[Call], category: str, name: str) -> dict[str, Any]:
    begin, end = min(c.begin for c in calls), max(c.end for c in calls)
    common = {"name": name, "cat": category, "pid": 1, "tid": LANES[calls[0].phase]}
    return {"ph": "X", "ts": begin / 1000, "dur": (end - begin) / 1000, **common}


def _details(c: Call) -> dict[str, Any]:
    """What the viewer shows of a call that is clicked on."""
    made = {a.name: _typed(a.shape, a.dtype) + f" from {_from(a)}" for a in c.args}
    details = {"number": c.number, "layer": c.layer, **made, "result": _typed(c.shape, c.dtype)}
    details |= {"algorithm": c.algorithm, "why": c.why, "bytes": c.bytes, "kept": c.kept}
    return details if c.of is None else {**details, "VJP of": c.of}


def _from(a: Value) -> str:
    return a.origin if a.source is None else f"#{a.source}"


# -- files


def write_graph(trace: Trace, file: str | os.PathLike[str]) -> None:
    """Write Trace.graphviz."""
    with replacing(file) as draft:
        draft.write_text(trace.graphviz(), encoding="utf-8")


def write_events(trace: Trace, file: str | os.PathLike[str]) -> None:
    """Write Trace.events as JSON."""
    with replacing(file) as draft:
        draft.write_text(json.dumps(trace.events(), ensure_ascii=False), encoding="utf-8")

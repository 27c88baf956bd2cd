"""How often minifcn and PyTorch agree, function by function, on random calls: right ones and wrong ones.

The comparison is the tests' (tests/oracle/parity.py). A disagreement is printed with its arguments; its number and the
seed draw the same call again.
"""

from __future__ import annotations

import collections
import sys
from pathlib import Path
from typing import Any

from .measure import percent

KINDS = ("values", "errors", "on purpose", "disagreement")


def rows(calls: int, seed: int, only: str | None, verbose: bool) -> list[dict[str, Any]]:
    """One row per function: how many calls gave values on both sides, errors on both, and so on."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "oracle"))
    import parity
    import torch

    torch.set_num_threads(1)  # the tensors are small
    names = sorted(parity.available()) if only is None else [only]
    if not set(names) <= set(parity.available()):
        raise SystemExit(f"parity: {only} is none of {', '.join(sorted(parity.available()))}")
    print(f"{'function':24} {'calls':>7} " + " ".join(f"{kind:>12}" for kind in KINDS) + "   agree")
    return [_row(parity, name, calls, seed, verbose) for name in names]


def _row(parity: Any, name: str, calls: int, seed: int, verbose: bool) -> dict[str, Any]:
    counts: collections.Counter[str] = collections.Counter()
    for number, (call, verdict) in enumerate(parity.judged(name, seed, calls)):
        counts[verdict.kind] += 1
        if verbose and verdict.said:
            reason = f"\n    on purpose: {verdict.difference.reason}" if verdict.difference else ""
            print(f"  seed {seed}, call {number}: {call}\n    {verdict.said}{reason}")
    agree = percent(calls - counts["on purpose"], counts["disagreement"])
    print(f"{name:24} {calls:7} " + " ".join(f"{counts[kind]:12}" for kind in KINDS) + f" {agree:>8}", flush=True)
    return {"function": name, "calls": calls, **{k.replace(" ", "_"): counts[k] for k in KINDS}, "agree": agree}

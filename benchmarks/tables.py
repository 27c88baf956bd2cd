"""README's tables, generated from the JSON results between markers, so that no figure is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def update_readme() -> None:
    """Put the current tables into README.md."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{render()}{END}{after}", encoding="utf-8")


def render() -> str:
    """The tables of all results that exist, as Markdown."""
    parts = []
    for name in ("training_step", "import"):
        path = RESULTS / f"{name}.json"
        if path.is_file():
            parts.append({"training_step": _training_step, "import": _import}[name](json.loads(path.read_text())))
    return "\n".join(parts)


def _where(result: dict[str, Any]) -> str:
    e = result["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in e["versions"].items() if k in ("numpy", "torch"))
    return f"`{result['command']}` — {e['processor']}, {e['threads']} threads, {', '.join(e['blas'])}, {versions}\n"


def _training_step(result: dict[str, Any]) -> str:
    lines = [
        _where(result),
        "| network | step | minifcn | PyTorch | time ratio (min–max) | peak memory minifcn / PyTorch |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        ours, theirs, r = row["minifcn"], row["torch"], row["ratio"]
        lines.append(
            f"| `{row['model']}` | {row['what']} | {ours['median_s']:.2f} s | {theirs['median_s']:.2f} s "
            f"| {r['of_medians']:.2f} ({r['min']:.2f}–{r['max']:.2f}) "
            f"| {ours['peak_rss_gb']:.2f} / {theirs['peak_rss_gb']:.2f} GB |"
        )
    return "\n".join(lines) + "\n"


def _import(result: dict[str, Any]) -> str:
    row = result["rows"][0]
    return (
        f"{_where(result)}\n`import minifcn` takes {row['ratio']['of_medians']:.2f} times `import numpy` "
        f"({row['minifcn']['median_s'] * 1e3:.0f} against {row['numpy']['median_s'] * 1e3:.0f} ms).\n"
    )

"""How much longer `import minifcn` takes than `import numpy`, each in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks.measure import interleaved, ratio, spread


def rows(rounds: int) -> list[dict[str, Any]]:
    """One row: wall time of a whole `python -c "import …"` less that of `python -c pass`, taking turns."""

    def run(code: str) -> float:
        script = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
        return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)

    seconds: dict[str, list[float]] = {"numpy": [], "minifcn": []}
    interleaved({name: lambda name=name: seconds[name].append(run(f"import {name}")) for name in seconds}, rounds)
    ours, theirs = seconds["minifcn"][1:], seconds["numpy"][1:]
    return [{"what": "import", "minifcn": spread(ours), "numpy": spread(theirs), "ratio": ratio(ours, theirs)}]

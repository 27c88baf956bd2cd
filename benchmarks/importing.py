"""How much longer `import minifcn` takes than `import numpy`, each in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from .measure import interleaved, ratio, spread


def rows(rounds: int) -> list[dict[str, Any]]:
    """One row: the time of the import statement in fresh processes, taking turns. Bytecode is compiled beforehand, as
    pip does when it installs."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> float:
        script = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
        command = [sys.executable, "-c", script]
        return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

    seconds: dict[str, list[float]] = {"numpy": [], "minifcn": []}
    interleaved({name: lambda name=name: seconds[name].append(run(f"import {name}")) for name in seconds}, rounds)
    ours, theirs = seconds["minifcn"][1:], seconds["numpy"][1:]
    return [{"what": "import", "minifcn": spread(ours), "numpy": spread(theirs), "ratio": ratio(ours, theirs)}]

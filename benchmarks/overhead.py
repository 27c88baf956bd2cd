"""What one operation costs beside its arithmetic: a chain of 1,000 operations on 2×2 tensors, forward and backward.

Both sides build and walk the same graph; the values and gradients are compared first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .measure import interleaved, ratio, spread

OPS = 1000
X, Y = np.full((2, 2), 0.5, np.float32), np.full((2, 2), 0.7, np.float32)


def arithmetic(x: Any, y: Any) -> Any:
    """Products, sums and differences of a running value with two leaves."""
    z = x
    for _ in range(OPS // 4):
        z = z * y
        z = z + x
        z = z - y
        z = z * y
    return z


def functions(x: Any, y: Any) -> Any:
    """The same with functions of one argument in between."""
    z = x
    for _ in range(OPS // 4):
        z = (z * y).tanh()
        z = (z + x).relu()
    return z


CHAINS: dict[str, Callable[[Any, Any], Any]] = {
    "`* + - *` with two leaves": arithmetic,
    "`* tanh + relu` with two leaves": functions,
}


def rows(rounds: int) -> list[dict[str, Any]]:
    """One row for each chain."""
    import torch

    import minifcn as mf

    def ours(chain: Callable[[Any, Any], Any]) -> Any:
        x, y = mf.Tensor(X, requires_grad=True), mf.Tensor(Y, requires_grad=True)
        z = chain(x, y)
        z.backward(X)
        return z, x.grad, y.grad

    def theirs(chain: Callable[[Any, Any], Any]) -> Any:
        x, y = (torch.tensor(a, requires_grad=True) for a in (X, Y))
        z = chain(x, y)
        z.backward(torch.tensor(X))
        return z.detach(), x.grad, y.grad

    found = []
    for name, chain in CHAINS.items():
        for a, b in zip(ours(chain), theirs(chain), strict=True):
            np.testing.assert_allclose(np.asarray(a), b.numpy(), rtol=1e-5)
        times = interleaved({"minifcn": lambda c=chain: ours(c), "torch": lambda c=chain: theirs(c)}, rounds, warmup=3)
        found.append(
            {
                "what": name,
                "operations": OPS,
                "minifcn": spread(times["minifcn"]),
                "torch": spread(times["torch"]),
                "ratio": ratio(times["minifcn"], times["torch"]),
            }
        )
    return found

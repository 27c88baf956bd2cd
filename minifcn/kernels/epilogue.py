"""What follows a convolution, done to scores that are still in a cache: y ← max(y·scale + b + add, 0)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minifcn.array import Array


class Epilogue(NamedTuple):
    """b and scale (O,), add (N, O, P, Q), each of them or None, and whether negative scores become 0."""

    b: Array | None = None
    scale: Array | None = None
    add: Array | None = None
    relu: bool = False

    def of(self, channels: slice) -> Epilogue:
        """What follows for some of the channels."""
        b, scale = (None if v is None else v[channels] for v in (self.b, self.scale))
        return Epilogue(b, scale, None if self.add is None else self.add[:, channels], self.relu)

    def into(self, w: Array, scores: int) -> tuple[Array, Epilogue]:
        """The filters w (O, C/groups, I, J) times the scale, and the rest; where the scores are fewer, all as it is."""
        if self.scale is None or w.size > scores:
            return w, self
        return w * self.scale.reshape(-1, 1, 1, 1), self._replace(scale=None)

    def apply(self, y: Array, channels: slice, add: Array | None) -> None:
        """In place, to scores y (O′, …) of these channels; add is its part for them."""
        column = (-1, *(1,) * (y.ndim - 1))
        if self.scale is not None:
            y *= self.scale[channels].reshape(column)
        if self.b is not None:
            y += self.b[channels].reshape(column)
        if add is not None:
            y += add
        if self.relu:
            np.maximum(y, np.zeros(y.shape[-1], y.dtype), out=y)  # a number in their place would do without vectors

    def of_nothing(self, y: Array) -> Array:
        """The scores y (N, O, P, Q) where nothing is added up."""
        y[...] = 0
        for n, scores in enumerate(y):
            self.apply(scores, slice(0, len(scores)), None if self.add is None else self.add[n])
        return y

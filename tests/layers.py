"""Random transposed convolutions, for the tests of the laboratory."""

from typing import Any

import numpy as np

from minifcn import lab
from minifcn.geometry import ConvGeometry


def draw(rng: np.random.Generator, channels: tuple[int, int] = (1, 1)) -> tuple[ConvGeometry, dict[str, Any]]:
    """A random valid layer, and its arguments under PyTorch's names."""
    while True:
        stride, dilation = rng.integers(1, 5, 2).tolist(), rng.integers(1, 4, 2).tolist()
        settings = {
            "stride": tuple(stride),
            "padding": tuple(rng.integers(0, 7, 2).tolist()),
            "output_padding": tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True)),
            "dilation": tuple(dilation),
        }
        try:
            scores, taps = tuple(rng.integers(1, 7, 2).tolist()), tuple(rng.integers(1, 6, 2).tolist())
            return lab.layer(scores, taps, **settings, channels=channels), settings
        except ValueError:  # an output without pixels
            continue

"""Pictures of one transposed convolution: a sheet that explains it, and the filter sliding over its input."""

from minifcn.lab.pictures.animation import animate
from minifcn.lab.pictures.sheet import picture

__all__ = ["picture", "animate"]
